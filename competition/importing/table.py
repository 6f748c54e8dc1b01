"""Rows of imported predictions, each with its stated split, id and fold.

After ``columns``; ``rows`` checks them against the corpus.

Legend: n rows, C labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Bools, Int64s, Objects
from competition.data.csv_records import show
from competition.errors import Offence
from competition.importing.cells import CellTable, Report, as_text, read_cells
from competition.importing.columns import (
    FOLD,
    SPLIT,
    ColumnError,
    ColumnMap,
    find_columns,
    parse_numbers,
)
from competition.profile import Profile

OOF, TEST = "oof", "test"
NO_FOLD = -1
_OOF_NAMES = (
    "oof", "outoffold", "train", "training", "trn", "tr", "valid", "validation", "val", "dev",
    "eval", "cv", "heldout", "holdout", "학습", "훈련", "검증",
)  # fmt: skip
_TEST_NAMES = (
    "test", "testing", "tst", "te", "testdata", "submission", "sub", "submit", "leaderboard",
    "predict", "inference", "테스트", "평가", "제출",
)  # fmt: skip
_TRAINED_ON = ("train", "training", "trn", "tr", "학습", "훈련")
_HELD_OUT = ("valid", "validation", "val", "dev", "oof", "outoffold", "검증", "heldout", "holdout")
_WHOLE_NUMBER = re.compile(r"([0-9]{1,9})(?:\.0*)?")
_MARKS = re.compile(r"[\W_]+")


@dataclass(frozen=True, eq=False)
class ForeignTable:
    """Rows as stated in the file.

    Attributes:
        files, lines: where each row is.
        split: (n,) ``oof`` or ``test``, other text if it was not recognised, None without a column.
        fold: (n,) -1 where the cell is empty or there is none.
        unread: rows with a cell that could not be read; it was reported.
        named: (n,) bool, the columns of the row's file name their labels; else their order is
            assumed.
        ids: (n,), None where the table has none.
        index: (n,) of a data frame, None where the table has ids or none.
        file_order: (C,) the label that each column names, from left to right, where they do.
    """

    files: list[str]
    lines: list[int | None]
    ids: Objects | None
    split: Objects | None
    fold: Int64s
    has_folds: bool
    probs: NDArray[np.float64]
    unread: set[int]
    named: Bools
    notices: list[str] = field(default_factory=list)
    file_order: NDArray[np.intp] | None = None
    index: Objects | None = None

    def __len__(self) -> int:
        """Return n."""
        return len(self.lines)

    @property
    def left_to_right(self) -> NDArray[np.intp]:
        """Return (C,) the place among ``probs`` of each column, as the file orders them."""
        if self.file_order is not None:
            return self.file_order
        return np.arange(self.probs.shape[1], dtype=np.intp)

    def count(self, split: str) -> int:
        """Return how many rows are of a split."""
        return 0 if self.split is None else sum(each == split for each in self.split)

    def place(self, row: int, column: str | None, found: str, remedy: str) -> Offence:
        """Build an offence of a row."""
        row_id = None if self.ids is None else str(self.ids[row])
        return Offence(self.files[row], self.lines[row], column, row_id, found, remedy)

    @classmethod
    def join(cls, parts: Sequence[ForeignTable]) -> ForeignTable:
        """Join tables whose splits and ids are known, with columns in the profile's order.

        The order that columns had in their files is lost: it may differ between files.
        """
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *map(len, parts)])
        return cls(
            files=[file for part in parts for file in part.files],
            lines=[line for part in parts for line in part.lines],
            ids=np.concatenate([part.ids for part in parts if part.ids is not None]),
            split=np.concatenate([part.split for part in parts if part.split is not None]),
            fold=np.concatenate([part.fold for part in parts]),
            has_folds=any(part.has_folds for part in parts if part.count(OOF)),
            probs=np.concatenate([part.probs for part in parts]),
            unread={
                int(start) + row
                for start, part in zip(starts, parts, strict=False)
                for row in part.unread
            },
            named=np.concatenate([part.named for part in parts]),
            notices=[notice for part in parts for notice in part.notices],
        )


def read_split(name: str) -> str | None:
    """Return the split of a name.

    >>> read_split("Out-of-fold"), read_split("valid"), read_split("TEST"), read_split("x")
    ('oof', 'oof', 'test', None)
    """
    plain = _plain(name)
    return OOF if plain in _OOF_NAMES else TEST if plain in _TEST_NAMES else None


def _plain(name: str) -> str:
    return _MARKS.sub("", name).lower()


def read_rows_of_table(path: Path, profile: Profile, report: Report) -> ForeignTable | None:
    """Read a table; None where it is none or its columns are not understood, which was reported."""
    table = read_cells(path, report)
    if table is None:
        return None
    try:
        columns = find_columns(table, profile)
    except ColumnError as fault:
        for column, found, remedy in fault.faults:
            line = None if table.lines[0] is None else 1
            report(Offence(table.file, line, column, None, found, remedy))
        return None
    ids = None if columns.id is None else as_text(table.columns[columns.id])
    rows = ForeignTable(
        files=[table.file] * len(table),
        lines=table.lines,
        ids=ids,
        split=None,
        fold=np.full(len(table), NO_FOLD),
        has_folds=columns.fold is not None,
        probs=np.full((len(table), profile.n_labels), np.nan),
        unread=set(),
        named=np.full(len(table), columns.is_named),
        notices=[*table.notices, *columns.notices],
        file_order=_find_file_order(table, columns) if columns.labels else None,
        index=None if columns.index is None else as_text(table.columns[columns.index]),
    )
    _read_folds(table, columns, rows, report)
    _read_probs(table, columns, rows, profile, report)
    if columns.split is None:
        return rows
    return replace(rows, split=_read_splits(table, columns, rows, report))


def _find_file_order(table: CellTable, columns: ColumnMap) -> NDArray[np.intp]:
    place_of = {name: place for place, name in enumerate(table.columns)}
    return np.argsort([place_of[name] for name in columns.labels])


def _read_folds(table: CellTable, columns: ColumnMap, rows: ForeignTable, report: Report) -> None:
    """Read folds; ``2.0`` counts, because tools write whole numbers so if some cells are empty."""
    if columns.fold is None:
        return
    for row, cell in enumerate(as_text(table.columns[columns.fold])):
        text = cell.strip()
        if text.lower() in ("", "nan", "none", "<na>", "null"):
            continue
        if (found := _WHOLE_NUMBER.fullmatch(text)) is not None:
            rows.fold[row] = int(found[1])
            continue
        report(rows.place(row, FOLD, f"{show(text)} is not a fold", "write a whole number from 0"))
        rows.unread.add(row)


def _read_probs(
    table: CellTable, columns: ColumnMap, rows: ForeignTable, profile: Profile, report: Report
) -> None:
    if columns.lists is None:
        for place, name in enumerate(columns.labels):
            _read_label(table.columns[name], place, profile.labels[place], rows, report)
        return
    places = {label: place for place, label in enumerate(profile.labels)}
    remedy = f"write {profile.n_labels} numbers, one for each label"
    for row, cell in enumerate(table.columns[columns.lists]):
        found = parse_numbers(cell)
        numbers: list[float] | None = None
        if isinstance(found, dict):
            if found.keys() == places.keys():
                numbers = [_number(found[label]) for label in profile.labels]
        elif found is not None and len(found) == profile.n_labels:
            numbers = found
        if numbers is None:
            said = f"{show(cell)} is no list of {profile.n_labels} numbers"
            report(rows.place(row, columns.lists, said, remedy))
            rows.unread.add(row)
        else:
            rows.probs[row] = numbers


def _read_label(
    cells: NDArray[np.generic], place: int, label: str, rows: ForeignTable, report: Report
) -> None:
    try:
        rows.probs[:, place] = cells.astype(np.float64)
        return
    except (ValueError, TypeError):
        pass
    for row, cell in enumerate(cells):
        number = _number(cell)
        if np.isnan(number):
            report(rows.place(row, label, f"{show(cell)} is not a number", "write a probability"))
            rows.unread.add(row)
        rows.probs[row, place] = number


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")


def _read_splits(
    table: CellTable, columns: ColumnMap, rows: ForeignTable, report: Report
) -> Objects:
    """Read each row's split by its name or a synonym, with notices."""
    assert columns.split is not None
    texts = as_text(table.columns[columns.split])
    read = _read_flags if _plain(columns.split) == "istest" else read_split
    known = {text: read(text) for text in dict.fromkeys(texts)}
    plain = {_plain(text) for text in known}
    if plain & set(_TRAINED_ON) and plain & set(_HELD_OUT):
        trained = next(text for text in known if _plain(text) in _TRAINED_ON)
        held = next(text for text in known if _plain(text) in _HELD_OUT)
        found = f"the column has both {show(trained)} and {show(held)}"
        remedy = f"leave out the {trained} rows, unless they are what no model had seen"
        report(Offence(table.file, None, SPLIT, None, found, remedy))
    for text, split in known.items():
        if split is not None and text != split:
            count = int((texts == text).sum())
            said = f"{show(text)} is read as {split}, in {count:,} rows"
            rows.notices.append(said)
    for row in np.flatnonzero([known[text] is None for text in texts]):
        found = f"{show(texts[row])} is not a split"
        report(rows.place(int(row), SPLIT, found, f"write {OOF} or {TEST}"))
        rows.unread.add(int(row))
    return np.array([known[text] or text for text in texts], dtype=object)


def _read_flags(text: str) -> str | None:
    plain = text.strip().lower()
    return {"1": TEST, "true": TEST, "0": OOF, "false": OOF}.get(plain)
