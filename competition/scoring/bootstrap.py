"""Bootstrap confidence intervals for scores and for the difference of two scores.

Replicates resample whole groups of rows that share a sentence or an entity pair (a cluster
bootstrap), because predictions within a group tend to be right or wrong together. A paired
comparison uses the same draws for both systems.

Legend: N rows, C labels, D distinct scores of a label's gold rows, G groups, R replicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.scoring.metrics.curve import place_in_segments
from competition.scoring.metrics.metric import CurveKernel, Metric, Predicted, SumsKernel

LEVEL = 0.95
SUM_REPLICATES = 1000  # of a metric of sums
CURVE_REPLICATES = 200  # of a metric of curves, which takes longer
BOOTSTRAP_SEED = 0  # the default of `blend`, so that all commands show the same interval
MAX_KEPT_CELLS = 2**25  # R × G uint16 group counts kept for the next system: 64 MB
CHUNK_CELLS = 400_000  # R × G float64 group counts in memory at once: 3 MB, about a core's cache


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws of groups with replacement, reproducible from a seed.

    The draws are kept for the next systems that are scored on the same groups; those of a large
    competition would not fit in memory, so each iteration generates them again.
    """

    group_of: NDArray[np.int64]
    n_groups: int
    replicates: int
    seed: int

    def chunks(self) -> Iterator[NDArray[np.float64]]:
        """Yield (r, G) float64 counts of how often each group is drawn; the r add up to R."""
        size = max(1, CHUNK_CELLS // self.n_groups)
        if self.replicates * self.n_groups <= MAX_KEPT_CELLS:
            kept = _draw_all(self.n_groups, self.replicates, self.seed)
            for start in range(0, self.replicates, size):
                yield kept[start : start + size].astype(np.float64)
            return
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.replicates, size):
            counts = np.empty((min(size, self.replicates - start), self.n_groups))
            _draw(rng, counts)
            yield counts


@lru_cache(maxsize=2)
def _draw_all(n_groups: int, replicates: int, seed: int) -> NDArray[np.uint16]:
    """Return (R, G) counts of how often each group is drawn."""
    counts = np.empty((replicates, n_groups), dtype=np.uint16)
    _draw(np.random.default_rng(seed), counts)
    return counts


def _draw(rng: np.random.Generator, counts: NDArray[Any]) -> None:
    """Fill (r, G) with counts of how often each of G groups is drawn in G draws."""
    n_groups = counts.shape[1]
    for row in counts:
        row[:] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)


def build_resamples(groups: Ints, *, replicates: int, seed: int) -> Resamples:
    """Set up bootstrap draws of whole groups.

    Args:
        groups: (N,) any integer per row; rows with the same one are drawn together.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    return Resamples(group_of.astype(np.int64), len(names), replicates, seed)


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference A minus B with its 95% interval, on the same bootstrap draws.

    ``p_worse`` is the share of replicates in which A scores no higher than B.
    """

    difference: float
    low: float
    high: float
    p_worse: float


def count_replicates(metric: Metric) -> int:
    """Return how many replicates a metric gets."""
    return SUM_REPLICATES if metric.sums is not None else CURVE_REPLICATES


def replicate(
    metric: Metric,
    gold: Ints,
    predicted: Predicted,
    resamples: Resamples,
    weights: Floats | None = None,
) -> NDArray[np.float64]:
    """Compute a metric exactly in each bootstrap replicate.

    Args:
        metric: of sums, or a mean over labels' curves; labels that were not drawn are left out of
            that mean.
        weights: (N,) row weights, the same in every replicate.

    Returns:
        (R,) float64.
    """
    if metric.sums is not None:
        counts = metric.sums.count(gold, predicted)
        return replicate_sums(metric.sums, counts, resamples, weights)
    assert metric.curve is not None
    areas = replicate_areas(metric.curve, gold, predicted[0], resamples, weights)
    known = ~np.isnan(areas)
    means: NDArray[np.float64] = np.where(known, areas, 0.0).sum(axis=0) / known.sum(axis=0)
    return means


def replicate_sums(
    kernel: SumsKernel, counts: Any, resamples: Resamples, weights: Floats | None = None
) -> NDArray[np.float64]:
    """Compute a score of sums in each replicate, (R,) float64.

    Args:
        counts: (N, k) from its ``count``.
    """
    per_group = _sum_groups(counts, resamples, weights)
    if isinstance(per_group, np.ndarray):
        # einsum sums in the same order for any number of threads; a matrix product may not
        sums = (np.einsum("rg,cg->rc", drawn, per_group) for drawn in resamples.chunks())
    else:
        sums = (
            np.asarray(per_group @ np.ascontiguousarray(drawn.T)).T for drawn in resamples.chunks()
        )
    return np.concatenate([kernel.combine(each) for each in sums])


def _sum_groups(counts: Any, resamples: Resamples, weights: Floats | None) -> Any:
    """Return (k, G) sums of each group's rows: an array, or a CSR matrix of counts."""
    if not isinstance(counts, np.ndarray):
        from scipy.sparse import csr_matrix

        n_rows = counts.shape[0]
        values = np.ones(n_rows) if weights is None else np.asarray(weights, dtype=np.float64)
        shape = (resamples.n_groups, n_rows)
        members = csr_matrix((values, (resamples.group_of, np.arange(n_rows))), shape)
        return (members @ counts).T.tocsr()
    columns = [
        np.bincount(
            resamples.group_of, column if weights is None else column * weights, resamples.n_groups
        )
        for column in counts.T
    ]
    return np.stack(columns).astype(np.float64)


def replicate_areas(
    kernel: CurveKernel,
    gold: Ints,
    probs: Floats,
    resamples: Resamples,
    weights: Floats | None = None,
) -> NDArray[np.float64]:
    """Compute the exact area under each label's curve in each bootstrap replicate.

    Rows are placed once into segments at and between the gold scores of a label. A replicate only
    changes the weight of each segment, so it takes one sparse product of segments and groups.

    Returns:
        (L, R) float64 for the L labels with a gold row, in label order; NaN where none was drawn.
    """
    from scipy.sparse import csr_matrix

    weight = np.ones(len(gold)) if weights is None else np.asarray(weights, dtype=np.float64)
    curves = []
    for label_id, scores in enumerate(np.ascontiguousarray(np.asarray(probs).T)):
        is_gold = gold == label_id
        if not is_gold.any():
            continue
        segment, n_segments = place_in_segments(scores, is_gold)
        group = resamples.group_of
        shape = (n_segments, resamples.n_groups)
        is_used = segment > 0  # rows below the lowest gold score do not affect the curve
        sums = csr_matrix((weight[is_used], (segment[is_used], group[is_used])), shape)
        hits = csr_matrix((weight[is_gold], (segment[is_gold], group[is_gold])), shape)
        curves.append((sums, hits[1::2]))
    areas = []
    for counts in resamples.chunks():
        drawn = np.ascontiguousarray(counts.T)
        products = ((np.asarray(sums @ drawn), np.asarray(hits @ drawn)) for sums, hits in curves)
        areas.append(np.stack([kernel.combine(sums, hits) for sums, hits in products]))
    return np.concatenate(areas, axis=1)


def compare_pair(
    metric: Metric,
    gold: Ints,
    systems: tuple[Predicted, Predicted],
    resamples: Resamples,
    weights: Floats | None = None,
) -> Paired:
    """Compare systems A and B by a metric; ``systems`` is (A, B)."""
    first, second = (replicate(metric, gold, each, resamples, weights) for each in systems)
    a, b = (metric.score(gold, each, weights) for each in systems)
    return pair(a - b, first - second)


def bound(replicates: NDArray[np.float64]) -> tuple[float, float]:
    """Return the two-sided 95% percentile interval of replicates (R,)."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def pair(difference: float, replicates: NDArray[np.float64]) -> Paired:
    """Attach the 95% interval of its replicates (R,) to a difference."""
    low, high = bound(replicates)
    return Paired(difference, low, high, float((replicates <= 0).mean()))
