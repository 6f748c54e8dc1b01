"""Score a submission against a solution file: micro-F1, AUPRC, and scores per label.

Used by ``run.py score`` and the local leaderboard, the only two that read a solution file. Rows are
joined by id, never by position, and probabilities are scored as written.

Legend: M rows of the solution, C labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.console import Column, Table
from competition.data.causes import gather_causes
from competition.data.csv_records import show, show_id
from competition.errors import CorpusError, Offence, SubmissionError
from competition.profile import Profile
from competition.scoring.metrics import auprc_by_class, micro_f1
from competition.submission.answers import Answers, check_ids, read_answers, read_table


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Scores of one label; None for 0/0."""

    label: str
    gold: int
    predicted: int
    precision: float | None
    recall: float | None
    auprc: float | None


@dataclass(frozen=True)
class Scores:
    """Leaderboard scores of a submission, and of each label; auprc is NaN without a gold row."""

    micro_f1: float
    auprc: float
    n_rows: int
    labels: tuple[LabelScore, ...]


def score_submission(path: Path, solution_path: Path, profile: Profile) -> Scores:
    """Score a submission as the leaderboard does.

    Raises:
        SubmissionError: the submission breaks a rule, or its rows are not those of the solution.
        CorpusError: the solution cannot be read.
    """
    return score_rows(*join_solution(path, solution_path, profile)[1:], profile)


def join_solution(
    path: Path, solution_path: Path, profile: Profile
) -> tuple[list[str], npt.NDArray[np.int64], Answers]:
    """Return the solution's ids, their gold label ids (M,), and the predictions in that order.

    Raises:
        SubmissionError, CorpusError: as ``score_submission``.
    """
    gold = read_solution(solution_path, profile)
    offences: list[Offence] = []
    answers = read_answers(path, profile, len(gold), offences.append, is_strict=False)
    if answers.ids:
        check_ids(path, answers, list(gold), profile.submission.id_column, offences.append)
    if offences:
        told = gather_causes(offences, max(1, len(answers.ids)))
        raise SubmissionError(f"{path} cannot be scored against {solution_path}", told)
    row_of = {row_id: row for row, row_id in enumerate(answers.ids)}
    rows = np.array([row_of[row_id] for row_id in gold], dtype=np.intp)
    lines = [answers.lines[row] for row in rows]
    ids = list(gold)
    joined = Answers(ids, lines, answers.pred[rows], answers.probs[rows], answers.has_probs)
    return ids, np.fromiter(gold.values(), np.int64, count=len(ids)), joined


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
    for line, (row_id, text) in read_table(path, (columns.id, columns.label)):
        label = text.removesuffix(".0") if is_number else text
        found = "is there twice" if row_id in gold else ""
        if label not in label_ids:
            found = f"{show(label)} is not a label"
        if found:
            offence = Offence(path.name, line, None, show_id(row_id), found, "correct the solution")
            offences.append(offence)
        gold[row_id] = label_ids.get(label, -1)
    if offences:
        raise CorpusError(f"{path} cannot be used as a solution", offences)
    return gold


def score_rows(gold: npt.NDArray[np.int64], answers: Answers, profile: Profile) -> Scores:
    """Score predictions of M rows against gold label ids (M,) in the same order."""
    n_labels = profile.n_labels
    areas = np.full(n_labels, np.nan)
    if answers.has_probs:
        areas = auprc_by_class(gold, answers.probs)
    n_gold = np.bincount(gold, minlength=n_labels)
    n_pred = np.bincount(answers.pred, minlength=n_labels)
    n_hit = np.bincount(gold[gold == answers.pred], minlength=n_labels)
    labels = tuple(
        LabelScore(
            label,
            gold=int(n_gold[i]),
            predicted=int(n_pred[i]),
            precision=float(n_hit[i] / n_pred[i]) if n_pred[i] else None,
            recall=float(n_hit[i] / n_gold[i]) if n_gold[i] else None,
            auprc=float(areas[i]) if n_gold[i] and answers.has_probs else None,
        )
        for i, label in enumerate(profile.labels)
    )
    f1 = micro_f1(gold, answers.pred, profile.negative_id)
    present = areas[n_gold > 0]
    mean_area = float(present.mean()) if len(present) else math.nan
    return Scores(f1, mean_area, len(gold), labels)


def build_score_tables(scores: Scores) -> list[Table]:
    """Build the tables of the scores and of each label."""
    total: dict[str, float | None] = {
        "micro_f1": scores.micro_f1,
        "auprc": scores.auprc,
        "rows": scores.n_rows,
    }
    total_columns = [
        Column("micro_f1", "micro-F1", "score"),
        Column("auprc", "AUPRC", "score"),
        Column("rows", "rows", "count"),
    ]
    columns = [
        Column("label", "label"),
        Column("gold", "gold", "count"),
        Column("predicted", "predicted", "count"),
        Column("precision", "precision", "score"),
        Column("recall", "recall", "score"),
        Column("auprc", "AUPRC", "score"),
    ]
    rows = [
        {column.key: getattr(label, column.key) for column in columns} for label in scores.labels
    ]
    absent = [label.label for label in scores.labels if not label.gold]
    notes = [f"Without gold rows, not part of AUPRC: {', '.join(absent)}"] if absent else []
    lacking = []
    if math.isnan(scores.auprc):
        lacking = ["AUPRC is computed on probabilities, which no column of this file holds."]
        total["auprc"] = None
    return [
        Table("score", "Score", total_columns, [total], lacking),
        Table("labels", "By label", columns, rows, notes),
    ]
