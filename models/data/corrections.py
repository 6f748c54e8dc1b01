"""Apply a user's corrections of entity types and labels, from a CSV ``split,id,role,type``.

Types are inputs, so train and test rows are corrected alike, before cleaning and formats. Labels
(role ``label``) are corrected in train rows only, and used only for training: held-out rows are
scored with their published labels. The split is a column because ids of train and test rows overlap
in most competitions. Words and spans are never changed.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from competition.data.causes import gather_causes
from competition.data.csv_records import match_ids, show, show_id
from competition.data.rows import Rows
from competition.data.tables import TableReader
from competition.errors import CorpusError, Offence, UsageError
from models.variant import fingerprint

RESULT_VERSION = 1
VERSION_NAME = "models.corrections"

COLUMNS = ("split", "id", "role", "type")
SPLITS = ("train", "test")
TYPED_ROLES = ("subject", "object")
LABEL = "label"
ROLES = (*TYPED_ROLES, LABEL)


@dataclass(frozen=True, slots=True, order=True)
class Correction:
    """The corrected ``type`` of a row's subject or object, or, with role ``label``, its label."""

    id: str
    role: str
    type: str


@dataclass(frozen=True)
class Corrections:
    """The corrections in a file.

    Attributes:
        train: of train rows, in file order.
        test: of test rows, in file order.
        skipped: number of corrections of rows that are not in the sample (``--limit``).
    """

    train: tuple[Correction, ...]
    test: tuple[Correction, ...]
    skipped: int

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the corrections, independent of the order of lines in the file."""
        parts = {"train": self.train, "test": self.test}
        return fingerprint(
            {split: [[c.id, c.role, c.type] for c in sorted(part)] for split, part in parts.items()}
        )


def read_corrections(
    path: Path,
    train: Rows,
    test: Rows,
    *,
    entity_types: Sequence[str],
    labels: Sequence[str] = (),
    may_have_more: bool = False,
) -> Corrections:
    """Read a file of corrections and check each line against the rows.

    Args:
        path: a CSV with the columns ``split`` (train or test), ``id``, ``role`` (subject, object
            or label) and ``type``; further columns are ignored.
        may_have_more: skip lines with unknown ids, because the rows are a sample.

    Raises:
        UsageError: the file does not exist, or it corrects entity types and the competition has
            none.
        CorpusError: lists every error: an unknown split, id, role, type or label, a label of a test
            row, or an entity or label corrected twice.
    """
    if not path.is_file():
        raise UsageError(
            f"clean.corrections: {path} does not exist; name a CSV with the columns "
            f"{','.join(COLUMNS)}"
        )
    offences: list[Offence] = []
    records = _match_ids(_read_lines(path, offences), train, test)
    if not entity_types and any(fields[2] in TYPED_ROLES for _, fields in records):
        raise UsageError("clean.corrections needs entity types, but the competition has none")
    choices: dict[str, dict[str, Sequence[str]]] = {
        role: {"type": tuple(entity_types)} for role in TYPED_ROLES
    }
    choices[LABEL] = {"split": SPLITS[:1], "type": tuple(labels)}
    known_ids = {"train": set(train.ids.tolist()), "test": set(test.ids.tolist())}
    found: dict[str, list[Correction]] = {split: [] for split in SPLITS}
    first_lines: dict[tuple[str, ...], int] = {}
    skipped = 0
    for line, fields in records:
        split, id_, role, type_ = fields
        known = {"split": SPLITS, "role": ROLES, **choices.get(role, {})}
        wrong = _check_choices(dict(zip(COLUMNS, fields, strict=True)), known)
        is_elsewhere = split in known_ids and id_ not in known_ids[split]
        if is_elsewhere and not may_have_more:
            wrong["id"] = (f"no {split} row has this id", "remove the line, or check the split")
        first = first_lines.setdefault((split, id_, role), line)
        if first != line and not wrong:
            wrong["role"] = (f"line {first} corrects this {role} too", "keep one of the lines")
        for column, (what, remedy) in wrong.items():
            offences.append(Offence(path.name, line, column, show_id(id_), what, remedy))
        if is_elsewhere:
            skipped += 1
        elif not wrong:
            found[split].append(Correction(id_, role, type_))
    if offences:
        offences.sort(key=lambda offence: offence.line or 0)
        merged = gather_causes(offences, max(1, len(records)))
        raise CorpusError(f"{path}: invalid corrections", merged)
    return Corrections(tuple(found["train"]), tuple(found["test"]), skipped)


def _read_lines(path: Path, offences: list[Offence]) -> list[tuple[int, list[str]]]:
    """Read every well-formed record; errors of the whole file get their own remedy."""
    remedy = f"start with the line {','.join(COLUMNS)}, then one line per correction"

    def report(offence: Offence) -> None:
        is_whole = offence.line is None or offence.column is not None
        offences.append(replace(offence, remedy=remedy) if is_whole else offence)

    reader = TableReader(path, {name: name for name in COLUMNS}, report)
    return [(line, [str(field) for field in fields]) for line, fields in reader.read()]


def _match_ids(
    records: list[tuple[int, list[str]]], train: Rows, test: Rows
) -> list[tuple[int, list[str]]]:
    """Write ids as the rows do, where all of a split are the same numbers, such as ``12.0``."""
    for split, rows in zip(SPLITS, (train, test), strict=True):
        own = [fields for _, fields in records if fields[0] == split]
        for fields, row_id in zip(own, match_ids([f[1] for f in own], list(rows.ids)), strict=True):
            fields[1] = row_id
    return records


def _check_choices(
    fields: Mapping[str, str], choices: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, str]]:
    """Return column → (what was found, remedy) for each field with an unknown value."""
    return {
        column: (f"unknown {column} {show(fields[column])}", f"use one of {', '.join(known)}")
        for column, known in choices.items()
        if fields[column] not in known
    }


def apply_corrections(
    rows: Rows, corrections: Sequence[Correction], labels: Sequence[str] = ()
) -> Rows:
    """Return the rows with corrected entity types and labels; nothing else changes."""
    frame = rows.frame.copy()
    index = pd.Index(frame["id"])
    label_ids = rows.label_ids
    for role in ROLES:
        wanted = [correction for correction in corrections if correction.role == role]
        places = index.get_indexer(pd.Index([c.id for c in wanted], dtype="str"))
        if (places < 0).any():
            raise ValueError(f"no row {wanted[int(np.argmin(places))].id!r} among these rows")
        if role == LABEL:
            if wanted:
                label_ids = rows.gold.copy()
                label_ids[places] = [labels.index(correction.type) for correction in wanted]
            continue
        types = frame[f"{role}_type"].to_numpy(dtype=object, copy=True)
        types[places] = [correction.type for correction in wanted]
        frame[f"{role}_type"] = pd.Series(types, dtype="str")
    return Rows(frame, label_ids)
