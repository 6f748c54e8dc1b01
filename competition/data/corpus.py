"""CSV files → a checked corpus; a row that cannot be used is named, never dropped.

The start of the way of a row: ``records`` splits the file, this room holds every field against the
profile, and ``Rows`` go on to folds and formats. What is odd but usable (a byte order mark,
Windows line ends, decomposed Hangul) is accepted and noted.

Legend: N train rows, M test rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.console import is_hidden
from competition.data.csv_records import Oddity, RecordReader, show, show_id
from competition.data.entities import (
    WrongCellError,
    build_cell_reader,
    check_cell,
    compose,
    compose_entity,
    is_decomposed,
)
from competition.data.groups import build_groups, sample_rows
from competition.data.rows import COLUMNS, Entity, Row, Rows, build_frame, hash_rows
from competition.errors import CorpusError, Offence
from competition.profile import Competition, Profile

__all__ = ["Corpus", "Entity", "Reading", "Row", "Rows", "read_corpus", "read_rows"]

_CHUNK_ROWS = 50_000


@dataclass(frozen=True)
class Corpus:
    """All rows of a competition.

    Attributes:
        train: N rows with labels.
        test: M rows; their label column is never kept.
        notices: oddities that were accepted.
        hash: SHA-256 over every field that reaches a model or a score.
    """

    train: Rows
    test: Rows
    notices: tuple[Offence, ...]
    hash: str


@dataclass(frozen=True)
class Reading:
    """One file as far as it could be read: its clean rows, its offences, what was accepted."""

    rows: Rows
    offences: tuple[Offence, ...]
    notices: tuple[Offence, ...]


def read_corpus(competition: Competition) -> Corpus:
    """Read and check both files; with a limit, a sample of each.

    Raises:
        CorpusError: with every offence of both files.
        UsageError: the limit gives no fair sample.
    """
    train = read_rows(competition.train_path, competition.profile, is_train=True)
    test = read_rows(competition.test_path, competition.profile, is_train=False)
    offences = (*train.offences, *test.offences)
    if offences:
        things = "one thing" if len(offences) == 1 else f"{len(offences):,} things"
        raise CorpusError(
            f"{competition.data_dir}: {things} must be mended before training", offences
        )
    return build_corpus(competition, train, test)


def build_corpus(competition: Competition, train: Reading, test: Reading) -> Corpus:
    """Build the corpus from two readings without offences, limited as the competition says."""
    train_rows, test_rows = train.rows, test.rows
    rules, limit = competition.profile.folds, competition.limit
    if limit is not None:
        groups = build_groups(train_rows, rules.group_by)
        chosen = sample_rows(
            train_rows.gold, groups, limit, seed=rules.seed, fold_count=rules.count
        )
        train_rows = train_rows.take(chosen)
        test_rows = test_rows.take(_sample_test(len(test_rows), limit, rules.seed))
    digest = hash_rows(train_rows, test_rows, labels=competition.profile.labels)
    return Corpus(train_rows, test_rows, (*train.notices, *test.notices), digest)


def _sample_test(count: int, limit: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Choose a quarter as many test rows as train rows, at least one, in file order."""
    size = min(count, max(1, limit // 4))
    return np.sort(np.random.default_rng(seed).permutation(count)[:size])


def read_rows(path: Path, profile: Profile, *, is_train: bool) -> Reading:
    """Read one file and check every row; offences are returned, not raised.

    Args:
        path: the CSV.
        profile: what it should hold.
        is_train: labels must be there and known; otherwise the label column is not looked at.
    """
    columns = profile.columns
    required = {
        "id": columns.id,
        "sentence": columns.sentence,
        "subject": columns.subject,
        "object": columns.object,
    }
    if is_train:
        required["label"] = columns.label
    if columns.source is not None:
        required["source"] = columns.source
    offences: list[Offence] = []
    reader = RecordReader(path, required, offences.append)
    checker = _RowChecker(profile, path.name, tuple(required), offences.append)
    collector = _Collector()
    for line, fields in reader.read():
        row, label_id = checker.check(line, fields)
        if row is not None:
            collector.add(row, label_id)
    offences.extend(checker.find_repeated_ids())
    offences.sort(key=lambda offence: offence.line or 0)
    notices = (*reader.notices(), *checker.notices())
    return Reading(collector.build(is_train=is_train), tuple(offences), notices)


@dataclass
class _Collector:
    """Rows on their way into columns, a chunk at a time so that millions fit in memory."""

    frames: list[pd.DataFrame] = field(default_factory=list)
    label_ids: array[int] = field(default_factory=lambda: array("h"))
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def add(self, row: Row, label_id: int) -> None:
        """Take one checked row."""
        subject, object_ = row.subject, row.object
        values = (
            row.id,
            row.sentence,
            *(subject.word, subject.start, subject.end, subject.type),
            *(object_.word, object_.start, object_.end, object_.type),
            row.source,
        )
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self.label_ids.append(label_id)
        if len(self.columns["id"]) == _CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        self.frames.append(build_frame(self.columns))
        self.columns = {name: [] for name in COLUMNS}

    def build(self, *, is_train: bool) -> Rows:
        """Return all rows taken."""
        if self.columns["id"] or not self.frames:
            self._flush()
        frame = self.frames[0] if len(self.frames) == 1 else pd.concat(self.frames)
        labels = np.asarray(self.label_ids, dtype=np.int16) if is_train else None
        return Rows(frame.reset_index(drop=True), labels)


class _RowChecker:
    """Holds each record against the profile and remembers what only the whole file can tell."""

    def __init__(
        self,
        profile: Profile,
        file: str,
        fields: tuple[str, ...],
        report: Callable[[Offence], None],
    ) -> None:
        self._profile = profile
        self._file = file
        self._fields = fields
        self._report = report
        self._read_cell = build_cell_reader(profile)
        self._label_ids = profile.label_ids
        self._ids: list[str] = []
        self._lines = array("q")
        self._decomposed = Oddity()

    def check(self, line: int, fields: list[str]) -> tuple[Row | None, int]:
        """Return the row and its label's id (-1 in a test file), or None when it offends."""
        named = dict(zip(self._fields, fields, strict=True))
        id_, sentence = named["id"], named["sentence"]
        self._ids.append(id_)
        self._lines.append(line)
        is_clean = True

        def offend(role: str, found: str, remedy: str) -> None:
            nonlocal is_clean
            is_clean = False
            column = getattr(self._profile.columns, role)
            self._report(Offence(self._file, line, column, show_id(id_), found, remedy))

        if not id_.strip():
            offend("id", "an empty id", "give every row an id of its own")
        elif all(is_hidden(character) or character.isspace() for character in id_):
            offend("id", "an id that nobody can see", "give every row an id that shows")
        label_id = self._check_label(named, offend)
        if not sentence.strip():
            offend("sentence", "an empty sentence", "fill it, or take the row out")
            return None, label_id
        entities = []
        for role in ("subject", "object"):
            try:
                cell = self._read_cell(named[role])
                entities.append(check_cell(cell, sentence, self._profile))
            except WrongCellError as wrong:
                offend(role, wrong.found, wrong.remedy)
        if len(entities) < 2:
            return None, label_id
        subject, object_ = entities
        if subject.start < object_.end and object_.start < subject.end:
            found = f"subject {show(subject.word)} and object {show(object_.word)} overlap"
            offend("object", found, "mark two parts of the sentence that are apart")
        row = Row(id_, sentence, subject, object_, named.get("source"))
        if is_decomposed(sentence):
            row = self._compose(row, line, offend)
        return (row if is_clean else None), label_id

    def _check_label(self, named: dict[str, str], offend: Callable[[str, str, str], None]) -> int:
        label = named.get("label")
        if label is None:
            return -1
        label_id = self._label_ids.get(label, -1)
        if label_id < 0 and label == self._profile.unknown_label:
            offend(
                "label", f"{show(label)} says that the label is unknown", "a train row needs one"
            )
        elif label_id < 0:
            offend("label", f"unknown label {show(label)}", "use one of the profile's labels")
        return label_id

    def _compose(self, row: Row, line: int, offend: Callable[[str, str, str], None]) -> Row:
        """Return the row with its Hangul composed and its spans moved along."""
        spans = []
        for role, entity in (("subject", row.subject), ("object", row.object)):
            try:
                spans.append(compose_entity(entity, row.sentence))
            except WrongCellError as wrong:
                offend(role, wrong.found, wrong.remedy)
        if len(spans) < 2:
            return row
        self._decomposed.meet(line)
        return Row(row.id, compose(row.sentence), spans[0], spans[1], row.source)

    def find_repeated_ids(self) -> list[Offence]:
        """Return an offence for every row whose id stood before."""
        ids = pd.Series(self._ids, dtype="str")
        again = np.flatnonzero(ids.duplicated().to_numpy())
        if not len(again):
            return []
        first: dict[str, int] = {}
        repeated = {self._ids[i] for i in again}
        for id_, line in zip(self._ids, self._lines, strict=True):
            if id_ in repeated:
                first.setdefault(id_, line)
        column = self._profile.columns.id
        return [
            Offence(
                self._file,
                self._lines[i],
                column,
                show_id(self._ids[i]),
                f"the id also stands on line {first[self._ids[i]]}",
                "give every row an id of its own",
            )
            for i in again
            if self._ids[i].strip()
        ]

    def notices(self) -> list[Offence]:
        """Return what was accepted in rows."""
        met = self._decomposed
        if not met.count:
            return []
        column = self._profile.columns.sentence
        found = f"decomposed Hangul (NFD) in {met.count:,} rows, this one first"
        done = "read as composed (NFC), offsets moved along"
        return [Offence(self._file, met.line, column, None, found, done)]
