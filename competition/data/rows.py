"""Rows: sentences with two entities, as single objects and as columns.

``corpus`` builds them from files, and every later step uses them. Offsets are half-open character
spans, whatever the convention of the file.

Legend: N rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from competition.arrays import Int16s, Ints, Objects

if TYPE_CHECKING:
    import pandas as pd  # imported late, so that check starts without it

TEXT_COLUMNS = (
    "id",
    "sentence",
    "subject_word",
    "subject_type",
    "object_word",
    "object_type",
    "source",
)
OFFSET_COLUMNS = ("subject_start", "subject_end", "object_start", "object_end")
COLUMNS = (
    "id",
    "sentence",
    *(
        f"{role}_{part}"
        for role in ("subject", "object")
        for part in ("word", "start", "end", "type")
    ),
    "source",
)
ROW_KEY = ("sentence", *OFFSET_COLUMNS)
"""The columns that identify duplicate rows: the sentence and both spans."""
_HASH_SLICE_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity: its word, half-open span in characters, and type if there are types."""

    word: str
    start: int
    end: int
    type: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """A sentence with two entities; the relation goes from subject to object."""

    id: str
    sentence: str
    subject: Entity
    object: Entity
    source: str | None


def build_frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Build a data frame of ``COLUMNS`` from lists; None is a missing type or source."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: pd.Series(columns[name], dtype="int32" if name in OFFSET_COLUMNS else "str")
            for name in COLUMNS
        }
    )


@dataclass(frozen=True)
class Rows:
    """Rows in the order of their file.

    Attributes:
        frame: N rows of ``COLUMNS``; offsets are int32, the others text.
        label_ids: (N,) int16 indices of labels in the profile's order; None for test rows.
    """

    frame: pd.DataFrame
    label_ids: Int16s | None

    def __len__(self) -> int:
        """Return N."""
        return len(self.frame)

    @property
    def ids(self) -> Objects:
        """Return the (N,) ids, as str objects."""
        return self.text("id")

    @property
    def gold(self) -> Int16s:
        """Return the (N,) label ids of train rows.

        Raises:
            TypeError: these are test rows, which have no labels.
        """
        if self.label_ids is None:
            raise TypeError("test rows have no labels")
        return self.label_ids

    def text(self, column: str) -> Objects:
        """Return a text column as (N,) str objects; None for a missing type or source."""
        return _to_objects(self.frame[column])

    def row(self, i: int) -> Row:
        """Return row ``i``; for all rows, iterate instead."""
        return next(iter(self.take(np.asarray([i]))))

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows in order."""
        texts = [self.text(name).tolist() for name in TEXT_COLUMNS]
        offsets = [self.frame[name].tolist() for name in OFFSET_COLUMNS]
        for values in zip(*texts, *offsets, strict=True):
            id_, sentence, s_word, s_type, o_word, o_type, source, s0, s1, o0, o1 = values
            subject = Entity(s_word, s0, s1, s_type)
            yield Row(id_, sentence, subject, Entity(o_word, o0, o1, o_type), source)

    def take(self, indices: Ints) -> Rows:
        """Return the rows at ``indices``, in that order."""
        labels = None if self.label_ids is None else self.label_ids[indices]
        return Rows(self.frame.iloc[indices].reset_index(drop=True), labels)


def hash_rows(*parts: Rows, labels: tuple[str, ...]) -> str:
    """Return the SHA-256 of everything that a model or a score depends on, as 64 hex digits.

    Labels are hashed by name, if there are any. Values are joined by NUL, which no checked text
    contains.
    """
    digest = hashlib.sha256()
    names = np.asarray(labels, dtype=object)
    for rows in parts:
        digest.update(f"{len(rows)} rows\n".encode())
        for column in TEXT_COLUMNS:
            digest.update(f"{column}\n".encode())
            for values in _slices(rows.frame[column]):
                digest.update(_join(_to_objects(values)))
        for column in OFFSET_COLUMNS:
            digest.update(f"{column}\n".encode())
            digest.update(rows.frame[column].to_numpy(dtype="<i4").tobytes())
        if rows.label_ids is not None:
            digest.update(b"label\n")
            digest.update(_join(names[rows.label_ids]))
    return digest.hexdigest()


def _to_objects(series: pd.Series[Any]) -> Objects:
    values = series.to_numpy(dtype=object)
    if series.hasnans:
        values = values.copy()
        values[series.isna().to_numpy()] = None
    return values


def _slices(series: pd.Series[Any]) -> Iterator[pd.Series[Any]]:
    for start in range(0, len(series), _HASH_SLICE_ROWS):
        yield series.iloc[start : start + _HASH_SLICE_ROWS]


def _join(values: Objects) -> bytes:
    """Join texts by NUL; a missing one is a byte that does not occur in UTF-8."""
    return b"".join(
        b"\xff\0" if value is None else value.encode() + b"\0" for value in values.tolist()
    )


def join_rows(*parts: Rows) -> Rows:
    """Concatenate rows; the result has labels if every part has.

    Raises:
        ValueError: only some parts have labels.
    """
    labels = [part.label_ids for part in parts if part.label_ids is not None]
    if labels and len(labels) < len(parts):
        raise ValueError("labelled and unlabelled rows do not join")
    import pandas as pd

    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    return Rows(frame, np.concatenate(labels) if labels else None)


def collect_rows(rows: Iterable[Row]) -> Rows:
    """Build ``Rows`` without labels from single rows."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows:
        columns["id"].append(row.id)
        columns["sentence"].append(row.sentence)
        columns["source"].append(row.source)
        for role, entity in (("subject", row.subject), ("object", row.object)):
            for part in ("word", "start", "end", "type"):
                columns[f"{role}_{part}"].append(getattr(entity, part))
    return Rows(build_frame(columns), None)
