"""Read a submission file: labels and probabilities by row id, with every offence.

Used by ``check``, ``score`` and ``submit``, which read a file as a leaderboard would, whoever
wrote it. Text is matched, never evaluated.

Legend: n rows of the file, C labels.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.data.causes import gather_causes
from competition.data.csv_records import RecordReader, Report, plain_id, show, show_id
from competition.data.tables import Layout, TableReader
from competition.errors import CorpusError, Offence
from competition.profile import Profile
from competition.submission.form import Form, build_form

LAYOUT = Layout()
HEADER_MAX_BYTES = 65_536
ROW_MAX_BYTES, NUMBER_MAX_CHARS = 1_024, 64
SPARE_ROWS, OFFENCES_PER_ROW = 100, 10
ROUNDING = 1e-6
MAX_UNKNOWN = 0.5  # of the rows: then it is one cause
ANY_LABEL = "write a label of the profile as text"
HINTS_MAX = 5  # finding the nearest label is slow, and the first few labels show what went wrong
_SPACES = " \t\r\n"  # what every parser of a list passes over, and nothing else
_EXPONENT = r"(?:[eE][-+]?[0-9]++)"
_NUMBER = re.compile(
    rf"[-+]?(?:0++|[1-9][0-9]*+|[0-9]++\.[0-9]*+{_EXPONENT}?|\.[0-9]++{_EXPONENT}?"
    rf"|[0-9]++{_EXPONENT}|nan|NaN|inf|Infinity)"
)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a submission says.

    ids and lines have n entries; pred (n,) int64 label ids, -1 where the label is unknown; probs
    (n, C) float64 as written, NaN where they cannot be used. ``has_probs`` is False where no column
    holds them; ``notices`` are oddities that a platform may take or not.
    """

    ids: list[str]
    lines: list[int]
    pred: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float64]
    has_probs: bool = True
    notices: tuple[Offence, ...] = ()


def max_bytes(n_rows: int, n_labels: int) -> int:
    """Return the size in bytes that a submission of so many rows and labels never exceeds."""
    return (n_rows + SPARE_ROWS) * (ROW_MAX_BYTES + NUMBER_MAX_CHARS * n_labels)


def parse_probs(text: str) -> list[float] | None:
    """Read the text of a list of numbers, or return None when it is something else.

    Only what parsers of literals agree on is such a list: ASCII, with plain spaces. It is read in
    one pass, so a long cell takes no longer than its length.

    >>> parse_probs("[0.5, 5e-1]"), parse_probs("[0.5 0.5]"), parse_probs("[[1]]")
    ([0.5, 0.5], None, None)
    """
    inner = text.strip(_SPACES)
    if not (inner.isascii() and inner.startswith("[") and inner.endswith("]") and len(inner) > 2):
        return None
    parts = [part.strip(_SPACES) for part in inner[1:-1].split(",")]
    if parts[-1] == "" and len(parts) > 1:
        parts.pop()  # a comma after the last number
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    return [float(part) for part in parts]


def read_answers(
    path: Path,
    profile: Profile,
    n_rows: int,
    report: Report,
    *,
    form: Form | None = None,
    is_strict: bool = True,
) -> Answers:
    """Read a submission whole, reporting every offence in a single row.

    Args:
        n_rows: how many rows are expected; what is far too large for them is not read.
        report: called with every offence.
        form: of the competition's submissions; None: as the profile alone says.
        is_strict: as platforms do, insist on these columns, in this order; else further ones are
            passed over, and the probabilities may be missing.
    """
    form, most = form or build_form(profile), OFFENCES_PER_ROW * (n_rows + SPARE_ROWS)
    counter = _Counter(path, report, most)
    ids: list[str] = []
    lines: list[int] = []
    labels: list[str] = []
    texts: list[list[str]] = []
    notices: list[Offence] = []
    has_probs = form.probs_column is not None or bool(form.probs_columns)
    if _check_size(path, profile.n_labels, n_rows, report):
        wanted = {name: name for name in form.own}
        if is_strict:
            _check_header(path, form, report)
        elif form.probs_column is not None and _lacks_only(path, form):
            has_probs = False
            del wanted[form.probs_column]
        reader = _choose_reader(path, (wanted, form), counter, is_strict=is_strict)
        has_label = form.label_column is not None
        try:
            for line, (row_id, *answer) in reader.read():
                ids.append(row_id)
                lines.append(line)
                labels += answer[:1] if has_label else []
                texts.append([str(text) for text in answer[has_label:]])
        except _EnoughError:
            found = f"more than {most:,} offences"
            report(Offence(path.name, None, None, None, found, "this is no submission; see above"))
        for notice in reader.notices():
            merged = replace(notice, remedy="save it as UTF-8 without a mark, with LF line ends")
            is_other_text = "not UTF-8" in notice.found or "compressed" in notice.found
            if is_other_text and is_strict:
                report(merged)
            else:
                notices.append(merged)
    rows = _Rows(path.name, ids, lines, report)
    probs = np.full((len(ids), profile.n_labels), np.nan)
    if has_probs and form.probs_columns:
        probs = _read_columns(rows, texts, form, profile)
    elif has_probs:
        probs = _read_probs(rows, [text for (text,) in texts], form, profile)
    if form.label_column is not None:
        pred = _read_labels(rows, labels, form.label_column, profile)
    else:  # the leaderboard takes the most probable label
        is_usable = np.isfinite(probs).all(axis=1)
        pred = np.where(is_usable, np.where(np.isnan(probs), 0.0, probs).argmax(axis=1), -1)
    return Answers(ids, lines, pred, probs, has_probs, tuple(notices))


def _choose_reader(
    path: Path, expected: tuple[Mapping[str, str], Form], counter: _Counter, *, is_strict: bool
) -> RecordReader | TableReader:
    """Return the reader of the one form that platforms take, or one of any form."""
    wanted, form = expected
    if is_strict or not form.has_header:
        return RecordReader(path, wanted, counter.report_reworded, form.separator, form.header)
    return TableReader(path, wanted, counter.report_reworded)


def _lacks_only(path: Path, form: Form) -> bool:
    """Return whether a file lacks only the column of probabilities."""
    wanted = {name: name for name in form.own}
    reader = TableReader(path, wanted, _ignore)
    next(reader.read(), None)
    return form.has_header and set(form.own) - set(reader.names) == {form.probs_column}


def _ignore(_offence: Offence) -> None:
    return None


class _EnoughError(Exception):
    """A file offends far more often than a submission of its size can."""


@dataclass
class _Counter:
    """Passes offences on, up to a maximum number."""

    path: Path
    report: Report
    most: int
    count: int = 0

    def report_reworded(self, offence: Offence) -> None:
        self.count += 1
        if self.count > self.most:
            raise _EnoughError
        self.report(_reword(offence))


def check_ids(
    path: Path, answers: Answers, expected: Sequence[str], column: str, report: Report
) -> None:
    """Report every id that is unknown, repeated or missing, and the first out of order."""
    known, first_line = set(expected), dict[str, int]()
    unknown = [row for row, row_id in enumerate(answers.ids) if row_id not in known]
    if len(unknown) > MAX_UNKNOWN * len(answers.ids):
        row = unknown[0]
        line, row_id = answers.lines[row], answers.ids[row]
        report(_explain_ids(path, (line, row_id, len(unknown), len(answers.ids)), expected, column))
        return
    for row_id, line in zip(answers.ids, answers.lines, strict=True):
        shown = show_id(row_id)
        if row_id in first_line:
            found = f"the id also occurs on line {first_line[row_id]}"
            report(Offence(path.name, line, column, shown, found, "answer each row once"))
        elif row_id not in known:
            found = "no such row in the test file"
            report(Offence(path.name, line, column, shown, found, "take the row out"))
        first_line.setdefault(row_id, line)
    missing = [row_id for row_id in expected if row_id not in first_line]
    for row_id in missing:
        found = "no answer for this row of the test file"
        report(Offence(path.name, None, column, show_id(row_id), found, "add the row"))
    if len(answers.ids) != len(expected):
        found = f"{len(answers.ids):,} rows where the test file has {len(expected):,}"
        report(
            Offence(path.name, None, None, None, found, "answer every row of the test file once")
        )


def _explain_ids(
    path: Path, unknown: tuple[int, str, int, int], expected: Sequence[str], column: str
) -> Offence:
    """Report once that most ids are not those of the test file, and how they differ.

    Args:
        unknown: line and id of the first, how many there are, and of how many rows.
    """
    line, row_id, count, n_rows = unknown
    plain = {plain_id(each): each for each in expected}
    meant = plain.get(plain_id(row_id)) if len(plain) == len(expected) else None
    if meant is not None:
        found = f"ids are written as {show_id(row_id)} in {count:,} of {n_rows:,} rows"
        remedy = f"write {show_id(meant)}, as the test file does"
    else:
        have = ", ".join(map(show_id, expected[:2]))
        found = f"{count:,} of {n_rows:,} rows have ids that the test file does not have"
        remedy = f"write the ids of the test file ({have}, …) beside the answers"
    return Offence(path.name, line, column, show_id(row_id), found, remedy)


def tell_apart(ids: Sequence[str]) -> list[str]:
    """Return ids in which the k-th row of one id bears its number, from the second on.

    Where a leaderboard's sample repeats ids, as those of sentences with several pairs, rows are
    joined by id and by which of its rows it is.

    >>> tell_apart(["s1", "s2", "s1"])
    ['s1', 's2', 's1 (row 2)']
    """
    met: Counter[str] = Counter()
    told = []
    for row_id in ids:
        met[row_id] += 1
        told.append(row_id if met[row_id] == 1 else f"{row_id} (row {met[row_id]})")
    return told


def check_order(
    path: Path, answers: Answers, expected: Sequence[str], column: str, report: Report
) -> None:
    """Report the first known id whose position differs from the test file."""
    place = {row_id: row for row, row_id in enumerate(expected)}
    last, last_id = -1, ""
    for row_id, line in zip(answers.ids, answers.lines, strict=True):
        if row_id not in place:
            continue
        if place[row_id] < last:
            found = f"it comes after id {show_id(last_id)}, and before it in the test file"
            remedy = "keep the order of the test file (this is the first of such rows)"
            report(Offence(path.name, line, column, show_id(row_id), found, remedy))
            return
        last, last_id = place[row_id], row_id


def read_table(
    path: Path, columns: Sequence[str | None], layout: Layout = LAYOUT
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, the named fields) of each record of a file of rows, whatever further columns.

    Args:
        path: a CSV, JSON, JSON Lines or Parquet file.
        columns: what is read; None gives the row's number, counted from 0.
        layout: of a CSV.

    Raises:
        CorpusError: the file cannot be read; every offence is listed.
    """
    offences: list[Offence] = []
    wanted = {str(column): column for column in columns}
    count = 0
    for record in TableReader(path, wanted, offences.append, layout).read():
        count += 1
        yield record
    if offences:
        merged = gather_causes(offences, count + len(offences))
        raise CorpusError(f"{path} cannot be read", merged)


@dataclass(frozen=True)
class _Rows:
    """The positions of rows, for reports."""

    file: str
    ids: list[str]
    lines: list[int]
    report: Report

    def offend(self, row: int, column: str, found: str, remedy: str) -> None:
        line, row_id = self.lines[row], self.ids[row]
        self.report(Offence(self.file, line, column, show_id(row_id), found, remedy))


def _reword(offence: Offence) -> Offence:
    """Reword a remedy about a competition's data for a submission."""
    if "no such column" in offence.found:
        return replace(offence, remedy="add it; the leaderboard fixes a submission's columns")
    if "cannot be opened" in offence.found:
        return replace(offence, remedy="give the path of a submission's CSV")
    return offence


def _check_size(path: Path, n_labels: int, n_rows: int, report: Report) -> bool:
    if path.exists() and not path.is_file():
        found = "it is a folder or a device"
        report(Offence(path.name, None, None, None, found, "give the path of a submission's CSV"))
        return False
    most = max_bytes(n_rows, n_labels)
    size = path.stat().st_size if path.is_file() else 0
    if size <= most:
        return True
    found = f"the file has {size:,} bytes; {n_rows:,} rows never need more than {most:,}"
    report(Offence(path.name, None, None, None, found, "this is another file; it was not read"))
    return False


def _check_header(path: Path, form: Form, report: Report) -> None:
    """Report columns too many or in another order (a missing one is reported by the reader)."""
    columns, separator = form.columns, form.separator
    if not path.is_file() or not form.has_header:
        return
    with path.open("rb") as stream:
        line = stream.readline(HEADER_MAX_BYTES).decode("utf-8-sig", errors="replace")
    try:
        header = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return
    if set(columns) <= set(header) and tuple(header) != columns:
        found = f"the header is {show(separator.join(header))}"
        report(Offence(path.name, 1, None, None, found, f"it must be {separator.join(columns)}"))


def _read_labels(
    rows: _Rows, labels: list[str], column: str, profile: Profile
) -> npt.NDArray[np.int64]:
    known = {label: i for i, label in enumerate(profile.submitted_labels)}
    pred = np.fromiter((known.get(label, -1) for label in labels), np.int64, count=len(labels))
    are_numbers = profile.submission.label_as == "number"
    if are_numbers and (pred < 0).any():
        row = int((pred < 0).argmax())
        found = f"{show(labels[row])} is no label's number in {int((pred < 0).sum()):,} rows"
        last = profile.n_labels - 1
        some = f"0 ({profile.labels[0]}) to {last} ({profile.labels[last]})"
        rows.offend(row, column, found, f"write the label's place in labels, {some}")
        return pred
    numbers = [_as_place(labels[row], profile.n_labels) for row in np.flatnonzero(pred < 0)]
    if len(numbers) > MAX_UNKNOWN * len(labels) and None not in numbers:
        row = int((pred < 0).argmax())
        some = ", ".join(f"{i} = {label}" for i, label in enumerate(profile.labels[:3]))
        found = f"labels are numbers in {len(numbers):,} rows (here {show(labels[row])})"
        remedy = (
            f"write the names; as places in the profile's labels, {some}, … (or set"
            ' submission.label_as = "number", if the leaderboard wants numbers)'
        )
        rows.offend(row, column, found, remedy)
        return pred
    hints: dict[str, str] = {}
    for row in np.flatnonzero(pred < 0).tolist():
        label = labels[row]
        if label not in hints:
            is_searched = len(hints) < HINTS_MAX
            near = difflib.get_close_matches(label[:200], profile.labels, 1) if is_searched else []
            hints[label] = f"did you mean {near[0]!r}?" if near else ANY_LABEL
        rows.offend(row, column, f"{show(label)} is no label", hints[label])
    return pred


def _as_place(text: str, n_labels: int) -> int | None:
    """Return the label with a given index in the label order, None if there is none."""
    found = plain_id(text)
    return int(found) if found.isdecimal() and len(found) < 6 and int(found) < n_labels else None


def _read_probs(
    rows: _Rows, texts: list[str], form: Form, profile: Profile
) -> npt.NDArray[np.float64]:
    """Read the text of a list of probabilities in each row, (n, C)."""
    n_labels, column = profile.n_labels, form.probs_column or ""
    probs = np.full((len(texts), n_labels), np.nan)
    most_chars = (n_labels + 1) * NUMBER_MAX_CHARS
    is_list = np.zeros(len(texts), dtype=bool)
    remedy = f"write {n_labels} numbers in label order as [0.1, 0.2, …]"
    for row, text in enumerate(texts):
        numbers = parse_probs(text) if len(text) <= most_chars else None
        if numbers is None:
            rows.offend(row, column, f"{show(text)} is not the text of a list of numbers", remedy)
        elif len(numbers) != n_labels:
            rows.offend(
                row, column, f"{len(numbers)} numbers where there are {n_labels} labels", remedy
            )
        else:
            probs[row] = numbers
            is_list[row] = True
    names = [f"number {i + 1} ({label})" for i, label in enumerate(profile.labels)]
    return _check_range(rows, probs, is_list, [(column, name) for name in names])


def _read_columns(
    rows: _Rows, texts: list[list[str]], form: Form, profile: Profile
) -> npt.NDArray[np.float64]:
    """Read a number in the column of each label, (n, C)."""
    probs = np.full((len(texts), profile.n_labels), np.nan)
    is_read = np.zeros(len(texts), dtype=bool)
    for row, fields in enumerate(texts):
        numbers = [parse_probs(f"[{text}]") for text in fields]
        bad = next((at for at, found in enumerate(numbers) if not found or len(found) != 1), None)
        if bad is not None:
            found = f"{show(fields[bad])} is not a number"
            rows.offend(row, form.probs_columns[bad], found, "write the label's probability")
            continue
        probs[row] = [found[0] for found in numbers if found]
        is_read[row] = True
    return _check_range(rows, probs, is_read, [(name, "it") for name in form.probs_columns])


def _check_range(
    rows: _Rows,
    probs: npt.NDArray[np.float64],
    is_read: npt.NDArray[np.bool_],
    places: Sequence[tuple[str, str]],
) -> npt.NDArray[np.float64]:
    """Report rows with a number outside [0, 1], and set them to NaN.

    Args:
        places: column and name of each number, to name it.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~((probs >= 0) & (probs <= 1 + ROUNDING))
    for row in np.flatnonzero(wrong.any(axis=1) & is_read).tolist():
        place = int(wrong[row].argmax())
        column, name = places[place]
        found = f"{name} is {probs[row, place]:g}"
        rows.offend(row, column, found, "probabilities lie between 0 and 1")
        probs[row] = np.nan
    return probs
