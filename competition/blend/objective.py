"""Objective of the weight search: micro-F1, AUPRC, or both.

The search proposes weights; the evaluator scores them and selects the best point.

Legend: M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.blend.pooling import PooledRows, Weights, pool, tune_threshold
from competition.scoring.metrics import auprc
from competition.submission.record import Objective


@dataclass(frozen=True, eq=False)
class Point:
    """Blend weights with their best threshold and the resulting scores.

    ``weights`` is (M,) float64, non-negative; ``threshold`` is None without a negative label;
    ``auprc`` is that of the pool at temperature 1, None if the objective is micro-F1 alone.
    ``temperature`` is chosen last and affects neither score.
    """

    weights: Weights
    threshold: float | None
    f1: float
    auprc: float | None = None
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Scores weights on given rows by the objective."""

    rows: PooledRows
    objective: Objective = "micro-f1"

    def measure(self, weights: Weights) -> Point:
        """Score weights with their best threshold."""
        threshold, f1 = tune_threshold(self.rows, weights)
        if self.objective == "micro-f1":
            return Point(weights, threshold, f1)
        rows = self.rows
        return Point(
            weights, threshold, f1, auprc(rows.gold, pool(rows.logs, weights), rows.weights)
        )

    def values(self, point: Point) -> tuple[float, ...]:
        """Return the scores of the objective, the leaderboard's first metric first."""
        if self.objective == "micro-f1" or point.auprc is None:
            return (point.f1,)
        return (point.auprc,) if self.objective == "auprc" else (point.f1, point.auprc)

    def value(self, point: Point) -> float:
        """Return the first score of the objective."""
        return self.values(point)[0]

    def best(self, points: Sequence[Point]) -> Point:
        """Return the point with the highest first score; ties go to the earliest."""
        return max(points, key=self.value)

    def choose(self, comparators: Sequence[Point], tried: Sequence[Point]) -> Point:
        """Select the blend: a point that no comparator beats on the objective.

        With a single score it is the point with the highest score. With both, it is the point with
        the highest AUPRC among those whose micro-F1 is at least the best comparator's. The last
        hundredths of micro-F1 only fit noise, so any surplus over the comparators is traded for
        AUPRC.
        """
        points = [*comparators, *tried]
        if self.objective != "both":
            return self.best(points)
        min_f1 = max(point.f1 for point in comparators)
        eligible = [point for point in points if point.f1 >= min_f1]
        return max(eligible, key=lambda point: (point.auprc, point.f1))

    def find_front(self, points: Sequence[Point]) -> tuple[Point, ...]:
        """Return the Pareto front of the points, in descending order of the first score.

        >>> evaluator = Evaluator(None, "both")
        >>> points = [Point(None, None, f1, area) for f1, area in ((3, 1), (2, 2), (1, 2), (3, 0))]
        >>> [(point.f1, point.auprc) for point in evaluator.find_front(points)]
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
