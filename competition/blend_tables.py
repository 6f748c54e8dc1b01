"""Show a blend for a person: is it worth more than its best variant, and where may it mislead.

Stands after ``blend_report`` on the way of a row; nothing here is fitted, scored or written.

Legend: K folds, M members.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from competition.assessment import Assessment, Side
from competition.blend_report import BlendReport
from competition.console import Column, Table
from competition.intervals import Paired
from competition.search import BEST_SINGLE, BLEND, CONVEX, UNIFORM

SHARES_SHOWN = 8
POSITIVE_TOLERANCE = 0.10  # share of positive labels, out-of-fold against test
CONFIDENCE_TOLERANCE = 0.03  # mean confidence, likewise
NOISE_SDS = 3  # and at least this many standard deviations of the difference


def judge_blend(report: BlendReport) -> list[str]:
    """Say in words whether the nested blend beats the best single variant and the uniform mean."""
    if len(report.members) == 1:
        return [f"Only {report.members[0].name} is there to blend: just its threshold was tuned."]
    lines = []
    for key, name in ((BEST_SINGLE, "best single variant"), (UNIFORM, "uniform mean")):
        paired = report.compared[key].f1
        figures = _write_paired(paired)
        if paired.low > 0:
            lines.append(f"The blend beats the {name} in truth, by {figures}.")
        elif paired.high < 0:
            lines.append(f"The blend is worse than the {name}, by {figures}: submit that instead.")
        else:
            lines.append(f"The blend does not beat the {name} beyond doubt: {figures}.")
    convex = report.compared[CONVEX].f1
    if convex.difference < 0:
        lines.append(
            "The convex weights alone do as well nested, so the search overfits: the blend minus"
            f" them is {_write_paired(convex)}."
        )
    fitted, nested = report.fitted[BLEND].f1.value, report.nested[BLEND].f1.value
    lines.append(
        f"Fitted micro-F1 is {100 * (fitted - nested):+.2f} against nested: what tuning on the same"
        " rows adds on paper."
    )
    return lines


def find_partings(oof: Side, test: Side) -> list[str]:
    """Warn where the blend answers test rows otherwise than out-of-fold rows."""
    per_row = 1 / oof.n_rows + 1 / test.n_rows
    found = []
    share = oof.positive_share
    noise = NOISE_SDS * math.sqrt(share * (1 - share) * per_row)
    if abs(test.positive_share - share) > max(POSITIVE_TOLERANCE, noise):
        found.append(
            f"Warning: {100 * test.positive_share:.1f}% of test rows get a positive label, and"
            f" {100 * share:.1f}% of out-of-fold rows: the test is another mix of rows, or the"
            " threshold misfires on averaged models. Out-of-fold scores do not foretell the board."
        )
    # a probability's standard deviation is at most a half
    noise = NOISE_SDS * 0.5 * math.sqrt(per_row)
    if abs(test.confidence - oof.confidence) > max(CONFIDENCE_TOLERANCE, noise):
        found.append(
            f"Warning: mean confidence is {100 * test.confidence:.1f}% on test rows and"
            f" {100 * oof.confidence:.1f}% out-of-fold: test rows are unlike the train rows, or a"
            " member has seen its out-of-fold rows."
        )
    return found


def build_blend_tables(report: BlendReport) -> list[Table]:
    """Show a blend: members, what it is compared to, label shares, and what was left out."""
    tables = [_members_table(report), _systems_table(report), _compared_table(report)]
    tables += [_sides_table(report), _shares_table(report)]
    if report.left_out:
        columns = [Column("name", "variant"), Column("reason", "why it is left out")]
        rows = [asdict(each) for each in report.left_out]
        tables.append(Table("left_out", "Left out", columns, rows))
    return tables


def _write_paired(paired: Paired) -> str:
    return (
        f"{100 * paired.difference:+.2f} micro-F1, 95% interval {100 * paired.low:+.2f} to"
        f" {100 * paired.high:+.2f}, nested and paired"
    )


def _score_columns(shifted_share: float | None, *, intervals: bool = True) -> list[Column]:
    """Columns for what ``_score_row`` holds; the rest of it stays in the JSON."""
    columns = [
        Column("f1", "F1", "score"),
        Column("f1_interval", "95%", "interval"),
        Column("auprc", "AUPRC", "score"),
        Column("auprc_interval", "95%", "interval"),
    ]
    if not intervals:
        columns = [column for column in columns if column.kind == "score"]
    if shifted_share is not None:
        at = f"at {100 * shifted_share:.0f}%"
        columns += [
            Column("shifted_f1", f"F1 {at}", "score"),
            Column("shifted_auprc", f"AUPRC {at}", "score"),
        ]
    return columns


def _score_row(assessment: Assessment) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key in ("f1", "auprc", "shifted_f1", "shifted_auprc"):
        score = getattr(assessment, key)
        if score is not None:
            row |= {key: score.value, f"{key}_interval": (score.low, score.high)}
    return row


def _members_table(report: BlendReport) -> Table:
    columns = [
        Column("name", "member"),
        Column("weight", "weight", "number"),
        *_score_columns(report.shifted_share, intervals=False),
    ]
    rows = []
    for index, (member, weight) in enumerate(
        zip(report.members, report.fit.blend.weights, strict=True)
    ):
        refitted = report.nested_weights[:, index]
        rows.append(
            {
                "name": member.name,
                "weight": weight,
                "nested_weights": f"{refitted.min():.2f}–{refitted.max():.2f}",
                **_score_row(report.singles[member.name]),
                "why": member.why,
            }
        )
    dropped = [row["name"] for row in rows if row["weight"] == 0]
    notes = ["Each member's score is under its own best threshold, tuned on the same rows."]
    if dropped:
        notes.append(f"Weight 0, the blend is no better with them: {', '.join(dropped)}.")
    return Table("members", "Members", columns, rows, notes)


def _systems_table(report: BlendReport) -> Table:
    columns = [
        Column("system", "weights"),
        Column("estimate", "estimate"),
        *_score_columns(report.shifted_share),
    ]
    rows = []
    for estimate, assessed, estimates in (
        ("fitted", report.fitted, report.fit.fitted),
        ("nested", report.nested, report.fit.nested),
    ):
        for system, assessment in assessed.items():
            found = [point.threshold for point in estimates[system].points]
            thresholds = [threshold for threshold in found if threshold is not None]
            threshold = float(np.mean(thresholds)) if thresholds else None
            row = {"system": system, "estimate": estimate, "threshold": threshold}
            rows.append(row | _score_row(assessment))
    notes = ["All under the same decision rule. Nested: chosen and tuned on the other folds."]
    if report.shifted_share is not None:
        at = f"{100 * report.shifted_share:.0f}%"
        notes.append(
            f"At {at}: rows reweighted until {at} of them are negative; nothing is tuned so."
        )
    return Table("systems", "Ways of weighing", columns, rows, notes)


def _compared_table(report: BlendReport) -> Table:
    columns = [Column("against", "blend minus")]
    for key, header in (("f1", "F1"), ("auprc", "AUPRC")):
        columns.append(Column(f"{key}_difference", header, "difference"))
        columns.append(Column(f"{key}_interval", "95%", "spread"))
    rows = [
        {"against": against}
        | _paired_row("f1", comparison.f1)
        | _paired_row("auprc", comparison.auprc)
        for against, comparison in report.compared.items()
    ]
    return Table("compared", "Nested, paired", columns, rows, judge_blend(report))


def _paired_row(key: str, paired: Paired) -> dict[str, Any]:
    return {
        f"{key}_difference": paired.difference,
        f"{key}_interval": (paired.low, paired.high),
        f"{key}_no_better": paired.p_worse,
    }


def _sides_table(report: BlendReport) -> Table:
    columns = [
        Column("side", "rows"),
        Column("n_rows", "count", "count"),
        Column("positive_share", "positive labels", "share"),
        Column("confidence", "mean confidence", "share"),
    ]
    rows = []
    for side, measured in (("out-of-fold", report.oof_side), ("test", report.test_side)):
        figures = asdict(measured)
        del figures["label_shares"]
        rows.append({"side": side} | figures)
    notes = find_partings(report.oof_side, report.test_side)
    return Table("sides", "The blend's answers", columns, rows, notes)


def _shares_table(report: BlendReport) -> Table:
    columns = [
        Column("label", "label"),
        Column("gold", "train", "share"),
        Column("oof", "out-of-fold", "share"),
        Column("test", "test", "share"),
        Column("difference", "test minus out-of-fold", "difference"),
    ]
    oof, test = report.oof_side.label_shares, report.test_side.label_shares
    rows: list[dict[str, Any]] = [
        {"label": label, "gold": gold, "oof": here, "test": there, "difference": there - here}
        for label, gold, here, there in zip(
            report.labels, report.gold_shares, oof, test, strict=True
        )
    ]
    rows.sort(key=lambda row: -abs(row["difference"]))
    return Table(
        "shares", "Predicted labels whose share differs most", columns, rows[:SHARES_SHOWN]
    )
