"""Tables of ``errors``: labels, confusions, hardest rows, suspected wrong labels."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.console import Column, Table
from competition.errors import explain_os_error
from competition.folds.kfold import Prepared
from competition.options import check_at_least
from competition.report.error_analysis import (
    CROSS_FITTED,
    Errors,
    count_confusions,
    find_errors,
    list_hardest,
    list_suspects,
    rank_labels,
    write_suspects,
)
from competition.scoring.criteria import build_criteria
from competition.scoring.labels import lay_out_labels
from competition.scoring.metrics.metric import MetricKind

SHOWN = 20


def run_errors(
    prepared: Prepared,
    name: str,
    shown: int = SHOWN,
    cross_fitted: NDArray[np.float32] | None = None,
) -> list[Table]:
    """Run the command: find errors, write the suspects and build the tables.

    Raises:
        UsageError: no row is to be shown, or there is no such variant or blend.
    """
    check_at_least("--rows", shown, 1)
    errors = find_errors(prepared, name, cross_fitted)
    path, said = None, ""
    try:
        path = write_suspects(errors)
    except OSError as error:  # the tables are what was asked for
        said = f"Warning: the suspects could not be written: {explain_os_error(error) or error}."
    tables = build_errors_tables(errors, shown, path)
    if said:
        tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, said))
    return tables


def build_errors_tables(errors: Errors, shown: int, path: Path | None) -> list[Table]:
    """Show where it is wrong: labels, confusions, hardest rows, suspected wrong labels.

    Args:
        errors: of ``find_errors``.
        shown: at most so many confusions, hardest rows and suspects.
        path: where the suspects were written, None if they could not be.
    """
    return [
        build_labels_table(errors),
        build_confusions_table(errors, shown),
        build_hardest_table(errors, shown),
        build_suspects_table(errors, shown, path),
    ]


def build_labels_table(errors: Errors) -> Table:
    """Show precision, recall, F1 and, where a metric has it, the area of each label."""
    criteria = build_criteria(errors.prepared.competition.profile)
    kinds = [] if criteria.curved is None else [criteria.curved.kind]
    columns, rows = lay_out_labels(rank_labels(errors), criteria)
    notes = ["Labels with most wrong answers, missed or false, come first."]
    n_train = len(errors.prepared.corpus.train)
    if len(errors.rows) < n_train:
        notes.append(f"On the {len(errors.rows):,} of {n_train:,} rows that it answers for.")
    if errors.is_blend:
        notes.append("The blend's weights and threshold were tuned on these rows.")
    notes += _describe_counted(errors, kinds)
    return Table("labels", f"Labels, {errors.name}", columns, rows, notes)


def _describe_counted(errors: Errors, kinds: Sequence[MetricKind]) -> list[str]:
    """Return a note that F1 does not count the negative labels."""
    profile = errors.prepared.competition.profile
    decided = build_criteria(profile).decided
    if profile.negative_name is None or decided is None or "f1" not in decided.kind.key:
        return []
    does = f"; {kinds[0].title} does" if kinds else ""
    return [f"{decided.kind.title} does not count {profile.negative_name}{does}."]


def build_confusions_table(errors: Errors, shown: int) -> Table:
    """Show which labels are taken for which."""
    columns = [
        Column("gold", "published"),
        Column("predicted", "predicted"),
        Column("count", "rows", "count"),
        Column("share", "of its rows", "share"),
    ]
    found = count_confusions(errors)
    rows = [
        {"gold": c.gold, "predicted": c.predicted, "count": c.count, "share": c.share}
        for c in found[:shown]
    ]
    wrong = int(np.count_nonzero(errors.gold != errors.pred))
    held = sum(each.count for each in found[:shown])
    notes = [f"These pairs hold {held:,} of {wrong:,} wrong answers."]
    return Table("confusions", "Commonest confusions", columns, rows, notes)


def build_hardest_table(errors: Errors, shown: int) -> Table:
    """Build the table of rows whose published label is least probable."""
    columns = [
        Column("id", "id"),
        Column("published", "published"),
        Column("predicted", "predicted"),
        Column("p_published", "p(published)", "share"),
        Column("p_predicted", "p(predicted)", "share"),
        Column("sentence", "sentence"),
    ]
    notes = ["The rows whose published label is least probable. S: subject, O: object."]
    return Table("hardest", "Hardest rows", columns, list_hardest(errors, shown), notes)


def build_suspects_table(errors: Errors, shown: int, path: Path | None) -> Table:
    """Show the most suspect labels, and how corrections are tried."""
    columns = [
        Column("id", "id"),
        Column("published", "published"),
        Column("suggested", "suggested"),
        Column("p_published", "p(published)", "share"),
        Column("p_suggested", "p(suggested)", "share"),
        Column("sentence", "sentence"),
    ]
    count = len(errors.suspects)
    notes = [
        f"{count:,} rows have a label that another label disputes with confidence. They are ranked"
        " by the probability of their published label, pooled over"
        f" {', '.join(errors.judges)}."
    ]
    if path is not None and count:
        named = path.relative_to(errors.prepared.competition.home)
        notes += [
            f"Written: {path}. Most lines are hard rows, not wrong labels: delete those that you"
            " do not believe.",
            f"Then try it: python run.py fold VARIANT --set clean.corrections={named}",
            "Training rows are corrected; held-out rows are scored with their published labels."
            " These predictions come from models that saw the other folds' labels, so a gain from"
            " corrections is slightly flattered.",
        ]
        if CROSS_FITTED not in errors.judges:
            notes.append(
                f"More are found with: python run.py errors {shlex.quote(errors.name)} --cross-fit"
                " 10. It trains the linear model on 10 folds, which takes minutes."
            )
    return Table("suspects", "Suspected wrong labels", columns, list_suspects(errors, shown), notes)
