"""Counts behind agreement corrected for chance, which Cohen's kappa and MCC share.

Legend: N rows, C labels.
"""

from __future__ import annotations

import numpy as np

from competition.arrays import Float64s, Ints
from competition.scoring.metrics.metric import DenseOrSparse, Predicted, spread_counts


def count_agreement(gold: Ints, predicted: Predicted, n_labels: int) -> DenseOrSparse:
    """Return (N, 1 + 2C) counts: right rows, predicted rows of each label, gold rows of each."""
    pred = predicted[1]
    hit = np.where(gold == pred, 0, -1)
    return spread_counts((hit, pred + 1, gold + 1 + n_labels), 1 + 2 * n_labels)


def split_agreement(sums: Float64s) -> tuple[Float64s, Float64s, Float64s, Float64s]:
    """Part (…, 1 + 2C) sums into (…) right rows and all rows, (…, C) predicted and gold rows."""
    pred, gold = np.split(sums[..., 1:], 2, axis=-1)
    return sums[..., 0], gold.sum(axis=-1), pred, gold
