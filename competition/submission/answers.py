"""Read a submission file: labels and probabilities by row id, with every offence.

Used by ``check``, ``score`` and ``submit``, which read a file as a leaderboard would, whoever
wrote it. Text is matched, never evaluated.

Legend: n rows of the file, C labels.
"""

from __future__ import annotations

import csv
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
from competition.submission.fields import (
    MAX_UNKNOWN,
    NUMBER_MAX_CHARS,
    FieldRows,
    read_labels,
    read_probs_columns,
    read_probs_lists,
)
from competition.submission.form import Form, build_form

LAYOUT = Layout()
HEADER_MAX_BYTES = 65_536
ROW_MAX_BYTES = 1_024
SPARE_ROWS, OFFENCES_PER_ROW = 100, 10


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
    rows = FieldRows(path.name, ids, lines, report)
    probs = np.full((len(ids), profile.n_labels), np.nan)
    if has_probs and form.probs_columns:
        probs = read_probs_columns(rows, texts, form, profile)
    elif has_probs:
        probs = read_probs_lists(rows, [text for (text,) in texts], form, profile)
    if form.label_column is not None:
        pred = read_labels(rows, labels, form.label_column, profile)
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


@dataclass(frozen=True)
class ExpectedIds:
    """The ids that a submission must hold, in order.

    ``column`` holds them; ``source`` names the file that sets them, for messages.
    """

    ids: Sequence[str]
    column: str
    source: str = "the test file"


def check_ids(path: Path, answers: Answers, expected: ExpectedIds, report: Report) -> None:
    """Report every id that is unknown, repeated or missing."""
    column, source = expected.column, expected.source
    known, first_line = set(expected.ids), dict[str, int]()
    unknown = [row for row, row_id in enumerate(answers.ids) if row_id not in known]
    if len(unknown) > MAX_UNKNOWN * len(answers.ids):
        row = unknown[0]
        line, row_id = answers.lines[row], answers.ids[row]
        report(_explain_ids(path, (line, row_id, len(unknown), len(answers.ids)), expected))
        return
    for row_id, line in zip(answers.ids, answers.lines, strict=True):
        shown = show_id(row_id)
        if row_id in first_line:
            found = f"the id also occurs on line {first_line[row_id]}"
            report(Offence(path.name, line, column, shown, found, "answer each row once"))
        elif row_id not in known:
            found = f"no such row in {source}"
            report(Offence(path.name, line, column, shown, found, "take the row out"))
        first_line.setdefault(row_id, line)
    missing = [row_id for row_id in expected.ids if row_id not in first_line]
    for row_id in missing:
        found = f"no answer for this row of {source}"
        report(Offence(path.name, None, column, show_id(row_id), found, "add the row"))
    if len(answers.ids) != len(expected.ids):
        found = f"{len(answers.ids):,} rows where {source} has {len(expected.ids):,}"
        report(Offence(path.name, None, None, None, found, f"answer every row of {source} once"))


def _explain_ids(path: Path, unknown: tuple[int, str, int, int], expected: ExpectedIds) -> Offence:
    """Report once that most ids are not the expected ones, and how they differ.

    Args:
        unknown: line and id of the first, how many there are, and of how many rows.
    """
    line, row_id, count, n_rows = unknown
    source, plain = expected.source, {plain_id(each): each for each in expected.ids}
    meant = plain.get(plain_id(row_id)) if len(plain) == len(expected.ids) else None
    if meant is not None:
        found = f"ids are written as {show_id(row_id)} in {count:,} of {n_rows:,} rows"
        remedy = f"write {show_id(meant)}, as {source} does"
    else:
        have = ", ".join(map(show_id, expected.ids[:2]))
        found = f"{count:,} of {n_rows:,} rows have ids that {source} does not have"
        remedy = f"write the ids of {source} ({have}, …) beside the answers"
    return Offence(path.name, line, expected.column, show_id(row_id), found, remedy)


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


def check_order(path: Path, answers: Answers, expected: ExpectedIds, report: Report) -> None:
    """Report the first known id whose position differs from the expected one."""
    source, place = expected.source, {row_id: row for row, row_id in enumerate(expected.ids)}
    last, last_id = -1, ""
    for row_id, line in zip(answers.ids, answers.lines, strict=True):
        if row_id not in place:
            continue
        if place[row_id] < last:
            found = f"it comes after id {show_id(last_id)}, and before it in {source}"
            remedy = f"keep the order of {source} (this is the first of such rows)"
            report(Offence(path.name, line, expected.column, show_id(row_id), found, remedy))
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
