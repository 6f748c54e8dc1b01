"""See that memory does not grow from job to job: the command's own and that of what forks jobs.

``python -m tools.torture.memory --jobs 20`` trains so many small networks in one command and reads
the resident memory of its lasting processes whenever a job has ended. A job's own process ends with
it, so what grows lasts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.torture.homes import Home, list_members
from tools.torture.kills import TINY

GROWTH = 0.05  # of the memory after the first quarter of the jobs; more is a leak
LASTING_S = 5.0  # a process that old when a job ends is no job


def measure(home: Home, n_jobs: int) -> list[float]:
    """Return the MiB that the lasting processes held when each job had ended."""
    seeds = ",".join(str(seed) for seed in range(1, n_jobs + 1))
    process = home.start(
        ("fold", "concat-cls", "--encoder", "scratch", "--folds", "0", "--seeds", seeds,
         "--threads", "1", "--no-checkpoints", *TINY)
    )  # fmt: skip
    folder = home.path / "oof" / "torture"
    sizes: list[float] = []
    while process.poll() is None:
        n_done = len(list(folder.glob("*/*.parquet")))
        if n_done > len(sizes):
            sizes.append(_read_mib(list_members(process.pid)))
        time.sleep(0.05)
    if process.returncode:
        log = home.path.with_name(f"{home.path.name}.log")
        raise SystemExit(log.read_text("utf-8", errors="replace")[-2000:])
    return sizes


def _read_mib(processes: Sequence[int]) -> float:
    """Return the memory of those processes that are old, half of what their pages share."""
    total = 0
    for pid in processes:
        try:
            age = time.time() - Path(f"/proc/{pid}").stat().st_ctime
            text = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
        except OSError:
            continue
        if age > LASTING_S:
            total += next(int(line.split()[1]) for line in text.splitlines() if "Pss:" in line)
    return total / 1024


def main() -> None:
    """Print the memory after the jobs; fail where it grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=240, help="train rows of the demo")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        sizes = measure(Home(Path(folder) / "home", n_rows=asked.rows).make(), asked.jobs)
    print("MiB after each job:", " ".join(f"{size:.0f}" for size in sizes))
    early = sizes[len(sizes) // 4]
    sys.exit(1 if max(sizes[-3:]) > (1 + GROWTH) * early else 0)


if __name__ == "__main__":
    main()
