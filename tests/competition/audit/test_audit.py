"""The audit: planted oddities are counted, broken files are reported, nothing is written."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from competition.audit.audit import Audit, build_audit_tables, run_audit
from competition.console import Table, print_tables
from competition.profile import Competition, resolve_competition
from tests.conftest import N_TEST, N_TRAIN, make_rows, write_foreign


def tables_of(audit: Audit) -> dict[str, Table]:
    return {table.name: table for table in build_audit_tables(audit)}


def rows_by(table: Table, key: str) -> dict[str, Any]:
    return {row[key]: row for row in table.rows}


def printed(tables: dict[str, Table], *, as_json: bool) -> str:
    stream = io.StringIO()
    with redirect_stdout(stream):
        print_tables(list(tables.values()), as_json=as_json)
    return stream.getvalue()


def test_clean_files_can_be_trained_on(tiny_competition: Competition) -> None:
    audit = run_audit(tiny_competition)
    tables = tables_of(audit)
    assert audit.ok
    assert tables["files"].notes == ["Verdict: these files can be trained on."]
    assert list(tables.values())[-1].notes[-1] == "Next: python run.py fold"
    assert [row["rows"] for row in tables["files"].rows] == [N_TRAIN, N_TEST]
    assert [row["rows"] for row in tables["labels"].rows] == [16, 16, 16, 16]
    assert not tiny_competition.oof_dir.exists()


def test_a_file_without_a_positive_row_is_counted(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    text = path.read_text("utf-8")
    for label in tiny_competition.profile.labels:
        text = text.replace(f"{label},", "no_relation,")
    path.write_text(text, "utf-8")
    tables = tables_of(run_audit(tiny_competition))
    assert tables["odd_types"].rows == []
    assert sum(row["rows"] for row in tables["labels"].rows) == N_TRAIN


def test_duplicates_and_their_conflict_are_found(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    again = path.read_text(encoding="utf-8").splitlines()[1].replace("0,", "again,", 1)
    path.write_text(path.read_text(encoding="utf-8") + again + "\n", encoding="utf-8")
    tables = tables_of(run_audit(tiny_competition))
    counts = {row["what"]: (row["keys"], row["rows"]) for row in tables["duplicates"].rows}
    assert counts == {
        "train: same sentence, subject and object": (2, 4),
        "… with different labels": (1, 2),
        "test rows that occur in train": (0, 0),
    }
    (conflict,) = tables["conflicts"].rows
    assert conflict["ids"] == "2, 13"
    assert conflict["labels"] == "per:employer / no_relation"


def test_a_row_in_both_files_is_found(tiny_competition: Competition) -> None:
    train, test = tiny_competition.train_path, tiny_competition.test_path
    stolen = train.read_text(encoding="utf-8").splitlines()[1].replace("0,", "stolen,", 1)
    test.write_text(test.read_text(encoding="utf-8") + stolen + "\n", encoding="utf-8")
    tables = tables_of(run_audit(tiny_competition))
    assert tables["duplicates"].rows[2]["rows"] == 1


def test_odd_types_are_found(
    tiny_competition: Competition, edit_train: Callable[[str, str], int]
) -> None:
    line = tiny_competition.train_path.read_text(encoding="utf-8").splitlines()[1]
    edit_train(line, line.replace("'type': 'PER'", "'type': 'LOC'"))
    tables = tables_of(run_audit(tiny_competition))
    note = "Labels for another subject type: 2 rows, for example id 0, 10."
    assert tables["odd_types"].notes == [note]
    pairs = rows_by(tables["type_pairs"], "pair")
    assert pairs["LOC → LOC"]["train"] == 1
    assert pairs["PER → LOC"]["train"] == 15
    assert pairs["PER → LOC"]["negative_share"] == 0.0
    assert sum(row["train_share"] for row in pairs.values()) == pytest.approx(1)
    assert sum(row["test_share"] for row in pairs.values()) == pytest.approx(1)


def test_a_label_hardly_ever_met_with_a_type_pair_is_listed(
    tiny_competition: Competition,
) -> None:
    path = tiny_competition.train_path
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    many = [lines[0].replace("0,", f"m{i},", 1) for i in range(100)]
    odd = lines[0].replace("0,", "odd,", 1).replace("'type': 'LOC'", "'type': 'ORG'")
    path.write_text("\n".join([header, *lines, *many, odd]) + "\n", encoding="utf-8")
    tables = tables_of(run_audit(tiny_competition))
    (row,) = tables["odd_types"].rows
    assert (row["label"], row["pair"], row["rows"]) == ("per:birthplace", "PER → ORG", 1)
    assert row["example"] == "odd"
    words = tables["ambiguous_words"].rows
    assert words[0]["types"] == "LOC 101, ORG 1"
    assert words[0]["odd"] == 1


def test_positions_are_counted(tiny_competition: Competition) -> None:
    rows = rows_by(tables_of(run_audit(tiny_competition))["positions"], "what")
    # the template of no_relation names the subject twice, and after the object
    assert rows["an entity's text occurs more than once"]["train"] == pytest.approx(15 / 64)
    assert rows["… and text search would mark another position"]["train"] == 0
    is_after = [row.subject[1] > row.object[1] for row in make_rows(N_TRAIN)]
    assert rows["subject after object"]["train"] == sum(is_after) / N_TRAIN
    assert sum(is_after) * 2 != N_TRAIN


def test_text_search_that_would_mark_another_place_is_counted(
    tiny_competition: Competition, edit_train: Callable[[str, str], int]
) -> None:
    made = make_rows(N_TRAIN)[1]  # its sentence names the subject twice
    word, first, end, _ = made.subject
    second = made.sentence.rindex(word)
    assert second > first
    line = tiny_competition.train_path.read_text(encoding="utf-8").splitlines()[2]
    cell = f"'start_idx': {first}, 'end_idx': {end - 1}"
    moved = f"'start_idx': {second}, 'end_idx': {second + len(word) - 1}"
    edit_train(line, line.replace(cell, moved, 1))
    rows = rows_by(tables_of(run_audit(tiny_competition))["positions"], "what")
    assert rows["… and text search would mark another position"]["train"] == pytest.approx(1 / 64)


def test_shift_is_measured(tiny_competition: Competition) -> None:
    path = tiny_competition.test_path
    path.write_text(path.read_text(encoding="utf-8").replace(",news", ",blog"), encoding="utf-8")
    table = tables_of(run_audit(tiny_competition))["shift"]
    sources = {row["value"]: row for row in table.rows if row["what"] == "source"}
    assert sources["blog"]["train"] == 0
    assert sources["blog"]["test"] == pytest.approx(sources["blog"]["difference"])
    assert sources["news"]["test"] == 0
    assert "source " in table.notes[0]


def test_untyped_rows_without_source_get_the_tables_that_apply(
    foreign_competition: Competition,
) -> None:
    audit = run_audit(foreign_competition)
    assert audit.ok
    tables = tables_of(audit)
    assert not {"type_pairs", "odd_types", "ambiguous_words", "shift"} & set(tables)
    assert {"files", "labels", "duplicates", "positions", "lengths", "groups"} <= set(tables)
    printed(tables, as_json=False)


def test_offences_are_reported_not_raised(
    tiny_competition: Competition, edit_train: Callable[[str, str], int]
) -> None:
    line = tiny_competition.train_path.read_text(encoding="utf-8").splitlines()[4]
    number = edit_train(line, line.replace("per:sibling", "[bold]no such[/bold]"))
    audit = run_audit(tiny_competition)
    assert not audit.ok
    tables = tables_of(audit)
    assert list(tables) == ["files", "offences"]
    (row,) = tables["offences"].rows
    assert (row["file"], row["line"], row["column"]) == ("train.csv", number, "label")
    assert tables["files"].rows[0]["rows"] == N_TRAIN - 1
    assert "[bold]" in printed(tables, as_json=False)
    assert json.loads(printed(tables, as_json=True))["offences"]["rows"][0]["line"] == number


def test_a_thousand_offences_make_a_short_table(tiny_competition: Competition) -> None:
    path, first = tiny_competition.train_path, tiny_competition.train_path.read_text("utf-8")
    path.write_text(first + "x\n" * 1_000, encoding="utf-8")
    table = tables_of(run_audit(tiny_competition))["offences"]
    assert table.rows[0]["found"].endswith(
        "the same or similar in 1,000 of 1,064 rows"
    )  # one cause
    lines = first.splitlines()
    for number in range(1, 26):
        lines[number] = lines[number].replace("'PER'", f"'P{number}'", 1)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    test_path = tiny_competition.test_path
    test_path.write_text(test_path.read_text("utf-8").replace("'PER'", "'?'", 1), encoding="utf-8")
    audit = run_audit(tiny_competition)
    tables = tables_of(audit)
    table = tables["offences"]
    assert (table.title, len(table.rows)) == ("Offences (26)", 21)
    assert table.rows[-1]["file"] == "test.csv"  # each file's first ones
    assert table.notes == ["… and 5 more; --json lists all of them."]
    (whole,) = [t for t in build_audit_tables(audit, is_whole=True) if t.name == "offences"]
    assert len(whole.rows) == 26
    assert not any("Next" in note for each in tables.values() for note in each.notes)


def test_notices_are_shown(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    audit = run_audit(tiny_competition)
    assert audit.ok
    assert "byte order mark" in tables_of(audit)["notices"].rows[0]["found"]


def test_a_missing_file_is_an_offence(tiny_competition: Competition) -> None:
    tiny_competition.test_path.unlink()
    audit = run_audit(tiny_competition)
    assert not audit.ok
    assert tables_of(audit)["files"].rows[1]["rows"] == 0


def test_rows_that_cannot_fill_folds_cannot_be_trained_on(
    tiny_competition: Competition,
) -> None:
    path = tiny_competition.train_path
    header, first, *rest = path.read_text(encoding="utf-8").splitlines()
    crowd = [first.replace("0,", f"x{i},", 1) for i in range(30)]
    path.write_text("\n".join([header, first, *rest, *crowd]) + "\n", encoding="utf-8")
    audit = run_audit(tiny_competition)
    assert not audit.ok
    assert "Set group_by = []" in tables_of(audit)["files"].notes[0]
    notes = [note for table in tables_of(audit).values() for note in table.notes]
    assert not any("keep it in folds.group_by" in note for note in notes)  # of what must go
    assert not any("Next" in note for table in tables_of(audit).values() for note in table.notes)
    # folds of one's own are not judged by that rule
    tiny_competition.oof_dir.mkdir(parents=True)
    (tiny_competition.oof_dir / "folds.csv").touch()
    assert run_audit(tiny_competition).ok


def test_a_limit_that_is_too_small_is_reported(tmp_path: Path) -> None:
    competition = resolve_competition(str(write_foreign(tmp_path)), None, 1, home=tmp_path)
    audit = run_audit(competition)
    assert not audit.ok
    assert "--limit 1 is too small for 2 folds" in tables_of(audit)["files"].notes[0]


def test_the_real_audit(klue_re_dir: Path, tmp_path: Path) -> None:
    audit = run_audit(resolve_competition("klue-re", klue_re_dir, None, home=tmp_path))
    assert audit.ok
    tables = tables_of(audit)
    assert [(row["keys"], row["rows"]) for row in tables["duplicates"].rows[:2]] == [
        (46, 93),
        (5, 11),
    ]
    groups = [(row["groups"], row["largest"]) for row in tables["groups"].rows]
    assert groups == [(28_803, 3), (17_136, 117), (14_595, 1_253)]
    assert any("96.8% of test rows have a pair of entities" in n for n in tables["groups"].notes)
    positions = rows_by(tables["positions"], "what")
    assert positions["subject after object"]["test"] == pytest.approx(0.3754, abs=1e-4)
    assert positions["an entity's text occurs more than once"]["train"] == pytest.approx(
        0.1637, abs=1e-4
    )
    text = printed(tables, as_json=False)
    assert len(text.splitlines()) < 180
    assert json.loads(printed(tables, as_json=True)).keys() == tables.keys()


def test_korean_prompts_around_other_words_are_remarked(tiny_competition: Competition) -> None:
    def told(competition: Competition) -> bool:
        tables = tables_of(run_audit(competition)).values()
        return any("prompts are Korean" in note for table in tables for note in table.notes)

    assert not told(tiny_competition)
    for path in (tiny_competition.train_path, tiny_competition.test_path):
        text = path.read_text("utf-8")
        path.write_text(re.sub("[가-힣]", "a", text), encoding="utf-8")
    assert told(tiny_competition)
    profile = tiny_competition.home / "tiny.toml"
    with profile.open("a", encoding="utf-8") as stream:
        stream.write('\n[language]\nname = "english"\n')
    english = resolve_competition(str(profile), None, None, home=tiny_competition.home)
    assert not told(english)
