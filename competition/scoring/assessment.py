"""Say what predictions are worth: both keys of the leaderboard, with intervals, and compared.

Stands between ``blend`` and what a person reads. Scores are plain and, beside them, of rows weighed
to be like the test: by the share of the negative label that the profile expects there, or by the
odds of ``shift``. Every system is drawn on the same groups, so any two can be compared.

Legend: N rows, C labels, R replicates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.scoring.bootstrap import (
    AUPRC_REPLICATES,
    F1_REPLICATES,
    Paired,
    Resamples,
    auprc_replicates,
    bound,
    build_resamples,
    f1_replicates,
    pair,
)
from competition.scoring.metrics import auprc, count_hits, micro_f1

SHARE = "share"
"""Names the scores of rows weighed to the share of the negative label that the test has."""
MAX_WORKERS = 4  # each holds some N × C cells of its own

Answered = tuple[Floats, Ints]


@dataclass(frozen=True, slots=True)
class Score:
    """A score with its 95% interval over resampled groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Shifted:
    """Both keys on rows weighed to be like the test."""

    f1: float
    auprc: float


@dataclass(frozen=True, eq=False)
class Assessment:
    """Both keys of the leaderboard; ``shifted`` maps each way of weighing rows to its scores.

    ``f1_replicates`` and ``auprc_replicates`` (R,) are what intervals were taken from.
    """

    f1: Score
    auprc: Score
    shifted: Mapping[str, Shifted]
    f1_replicates: NDArray[np.float64] = field(repr=False)
    auprc_replicates: NDArray[np.float64] = field(repr=False)

    def describe(self) -> dict[str, object]:
        """Return the scores as plain values, for JSON."""
        described: dict[str, object] = {
            key: {"value": each.value, "low": each.low, "high": each.high}
            for key, each in (("f1", self.f1), ("auprc", self.auprc))
        }
        shifted = {key: {"f1": each.f1, "auprc": each.auprc} for key, each in self.shifted.items()}
        return described | {"shifted": shifted}


@dataclass(frozen=True, slots=True)
class PairedScores:
    """One system minus another by both keys, on the same draws of groups."""

    f1: Paired
    auprc: Paired


@dataclass(frozen=True, eq=False)
class Assessor:
    """What answers are held against: gold labels, draws of groups, and weights for the shift.

    ``row_weights`` maps each way of weighing rows to (N,) float64. ``weights`` (N,) weighs the rows
    of every score and interval; None weighs all alike.
    """

    gold: Ints
    negative_id: int | None
    for_f1: Resamples
    for_auprc: Resamples
    row_weights: Mapping[str, NDArray[np.float64]]
    weights: NDArray[np.float64] | None = None

    def assess(self, answered: Answered) -> Assessment:
        """Score answers: (N, C) probabilities and (N,) label ids, each apart from the other."""
        probs, pred = answered
        hits = count_hits(self.gold, pred, self.negative_id)
        for_f1 = f1_replicates(hits, self.for_f1, self.weights)
        for_auprc = auprc_replicates(self.gold, probs, self.for_auprc, self.weights)
        shifted = {
            key: Shifted(
                micro_f1(self.gold, pred, self.negative_id, weights),
                auprc(self.gold, probs, weights),
            )
            for key, weights in self.row_weights.items()
        }
        return Assessment(
            Score(micro_f1(self.gold, pred, self.negative_id, self.weights), *bound(for_f1)),
            Score(auprc(self.gold, probs, self.weights), *bound(for_auprc)),
            shifted,
            for_f1,
            for_auprc,
        )

    def assess_all(self, answers: Mapping[str, Answered]) -> dict[str, Assessment]:
        """Score several answers side by side on the cores there are; each alone is the same."""
        with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as workers:
            return dict(zip(answers, workers.map(self.assess, answers.values()), strict=True))


def compare(first: Assessment, second: Assessment) -> PairedScores:
    """Compare two systems that one assessor assessed: first minus second, draw by draw."""
    return PairedScores(
        pair(first.f1.value - second.f1.value, first.f1_replicates - second.f1_replicates),
        pair(
            first.auprc.value - second.auprc.value,
            first.auprc_replicates - second.auprc_replicates,
        ),
    )


def build_assessor(
    gold: Ints,
    negative_id: int | None,
    groups: Ints,
    *,
    row_weights: Mapping[str, NDArray[np.float64]],
    seed: int,
    weights: NDArray[np.float64] | None = None,
) -> Assessor:
    """Prepare to score answers for the same rows again and again.

    Args:
        gold: (N,) label ids.
        negative_id: the label micro-F1 does not count, or None.
        groups: (N,) which rows are drawn together.
        row_weights: ways of weighing rows to be like the test, (N,) each.
        seed: of the draws.
        weights: (N,) of every score and interval; None weighs all rows alike.
    """
    return Assessor(
        gold,
        negative_id,
        build_resamples(groups, replicates=F1_REPLICATES, seed=seed),
        build_resamples(groups, replicates=AUPRC_REPLICATES, seed=seed),
        row_weights,
        weights,
    )


@dataclass(frozen=True, slots=True)
class Side:
    """What a system answers on one side, out-of-fold or test.

    ``label_shares`` is the share of rows each label is given to, in label order; ``confidence``
    the mean probability of each row's most probable label.
    """

    positive_share: float
    confidence: float
    label_shares: tuple[float, ...]
    n_rows: int


def measure_side(answered: Answered, negative_id: int | None) -> Side:
    """Measure what to lay beside the other side's: shares of labels, and confidence."""
    probs, pred = answered
    shares = measure_shares(pred, probs.shape[1])
    positive = 1.0 if negative_id is None else 1.0 - shares[negative_id]
    confidence = float(probs.max(axis=1).mean(dtype=np.float64))
    return Side(positive, confidence, shares, len(pred))


def measure_shares(label_ids: Ints, n_labels: int) -> tuple[float, ...]:
    """Return the share of rows with each label, in label order."""
    counts = np.bincount(label_ids, minlength=n_labels)
    return tuple(float(count) / len(label_ids) for count in counts)
