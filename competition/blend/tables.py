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
from competition.blend.search import BEST_SINGLE, BLEND, CONVEX, UNIFORM
from competition.blend.spec import describe_left_out
from competition.console import Column, Table
from competition.predictions.members import TUNED_ELSEWHERE
from competition.scoring.assessment import Assessment, PairedScores, compare
from competition.scoring.bootstrap import Paired
from competition.scoring.criteria import BOTH, Criteria
from competition.scoring.metrics.metric import MetricKind

FRONT_SHOWN = 8
UNSEEN = "On held-out folds"


def build_blend_tables(report: BlendReport) -> list[Table]:
    """Build the tables: members, all ensembles, risks, and what was left out."""
    tables = [_members_table(report), _systems_table(report)]
    if report.options.objective == BOTH:
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
    if len(report.inputs.names) > 1 and report.evaluation.compared[BEST_SINGLE].primary.high < 0:
        commands = [advise_single(report)]  # the blend is worse than the best single variant
    notes = [f"Written: {report.path}", f"Next: {'; '.join(commands)}"]
    return Table("written", f"Submission {report.path.stem}", (), [], notes)


def describe_verdict(report: BlendReport) -> list[str]:
    """Compare the nested blend in words to the best single variant and the uniform mean."""
    names, evaluation = report.inputs.names, report.evaluation
    criteria = report.inputs.criteria
    first, *second = criteria.kinds
    if len(names) == 1:
        return [f"{names[0]} is the only member; {_say_tuned(criteria)}."]
    lines = []
    for key, name in ((BEST_SINGLE, "best single variant"), (UNIFORM, "uniform mean")):
        paired = evaluation.compared[key].primary
        figures = _write_paired(paired, first)
        if paired.low > 0:
            lines.append(f"{UNSEEN}, the blend beats the {name} by {figures}.")
        elif paired.high < 0:
            instead = " Submit that instead; its command is below." * (key == BEST_SINGLE)
            lines.append(f"{UNSEEN}, the blend is worse than the {name}: {figures}.{instead}")
        else:
            lines.append(f"{UNSEEN}, the blend does not beat the {name} significantly: {figures}.")
        other = evaluation.compared[key].secondary
        if other is not None and other.high < 0:
            lines.append(
                f"Warning: {UNSEEN.lower()}, its {second[0].title} is worse than that of the"
                f" {name}: {_write_paired(other, second[0])}."
            )
    convex = evaluation.compared[CONVEX].primary
    if convex.difference < 0:
        lines.append(
            "The convex weights alone score at least as well nested, so the search overfits: blend"
            f" minus convex is {_write_paired(convex, first)}."
        )
    fitted, nested = evaluation.fitted[BLEND], evaluation.nested[BLEND]
    optimism = [
        f"{kind.write_difference(a.value - b.value)} {kind.title}"
        for kind, a, b in zip(criteria.kinds, fitted.scores, nested.scores, strict=True)
    ]
    lines.append(
        f"Optimism, fitted minus nested: {' and '.join(optimism)}; the fitted scores are"
        " biased by this much because they were tuned on the same rows."
    )
    return lines


def close_blend(report: BlendReport) -> str:
    """Return the closing line: against the best single variant, and what the test should give."""
    evaluation, first = report.evaluation, report.inputs.criteria.kinds[0]
    expected = ""
    if report.inputs.forecast is not None:
        value = first.write(evaluation.expected[BLEND].primary.value)
        expected = f"; expected on the test: {first.head} {value}"
    nested = f"nested {first.head} {first.write(evaluation.nested[BLEND].primary.value)}"
    if len(report.inputs.names) == 1:
        return f"Verdict: {report.inputs.names[0]} alone, {nested}{expected}."
    paired = evaluation.compared[BEST_SINGLE].primary
    if paired.low > 0:
        said = "Better: the blend beats the best single variant on held-out folds"
    elif paired.high < 0:
        said = "Worse: the blend loses to the best single variant on held-out folds"
    else:
        said = "Verdict: no significant difference from the best single variant"
    return f"{said}: {_write_paired(paired, first)}; {nested}{expected}."


def _say_tuned(criteria: Criteria) -> str:
    """Say what is tuned of a single member."""
    rules = {"threshold": "threshold", "prior": "power of the label shares", "argmax": ""}
    rule = rules[criteria.rule]
    named = [*([rule] if rule else []), *(["temperature"] if criteria.ranked else [])]
    tuned = " and ".join(named)
    return f"tuned: its {tuned}" if tuned else "nothing is tuned, as no metric asks for it"


def _write_paired(paired: Paired, kind: MetricKind) -> str:
    low, high = sorted((paired.low, paired.high), reverse=kind.is_loss)
    return (
        f"{kind.write_difference(paired.difference)} {kind.title}"
        f" (95% {kind.write_difference(low)} to {kind.write_difference(high)})"
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
    notes = [*_describe_rule(report), *_describe_temperature(report)]
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


def _describe_rule(report: BlendReport) -> list[str]:
    """Describe the decision rule, unless it is the most probable label."""
    rule = report.fit.blend.rule
    if rule.threshold is not None:
        several = len(report.inputs.criteria.negative_ids) > 1
        negative = "the best negative label" if several else "the negative label"
        return [
            "Decision: the best positive label if its probability is at least"
            f" {rule.threshold:.4f}, else {negative}."
        ]
    if not rule.power:
        return []
    nested = sorted({point.rule.power or 0.0 for point in report.fit.nested[BLEND].points})
    folds = f"; folds chose {' and '.join(f'{each:g}' for each in nested)}"
    return [
        "Decision: the label whose probability is highest relative to its share of the train rows"
        f" to the power {rule.power:g}{'' if nested == [rule.power] else folds}."
    ]


def _describe_temperature(report: BlendReport) -> list[str]:
    """Describe the temperature of the blend and those chosen in the folds."""
    metric = report.inputs.criteria.ranked
    if metric is None:
        return []
    kind = metric.kind
    chosen, evaluation = report.fit.blend.temperature, report.evaluation
    nested = sorted({point.temperature for point in report.fit.nested[BLEND].points})
    folds = ""
    if nested != [chosen]:
        folds = f"; folds chose {' and '.join(f'{each:g}' for each in nested)}"
    if chosen == 1.0:
        said = f"temperature 1; no other improves {kind.title} on the fitted rows{folds}."
        return [f"Probabilities: {said}"]
    place = report.inputs.criteria.kinds.index(kind)
    before, after = evaluation.as_pooled, evaluation.fitted[BLEND].scores[place].value
    assert before is not None
    shown = [kind.write(v) if kind.is_loss else f"{100 * v:.1f}" for v in (before, after)]
    return [
        f"Probabilities: {'flattened' if chosen > 1 else 'sharpened'} with temperature {chosen:g}"
        f" ({kind.title} {' → '.join(shown)} on the fitted rows{folds});"
        " labels are decided before this."
    ]


def _systems_table(report: BlendReport) -> Table:
    """Show each member and ensemble: fitted, nested, and compared to the best single variant."""
    criteria = report.inputs.criteria
    columns = [Column("system", "member or ensemble")]
    for place, kind in enumerate(criteria.kinds):
        own = kind.short
        columns.append(kind.column(f"fitted_{own}", f"fitted {kind.head}", begins_part=place > 0))
        columns.append(kind.column(f"nested_{own}", f"nested {kind.head}"))
        if place == 0:
            columns.append(kind.column(f"{own}_interval", "95%", "interval"))
        columns += [
            kind.column(f"{own}_gain", "over best single", "difference"),
            kind.column(f"{own}_gain_interval", "95%", "spread"),
        ]
    evaluation = report.evaluation
    single = evaluation.nested[BEST_SINGLE]
    rows = [
        _system_row(name, evaluation.single_fitted[name], nested, compare(nested, single))
        for name, nested in evaluation.singles.items()
    ]
    for name in report.ensembles:
        fitted, nested = evaluation.fitted[name], evaluation.nested[name]
        scores = tuple(score.value for score in fitted.scores)
        found = _system_row(name, scores, nested, compare(nested, single))
        rules = [point.rule for point in report.fit.nested[name].points]
        found["thresholds"] = [rule.threshold for rule in rules if rule.threshold is not None]
        if criteria.rule == "prior":
            found["prior_powers"] = [rule.power for rule in rules]
        found["temperatures"] = [point.temperature for point in report.fit.nested[name].points]
        rows.append(found)
    uses = {
        "threshold": "All use the same decision rule with its best threshold",
        "prior": "All use the same decision rule with its best power of the label shares",
        "argmax": "All take the most probable label",
    }
    tempered = ", and each its best temperature" if criteria.ranked else ""
    notes = [
        f"{uses[criteria.rule]}{tempered}. Fitted: on the rows it was tuned on. Nested:"
        " selected, fitted and tuned on the other folds.",
        *describe_verdict(report),
        close_blend(report),
    ]
    return Table("systems", "Members and ensembles", columns, rows, notes)


def _system_row(
    name: str, fitted: tuple[float, ...], nested: Assessment, gain: PairedScores
) -> dict[str, Any]:
    """Build a row; ``fitted`` has a score of each metric."""
    row: dict[str, Any] = {"system": name}
    for value, each, paired in zip(fitted, nested.measured, gain.differences, strict=True):
        kind, score = each.kind, each.score
        row |= {
            f"fitted_{kind.short}": kind.show(value),
            f"nested_{kind.short}": kind.show(score.value),
            f"{kind.short}_interval": kind.show_ends(score.low, score.high),
            f"{kind.short}_optimism": kind.show(value - score.value),
            f"{kind.short}_gain": kind.show(paired.difference),
            f"{kind.short}_gain_interval": kind.show_ends(paired.low, paired.high),
        }
    return row


def _front_table(report: BlendReport) -> Table:
    """Show the Pareto front of both metrics, and the selected point."""
    first, second = report.inputs.criteria.kinds
    columns = [
        first.column(first.short, f"fitted {first.head}"),
        second.column(second.short, f"fitted {second.head}"),
        Column("kept", "kept"),
        Column("weights", "weights"),
    ]
    front = report.fit.fit.front
    kept = report.fit.fit.points[BLEND]
    others = [each for each in front if not np.array_equal(each.weights, kept.weights)]
    shown = [*others[:: max(1, len(others) // FRONT_SHOWN)], kept]
    rows = [
        {
            first.short: first.show(point.primary),
            second.short: None if point.secondary is None else second.show(point.secondary),
            "kept": "kept" if point is kept else "",
            "weights": " ".join(f"{weight:.2f}" for weight in point.weights),
        }
        for point in sorted(shown, key=lambda point: -point.primary)
    ]
    best = "lowest" if second.is_loss else "highest"
    temperature = f" {second.title} at temperature 1." if second.reads == "probabilities" else ""
    notes = [
        f"Pareto front of {len(front)} points. Kept: of those whose {first.title} reaches that of"
        f" every starting point, the one with the {best} {second.title}, without members that do"
        f" not help; the last hundredths of {first.title} are noise.{temperature}"
    ]
    title = f"{first.title[:1].upper()}{first.title[1:]} against {second.title}"
    return Table("front", title, columns, rows, notes)
