"""Backward selection of blend members by cross-validated log-loss.

First step of the blend's fit, before ``search``. It drops copies, then members without which the
cross-validated log-loss of the convex pool is no higher. Like every choice, it is repeated inside
each fold of the nested estimate.

Legend: M members, S of them selected, N rows, C labels, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from competition.blend.pooling import Logs, PooledRows, Weights, fit_convex, measure_curvature

COPY_DISTANCE = 0.02  # mean total variation distance below which two members are copies
COPY_CORRELATION = 0.999  # of centred logs, above it too: a copy at another temperature
SAMPLED_ROWS = 4096  # enough to distinguish copies from similar members
NO_GAIN = 1e-7  # difference in log-loss per row that may be rounding error
RIDGE = 1e-6  # smallest over largest eigenvalue: below it float32 sums are noise


@dataclass(frozen=True, slots=True)
class Dropped:
    """A member excluded from the blend.

    Attributes:
        member: its index.
        reason: ``copy`` of member ``of``, or ``no gain``.
        of: index of the member it copies, else None.
        gain: how much lower the cross-fitted log-loss is without it; None for a copy.
    """

    member: int
    reason: Literal["copy", "no gain"]
    of: int | None = None
    gain: float | None = None


@dataclass(frozen=True, eq=False)
class Selection:
    """Selected members, (S,) ascending indices; ``convex`` weights (M,) float64, 0 if dropped."""

    kept: NDArray[np.intp]
    dropped: tuple[Dropped, ...]
    convex: Weights


@dataclass(frozen=True, eq=False)
class _Model:
    """Second-order model of the log-loss summed over some rows, around ``centre`` (S,)."""

    centre: Weights
    loss: float
    gradient: Weights
    curvature: NDArray[np.float64]

    def __add__(self, other: _Model) -> _Model:
        return _Model(
            self.centre,
            self.loss + other.loss,
            self.gradient + other.gradient,
            self.curvature + other.curvature,
        )

    def at(self, weights: Weights) -> float:
        step = weights - self.centre
        return float(self.loss + self.gradient @ step + 0.5 * step @ self.curvature @ step)

    def minimise(self, is_used: NDArray[np.bool_]) -> Weights:
        """Return the non-negative weights with the lowest loss, 0 for unused members."""
        from scipy.optimize import nnls

        used = np.flatnonzero(is_used)
        values, axes = np.linalg.eigh(self.curvature[np.ix_(used, used)])
        roots = np.sqrt(np.maximum(values, RIDGE * max(float(values.max()), 1e-12)))
        target = (self.curvature @ self.centre - self.gradient)[used]
        weights = np.zeros(len(is_used))
        weights[used] = nnls(roots[:, None] * axes.T, (axes.T @ target) / roots)[0]
        return weights


def select_members(rows: PooledRows) -> Selection:
    """Select members by backward elimination on the cross-validated log-loss.

    As long as the convex pool, fitted to all folds but one and evaluated on that one, is no worse
    without some member, the member whose removal helps most is dropped. Fits without a fold or a
    member come from a second-order model of the loss around the fit to all rows, which is updated
    after each removal: accurate enough near the decision, and as fast as a single fit.

    Args:
        rows: with ``folds``; without folds, or with fewer than two, only copies are dropped.

    Returns:
        The selection, with at least one member.
    """
    n_members = len(rows.logs)
    dropped = find_copies(rows.logs)
    kept = np.setdiff1d(np.arange(n_members), [each.member for each in dropped])
    while True:
        part = rows if len(kept) == n_members else rows.take_members(kept)
        convex = fit_convex(part)
        worst, gain = _find_weakest(part, convex)
        if worst is None:
            weights = np.zeros(n_members)
            weights[kept] = convex
            return Selection(kept, tuple(dropped), weights)
        dropped.append(Dropped(int(kept[worst]), "no gain", gain=gain))
        kept = np.delete(kept, worst)


def find_copies(logs: Logs) -> list[Dropped]:
    """Return members whose predictions are the same as an earlier member's, up to noise."""
    step = max(1, logs.shape[2] // SAMPLED_ROWS)
    sample = np.ascontiguousarray(logs[:, :, ::step])
    found: list[Dropped] = []
    originals: list[int] = []
    for member in range(len(sample)):
        copied = (one for one in originals if are_copies(sample[one], sample[member]))
        original = next(copied, None)
        if original is None:
            originals.append(member)
        else:
            found.append(Dropped(member, "copy", of=original))
    return found


def are_copies(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Return whether two members' (C, n) logs agree up to noise or a temperature."""
    distance = 0.5 * np.abs(np.exp(first) - np.exp(second)).sum(axis=0, dtype=np.float64).mean()
    if distance < COPY_DISTANCE:
        return True
    a, b = (each - each.mean(axis=0) for each in (first, second))
    size = float(np.sqrt((a * a).sum(dtype=np.float64) * (b * b).sum(dtype=np.float64)))
    return size > 0 and float((a * b).sum(dtype=np.float64)) > COPY_CORRELATION * size


def _find_weakest(rows: PooledRows, convex: Weights) -> tuple[int | None, float]:
    """Return the member whose removal lowers the cross-fitted loss most, or None if none does."""
    models = _model_folds(rows, convex)
    n_members = len(convex)
    if n_members == 1 or len(models) < 2:
        return None, 0.0
    with_all = _cross_fitted_loss(models, np.ones(n_members, dtype=bool))
    without = [_cross_fitted_loss(models, ~one) for one in np.eye(n_members, dtype=bool)]
    weakest = int(np.argmin(without))
    gain = (with_all - without[weakest]) / len(rows.gold)
    return (weakest, max(0.0, gain)) if gain >= -NO_GAIN else (None, 0.0)


def _model_folds(rows: PooledRows, convex: Weights) -> list[_Model]:
    if rows.folds is None:
        return []
    models = []
    for fold in np.unique(rows.folds):
        part = rows.take(rows.folds == fold)
        loss, gradient, curvature = measure_curvature(part, convex)
        size = len(part.gold)
        models.append(_Model(convex, size * loss, size * gradient, size * curvature))
    return models


def _cross_fitted_loss(models: Sequence[_Model], is_used: NDArray[np.bool_]) -> float:
    """Return the loss summed over folds, each under the fit to the others with some members."""
    total = models[0]
    for model in models[1:]:
        total = total + model
    loss = 0.0
    for model in models:
        others = _Model(
            model.centre,
            total.loss - model.loss,
            total.gradient - model.gradient,
            total.curvature - model.curvature,
        )
        loss += model.at(others.minimise(is_used))
    return loss
