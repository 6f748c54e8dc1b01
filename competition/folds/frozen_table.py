"""Frozen tables for folds and routes: built once, with a hash that detects changes.

Such a table is a CSV file, ``NAME.csv``, with its hash and origin beside it in ``NAME.json``. The
hash covers ids and values in the order of the corpus, so line ends and the order of lines do not
matter, but every changed value does. The JSON is written first: a CSV without JSON was provided by
the user.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from competition.data.causes import gather_causes
from competition.data.tables import TableReader
from competition.errors import OFFENCES_SHOWN, FoldsError, Offence
from competition.files import dump_json, first_problem, parse_json, write_atomically
from competition.lease import clear_stale, hold

Record = tuple[int, list[str]]
Length = Annotated[int, Field(ge=0)]


class _Origin(BaseModel):
    """The validated keys of a table's JSON; its other keys are rules, compared unchanged."""

    model_config = ConfigDict(strict=True, extra="ignore")

    hash: str
    source: str = ""
    unit: str = ""
    borders: tuple[Length, Length] | None = None


@dataclass(frozen=True)
class FrozenTable:
    """The two files of a frozen table: ``directory/name.csv`` and ``directory/name.json``."""

    directory: Path
    name: str

    @property
    def csv_path(self) -> Path:
        """Return the path of the CSV."""
        return self.directory / f"{self.name}.csv"

    @property
    def json_path(self) -> Path:
        """Return the path of the JSON with hash and origin."""
        return self.directory / f"{self.name}.json"

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock to hold while the table is built; it is taken over if the process dies.

        An existing table is only read, which needs neither a lock nor write permission: both files
        are written atomically, the CSV last.

        Raises:
            FoldsError: the folder cannot be created.
        """
        if self.csv_path.is_file() and self.json_path.is_file():
            clear_stale(self._leased)
            return nullcontext()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise FoldsError(f"{self.directory} cannot be created: {reason}") from None
        return hold(self._leased)

    @property
    def _leased(self) -> Path:
        """What is leased while the table is built."""
        return self.directory / f".{self.name}"

    def read_origin(self) -> dict[str, Any] | None:
        """Return the content of the JSON, or None if there is none.

        Raises:
            FoldsError: it cannot be read.
        """
        try:
            text = self.json_path.read_text(encoding="utf-8")
            _Origin.model_validate_json(text)
            origin: dict[str, Any] = parse_json(text)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self.broken(f"cannot be used ({first_problem(error)})") from None
        return origin

    def broken(self, found: str) -> FoldsError:
        """Return the error for an unusable JSON."""
        return FoldsError(
            f"{self.json_path} {found}. Restore it from a backup. If you have none, delete it: "
            f"{self.csv_path.name} is then treated and checked as your own file."
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
        """Raise if the table was built for other rows than the given ones.

        It raises a single error instead of one per line, because the lines themselves are correct.

        Args:
            records: the table's lines; all fields but the last identify a row.

        Raises:
            FoldsError: with the number of differing rows and what to do.
        """
        named = {tuple(fields[:-1]) for _, fields in records}
        here = set(map(tuple, rows))
        unknown, without = len(named - here), len(here - named)
        if not unknown and not without:
            return
        error = (
            f"{self.csv_path} was built for other {what} than those now in {files} (no longer"
            f" there: {unknown:,}; there without a {header[-1]}: {without:,}). Restore the data, or"
            " give the changed data its own profile with another `name` (docs/profiles.md)."
        )
        lines = [fields for _, fields in records]
        if hash_text(build_text(header, *zip(*lines, strict=True))) != origin["hash"]:
            # its lines were changed, or only their order
            is_made = origin.get("source") == "made"
            again = "; or delete this file alone to build the same table again" if is_made else ""
            error += (
                f" If {self.csv_path.name} itself was changed, restore it from a backup{again}."
            )
        raise FoldsError(error)

    def changed(self) -> FoldsError:
        """Return the error for a table that no longer matches its hash."""
        return FoldsError(
            f"{self.csv_path} was changed after it was built: it does not match the hash in "
            f"{self.json_path.name}. Restore it from a backup, or delete both files to rebuild it. "
            f"To keep the change, delete {self.json_path.name}: the table is then treated as your "
            "own file. Results from before a change cannot be blended with later ones."
        )

    def lost(self) -> FoldsError:
        """Return the error for a missing table that cannot be rebuilt identically."""
        return FoldsError(
            f"{self.csv_path} is missing, and a rebuilt table would not match the hash in "
            f"{self.json_path.name}. Restore it from a backup, or delete "
            f"{self.json_path.name} to build a new one; old results cannot be blended with new."
        )

    def write(self, text: str, origin: Mapping[str, Any]) -> None:
        """Write both files, the JSON first."""
        self.adopt(origin)
        write_atomically(self.csv_path, text)

    def adopt(self, origin: Mapping[str, Any]) -> None:
        """Write the JSON for a CSV that the user provided; the CSV stays unchanged."""
        write_atomically(self.json_path, dump_json(origin))


def build_text(header: Sequence[str], *columns: Sequence[object]) -> str:
    r"""Format a table as CSV with Unix line ends.

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
    """Read a table, of whatever form, as (line number, fields in the order of ``header``).

    Raises:
        FoldsError: it is no table with these columns.
    """
    offences: list[Offence] = []
    reader = TableReader(path, {name: name for name in header}, offences.append)
    records = [(line, [str(field) for field in fields]) for line, fields in reader.read()]
    refuse(path, offences)
    return records


def refuse(path: Path, offences: Sequence[Offence]) -> None:
    """Raise FoldsError with the offences, if there are any."""
    if not offences:
        return
    merged = gather_causes(offences, len(offences))
    shown = [f"  {offence}" for offence in merged[:OFFENCES_SHOWN]]
    if len(merged) > OFFENCES_SHOWN:
        shown.append(f"  … and {len(merged) - OFFENCES_SHOWN:,} more")
    raise FoldsError("\n".join([f"{path} cannot be used:", *shown]))
