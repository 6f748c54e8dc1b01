"""Out-of-fold and expected test scores of the variants in the store, and their missing folds.

Shown by ``fold`` and ``board``, which both read ``VariantScore``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np

from competition.arrays import Float64s
from competition.errors import HarnessError, PredictionsError
from competition.folds.kfold import Prepared
from competition.predictions.expected_scores import (
    TestForecast,
    TestReader,
    build_test_reader,
    read_whole,
)
from competition.predictions.fold_scales import warn_of_scales
from competition.predictions.members import (
    Member,
    find_missing_folds,
    group_specialists,
    is_tuned_elsewhere,
    read_member,
    read_members,
)
from competition.predictions.store import Store, open_store
from competition.scoring.assessment import Assessment, Measured, build_assessor
from competition.scoring.bootstrap import BOOTSTRAP_SEED, pair
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide
from competition.scoring.expected import Expected
from competition.scoring.metrics.metric import MetricKind
from competition.threads import map_in_threads

MAX_KEPT_BYTES = 2**30
"""Of members while variants are scored: 120 of KLUE-RE."""


@dataclass(frozen=True, eq=False)
class OnTest:
    """The expected scores of a member on the test set.

    Attributes:
        expected: the scores.
        forecast: the estimated composition of the test set on which they are based.
        assessment: scores of the rows with the forecast's weights; its bootstrap replicates serve
            for differences between members.
    """

    expected: Expected
    forecast: TestForecast
    assessment: Assessment

    @property
    def rank_score(self) -> float:
        """Return the ranking criterion: the mean of the expected scores.

        The primary score alone if either is a loss, which has another scale.
        """
        primary, secondary = self.expected.primary.value, self.expected.secondary
        if secondary is None or not _are_averaged(self.assessment.measured):
            return primary
        return (primary + secondary) / 2

    def replicates(self) -> Float64s:
        """Return (R,) bootstrap replicates of ``rank_score``."""
        drawn = [each.replicates for each in self.assessment.measured]
        if not _are_averaged(self.assessment.measured):
            return drawn[0]
        size = min(map(len, drawn))  # all resample the same groups in the same order
        return (drawn[0][:size] + drawn[1][:size]) / 2


def _are_averaged(measured: Sequence[Measured]) -> bool:
    return average_names([each.kind for each in measured]) is not None


def average_names(kinds: Sequence[MetricKind]) -> str | None:
    """Name the metrics whose mean ranks variants, None where the primary one does alone."""
    if len(kinds) < 2 or any(kind.is_loss for kind in kinds):
        return None
    return f"{kinds[0].head} and {kinds[1].head}"


@dataclass(frozen=True, eq=False)
class VariantScore:
    """The scores and the progress of a variant, or of a route's specialists joined.

    Attributes:
        name: the name of the variant, or of a joined member such as ``route:length``.
        n_rows: the number of train rows that it predicts; all rows until that is known.
        why: the idea that it tests.
        missing: the folds without a result, for each seed with at least one.
        progress: the number of results and of all jobs of these seeds, None for a route.
        fault: why it cannot be a member although a seed has all folds, None if it can.
        route: the part of a specialist, such as ``length:short``.
        tuned_on: the folds on which its hyperparameters were chosen.
        is_tuned_elsewhere: those folds belong to another split.
        rows_per_s: the mean speed of its jobs, None if no job recorded it.
        warning: that its folds are on different scales; "" if they are not.
        assessment: scores by the most probable label, None without a complete seed or with a fault.
        on_test: expected test scores, None as above or if they cannot be estimated.
    """

    name: str
    n_rows: int
    why: str = ""
    missing: Mapping[int, Sequence[int]] = field(default_factory=dict)
    progress: tuple[int, int] | None = None
    fault: str | None = None
    route: str | None = None
    tuned_on: tuple[int, ...] = ()
    is_tuned_elsewhere: bool = False
    rows_per_s: int | None = None
    warning: str = ""
    assessment: Assessment | None = None
    on_test: OnTest | None = None

    @property
    def incomplete_seeds(self) -> list[int]:
        """Return the seeds with missing folds."""
        return [seed for seed, folds in self.missing.items() if folds]

    @property
    def lacks(self) -> str:
        """Describe what is missing, "" if nothing is.

        >>> VariantScore("a", 9, missing={42: (), 43: (3, 4)}).lacks
        'seed 43: folds 3, 4'
        """
        if self.fault is not None:
            return f"usable results: {self.fault}"
        if not self.missing:
            return "every fold"
        parts = [
            f"seed {seed}: folds {', '.join(map(str, self.missing[seed]))}"
            for seed in self.incomplete_seeds
        ]
        return "; ".join(parts)


def score_variants(
    prepared: Prepared, names: Sequence[str], members: Sequence[Member] = ()
) -> list[VariantScore]:
    """Score variants on the rows that they predict, and estimate their test scores.

    The composition of the test set is estimated from every complete variant in the store, and for a
    specialist's rows from its own predictions.

    Args:
        members: those that are read already, from the same store.

    Returns:
        One score for each name, in order, then one for each set of specialists among them that
        together predict every row.
    """
    scorer = _MemberScorer(
        open_store(prepared.competition),
        prepared,
        build_test_reader(prepared),
        {each.name: each for each in members if each.parts == (each.name,)},
    )
    scores = map_in_threads(scorer.score_variant, names)
    route_of = {each.name: each.route for each in scores if each.route is not None}
    routes = scorer.score_routes(route_of)
    return scorer.estimate_test([*scores, *routes], group_specialists(route_of))


def rank_variants(scores: Sequence[VariantScore]) -> list[VariantScore]:
    """Sort variants by the mean of the expected scores, best first.

    Variants without an expected score follow by their primary score, those without any score last.
    """

    def place(score: VariantScore) -> tuple[int, float]:
        if score.on_test is not None:
            return 0, -score.on_test.rank_score
        if score.assessment is not None:
            return 1, -score.assessment.primary.value
        return 2, 0.0

    return sorted(scores, key=place)


def describe_ranking(ranked: Sequence[VariantScore], n_rows: int) -> list[str]:
    """Describe the ranking criterion, and which differences from the best are not significant.

    Args:
        n_rows: the number of train rows; variants with fewer rows are not compared.
    """
    whole = [each for each in ranked if each.on_test is not None and each.n_rows == n_rows]
    if len(whole) < 2:
        return []
    best = whole[0]
    assert best.on_test is not None
    equal = []
    for each in whole[1:]:
        assert each.on_test is not None
        lead = best.on_test.rank_score - each.on_test.rank_score
        difference = best.on_test.replicates() - each.on_test.replicates()
        if pair(lead, difference[~np.isnan(difference)]).low <= 0:
            equal.append(each.name)
    noise = (
        f"{best.name} is not significantly better than {', '.join(equal)} (95%, cluster bootstrap)."
        if equal
        else f"{best.name} is significantly better than the others (95%, cluster bootstrap)."
    )
    kinds = [each.kind for each in best.on_test.assessment.measured]
    averaged = average_names(kinds)
    what = f"the mean of expected {averaged}" if averaged else f"expected {kinds[0].head}"
    return [f"Sorted by {what}; {noise}"]


@dataclass(frozen=True)
class _MemberScorer:
    """Scores members on the rows that they predict.

    Reading a member takes longer than scoring it, and each is needed three times. Those that fit
    in ``MAX_KEPT_BYTES`` together are kept; the others are read again, so that memory does not grow
    with the store.
    """

    store: Store
    prepared: Prepared
    reader: TestReader
    kept: dict[str, Member]
    lock: Lock = field(default_factory=Lock)

    def score_variant(self, name: str) -> VariantScore:
        n_folds = self.prepared.folds.count
        missing, own = find_missing_folds(self.store, name, n_folds), self._read_own(name)
        score = VariantScore(
            name,
            len(self.prepared.corpus.train),
            why=own.get("why", ""),
            missing=missing,
            progress=(len(self.store.keys(name)), n_folds * max(1, len(missing))),
            tuned_on=tuple((own.get("tune") or {}).get("folds", ())),
            is_tuned_elsewhere=is_tuned_elsewhere(own, self.prepared.folds.hash),
            rows_per_s=self._read_speed(name),
        )
        if all(missing.values()):
            return score
        try:
            member = self._read(name)
        except HarnessError as error:
            return replace(score, fault=str(error))
        n_rows, assessment = self._assess(member)
        warning = self._warn_of_scales(member)
        return replace(
            score, route=member.route, n_rows=n_rows, warning=warning, assessment=assessment
        )

    def _read(self, name: str) -> Member:
        """Return a variant's member, and keep it if there is room."""
        member = self.kept.get(name)
        if member is None:
            member = read_member(self.store, name, self.prepared)
            with self.lock:
                n_bytes = sum(each.n_bytes for each in self.kept.values())
                if n_bytes + member.n_bytes <= MAX_KEPT_BYTES:
                    self.kept[name] = member
        return member

    def _warn_of_scales(self, member: Member) -> str:
        """Return a warning if pooled rows are ranked worse than those of every fold."""
        covered = member.covered
        gold, fold_of = (
            self.prepared.corpus.train.gold[covered],
            self.prepared.folds.fold_of[covered],
        )
        criteria = build_criteria(self.prepared.competition.profile)
        return warn_of_scales(criteria, gold.astype(np.int64), member.oof[covered], fold_of)

    def score_routes(self, route_of: Mapping[str, str]) -> list[VariantScore]:
        """Score each set of specialists that together predict every row."""
        scores = []
        for name, parts in group_specialists(route_of).items():
            try:
                (member,), _ = read_members(self.store, parts, self.prepared)
            except HarnessError:
                continue  # a part is missing; its own row says so
            n_rows, assessment = self._assess(member)
            seeds: dict[int, list[int]] = {seed: [] for seed in member.seeds}
            scores.append(
                VariantScore(name, n_rows, member.why, missing=seeds, assessment=assessment)
            )
        return scores

    def estimate_test(
        self, scores: Sequence[VariantScore], routes: Mapping[str, Sequence[str]]
    ) -> list[VariantScore]:
        """Add the expected test scores."""
        n_rows = len(self.prepared.corpus.train)
        scored = [each for each in scores if each.assessment is not None]
        whole = {each.name for each in scored if each.n_rows == n_rows}

        def read(name: str) -> Member:
            if name not in routes:
                return self._read(name)
            (member,), _ = read_members(self.store, routes[name], self.prepared)
            return member

        every = read_whole(self.store, self._read)
        shared = self.reader.forecast(every) or self.reader.forecast(map(read, sorted(whole)))

        def expect(name: str) -> OnTest | None:
            try:
                member = read(name)
            except HarnessError:
                return None  # changed or deleted since it was scored
            forecast = shared if name in whole else self.reader.forecast([member])
            return None if forecast is None else self._expect(member, forecast)

        names = [each.name for each in scored]
        found = dict(zip(names, map_in_threads(expect, names), strict=True))
        return [replace(each, on_test=found.get(each.name)) for each in scores]

    def _expect(self, member: Member, forecast: TestForecast) -> OnTest:
        probs = member.oof[member.covered]
        pred = decide(probs)
        _, assessment = self._assess(member, forecast)
        return OnTest(forecast.expect(probs, pred), forecast, assessment)

    def _assess(
        self, member: Member, forecast: TestForecast | None = None
    ) -> tuple[int, Assessment]:
        """Return the number of rows that a member predicts, and its scores on them.

        ``forecast`` weights the rows; None weights them equally.
        """
        covered = member.covered
        gold, probs = self.prepared.corpus.train.gold[covered], member.oof[covered]
        assessor = build_assessor(
            gold,
            build_criteria(self.prepared.competition.profile),
            self.prepared.groups[covered],
            seed=BOOTSTRAP_SEED,
            weights=None if forecast is None else forecast.weights,
        )
        found = assessor.assess((probs, decide(probs)))
        return len(gold), found

    def _read_own(self, name: str) -> Mapping[str, Any]:
        """Return the variant as recorded in its results, empty if they are damaged."""
        try:
            header = next(map(self.store.read_header, self.store.keys(name)), None)
        except PredictionsError:
            return {}  # the row's ``lacks`` names the damaged file
        return header.variant if header else {}

    def _read_speed(self, name: str) -> int | None:
        """Return the mean speed of the jobs that recorded one."""
        rates = []
        for key in self.store.keys(name):
            try:
                rate = self.store.read_run(key).get("rows_per_s")
            except PredictionsError:
                continue
            if isinstance(rate, int | float):
                rates.append(rate)
        return round(sum(rates) / len(rates)) if rates else None
