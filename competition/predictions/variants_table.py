"""The table of variants with their scores, progress and missing folds.

Shown by ``fold``, ``board`` and ``report``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from competition.console import Column, Table
from competition.folds.kfold import Prepared
from competition.predictions.expected_scores import describe_forecast, lay_out_expected
from competition.predictions.members import TUNED_ELSEWHERE
from competition.predictions.variant_scores import VariantScore
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind


def build_variants_table(prepared: Prepared, scores: Sequence[VariantScore]) -> Table:
    """Build the table of variants with scores and missing folds."""
    profile = prepared.competition.profile
    criteria = build_criteria(profile)
    columns = [
        Column("variant", "variant"),
        Column("done", "folds"),
        *_lay_out_columns(criteria.kinds),
        Column("rows_per_s", "rows/s", "count"),
    ]
    tunes = {
        "threshold": "; blend tunes a threshold too",
        "prior": "; blend tunes a power of the label shares too",
        "argmax": "",
    }
    notes = [f"Scored on out-of-fold rows by the most probable label{tunes[criteria.rule]}."]
    n_rows = len(prepared.corpus.train)
    whole = [each for each in scores if each.on_test is not None and each.n_rows == n_rows]
    if whole and whole[0].on_test is not None:
        notes += describe_forecast(whole[0].on_test.forecast, profile.negative_name)
    parts = [each.name for each in scores if each.n_rows < n_rows]
    if parts:
        notes.append(f"On the rows of their route only: {', '.join(parts)}.")
    notes += [f"{e.name}: seeds {_list_seeds(e)}" for e in scores if len(e.missing) > 1]
    notes += [f"{each.name} lacks {each.lacks}" for each in scores if each.lacks]
    notes += [f"Warning: {each.name}: {each.warning}" for each in scores if each.warning]
    notes += [f"{each.name}: {each.why}" for each in scores if each.why]
    for each in scores:
        if each.tuned_on:
            folds = ", ".join(map(str, each.tuned_on))
            flattered = f"was tuned on folds {folds}, whose scores are too good."
            notes.append(f"{each.name} {TUNED_ELSEWHERE if each.is_tuned_elsewhere else flattered}")
    return Table("variants", "Variants", columns, [_build_row(each) for each in scores], notes)


def _lay_out_columns(kinds: Sequence[MetricKind]) -> list[Column]:
    """Return the columns of plain scores, then of expected test scores."""
    plain, expected = [], []
    for place, kind in enumerate(kinds):
        head = f"OOF {kind.head}" if place == 0 else kind.head
        plain += [
            kind.column(kind.key, head),
            kind.column(f"{kind.key}_interval", "95%", "interval"),
        ]
        own = f"expected_{kind.short}"
        expected.append(kind.column(own, f"expected {kind.head}", begins_part=place == 0))
        if place == 0:
            expected.append(kind.column(f"{own}_interval", "95%", "interval"))
    return [*plain, *expected]


def _list_seeds(score: VariantScore) -> str:
    return ", ".join(map(str, score.missing))


def _build_row(score: VariantScore) -> dict[str, Any]:
    """Build a row of the table, without unknown values."""
    row: dict[str, Any] = {
        "variant": score.name,
        "why": score.why,
        "seeds": _list_seeds(score),
        "lacks": score.lacks,
    }
    if score.progress is not None:
        row |= {
            "tuned_on": list(score.tuned_on),
            "is_tuned_elsewhere": score.is_tuned_elsewhere,
            "done": "{}/{}".format(*score.progress),
            "rows_per_s": score.rows_per_s,
            "route": score.route,
            "rows": score.n_rows,
        }
    found = score.assessment
    if found is None:
        return row
    if score.on_test is not None:
        row |= lay_out_expected(score.on_test.expected, [each.kind for each in found.measured])
    row["rows"] = score.n_rows
    for each in found.measured:
        kind = each.kind
        row |= {
            kind.key: kind.show(each.score.value),
            f"{kind.key}_interval": kind.show_ends(each.score.low, each.score.high),
        }
    return row
