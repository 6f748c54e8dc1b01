"""The public benchmark's own files: their column of ids, and the order of their numbered labels.

A competition made of a benchmark has other ids and another order of labels, and numbers read in the
wrong order would train a model on wrong labels without an error. A file counts as the benchmark's
if it is JSON or Parquet and has the benchmark's column of ids but not the competition's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from competition.data.tables import TableReader
from competition.errors import Offence
from competition.file_kind import WrongFileError, recognise
from competition.profile import Profile


@dataclass(frozen=True)
class OwnColumns:
    """Columns of a file of rows.

    Attributes:
        id, source: their names; None where rows have none.
        numbers: labels in the order of the numbers that stand for them; empty for no such order.
        notices: what is said of it.
    """

    id: str | None
    source: str | None
    numbers: tuple[str, ...] = ()
    notices: tuple[Offence, ...] = ()


def read_own_columns(path: Path, profile: Profile) -> OwnColumns:
    """Return the columns that a profile names, or those of the benchmark's own file."""
    columns, benchmark = profile.columns, profile.benchmark
    usual = OwnColumns(columns.id, columns.source)
    if benchmark is None or columns.id is None:
        return usual
    try:
        if not path.is_file() or recognise(path).form == "text":
            return usual
        names = TableReader(path, {}, lambda _: None).read_names()
    except (WrongFileError, OSError):
        return usual  # reading the rows reports what is wrong
    if columns.id in names or benchmark.id not in names:
        return usual
    found = f"the benchmark's own file: ids in {benchmark.id!r}"
    notice = Offence(path.name, None, None, None, found, "read so, numbered labels in its order")
    source = columns.source if columns.source in names else None
    return OwnColumns(benchmark.id, source, benchmark.labels, (notice,))
