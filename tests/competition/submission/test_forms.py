"""From a folder of files to a score: each form of submission and metric, by profile alone."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from competition.audit.guessed_profile import run_init
from competition.blend.blend import run_blend
from competition.board.board import build_board_tables
from competition.errors import CorpusError, SubmissionError
from competition.folds.kfold import read_prepared
from competition.predictions.store import Store
from competition.profile import Competition, resolve_competition
from competition.scoring import bootstrap
from competition.scoring.criteria import build_criteria
from competition.submission import form
from competition.submission.check import check_submission
from competition.submission.form import read_lines
from competition.submission.score import score_submission
from competition.submission.write import write_submission
from competition.upload.send import SubmitOptions, submit
from tests.competition.predictions.test_members import fill

LABELS = ("Other", "cause(e1,e2)", "cause(e2,e1)", "part(e1,e2)")
THINGS = ("fire", "spark", "wheel", "car", "rain", "flood")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
N_TRAIN, N_TEST = 60, 24


def make_rows(first: int, count: int) -> list[tuple[str, str, str]]:
    """Make ids, English sentences with tags around two nouns, and labels."""
    return [
        (
            f"r{first + i}",
            f"The <e1>{THINGS[i % 6]}</e1> of day {first + i} met a <e2>{THINGS[(i * 5 + 1) % 6]}"
            f" {first + i}</e2>.",
            LABELS[i % len(LABELS)],
        )
        for i in range(count)
    ]


def write_table(path: Path, rows: Sequence[Sequence[str]], separator: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=separator, lineterminator="\n").writerows(rows)


def make_folder(folder: Path, *, has_test_ids: bool = True) -> list[tuple[str, str, str]]:
    """Write train, test and solution; return the test rows."""
    folder.mkdir()
    train, test = make_rows(0, N_TRAIN), make_rows(500, N_TEST)
    head = ("id", "sentence", "relation")
    if has_test_ids:
        write_table(folder / "train.csv", [head, *train])
        write_table(folder / "test.csv", [head[:2], *(row[:2] for row in test)])
        write_table(folder / "solution.csv", [head, *test])
    else:
        write_table(folder / "train.csv", [head[1:], *(row[1:] for row in train)])
        write_table(folder / "test.csv", [head[1:2], *(row[1:2] for row in test)])
        write_table(folder / "solution.csv", [head[1:], *(row[1:] for row in test)])
    return test


def guess(tmp_path: Path, metrics: str) -> Competition:
    """Run init on the folder, choose the metrics, and leave results of two variants."""
    path = tmp_path / "made.toml"
    run_init([tmp_path / "made"], path)
    text = path.read_text("utf-8")
    start = text.index("[metrics]")
    end = text.index("[defaults]")
    path.write_text(f"{text[:start]}[metrics]\n{metrics}\n\n{text[end:]}", "utf-8")
    competition = resolve_competition(str(path), None, None, home=tmp_path)
    prepared = read_prepared(competition)
    store = Store(competition.oof_dir, competition.profile.labels)
    fill(store, prepared, "a")
    fill(store, prepared, "b", seeds=(2,))
    return competition


def send_blend(competition: Competition) -> list[list[str]]:
    """Blend, check, send to the local board and show it; return the fields of the file."""
    report = run_blend(competition, (), trials=1, seed=0, name="b1", run={"time": NOW.isoformat()})
    checked = check_submission(report.path, competition)
    assert checked.offences == ()
    sent = submit(competition, report.path, SubmitOptions("local"), clock=lambda: NOW)
    kinds = build_criteria(competition.profile).kinds
    assert sent.public is not None
    assert list(sent.public) == [kind.key for kind in kinds]
    assert all(score is not None for score in sent.public.values())
    (table,) = [t for t in build_board_tables(competition, now=NOW) if t.name == "submissions"]
    assert f"public_{kinds[0].short}" in table.rows[0]
    sample = competition.profile.submission.separator or ","
    with report.path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter=sample))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "SUM_REPLICATES", 30)
    monkeypatch.setattr(bootstrap, "CURVE_REPLICATES", 10)


def test_label_alone_and_macro_f1_of_merged_labels(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    sample = [("id", "relation"), *((row[0], "Other") for row in test)]
    write_table(tmp_path / "made" / "sample_submission.csv", sample)
    merged = '\n[metrics.merged]\ncause = ["cause(e1,e2)", "cause(e2,e1)"]'
    competition = guess(tmp_path, f'primary = "macro-f1"\naverage_over = "gold"{merged}')
    assert competition.profile.negative_label == "Other"
    rows = send_blend(competition)
    assert rows[0] == ["id", "relation"]
    assert [row[0] for row in rows[1:]] == [row[0] for row in test]


def test_label_alone_and_accuracy(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    sample = [("id", "relation"), *((row[0], "Other") for row in test)]
    write_table(tmp_path / "made" / "sample_submission.csv", sample)
    competition = guess(tmp_path, 'primary = "accuracy"')
    assert {len(row) for row in send_blend(competition)} == {2}
    path = competition.submissions_dir / "b1.csv"
    path.write_text(path.read_text("utf-8").replace("Other", "other"), "utf-8")
    found = check_submission(path, competition).offences
    assert any("did you mean 'Other'?" in each.remedy for each in found)


def test_labels_as_numbers_where_the_sample_has_numbers(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    sample = [("id", "label"), *((row[0], "0") for row in test)]
    write_table(tmp_path / "made" / "sample_submission.csv", sample)
    run_init([tmp_path / "made"], tmp_path / "made.toml")
    competition = resolve_competition(str(tmp_path / "made.toml"), None, None, home=tmp_path)
    assert competition.profile.submission.label_as == "number"
    labels, pred = competition.profile.labels, np.arange(N_TEST) % len(LABELS)
    probs = np.full((N_TEST, len(LABELS)), 0.25)
    ids = [row[0] for row in test]
    path = write_submission(competition, "b1", ids, probs, pred, {"kind": "blend"}, {"time": ""})
    rows = [line.split(",") for line in path.read_text("utf-8").splitlines()]
    assert rows == [
        ["id", "label"],
        *([row_id, str(i)] for row_id, i in zip(ids, pred, strict=True)),
    ]
    solution = competition.solution_path
    assert solution is not None
    by_number = score_submission(path, solution, competition.profile).values
    named = [[row_id, labels[int(label)]] for row_id, label in rows[1:]]
    write_table(path, [rows[0], *named])
    (offence,) = check_submission(path, competition).offences
    assert "write the label's place in labels, 0 (Other) to 3 (part(e1,e2))" in offence.remedy
    rules = competition.profile.submission.model_copy(update={"label_as": "name"})
    as_names = competition.profile.model_copy(update={"submission": rules})
    assert score_submission(path, solution, as_names).values == by_number


def test_one_column_per_label_and_log_loss(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    sample = [("id", *(f"p_{label}" for label in LABELS)), *((row[0], *"1000") for row in test)]
    write_table(tmp_path / "made" / "sample_submission.csv", sample)
    competition = guess(tmp_path, 'primary = "log-loss"')
    rows = send_blend(competition)
    assert rows[0] == ["id", *(f"p_{label}" for label in LABELS)]
    assert all(sum(map(float, row[1:])) == pytest.approx(1, abs=1e-6) for row in rows[1:])
    path = competition.submissions_dir / "b1.csv"
    rows[3][2] = "1.5"
    write_table(path, rows)
    (found,) = check_submission(path, competition).offences
    assert (found.column, found.found) == (f"p_{LABELS[1]}", "it is 1.5")


def test_a_file_without_a_header_separated_by_tabs(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    sample = [(row[0], "Other") for row in test]
    write_table(tmp_path / "made" / "sample_submission.tsv", sample, "\t")
    competition = guess(tmp_path, 'primary = "mcc"\nsecondary = "kappa"')
    assert not competition.profile.submission.header
    rows = send_blend(competition)
    assert (len(rows), {len(row) for row in rows}) == (N_TEST, {2})
    assert {row[1] for row in rows} <= set(LABELS)


def test_the_sample_file_is_the_authority_on_order_ids_and_columns(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    order = test[::-1]
    sample = [("note", "relation", "id"), *((f"n {row[0]}", "Other", row[0]) for row in order)]
    write_table(tmp_path / "made" / "sample_submission.csv", sample)
    competition = guess(tmp_path, 'primary = "micro-f1"')
    rows = send_blend(competition)
    assert rows[0] == ["note", "relation", "id"]
    assert [(row[0], row[2]) for row in rows[1:]] == [(f"n {row[0]}", row[0]) for row in order]
    plain = {row[2]: row[1] for row in rows[1:]}
    lines = (competition.submissions_dir / "b1.csv").read_text("utf-8").splitlines()
    other = competition.submissions_dir / "other.csv"
    other.write_text("\n".join((lines[0], *lines[:0:-1], "n x,Other,x")) + "\n", "utf-8")
    checked = check_submission(other, competition)
    assert any("in the sample file sample_submission.csv" in each.found for each in checked.remarks)
    said = [each.found for each in checked.offences]
    assert "no such row in the sample file sample_submission.csv" in said
    write_table(tmp_path / "made" / "sample_submission.csv", sample[:-1])
    with pytest.raises(SubmissionError, match=f"it lacks id {order[-1][0]}"):
        check_submission(competition.submissions_dir / "b1.csv", competition)
    assert set(plain) == {row[0] for row in test}


def test_rows_without_ids_take_those_of_the_sample_file(tmp_path: Path) -> None:
    make_folder(tmp_path / "made", has_test_ids=False)
    sample = [("row", "relation"), *((f"TEST_{i}", "Other") for i in range(N_TEST))]
    write_table(tmp_path / "made" / "sample_submission.csv", sample)
    competition = guess(tmp_path, 'primary = "weighted-f1"')
    assert competition.profile.columns.id is None
    rows = send_blend(competition)
    assert [row[0] for row in rows[1:]] == [f"TEST_{i}" for i in range(N_TEST)]


def test_repeated_ids_of_the_sample_file_are_told_apart_by_their_rows(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    train, test = (
        [(f"s{i // 3}", *row[1:]) for i, row in enumerate(made)]
        for made in (make_rows(0, N_TRAIN), make_rows(500, N_TEST))
    )
    head = ("sid", "sentence", "relation")
    write_table(folder / "train.csv", [head, *train])
    write_table(folder / "test.csv", [head[:2], *(row[:2] for row in test)])
    write_table(folder / "solution.csv", [head, *test])
    write_table(folder / "sample.csv", [("sid", "relation"), *((row[0], "Other") for row in test)])
    run_init([folder], tmp_path / "made.toml")
    competition = resolve_competition(str(tmp_path / "made.toml"), None, None, home=tmp_path)
    assert competition.profile.columns.id is None
    ids, pred = list(map(str, range(N_TEST))), np.arange(N_TEST) // 5 % len(LABELS)
    probs = np.eye(len(LABELS))[pred]
    path = write_submission(competition, "b1", ids, probs, pred, {"kind": "blend"}, {"time": ""})
    rows = [line.partition(",")[0] for line in path.read_text("utf-8").splitlines()]
    assert rows == ["sid", *(row[0] for row in test)]
    assert check_submission(path, competition).offences == ()
    solution = competition.solution_path
    assert solution is not None
    scores = score_submission(path, solution, competition.profile, read_lines(competition))
    labels = competition.profile.labels
    hits = [labels[label] == row[2] for label, row in zip(pred, test, strict=True)]
    assert 0 < sum(hits) < N_TEST
    assert sum((row.recall or 0) * row.gold for row in scores.labels) == pytest.approx(sum(hits))


def test_a_sample_file_of_a_few_rows_shows_the_columns_only(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    sample = [("id", "answer"), *((row[0], "Other") for row in test[:3])]
    write_table(tmp_path / "made" / "sample_submission.csv", sample)
    guessed = run_init([tmp_path / "made"], tmp_path / "made.toml")[0]
    assert any("its 3 rows are not those of the test" in row["why"] for row in guessed.rows)
    competition = resolve_competition(str(tmp_path / "made.toml"), None, None, home=tmp_path)
    assert competition.sample_path is None
    form, rows = read_lines(competition) or pytest.fail("no test file")
    assert form.columns == ("id", "answer")
    assert rows.written == tuple(row[0] for row in test)


def test_ids_that_a_sample_lacks_are_found_in_one_pass(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [str(number) for number in range(30_000)]
    monkeypatch.setattr(form, "_read_all_test_ids", lambda _competition: ids)
    before_s = time.process_time()
    with pytest.raises(SubmissionError) as caught:
        form._match_rows(tiny_competition, ids[::-2])
    found = caught.value.offences[0].found
    assert found == "15,000 rows where the test file has 30,000; it lacks id 0"
    assert time.process_time() - before_s < 1  # a search in the list for each took 3 s


def test_an_incomplete_solution_is_named_and_not_the_submission(tmp_path: Path) -> None:
    test = make_folder(tmp_path / "made")
    competition = guess(tmp_path, 'primary = "accuracy"')
    send_blend(competition)
    solution = competition.solution_path
    assert solution is not None
    lines = solution.read_text("utf-8").splitlines()
    solution.write_text("\n".join([*lines[:-2], ""]), "utf-8")
    path, profile = competition.submissions_dir / "b1.csv", competition.profile
    with pytest.raises(CorpusError, match="not the solution of the whole test file") as raised:
        score_submission(path, solution, profile, read_lines(competition))
    assert "no label for 2 of the 24 test rows" in str(raised.value)
    assert test[-2][0] in str(raised.value)
