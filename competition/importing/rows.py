"""Predictions of another tool, checked against the rows of this competition.

What ``table`` or ``numpy_files`` read becomes arrays in the order of the corpus, or a list of
everything that is wrong with it, each cause once.
Columns are found by name, rows by id; nothing depends on the order of either, where there are ids.

Legend: n rows of the table, N train rows, M test rows, C labels, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Int64s, Objects, Probs
from competition.data.causes import gather_causes
from competition.errors import Offence
from competition.folds.kfold import Prepared
from competition.importing.columns import FOLD, ID, SPLIT
from competition.importing.label_order import (
    Places,
    describe_order,
    find_order,
    read_label_order,
)
from competition.importing.places import OTHER_ID, Check, match_rows, read_part
from competition.importing.probs import make_probs
from competition.importing.table import NO_FOLD, OOF, TEST, ForeignTable
from competition.predictions.members import AVERAGE
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide

ARRAY_SUFFIXES = (".npy", ".npz")
SNIPPET = (
    "pd.DataFrame(oof, columns=labels).assign(id=train_ids, split='oof',"
    " fold=folds).to_csv('oof.csv', index=False)"
)
"""Writes an array of out-of-fold probabilities as a table that says everything."""


@dataclass(frozen=True, eq=False)
class ForeignRows:
    """Predictions of one model for each fold, in the order of the corpus.

    ``oof`` is (N, C), ``test`` (K, M, C), both float32. ``is_average``: all K test predictions are
    the same average. ``has_folds``: the table has a column of folds.
    """

    oof: Probs
    test: Probs
    is_average: bool
    has_folds: bool


@dataclass(frozen=True)
class ForeignFiles:
    """The files of predictions.

    Attributes:
        path: a table or a NumPy file; with ``test`` its out-of-fold rows alone.
        test: the file of the test rows, if they are in a separate file.
        label_order: the order of columns without names, as the user names it.
    """

    path: Path
    test: Path | None = None
    label_order: str | None = None


@dataclass(frozen=True, eq=False)
class ForeignReading:
    """The result of reading; ``rows`` is None if there are offences."""

    rows: ForeignRows | None
    offences: tuple[Offence, ...]
    notices: tuple[str, ...]


def read_foreign_rows(
    files: ForeignFiles, prepared: Prepared, *, needs_folds: bool = True
) -> ForeignReading:
    """Read predictions and check every row of them.

    Args:
        needs_folds: whether each out-of-fold row must have its fold.

    Raises:
        UsageError: the named label order cannot be read.
    """
    check = Check(prepared)
    labels = prepared.competition.profile.labels
    order = None if files.label_order is None else read_label_order(files.label_order, labels)
    table = _read_table(files, order, check)
    rows = None
    if table is not None:
        check.notices += table.notices
        rows = _check_table(table, check, has_order=order is not None, needs_folds=needs_folds)
    count = 0 if table is None else len(table)
    merged = gather_causes(check.offences, max(1, count))
    return ForeignReading(
        None if merged else rows, tuple(merged), tuple(dict.fromkeys(check.notices))
    )


def _read_table(files: ForeignFiles, order: Places | None, check: Check) -> ForeignTable | None:
    wanted: list[tuple[Path, str | None]] = [(files.path, None)]
    if files.test is not None:
        wanted = [(files.path, OOF), (files.test, TEST)]
    parts = [read_part(path, split, check) for path, split in wanted]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    if order is not None:
        whole = _apply_label_order(whole, order, check)
    return ForeignTable.join(whole)


def _apply_label_order(
    parts: Sequence[ForeignTable], order: Places, check: Check
) -> list[ForeignTable]:
    """Bring columns from the order that the user names to the profile's.

    Where only one file names its labels, the order is that of the other one. Files whose columns
    are in different orders are reported: it is not known which of them the order is meant for.
    """
    is_named = [bool(part.named.all()) for part in parts]
    meant = [part for part, named in zip(parts, is_named, strict=True) if not named] or parts
    first, last = meant[0], meant[-1]
    if not np.array_equal(first.left_to_right, last.left_to_right):
        found = f"the columns are in another order than those of {first.files[0]}"
        remedy = "--label-order is the order of both files: write them in one order"
        check.report(Offence(last.files[0], None, None, None, found, remedy))
    ordered = []
    for part in parts:
        if any(part is each for each in meant):
            places = part.left_to_right[order]
            ordered.append(replace(part, probs=part.probs[:, places]))
        else:
            said = f"{part.files[0]} names its columns: --label-order is not applied to it"
            ordered.append(replace(part, notices=[*part.notices, said]))
    return ordered


def _check_table(
    table: ForeignTable, check: Check, *, has_order: bool, needs_folds: bool
) -> ForeignRows | None:
    """Check a table against the corpus; None if something is wrong, which was reported."""

    def offend(row: int, found: str, remedy: str) -> None:
        check.report(table.place(row, None, found, remedy))

    probs, said = make_probs(table.probs, table.unread, offend)
    check.notices += said
    table = replace(table, probs=probs)
    places = match_rows(table, check)
    if not has_order:
        table = _check_label_order(table, places[0], check)
    table = _check_folds(table, places[0], check, needs_folds=needs_folds)
    is_average = _check_coverage(table, places, check)
    if check.offences:
        _remark_scores(table, places[0], check)
        return None
    return _arrange(table, places, check.prepared, is_average=is_average)


def _check_label_order(table: ForeignTable, oof_row: Int64s, check: Check) -> ForeignTable:
    """Compare the columns with the gold labels; use another order if it has a name.

    Columns that name their labels are not moved: if those of the out-of-fold rows do, name and
    numbers contradict each other.
    """
    here = np.flatnonzero(oof_row >= 0)
    usable = here[np.isfinite(table.probs[here]).all(axis=1)]
    labels = check.prepared.competition.profile.labels
    if not len(usable):
        return table
    file_gold = check.prepared.corpus.train.gold.astype(np.int64)
    gold, answers = file_gold[oof_row[usable]], table.probs[usable].argmax(axis=1).astype(np.int64)
    found = find_order(gold, answers, labels, file_gold)
    if found is None:
        return table
    before, after = (
        _describe_scores(gold, probs, check.prepared)
        for probs in (table.probs[usable], table.probs[usable][:, found.places])
    )
    is_named = bool(table.named[usable].all())
    if found.name is not None and not is_named:
        said = f"columns are in another order of the labels ({found.name}): read so"
        check.notices.append(f"{said}; in the profile's order they give {before}")
        probs = np.where(table.named[:, None], table.probs, table.probs[:, found.places])
        return replace(table, probs=probs)
    what = "the columns hold other labels than their names say"
    if not is_named:
        what = "the columns are in another order than the profile's labels"
    found_ = (
        f"{what}: {describe_order(found.places, labels)}; in this order {before}, permuted {after}"
    )
    remedy = (
        "write each column under its own label, or name the order of the columns: --label-order"
        " FILE, one label a line"
    )
    check.report(Offence(table.files[0], None, None, None, found_, remedy))
    return table


def _remark_scores(table: ForeignTable, oof_row: Int64s, check: Check) -> None:
    """Note the scores of the out-of-fold rows if something else is wrong."""
    here = np.flatnonzero(oof_row >= 0)
    usable = here[np.isfinite(table.probs[here]).all(axis=1)]
    if len(usable):
        gold = check.prepared.corpus.train.gold[oof_row[usable]].astype(np.int64)
        said = _describe_scores(gold, table.probs[usable], check.prepared)
        check.notices.append(f"its {len(usable):,} out-of-fold rows that could be read: {said}")


def _describe_scores(gold: Int64s, probs: NDArray[np.float64], prepared: Prepared) -> str:
    criteria = build_criteria(prepared.competition.profile)
    return criteria.write(criteria.score(gold, (probs, decide(probs))))


def _check_folds(
    table: ForeignTable, oof_row: Int64s, check: Check, *, needs_folds: bool
) -> ForeignTable:
    """Report out-of-fold rows of another fold than ours, or of none; use our fold numbers."""
    if not (oof_row >= 0).any():
        return table
    if not table.has_folds:
        if needs_folds:
            found = "there is no column with the fold of each out-of-fold row"
            remedy = (
                "add it, or confirm with --folds-hash that these folds were used: give the hash in"
                " the folds.json used for these predictions"
            )
            if table.files[0].endswith(ARRAY_SUFFIXES):
                found = "an array does not say which fold each out-of-fold row is in"
                remedy = (
                    "if the model was trained on this folds.csv, confirm it with --folds-hash and"
                    f" the hash in the folds.json that it used; or save a table: {SNIPPET}"
                )
            line = None if table.lines[0] is None else 1
            check.report(Offence(table.files[0], line, FOLD, None, found, remedy))
        return table
    here = np.flatnonzero(oof_row >= 0)
    ours = check.prepared.folds.fold_of[oof_row[here]].astype(np.int64)
    table = _renumber_folds(table, here, ours, check)
    for row, fold, said in zip(here.tolist(), ours, table.fold[here], strict=True):
        if row in table.unread or said == fold:
            continue
        found, remedy = f"fold {said}, but the row is in fold {fold}", "train on this folds.csv"
        if said == NO_FOLD:
            found, remedy = "no fold", "write the fold whose model predicted it"
        remedy = f"{remedy}: other folds would leak labels"
        check.report(table.place(row, FOLD, found, remedy))
    return table


def _renumber_folds(
    table: ForeignTable, here: NDArray[np.intp], ours: Int64s, check: Check
) -> ForeignTable:
    """Use our fold numbers if the folds are the same under other numbers."""
    is_read = np.array([row not in table.unread for row in here.tolist()], dtype=bool)
    said, known = table.fold[here][is_read], ours[is_read]
    pairs = {(int(a), int(b)) for a, b in zip(said, known, strict=True)}
    number_of = dict(pairs)
    is_same = all(a == b for a, b in pairs)
    if is_same or not pairs or len(number_of) < len(pairs) or NO_FOLD in number_of:
        return table
    if len(set(number_of.values())) < len(pairs):
        return table
    folds = table.fold.copy()
    in_test = (table.split == TEST) & (folds != NO_FOLD)
    theirs = set(folds[in_test].tolist())
    moves_test = theirs <= number_of.keys()
    moved = (table.split == OOF) | (in_test & moves_test)
    folds[moved] = [number_of.get(int(fold), int(fold)) for fold in folds[moved]]
    some = ", ".join(f"{a} is {b}" for a, b in sorted(pairs)[:3])
    check.notices.append(f"the same folds under other numbers ({some}, …): read so")
    return replace(table, fold=folds)


def _check_coverage(table: ForeignTable, places: tuple[Int64s, Int64s], check: Check) -> bool:
    """Report missing and repeated rows; return whether test predictions are an average."""
    oof_row, test_row = places
    n_folds, corpus = check.prepared.folds.count, check.prepared.corpus
    if not (oof_row != -1).any() or not (test_row != -1).any():
        _report_absent(table, places, check)
        return True
    _count_rows(table, oof_row, corpus.train.ids, OOF, check)
    in_test = test_row >= 0
    with_fold = in_test & (table.fold != NO_FOLD)
    if not with_fold.any():
        _count_rows(table, test_row, corpus.test.ids, TEST, check)
        return True
    for row in np.flatnonzero(in_test & ~with_fold).tolist():
        found = "no fold, other test rows have one"
        check.report(table.place(row, FOLD, found, "give every one its fold"))
    for row in np.flatnonzero(with_fold & (table.fold >= n_folds)).tolist():
        found = f"fold {table.fold[row]} of {n_folds}"
        check.report(table.place(row, FOLD, found, "write one from 0"))
    for fold in range(n_folds):
        of_fold = np.where((test_row == OTHER_ID) | (table.fold == fold), test_row, -1)
        _count_rows(table, of_fold, corpus.test.ids, f"{TEST}, fold {fold}", check)
    return False


def _report_absent(table: ForeignTable, places: tuple[Int64s, Int64s], check: Check) -> None:
    """Report that a whole split is missing, without which a member cannot be blended."""
    n_test = len(check.prepared.corpus.test)
    if not (places[1] != -1).any() and not table.count(TEST):
        found = f"no test rows: only out-of-fold rows ({n_test:,} test rows are expected)"
        remedy = "give them too, in this file or as --test FILE: the blend answers the test rows"
        check.report(Offence(table.files[0], None, SPLIT, None, found, remedy))
    elif not (places[0] != -1).any() and not table.count(OOF):
        found = "no out-of-fold rows: only test rows"
        remedy = (
            "give the out-of-fold rows as FILE and these as --test: weights are fitted to them; a"
            " finished submission needs no import (run.py check, run.py submit)"
        )
        check.report(Offence(table.files[0], None, SPLIT, None, found, remedy))


def _count_rows(table: ForeignTable, place: Int64s, ids: Objects, where: str, check: Check) -> None:
    """Report every repeated and every missing row."""
    if (place == OTHER_ID).any():
        return  # other ids: one cause, which was reported
    here = np.flatnonzero(place >= 0)
    first, times = np.unique(place[here], return_index=True, return_counts=True)[1:]
    again = np.setdiff1d(here, here[first])
    for row in again.tolist() if (times > 1).any() else ():
        found = f"the row occurs more than once ({where})"
        check.report(table.place(row, ID, found, "predict each row once"))
    for row in np.setdiff1d(np.arange(len(ids)), place[here]).tolist():
        found = f"no prediction for this row ({where})"
        check.report(Offence(table.files[0], None, ID, str(ids[row]), found, "add the row"))


def _arrange(
    table: ForeignTable, places: Sequence[Int64s], prepared: Prepared, *, is_average: bool
) -> ForeignRows:
    """Arrange the rows in the order of the corpus."""
    oof_row, test_row = places
    n_folds, n_labels = prepared.folds.count, table.probs.shape[1]
    oof = np.empty((len(prepared.corpus.train), n_labels), dtype=np.float32)
    test = np.empty((n_folds, len(prepared.corpus.test), n_labels), dtype=np.float32)
    oof[oof_row[oof_row >= 0]] = table.probs[oof_row >= 0]
    for fold in range(n_folds):
        here = (test_row >= 0) & (is_average | (table.fold == fold))
        test[fold, test_row[here]] = table.probs[here]
    return ForeignRows(oof, test, is_average, table.has_folds)


def describe_rows(rows: ForeignRows) -> dict[str, Any]:
    """Describe how test rows were predicted and how folds were checked."""
    return {
        "test": AVERAGE if rows.is_average else "per fold",
        "folds": "row by row" if rows.has_folds else "by hash",
    }
