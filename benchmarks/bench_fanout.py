"""How near a fan-out of jobs comes to the shortest time possible, simulated on measured rates.

``python benchmarks/bench_fanout.py``. The rates are those of docs/experiments.md: rows trained in a
second on one core with ``ko-mini`` (8,000 rows, three folds), for 37 variants. A job starts as soon
as a worker is free. The bound is the larger of two times: all work divided by the workers, and the
longest job; no order can end before it.

The second table is the time of ``roberta-large`` × 8 variants × 5 folds × 3 seeds on GPUs, none of
which was measured: a job takes its operations divided by a rate that is assumed.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROWS = 25_976  # of KLUE-RE that a fold trains on
ROWS_PREDICTED = 6_494 + 7_765
TOKENS = 64  # of a row, markers included
LARGE_WEIGHTS = 303e6  # of roberta-large that every token is multiplied with
EPOCHS = 3.0
START_S = 40.0  # of a job: process, weights to the GPU, predictions to the driver
SPREAD = 0.2  # of what a job really takes, about what its rate says
SEED = 0
ASSUMED = {"T4": 12e12, "A10G": 30e12, "A100": 110e12, "H100": 250e12}
"""Operations a second of a training step, about a third of what each GPU can do in 16 bits."""
RATES = {
    "typed-punct": 66,
    "augment-aeda": 58,
    "augment-delete": 65,
    "augment-hard": 60,
    "augment-mask": 59,
    "augment-swap": 58,
    "awp": 32,
    "bilstm": 32,
    "class-weights": 53,
    "concat-cls": 66,
    "curriculum-difficulty": 58,
    "curriculum-length": 66,
    "declarative": 50,
    "dedup": 61,
    "ema": 52,
    "encoder-dropout": 49,
    "entity-embedding": 60,
    "entity-marker": 65,
    "entity-mask": 54,
    "entity-start-end": 60,
    "fgm": 30,
    "focal": 60,
    "mask-prompt": 42,
    "multi-dropout": 61,
    "pseudo": 58,
    "query": 43,
    "r-drop": 30,
    "rbert": 62,
    "source": 57,
    "tapt": 37,
    "text-order": 61,
    "tfidf-linear": 887,
    "type-restricted": 64,
    "type-restricted-train": 54,
    "typed-marker": 65,
    "typed-punct-ko": 50,
    "weighted-sampling": 60,
}
TWO_PASSES = {"awp", "fgm", "r-drop"}
EPOCHS_MINI = 2.0


@dataclass(frozen=True)
class Job:
    """A job: what it takes, and what the planner expects, in any unit."""

    variant: str
    seconds: float
    work: float


Order = Callable[[Sequence[Job]], Sequence[Job]]


def make_jobs(count: int, rng: np.random.Generator, spread: float = SPREAD) -> list[Job]:
    """Make so many jobs: variants × five folds × seeds, in the order of a request.

    The planner knows rows, epochs and passes, not what a variant's own code costs, nor the spread.
    """
    per_variant = -(-count // len(RATES))
    jobs = []
    for variant, rate in RATES.items():
        epochs = 1.0 if variant == "tfidf-linear" else EPOCHS_MINI
        work = 0.05 if variant == "tfidf-linear" else (2.0 if variant in TWO_PASSES else 1.0)
        for factor in np.exp(rng.normal(0, spread, per_variant)):
            jobs.append(Job(variant, factor * epochs * ROWS / rate, work))
    return jobs[:count]


def simulate(seconds: Sequence[float], workers: int, start_s: float = 0.0) -> float:
    """Return when the last of some jobs ends, each on the worker that is free first."""
    free = [0.0] * min(workers, len(seconds))
    for each in seconds:
        heapq.heapreplace(free, free[0] + start_s + each)
    return max(free)


def bound(seconds: Sequence[float], workers: int, start_s: float = 0.0) -> float:
    """Return a time before which no order can end."""
    whole = [start_s + each for each in seconds]
    return max(sum(whole) / workers, *whole)


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """Order jobs as ``fold`` does, by the work that the planner expects."""
    return sorted(jobs, key=lambda job: job.work, reverse=True)


def compare_orders(count: int, workers: int, draws: int = 20) -> dict[str, float]:
    """Return the mean time of each order, as a multiple of the bound."""
    orders: dict[str, Order] = {
        "as requested": lambda jobs: jobs,
        "longest first, by the planner": longest_first,
        "longest first, if all were known": lambda jobs: sorted(jobs, key=lambda j: -j.seconds),
    }
    found: dict[str, list[float]] = {name: [] for name in orders}
    for draw in range(draws):
        jobs = make_jobs(count, np.random.default_rng([SEED, draw]))
        least = bound([job.seconds for job in jobs], workers)
        for name, order in orders.items():
            found[name].append(simulate([job.seconds for job in order(jobs)], workers) / least)
    return {name: float(np.mean(values)) for name, values in found.items()}


def large_hours(gpus: int, flops: float) -> float:
    """Return the hours of roberta-large × 8 variants × 5 folds × 3 seeds.

    Args:
        gpus: jobs at a time.
        flops: operations a second that a step reaches on one of them.
    """
    trained = 3 * ROWS * EPOCHS + ROWS_PREDICTED  # forward and backward, then forward alone
    job_s = 2 * LARGE_WEIGHTS * TOKENS * trained / flops
    passes = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # one of the eight has two passes a step
    rng = np.random.default_rng(SEED)
    works = [each for each in passes for _ in range(15)]
    seconds = [work * job_s * float(np.exp(rng.normal(0, 0.1))) for work in works]
    return simulate(seconds, gpus, START_S) / 3600


def main() -> None:
    """Print both tables."""
    print("jobs  workers  time / bound: " + ", ".join(compare_orders(10, 2, 1)))
    for count, workers in ((1000, 64), (1000, 8), (200, 64), (100, 64)):
        print(count, workers, *(f"{each:.3f}" for each in compare_orders(count, workers).values()))
    print("\nroberta-large, 120 jobs: hours on 1, 8 and 64 GPUs; GPU-hours paid on 64")
    for name, flops in ASSUMED.items():
        hours = [large_hours(gpus, flops) for gpus in (1, 8, 64)]
        print(name, *(f"{each:.2f}" for each in hours), f"{64 * hours[-1]:.1f}")


if __name__ == "__main__":
    main()
