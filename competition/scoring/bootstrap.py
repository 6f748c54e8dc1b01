"""Bootstrap confidence intervals for scores and for the difference of two scores.

Replicates resample whole groups of rows that share a sentence or an entity pair (a cluster
bootstrap), because predictions within a group tend to be right or wrong together. A paired
comparison uses the same draws for both systems.

Legend: N rows, C labels, D distinct scores of a label's gold rows, G groups, R replicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.scoring.metrics import (
    auprc,
    count_hits,
    f1_from_sums,
    micro_f1,
    place_in_segments,
    weighted_areas,
)

LEVEL = 0.95
F1_REPLICATES = 1000
AUPRC_REPLICATES = 200
BOOTSTRAP_SEED = 0  # the default of `blend`, so that all commands show the same interval
CHUNK_CELLS = 400_000  # R × G float64 group counts in memory at once: 3 MB, about a core's cache


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws of groups with replacement, reproducible from a seed.

    Each iteration regenerates the draws: R × G counts of a large competition would not fit in
    memory.
    """

    group_of: NDArray[np.int64]
    n_groups: int
    replicates: int
    seed: int

    def chunks(self) -> Iterator[NDArray[np.float64]]:
        """Yield (r, G) float64 counts of how often each group is drawn; the r add up to R."""
        rng = np.random.default_rng(self.seed)
        size = max(1, CHUNK_CELLS // self.n_groups)
        for start in range(0, self.replicates, size):
            counts = np.empty((min(size, self.replicates - start), self.n_groups))
            for row in counts:
                drawn = rng.integers(self.n_groups, size=self.n_groups)
                row[:] = np.bincount(drawn, minlength=self.n_groups)
            yield counts


def build_resamples(groups: Ints, *, replicates: int, seed: int) -> Resamples:
    """Set up bootstrap draws of whole groups.

    Args:
        groups: (N,) any integer per row; rows with the same one are drawn together.
        replicates: R, how many draws.
        seed: of the draws.
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


def f1_replicates(
    hits: NDArray[np.bool_], resamples: Resamples, weights: Floats | None = None
) -> NDArray[np.float64]:
    """Compute micro-F1 in each bootstrap replicate.

    Args:
        hits: (N, 3) from ``count_hits``.
        resamples: over the same N rows.
        weights: (N,) row weights, the same in every replicate.

    Returns:
        (R,) float64.
    """
    columns = [
        np.bincount(
            resamples.group_of, column if weights is None else column * weights, resamples.n_groups
        )
        for column in hits.T
    ]
    per_group = np.stack(columns).astype(np.float64)
    # einsum sums in the same order for any number of threads; a matrix product may not
    sums = (np.einsum("rg,cg->rc", counts, per_group) for counts in resamples.chunks())
    return np.concatenate([f1_from_sums(each) for each in sums])


def paired_f1(
    gold: Ints,
    preds: tuple[Ints, Ints],
    negative_id: int | None,
    resamples: Resamples,
    weights: Floats | None = None,
) -> Paired:
    """Compare the labels of systems A and B by micro-F1; ``preds`` is (A, B)."""
    hits = [count_hits(gold, pred, negative_id) for pred in preds]
    first, second = (f1_replicates(h, resamples, weights) for h in hits)
    a, b = (micro_f1(gold, pred, negative_id, weights) for pred in preds)
    return pair(a - b, first - second)


def auprc_replicates(
    gold: Ints, probs: Floats, resamples: Resamples, weights: Floats | None = None
) -> NDArray[np.float64]:
    """Compute the exact AUPRC in each bootstrap replicate; its mean skips labels not drawn.

    Returns:
        (R,) float64.
    """
    areas = area_replicates(gold, probs, resamples, weights)
    known = ~np.isnan(areas)
    means: NDArray[np.float64] = np.where(known, areas, 0.0).sum(axis=0) / known.sum(axis=0)
    return means


def area_replicates(
    gold: Ints, probs: Floats, resamples: Resamples, weights: Floats | None = None
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
        areas.append(np.stack([weighted_areas(sums, hits) for sums, hits in products]))
    return np.concatenate(areas, axis=1)


def paired_auprc(
    gold: Ints,
    probs: tuple[Floats, Floats],
    resamples: Resamples,
    weights: Floats | None = None,
) -> Paired:
    """Compare the probabilities of systems A and B by AUPRC; ``probs`` is (A, B)."""
    first, second = (auprc_replicates(gold, p, resamples, weights) for p in probs)
    a, b = (auprc(gold, p, weights) for p in probs)
    return pair(a - b, first - second)


def bound(replicates: NDArray[np.float64]) -> tuple[float, float]:
    """Return the two-sided 95% percentile interval of replicates (R,)."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def pair(difference: float, replicates: NDArray[np.float64]) -> Paired:
    """Attach the 95% interval of its replicates (R,) to a difference."""
    low, high = bound(replicates)
    return Paired(difference, low, high, float((replicates <= 0).mean()))
