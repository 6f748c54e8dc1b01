"""Each label's precision-recall curve in segments: the rows at and between its gold scores.

Recall only changes at a gold row's score, so the weight of the rows in each segment determines the
area under the curve. A bootstrap replicate only changes these weights.

Legend: N rows, C labels, D distinct scores of a label's gold rows, R replicates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats

TINY = np.finfo(np.float64).tiny  # 0 / TINY is 0, where 0 / 0 is not a number


def place_in_segments(scores: Floats, is_gold: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Number each row's segment: odd at a distinct gold score, even between two of them.

    With gold scores 0.2 and 0.7: 0.1 → 0, 0.2 → 1, 0.5 → 2, 0.7 → 3, 0.9 → 4.
    """
    distinct = np.unique(scores[is_gold])
    below = np.searchsorted(distinct, scores, side="left")
    at = distinct[np.minimum(below, len(distinct) - 1)] == scores
    return 2 * below + at, 2 * len(distinct) + 1


def accumulate(
    sums: NDArray[np.float64], hits: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return weights at or above each gold score, of R curves at once.

    Args:
        sums: (2D + 1, R) weight of all rows in each segment of D distinct gold scores.
        hits: (D, R) weight of the gold rows at each gold score.

    Returns:
        (D, R) each: of all rows at or above, of all rows above, of gold rows at or above, and of
        gold rows above.
    """
    at, above = sums[1::2], sums[2::2]
    rows_at = _sum_from_top(at + above)
    hits_at = _sum_from_top(hits)
    rows_above, hits_above = above.copy(), np.zeros_like(hits)
    rows_above[:-1] += rows_at[1:]
    hits_above[:-1] = hits_at[1:]
    return rows_at, rows_above, hits_at, hits_above


def _sum_from_top(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of each row of (D, R) values and all below it in the array."""
    summed = values[::-1].cumsum(axis=0)
    return summed[::-1]


def sum_segments(
    scores: Floats, is_gold: NDArray[np.bool_], weights: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights (2D + 1, 1) of all rows by segment and (D, 1) of the gold rows."""
    segment, n_segments = place_in_segments(scores, is_gold)
    sums = np.asarray(np.bincount(segment, weights, n_segments), dtype=np.float64)
    hits = np.asarray(np.bincount(segment[is_gold], weights[is_gold], n_segments), dtype=np.float64)
    return sums[:, None], hits[1::2, None]
