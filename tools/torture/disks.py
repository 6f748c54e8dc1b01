"""Run commands on disks that are full, read-only, refuse access, or lose a folder; then again.

``python -m tools.torture.disks --count 10`` needs root, to mount small disks of memory. Each
command must end with an error that says what to do and no traceback, leave what was finished as it
was, and give the bytes of an undisturbed run as soon as the disk is well again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tools.torture.homes import ROOT, Home
from tools.torture.kills import AS_A_USER, BLEND, FOLD, TRIALS, How, Trial, place, prepare
from tools.torture.warm import warm

ROOM = 256 * 2**20
NAMES = ("data", "fold", "network", "blend", "submit", "import", "tune", "pretrain")
DISK_TRIALS = {**TRIALS, "data": Trial(("data",)), "submit": Trial(("submit",), (FOLD, BLEND))}


@dataclass(frozen=True)
class Disk:
    """A small disk of memory under ``path``."""

    path: Path

    def remount(self, options: str) -> None:
        """Change the size of the disk or make it read-only."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    @property
    def used(self) -> int:
        """Return the number of used bytes."""
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


@dataclass(frozen=True)
class Scale:
    """How long an undisturbed command takes, and how much it writes."""

    lasts_s: float
    writes_bytes: int


@contextmanager
def mount(path: Path) -> Iterator[Disk]:
    """Mount a disk with room for all."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(path)], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def torture(
    name: str,
    count: int,
    folder: Path,
    *,
    how: How = AS_A_USER,
    say: Callable[[str], None] = print,
) -> tuple[int, list[str]]:
    """Disturb one command in each way ``count`` times; return the number of trials, and faults."""
    trial, rng, faults, n_tried = DISK_TRIALS[name], random.Random(f"{name} {how.seed}"), [], 0
    base = prepare(trial, folder, name, how)
    whole = base.copy(folder / name / "whole")
    before, began = whole.size, time.monotonic()
    code, said = whole.run(place(trial.command, whole))
    lasts_s, wanted = time.monotonic() - began, whole.read()
    if code:
        raise SystemExit(f"{name}: {said}")
    scale = Scale(lasts_s, whole.size - before)
    for way in (_fill, _forbid_writing, _forbid_entry, _lose):
        for _ in range(count if way in (_fill, _lose) else 1):
            with mount(folder / name / f"disk{n_tried}") as disk:
                home = base.copy(disk.path / "home")
                said = way(disk, home, trial, rng, scale)
                found = _check(home, trial, said, wanted, is_lost=way is _lose)
            n_tried += 1
            for fault in found:
                say(f"{name}, {way.__name__.strip('_')}: {fault}")
            faults += found
    say(f"{name}: {n_tried} faults of disks, {len(faults)} faults of ours")
    return n_tried, faults


def _fill(disk: Disk, home: Home, trial: Trial, rng: random.Random, scale: Scale) -> str:
    """Leave space for only a part of what the command writes."""
    disk.remount(f"size={disk.used + rng.randint(0, scale.writes_bytes)}")
    said = _run(home, trial)
    disk.remount(f"size={ROOM}")
    return said


def _forbid_writing(disk: Disk, home: Home, trial: Trial, rng: random.Random, scale: Scale) -> str:
    """Make the disk read-only."""
    del rng, scale
    disk.remount("ro")
    said = _run(home, trial)
    disk.remount("rw")
    return said


def _forbid_entry(disk: Disk, home: Home, trial: Trial, rng: random.Random, scale: Scale) -> str:
    """Take the right to write anywhere below the home away, also from root."""
    del disk, rng, scale
    folders = [home.path, *(path for path in home.path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--", sys.executable]
    words += [str(ROOT / "run.py"), *place(trial.command, home), "--competition", str(home.profile)]
    environment = {**os.environ, "COMPETITION_HOME": str(home.path)}
    ended = subprocess.run(
        words, capture_output=True, text=True, env=environment, check=False, timeout=1800
    )
    for folder in folders:
        folder.chmod(0o755)
    return ended.stdout + ended.stderr


def _lose(disk: Disk, home: Home, trial: Trial, rng: random.Random, scale: Scale) -> str:
    """Delete a folder while the command runs."""
    del disk
    name = rng.choice(["oof", "submissions", "checkpoints"])
    home.log.unlink(missing_ok=True)
    process = home.start(place(trial.command, home))
    time.sleep(rng.uniform(0, scale.lasts_s))
    shutil.rmtree(home.path / name, ignore_errors=True)
    process.wait(600)
    return home.said()


def _run(home: Home, trial: Trial) -> str:
    """Run the command, and return its output, which goes to another disk."""
    return home.run(place(trial.command, home))[1]


def _check(
    home: Home, trial: Trial, said: str, wanted: dict[str, bytes], *, is_lost: bool
) -> list[str]:
    """See that nothing went wrong, and that the command goes on when the disk is well."""
    faults = [f"a traceback: {said[-1500:]}"] if "Traceback" in said else []
    if is_lost:
        return faults  # what was taken away is gone
    code, again = home.run(place(trial.command, home))
    if "Traceback" in again:
        faults.append(f"a traceback afterwards: {again[-1500:]}")
    if code and "were sent" not in again:
        return [*faults, f"exit code {code} afterwards: {again[-600:]}"]
    found = home.read()
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    return faults + [f"{name} differs or is lacking" for name in differing if "ledger" not in name]


def main() -> None:
    """Disturb the commands that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="COMMAND", help=", ".join(NAMES))
    parser.add_argument("--count", type=int, default=10, help="full disks and lost folders each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, help="train rows of the demo; default: all")
    parser.add_argument("--cold", action="store_true", help="start each command as a user would")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("mounting small disks needs root")
    n_tried, n_faults = 0, 0
    starting = nullcontext() if asked.cold else warm()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, starting as starter:
        Path(folder).chmod(0o755)
        how = How(asked.seed, asked.rows, starter=starter)
        for name in asked.names or NAMES:
            tried, faults = torture(name, asked.count, Path(folder), how=how)
            n_tried, n_faults = n_tried + tried, n_faults + len(faults)
    print(f"{n_tried} faults of disks, {n_faults} faults of ours")
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
