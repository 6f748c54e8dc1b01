"""Suspected wrong labels: confident learning on the pooled out-of-fold probabilities of members.

``errors`` lists what is found here and writes it as a file of corrections.

Legend: N rows, C labels, M members, S suspects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from competition.arrays import Float64s, Floats, Ints

MAX_FITTED = 10_000  # rows from which weights are fitted: there are only M of them
MIN_PROB = 1e-7
ROBUSTNESS = 0.5  # q of the generalised cross-entropy: 0 is log-loss, 1 the mean absolute error


@dataclass(frozen=True, eq=False)
class Suspects:
    """Rows whose label is probably wrong, the most suspect first.

    Attributes:
        rows: (S,) places among the rows.
        label_ids: (S,) the label that each probably should have.
        own: (S,) probability of the label that it has.
        other: (S,) probability of the label that it probably should have.
    """

    rows: NDArray[np.int64]
    label_ids: NDArray[np.int64]
    own: Floats
    other: Floats

    def __len__(self) -> int:
        """Return S."""
        return len(self.rows)


def find_suspects(gold: Ints, probs: Floats) -> Suspects:
    """Find rows whose label another label disputes.

    Of the rows for which another label is more probable, those are suspect whose own label is
    least probable. There are as many as some label claims with confidence: it reaches its
    threshold, the mean probability of it over the rows that have it, and the most probable of
    those that do is not the row's own. Labels that no row has dispute nothing.

    Args:
        gold: (N,) label ids as published.
        probs: (N, C) probabilities from models that did not see the row.

    Source: Northcutt, Jiang & Chuang 2021, arXiv 1911.00068: the count is that of the confident
    joint's off-diagonal (section 3.1), the rank is self-confidence (section 3.2, prune by class,
    here over all classes).
    """
    probs = np.asarray(probs, dtype=np.float64)
    n_rows, n_labels = probs.shape
    own = probs[np.arange(n_rows), gold]
    counts = np.bincount(gold, minlength=n_labels)
    sums = np.bincount(gold, weights=own, minlength=n_labels)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    claims = np.where(probs >= thresholds, probs, -1.0)
    n_claimed = np.count_nonzero((claims.max(axis=1) >= 0) & (claims.argmax(axis=1) != gold))
    best = np.where(counts > 0, probs, -1.0).argmax(axis=1)
    disputed = np.flatnonzero(best != gold)
    order = disputed[np.argsort(own[disputed], kind="stable")][:n_claimed]
    return Suspects(order, best[order], own[order], probs[order, best[order]])


def pool_members(gold: Ints, members: Sequence[Floats]) -> Float64s:
    """Pool members' probabilities with the weights that explain the published labels best.

    The pool is log-linear: the softmax of the members' weighted log probabilities. Its loss is
    robust to label noise, so that wrong labels hardly affect the weights; their sum is the pool's
    inverse temperature.

    Args:
        gold: (N,) label ids as published.
        members: M arrays (N, C) of out-of-fold probabilities.

    Returns:
        (N, C), rows sum to 1.

    Source: the logarithmic opinion pool (Genest & Zidek 1986, "Combining probability
    distributions"); generalised cross-entropy (Zhang & Sabuncu 2018, arXiv 1805.07836, equation
    6), from the minimum of log-loss, since it is not convex.
    """
    step = -(-len(gold) // MAX_FITTED)
    logs = np.stack([_take_logs(each[::step]) for each in members])
    weights = np.full(len(members), 1.0 / len(members))
    for robustness in (0.0, ROBUSTNESS):
        weights = _fit_weights(gold[::step], logs, weights, robustness)
    scores = np.zeros(members[0].shape)
    for weight, member in zip(weights, members, strict=True):
        if weight > 0:
            scores += weight * _take_logs(member)
    return _softmax(scores)


def _fit_weights(gold: Ints, logs: Float64s, weights: Float64s, robustness: float) -> Float64s:
    """Return the (M,) weights, none negative, of least loss from some other weights."""
    of_gold = logs[:, np.arange(len(gold)), gold]

    def measure(weights: Float64s) -> tuple[float, Float64s]:
        probs = _softmax(np.tensordot(weights, logs, 1))
        own = np.maximum(probs[np.arange(len(gold)), gold], MIN_PROB)
        slopes = of_gold - np.einsum("nc,mnc->mn", probs, logs)
        if not robustness:
            return float(-np.log(own).mean()), -slopes.mean(axis=1)
        shares = own**robustness
        return float((1 - shares).mean() / robustness), -(shares * slopes).mean(axis=1)

    bounds = [(0.0, None)] * len(weights)
    found = minimize(measure, weights, jac=True, bounds=bounds, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64)


def _take_logs(probs: Floats) -> Float64s:
    logs = np.log(np.maximum(probs, MIN_PROB), dtype=np.float64)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def _softmax(scores: Float64s) -> Float64s:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
