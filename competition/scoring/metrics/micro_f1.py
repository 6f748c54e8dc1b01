"""Micro-F1: F1 of all decisions for a counted label together; the negative labels do not count.

A gold negative label predicted as a counted one costs precision. Without a negative label and with
every label counted, it equals accuracy.

Source: COMPETITION.md of the KLUE-RE competition, first key; ``sklearn.metrics.f1_score`` with
``average="micro"`` and ``labels``.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Float64s, Ints
from competition.scoring.metrics.metric import MetricKind, Predicted, Task, divide


@dataclass(frozen=True)
class MicroF1:
    """Micro-F1 over all labels but ``ignored``."""

    ignored: tuple[int, ...] = ()

    def count(self, gold: Ints, predicted: Predicted) -> NDArray[np.bool_]:
        """Return (N, 3) bool: right, predicted, and gold, each for the counted labels only."""
        pred = predicted[1]
        is_gold, is_pred = (~is_any_of(each, self.ignored) for each in (gold, pred))
        return np.stack([(gold == pred) & is_gold, is_pred, is_gold], axis=1)

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) micro-F1 of (…, 3) sums; 0/0 is 0."""
        return divide(2.0 * sums[..., 0], sums[..., 1] + sums[..., 2])


def build(task: Task) -> MicroF1:
    """Build the kernel for a competition's labels."""
    counted = task.counted_ids
    return MicroF1(tuple(i for i in range(task.n_labels) if i not in counted))


MICRO_F1 = MetricKind(
    "micro-f1", "micro_f1", "f1", "micro-F1", "F1", "labels", build, rule="threshold"
)


def is_any_of(label_ids: Ints, wanted: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return (N,) whether each label is one of a few."""
    found = np.zeros(len(label_ids), dtype=bool)
    for label_id in wanted:
        found |= label_ids == label_id
    return found
