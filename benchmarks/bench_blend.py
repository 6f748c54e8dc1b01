"""Benchmark of a blend (8 members, 32,470 rows, 30 labels): trial, search, nested estimate.

    python benchmarks/bench_blend.py [--members M] [--rows N] [--labels C] [--trials T]
    python benchmarks/bench_blend.py --alarms [--seeds S]

The baseline is the same search as a user would write it: Optuna over the same weights, numpy for
soft voting, scikit-learn's metrics. ``--alarms`` counts how often planted faults are detected, and
false alarms in stores without faults.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from competition.blend.diagnostics import find_member_warnings
from competition.blend.fit import fit_blend
from competition.blend.objective import Evaluator
from competition.blend.pooling import PooledRows, build_pooled_rows, floored_logs
from competition.blend.search import SearchPlan, fit_points
from competition.scoring.label_shift import weights_for_negative_share
from tests.competition.klue_scores import criteria_of
from tests.competition.planted import NEGATIVE_ID, plant_store

FOLDS = 5
CRITERIA = criteria_of(NEGATIVE_ID)
SKLEARN_TRIALS = 20
FAULTS = {"copy": "copies", "leak": "leak", "misleads": "misleads"}


def make_rows(n_members: int, n_rows: int, n_labels: int) -> PooledRows:
    """Make members of similar quality, with shared and independent errors."""
    rng = np.random.default_rng(0)
    shares = np.append(0.3, np.geomspace(0.1, 0.0005, n_labels - 1))
    shares /= shares.sum()
    gold = rng.choice(n_labels, n_rows, p=shares)
    gold[:n_labels] = np.arange(n_labels)
    seen = np.log(shares) + rng.normal(0, 1.1, (n_rows, n_labels))
    seen[np.arange(n_rows), gold] += rng.normal(3.0, 1.5, n_rows)
    logs = np.empty((n_members, n_labels, n_rows), dtype=np.float32)
    for member in logs:
        logits = seen + rng.normal(0, 0.9, seen.shape)
        logits[np.arange(n_rows), gold] += rng.normal(1.2, 0.15)
        logits -= logits.max(axis=1, keepdims=True)
        probs = np.exp(rng.uniform(0.9, 1.2) * logits)
        probs /= probs.sum(axis=1, keepdims=True)
        member[:] = floored_logs(probs.astype(np.float32)).T
    return PooledRows(logs, gold.astype(np.int64), CRITERIA, None, rng.integers(0, FOLDS, n_rows))


def time_calls(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the best wall and processor time of a call, in milliseconds."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return 1000 * min(walls), 1000 * min(cpus)


def sklearn_trial(probs: np.ndarray, gold: np.ndarray, weights: np.ndarray) -> float:
    """Score weights as a user would: soft voting, a grid of thresholds, scikit-learn's micro-F1."""
    from sklearn.metrics import f1_score

    pooled = np.exp(np.tensordot(weights, np.log(probs), axes=1))
    pooled /= pooled.sum(axis=1, keepdims=True)
    best = pooled[:, 1:].argmax(axis=1) + 1
    sure = pooled[np.arange(len(gold)), best]
    labels = list(range(1, probs.shape[2]))
    scores = [
        f1_score(gold, np.where(sure >= t, best, 0), labels=labels, average="micro")
        for t in np.linspace(0.1, 0.6, 11)
    ]
    return float(max(scores))


def sklearn_search(rows: PooledRows, trials: int) -> float:
    """Run the same search with scikit-learn's metrics; return its seconds per trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    probs = np.exp(rows.logs.transpose(0, 2, 1)).astype(np.float64)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))

    def measure(trial: optuna.Trial) -> float:
        weights = np.array([trial.suggest_float(f"w{i}", 0.0, 1.0) for i in range(len(probs))])
        return sklearn_trial(probs, rows.gold, weights / max(weights.sum(), 1e-9))

    begun = time.perf_counter()
    study.optimize(measure, n_trials=trials)
    return (time.perf_counter() - begun) / trials


def bench_search(options: argparse.Namespace) -> None:
    rows = make_rows(options.members, options.rows, options.labels)
    print(f"{options.members} members x {options.rows:,} rows x {options.labels} labels")
    weights = np.full(options.members, 1.0 / options.members)
    for objective in ("micro-f1", "auprc"):
        evaluator = Evaluator(rows, objective)
        wall, cpu = time_calls(lambda evaluator=evaluator: evaluator.measure(weights), 15)
        print(f"one trial, {objective:9s} {wall:7.1f} ms ({cpu:.1f} ms of processor time)")
    plan = SearchPlan(options.trials, 0)
    wall, cpu = time_calls(lambda: fit_points(rows, plan), 1)
    ours = wall / 1000
    print(f"fit with {options.trials} trials    {ours:7.1f} s ({cpu / 1000:.1f} s)")
    names = [f"m{i}" for i in range(options.members)]
    wall, cpu = time_calls(lambda: fit_blend(names, rows, plan), 1)
    print(f"the same, and nested in {FOLDS} folds {wall / 1000:7.1f} s ({cpu / 1000:.1f} s)")
    theirs = options.trials * sklearn_search(rows, SKLEARN_TRIALS)
    print(
        f"scikit-learn's metrics, threshold from 11: {theirs:.0f} s for {options.trials} trials"
        f" (from {SKLEARN_TRIALS}), {theirs / ours:.1f} times ours"
    )


def bench_alarms(seeds: int) -> None:
    for fault, kind in {None: "", **FAULTS}.items():
        named, others, begun = 0, 0, time.process_time()
        for seed in range(seeds):
            store = plant_store(seed, fault, n_rows=6000)
            rows = replace(
                build_pooled_rows(store.members, store.gold, CRITERIA), folds=store.folds
            )
            share = weights_for_negative_share(store.gold, (NEGATIVE_ID,), 0.6)
            ways = {"share": share, "odds": store.odds}
            warnings = find_member_warnings(store.members, rows, store.groups, ways)
            right = [a for a in warnings if a.kind == kind and store.faulty <= set(a.members)]
            named += bool(right)
            others += len(warnings) - len(right)
        took = (time.process_time() - begun) / seeds
        print(
            f"{fault or 'no fault':9s} named in {named:3d} of {seeds} stores,"
            f" other warnings {others}, {1000 * took:.0f} ms a store"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32_470)
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--alarms", action="store_true")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.alarms:
        bench_alarms(options.seeds)
    else:
        bench_search(options)


if __name__ == "__main__":
    main()
