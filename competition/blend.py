"""Fit a blend, say honestly what it is worth, and apply it to the test rows.

Between ``predictions`` and ``submission`` on the way of a row. ``search`` fits weights and
threshold to rows; here it is run on all out-of-fold rows for the blend itself, and once more
inside every fold for the nested estimate. ``blend_report`` runs it all for a competition.

Legend: M members, N rows, C labels, K folds, T test rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from competition.aims import Aim, Point
from competition.errors import BlendError
from competition.metrics import Ints, decide
from competition.pooling import PooledRows, pool, pool_test
from competition.predictions import Member
from competition.search import BLEND, CONVEX, SYSTEMS, Fit, SearchPlan, scale_point
from competition.shrinkage import fit_all


@dataclass(frozen=True)
class Blend:
    """What is applied to new rows: members by name, their weights, and the decision rule."""

    members: tuple[str, ...]
    weights: tuple[float, ...]
    threshold: float | None
    negative_id: int | None


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a way of weighing says about the out-of-fold rows.

    ``probs`` is (N, C) float32 and untouched by the decision, ``pred`` (N,) label ids, ``points``
    the weights and threshold behind them: one, or one per fold.
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
        single_preds: (2, M, N) label ids of each member alone, its threshold fitted and nested.
    """

    blend: Blend
    fit: Fit
    fitted: Mapping[str, Estimate]
    nested: Mapping[str, Estimate]
    single_preds: NDArray[np.int64]


def fit_blend(names: Sequence[str], rows: PooledRows, plan: SearchPlan) -> BlendFit:
    """Fit a blend to all out-of-fold rows, and estimate it by refitting inside each fold.

    Args:
        names: of the members; one is enough: then only its threshold is tuned.
        rows: the members', of ``build_pooled_rows``, with folds.
        plan: of each search; the nested estimate searches as long in every fold as the fit.

    Raises:
        BlendError: the rows have no folds.
    """
    if rows.folds is None:
        raise BlendError("a blend is estimated across folds; hand in which fold holds each row out")
    fit = fit_at_one_temperature(rows, plan)
    best = fit.points[BLEND]
    fits = fit_inside(rows, plan)
    return BlendFit(
        Blend(
            tuple(names),
            tuple(map(float, best.weights)),
            best.threshold,
            rows.negative_id,
        ),
        fit,
        {name: estimate_fitted(rows, point) for name, point in fit.points.items()},
        _join_systems(rows, fits),
        np.stack([_decide_singles(rows, {None: fit}), _decide_singles(rows, fits)]),
    )


def estimate_fitted(rows: PooledRows, point: Point) -> Estimate:
    """Answer for the very rows that a point was tuned on."""
    probs = pool(rows.logs, point.weights)
    return Estimate(probs, decide(probs, rows.negative_id, point.threshold), (point,))


def estimate_nested(rows: PooledRows, folds: Ints, plan: SearchPlan) -> dict[str, Estimate]:
    """Answer for each fold's rows with weights, threshold and choices made on the other folds.

    Everything is made anew on the other folds: members are selected and the best single variant is
    chosen there, weights are fitted and searched there, thresholds tuned there. One thing is not
    nested: the other folds' probabilities come from models that were trained on this fold's rows.
    A blend has a few numbers to fit, so that leak is small, and closing it would take K times the
    training.

    Returns:
        An estimate for each of ``search.SYSTEMS``, with one point per fold.
    """
    rows = replace(rows, folds=folds)
    return _join_systems(rows, fit_inside(rows, plan))


def fit_inside(rows: PooledRows, plan: SearchPlan) -> dict[int | None, Fit]:
    """Fit every way of weighing to the rows outside each fold."""
    assert rows.folds is not None
    return {
        int(fold): fit_at_one_temperature(rows.take(rows.folds != fold), plan)
        for fold in np.unique(rows.folds)
    }


def fit_at_one_temperature(rows: PooledRows, plan: SearchPlan) -> Fit:
    """Fit every way of weighing; a shrunk blend too gets the sum of the convex weights.

    Answers of different folds are pooled for AUPRC, so all must be as confident as each other.
    """
    fit = fit_all(rows, plan)
    if fit.shrinkage is None:
        return fit
    aim, total = Aim(rows, plan.objective), float(fit.points[CONVEX].weights.sum())
    return replace(fit, points={**fit.points, BLEND: scale_point(aim, fit.points[BLEND], total)})


def count_nested_fits(n_folds: int, *, shrink: bool) -> int:
    """Return how many searches the nested estimate makes.

    Shrinking makes one more inside each of the other folds, where there are two of them or more.

    >>> count_nested_fits(5, shrink=False), count_nested_fits(5, shrink=True)
    (5, 25)
    """
    others = n_folds - 1
    return n_folds * (1 + others if shrink and others > 1 else 1)


def _join_systems(rows: PooledRows, fits: Mapping[int | None, Fit]) -> dict[str, Estimate]:
    """Answer for each fold's rows with what was fitted outside it."""
    n_rows, n_labels = len(rows.gold), rows.logs.shape[1]
    probs = {name: np.empty((n_rows, n_labels), dtype=np.float32) for name in SYSTEMS}
    pred = {name: np.empty(n_rows, dtype=np.int64) for name in SYSTEMS}
    for fold, fit in fits.items():
        held_out = np.asarray(rows.folds == fold)
        logs = rows.take(held_out).logs
        for name, point in fit.points.items():
            answered = pool(logs, point.weights)
            probs[name][held_out] = answered
            pred[name][held_out] = decide(answered, rows.negative_id, point.threshold)
    points = {name: tuple(fit.points[name] for fit in fits.values()) for name in SYSTEMS}
    return {name: Estimate(probs[name], pred[name], points[name]) for name in SYSTEMS}


def answer_alone(rows: PooledRows, member: int) -> NDArray[np.float32]:
    """Return a member's own probabilities, floored like all that is pooled: (N, C) float32."""
    return pool(rows.logs[member : member + 1], np.ones(1))


def _decide_singles(rows: PooledRows, fits: Mapping[int | None, Fit]) -> NDArray[np.int64]:
    """Decide (M, N) label ids, each member alone; the fit under None is for all rows."""
    preds = np.empty((len(rows.logs), len(rows.gold)), dtype=np.int64)
    for member, pred in enumerate(preds):
        probs = answer_alone(rows, member)
        for fold, fit in fits.items():
            mine = np.ones(len(pred), dtype=bool) if fold is None else rows.folds == fold
            threshold = fit.singles[member].threshold
            pred[mine] = decide(probs[mine], rows.negative_id, threshold)
    return preds


def apply_blend(
    blend: Blend, members: Sequence[Member]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Answer for the test rows: blend each fold's models, average in log space, decide.

    Returns:
        (T, C) float32 probabilities, rows sum to 1, untouched by the decision; (T,) label ids.

    Raises:
        BlendError: other members than those that the blend was fitted to.
    """
    names = tuple(member.name for member in members)
    if names != blend.members:
        raise BlendError(
            f"the blend was fitted to {', '.join(blend.members)} and is applied to"
            f" {', '.join(names)}; hand in the same members in the same order"
        )
    probs = pool_test(members, np.array(blend.weights))
    return probs, decide(probs, blend.negative_id, blend.threshold)
