"""Score a submission against a solution file: the metrics, and scores per label.

Used by ``run.py score`` and the local leaderboard, the only two that read a solution file. Rows are
joined by id, never by position, and probabilities are scored as written.

Legend: M rows of the solution, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.console import Column, Table
from competition.data.causes import gather_causes
from competition.data.csv_records import match_ids, show, show_id
from competition.data.tables import Layout
from competition.errors import CorpusError, Offence, SubmissionError
from competition.profile import Profile
from competition.scoring.criteria import Criteria, build_criteria
from competition.scoring.labels import LabelScore, lay_out_labels, score_labels
from competition.submission.answers import (
    Answers,
    ExpectedIds,
    check_ids,
    read_answers,
    read_table,
    tell_apart,
)
from competition.submission.form import AnswerLines, AnswerRows


@dataclass(frozen=True)
class Scores:
    """Leaderboard scores of a submission, and of each label.

    ``values`` are by the key of each metric, as leaderboards show them; None if undefined.
    """

    criteria: Criteria
    values: Mapping[str, float | None]
    n_rows: int
    labels: tuple[LabelScore, ...]


def score_submission(
    path: Path, solution_path: Path, profile: Profile, lines: AnswerLines | None = None
) -> Scores:
    """Score a submission as the leaderboard does.

    Args:
        lines: form and rows of its submissions; None: the profile's form, and the solution's ids.

    Raises:
        SubmissionError: the submission breaks a rule, or its rows are not those of the solution.
        CorpusError: the solution cannot be read.
    """
    return score_rows(*join_solution(path, solution_path, profile, lines)[1:], profile)


def join_solution(
    path: Path, solution_path: Path, profile: Profile, lines: AnswerLines | None = None
) -> tuple[list[str], npt.NDArray[np.int64], Answers]:
    """Return the solution's ids, their gold label ids (M,), and the predictions in that order.

    Raises:
        SubmissionError, CorpusError: as ``score_submission``.
    """
    gold = read_solution(solution_path, profile)
    if lines is not None:
        _check_covered(solution_path, gold, lines[1], profile)
    offences: list[Offence] = []
    form = None if lines is None else lines[0]
    answers = read_answers(path, profile, len(gold), offences.append, form=form, is_strict=False)
    if lines is not None:
        answers = replace(answers, ids=_name_test_ids(answers.ids, lines[1]))
    answers = replace(answers, ids=match_ids(answers.ids, gold))
    if answers.ids:
        expected = ExpectedIds(list(gold), profile.submission.id_column, solution_path.name)
        check_ids(path, answers, expected, offences.append)
    if offences:
        merged = gather_causes(offences, max(1, len(answers.ids)))
        raise SubmissionError(f"{path} cannot be scored against {solution_path}", merged)
    row_of = {row_id: row for row, row_id in enumerate(answers.ids)}
    rows = np.array([row_of[row_id] for row_id in gold], dtype=np.intp)
    found = [answers.lines[row] for row in rows]
    ids = list(gold)
    joined = Answers(ids, found, answers.pred[rows], answers.probs[rows], answers.has_probs)
    return ids, np.fromiter(gold.values(), np.int64, count=len(ids)), joined


def _name_test_ids(ids: Sequence[str], rows: AnswerRows) -> list[str]:
    """Return the test file's ids for those of a submission, which its sample file may define."""
    written = rows.written
    if len(set(written)) < len(written):
        written, ids = tuple(tell_apart(written)), tell_apart(ids)
    test_id_of = dict(zip(written, rows.test_ids, strict=True))
    return [test_id_of.get(each, each) for each in ids]


def _check_covered(path: Path, gold: Mapping[str, int], rows: AnswerRows, profile: Profile) -> None:
    """Raise if a solution lacks test rows: then the submission is not at fault."""
    missing = [row_id for row_id in rows.test_ids if row_id not in gold]
    if missing and len(missing) < len(rows.test_ids):
        column = profile.columns.id
        found = (
            f"no label for {len(missing):,} of the {len(rows.test_ids):,} test rows (first here)"
        )
        remedy = "add them, or take the whole solution file"
        offence = Offence(path.name, None, column, show_id(missing[0]), found, remedy)
        raise CorpusError(f"{path} is not the solution of the whole test file", [offence])


def read_solution(path: Path, profile: Profile) -> dict[str, int]:
    """Read the gold label id of every test row from a CSV with id and label.

    Raises:
        CorpusError: columns or rows are invalid; lists every offence.
    """
    columns = profile.columns
    is_number = columns.label_as == "number"
    label_ids = {str(i) if is_number else label: i for label, i in profile.label_ids.items()}
    gold: dict[str, int] = {}
    offences: list[Offence] = []
    files = profile.files
    layout = Layout(files.separator, files.solution_header, files.quotes)
    for line, (row_id, text) in read_table(path, (columns.id, columns.label), layout):
        label = text.removesuffix(".0") if is_number else text
        found = "is there twice" if row_id in gold else ""
        remedy = "correct the solution"
        if label not in label_ids:
            found = f"{show(label)} is not a label"
            is_place = label.isdecimal() and len(label) < 6 and int(label) < profile.n_labels
            if is_place and not is_number:
                remedy = f"write names (as places in labels, 0 is {profile.labels[0]})"
        if found:
            offences.append(Offence(path.name, line, None, show_id(row_id), found, remedy))
        gold[row_id] = label_ids.get(label, -1)
    if offences:
        merged = gather_causes(offences, len(gold))
        raise CorpusError(f"{path} cannot be used as a solution", merged)
    return gold


def score_rows(gold: npt.NDArray[np.int64], answers: Answers, profile: Profile) -> Scores:
    """Score predictions of M rows against gold label ids (M,) in the same order."""
    criteria = build_criteria(profile)
    predicted = (answers.probs, answers.pred)
    values: dict[str, float | None] = {}
    for metric in criteria.metrics:
        is_known = answers.has_probs or metric.kind.reads == "labels"
        score = metric.score(gold, predicted) if is_known else math.nan
        values[metric.kind.key] = None if math.isnan(score) else metric.kind.show(score)
    labels = score_labels(profile.labels, criteria, gold, predicted, has_probs=answers.has_probs)
    return Scores(criteria, values, len(gold), tuple(labels))


def build_score_tables(scores: Scores) -> list[Table]:
    """Build the tables of the scores and of each label."""
    kinds = scores.criteria.kinds
    total = {**scores.values, "rows": scores.n_rows}
    total_columns = [
        *(kind.column(kind.key, kind.title) for kind in kinds),
        Column("rows", "rows", "count"),
    ]
    curved = scores.criteria.curved
    curves = [] if curved is None else [curved.kind]
    columns, rows = lay_out_labels(scores.labels, scores.criteria)
    absent = ", ".join(label.label for label in scores.labels if not label.gold)
    notes = [f"Without gold rows, not part of {kind.title}: {absent}" for kind in curves if absent]
    lacking = [
        f"{kind.title} is computed on probabilities, which no column of this file holds."
        for kind in kinds
        if kind.reads == "probabilities" and scores.values[kind.key] is None
    ]
    return [
        Table("score", "Score", total_columns, [total], lacking),
        Table("labels", "By label", columns, rows, notes),
    ]
