"""Counts by class, which the means of F1 over classes share: hits, predicted and gold rows.

Legend: N rows, C labels, L classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from competition.arrays import Float64s, Int64s, Ints
from competition.scoring.metrics.metric import (
    DenseOrSparse,
    Predicted,
    Task,
    divide,
    spread_counts,
)


@dataclass(frozen=True)
class ClassMetric:
    """A mean of F1 over the classes that labels belong to; it defines ``combine``.

    ``class_of`` (C,) is -1 for a label that is not counted. It is a tuple, so that metrics can be
    compared and sent to another process.
    """

    class_of: tuple[int, ...]
    size: int

    def count(self, gold: Ints, predicted: Predicted) -> DenseOrSparse:
        """Return (N, 3L) counts: hits of each class, then predicted rows, then gold rows."""
        class_of: Int64s = np.array(self.class_of, dtype=np.int64)
        pred = predicted[1]
        of_gold, of_pred = class_of[gold], class_of[pred]
        hit = np.where(gold == pred, of_gold, -1)
        after_pred = np.where(of_pred < 0, -1, of_pred + self.size)
        after_gold = np.where(of_gold < 0, -1, of_gold + 2 * self.size)
        return spread_counts((hit, after_pred, after_gold), 3 * self.size)


def number_classes(task: Task) -> tuple[tuple[int, ...], int]:
    """Number the classes, first the merged ones, then each other counted label.

    Returns:
        The class of each label, and the number of classes.
    """
    class_of = [-1] * task.n_labels
    merged = {label_id for group in task.merged for label_id in group}
    single = [(label_id,) for label_id in task.counted_ids if label_id not in merged]
    groups = [*task.merged, *single]
    for place, group in enumerate(groups):
        for label_id in group:
            class_of[label_id] = place
    return tuple(class_of), len(groups)


def f1_by_class(hits: Float64s, pred: Float64s, gold: Float64s) -> Float64s:
    """Return (…, L) F1 of each class; 0/0 is 0."""
    return divide(2.0 * hits, pred + gold)
