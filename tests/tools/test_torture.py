"""The torture in short: a few mutants of each kind, a few kills; ``make torture`` has them all."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from run import main
from tools.torture import disks, kills, nodes
from tools.torture.homes import Home
from tools.torture.mutants import Kind, build_kinds, try_kind

MUTANTS = 12


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which trials share the store and the blend that they begin with."""
    return tmp_path_factory.mktemp("torture")


def test_no_mutant_ends_in_a_traceback_or_is_taken_wrongly(tmp_path: Path) -> None:
    for name, kind in build_kinds(tmp_path / "home").items():
        kind.read(kind.data)  # as it is, it is taken
        tally = try_kind(kind, MUTANTS, random.Random(name))
        assert tally.faults == [], name
        assert tally.outcomes["refused"] + tally.outcomes["taken"] == MUTANTS


def test_a_reader_that_fails_is_found() -> None:
    def fail(data: bytes) -> None:
        raise KeyError(data)

    tally = try_kind(Kind(b"abc", fail), 3, random.Random(0))
    assert tally.outcomes["fault"] == len(tally.faults) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["submit", *(pytest.param(n, marks=pytest.mark.long) for n in ("http", "import", "blend"))],
)
def test_a_command_that_is_killed_ends_in_the_same_bytes(name: str, shared: Path) -> None:
    tally = kills.torture(name, 2, shared, say=lambda _: None)
    assert (tally.kills, tally.faults) == (2, [])


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting small disks needs root")
def test_a_disk_that_fails_is_said_and_the_command_goes_on(shared: Path) -> None:
    n_tried, faults = disks.torture("submit", 1, shared, say=lambda _: None)
    assert (n_tried, faults) == (4, [])


@pytest.mark.slow
@pytest.mark.long
def test_a_node_that_dies_has_its_jobs_run_again_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    command = ["fold", "concat-cls", "--folds", "0", "--threads", "1", "--limit", "400"]
    command += [*nodes.TINY, "--set", "train.epochs=15"]
    folder = Path(tempfile.mkdtemp(prefix="rn-"))  # short: it takes the paths of sockets
    try:
        local = Home(folder / "local").make()
        monkeypatch.setenv("COMPETITION_HOME", str(local.path))
        words = ["run.py", *command, "--competition", str(local.profile)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit, match="0"):
            main()
        faults = nodes.torture(folder, command, reference=local, say=lambda _: None)
    except nodes.NodeStartError as error:
        pytest.skip(f"Ray's daemons do not start here: {str(error).splitlines()[-1]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert faults == []
