"""Tables that ``compare`` prints: scores of both, their difference, and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from competition.compare.compare import MIN_GROUPS, Comparison, Line, judge
from competition.compare.contenders import Contender, list_different_settings
from competition.console import Column, Table, format_value
from competition.predictions.members import TUNED_ELSEWHERE
from competition.scoring.bootstrap import Paired
from competition.scoring.metrics.metric import Figure

SETTINGS_SHOWN = 10
WRITTEN_AS: dict[str, Figure] = {
    "first": "score",
    "second": "score",
    "difference": "difference",
    "interval": "spread",
}
COLUMNS = (
    Column("n_rows", "rows", "count"),
    Column("first", "A", "score"),
    Column("second", "B", "score"),
    Column("difference", "A minus B", "difference"),
    Column("interval", "95%", "spread"),
    Column("better", "better"),
)


def build_compare_tables(found: Comparison) -> list[Table]:
    """Build the tables: overall scores, then by length, source and label."""
    first, second = (each.name for each in found.contenders)
    tables = [
        _build_table(
            "overall", ("measure", f"A = {first}, B = {second}"), found.overall, _build_notes(found)
        )
    ]
    named = " and ".join(kind.title for kind in found.criteria.kinds)
    metrics = f"{named[:1].upper()}{named[1:]}"
    length_note = f"Thirds of the train rows, {found.length_unit}."
    for name, title, lines, notes in (
        ("length", f"{metrics} by length", found.by_length, [length_note]),
        ("source", f"{metrics} by source", found.by_source, []),
        ("label", "F1 of each label", found.by_label, _describe_labels(found.by_label)),
        ("area", "Area under each label's curve", found.areas_by_label, []),
    ):
        if lines:
            header = "label" if name == "area" else name
            tables.append(_build_table(name, (header, title), lines, notes))
    tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, close_comparison(found)))
    return tables


def close_comparison(found: Comparison) -> str:
    """Return the closing line: which is better by the first measure, and by how much.

    Without a significant difference there, it says by which other measures there is one.
    """
    first, second = (each.name for each in found.contenders)
    figures = "; ".join(map(_write_line, found.overall))
    better = _name_better(found.overall[0].paired)
    if better is not None:
        best, other = (first, second) if better == "A" else (second, first)
        return f"Verdict: {best} is better than {other}; A minus B: {figures}."
    verdict = f"Verdict: no significant difference between {first} and {second}"
    names = {"A": first, "B": second}
    clear = [(line.what, _name_better(line.paired)) for line in found.overall[1:]]
    others = [f"{names[side]} is better by {what}" for what, side in clear if side is not None]
    if others:
        verdict += f" by {found.overall[0].what}, but {' and '.join(others)}; A minus B"
    return f"{verdict}: {figures}."


def _write_line(line: Line) -> str:
    kind, difference = line.kind, line.first - line.second
    figures = f"{line.what} {kind.write_difference(difference)}"
    if line.paired is None:
        return figures
    low, high = sorted((line.paired.low, line.paired.high), reverse=kind.is_loss)
    return f"{figures} (95% {kind.write_difference(low)} to {kind.write_difference(high)})"


def _build_table(
    name: str, headings: tuple[str, str], lines: Sequence[Line], notes: Sequence[str]
) -> Table:
    header, title = headings
    columns = [Column("what", header), *COLUMNS]
    if any(line.kind.is_loss for line in lines):  # each value is written by its own metric
        columns = [
            replace(c, key=f"{c.key}_shown", kind="text") if c.key in WRITTEN_AS else c
            for c in columns
        ]
        return Table(name, title, columns, list(map(_write_row, lines)), notes)
    return Table(name, title, columns, list(map(_row, lines)), notes)


def _write_row(line: Line) -> dict[str, Any]:
    """Build the row of a line, with its figures as text too, ×100 or as a loss."""
    row, kind = _row(line), line.kind
    written = {
        f"{key}_shown": format_value(row[key], kind.column("", "", figure).kind)
        for key, figure in WRITTEN_AS.items()
    }
    return {**row, **written}


def _row(line: Line) -> dict[str, Any]:
    paired, kind = line.paired, line.kind
    return {
        "what": line.what,
        "n_rows": line.n_rows,
        "first": kind.show(line.first),
        "second": kind.show(line.second),
        "difference": kind.show(line.first - line.second),
        "interval": None if paired is None else kind.show_ends(paired.low, paired.high),
        "no_better": None if paired is None else paired.p_worse,
        "better": _name_better(paired),
        "verdict": judge(paired),
    }


def _name_better(paired: Paired | None) -> str | None:
    """Return the significantly better contender, or None.

    >>> _name_better(Paired(0.02, 0.01, 0.03, 0.0)), _name_better(Paired(0.02, -0.01, 0.05, 0.2))
    ('A', None)
    """
    if paired is None or paired.low <= 0 <= paired.high:
        return None
    return "A" if paired.low > 0 else "B"


def _build_notes(found: Comparison) -> list[str]:
    """Describe rows, decision rule, seeds, settings and what biases the comparison."""
    first, second = found.contenders
    folds = ", ".join(map(str, found.folds))
    first_only, second_only = found.only_right
    notes = [
        f"On the {found.n_rows:,} of {found.n_all:,} train rows that both predict, folds {folds};"
        " paired bootstrap over groups of rows.",
        _describe_seed_effect(found),
        f"Different labels for {found.differing:,} rows: only A is right in {first_only:,}, only B"
        f" in {second_only:,}.",
        _describe_rule(found),
        "In the column better, – if the interval includes 0: no significant difference.",
    ]
    seeds = [each.seeds for each in found.contenders if each.seeds]
    if seeds and len(seeds[0]) > 1:
        which = "common seeds" if len(seeds) == 2 else "seeds of the trained one"
        notes.append(f"Averaged over the {which}: {', '.join(map(str, seeds[0]))}.")
    notes += _describe_settings(first, second)
    for letter, each in (("A", first), ("B", second)):
        notes += _describe_contender(letter, each, found)
    return notes


def _describe_seed_effect(found: Comparison) -> str:
    """Say how far a seed moves the difference, or how to find out."""
    effect, kinds = found.seed_effect, found.criteria.kinds
    if effect is None:
        return (
            "The intervals are those of the rows: how far another seed would move the scores is"
            " unknown; to include it, train a variant with several, such as"
            " python run.py fold VARIANT --seeds 42,43,44."
        )
    figures = ", ".join(
        f"{kind.title} {kind.write_difference(abs(each)).lstrip('+-')}"
        for kind, each in zip(kinds, effect.deviations, strict=True)
    )
    known = [each.name for each in found.contenders if each.name not in effect.unknown]
    whose = f" of {' and '.join(known)}" if effect.unknown else ""
    said = (
        f"The overall intervals include the seed{whose}, which moves the difference by {figures}"
        f" (standard deviation, from {', '.join(effect.variants)}); those below are of the rows"
        " alone."
    )
    if not effect.unknown:
        return said
    (missing,) = effect.unknown
    return (
        f"{said} How far another seed would move {missing} is unknown and left out, so they are too"
        " narrow; to include it, train it with several: python run.py fold VARIANT --seeds"
        " 42,43,44."
    )


def _describe_rule(found: Comparison) -> str:
    kind = found.criteria.rule
    if found.by_threshold:
        of_each = [
            (
                letter,
                [rule.threshold or rule.power or 0.0 for rule in found.rules.get(each.name, ())],
            )
            for letter, each in zip("AB", found.contenders, strict=True)
        ]
        shown = [f"{letter} {min(each):.3f}–{max(each):.3f}" for letter, each in of_each if each]
        values = f" ({', '.join(shown)})" if shown else ""
        named = "thresholds" if kind == "threshold" else "powers of the label shares"
        return f"Decision: {named}, tuned for each fold on the other folds{values}."
    tuned = {
        "threshold": "; --threshold tunes a threshold for each",
        "prior": "; --threshold tunes a power of the label shares for each",
        "argmax": "",
    }
    return f"Decision: the most probable label{tuned[kind]}."


def _describe_settings(first: Contender, second: Contender) -> list[str]:
    """List the settings in which two variants differ."""
    differing = list_different_settings(first, second)
    shown = [f"{key} {_write(a)} / {_write(b)}" for key, a, b in differing[:SETTINGS_SHOWN]]
    more = [f"and {len(differing) - len(shown)} more"] if len(differing) > len(shown) else []
    return [f"Different settings, A / B: {', '.join(shown + more)}."] if shown else []


def _write(value: object) -> str:
    """Format a setting briefly.

    >>> _write(0.0005), _write(True), _write(None), _write("ko-mini")
    ('0.0005', 'true', '–', 'ko-mini')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe_contender(letter: str, each: Contender, found: Comparison) -> list[str]:
    notes = []
    if each.is_blend:
        chosen = "weights and thresholds" if found.by_threshold else "weights"
        notes.append(f"{letter} is a blend: {chosen} are nested, tuned on the other folds.")
        distinct = sorted(set(each.temperatures))
        ranked = found.criteria.ranked
        if len(distinct) > 1 and ranked is not None:
            listed = " and ".join(f"{one:g}" for one in distinct)
            notes.append(
                f"{letter}'s folds chose temperatures {listed}; ranking them together lowers"
                f" {ranked.kind.title}, but the blend itself has a single temperature."
            )
    tuned = sorted(set(each.tuned_on) & set(found.folds))
    if each.is_tuned_elsewhere:
        notes.append(f"{letter} {TUNED_ELSEWHERE}")
    elif tuned:
        rest = sorted(set(found.folds) - set(tuned))
        remedy = f"; for a fair comparison add --folds {','.join(map(str, rest))}" if rest else ""
        listed = ", ".join(map(str, tuned))
        notes.append(f"{letter} was tuned on folds {listed}: optimistic there{remedy}.")
    return notes


def _describe_labels(lines: Sequence[Line]) -> list[str]:
    judged = sum(line.paired is not None for line in lines)
    notes = []
    if judged < len(lines):
        notes.append(f"No interval if fewer than {MIN_GROUPS} groups have the label.")
    if judged:
        by_chance = f"{judged / 20:.1g}"
        notes.append(
            f"By chance, one interval in twenty excludes 0 without a real difference: about"
            f" {by_chance} of these {judged}."
        )
    return notes
