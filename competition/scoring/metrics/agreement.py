"""Counts behind agreement corrected for chance, which Cohen's kappa and MCC share.

Legend: N rows, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from competition.arrays import Float64s, Ints
from competition.scoring.metrics.metric import DenseOrSparse, Predicted, spread_counts


@dataclass(frozen=True)
class AgreementMetric:
    """A metric of right rows and of the label shares of both sides; it defines ``combine``."""

    n_labels: int

    def count(self, gold: Ints, predicted: Predicted) -> DenseOrSparse:
        """Return (N, 1 + 2C) counts: right rows, then predicted and gold rows of each label."""
        pred, n_labels = predicted[1], self.n_labels
        hit = np.where(gold == pred, 0, -1)
        return spread_counts((hit, pred + 1, gold + 1 + n_labels), 1 + 2 * n_labels)


def split_agreement(sums: Float64s) -> tuple[Float64s, Float64s, Float64s, Float64s]:
    """Part (…, 1 + 2C) sums into (…) right rows and all rows, (…, C) predicted and gold rows."""
    pred, gold = np.split(sums[..., 1:], 2, axis=-1)
    return sums[..., 0], gold.sum(axis=-1), pred, gold
