"""Find blend weights and the decision threshold that decide best: simple ways, then a search.

Second half of the blend's fit, over the pooled rows of ``pooling``. Every set of weights, whoever
proposes it, gets the threshold that is best for it on the same rows, found exactly; so ways of
weighing are compared under one decision rule, and the search needs no dimension for it.

Legend: M members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from competition.metrics import auprc
from competition.pooling import PooledRows, Weights, fit_convex, pool, tune_threshold

if TYPE_CHECKING:
    import optuna

BEST_SINGLE, UNIFORM, CONVEX, GREEDY, BLEND = "best single", "uniform", "convex", "greedy", "blend"
SYSTEMS = (BEST_SINGLE, UNIFORM, CONVEX, GREEDY, BLEND)

GREEDY_PICKS = 20
GREEDY_PATIENCE = 4  # picks without a gain before greedy selection stops
PENALTY = 0.005  # micro-F1 given up per relative L1 distance from the convex weights, in the search
ROOM_ABOVE = 1.25  # the search's upper bound on a weight, over the greatest weight it starts from


@dataclass(frozen=True)
class SearchPlan:
    """How long to search, from which seed, and what to call after each trial."""

    trials: int
    seed: int
    on_trial: Callable[[], None] | None = None


@dataclass(frozen=True, eq=False)
class Point:
    """Weights with the threshold that is best for them, and the micro-F1 this gives.

    ``weights`` is (M,) float64, at least 0; ``threshold`` is None without a negative label.
    """

    weights: Weights
    threshold: float | None
    f1: float


def tune_point(rows: PooledRows, weights: Weights) -> Point:
    """Give weights their best threshold and score them."""
    threshold, f1 = tune_threshold(rows, weights)
    return Point(weights, threshold, f1)


def fit_points(rows: PooledRows, plan: SearchPlan) -> dict[str, Point]:
    """Fit every way of weighing the members; all see the same rows only.

    Args:
        rows: what is fitted on.
        plan: of the search; without trials the blend is the best of the simple ways.

    Returns:
        One point for each of ``SYSTEMS``. The blend is the best point of all on these rows, never
        below another one.
    """
    n_members = len(rows.logs)
    singles = [tune_point(rows, weights) for weights in np.eye(n_members)]
    points = {
        BEST_SINGLE: _best(singles),
        UNIFORM: tune_point(rows, np.full(n_members, 1.0 / n_members)),
        CONVEX: tune_point(rows, fit_convex(rows)),
        GREEDY: select_greedily(rows, singles),
    }
    # of equal scores the first named here wins: the fitted pool before what needs a search
    starts = [points[CONVEX], points[GREEDY], points[UNIFORM], *singles]
    if n_members == 1:
        return points | {BLEND: _best(starts)}
    found = search_weights(rows, starts, plan)
    return points | {BLEND: drop_members(rows, _best([*starts, found]))}


def select_greedily(rows: PooledRows, singles: Sequence[Point]) -> Point:
    """Pick members one by one, with replacement, each time the one that helps micro-F1 most.

    Args:
        rows: what is fitted on.
        singles: each member's own point, in order.

    Returns:
        The best point on the way; its weights are shares of picks.

    Source: Caruana et al. 2004, "Ensemble selection from libraries of models", sections 2.1, 2.2;
    on the pooled logs, and with the threshold tuned at every step.
    """
    best = _best(singles)
    picks = best.weights.copy()
    best_size = 1
    for size in range(2, GREEDY_PICKS + 1):
        tried = [tune_point(rows, (picks + one) / size) for one in np.eye(len(picks))]
        step = _best(tried)
        picks = step.weights * size
        if step.f1 > best.f1:
            best, best_size = step, size
        if size - best_size >= GREEDY_PATIENCE:
            break
    return best


def search_weights(rows: PooledRows, starts: Sequence[Point], plan: SearchPlan) -> Point:
    """Search weights for the highest micro-F1 with Optuna, from given starting points.

    Each trial proposes linear weights in [0, w_max] and takes the threshold that is best for them:
    proposed as one more dimension, the threshold left most trials at a bad one, and 300 trials
    found less than a third of the gain. A penalty on the distance from the first start (the convex
    weights) guides the search; what is returned is the best unpenalised point that was tried.

    Only the weights' direction is searched, their sum is the convex weights': micro-F1 hardly feels
    the sum, which is the pool's temperature, and a stray one makes probabilities of different folds
    incomparable (on the bundled demo it cost 5 AUPRC, nested).

    Args:
        rows: what is fitted on.
        starts: enqueued first; the first of them is what the penalty pulls towards.
        plan: trials, starts included, and the sampler's seed.

    Returns:
        The best point tried.
    """
    import optuna

    n_members = len(rows.logs)
    names = [f"w{member}" for member in range(n_members)]
    top = ROOM_ABOVE * max(float(start.weights.max()) for start in starts)
    anchor = starts[0].weights
    scale = max(float(anchor.sum()), 1e-9)
    tried = [_best(starts)]

    def measure(trial: optuna.Trial) -> float:
        proposed = np.array([trial.suggest_float(name, 0.0, top) for name in names])
        weights = proposed * (scale / max(float(proposed.sum()), 1e-9))
        point = tune_point(rows, weights)
        tried[0] = _best([tried[0], point])
        if plan.on_trial is not None:
            plan.on_trial()
        return point.f1 - PENALTY * float(np.abs(weights - anchor).sum()) / scale

    with _quiet_optuna():
        sampler = optuna.samplers.TPESampler(seed=plan.seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for start in starts:
            study.enqueue_trial(dict(zip(names, map(float, start.weights), strict=True)))
        study.optimize(measure, n_trials=plan.trials, n_jobs=1)
    return tried[0]


def drop_members(rows: PooledRows, point: Point) -> Point:
    """Set weights to 0 while neither micro-F1 nor AUPRC is lower without them, smallest first."""
    area = auprc(rows.gold, pool(rows.logs, point.weights))
    for member in np.argsort(point.weights, kind="stable"):
        if point.weights[member] == 0 or (point.weights > 0).sum() == 1:
            continue
        weights = point.weights.copy()
        weights[member] = 0.0
        without = tune_point(rows, weights)
        if without.f1 < point.f1:
            continue
        area_without = auprc(rows.gold, pool(rows.logs, weights))
        if area_without >= area:
            point, area = without, area_without
    return point


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from printing a line per trial, and leave its logging as it was."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _best(points: Sequence[Point]) -> Point:
    """Return the point with the highest micro-F1, the first of equals."""
    return max(points, key=lambda point: point.f1)
