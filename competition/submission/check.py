"""Check a submission against the leaderboard's rules: the entry point of ``run.py check``.

Offences break a rule; remarks point at what may be unintended.

Legend: M test rows, C labels.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.console import Table, build_offences_table, write_count
from competition.data.causes import gather_causes
from competition.data.csv_records import Report, show_id
from competition.errors import Offence, SubmissionError
from competition.files import sha256_of
from competition.profile import Competition, Profile
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import Negatives, Rule, best_positive, unflatten
from competition.scoring.degenerate import MIN_ROWS, find_waste
from competition.scoring.metrics.micro_f1 import is_any_of
from competition.submission.answers import (
    Answers,
    ExpectedIds,
    check_ids,
    check_order,
    max_bytes,
    read_answers,
    tell_apart,
)
from competition.submission.form import read_answer_rows, read_form
from competition.submission.record import BlendRule, read_rule

SUM_TOLERANCE = 1e-3
OFFENCES_IN_TABLE = 1_000


@dataclass(frozen=True)
class CheckReport:
    """Result of a check: offences, which block an upload, and remarks, which do not.

    ``is_sample``: the file covers sampled rows only (``--limit``) and cannot be uploaded.
    """

    file: Path
    sha256: str
    n_rows: int
    offences: tuple[Offence, ...]
    remarks: tuple[Offence, ...]
    is_sample: bool = False

    @property
    def is_ok(self) -> bool:
        """Return whether the file may be uploaded."""
        return not self.offences

    def raise_offences(self) -> None:
        """Raise SubmissionError with every offence, if there is any."""
        if self.offences:
            count = write_count(len(self.offences), "offence")
            raise SubmissionError(
                f"{self.file} breaks the leaderboard's rules: {count}", self.offences
            )


def check_submission(
    path: Path,
    competition: Competition,
    test_ids: Sequence[str] | None = None,
    *,
    target: str | None = None,
) -> CheckReport:
    """Check a submission against the leaderboard's rules and its labels against its blend.

    Args:
        test_ids: the ids that it must hold, in order; None reads them.
        target: where it is to go, None the profile's own: one that joins rows by id takes what
            others may not.

    Raises:
        SubmissionError: the file changed while it was read.
    """
    expected = read_answer_rows(competition).written if test_ids is None else test_ids
    form = read_form(competition)
    digest = _hash_readable(path, len(expected), competition.profile.n_labels)
    offences: list[Offence] = []
    answers = read_answers(path, competition.profile, len(expected), offences.append, form=form)
    remarks: list[Offence] = []
    takes_oddities = competition.profile.joins_by_id(target)
    (remarks if takes_oddities else offences).extend(answers.notices)
    if len(set(expected)) < len(expected):
        expected, answers = tell_apart(expected), replace(answers, ids=tell_apart(answers.ids))
    if answers.ids:
        sample, column = competition.sample_path, competition.profile.submission.id_column
        source = "the test file" if sample is None else f"the sample file {sample.name}"
        ids = ExpectedIds(expected, column, source)
        check_ids(path, answers, ids, offences.append)
        odd = remarks if takes_oddities else offences
        check_order(path, answers, ids, odd.append)
    rule = _read_blend_rule(path, competition.profile)
    is_of_other = isinstance(rule, BlendRule) and (
        rule.differs_from(competition.profile) or rule.has_other_order(competition.profile)
    )
    _remark_sums(path, answers, competition.profile, remarks.append)
    if not is_of_other:
        _remark_positives(path, answers, competition.profile, remarks.append)
    if isinstance(rule, Offence):
        remarks.append(rule)
    elif rule is not None:
        if not is_of_other:
            _remark_labels(path, answers, rule, competition.profile, remarks.append)
        _remark_blend(path, digest, rule, competition.profile, remarks.append)
        _check_order_of_labels(path, digest, rule, competition.profile, offences.append)
    _remark_waste(path, answers, competition.profile, remarks.append)
    offences.sort(key=lambda offence: (offence.line is None, offence.line or 0))
    offences = gather_causes(offences, max(1, len(answers.ids)))
    if answers.ids and _hash_readable(path, len(expected), competition.profile.n_labels) != digest:
        found, remedy = "the file changed while it was read", "check it again once it is complete"
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
    """Build the tables of offences and remarks."""

    def build(name: str, title: str, found: Sequence[Offence], note: str) -> Table:
        more = len(found) - OFFENCES_IN_TABLE
        notes = [note, *([f"… and {more:,} more"] if more > 0 else [])]
        return build_offences_table(name, title, found[:OFFENCES_IN_TABLE], notes)

    count = write_count(len(report.offences), "offence")
    verdict = "follows all rules" if report.is_ok else f"breaks rules: {count}"
    note = f"{report.file.name} ({write_count(report.n_rows, 'row')}) {verdict}."
    title = "Check" if report.is_ok else "Offences"
    tables = [build("offences", title, report.offences, note)]
    if report.remarks:
        note = "Remarks do not prevent an upload."
        tables.append(build("remarks", "Remarks", report.remarks, note))
    if report.is_ok and not report.is_sample:
        next_ = f"Next: python run.py submit {shlex.quote(str(report.file))}"
        tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, next_))
    return tables


def _hash_readable(path: Path, n_rows: int, n_labels: int) -> str:
    """Return a file's SHA-256, or "" if it is not a file or too large to read."""
    limit = max_bytes(n_rows, n_labels)
    return sha256_of(path) if path.is_file() and path.stat().st_size <= limit else ""


def _remark_waste(path: Path, answers: Answers, profile: Profile, remark: Report) -> None:
    """Report what keeps the rules and throws points away: votes, softmax twice, one label."""
    usable = np.isfinite(answers.probs).all(axis=1)
    waste = find_waste(answers.probs[usable]) if usable.any() else None
    if waste is not None and answers.has_probs:
        column = profile.submission.probs_column
        remark(Offence(path.name, None, column, None, waste.found, waste.remedy))
    given = answers.pred[answers.pred >= 0]
    if len(given) >= MIN_ROWS and (given == given[0]).all():
        found = f"all rows have the label {profile.labels[given[0]]}"
        remedy = "is it the leaderboard's sample file, or a model that learned nothing?"
        remark(Offence(path.name, None, profile.submission.label_column, None, found, remedy))


def _list_usable(answers: Answers) -> npt.NDArray[np.intp]:
    """Return the rows whose label and probabilities can both be used."""
    return np.flatnonzero(np.isfinite(answers.probs).all(axis=1) & (answers.pred >= 0))


def _remark_sums(path: Path, answers: Answers, profile: Profile, remark: Report) -> None:
    """Report sums other than 1."""
    column = profile.submission.probs_column
    usable = _list_usable(answers)
    sums = answers.probs[usable].sum(axis=1)
    odd = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if len(odd):
        line, row_id = answers.lines[usable[odd[0]]], show_id(answers.ids[usable[odd[0]]])
        rows = write_count(len(odd), "row")
        found = f"probabilities sum to {sums[odd[0]]:.4g}, not 1, in {rows} (first here)"
        remedy = "allowed by the leaderboard; ours sum to 1"
        remark(Offence(path.name, line, column, row_id, found, remedy))


def _remark_positives(path: Path, answers: Answers, profile: Profile, remark: Report) -> None:
    """Report positive labels that are not the most probable one."""
    usable = _list_usable(answers)
    probs, pred = answers.probs[usable], answers.pred[usable]
    best = probs.copy()
    best[:, list(profile.negative_ids)] = -1.0
    is_other = probs[np.arange(len(pred)), pred] < best.max(axis=1) - SUM_TOLERANCE**2
    odd = np.flatnonzero(is_other & ~is_any_of(pred, profile.negative_ids))
    if len(odd) and build_criteria(profile).rule != "prior":
        row = usable[odd[0]]
        line, row_id = answers.lines[row], show_id(answers.ids[row])
        label, better = profile.labels[answers.pred[row]], profile.labels[best[odd[0]].argmax()]
        rows = write_count(len(odd), "row")
        found = f"{label} is predicted but {better} is more probable, in {rows} (first here)"
        remedy = "fine if intended; otherwise the label order may be wrong"
        remark(Offence(path.name, line, profile.submission.label_column, row_id, found, remedy))


def _read_blend_rule(path: Path, profile: Profile) -> BlendRule | Offence | None:
    """Return how the blend beside a submission decided, or why that is not known; None without."""
    try:
        return read_rule(path.with_name(f"{path.stem}.json"), profile.n_labels)
    except (OSError, ValueError) as error:
        found = f"{path.stem}.json does not say how labels were decided ({error})"
        remedy = "labels were not compared to it; run blend again with that name"
        return Offence(path.name, None, profile.submission.label_column, None, found, remedy)


def _remark_blend(
    path: Path, digest: str, rule: BlendRule, profile: Profile, remark: Report
) -> None:
    """Report that the JSON beside a submission is of other metrics, or of another file."""
    if rule.differs_from(profile) and not rule.has_other_order(profile):
        found = f"{path.stem}.json was made with other metrics or negative labels"
        remedy = "labels were not compared to it; run blend again with that name"
        remark(Offence(path.name, None, profile.submission.label_column, None, found, remedy))
    if digest and rule.csv_sha256 not in {None, digest}:
        found = f"{path.stem}.json belongs to another version of this file"
        remedy = (
            "the file was changed, or blend was interrupted: run blend again with that name,"
            " otherwise the board shows no estimate for it"
        )
        remark(Offence(path.name, None, None, None, found, remedy))


def _check_order_of_labels(
    path: Path, digest: str, rule: BlendRule, profile: Profile, offend: Report
) -> None:
    """Report a file whose numbers stand for labels in the order that the profile had before."""
    form = profile.submission
    is_by_place = form.probs_column is not None or form.label_as == "number"
    is_by_place = is_by_place or isinstance(form.probs_columns, tuple)
    if is_by_place and rule.has_other_order(profile) and rule.csv_sha256 in {None, digest}:
        found = f"{path.stem}.json says that the labels had another order when it was written"
        remedy = "fold and blend again in the profile's order, or restore that order in the profile"
        column = form.probs_column or form.label_column
        offend(Offence(path.name, None, column, None, found, remedy))


def _remark_labels(
    path: Path, answers: Answers, rule: BlendRule, profile: Profile, remark: Report
) -> None:
    """Report labels that the blend's decision rule does not give for these probabilities."""
    usable = np.isfinite(answers.probs).all(axis=1) & (answers.pred >= 0)
    usable &= answers.probs.max(axis=1, initial=0.0) > 0
    if not usable.any():
        return
    probs, pred = answers.probs[usable], answers.pred[usable]
    odd = np.flatnonzero(usable)[
        ~follows_rule(probs, pred, profile.negative_ids, (rule.rule, rule.temperature))
    ]
    if len(odd):
        line, row_id = answers.lines[odd[0]], show_id(answers.ids[odd[0]])
        label = profile.labels[answers.pred[odd[0]]]
        rows = write_count(len(odd), "row")
        found = f"{label} is not what the rule in {path.stem}.json gives, in {rows} (first here)"
        remedy = "fine if intended; otherwise labels or probabilities were changed after blend"
        remark(Offence(path.name, line, profile.submission.label_column, row_id, found, remedy))


def follows_rule(
    probs: npt.NDArray[np.float64],
    pred: npt.NDArray[np.int64],
    negative_ids: Negatives,
    decided: tuple[Rule, float],
) -> npt.NDArray[np.bool_]:
    """Return whether each row's label is consistent with a blend's rule, up to rounding.

    Labels are decided from the pool p before it is flattened to q, so p ∝ q^T is recovered first.
    A written q was rounded to float32 twice, in the pool and in the file: each time its relative
    error is below 2^-23, that of its power T times as much, that of the sum of powers as much
    again, and the decision was made on a float32 with error 2^-24. So the relative error of p is
    below (2T + 1) · 2^-23, about 6e-7 at T = 2. Within this error, either side of the threshold
    and any of the tied labels is accepted.

    Args:
        probs: (M, C) as in the file, flattened.
        pred: (M,) label ids.
        negative_ids: below the threshold, the best of these is given.
        decided: the rule of the blend that wrote them, and its temperature.

    Returns:
        (M,) bool.
    """
    rule, temperature = decided
    threshold = rule.threshold
    pooled = unflatten(probs, temperature)
    error = (2 * temperature + 1) * 2.0**-23
    if rule.factors is not None:
        pooled = pooled * np.array(rule.factors)
    given = pooled[np.arange(len(pred)), pred]
    if rule.factors is not None or not negative_ids or threshold is None:
        return np.asarray(given >= pooled.max(axis=1) * (1 - error))
    best = best_positive(pooled, negative_ids)[1]
    is_positive = (given >= best * (1 - error)) & (best >= threshold * (1 - error))
    best_of_negative = pooled[:, list(negative_ids)].max(axis=1)
    is_negative = (best < threshold * (1 + error)) & (given >= best_of_negative * (1 - error))
    return np.where(is_any_of(pred, negative_ids), is_negative, is_positive)
