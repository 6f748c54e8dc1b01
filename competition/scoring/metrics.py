"""Metrics of the leaderboard (micro-F1, AUPRC) and the decision threshold between them.

Labels and probabilities are scored independently, so the decision rule may differ from the most
probable label. Confidence intervals are in ``bootstrap``.

Legend: N rows, C labels, D distinct scores of a label's gold rows, R replicates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.errors import UsageError

KEY_SHIFT = 14  # bits of a float32 left out of its sorting key: 2 ** 16 keys reach up to 2.0
TINY = np.finfo(np.float64).tiny  # 0 / TINY is 0, where 0 / 0 is not a number


def count_hits(gold: Ints, pred: Ints, negative_id: int | None) -> NDArray[np.bool_]:
    """Return the true positives, predictions and gold labels that micro-F1 counts, per row.

    Args:
        gold: (N,) label ids.
        pred: (N,) label ids.
        negative_id: the label that micro-F1 ignores, or None if every label counts.

    Returns:
        (N, 3) bool: correctly predicted, predicted, and gold, each for the counted labels only.
    """
    hit = gold == pred
    if negative_id is None:
        always = np.ones(len(gold), dtype=bool)
        return np.stack([hit, always, always], axis=1)
    is_positive = gold != negative_id
    return np.stack([hit & is_positive, pred != negative_id, is_positive], axis=1)


def micro_f1(
    gold: Ints, pred: Ints, negative_id: int | None, weights: Floats | None = None
) -> float:
    """Compute micro-F1 over all labels except the negative one.

    If nothing is predicted and nothing is gold, 0/0 counts as 0.0, as with scikit-learn's
    ``zero_division=0``. Without a negative label micro-F1 equals accuracy.

    Args:
        gold: (N,) label ids.
        pred: (N,) label ids.
        negative_id: the label that micro-F1 ignores, or None.
        weights: (N,) non-negative weight of each row; None counts each row once.

    Source: COMPETITION.md of the KLUE-RE competition, first key.
    """
    counts = count_hits(gold, pred, negative_id)
    totals = counts.sum(axis=0) if weights is None else _weighted_sums(counts, weights)
    return float(f1_from_sums(totals.astype(np.float64)))


def auprc_by_class(gold: Ints, probs: Floats, weights: Floats | None = None) -> Floats:
    """Compute the trapezoidal area under each label's precision-recall curve.

    Only scores of gold rows matter, because recall is constant between them. At a gold row's
    score s the curve steps from (rows above s) to (rows at or above s), so counting rows above
    each gold score gives the same area as scikit-learn without building the curve.

    Args:
        gold: (N,) label ids.
        probs: (N, C) finite scores.
        weights: (N,) non-negative weight of each row; None counts each row once.

    Returns:
        (C,) float64 in [0, 1]; NaN for a label without a (weighted) gold row.

    Source: ``sklearn.metrics.precision_recall_curve`` and ``auc(recall, precision)``.
    """
    columns = np.ascontiguousarray(np.asarray(probs).T)
    areas = np.full(len(columns), np.nan)
    keys = _coarse_keys(columns)
    for label_id, scores in enumerate(columns):
        is_gold = gold == label_id
        if not is_gold.any():
            continue
        if weights is not None:
            areas[label_id] = _weighted_area(scores, is_gold, weights)
        else:
            areas[label_id] = _area(scores, keys[label_id], is_gold)
    return areas


def auprc(gold: Ints, probs: Floats, weights: Floats | None = None) -> float:
    """Compute the macro-averaged area under the precision-recall curve over all labels.

    The negative label counts too. A label without a gold row has no curve and is left out of the
    mean (NaN in ``auprc_by_class``). Without any gold row the score is NaN.

    Source: COMPETITION.md of the KLUE-RE competition, second key.
    """
    areas = auprc_by_class(gold, probs, weights)
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if len(known) else float("nan")


def decide(probs: Floats, negative_id: int | None, threshold: float | None) -> NDArray[np.int64]:
    """Turn probabilities into labels: the best positive label if it reaches the threshold.

    Args:
        probs: (N, C) floats.
        negative_id: the label given to all other rows, or None.
        threshold: minimum probability of a positive label; None takes the most probable label.

    Returns:
        (N,) int64 label ids; ties go to the first in label order.
    """
    if negative_id is None or threshold is None:
        return np.asarray(np.argmax(probs, axis=1), dtype=np.int64)
    label, probability = best_positive(probs, negative_id)
    return np.where(probability.astype(np.float64) >= threshold, label, negative_id)


def best_positive(probs: Floats, negative_id: int) -> tuple[NDArray[np.int64], Floats]:
    """Return each row's most probable positive label and its probability.

    Returns:
        (N,) int64 label ids and (N,) floats of the dtype of ``probs``.
    """
    positives = np.array(probs, copy=True)
    positives[:, negative_id] = -np.inf
    label = np.argmax(positives, axis=1)
    return label, positives[np.arange(len(label)), label]


def best_threshold(
    probs: Floats, gold: Ints, negative_id: int | None
) -> tuple[float | None, float]:
    """Return the decision threshold that maximises micro-F1, by an exact search.

    Returns:
        The threshold (None without a negative label) and its micro-F1.
    """
    if negative_id is None:
        return None, micro_f1(gold, decide(probs, None, None), None)
    label, probability = best_positive(probs, negative_id)
    n_positive = int((gold != negative_id).sum())
    return sweep_threshold(probability, label == gold, n_positive)


def sweep_threshold(
    probability: Floats,
    is_right: NDArray[np.bool_],
    n_positive: float,
    weights: Floats | None = None,
) -> tuple[float, float]:
    """Return the best threshold among all distinct probabilities of best positive labels.

    A threshold lies halfway between the lowest accepted and the highest rejected probability, so
    that rounding on another machine does not change any decision. Ties go to the threshold nearest
    to F*/2, the optimum for calibrated probabilities.

    Args:
        probability: (N,) probability of each row's best positive label.
        is_right: (N,) whether that label is the gold one.
        n_positive: gold rows with a positive label, or the sum of their weights.
        weights: (N,) non-negative weight of each row; None counts each row once.

    Returns:
        The threshold, float64, and its micro-F1.

    Source: Lipton, Elkan & Narayanaswamy 2014, arXiv 1402.1892, theorem 1 (threshold = F*/2).
    """
    order = np.argsort(probability)[::-1]
    ordered = probability[order].astype(np.float64)
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], [True]))
    right: Floats
    if weights is None:
        right, chosen = np.cumsum(is_right[order], dtype=np.float64)[ends], ends + 1.0
    else:
        right = np.cumsum((weights * is_right)[order])[ends]
        chosen = np.cumsum(weights[order])[ends]
    scores = 2.0 * right / np.maximum(chosen + n_positive, TINY)
    best = float(scores.max())
    lowest_in = ordered[ends]
    highest_out = np.append(ordered[ends[:-1] + 1], 0.0)
    halfway = 0.5 * (lowest_in + highest_out)
    thresholds = np.where(halfway > highest_out, halfway, lowest_in)[scores == best]
    return float(thresholds[np.argmin(np.abs(thresholds - best / 2))]), best


def weights_for_negative_share(
    gold: Ints, negative_id: int | None, share: float
) -> NDArray[np.float64]:
    """Return row weights under which the negative label has a given share (label shift).

    Returns:
        (N,) float64, mean 1.

    Raises:
        UsageError: there is no negative label, or all rows are negative, or none is.
    """
    is_negative = gold == negative_id if negative_id is not None else np.zeros(len(gold), bool)
    found = float(is_negative.mean())
    if not 0.0 < found < 1.0:
        raise UsageError(
            f"scores cannot be reweighted to a negative-label share of {share}: the share in the "
            f"data is {found}; remove metrics.shifted_negative_share from the profile"
        )
    return np.where(is_negative, share / found, (1.0 - share) / (1.0 - found))


def f1_from_sums(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (…,) micro-F1 from (…, 3) sums of ``count_hits``; 0/0 is 0."""
    below = totals[..., 1] + totals[..., 2]
    return np.divide(2.0 * totals[..., 0], below, out=np.zeros(below.shape), where=below > 0)


def _weighted_sums(counts: NDArray[np.bool_], weights: Floats) -> NDArray[np.float64]:
    return np.array([weights[column].sum(dtype=np.float64) for column in counts.T])


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


def _weighted_area(scores: Floats, is_gold: NDArray[np.bool_], weights: Floats) -> float:
    segment, n_segments = place_in_segments(scores, is_gold)
    sums = np.asarray(np.bincount(segment, weights, n_segments), dtype=np.float64)
    hits = np.asarray(np.bincount(segment[is_gold], weights[is_gold], n_segments), dtype=np.float64)
    return float(weighted_areas(sums[:, None], hits[1::2, None])[0])


def place_in_segments(scores: Floats, is_gold: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Number each row's segment: odd at a distinct gold score, even between two of them.

    With gold scores 0.2 and 0.7: 0.1 → 0, 0.2 → 1, 0.5 → 2, 0.7 → 3, 0.9 → 4.
    """
    distinct = np.unique(scores[is_gold])
    below = np.searchsorted(distinct, scores, side="left")
    at = distinct[np.minimum(below, len(distinct) - 1)] == scores
    return 2 * below + at, 2 * len(distinct) + 1


def weighted_areas(sums: NDArray[np.float64], hits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the areas under R curves at once.

    Args:
        sums: (2D + 1, R) weight of all rows in each segment of D distinct gold scores.
        hits: (D, R) weight of the gold rows at each gold score.

    Returns:
        (R,) float64, NaN where no gold row has weight.
    """
    rows = np.cumsum(sums[::-1], axis=0)[::-1]  # weight of the rows in a segment or above
    hits_at = np.cumsum(hits[::-1], axis=0)[::-1]
    rows_at, rows_above = rows[1::2], rows[2::2]
    hits_above = np.append(hits_at[1:], np.zeros((1, hits.shape[1])), axis=0)
    both = hits_above / np.maximum(rows_above, TINY) + hits_at / np.maximum(rows_at, TINY)
    both += rows_above == 0  # above the highest score the curve starts at precision 1
    golds = hits_at[0]
    areas = np.full(golds.shape, np.nan)
    np.divide((both * hits).sum(axis=0), 2 * golds, out=areas, where=golds > 0)
    return areas


def unflatten(probs: Floats, temperature: float) -> NDArray[np.float64]:
    """Undo flattening by a temperature T: p ∝ q^T, (N, C) float64, rows sum to 1.

    >>> unflatten(np.array([[2.0, 1.0]]) / 3, 2.0)
    array([[0.8, 0.2]])
    """
    exact = np.asarray(probs, dtype=np.float64)
    raised = (exact / exact.max(axis=1, keepdims=True)) ** temperature
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)
