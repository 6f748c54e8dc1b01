"""board: what a store, a folder of submissions and a ledger say, and what they lack."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from competition.blend.blend import run_blend
from competition.board.board import build_board_tables
from competition.console import Table, print_tables
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.members import read_member
from competition.predictions.store import ResultKey, Store
from competition.predictions.variant_scores import VariantScore, score_variants
from competition.profile import Competition
from competition.scoring.criteria import describe_scoring
from competition.submission.ledger import build_score, open_ledger
from competition.upload.send import SubmitOptions, submit
from tests.competition.predictions.test_members import fill, make_result
from tests.competition.upload.test_send import write

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def build(competition: Competition) -> dict[str, Table]:
    return {table.name: table for table in build_board_tables(competition, now=NOON)}


def rows_of(table: Table, key: str) -> dict[str, dict[str, Any]]:
    return {row[key]: dict(row) for row in table.rows}


def test_what_can_be_done_next_is_advised_and_no_more(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "v")
    notes = {name: " ".join(table.notes) for name, table in build(tiny_competition).items()}
    assert "run: python run.py blend" in notes["blends"]
    assert "Nothing was sent yet; run blend first." in notes["submissions"]
    write(tiny_competition)
    notes = {name: " ".join(table.notes) for name, table in build(tiny_competition).items()}
    assert "run: python run.py submit" in notes["submissions"]
    sample = replace(tiny_competition, limit=40)
    assert "cannot be submitted" in build(sample)["submissions"].notes[0]


def test_a_damaged_record_is_not_called_absent(tiny_competition: Competition) -> None:
    spec = write(tiny_competition).with_suffix(".json")
    spec.write_text("{", "utf-8")
    assert "blend.json is damaged" in build(tiny_competition)["blends"].rows[0]["state"]
    spec.unlink()
    assert "there is no blend.json" in build(tiny_competition)["blends"].rows[0]["state"]


def test_an_empty_store_says_what_to_run(
    tiny_competition: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = build(tiny_competition)
    assert [list(table.rows) for table in tables.values()] == [[], [], []]
    print_tables(list(tables.values()), as_json=False)
    printed = capsys.readouterr().out
    assert "python run.py fold" in printed
    assert "run.py blend" not in printed, "nothing is there to blend"
    assert "run.py submit" not in printed, "nothing is there to send"
    assert "3 of 3" in printed
    assert not tiny_competition.oof_dir.exists()
    assert not tiny_competition.submissions_dir.exists()


def test_variants_are_scored_on_their_oof_rows(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "v", seeds=(1, 2))
    store.write(make_result(prepared, ResultKey("v", 1, 0)), {"rows_per_s": 190.0})
    row = rows_of(build(tiny_competition)["variants"], "variant")["v"]
    member = read_member(store, "v", prepared)
    gold, pred = prepared.corpus.train.gold, member.oof.argmax(axis=1)
    expected = f1_score(gold, pred, labels=[0, 2, 3], average="micro")
    assert row["micro_f1"] == pytest.approx(expected)
    low, high = row["micro_f1_interval"]
    assert low < row["micro_f1"] < high
    assert 0 < row["auprc"] < 1
    low, high = row["expected_f1_interval"]
    assert low <= row["expected_f1"] <= high
    assert 0 < row["expected_auprc"] < 1
    assert (row["why"], row["seeds"], row["done"]) == ("the idea", "1, 2", "6/6")
    assert (row["rows_per_s"], row["lacks"]) == (190, "")


def test_what_is_lacking_is_named(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "half")
    store.path(ResultKey("half", 1, 2)).unlink()
    fill(store, prepared, "mixed")
    store.write(make_result(prepared, ResultKey("mixed", 1, 0), recipe="other"), {})
    fill(store, prepared, "damaged")
    store.path(ResultKey("damaged", 1, 0)).write_bytes(b"PAR1")
    store.run_path(ResultKey("damaged", 1, 0)).write_text("{", "utf-8")
    rows = rows_of(build(tiny_competition)["variants"], "variant")
    assert rows["half"]["lacks"] == "seed 1: folds 2"
    assert rows["half"]["done"] == "2/3"
    assert "another recipe" in rows["mixed"]["lacks"]
    assert "damaged" in rows["damaged"]["lacks"]
    assert not any("micro_f1" in row for row in rows.values())
    notes = build(tiny_competition)["variants"].notes
    assert "half lacks seed 1: folds 2" in notes
    assert "half: the idea" in notes


def test_specialists_and_their_route(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    from competition.folds.length_routes import read_or_make_length_routes

    def count_chars(rows: Any) -> Any:
        return np.array([len(row.sentence) for row in rows])

    routes = read_or_make_length_routes(prepared, count_chars, "chars")
    for part in ("short", "medium"):
        fill(store, prepared, part, routes=routes, part=part)
    table = build(tiny_competition)["variants"]
    assert set(rows_of(table, "variant")) == {"short", "medium"}
    assert any("medium, short" in note for note in table.notes)
    fill(store, prepared, "long", routes=routes, part="long")
    rows = rows_of(build(tiny_competition)["variants"], "variant")
    assert rows["route:length"]["rows"] == len(prepared.corpus.train)
    assert rows["route:length"]["seeds"] == "1"
    for part in routes.names:
        fill(store, prepared, f"{part}-cold", routes=routes, part=part)
    again = {row["variant"]: row for row in build(tiny_competition)["variants"].rows}
    assert again["route:length"] == rows["route:length"]
    assert again["route:length-cold"]["rows"] == len(prepared.corpus.train)


def test_results_without_data_are_still_listed(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "v")
    tiny_competition.train_path.unlink()
    table = build(tiny_competition)["variants"]
    assert rows_of(table, "variant").keys() == {"v"}
    assert "Variants cannot be scored" in table.notes[0]


def test_submissions_are_shown_from_the_ledger(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    submit(tiny_competition, path, SubmitOptions(), clock=lambda: NOON)
    submit(tiny_competition, path, SubmitOptions(target="folder"), clock=lambda: NOON)
    ledger = open_ledger(tiny_competition)
    with ledger.path.open("ab") as stream:
        stream.write(b'{"kind": "int')
    table = build(tiny_competition)["submissions"]
    first, second = table.rows
    assert (first["time"], first["target"], first["outcome"]) == (
        "2026-11-22 21:00",
        "local",
        "sent",
    )
    assert 0 <= first["public_f1"] <= 1
    assert first["private_auprc"] is not None
    assert second["public_f1"] is None
    assert any("at local: 2 of 3" in note for note in table.notes)
    assert not any("at folder" in note for note in table.notes)
    assert any("last line is incomplete" in note for note in table.notes)


def test_a_damaged_ledger_is_named(tiny_competition: Competition) -> None:
    ledger = open_ledger(tiny_competition)
    ledger.path.parent.mkdir(parents=True)
    ledger.path.write_text("nonsense\n", "utf-8")
    notes = build(tiny_competition)["submissions"].notes
    assert any("a line that cannot be read was left aside (line 1: " in note for note in notes)


def test_json_holds_plain_values(
    tiny_competition: Competition, store: Store, prepared: Prepared, capsys: Any
) -> None:
    fill(store, prepared, "v")
    submit(tiny_competition, write(tiny_competition), SubmitOptions(), clock=lambda: NOON)
    print_tables(build_board_tables(tiny_competition, now=NOON), as_json=True)
    assert set(json.loads(capsys.readouterr().out)) == {
        *("variants", "blends", "submissions", "final")
    }


def test_a_blend_changed_by_hand_is_said_so(tiny_competition: Competition, tmp_path: Path) -> None:
    path = write(tiny_competition, "mine")
    rows = rows_of(build(tiny_competition)["blends"], "name")
    assert rows["mine"]["state"] == ""
    path.write_text("changed", "utf-8")
    path.with_name("other.csv").write_text("", "utf-8")
    path.with_name("bad.csv").write_text("", "utf-8")
    path.with_name("bad.json").write_text("[]", "utf-8")
    rows = rows_of(build(tiny_competition)["blends"], "name")
    assert rows["mine"]["state"] == "the CSV was changed after blend wrote it"
    assert "no other.json" in rows["other"]["state"]
    assert "bad.json" in rows["bad"]["state"]


def test_without_a_negative_label(foreign_competition: Competition) -> None:
    prepared = read_prepared(foreign_competition)
    store = Store(foreign_competition.oof_dir, foreign_competition.profile.labels)
    for fold in range(prepared.folds.count):
        result = make_result(prepared, ResultKey("v", 1, fold))
        store.write(replace(result, variant={}), {})
    table = build(foreign_competition)["variants"]
    row = table.rows[0]
    assert 0 < row["expected_f1"] < 1
    member = read_member(store, "v", prepared)
    share = (member.oof.argmax(axis=1) == prepared.corpus.train.gold).mean()
    assert row["micro_f1"] == pytest.approx(share)


def test_a_real_blend_is_shown_with_its_estimates(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    for seed, name in enumerate(("a", "b")):
        fill(store, prepared, name, seeds=(seed,))
    run = {"time": "2026-11-22T12:00:00+00:00"}
    run_blend(tiny_competition, (), trials=3, seed=1, name="mix", run=run)
    row = rows_of(build(tiny_competition)["blends"], "name")["mix"]
    spec = json.loads((tiny_competition.submissions_dir / "mix.json").read_text("utf-8"))
    weights = [member["weight"] for member in spec["members"]]
    assert (row["members"], row["state"]) == (sum(weight > 0 for weight in weights), "")
    assert len(weights) == 2, "one that is left out is written down and not counted"
    for key in ("fitted_f1", "nested_f1", "nested_single_f1", "fitted_auprc", "nested_auprc"):
        assert 0 <= row[key] <= 1, key
    low, high = row["nested_f1_interval"]
    assert low <= row["nested_f1"] <= high
    report = submit(tiny_competition, None, SubmitOptions(), clock=lambda: NOON)
    assert (report.name, report.outcome) == ("mix", "sent")


def test_the_verdict_is_of_what_can_be_compared(
    tiny_competition: Competition,
    store: Store,
    prepared: Prepared,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Specialists answer easier rows, and blends of other folds other ones."""

    def score_with_specialist(prepared: Prepared, names: Any) -> list[VariantScore]:
        (whole,) = score_variants(prepared, names)
        assert whole.on_test is not None
        expected = whole.on_test.expected
        better = replace(expected, primary=replace(expected.primary, value=0.99))
        on_test = replace(whole.on_test, expected=better)
        return [whole, replace(whole, name="short", n_rows=whole.n_rows - 1, on_test=on_test)]

    fill(store, prepared, "whole", seeds=(9,))
    run = {"time": "2026-11-22T12:00:00+00:00"}
    run_blend(tiny_competition, (), trials=3, seed=1, name="mix", run=run)
    spec = tiny_competition.submissions_dir / "mix.json"
    found = json.loads(spec.read_text("utf-8"))
    spec.write_text(json.dumps(found | {"folds_hash": "f" * 16}), "utf-8")
    monkeypatch.setattr("competition.board.board.score_variants", score_with_specialist)
    tables = build_board_tables(tiny_competition, now=NOON)
    assert tables[-1].notes[-1].startswith("Verdict: best expected F1 on the test: whole, ")
    assert any(note.startswith("mix was made with other data or folds") for note in tables[1].notes)


def send_scored(
    competition: Competition,
    name: str,
    nested: float | None,
    public: float | None,
    seed: int = 0,
    target: str = "kaggle",
) -> Path:
    """Leave a submission with its nested score and a ledger entry with its public one."""
    path = write(competition, name, seed=seed)
    spec_path = path.with_suffix(".json")
    spec = json.loads(spec_path.read_text("utf-8"))
    if nested is not None:
        spec["nested"] = {"blend": {"f1": {"value": nested}}}
    spec_path.write_text(json.dumps(spec), "utf-8")
    ledger = open_ledger(competition)
    intent = ledger.append_intent(
        NOON,
        {
            "target": target,
            "destination": "there",
            "name": name,
            "sha256": spec["csv_sha256"],
            "bytes": path.stat().st_size,
        },
    )
    ledger.append_receipt(intent, NOON, "sent", ref=None, message="")
    if public is not None:
        ledger.append(
            build_score(intent, NOON, public={"micro_f1": public, "auprc": None}, private=None)
        )
    return path


def test_the_gap_between_nested_and_public_is_shown_over_time(
    tiny_competition: Competition,
) -> None:
    for place, (nested, public) in enumerate(((0.7, 0.6), (0.71, 0.61), (0.73, 0.6), (0.74, 0.6))):
        send_scored(tiny_competition, f"b{place}", nested, public, seed=place)
    send_scored(tiny_competition, "unscored", 0.7, None, seed=9)
    table = build(tiny_competition)["submissions"]
    gaps = [row["gap"] for row in table.rows]
    assert gaps[:4] == pytest.approx([-0.1, -0.1, -0.13, -0.14])
    assert gaps[4] is None
    assert any("from -10.00 to -13.50: later blends overfit" in n for n in table.notes)


def test_a_steady_gap_and_one_that_narrows(tiny_competition: Competition) -> None:
    for place in range(4):
        send_scored(tiny_competition, f"b{place}", 0.7 + place / 100, 0.6 + place / 100, seed=place)
    assert "Warning" not in " ".join(build(tiny_competition)["submissions"].notes)
    for place in range(4, 8):
        send_scored(tiny_competition, f"b{place}", 0.7, 0.66, seed=place)
    assert "may overfit the public leaderboard" in " ".join(
        build(tiny_competition)["submissions"].notes
    )


def test_the_final_picks_are_proposed_with_their_reasons(tiny_competition: Competition) -> None:
    send_scored(tiny_competition, "steady", 0.72, 0.62, seed=1)
    send_scored(tiny_competition, "lucky", 0.64, 0.66, seed=2)
    send_scored(tiny_competition, "weak", 0.60, 0.50, seed=3)
    write(tiny_competition, "never-sent", seed=4)
    table = build(tiny_competition)["final"]
    assert [row["pick"] for row in table.rows] == [1, 2]
    names = [row["name"] for row in table.rows]
    assert set(names) == {"steady", "lucky"}
    assert "highest expected private" in table.rows[0]["reason"]
    assert "of its labels differ" in table.rows[1]["reason"]
    assert "kaggle, 2 may count" in table.title
    value = f"{100 * table.rows[0]['expected_f1']:.2f}"
    said = f"Verdict: of those sent, select {' and '.join(names)} (expected private F1 {value})."
    assert table.notes[-1] == said


def test_how_many_may_count_is_the_profiles(tiny_competition: Competition) -> None:
    rules = tiny_competition.profile.submission.model_copy(update={"final_picks": 1})
    profile = tiny_competition.profile.model_copy(update={"submission": rules})
    competition = replace(tiny_competition, profile=profile)
    for place in range(3):
        send_scored(competition, f"b{place}", 0.7, 0.6 + place / 50, seed=place)
    assert [row["name"] for row in build(competition)["final"].rows] == ["b2"]


def test_files_that_changed_or_are_gone_are_judged_by_what_is_known(
    tiny_competition: Competition,
) -> None:
    send_scored(tiny_competition, "gone", 0.7, 0.65, seed=1).unlink()
    send_scored(tiny_competition, "changed", 0.9, 0.55, seed=2).write_text("x", "utf-8")
    send_scored(tiny_competition, "whole", 0.7, 0.60, seed=3)
    table = build(tiny_competition)["final"]
    assert {row["name"] for row in table.rows} <= {"gone", "changed", "whole"}
    assert table.rows[0]["name"] == "gone"


def test_a_score_of_nothing_is_a_score_when_the_same_bytes_are_sent_again(
    tiny_competition: Competition,
) -> None:
    for public in (0.6, 0.0):  # the platform corrected its answer
        send_scored(tiny_competition, "again", None, public, seed=1)
    (row,) = build(tiny_competition)["final"].rows
    assert row["expected_f1"] == 0.0


def test_two_files_sent_under_one_name_have_unique_names(tiny_competition: Competition) -> None:
    ledger = open_ledger(tiny_competition)
    for intent, (seed, public) in enumerate(((1, 0.62), (2, 0.66)), start=1):
        path = send_scored(tiny_competition, "blend", 0.7, public, seed=seed)
        ledger.append_receipt(intent, NOON, "sent", ref=f"471{seed}", message="")
        path.rename(path.with_name("moved.csv"))
    table = build(tiny_competition)["final"]
    hashes = {seed: entry.sha256[:8] for seed, entry in enumerate(ledger.read(), start=1)}
    names = [row["name"] for row in table.rows]
    assert names == [f"blend (471{seed}, re:{hashes[seed]})" for seed in (2, 1)]
    assert "10.0%" not in table.rows[1]["reason"]


def test_without_any_estimate_nothing_is_proposed(tiny_competition: Competition) -> None:
    send_scored(tiny_competition, "a", None, None)
    table = build(tiny_competition)["final"]
    assert not table.rows
    assert "No submission has" in table.notes[0]


def test_scores_under_other_folds_or_metrics_are_left_out(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "v")
    today = describe_scoring(tiny_competition.profile)
    for place, (name, how) in enumerate(
        {
            "old": {"folds_hash": "f" * 16},
            "uncounted": {"negative_label": None},
            "other": {"scored_by": {"primary": "accuracy"}},
            "new": {"negative_label": "no_relation", "folds_hash": prepared.folds.hash},
            "same": {"negative_label": "per:spouse", "scored_by": today},
        }.items()
    ):
        nested = 0.5 if name in ("new", "same") else 0.9
        spec = send_scored(tiny_competition, name, nested, None, seed=place).with_suffix(".json")
        found = json.loads(spec.read_text("utf-8"))
        spec.write_text(json.dumps(found | how), "utf-8")
    tables = build(tiny_competition)
    blends = {row["name"]: row["nested_f1"] for row in tables["blends"].rows}
    assert list(blends.values()) == [0.5, 0.5, None, None, None]
    assert {*list(blends)[:2]} == {"new", "same"}
    sent = rows_of(tables["submissions"], "name")
    assert [sent[name]["nested_f1"] for name in ("old", "other", "new")] == [None, None, 0.5]
    assert {row["name"] for row in tables["final"].rows} == {"new", "same"}
    notes = " ".join(tables["blends"].notes)
    assert "old was made with other data or folds, so its scores do not compare" in notes
    assert "uncounted was made with other metrics or negative labels" in notes


def test_gaps_at_two_places_are_no_trend(tiny_competition: Competition) -> None:
    for place, public in (("local", 0.80), ("kaggle", 0.70)):
        for seed in (1, 2):
            send_scored(tiny_competition, f"b{seed}", 0.78, public, seed, place)
    assert "Warning" not in " ".join(build(tiny_competition)["submissions"].notes)


def test_hidden_files_are_no_submissions(tiny_competition: Competition) -> None:
    path = write(tiny_competition, "b1")
    path.with_name("._b1.csv").write_bytes(b"Mac OS X")
    assert rows_of(build(tiny_competition)["blends"], "name").keys() == {"b1"}


def test_the_verdict_tells_a_blend_from_a_variant_of_its_name(
    tiny_competition: Competition, store: Store, prepared: Prepared
) -> None:
    fill(store, prepared, "v")
    spec = write(tiny_competition, "v").with_suffix(".json")
    found = json.loads(spec.read_text("utf-8"))
    scores = {"f1": {"value": 0.1}, "expected": {"f1": {"value": 0.01}}}
    spec.write_text(json.dumps(found | {"nested": {"blend": scores}}), "utf-8")
    said = build(tiny_competition)["submissions"].notes[-1]
    assert said.startswith("Verdict: best expected F1 on the test: v, ")
    assert not said.endswith("v, 1.00.")
    scores["expected"]["f1"]["value"] = 0.99
    spec.write_text(json.dumps(found | {"nested": {"blend": scores}}), "utf-8")
    said = build(tiny_competition)["submissions"].notes[-1]
    assert said == "Verdict: best expected F1 on the test: the blend v, 99.00."
