"""Read records of a CSV file with their line numbers; report everything that is not valid CSV.

Checks quotes, NUL bytes, separator, header and number of fields; ``file_kind`` handles encodings
and ``corpus`` the meaning of the fields. An invalid record is reported and skipped, so that all
offences are reported in one run.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Literal

from competition.console import write_count
from competition.errors import Offence
from competition.file_kind import FileKind, WrongFileError, open_utf8

FIELD_MAX_CHARS = 10_000_000
FOUND_MAX_CHARS = 80
ID_MAX_CHARS = 40
SEPARATORS = (",", "\t", ";", "|")
SAMPLE_LINES = 500
FORM_NAMES = {"json": "JSON", "json-lines": "JSON Lines", "parquet": "Parquet", "text": "text"}
_QUOTED = re.compile('"(?:[^"]|"")*"')
_SEPARATOR_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}

Report = Callable[[Offence], None]


def show(value: object) -> str:
    r"""Format a value from a file on one line: quoted, escaped and shortened.

    >>> show("a\nb\x1b[31m"), show("x" * 100)[-6:]
    ("'a\\nb\\x1b[31m'", 'xxxxx…')
    """
    text = repr(value[: 2 * FOUND_MAX_CHARS] if isinstance(value, str) else value)
    return text if len(text) <= FOUND_MAX_CHARS else f"{text[: FOUND_MAX_CHARS - 1]}…"


def show_id(row_id: str) -> str:
    """Format an id for an offence: unchanged if printable, else quoted and shortened."""
    return row_id if row_id.isprintable() and 0 < len(row_id) <= ID_MAX_CHARS else show(row_id)


_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?|[+-]?[0-9]+(\.[0-9]+)?[eE][+]?[0-9]+")


def plain_id(row_id: str) -> str:
    """Write an id without what tools add to numbers: a point, leading zeros, an exponent.

    >>> plain_id("12.0"), plain_id(" 007"), plain_id("1e3"), plain_id("a-1.0")
    ('12', '7', '1000', 'a-1.0')
    """
    text = row_id.strip()
    if _WHOLE.fullmatch(text) is None:
        return text
    if text.isdecimal():
        return text.lstrip("0") or "0"
    number = float(text)
    return str(int(number)) if abs(number) < 1e15 and number.is_integer() else text


def match_ids(named: Sequence[str], known: Collection[str]) -> list[str]:
    """Return ids as those known write them, where all are known once written plainly.

    Else, or where that is not clear, they come back as they are.

    >>> match_ids(["0.0", "1.0"], ["0", "1"]), match_ids(["0.0", "x"], ["0", "1"])
    (['0', '1'], ['0.0', 'x'])
    """
    if set(named) <= set(known):
        return list(named)
    plain = {plain_id(row_id): row_id for row_id in known}
    found = [plain.get(plain_id(row_id)) for row_id in named]
    if None in found or len(plain) < len(known):
        return list(named)
    return [row_id for row_id in found if row_id is not None]


@dataclass(slots=True)
class Oddity:
    """An irregularity that was accepted in a file: its count and first line."""

    count: int = 0
    line: int | None = None

    def meet(self, line: int) -> None:
        """Count an occurrence."""
        self.count += 1
        self.line = line if self.line is None else self.line


@dataclass
class RecordReader:
    """Reads the records of a CSV file, or of one with another separator.

    Args:
        wanted: maps a field (``sentence``) to its column, which is required; None instead of a
            column gives the number of the row, counted from 0.
        separator: the field separator; None detects it from the first line.
        header: the column names of a file without a header line.
        quotes: whether fields may be quoted; None detects it from the first rows. Only files with
            a separator other than the comma can be without quotes.
    """

    path: Path
    wanted: Mapping[str, str | None]
    report: Report
    separator: str | None = ","
    header: Sequence[str] | None = None
    quotes: bool | None = None
    names: list[str] = field(default_factory=list)  # of all columns, after the header was read
    used_separator: str = ","  # this and the next after reading has begun
    used_quotes: bool = True
    quoting: bool | None = None  # as detected, where a field begins with a quote
    carriage_returns: Oddity = field(default_factory=Oddity)
    empty_lines: Oddity = field(default_factory=Oddity)
    kind: FileKind | None = None
    _guessed: list[str] = field(default_factory=list)
    _bad_lines: set[int] = field(default_factory=set)

    def offend(self, line: int | None, column: str | None, found: str, remedy: str) -> None:
        """Report an offence without an id."""
        self.report(Offence(self.path.name, line, column, None, found, remedy))

    def read(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, fields in the order of ``wanted``) of every valid record.

        The line is the first line of the record, counted from 1.
        """
        stream = self._open()
        if stream is None:
            return
        with stream, _long_fields():
            yield from self._read_records(stream)

    def read_header(self) -> list[str] | None:
        """Return the names of all columns; None if there is an offence, which is reported."""
        stream = self._open()
        if stream is None:
            return None
        with stream, _long_fields():
            line, header = next(self._parse(stream), (1, list[str]()))
            is_usable = not self._bad_lines and self._find_columns(line, header) is not None
            return header if is_usable else None

    def notices(self) -> list[Offence]:
        """Return the accepted irregularities; complete after all records were read."""
        name = self.path.name
        oddities = () if self.kind is None else self.kind.oddities
        found = [Offence(name, 1, None, None, odd, done) for odd, done in oddities]
        found += [Offence(name, 1, None, None, odd, "read so") for odd in self._guessed]
        if self.carriage_returns.count:
            ends = write_count(self.carriage_returns.count, "line ends", "lines end")
            many = f"{ends} in CR LF (Windows)"
            found.append(
                Offence(name, self.carriage_returns.line, None, None, many, "read as line ends")
            )
        if self.empty_lines.count:
            many = f"{self.empty_lines.count:,} empty lines, the first is this one"
            found.append(Offence(name, self.empty_lines.line, None, None, many, "skipped"))
        return found

    def _open(self) -> BinaryIO | None:
        """Open the file as UTF-8; report files that are empty or not text."""
        try:
            if self.path.is_file() and not self.path.stat().st_size:
                self.offend(None, None, "the file is empty", "use the competition's own file")
                return None
            stream, self.kind = open_utf8(self.path, self.kind)
        except WrongFileError as wrong:
            self.offend(None, None, wrong.found, wrong.remedy)
        except OSError as error:
            report_unopened(self.path, error, self.report)
        else:
            if self.kind.form == "text":
                return stream
            stream.close()
            form = FORM_NAMES[self.kind.form]
            self.offend(None, None, f"the file is {form}, not CSV", "save it as CSV (UTF-8)")
        return None

    def _decode_lines(self, stream: BinaryIO) -> Iterator[str]:
        """Yield every physical line as text; report and remember lines that cannot be decoded."""
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
        line, header = 1, list(self.header or ())
        if self.header is None:
            line, header = next(records, (1, list[str]()))
        if any(number <= line for number in self._bad_lines):
            return  # without a header no field can be identified
        places = self._find_columns(line, header)
        if places is None:
            return
        width, count = len(header), 0
        is_numbered = None in self.wanted.values()
        for line, record in records:
            count += 1
            if len(record) != width:
                self._report_width(line, record, width)
                continue
            if is_numbered:
                record.append(str(count - 1))
            yield line, [record[place] for place in places]
        if not count and not self._bad_lines:
            self.offend(None, None, "a header but no rows", "use the competition's own file")

    def _parse(self, stream: BinaryIO) -> Iterator[tuple[int, list[str]]]:
        """Yield (first line, fields) of every record with valid lines and balanced quotes."""
        lines: Iterator[str] = self._decode_lines(stream)
        if self.kind is not None and self.kind.is_clean:
            lines = map(bytes.decode, stream)
        first = list(islice(lines, 1))
        separator = self.separator or self._guess_separator("".join(first))
        self.used_separator = separator
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
        if separator != "," and self.quotes is not True:
            first += islice(lines, SAMPLE_LINES)
            if self.quotes is False or not _looks_quoted(first, separator):
                quoting, self.used_quotes = csv.QUOTE_NONE, False
            if self.quotes is None and any(
                part.startswith('"') for line in first for part in line.split(separator)
            ):
                self.quoting = self.used_quotes
        reader = csv.reader(chain(first, lines), delimiter=separator, quoting=quoting, strict=True)
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

    def _guess_separator(self, line: str) -> str:
        """Return the separator that yields the most wanted columns, or the right number of them.

        Where that leaves several, as when rows are only numbered, it is the one with most columns.
        """
        parts = {mark: split_line(line, mark) for mark in SEPARATORS}
        if self.header is None:
            wanted = {name.partition(".")[0] for name in self.wanted.values() if name}
            fits = {mark: (len(wanted & {*names}), len(names)) for mark, names in parts.items()}
        else:
            fits = {mark: (len(names) == len(self.header), 0) for mark, names in parts.items()}
        best = max(SEPARATORS, key=lambda mark: fits[mark])
        if best != ",":
            self._guessed.append(f"fields are separated by a {_SEPARATOR_NAMES[best]}")
        return best

    def _report_width(self, line: int, record: Sequence[str], width: int) -> None:
        of = "the header has" if self.header is None else "the profile lists"
        found = f"{len(record)} fields where {of} {width}"
        remedy = "quote fields that contain a comma, and double the quotes inside them"
        if self.header is not None:
            remedy = "list every column of the file in the profile, in order"
        self.offend(line, None, f"{found}: {show(','.join(record))}", remedy)

    def _report_syntax(self, line: int, last: int, reason: str) -> None:
        if "unexpected end of data" in reason:
            found = (
                f"a quote opened on this line is not closed by the end of the file (line {last})"
            )
            self.offend(line, None, found, "close it, or double the quotes inside the field")
        elif "field larger than field limit" in reason:
            found = f"a field of more than {FIELD_MAX_CHARS:,} characters, up to line {last}"
            self.offend(line, None, found, "close the quote that is probably left open here")
        elif "new-line character" in reason:
            found = "a carriage return (CR) without a line feed, as in files of old Macs"
            remedy = "save the file with Unix line ends (LF), or quote the field that contains it"
            self.offend(line, None, found, remedy)
        else:
            found = f"not a CSV record ({reason})"
            remedy = "double the quotes inside a quoted field"
            if self.used_separator != ",":
                remedy += ", or set files.quotes = false if quotes are part of the text"
            self.offend(line, None, found, remedy)

    def _find_columns(self, line: int, header: Sequence[str]) -> list[int] | None:
        """Return the index of each wanted column; None if one is missing or repeated."""
        self.names = list(header)
        separators = [mark for mark in SEPARATORS[1:] if mark in "".join(header)]
        if len(header) == 1 and separators:
            found = f"one column only: {show(header[0])}"
            self.offend(line, None, found, f"separate fields by commas, not by {separators[0]!r}")
            return None
        is_usable = True
        for column in self.wanted.values():
            if column is None:
                continue
            if column not in header:
                is_usable = False
                self._report_missing(line, column, header)
            elif header.count(column) > 1:
                is_usable = False
                self.offend(line, column, "the header has it twice", "remove one of them")
        if not is_usable:
            return None
        columns = self.wanted.values()
        return [len(header) if name is None else header.index(name) for name in columns]

    def _report_missing(self, line: int, column: str, header: Sequence[str]) -> None:
        self.offend(line, column, *describe_missing(column, header))


def split_line(line: str, separator: str) -> list[str]:
    """Split one line as CSV; [] if it is not valid."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def describe_missing(column: str, header: Sequence[str]) -> tuple[str, str]:
    """Return (found, remedy) for a missing column."""
    near = difflib.get_close_matches(column, header, n=1)
    hint = f" (is it {show(near[0])}?)" if near else ""
    found = f"no such column{hint}; the header has {show(', '.join(header))}"
    return found, "add it, or set the name that this file uses in the profile's [columns]"


def report_unopened(path: Path, error: OSError, report: Report) -> None:
    """Report that a file cannot be opened."""
    reason = error.strerror or str(error)
    remedy = "check this path (--data is the folder of a competition's own files)"
    found = f"cannot be opened ({reason}): {path}"
    report(Offence(path.name, None, None, None, found, remedy))


def _looks_quoted(lines: Sequence[str], separator: str) -> bool:
    """Return whether every field that begins with a quote is a valid quoted CSV field.

    A quoted field may contain separators and line ends. Then lines are not as wide as each other,
    and the records are that are read with quotes, but for one that the end of the sample cuts.
    """
    plain = [line.rstrip("\r\n").split(separator) for line in lines if line.strip()]
    fields = [part for parts in plain for part in parts]
    if all(_QUOTED.fullmatch(part) for part in fields if part.startswith('"')):
        return True
    if len({len(parts) for parts in plain}) == 1:
        return False
    widths = set()
    try:
        for record in csv.reader(lines, delimiter=separator, strict=True):
            widths.add(len(record) or len(plain[0]))
    except csv.Error as error:
        if len(lines) <= SAMPLE_LINES or "unexpected end" not in str(error):
            return False
    return len(widths) == 1


@contextmanager
def _long_fields() -> Iterator[None]:
    """Raise csv's limit on the size of fields, which is global to the process, while reading."""
    before = csv.field_size_limit(FIELD_MAX_CHARS)
    try:
        yield
    finally:
        csv.field_size_limit(before)
