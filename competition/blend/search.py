"""Find blend weights and the decision threshold that decide best: simple ways, then a search.

Second half of the blend's fit, over the pooled rows of ``pooling``, after ``selection``. Every set
of weights, whoever proposes it, gets the threshold that is best for it on the same rows, found
exactly; so ways of weighing are compared under one decision rule, and the search needs no dimension
for it. What is best is for an ``aims.Aim`` to say.

Legend: M members, S of them selected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from competition.blend.objective import Aim, Point
from competition.blend.pooling import PooledRows, pool
from competition.blend.selection import Selection, select_members
from competition.scoring.metrics import auprc
from competition.submission.record import Objective

if TYPE_CHECKING:
    import optuna

BEST_SINGLE, UNIFORM, CONVEX, GREEDY, BLEND = "best single", "uniform", "convex", "greedy", "blend"
SYSTEMS = (BEST_SINGLE, UNIFORM, CONVEX, GREEDY, BLEND)

GREEDY_PICKS = 20
GREEDY_PATIENCE = 4  # picks without a gain before greedy selection stops
PENALTY = 0.005  # score given up per relative L1 distance from the convex weights, in the search
ROOM_ABOVE = 1.25  # the search's upper bound on a share, over the greatest share it starts from
LEAST_SUM = 0.01  # of the weights: a pool hotter than this is flat to a float32


@dataclass(frozen=True)
class SearchPlan:
    """How long to search, from which seed, for what, and what to call after each trial."""

    trials: int
    seed: int
    on_trial: Callable[[], None] | None = None
    objective: Objective = "micro-f1"


@dataclass(frozen=True, eq=False)
class Fit:
    """All that was fitted to some rows.

    Attributes:
        points: one for each of ``SYSTEMS``.
        singles: M points, each member alone.
        selection: which members were weighed.
        front: of the points tried, those that none beats by both scores; best micro-F1 first.
            Only the objective ``both`` has more than the blend's.
    """

    points: Mapping[str, Point]
    singles: tuple[Point, ...]
    selection: Selection
    front: tuple[Point, ...]


def fit_points(rows: PooledRows, plan: SearchPlan) -> Fit:
    """Fit every way of weighing the members; all see the same rows only.

    Copies and members without gain are weighed neither by the convex fit nor by the blend. Each
    member alone, the uniform mean of all and greedy selection among all stay comparators. The last
    takes members by chance that selection drops: on 39 of them, a blend that might begin from it
    had 0.4 micro-F1 and 2.6 AUPRC less, nested.

    Args:
        rows: what is fitted on.
        plan: of the search; without trials the blend is the best of the simple ways.

    Returns:
        The blend is the best point of selected members on these rows, each with the sum of the
        convex weights: never below these on what the plan aims at, nor below the uniform mean,
        greedy selection or one alone of the selected once scaled to their sum.
    """
    aim = Aim(rows, plan.objective)
    n_members = len(rows.logs)
    singles = [aim.measure(weights) for weights in np.eye(n_members)]
    selection = select_members(rows)
    points = {
        BEST_SINGLE: aim.best(singles),
        UNIFORM: aim.measure(np.full(n_members, 1.0 / n_members)),
        CONVEX: aim.measure(selection.convex),
        GREEDY: select_greedily(aim, singles, np.arange(n_members)),
    }
    kept = selection.kept
    even = np.zeros(n_members)
    even[kept] = 1.0 / len(kept)
    # of equal scores the first named here wins: the fitted pool before what needs a search
    simple = [
        points[CONVEX],
        select_greedily(aim, singles, kept) if len(kept) < n_members else points[GREEDY],
        aim.measure(even),
        *(singles[member] for member in kept),
    ]
    starts = [scale_point(aim, point, float(selection.convex.sum())) for point in simple]
    is_choice = len(kept) > 1  # one member's weight alone decides nothing
    tried = search_weights(aim, starts, kept, plan) if is_choice else []
    blend = drop_members(aim, aim.choose(starts, tried))
    front = aim.find_front([*starts, *tried])
    return Fit(points | {BLEND: blend}, tuple(singles), selection, front)


def select_greedily(aim: Aim, singles: Sequence[Point], among: NDArray[np.intp]) -> Point:
    """Pick members one by one, with replacement, each time the one that helps the aim most.

    Args:
        aim: what is fitted on, and for.
        singles: each member's own point, in order.
        among: (S,) places of the members that may be picked.

    Returns:
        The best point on the way; its weights are shares of picks.

    Source: Caruana et al. 2004, "Ensemble selection from libraries of models", sections 2.1, 2.2;
    on the pooled logs, and with the threshold tuned at every step.
    """
    best = aim.best([singles[member] for member in among])
    picks = best.weights.copy()
    ones = np.eye(len(picks))[among]
    best_size = 1
    for size in range(2, GREEDY_PICKS + 1):
        tried = [aim.measure((picks + one) / size) for one in ones]
        step = aim.best(tried)
        picks = step.weights * size
        if aim.value(step) > aim.value(best):
            best, best_size = step, size
        if size - best_size >= GREEDY_PATIENCE:
            break
    return best


def scale_point(aim: Aim, point: Point, total: float) -> Point:
    """Give a point's weights another sum, at least ``LEAST_SUM``, and what follows from it.

    The sum says how sure the pool is. Decisions at the most probable label do not feel it;
    thresholds and everything that orders rows do.
    """
    now, total = float(point.weights.sum()), max(total, LEAST_SUM)
    if now <= 0 or now == total:
        return point
    return aim.measure(point.weights * (total / now))


def search_weights(
    aim: Aim, starts: Sequence[Point], kept: NDArray[np.intp], plan: SearchPlan
) -> list[Point]:
    """Search weights for the highest score with Optuna, from given starting points.

    Each trial proposes linear weights in [0, w_max] and takes the threshold that is best for them:
    proposed as one more dimension, the threshold left most trials at a bad one, and 300 trials
    found less than a third of the gain. A penalty on the distance from the first start (the convex
    weights) guides the search; what is returned is unpenalised.

    Only the weights' direction is searched; their sum is that of the starts, the convex fit's.
    Micro-F1 hardly feels the sum, which says how sure the pool is, and one chosen in each fold by
    micro-F1 makes probabilities of different folds incomparable: it cost 5 AUPRC on the bundled
    demo, nested, and 0.8 on KLUE-RE even when chosen from four values. The convex fit finds nearly
    the same one in every fold; how flat the ranked probabilities are is chosen afterwards.

    Args:
        aim: what is fitted on, and for; for both scores the study has two objectives.
        starts: of one sum, weighing kept members only; enqueued first. The first of them is what
            the penalty pulls towards.
        kept: (S,) places of the members to weigh.
        plan: trials, starts included, and the sampler's seed.

    Returns:
        Every point tried.
    """
    import optuna

    names = [f"w{member}" for member in kept]
    total = max(float(starts[0].weights.sum()), LEAST_SUM)
    top = ROOM_ABOVE * max(float(start.weights.max()) for start in starts) / total
    anchor = starts[0].weights / total
    tried: list[Point] = []

    def measure(trial: optuna.Trial) -> float | tuple[float, ...]:
        proposed = np.zeros(len(anchor))
        proposed[kept] = [trial.suggest_float(name, 0.0, top) for name in names]
        shares = proposed / max(float(proposed.sum()), 1e-9)
        point = aim.measure(shares * total)
        tried.append(point)
        if plan.on_trial is not None:
            plan.on_trial()
        penalty = PENALTY * float(np.abs(shares - anchor).sum())
        penalised = tuple(value - penalty for value in aim.values(point))
        return penalised if len(penalised) > 1 else penalised[0]

    with _quiet_optuna():
        sampler = optuna.samplers.TPESampler(seed=plan.seed)
        directions = ["maximize"] * len(aim.values(starts[0]))
        study = optuna.create_study(directions=directions, sampler=sampler)
        for start in starts:
            shares = start.weights[kept] / total
            study.enqueue_trial(dict(zip(names, map(float, shares), strict=True)))
        study.optimize(measure, n_trials=plan.trials, n_jobs=1)
    return tried


def drop_members(aim: Aim, point: Point) -> Point:
    """Set weights to 0 while neither micro-F1 nor AUPRC is lower without them, smallest first.

    The weights that stay are raised so that all have the sum they had.
    """
    rows, total = aim.rows, float(point.weights.sum())
    area = auprc(rows.gold, pool(rows.logs, point.weights), rows.weights)
    for member in np.argsort(point.weights, kind="stable"):
        if point.weights[member] == 0 or (point.weights > 0).sum() == 1:
            continue
        weights = point.weights.copy()
        weights[member] = 0.0
        weights *= total / weights.sum()
        without = aim.measure(weights)
        if without.f1 < point.f1:
            continue
        area_without = auprc(rows.gold, pool(rows.logs, weights), rows.weights)
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
