"""The torture in short: a few mutants of each kind, a few kills; ``make torture`` has them all."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from tools.torture import disks, kills, nodes
from tools.torture.homes import Home
from tools.torture.kind import Kind
from tools.torture.mutants import build_kinds, try_kind
from tools.torture.warm import Starter

MUTANTS = 12
ROWS = 120


@pytest.fixture(scope="module")
def how(starter: Starter) -> kills.How:
    """Few rows, and commands that start quickly."""
    return kills.How(n_rows=ROWS, starter=starter)


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
    [
        *("fold", "blend", "submit", "http", "import", "tune", "pretrain"),
        pytest.param("network", marks=pytest.mark.long),
    ],
)
def test_a_command_that_is_killed_ends_in_the_same_bytes(
    name: str, shared: Path, how: kills.How
) -> None:
    moments = 1 if name in ("tune", "pretrain") else 2
    tally = kills.torture(name, moments, shared, how=how, say=lambda _: None)
    assert tally.in_time == moments
    assert tally.faults == []


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting small disks needs root")
def test_a_disk_that_fails_is_said_and_the_command_goes_on(shared: Path, how: kills.How) -> None:
    n_tried, faults = disks.torture("submit", 1, shared, how=how, say=lambda _: None)
    assert (n_tried, faults) == (4, [])


def test_a_fault_is_found_and_recorded_kills_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def try_one(home: object, name: str, whole: object, which: tuple[None, int, int], _: object):
        seen.append(which[2])
        faults = ("a file differs",) if which[2] == 1 else ()
        return kills.Kill(name, *which, 0.5, True, which[2] != 2, False, 1.0, faults)

    monkeypatch.setattr(kills, "_try_one", try_one)
    monkeypatch.setattr(kills, "_run_whole", lambda *_: kills.Whole({}, 1.0, 1.0, 0))
    how = kills.How(record=tmp_path / "kills.jsonl")
    assert kills.torture("fold", 2, tmp_path, how=how).faults == ["kill 1: a file differs"]
    tally = kills.torture("fold", 4, tmp_path, how=how)
    assert seen == [0, 1, 2, 3, 4]
    assert (tally.in_time, len(tally.kills), len(tally.faults)) == (4, 5, 1)


@pytest.mark.slow
@pytest.mark.long
def test_a_node_that_dies_has_its_jobs_run_again_elsewhere(how: kills.How) -> None:
    pytest.importorskip("ray")
    command = ["fold", "concat-cls", "--folds", "0,1", "--threads", "1"]
    command += [*nodes.TINY, "--set", "train.epochs=6"]
    folder = Path(tempfile.mkdtemp(prefix="rn-"))  # short: it takes the paths of sockets
    try:
        local = Home(folder / "local", n_rows=200, starter=how.starter).make()
        code, said = local.run(command)
        assert code == 0, said
        faults = nodes.torture(folder, command, reference=local, say=lambda _: None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert faults == []
