"""The board: scores of all variants, blends and submissions, the entry point of ``run.py board``.

Variants are scored on their out-of-fold rows by their most probable label; scores of blends come
from their JSON, and those of submissions from the ledger. It never contacts a leaderboard.

Legend: N train rows, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import sqrt
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from competition.board.blends import (
    BlendFile,
    Blends,
    build_blends_table,
    index_blends,
    read_blends,
)
from competition.board.final_table import (
    build_final_table,
    get_public,
    measure_half_variance,
    select_one_place,
)
from competition.console import Column, Table
from competition.errors import HarnessError
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.store import open_store
from competition.predictions.variant_scores import (
    VariantScore,
    describe_ranking,
    rank_variants,
    score_variants,
)
from competition.predictions.variants_table import build_variants_table
from competition.profile import Competition
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from competition.submission.ledger import Entry, open_ledger
from competition.submission.ledger_damage import describe_damage
from competition.submission.record import list_submissions
from competition.upload.send import TARGETS, count_quota_left
from competition.upload.target import TargetOptions

ENOUGH_FOR_TREND = 4  # scored submissions
TREND = 0.015  # minimum change of the gap to report
READ_ON_PAGES = ("aistages", "folder")  # targets without an API for scores
TYPICAL_DISAGREEMENT = 0.1  # of two blends, over the test rows


@dataclass(frozen=True)
class SentSubmission:
    """An entry of the ledger; scores are by the primary metric, higher being better.

    ``blend`` is its file, None if that is absent or changed.
    """

    entry: Entry
    blend: BlendFile | None
    kind: MetricKind

    @property
    def nested(self) -> float | None:
        """Return the blend's nested score."""
        return None if self.blend is None else self.blend.get_nested(self.kind)

    @property
    def expected(self) -> float | None:
        """Return the score that the blend is expected to have on the test."""
        return None if self.blend is None else self.blend.get_expected(self.kind)

    @property
    def public(self) -> float | None:
        """Return the score on the public leaderboard."""
        return get_public(self.entry, self.kind)

    @property
    def gap(self) -> float | None:
        """Return public minus nested score, or None."""
        if self.nested is None or self.public is None:
            return None
        return self.public - self.nested


def build_board_tables(competition: Competition, *, now: datetime) -> list[Table]:
    """Build all tables; ``now`` determines which submissions are today's."""
    variants, scores, prepared = _show_variants(competition)
    files = read_blends(competition, prepared)
    sent = build_sent_tables(competition, now=now, files=files)
    tables = [variants, *sent]
    first = build_criteria(competition.profile).kinds[0]
    picks = tables[-1].rows if tables[-1].name == "final" else ()
    closing = _close_board(scores, [each for each in files if each.is_current], picks, first)
    tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, *closing))
    return tables


def _close_board(
    scores: Sequence[VariantScore],
    files: Sequence[BlendFile],
    picks: Sequence[Mapping[str, Any]],
    kind: MetricKind,
) -> list[str]:
    """Return the closing line: what is expected to score best on the test, and what to select.

    Args:
        scores: of variants that answer all rows.
        files: blends made with today's data, folds and metrics.
        picks: rows of the final table.
        kind: the primary metric.
    """
    expected = [
        (each.on_test.expected.primary.value, each.name)
        for each in scores
        if each.on_test is not None
    ]
    variants = {name for _, name in expected}
    for blend in files:
        value = blend.get_expected(kind)
        if value is not None:
            name = f"the blend {blend.name}" if blend.name in variants else blend.name
            expected.append((value, name))
    said = []
    if expected:
        value, best = max(expected, key=lambda each: each[0])
        said = [f"best expected {kind.head} on the test: {best}, {kind.write(value)}"]
    if picks:
        names = " and ".join(pick["name"] for pick in picks)
        figure = kind.write(kind.show(picks[0][f"expected_{kind.short}"]))
        said.append(f"of those sent, select {names} (expected private {kind.head} {figure})")
    return [f"Verdict: {'; '.join(said)}."] if said else []


def build_sent_tables(
    competition: Competition,
    *,
    now: datetime,
    files: Sequence[BlendFile],
) -> list[Table]:
    """Build the tables of blends, submissions and, if any were sent, the final selection."""
    blends = index_blends(files)
    tables = [
        build_blends_table(competition, files),
        build_submissions_table(competition, blends, now=now),
    ]
    final = build_final_table(competition, open_ledger(competition).read(), blends)
    return tables if final is None else [*tables, final]


def _show_variants(
    competition: Competition,
) -> tuple[Table, Sequence[VariantScore], Prepared | None]:
    """Build the table of variants with their out-of-fold scores.

    Returns:
        The table, the scores of variants that answer all rows, and data and folds if they can be
        read.
    """
    names = open_store(competition).variants()
    if not names:
        note = "There is no trained variant yet; run: python run.py fold"
        return Table("variants", "Variants", (), [], [note]), (), None
    try:
        prepared = read_prepared(competition)
    except HarnessError as error:
        rows, columns = [{"variant": name} for name in names], [Column("variant", "variant")]
        note = f"Variants cannot be scored: {error}"
        return Table("variants", "Variants", columns, rows, [note]), (), None
    ranked = rank_variants(score_variants(prepared, names))
    table = build_variants_table(prepared, ranked)
    n_rows = len(prepared.corpus.train)
    notes = describe_ranking(ranked, n_rows)
    whole = [each for each in ranked if each.n_rows == n_rows]
    return replace(table, notes=(*notes, *table.notes)), whole, prepared


def build_submissions_table(competition: Competition, blends: Blends, *, now: datetime) -> Table:
    """Build the table of uploads with their scores, in the leaderboard's time zone."""
    first, *others = kinds = build_criteria(competition.profile).kinds
    columns = [
        Column("name", "submission"),
        Column("time", "time"),
        Column("target", "to"),
        Column("outcome", "outcome"),
        first.column(f"nested_{first.short}", f"nested {first.head}"),
        first.column(f"expected_{first.short}", f"expected {first.head}"),
        first.column(f"public_{first.short}", f"public {first.head}"),
        first.column("gap", "public minus nested", "difference"),
        *(kind.column(f"public_{kind.short}", f"public {kind.head}") for kind in others),
        *(kind.column(f"private_{kind.short}", f"private {kind.head}") for kind in kinds),
    ]
    ledger = open_ledger(competition)
    rules = competition.profile.submission
    entries, torn = ledger.read(), ledger.read_torn()
    zone = ZoneInfo(rules.timezone)
    sent = [SentSubmission(entry, blends.get(entry.sha256), first) for entry in entries]
    notes = [] if sent else [_advise_sending(competition)]
    unsent = [entry for entry in entries if entry.outcome != "sent"]
    notes += [f"{e.name}, {e.outcome}: {e.message or 'there was no answer'}" for e in unsent]
    notes += _describe_entered(entries, kinds)
    comparable = {each.id for each in select_one_place(entries, first)}
    notes += _describe_gaps(
        [each for each in sent if each.entry.id in comparable],
        measure_half_variance(blends, first),
        first,
    )
    used = (competition.profile.upload.default, *(entry.target for entry in entries))
    for name in dict.fromkeys(each for each in used if each in TARGETS):
        with suppress(HarnessError):  # nothing of this competition is sent there any more
            left = count_quota_left(competition, ledger, TARGETS[name](TargetOptions()), now)
            if left is not None:
                notes.append(f"Left today ({rules.timezone}) at {name}: {left} of {rules.per_day}")
    if torn is not None:
        notes.append("The ledger's last line is incomplete; the next submit moves it to a file.")
    if said := describe_damage(ledger.read_damaged(), str(ledger.path)):
        notes.append(f"Warning: {said}.")
    rows = [_build_row(each, zone, kinds) for each in sent]
    return Table("submissions", "Submissions", columns, rows, notes)


def _advise_sending(competition: Competition) -> str:
    """Suggest the next step if nothing was sent."""
    if competition.limit is not None:
        return "Nothing was sent; blends of a sample cannot be submitted."
    if list_submissions(competition.submissions_dir):
        return "Next: nothing was sent yet; run: python run.py submit"
    return "Nothing was sent yet; run blend first."


def _describe_entered(entries: Sequence[Entry], kinds: Sequence[MetricKind]) -> list[str]:
    """Describe scores entered by hand, and how to enter those that only a web page shows."""
    entered = [entry.name for entry in entries if entry.is_entered]
    unread = [
        entry.name
        for entry in entries
        if entry.outcome == "sent" and not entry.is_decided and entry.target in READ_ON_PAGES
    ]
    form = "/".join(kind.head for kind in kinds)
    notes = [f"Entered by hand with --score: {', '.join(entered)}."] if entered else []
    if unread:
        notes.append(
            f"Not scored yet: {', '.join(unread)}. Read the score on the leaderboard's page and"
            f" enter it: python run.py board --score {unread[-1]}={form}"
        )
    return notes


def _describe_gaps(
    sent: Sequence[SentSubmission], half_variance: float, kind: MetricKind
) -> list[str]:
    """Describe the gap between public and nested scores, and its trend over time.

    Args:
        sent: distinct files at one destination, in order; another has other rows.
        half_variance: as of ``measure_half_variance``.
        kind: the primary metric.
    """
    gaps = [each.gap for each in sent if each.gap is not None]
    if not gaps:
        return []
    nested = f"Nested {kind.head}"
    notes = [
        f"{nested} ranks blends but does not predict the board score; the gap should stay stable."
    ]
    if len(gaps) >= ENOUGH_FOR_TREND:
        half = len(gaps) // 2
        before, after = median(gaps[:half]), median(gaps[-half:])
        noise = max(TREND, 2 * sqrt(half_variance * TYPICAL_DISAGREEMENT))
        moved = f"from {kind.write_difference(before)} to {kind.write_difference(after)}"
        if before - after > noise:
            notes.append(
                f"Warning: the gap went {moved}: later blends overfit the out-of-fold rows."
            )
        elif after - before > noise:
            notes.append(
                f"Warning: the gap went {moved}: later"
                " submissions may overfit the public leaderboard, without gain on the private one."
            )
    return notes


def _build_row(sent: SentSubmission, zone: ZoneInfo, kinds: Sequence[MetricKind]) -> dict[str, Any]:
    entry, first = sent.entry, kinds[0]
    public, private = entry.public or {}, entry.private or {}
    return {
        "time": entry.time.astimezone(zone).strftime("%Y-%m-%d %H:%M"),
        "name": entry.name,
        "target": entry.target,
        "outcome": entry.outcome,
        f"nested_{first.short}": _show(sent.nested, first),
        f"expected_{first.short}": _show(sent.expected, first),
        "gap": _show(sent.gap, first),
        **{f"public_{kind.short}": public.get(kind.key) for kind in kinds},
        **{f"private_{kind.short}": private.get(kind.key) for kind in kinds},
        "message": entry.message,
        "source": "entered" if entry.is_entered else "platform",
    }


def _show(score: float | None, kind: MetricKind) -> float | None:
    return None if score is None else kind.show(score)
