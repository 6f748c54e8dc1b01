"""Say what predictions are worth: both keys of the leaderboard, with intervals, and compared.

Stands between ``blend`` and what a person reads. Scores are plain and, where the profile expects
another share of the negative label in the test, reweighted to that share; nothing is tuned on the
reweighted ones.

Legend: N rows, C labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.intervals import (
    AUPRC_REPLICATES,
    F1_REPLICATES,
    Paired,
    Resamples,
    auprc_interval,
    build_resamples,
    f1_interval,
    paired_auprc,
    paired_f1,
)
from competition.metrics import Floats, Ints, auprc, micro_f1, weights_for_negative_share

MAX_WORKERS = 4  # each holds some N × C cells of its own

Answered = tuple[Floats, Ints]


@dataclass(frozen=True, slots=True)
class Score:
    """A score with its 95% interval over resampled groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Assessment:
    """Both keys of the leaderboard; the shifted ones are None where the profile asks for none."""

    f1: Score
    auprc: Score
    shifted_f1: Score | None
    shifted_auprc: Score | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system minus another by both keys, on the same draws of groups."""

    f1: Paired
    auprc: Paired


@dataclass(frozen=True, eq=False)
class Assessor:
    """What answers are held against: gold labels, draws of groups, and weights for the shift.

    ``shift_weights`` is (N,) float64, or None where the profile expects no shift.
    """

    gold: Ints
    negative_id: int | None
    for_f1: Resamples
    for_auprc: Resamples
    shift_weights: NDArray[np.float64] | None

    def assess(self, answered: Answered) -> Assessment:
        """Score answers: (N, C) probabilities and (N,) label ids, each apart from the other."""
        shifted = self.shift_weights
        return Assessment(
            self._score_f1(answered, None),
            self._score_auprc(answered, None),
            None if shifted is None else self._score_f1(answered, shifted),
            None if shifted is None else self._score_auprc(answered, shifted),
        )

    def assess_all(self, answers: Mapping[str, Answered]) -> dict[str, Assessment]:
        """Score several answers side by side on the cores there are; each alone is the same."""
        with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as workers:
            return dict(zip(answers, workers.map(self.assess, answers.values()), strict=True))

    def compare(self, first: Answered, second: Answered) -> Comparison:
        """Compare answers in pairs: first minus second."""
        return Comparison(
            paired_f1(self.gold, (first[1], second[1]), self.negative_id, self.for_f1),
            paired_auprc(self.gold, (first[0], second[0]), self.for_auprc),
        )

    def _score_f1(self, answered: Answered, weights: NDArray[np.float64] | None) -> Score:
        bounds = f1_interval(self.gold, answered[1], self.negative_id, self.for_f1, weights)
        return Score(micro_f1(self.gold, answered[1], self.negative_id, weights), *bounds)

    def _score_auprc(self, answered: Answered, weights: NDArray[np.float64] | None) -> Score:
        bounds = auprc_interval(self.gold, answered[0], self.for_auprc, weights)
        return Score(auprc(self.gold, answered[0], weights), *bounds)


def build_assessor(
    gold: Ints, negative_id: int | None, groups: Ints, *, shifted_share: float | None, seed: int
) -> Assessor:
    """Prepare to score answers for the same rows again and again.

    Args:
        gold: (N,) label ids.
        negative_id: the label micro-F1 does not count, or None.
        groups: (N,) which rows are drawn together.
        shifted_share: share of the negative label to reweight to, or None.
        seed: of the draws.

    Raises:
        UsageError: the rows cannot be reweighted to that share.
    """
    shifted = None
    if shifted_share is not None:
        shifted = weights_for_negative_share(gold, negative_id, shifted_share)
    return Assessor(
        gold,
        negative_id,
        build_resamples(groups, replicates=F1_REPLICATES, seed=seed),
        build_resamples(groups, replicates=AUPRC_REPLICATES, seed=seed),
        shifted,
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
