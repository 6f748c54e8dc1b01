"""Pull the searched weights back towards the convex ones, as far as rows not fitted to ask for.

Around ``search`` on the way of a row, when ``blend --shrink`` asks for it. The search fits the
noise of its rows a little; how much of its way from the convex weights is worth keeping is chosen
across folds, and inside every fold of the nested estimate anew.

Legend: M members, N rows, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from competition.blend.objective import Aim
from competition.blend.pooling import PooledRows, Weights, pool
from competition.blend.search import BLEND, CONVEX, Fit, SearchPlan, fit_points
from competition.scoring.metrics import auprc, decide, micro_f1

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way back to the convex weights


def fit_all(rows: PooledRows, plan: SearchPlan) -> Fit:
    """Fit every way of weighing, and shrink the blend where the plan says so.

    A shrunk blend is no longer the best point on the rows it was fitted to; that is its purpose.
    """
    fit = fit_points(rows, plan)
    if not plan.shrink or rows.folds is None or len(np.unique(rows.folds)) < 2:
        return fit
    inside = {
        int(fold): fit_points(rows.take(rows.folds != fold), plan) for fold in np.unique(rows.folds)
    }
    scores = [_score_outside(rows, inside, plan, share) for share in SHARES]
    share = SHARES[int(np.argmax(scores))]
    blend = Aim(rows, plan.objective).measure(mix_weights(fit, share))
    return replace(fit, points={**fit.points, BLEND: blend}, shrinkage=share)


def mix_weights(fit: Fit, share: float) -> Weights:
    """Return (M,) weights a share of the way from the blend's to the convex ones, of its sum."""
    blend, convex = fit.points[BLEND].weights, fit.points[CONVEX].weights
    scale = float(blend.sum()) / max(float(convex.sum()), 1e-9)
    return (1.0 - share) * blend + share * scale * convex


def _score_outside(
    rows: PooledRows, inside: Mapping[int, Fit], plan: SearchPlan, share: float
) -> float:
    """Score a share on the rows of each fold, with weights and threshold from the others."""
    pred = np.empty(len(rows.gold), dtype=np.int64)
    probs = np.empty((len(rows.gold), rows.logs.shape[1]), dtype=np.float32)
    for fold, fit in inside.items():
        held_out = np.asarray(rows.folds == fold)
        weights = mix_weights(fit, share)
        point = Aim(rows.take(~held_out)).measure(weights)
        probs[held_out] = pool(rows.take(held_out).logs, weights)
        pred[held_out] = decide(probs[held_out], rows.negative_id, point.threshold)
    if plan.objective == "auprc":
        return auprc(rows.gold, probs, rows.weights)
    return micro_f1(rows.gold, pred, rows.negative_id, rows.weights)
