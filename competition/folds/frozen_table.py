"""Tables that are made once and never change silently: folds and routes.

Such a table is a CSV, ``NAME.csv``, with its hash and what made it beside it, ``NAME.json``. The
hash is over ids and values in the order of the corpus, so that line ends or another order of lines
do not matter and every changed value does. The JSON is written first: a CSV with no JSON beside it
was put there by a person.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from competition.data.csv_records import RecordReader
from competition.errors import OFFENCES_SHOWN, FoldsError, Offence
from competition.files import dump_json, tell_first, write_atomically

Record = tuple[int, list[str]]
Length = Annotated[int, Field(ge=0)]


class _Origin(BaseModel):
    """What is read of a table's JSON; its other keys are rules that are compared as they are."""

    model_config = ConfigDict(strict=True, extra="ignore")

    hash: str
    source: str = ""
    unit: str = ""
    borders: tuple[Length, Length] | None = None


@dataclass(frozen=True)
class FrozenTable:
    """Where a frozen table lies: ``directory/name.csv`` and ``directory/name.json``."""

    directory: Path
    name: str

    @property
    def csv_path(self) -> Path:
        """Return the table's own path."""
        return self.directory / f"{self.name}.csv"

    @property
    def json_path(self) -> Path:
        """Return the path of its hash and origin."""
        return self.directory / f"{self.name}.json"

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock to hold while the table is made; it is free again when we die.

        A table that is there is only read, which needs no lock and no right to write: both files
        come whole, the CSV last.

        Raises:
            FoldsError: the folder cannot be made.
        """
        if self.csv_path.is_file() and self.json_path.is_file():
            return nullcontext()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise FoldsError(f"{self.directory} cannot be made: {reason}") from None
        return FileLock(self.directory / f".{self.name}.lock")

    def read_origin(self) -> dict[str, Any] | None:
        """Return what the JSON says, or None when there is none.

        Raises:
            FoldsError: it cannot be read.
        """
        try:
            text = self.json_path.read_text(encoding="utf-8")
            _Origin.model_validate_json(text)
            origin: dict[str, Any] = json.loads(text)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise self.broken(f"cannot be used ({tell_first(error)})") from None
        return origin

    def broken(self, found: str) -> FoldsError:
        """Return the error for a JSON that cannot be used."""
        return FoldsError(
            f"{self.json_path} {found}. Restore it from a copy. Without one, delete it: then "
            f"{self.csv_path.name} counts as a file of your own and is checked as such."
        )

    def check_same_rows(
        self,
        records: Sequence[Record],
        origin: Mapping[str, Any],
        rows: Sequence[Sequence[str]],
        header: Sequence[str],
        *,
        what: str,
        files: str,
    ) -> None:
        """Refuse a table of other rows than these.

        Said once: no line of the table is wrong, and whoever changed one would lose it.

        Args:
            records: the table's lines; all but the last field name a row.
            origin: what its JSON says.
            rows: the fields that name each row there is now.
            header: the table's columns.
            what: which rows, such as ``train rows``.
            files: where they stand.

        Raises:
            FoldsError: saying how many rows differ, and what to do.
        """
        named = {tuple(fields[:-1]) for _, fields in records}
        here = set(map(tuple, rows))
        unknown, without = len(named - here), len(here - named)
        if not unknown and not without:
            return
        error = (
            f"{self.csv_path} was made for other {what} than stand in {files} now (not there any"
            f" more: {unknown:,}; there without a {header[-1]}: {without:,}). Put the data back, or"
            " give the changed data a profile with a `name` of its own (docs/profiles.md)."
        )
        lines = [fields for _, fields in records]
        if hash_text(build_text(header, *zip(*lines, strict=True))) != origin["hash"]:
            # its lines were changed, or only their order
            is_made = origin.get("source") == "made"
            again = "; without one, delete it alone: it is made again the same" if is_made else ""
            error += f" If {self.csv_path.name} itself was changed, restore it from a copy{again}."
        raise FoldsError(error)

    def changed(self) -> FoldsError:
        """Return the error for a table that is not the one it was made as."""
        return FoldsError(
            f"{self.csv_path} was changed after it was made: it no longer has the hash in "
            f"{self.json_path.name}. Restore it from a copy, or delete both files to make it anew. "
            f"To keep the change, delete {self.json_path.name}: then it counts as a file of your "
            "own. After a change, results made before it do not blend with later ones."
        )

    def lost(self) -> FoldsError:
        """Return the error for a table that is gone and would not come out the same."""
        return FoldsError(
            f"{self.csv_path} is gone, and what would be made now differs from what "
            f"{self.json_path.name} says it was. Restore it from a copy, or delete "
            f"{self.json_path.name} to make it anew; old results do not blend with new ones."
        )

    def write(self, text: str, origin: Mapping[str, Any]) -> None:
        """Leave both files, the JSON first."""
        self.adopt(origin)
        write_atomically(self.csv_path, text)

    def adopt(self, origin: Mapping[str, Any]) -> None:
        """Leave the JSON beside a CSV that a person put there, which stays as it is."""
        write_atomically(self.json_path, dump_json(origin))


def build_text(header: Sequence[str], *columns: Sequence[object]) -> str:
    r"""Write a table as CSV with Unix line ends.

    >>> build_text(("id", "fold"), ["a,b", "c"], [0, 1])
    'id,fold\n"a,b",0\nc,1\n'
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return stream.getvalue()


def hash_text(text: str) -> str:
    """Return the SHA-256 of a table's text, as 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_records(path: Path, header: Sequence[str]) -> list[Record]:
    """Read a table's (line, fields in the order of ``header``).

    Raises:
        FoldsError: it is no CSV with these columns.
    """
    offences: list[Offence] = []
    reader = RecordReader(path, {name: name for name in header}, offences.append)
    records = list(reader.read())
    refuse(path, offences)
    return records


def refuse(path: Path, offences: Sequence[Offence]) -> None:
    """Raise FoldsError listing the offences, when there are any."""
    if not offences:
        return
    shown = [f"  {offence}" for offence in offences[:OFFENCES_SHOWN]]
    if len(offences) > OFFENCES_SHOWN:
        shown.append(f"  … and {len(offences) - OFFENCES_SHOWN:,} more")
    raise FoldsError("\n".join([f"{path} cannot be used:", *shown]))
