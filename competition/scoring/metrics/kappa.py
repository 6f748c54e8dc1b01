"""Cohen's kappa: accuracy above what the label shares of both sides give by chance.

Source: Cohen 1960, "A coefficient of agreement for nominal scales";
``sklearn.metrics.cohen_kappa_score``.

Legend: N rows, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

from competition.arrays import Float64s, Ints
from competition.scoring.metrics.agreement import count_agreement, split_agreement
from competition.scoring.metrics.metric import (
    DenseOrSparse,
    MetricKind,
    Predicted,
    Task,
    divide,
)


@dataclass(frozen=True)
class Kappa:
    """(Agreement - chance) / (1 - chance); 0 where chance alone is 1."""

    n_labels: int

    def count(self, gold: Ints, predicted: Predicted) -> DenseOrSparse:
        """Return (N, 1 + 2C) counts."""
        return count_agreement(gold, predicted, self.n_labels)

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) kappas."""
        right, rows, pred, gold = split_agreement(sums)
        chance = (pred * gold).sum(axis=-1)
        return divide(rows * right - chance, rows**2 - chance)


def build(task: Task) -> Kappa:
    """Build the kernel for a competition's labels."""
    return Kappa(task.n_labels)


KAPPA = MetricKind(
    "kappa", "kappa", "kappa", "Cohen's kappa", "kappa", "labels", build,
    bounds=(-1.0, 1.0),
)  # fmt: skip
