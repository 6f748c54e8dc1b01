"""What a blend is to be good at: micro-F1, AUPRC, or both, and which point that makes the best.

Between ``pooling`` and ``search`` on the way of a row: the search proposes weights, an aim measures
them and chooses.

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
    """Weights with the threshold that is best for them, and the scores this gives.

    ``weights`` is (M,) float64, at least 0; ``threshold`` is None without a negative label;
    ``auprc`` is the pool's as it is, None where only micro-F1 is aimed at. ``temperature`` flattens
    the probabilities that are ranked, and is settled last; no score here feels it.
    """

    weights: Weights
    threshold: float | None
    f1: float
    auprc: float | None = None
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Aim:
    """Rows and the objective that weights are measured by on them."""

    rows: PooledRows
    objective: Objective = "micro-f1"

    def measure(self, weights: Weights) -> Point:
        """Give weights their best threshold and score them."""
        threshold, f1 = tune_threshold(self.rows, weights)
        if self.objective == "micro-f1":
            return Point(weights, threshold, f1)
        rows = self.rows
        return Point(
            weights, threshold, f1, auprc(rows.gold, pool(rows.logs, weights), rows.weights)
        )

    def values(self, point: Point) -> tuple[float, ...]:
        """Return the scores that are aimed at, the first key of the leaderboard first."""
        if self.objective == "micro-f1" or point.auprc is None:
            return (point.f1,)
        return (point.auprc,) if self.objective == "auprc" else (point.f1, point.auprc)

    def value(self, point: Point) -> float:
        """Return the score that comes first."""
        return self.values(point)[0]

    def best(self, points: Sequence[Point]) -> Point:
        """Return the point with the highest first score, the first of equals."""
        return max(points, key=self.value)

    def choose(self, comparators: Sequence[Point], tried: Sequence[Point]) -> Point:
        """Choose the blend: among all points, one that no comparator beats at what is aimed at.

        With one score it is the highest there is. With both, micro-F1 must reach the best
        comparator's; of the points that do, the one with the highest AUPRC. A search that
        squeezes a last hundredth out of micro-F1 fits the noise of these rows; so what it finds
        above the comparators is spent on AUPRC instead.
        """
        points = [*comparators, *tried]
        if self.objective != "both":
            return self.best(points)
        least = max(point.f1 for point in comparators)
        able = [point for point in points if point.f1 >= least]
        return max(able, key=lambda point: (point.auprc, point.f1))

    def find_front(self, points: Sequence[Point]) -> tuple[Point, ...]:
        """Return the points that no other beats by every score aimed at, highest first key first.

        >>> aim = Aim(None, "both")
        >>> points = [Point(None, None, f1, area) for f1, area in ((3, 1), (2, 2), (1, 2), (3, 0))]
        >>> [(point.f1, point.auprc) for point in aim.find_front(points)]
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
