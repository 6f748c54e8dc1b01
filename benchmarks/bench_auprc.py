"""Benchmark of AUPRC: this project's function against scikit-learn's, in one run.

    python benchmarks/bench_auprc.py [--rows N] [--labels C] [--repeats R]

32,470 rows and 30 labels by default. Probabilities are a softmax of noisy logits around the gold
label, floored as in a blend, so confident rows and ties occur as in real out-of-fold files.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import auc, precision_recall_curve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from competition.scoring.bootstrap import build_resamples, replicate
from competition.scoring.metrics.catalogue import build_metric
from competition.scoring.metrics.metric import Task
from tests.competition.klue_scores import auprc, auprc_by_class


def make_rows(n_rows: int, n_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shares = np.append(0.3, np.geomspace(0.1, 0.0005, n_labels - 1))
    gold = rng.choice(n_labels, n_rows, p=shares / shares.sum())
    gold[:n_labels] = np.arange(n_labels)
    logits = rng.normal(0, 1.6, (n_rows, n_labels)) + np.log(shares)
    logits[np.arange(n_rows), gold] += rng.normal(4.0, 2.5, n_rows)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = np.maximum(probs / probs.sum(axis=1, keepdims=True), 1e-6)
    return gold, (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


def sklearn_areas(
    gold: np.ndarray, probs: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    areas = []
    for label_id in range(probs.shape[1]):
        precision, recall, _ = precision_recall_curve(
            gold == label_id, probs[:, label_id], sample_weight=weights
        )
        areas.append(auc(recall, precision))
    return np.array(areas)


def best_time_s(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32_470)
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    gold, probs = make_rows(options.rows, options.labels, seed=0)
    weights = np.random.default_rng(1).integers(0, 4, options.rows).astype(np.float64)
    groups = np.random.default_rng(2).integers(0, max(1, options.rows // 2), options.rows)
    resamples = build_resamples(groups, replicates=200, seed=0)

    print(f"{options.rows:,} rows x {options.labels} labels, AUPRC {auprc(gold, probs):.6f}")
    for name, w in (("plain", None), ("weighted", weights)):
        ours = best_time_s(lambda w=w: auprc(gold, probs, w), options.repeats)
        theirs = best_time_s(lambda w=w: sklearn_areas(gold, probs, w), options.repeats)
        off = np.abs(auprc_by_class(gold, probs, w) - sklearn_areas(gold, probs, w)).max()
        print(
            f"{name:9s} ours {1000 * ours:7.1f} ms   scikit-learn {1000 * theirs:7.1f} ms   "
            f"{theirs / ours:5.1f} times faster   largest difference {off:.1e}"
        )
    metric = build_metric("auprc", Task(options.labels))
    took = best_time_s(lambda: replicate(metric, gold, (probs, gold), resamples), 1)
    print(f"bootstrap ours {took:7.2f} s for {resamples.replicates} replicates")


if __name__ == "__main__":
    main()
