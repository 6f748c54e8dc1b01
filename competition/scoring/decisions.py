"""Decision rules: from probabilities to labels, and which rule suits a metric.

Labels and probabilities are scored independently, so the decision may differ from the most probable
label. ``threshold``: the best positive label if it reaches a threshold, for F1 with a negative
label. ``prior``: the label whose probability is highest relative to a power of its share, for means
over classes, in which rare labels count as much as frequent ones. ``argmax``: the most probable.

Legend: N rows, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.scoring.metrics.curve import TINY
from competition.scoring.metrics.metric import Metric, RuleKind
from competition.scoring.metrics.micro_f1 import is_any_of

# A single parameter from a coarse grid: one offset per label, or a fine grid, fits the noise of a
# thousand rows (docs/experiments.md)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
MIN_GAIN = 0.005  # of a power over the smaller one that it replaces
PRIOR_ROWS = 1.0  # of each label, added to its share


@dataclass(frozen=True)
class Rule:
    """How probabilities become labels; the most probable label if nothing is set.

    Attributes:
        threshold: least probability of a positive label.
        power: of the label shares by which probabilities are divided.
        factors: (C,) what probabilities are multiplied by: the shares to the power ``-power``.
    """

    threshold: float | None = None
    power: float | None = None
    factors: tuple[float, ...] | None = None


ARGMAX = Rule()
Negatives = tuple[int, ...]
"""The negative labels of a competition: none, one or several."""


def decide(probs: Floats, negative_ids: Negatives = (), rule: Rule = ARGMAX) -> NDArray[np.int64]:
    """Turn probabilities into labels by a rule.

    Args:
        negative_ids: below a threshold, the best of these is given.
        rule: the decision rule; it has a threshold only if there is a negative label.

    Returns:
        (N,) int64 label ids; ties go to the first in label order.
    """
    if rule.factors is not None:
        scaled = np.asarray(probs, dtype=np.float64) * np.array(rule.factors)
        return np.asarray(np.argmax(scaled, axis=1), dtype=np.int64)
    if not negative_ids or rule.threshold is None:
        return np.asarray(np.argmax(probs, axis=1), dtype=np.int64)
    label, probability = best_positive(probs, negative_ids)
    is_positive = probability.astype(np.float64) >= rule.threshold
    return np.asarray(np.where(is_positive, label, best_negative(probs, negative_ids)))


def best_positive(probs: Floats, negative_ids: Negatives) -> tuple[NDArray[np.int64], Floats]:
    """Return each row's most probable positive label and its probability.

    Returns:
        (N,) int64 label ids and (N,) floats of the dtype of ``probs``.
    """
    positives = np.array(probs, copy=True)
    positives[:, list(negative_ids)] = -np.inf
    label = np.argmax(positives, axis=1)
    return label, positives[np.arange(len(label)), label]


def best_negative(probs: Floats, negative_ids: Negatives) -> NDArray[np.int64]:
    """Return each row's most probable negative label, (N,) int64."""
    places = np.argmax(probs[:, list(negative_ids)], axis=1)
    return np.asarray(np.array(negative_ids, dtype=np.int64)[places])


def fit_rule(
    kind: RuleKind,
    metric: Metric,
    known: tuple[Floats, Ints],
    negative_ids: Negatives,
    weights: Floats | None = None,
) -> tuple[Rule, float]:
    """Return the rule of a kind with the best score, and that score.

    Args:
        metric: what labels are scored by; with ``threshold`` it is micro-F1.
        known: (N, C) probabilities and (N,) gold label ids.
        negative_ids: the negative labels; with ``threshold`` there is one.
        weights: (N,) non-negative weight of each row; None counts each row once.
    """
    probs, gold = known
    if kind == "threshold":
        label, probability = best_positive(probs, negative_ids)
        is_positive = ~is_any_of(gold, negative_ids)
        count = float(is_positive.sum() if weights is None else weights[is_positive].sum())
        threshold, score = sweep_threshold(probability, label == gold, count, weights)
        return Rule(threshold), score
    if kind == "prior":
        return _fit_power(metric, probs, gold, weights)
    return ARGMAX, metric.score(gold, (probs, decide(probs)), weights)


def _fit_power(
    metric: Metric, probs: Floats, gold: Ints, weights: Floats | None
) -> tuple[Rule, float]:
    """Try powers upwards from 0; each must gain ``MIN_GAIN`` over the one kept so far."""
    prior = np.bincount(gold, weights, probs.shape[1]) + PRIOR_ROWS
    prior /= prior.sum()
    best, best_score = ARGMAX, -np.inf
    for power in POWERS:
        rule = Rule(power=power, factors=tuple((prior**-power).tolist()))
        score = metric.score(gold, (probs, decide(probs, (), rule)), weights)
        if score > best_score + MIN_GAIN or not power:
            best, best_score = rule, score
    return best, best_score


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


def unflatten(probs: Floats, temperature: float) -> NDArray[np.float64]:
    """Undo flattening by a temperature T: p ∝ q^T, (N, C) float64, rows sum to 1.

    >>> unflatten(np.array([[2.0, 1.0]]) / 3, 2.0)
    array([[0.8, 0.2]])
    """
    exact = np.asarray(probs, dtype=np.float64)
    raised = (exact / exact.max(axis=1, keepdims=True)) ** temperature
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)
