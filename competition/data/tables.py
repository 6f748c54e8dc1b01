"""Read the records of a file of any form: CSV and similar, JSON, JSON Lines, Parquet.

``file_kind`` detects the form, and ``corpus`` interprets the fields. A field is text; in JSON and
Parquet it may also be a list or a dict. Numbers become text, integers without a decimal point
(``3.0`` becomes ``3``), and null becomes empty. A column may be given as a path into a nested
value, such as ``h.pos.0``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from competition.data.csv_records import (
    FORM_NAMES,
    RecordReader,
    Report,
    describe_missing,
    report_unopened,
    show,
)
from competition.data.values import parse_value
from competition.errors import Offence
from competition.file_kind import (
    FileKind,
    WrongFileError,
    check_row_count,
    open_utf8,
    recognise,
)
from competition.files import parse_json
from competition.profile import Profile

PARQUET_BATCH_ROWS = 10_000
HEADER_ROWS = 1_000  # of JSON, whose rows may have different keys

Record = dict[str, Any]
Wanted = Mapping[str, str | None]


@dataclass(frozen=True)
class Layout:
    """The layout of a CSV file, as in ``RecordReader``."""

    separator: str | None = None
    header: Sequence[str] | None = None
    quotes: bool | None = None


def train_layout(profile: Profile) -> Layout:
    """Return the layout of the train file."""
    files = profile.files
    return Layout(files.separator, files.header, files.quotes)


def test_layout(profile: Profile) -> Layout:
    """Return the layout of the test file and of files to predict."""
    files = profile.files
    return Layout(files.separator, files.test_header or files.header, files.quotes)


@dataclass
class TableReader:
    """Reads the records of a file of any form.

    Args:
        wanted: maps a field to its column, or to a path into one; None gives the number of the
            row, counted from 0.
    """

    path: Path
    wanted: Wanted
    report: Report
    layout: Layout = Layout()
    names: list[str] = field(default_factory=list)  # of all columns, after reading has begun
    quoting: bool | None = None  # as of ``RecordReader``, after reading
    _notices: list[Offence] = field(default_factory=list)

    def read(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield (line, fields in the order of ``wanted``) of every valid record.

        Lines are counted from 1; in JSON and Parquet they are row numbers.
        """
        try:
            kind = recognise(self.path) if self.path.is_file() else None
            if kind is None or kind.form == "text":
                yield from self._read_csv(kind)
                return
            if kind.form == "parquet":
                records = _read_parquet(self.path, self.wanted)
            else:
                odd = [(f"the file is {FORM_NAMES[kind.form]}", "read so"), *kind.oddities]
                self._notices = [Offence(self.path.name, None, None, None, *each) for each in odd]
                records = _read_json(self.path, self.wanted)
            yield from self._read_records(records)
        except WrongFileError as wrong:
            self.report(Offence(self.path.name, None, None, None, wrong.found, wrong.remedy))
        except OSError as error:
            report_unopened(self.path, error, self.report)

    def read_names(self) -> list[str]:
        """Return the names of all columns of a JSON or Parquet file.

        Raises:
            WrongFileError, OSError: the file cannot be read.
        """
        first = list(islice(read_objects(self.path), HEADER_ROWS))
        self.names = list(dict.fromkeys(name for _, record in first for name in record))
        return self.names

    def notices(self) -> list[Offence]:
        """Return the accepted irregularities; complete after all records were read."""
        return list(self._notices)

    def _read_csv(self, kind: FileKind | None) -> Iterator[tuple[int, list[Any]]]:
        roots = self.wanted
        layout = self._fit_separator()
        if any(name is not None and "." in name for name in self.wanted.values()):
            roots = self._find_roots(layout)
        reader = RecordReader(
            self.path, roots, self.report, layout.separator, layout.header, layout.quotes, kind=kind
        )
        if roots == self.wanted:
            yield from reader.read()
        else:
            paths = [
                (at, split_path(column, self.names))
                for at, column in enumerate(self.wanted.values())
                if column is not None and column not in self.names
            ]
            for line, fields in reader.read():
                for at, path in paths:
                    fields[at] = dig(fields[at], path[1:])
                yield line, fields
        self.names, self.quoting = reader.names, reader.quoting
        self._notices += reader.notices()

    def _fit_separator(self) -> Layout:
        """Return the layout, without its separator where that splits off no column of the header.

        The files of one competition may differ: a TSV to train on, a CSV of solutions.
        """
        layout = self.layout
        if layout.separator is None or layout.header:
            return layout
        reader = RecordReader(self.path, {}, _ignore, layout.separator, None, layout.quotes)
        names = reader.read_header() or ()
        roots = {name.partition(".")[0] for name in self.wanted.values() if name is not None}
        fits = any(name in names for name in (*roots, *self.wanted.values()))
        fits = fits or (not roots and len(names) > 1)
        return layout if fits else replace(layout, separator=None)

    def _find_roots(self, layout: Layout) -> Wanted:
        """Return ``wanted`` with paths replaced by the column in which they begin."""
        names = [name for name in self.wanted.values() if name is not None]
        roots = {name: name.partition(".")[0] for name in names}
        header = list(layout.header or ())
        if not header:
            every = {**dict.fromkeys(roots), **{root: root for root in roots.values()}}
            reader = RecordReader(
                self.path, {n: n for n in every}, _ignore, layout.separator, None, layout.quotes
            )
            reader.read_header()
            header = reader.names
        self.names = header
        return {
            what: roots[name] if name is not None and name not in header else name
            for what, name in self.wanted.items()
        }

    def _read_records(self, records: Iterator[tuple[int, Record]]) -> Iterator[tuple[int, Any]]:
        """Yield the wanted fields of records given as dicts."""
        first = list(islice(records, HEADER_ROWS))
        if not first:
            found, remedy = "no rows", "use the competition's own file"
            self.report(Offence(self.path.name, None, None, None, found, remedy))
            return
        self.names = list(dict.fromkeys(name for _, record in first for name in record))
        if not self._check_columns():
            return
        columns = list(self.wanted.values())
        paths = [() if name is None else split_path(name, self.names) for name in columns]
        for number, (line, record) in enumerate(chain(first, records)):
            fields = [
                as_field(dig(record.get(path[0]), path[1:])) if path else str(number)
                for path in paths
            ]
            wrong = [name for name, value in zip(columns, fields, strict=True) if _is_odd(value)]
            for name in wrong:
                found = "a NUL character or half of a surrogate pair"
                self.report(Offence(self.path.name, line, name, None, found, "remove it"))
            if not wrong:
                yield line, fields

    def _check_columns(self) -> bool:
        """Report each wanted column that no record has."""
        is_usable = True
        for name in self.wanted.values():
            if name is not None and split_path(name, self.names)[0] not in self.names:
                is_usable = False
                found, remedy = describe_missing(name, self.names)
                self.report(Offence(self.path.name, 1, name, None, found, remedy))
        return is_usable


def dig(value: Any, path: Sequence[str]) -> Any:
    """Follow a path into a nested value; None if it does not exist.

    A text on the path is parsed as JSON or a Python literal.

    >>> dig({"pos": [3, 5]}, ("pos", "1")), dig("[3, 5]", ("0",)), dig({"pos": []}, ("pos", "0"))
    (5, 3, None)
    """
    for key in path:
        if isinstance(value, str):
            try:
                value = parse_value(value)
            except ValueError:
                return None
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list | tuple) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def as_field(value: Any) -> Any:
    """Convert a value of JSON or Parquet to a CSV field; lists and dicts are unchanged.

    >>> as_field(3), as_field(3.0), as_field(None), as_field("3.0"), as_field([1])
    ('3', '3', '', '3.0', [1])
    """
    if value is None or value != value:  # noqa: PLR0124 - NaN, which means null in tables
        return ""
    if isinstance(value, str | list | dict):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_odd(value: Any) -> bool:
    """Return whether a value contains a NUL or a lone surrogate, which rows cannot."""
    if isinstance(value, Mapping):
        return any(map(_is_odd, value.values()))
    if isinstance(value, list):
        return any(map(_is_odd, value))
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return "\0" in value


def split_path(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Split a column's name to a path; an existing column name is a path of one step.

    >>> split_path("h.pos.0", ["h"]), split_path("h.pos.0", ["h.pos.0"])
    (('h', 'pos', '0'), ('h.pos.0',))
    """
    return (name,) if name in names else tuple(name.split("."))


def _ignore(_offence: Offence) -> None:
    return None


def read_objects(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield (line or number, record) of JSON, JSON Lines or Parquet, with unchanged values.

    Raises:
        WrongFileError, OSError: the file cannot be read.
    """
    is_parquet = recognise(path).form == "parquet"
    return _read_parquet(path, {}) if is_parquet else _read_json(path)


def _read_parquet(path: Path, wanted: Wanted) -> Iterator[tuple[int, Record]]:
    """Yield (number, record) of a Parquet file, read in batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            check_row_count(path, file.metadata.num_rows)
            names = file.schema_arrow.names
            columns = {split_path(name, names)[0] for name in wanted.values() if name is not None}
            number = 0
            known = [name for name in names if name in columns]
            if not columns or not columns <= set(names):
                known = names  # for the message about missing columns
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=known):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        is_text = isinstance(error, UnicodeDecodeError)
        reason = "a text in it is not UTF-8" if is_text else str(error).partition("\n")[0]
        raise WrongFileError(
            f"a Parquet file that cannot be read ({reason})", "download it again"
        ) from None


def _read_json(path: Path, wanted: Wanted | None = None) -> Iterator[tuple[int, Record]]:
    """Yield (line or number, record) of JSON or JSON Lines."""
    stream, kind = open_utf8(path)
    with stream:
        if kind.form == "json-lines":
            for line, text in enumerate(stream, start=1):
                if text.strip():
                    yield line, _parse_object(text, f"line {line}")
            return
        content = stream.read()
    try:
        value = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise WrongFileError(f"damaged JSON: {error}", "download it again") from None
    for number, record in enumerate(_find_rows(value, wanted or {}), start=1):
        if not isinstance(record, dict):
            found = f"row {number} is {show(record)}, not an object with the columns as keys"
            raise WrongFileError(found, "write each row as {…}")
        yield number, record


def _parse_object(text: bytes, where: str) -> Record:
    try:
        record = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise WrongFileError(f"{where} is not JSON: {error}", "write one object per line") from None
    if not isinstance(record, dict):
        found = f"{where} is {show(record)}, not an object with the columns as keys"
        raise WrongFileError(found, "write each row as {…}")
    return record


def _find_rows(value: Any, wanted: Wanted) -> Sequence[Any]:
    """Return the rows of a JSON value: a list, or a table stored by column or by row."""
    if isinstance(value, list):
        return value
    lists = [each for each in value.values() if isinstance(each, list)]
    if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
        return lists[0]  # {"version": …, "data": [rows]}
    roots = {name.partition(".")[0] for name in wanted.values() if name is not None}
    is_by_column = bool(roots & value.keys())
    if not roots:  # without a profile: column-oriented if the inner keys are row numbers
        inner = [key for each in value.values() if isinstance(each, dict) for key in each]
        is_by_column = all(key.isdecimal() for key in inner)
    if len(lists) > 1 and all(isinstance(each, dict) for rows in lists for each in rows):
        found = f"JSON with rows in lists of their own under {show(', '.join(map(str, value)))}"
        raise WrongFileError(found, "write one list of objects, with the key in each object")
    if is_by_column and value.values() and len(lists) == len(value):
        sizes = sorted({len(each) for each in lists})
        if len(sizes) > 1:
            found = f"JSON by column with {sizes[0]:,} to {sizes[-1]:,} values in each column"
            raise WrongFileError(found, "write a value for every row, null where there is none")
        return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
    if value and all(isinstance(each, dict) for each in value.values()):
        if not is_by_column:
            return list(value.values())
        keys = dict.fromkeys(key for column in value.values() for key in column)
        return [{name: column.get(key) for name, column in value.items()} for key in keys]
    raise WrongFileError(
        f"JSON without rows; its keys are {show(', '.join(map(str, value)))}",
        "write a list of objects, one per row",
    )
