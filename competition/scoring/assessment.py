"""Evaluate predictions: micro-F1 and AUPRC with bootstrap intervals, and paired comparisons.

Used by ``fold``, ``board``, ``blend`` and ``compare``; rows may be weighted, as in the test
(``expected``). All systems share the same bootstrap draws, so any two can be compared.

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

MAX_WORKERS = 4  # each needs memory for several N × C arrays

Predicted = tuple[Floats, Ints]
"""(N, C) probabilities and (N,) label ids of one system."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score with its 95% bootstrap interval; groups of rows are resampled."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Assessment:
    """Micro-F1 and AUPRC of one system.

    ``f1_replicates`` and ``auprc_replicates`` (R,) are the bootstrap replicates behind the
    intervals.
    """

    f1: Score
    auprc: Score
    f1_replicates: NDArray[np.float64] = field(repr=False)
    auprc_replicates: NDArray[np.float64] = field(repr=False)

    def describe(self) -> dict[str, object]:
        """Return the scores as plain values, for JSON."""
        return {
            key: {"value": each.value, "low": each.low, "high": each.high}
            for key, each in (("f1", self.f1), ("auprc", self.auprc))
        }


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Differences of two systems in micro-F1 and AUPRC, on the same bootstrap draws."""

    f1: Paired
    auprc: Paired


@dataclass(frozen=True, eq=False)
class Assessor:
    """Scores predictions against the gold labels.

    ``weights`` (N,) applies to every score and interval; None gives all rows the same weight.
    """

    gold: Ints
    negative_id: int | None
    for_f1: Resamples
    for_auprc: Resamples
    weights: NDArray[np.float64] | None = None

    def assess(self, predicted: Predicted) -> Assessment:
        """Score probabilities by AUPRC and labels by micro-F1, independently of each other."""
        probs, pred = predicted
        hits = count_hits(self.gold, pred, self.negative_id)
        for_f1 = f1_replicates(hits, self.for_f1, self.weights)
        for_auprc = auprc_replicates(self.gold, probs, self.for_auprc, self.weights)
        return Assessment(
            Score(micro_f1(self.gold, pred, self.negative_id, self.weights), *bound(for_f1)),
            Score(auprc(self.gold, probs, self.weights), *bound(for_auprc)),
            for_f1,
            for_auprc,
        )

    def assess_all(self, systems: Mapping[str, Predicted]) -> dict[str, Assessment]:
        """Score several systems in parallel threads; results equal those of ``assess``."""
        with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as workers:
            return dict(zip(systems, workers.map(self.assess, systems.values()), strict=True))


def compare(first: Assessment, second: Assessment) -> PairedScores:
    """Return first minus second, paired by bootstrap draw; both come from the same assessor."""
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
    seed: int,
    weights: NDArray[np.float64] | None = None,
) -> Assessor:
    """Build an assessor that scores any number of systems on the same rows.

    Args:
        gold: (N,) label ids.
        negative_id: the label that micro-F1 does not count, or None.
        groups: (N,) group of each row; the bootstrap resamples groups.
        seed: of the bootstrap draws.
        weights: (N,) for every score and interval; None gives all rows the same weight.
    """
    return Assessor(
        gold,
        negative_id,
        build_resamples(groups, replicates=F1_REPLICATES, seed=seed),
        build_resamples(groups, replicates=AUPRC_REPLICATES, seed=seed),
        weights,
    )


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


def measure_side(predicted: Predicted, negative_id: int | None) -> Side:
    """Summarise predictions on one side: label shares and mean confidence."""
    probs, pred = predicted
    shares = measure_shares(pred, probs.shape[1])
    positive = 1.0 if negative_id is None else 1.0 - shares[negative_id]
    confidence = float(probs.max(axis=1).mean(dtype=np.float64))
    return Side(positive, confidence, shares, len(pred))


def measure_shares(label_ids: Ints, n_labels: int) -> tuple[float, ...]:
    """Return the share of rows with each label, in label order."""
    counts = np.bincount(label_ids, minlength=n_labels)
    return tuple(float(count) / len(label_ids) for count in counts)
