"""How far scores differ between seeds, and intervals that include it.

A bootstrap over rows holds the models fixed: it does not know that another seed would give another
model. Where variants of the store have results of several seeds, the variance of a fold's score
between seeds is pooled over folds and variants of one learner, and added to that of the bootstrap.

Legend: K folds compared, S seeds averaged in a fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from competition.arrays import Float64s
from competition.compare.contenders import NETWORK, Contender
from competition.errors import HarnessError
from competition.folds.kfold import Prepared
from competition.predictions.belonging import check_belongs
from competition.predictions.store import Result, ResultKey, Store
from competition.scoring.bootstrap import LEVEL, Paired
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide

MIN_FREEDOM = 2
"""Degrees of freedom of a variance, below which it says nothing."""


@dataclass(frozen=True)
class SeedSpread:
    """Variances of one fold's scores between seeds, one for each metric.

    Attributes:
        variances: of the scores of a single seed on a single fold.
        freedom: degrees of freedom: over folds, the number of seeds less one.
        variants: which have several seeds.
        learner: of these.
    """

    variances: Float64s
    freedom: int
    variants: tuple[str, ...]
    learner: str

    def vary(self, seed_counts: Sequence[int]) -> Float64s:
        """Return the variance of each score over K folds, given S of each fold."""
        share = sum(1 / count for count in seed_counts) / len(seed_counts) ** 2
        return self.variances * share


@dataclass(frozen=True)
class SeedEffect:
    """The standard deviation that seeds give the difference of two contenders.

    Attributes:
        deviations: one for each metric.
        freedom: degrees of freedom of their variances.
        variants: with several seeds, from which they are known.
    """

    deviations: Float64s
    freedom: int
    variants: tuple[str, ...]


def measure_seed_spreads(
    prepared: Prepared, store: Store, weights: Float64s | None = None
) -> dict[str, SeedSpread]:
    """Measure the spread of every variant that has several seeds of a fold, by name.

    Results that do not belong to these rows, and imported tables, whose seeds mean nothing, are
    left out.

    Args:
        weights: (N,) of the train rows in the scores; None counts each once.
    """
    scorer = _Scorer(prepared, weights)
    found = {}
    for name in store.variants():
        by_fold: dict[int, list[ResultKey]] = {}
        for key in store.keys(name):
            by_fold.setdefault(key.fold, []).append(key)
        several = [keys for keys in by_fold.values() if len(keys) > 1]
        with suppress(HarnessError):  # a damaged file, or one of other rows, folds or routes
            learner = _find_learner(prepared, store, store.keys(name)) if several else None
            if learner is not None:
                found[name] = _measure((name, learner), scorer, store, several)
    return found


def _measure(
    named: tuple[str, str], scorer: _Scorer, store: Store, several: Sequence[Sequence[ResultKey]]
) -> SeedSpread:
    """Measure the spread over folds with several seeds, given the results of each fold.

    Args:
        named: the variant and its learner.
    """
    name, learner = named
    squares, freedom = [], 0
    for keys in several:
        scores = np.array([scorer.score(store.read(key)) for key in keys])
        squares.append(((scores - scores.mean(axis=0)) ** 2).sum(axis=0))
        freedom += len(keys) - 1
    return SeedSpread(np.sum(squares, axis=0) / freedom, freedom, (name,), learner)


def pool_spreads(spreads: Sequence[SeedSpread]) -> SeedSpread | None:
    """Pool variances by their degrees of freedom; None if these are too few."""
    freedom = sum(each.freedom for each in spreads)
    if freedom < MIN_FREEDOM:
        return None
    total = sum(each.freedom * each.variances for each in spreads)
    return SeedSpread(
        np.asarray(total / freedom),
        freedom,
        tuple(name for each in spreads for name in each.variants),
        spreads[0].learner,
    )


def combine_spreads(
    contenders: Sequence[Contender], spreads: Mapping[str, SeedSpread]
) -> SeedEffect | None:
    """Return how far the seed moves the difference of two contenders; None if it is unknown.

    A variant with several seeds has its own variance, another that of all variants with its
    learner. A blend, or an imported table, has no seed, and adds nothing.
    """
    variances, parts = [], []
    for each in contenders:
        own = pool_spreads([spreads[each.name]]) if each.name in spreads else None
        kindred = [spread for spread in spreads.values() if spread.learner == each.learner]
        spread = own or pool_spreads(kindred)
        if spread is not None and each.seed_counts:
            variances.append(spread.vary(each.seed_counts))
            parts.append(spread)
    if not parts:
        return None
    names = sorted({name for part in parts for name in part.variants})
    deviations, freedom = np.sqrt(np.sum(variances, axis=0)), min(p.freedom for p in parts)
    return SeedEffect(deviations, freedom, tuple(names))


def widen(differences: Sequence[Paired], effect: SeedEffect | None) -> list[Paired]:
    """Return differences, one for each metric, with intervals that include the seed.

    >>> effect = SeedEffect(np.array([0.003]), 8, ("a",))
    >>> (wide,) = widen([Paired(0.01, 0.006, 0.014, 0.0)], effect)
    >>> round(wide.low, 4), round(wide.high, 4), round(wide.p_worse, 3)
    (0.002, 0.018, 0.003)
    """
    if effect is None:
        return list(differences)
    return [
        _widen(each, float(deviation), effect.freedom) if deviation else each
        for each, deviation in zip(differences, effect.deviations, strict=True)
    ]


def _widen(paired: Paired, deviation: float, freedom: int) -> Paired:
    """Add both half-widths in quadrature, that of the seeds from Student's t."""
    seeds = float(t.ppf((1 + LEVEL) / 2, freedom)) * deviation
    below, above = paired.difference - paired.low, paired.high - paired.difference
    rows = (below + above) / 2 / float(norm.ppf((1 + LEVEL) / 2))
    return Paired(
        paired.difference,
        paired.difference - float(np.hypot(below, seeds)),
        paired.difference + float(np.hypot(above, seeds)),
        float(norm.cdf(-paired.difference / np.hypot(rows, deviation))),
    )


def _find_learner(prepared: Prepared, store: Store, keys: Sequence[ResultKey]) -> str | None:
    """Check a variant's results, and return its learner; None if it was imported as a table.

    Raises:
        PredictionsError: a file is damaged, or of other data or folds.
        FoldsError: the length routes are gone.
    """
    headers = [(store.path(key), header) for key in keys if (header := store.read_header(key))]
    check_belongs(headers, prepared)
    described = headers[0][1].variant
    return None if described.get("imported") else str(described.get("learner", NETWORK))


class _Scorer:
    """Scores jobs on their held-out rows."""

    def __init__(self, prepared: Prepared, weights: Float64s | None) -> None:
        self.criteria = build_criteria(prepared.competition.profile)
        self._gold, self._weights = prepared.corpus.train.gold.astype(np.int64), weights
        self._row_of = {row_id: row for row, row_id in enumerate(prepared.corpus.train.ids)}

    def score(self, result: Result) -> Float64s:
        """Return the score by each metric."""
        rows = np.array([self._row_of[row_id] for row_id in result.oof_ids])
        weights = None if self._weights is None else self._weights[rows]
        predicted = result.oof_probs, decide(result.oof_probs)
        metrics = self.criteria.metrics
        return np.array([each.score(self._gold[rows], predicted, weights) for each in metrics])
