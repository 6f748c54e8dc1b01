"""Show a blend for a person: is it worth more than its best variant, and what is in it.

Stands after ``blend_report`` on the way of a row; nothing here is fitted, scored or written.
``trust_tables`` shows where it may mislead.

Legend: K folds, M members.
"""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from competition.blend.report import BlendReport
from competition.blend.risk_tables import advise_single, build_trust_tables
from competition.blend.search import BEST_SINGLE, BLEND, CONVEX, SYSTEMS, UNIFORM
from competition.blend.spec import describe_left_out
from competition.console import Column, Table
from competition.predictions.members import TUNED_ELSEWHERE
from competition.scoring.assessment import Assessment, PairedScores, compare
from competition.scoring.bootstrap import Paired

FRONT_SHOWN = 8
UNSEEN = "On rows it was not tuned on"


def build_blend_tables(report: BlendReport) -> list[Table]:
    """Show a blend: members, every way of weighing, what to doubt, and what was left out."""
    tables = [_members_table(report), _systems_table(report)]
    if report.options.objective == "both":
        tables.append(_front_table(report))
    tables += build_trust_tables(report)
    left_out = describe_left_out(report)
    if left_out:
        columns = [Column("name", "variant"), Column("reason", "why it is left out")]
        tables.append(Table("left_out", "Left out", columns, left_out))
    return [*tables, _tell_next(report)]


def _tell_next(report: BlendReport) -> Table:
    """Say where the submission lies and which commands come next; a sample's is never sent."""
    path = shlex.quote(str(report.path))
    commands = [f"python run.py check {path}"]
    if report.material.prepared.competition.limit is None:
        commands.append(f"python run.py submit {path}")
    if len(report.material.names) > 1 and report.worth.compared[BEST_SINGLE].f1.high < 0:
        commands = [advise_single(report)]  # worse than the best single variant, as said above
    notes = [f"Written: {report.path}", f"Next: {'; '.join(commands)}"]
    return Table("written", f"Submission {report.path.stem}", (), [], notes)


def judge_blend(report: BlendReport) -> list[str]:
    """Say in words whether the nested blend beats the best single variant and the uniform mean."""
    names, worth = report.material.names, report.worth
    if len(names) == 1:
        tuned = "its threshold and " if report.material.rows.negative_id is not None else ""
        return [f"Only {names[0]} is there to blend: {tuned}how sure it is was tuned, no more."]
    lines = []
    for key, name in ((BEST_SINGLE, "best single variant"), (UNIFORM, "uniform mean")):
        paired = worth.compared[key].f1
        figures = _write_paired(paired)
        if paired.low > 0:
            lines.append(f"{UNSEEN}, the blend beats the {name} by {figures}.")
        elif paired.high < 0:
            lines.append(
                f"{UNSEEN}, the blend is worse than the {name}: {figures}. Submit that instead."
            )
        else:
            lines.append(f"{UNSEEN}, the blend does not beat the {name} beyond doubt: {figures}.")
    convex = worth.compared[CONVEX].f1
    if convex.difference < 0:
        lines.append(
            "The convex weights alone do as well nested, so the search overfits: the blend minus"
            f" them is {_write_paired(convex)}."
        )
    fitted, nested = worth.fitted[BLEND], worth.nested[BLEND]
    lines.append(
        f"Optimism, fitted minus nested: {100 * (fitted.f1.value - nested.f1.value):+.2f} micro-F1"
        f" and {100 * (fitted.auprc.value - nested.auprc.value):+.2f} AUPRC, what tuning on the"
        " same rows adds on paper."
    )
    return lines


def _write_paired(paired: Paired) -> str:
    return (
        f"{100 * paired.difference:+.2f} micro-F1 (95% {100 * paired.low:+.2f} to"
        f" {100 * paired.high:+.2f})"
    )


def _members_table(report: BlendReport) -> Table:
    columns = [
        Column("name", "member"),
        Column("weight", "weight", "number"),
        Column("nested_weights", "in the folds"),
        Column("why", "why"),
    ]
    rows = []
    for place, member in enumerate(report.material.members):
        refitted = report.nested_weights[:, place]
        rows.append(
            {
                "name": member.name,
                "weight": report.fit.blend.weights[place],
                "nested_weights": f"{refitted.min():.2f}–{refitted.max():.2f}",
                "why": member.why,
            }
        )
    notes = []
    if report.fit.blend.threshold is not None:
        notes.append(
            "Decision: the best positive label where the blend gives it"
            f" {report.fit.blend.threshold:.4f} or more."
        )
    notes.append(_tell_temperature(report))
    if report.options.reweight is not None:
        notes.append(
            f"Fitted to rows weighed by {report.options.reweight}: unproven. Corrections of this"
            " kind have made submissions worse; compare it with the plain blend on the board."
        )
    for member in report.material.members:
        if member.is_tuned_elsewhere:
            notes.append(f"{member.name} {TUNED_ELSEWHERE}")
        elif member.tuned_on:
            folds = ", ".join(map(str, member.tuned_on))
            notes.append(
                f"{member.name} was tuned on folds {folds}: every score with it, nested ones too,"
                " is flattered there."
            )
    averages = [member.name for member in report.material.members if member.test_is_average]
    if averages:
        notes.append(
            f"Test predictions of {', '.join(averages)} are one average, flatter than the models"
            " that weights and threshold were fitted to; the blend is applied to it once."
        )
    return Table("members", "Members", columns, rows, notes)


def _tell_temperature(report: BlendReport) -> str:
    """Say how flat the probabilities are that are ranked, and where folds chose otherwise."""
    chosen, worth = report.fit.blend.temperature, report.worth
    nested = sorted({point.temperature for point in report.fit.nested[BLEND].points})
    folds = ""
    if nested != [chosen]:
        folds = f"; folds chose {' and '.join(f'{each:g}' for each in nested)}"
    if chosen == 1.0:
        return f"Probabilities: as pooled; no temperature ranks the fitted rows better{folds}."
    return (
        f"Probabilities: {'flattened' if chosen > 1 else 'sharpened'} with temperature {chosen:g}"
        f" (AUPRC {100 * worth.as_pooled:.1f} → {100 * worth.fitted[BLEND].auprc.value:.1f} on the"
        f" fitted rows{folds}); labels are decided before."
    )


def _systems_table(report: BlendReport) -> Table:
    """Show each member and each way of weighing: fitted, nested, and against the best single."""
    columns = [
        Column("system", "weights"),
        Column("fitted_f1", "fitted F1", "score"),
        Column("nested_f1", "nested F1", "score"),
        Column("f1_interval", "95%", "interval"),
        Column("f1_gain", "over best single", "difference"),
        Column("f1_gain_interval", "95%", "spread"),
        Column("fitted_auprc", "fitted AUPRC", "score", begins_part=True),
        Column("nested_auprc", "nested AUPRC", "score"),
        Column("auprc_gain", "over best single", "difference"),
        Column("auprc_gain_interval", "95%", "spread"),
    ]
    worth = report.worth
    single = worth.nested[BEST_SINGLE]
    rows = [
        _system_row(name, worth.single_fitted[name], nested, compare(nested, single))
        for name, nested in worth.singles.items()
    ]
    for name in SYSTEMS:
        fitted, nested = worth.fitted[name], worth.nested[name]
        scores = (fitted.f1.value, fitted.auprc.value)
        found = _system_row(name, scores, nested, compare(nested, single))
        points = report.fit.nested[name].points
        thresholds = [point.threshold for point in points if point.threshold is not None]
        found["thresholds"] = thresholds
        found["temperatures"] = [point.temperature for point in points]
        rows.append(found)
    rule = (
        "All take the most probable label"
        if report.material.rows.negative_id is None
        else "All under one decision rule, its threshold exactly the best"
    )
    notes = [
        f"{rule}, and ranked at the temperature that is best for each. Fitted: on the rows tuned"
        " on. Nested: selected, weighed and tuned on the other folds.",
        *judge_blend(report),
    ]
    return Table("systems", "Members and ways of weighing", columns, rows, notes)


def _system_row(
    name: str, fitted: tuple[float, float], nested: Assessment, gain: PairedScores
) -> dict[str, Any]:
    """Lay out a row; ``fitted`` are micro-F1 and AUPRC."""
    fitted_f1, fitted_auprc = fitted
    return {
        "system": name,
        "fitted_f1": fitted_f1,
        "nested_f1": nested.f1.value,
        "f1_interval": (nested.f1.low, nested.f1.high),
        "f1_optimism": fitted_f1 - nested.f1.value,
        "f1_gain": gain.f1.difference,
        "f1_gain_interval": (gain.f1.low, gain.f1.high),
        "fitted_auprc": fitted_auprc,
        "nested_auprc": nested.auprc.value,
        "auprc_optimism": fitted_auprc - nested.auprc.value,
        "auprc_interval": (nested.auprc.low, nested.auprc.high),
        "auprc_gain": gain.auprc.difference,
        "auprc_gain_interval": (gain.auprc.low, gain.auprc.high),
    }


def _front_table(report: BlendReport) -> Table:
    """Show the points that no other beats by both scores, and which was kept."""
    columns = [
        Column("f1", "fitted F1", "score"),
        Column("auprc", "fitted AUPRC", "score"),
        Column("kept", "kept"),
        Column("weights", "weights"),
    ]
    front = report.fit.fit.front
    kept = report.fit.fit.points[BLEND]
    others = [each for each in front if not np.array_equal(each.weights, kept.weights)]
    shown = [*others[:: max(1, len(others) // FRONT_SHOWN)], kept]
    rows = [
        {
            "f1": point.f1,
            "auprc": point.auprc,
            "kept": "kept" if point is kept else "",
            "weights": " ".join(f"{weight:.2f}" for weight in point.weights),
        }
        for point in sorted(shown, key=lambda point: -point.f1)
    ]
    notes = [
        f"{len(front)} points that no other beats by both scores. Kept: of those whose micro-F1"
        " reaches that of every start, the one with the highest AUPRC, less members that it does as"
        " well without; a last hundredth of micro-F1 is the noise of these rows. AUPRC as pooled."
    ]
    return Table("front", "Micro-F1 against AUPRC", columns, rows, notes)
