"""Read the labels and probabilities of a submission's rows, with every offence.

Part of ``answers``, which reads the file. Text is matched, never evaluated.

Legend: n rows of the file, C labels.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.data.csv_records import Report, plain_id, show, show_id
from competition.errors import Offence
from competition.profile import Profile
from competition.submission.form import Form

NUMBER_MAX_CHARS = 64
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


@dataclass(frozen=True)
class FieldRows:
    """The positions of rows, for reports."""

    file: str
    ids: list[str]
    lines: list[int]
    report: Report

    def offend(self, row: int, column: str, found: str, remedy: str) -> None:
        """Report what is wrong in a row, counted from 0."""
        line, row_id = self.lines[row], self.ids[row]
        self.report(Offence(self.file, line, column, show_id(row_id), found, remedy))


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


def read_labels(
    rows: FieldRows, labels: list[str], column: str, profile: Profile
) -> npt.NDArray[np.int64]:
    """Read each row's label, (n,) label ids; -1 where it is none."""
    known = {label: i for i, label in enumerate(profile.submission.write_labels(profile.labels))}
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


def read_probs_lists(
    rows: FieldRows, texts: list[str], form: Form, profile: Profile
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


def read_probs_columns(
    rows: FieldRows, texts: list[list[str]], form: Form, profile: Profile
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
    rows: FieldRows,
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
