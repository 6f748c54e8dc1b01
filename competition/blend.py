"""Fit a blend, say honestly what it is worth, and apply it to the test rows.

Between ``predictions`` and ``submission`` on the way of a row. ``search`` fits weights and
threshold to rows; here it is run on all out-of-fold rows for the blend itself, and once more
inside every fold for the nested estimate. ``blend_report`` runs it all for a competition.

Legend: M members, N rows, C labels, K folds, T test rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.errors import BlendError
from competition.metrics import Ints, decide
from competition.pooling import PooledRows, build_pooled_rows, pool, pool_test
from competition.predictions import Member
from competition.search import BLEND, SYSTEMS, Point, SearchPlan, fit_points


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

    ``fitted`` and ``nested`` hold one entry for each of ``search.SYSTEMS``; fitted ones were tuned
    on the rows they answer for, nested ones were not.
    """

    blend: Blend
    fitted: Mapping[str, Estimate]
    nested: Mapping[str, Estimate]


def fit_blend(
    members: Sequence[Member],
    gold: Ints,
    folds: Ints,
    negative_id: int | None,
    plan: SearchPlan,
) -> BlendFit:
    """Fit a blend to all out-of-fold rows, and estimate it by refitting inside each fold.

    Args:
        members: one is enough: then only its threshold is tuned.
        gold: (N,) label ids in the order of the members' rows.
        folds: (N,) the fold that holds each row out.
        negative_id: the label the decision rule falls back on, or None.
        plan: of each search; the nested estimate searches as long in every fold as the fit.

    Raises:
        BlendError: members that cannot be blended.
    """
    rows = build_pooled_rows(members, gold, negative_id)
    points = fit_points(rows, plan)
    best = points[BLEND]
    return BlendFit(
        Blend(
            tuple(member.name for member in members),
            tuple(map(float, best.weights)),
            best.threshold,
            negative_id,
        ),
        {name: estimate_fitted(rows, point) for name, point in points.items()},
        estimate_nested(rows, folds, plan),
    )


def estimate_fitted(rows: PooledRows, point: Point) -> Estimate:
    """Answer for the very rows that a point was tuned on."""
    probs = pool(rows.logs, point.weights)
    return Estimate(probs, decide(probs, rows.negative_id, point.threshold), (point,))


def estimate_nested(rows: PooledRows, folds: Ints, plan: SearchPlan) -> dict[str, Estimate]:
    """Answer for each fold's rows with weights, threshold and choices made on the other folds.

    Everything is made anew on the other folds: the best single variant is chosen there, weights
    are fitted and searched there, thresholds tuned there. One thing is not nested: the other
    folds' probabilities come from models that were trained on this fold's rows. A blend has a few
    numbers to fit, so that leak is small, and closing it would take K times the training.

    Returns:
        An estimate for each of ``search.SYSTEMS``, with one point per fold.
    """
    n_rows, n_labels = len(rows.gold), rows.logs.shape[1]
    probs = {name: np.empty((n_rows, n_labels), dtype=np.float32) for name in SYSTEMS}
    pred = {name: np.empty(n_rows, dtype=np.int64) for name in SYSTEMS}
    points: dict[str, list[Point]] = {name: [] for name in SYSTEMS}
    for fold in np.unique(folds):
        held_out = folds == fold
        found = fit_points(rows.take(~held_out), plan)
        logs = rows.take(held_out).logs
        for name, point in found.items():
            answered = pool(logs, point.weights)
            probs[name][held_out] = answered
            pred[name][held_out] = decide(answered, rows.negative_id, point.threshold)
            points[name].append(point)
    return {name: Estimate(probs[name], pred[name], tuple(points[name])) for name in SYSTEMS}


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
