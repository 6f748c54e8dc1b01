"""Show a comparison for a person: who is better, where, and how sure that is.

Stands after ``compare`` on the way of a row; nothing here is read or scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from competition.compare.compare import ENOUGH_GROUPS, Comparison, Line, judge
from competition.compare.contenders import Contender, list_settings_apart
from competition.console import Column, Table
from competition.predictions.members import TUNED_ELSEWHERE
from competition.scoring.bootstrap import Paired

SETTINGS_SHOWN = 10
COLUMNS = (
    Column("n_rows", "rows", "count"),
    Column("first", "A", "score"),
    Column("second", "B", "score"),
    Column("difference", "A minus B", "difference"),
    Column("interval", "95%", "spread"),
    Column("better", "better"),
)


def build_compare_tables(found: Comparison) -> list[Table]:
    """Show a comparison: both keys of the leaderboard, then length thirds, sources and labels."""
    first, second = (each.name for each in found.contenders)
    tables = [
        _build_table(
            "overall", ("measure", f"A = {first}, B = {second}"), found.overall, _say(found)
        )
    ]
    length_note = f"Thirds of the train rows, {found.length_unit}."
    for name, title, lines, notes in (
        ("length", "Micro-F1 and AUPRC by length", found.by_length, [length_note]),
        ("source", "Micro-F1 and AUPRC by source", found.by_source, []),
        ("label", "F1 of each label", found.by_label, _say_of_labels(found.by_label)),
        ("area", "Area under each label's curve", found.areas_by_label, []),
    ):
        if lines:
            header = "label" if name == "area" else name
            tables.append(_build_table(name, (header, title), lines, notes))
    return tables


def _build_table(
    name: str, headings: tuple[str, str], lines: Sequence[Line], notes: Sequence[str]
) -> Table:
    header, title = headings
    return Table(name, title, [Column("what", header), *COLUMNS], list(map(_row, lines)), notes)


def _row(line: Line) -> dict[str, Any]:
    paired = line.paired
    return {
        "what": line.what,
        "n_rows": line.n_rows,
        "first": line.first,
        "second": line.second,
        "difference": line.first - line.second,
        "interval": None if paired is None else (paired.low, paired.high),
        "no_better": None if paired is None else paired.p_worse,
        "better": _name_better(paired),
        "verdict": judge(paired),
    }


def _name_better(paired: Paired | None) -> str | None:
    """Name the contender whose lead is beyond doubt; None where neither's is.

    >>> _name_better(Paired(0.02, 0.01, 0.03, 0.0)), _name_better(Paired(0.02, -0.01, 0.05, 0.2))
    ('A', None)
    """
    if paired is None or paired.low <= 0 <= paired.high:
        return None
    return "A" if paired.low > 0 else "B"


def _say(found: Comparison) -> list[str]:
    """Write what a person must know beside the figures: rows, rule, seeds, what flatters whom."""
    first, second = found.contenders
    folds = ", ".join(map(str, found.folds))
    alone_first, alone_second = found.only_right
    notes = [
        f"On the {found.n_rows:,} of {found.n_all:,} train rows that both answer for, folds"
        f" {folds}; whole groups of rows resampled, the same for both.",
        f"Another label for {found.differing:,} rows: A alone is right in {alone_first:,}, B alone"
        f" in {alone_second:,}.",
        _say_rule(found),
        "Better: whose lead the whole interval confirms; – where they cannot be told apart.",
    ]
    seeds = [each.seeds for each in found.contenders if each.seeds]
    if seeds and len(seeds[0]) > 1:
        whose = "that both have" if len(seeds) == 2 else "that the trained one has"
        notes.append(f"Averaged over the seeds {whose}: {', '.join(map(str, seeds[0]))}.")
    notes += _say_settings(first, second)
    for letter, each in (("A", first), ("B", second)):
        notes += _say_of_contender(letter, each, found)
    return notes


def _say_rule(found: Comparison) -> str:
    if found.by_threshold:
        of_each = [
            (letter, found.thresholds.get(each.name, ()))
            for letter, each in zip("AB", found.contenders, strict=True)
        ]
        shown = [f"{letter} {min(each):.3f}–{max(each):.3f}" for letter, each in of_each if each]
        told = f" ({', '.join(shown)})" if shown else ""
        return f"Decided by thresholds, each fold's tuned on the other folds{told}."
    return "Decided by the most probable label; --threshold tunes a threshold for each."


def _say_settings(first: Contender, second: Contender) -> list[str]:
    """Say what a difference may be due to: the settings that two variants do not share."""
    apart = list_settings_apart(first, second)
    shown = [f"{key} {_write(a)} / {_write(b)}" for key, a, b in apart[:SETTINGS_SHOWN]]
    more = [f"and {len(apart) - len(shown)} more"] if len(apart) > len(shown) else []
    return [f"Set apart, A / B: {', '.join(shown + more)}."] if shown else []


def _write(value: object) -> str:
    """Write a setting shortly.

    >>> _write(0.0005), _write(True), _write(None), _write("ko-mini")
    ('0.0005', 'true', '–', 'ko-mini')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _say_of_contender(letter: str, each: Contender, found: Comparison) -> list[str]:
    notes = []
    if each.nested_pred is not None:
        chosen = "weights and thresholds" if found.by_threshold else "weights"
        notes.append(f"{letter} is a blend: {chosen} nested, chosen on the other folds.")
        flat = sorted(set(each.temperatures))
        if len(flat) > 1:
            listed = " and ".join(f"{one:g}" for one in flat)
            notes.append(
                f"{letter}'s folds chose temperatures {listed}; ranked together that costs AUPRC,"
                " which the blend itself, with one, does not pay."
            )
    tuned = sorted(set(each.tuned_on) & set(found.folds))
    if each.is_tuned_elsewhere:
        notes.append(f"{letter} {TUNED_ELSEWHERE}")
    elif tuned:
        rest = sorted(set(found.folds) - set(tuned))
        mend = f"; for a fair comparison add --folds {','.join(map(str, rest))}" if rest else ""
        listed = ", ".join(map(str, tuned))
        notes.append(f"{letter} was tuned on folds {listed}, which flatters it there{mend}.")
    return notes


def _say_of_labels(lines: Sequence[Line]) -> list[str]:
    judged = sum(line.paired is not None for line in lines)
    notes = []
    if judged < len(lines):
        notes.append(f"No interval where fewer than {ENOUGH_GROUPS} groups have the label.")
    if judged:
        by_chance = f"{judged / 20:.1g}"
        notes.append(
            f"One interval in twenty shows a difference where there is none: about {by_chance} of"
            f" these {judged}."
        )
    return notes
