"""The board: every variant, blend and submission of a competition, with what each scored.

The end of the way of a row. Variants are scored on their out-of-fold rows under one rule, the most
probable label; blends show what was written beside them; submissions come from the ledger.

Legend: N train rows, K folds.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from competition.console import Column, Table
from competition.errors import HarnessError
from competition.files import sha256_of
from competition.folds import read_prepared
from competition.ledger import Entry
from competition.predictions import Store
from competition.profile import Competition
from competition.search import BEST_SINGLE, BLEND
from competition.standings import build_standings
from competition.upload.send import TARGETS, count_quota_left, open_ledger
from competition.upload.target import TargetOptions


def build_board_tables(competition: Competition, *, now: datetime) -> list[Table]:
    """Show variants, blends and submissions; ``now`` decides which submissions are today's."""
    return [
        build_variants_table(competition),
        build_blends_table(competition),
        build_submissions_table(competition, now=now),
    ]


def build_variants_table(competition: Competition) -> Table:
    """Score every variant that has results, and say what the others lack."""
    names = Store(competition.oof_dir, competition.profile.labels).variants()
    if not names:
        note = "No variant is trained yet; run: python run.py fold"
        return Table("variants", "Variants", (), [], [note])
    try:
        prepared = read_prepared(competition)
    except HarnessError as error:
        rows, columns = [{"variant": name} for name in names], [Column("variant", "variant")]
        return Table("variants", "Variants", columns, rows, [f"Nothing can be scored: {error}"])
    return build_standings(prepared, names)


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
