"""What reaches a terminal or a pipe: any encoding, help, names mistyped, errors as JSON."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import run
from competition.console import Column, Table, make_streams_safe, print_json, print_tables, say
from models.variant import list_variants, read_file_settings
from tests.conftest import RunCommand, write_tiny

ROOT = Path(__file__).parent.parent
COLUMNS = (Column("name", "이름"), Column("f1", "F1", "interval"))
TABLE = Table("t", "표 – table", COLUMNS, [{"name": "관계 é", "f1": (0.7, 0.73)}, {"name": "b"}])


def capture(encoding: str, monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Make the standard streams those of a terminal or pipe of an encoding."""
    held = io.BytesIO()
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(held, encoding=encoding, write_through=True)
        monkeypatch.setattr(sys, name, stream)
    return held


@pytest.mark.parametrize("encoding", ["cp949", "ascii", "cp1252", "utf-8", "latin-1"])
def test_tables_lines_and_json_reach_every_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = capture(encoding, monkeypatch)
    make_streams_safe()
    print_tables([TABLE], as_json=False)
    say("관계… – 😀")
    shown = held.getvalue().decode(encoding)
    dash = "–" if encoding in ("utf-8", "cp1252") else "-"
    assert f"70.00{dash}73.00" in shown
    assert ("관계" in shown) == (encoding in ("utf-8", "cp949"))
    held.seek(0)
    held.truncate()
    payload = {"text": "관계 é – 😀"}
    print_json(payload)
    assert json.loads(held.getvalue().decode(encoding)) == payload


def test_a_sign_that_is_replaced_keeps_the_tables_width(monkeypatch: pytest.MonkeyPatch) -> None:
    held = capture("ascii", monkeypatch)
    make_streams_safe()
    print_tables([Table("t", "t", COLUMNS[1:], TABLE.rows)], as_json=False)
    lines = held.getvalue().decode("ascii").splitlines()[1:]
    assert len({len(line) for line in lines if line.strip()}) == 1, lines


def test_commands_end_well_where_the_output_is_cp949(tmp_path: Path) -> None:
    tiny = ["--competition", str(write_tiny(tmp_path))]
    code = f"import run, sys; sys.argv = ['run.py', 'data', *{tiny!r}]; run.main()"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "cp949", "COMPETITION_HOME": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "no_relation" in answer.stdout.decode("cp949")


def test_help_shows_each_summary_whole(run_command: RunCommand) -> None:
    said = run_command("-h", exits=0)
    assert "..." not in said.split("Commands:")[1]
    assert "Show variants, blends and submissions with their scores." in said
    assert run_command("board", "-h").startswith("Usage: run.py board")


def test_the_shell_completes_commands_and_variants() -> None:
    words = "run.py fold typed-"
    completing = {"_RUN.PY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "2"}
    answer = subprocess.run(
        [ROOT / "run.py", "fold"],
        env={**os.environ, **completing, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [name for name in list_variants() if name.startswith("typed-")]
    assert answer.stdout.split() == found, answer.stderr


def test_the_version_is_said(run_command: RunCommand) -> None:
    assert run_command("--version").startswith("run.py 0.")


def test_variants_are_listed_with_their_idea(run_command: RunCommand, tmp_path: Path) -> None:
    tiny = ["--competition", str(write_tiny(tmp_path))]
    tables = json.loads(run_command("variants", *tiny, "--json", only_stdout=True))
    rows = {row["variant"]: row for row in tables["variants"]["rows"]}
    assert list(rows) == list_variants()
    assert rows["rbert"]["why"] == read_file_settings("rbert")["why"]
    assert [name for name, row in rows.items() if row["default"]] == ["concat-cls"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["fold", "tiped-punct"], "did you mean typed-punct or"),
        (["fold", "concat-cls", "--set", "lr=3e-5"], "did you mean train.lr?"),
        (
            ["fold", "concat-cls", "--set", "train.label_smoothin=0"],
            "did you mean train.label_smoothing",
        ),
        (["fold", "concat-cls", "--set", "head=rbret"], "did you mean rbert?"),
    ],
)
def test_a_mistyped_name_is_answered_with_what_may_be_meant(
    words: list[str], meant: str, run_command: RunCommand, tmp_path: Path
) -> None:
    tiny = ["--competition", str(write_tiny(tmp_path))]
    assert meant in run_command(*words, *tiny, exits=2)


@pytest.mark.parametrize(
    ("words", "kind"),
    [(["board", "--competition", "nope"], "UsageError"), (["board", "--nope"], "NoSuchOption")],
)
def test_an_error_is_json_too(words: list[str], kind: str, run_command: RunCommand) -> None:
    error = json.loads(run_command(*words, "--json", exits=2, only_stdout=True))["error"]
    assert error["kind"] == kind
    assert "nope" in error["message"]


def test_offences_are_json_one_by_one(run_command: RunCommand, tmp_path: Path) -> None:
    tiny = ["--competition", str(write_tiny(tmp_path))]
    train = tmp_path / "data" / "train.csv"
    train.write_text(train.read_text("utf-8").replace("per:employer", "per:boss", 1), "utf-8")
    error = json.loads(run_command("blend", *tiny, "--json", exits=2, only_stdout=True))["error"]
    assert error["offences"][0]["file"] == "train.csv"
    assert "per:boss" in error["offences"][0]["found"]


def test_outside_the_environment_it_is_said_what_to_do() -> None:
    answer = subprocess.run(
        [sys.executable, "-S", ROOT / "run.py", "data"],  # -S: without the installed libraries
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "has no library 'typer', which this needs; run" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_error_that_cannot_be_written_as_json_is_said_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_payload: object) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(sys, "argv", ["run.py", "board", "--json"])
    monkeypatch.setattr(run, "print_json", refuse)
    with pytest.raises(SystemExit) as ended:
        run._fail("no space is left", OSError(errno.ENOSPC, ""))
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "error: no space is left\n")
