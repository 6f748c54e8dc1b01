"""rerun: messages about missing results name the stored command that makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from competition.errors import PredictionsError
from competition.predictions.rerun import COMMAND, advise_training, write_command
from competition.predictions.store import ResultKey, Store


def leave_command(folder: Path, command: str) -> Path:
    folder.mkdir()
    (folder / "s42-f0.run.json").write_text(json.dumps({COMMAND: command}), encoding="utf-8")
    return folder


def test_a_command_is_written_without_some_options_however_they_were_typed() -> None:
    typed = "fold a b --folds 0,1 --limit=300 --set 'x=[1, 2]' --competition c --workers 2"
    assert write_command(typed, "--folds", "--workers") == "python run.py fold a b --set 'x=[1, 2]'"
    assert write_command(typed).count("--folds 0,1") == 1


def test_what_made_a_result_is_advised_whole(tmp_path: Path) -> None:
    typed = "fold rbert --encoder ko-mini --folds 0 --limit 90 --no-checkpoints --as mine"
    mine = leave_command(tmp_path / "mine", typed)
    whole = "python run.py fold rbert --encoder ko-mini --no-checkpoints --as mine"
    assert advise_training(mine) == f"run the command that made it: {whole}"
    assert (
        advise_training(mine, "--overwrite") == f"run the command that made it: {whole} --overwrite"
    )
    again = leave_command(
        tmp_path / "rbert@scratch", f"{whole.removeprefix('python run.py ')} --overwrite"
    )
    assert (
        advise_training(again, "--overwrite")
        == f"run the command that made it: {whole} --overwrite"
    )
    shipped = leave_command(tmp_path / "rbert", "fold rbert typed-punct")
    assert advise_training(shipped) == "run: python run.py fold rbert"


def test_a_variant_that_no_option_made_is_named_whatever_trained_with_it(tmp_path: Path) -> None:
    for name, command, advice in (
        ("bilstm", "fold", "run: python run.py fold bilstm"),  # all variants of the profile
        ("base", "fold short --as mine", "run: python run.py fold base"),  # mine builds on it
        ("own", "fold 'my files/own.toml'", "run: python run.py fold 'my files/own.toml'"),
        ("unknown", "predict", "run: python run.py fold unknown"),
    ):
        assert advise_training(leave_command(tmp_path / name, command)) == advice
    assert advise_training(tmp_path / "absent") == "run: python run.py fold absent"
    equals = leave_command(tmp_path / "mine", "fold rbert --as=mine")
    assert (
        advise_training(equals)
        == "run the command that made it: python run.py fold rbert --as=mine"
    )


def test_a_damaged_result_tells_the_command_that_made_it(tmp_path: Path) -> None:
    store = Store(tmp_path, ("a", "b"))
    key = ResultKey("mine", 42, 0)
    leave_command(tmp_path / "mine", "fold rbert --set train.epochs=1 --as mine")
    store.path(key).write_text("torn", encoding="utf-8")
    with pytest.raises(PredictionsError) as refused:
        store.read(key)
    made_by = "python run.py fold rbert --set train.epochs=1 --as mine"
    assert str(refused.value).endswith(f"delete it; run the command that made it: {made_by}")
