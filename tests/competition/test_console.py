"""What is printed at any width: every column, every digit, and commands that can be copied."""

from __future__ import annotations

import json

import pytest
from rich.cells import cell_len

from competition.console import (
    Column,
    Table,
    escape,
    escape_json,
    format_value,
    print_tables,
    say,
    write_count,
)
from competition.progress import ProgressBoard

COLUMNS = (
    Column("name", "variant"),
    Column("f1", "fitted F1", "score"),
    Column("interval", "95%", "interval"),
    Column("gain", "over best single", "spread"),
    Column("auprc", "fitted AUPRC", "score", begins_part=True),
    Column("auprc_gain", "over best single", "spread"),
    Column("rows", "rows", "count"),
)
NAMES = ("typed-punct", "bilstm", "typed-punct@scratch+train.lr=0.001")
ROWS = [
    {
        "name": name,
        "f1": 0.7153 + place / 100,
        "interval": (0.7, 0.72),
        "gain": (-0.0123, 0.2),
        "auprc": 0.8,
        "auprc_gain": (-0.01, 0.02),
        "rows": 32_470,
    }
    for place, name in enumerate(NAMES)
]
COMMAND = "Next: python run.py check /a/long/path/to/a/submission/of/some/blend.csv --competition x"


def show(
    table: Table, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    print_tables([table], as_json=False)
    printed: str = capsys.readouterr().out
    return printed.splitlines()


def names_begin(line: str) -> bool:
    return line.startswith((" typed-punct ", " bilstm "))


@pytest.mark.parametrize("width", range(36, 130, 3))
def test_no_figure_and_no_header_is_lost_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = show(Table("t", "All", COLUMNS, ROWS), width, monkeypatch, capsys)
    assert max(map(cell_len, lines)) <= width
    words = " ".join(lines).split()
    for row in ROWS:
        for column in COLUMNS[1:]:
            for figure in format_value(row[column.key], column.kind).split():
                assert figure in words, (column.key, figure)
    for word in ("fitted", "F1", "95%", "over", "AUPRC", "rows", "typed-punct", "bilstm"):
        assert word in words


def test_a_table_too_wide_is_parted_where_it_says_and_each_part_names_its_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("t", "All", COLUMNS, ROWS[:2])
    whole = show(table, 120, monkeypatch, capsys)
    assert sum(map(names_begin, whole)) == 2
    parted = show(table, 60, monkeypatch, capsys)
    assert sum(map(names_begin, parted)) == 4
    titles = [line for line in parted if line.startswith("All")]
    assert titles == ["All", "All, continued"]
    second = parted[parted.index("All, continued") :]
    assert "fitted" in " ".join(second)
    assert "AUPRC" not in " ".join(parted[: parted.index("All, continued")])
    assert parted[0] == "All"


def test_room_between_columns_goes_before_names_are_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = (COLUMNS[0], Column("f1", "F1", "score"), Column("rows", "rows", "count"))
    table = Table("t", "", columns, ROWS)
    full = len(NAMES[2]) + 5 + 6
    loose = show(table, full + 2 + 4, monkeypatch, capsys)
    assert f" {NAMES[2]}  73.53  32,470 " in loose
    tight = show(table, full + 2 + 2, monkeypatch, capsys)
    assert f" {NAMES[2]} 73.53 32,470 " in tight
    broken = show(table, full + 1, monkeypatch, capsys)
    assert not any(NAMES[2] in line for line in broken)
    assert NAMES[2] in "".join(line[1 : full - 13].strip() for line in broken)


def test_what_no_parting_helps_is_wider_than_the_terminal_and_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = show(Table("t", "All", COLUMNS[:4], ROWS), 20, monkeypatch, capsys)
    assert "-1.23 to +20.00" in " ".join(lines)
    assert "70.00–72.00" in " ".join(lines)


def test_words_of_notes_are_never_broken_and_commands_stay_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/a/folder/whose/name/is/longer/than/the/terminal/is/wide/blend-0c1cd892.csv"
    notes = (
        f"Written: {path}",
        COMMAND,
        "관계 추출 대회의 설명이 여기에 길게 서 있다 " * 3,
        "a\nb",
    )
    lines = show(Table("t", "All", (), [], notes), 40, monkeypatch, capsys)
    assert lines[0] == "All"
    assert max(map(cell_len, lines[1:-3])) <= 40
    assert " ".join(lines[1:-5]).split() == notes[2].split()
    assert lines[-5:] == ["a", "b", "Written:", path, COMMAND]
    kaggle = "Next: kaggle datasets create --path /a/folder/of/a/bundle --dir-mode zip"
    command = COMMAND.removeprefix("Next: ")
    advised = f"the leaderboard may be reversed; so see: {command}"
    lines = show(Table("t", "All", (), [], (kaggle, advised)), 40, monkeypatch, capsys)
    assert lines[1:] == ["the leaderboard may be reversed; so see:", command, kaggle]


def test_marks_and_codes_of_a_terminal_are_shown_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "[bold]x[/bold] :smile:"}
    table = Table("t", "[red]", (Column("name", "[b]"),), [row], ("[i] :warning:",))
    lines = show(table, 80, monkeypatch, capsys)
    assert lines[0] == "[red]"
    assert " [b]" in lines[2]
    assert any(line.startswith(" [bold]x[/bold] :smile:") for line in lines)
    assert lines[-1] == "[i] :warning:"


def test_json_holds_every_row_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([Table("t", "All", COLUMNS, ROWS, (COMMAND,))], as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "t": {"rows": json.loads(json.dumps(ROWS)), "notes": [COMMAND]}
    }


def test_one_of_a_thing_is_no_plural() -> None:
    assert write_count(0, "row") == "0 rows"
    assert write_count(1, "line ends", "lines end") == "1 line ends"
    assert write_count(2, "line ends", "lines end") == "2 lines end"


NASTY = "\x1b]0;x\x07\x1b[2J\u202e\u2066\u200b\x9b31m\u2028\r\x7f\ufeff\u3164\ud800\U000e0041"


def is_safe(printed: str) -> bool:
    return not any(character in printed for character in NASTY if character.isprintable() is False)


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_in_a_table_steers_the_terminal(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = (Column("name", f"na{NASTY}me"), Column("n", "n", "count"))
    table = Table("t", f"Title {NASTY}", columns, [{"name": f"관계 {NASTY}", "n": 1}], [NASTY, "b"])
    print_tables([table], as_json=as_json)
    printed = capsys.readouterr().out
    assert is_safe(printed)
    assert "\u3164" not in printed
    assert "관계" in printed
    if as_json:  # which means the same
        assert json.loads(printed)["t"]["rows"][0]["name"] == f"관계 {NASTY}"
    else:
        assert r"\x1b[2J\u202e\u2066\u200b\x9b31m\u2028" in "".join(printed.split())


@pytest.mark.parametrize("live", [False, True])
def test_nothing_in_progress_steers_the_terminal(
    live: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("competition.progress.LINE_EVERY_S", 0.0)
    with ProgressBoard(live=live) as board:
        board.say(f"row {NASTY}")
        board.update(f"task {NASTY}", 0.5, NASTY)
    say(NASTY)
    out, err = capsys.readouterr()
    assert is_safe(out + err)
    assert r"row\x1b]0;x" in "".join(err.split())


def test_what_is_plain_is_printed_as_it_is() -> None:
    for text in ("관계 \u3000 é e\u0301 漢字 🙂", "a\n\tb", "ㄱ ㅏ ᄀᆞ", ""):
        assert escape(text) == text
        assert json.loads(escape_json(json.dumps(text, ensure_ascii=False))) == text
