"""What a metric is: its names, a decision rule, and how it is computed from predictions.

A metric is computed in one of two ways. ``SumsKernel``: each row adds to a few sums, and the score
is a function of these; weighted rows, bootstrap replicates and expected scores only need other
sums. ``CurveKernel``: the mean over labels of an area that depends on the order of the rows.
Scores are oriented so that higher is better: a loss is negated here and shown as it is.

Legend: N rows, C labels, k sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Float64s, Floats, Ints
from competition.console import Column, Kind

DenseOrSparse = Any
"""(N, k) counts: an array, or a SciPy CSR matrix where k is large."""

Predicted = tuple[Floats, Ints]
"""(N, C) probabilities and (N,) label ids of one system."""

Weigher = Callable[[Float64s], float]
"""A system's score as a function of (N,) row weights."""

Figure = Literal["score", "interval", "difference", "spread"]
"""What a column shows of a metric."""

UNKNOWN = "–"
"""Stands for a score that is None or NaN, as in tables."""

RuleKind = Literal["threshold", "prior", "argmax"]
"""How probabilities become labels: see ``scoring.decisions``."""


@dataclass(frozen=True)
class Task:
    """What a metric is computed for.

    Attributes:
        n_labels: C.
        negative_ids: labels that F1 does not count.
        counted: labels that F1 counts; None: all but the negative ones.
        merged: groups of counted labels that are one class in an average over classes; a hit still
            needs the same label.
        averaged: classes in a mean over classes: those with a gold row, those seen (with a gold or
            a predicted row), or all.
    """

    n_labels: int
    negative_ids: tuple[int, ...] = ()
    counted: tuple[int, ...] | None = None
    merged: tuple[tuple[int, ...], ...] = ()
    averaged: Literal["gold", "seen", "all"] = "seen"

    @property
    def counted_ids(self) -> tuple[int, ...]:
        """Return the labels that F1 counts, ascending."""
        if self.counted is not None:
            return self.counted
        return tuple(i for i in range(self.n_labels) if i not in self.negative_ids)


class SumsKernel(Protocol):
    """A score that is a function of sums over rows."""

    def count(self, gold: Ints, predicted: Predicted) -> DenseOrSparse:
        """Return (N, k) what each row adds to the sums."""
        ...

    def combine(self, sums: Float64s) -> Float64s:
        """Turn (…, k) sums into (…) scores."""
        ...


@runtime_checkable
class CurveKernel(Protocol):
    """A mean over labels of an area that depends on the order of the rows.

    See ``curve`` for segments.
    """

    def measure_areas(self, gold: Ints, probs: Floats, weights: Floats | None) -> Float64s:
        """Return (C,) areas; NaN for a label without a gold row."""
        ...

    def combine(self, sums: Float64s, hits: Float64s) -> Float64s:
        """Return (R,) areas from (2D + 1, R) weights of segments and (D, R) of gold rows."""
        ...


@dataclass(frozen=True)
class MetricKind:
    """A metric, without the labels of a competition.

    Attributes:
        name: in a profile.
        key: of its value by itself: in the ledger, in tables, in provenance.
        short: in compound keys such as ``nested_f1`` and ``public_f1``.
        title: in sentences.
        head: in table heads.
        reads: what it is computed from.
        build: makes the kernel for a competition's labels.
        rule: the decision rule that suits it; ``threshold`` needs a negative label.
        bounds: lowest and highest score, higher being better.
    """

    name: str
    key: str
    short: str
    title: str
    head: str
    reads: Literal["labels", "probabilities"]
    build: Callable[[Task], SumsKernel | CurveKernel]
    rule: RuleKind = "argmax"
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def is_loss(self) -> bool:
        """Return whether it is shown negated, as a loss."""
        return self.bounds[1] <= 0.0

    def show(self, score: float) -> float:
        """Return a score as people and leaderboards write it; its own inverse.

        >>> from competition.scoring.metrics.catalogue import METRICS
        >>> METRICS["log-loss"].show(-0.4), METRICS["log-loss"].show(0.0)
        (0.4, 0.0)
        """
        return 0.0 - score if self.is_loss else score  # a perfect loss is 0, not -0

    def show_ends(self, low: float, high: float) -> tuple[float, float]:
        """Return both ends of an interval as people write them."""
        return (0.0 - high, 0.0 - low) if self.is_loss else (low, high)

    def write(self, score: float | None) -> str:
        """Write a score for a person: ×100, a loss as it is, a dash if it is unknown.

        >>> from competition.scoring.metrics.catalogue import METRICS
        >>> METRICS["accuracy"].write(0.7153), METRICS["log-loss"].write(-0.4321)
        ('71.53', '0.4321')
        >>> METRICS["auprc"].write(float("nan")), METRICS["log-loss"].write(None)
        ('–', '–')
        """
        if score is None or math.isnan(score):
            return UNKNOWN
        return f"{self.show(score):.4f}" if self.is_loss else f"{100 * score:.2f}"

    def write_difference(self, difference: float) -> str:
        """Write a difference of two scores with its sign, as people read it.

        >>> from competition.scoring.metrics.catalogue import METRICS
        >>> METRICS["accuracy"].write_difference(0.012), METRICS["log-loss"].write_difference(0.012)
        ('+1.20', '-0.0120')
        >>> METRICS["log-loss"].write_difference(0.0)
        '+0.0000'
        """
        if math.isnan(difference):
            return UNKNOWN
        return f"{self.show(difference):+.4f}" if self.is_loss else f"{100 * difference:+.2f}"

    def column(
        self, key: str, header: str, figure: Figure = "score", *, begins_part: bool = False
    ) -> Column:
        """Return a table's column of a figure of this metric: ×100, a loss as it is."""
        plain: Mapping[Figure, Kind] = {
            "score": "plain_score",
            "interval": "plain_interval",
            "difference": "plain_difference",
            "spread": "plain_spread",
        }
        return Column(key, header, plain[figure] if self.is_loss else figure, begins_part)

    def accepts(self, shown: float) -> bool:
        """Return whether a leaderboard can show this value."""
        low, high = self.bounds
        return low <= self.show(shown) <= high


@dataclass(frozen=True)
class Metric:
    """A metric of one competition: its kind, and one of two kernels."""

    kind: MetricKind
    sums: SumsKernel | None = None
    curve: CurveKernel | None = None

    def score(self, gold: Ints, predicted: Predicted, weights: Floats | None = None) -> float:
        """Score predictions of N rows, higher being better.

        Args:
            weights: (N,) non-negative weight of each row; None counts each row once.
        """
        if self.sums is not None:
            counts = self.sums.count(gold, predicted)
            return float(self.sums.combine(sum_counts(counts, weights)))
        return mean_area(self.measure_areas(gold, predicted[0], weights))

    def weigher(self, gold: Ints, predicted: Predicted) -> Weigher:
        """Return the score as a function of row weights, to try many of them."""
        if self.sums is None:
            return lambda weights: self.score(gold, predicted, weights)
        kernel, counts = self.sums, self.sums.count(gold, predicted)
        counts = counts if _is_sparse(counts) else counts.astype(float)
        return lambda weights: float(kernel.combine(np.asarray(weights @ counts)))

    def measure_areas(
        self, gold: Ints, probs: Floats, weights: Floats | None = None
    ) -> NDArray[np.float64]:
        """Return (C,) areas under the labels' curves, of a metric that is their mean."""
        assert self.curve is not None
        return self.curve.measure_areas(gold, probs, weights)


def mean_area(areas: Float64s) -> float:
    """Return the mean of (C,) areas without the NaN among them; NaN if there is no other."""
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if len(known) else float("nan")


def sum_counts(counts: DenseOrSparse, weights: Floats | None) -> Float64s:
    """Return the (k,) sums over rows, weighted or not."""
    if _is_sparse(counts):
        ones = np.ones(counts.shape[0]) if weights is None else np.asarray(weights, np.float64)
        return np.asarray(ones @ counts, dtype=np.float64)
    if weights is None:
        return np.asarray(counts.sum(axis=0), dtype=np.float64)
    if counts.dtype == np.bool_:
        return np.array([weights[column].sum(dtype=np.float64) for column in counts.T])
    return np.array([(weights * column).sum(dtype=np.float64) for column in counts.T])


def spread_counts(places: Sequence[Ints], size: int) -> DenseOrSparse:
    """Return (N, size) sparse counts to which a row adds 1 at each of its places.

    Args:
        places: of every row, (N,) each; below 0 adds nothing.
        size: k.
    """
    from scipy.sparse import csr_matrix

    columns = np.stack(places, axis=1)
    is_used = columns >= 0
    ends = np.append(0, np.cumsum(is_used.sum(axis=1)))
    ones = np.ones(int(ends[-1]))
    return csr_matrix((ones, columns[is_used], ends), (len(columns), size))


def _is_sparse(counts: DenseOrSparse) -> bool:
    return not isinstance(counts, np.ndarray)


def divide(above: Float64s, below: Float64s) -> Float64s:
    """Divide arrays of one shape; x/0 is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=below > 0)
