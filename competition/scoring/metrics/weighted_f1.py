"""Weighted F1: the mean of the classes' F1, weighted by their gold rows.

Source: ``sklearn.metrics.f1_score`` with ``average="weighted"``.

Legend: N rows, L classes.
"""

from __future__ import annotations

import numpy as np

from competition.arrays import Float64s
from competition.scoring.metrics.by_label import ClassMetric, f1_by_class, number_classes
from competition.scoring.metrics.metric import MetricKind, Task, divide


class WeightedF1(ClassMetric):
    """F1 of classes, weighted by gold rows."""

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) weighted means; 0 without a gold row."""
        hits, pred, gold = np.split(sums, 3, axis=-1)
        total = (gold * f1_by_class(hits, pred, gold)).sum(axis=-1)
        return divide(total, gold.sum(axis=-1))


def build(task: Task) -> WeightedF1:
    """Build the kernel for a competition's labels."""
    return WeightedF1(*number_classes(task))


WEIGHTED_F1 = MetricKind(
    "weighted-f1", "weighted_f1", "weighted_f1", "weighted F1", "weighted F1", "labels", build,
    rule="prior",
)  # fmt: skip
