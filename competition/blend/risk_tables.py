"""Show where a blend may mislead: the test's other mix of rows, the board's noise, odd members.

Stands after ``blend_report`` on the way of a row, beside ``blend_tables``; nothing here is fitted,
scored or written.

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


def build_trust_tables(report: BlendReport) -> list[Table]:
    """Show scores and weights on test-like rows, the public half's noise, and warnings."""
    tables = [_shift_table(report)]
    if len(report.material.members) > 1:
        tables += [_outlook_table(report), _noise_table(report)]
    return [*tables, _sides_table(report), _shares_table(report)]


@dataclass(frozen=True, slots=True)
class Foretold:
    """What the profile's share of the negative label lets expect of the blend on test rows."""

    negative_share: float
    positive_share: float


def find_partings(
    oof: Side, test: Side, foretold: Foretold | None = None, single: str | None = None
) -> list[str]:
    """Warn where the blend answers test rows otherwise than out-of-fold rows.

    Args:
        oof: what it answers out of fold.
        test: what it answers in the test.
        foretold: None where the profile does not say how the test is mixed.
        single: the command that makes the best single variant's submission; None: there is none.
    """
    per_row = 1 / oof.n_rows + 1 / test.n_rows
    found = []
    share = oof.positive_share
    noise = NOISE_SDS * math.sqrt(share * (1 - share) * per_row)
    if abs(test.positive_share - share) > max(POSITIVE_TOLERANCE, noise):
        found.append(
            f"Warning: {100 * test.positive_share:.1f}% of test rows get a positive label, and"
            f" {100 * share:.1f}% of out-of-fold rows{_explain_mix(test, foretold, per_row)}"
        )
        if single and foretold is not None and not _explains(foretold, test, per_row):
            found.append(f"The best single variant's CSV: {single}")
    # a probability's standard deviation is at most a half
    noise = NOISE_SDS * 0.5 * math.sqrt(per_row)
    if abs(test.confidence - oof.confidence) > max(CONFIDENCE_TOLERANCE, noise):
        surer_of_test = "test rows are easier than the train rows, or other models answer them"
        surer_of_oof = (
            "test rows are unlike the train rows, or a member has seen its out-of-fold rows"
        )
        why = surer_of_test if test.confidence > oof.confidence else surer_of_oof
        found.append(
            f"Warning: mean confidence is {100 * test.confidence:.1f}% on test rows and"
            f" {100 * oof.confidence:.1f}% out-of-fold: {why}."
        )
    return found


def _explain_mix(test: Side, foretold: Foretold | None, per_row: float) -> str:
    """End the warning of another share of positive labels: what explains it, what to do."""
    if foretold is None:
        return (
            ": the test is another mix of rows, or the threshold misfires on averaged models."
            " Out-of-fold scores do not foretell the board; if the test's share of the negative"
            " label is known, write it into the profile as metrics.shifted_negative_share."
        )
    share, expected = foretold.negative_share, foretold.positive_share
    told = f"; {100 * expected:.1f}% are foretold by the profile's {share:.0%} of negative rows"
    if _explains(foretold, test, per_row):
        return f"{told}, which explains it: choose by scores at {share:.0%}, not by plain ones."
    return (
        f"{told}, which does not explain it: that share is wrong, or the threshold misfires on"
        " averaged models. Send the best single variant too before you trust out-of-fold scores."
    )


def _explains(foretold: Foretold, test: Side, per_row: float) -> bool:
    """Say whether as many test rows get a positive label as foretold, but for noise."""
    expected = foretold.positive_share
    noise = NOISE_SDS * math.sqrt(expected * (1 - expected) * per_row)
    return abs(test.positive_share - expected) <= max(POSITIVE_TOLERANCE, noise)


def advise_single(report: BlendReport) -> str:
    """Return the command that makes the best single variant's own submission."""
    best = int(report.fit.fit.points[BEST_SINGLE].weights.argmax())
    return f"python run.py blend {' '.join(report.material.members[best].parts)}"


def foretell(report: BlendReport) -> Foretold | None:
    """Return what share of test rows would get a positive label, were they mixed as foretold."""
    rows, weights = report.material.rows, report.material.row_weights.get(SHARE)
    share = report.material.prepared.competition.profile.metrics.shifted_negative_share
    if share is None or weights is None:
        return None
    is_positive = report.fit.fitted[BLEND].pred != rows.negative_id
    return Foretold(share, float(weights[is_positive].sum() / weights.sum()))


def _name_way(way: str, report: BlendReport) -> str:
    """Write how rows are weighed: ``at 60%`` or ``by odds``."""
    share = report.material.prepared.competition.profile.metrics.shifted_negative_share
    if way == SHARE and share is not None:
        return f"at {100 * share:.0f}%"
    return "by odds" if way == "odds" else way


def _shift_table(report: BlendReport) -> Table:
    """Show nested scores plain and on rows weighed to be like the test."""
    ways = list(report.material.row_weights)
    columns = [Column("system", "weights"), Column("f1", "nested F1", "score")]
    columns += [Column(f"f1_{way}", f"F1 {_name_way(way, report)}", "score") for way in ways]
    columns.append(Column("auprc", "nested AUPRC", "score"))
    columns += [Column(f"auprc_{way}", f"AUPRC {_name_way(way, report)}", "score") for way in ways]
    worth = report.worth
    shown = {**worth.singles, **{name: worth.nested[name] for name in SYSTEMS}}
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
    material = report.material
    profile, corpus = material.prepared.competition.profile, material.prepared.corpus
    share = profile.metrics.shifted_negative_share
    notes = []
    if share is not None:
        notes.append(
            f"At {share:.0%}: rows reweighted to that share of {profile.negative_label}, worth"
            f" {_count_effective(report, 'share')} rows."
        )
    if material.shift is None:
        return [*notes, f"{explain_absence(None, corpus)}."]
    negative = ""
    if material.rows.negative_id is not None:
        weighed = material.row_weights["odds"]
        found = float(
            weighed[material.rows.gold == material.rows.negative_id].sum() / weighed.sum()
        )
        negative = f"; {found:.0%} of their weight is {profile.negative_label}"
    notes.append(
        "By odds: rows weighed by how much more often a classifier expects them in the test (AUC"
        f" {material.shift.auc:.3f}), worth {_count_effective(report, 'odds')} rows{negative}."
    )
    return notes


def _count_effective(report: BlendReport, way: str) -> str:
    return f"{report.outlook[way].effective_rows:,.0f} of {len(report.material.rows.gold):,}"


def _outlook_table(report: BlendReport) -> Table:
    """Show how weights, threshold and ranks would change, were rows weighed like the test's."""
    columns = [Column("name", "member")]
    for way in report.outlook:
        name = "plain" if way == PLAIN else _name_way(way, report)
        columns += [
            Column(f"weight_{way}", f"weight {name}", "number"),
            Column(f"rank_{way}", f"rank {name}", "count"),
        ]
    rows = []
    for place, member in enumerate(report.material.members):
        row: dict[str, Any] = {"name": member.name}
        for way, seen in report.outlook.items():
            weight, rank = round(float(seen.weights[place]), 3), int(seen.ranks[place])
            row |= {f"weight_{way}": weight, f"rank_{way}": rank}
        rows.append(row)
    notes = ["Convex weights, and ranks by micro-F1 alone; the blend itself is fitted to"]
    reweight = report.options.reweight
    notes[0] += " all rows alike." if reweight is None else f" rows weighed by {reweight}."
    thresholds = [
        f"{seen.threshold:.3f} {'plain' if way == PLAIN else _name_way(way, report)}"
        for way, seen in report.outlook.items()
        if seen.threshold is not None
    ]
    if thresholds:
        notes.append(f"Their best threshold: {', '.join(thresholds)}.")
    return Table("outlook", "Were rows mixed as in the test", columns, rows, notes)


def _noise_table(report: BlendReport) -> Table:
    """Show how far apart two submissions must stand on the public half."""
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
        "Simulated on out-of-fold rows, as many and mixed as the test's: standard deviation of the"
        " difference on the public half minus that on the private half. A public lead below the"
        " margin may turn on the private half (95%): choose by the nested score then."
    ]
    return Table("noise", "What the public half can tell apart", columns, rows, notes)


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
    single = advise_single(report) if len(report.material.members) > 1 else None
    notes = find_partings(report.oof_side, report.test_side, foretell(report), single)
    notes += [f"Warning: {alarm.text}." for alarm in report.alarms]
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
    labels = report.material.prepared.competition.profile.labels
    rows: list[dict[str, Any]] = [
        {"label": label, "gold": gold, "oof": here, "test": there, "difference": there - here}
        for label, gold, here, there in zip(labels, report.gold_shares, oof, test, strict=True)
    ]
    rows.sort(key=lambda row: -abs(row["difference"]))
    return Table(
        "shares", "Predicted labels whose share differs most", columns, rows[:SHARES_SHOWN]
    )
