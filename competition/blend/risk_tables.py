"""Tables about the risks of a blend: shift, noise of the leaderboard, unreliable members.

They only show a finished ``report``; nothing is computed from predictions here.

Legend: M members.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from competition.audit.shift import explain_absence
from competition.blend.report import BlendReport
from competition.blend.reweighting import EXPECTED, PLAIN
from competition.blend.search import BEST_SINGLE, BLEND
from competition.console import Column, Detail, Table
from competition.predictions.expected_scores import describe_forecast, lay_out_expected
from competition.scoring.assessment import Side
from competition.scoring.metrics.micro_f1 import is_any_of

SHARES_SHOWN = 8
POSITIVE_TOLERANCE = 0.10  # share of positive labels, out-of-fold against test
CONFIDENCE_TOLERANCE = 0.03  # mean confidence, likewise
NAMES = {PLAIN: "plain", EXPECTED: "as in the test"}  # of row weightings
TINY = 1e-9  # so that rows without weight have a mean
NOISE_SDS = 3  # and at least this many standard deviations of the difference


def build_risk_tables(report: BlendReport) -> list[Table]:
    """Build the tables of scores and weights on test-like rows, public noise, and warnings."""
    tables = [_expected_table(report)]
    if len(report.inputs.members) > 1:
        tables += [_reweighted_table(report), _noise_table(report)]
    return [*tables, _sides_table(report), _shares_table(report)]


@dataclass(frozen=True, slots=True)
class ExpectedShares:
    """Share of positive predictions to expect in the test, and of the negative label in it.

    ``is_estimated`` if the share of the negative label is not the profile's.
    """

    negative_share: float
    positive_share: float
    is_estimated: bool = False


def warn_of_differences(
    oof: Side, test: Side, expected: ExpectedShares | None = None, single: str | None = None
) -> list[str]:
    """Return warnings if predictions differ between test and out-of-fold rows.

    Args:
        expected: None if the test's share of the negative label is not known.
        single: the command that writes the best single variant's submission, or None.
    """
    per_row = 1 / oof.n_rows + 1 / test.n_rows
    found = []
    share = oof.positive_share
    noise = NOISE_SDS * math.sqrt(share * (1 - share) * per_row)
    if abs(test.positive_share - share) > max(POSITIVE_TOLERANCE, noise):
        found.append(
            f"Warning: {100 * test.positive_share:.1f}% of test rows are predicted positive, but"
            f" {100 * share:.1f}% of out-of-fold rows{_explain_mix(test, expected, per_row)}"
        )
        if single and expected is not None and not _explains(expected, test, per_row):
            found.append(f"To write the best single variant's CSV: {single}")
    # a probability's standard deviation is at most a half
    noise = NOISE_SDS * 0.5 * math.sqrt(per_row)
    if abs(test.confidence - oof.confidence) > max(CONFIDENCE_TOLERANCE, noise):
        more_on_test = "test rows are easier than train rows, or come from other models"
        more_on_oof = "test rows differ from train rows, or a member has seen its out-of-fold rows"
        why = more_on_test if test.confidence > oof.confidence else more_on_oof
        found.append(
            f"Warning: mean confidence is {100 * test.confidence:.1f}% on test rows and"
            f" {100 * oof.confidence:.1f}% out-of-fold: {why}."
        )
    return found


def _explain_mix(test: Side, expected: ExpectedShares | None, per_row: float) -> str:
    """Return the end of the warning: what explains the difference, and what to do."""
    if expected is None:
        return (
            ": the test has another label distribution (label shift), or the threshold does not fit"
            " averaged models. Out-of-fold scores do not predict the leaderboard score."
        )
    share, positive = expected.negative_share, expected.positive_share
    source = "as estimated" if expected.is_estimated else "as the profile says"
    start = (
        f"; with {share:.0%} of negative rows in the test, {source}, {100 * positive:.1f}% are"
        " to be expected"
    )
    if _explains(expected, test, per_row):
        return (
            f"{start}, which explains it: choose by expected scores, not by plain ones; compare"
            " them: python run.py board"
        )
    return (
        f"{start}, which does not explain it: that share is wrong, or the threshold does not fit"
        " averaged models. Submit the best single variant too before you trust out-of-fold scores."
    )


def _explains(expected: ExpectedShares, test: Side, per_row: float) -> bool:
    """Return whether the share of positive test predictions is as expected, up to noise."""
    share = expected.positive_share
    noise = NOISE_SDS * math.sqrt(share * (1 - share) * per_row)
    return abs(test.positive_share - share) <= max(POSITIVE_TOLERANCE, noise)


def advise_single(report: BlendReport) -> str:
    """Return the command that writes the submission of the best single variant."""
    best = int(report.fit.fit.points[BEST_SINGLE].weights.argmax())
    return f"python run.py blend {' '.join(report.inputs.members[best].parts)}"


def expect_shares(report: BlendReport) -> ExpectedShares | None:
    """Return the share of positive predictions if rows were mixed as in the test."""
    rows, share = report.inputs.rows, report.inputs.negative_share
    negative_ids = rows.criteria.negative_ids
    if share is None or not negative_ids:
        return None
    is_negative = is_any_of(rows.gold, negative_ids)
    if is_negative.all() or not is_negative.any():
        return None
    pred = report.fit.fitted[BLEND].pred
    weights = report.inputs.test_weights.get(EXPECTED, np.ones(len(rows.gold)))
    negative, positive = (
        float(np.average(~is_any_of(pred[side], negative_ids), weights=own))
        for side, own in ((each, weights[each] + TINY) for each in (is_negative, ~is_negative))
    )
    known = report.inputs.prepared.competition.profile.metrics.shifted_negative_share
    return ExpectedShares(share, share * negative + (1 - share) * positive, known is None)


def _expected_table(report: BlendReport) -> Table:
    """Show what is expected on the test beside the nested scores."""
    columns = [Column("system", "member or ensemble")]
    kinds = report.inputs.criteria.kinds
    for place, kind in enumerate(kinds):
        key = f"expected_{kind.short}"
        columns += [
            kind.column(kind.short, f"nested {kind.head}"),
            kind.column(key, f"expected {kind.head}"),
        ]
        if place == 0:
            columns.append(kind.column(f"{key}_interval", "95%", "interval"))
    evaluation, forecast = report.evaluation, report.inputs.forecast
    if forecast is None:
        note = (
            "It cannot be estimated: the test has too few rows, or the train rows too few groups."
        )
        return Table(EXPECTED, "Expected on the test", (), [], [note])
    shown = {**evaluation.singles, **{name: evaluation.nested[name] for name in report.ensembles}}
    rows = []
    for name, assessed in shown.items():
        row: dict[str, Any] = {"system": name}
        figures = lay_out_expected(evaluation.expected[name], kinds)
        for kind, score in zip(kinds, assessed.scores, strict=True):
            row[kind.short] = kind.show(score.value)
            keys = (f"expected_{kind.short}", f"expected_{kind.short}_interval")
            row |= {key: figures[key] for key in keys if key in figures}
        rows.append(row)
    negative_name = report.inputs.prepared.competition.profile.negative_name
    notes = [*describe_forecast(forecast, negative_name), _describe_shift(report)]
    return Table(EXPECTED, "Expected on the test", columns, rows, notes)


def _describe_shift(report: BlendReport) -> str:
    inputs = report.inputs
    if inputs.shift is None:
        return f"{explain_absence(None, inputs.prepared.corpus)}."
    effective = report.reweighted[EXPECTED].effective_rows
    return (
        f"The weighted rows have an effective size of {effective:,.0f} of"
        f" {len(inputs.rows.gold):,}. Adversarial validation separates train from test rows with an"
        f" AUC of {inputs.shift.auc:.3f}."
    )


def _reweighted_table(report: BlendReport) -> Table:
    """Show how weights, threshold and ranks change when rows are reweighted like the test."""
    columns = [Column("name", "member")]
    for way in report.reweighted:
        name = NAMES[way]
        columns += [
            Column(f"weight_{way}", f"weight {name}", "number"),
            Column(f"rank_{way}", f"rank {name}", "count"),
        ]
    rows = []
    for place, member in enumerate(report.inputs.members):
        row: dict[str, Any] = {"name": member.name}
        for way, seen in report.reweighted.items():
            weight, rank = round(float(seen.weights[place]), 3), int(seen.ranks[place])
            row |= {f"weight_{way}": weight, f"rank_{way}": rank}
        rows.append(row)
    reweight, title = report.options.reweight, report.inputs.criteria.kinds[0].title
    weighting = "equally weighted rows" if reweight is None else f"rows weighted by {reweight}"
    notes = [
        f"Convex weights, and ranks by the {title} of each member alone. The blend itself is fitted"
        f" to {weighting}."
    ]
    thresholds = [
        f"{seen.rule.threshold:.3f} {NAMES[way]}"
        for way, seen in report.reweighted.items()
        if seen.rule.threshold is not None
    ]
    if thresholds:
        notes.append(f"Best threshold: {', '.join(thresholds)}.")
    detail: Detail | None = "table" if reweight is None else None  # what was asked for is shown
    return Table("outlook", "If rows were mixed as in the test", columns, rows, notes, detail)


def _noise_table(report: BlendReport) -> Table:
    """Show which differences on the public half are beyond noise."""
    columns = [
        Column("pair", "submissions"),
        Column("agreement", "same label", "share"),
    ]
    for kind in report.inputs.criteria.kinds:
        columns += [
            kind.column(f"{kind.short}_sd", f"{kind.head}, SD"),
            kind.column(f"{kind.short}_margin", f"{kind.head}, margin"),
        ]
    rows = []
    for each in report.noise:
        row: dict[str, Any] = {"pair": " – ".join(each.pair), "agreement": each.agreement}
        for kind, sd, margin in zip(each.kinds, each.sds, each.margins, strict=True):
            row |= {f"{kind.short}_sd": sd, f"{kind.short}_margin": margin}
        rows.append(row)
    notes = [
        "Simulated on out-of-fold rows with the size and label mix of the test: standard deviation"
        " of the public minus the private difference. A public lead below the margin may reverse on"
        " the private half (95%); choose by the nested score then: python run.py board"
    ]
    return Table("noise", "Noise of the public leaderboard", columns, rows, notes, "table")


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
    single = advise_single(report) if len(report.inputs.members) > 1 else None
    notes = warn_of_differences(report.oof_side, report.test_side, expect_shares(report), single)
    notes += [f"Warning: {warning.text}." for warning in report.warnings]
    return Table("sides", "Predictions of the blend", columns, rows, notes, "rows")


def _shares_table(report: BlendReport) -> Table:
    columns = [
        Column("label", "label"),
        Column("gold", "train", "share"),
        Column("oof", "out-of-fold", "share"),
        Column("test", "test", "share"),
        Column("difference", "test minus out-of-fold", "difference"),
    ]
    oof, test = report.oof_side.label_shares, report.test_side.label_shares
    labels = report.inputs.prepared.competition.profile.labels
    rows: list[dict[str, Any]] = [
        {"label": label, "gold": gold, "oof": here, "test": there, "difference": there - here}
        for label, gold, here, there in zip(labels, report.gold_shares, oof, test, strict=True)
    ]
    rows.sort(key=lambda row: -abs(row["difference"]))
    title = "Labels whose predicted share differs most"
    return Table("shares", title, columns, rows[:SHARES_SHOWN], detail="table")
