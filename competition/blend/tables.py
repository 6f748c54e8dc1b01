"""Tables that ``blend`` prints: members, scores, and the comparison to the best variant.

They only show a finished ``report``. ``risk_tables`` shows where it may mislead.

Legend: K folds, M members.
"""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from competition.blend.report import BlendReport
from competition.blend.risk_tables import advise_single, build_risk_tables
from competition.blend.search import BEST_SINGLE, BLEND, CONVEX, SYSTEMS, UNIFORM
from competition.blend.spec import describe_left_out
from competition.console import Column, Table
from competition.predictions.members import TUNED_ELSEWHERE
from competition.scoring.assessment import Assessment, PairedScores, compare
from competition.scoring.bootstrap import Paired

FRONT_SHOWN = 8
UNSEEN = "On held-out folds"


def build_blend_tables(report: BlendReport) -> list[Table]:
    """Build the tables: members, all ensembles, risks, and what was left out."""
    tables = [_members_table(report), _systems_table(report)]
    if report.options.objective == "both":
        tables.append(_front_table(report))
    tables += build_risk_tables(report)
    left_out = describe_left_out(report)
    if left_out:
        columns = [Column("name", "variant"), Column("reason", "reason")]
        tables.append(Table("left_out", "Left out", columns, left_out))
    return [*tables, _next_steps_table(report)]


def _next_steps_table(report: BlendReport) -> Table:
    """Show the submission's path and the next commands; a sample cannot be uploaded."""
    path = shlex.quote(str(report.path))
    commands = [f"python run.py check {path}"]
    if report.inputs.prepared.competition.limit is None:
        commands.append(f"python run.py submit {path}")
    if len(report.inputs.names) > 1 and report.evaluation.compared[BEST_SINGLE].f1.high < 0:
        commands = [advise_single(report)]  # the blend is worse than the best single variant
    notes = [f"Written: {report.path}", f"Next: {'; '.join(commands)}"]
    return Table("written", f"Submission {report.path.stem}", (), [], notes)


def describe_verdict(report: BlendReport) -> list[str]:
    """Compare the nested blend in words to the best single variant and the uniform mean."""
    names, evaluation = report.inputs.names, report.evaluation
    if len(names) == 1:
        has_threshold = report.inputs.rows.negative_id is not None
        tuned = "threshold and temperature" if has_threshold else "temperature"
        return [f"{names[0]} is the only member; tuned: its {tuned}."]
    lines = []
    for key, name in ((BEST_SINGLE, "best single variant"), (UNIFORM, "uniform mean")):
        paired = evaluation.compared[key].f1
        figures = _write_paired(paired)
        if paired.low > 0:
            lines.append(f"{UNSEEN}, the blend beats the {name} by {figures}.")
        elif paired.high < 0:
            instead = " Submit that instead; its command stands below." * (key == BEST_SINGLE)
            lines.append(f"{UNSEEN}, the blend is worse than the {name}: {figures}.{instead}")
        else:
            lines.append(f"{UNSEEN}, the blend does not beat the {name} significantly: {figures}.")
        area = evaluation.compared[key].auprc
        if area.high < 0:
            lines.append(
                f"{UNSEEN}, its AUPRC is worse than that of the {name}:"
                f" {_write_paired(area, 'AUPRC')}."
            )
    convex = evaluation.compared[CONVEX].f1
    if convex.difference < 0:
        lines.append(
            "The convex weights alone score at least as well nested, so the search overfits: blend"
            f" minus convex is {_write_paired(convex)}."
        )
    fitted, nested = evaluation.fitted[BLEND], evaluation.nested[BLEND]
    lines.append(
        f"Optimism, fitted minus nested: {100 * (fitted.f1.value - nested.f1.value):+.2f} micro-F1"
        f" and {100 * (fitted.auprc.value - nested.auprc.value):+.2f} AUPRC; the fitted scores are"
        " biased by this much because they were tuned on the same rows."
    )
    return lines


def _write_paired(paired: Paired, metric: str = "micro-F1") -> str:
    return (
        f"{100 * paired.difference:+.2f} {metric} (95% {100 * paired.low:+.2f} to"
        f" {100 * paired.high:+.2f})"
    )


def _members_table(report: BlendReport) -> Table:
    columns = [
        Column("name", "member"),
        Column("weight", "weight", "number"),
        Column("nested_weights", "weights in folds"),
        Column("why", "why"),
    ]
    rows = []
    for place, member in enumerate(report.inputs.members):
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
            "Decision: the best positive label if its probability is at least"
            f" {report.fit.blend.threshold:.4f}, else the negative label."
        )
    notes.append(_describe_temperature(report))
    if report.options.reweight is not None:
        notes.append(
            f"Fitted to rows weighted by {report.options.reweight}: experimental. Such corrections"
            " have made submissions worse; compare with the plain blend on the leaderboard."
        )
    for member in report.inputs.members:
        if member.is_tuned_elsewhere:
            notes.append(f"{member.name} {TUNED_ELSEWHERE}")
        elif member.tuned_on:
            folds = ", ".join(map(str, member.tuned_on))
            notes.append(
                f"{member.name} was tuned on folds {folds}: every score that includes it, nested"
                " ones too, is optimistic there."
            )
    averages = [member.name for member in report.inputs.members if member.test_is_average]
    if averages:
        notes.append(
            f"Test predictions of {', '.join(averages)} are an average over models, flatter than"
            " the models that weights and threshold were fitted to; the blend is applied once."
        )
    return Table("members", "Members", columns, rows, notes)


def _describe_temperature(report: BlendReport) -> str:
    """Describe the temperature of the blend and those chosen in the folds."""
    chosen, evaluation = report.fit.blend.temperature, report.evaluation
    nested = sorted({point.temperature for point in report.fit.nested[BLEND].points})
    folds = ""
    if nested != [chosen]:
        folds = f"; folds chose {' and '.join(f'{each:g}' for each in nested)}"
    if chosen == 1.0:
        return f"Probabilities: temperature 1; no other improves AUPRC on the fitted rows{folds}."
    area = evaluation.fitted[BLEND].auprc.value
    return (
        f"Probabilities: {'flattened' if chosen > 1 else 'sharpened'} with temperature {chosen:g}"
        f" (AUPRC {100 * evaluation.as_pooled:.1f} → {100 * area:.1f} on the fitted rows{folds});"
        " labels are decided before this."
    )


def _systems_table(report: BlendReport) -> Table:
    """Show each member and ensemble: fitted, nested, and compared to the best single variant."""
    columns = [
        Column("system", "member or ensemble"),
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
    evaluation = report.evaluation
    single = evaluation.nested[BEST_SINGLE]
    rows = [
        _system_row(name, evaluation.single_fitted[name], nested, compare(nested, single))
        for name, nested in evaluation.singles.items()
    ]
    for name in SYSTEMS:
        fitted, nested = evaluation.fitted[name], evaluation.nested[name]
        scores = (fitted.f1.value, fitted.auprc.value)
        found = _system_row(name, scores, nested, compare(nested, single))
        points = report.fit.nested[name].points
        thresholds = [point.threshold for point in points if point.threshold is not None]
        found["thresholds"] = thresholds
        found["temperatures"] = [point.temperature for point in points]
        rows.append(found)
    rule = (
        "All take the most probable label"
        if report.inputs.rows.negative_id is None
        else "All use the same decision rule with its best threshold"
    )
    notes = [
        f"{rule}, and each its best temperature. Fitted: on the rows it was tuned on. Nested:"
        " selected, fitted and tuned on the other folds.",
        *describe_verdict(report),
    ]
    return Table("systems", "Members and ensembles", columns, rows, notes)


def _system_row(
    name: str, fitted: tuple[float, float], nested: Assessment, gain: PairedScores
) -> dict[str, Any]:
    """Build a row; ``fitted`` is (micro-F1, AUPRC)."""
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
    """Show the Pareto front of micro-F1 and AUPRC, and the selected point."""
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
        f"Pareto front of {len(front)} points. Kept: of those whose micro-F1 reaches that of every"
        " starting point, the one with the highest AUPRC, without members that do not help; the"
        " last hundredths of micro-F1 are noise. AUPRC at temperature 1."
    ]
    return Table("front", "Micro-F1 against AUPRC", columns, rows, notes)
