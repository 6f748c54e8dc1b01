"""Tables about the risks of a blend: shift, noise of the leaderboard, unreliable members.

They only show a finished ``report``; nothing is computed from predictions here.

Legend: M members.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from competition.audit.shift import explain_absence
from competition.blend.report import BlendReport
from competition.blend.reweighting import PLAIN
from competition.blend.search import BEST_SINGLE, BLEND, SYSTEMS
from competition.console import Column, Table
from competition.scoring.assessment import SHARE, Side

SHARES_SHOWN = 8
POSITIVE_TOLERANCE = 0.10  # share of positive labels, out-of-fold against test
CONFIDENCE_TOLERANCE = 0.03  # mean confidence, likewise
NOISE_SDS = 3  # and at least this many standard deviations of the difference


def build_risk_tables(report: BlendReport) -> list[Table]:
    """Build the tables of scores and weights on test-like rows, public noise, and warnings."""
    tables = [_shift_table(report)]
    if len(report.inputs.members) > 1:
        tables += [_reweighted_table(report), _noise_table(report)]
    return [*tables, _sides_table(report), _shares_table(report)]


@dataclass(frozen=True, slots=True)
class ExpectedShares:
    """Expected share of positive predictions in the test, given the profile's negative share."""

    negative_share: float
    positive_share: float


def warn_of_differences(
    oof: Side, test: Side, expected: ExpectedShares | None = None, single: str | None = None
) -> list[str]:
    """Return warnings if predictions differ between test and out-of-fold rows.

    Args:
        oof: summary of the out-of-fold predictions.
        test: summary of the test predictions.
        expected: None if the profile does not give the test's negative-label share.
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
            " averaged models. Out-of-fold scores do not predict the leaderboard score. If you know"
            " the test's share of the negative label, set metrics.shifted_negative_share in the"
            " profile."
        )
    share, positive = expected.negative_share, expected.positive_share
    start = f"; the profile's {share:.0%} of negative rows lets expect {100 * positive:.1f}%"
    if _explains(expected, test, per_row):
        return f"{start}, which explains it: choose by scores at {share:.0%}, not by plain scores."
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
    """Return the expected share of positive predictions under the profile's negative share."""
    rows, weights = report.inputs.rows, report.inputs.row_weights.get(SHARE)
    share = report.inputs.prepared.competition.profile.metrics.shifted_negative_share
    if share is None or weights is None:
        return None
    is_positive = report.fit.fitted[BLEND].pred != rows.negative_id
    return ExpectedShares(share, float(weights[is_positive].sum() / weights.sum()))


def _name_weighting(way: str, report: BlendReport) -> str:
    """Format the name of a row weighting: ``at 60%`` or ``by odds``."""
    share = report.inputs.prepared.competition.profile.metrics.shifted_negative_share
    if way == SHARE and share is not None:
        return f"at {100 * share:.0f}%"
    return "by odds" if way == "odds" else way


def _shift_table(report: BlendReport) -> Table:
    """Show nested scores, plain and on rows reweighted to resemble the test."""
    ways = list(report.inputs.row_weights)
    columns = [Column("system", "member or ensemble"), Column("f1", "nested F1", "score")]
    columns += [Column(f"f1_{way}", f"F1 {_name_weighting(way, report)}", "score") for way in ways]
    columns.append(Column("auprc", "nested AUPRC", "score"))
    columns += [
        Column(f"auprc_{way}", f"AUPRC {_name_weighting(way, report)}", "score") for way in ways
    ]
    evaluation = report.evaluation
    shown = {**evaluation.singles, **{name: evaluation.nested[name] for name in SYSTEMS}}
    rows: list[dict[str, Any]] = []
    for name, assessed in shown.items():
        row: dict[str, Any] = {
            "system": name,
            "f1": assessed.f1.value,
            "auprc": assessed.auprc.value,
        }
        for way, scores in assessed.shifted.items():
            row |= {f"f1_{way}": scores.f1, f"auprc_{way}": scores.auprc}
        rows.append(row)
    return Table("shifted", "On rows like the test's", columns, rows, _explain_shift(report))


def _explain_shift(report: BlendReport) -> list[str]:
    inputs = report.inputs
    profile, corpus = inputs.prepared.competition.profile, inputs.prepared.corpus
    share = profile.metrics.shifted_negative_share
    notes = []
    if share is not None:
        notes.append(
            f"At {share:.0%}: rows reweighted to that share of {profile.negative_label};"
            f" effective sample size {_count_effective(report, 'share')} rows."
        )
    if inputs.shift is None:
        return [*notes, f"{explain_absence(None, corpus)}."]
    negative = ""
    if inputs.rows.negative_id is not None:
        odds = inputs.row_weights["odds"]
        found = float(odds[inputs.rows.gold == inputs.rows.negative_id].sum() / odds.sum())
        negative = f"; {found:.0%} of the weight is on {profile.negative_label}"
    notes.append(
        "By odds: rows weighted by their odds of being a test row, from adversarial validation (AUC"
        f" {inputs.shift.auc:.3f}); effective sample size {_count_effective(report, 'odds')}"
        f" rows{negative}."
    )
    return notes


def _count_effective(report: BlendReport, way: str) -> str:
    return f"{report.reweighted[way].effective_rows:,.0f} of {len(report.inputs.rows.gold):,}"


def _reweighted_table(report: BlendReport) -> Table:
    """Show how weights, threshold and ranks change when rows are reweighted like the test."""
    columns = [Column("name", "member")]
    for way in report.reweighted:
        name = "plain" if way == PLAIN else _name_weighting(way, report)
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
    reweight = report.options.reweight
    weighting = "equally weighted rows" if reweight is None else f"rows weighted by {reweight}"
    notes = [
        "Convex weights, and ranks by the micro-F1 of each member alone. The blend itself is fitted"
        f" to {weighting}."
    ]
    thresholds = [
        f"{seen.threshold:.3f} {'plain' if way == PLAIN else _name_weighting(way, report)}"
        for way, seen in report.reweighted.items()
        if seen.threshold is not None
    ]
    if thresholds:
        notes.append(f"Best threshold: {', '.join(thresholds)}.")
    return Table("outlook", "If rows were mixed as in the test", columns, rows, notes)


def _noise_table(report: BlendReport) -> Table:
    """Show which differences on the public half are beyond noise."""
    columns = [
        Column("pair", "submissions"),
        Column("agreement", "same label", "share"),
        Column("f1_sd", "F1, SD", "score"),
        Column("f1_margin", "F1, margin", "score"),
        Column("auprc_sd", "AUPRC, SD", "score"),
        Column("auprc_margin", "AUPRC, margin", "score"),
    ]
    rows = [
        {
            "pair": " – ".join(each.pair),
            "agreement": each.agreement,
            "f1_sd": each.f1_sd,
            "f1_margin": each.f1_margin,
            "auprc_sd": each.auprc_sd,
            "auprc_margin": each.auprc_margin,
        }
        for each in report.noise
    ]
    notes = [
        "Simulated on out-of-fold rows with the size and label mix of the test: standard deviation"
        " of the public minus the private difference. A public lead below the margin may reverse on"
        " the private half (95%); choose by the nested score then."
    ]
    return Table("noise", "Noise of the public leaderboard", columns, rows, notes)


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
    return Table("sides", "Predictions of the blend", columns, rows, notes)


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
    return Table(
        "shares", "Labels whose predicted share differs most", columns, rows[:SHARES_SHOWN]
    )
