"""Optimise the blend's weights: simple ensembles first, then an Optuna search from them.

Second half of the blend's fit, after ``selection``. Every set of weights is scored with its exact
best threshold on the same rows, so all ensembles are compared under the same decision rule, and
the threshold is not a search dimension. ``objective.Evaluator`` defines what is best.

Legend: M members, S of them selected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from competition.blend.objective import Evaluator, Point, score_pool
from competition.blend.pooling import PooledRows
from competition.blend.selection import Selection, select_members
from competition.submission.record import Objective

if TYPE_CHECKING:
    import optuna

BEST_SINGLE, UNIFORM, CONVEX, GREEDY, BLEND = "best single", "uniform", "convex", "greedy", "blend"
SYSTEMS = (BEST_SINGLE, UNIFORM, CONVEX, GREEDY, BLEND)

GREEDY_PICKS = 20
GREEDY_PATIENCE = 4  # picks without a gain before greedy selection stops
PENALTY = 0.005  # score given up per relative L1 distance from the convex weights, in the search
ROOM_ABOVE = 1.25  # upper bound of a share in the search, relative to the largest starting share
MIN_SUM = 0.01  # of the weights: a pool hotter than this is flat to a float32


@dataclass(frozen=True)
class SearchPlan:
    """Number of trials, seed, objective, and a callback after each trial."""

    trials: int
    seed: int
    on_trial: Callable[[], None] | None = None
    objective: Objective | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """Everything fitted to some rows.

    Attributes:
        points: one for each of ``SYSTEMS``.
        singles: M points, each member alone.
        selection: which members were selected.
        front: Pareto front of the points tried, in descending order of the
            primary score. It has more than one point only under the objective ``both``.
    """

    points: Mapping[str, Point]
    singles: tuple[Point, ...]
    selection: Selection
    front: tuple[Point, ...]


def fit_points(rows: PooledRows, plan: SearchPlan) -> Fit:
    """Fit the blend and all simple ensembles to the same rows.

    Copies and members without gain get no weight in the convex fit and the blend. Each member
    alone, the uniform mean of all and greedy selection among all remain as comparators. Greedy
    selection picks up by chance some members that ``selection`` drops: with 39 members, a blend
    that could start from it had 0.4 micro-F1 and 2.6 AUPRC less, nested.

    Args:
        plan: of the search; without trials the blend is the best simple ensemble.

    Returns:
        The fit. Its blend is the best point of selected members, all with the sum of the convex
        weights; a lone member is taken as it is. On the objective it is never below the convex
        weights, nor below the uniform mean, greedy selection or single members of the selection
        after scaling to that sum.
    """
    evaluator = Evaluator(rows, plan.objective)
    n_members = len(rows.logs)
    singles = [evaluator.measure(weights) for weights in np.eye(n_members)]
    selection = select_members(rows)
    points = {
        BEST_SINGLE: evaluator.best(singles),
        UNIFORM: evaluator.measure(np.full(n_members, 1.0 / n_members)),
        CONVEX: evaluator.measure(selection.convex),
        GREEDY: select_greedily(evaluator, singles, np.arange(n_members)),
    }
    kept = selection.kept
    even = np.zeros(n_members)
    even[kept] = 1.0 / len(kept)
    # ties go to the first: the fitted pool before what needs a search
    simple = [
        points[CONVEX],
        select_greedily(evaluator, singles, kept) if len(kept) < n_members else points[GREEDY],
        evaluator.measure(even),
        *(singles[member] for member in kept),
    ]
    starts = [scale_point(evaluator, point, float(selection.convex.sum())) for point in simple]
    is_choice = len(kept) > 1  # the direction of a single weight is fixed
    tried = search_weights(evaluator, starts, kept, plan) if is_choice else []
    blend = drop_members(evaluator, evaluator.choose(starts, tried))
    if n_members == 1:  # nothing to weigh: it is the member itself
        blend = singles[0]
    front = evaluator.find_front([*starts, *tried])
    return Fit(points | {BLEND: blend}, tuple(singles), selection, front)


def select_greedily(
    evaluator: Evaluator, singles: Sequence[Point], among: NDArray[np.intp]
) -> Point:
    """Greedy ensemble selection: repeatedly add the member that improves the objective most.

    Members are picked with replacement.

    Args:
        among: (S,) indices of the members that may be picked.

    Returns:
        The best point along the way; its weights are shares of picks.

    Source: Caruana et al. 2004, "Ensemble selection from libraries of models", sections 2.1, 2.2;
    on the pooled logs, and with the threshold tuned at every step.
    """
    best = evaluator.best([singles[member] for member in among])
    picks = best.weights.copy()
    ones = np.eye(len(picks))[among]
    best_size = 1
    for size in range(2, GREEDY_PICKS + 1):
        tried = [evaluator.measure((picks + one) / size) for one in ones]
        step = evaluator.best(tried)
        picks = step.weights * size
        if evaluator.value(step) > evaluator.value(best):
            best, best_size = step, size
        if size - best_size >= GREEDY_PATIENCE:
            break
    return best


def scale_point(evaluator: Evaluator, point: Point, total: float) -> Point:
    """Rescale a point's weights to another sum, at least ``MIN_SUM``, and score it again.

    The sum determines the pool's confidence. It does not change the most probable label, but it
    changes thresholds and the ranking of rows.
    """
    now, total = float(point.weights.sum()), max(total, MIN_SUM)
    if now <= 0 or now == total:
        return point
    return evaluator.measure(point.weights * (total / now))


def search_weights(
    evaluator: Evaluator, starts: Sequence[Point], kept: NDArray[np.intp], plan: SearchPlan
) -> list[Point]:
    """Search for the best weights with Optuna, from given starting points.

    Each trial proposes linear weights in [0, w_max] and uses their exact best threshold. With the
    threshold as a further search dimension, most trials had a bad one, and 300 trials found less
    than a third of the gain. A penalty on the distance from the first starting point (the convex
    weights) guides the search; the returned points are unpenalised.

    Only the direction of the weights is searched; their sum is that of the convex fit. The sum
    determines the pool's confidence and hardly affects micro-F1. Chosen in each fold by micro-F1,
    it makes probabilities of different folds incomparable: this cost 5 AUPRC nested on the bundled
    demo, and 0.8 on KLUE-RE even when chosen from four values. The convex fit finds nearly the
    same sum in every fold; the temperature for ranking is chosen afterwards.

    Args:
        starts: with equal sums and weights on kept members only; enqueued first. The penalty pulls
            towards the first of them.
        kept: (S,) indices of the members to search over.

    Returns:
        All points tried.
    """
    import optuna

    names = [f"w{member}" for member in kept]
    total = max(float(starts[0].weights.sum()), MIN_SUM)
    top = ROOM_ABOVE * max(float(start.weights.max()) for start in starts) / total
    anchor = starts[0].weights / total
    tried: list[Point] = []

    def measure(trial: optuna.Trial) -> float | tuple[float, ...]:
        proposed = np.zeros(len(anchor))
        proposed[kept] = [trial.suggest_float(name, 0.0, top) for name in names]
        shares = proposed / max(float(proposed.sum()), 1e-9)
        point = evaluator.measure(shares * total)
        tried.append(point)
        if plan.on_trial is not None:
            plan.on_trial()
        penalty = PENALTY * float(np.abs(shares - anchor).sum())
        penalised = tuple(value - penalty for value in evaluator.values(point))
        return penalised if len(penalised) > 1 else penalised[0]

    with _quiet_optuna():
        sampler = optuna.samplers.TPESampler(seed=plan.seed)
        directions = ["maximize"] * len(evaluator.values(starts[0]))
        study = optuna.create_study(directions=directions, sampler=sampler)
        for start in starts:
            shares = start.weights[kept] / total
            study.enqueue_trial(dict(zip(names, map(float, shares), strict=True)))
        study.optimize(measure, n_trials=plan.trials, n_jobs=1)
    return tried


def drop_members(evaluator: Evaluator, point: Point) -> Point:
    """Set weights to 0, smallest first, while no metric decreases.

    The remaining weights are rescaled to the original sum.
    """
    total = float(point.weights.sum())
    others = _score_others(evaluator, point)
    for member in np.argsort(point.weights, kind="stable"):
        if point.weights[member] == 0 or (point.weights > 0).sum() == 1:
            continue
        weights = point.weights.copy()
        weights[member] = 0.0
        weights *= total / weights.sum()
        without = evaluator.measure(weights)
        if without.primary < point.primary:
            continue
        others_without = _score_others(evaluator, without)
        if others_without >= others:
            point, others = without, others_without
    return point


def _score_others(evaluator: Evaluator, point: Point) -> float:
    """Return a point's score by the secondary metric; 0 without one."""
    metric = evaluator.rows.criteria.secondary
    if metric is None:
        return 0.0
    return score_pool(evaluator.rows, metric, point.weights, point.rule)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's line per trial, and restore its log level afterwards."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
