"""Predictions that another tool made, by row id, held against this competition's rows.

Before the store on the way of a row: a CSV or Parquet table ``id, split, fold, <labels…>`` becomes
arrays in the order of the corpus, or a list of everything that is wrong with it. Columns are found
by name, rows by id; nothing depends on the order of either.

Legend: n rows of the table, N train rows, M test rows, C labels, K folds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from competition.arrays import Probs
from competition.data.csv_records import RecordReader, Report, show
from competition.errors import Offence
from competition.file_kind import WrongFileError, recognise
from competition.folds.kfold import Prepared
from competition.predictions.members import AVERAGE
from competition.predictions.store import SUM_TOLERANCE, Ids

ID, SPLIT, FOLD = "id", "split", "fold"
OOF, TEST = "oof", "test"
NO_FOLD = -1
_INDEX_NAMES = ("", "__index_level_0__")  # what pandas calls an index without a name: CSV, Parquet
_WHOLE_NUMBER = re.compile(r"([0-9]{1,9})(?:\.0*)?")
MAX_ROUNDED = 0.01 + 1e-9  # off 1, in a sum: more than that is not rounding


@dataclass(frozen=True, eq=False)
class ForeignRows:
    """Predictions of one model for each fold, in the order of the corpus.

    ``oof`` is (N, C), ``test`` (K, M, C), both float32; ``is_average`` where all K test predictions
    are one and the same, an average; ``has_folds`` where the table says each row's fold.
    """

    oof: Probs
    test: Probs
    is_average: bool
    has_folds: bool


@dataclass(frozen=True, eq=False)
class _Table:
    """The cells of a table.

    ``fold`` is -1 where the cell is empty or the column absent; ``unread`` are rows with a cell
    that is no number, which was reported.
    """

    file: str
    ids: Ids
    lines: list[int | None]
    split: Ids
    fold: NDArray[np.int64]
    probs: NDArray[np.float64]
    has_folds: bool
    report: Report
    unread: set[int] = field(default_factory=set)

    def offend(
        self, row: int | np.integer[Any], column: str | None, found: str, remedy: str
    ) -> None:
        """Report what is wrong with a row."""
        place = self.lines[int(row)], column, str(self.ids[row])
        self.report(Offence(self.file, *place, found, remedy))


def read_foreign_rows(
    path: Path, prepared: Prepared, report: Report, *, needs_folds: bool = True
) -> ForeignRows | None:
    """Read a table of predictions and check every row of it.

    Args:
        path: a ``.csv`` or ``.parquet`` file.
        prepared: whose rows, labels and folds.
        report: called with every offence.
        needs_folds: whether each out-of-fold row must say its fold.

    Returns:
        None when there is an offence.
    """
    offences = 0

    def count(offence: Offence) -> None:
        nonlocal offences
        offences += 1
        report(offence)

    labels = prepared.competition.profile.labels
    try:
        form = recognise(path).form if path.is_file() else "text"
    except WrongFileError as wrong:
        count(Offence(path.name, None, None, None, wrong.found, wrong.remedy))
        return None
    is_parquet = form == "parquet" or path.suffix == ".parquet"
    table = (_read_parquet if is_parquet else _read_csv)(path, labels, count)
    if table is None:
        return None
    _check_probs(table)
    oof_row, test_row = _place_rows(table, prepared)
    _check_folds(table, oof_row, prepared, needs_folds=needs_folds)
    is_average = _check_coverage(table, oof_row, test_row, prepared)
    if offences:
        return None
    return _arrange(table, (oof_row, test_row), prepared, is_average=is_average)


def _read_csv(path: Path, labels: Sequence[str], report: Report) -> _Table | None:
    header = RecordReader(path, {}, report).read_header()
    if header is None or not _check_columns(path, header, labels, report):
        return None
    leading = [ID, SPLIT, *([FOLD] if FOLD in header else [])]
    reader = RecordReader(path, {name: name for name in (*leading, *labels)}, report)
    lines: list[int | None] = []
    records: list[list[str]] = []
    for line, record in reader.read():
        lines.append(line)
        records.append(record)
    if not records:
        return None
    cells = np.array(records, dtype=object)
    has_folds = FOLD in header
    table = _Table(
        path.name,
        cells[:, 0],
        lines,
        cells[:, 1],
        np.full(len(cells), NO_FOLD),
        np.full((len(cells), len(labels)), np.nan),
        has_folds,
        report,
    )
    if has_folds:
        table.fold[:] = [_parse_fold(table, row, text) for row, text in enumerate(cells[:, 2])]
    _parse_probs(table, cells[:, len(leading) :], labels)
    return table


def _parse_fold(table: _Table, row: int, text: str) -> int:
    """Read a fold; ``2.0`` is one, as tools write whole numbers among cells that are empty."""
    if text == "":
        return NO_FOLD
    if (found := _WHOLE_NUMBER.fullmatch(text)) is not None:
        return int(found[1])
    table.offend(row, FOLD, f"{show(text)} is no fold", "write a whole number from 0")
    table.unread.add(row)
    return NO_FOLD


def _parse_probs(table: _Table, cells: Ids, labels: Sequence[str]) -> None:
    for place, label in enumerate(labels):
        column = cells[:, place]
        try:
            table.probs[:, place] = column.astype(np.float64)
        except ValueError:
            for row, text in enumerate(column):
                try:
                    table.probs[row, place] = float(text)
                except ValueError:
                    table.offend(row, label, f"{show(text)} is no number", "write a probability")
                    table.unread.add(row)


def _read_parquet(path: Path, labels: Sequence[str], report: Report) -> _Table | None:
    try:
        found = pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0][:200]
        report(Offence(path.name, None, None, None, f"no Parquet file ({reason})", "send it again"))
        return None
    names = found.schema.names
    if not _check_columns(path, names, labels, report):
        return None
    has_folds = FOLD in names
    try:
        probs = [found.column(label).to_numpy().astype(np.float64) for label in labels]
    except (ValueError, TypeError, pa.ArrowException) as error:
        report(Offence(path.name, None, None, None, f"no numbers ({error})", "write numbers"))
        return None
    table = _Table(
        path.name,
        np.array([str(each) for each in found.column(ID).to_pylist()], dtype=object),
        [None] * found.num_rows,
        np.array([str(each) for each in found.column(SPLIT).to_pylist()], dtype=object),
        np.full(found.num_rows, NO_FOLD),
        np.stack(probs, axis=1),
        has_folds,
        report,
    )
    if has_folds:
        said = found.column(FOLD).to_pandas()
        texts = said.astype(str).mask(said.isna(), "")
        table.fold[:] = [_parse_fold(table, row, text) for row, text in enumerate(texts)]
    return table


def _check_columns(path: Path, names: Sequence[str], labels: Sequence[str], report: Report) -> bool:
    """Report columns that are absent, named twice or no label of the profile."""
    if not names:
        report(Offence(path.name, None, None, None, "no such file or no header", "check the path"))
        return False
    add = {
        ID: "add it: each row's id, as the train or test file has it",
        SPLIT: f"add it: {OOF} for out-of-fold rows, {TEST} for test rows",
    }
    by_label = "name one column after each label of the profile; their order does not matter"
    absent = [name for name in (ID, SPLIT, *labels) if name not in names]
    wrong = [(name, "no such column", add.get(name, by_label)) for name in absent]
    twice = [name for name, count in Counter(names).items() if count > 1]
    wrong += [(name, "the column stands twice", "take one of them out") for name in twice]
    for name in set(names) - {ID, SPLIT, FOLD, *labels}:
        remedy = "take the column out"
        if name in _INDEX_NAMES:
            remedy += ": it is a data frame's index; write the table with index=False"
        elif absent:
            remedy += ", or rename it if it holds one that is missing"
        wrong.append((name, "it is no label of the profile", remedy))
    for name, found, remedy in sorted(wrong):
        report(Offence(path.name, 1, name, None, found, remedy))
    return not wrong


def _check_probs(table: _Table) -> None:
    """Report rows that are no probabilities: not finite, below 0, or with another sum than 1.

    What is wrong with a whole table, percentages or rounding, is said once.
    """
    probs = table.probs
    is_odd = ~np.isfinite(probs).all(axis=1)
    sums = np.where(is_odd, 1.0, np.nan_to_num(probs, posinf=0.0, neginf=0.0).sum(axis=1))
    is_negative = (probs < 0).any(axis=1) & ~is_odd
    is_off = (np.abs(sums - 1) > SUM_TOLERANCE) & ~is_negative
    for row in np.flatnonzero(is_odd):
        if row in table.unread:
            continue
        table.offend(row, None, "a probability is missing, NaN or infinite", "predict it again")
    for row in np.flatnonzero(is_negative):
        least = probs[row].min()
        table.offend(row, None, f"a probability is {least:.4g}", "hand in softmax output")
    is_percent = is_off & (np.abs(sums - 100) <= 1)
    _offend_once(table, is_percent, "about 100", "these are percentages; divide by 100")
    is_rounded = is_off & (np.abs(sums - 1) <= MAX_ROUNDED)
    remedy = "these are rounded; write at least 5 decimals"
    _offend_once(table, is_rounded, "0.99 to 1.01, not to 1", remedy)
    for row in np.flatnonzero(is_off & ~is_percent & ~is_rounded):
        found = f"probabilities sum to {sums[row]:.4f}, not 1"
        table.offend(row, None, found, "hand in softmax output, applied once")


def _offend_once(table: _Table, is_off: NDArray[np.bool_], total: str, remedy: str) -> None:
    """Report rows that share one fault by their number, at the place of the first."""
    count = int(is_off.sum())
    if not count:
        return
    first = int(is_off.argmax())
    line = table.lines[first]
    where = f"id {table.ids[first]}" if line is None else f"line {line}"
    rows = "1 row sums" if count == 1 else f"{count:,} rows sum"
    table.offend(first, None, f"{rows} to {total} (first: {where})", remedy)


def _place_rows(table: _Table, prepared: Prepared) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (n,) the train row and (n,) the test row of each line, -1 where it is none."""
    found = []
    for split, rows in ((OOF, prepared.corpus.train), (TEST, prepared.corpus.test)):
        row_of: Mapping[str, int] = {row_id: row for row, row_id in enumerate(rows.ids)}
        is_here = table.split == split
        place = np.full(len(table.ids), -1, dtype=np.int64)
        place[is_here] = [row_of.get(row_id, -1) for row_id in table.ids[is_here]]
        for row in np.flatnonzero(is_here & (place < 0)):
            table.offend(row, ID, f"no {split} row has this id", "take the row out")
        found.append(place)
    for row in np.flatnonzero((table.split != OOF) & (table.split != TEST)):
        table.offend(row, SPLIT, f"{show(table.split[row])} is no split", f"write {OOF} or {TEST}")
    return found[0], found[1]


def _check_folds(
    table: _Table, oof_row: NDArray[np.int64], prepared: Prepared, *, needs_folds: bool
) -> None:
    """Report out-of-fold rows of another fold than ours, or of none."""
    if not table.has_folds:
        if needs_folds:
            found = "no column tells which fold held a row out"
            remedy = (
                "add it, or show by --folds-hash that these folds were used: the hash in the"
                " folds.json that the predictions were made with"
            )
            table.report(Offence(table.file, 1, FOLD, None, found, remedy))
        return
    here = np.flatnonzero(oof_row >= 0)
    ours = prepared.folds.fold_of[oof_row[here]].astype(np.int64)
    _check_first_fold(table, here, ours)
    for row, fold, said in zip(here, ours, table.fold[here], strict=True):
        if row in table.unread or said == fold:
            continue
        found, remedy = f"fold {said}, here it is in fold {fold}", "train on these folds.csv"
        if said == NO_FOLD:
            found, remedy = "no fold", f"write {fold}, if that fold's model predicted it"
        table.offend(row, FOLD, found, f"{remedy}: rows of another fold would leak")


def _check_first_fold(table: _Table, here: NDArray[np.intp], ours: NDArray[np.int64]) -> None:
    """Report folds numbered from 1, once, and number them from 0 for the checks that follow.

    Args:
        table: whose ``fold`` is changed then.
        here: its out-of-fold rows.
        ours: the fold of each of them.
    """
    is_read = np.array([row not in table.unread for row in here], dtype=bool)
    if not is_read.any() or (table.fold[here] != ours + 1)[is_read].any():
        return
    whose, moved = "every fold", table.fold != NO_FOLD
    if (table.fold[table.split == TEST] == 0).any():
        whose, moved = f"the fold of every {OOF} row", moved & (table.split == OOF)
    table.fold[moved] -= 1
    found, remedy = "folds are numbered from 1, here from 0", f"subtract 1 from {whose}"
    table.report(Offence(table.file, 1, FOLD, None, found, remedy))


def _check_coverage(
    table: _Table,
    oof_row: NDArray[np.int64],
    test_row: NDArray[np.int64],
    prepared: Prepared,
) -> bool:
    """Report rows that are missing or answered twice; return whether the test is one average."""
    n_folds = prepared.folds.count
    _count_rows(table, oof_row, prepared.corpus.train.ids, OOF)
    in_test = test_row >= 0
    with_fold = in_test & (table.fold != NO_FOLD)
    if not with_fold.any():
        _count_rows(table, test_row, prepared.corpus.test.ids, TEST)
        return True
    for row in np.flatnonzero(in_test & ~with_fold):
        table.offend(row, FOLD, "no fold, other test rows have one", "give every one its fold")
    for row in np.flatnonzero(with_fold & (table.fold >= n_folds)):
        table.offend(row, FOLD, f"fold {table.fold[row]} of {n_folds}", "write one from 0")
    for fold in range(n_folds):
        of_fold = np.where(table.fold == fold, test_row, -1)
        _count_rows(table, of_fold, prepared.corpus.test.ids, f"{TEST}, fold {fold}")
    return False


def _count_rows(table: _Table, place: NDArray[np.int64], ids: Ids, where: str) -> None:
    """Report every row that stands twice and every row of the corpus that is missing."""
    here = np.flatnonzero(place >= 0)
    first, times = np.unique(place[here], return_index=True, return_counts=True)[1:]
    again = np.setdiff1d(here, here[first])
    for row in again if (times > 1).any() else ():
        table.offend(row, ID, f"the row stands more than once ({where})", "answer each row once")
    missing = np.setdiff1d(np.arange(len(ids)), place[here])
    for row in missing:
        found, remedy = f"no answer for this row ({where})", "add the row"
        table.report(Offence(table.file, None, ID, str(ids[row]), found, remedy))


def _arrange(
    table: _Table,
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    prepared: Prepared,
    *,
    is_average: bool,
) -> ForeignRows:
    """Put the rows in the order of the corpus."""
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
    """Return in words how the test rows were answered and the folds made sure of."""
    return {
        "test": AVERAGE if rows.is_average else "per fold",
        "folds": "row by row" if rows.has_folds else "by hash",
    }
