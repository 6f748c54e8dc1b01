"""The last lines of a command: what matters, in at most five lines, coloured on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from competition.closing import MAX_LINES, split_closing
from competition.console import Column, Table, print_tables

ROOT = Path(__file__).parent.parent.parent


def test_lines_close_a_command_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    first = Table("a", "Scores", [Column("x", "x")], [{"x": "1"}], ["Next: now", "a detail"])
    last = Table("b", "Submission", (), [], ["Written: x.csv", "Warning: odd", "Better: by 2"])
    print_tables([first, last], as_json=False)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[-5:] == ["a detail", "Better: by 2", "Warning: odd", "Written: x.csv", "Next: now"]
    assert "Submission" not in lines  # nothing but closing lines stood below it
    print_tables([first, last], as_json=True)
    assert '"a detail"' in capsys.readouterr().out.split('"Next: now"')[1]  # in its place


def test_there_are_at_most_five_and_no_warning_is_lost() -> None:
    warnings = [f"Warning: {number}" for number in range(9)]
    kept, last = split_closing([["Verdict: v", "Next: n"], warnings])
    assert len(last) == MAX_LINES
    assert last == ["Verdict: v", *warnings[:2], "Warning: 7 more above.", "Next: n"]
    assert kept == [[], warnings[2:]]
    _, last = split_closing([["Verdict: v", "Next: n"], warnings[:3]])
    assert last == ["Verdict: v", *warnings[:3], "Next: n"]


def test_short_form_names_what_it_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    columns, rows = [Column("x", "x")], [{"x": "cell"}]
    shown = Table("a", "Scores", columns, rows, ["Verdict: v"])
    warnings = [f"Warning: {number}" for number in range(5)]
    hidden = Table("b", "Noise", columns, rows, ["an explanation", *warnings], "table")
    half = Table("c", "Sides", columns, rows, ["a command"], "rows")
    empty = Table("d", "Front", (), [], ["no front"], "table")
    bare = Table("e", "Lengths", columns, rows, detail="table")
    print_tables([shown, hidden, half, empty, bare], as_json=False)
    text = capsys.readouterr().out
    assert text.count("cell") == 1
    assert "an explanation" not in text
    assert all(f"\n{each}\n" in text for each in (*warnings, "a command", "no front"))
    assert "\nLengths\n" not in text
    assert "--full shows 3 more tables: Noise; Sides; Lengths.\nVerdict: v\n" in text
    print_tables([shown, hidden, half, empty, bare], as_json=False, in_full=True)
    text = capsys.readouterr().out
    assert text.count("cell") == 4
    assert "an explanation" in text
    assert "--full" not in text
    print_tables([hidden], as_json=True)
    assert "an explanation" in capsys.readouterr().out


def run_on_terminal(columns: int, shell: str) -> str:
    """Run a shell command on a terminal of some width; return what it showed."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    subprocess.run(
        ["sh", "-c", shell],
        cwd=ROOT,
        env={**environment, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    return os.read(ours, 1 << 16).decode("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_terminal_has_colour_and_a_pager_its_width(tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text(
        "from competition.console import Table, print_tables\n"
        "print_tables([Table('a', 'T', (), [], ['word ' * 30, 'Worse: by 2'])], as_json=False)\n"
    )
    shown = run_on_terminal(47, f"'{sys.executable}' '{script}'")
    assert "\x1b[1;31mWorse: by 2" in shown
    piped = run_on_terminal(47, f"'{sys.executable}' '{script}' | cat")
    assert "\x1b" not in piped
    assert 40 <= max(len(line.rstrip()) for line in piped.splitlines()) <= 47
