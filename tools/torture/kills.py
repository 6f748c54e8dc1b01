"""Kill commands at random moments and rerun them; the result must be that of an undisturbed run.

``python -m tools.torture.kills --moments 50 fold blend`` kills each command 50 times, -9: the
command and all it started, or one of these processes. After the same command has run to its end,
every file of store, submissions and checkpoints must have the bytes of an uninterrupted run, no
hidden temporary file and no lease may be left, no process may live on, and a leaderboard may have
counted no file twice.

Four of five kills come after the command has begun to write: that is what can go wrong. With
``--record FILE`` each kill is a line of that file, and a torture that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tools.torture.board_server import CountingServer, serve
from tools.torture.homes import Home, kill_all, list_members
from tools.torture.warm import Starter, warm

TINY = (
    *("--set", "scratch.layers=1", "--set", "scratch.hidden=32", "--set", "scratch.vocabulary=600"),
    *("--set", "train.epochs=1", "--set", "max_tokens=64"),
)
KEY = "a-key-of-torture"
OFTEN = ("--set", "run.state_every_s=0.2")  # checkpoints, so that kills meet them half written
ORPHANS_S = 60.0  # a job whose parent is gone writes its state first
ENDS_S = 5.0
EARLY = 0.2
"""Share of the kills that may come at any moment; the others come once files change."""


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
        (
            *("fold", "concat-cls", "--encoder", "scratch", "--folds", "0", "--threads", "1"),
            *(*TINY, *OFTEN),
        )
    ),
    "blend": Trial(BLEND, (FOLD,)),
    "submit": Trial(("submit", "--to", "local"), (FOLD, BLEND)),
    "http": Trial(("submit", "--to", "http", "--wait"), (FOLD, BLEND), may_refuse=True),
    "import": Trial(("import", "theirs", "--as", "other"), (FOLD,)),
    "tune": Trial(
        ("tune", "tfidf-linear", "--trials", "3", "--threads", "1", "--storage", "study.log")
    ),
    "pretrain": Trial(
        (
            *("pretrain", "--scratch", "--size", "mini", "--tokens", "1k", "--threads", "1"),
            *("--set", "batch_sequences=2", "--set", "sequence_tokens=64"),
            *("--set", "heldout_every_steps=4", "--set", "run.precision=float32", *OFTEN),
        )
    ),
}


@dataclass(frozen=True)
class Kill:
    """What came of one kill.

    Attributes:
        moment: seconds after the start, or after the first change of a file.
        is_after_a_change: which of the two.
        in_time: it came before the command had ended.
        alone: only one process was killed.
        went_on_s: how long the same command then took to its end.
    """

    command: str
    rows: int | None
    seed: int
    place: int
    moment: float
    is_after_a_change: bool
    in_time: bool
    alone: bool
    went_on_s: float
    faults: tuple[str, ...]


@dataclass
class Tally:
    """The results of killing one command."""

    name: str
    kills: list[Kill] = field(default_factory=list)

    @property
    def in_time(self) -> int:
        """Number of kills before the command had ended."""
        return sum(kill.in_time for kill in self.kills)

    @property
    def faults(self) -> list[str]:
        """What went wrong."""
        return [f"kill {kill.place}: {fault}" for kill in self.kills for fault in kill.faults]


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its files, how long it took, and when a file changed first."""

    files: dict[str, bytes]
    lasts_s: float
    writes_s: float
    sent: int


@dataclass(frozen=True)
class How:
    """How commands are killed: seed of the moments, rows of the home, a file of kills, a starter.

    Of the last three, None means all rows, no file, and commands that start as a user's do.
    """

    seed: int = 0
    n_rows: int | None = None
    record: Path | None = None
    starter: Starter | None = None


AS_A_USER = How()


class Record:
    """A file with a line for each kill; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self, command: str, rows: int | None, seed: int) -> list[Kill]:
        """Return the kills of a command that were recorded."""
        if self._path is None or not self._path.exists():
            return []
        lines = [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]
        kills = [Kill(**{**line, "faults": tuple(line["faults"])}) for line in lines]
        wanted = (command, rows, seed)
        return [kill for kill in kills if (kill.command, kill.rows, kill.seed) == wanted]

    def add(self, kill: Kill) -> None:
        """Append a kill."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(kill)) + "\n")


def torture(
    name: str,
    moments: int,
    folder: Path,
    *,
    how: How = AS_A_USER,
    say: Callable[[str], None] = print,
) -> Tally:
    """Kill one command until ``moments`` kills came before its end; return the tally."""
    book, trial = Record(how.record), TRIALS[name]
    tally = Tally(name, book.read(name, how.n_rows, how.seed))
    if tally.in_time >= moments:
        return _conclude(tally, say)
    with serve() as server:
        base = prepare(trial, folder, name, how).make(server.url)
        whole = _run_whole(base, folder / name / "whole", trial, server)
        say(f"{name}: takes {whole.lasts_s:.1f} s, leaves {len(whole.files)} files")
        while tally.in_time < moments:
            server.received = 0
            home = base.copy(folder / name / "killed")
            kill = _try_one(home, name, whole, (how.n_rows, how.seed, len(tally.kills)), server)
            tally.kills.append(kill)
            book.add(kill)
            for fault in kill.faults:
                say(f"{name}, kill {kill.place}: {fault}")
    return _conclude(tally, say)


def _conclude(tally: Tally, say: Callable[[str], None]) -> Tally:
    n_alone = sum(kill.alone and kill.in_time for kill in tally.kills)
    say(
        f"{tally.name}: {tally.in_time} kills before its end ({n_alone} of one process),"
        f" {len(tally.kills) - tally.in_time} too late, {len(tally.faults)} faults"
    )
    return tally


def _try_one(
    home: Home,
    name: str,
    whole: Whole,
    which: tuple[int | None, int, int],
    server: CountingServer,
) -> Kill:
    """Kill the command once and let it go on."""
    trial, rng = TRIALS[name], random.Random(f"{name} {which}")
    is_late, is_alone = rng.random() >= EARLY, rng.random() < 0.3
    moment = rng.uniform(0, whole.writes_s if is_late else whole.lasts_s)
    faults: list[str] = []
    in_time = _kill(home, trial, (moment, is_late), rng if is_alone else None, faults)
    began = time.monotonic()
    faults += _go_on(home, trial, whole.files)
    if server.received > max(whole.sent, 1):
        faults.append(f"the leaderboard counted {server.received} files")
    went_on_s = round(time.monotonic() - began, 2)
    said = tuple(faults)
    return Kill(name, *which, round(moment, 3), is_late, in_time, is_alone, went_on_s, said)


def _run_whole(base: Home, path: Path, trial: Trial, server: CountingServer) -> Whole:
    home = base.copy(path)
    before, changed, began = home.look(), None, time.monotonic()
    process = home.start(place(trial.command, home))
    while process.poll() is None:
        if changed is None and home.look() != before:
            changed = time.monotonic()
        time.sleep(0.005)
    ended = time.monotonic()
    if process.returncode:
        raise SystemExit(f"{' '.join(trial.command)}: {home.said()}")
    return Whole(home.read(), ended - began, ended - (changed or began), server.received)


def prepare(trial: Trial, folder: Path, name: str, how: How) -> Home:
    """Make a home in which the command can run; what several commands need is made once."""
    key, logs = {"TORTURE_KEY": KEY}, folder / name
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    common = Home(folder / "home", key, how.n_rows, how.starter, folder).make()
    base = replace(common.run_once(trial.first).copy(logs / "base"), logs=logs).make()
    if "theirs" in trial.command:
        shutil.copytree(base.path / "oof" / "torture" / "tfidf-linear", base.path / "theirs")
    return base


def place(command: Sequence[str], home: Home) -> list[str]:
    """Replace names of files in a command by paths in the home."""
    return [str(home.path / word) if word in ("theirs", "study.log") else word for word in command]


def _kill(
    home: Home,
    trial: Trial,
    moment: tuple[float, bool],
    alone: random.Random | None,
    faults: list[str],
) -> bool:
    """Start the command and kill it; False when it had ended before.

    Args:
        home: where.
        trial: the command.
        moment: seconds, and whether they count from the first change of a file.
        alone: chooses one process to be killed; None kills all.
        faults: takes what was seen.
    """
    after_s, is_after_a_change = moment
    before = home.look()
    process = home.start(place(trial.command, home))
    if is_after_a_change:
        _wait(lambda: process.poll() is not None or home.look() != before, 600)
    with suppress(TimeoutError):
        _wait(lambda: process.poll() is not None, after_s)
    if process.poll() is not None:
        return False
    members = list_members(process.pid)
    if alone is None or not members:
        kill_all(process)
        return True
    with suppress(ProcessLookupError):
        os.kill(alone.choice(members), signal.SIGKILL)
    process.wait(600)
    try:
        _wait(lambda: not list_members(process.pid), ORPHANS_S)
    except TimeoutError:
        faults.append(f"processes live on: {list_members(process.pid)}")
        kill_all(process)
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
    command = place(trial.command, home)
    home.log.unlink(missing_ok=True)
    process = home.start(command)
    code, said = process.wait(1800), home.said()
    if "Traceback" in said:
        faults.append(f"a traceback: {said[-600:]}")
    try:
        _wait(lambda: not list_members(process.pid), ENDS_S)
    except TimeoutError:
        faults.append(f"processes live on after its end: {list_members(process.pid)}")
        kill_all(process)
    if code == 2 and trial.may_refuse:
        return faults if "--resend" in said else [*faults, f"refused: {said[-400:]}"]
    if code and not (trial.command[0] == "submit" and "were sent" in said):
        return [*faults, f"exit code {code}: {said[-600:]}"]
    found = home.read()
    written = {**found, "the output": said.encode()}
    faults += [f"the key is in {name}" for name, data in written.items() if KEY.encode() in data]
    faults += [f"{name} is lacking" for name in wanted.keys() - found.keys()]
    faults += [f"{name} is left" for name in found.keys() - wanted.keys()]
    faults += [f"{n} differs" for n in sorted(wanted) if found.get(n, wanted[n]) != wanted[n]]
    return faults


def main() -> None:
    """Torture the commands that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="COMMAND", help=", ".join(TRIALS))
    parser.add_argument("--moments", type=int, default=50, help="kills of each command in time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--rows", type=int, help="train rows of the demo; default: all")
    parser.add_argument("--record", type=Path, help="file of the kills, to go on from")
    parser.add_argument("--cold", action="store_true", help="start each command as a user would")
    asked = parser.parse_args()
    starting = nullcontext() if asked.cold else warm()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, starting as starter:
        tallies = [
            torture(
                name,
                asked.moments,
                Path(folder),
                how=How(asked.seed, asked.rows, asked.record, starter),
            )
            for name in asked.names or TRIALS
        ]
    n_faults = sum(len(tally.faults) for tally in tallies)
    print(f"{sum(tally.in_time for tally in tallies)} kills, {n_faults} faults")
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
