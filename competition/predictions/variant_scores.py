"""Out-of-fold scores of the variants in the store, and what each still lacks.

Between the store and the commands that show it: ``fold`` when it is done, and ``board``. Both read
``VariantScore``; the table is made from it at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from competition.arrays import Float64s
from competition.console import Column, Table
from competition.errors import HarnessError, PredictionsError
from competition.folds.kfold import Prepared
from competition.predictions.expected_scores import (
    Forecast,
    TestReader,
    build_test_reader,
    describe_forecast,
    forecast_test,
)
from competition.predictions.members import (
    TUNED_ELSEWHERE,
    Member,
    Store,
    find_missing_folds,
    group_specialists,
    is_tuned_elsewhere,
    read_member,
    read_members,
)
from competition.scoring.assessment import Assessment, build_assessor
from competition.scoring.bootstrap import BOOTSTRAP_SEED, pair
from competition.scoring.expected import Expected
from competition.scoring.metrics import decide


@dataclass(frozen=True, eq=False)
class OnTest:
    """What is expected of a member on the test.

    Attributes:
        expected: its scores there.
        forecast: of how the test is mixed, behind it.
        assessment: scores of the rows under the forecast's weights; differences between members
            are taken from its replicates.
    """

    expected: Expected
    forecast: Forecast
    assessment: Assessment

    @property
    def rank_score(self) -> float:
        """Return what members are ranked by: the mean of expected micro-F1 and AUPRC."""
        return (self.expected.f1.value + self.expected.auprc) / 2

    def replicates(self) -> Float64s:
        """Return (R,) bootstrap replicates of ``rank_score``."""
        f1, auprc = self.assessment.f1_replicates, self.assessment.auprc_replicates
        return (f1[: len(auprc)] + auprc) / 2  # both draw the same groups in the same order


@dataclass(frozen=True, eq=False)
class VariantScore:
    """What is known of a variant, or of the specialists of a route together.

    Attributes:
        name: the variant's, or the route's member such as ``route:length``.
        n_rows: train rows that it answers for; all of them before that is known.
        why: the idea that it tests.
        missing: of each seed that was begun, the folds without a result.
        progress: results there are and results these seeds make, None for a route.
        fault: why it is no member although a seed has all folds, None where nothing is wrong.
        route: the part of a specialist, such as ``length:short``.
        tuned_on: folds that chose its settings.
        is_tuned_elsewhere: those were other folds than these.
        rows_per_s: the mean speed of its jobs, None where no job says one.
        assessment: scores by the most probable label, None without a complete seed or with a fault.
        on_test: what is expected on the test, None as above or where the test shows nothing.
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
    assessment: Assessment | None = None
    on_test: OnTest | None = None

    @property
    def incomplete_seeds(self) -> list[int]:
        """Return the seeds that lack a fold."""
        return [seed for seed, folds in self.missing.items() if folds]

    @property
    def lacks(self) -> str:
        """Say what it still lacks, "" when nothing.

        >>> VariantScore("a", 9, missing={42: (), 43: (3, 4)}).lacks
        'seed 43: folds 3, 4'
        """
        if self.fault is not None:
            return f"what a member needs: {self.fault}"
        if not self.missing:
            return "every fold"
        parts = [
            f"seed {seed}: folds {', '.join(map(str, self.missing[seed]))}"
            for seed in self.incomplete_seeds
        ]
        return "; ".join(parts)


def score_variants(prepared: Prepared, names: Sequence[str]) -> list[VariantScore]:
    """Score the named variants on the rows they answer for, and estimate their test scores.

    Every complete variant of the store is evidence of how the test is mixed; a specialist's rows
    are judged by its own.

    Returns:
        One for each name, in order, then one for each set of specialists among them that answers
        for every row together.
    """
    scorer = _Scorer(
        Store(prepared.competition.oof_dir, prepared.competition.profile.labels),
        prepared,
        build_test_reader(prepared),
    )
    scores = [scorer.score_variant(name) for name in names]
    route_of = {each.name: each.route for each in scores if each.route is not None}
    routes = scorer.score_routes(route_of)
    return scorer.estimate_test([*scores, *routes], group_specialists(route_of))


def rank_variants(scores: Sequence[VariantScore]) -> list[VariantScore]:
    """Order variants by the mean of expected micro-F1 and AUPRC, the best first.

    Those without an expected score follow by plain micro-F1, and those without any in their order.
    """

    def place(score: VariantScore) -> tuple[int, float]:
        if score.on_test is not None:
            return 0, -score.on_test.rank_score
        if score.assessment is not None:
            return 1, -score.assessment.f1.value
        return 2, 0.0

    return sorted(scores, key=place)


def describe_ranking(ranked: Sequence[VariantScore], n_rows: int) -> list[str]:
    """Say what variants are ranked by, and which differences from the best are noise.

    Args:
        ranked: of ``rank_variants``.
        n_rows: of the train rows; variants on fewer are not compared.
    """
    whole = [each for each in ranked if each.on_test is not None and each.n_rows == n_rows]
    if len(whole) < 2:
        return []
    best = whole[0]
    assert best.on_test is not None
    alike = []
    for each in whole[1:]:
        assert each.on_test is not None
        lead = best.on_test.rank_score - each.on_test.rank_score
        apart = best.on_test.replicates() - each.on_test.replicates()
        if pair(lead, apart[~np.isnan(apart)]).low <= 0:
            alike.append(each.name)
    noise = (
        f"{best.name} cannot be told from {', '.join(alike)} (95%, groups of rows resampled)."
        if alike
        else f"{best.name} stands clear of the others (95%, groups of rows resampled)."
    )
    return [f"Sorted by the mean of expected F1 and AUPRC; {noise}"]


def build_variants_table(prepared: Prepared, scores: Sequence[VariantScore]) -> Table:
    """Lay out the scores of variants, each with what it still lacks."""
    profile = prepared.competition.profile
    columns = [
        Column("variant", "variant"),
        Column("done", "folds"),
        Column("micro_f1", "OOF F1", "score"),
        Column("micro_f1_interval", "95%", "interval"),
        Column("auprc", "AUPRC", "score"),
        Column("auprc_interval", "95%", "interval"),
        Column("expected_f1", "expected F1", "score", begins_part=True),
        Column("expected_f1_interval", "95%", "interval"),
        Column("expected_auprc", "expected AUPRC", "score"),
        Column("rows_per_s", "rows/s", "count"),
    ]
    tunes = "; blend tunes a threshold too" if profile.negative_label is not None else ""
    notes = [f"Scored on out-of-fold rows by the most probable label{tunes}."]
    n_rows = len(prepared.corpus.train)
    whole = [each for each in scores if each.on_test is not None and each.n_rows == n_rows]
    if whole and whole[0].on_test is not None:
        notes += describe_forecast(whole[0].on_test.forecast, profile.negative_label)
    parts = [each.name for each in scores if each.n_rows < n_rows]
    if parts:
        notes.append(f"On the rows of their route only: {', '.join(parts)}.")
    notes += [f"{e.name}: seeds {_list_seeds(e)}" for e in scores if len(e.missing) > 1]
    notes += [f"{each.name} lacks {each.lacks}" for each in scores if each.lacks]
    notes += [f"{each.name}: {each.why}" for each in scores if each.why]
    for each in scores:
        if each.tuned_on:
            folds = ", ".join(map(str, each.tuned_on))
            flattered = f"was tuned on folds {folds}: they flatter it."
            notes.append(f"{each.name} {TUNED_ELSEWHERE if each.is_tuned_elsewhere else flattered}")
    return Table("variants", "Variants", columns, [_build_row(each) for each in scores], notes)


def _list_seeds(score: VariantScore) -> str:
    return ", ".join(map(str, score.missing))


def _build_row(score: VariantScore) -> dict[str, Any]:
    """Lay out a row of the table; what is not known yet is left out."""
    row: dict[str, Any] = {
        "variant": score.name,
        "why": score.why,
        "seeds": _list_seeds(score),
        "lacks": score.lacks,
    }
    if score.progress is not None:
        row |= {
            "tuned_on": list(score.tuned_on),
            "is_tuned_elsewhere": score.is_tuned_elsewhere,
            "done": "{}/{}".format(*score.progress),
            "rows_per_s": score.rows_per_s,
            "route": score.route,
            "rows": score.n_rows,
        }
    found = score.assessment
    if found is None:
        return row
    if score.on_test is not None:
        expected = score.on_test.expected
        row |= {
            "expected_f1": expected.f1.value,
            "expected_f1_interval": (expected.f1.low, expected.f1.high),
            "expected_auprc": expected.auprc,
        }
    return row | {
        "rows": score.n_rows,
        "micro_f1": found.f1.value,
        "micro_f1_interval": (found.f1.low, found.f1.high),
        "auprc": found.auprc.value,
        "auprc_interval": (found.auprc.low, found.auprc.high),
    }


@dataclass(frozen=True)
class _Scorer:
    """Scores members on the rows they answer for."""

    store: Store
    prepared: Prepared
    reader: TestReader

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
            member = read_member(self.store, name, self.prepared)
        except HarnessError as error:
            return replace(score, fault=str(error))
        n_rows, assessment = self._assess(member)
        return replace(score, route=member.route, n_rows=n_rows, assessment=assessment)

    def score_routes(self, route_of: Mapping[str, str]) -> list[VariantScore]:
        """Score each set of specialists that answer for every row together.

        Args:
            route_of: the route and part of each specialist, such as ``length:short``.
        """
        scores = []
        for name, parts in group_specialists(route_of).items():
            try:
                (member,), _ = read_members(self.store, parts, self.prepared)
            except HarnessError:
                continue  # a part is lacking, which its own row says
            n_rows, assessment = self._assess(member)
            seeds: dict[int, list[int]] = {seed: [] for seed in member.seeds}
            scores.append(
                VariantScore(name, n_rows, member.why, missing=seeds, assessment=assessment)
            )
        return scores

    def estimate_test(
        self, scores: Sequence[VariantScore], routes: Mapping[str, Sequence[str]]
    ) -> list[VariantScore]:
        """Add what is expected of each on the test.

        Args:
            scores: of variants and routes.
            routes: the specialists behind each route.
        """
        n_rows = len(self.prepared.corpus.train)
        scored = [each for each in scores if each.assessment is not None]
        whole = {each.name for each in scored if each.n_rows == n_rows}

        def read(name: str) -> Member:
            if name not in routes:
                return read_member(self.store, name, self.prepared)
            (member,), _ = read_members(self.store, routes[name], self.prepared)
            return member

        shared = forecast_test(self.prepared, self.store, map(read, sorted(whole)))
        found = {}
        for each in scored:
            member = read(each.name)
            forecast = shared if each.name in whole else self.reader.forecast([member])
            if forecast is not None:
                found[each.name] = self._expect(member, forecast)
        return [replace(each, on_test=found.get(each.name)) for each in scores]

    def _expect(self, member: Member, forecast: Forecast) -> OnTest:
        probs = member.oof[~np.isnan(member.oof[:, 0])]
        pred = decide(probs, self.prepared.competition.profile.negative_id, None)
        _, assessment = self._assess(member, forecast)
        return OnTest(forecast.expect(probs, pred), forecast, assessment)

    def _assess(self, member: Member, forecast: Forecast | None = None) -> tuple[int, Assessment]:
        """Return how many rows a member answers for, and its scores on them.

        ``forecast`` weights the rows; None: all alike.
        """
        profile = self.prepared.competition.profile
        covered = ~np.isnan(member.oof[:, 0])
        gold, probs = self.prepared.corpus.train.gold[covered], member.oof[covered]
        assessor = build_assessor(
            gold,
            profile.negative_id,
            self.prepared.groups[covered],
            seed=BOOTSTRAP_SEED,
            weights=None if forecast is None else forecast.weights,
        )
        found = assessor.assess((probs, decide(probs, profile.negative_id, None)))
        return len(gold), found

    def _read_own(self, name: str) -> Mapping[str, Any]:
        """Return what a variant's results say of it, empty where they are damaged."""
        try:
            header = next(map(self.store.read_header, self.store.keys(name)), None)
        except PredictionsError:
            return {}  # the row's ``lacks`` names the damaged file
        return header.variant if header else {}

    def _read_speed(self, name: str) -> int | None:
        """Return the mean rate over the jobs that say one; a team-mate's may not."""
        rates = []
        for key in self.store.keys(name):
            try:
                rate = self.store.read_run(key).get("rows_per_s")
            except PredictionsError:
                continue
            if isinstance(rate, int | float):
                rates.append(rate)
        return round(sum(rates) / len(rates)) if rates else None
