"""Read a table of predictions in any format (CSV with any separator, JSON, Parquet) as columns.

The first step of ``import``: ``file_kind`` detects the format; ``columns`` finds out what the
columns mean.

Legend: n rows of the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.data.csv_records import SEPARATORS, RecordReader, split_line
from competition.data.tables import TableReader
from competition.errors import Offence
from competition.file_kind import WrongFileError, check_row_count, open_utf8, recognise

Cells = NDArray[Any]
"""(n,) object cells (text, lists, dicts), or (n,) float64."""
Report = Callable[[Offence], None]


@dataclass(frozen=True, eq=False)
class CellTable:
    """The columns of a file by name; ``lines`` are None where the form has none."""

    file: str
    columns: dict[str, Cells]
    lines: list[int | None]
    notices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Return n."""
        return len(self.lines)


def read_cells(path: Path, report: Report) -> CellTable | None:
    """Read every column of a table; None where it is none, which was reported."""

    def offend(found: str, remedy: str, column: str | None = None) -> None:
        report(Offence(path.name, None, column, None, found, remedy))

    try:
        form = recognise(path).form
        if form == "parquet":
            return _read_parquet(path, offend)
        table = _read_csv(path, report) if form == "text" else _read_json(path, report)
    except WrongFileError as wrong:
        offend(wrong.found, wrong.remedy)
        return None
    except OSError as error:
        offend(f"cannot be opened ({error.strerror or error})", "check this path")
        return None
    if table is not None and not len(table):
        return None  # the reader has reported it
    return table


def _read_csv(path: Path, report: Report) -> CellTable | None:
    separator = _find_separator(path)
    header = RecordReader(path, {}, report, separator).read_header()
    if header is None:
        return None
    if not header:
        found = "no header: the first line is empty"
        report(Offence(path.name, None, None, None, found, "name the columns on the first line"))
        return None
    if not _check_twice(path, header, report):
        return None
    reader = RecordReader(path, {name: name for name in header}, report, separator)
    lines: list[int | None] = []
    records: list[list[str]] = []
    for line, record in reader.read():
        lines.append(line)
        records.append(record)
    cells = np.empty((len(records), len(header)), dtype=object)
    if records:
        cells[:] = records
    columns = {name: cells[:, at] for at, name in enumerate(header)}
    return CellTable(path.name, columns, lines, [each.found for each in reader.notices()])


def _find_separator(path: Path) -> str:
    """Return the mark that splits the first line into most columns, a comma where none does."""
    stream, kind = open_utf8(path)
    with stream:
        line = stream.readline(1 << 20).decode("utf-8", errors="replace")
    del kind
    return max(SEPARATORS, key=lambda mark: len(split_line(line, mark)))


def _read_json(path: Path, report: Report) -> CellTable | None:
    names = TableReader(path, {}, report).read_names()
    reader = TableReader(path, {name: name for name in names}, report)
    lines: list[int | None] = []
    records: list[list[Any]] = []
    for line, record in reader.read():
        lines.append(line)
        records.append(record)
    columns = {name: _gather([record[at] for record in records]) for at, name in enumerate(names)}
    return CellTable(path.name, columns, lines)


def _gather(values: Sequence[Any]) -> Cells:
    cells = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # lists of one length must not become an array
        cells[row] = value
    return cells


def _read_parquet(path: Path, offend: Callable[..., None]) -> CellTable | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_row_count(path, pq.read_metadata(path).num_rows)
        found = pq.read_table(path)
        names = found.schema.names
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            offend("the column occurs twice", "remove one of them", twice[0])
            return None
        columns = {name: _read_column(found.column(name)) for name in names}
    except WrongFileError as wrong:
        offend(wrong.found, wrong.remedy)
        return None
    except (OSError, ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0][:200]
        offend(f"a Parquet file that cannot be read ({reason})", "send it again")
        return None
    if not found.num_rows:
        offend("no row", "write the predictions there")
        return None
    return CellTable(path.name, columns, [None] * found.num_rows)


def _read_column(column: Any) -> Cells:
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    values = column.to_pylist()
    if pa.types.is_nested(column.type):
        return _gather(["" if value is None else value for value in values])
    return _gather(["" if value is None else str(value) for value in values])


def _check_twice(path: Path, header: Sequence[str], report: Report) -> bool:
    twice = [name for name, count in Counter(header).items() if count > 1]
    for name in twice:
        found, remedy = "the column occurs twice", "remove one of them"
        report(Offence(path.name, 1, name, None, found, remedy))
    return not twice


def as_text(cells: Cells) -> Cells:
    """Return cells as text: a whole number without its point, empty for NaN.

    >>> as_text(np.array([3.0, np.nan, 0.5])).tolist()
    ['3', '', '0.5']
    """
    if cells.dtype == object:
        return _gather([str(value) for value in cells])
    texts = []
    for value in cells.tolist():
        whole = value == value and abs(value) < 1e15 and value == int(value)  # noqa: PLR0124 - NaN
        texts.append(str(int(value)) if whole else "" if value != value else repr(value))  # noqa: PLR0124
    return _gather(texts)
