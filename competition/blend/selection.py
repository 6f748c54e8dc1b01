"""Which members are worth weighing, and why the others are not.

First step of the blend's fit, before ``search``: copies go, then members without which the convex
pool's log-loss on rows it was not fitted to is no higher. Made anew inside every fold of the nested
estimate, like all that is chosen.

Legend: M members, S of them selected, N rows, C labels, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from competition.blend.pooling import Logs, PooledRows, Weights, fit_convex, measure_curvature

COPY_DISTANCE = 0.02  # mean total variation distance below which two members are one
COPY_CORRELATION = 0.999  # or of their centred logs: a copy at another temperature
SAMPLED_ROWS = 4096  # enough to tell copies from siblings
NO_GAIN = 1e-7  # log-loss per row that rounding may make
RIDGE = 1e-6  # least curvature over the greatest: what float32 sums can tell from none


@dataclass(frozen=True, slots=True)
class Dropped:
    """A member that is not weighed.

    Attributes:
        member: its place.
        reason: ``copy`` of member ``of``, or ``no gain``.
        of: whose copy it is, else None.
        gain: how much lower the cross-fitted log-loss is without it; None for a copy.
    """

    member: int
    reason: Literal["copy", "no gain"]
    of: int | None = None
    gain: float | None = None


@dataclass(frozen=True, eq=False)
class Selection:
    """What is weighed, (S,) places in order; ``convex`` is (M,) float64, 0 where dropped."""

    kept: NDArray[np.intp]
    dropped: tuple[Dropped, ...]
    convex: Weights


@dataclass(frozen=True, eq=False)
class _Model:
    """A log-loss near ``centre`` (S,), to second order, summed over the rows it was taken from."""

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
        """Return the weights of at least 0, and 0 where not used, with the lowest loss."""
        from scipy.optimize import nnls

        used = np.flatnonzero(is_used)
        bends, axes = np.linalg.eigh(self.curvature[np.ix_(used, used)])
        roots = np.sqrt(np.maximum(bends, RIDGE * max(float(bends.max()), 1e-12)))
        wanted = (self.curvature @ self.centre - self.gradient)[used]
        weights = np.zeros(len(is_used))
        weights[used] = nnls(roots[:, None] * axes.T, (axes.T @ wanted) / roots)[0]
        return weights


def select_members(rows: PooledRows) -> Selection:
    """Choose the members worth weighing by the log-loss of rows that were not fitted to.

    Backwards: as long as the convex pool, fitted to all folds but one and measured on that one, is
    no worse without a member, the one whose absence helps most goes. The fits without one fold or
    member are taken from the second-order model of the loss around the fit to all rows, which is
    made anew whenever one has gone: exact enough where a member may go, and as fast as one fit.

    Args:
        rows: with ``folds``; without, or with fewer than two, only copies go.

    Returns:
        At least one member is kept.
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
    """Find members that say what an earlier one says, to the last bit or nearly so.

    Args:
        logs: (M, C, N) of floored probabilities.
    """
    step = max(1, logs.shape[2] // SAMPLED_ROWS)
    sample = np.ascontiguousarray(logs[:, :, ::step])
    found: list[Dropped] = []
    originals: list[int] = []
    for member in range(len(sample)):
        alike = (one for one in originals if are_copies(sample[one], sample[member]))
        original = next(alike, None)
        if original is None:
            originals.append(member)
        else:
            found.append(Dropped(member, "copy", of=original))
    return found


def are_copies(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Say whether two members' floored logs, (C, n) both, are the same but for noise or a power."""
    distance = 0.5 * np.abs(np.exp(first) - np.exp(second)).sum(axis=0, dtype=np.float64).mean()
    if distance < COPY_DISTANCE:
        return True
    a, b = (each - each.mean(axis=0) for each in (first, second))
    size = float(np.sqrt((a * a).sum(dtype=np.float64) * (b * b).sum(dtype=np.float64)))
    return size > 0 and float((a * b).sum(dtype=np.float64)) > COPY_CORRELATION * size


def _find_weakest(rows: PooledRows, convex: Weights) -> tuple[int | None, float]:
    """Return the member without which the cross-fitted loss is lowest, if it is no higher so."""
    models = _model_folds(rows, convex)
    n_members = len(convex)
    if n_members == 1 or len(models) < 2:
        return None, 0.0
    everyone = np.ones(n_members, dtype=bool)
    whole = _cross_fitted_loss(models, everyone)
    without = [_cross_fitted_loss(models, ~one) for one in np.eye(n_members, dtype=bool)]
    weakest = int(np.argmin(without))
    gain = (whole - without[weakest]) / len(rows.gold)
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
    """Sum over folds the loss of what the other folds' fit, with only some members used."""
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
