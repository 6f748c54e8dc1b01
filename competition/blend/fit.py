"""Fit the blend, estimate its score by nested cross-validation, and apply it to the test rows.

``search`` fits weights and decision rule; then the temperature is chosen at which probabilities
score best. This is done on all out-of-fold rows for the blend itself, and again inside each fold
for the nested estimate. Labels are decided from the pool as fitted, so the temperature does not
change them.

Legend: M members, N rows, C labels, K folds, T test rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from competition.scoring.decisions import Negatives, Rule, decide
from competition.threads import map_in_threads


@dataclass(frozen=True)
class Blend:
    """A fitted blend: member names, weights, and the decision rule.

    ``temperature`` flattens the returned probabilities after labels are decided.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    rule: Rule
    negative_ids: Negatives
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Estimate:
    """Out-of-fold predictions of an ensemble.

    ``probs`` is (N, C) float32 at the chosen temperature; ``pred`` is (N,) label ids, decided
    before flattening; ``points`` holds the fitted point, or one per fold.
    """

    probs: NDArray[np.float32]
    pred: NDArray[np.int64]
    points: tuple[Point, ...]


@dataclass(frozen=True, eq=False)
class BlendFit:
    """A blend with its comparators.

    Attributes:
        fit: all ensembles, the selection and the Pareto front, fitted to all rows.
        fitted: predictions of each of ``search.SYSTEMS``, tuned on the same rows (optimistic).
        nested: predictions of each, tuned on the other folds.
        inside: the fits behind ``nested``, by held-out fold; for ``estimate_single``.
    """

    blend: Blend
    fit: Fit
    fitted: Mapping[str, Estimate]
    nested: Mapping[str, Estimate]
    inside: Mapping[int | None, Fit]


def fit_blend(names: Sequence[str], rows: PooledRows, plan: SearchPlan) -> BlendFit:
    """Fit a blend to all out-of-fold rows and compute its nested estimate.

    Args:
        names: of the members; with a single member only decision rule and temperature are tuned.
        plan: of each search; the nested estimate runs as many trials in each fold as the fit.

    Raises:
        BlendError: the rows have no folds.
    """
    if rows.folds is None:
        raise BlendError("a blend is estimated across folds; pass the fold that holds each row out")
    fit = fit_with_temperatures(rows, plan)
    best = fit.points[BLEND]
    fits = fit_inside(rows, plan)
    return BlendFit(
        Blend(
            tuple(names),
            tuple(map(float, best.weights)),
            best.rule,
            rows.criteria.negative_ids,
            best.temperature,
        ),
        fit,
        {name: _join(rows, {None: point}) for name, point in fit.points.items()},
        _join_systems(rows, fits),
        fits,
    )


def estimate_nested(rows: PooledRows, folds: Ints, plan: SearchPlan) -> dict[str, Estimate]:
    """Predict each fold's rows with everything fitted and selected on the other folds.

    The whole procedure is repeated on the other folds: selecting members and the best single
    variant, fitting and searching weights, tuning thresholds and temperatures. One thing is not
    nested: the other folds' probabilities come from models trained on this fold's rows. A blend
    fits only a few parameters, so this leak is small; avoiding it would take K times the training.

    Returns:
        Predictions of each of ``search.SYSTEMS``, with one point per fold.
    """
    rows = replace(rows, folds=folds)
    return _join_systems(rows, fit_inside(rows, plan))


def fit_inside(rows: PooledRows, plan: SearchPlan) -> dict[int | None, Fit]:
    """Fit all ensembles to the rows outside each fold."""
    assert rows.folds is not None
    return {
        int(fold): fit_with_temperatures(rows.take(rows.folds != fold), plan)
        for fold in np.unique(rows.folds)
    }


def fit_with_temperatures(rows: PooledRows, plan: SearchPlan) -> Fit:
    """Fit all ensembles; then choose a temperature for each of them and for each member.

    Probabilities are ranked on the pooled rows of all folds, so temperatures come from a coarse
    grid. They are chosen in parallel, independently of each other.
    """
    fit = fit_points(rows, plan)
    points = [*fit.points.values(), *fit.singles]
    distinct = {point.weights.tobytes(): point.weights for point in points}
    found = map_in_threads(lambda weights: choose_temperature(rows, weights), distinct.values())
    chosen = dict(zip(distinct, found, strict=True))

    def with_temperature(point: Point) -> Point:
        return replace(point, temperature=chosen[point.weights.tobytes()])

    chosen_points = {name: with_temperature(point) for name, point in fit.points.items()}
    return replace(fit, points=chosen_points, singles=tuple(map(with_temperature, fit.singles)))


def estimate_single(rows: PooledRows, member: int, fits: Mapping[int | None, Fit]) -> Estimate:
    """Predict with a single member, with threshold and temperature from the given fits.

    Args:
        fits: by the fold whose rows they predict; the fit under None predicts all rows.
    """
    # pooling only its own logs gives the same result in a fraction 1/M of the time
    own = replace(rows, logs=rows.logs[member : member + 1])
    points = {fold: replace(fit.singles[member], weights=np.ones(1)) for fold, fit in fits.items()}
    return _join(own, points)


def _join_systems(rows: PooledRows, fits: Mapping[int | None, Fit]) -> dict[str, Estimate]:
    """Predict each fold's rows with the ensembles fitted outside it."""
    return {
        name: _join(rows, {fold: fit.points[name] for fold, fit in fits.items()})
        for name in SYSTEMS
    }


def _join(rows: PooledRows, points: Mapping[int | None, Point]) -> Estimate:
    """Predict each fold's rows with its point; the point under None predicts all rows."""
    n_rows, n_labels = len(rows.gold), rows.logs.shape[1]
    probs = np.empty((n_rows, n_labels), dtype=np.float32)
    pred = np.empty(n_rows, dtype=np.int64)
    for fold, point in points.items():
        is_own = np.ones(n_rows, dtype=bool) if fold is None else np.asarray(rows.folds == fold)
        logs = rows.logs if fold is None else rows.take(is_own).logs
        probs[is_own], pred[is_own] = predict_pool(logs, point, rows.criteria.negative_ids)
    return Estimate(probs, pred, tuple(points.values()))


def predict_pool(
    logs: Logs, point: Point, negative_ids: Negatives
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Decide labels from the pool, then flatten it: (N, C) float32 and (N,) label ids."""
    probs = pool(logs, point.weights)
    pred = decide(probs, negative_ids, point.rule)
    if point.temperature != 1.0:
        probs = pool(logs, point.weights, temperature=point.temperature)
    return probs, pred


def apply_blend(
    blend: Blend, members: Sequence[Member]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Predict the test rows: blend each fold's models, average in log space, decide.

    Returns:
        (T, C) float32 probabilities, flattened, rows sum to 1; (T,) label ids.

    Raises:
        BlendError: the members are not those that the blend was fitted to.
    """
    names = tuple(member.name for member in members)
    if names != blend.members:
        raise BlendError(
            f"the blend was fitted to {', '.join(blend.members)} but is applied to"
            f" {', '.join(names)}; pass the same members in the same order"
        )
    weights: Weights = np.array(blend.weights)
    decided = pool_test(members, weights)
    pred = decide(decided, blend.negative_ids, blend.rule)
    return pool_test(members, weights, temperature=blend.temperature), pred
