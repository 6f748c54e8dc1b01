"""The board: every variant, blend and submission of a competition, with what each scored.

The end of the way of a row. Variants are scored on their out-of-fold rows under one rule, the most
probable label; blends show what was written beside them; submissions come from the ledger.

Legend: N train rows, K folds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from competition.console import Column, Table
from competition.errors import HarnessError, PredictionsError
from competition.files import sha256_of
from competition.folds import Prepared, read_prepared
from competition.intervals import F1_REPLICATES, Resamples, build_resamples, f1_interval
from competition.ledger import Entry
from competition.metrics import auprc, decide, micro_f1, weights_for_negative_share
from competition.predictions import (
    Member,
    Store,
    find_missing_folds,
    read_member,
    read_members,
)
from competition.profile import Competition
from competition.search import BEST_SINGLE, BLEND
from competition.upload.send import TARGETS, count_quota_left, open_ledger
from competition.upload.target import TargetOptions

BOOTSTRAP_SEED = 42


def build_board_tables(competition: Competition, *, now: datetime) -> list[Table]:
    """Show variants, blends and submissions; ``now`` decides which submissions are today's."""
    return [
        build_variants_table(competition),
        build_blends_table(competition),
        build_submissions_table(competition, now=now),
    ]


def build_variants_table(competition: Competition) -> Table:
    """Score every variant that has results, and say what the others lack."""
    share = competition.profile.metrics.shifted_negative_share
    shifted = [] if share is None else [Column("shifted_f1", f"F1 at {share:.0%}", "score")]
    columns = [
        Column("variant", "variant"),
        Column("seeds", "seeds"),
        Column("done", "folds"),
        Column("micro_f1", "OOF F1", "score"),
        Column("micro_f1_interval", "95%", "interval"),
        *shifted,
        Column("auprc", "AUPRC", "score"),
        Column("rows_per_s", "rows/s", "count"),
    ]

    def build(rows: list[dict[str, Any]], *notes: str) -> Table:
        return Table("variants", "Variants", columns, rows, notes)

    store = Store(competition.oof_dir, competition.profile.labels)
    names = store.variants()
    if not names:
        return build([], "No variant is trained yet; run: python run.py fold")
    try:
        prepared = read_prepared(competition)
    except HarnessError as error:
        return build([{"variant": name} for name in names], f"Nothing can be scored: {error}")
    scorer = _Scorer(store, prepared)
    rows = [scorer.score_variant(name) for name in names]
    rows += scorer.score_routes([row["variant"] for row in rows if row["route"]])
    notes = ["Scored on out-of-fold rows by the most probable label; blend tunes a threshold too."]
    if share is not None:
        negative = competition.profile.negative_label
        notes.append(f"F1 at {share:.0%}: reweighted to that share of {negative}, as in the test.")
    parts = [row["variant"] for row in rows if row["rows"] < len(prepared.corpus.train)]
    if parts:
        notes.append(f"On the rows of their route only: {', '.join(parts)}.")
    notes += [f"{row['variant']} lacks {row['lacks']}" for row in rows if row["lacks"]]
    notes += [f"{row['variant']}: {row['why']}" for row in rows if row["why"]]
    return build(rows, *notes)


def build_blends_table(competition: Competition) -> Table:
    """Show the blends, each with its fitted and its nested score."""
    columns = [
        Column("name", "blend"),
        Column("members", "members", "count"),
        Column("fitted_f1", "fitted F1", "score"),
        Column("nested_f1", "nested F1", "score"),
        Column("nested_f1_interval", "95%", "interval"),
        Column("nested_single_f1", "best single", "score"),
        Column("fitted_auprc", "fitted AUPRC", "score"),
        Column("nested_auprc", "nested AUPRC", "score"),
    ]
    folder = competition.submissions_dir
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    rows = [_describe_blend(path) for path in files]
    notes = [] if rows else ["No blend is made yet; run: python run.py blend"]
    if any(row.get("nested_single_f1") is not None for row in rows):
        notes.append("Best single: nested F1 of the best variant, its threshold tuned alike.")
    notes += [f"{row['name']}: {row['state']}" for row in rows if row["state"]]
    return Table("blends", "Blends", columns, rows, notes)


def build_submissions_table(competition: Competition, *, now: datetime) -> Table:
    """Show what was sent where and what it scored, in the time zone of the leaderboard."""
    columns = [
        Column("time", "time"),
        Column("name", "submission"),
        Column("target", "to"),
        Column("outcome", "outcome"),
        Column("public_f1", "public F1", "score"),
        Column("public_auprc", "public AUPRC", "score"),
        Column("private_f1", "private F1", "score"),
        Column("private_auprc", "private AUPRC", "score"),
    ]
    ledger = open_ledger(competition)
    rules = competition.profile.submission
    try:
        entries, torn = ledger.read(), ledger.read_torn()
    except HarnessError as error:
        return Table("submissions", "Submissions", columns, [], [str(error)])
    rows = [_describe_entry(entry, ZoneInfo(rules.timezone)) for entry in entries]
    notes = [] if rows else ["Nothing is sent yet; run: python run.py submit"]
    unsent = [entry for entry in entries if entry.outcome != "sent"]
    notes += [f"{e.name}, {e.outcome}: {e.message or 'no answer came'}" for e in unsent]
    for name in dict.fromkeys((competition.profile.upload.default, *(e.target for e in entries))):
        if name in TARGETS:
            left = count_quota_left(competition, ledger, TARGETS[name](TargetOptions()), now)
            if left is not None:
                notes.append(f"Left today ({rules.timezone}) to {name}: {left} of {rules.per_day}")
    if torn is not None:
        notes.append("The ledger's last line is torn; the next submit puts it aside.")
    return Table("submissions", "Submissions", columns, rows, notes)


@dataclass(frozen=True)
class _Scorer:
    """Scores members on the rows they answer for."""

    store: Store
    prepared: Prepared

    def score_variant(self, name: str) -> dict[str, Any]:
        n_folds = self.prepared.folds.count
        missing = find_missing_folds(self.store, name, n_folds)
        row: dict[str, Any] = {
            "variant": name,
            "why": self._read_why(name),
            "seeds": ", ".join(map(str, missing)),
            "done": f"{len(self.store.keys(name))}/{n_folds * len(missing)}",
            "rows_per_s": self._read_speed(name),
            "lacks": _describe_missing(missing),
            "route": None,
            "rows": len(self.prepared.corpus.train),
        }
        if all(missing.values()):
            return row
        try:
            member = read_member(self.store, name, self.prepared)
        except HarnessError as error:
            return {**row, "lacks": f"what a member needs: {error}"}
        return {**row, "route": member.route, **self._score(member)}

    def score_routes(self, specialists: list[str]) -> list[dict[str, Any]]:
        """Return a row for each route whose specialists answer for every row together."""
        if not specialists:
            return []
        try:
            members = read_members(self.store, specialists, self.prepared)[0]
        except HarnessError:
            return []  # what is lacking stands in the specialists' own rows
        seeds = {member.name: ", ".join(map(str, member.seeds)) for member in members}
        return [
            {
                "variant": m.name,
                "why": m.why,
                "seeds": seeds[m.name],
                "lacks": "",
                **self._score(m),
            }
            for m in members
        ]

    def _score(self, member: Member) -> dict[str, Any]:
        profile = self.prepared.competition.profile
        covered = ~np.isnan(member.oof[:, 0])
        gold, probs = self.prepared.corpus.train.gold[covered], member.oof[covered]
        pred = decide(probs, profile.negative_id, None)
        share = profile.metrics.shifted_negative_share
        shifted = None  # also where a specialist's rows are all, or never, negative
        n_negative = np.count_nonzero(gold == profile.negative_id)
        if share is not None and profile.negative_id is not None and 0 < n_negative < len(gold):
            weights = weights_for_negative_share(gold, profile.negative_id, share)
            shifted = micro_f1(gold, pred, profile.negative_id, weights)
        resamples = self._resample(covered)
        return {
            "rows": int(covered.sum()),
            "micro_f1": micro_f1(gold, pred, profile.negative_id),
            "micro_f1_interval": f1_interval(gold, pred, profile.negative_id, resamples),
            "shifted_f1": shifted,
            "auprc": auprc(gold, probs),
        }

    def _resample(self, covered: np.ndarray[Any, np.dtype[np.bool_]]) -> Resamples:
        groups = self.prepared.groups[covered]
        return build_resamples(groups, replicates=F1_REPLICATES, seed=BOOTSTRAP_SEED)

    def _read_why(self, name: str) -> str:
        try:
            header = self.store.read_header(self.store.keys(name)[0])
        except PredictionsError:
            return ""  # the row's ``lacks`` names the damaged file
        return str(header.variant.get("why", "")) if header else ""

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


def _describe_missing(missing: Mapping[int, list[int]]) -> str:
    """Write what seeds lack: ``seed 43: folds 3, 4``."""
    parts = [
        f"seed {seed}: folds {', '.join(map(str, folds))}"
        for seed, folds in missing.items()
        if folds
    ]
    return "; ".join(parts)


def _describe_blend(path: Path) -> dict[str, Any]:
    """Read what ``blend`` wrote beside a submission; another tool's may say less, or nothing."""
    row: dict[str, Any] = {"name": path.stem, "state": ""}
    spec_path = path.with_name(f"{path.stem}.json")
    try:
        spec = json.loads(spec_path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        spec = None
    digest = _dig(spec, "csv_sha256")
    if digest is None:
        return {**row, "state": f"no {spec_path.name} says how it was made"}
    if digest != sha256_of(path):
        row["state"] = "changed since it was written"
    members = _dig(spec, "members")
    low, high = (_dig(spec, "nested", BLEND, "f1", end) for end in ("low", "high"))
    return row | {
        "members": len(members) if isinstance(members, list) else None,
        "fitted_f1": _dig(spec, "fitted", BLEND, "f1", "value"),
        "nested_f1": _dig(spec, "nested", BLEND, "f1", "value"),
        "nested_f1_interval": None if low is None or high is None else (low, high),
        "nested_single_f1": _dig(spec, "nested", BEST_SINGLE, "f1", "value"),
        "fitted_auprc": _dig(spec, "fitted", BLEND, "auprc", "value"),
        "nested_auprc": _dig(spec, "nested", BLEND, "auprc", "value"),
    }


def _dig(value: Any, *keys: str) -> Any:
    """Return what stands under nested keys, None where one is absent.

    >>> _dig({"a": {"b": 1}}, "a", "b"), _dig({"a": 2}, "a", "b")
    (1, None)
    """
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _describe_entry(entry: Entry, zone: ZoneInfo) -> dict[str, Any]:
    public, private = entry.public or {}, entry.private or {}
    return {
        "time": entry.time.astimezone(zone).strftime("%Y-%m-%d %H:%M"),
        "name": entry.name,
        "target": entry.target,
        "outcome": entry.outcome,
        "public_f1": public.get("micro_f1"),
        "public_auprc": public.get("auprc"),
        "private_f1": private.get("micro_f1"),
        "private_auprc": private.get("auprc"),
        "message": entry.message,
    }
