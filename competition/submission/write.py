"""Write a submission: the CSV, a JSON with its inputs, and a JSON with its provenance.

``<name>.csv`` holds label and probabilities of every test row in the order of the test file,
``<name>.json`` what determined them, ``<name>.run.json`` time and commit.

Legend: M test rows, C labels.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.errors import Offence, SubmissionError, UsageError
from competition.files import check_name, dump_json, sha256_of, write_atomically
from competition.profile import Competition, Profile
from competition.submission.form import (
    AnswerRows,
    Form,
    build_form,
    read_answer_rows,
    read_form,
)
from competition.submission.ledger import open_ledger

LOCAL = "local"  # this target has no quota


def write_submission(  # noqa: PLR0913, PLR0917 - the parts of one submission
    competition: Competition,
    name: str,
    ids: Sequence[str],
    probs: npt.NDArray[np.floating[Any]],
    pred: npt.NDArray[np.integer[Any]],
    spec: Mapping[str, Any],
    run: Mapping[str, Any],
) -> Path:
    """Write a submission and return the CSV's path; the same inputs give the same bytes.

    Args:
        name: of the submission and its three files.
        ids: (M,) every test row once, in any order, which is also that of probs and pred.
        probs: (M, C) floats; written renormalised to sum to 1.
        pred: (M,) label ids.
        spec: what determined the predictions, serialisable as JSON.
        run: provenance, with the time as ISO text under ``time``.

    Raises:
        SubmissionError: the rows are not exactly the test rows, or probs are not probabilities.
        UsageError: the name is invalid, or other content was uploaded under it.
    """
    if check_name(name).endswith(".run"):
        raise UsageError(f"{name!r} cannot be a submission's name: .run.json files hold provenance")
    path = competition.submissions_dir / f"{name}.csv"
    answered = read_answer_rows(competition)
    expected = answered.test_ids
    exact = np.asarray(probs, dtype=np.float64)
    found = _find_fault(competition.profile, expected, ids, exact, pred)
    if found:
        offence = Offence(path.name, None, None, None, found, "blend complete members again")
        raise SubmissionError(f"{path} was not written", [offence])
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    rows = np.array([row_of[row_id] for row_id in expected], dtype=np.intp)
    form = read_form(competition)
    text = _encode(competition.profile, form, answered, exact[rows], pred[rows])
    data = text.encode("utf-8")
    digest = hashlib.sha256(data).hexdigest()
    check_not_sent(competition, name, digest)
    write_atomically(path.with_name(f"{name}.json"), dump_json({**spec, "csv_sha256": digest}))
    write_atomically(path.with_name(f"{name}.run.json"), dump_json(run))
    write_atomically(path, data)
    return path


def check_not_sent(competition: Competition, name: str, sha256: str) -> None:
    """Raise if writing would overwrite a submission that was, or may have been, uploaded.

    The ledger's scores would then refer to a file that no longer exists. Submissions to the local
    leaderboard may be overwritten.

    Args:
        sha256: of the new content.

    Raises:
        UsageError: the file of that name was uploaded and has other content.
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
                f"{path} {happened} to {entry.target} with other predictions, so it is not"
                " overwritten: choose another --name"
            )


def write_answers(
    path: Path,
    profile: Profile,
    ids: Sequence[str],
    probs: npt.NDArray[np.floating[Any]],
    pred: npt.NDArray[np.integer[Any]],
) -> None:
    """Write predictions of any rows in the leaderboard's format, without the JSON files.

    Args:
        path: the CSV.
        profile: names of columns and labels.
        ids: (M,) row ids, in the order to write.
        probs: (M, C) floats; written renormalised to sum to 1.
        pred: (M,) label ids.
    """
    exact = np.asarray(probs, dtype=np.float64)
    answered = AnswerRows(tuple(ids), tuple(ids))
    write_atomically(path, _encode(profile, build_form(profile), answered, exact, pred))


def _find_fault(
    profile: Profile,
    expected: Sequence[str],
    ids: Sequence[str],
    probs: npt.NDArray[np.float64],
    pred: npt.NDArray[np.integer[Any]],
) -> str:
    """Return why predictions cannot be written, or ""."""
    n_rows = len(expected)
    if len(ids) != n_rows or set(ids) != set(expected):
        return f"the {len(ids):,} predicted rows are not the {n_rows:,} test rows"
    if probs.shape != (n_rows, profile.n_labels) or pred.shape != (n_rows,):
        return f"probabilities of shape {probs.shape}, labels of shape {pred.shape}"
    if not np.isfinite(probs).all() or (probs < 0).any() or (probs.sum(axis=1) <= 0).any():
        return "probabilities that are negative, not finite or all zero"
    if (pred < 0).any() or (pred >= profile.n_labels).any():
        return "label ids that the profile does not have"
    return ""


def _encode(
    profile: Profile,
    form: Form,
    answered: AnswerRows,
    probs: npt.NDArray[np.float64],
    pred: npt.NDArray[np.integer[Any]],
) -> str:
    """Format the file, with probabilities as float32 in nine digits, which round-trip exactly."""
    rounded = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=form.separator, lineterminator="\n")
    if form.has_header:
        writer.writerow(form.columns)
    labels = profile.submission.write_labels(profile.labels)
    rows = zip(answered.written, pred.tolist(), rounded.tolist(), strict=True)
    for place, (row_id, label_id, row) in enumerate(rows):
        numbers = [format(value, ".9g") for value in row]
        fields = {name: answered.copied[name][place] for name in form.copied}
        fields |= {form.id_column: row_id} | dict(zip(form.probs_columns, numbers, strict=False))
        if form.label_column is not None:
            fields[form.label_column] = labels[label_id]
        if form.probs_column is not None:
            fields[form.probs_column] = f"[{', '.join(numbers)}]"
        writer.writerow([fields[name] for name in form.columns])
    return buffer.getvalue()
