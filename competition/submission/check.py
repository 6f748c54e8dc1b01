"""The leaderboard's file: written from a blend, checked row by row, scored against a solution.

Stands between blend and upload on the way of a row. ``<name>.csv`` holds a label and probabilities
for every test row in the order of the test file, ``<name>.json`` what determined them,
``<name>.run.json`` when and from which commit.

Legend: M test rows, C labels.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.blend.pooling import unflatten
from competition.console import Column, Table, write_count
from competition.data.csv_records import Report
from competition.errors import Offence, SubmissionError, UsageError
from competition.files import check_name, dump_json, sha256_of, write_atomically
from competition.profile import Competition, Profile
from competition.scoring.metrics import best_positive
from competition.submission.answers import (
    NUMBER_MAX_CHARS,
    ROW_MAX_BYTES,
    SPARE_ROWS,
    Answers,
    check_ids,
    check_order,
    read_answers,
    read_table,
    show_id,
)
from competition.submission.ledger import open_ledger
from competition.submission.record import BlendRule, read_rule
from competition.submission.score import Scores, build_score_tables, score_submission

__all__ = [
    "CheckReport",
    "Scores",
    "build_check_tables",
    "build_score_tables",
    "check_submission",
    "read_test_ids",
    "score_submission",
    "write_submission",
]

SUM_TOLERANCE = 1e-3
OFFENCES_IN_TABLE = 1_000
LOCAL = "local"  # the target that costs nothing


@dataclass(frozen=True)
class CheckReport:
    """What a check found: offences, which keep a file from being sent, and remarks.

    ``is_sample``: it answers for sampled rows (``--limit``), so that no leaderboard takes it.
    """

    file: Path
    sha256: str
    n_rows: int
    offences: tuple[Offence, ...]
    remarks: tuple[Offence, ...]
    is_sample: bool = False

    @property
    def is_ok(self) -> bool:
        """Say whether the file may be sent."""
        return not self.offences

    def raise_offences(self) -> None:
        """Raise SubmissionError with every offence, if there is any."""
        if self.offences:
            count = write_count(len(self.offences), "offence")
            raise SubmissionError(
                f"{self.file} breaks the leaderboard's rules: {count}", self.offences
            )


def read_test_ids(competition: Competition) -> list[str]:
    """Return the ids a submission must answer, in order; of the sampled rows when limited.

    Raises:
        CorpusError: the test file cannot be read (see ``read_corpus`` for the full check).
    """
    if competition.limit is not None:
        from competition.data.corpus import read_corpus

        return [str(row_id) for row_id in read_corpus(competition).test.ids]
    column = competition.profile.columns.id
    return [row_id for _, (row_id,) in read_table(competition.test_path, (column,))]


def write_submission(  # noqa: PLR0913, PLR0917 - the parts of one submission
    competition: Competition,
    name: str,
    ids: Sequence[str],
    probs: npt.NDArray[np.floating[Any]],
    pred: npt.NDArray[np.integer[Any]],
    spec: Mapping[str, Any],
    run: Mapping[str, Any],
) -> Path:
    """Leave a submission and return the CSV's path; the same answers and spec give the same bytes.

    Args:
        name: of the submission and its three files.
        ids: (M,) every test row once, in any order; probs and pred are in the same order.
        probs: (M, C) floats; written renormalised to sum to 1.
        pred: (M,) label ids.
        spec: what determined the answers, JSON-able.
        run: provenance, with the time as ISO text under ``time``.

    Raises:
        SubmissionError: the rows are not exactly the test rows, or probs are no probabilities.
        UsageError: no such name, or other bytes were sent under it.
    """
    if check_name(name).endswith(".run"):
        raise UsageError(f"{name!r} cannot be a submission's name: .run.json holds provenance")
    path = competition.submissions_dir / f"{name}.csv"
    expected = read_test_ids(competition)
    exact = np.asarray(probs, dtype=np.float64)
    found = _find_fault(competition.profile, expected, ids, exact, pred)
    if found:
        offence = Offence(path.name, None, None, None, found, "blend again from whole members")
        raise SubmissionError(f"{path} was not written", [offence])
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    rows = np.array([row_of[row_id] for row_id in expected], dtype=np.intp)
    data = _encode(competition.profile, expected, exact[rows], pred[rows]).encode("utf-8")
    digest = hashlib.sha256(data).hexdigest()
    check_not_sent(competition, name, digest)
    write_atomically(path.with_name(f"{name}.json"), dump_json({**spec, "csv_sha256": digest}))
    write_atomically(path.with_name(f"{name}.run.json"), dump_json(run))
    write_atomically(path, data)
    return path


def check_not_sent(competition: Competition, name: str, sha256: str) -> None:
    """Refuse to put other bytes in the place of a submission that was sent, or may have been.

    The ledger's name and scores would then stand beside answers that nobody sent. The local
    leaderboard costs nothing and may be asked again under the same name.

    Args:
        sha256: of the bytes that are to be written.

    Raises:
        UsageError: the file of that name was sent and holds other bytes.
    """
    path = competition.submissions_dir / f"{name}.csv"
    known = sha256_of(path) if path.is_file() else sha256
    if known == sha256:
        return
    for entry in open_ledger(competition).read():
        if entry.target == LOCAL:
            continue
        if entry.sha256 == known and entry.outcome in ("sent", "unknown"):
            happened = "was sent" if entry.outcome == "sent" else "may have been sent"
            raise UsageError(
                f"{path} {happened} to {entry.target}, and its answers are others; it was not"
                " overwritten: take another --name"
            )


def write_answers(
    path: Path,
    profile: Profile,
    ids: Sequence[str],
    probs: npt.NDArray[np.floating[Any]],
    pred: npt.NDArray[np.integer[Any]],
) -> None:
    """Write answers for any rows in the leaderboard's format; not a submission, so no more files.

    Args:
        path: the CSV.
        profile: names of columns and labels.
        ids: (M,) row ids, in the order wanted.
        probs: (M, C) floats; written renormalised to sum to 1.
        pred: (M,) label ids.
    """
    exact = np.asarray(probs, dtype=np.float64)
    write_atomically(path, _encode(profile, ids, exact, pred))


def check_submission(
    path: Path, competition: Competition, test_ids: Sequence[str] | None = None
) -> CheckReport:
    """Check a submission against the leaderboard's rules, and its labels against its blend's.

    Args:
        test_ids: the ids in the order of the test file; None reads them.

    Raises:
        SubmissionError: the file changed while it was read, so that nothing can be said of it.
    """
    expected = read_test_ids(competition) if test_ids is None else test_ids
    digest = _hash_readable(path, len(expected), competition.profile.n_labels)
    offences: list[Offence] = []
    answers = read_answers(path, competition.profile, len(expected), offences.append)
    if answers.ids:
        column = competition.profile.submission.id_column
        check_ids(path, answers, expected, column, offences.append)
        check_order(path, answers, expected, column, offences.append)
    remarks: list[Offence] = []
    _remark_probs(path, answers, competition.profile, remarks.append)
    _remark_blend(path, answers, digest, competition.profile, remarks.append)
    offences.sort(key=lambda offence: (offence.line is None, offence.line or 0))
    if answers.ids and _hash_readable(path, len(expected), competition.profile.n_labels) != digest:
        found, remedy = "it changed while it was read", "check it again when it is finished"
        offence = Offence(path.name, None, None, None, found, remedy)
        raise SubmissionError(f"{path} was changed while it was checked", [offence])
    digest = digest if answers.ids else ""
    return CheckReport(
        file=path,
        sha256=digest,
        n_rows=len(answers.ids),
        offences=tuple(offences),
        remarks=tuple(remarks),
        is_sample=competition.limit is not None,
    )


def build_check_tables(report: CheckReport) -> list[Table]:
    """Show a check for a person."""
    columns = [
        Column("line", "line", "count"),
        Column("id", "id"),
        Column("column", "column"),
        Column("found", "found"),
        Column("remedy", "what to do"),
    ]

    def build(name: str, title: str, found: Sequence[Offence], note: str) -> Table:
        keys = [column.key for column in columns]
        rows = [{key: getattr(each, key) for key in keys} for each in found[:OFFENCES_IN_TABLE]]
        more = len(found) - len(rows)
        return Table(
            name, title, columns, rows, [note, *([f"… and {more:,} more"] if more else [])]
        )

    count = write_count(len(report.offences), "offence")
    verdict = "keeps every rule" if report.is_ok else f"breaks rules: {count}"
    note = f"{report.file.name} ({write_count(report.n_rows, 'row')}) {verdict}."
    title = "Check" if report.is_ok else "Offences"
    tables = [build("offences", title, report.offences, note)]
    if report.remarks:
        note = "Remarks do not keep a file from being sent."
        tables.append(build("remarks", "Remarks", report.remarks, note))
    if report.is_ok and not report.is_sample:
        next_ = f"Next: python run.py submit {shlex.quote(str(report.file))}"
        tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, next_))
    return tables


def _hash_readable(path: Path, n_rows: int, n_labels: int) -> str:
    """Return a file's SHA-256; nothing for what is no file, or too large to be read."""
    most = (n_rows + SPARE_ROWS) * (ROW_MAX_BYTES + NUMBER_MAX_CHARS * n_labels)
    return sha256_of(path) if path.is_file() and path.stat().st_size <= most else ""


def _find_fault(
    profile: Profile,
    expected: Sequence[str],
    ids: Sequence[str],
    probs: npt.NDArray[np.float64],
    pred: npt.NDArray[np.integer[Any]],
) -> str:
    """Say what keeps answers from being written; nothing when they are sound."""
    n_rows = len(expected)
    if len(ids) != n_rows or set(ids) != set(expected):
        return f"the {len(ids):,} answered rows are not the {n_rows:,} test rows"
    if probs.shape != (n_rows, profile.n_labels) or pred.shape != (n_rows,):
        return f"probabilities of shape {probs.shape}, labels of shape {pred.shape}"
    if not np.isfinite(probs).all() or (probs < 0).any() or (probs.sum(axis=1) <= 0).any():
        return "probabilities that are negative, not finite or all zero"
    if (pred < 0).any() or (pred >= profile.n_labels).any():
        return "label ids that the profile does not have"
    return ""


def _encode(
    profile: Profile,
    ids: Sequence[str],
    probs: npt.NDArray[np.float64],
    pred: npt.NDArray[np.integer[Any]],
) -> str:
    """Write the CSV: probabilities as float32 in nine digits, from which they read back exactly."""
    rules = profile.submission
    rounded = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((rules.id_column, rules.label_column, rules.probs_column))
    for row_id, label_id, row in zip(ids, pred.tolist(), rounded.tolist(), strict=True):
        text = ", ".join([format(value, ".9g") for value in row])
        writer.writerow((row_id, profile.labels[label_id], f"[{text}]"))
    return buffer.getvalue()


def _remark_probs(path: Path, answers: Answers, profile: Profile, remark: Report) -> None:
    """Remark sums other than 1, and labels that are not the most probable of the positive ones."""
    column = profile.submission.probs_column
    usable = np.flatnonzero(np.isfinite(answers.probs).all(axis=1) & (answers.pred >= 0))
    probs, pred = answers.probs[usable], answers.pred[usable]
    sums = probs.sum(axis=1)
    odd = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(odd):
        line, row_id = answers.lines[usable[odd[0]]], show_id(answers.ids[usable[odd[0]]])
        rows = write_count(len(odd), "row")
        found = f"probabilities sum to {sums[odd[0]]:.4g}, not 1, in {rows} (first here)"
        remedy = "allowed by the leaderboard; ours sum to 1"
        remark(Offence(path.name, line, column, row_id, found, remedy))
    best = probs.copy()
    if profile.negative_id is not None:
        best[:, profile.negative_id] = -1.0
    is_other = probs[np.arange(len(pred)), pred] < best.max(axis=1) - SUM_TOLERANCE**2
    odd = np.flatnonzero(
        is_other & (pred != (-1 if profile.negative_id is None else profile.negative_id))
    )
    if len(odd):
        row = usable[odd[0]]
        line, row_id = answers.lines[row], show_id(answers.ids[row])
        label, better = profile.labels[answers.pred[row]], profile.labels[best[odd[0]].argmax()]
        rows = write_count(len(odd), "row")
        found = f"{label} is given though {better} is more probable, in {rows} (first here)"
        remedy = "fine if meant; else the labels' order may be wrong"
        remark(Offence(path.name, line, profile.submission.label_column, row_id, found, remedy))


def _remark_blend(
    path: Path, answers: Answers, digest: str, profile: Profile, remark: Report
) -> None:
    """Hold a submission against what the JSON beside it says of the blend of that name."""
    try:
        rule = read_rule(path.with_name(f"{path.stem}.json"))
    except (OSError, ValueError) as error:
        found = f"{path.stem}.json does not say how labels were decided ({error})"
        remedy = "they were not held against it; blend again under that name"
        remark(Offence(path.name, None, profile.submission.label_column, None, found, remedy))
        return
    if rule is None:
        return
    _remark_labels(path, answers, rule, profile, remark)
    if digest and rule.csv_sha256 not in {None, digest}:
        found = f"{path.stem}.json tells of another file of that name than this one"
        remedy = (
            "it was changed, or blend was stopped between the two: blend again under that name,"
            " else the board shows no estimate of it"
        )
        remark(Offence(path.name, None, None, None, found, remedy))


def _remark_labels(
    path: Path, answers: Answers, rule: BlendRule, profile: Profile, remark: Report
) -> None:
    """Remark labels that a blend does not give to rows with these probabilities."""
    usable = np.isfinite(answers.probs).all(axis=1) & (answers.pred >= 0)
    usable &= answers.probs.max(axis=1, initial=0.0) > 0
    if not usable.any():
        return
    probs, pred = answers.probs[usable], answers.pred[usable]
    odd = np.flatnonzero(usable)[~follows_rule(probs, pred, profile.negative_id, rule)]
    if len(odd):
        line, row_id = answers.lines[odd[0]], show_id(answers.ids[odd[0]])
        label = profile.labels[answers.pred[odd[0]]]
        rows = write_count(len(odd), "row")
        found = f"{label} is not what the rule in {path.stem}.json gives, in {rows} (first here)"
        remedy = "fine if meant; else labels or probabilities were changed since blend wrote them"
        remark(Offence(path.name, line, profile.submission.label_column, row_id, found, remedy))


def follows_rule(
    probs: npt.NDArray[np.float64],
    pred: npt.NDArray[np.int64],
    negative_id: int | None,
    rule: BlendRule,
) -> npt.NDArray[np.bool_]:
    """Say of each row whether a blend's rule may have given its label, rounding allowed for.

    Labels are decided in the pool p before it is flattened to q, so p ∝ q^T is recovered first. A
    written q went through a float32 twice, of the pool and of the file: each is off by less than
    2^-23 of itself, its power by T times that, the sum of powers by as much again, and the float32
    that was decided on by 2^-24. So p is off by less than (2T + 1) · 2^-23 of itself, about 6 in
    ten million at T = 2. A row so near the threshold may be decided either way, and of labels so
    nearly tied each may stand.

    Args:
        probs: (M, C) as written, flattened.
        pred: (M,) label ids.
        negative_id: the label given below the threshold, or None.
        rule: of the blend that wrote them.

    Returns:
        (M,) bool.
    """
    threshold, temperature = rule.threshold, rule.temperature
    pooled = unflatten(probs, temperature)
    off = (2 * temperature + 1) * 2.0**-23
    given = pooled[np.arange(len(pred)), pred]
    if negative_id is None or threshold is None:
        return np.asarray(given >= pooled.max(axis=1) * (1 - off))
    best = best_positive(pooled, negative_id)[1]
    is_positive = (given >= best * (1 - off)) & (best >= threshold * (1 - off))
    return np.where(pred == negative_id, best < threshold * (1 + off), is_positive)
