"""Kill commands at random moments and rerun them; the result must be that of an undisturbed run.

``python -m tools.torture.kills --moments 50 fold blend`` kills each command 50 times, -9: its whole
process group, or one process of it. After the same command has run to its end, every file of
store, submissions and checkpoints must have the bytes of an uninterrupted run, no hidden temporary
file may be left, no process may live on, and a leaderboard may have counted no file twice.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.torture.board_server import CountingServer, serve
from tools.torture.homes import Home, kill_group, list_members

TINY = (
    *("--set", "scratch.layers=1", "--set", "scratch.hidden=32", "--set", "scratch.vocabulary=600"),
    *("--set", "train.epochs=1", "--set", "max_tokens=64"),
)
ORPHANS_S = 60.0  # a job whose parent is gone writes its state first


@dataclass(frozen=True)
class Trial:
    """A command to kill; ``first`` are the commands that prepare its home.

    ``may_refuse``: after a kill the command may refuse to go on (exit code 2), as ``submit`` does
    where nobody can be asked whether a file arrived.
    """

    command: tuple[str, ...]
    first: tuple[tuple[str, ...], ...] = ()
    may_refuse: bool = False


FOLD = ("fold", "tfidf-linear", "--threads", "1")
BLEND = ("blend", "--trials", "20", "--name", "b")
TRIALS = {
    "fold": Trial(FOLD),
    "network": Trial(
        ("fold", "concat-cls", "--encoder", "scratch", "--folds", "0", "--threads", "1", *TINY)
    ),
    "blend": Trial(BLEND, (FOLD,)),
    "submit": Trial(("submit", "--to", "local"), (FOLD, BLEND)),
    "http": Trial(("submit", "--to", "http", "--wait"), (FOLD, BLEND), may_refuse=True),
    "import": Trial(("import", "theirs", "--as", "other"), (FOLD,)),
    "tune": Trial(
        ("tune", "tfidf-linear", "--trials", "3", "--threads", "1", "--storage", "study.log")
    ),
    "pretrain": Trial(
        ("pretrain", "--scratch", "--size", "mini", "--tokens", "20k", "--threads", "1")
    ),
}


@dataclass
class Tally:
    """The results of killing one command."""

    name: str
    kills: int = 0
    in_time: int = 0
    faults: list[str] = field(default_factory=list)


def torture(
    name: str,
    moments: int,
    folder: Path,
    *,
    seed: int = 0,
    n_rows: int | None = None,
    say: Callable[[str], None] = print,
) -> Tally:
    """Kill one command ``moments`` times; return the tally."""
    trial, rng, tally = TRIALS[name], random.Random(f"{name} {seed}"), Tally(name)
    with serve() as server:
        base = _prepare(trial, folder / name, server, n_rows)
        whole = base.copy(folder / name / "whole")
        command = _place(trial.command, whole)
        began = time.monotonic()
        code, said = whole.run(command)
        lasts_s = time.monotonic() - began
        if code:
            raise SystemExit(f"{name}: {said}")
        wanted, sent = whole.read(), server.received
        say(f"{name}: takes {lasts_s:.1f} s, leaves {len(wanted)} files")
        for place in range(moments):
            home, server.received = base.copy(folder / name / "killed"), 0
            is_alone = rng.random() < 0.3
            faults: list[str] = []
            if _kill(home, trial, rng.uniform(0, lasts_s), rng if is_alone else None, faults):
                tally.in_time += 1
            tally.kills += 1
            faults += _go_on(home, trial, wanted)
            if server.received > max(sent, 1):
                faults.append(f"the leaderboard counted {server.received} files")
            tally.faults += [f"kill {place}: {fault}" for fault in faults]
            for fault in faults:
                say(f"{name}, kill {place}: {fault}")
    say(f"{name}: {tally.kills} kills, {tally.in_time} in time, {len(tally.faults)} faults")
    return tally


def _prepare(trial: Trial, folder: Path, server: CountingServer, n_rows: int | None) -> Home:
    shutil.rmtree(folder, ignore_errors=True)
    base = Home(folder / "base", {"TORTURE_KEY": "a-key-of-torture"}, n_rows).make(server.url)
    for command in trial.first:
        code, said = base.run(command)
        if code:
            raise SystemExit(f"{' '.join(command)}: {said}")
    if "theirs" in trial.command:
        shutil.copytree(base.path / "oof" / "torture" / "tfidf-linear", base.path / "theirs")
    return base


def _place(command: Sequence[str], home: Home) -> list[str]:
    """Replace names of files in a command by paths in the home."""
    return [str(home.path / word) if word in ("theirs", "study.log") else word for word in command]


def _kill(
    home: Home, trial: Trial, after_s: float, alone: random.Random | None, faults: list[str]
) -> bool:
    """Start the command and kill it; False when it had ended before.

    Args:
        alone: chooses one process of the group to be killed; None kills all.
        faults: takes what was seen.
    """
    process = home.start(_place(trial.command, home))
    with suppress(TimeoutError):
        _wait(lambda: process.poll() is not None, after_s)
    if process.poll() is not None:
        return False
    members = list_members(process.pid)
    if alone is None or not members:
        kill_group(process)
        return True
    with suppress(ProcessLookupError):
        os.kill(alone.choice(members), signal.SIGKILL)
    process.wait(600)
    try:
        _wait(lambda: not list_members(process.pid), ORPHANS_S)
    except TimeoutError:
        faults.append(f"processes live on: {list_members(process.pid)}")
        kill_group(process)
    return True


def _wait(is_done: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not is_done():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


def _go_on(home: Home, trial: Trial, wanted: dict[str, bytes]) -> list[str]:
    """Run the command to its end and compare the files; return the faults."""
    faults = []
    command = _place(trial.command, home)
    code, said = home.run(command)
    if "Traceback" in said:
        faults.append(f"a traceback: {said[-600:]}")
    if code == 2 and trial.may_refuse:
        return faults if "--resend" in said else [*faults, f"refused: {said[-400:]}"]
    if code and not (trial.command[0] == "submit" and "were sent" in said):
        return [*faults, f"exit code {code}: {said[-600:]}"]
    found = home.read()
    faults += [f"{name} is lacking" for name in wanted.keys() - found.keys()]
    faults += [f"{name} is left" for name in found.keys() - wanted.keys()]
    faults += [f"{n} differs" for n in sorted(wanted) if found.get(n, wanted[n]) != wanted[n]]
    return faults


def main() -> None:
    """Torture the commands that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="COMMAND", help=", ".join(TRIALS))
    parser.add_argument("--moments", type=int, default=50, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--rows", type=int, help="train rows of the demo; default: all")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        tallies = [
            torture(name, asked.moments, Path(folder), seed=asked.seed, n_rows=asked.rows)
            for name in asked.names or TRIALS
        ]
    n_faults = sum(len(tally.faults) for tally in tallies)
    print(f"{sum(tally.kills for tally in tallies)} kills, {n_faults} faults")
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
