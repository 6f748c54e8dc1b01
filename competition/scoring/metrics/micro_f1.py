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

from competition.arrays import Float64s, Floats, Ints
from competition.scoring.metrics.metric import MetricKind, Predicted, Task, divide, sum_counts


@dataclass(frozen=True)
class MicroF1:
    """Micro-F1 over all labels but ``ignored``."""

    ignored: tuple[int, ...]

    def count(self, gold: Ints, predicted: Predicted) -> NDArray[np.bool_]:
        """Return (N, 3) bool, see ``count_hits``."""
        return count_hits(gold, predicted[1], self.ignored)

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) micro-F1 of (…, 3) sums."""
        return f1_from_sums(sums)


def build(task: Task) -> MicroF1:
    """Build the kernel for a competition's labels."""
    counted = task.counted_ids
    return MicroF1(tuple(i for i in range(task.n_labels) if i not in counted))


MICRO_F1 = MetricKind(
    "micro-f1", "micro_f1", "f1", "micro-F1", "F1", "labels", build, rule="threshold"
)


def count_hits(gold: Ints, pred: Ints, ignored: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the true positives, predictions and gold labels that micro-F1 counts, per row.

    Returns:
        (N, 3) bool: correctly predicted, predicted, and gold, each for the counted labels only.
    """
    is_gold, is_pred = (~is_any_of(each, ignored) for each in (gold, pred))
    return np.stack([(gold == pred) & is_gold, is_pred, is_gold], axis=1)


def is_any_of(label_ids: Ints, wanted: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return (N,) whether each label is one of a few."""
    found = np.zeros(len(label_ids), dtype=bool)
    for label_id in wanted:
        found |= label_ids == label_id
    return found


def micro_f1(
    gold: Ints, pred: Ints, ignored: tuple[int, ...], weights: Floats | None = None
) -> float:
    """Compute micro-F1 over all labels except some.

    If nothing is predicted and nothing is gold, 0/0 counts as 0.0, as with scikit-learn's
    ``zero_division=0``.
    """
    return float(f1_from_sums(sum_counts(count_hits(gold, pred, ignored), weights)))


def f1_from_sums(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (…,) micro-F1 from (…, 3) sums of ``count_hits``; 0/0 is 0."""
    return divide(2.0 * totals[..., 0], totals[..., 1] + totals[..., 2])
