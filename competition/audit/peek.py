"""Read the columns and values of files without a profile.

First step of ``init``, before ``guess``. A nested value of JSON or Parquet is spread over columns
named by their paths, as in a profile.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from competition.data.csv_records import SEPARATORS, RecordReader, split_line
from competition.data.tables import TableReader, as_field
from competition.data.values import parse_value
from competition.errors import Offence, UsageError
from competition.file_kind import WrongFileError, open_utf8, recognise

MAX_ROWS = 300_000
SAMPLE = 200
HEAD_LINES = 50
LONG_CELL = 60
WORDY_NAME = re.compile(r"[A-Za-z가-힣_]")
PLAIN_NAME = re.compile(r"[\w :/-]+")
SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class Peek:
    """The columns and values of a file.

    Attributes:
        columns: name → its value in each row; all as long as the file, or ``MAX_ROWS``.
        separator: of a CSV that is separated by something else than commas.
        has_header: whether its first line names the columns; else they are numbered ``c0``, ``c1``.
        is_text: whether it is a CSV, or one with another separator.
        quoting: whether fields seem to be quoted, None where none begins with a quote.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]
    separator: str | None = None
    has_header: bool = True
    is_text: bool = False
    quoting: bool | None = None

    def __len__(self) -> int:
        """Return the number of rows that were read."""
        return len(next(iter(self.columns.values()), ()))


def peek(path: Path) -> Peek:
    """Read the columns of a file.

    Raises:
        UsageError: it is no table that can be read.
    """
    try:
        form = recognise(path).form
        if form == "text":
            return _peek_csv(path)
        names = TableReader(path, {}, _refuse).read_names()
        rows = TableReader(path, {name: name for name in names}, _refuse).read()
        return _spread(path, names, [fields for _, fields in islice(rows, MAX_ROWS)])
    except (WrongFileError, OSError) as error:
        raise UsageError(f"{path}: {error}") from None


def join_peeks(peeks: Sequence[Peek]) -> Peek:
    """Return the rows of several files of the same columns as one, named as the first."""
    first = peeks[0]
    columns = {
        name: [value for each in peeks for value in each.columns[name]] for name in first.columns
    }
    return replace(first, columns=columns)


def _peek_csv(path: Path) -> Peek:
    stream, _ = open_utf8(path)
    with stream:
        head = [line.decode("utf-8", "replace") for line in islice(stream, HEAD_LINES)]
    lines = [line for line in head if line.strip()]
    if not lines:
        raise WrongFileError("the file is empty", "name the competition's file")
    separator = max(SEPARATORS, key=lambda mark: _measure_separator(lines, mark))
    first = split_line(lines[0], separator)
    has_header = _is_header(
        first, {cell for line in lines[1:] for cell in split_line(line, separator)}
    )
    names = first if has_header else [f"c{i}" for i in range(len(first))]
    if len(set(names)) < len(names):
        found = f"its first line, {', '.join(names)!r}, names a column twice"
        raise WrongFileError(found, "give every column a different name")
    named = [name for name in names if name]  # one without is the index of a table
    offences: list[Offence] = []
    header = None if has_header else names
    reader = RecordReader(path, {name: name for name in named}, offences.append, separator, header)
    rows = [fields for _, fields in islice(reader.read(), MAX_ROWS)]
    if offences and not rows:
        where = "" if offences[0].line is None else f"line {offences[0].line}: "
        raise WrongFileError(f"{where}{offences[0].found}", offences[0].remedy)
    peeked = _spread(path, named, rows)
    shown = None if separator == "," else separator
    return Peek(path, peeked.columns, shown, has_header, is_text=True, quoting=reader.quoting)


def _measure_separator(lines: Sequence[str], mark: str) -> tuple[float, int]:
    """Return the fraction of lines with as many fields as the first, and that number."""
    counts = [len(split_line(line, mark)) for line in lines]
    if counts[0] < 2:
        return (0.0, 0)
    return (Counter(counts)[counts[0]] / len(counts), counts[0])


def _is_header(cells: Sequence[str], below: Collection[str]) -> bool:
    """Return whether a first line is a header: short words, no data, few numbers.

    A table written without column names has their numbers, from 0, in its header, and one with a
    column for each numbered label has theirs. A number among names, such as that of a column
    without one, makes no row of data of them: in a row, some cell is a sentence or occurs below.

    Args:
        cells: of the first line.
        below: all cells of the next lines.

    >>> _is_header(["id", "label", "0"], ["7", "met"]), _is_header(["7", "a", "met"], ["met"])
    (True, False)
    >>> _is_header(["id", "0", "1"], ["7", "0.5"]), _is_header(["id7", "0.5", "0.5"], ["id8"])
    (True, False)
    """
    named = [cell for cell in cells if cell]
    if (
        named
        and named == [str(i) for i in range(len(named))]
        and any(map(WORDY_NAME.search, below))
    ):
        return True
    words = [cell for cell in named if not re.fullmatch(r"[\d.]+", cell)]
    is_plain = all(len(cell) <= LONG_CELL and not re.search("[{<[]", cell) for cell in words)
    if not is_plain or not any(map(WORDY_NAME.search, words)):
        return False
    numbers = [cell for cell in named if cell not in words]
    are_names = all(map(PLAIN_NAME.fullmatch, words)) and not set(words) & set(below)
    are_places = len(numbers) > 1 and numbers == [str(i) for i in range(len(numbers))]
    are_places = are_places and all(map(str.isidentifier, words))
    return not numbers or (are_names and (are_places or len(numbers) < len(words)))


def _spread(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Peek:
    """Return columns; expand those with dicts or short lists to paths."""
    columns: dict[str, Sequence[Any]] = {}
    for at, name in enumerate(names):
        values = [row[at] for row in rows]
        columns[name] = values
        columns |= _spread_column(name, values)
    return Peek(path, columns)


def _spread_column(name: str, values: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Return the values of each path in a column of dicts or of pairs of numbers."""
    sample = [open_value(value) for value in values[:SAMPLE] if value != ""]
    if not sample:
        return {}
    if all(isinstance(value, dict) for value in sample):
        keys: Sequence[Any] = list(dict.fromkeys(key for value in sample for key in value))
    elif all(isinstance(value, list) and len(value) == 2 for value in sample) and all(
        type(each) is int for value in sample for each in value
    ):
        keys = [0, 1]
    else:
        return {}
    opened = [open_value(value) for value in values]
    found: dict[str, Sequence[Any]] = {}
    for key in keys:
        inner = [_take(value, key) for value in opened]
        found[f"{name}.{key}"] = inner
        found |= _spread_column(f"{name}.{key}", inner)
    return found


def open_value(value: Any) -> Any:
    """Return a value; parse a text that looks like a dict or list."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return parse_value(value)
        except ValueError:
            return value
    return value


def _take(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        return as_field(value.get(key))
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return as_field(value[key])
    return ""


def _refuse(offence: Offence) -> None:
    raise WrongFileError(offence.found, offence.remedy)
