"""Accuracy: the share of rows whose label is right, every label counting.

Source: ``sklearn.metrics.accuracy_score``.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Float64s, Ints
from competition.scoring.metrics.metric import MetricKind, Predicted, Task, divide


@dataclass(frozen=True)
class Accuracy:
    """Right rows over all rows."""

    def count(self, gold: Ints, predicted: Predicted) -> NDArray[np.bool_]:
        """Return (N, 2) bool: right, and a row."""
        return np.stack([gold == predicted[1], np.ones(len(gold), dtype=bool)], axis=1)

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) shares; 0 without rows."""
        return divide(sums[..., 0], sums[..., 1])


def build(_task: Task) -> Accuracy:
    """Build the kernel; it needs to know nothing."""
    return Accuracy()


ACCURACY = MetricKind("accuracy", "accuracy", "accuracy", "accuracy", "accuracy", "labels", build)
