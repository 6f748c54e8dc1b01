"""Evaluate predictions: each metric with a bootstrap interval, and paired comparisons.

Used by ``fold``, ``board``, ``blend`` and ``compare``; rows may be weighted, as in the test
(``expected``). All systems share the same bootstrap draws, so any two can be compared.

Legend: N rows, C labels, R replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Ints
from competition.scoring.bootstrap import (
    Paired,
    Resamples,
    bound,
    build_resamples,
    count_replicates,
    pair,
    replicate,
)
from competition.scoring.criteria import Criteria
from competition.scoring.decisions import Negatives
from competition.scoring.metrics.metric import MetricKind, Predicted
from competition.threads import map_in_threads


@dataclass(frozen=True, slots=True)
class Score:
    """A score with its 95% bootstrap interval; higher is better, groups of rows are resampled."""

    value: float
    low: float
    high: float

    def describe(self, kind: MetricKind) -> dict[str, float]:
        """Return the score as plain values for JSON, as people read it."""
        low, high = kind.show_ends(self.low, self.high)
        return {"value": kind.show(self.value), "low": low, "high": high}


@dataclass(frozen=True, eq=False)
class Measured:
    """A score, and the (R,) bootstrap replicates behind its interval."""

    kind: MetricKind
    score: Score
    replicates: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Assessment:
    """The scores of one system by the metrics of a competition, the primary one first."""

    measured: tuple[Measured, ...]

    @property
    def primary(self) -> Score:
        """Return the score by the primary metric."""
        return self.measured[0].score

    @property
    def secondary(self) -> Score | None:
        """Return the score by the secondary metric, None if there is none."""
        return self.measured[1].score if len(self.measured) > 1 else None

    @property
    def scores(self) -> tuple[Score, ...]:
        """Return the scores by each metric."""
        return tuple(each.score for each in self.measured)

    def describe(self) -> dict[str, object]:
        """Return the scores as plain values, for JSON."""
        return {each.kind.short: each.score.describe(each.kind) for each in self.measured}


@dataclass(frozen=True)
class PairedScores:
    """Differences of two systems in each metric, on the same bootstrap draws."""

    kinds: tuple[MetricKind, ...]
    differences: tuple[Paired, ...]

    @property
    def primary(self) -> Paired:
        """Return the difference in the primary metric."""
        return self.differences[0]

    @property
    def secondary(self) -> Paired | None:
        """Return the difference in the secondary metric, None if there is none."""
        return self.differences[1] if len(self.differences) > 1 else None

    def describe(self) -> dict[str, Any]:
        """Return the differences as plain values for JSON, as people read them."""
        found = {}
        for kind, paired in zip(self.kinds, self.differences, strict=True):
            low, high = kind.show_ends(paired.low, paired.high)
            ends = {"difference": kind.show(paired.difference), "low": low, "high": high}
            found[kind.short] = {**ends, "p_worse": paired.p_worse}
        return found


@dataclass(frozen=True, eq=False)
class Assessor:
    """Scores predictions against the gold labels.

    ``resamples`` has the draws of each metric. ``weights`` (N,) applies to every score and
    interval; None gives all rows the same weight.
    """

    gold: Ints
    criteria: Criteria
    resamples: tuple[Resamples, ...]
    weights: NDArray[np.float64] | None = None

    def assess(self, predicted: Predicted) -> Assessment:
        """Score probabilities and labels, independently of each other."""
        measured = []
        for metric, resamples in zip(self.criteria.metrics, self.resamples, strict=True):
            drawn = replicate(metric, self.gold, predicted, resamples, self.weights)
            value = metric.score(self.gold, predicted, self.weights)
            measured.append(Measured(metric.kind, Score(value, *bound(drawn)), drawn))
        return Assessment(tuple(measured))

    def assess_all(self, systems: Mapping[str, Predicted]) -> dict[str, Assessment]:
        """Score several systems in parallel threads; results equal those of ``assess``."""
        return dict(zip(systems, map_in_threads(self.assess, systems.values()), strict=True))


def compare(first: Assessment, second: Assessment) -> PairedScores:
    """Return first minus second, paired by bootstrap draw; both come from the same assessor."""
    both = list(zip(first.measured, second.measured, strict=True))
    return PairedScores(
        tuple(a.kind for a, _ in both),
        tuple(pair(a.score.value - b.score.value, a.replicates - b.replicates) for a, b in both),
    )


def build_assessor(
    gold: Ints,
    criteria: Criteria,
    groups: Ints,
    *,
    seed: int,
    weights: NDArray[np.float64] | None = None,
) -> Assessor:
    """Build an assessor that scores any number of systems on the same rows.

    Args:
        groups: (N,) group of each row; the bootstrap resamples groups.
        weights: (N,) for every score and interval; None gives all rows the same weight.
    """
    resamples = tuple(
        build_resamples(groups, replicates=count_replicates(metric), seed=seed)
        for metric in criteria.metrics
    )
    return Assessor(gold, criteria, resamples, weights)


@dataclass(frozen=True, slots=True)
class Side:
    """Summary of a system's predictions on one side, out-of-fold or test.

    ``label_shares`` holds the share of rows predicted as each label, in label order;
    ``confidence`` is the mean probability of each row's most probable label.
    """

    positive_share: float
    confidence: float
    label_shares: tuple[float, ...]
    n_rows: int


def measure_side(predicted: Predicted, negative_ids: Negatives) -> Side:
    """Summarise predictions on one side: label shares and mean confidence."""
    probs, pred = predicted
    shares = measure_shares(pred, probs.shape[1])
    positive = 1.0 - sum(shares[label_id] for label_id in negative_ids)
    confidence = float(probs.max(axis=1).mean(dtype=np.float64))
    return Side(positive, confidence, shares, len(pred))


def measure_shares(label_ids: Ints, n_labels: int) -> tuple[float, ...]:
    """Return the share of rows with each label, in label order."""
    counts = np.bincount(label_ids, minlength=n_labels)
    return tuple(float(count) / len(label_ids) for count in counts)
