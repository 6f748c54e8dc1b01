"""Simulate the noise of the public leaderboard: which differences carry over to the private half.

The public board is a random half of the test rows, so a difference between two submissions matters
only as far as it predicts the difference on the other half. This is simulated on out-of-fold rows:
samples with the size and label mix of the test, split at random many times.

Legend: N rows, C labels, T test rows, R replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Ints
from competition.scoring.criteria import Criteria
from competition.scoring.metrics.metric import MetricKind, Predicted
from competition.scoring.metrics.micro_f1 import is_any_of

REPLICATES = 100
PUBLIC_FRAC = 0.5
SDS = 1.96  # 95%, two-sided

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HalfNoise:
    """How well the public difference of two systems predicts the private one.

    Attributes:
        pair: the systems, first minus second.
        agreement: share of the drawn rows for which both predict the same label.
        kinds: the metrics.
        sds: of each metric, the standard deviation of public minus private difference.
    """

    pair: Pair
    agreement: float
    kinds: tuple[MetricKind, ...]
    sds: tuple[float, ...]

    @property
    def margins(self) -> tuple[float, ...]:
        """Return the public lead in each metric that holds on the private half, at 95%."""
        return tuple(SDS * sd for sd in self.sds)

    def describe(self) -> dict[str, object]:
        """Return it as plain values, for JSON."""
        sds = {f"{kind.short}_sd": sd for kind, sd in zip(self.kinds, self.sds, strict=True)}
        return {"pair": self.pair, "agreement": self.agreement, **sds}


@dataclass(frozen=True, eq=False)
class BoardRows:
    """Draws T of the rows ``gold`` (N,); ``negative_share`` None keeps their own share."""

    gold: Ints
    criteria: Criteria
    n_test: int
    negative_share: float | None

    def draw(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw (T,) rows in random order, with replacement only if there are too few."""
        if self.negative_share is None or not self.criteria.negative_ids:
            return _choose(rng, np.arange(len(self.gold)), self.n_test)
        is_negative = is_any_of(self.gold, self.criteria.negative_ids)
        n_negative = round(self.negative_share * self.n_test)
        parts = (
            _choose(rng, np.flatnonzero(is_negative), n_negative),
            _choose(rng, np.flatnonzero(~is_negative), self.n_test - n_negative),
        )
        return rng.permutation(np.concatenate(parts))


def simulate_halves(
    rows: BoardRows, predictions: Mapping[str, Predicted], pairs: Sequence[Pair], *, seed: int
) -> list[HalfNoise]:
    """Measure how much differences between systems vary from one random half to the other.

    Args:
        predictions: of each system, (N, C) probabilities and (N,) label ids.
    """
    rng = np.random.default_rng(seed)
    names = sorted({name for pair in pairs for name in pair})
    same = {pair: predictions[pair[0]][1] == predictions[pair[1]][1] for pair in pairs}
    agreement: dict[Pair, list[float]] = {pair: [] for pair in pairs}
    differences: dict[Pair, list[tuple[float, ...]]] = {pair: [] for pair in pairs}
    n_public = max(1, round(PUBLIC_FRAC * rows.n_test))
    for _ in range(REPLICATES):
        drawn = rows.draw(rng)
        halves = (drawn[:n_public], drawn[n_public:])
        scores = {
            name: [_score(rows, predictions[name], half) for half in halves if len(half)]
            for name in names
        }
        for pair in pairs:
            first, second = (np.array(scores[name]) for name in pair)
            public, private = (first - second)[[0, -1]]
            differences[pair].append(tuple(public - private))
            agreement[pair].append(float(same[pair][drawn].mean()))
    found = []
    for pair in pairs:
        sds = tuple(float(sd) for sd in np.std(differences[pair], axis=0))
        found.append(HalfNoise(pair, float(np.mean(agreement[pair])), rows.criteria.kinds, sds))
    return found


def _score(rows: BoardRows, predicted: Predicted, half: NDArray[np.intp]) -> tuple[float, ...]:
    gold, some = rows.gold[half], (predicted[0][half], predicted[1][half])
    return tuple(metric.score(gold, some) for metric in rows.criteria.metrics)


def _choose(rng: np.random.Generator, places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    if not len(places):
        return places
    return rng.choice(places, count, replace=count > len(places))
