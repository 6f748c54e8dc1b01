"""Weighted soft voting in log space: p ∝ exp(Σ w_m · log p_m), weights fitted by log-loss.

This is a logarithmic opinion pool, the first half of the blend. Weights are non-negative and need
not sum to 1. Labels are decided from the pool as fitted; the probabilities used for ranking are
flattened by a temperature T, p ∝ exp(Σ (w_m / T) · log p_m). Sums run in a fixed order in one
thread, so results do not depend on the number of threads.

Legend: M members, N rows, C labels, K folds, T test rows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.errors import BlendError
from competition.predictions.members import Member
from competition.scoring.criteria import Criteria
from competition.scoring.decisions import Rule, fit_rule, sweep_threshold
from competition.scoring.metrics.micro_f1 import MICRO_F1, is_any_of

FLOOR = 1e-6
BLOCK_ROWS = 8192  # rows pooled at once
COPIES_HELD = 5  # of a member's out-of-fold rows in memory: as read, as logs, and in fits
PREDICTIONS_HELD = 10  # out-of-fold predictions in memory: fitted and nested, of five systems
MEMORY_FRAC = 0.8
MAX_CONVEX_STEPS = 200
# tried from 1 outwards. A coarse grid, and 1 unless another value is clearly better: folds with
# different temperatures lose more AUPRC when their rows are ranked together than the best
# temperature gains. Beyond 2 the gain is negligible (0.1 on KLUE-RE).
FLATTER, SHARPER = (1.4, 2.0), (0.7,)
MIN_GAIN = 0.005  # of the score that probabilities are ranked by
TINY = np.finfo(np.float32).tiny

Logs = NDArray[np.float32]
Weights = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PooledRows:
    """Rows to fit weights and threshold on, or to score.

    ``logs`` is (M, C, N) float32 and contiguous: with rows last, sums and maxima over labels are
    vectorised. ``gold`` is (N,) label ids. ``weights`` is (N,) float64 row weights of mean 1, or
    None for equal weights. ``folds`` is (N,), the fold that held each row out, for choices made by
    cross-validation; None if there are none.
    """

    logs: Logs
    gold: NDArray[np.int64]
    criteria: Criteria
    weights: Weights | None = None
    folds: Ints | None = None

    def take(self, rows: NDArray[np.bool_]) -> PooledRows:
        """Return a copy of the selected rows."""
        return PooledRows(
            np.ascontiguousarray(self.logs[:, :, rows]),
            self.gold[rows],
            self.criteria,
            None if self.weights is None else self.weights[rows],
            None if self.folds is None else self.folds[rows],
        )

    def take_members(self, members: NDArray[np.intp]) -> PooledRows:
        """Return a copy of all rows for the selected members."""
        return replace(self, logs=np.ascontiguousarray(self.logs[members]))

    def count_positive(self) -> float:
        """Return the (weighted) number of rows with a positive gold label."""
        is_positive = ~is_any_of(self.gold, self.criteria.negative_ids)
        return float(is_positive.sum() if self.weights is None else self.weights[is_positive].sum())


def build_pooled_rows(members: Sequence[Member], gold: Ints, criteria: Criteria) -> PooledRows:
    """Stack the members' out-of-fold log-probabilities.

    Raises:
        BlendError: there is no member, or one does not cover every row.
    """
    if not members:
        raise BlendError("there is nothing to blend; train a variant first: python run.py fold")
    partial = [member.name for member in members if not member.covers_all]
    if partial:
        raise BlendError(
            f"{', '.join(partial)} do not cover every row; a specialist can be blended only"
            " together with the other specialists of its routes"
        )
    n_rows, n_labels = members[0].oof.shape
    logs = np.empty((len(members), n_labels, n_rows), dtype=np.float32)
    for place, member in zip(logs, members, strict=True):
        place[:] = floored_logs(member.oof).T
    return PooledRows(logs, np.asarray(gold, dtype=np.int64), criteria)


def floored_logs(probs: Floats) -> NDArray[np.float32]:
    """Clip probabilities to at least ``FLOOR``, renormalise, and take logs.

    Returns:
        (…, C) float32.
    """
    floored = np.maximum(probs, np.float32(FLOOR), dtype=np.float32)
    floored /= floored.sum(axis=-1, keepdims=True)
    logs: NDArray[np.float32] = np.log(floored, out=floored)
    return logs


def pool(logs: Logs, weights: Weights, *, temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the pooled probabilities.

    Returns:
        (N, C) float32, rows sum to 1.
    """
    probs = np.empty(logs.shape[:0:-1], dtype=np.float32)
    for rows, shares, total in _pool_blocks(logs, weights / temperature):
        probs[rows] = (shares / total).T
    return probs


def pool_test(
    members: Sequence[Member], weights: Weights, *, temperature: float = 1.0
) -> NDArray[np.float32]:
    """Apply the blend to each fold's test predictions and average over folds in log space.

    The pool's normaliser is one number per row and fold, so it cancels when the average is
    renormalised: averaging Σ w_m · log p_m over folds gives the same result.

    Returns:
        (T, C) float32, rows sum to 1.
    """
    pooled = np.zeros(members[0].test.shape[1:])
    for member, weight in zip(members, weights, strict=True):
        if weight > 0:
            for fold_probs in member.test:
                pooled += weight * floored_logs(fold_probs)
    pooled /= len(members[0].test) * temperature
    shares = np.exp(pooled - pooled.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.asarray(shares, dtype=np.float32)


def choose_temperature(rows: PooledRows, weights: Weights) -> float:
    """Return the temperature at which the pool's probabilities score best.

    That is by AUPRC, or by what else of the metrics reads probabilities; without such a metric
    probabilities are left as they are.

    An overconfident pool saturates near 0 and 1 and so ranks rows poorly; flattening separates
    rows of middling probability again. The search goes outwards from 1 while each next temperature
    improves, and returns 1 if the total gain is below ``MIN_GAIN``.

    Returns:
        1, or one of ``FLATTER`` or ``SHARPER``.

    Source: temperature scaling, Guo et al. 2017, arXiv 1706.04599, section 4.2; there it serves
    calibration, here ranking.
    """
    metric = rows.criteria.ranked
    if metric is None:
        return 1.0
    pooled = np.einsum("m,mcn->cn", weights.astype(np.float32), rows.logs)
    pooled -= pooled.max(axis=0)

    def measure(temperature: float) -> float:
        shares = np.exp(pooled / np.float32(temperature))
        shares /= shares.sum(axis=0)
        return metric.score(rows.gold, (shares.T, rows.gold), rows.weights)

    as_pooled = measure(1.0)
    chosen, best = 1.0, as_pooled
    for direction in (FLATTER, SHARPER):
        for temperature in direction:
            area = measure(temperature)
            if not area > best:
                break
            chosen, best = temperature, area
        if chosen != 1.0:
            break
    return chosen if best - as_pooled >= MIN_GAIN else 1.0


def tune_rule(rows: PooledRows, weights: Weights) -> tuple[Rule, float]:
    """Return the best decision rule for given weights, and the score of the labels it gives.

    Equals ``fit_rule`` on the pool; a threshold is found without storing the pool. Without a metric
    that reads labels, the score is 0.
    """
    criteria = rows.criteria
    if criteria.rule == "threshold":
        probability, is_right = decide_pool(rows, weights)
        found = sweep_threshold(probability, is_right, rows.count_positive(), rows.weights)
        return Rule(found[0]), found[1]
    if criteria.decided is None:
        return Rule(), 0.0
    if criteria.decided.kind.name == MICRO_F1.name:
        _, is_right = decide_pool(rows, weights)  # without a negative label, the share of right
        return Rule(), float(np.average(is_right, weights=rows.weights))
    known = (pool(rows.logs, weights), rows.gold)
    return fit_rule(criteria.rule, criteria.decided, known, criteria.negative_ids, rows.weights)


def decide_pool(
    rows: PooledRows, weights: Weights
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Evaluate each row's best positive label in the pool, without storing the pool.

    Returns:
        (N,) float32 probability of that label, and (N,) bool whether it is the gold label.
    """
    n_rows = rows.logs.shape[2]
    probability = np.empty(n_rows, dtype=np.float32)
    is_right = np.empty(n_rows, dtype=bool)
    for block, shares, total in _pool_blocks(rows.logs, weights):
        for label_id in rows.criteria.negative_ids:
            shares[label_id] = -1.0
        probability[block] = shares.max(axis=0) / total
        is_right[block] = shares.argmax(axis=0) == rows.gold[block]
    return probability, is_right


def fit_convex(rows: PooledRows) -> Weights:
    """Fit non-negative weights by log-loss: a convex problem, so the result needs no seed.

    Source: Genest & Zidek 1986 (logarithmic opinion pool); Byrd et al. 1995 (L-BFGS-B). Weights
    are not forced to sum to 1.
    """
    from scipy.optimize import minimize

    def measure(weights: Weights) -> tuple[float, Weights]:
        return measure_log_loss(rows, weights)

    n_members = len(rows.logs)
    options: Any = {"maxiter": MAX_CONVEX_STEPS, "ftol": 1e-9, "gtol": 1e-6}
    fit = minimize(
        measure,
        np.full(n_members, 1.0 / n_members),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * n_members,
        options=options,
    )
    return np.asarray(fit.x, dtype=np.float64)


def measure_log_loss(rows: PooledRows, weights: Weights) -> tuple[float, Weights]:
    """Return the mean log-loss of the pool and its gradient in the weights, (M,) float64."""
    n_members, _, n_rows = rows.logs.shape
    loss, gradient = 0.0, np.zeros(n_members)
    for block, shares, total in _pool_blocks(rows.logs, weights):
        excess = np.divide(shares, total, out=shares)
        places = (rows.gold[block], np.arange(len(total)))
        losses = -np.log(np.maximum(excess[places], TINY), dtype=np.float64)
        excess[places] -= 1.0  # from here on: pooled minus gold
        if rows.weights is not None:
            losses *= rows.weights[block]
            excess *= rows.weights[block].astype(np.float32)
        loss += float(losses.sum())
        sums = np.einsum("cn,mcn->mc", excess, rows.logs[:, :, block])
        gradient += sums.sum(axis=1, dtype=np.float64)
    return loss / n_rows, gradient / n_rows


def measure_curvature(
    rows: PooledRows, weights: Weights
) -> tuple[float, Weights, NDArray[np.float64]]:
    """Return log-loss, gradient and Hessian, (M, M) float64."""
    loss, gradient = measure_log_loss(rows, weights)
    n_members, _, n_rows = rows.logs.shape
    curvature = np.zeros((n_members, n_members))
    for block, shares, total in _pool_blocks(rows.logs, weights):
        probs = np.divide(shares, total, out=shares)
        logs = rows.logs[:, :, block]
        means = np.einsum("cn,mcn->mn", probs, logs)
        if rows.weights is not None:
            probs *= rows.weights[block].astype(np.float32)
        for member in range(n_members):
            product = probs * logs[member]
            sums = np.einsum("cn,mcn->mc", product, logs).sum(axis=1, dtype=np.float64)
            weighted = means[member]
            if rows.weights is not None:
                weighted = weighted * rows.weights[block]
            curvature[member] += sums - np.einsum("n,mn->m", weighted, means, dtype=np.float64)
    return loss, gradient, curvature / n_rows


def check_memory(
    n_members: int, oof_shape: tuple[int, int], test_shape: tuple[int, int, int]
) -> None:
    """Raise if a blend would not fit in memory, before anything is read.

    Raises:
        BlendError: with the memory needed and available.
    """
    oof_cells, test_cells = math.prod(oof_shape), math.prod(test_shape)
    copies = COPIES_HELD * n_members + PREDICTIONS_HELD
    needed = 4 * (copies * oof_cells + n_members * test_cells)
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > MEMORY_FRAC * found:
        raise BlendError(
            f"{n_members} members need about {needed / 2**30:.1f} GiB of memory, and this machine"
            f" has {found / 2**30:.1f} GiB; name fewer variants: python run.py blend VARIANT…"
        )


def _pool_blocks(
    logs: Logs, weights: Weights
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the unnormalised pool block by block.

    Yields:
        The rows; (C, n) float32 exp of the pooled logs, at most 1 (overwritten by the next
        block); (n,) float32 sum of these over labels.
    """
    _, n_labels, n_rows = logs.shape
    space = np.empty((n_labels, min(BLOCK_ROWS, n_rows)), dtype=np.float32)
    factors = np.asarray(weights, dtype=np.float32)
    for start in range(0, n_rows, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, n_rows))
        pooled = space[:, : rows.stop - start]
        # einsum sums member by member in one thread; a matrix product may not
        np.einsum("m,mcn->cn", factors, logs[:, :, rows], out=pooled)
        np.subtract(pooled, pooled.max(axis=0), out=pooled)
        np.exp(pooled, out=pooled)
        yield rows, pooled, pooled.sum(axis=0)
