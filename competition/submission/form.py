"""The form of a submission: its columns, its layout, and which row is answered in which line.

The profile's ``[submission]`` says it. Where the leaderboard's own sample file is given
(``files.sample_submission``), it is the authority on columns, order and ids; its columns that hold
neither id nor answer are copied. ``write`` writes by the form, ``check`` and ``score`` read by it.

Legend: M test rows, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from competition.data.benchmark import read_own_columns
from competition.data.csv_records import RecordReader, match_ids, show_id
from competition.data.tables import TableReader, test_layout
from competition.errors import CorpusError, Offence, SubmissionError
from competition.profile import Competition, Profile


@dataclass(frozen=True)
class Form:
    """The columns of a submission.

    Attributes:
        columns: all of them, in order.
        id_column: the row's id.
        label_column: the label; None where a file holds only probabilities.
        probs_column: the text of a list of C probabilities; None without one.
        probs_columns: the probability of each label, in label order; empty without them.
        separator: of the fields.
        has_header: whether the first line names the columns.
    """

    columns: tuple[str, ...]
    id_column: str
    label_column: str | None
    probs_column: str | None
    probs_columns: tuple[str, ...] = ()
    separator: str = ","
    has_header: bool = True

    @property
    def own(self) -> tuple[str, ...]:
        """Return the columns of id and answers."""
        named = (self.id_column, self.label_column, self.probs_column, *self.probs_columns)
        return tuple(name for name in named if name is not None)

    @property
    def copied(self) -> tuple[str, ...]:
        """Return the columns that are taken from the sample file."""
        own = set(self.own)
        return tuple(name for name in self.columns if name not in own)

    @property
    def header(self) -> tuple[str, ...] | None:
        """Return the names of the columns for a reader, None where the file has them."""
        return None if self.has_header else self.columns


@dataclass(frozen=True)
class AnswerRows:
    """The rows of a submission, in order.

    Attributes:
        test_ids: (M,) ids in the test file.
        written: (M,) ids in the submission, usually the same.
        copied: (M,) further fields of each row, by column.
    """

    test_ids: tuple[str, ...]
    written: tuple[str, ...]
    copied: Mapping[str, Sequence[str]] = field(default_factory=dict)


AnswerLines = tuple[Form, AnswerRows]
"""The form of a competition's submissions, and their rows."""


def read_lines(competition: Competition) -> AnswerLines | None:
    """Return form and rows of submissions, None where the test file is not there.

    Raises:
        CorpusError, SubmissionError: as ``read_answer_rows``.
    """
    if not competition.test_path.is_file():
        return None
    return read_form(competition), read_answer_rows(competition)


def build_form(profile: Profile) -> Form:
    """Build the form that a profile describes, columns in their usual order."""
    rules = profile.submission
    form = Form(
        (),
        rules.id_column,
        rules.label_column,
        rules.probs_column,
        rules.name_probs_columns(profile.labels),
        rules.separator or ",",
        rules.header,
    )
    return Form(form.own, *_parts(form))


def _parts(form: Form) -> tuple[str, str | None, str | None, tuple[str, ...], str, bool]:
    return (
        form.id_column,
        form.label_column,
        form.probs_column,
        form.probs_columns,
        form.separator,
        form.has_header,
    )


def read_form(competition: Competition) -> Form:
    """Return the form of a competition's submissions, with the sample file's columns and separator.

    Raises:
        SubmissionError: the sample file cannot be read, or lacks a column that the profile names.
    """
    sample = competition.sample_path
    return build_form(competition.profile) if sample is None else _read_sample(competition)[0]


def read_test_ids(competition: Competition) -> list[str]:
    """Return the ids of the test file, in order; with ``--limit``, of the sample of rows.

    Raises:
        CorpusError: the test file cannot be read (see ``read_corpus`` for the full check).
    """
    if competition.limit is not None:
        from competition.data.corpus import read_corpus

        return [str(row_id) for row_id in read_corpus(competition).test.ids]
    return _read_all_test_ids(competition)


def _read_all_test_ids(competition: Competition) -> list[str]:
    column = read_own_columns(competition.test_path, competition.profile).id
    layout = test_layout(competition.profile)
    offences: list[Offence] = []
    reader = TableReader(competition.test_path, {"id": column}, offences.append, layout)
    ids = [row_id for _, (row_id,) in reader.read()]
    if offences:
        raise CorpusError(f"{competition.test_path} cannot be read", offences)
    return ids


def read_answer_rows(competition: Competition) -> AnswerRows:
    """Return the rows that a submission holds, in its order: the sample file's, else the test's.

    Raises:
        CorpusError: the test file cannot be read.
        SubmissionError: the sample file cannot be read, or its rows are not the test rows.
    """
    test_ids = read_test_ids(competition)
    if competition.sample_path is None:
        return AnswerRows(tuple(test_ids), tuple(test_ids))
    form, written, copied = _read_sample(competition)
    matched = _match_rows(competition, written)
    known = set(test_ids)
    kept = [row for row, row_id in enumerate(matched) if row_id in known]
    return AnswerRows(
        tuple(matched[row] for row in kept),
        tuple(written[row] for row in kept),
        {name: [copied[name][row] for row in kept] for name in form.copied},
    )


def _match_rows(competition: Competition, written: Sequence[str]) -> list[str]:
    """Return the test id of each row of the sample file."""
    every = _read_all_test_ids(competition)
    by_place = competition.profile.columns.id is None and len(written) == len(every)
    matched = list(every) if by_place else match_ids(written, every)
    answered = set(matched)
    missing = next((row_id for row_id in every if row_id not in answered), None)
    if missing is not None or len(matched) != len(every) or answered != set(every):
        found = f"{len(written):,} rows where the test file has {len(every):,}"
        if missing is not None:
            found += f"; it lacks id {show_id(missing)}"
        raise _refuse(competition, found, "take the sample file and the test file of one download")
    return matched


def _read_sample(competition: Competition) -> tuple[Form, list[str], dict[str, list[str]]]:
    """Read the sample file: the form, its ids, and the fields that are copied."""
    path, plain = competition.sample_path, build_form(competition.profile)
    assert path is not None
    offences: list[Offence] = []
    separator = competition.profile.submission.separator
    reader = RecordReader(
        path, {plain.id_column: plain.id_column}, offences.append, separator, plain.header
    )
    names = reader.read_header() if plain.has_header else list(plain.columns)
    if offences or names is None:
        raise SubmissionError(f"{path} cannot be read", offences)
    names = reader.names or names
    missing = [name for name in plain.own if name not in names]
    if missing:
        found = f"it has the columns {', '.join(names)} and no {missing[0]!r}"
        raise _refuse(competition, found, "name its columns in [submission] of the profile")
    wanted = {name: name for name in names}
    reader = RecordReader(path, wanted, offences.append, separator, plain.header)
    fields: dict[str, list[str]] = {name: [] for name in names}
    for _, record in reader.read():
        for name, value in zip(names, record, strict=True):
            fields[name].append(value)
    if offences:
        raise SubmissionError(f"{path} cannot be read", offences)
    parts = list(_parts(plain))
    parts[4] = reader.used_separator
    form = Form(tuple(names), *parts)  # type: ignore[arg-type]
    return form, fields[plain.id_column], {name: fields[name] for name in form.copied}


def _refuse(competition: Competition, found: str, remedy: str) -> SubmissionError:
    path = competition.sample_path or Path()
    offence = Offence(path.name, None, None, None, found, remedy)
    return SubmissionError(f"{path} does not show what a submission looks like", [offence])
