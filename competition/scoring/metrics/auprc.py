"""AUPRC: the mean over labels of the trapezoidal area under the precision-recall curve.

This is how the platform computes it, and not average precision. Every label counts, the negative
one too; a label without a gold row has no curve and is left out of the mean.

Source: COMPETITION.md of the KLUE-RE competition, second key;
``sklearn.metrics.precision_recall_curve`` and ``auc(recall, precision)``.

Legend: N rows, C labels, D distinct scores of a label's gold rows, R replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.scoring.metrics.curve import TINY, accumulate, sum_segments
from competition.scoring.metrics.metric import MetricKind, Task

KEY_SHIFT = 14  # bits of a float32 left out of its sorting key: 2 ** 16 keys reach up to 2.0


@dataclass(frozen=True)
class Auprc:
    """The trapezoidal area under each label's curve."""

    def measure_areas(
        self, gold: Ints, probs: Floats, weights: Floats | None = None
    ) -> NDArray[np.float64]:
        """Return (C,) areas in [0, 1]; NaN for a label without a (weighted) gold row.

        Only scores of gold rows matter, because recall is constant between them. At a gold row's
        score s the curve steps from (rows above s) to (rows at or above s), so counting rows above
        each gold score gives the same area as scikit-learn without building the curve.
        """
        columns = np.ascontiguousarray(np.asarray(probs).T)
        areas = np.full(len(columns), np.nan)
        keys = _coarse_keys(columns)
        for label_id, scores in enumerate(columns):
            is_gold = gold == label_id
            if not is_gold.any():
                continue
            if weights is None:
                areas[label_id] = _area(scores, keys[label_id], is_gold)
            else:
                areas[label_id] = self.combine(*sum_segments(scores, is_gold, weights))[0]
        return areas

    def combine(self, sums: NDArray[np.float64], hits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (R,) areas; NaN where no gold row has weight."""
        rows_at, rows_above, hits_at, hits_above = accumulate(sums, hits)
        both = hits_above / np.maximum(rows_above, TINY) + hits_at / np.maximum(rows_at, TINY)
        both += rows_above == 0  # above the highest score the curve starts at precision 1
        golds = hits_at[0]
        areas = np.full(golds.shape, np.nan)
        np.divide((both * hits).sum(axis=0), 2 * golds, out=areas, where=golds > 0)
        return areas


def build(_task: Task) -> Auprc:
    """Build the kernel; it needs to know nothing."""
    return Auprc()


AUPRC = MetricKind("auprc", "auprc", "auprc", "AUPRC", "AUPRC", "probabilities", build)


def _coarse_keys(scores: Floats) -> NDArray[np.uint16]:
    """Return 16-bit keys in the order of the scores, with ties: their leading float bits.

    NumPy sorts such keys by radix, several times as fast as floats. Scores outside [0, 2) all get
    the same key, which is correct but slower.
    """
    if scores.size and (scores.min() < 0 or scores.max() >= 2):
        return np.zeros(scores.shape, dtype=np.uint16)
    bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.uint32)
    return (bits >> np.uint32(KEY_SHIFT)).astype(np.uint16)


def _area(scores: Floats, keys: NDArray[np.uint16], is_gold: NDArray[np.bool_]) -> float:
    """Compute the area under one label's curve without row weights.

    Rows above each gold score are counted by key; only rows that share a key with a gold row are
    sorted by their full score.
    """
    golds = np.sort(scores[is_gold])
    starts = np.flatnonzero(np.append([True], golds[1:] != golds[:-1]))
    distinct, distinct_keys = golds[starts], np.sort(keys[is_gold])[starts]
    is_shared = np.zeros(2**16, dtype=bool)
    is_shared[distinct_keys] = True
    is_near = is_shared[keys]
    near = np.sort(scores[is_near])
    far_above = _count_above(keys, distinct_keys) - _count_above(keys[is_near], distinct_keys)
    rows_at = far_above + len(near) - np.searchsorted(near, distinct, side="left")
    rows_above = far_above + len(near) - np.searchsorted(near, distinct, side="right")
    hits_at = len(golds) - starts
    hits_above = np.append(hits_at[1:], 0)
    before = np.divide(hits_above, rows_above, out=np.ones(len(starts)), where=rows_above > 0)
    steps = (hits_at - hits_above) * (before + hits_at / rows_at)
    return float(steps.sum() / (2 * len(golds)))


def _count_above(keys: NDArray[np.uint16], limits: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return (D,) counts of the (N,) keys above each of the (D,) limits."""
    return len(keys) - np.searchsorted(np.sort(keys, kind="stable"), limits, side="right")
