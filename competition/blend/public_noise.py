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
from competition.scoring.assessment import Predicted
from competition.scoring.metrics import auprc, micro_f1

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
        f1_sd: standard deviation of public minus private difference, in micro-F1.
        auprc_sd: likewise, in AUPRC.
    """

    pair: Pair
    agreement: float
    f1_sd: float
    auprc_sd: float

    @property
    def f1_margin(self) -> float:
        """Return the public lead in micro-F1 that holds on the private half, at 95%."""
        return SDS * self.f1_sd

    @property
    def auprc_margin(self) -> float:
        """Return the same in AUPRC."""
        return SDS * self.auprc_sd


@dataclass(frozen=True, eq=False)
class BoardRows:
    """Draws T of the rows ``gold`` (N,); ``negative_share`` None keeps their own share."""

    gold: Ints
    negative_id: int | None
    n_test: int
    negative_share: float | None

    def draw(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw (T,) rows in random order, with replacement only if there are too few."""
        if self.negative_share is None or self.negative_id is None:
            return _choose(rng, np.arange(len(self.gold)), self.n_test)
        is_negative = self.gold == self.negative_id
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
        rows: to draw simulated test sets from.
        predictions: of each system, (N, C) probabilities and (N,) label ids.
        pairs: which differences to measure.
        seed: of the draws, which all pairs share.
    """
    rng = np.random.default_rng(seed)
    names = sorted({name for pair in pairs for name in pair})
    same = {pair: predictions[pair[0]][1] == predictions[pair[1]][1] for pair in pairs}
    agreement: dict[Pair, list[float]] = {pair: [] for pair in pairs}
    differences: dict[Pair, list[tuple[float, float]]] = {pair: [] for pair in pairs}
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
        f1_sd, auprc_sd = (float(sd) for sd in np.std(differences[pair], axis=0))
        found.append(HalfNoise(pair, float(np.mean(agreement[pair])), f1_sd, auprc_sd))
    return found


def _score(rows: BoardRows, predicted: Predicted, half: NDArray[np.intp]) -> tuple[float, float]:
    gold = rows.gold[half]
    f1 = micro_f1(gold, predicted[1][half], rows.negative_id)
    return f1, auprc(gold, predicted[0][half])


def _choose(rng: np.random.Generator, places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    if not len(places):
        return places
    return rng.choice(places, count, replace=count > len(places))
