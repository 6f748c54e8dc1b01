"""Pool members in log space, p ∝ exp(Σ w_m · log p_m), and fit the weights by log-loss.

First half of the blend, between ``predictions`` and ``submission`` on the way of a row. Weights
are at least 0 and need not sum to 1. Labels are decided in the pool as fitted; what is ranked is
flattened by a temperature T, p ∝ exp(Σ (w_m / T) · log p_m). Everything is elementwise or
summed in a fixed order by one thread, so results do not depend on how many threads there are.

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
from competition.scoring.metrics import auprc, sweep_threshold

FLOOR = 1e-6
BLOCK_ROWS = 8192  # rows pooled at once
COPIES_HELD = 5  # a member's out-of-fold rows: as read, as logs, and what fits take of them
ANSWERS_HELD = 10  # out-of-fold answers: fitted and nested, of five ways of weighing
MEMORY_FRAC = 0.8
MAX_CONVEX_STEPS = 200
# from 1 outwards. Few and far apart, and 1 unless another is clearly better: folds that choose
# another temperature than the rest lose more AUPRC, ranked together, than temperatures differ by.
# Beyond 2 they hardly differ (0.1 on KLUE-RE).
FLATTER, SHARPER = (1.4, 2.0), (0.7,)
LEAST_GAIN = 0.005  # of AUPRC
TINY = np.finfo(np.float32).tiny

Logs = NDArray[np.float32]
Weights = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PooledRows:
    """The rows that weights and threshold are fitted on, or scored on.

    ``logs`` is (M, C, N) float32 and contiguous: with rows last, sums and maxima over labels run
    along vectors. ``gold`` is (N,) label ids. ``weights`` is (N,) float64 of mean 1, how much each
    row counts in whatever is fitted, or None where all count alike. ``folds`` is (N,), which fold
    held each row out, for choices that are made across folds; None where none is made.
    """

    logs: Logs
    gold: NDArray[np.int64]
    negative_id: int | None
    weights: Weights | None = None
    folds: Ints | None = None

    def take(self, rows: NDArray[np.bool_]) -> PooledRows:
        """Return some of the rows, copied."""
        return PooledRows(
            np.ascontiguousarray(self.logs[:, :, rows]),
            self.gold[rows],
            self.negative_id,
            None if self.weights is None else self.weights[rows],
            None if self.folds is None else self.folds[rows],
        )

    def take_members(self, members: NDArray[np.intp]) -> PooledRows:
        """Return all rows with some of the members, copied."""
        return replace(self, logs=np.ascontiguousarray(self.logs[members]))

    def count_wanted(self) -> float:
        """Return how many gold rows have a positive label, weighted as the rows are."""
        wanted = self.gold != self.negative_id
        return float(wanted.sum() if self.weights is None else self.weights[wanted].sum())


def build_pooled_rows(members: Sequence[Member], gold: Ints, negative_id: int | None) -> PooledRows:
    """Lay out the members' out-of-fold probabilities as floored logs.

    Raises:
        BlendError: no member, or one that does not answer for every row.
    """
    if not members:
        raise BlendError("there is nothing to blend; train a variant first: python run.py fold")
    partial = [member.name for member in members if not member.covers_all]
    if partial:
        raise BlendError(
            f"{', '.join(partial)} do not answer for every row; a specialist blends only together"
            " with the others of its route"
        )
    n_rows, n_labels = members[0].oof.shape
    logs = np.empty((len(members), n_labels, n_rows), dtype=np.float32)
    for place, member in zip(logs, members, strict=True):
        place[:] = floored_logs(member.oof).T
    return PooledRows(logs, np.asarray(gold, dtype=np.int64), negative_id)


def floored_logs(probs: Floats) -> NDArray[np.float32]:
    """Raise probabilities to at least ``FLOOR``, renormalise, and take logs.

    Args:
        probs: (…, C).

    Returns:
        (…, C) float32.
    """
    floored = np.maximum(probs, np.float32(FLOOR), dtype=np.float32)
    floored /= floored.sum(axis=-1, keepdims=True)
    logs: NDArray[np.float32] = np.log(floored, out=floored)
    return logs


def pool(logs: Logs, weights: Weights, *, temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the pooled probabilities.

    Args:
        logs: (M, C, N) float32.
        weights: (M,) at least 0.
        temperature: above 1 flattens.

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

    The pool's normaliser is one number per row and fold, so it vanishes when the average is
    renormalised: averaging Σ w_m · log p_m over folds gives the same.

    Args:
        members: whose test predictions.
        weights: (M,) at least 0.
        temperature: above 1 flattens.

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
    """Choose how flat the pool ranks its rows best: the temperature with the highest AUPRC.

    A pool that is sure of too much ranks the rows of a label by how little the other labels have
    left; flattened, rows of middling probability part again. Goes outwards from 1 for as long as
    each next temperature gains, and stays at 1 where that gains less than ``LEAST_GAIN`` in all.

    Args:
        rows: those the weights were fitted to, weighed as they are.
        weights: (M,) at least 0.

    Returns:
        1, or one of ``FLATTER`` or ``SHARPER``.

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2, where it calibrates; here it ranks.
    """
    pooled = np.einsum("m,mcn->cn", weights.astype(np.float32), rows.logs)
    pooled -= pooled.max(axis=0)

    def measure(temperature: float) -> float:
        shares = np.exp(pooled / np.float32(temperature))
        shares /= shares.sum(axis=0)
        return auprc(rows.gold, shares.T, rows.weights)

    as_pooled = measure(1.0)
    chosen, best = 1.0, as_pooled
    for way in (FLATTER, SHARPER):
        for temperature in way:
            area = measure(temperature)
            if not area > best:
                break
            chosen, best = temperature, area
        if chosen != 1.0:
            break
    return chosen if best - as_pooled >= LEAST_GAIN else 1.0


def tune_threshold(rows: PooledRows, weights: Weights) -> tuple[float | None, float]:
    """Find the best decision threshold for some weights, exactly, and its micro-F1.

    Equals ``best_threshold(pool(logs, weights), gold, negative_id)`` without writing out the pool.
    """
    probability, is_right = decide_pool(rows, weights)
    if rows.negative_id is None:
        return None, float(np.average(is_right, weights=rows.weights))
    return sweep_threshold(probability, is_right, rows.count_wanted(), rows.weights)


def decide_pool(
    rows: PooledRows, weights: Weights
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find each row's best positive label in the pool, without writing out the pool.

    Returns:
        (N,) float32 its probability, and (N,) bool whether it is the gold label.
    """
    n_rows = rows.logs.shape[2]
    probability = np.empty(n_rows, dtype=np.float32)
    is_right = np.empty(n_rows, dtype=bool)
    for block, shares, total in _pool_blocks(rows.logs, weights):
        if rows.negative_id is not None:
            shares[rows.negative_id] = -1.0
        probability[block] = shares.max(axis=0) / total
        is_right[block] = shares.argmax(axis=0) == rows.gold[block]
    return probability, is_right


def fit_convex(rows: PooledRows) -> Weights:
    """Fit weights of at least 0 by log-loss: convex, so there is one answer and no seed.

    Returns:
        (M,) float64.

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
    """Return what ``measure_log_loss`` does and the second derivatives, (M, M) float64."""
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
    """Refuse a blend that would not fit in memory, before anything is read.

    Args:
        n_members: M.
        oof_shape: (N, C).
        test_shape: (K, T, C).

    Raises:
        BlendError: with what is needed and what there is.
    """
    oof_cells, test_cells = math.prod(oof_shape), math.prod(test_shape)
    copies = COPIES_HELD * n_members + ANSWERS_HELD
    needed = 4 * (copies * oof_cells + n_members * test_cells)
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > MEMORY_FRAC * found:
        raise BlendError(
            f"{n_members} members need about {needed / 2**30:.1f} GiB of memory and this machine"
            f" has {found / 2**30:.1f}; name fewer variants: python run.py blend VARIANT…"
        )


def _pool_blocks(
    logs: Logs, weights: Weights
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the pool block by block, unnormalised.

    Yields:
        The rows; (C, n) float32 exp of the pooled logs, at most 1 (overwritten by the next
        block); (n,) float32 their sum over labels.
    """
    _, n_labels, n_rows = logs.shape
    space = np.empty((n_labels, min(BLOCK_ROWS, n_rows)), dtype=np.float32)
    factors = np.asarray(weights, dtype=np.float32)
    for start in range(0, n_rows, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, n_rows))
        pooled = space[:, : rows.stop - start]
        # einsum sums member by member in one thread, a matrix product need not
        np.einsum("m,mcn->cn", factors, logs[:, :, rows], out=pooled)
        np.subtract(pooled, pooled.max(axis=0), out=pooled)
        np.exp(pooled, out=pooled)
        yield rows, pooled, pooled.sum(axis=0)
