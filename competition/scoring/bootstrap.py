"""Say how far a score, or the difference of two scores, may be trusted.

Stands beside ``metrics``: whatever is scored there gets its bootstrap interval here. Replicates
resample groups of rows that share a sentence or an entity pair, because rows of one group are
right or wrong together; a comparison draws the same groups for both sides.

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
BOOTSTRAP_SEED = 0  # as `blend` draws at its default, so that all show one interval
CHUNK_CELLS = 400_000  # group counts held at once, R × G float64: 3 MB, about a core's cache


@dataclass(frozen=True)
class Resamples:
    """Groups drawn with replacement, the same draws for whoever asks again.

    Draws are made afresh from the seed each time and never kept: R × G counts of a large
    competition would not fit in memory.
    """

    group_of: NDArray[np.int64]
    n_groups: int
    replicates: int
    seed: int

    def chunks(self) -> Iterator[NDArray[np.float64]]:
        """Yield (r, G) float64 counts: how often each group is drawn; r sums to R."""
        rng = np.random.default_rng(self.seed)
        size = max(1, CHUNK_CELLS // self.n_groups)
        for start in range(0, self.replicates, size):
            counts = np.empty((min(size, self.replicates - start), self.n_groups))
            for row in counts:
                drawn = rng.integers(self.n_groups, size=self.n_groups)
                row[:] = np.bincount(drawn, minlength=self.n_groups)
            yield counts


def build_resamples(groups: Ints, *, replicates: int, seed: int) -> Resamples:
    """Prepare bootstrap replicates of whole groups.

    Args:
        groups: (N,) any integer per row; rows with the same one are drawn together.
        replicates: R, how many draws.
        seed: of the draws.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    return Resamples(group_of.astype(np.int64), len(names), replicates, seed)


@dataclass(frozen=True, slots=True)
class Paired:
    """A minus B on the same draws: the difference, its 95% interval, and how often A is no better.

    ``p_worse`` is the share of replicates in which A scores no higher than B.
    """

    difference: float
    low: float
    high: float
    p_worse: float


def f1_replicates(
    hits: NDArray[np.bool_], resamples: Resamples, weights: Floats | None = None
) -> NDArray[np.float64]:
    """Score each bootstrap replicate by micro-F1.

    Args:
        hits: (N, 3) from ``count_hits``.
        resamples: over the same N rows.
        weights: (N,) kept as they are in every replicate.

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
    # einsum sums in one order whatever the number of threads, a matrix product need not
    sums = (np.einsum("rg,cg->rc", counts, per_group) for counts in resamples.chunks())
    return np.concatenate([f1_from_sums(each) for each in sums])


def paired_f1(
    gold: Ints,
    preds: tuple[Ints, Ints],
    negative_id: int | None,
    resamples: Resamples,
    weights: Floats | None = None,
) -> Paired:
    """Compare two systems' labels by micro-F1 on the same draws; ``preds`` is (A, B)."""
    hits = [count_hits(gold, pred, negative_id) for pred in preds]
    first, second = (f1_replicates(h, resamples, weights) for h in hits)
    a, b = (micro_f1(gold, pred, negative_id, weights) for pred in preds)
    return pair(a - b, first - second)


def auprc_replicates(
    gold: Ints, probs: Floats, resamples: Resamples, weights: Floats | None = None
) -> NDArray[np.float64]:
    """Score each bootstrap replicate by AUPRC, exactly; labels not drawn are left out of its mean.

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
    """Measure the area under each label's curve in each bootstrap replicate, exactly.

    Rows fall into segments between and at the gold scores of a label once; a replicate only
    changes how much each segment weighs, which is one sparse product of segments and groups.

    Returns:
        (L, R) float64 of the L labels with a gold row, in their order; NaN where none was drawn.
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
        felt = segment > 0  # rows below the lowest gold score touch no point of the curve
        sums = csr_matrix((weight[felt], (segment[felt], group[felt])), shape)
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
    """Compare two systems' probabilities by AUPRC on the same draws; ``probs`` is (A, B)."""
    first, second = (auprc_replicates(gold, p, resamples, weights) for p in probs)
    a, b = (auprc(gold, p, weights) for p in probs)
    return pair(a - b, first - second)


def bound(replicates: NDArray[np.float64]) -> tuple[float, float]:
    """Return the two-sided 95% percentile interval of replicates (R,)."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def pair(difference: float, replicates: NDArray[np.float64]) -> Paired:
    """Bound a difference by its replicates (R,), taken draw by draw."""
    low, high = bound(replicates)
    return Paired(difference, low, high, float((replicates <= 0).mean()))
