"""import: imported predictions become a member like any other, or every offence is listed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.blend.blend import run_blend
from competition.blend.tables import build_blend_tables
from competition.data.rows import Rows
from competition.errors import PredictionsError, UsageError
from competition.folds.kfold import Prepared, read_prepared
from competition.folds.length_routes import read_or_make_length_routes
from competition.importing.importing import (
    ImportOptions,
    ImportReport,
    build_import_tables,
    run_import,
)
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import read_member
from competition.predictions.store import ResultKey, Store
from competition.profile import Competition, resolve_competition
from tests.competition.predictions.test_members import fill, fill_routes, make_result
from tests.conftest import write_tiny

RUN = {"time": "2026-11-22T12:00:00+00:00", "commit": "abc"}


@pytest.fixture
def theirs(tiny_competition: Competition, prepared: Prepared, tmp_path: Path) -> Path:
    """A team-mate's folder of the variant v, seed 1."""
    labels = tiny_competition.profile.labels
    elsewhere = Store(tmp_path / "elsewhere", labels)
    fill(elsewhere, prepared, "v")
    return elsewhere.directory / "v"


def take(prepared: Prepared, path: Path, **options: Any) -> ImportReport:
    return run_import(prepared.competition, path, ImportOptions(run=RUN, **options))


def make_table(theirs: Path) -> pd.DataFrame:
    """Join a team-mate's result files to one table of id, split, fold and labels."""
    return pd.concat([pd.read_parquet(file) for file in sorted(theirs.glob("*.parquet"))])


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def nothing_written(prepared: Prepared) -> bool:
    return not [each for each in prepared.competition.oof_dir.iterdir() if each.is_dir()]


def test_result_files_come_in_byte_for_byte_with_where_they_are_from(
    prepared: Prepared, store: Store, theirs: Path
) -> None:
    report = take(prepared, theirs)
    assert [each.is_new for each in report.imported] == [True] * 3
    for fold in range(3):
        key = ResultKey("v", 1, fold)
        assert store.path(key).read_bytes() == (theirs / f"s1-f{fold}.parquet").read_bytes()
        run = store.read_run(key)
        assert run["imported_from"] == str(theirs / f"s1-f{fold}.parquet")
        assert (run["time"], run["imported"]) == ("now", RUN)
    again = take(prepared, theirs)
    assert [each.is_new for each in again.imported] == [False] * 3
    (table,) = build_import_tables(again)
    assert (table.rows[0]["folds"], table.rows[0]["kept"]) == ("", "0 1 2")
    assert table.notes == ["Next: python run.py blend"]


@pytest.mark.parametrize("said", ["{", "[1]", "[" * 100_000, "\x00"])
def test_damaged_provenance_of_another_machine_is_not_passed_on(
    prepared: Prepared, store: Store, theirs: Path, said: str
) -> None:
    (theirs / "s1-f0.run.json").write_text(said, "utf-8")
    take(prepared, theirs)
    run = store.read_run(ResultKey("v", 1, 0))
    assert set(run) == {"imported_from", "imported"}


def test_specialists_go_to_blend_when_the_other_parts_are_there(
    prepared: Prepared, tmp_path: Path
) -> None:
    def count_chars(rows: Rows) -> Any:
        return rows.frame["sentence"].str.len().to_numpy()

    routes = read_or_make_length_routes(prepared, count_chars, "chars")
    elsewhere = Store(tmp_path / "elsewhere", prepared.competition.profile.labels)
    fill_routes(elsewhere, prepared, routes)
    for part, is_member in zip(sorted(routes.names), (False, False, True), strict=True):
        assert take(prepared, elsewhere.directory / part).can_blend is is_member


def test_specialists_of_other_routes_are_not_imported(prepared: Prepared, tmp_path: Path) -> None:
    def count_chars(rows: Rows) -> Any:
        return rows.frame["sentence"].str.len().to_numpy()

    routes = read_or_make_length_routes(prepared, count_chars, "chars")
    elsewhere = Store(tmp_path / "elsewhere", prepared.competition.profile.labels)
    fill_routes(elsewhere, prepared, replace(routes, hash="0" * 64))
    said = r"short.s1-f0.parquet was made with other length routes .*; import results of the same"
    with pytest.raises(PredictionsError, match=said):
        take(prepared, elsewhere.directory / "short")


def test_a_whole_store_comes_in_and_a_variant_under_another_name(
    prepared: Prepared, store: Store, theirs: Path
) -> None:
    fill(Store(theirs.parent, store.labels), prepared, "w", seeds=(1, 2))
    take(prepared, theirs.parent)
    assert store.variants() == ["v", "w"]
    take(prepared, theirs, save_as="kims-v")
    assert read_member(store, "kims-v", prepared).oof.tobytes() == (
        read_member(store, "v", prepared).oof.tobytes()
    )
    header = store.read_header(ResultKey("kims-v", 1, 0))
    assert header is not None
    assert header.variant["name"] == "kims-v"
    assert header.fingerprint == "fingerprint 1 0"
    with pytest.raises(UsageError, match="--as gives one name"):
        take(prepared, theirs.parent, save_as="both")


def test_one_file_and_a_renamed_folder_are_read_by_what_they_say(
    prepared: Prepared, store: Store, theirs: Path
) -> None:
    moved = theirs.rename(theirs.with_name("received from Kim"))
    report = take(prepared, moved / "s1-f0.parquet")
    assert [each.key for each in report.imported] == [ResultKey("v", 1, 0)]
    assert report.notes == ("v, seed 1, lacks folds 1, 2",)
    assert build_import_tables(report)[0].notes == list(report.notes)
    assert take(prepared, moved).can_blend
    assert read_member(store, "v", prepared).seeds == (1,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_hash": "0" * 64}, "made from other data than .*; import results of the same data"),
        (
            {"folds_hash": "0" * 64},
            "other folds than .* would leak labels; import results of the same",
        ),
        (
            {"labels": ("no_relation", "per:birthplace", "per:employer", "per:sibling")},
            "another order",
        ),
        ({"labels": ("a", "b", "c", "d")}, "other labels"),
    ],
)
def test_results_of_another_competition_are_refused(
    prepared: Prepared, theirs: Path, change: dict[str, Any], said: str
) -> None:
    key = ResultKey("v", 1, 1)
    result = replace(make_result(prepared, key), **change)
    Store(theirs.parent, result.labels).write(result, {})
    with pytest.raises(PredictionsError, match=said):
        take(prepared, theirs)
    assert nothing_written(prepared)


def test_a_file_that_misses_a_row_is_refused_and_nothing_is_written(
    prepared: Prepared, store: Store, theirs: Path
) -> None:
    whole = make_result(prepared, ResultKey("v", 1, 2))
    less = replace(whole, oof_ids=whole.oof_ids[1:], oof_probs=whole.oof_probs[1:])
    Store(theirs.parent, store.labels).write(less, {})
    with pytest.raises(PredictionsError, match=r"1 of .* rows are missing"):
        take(prepared, theirs)
    assert nothing_written(prepared)


def test_another_recipe_under_the_same_name_is_refused(
    prepared: Prepared, store: Store, theirs: Path
) -> None:
    store.write(make_result(prepared, ResultKey("v", 7, 0), recipe="ours"), {})
    with pytest.raises(PredictionsError, match="import under another name"):
        take(prepared, theirs)
    assert store.keys("v") == [ResultKey("v", 7, 0)]
    take(prepared, theirs, save_as="v-kim")
    assert len(store.keys("v-kim")) == 3


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_ours_comes_back_to_the_last_bit_whatever_its_order(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path, suffix: str
) -> None:
    frame = make_table(theirs).sample(frac=1, random_state=0)
    labels = list(store.labels)
    frame = frame[["fold", *labels[::-1], "id", "split"]]
    report = take(prepared, write_table(frame, tmp_path / f"kim{suffix}"))
    assert report.offences == ()
    take(prepared, theirs)
    ours, expected = (read_member(store, name, prepared) for name in ("kim", "v"))
    assert ours.oof.tobytes() == expected.oof.tobytes()
    assert ours.test.tobytes() == expected.test.tobytes()
    assert (ours.seeds, ours.test_is_average) == ((0,), False)
    assert ours.why == f"imported from kim{suffix}"
    run = store.read_run(ResultKey("kim", 0, 0))
    assert run["imported_from"] == str(tmp_path / f"kim{suffix}")
    assert (len(run["imported_sha256"]), run["time"]) == (64, RUN["time"])


def test_csv_and_parquet_are_the_same_recipe(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs)
    for suffix in (".csv", ".parquet"):
        report = take(prepared, write_table(frame, tmp_path / f"t{suffix}"), save_as="kim")
    assert not any(each.is_new for each in report.imported)
    other = frame.copy()
    other.loc[other["split"] == "test", list(store.labels)] = 0.25
    with pytest.raises(PredictionsError, match="another recipe"):
        take(prepared, write_table(other, tmp_path / "other.csv"), save_as="kim")


def test_a_corrected_table_gets_advice_to_replace_the_first(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs)
    take(prepared, write_table(frame, tmp_path / "kim.csv"))
    frame.loc[frame["split"] == "test", list(store.labels)] = 0.25
    path = write_table(frame, tmp_path / "kim.csv")
    folder = store.directory / "kim"
    with pytest.raises(PredictionsError, match=f"to replace it, delete {folder} "):
        take(prepared, path)
    shutil.rmtree(folder)
    assert all(each.is_new for each in take(prepared, path).imported)


def test_a_label_may_hold_a_comma_a_quote_and_a_new_line(tmp_path: Path) -> None:
    profile = write_tiny(tmp_path)
    odd = 'per: "sibling",\nor the like'
    for path in (profile, *(tmp_path / "data").glob("*.csv")):
        quoted = json.dumps(odd) if path == profile else odd.replace('"', '""')
        old = '"per:sibling"' if path == profile else "per:sibling"
        text = path.read_text("utf-8").replace(old, quoted if path == profile else f'"{quoted}"')
        path.write_text(text, "utf-8")
    prepared = read_prepared(resolve_competition(str(profile), None, None, home=tmp_path))
    labels = prepared.competition.profile.labels
    assert odd in labels
    fill(Store(tmp_path / "elsewhere", labels), prepared, "v")
    frame = make_table(tmp_path / "elsewhere" / "v")
    for name in ("kim.csv", "lee.parquet"):
        assert take(prepared, write_table(frame, tmp_path / name)).offences == ()
    marked = tmp_path / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "kim.csv").read_bytes())
    assert take(prepared, marked).offences == ()
    marked.write_bytes((tmp_path / "kim.csv").read_text("utf-8").encode("utf-16"))
    assert take(prepared, marked).offences == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id;split;fold", "a header but no rows"),
        (b"<html><title>Sign in</title>", "a web page (HTML)"),
        (b'"id,split\na,b\n', "a quote opened on this line is not closed"),
        (b"id,split\ra,b\r", "files of old Macs"),
        (b"\n\n", "no header"),
        (b"", "the file is empty"),
    ],
)
def test_a_header_that_is_none_is_said_once(
    prepared: Prepared, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "kim.csv").write_bytes(content)
    (offence,) = take(prepared, tmp_path / "kim.csv").offences
    assert said in offence.found


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_fold_may_be_written_as_2_0_and_not_as_0_9(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path, suffix: str
) -> None:
    frame = make_table(theirs)
    oof, test = (frame[frame["split"] == split] for split in ("oof", "test"))
    once = test[test["fold"] == 0].assign(fold=np.nan)
    table = pd.concat([oof.astype({"fold": "float64"}), once]).reset_index(drop=True)
    report = take(prepared, write_table(table, tmp_path / f"kim{suffix}"))
    assert report.offences == ()
    take(prepared, theirs)
    ours, expected = (read_member(store, name, prepared) for name in ("kim", "v"))
    assert (ours.oof.tobytes(), ours.test_is_average) == (expected.oof.tobytes(), True)
    wrong = {0: 0.9, 1: -1.0, 2: np.inf, 3: 1e12}
    for row, fold in wrong.items():
        table.loc[row, "fold"] = fold
    found = take(prepared, write_table(table, tmp_path / f"bad{suffix}"), save_as="bad").offences
    assert {each.id: each.column for each in found} == dict.fromkeys(table["id"].iloc[:4], "fold")
    assert found[0].found == "'0.9' is not a fold"
    assert len(found) == len(wrong)


def test_folds_as_text_are_folds_in_parquet_too(
    prepared: Prepared, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs)
    frame["fold"] = frame["fold"].astype(str)
    assert take(prepared, write_table(frame, tmp_path / "kim.parquet")).offences == ()
    numbers = frame.assign(fold=frame["fold"].astype(float).where(frame["split"] == "oof"))
    assert numbers["fold"].isna().any()
    (offence, *_) = take(prepared, write_table(numbers, tmp_path / "lee.parquet")).offences
    assert "occurs more than once (test)" in offence.found
    frame.iloc[5, 2] = "first"
    (offence,) = take(prepared, write_table(frame, tmp_path / "bad.parquet")).offences
    assert offence.found == "'first' is not a fold"


def test_one_average_of_the_test_is_accepted_and_said(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path
) -> None:
    take(prepared, theirs)
    member = read_member(store, "v", prepared)
    average = average_in_log_space(list(member.test))
    frame = make_table(theirs)
    oof = frame[frame["split"] == "oof"]
    test = pd.DataFrame(average, columns=list(store.labels))
    test = test.assign(id=prepared.corpus.test.ids, split="test", fold=None)
    table = pd.concat([oof.astype({"fold": "Int64"}), test.astype({"fold": "Int64"})])
    report = take(prepared, write_table(table, tmp_path / "kim.csv"))
    assert "one average" in report.notes[0]
    imported = read_member(store, "kim", prepared)
    assert imported.test_is_average
    assert (imported.test == average).all()
    report = take(prepared, write_table(table, tmp_path / "kim2.parquet"))
    assert read_member(store, "kim2", prepared).test_is_average
    found = run_blend(prepared.competition, ["kim"], trials=0, seed=0, name="b", run=RUN)
    notes = build_blend_tables(found)[0].notes
    assert any("Test predictions of kim are an average" in note for note in notes)
    assert json.loads(found.path.with_suffix(".json").read_text())["members"][0]["test_is_average"]


def test_without_folds_the_hash_must_be_shown(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs)
    oof, test = (frame[frame["split"] == split] for split in ("oof", "test"))
    table = pd.concat([oof, test[test["fold"] == 0]]).drop(columns="fold")
    path = write_table(table, tmp_path / "kim.csv")
    report = take(prepared, path)
    assert [each.column for each in report.offences] == ["fold"]
    assert "--folds-hash" in report.offences[0].remedy
    for wrong in ("0" * 64, prepared.folds.hash[:7]):
        with pytest.raises(UsageError, match="would leak"):
            take(prepared, path, folds_hash=wrong)
    report = take(prepared, path, folds_hash=prepared.folds.hash[:12])
    assert any("compared by the hash only" in note for note in report.notes)
    assert read_member(store, "kim", prepared).covers_all
    with pytest.raises(UsageError, match="goes with a table"):
        take(prepared, theirs, folds_hash=prepared.folds.hash)


def spoil(frame: pd.DataFrame, labels: list[str]) -> dict[str, tuple[str, str | None]]:
    """Break single rows of a table; return what is said of each id."""
    oof = np.flatnonzero(frame["split"] == "oof")
    test = np.flatnonzero(frame["split"] == "test")
    place = {name: frame.columns.get_loc(name) for name in frame.columns}
    said: dict[str, tuple[str, str | None]] = {}

    def tell(row: int, found: str, column: str | None) -> None:
        said[str(frame.iat[row, place["id"]])] = (found, column)

    frame.iat[oof[0], place["fold"]] = (frame.iat[oof[0], place["fold"]] + 1) % 3
    tell(oof[0], "but the row is in fold", "fold")
    frame.iat[oof[1], place[labels[0]]] = np.nan
    tell(oof[1], "NaN or infinite", None)
    frame.iat[oof[2], place[labels[0]]] = -0.01
    tell(oof[2], "a probability is -0.01", None)
    frame.iloc[oof[3], [place[label] for label in labels]] = 0.3
    tell(oof[3], "sum to 1.2000", None)
    frame.iat[oof[4], place["split"]] = "other"
    tell(oof[4], "no prediction for this row (oof)", "id")
    frame.iat[test[0], place["fold"]] = 3
    tell(test[0], "no prediction for this row (test, fold", "id")
    return said


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_offence_is_listed_and_nothing_is_written(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path, suffix: str
) -> None:
    frame = make_table(theirs).reset_index(drop=True).astype({"fold": "int64"})
    said = spoil(frame, list(store.labels))
    if suffix == ".csv":  # where NaN is an empty cell
        said = {
            row_id: ("'' is not a number", store.labels[0]) if "NaN" in told[0] else told
            for row_id, told in said.items()
        }
    twice = frame[frame["split"] == "oof"].iloc[[10]]
    foreign = frame[frame["split"] == "oof"].iloc[[11]].assign(id="nobody")
    frame = pd.concat([frame, twice, foreign])
    report = take(prepared, write_table(frame, tmp_path / f"bad{suffix}"))
    found = {(each.id, each.column): each.found for each in report.offences}
    for row_id, (text, column) in said.items():
        assert text in found[row_id, column], (row_id, found)
    assert "occurs more than once" in found[twice["id"].iloc[0], "id"]
    assert found["nobody", "id"] == "no oof row has this id"
    assert any("'other' is not a split" in text for text in found.values())
    assert any("fold 3 of 3" in text for text in found.values())
    assert nothing_written(prepared)
    if suffix == ".csv":
        lines = [each.line for each in report.offences if "sum to 1.2" in each.found]
        assert lines == [5]
    (table,) = build_import_tables(report)
    assert len(table.rows) == len(report.offences)
    assert "nothing was imported" in table.notes[0]
    assert "out-of-fold rows that could be read: micro-F1" in table.notes[1]


def test_a_table_of_other_data_is_replaced_when_it_is_imported_again(
    prepared: Prepared,
    store: Store,
    theirs: Path,
    tmp_path: Path,
    edit_train: Callable[[str, str], int],
) -> None:
    path = write_table(make_table(theirs), tmp_path / "kim.csv")
    take(prepared, path)
    before = read_member(store, "kim", prepared).recipe
    stale = replace(store.read(ResultKey("kim", 0, 2)), key=ResultKey("kim", 0, 3))
    store.write(stale, {})  # as if there had been one fold more
    text = prepared.competition.train_path.read_text("utf-8").splitlines()[1].split(",")[1]
    edit_train(text, text.replace("태어났다", "자랐다"))
    changed = read_prepared(prepared.competition)
    assert changed.corpus.hash != prepared.corpus.hash
    with pytest.raises(PredictionsError, match=r"run\.py import FILE --as kim"):
        read_member(store, "kim", changed)
    report = take(changed, path)
    assert [each.is_new for each in report.imported] == [True] * 3
    assert report.notes == ("kim: replaced 4 results that were imported for other data or folds.",)
    assert store.keys("kim") == [ResultKey("kim", 0, fold) for fold in range(3)]
    assert read_member(store, "kim", changed).recipe != before
    assert not any(each.is_new for each in take(changed, path).imported)


def test_a_table_replaces_no_results_that_were_trained_here(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path
) -> None:
    key = ResultKey("kim", 0, 0)
    trained = replace(make_result(prepared, key), data_hash="other")
    store.write(trained, {})
    with pytest.raises(PredictionsError, match="another recipe"):
        take(prepared, write_table(make_table(theirs), tmp_path / "kim.csv"))
    assert store.read(key).data_hash == "other"


def probs_of(store: Store, name: str, prepared: Prepared) -> tuple[Any, Any]:
    member = read_member(store, name, prepared)
    return member.oof, member.test


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_percentages_rounding_and_logits_are_converted_and_said_once(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path, suffix: str
) -> None:
    labels = list(store.labels)
    frame = make_table(theirs).reset_index(drop=True)
    take(prepared, write_table(frame, tmp_path / "exact.parquet"))
    exact = probs_of(store, "exact", prepared)
    changes = {
        "percent": (100 * frame[labels], "percentages, divided by 100"),
        "rounded": (frame[labels].round(2), "rounded, divided by their sums"),
        "logits": (np.log(frame[labels]) + 1, "logits, not probabilities: softmax applied"),
    }
    for name, (values, said) in changes.items():
        table = frame.assign(**values)
        report = take(prepared, write_table(table, tmp_path / f"{name}{suffix}"))
        assert report.offences == ()
        assert sum(said in note for note in report.notes) == 1, report.notes
        for found, wanted in zip(probs_of(store, name, prepared), exact, strict=True):
            np.testing.assert_allclose(found, wanted, atol=0.01 if name == "rounded" else 1e-5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("per:sibling", "per:cousin", "no such column"),
        ("per:sibling", "per:employer", "the column occurs twice"),
        ("fold", "time", "no column with the fold"),
    ],
)
def test_columns_are_found_by_name_or_named(
    prepared: Prepared, theirs: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = write_table(make_table(theirs), tmp_path / "kim.csv")
    header, rest = path.read_text("utf-8").split("\n", 1)
    path.write_text(f"{header.replace(old, new)}\n{rest}", "utf-8")
    report = take(prepared, path)
    assert any(said in each.found for each in report.offences), report.offences


def test_what_is_wrong_with_the_columns_is_said_with_a_remedy(
    prepared: Prepared, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs)
    lacking = frame.drop(columns=["per:sibling"])
    (offence,) = take(prepared, write_table(lacking, tmp_path / "a.csv")).offences
    assert (offence.column, offence.line) == ("per:sibling", 1)
    assert "name one column after each label" in offence.remedy
    bare = frame[["id", "split", "fold"]].assign(pred_label="per:sibling")
    (offence,) = take(prepared, write_table(bare, tmp_path / "b.csv")).offences
    assert "labels without probabilities" in offence.found
    report = take(prepared, write_table(frame.assign(note=0), tmp_path / "c.csv"))
    assert report.offences == ()
    assert "columns not used: note" in report.notes


def test_the_index_of_a_data_frame_is_left_out(
    prepared: Prepared, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs)  # joined, so that Parquet keeps its index as a column
    frame.to_csv(tmp_path / "kim.csv")
    frame.to_parquet(tmp_path / "kim.parquet")
    for name in ("kim.csv", "kim.parquet"):
        assert take(prepared, tmp_path / name).offences == ()


def test_the_same_folds_under_other_numbers_are_ours(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs)
    take(prepared, write_table(frame, tmp_path / "ours.csv"))
    wanted = probs_of(store, "ours", prepared)
    is_oof = frame["split"] == "oof"
    changes = {
        "all-from-1": frame["fold"] + 1,
        "oof-from-1": frame["fold"] + is_oof,
        "turned": (frame["fold"] + 2) % 3,
    }
    for name, folds in changes.items():
        report = take(prepared, write_table(frame.assign(fold=folds), tmp_path / f"{name}.csv"))
        assert report.offences == ()
        assert any("the same folds under other numbers" in note for note in report.notes)
        for found, known in zip(probs_of(store, name, prepared), wanted, strict=True):
            assert found.tobytes() == known.tobytes()


def test_other_folds_are_one_offence(prepared: Prepared, theirs: Path, tmp_path: Path) -> None:
    frame = make_table(theirs).reset_index(drop=True)
    is_oof = (frame["split"] == "oof").to_numpy()
    folds = frame["fold"].to_numpy() + is_oof
    folds[is_oof.argmax()] -= 1
    path = write_table(frame.assign(fold=folds), tmp_path / "kim.csv")
    offences = take(prepared, path).offences
    assert len(offences) <= 3  # one for each pair of folds, not one for each row
    assert all("train on this folds.csv" in each.remedy for each in offences)
    assert nothing_written(prepared)


def test_text_in_place_of_numbers_is_named(
    prepared: Prepared, theirs: Path, tmp_path: Path
) -> None:
    frame = make_table(theirs).astype(object)
    frame.iloc[4, 3] = "half"
    frame.iloc[5, 2] = "first"
    report = take(prepared, write_table(frame, tmp_path / "kim.csv"))
    found = {(each.line, each.column): each.found for each in report.offences}
    assert found[6, "per:birthplace"] == "'half' is not a number"
    assert found[7, "fold"] == "'first' is not a fold"
    (tmp_path / "kim.parquet").write_bytes(b"PAR1")
    assert "cannot be read" in take(prepared, tmp_path / "kim.parquet").offences[0].found


def test_what_is_nothing_to_import_is_said(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x", "utf-8")
    (tmp_path / "empty.csv").write_text("", "utf-8")
    with pytest.raises(UsageError, match="no such file"):
        take(prepared, tmp_path / "gone")
    with pytest.raises(UsageError, match="neither a table nor a folder"):
        take(prepared, tmp_path / "empty")
    assert take(prepared, tmp_path / "notes.txt").offences
    with pytest.raises(UsageError, match="cannot be a name"):
        take(prepared, tmp_path / "empty", save_as="../x")
    assert take(prepared, tmp_path / "empty.csv").offences


def test_another_file_in_place_of_a_result_is_described(prepared: Prepared, theirs: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 133\n"
    (theirs / "s1-f1.parquet").write_text(pointer, "utf-8")
    with pytest.raises(PredictionsError, match=r"a Git LFS pointer of 133 bytes.*git lfs pull"):
        take(prepared, theirs)


def test_damaged_files_are_refused(prepared: Prepared, theirs: Path) -> None:
    file = theirs / "s1-f1.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(bytes(data))
    with pytest.raises(PredictionsError, match="damaged"):
        take(prepared, theirs)
    assert nothing_written(prepared)


def test_an_import_is_blended_like_any_other(
    prepared: Prepared, store: Store, theirs: Path
) -> None:
    fill(store, prepared, "ours", seeds=(3,))
    take(prepared, theirs)
    found = run_blend(prepared.competition, (), trials=2, seed=0, name="b", run=RUN)
    assert found.fit.blend.members == ("ours", "v")
    shutil.rmtree(theirs)
    again = run_blend(prepared.competition, (), trials=2, seed=0, name="c", run=RUN)
    assert again.path.read_bytes() == found.path.read_bytes()


def test_the_command_says_what_it_did_and_leaves_2_on_offences(
    prepared: Prepared, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from run import app

    monkeypatch.setenv("COMPETITION_HOME", str(prepared.competition.home))
    own = ["--competition", str(tmp_path / "tiny.toml"), "--json"]
    path = write_table(make_table(theirs), tmp_path / "kim.csv")
    done = CliRunner().invoke(app, ["import", str(path), "--as", "kim", *own])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["imported"]["rows"][0]["folds"] == "0 1 2"
    bad = write_table(make_table(theirs).iloc[1:], tmp_path / "bad.csv")
    done = CliRunner().invoke(app, ["import", str(bad), *own])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["offences"]["rows"][0]["found"].startswith("no prediction")


def test_a_variant_does_not_take_the_name_of_a_blend(
    prepared: Prepared, store: Store, theirs: Path, tmp_path: Path
) -> None:
    submissions = prepared.competition.submissions_dir
    submissions.mkdir(parents=True)
    (submissions / "best.json").write_text("{}")
    table = write_table(make_table(theirs), tmp_path / "v.csv")
    for path in (theirs, table):
        with pytest.raises(UsageError, match="best is the name of a blend"):
            take(prepared, path, save_as="best")
    assert nothing_written(prepared)
    take(prepared, theirs)
    (submissions / "v.json").write_text("{}")  # of an older version, which did not check
    assert [each.is_new for each in take(prepared, theirs).imported] == [False] * 3
