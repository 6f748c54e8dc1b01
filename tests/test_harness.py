"""The functions for notebooks give what the commands give, from any folder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import harness
import run
from competition.console import Column, Table
from competition.errors import ProfileError, UsageError
from run import app

ROOT = Path(__file__).parent.parent
OWN = {"competition": "demo", "limit": 200}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the linear model is trained by the function, and blended."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPETITION_HOME", str(home))
        trained = harness.fold("tfidf-linear", threads=1, **OWN)  # type: ignore[arg-type]
        assert trained.complete
        assert trained["variants"].loc[0, "variant"] == "tfidf-linear"
        blended = harness.blend(name="own", trials=5, **OWN)  # type: ignore[arg-type]
        assert {"members", "systems"} <= set(blended)
    return home


def test_the_board_is_the_commands_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPETITION_HOME", str(home))
    board = harness.board(**OWN)  # type: ignore[arg-type]
    printed = CliRunner().invoke(
        app, ["board", "--competition", "demo", "--limit", "200", "--json"]
    )
    tables = json.loads(printed.stdout)
    assert set(tables) == set(board)
    for name, table in tables.items():
        found = board[name].astype(object).where(board[name].notna(), None)
        assert json.loads(json.dumps(found.to_dict("records"))) == table["rows"]


def test_errors_of_a_variant_and_of_a_blend(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPETITION_HOME", str(home))
    for name in ("tfidf-linear", "own"):
        found = harness.errors(name, rows=3, **OWN)  # type: ignore[arg-type]
        assert len(found["labels"]) == 30
        assert len(found["hardest"]) == 3
        assert (home / "reports" / "demo@200" / f"{name}-labels.csv").is_file()

    def refuse(_errors: object) -> None:
        raise OSError(errno.EROFS, "", "there.csv")

    monkeypatch.setattr("competition.report.error_tables.write_suspects", refuse)
    found = harness.errors("own", rows=3, **OWN)  # type: ignore[arg-type]
    assert len(found["hardest"]) == 3
    assert "could not be written: there.csv: Read-only file system" in found.notes[-1]


def test_arguments_of_another_kind_are_understood_or_refused_in_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPETITION_HOME", str(home))
    with pytest.raises(ProfileError, match=r"absent\.toml: no such competition file"):
        harness.board(competition=Path("absent.toml"))
    with pytest.raises(UsageError, match="--score 'b1' is not of the form"):
        harness.board(scores="b1", **OWN)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--folds 9"):
        harness.fold("tfidf-linear", folds=9, seeds=42, **OWN)  # type: ignore[arg-type]
    for function in (harness.fold, harness.blend):
        with pytest.raises(UsageError, match=r"give each variant as a text of its own.*\*names"):
            function(["a", "b"], **OWN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        ("fold", {"seeds": [-1]}, "--seeds -1: a seed is an integer from 0 to"),
        ("fold", {"seeds": -1}, "--seeds -1: a seed is an integer from 0 to"),
        ("fold", {"settings": {"seeds": [7, -1]}}, "seeds -1: a seed is an integer from 0 to"),
        ("fold", {"workers": -1}, "--workers -1: give a number from 1"),
        ("fold", {"threads": 0}, "--threads 0: give a number from 1"),
        ("fold", {"gpus_per_job": -0.5}, r"--gpus-per-job -0\.5: give a number from 0"),
        ("fold", {"track": ["nope"]}, "nope"),
        ("blend", {"seed": 2**32}, f"--seed {2**32}: a seed is an integer from 0 to"),
        ("blend", {"trials": -1}, "--trials -1: give a number from 0"),
        ("errors", {"rows": 0}, "--rows 0: give a number from 1"),
        ("errors", {"cross_fit": 1}, "--cross-fit 1: give a number from 2"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(
    function: str, options: dict[str, Any], said: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPETITION_HOME", str(home))
    with pytest.raises(UsageError, match=said) as refused:
        getattr(harness, function)("tfidf-linear", **options, **OWN)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["fold", "blend", "board", "errors"])
def test_a_function_has_the_options_of_its_command(name: str) -> None:
    renamed = {"no_checkpoints": "keep_checkpoints", "stop_after": "stop_after_s"}
    renamed |= {"overrides": "settings"}
    command = {renamed.get(each, each) for each in signature(getattr(run, name)).parameters}
    assert command - {"as_json", "full"} == set(signature(getattr(harness, name)).parameters)


def test_it_works_from_another_folder(home: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import harness\n"
        "board = harness.board(competition='demo', limit=200)\n"
        "print(board['variants'].shape[0], len(board.notes) > 0, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "COMPETITION_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "1 True False"


def test_a_notebook_shows_text_as_text() -> None:
    table = Table("t", "A <b>", [Column("x", "x<y"), Column("s", "F1", "score")], [], ["<script>"])
    row = {"x": "<script>alert(1)</script>", "s": 0.7153}
    shown = harness.Tables([table, Table("u", "U", table.columns, [row])])._repr_html_()
    assert "<script>" not in shown
    assert "71.53" in shown
    assert list(harness.Tables([table])["t"].columns) == ["x", "s"]
