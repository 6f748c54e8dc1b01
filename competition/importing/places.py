"""Match rows of imported predictions with the rows of the corpus.

Used by ``rows``: the split and the id of each row where no column gives them are found by the
ids, by the number of rows, and by the order of the files.

Legend: n rows of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Int64s, Objects
from competition.data.csv_records import plain_id, show_id
from competition.errors import Offence
from competition.file_kind import find_array_form
from competition.folds.kfold import Prepared
from competition.importing.columns import ID, SPLIT
from competition.importing.numpy_files import read_arrays
from competition.importing.table import OOF, TEST, ForeignTable, read_rows_of_table

MAX_UNKNOWN = 0.5  # share of unknown ids above which all are reported as other ids
MAX_DIGITS = 18
OTHER_ID = -2  # the place of a row whose split has other ids altogether


@dataclass(eq=False)
class Check:
    """What a table is checked against, and everything that is found."""

    prepared: Prepared
    offences: list[Offence] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def report(self, offence: Offence) -> None:
        """Record an offence."""
        self.offences.append(offence)


def read_part(path: Path, expected: str | None, check: Check) -> ForeignTable | None:
    """Read one file and make sure that each row has a split and an id."""
    if find_array_form(path) is not None:
        return read_arrays(path, check.prepared, expected, check.report)
    table = read_rows_of_table(path, check.prepared.competition.profile, check.report)
    if table is None:
        return None
    split = _find_split(table, expected, check)
    if split is None:
        return None
    table = replace(table, split=split)
    return table if table.ids is not None else _take_file_order(table, check)


def _find_split(table: ForeignTable, expected: str | None, check: Check) -> Objects | None:
    """Return the split of each row; without a column, guess it by ids or their number."""
    if expected is not None:
        said = table.split
        if said is not None and (other := [each for each in said if each != expected]):
            found = f"{len(other):,} rows are {other[0]} where {expected} rows belong"
            remedy = "leave them out, or give the one file with both and no --test"
            check.report(Offence(table.files[0], None, SPLIT, None, found, remedy))
            return None
        return np.full(len(table), expected, dtype=object)
    if table.split is not None:
        return table.split
    split, said_ = _guess_split(table, check.prepared)
    if split is None:
        found = "no column separates out-of-fold rows from test rows"
        remedy = (
            f"add a column {SPLIT!r} with {OOF} or {TEST}, or give the test rows in a file of"
            " their own: --test FILE"
        )
        line = None if table.lines[0] is None else 1
        check.report(Offence(table.files[0], line, SPLIT, None, found, remedy))
    else:
        check.notices.append(f"no column for the split: {said_}")
    return split


def _guess_split(table: ForeignTable, prepared: Prepared) -> tuple[Objects | None, str]:
    """Guess each row's split by ids and numbers of rows; None if that fails. Also return how."""
    n_rows, n_folds, corpus = len(table), prepared.folds.count, prepared.corpus
    train, test = (set(map(plain_id, map(str, rows.ids))) for rows in (corpus.train, corpus.test))
    ids = None if table.ids is None else [plain_id(str(each)) for each in table.ids]
    if ids is not None and not train & test and set(ids) <= train | test:
        by_id = [OOF if each in train else TEST for each in ids]
        return np.array(by_id, dtype=object), "train and test have different ids"
    test_sizes = (len(test), n_folds * len(test))
    sizes = {OOF: (len(train),), TEST: test_sizes}
    known = {OOF: train, TEST: test}
    fits = [s for s in sizes if n_rows in sizes[s] and (ids is None or set(ids) == known[s])]
    if len(fits) == 1:
        return np.full(n_rows, fits[0], dtype=object), f"its {n_rows:,} rows are {fits[0]} rows"
    head, tail = len(train), n_rows - len(train)
    is_both = tail in test_sizes and (
        ids is None or (set(ids[:head]) == train and set(ids[head:]) == test)
    )
    if is_both and not fits:
        both = np.repeat(np.array([OOF, TEST], dtype=object), [head, tail])
        return both, "the train rows come first, then the test rows"
    return None, ""


def _take_file_order(table: ForeignTable, check: Check) -> ForeignTable | None:
    """Assign the ids of the train and the test file to rows without ids.

    They are in the order of these files, unless the index of a data frame says another order.
    """
    assert table.split is not None
    has_moved = False
    ids = np.empty(len(table), dtype=object)
    corpus = check.prepared.corpus
    for split, known in ((OOF, corpus.train.ids), (TEST, corpus.test.ids)):
        here = np.flatnonzero(table.split == split)
        by_fold = [here]
        if split == TEST and len(here) != len(known):
            by_fold = [here[table.fold[here] == fold] for fold in np.unique(table.fold[here])]
        for places in by_fold:
            if len(places) not in (0, len(known)):
                found = f"no column {ID!r}, and {len(places):,} {split} rows of {len(known):,}"
                remedy = f"add a column {ID!r} with each row's id, as the data files have it"
                line = None if table.lines[0] is None else 1
                check.report(Offence(table.files[0], line, ID, None, found, remedy))
                return None
            if table.index is None or not len(places):
                ids[places] = known[: len(places)]
                continue
            named = order_by_index(table.index[places], known)
            if named is None:
                found = f"no column {ID!r}, and the column without a name (a data frame's index)"
                found += f" does not say which of the {len(known):,} {split} rows each line is"
                remedy = (
                    f"add a column {ID!r} with each row's id; or leave the index out (index=False),"
                    " if the rows are in the order of the data files"
                )
                check.report(table.place(int(places[0]), ID, found, remedy))
                return None
            has_moved = has_moved or not np.array_equal(named, known)
            ids[places] = named
    said = "rows are taken in the order of the data files"
    if has_moved:
        said = "the column without a name, a data frame's index, says which row each line is"
    check.notices.append(f"no column of ids: {said}")
    return replace(table, ids=ids)


def order_by_index(index: Objects, known: Objects) -> Objects | None:
    """Return the id of each row by the index of a data frame.

    Consecutive numbers are the order of the file. Others are places in the file, or ids.

    Args:
        index: (n,) as text.
        known: (n,) ids of the file, in its order.

    Returns:
        (n,) ids; None if the index may mean several orders, or none. An index that is not of
        numbers says nothing.

    >>> known = np.array(["a", "b", "c"], dtype=object)
    >>> order_by_index(np.array(["2", "0", "1"], dtype=object), known).tolist()
    ['c', 'a', 'b']
    """
    plain = [plain_id(str(each)) for each in index]
    id_of = {plain_id(str(each)): each for each in known}
    by_id = None
    if len(id_of) == len(known) and {*plain} == {*id_of}:
        by_id = np.array([id_of[each] for each in plain], dtype=object)
    if not all(each.isascii() and each.isdecimal() and len(each) <= MAX_DIGITS for each in plain):
        return known if by_id is None else by_id
    numbers = np.array(plain, dtype=np.int64)
    numbers -= numbers.min()
    steps = np.arange(len(known))
    if np.array_equal(numbers, steps):
        return known
    by_place = known[numbers] if np.array_equal(np.sort(numbers), steps) else None
    if by_place is None or by_id is None or np.array_equal(by_place, by_id):
        return by_id if by_place is None else by_place
    return None


def match_rows(table: ForeignTable, check: Check) -> tuple[Int64s, Int64s]:
    """Return (n,) the train row and (n,) the test row of each line, -1 for none."""
    assert table.ids is not None
    assert table.split is not None
    places = []
    for split, known in ((OOF, check.prepared.corpus.train), (TEST, check.prepared.corpus.test)):
        here = np.flatnonzero(table.split == split)
        row_of: Mapping[str, int] = {row_id: row for row, row_id in enumerate(known.ids)}
        found = np.array([row_of.get(row_id, -1) for row_id in table.ids[here]], dtype=np.int64)
        if (found < 0).any():
            found = _place_numbers(table, here, found, known.ids, check)
        unknown = here[found < 0]
        place = np.full(len(table), -1, dtype=np.int64)
        place[here] = found
        if len(unknown) > MAX_UNKNOWN * len(here):
            first = show_id(str(table.ids[unknown[0]]))
            have = ", ".join(show_id(str(each)) for each in known.ids[:2])
            found_ = (
                f"{len(unknown):,} of {len(here):,} {split} rows have ids that the data does not"
                f" have (first: {first}; it has {have}, …)"
            )
            remedy = f"write the ids of the {'train' if split == OOF else 'test'} file beside them"
            check.report(table.place(int(unknown[0]), ID, found_, remedy))
            place[here] = np.where(found < 0, OTHER_ID, found)  # not missed as well
        else:
            for row in unknown:
                check.report(
                    table.place(int(row), ID, f"no {split} row has this id", "remove the row")
                )
        places.append(place)
    return places[0], places[1]


def _place_numbers(
    table: ForeignTable, here: NDArray[np.intp], found: Int64s, ids: Objects, check: Check
) -> Int64s:
    """Match ids that are the same numbers in another format, if all match and none twice."""
    row_of = {plain_id(str(row_id)): row for row, row_id in enumerate(ids)}
    if len(row_of) < len(ids) or table.ids is None:
        return found
    said = table.ids[here]
    again = np.array([row_of.get(plain_id(str(row_id)), -1) for row_id in said], dtype=np.int64)
    if (again < 0).any():
        return found
    first = int((found < 0).argmax())
    check.notices.append(
        f"ids are written as {show_id(str(said[first]))}: read as {show_id(str(ids[again[first]]))}"
    )
    return again
