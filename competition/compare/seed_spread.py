"""How far scores differ between seeds, and intervals that include it.

A bootstrap over rows holds the models fixed: it does not know that another seed would give another
model. Where variants of the store have results of several seeds, the variance of a fold's score
between seeds is pooled over folds and variants of one learner, and added to that of the bootstrap.
Jobs are scored on the kind of rows that are compared: those of a route where a specialist is.

Legend: N train rows, K folds compared, S seeds averaged in a fold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from competition.arrays import Bools, Float64s
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
        unknown: the contenders whose seeds vary by an unknown amount, which is left out.
    """

    deviations: Float64s
    freedom: int
    variants: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def measure_seed_spreads(
    prepared: Prepared,
    store: Store,
    weightings: Sequence[Float64s | None],
    part: Bools,
    learners: Collection[str],
) -> list[dict[str, SeedSpread]]:
    """Measure the spread of the variants that have several seeds of a fold.

    Results that do not belong to these rows, imported tables, whose seeds mean nothing, and
    variants that do not predict every row of the part are left out: a specialist's scores vary
    more than those of whole folds.

    Args:
        weightings: of the train rows in the scores, (N,) each; None counts each row once.
        part: (N,) bool, the train rows that both contenders predict when all folds are trained.
        learners: only variants with one of these.

    Returns:
        For each weighting, the spread of each variant by its name.
    """
    scorer = _Scorer(prepared, weightings, part)
    found: list[dict[str, SeedSpread]] = [{} for _ in weightings]
    for name in store.variants():
        by_fold: dict[int, list[ResultKey]] = {}
        for key in store.keys(name):
            by_fold.setdefault(key.fold, []).append(key)
        several = [
            keys for fold, keys in by_fold.items() if len(keys) > 1 and scorer.has_rows(fold)
        ]
        with suppress(HarnessError):  # a damaged file, or one of other rows, folds or routes
            if not several:
                continue
            learner, predicted = _find_learner(prepared, store, store.keys(name))
            if learner is None or learner not in learners or (part & ~predicted).any():
                continue
            freedom = sum(len(keys) - 1 for keys in several)
            squares = [_sum_squares(scorer, store, keys) for keys in several]
            variances = np.sum(squares, axis=0) / freedom
            for spreads, of_metrics in zip(found, variances, strict=True):
                spreads[name] = SeedSpread(of_metrics, freedom, (name,), learner)
    return found


def _sum_squares(scorer: _Scorer, store: Store, keys: Sequence[ResultKey]) -> Float64s:
    """Return the squared deviations from the mean over a fold's seeds: (weightings, metrics)."""
    scores = np.array([scorer.score(store.read(key)) for key in keys])
    squares: Float64s = ((scores - scores.mean(axis=0)) ** 2).sum(axis=0)
    return squares


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
    variances, parts, unknown = [], [], []
    for each in contenders:
        own = pool_spreads([spreads[each.name]]) if each.name in spreads else None
        kindred = [spread for spread in spreads.values() if spread.learner == each.learner]
        spread = own or pool_spreads(kindred)
        if not each.seed_counts:
            continue
        if spread is None:
            unknown.append(each.name)
            continue
        variances.append(spread.vary(each.seed_counts))
        parts.append(spread)
    if not parts:
        return None
    names = sorted({name for part in parts for name in part.variants})
    deviations, freedom = np.sqrt(np.sum(variances, axis=0)), min(p.freedom for p in parts)
    return SeedEffect(deviations, freedom, tuple(names), tuple(unknown))


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


def _find_learner(
    prepared: Prepared, store: Store, keys: Sequence[ResultKey]
) -> tuple[str | None, Bools]:
    """Check a variant's results, and return its learner and which train rows it predicts.

    The learner is None if the variant was imported as a table.

    Raises:
        PredictionsError: a file is damaged, or of other data or folds.
        FoldsError: the length routes are gone.
    """
    headers = [(store.path(key), header) for key in keys if (header := store.read_header(key))]
    predicted = check_belongs(headers, prepared).train
    described = headers[0][1].variant
    learner = None if described.get("imported") else str(described.get("learner", NETWORK))
    return learner, predicted


class _Scorer:
    """Scores jobs on their held-out rows, as far as these are in the part."""

    def __init__(
        self, prepared: Prepared, weightings: Sequence[Float64s | None], part: Bools
    ) -> None:
        self._metrics = build_criteria(prepared.competition.profile).metrics
        self._gold, self._weightings = prepared.corpus.train.gold.astype(np.int64), weightings
        self._row_of = {row_id: row for row, row_id in enumerate(prepared.corpus.train.ids)}
        self._part, self._folds = part, set(prepared.folds.fold_of[part].tolist())

    def has_rows(self, fold: int) -> bool:
        """Return whether any row of a fold is in the part."""
        return fold in self._folds

    def score(self, result: Result) -> Float64s:
        """Return the score under each weighting by each metric."""
        rows = np.array([self._row_of[row_id] for row_id in result.oof_ids])
        probs = result.oof_probs[self._part[rows]]
        rows, predicted = rows[self._part[rows]], (probs, decide(probs))
        own = [None if each is None else each[rows] for each in self._weightings]
        gold = self._gold[rows]
        return np.array([[m.score(gold, predicted, w) for m in self._metrics] for w in own])
