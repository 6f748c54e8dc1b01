"""Macro-F1: the mean of the classes' F1, each class counting alike however rare it is.

Classes are the counted labels, some of them merged into one. With the directed labels of each
relation merged, ``Other`` not counted and only classes with a gold row averaged, it is the official
score of SemEval-2010 Task 8: a hit needs relation and direction, and a wrong direction is a false
positive and a false negative of the relation.

Source: Hendrickx et al. 2010, "SemEval-2010 Task 8", section 4 (evaluation);
``sklearn.metrics.f1_score`` with ``average="macro"``.

Legend: N rows, L classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from competition.arrays import Float64s
from competition.scoring.metrics.by_label import ClassMetric, f1_by_class, number_classes
from competition.scoring.metrics.metric import MetricKind, Task, divide


@dataclass(frozen=True)
class MacroF1(ClassMetric):
    """The mean F1 of classes; ``averaged`` as in ``Task``."""

    averaged: Literal["gold", "seen", "all"]

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) means over the averaged classes; 0 where there is none."""
        hits, pred, gold = np.split(sums, 3, axis=-1)
        rows = {"gold": gold, "seen": gold + pred, "all": np.ones_like(gold)}[self.averaged]
        is_averaged = rows > 0
        total = np.where(is_averaged, f1_by_class(hits, pred, gold), 0.0).sum(axis=-1)
        return divide(total, is_averaged.sum(axis=-1))


def build(task: Task) -> MacroF1:
    """Build the kernel for a competition's labels."""
    return MacroF1(*number_classes(task), task.averaged)


MACRO_F1 = MetricKind(
    "macro-f1", "macro_f1", "macro_f1", "macro-F1", "macro-F1", "labels", build, rule="prior"
)
