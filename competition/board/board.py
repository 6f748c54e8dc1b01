"""The board: every variant, blend and submission of a competition, with what each scored.

The end of the way of a row. Variants are scored on their out-of-fold rows under one rule, the most
probable label; blends show what was written beside them; submissions come from the ledger, which is
all that is read: nothing here asks a leaderboard.

Legend: N train rows, K folds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from competition.blend.search import BEST_SINGLE, BLEND
from competition.board.final_table import (
    Specs,
    build_final_table,
    list_specs,
    measure_half_variance,
)
from competition.console import Column, Table
from competition.errors import HarnessError
from competition.files import sha256_of
from competition.folds.kfold import read_prepared
from competition.predictions.members import Store
from competition.predictions.variant_scores import build_variants_table, score_variants
from competition.profile import Competition
from competition.submission.ledger import Entry
from competition.upload.send import TARGETS, count_quota_left, open_ledger
from competition.upload.target import TargetOptions

ENOUGH_FOR_TREND = 4  # scored submissions
TREND = 0.015  # least change of the gap that is worth a word
TYPICAL_DISAGREEMENT = 0.1  # of two blends, over the test rows


def build_board_tables(competition: Competition, *, now: datetime) -> list[Table]:
    """Show variants, blends and submissions; ``now`` decides which submissions are today's."""
    blends = build_blends_table(competition)
    specs = list_specs(competition.submissions_dir, blends.rows)
    tables = [
        _show_variants(competition),
        blends,
        build_submissions_table(competition, specs, now=now),
    ]
    final = _build_final_table(competition, specs)
    return tables if final is None else [*tables, final]


def _show_variants(competition: Competition) -> Table:
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
    return build_variants_table(prepared, score_variants(prepared, names))


def build_blends_table(competition: Competition) -> Table:
    """Show the blends, each with its fitted and its nested score."""
    share = competition.profile.metrics.shifted_negative_share
    columns = [
        Column("name", "blend"),
        Column("members", "members", "count"),
        Column("fitted_f1", "fitted F1", "score"),
        Column("nested_f1", "nested F1", "score"),
        Column("nested_f1_interval", "95%", "interval"),
        *([] if share is None else [Column("shifted_f1", f"F1 at {share:.0%}", "score")]),
        Column("nested_single_f1", "best single", "score"),
        Column("fitted_auprc", "fitted AUPRC", "score"),
        Column("nested_auprc", "nested AUPRC", "score"),
    ]
    folder = competition.submissions_dir
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    rows = [_describe_blend(path) for path in files]
    notes = [] if rows else [_advise_blending(competition)]
    if any(row.get("nested_single_f1") is not None for row in rows):
        alike = "" if competition.profile.negative_label is None else ", its threshold tuned alike"
        notes.append(f"Best single: nested F1 of the best variant{alike}.")
    notes += [f"{row['name']}: {row['state']}" for row in rows if row["state"]]
    notes += [f"{row['name']}, warning: {text}" for row in rows for text in row.get("alarms", ())]
    return Table("blends", "Blends", columns, rows, notes)


def build_submissions_table(competition: Competition, specs: Specs, *, now: datetime) -> Table:
    """Show what was sent where and what it scored, in the time zone of the leaderboard.

    Args:
        competition: whose ledger.
        specs: what is known of the submissions, of ``list_specs``.
        now: decides which submissions are today's.
    """
    columns = [
        Column("name", "submission"),
        Column("time", "time"),
        Column("target", "to"),
        Column("outcome", "outcome"),
        Column("nested_f1", "nested F1", "score"),
        Column("public_f1", "public F1", "score"),
        Column("gap", "public minus nested", "difference"),
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
    zone = ZoneInfo(rules.timezone)
    rows = [_describe_entry(entry, zone, specs.get(entry.sha256, {})) for entry in entries]
    notes = [] if rows else [_advise_sending(competition)]
    unsent = [entry for entry in entries if entry.outcome != "sent"]
    notes += [f"{e.name}, {e.outcome}: {e.message or 'no answer came'}" for e in unsent]
    notes += _tell_gaps(rows, measure_half_variance(specs))
    for name in dict.fromkeys((competition.profile.upload.default, *(e.target for e in entries))):
        if name in TARGETS:
            left = count_quota_left(competition, ledger, TARGETS[name](TargetOptions()), now)
            if left is not None:
                notes.append(f"Left today ({rules.timezone}) to {name}: {left} of {rules.per_day}")
    if torn is not None:
        notes.append("The ledger's last line is torn; the next submit puts it aside.")
    return Table("submissions", "Submissions", columns, rows, notes)


def _advise_blending(competition: Competition) -> str:
    """Say how a blend comes to be, were there none yet."""
    if Store(competition.oof_dir, competition.profile.labels).variants():
        return "No blend is made yet; run: python run.py blend"
    return "No blend is made yet: a variant comes first."


def _advise_sending(competition: Competition) -> str:
    """Say how something comes to be sent, were nothing sent yet."""
    if competition.limit is not None:
        return "Nothing is sent: a sample's blends are for trying out."
    folder = competition.submissions_dir
    if folder.is_dir() and any(folder.glob("*.csv")):
        return "Nothing is sent yet; run: python run.py submit"
    return "Nothing is sent yet: a blend comes first."


def _describe_blend(path: Path) -> dict[str, Any]:
    """Read what ``blend`` wrote beside a submission; another tool's may say less, or nothing."""
    row: dict[str, Any] = {"name": path.stem, "state": ""}
    spec_path = path.with_name(f"{path.stem}.json")
    if not spec_path.exists():
        return {**row, "state": f"no {spec_path.name} says how it was made"}
    try:
        spec = json.loads(spec_path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        spec = None
    digest = _dig(spec, "csv_sha256")
    if digest is None:
        state = (
            f"{spec_path.name} is damaged, or not what blend writes: blend again under that name"
        )
        return {**row, "state": state}
    if digest != sha256_of(path):
        row["state"] = "changed since it was written"
    members = _dig(spec, "members")
    low, high = (_dig(spec, "nested", BLEND, "f1", end) for end in ("low", "high"))
    return row | {
        "members": len(members) if isinstance(members, list) else None,
        "fitted_f1": _dig(spec, "fitted", BLEND, "f1", "value"),
        "nested_f1": _dig(spec, "nested", BLEND, "f1", "value"),
        "nested_f1_interval": None if low is None or high is None else (low, high),
        "shifted_f1": _dig(spec, "nested", BLEND, "shifted", "share", "f1"),
        "nested_single_f1": _dig(spec, "nested", BEST_SINGLE, "f1", "value"),
        "fitted_auprc": _dig(spec, "fitted", BLEND, "auprc", "value"),
        "nested_auprc": _dig(spec, "nested", BLEND, "auprc", "value"),
        "noise": _read_noise(spec),
        "alarms": [str(_dig(alarm, "text")) for alarm in _list(_dig(spec, "alarms"))],
    }


def _read_noise(spec: Any) -> list[dict[str, float]]:
    """Return the simulated halves that a spec holds, as far as they are whole."""
    keys = ("agreement", "f1_sd")
    found = [{key: _dig(each, key) for key in keys} for each in _list(_dig(spec, "noise"))]
    return [each for each in found if all(isinstance(value, float) for value in each.values())]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dig(value: Any, *keys: str) -> Any:
    """Return what stands under nested keys, None where one is absent.

    >>> _dig({"a": {"b": 1}}, "a", "b"), _dig({"a": 2}, "a", "b")
    (1, None)
    """
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _build_final_table(competition: Competition, specs: Specs) -> Table | None:
    try:
        entries = open_ledger(competition).read()
    except HarnessError:
        return None  # the table of submissions says what is wrong with it
    return build_final_table(competition, entries, specs)


def _tell_gaps(rows: Sequence[Mapping[str, Any]], half_variance: float) -> list[str]:
    """Say how the public score stands to the nested one, and whether that changes over time.

    Args:
        rows: of the submissions, in the order they were sent.
        half_variance: of the public half, of ``measure_half_variance``.
    """
    gaps = [row["gap"] for row in rows if row["gap"] is not None]
    if not gaps:
        return []
    notes = [
        "Nested F1 ranks blends, it does not foretell the board; so the gap should stay alike."
    ]
    if len(gaps) >= ENOUGH_FOR_TREND:
        half = len(gaps) // 2
        before, after = median(gaps[:half]), median(gaps[-half:])
        noise = max(TREND, 2 * sqrt(half_variance * TYPICAL_DISAGREEMENT))
        if before - after > noise:
            notes.append(
                f"Warning: the gap went from {100 * before:+.2f} to {100 * after:+.2f}: the later"
                " blends are fitted to the out-of-fold rows' noise."
            )
        elif after - before > noise:
            notes.append(
                f"Warning: the gap went from {100 * before:+.2f} to {100 * after:+.2f}: the later"
                " submissions may be chosen by the public half, which is no gain on the private."
            )
    return notes


def _describe_entry(entry: Entry, zone: ZoneInfo, spec: Mapping[str, Any]) -> dict[str, Any]:
    public, private = entry.public or {}, entry.private or {}
    nested, scored = spec.get("nested_f1"), public.get("micro_f1")
    return {
        "time": entry.time.astimezone(zone).strftime("%Y-%m-%d %H:%M"),
        "name": entry.name,
        "target": entry.target,
        "outcome": entry.outcome,
        "nested_f1": nested,
        "public_f1": scored,
        "gap": None if nested is None or scored is None else scored - nested,
        "public_auprc": public.get("auprc"),
        "private_f1": private.get("micro_f1"),
        "private_auprc": private.get("auprc"),
        "message": entry.message,
    }
