"""Read the train and test files to a checked corpus; invalid rows are reported, never dropped.

``tables`` splits a file into records, ``row_forms`` finds the entities, and ``row_checks`` checks
every field against the profile. Irregularities that do no harm (a byte order mark, another
encoding, decomposed Hangul) are accepted and noted.

Legend: N train rows, M test rows.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.console import write_count
from competition.data.benchmark import read_own_columns
from competition.data.causes import gather_causes
from competition.data.csv_records import show, show_id
from competition.data.groups import GROUP_COLUMNS, build_groups, name_group_column, sample_rows
from competition.data.row_checks import RowChecker
from competition.data.row_forms import build_form
from competition.data.rows import COLUMNS, Row, Rows, build_frame, hash_rows
from competition.data.tables import TableReader, test_layout, train_layout
from competition.errors import CorpusError, Offence
from competition.profile import Competition, Profile

_CHUNK_ROWS = 50_000
_OFFSET_COLUMN = re.compile(r"start|begin|idx|offset|_pos|span", re.IGNORECASE)


Quoting = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Corpus:
    """All rows of a competition.

    Attributes:
        train: N rows with labels.
        test: M rows; their label column is never read.
        notices: irregularities that were accepted.
        hash: SHA-256 of every field that a model or a score depends on.
    """

    train: Rows
    test: Rows
    notices: tuple[Offence, ...]
    hash: str


@dataclass(frozen=True)
class Reading:
    """The result of reading files: valid rows, offences, and accepted irregularities.

    Attributes:
        n_records: rows in the files, valid or not.
        aside: ids of the rows that the profile sets aside.
        quoting: the names of the files in which fields seem to be quoted, and of those in which
            quotes seem to be part of the text.
    """

    rows: Rows
    offences: tuple[Offence, ...]
    notices: tuple[Offence, ...]
    n_records: int = 0
    aside: frozenset[str] = frozenset()
    quoting: Quoting = ((), ())


def read_corpus(competition: Competition) -> Corpus:
    """Read and check both files; with a limit, sample rows of each.

    Raises:
        CorpusError: carries every offence of both files.
        UsageError: the limit is too small for a sample.
    """
    train = read_train(competition)
    test = read_rows(competition.test_path, competition.profile, is_train=False)
    offences = (*train.offences, *test.offences)
    if offences:
        count = write_count(len(offences), "offence")
        raise CorpusError(
            f"{competition.data_dir}: {count}, to be corrected before training", offences
        )
    return build_corpus(competition, train, test)


def read_train(competition: Competition) -> Reading:
    """Read the train files, without the rows that the profile sets aside."""
    profile = competition.profile
    aside = profile.files.set_aside
    readings: list[Reading] = []
    for path in competition.train_paths:
        before = sum(each.n_records for each in readings)
        readings.append(
            read_rows(path, profile, is_train=True, set_aside=aside, first_number=before)
        )
    offences = [offence for each in readings for offence in each.offences]
    offences += _find_unknown_aside(competition, readings)
    offences += _find_repeated_across(competition, readings)
    frames = [each.rows.frame for each in readings]
    rows = readings[0].rows
    if len(readings) > 1:
        gold = np.concatenate([each.rows.gold for each in readings])
        rows = Rows(pd.concat(frames, ignore_index=True), gold)
    notices = tuple(notice for each in readings for notice in each.notices)
    n_records = sum(each.n_records for each in readings)
    quoting = _join_quoting(readings)
    return Reading(rows, tuple(offences), notices, n_records, quoting=quoting)


def _join_quoting(readings: Sequence[Reading]) -> Quoting:
    quoted, plain = zip(*(each.quoting for each in readings), strict=True)
    return sum(quoted, ()), sum(plain, ())


def compare_quoting(train: Reading, test: Reading) -> tuple[Offence, ...]:
    """Return a notice if quotes seem to enclose fields in one file and not in another."""
    quoted, plain = _join_quoting((train, test))
    if not (quoted and plain):
        return ()
    found = f"quotes seem to enclose fields here, but to be part of the text in {plain[0]}"
    done = "each was read so; set files.quotes in the profile, so that texts begin alike"
    return (Offence(quoted[0], None, None, None, found, done),)


def _find_unknown_aside(competition: Competition, readings: Sequence[Reading]) -> list[Offence]:
    """Return an offence for every id in ``files.set_aside`` that no train row has."""
    files = competition.profile.files
    unknown = sorted({*files.set_aside}.difference(*(each.aside for each in readings)))
    found = "files.set_aside lists this id, but no row has it"
    remedy = "remove it from files.set_aside, or correct it"
    column, name = competition.profile.columns.id, competition.train_names
    return [Offence(name, None, column, show_id(id_), found, remedy) for id_ in unknown]


def _find_repeated_across(competition: Competition, readings: Sequence[Reading]) -> list[Offence]:
    """Return an offence for every row whose id occurred in an earlier train file."""
    column, taken, found = competition.profile.columns.id, dict[str, str](), []
    for path, reading in zip(competition.train_paths, readings, strict=True):
        ids = [str(row_id) for row_id in reading.rows.ids]
        again = [row_id for row_id in ids if row_id in taken]
        for row_id in again:
            where = f"the id also occurs in {taken[row_id]}"
            remedy = "give every row an id of its own, or remove columns.id: rows are then numbered"
            found.append(Offence(path.name, None, column, show_id(row_id), where, remedy))
        taken |= {row_id: path.name for row_id in ids if row_id not in taken}
    return gather_causes(found, sum(each.n_records for each in readings))


def build_corpus(competition: Competition, train: Reading, test: Reading) -> Corpus:
    """Build the corpus from two readings without offences, and apply the limit."""
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
    notices = (*train.notices, *test.notices, *compare_quoting(train, test))
    return Corpus(train_rows, test_rows, notices, digest)


def _sample_test(count: int, limit: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Sample limit / 4 test rows, at least one, in the order of the file."""
    size = min(count, max(1, limit // 4))
    return np.sort(np.random.default_rng(seed).permutation(count)[:size])


def read_rows(
    path: Path,
    profile: Profile,
    *,
    is_train: bool,
    set_aside: Collection[str] = (),
    first_number: int = 0,
) -> Reading:
    """Read one file and check every row; return offences instead of raising them.

    Args:
        path: the file, in any form that ``tables`` reads.
        profile: the profile to check it against.
        is_train: labels are required and checked; otherwise the label column is not read.
        set_aside: ids of rows to skip.
        first_number: the id of the first row, where no column has ids.
    """
    form, columns = build_form(profile), profile.columns
    own = read_own_columns(path, profile)
    wanted: dict[str, str | None] = {"id": own.id, "sentence": columns.sentence, **form.wanted}
    if is_train:
        wanted["label"] = columns.label
    if own.source is not None:
        wanted["source"] = own.source
    more = list_group_columns(profile) if is_train else ()
    wanted |= {name: name for name in more}
    offences: list[Offence] = []
    layout = train_layout(profile) if is_train else test_layout(profile)
    reader = TableReader(path, wanted, offences.append, layout)
    checker = RowChecker(profile, form, path.name, tuple(wanted), offences.append, set_aside)
    checker.number_labels(own.numbers)
    collector = _Collector()
    for line, fields in reader.read():
        if own.id is None and first_number:
            fields[0] = str(int(fields[0]) + first_number)
        row, label_id = checker.check(line, fields)
        if row is not None:
            collector.add(row, label_id)
            if more:
                collector.more.append(fields[-len(more) :])
    offences = _explain_columns(offences, reader.names, profile)
    offences += checker.find_repeated_ids()
    offences.sort(key=lambda offence: offence.line or 0)
    notices = (*reader.notices(), *own.notices, *checker.notices())
    lost = sum(each.line is not None and each.column is None for each in offences)
    reported = gather_causes(offences, checker.count + lost)
    rows = collector.build(is_train=is_train, more=more)
    aside = checker.aside
    n_records = checker.count + aside.total() + lost
    name = (path.name,)
    quoting = {None: ((), ()), True: (name, ()), False: ((), name)}[reader.quoting]
    return Reading(rows, tuple(reported), notices, n_records, frozenset(aside), quoting)


def list_group_columns(profile: Profile) -> tuple[str, ...]:
    """Return the columns of the train file that are only read for grouping folds."""
    known = (*GROUP_COLUMNS, "entity_pair")
    return tuple(name for name in profile.folds.group_by if name not in known)


def _explain_columns(
    offences: list[Offence], names: Sequence[str], profile: Profile
) -> list[Offence]:
    """Replace offences about missing cells by one, if entities are in separate columns."""
    cells = {profile.columns.subject, profile.columns.object}
    missing = [each for each in offences if each.column in cells and "no such" in each.found]
    flat = [name for name in names if _OFFSET_COLUMN.search(name)]
    if profile.entity.given_as != "cell" or len(missing) < len(cells) or not flat:
        return offences
    found = f"no column {' and '.join(map(repr, sorted(map(str, cells))))}; the header has " + show(
        ", ".join(names)
    )
    remedy = (
        'entities seem to be in separate columns: set entity.given_as = "columns" and name '
        "them in [entity.subject] and [entity.object] (python run.py init DIR writes one)"
    )
    offence = Offence(missing[0].file, missing[0].line, None, None, found, remedy)
    return [offence, *(each for each in offences if each not in missing)]


@dataclass
class _Collector:
    """Collects rows to columns in chunks, so that millions fit in memory."""

    frames: list[pd.DataFrame] = field(default_factory=list)
    label_ids: array[int] = field(default_factory=lambda: array("h"))
    rows: list[tuple[Any, ...]] = field(default_factory=list)  # values in the order of COLUMNS
    more: list[Sequence[Any]] = field(default_factory=list)  # of columns for grouping folds

    def add(self, row: Row, label_id: int) -> None:
        """Add a checked row."""
        subject, object_ = row.subject, row.object
        self.rows.append(
            (
                row.id,
                row.sentence,
                *(subject.word, subject.start, subject.end, subject.type),
                *(object_.word, object_.start, object_.end, object_.type),
                row.source,
            )
        )
        self.label_ids.append(label_id)
        if len(self.rows) == _CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = map(list, zip(*self.rows, strict=True)) if self.rows else ([] for _ in COLUMNS)
        self.frames.append(build_frame(dict(zip(COLUMNS, columns, strict=True))))
        self.rows = []

    def build(self, *, is_train: bool, more: Sequence[str]) -> Rows:
        """Return all rows, with extra columns for grouping folds at the end."""
        if self.rows or not self.frames:
            self._flush()
        frame = self.frames[0] if len(self.frames) == 1 else pd.concat(self.frames)
        labels = np.asarray(self.label_ids, dtype=np.int16) if is_train else None
        for at, name in enumerate(more):
            values = [str(fields[at]) or None for fields in self.more]
            frame = frame.assign(**{name_group_column(name): pd.array(values, dtype="str")})
        return Rows(frame.reset_index(drop=True), labels)
