"""Objective of the weight search: the primary metric, the secondary one, or both.

The search proposes weights; the evaluator scores them and selects the best point.

Legend: M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.blend.pooling import PooledRows, Weights, pool, tune_rule
from competition.scoring.criteria import BOTH
from competition.scoring.decisions import ARGMAX, Rule, decide
from competition.scoring.metrics.metric import Metric
from competition.submission.record import Objective


@dataclass(frozen=True, eq=False)
class Point:
    """Blend weights with their best decision rule and the resulting scores.

    ``weights`` is (M,) float64, non-negative; ``secondary`` is None if the objective is the primary
    metric alone. Scores that read probabilities are those of the pool at temperature 1.
    ``temperature`` is chosen last and affects neither score.
    """

    weights: Weights
    rule: Rule
    primary: float
    secondary: float | None = None
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Scores weights on given rows by the objective: a metric's name, or both."""

    rows: PooledRows
    objective: Objective | None = None

    def measure(self, weights: Weights) -> Point:
        """Score weights with their best decision rule."""
        criteria = self.rows.criteria
        rule, by_labels = tune_rule(self.rows, weights)
        primary = by_labels
        if criteria.primary is not criteria.decided:
            primary = self._score(criteria.primary, weights, rule)
        if self._is_primary():
            return Point(weights, rule, primary)
        assert criteria.secondary is not None
        secondary = by_labels
        if criteria.secondary is not criteria.decided:
            secondary = self._score(criteria.secondary, weights, rule)
        return Point(weights, rule, primary, secondary)

    def _score(self, metric: Metric, weights: Weights, rule: Rule) -> float:
        return score_pool(self.rows, metric, weights, rule)

    def _is_primary(self) -> bool:
        if self.objective is None:
            return True
        return self.objective != BOTH and (self.objective == self.rows.criteria.primary.kind.name)

    def values(self, point: Point) -> tuple[float, ...]:
        """Return the scores of the objective, the primary one first."""
        if point.secondary is None:
            return (point.primary,)
        if self.objective == BOTH:
            return (point.primary, point.secondary)
        return (point.primary,) if self._is_primary() else (point.secondary,)

    def value(self, point: Point) -> float:
        """Return the first score of the objective."""
        return self.values(point)[0]

    def best(self, points: Sequence[Point]) -> Point:
        """Return the point with the highest first score; ties go to the earliest."""
        return max(points, key=self.value)

    def choose(self, comparators: Sequence[Point], tried: Sequence[Point]) -> Point:
        """Select the blend: a point that no comparator beats on the objective.

        With a single score it is the point with the highest score. With both, it is the point with
        the highest secondary score among those whose primary score is at least the best
        comparator's. The last hundredths of the primary score only fit noise, so any surplus over
        the comparators is traded for the secondary one.
        """
        points = [*comparators, *tried]
        if self.objective != BOTH:
            return self.best(points)
        least = max(point.primary for point in comparators)
        eligible = [point for point in points if point.primary >= least]
        return max(eligible, key=lambda point: (point.secondary, point.primary))

    def find_front(self, points: Sequence[Point]) -> tuple[Point, ...]:
        """Return the Pareto front of the points, in descending order of the first score.

        >>> evaluator = Evaluator(None, "both")
        >>> points = [Point(None, ARGMAX, a, b) for a, b in ((3, 1), (2, 2), (1, 2), (3, 0))]
        >>> [(point.primary, point.secondary) for point in evaluator.find_front(points)]
        [(3, 1), (2, 2)]
        """
        front: list[Point] = []
        highest = -np.inf
        for point in sorted(points, key=self.values, reverse=True):
            last = self.values(point)[-1]
            if last > highest:
                front.append(point)
                highest = last
        return tuple(front)


def score_pool(rows: PooledRows, metric: Metric, weights: Weights, rule: Rule = ARGMAX) -> float:
    """Score the pool at temperature 1 by a metric, with labels by a rule."""
    probs = pool(rows.logs, weights)
    pred = rows.gold
    if metric.kind.reads == "labels":
        pred = decide(probs, rows.criteria.negative_ids, rule)
    return metric.score(rows.gold, (probs, pred), rows.weights)
