"""Fit a blend, say honestly what it is worth, and apply it to the test rows.

Between ``predictions`` and ``submission`` on the way of a row. ``search`` fits weights and
threshold to rows, then the temperature is chosen at which the pool ranks them best; here that is
done on all out-of-fold rows for the blend itself, and once more inside every fold for the nested
estimate. Labels are decided in the pool as fitted, so no temperature moves them.

Legend: M members, N rows, C labels, K folds, T test rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Ints
from competition.blend.objective import Point
from competition.blend.pooling import (
    Logs,
    PooledRows,
    Weights,
    choose_temperature,
    pool,
    pool_test,
)
from competition.blend.search import (
    BLEND,
    SYSTEMS,
    Fit,
    SearchPlan,
    fit_points,
)
from competition.errors import BlendError
from competition.predictions.members import Member
from competition.scoring.metrics import decide

MAX_WORKERS = 4  # each holds three times N × C cells of its own


@dataclass(frozen=True)
class Blend:
    """What is applied to new rows: members by name, their weights, and the decision rule.

    ``temperature`` flattens the probabilities that are handed on, after labels are decided.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    threshold: float | None
    negative_id: int | None
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a way of weighing says about the out-of-fold rows.

    ``probs`` is (N, C) float32, flattened to rank the rows and untouched by the decision; ``pred``
    (N,) label ids, decided before; ``points`` what is behind them: one, or one per fold.
    """

    probs: NDArray[np.float32]
    pred: NDArray[np.int64]
    points: tuple[Point, ...]


@dataclass(frozen=True, eq=False)
class BlendFit:
    """A blend with what it is compared to.

    Attributes:
        fit: to all rows: every way of weighing, the selection, the front.
        fitted: an estimate for each of ``search.SYSTEMS``, tuned on the rows it answers for.
        nested: likewise, tuned on the other folds' rows.
        inside: the fits behind ``nested``, by the fold they did not see; for ``estimate_single``.
    """

    blend: Blend
    fit: Fit
    fitted: Mapping[str, Estimate]
    nested: Mapping[str, Estimate]
    inside: Mapping[int | None, Fit]


def fit_blend(names: Sequence[str], rows: PooledRows, plan: SearchPlan) -> BlendFit:
    """Fit a blend to all out-of-fold rows, and estimate it by refitting inside each fold.

    Args:
        names: of the members; one is enough: then only its threshold and temperature are tuned.
        rows: the members', of ``build_pooled_rows``, with folds.
        plan: of each search; the nested estimate searches as long in every fold as the fit.

    Raises:
        BlendError: the rows have no folds.
    """
    if rows.folds is None:
        raise BlendError("a blend is estimated across folds; hand in which fold holds each row out")
    fit = fit_settled(rows, plan)
    best = fit.points[BLEND]
    fits = fit_inside(rows, plan)
    return BlendFit(
        Blend(
            tuple(names),
            tuple(map(float, best.weights)),
            best.threshold,
            rows.negative_id,
            best.temperature,
        ),
        fit,
        {name: estimate_fitted(rows, point) for name, point in fit.points.items()},
        _join_systems(rows, fits),
        fits,
    )


def estimate_fitted(rows: PooledRows, point: Point) -> Estimate:
    """Answer for the very rows that a point was tuned on."""
    return Estimate(*_answer(rows.logs, point, rows.negative_id), (point,))


def estimate_nested(rows: PooledRows, folds: Ints, plan: SearchPlan) -> dict[str, Estimate]:
    """Answer for each fold's rows with weights, threshold and choices made on the other folds.

    Everything is made anew on the other folds: members are selected and the best single variant is
    chosen there, weights are fitted and searched there, thresholds and temperatures tuned there.
    One thing is not nested: the other folds' probabilities come from models that were trained on
    this fold's rows. A blend has a few numbers to fit, so that leak is small, and closing it would
    take K times the training.

    Returns:
        An estimate for each of ``search.SYSTEMS``, with one point per fold.
    """
    rows = replace(rows, folds=folds)
    return _join_systems(rows, fit_inside(rows, plan))


def fit_inside(rows: PooledRows, plan: SearchPlan) -> dict[int | None, Fit]:
    """Fit every way of weighing to the rows outside each fold."""
    assert rows.folds is not None
    return {
        int(fold): fit_settled(rows.take(rows.folds != fold), plan)
        for fold in np.unique(rows.folds)
    }


def fit_settled(rows: PooledRows, plan: SearchPlan) -> Fit:
    """Fit every way of weighing; then choose for each, and for each member, its temperature.

    Answers of different folds are pooled for AUPRC, so temperatures come from a few values. They
    are chosen in parallel; each alone would choose the same.
    """
    fit = fit_points(rows, plan)
    points = [*fit.points.values(), *fit.singles]
    with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as workers:
        distinct = {point.weights.tobytes(): point.weights for point in points}
        found = workers.map(lambda weights: choose_temperature(rows, weights), distinct.values())
        chosen = dict(zip(distinct, found, strict=True))

    def settle(point: Point) -> Point:
        return replace(point, temperature=chosen[point.weights.tobytes()])

    settled = {name: settle(point) for name, point in fit.points.items()}
    return replace(fit, points=settled, singles=tuple(map(settle, fit.singles)))


def estimate_single(rows: PooledRows, member: int, fits: Mapping[int | None, Fit]) -> Estimate:
    """Answer with one member alone, as what was fitted outside each fold says.

    Args:
        rows: all of them, with folds.
        member: its place.
        fits: by the fold whose rows they answer for; the fit under None answers for all rows.
    """
    # only its own logs are pooled, which gives the same and takes an Mth of the time
    own = replace(rows, logs=rows.logs[member : member + 1])
    points = {fold: replace(fit.singles[member], weights=np.ones(1)) for fold, fit in fits.items()}
    return _join(own, points)


def _join_systems(rows: PooledRows, fits: Mapping[int | None, Fit]) -> dict[str, Estimate]:
    """Answer for each fold's rows with what was fitted outside it."""
    return {
        name: _join(rows, {fold: fit.points[name] for fold, fit in fits.items()})
        for name in SYSTEMS
    }


def _join(rows: PooledRows, points: Mapping[int | None, Point]) -> Estimate:
    """Answer for each fold's rows with its point; the point under None answers for all rows."""
    n_rows, n_labels = len(rows.gold), rows.logs.shape[1]
    probs = np.empty((n_rows, n_labels), dtype=np.float32)
    pred = np.empty(n_rows, dtype=np.int64)
    for fold, point in points.items():
        mine = np.ones(n_rows, dtype=bool) if fold is None else np.asarray(rows.folds == fold)
        logs = rows.logs if fold is None else rows.take(mine).logs
        probs[mine], pred[mine] = _answer(logs, point, rows.negative_id)
    return Estimate(probs, pred, tuple(points.values()))


def _answer(
    logs: Logs, point: Point, negative_id: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Decide labels in the pool as it is, then flatten it: (N, C) float32 and (N,) label ids."""
    probs = pool(logs, point.weights)
    pred = decide(probs, negative_id, point.threshold)
    if point.temperature != 1.0:
        probs = pool(logs, point.weights, temperature=point.temperature)
    return probs, pred


def apply_blend(
    blend: Blend, members: Sequence[Member]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Answer for the test rows: blend each fold's models, average in log space, decide.

    Returns:
        (T, C) float32 probabilities, rows sum to 1, flattened; (T,) label ids, decided before.

    Raises:
        BlendError: other members than those that the blend was fitted to.
    """
    names = tuple(member.name for member in members)
    if names != blend.members:
        raise BlendError(
            f"the blend was fitted to {', '.join(blend.members)} and is applied to"
            f" {', '.join(names)}; hand in the same members in the same order"
        )
    weights: Weights = np.array(blend.weights)
    decided = pool_test(members, weights)
    pred = decide(decided, blend.negative_id, blend.threshold)
    return pool_test(members, weights, temperature=blend.temperature), pred
