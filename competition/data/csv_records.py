"""CSV bytes → records with their true line numbers; what is no clean CSV is an offence.

The first half of reading a corpus: encoding, quotes, NUL bytes, header and number of fields. What
the fields mean is ``corpus``'s business. A record that offends is listed, not returned, and the
reading goes on, so that a person sees all offences at once.
"""

from __future__ import annotations

import codecs
import csv
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from competition.console import write_count
from competition.errors import Offence

FIELD_MAX_CHARS = 10_000_000
FOUND_MAX_CHARS = 80
ID_MAX_CHARS = 40
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Report = Callable[[Offence], None]


def show(value: object) -> str:
    r"""Write a value found in a file on one line: quoted, escaped, shortened.

    >>> show("a\nb\x1b[31m"), show("x" * 100)[-6:]
    ("'a\\nb\\x1b[31m'", 'xxxxx…')
    """
    text = repr(value[: 2 * FOUND_MAX_CHARS] if isinstance(value, str) else value)
    return text if len(text) <= FOUND_MAX_CHARS else f"{text[: FOUND_MAX_CHARS - 1]}…"


def show_id(row_id: str) -> str:
    """Write an id for an offence: as it is when plain, else quoted, escaped and shortened."""
    return row_id if row_id.isprintable() and 0 < len(row_id) <= ID_MAX_CHARS else show(row_id)


@dataclass(slots=True)
class Oddity:
    """Something accepted in a file: how often it was met and where first."""

    count: int = 0
    line: int | None = None

    def meet(self, line: int) -> None:
        """Count it once more."""
        self.count += 1
        self.line = line if self.line is None else self.line


@dataclass
class RecordReader:
    """The records of one CSV file.

    Args:
        path: the file.
        wanted: what is read (``sentence``) → the column it is read from, all of them required.
        report: called with every offence.
    """

    path: Path
    wanted: Mapping[str, str]
    report: Report
    carriage_returns: Oddity = field(default_factory=Oddity)
    empty_lines: Oddity = field(default_factory=Oddity)
    has_bom: bool = False
    _bad_lines: set[int] = field(default_factory=set)

    def offend(self, line: int | None, column: str | None, found: str, remedy: str) -> None:
        """Report an offence that concerns no particular id."""
        self.report(Offence(self.path.name, line, column, None, found, remedy))

    def read(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, fields in the order of ``wanted``) of every clean record.

        The line is the one the record begins on, counted from 1.
        """
        stream = self._open()
        if stream is None:
            return
        with stream, _long_fields():
            if self._check_start(stream):
                yield from self._read_records(stream)

    def read_header(self) -> list[str] | None:
        """Return the names of all columns, wanted or not; None where they cannot be told.

        What is wrong is reported then.
        """
        stream = self._open()
        if stream is None:
            return None
        with stream, _long_fields():
            if not self._check_start(stream):
                return None
            line, header = next(self._parse(stream), (1, list[str]()))
            is_usable = not self._bad_lines and self._find_columns(line, header) is not None
            return header if is_usable else None

    def notices(self) -> list[Offence]:
        """Return what was accepted although it is odd; complete once all records are read."""
        name = self.path.name
        found = []
        if self.has_bom:
            odd = Offence(name, 1, None, None, "begins with a byte order mark", "it was left out")
            found.append(odd)
        if self.carriage_returns.count:
            ends = write_count(self.carriage_returns.count, "line ends", "lines end")
            many = f"{ends} in CR LF (Windows)"
            found.append(
                Offence(name, self.carriage_returns.line, None, None, many, "read as line ends")
            )
        if self.empty_lines.count:
            many = f"{self.empty_lines.count:,} empty lines, this one first"
            found.append(Offence(name, self.empty_lines.line, None, None, many, "they hold no row"))
        return found

    def _open(self) -> BinaryIO | None:
        try:
            return self.path.open("rb")
        except OSError as error:
            reason = error.strerror or str(error)
            remedy = "check this path (--data names the folder of a competition's own files)"
            self.offend(None, None, f"cannot be opened ({reason}): {self.path}", remedy)
            return None

    def _check_start(self, stream: BinaryIO) -> bool:
        """Look at the first bytes and leave the stream after a byte order mark."""
        start = stream.read(4)
        if not start:
            self.offend(None, None, "the file is empty", "put the competition's file there")
            return False
        if start.startswith(_UTF16):
            self.offend(1, None, "the file is UTF-16", "save it as UTF-8 (CSV UTF-8)")
            return False
        self.has_bom = start.startswith(codecs.BOM_UTF8)
        stream.seek(len(codecs.BOM_UTF8) if self.has_bom else 0)
        return True

    def _decode_lines(self, stream: BinaryIO) -> Iterator[str]:
        """Yield every physical line as text; what cannot be text is reported and noted as bad."""
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\r\n"):
                self.carriage_returns.meet(number)
            if b"\0" in line:
                self._bad_lines.add(number)
                place = line.index(b"\0") + 1
                self.offend(number, None, f"a NUL byte at byte {place} of the line", "remove it")
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                self._bad_lines.add(number)
                self._report_bytes(number, line, error)
                yield line.decode("utf-8", errors="replace")

    def _report_bytes(self, number: int, line: bytes, error: UnicodeDecodeError) -> None:
        byte, place = line[error.start], error.start + 1
        found = f"byte 0x{byte:02x} at byte {place} of the line is not UTF-8"
        remedy = "save the file as UTF-8"
        try:
            text = line.decode("cp949")
        except UnicodeDecodeError:
            self.offend(number, None, found, remedy)
        else:
            remedy += f" (as CP949 the line reads {show(text.strip())})"
            self.offend(number, None, found, remedy)

    def _read_records(self, stream: BinaryIO) -> Iterator[tuple[int, list[str]]]:
        records = self._parse(stream)
        line, header = next(records, (1, list[str]()))
        if any(number <= line for number in self._bad_lines):
            return  # the header itself is not readable: nothing below it can be named
        places = self._find_columns(line, header)
        if places is None:
            return
        width, is_header_only = len(header), True
        for line, record in records:
            is_header_only = False
            if len(record) != width:
                found = f"{len(record)} fields where the header has {width}"
                remedy = "quote fields that hold a comma, and double the quotes inside them"
                self.offend(line, None, f"{found}: {show(','.join(record))}", remedy)
                continue
            yield line, [record[place] for place in places]
        if is_header_only and not self._bad_lines:
            self.offend(None, None, "a header and no row", "put the competition's rows there")

    def _parse(self, stream: BinaryIO) -> Iterator[tuple[int, list[str]]]:
        """Yield (first line, fields) of every record whose lines are clean and quotes balanced."""
        reader = csv.reader(self._decode_lines(stream), strict=True)
        while True:
            line = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._bad_lines.add(line)
                self._report_syntax(line, reader.line_num, str(error))
                continue
            if self._bad_lines and any(
                number in self._bad_lines for number in range(line, reader.line_num + 1)
            ):
                continue
            if not record:
                self.empty_lines.meet(line)
                continue
            yield line, record

    def _report_syntax(self, line: int, last: int, reason: str) -> None:
        if "unexpected end of data" in reason:
            found = (
                f"a quote opened on this line is not closed by the end of the file (line {last})"
            )
            self.offend(line, None, found, "close it, or double the quotes inside the field")
        elif "field larger than field limit" in reason:
            found = f"a field of more than {FIELD_MAX_CHARS:,} characters, up to line {last}"
            self.offend(line, None, found, "close the quote that most likely stays open here")
        elif "new-line character" in reason:
            found = "a carriage return (CR) that no line feed follows, as lines of an old Mac end"
            remedy = "save the file with Unix line ends (LF), or quote the field that holds it"
            self.offend(line, None, found, remedy)
        else:
            found = f"not a CSV record ({reason})"
            self.offend(line, None, found, "double the quotes inside a quoted field")

    def _find_columns(self, line: int, header: Sequence[str]) -> list[int] | None:
        """Return each wanted column's place, or None when one is missing or stands twice."""
        separators = [mark for mark in (";", "\t", "|") if mark in "".join(header)]
        if len(header) == 1 and separators:
            found = f"one column only: {show(header[0])}"
            self.offend(line, None, found, f"separate fields by commas, not by {separators[0]!r}")
            return None
        is_usable = True
        for column in self.wanted.values():
            if column not in header:
                is_usable = False
                self._report_missing(line, column, header)
            elif header.count(column) > 1:
                is_usable = False
                self.offend(line, column, "the header names it twice", "take one of them out")
        return [header.index(column) for column in self.wanted.values()] if is_usable else None

    def _report_missing(self, line: int, column: str, header: Sequence[str]) -> None:
        near = difflib.get_close_matches(column, header, n=1)
        hint = f" (is it {show(near[0])}?)" if near else ""
        found = f"no such column{hint}; the header has {show(', '.join(header))}"
        remedy = "add it, or name this file's own column in the profile's [columns]"
        self.offend(line, column, found, remedy)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be long while a file is read; csv's own limit of 128 KiB is for the process."""
    before = csv.field_size_limit(FIELD_MAX_CHARS)
    try:
        yield
    finally:
        csv.field_size_limit(before)
