"""Send one submission: check, quota, intent, send, receipt, scores; never twice, never unrecorded.

The last step but one on the way of a row. Everything between the first check and the last record
happens under the ledger's lock, so that two people at two terminals cannot both use the last
submission of the day.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from competition.console import Column, Table
from competition.errors import DuplicateError, Offence, QuotaError, UploadError, UsageError
from competition.files import check_name
from competition.ledger import Entry, Ledger, Outcome, count_on_day
from competition.profile import Competition
from competition.score import Scores
from competition.submission import check_submission
from competition.upload.folder import FolderTarget
from competition.upload.local import LocalTarget
from competition.upload.target import Receipt, Submission, TargetOptions, UploadTarget

TARGETS: dict[str, Callable[[TargetOptions], UploadTarget]] = {
    "folder": FolderTarget,
    "local": LocalTarget,
}
DEMO_TARGETS = ("folder", "local")
LEDGER_NAME = "ledger.jsonl"

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class SubmitOptions:
    """What the command line says: where to send, and how far to go."""

    target: str | None = None
    folder: Path | None = None
    dry_run: bool = False
    resend: bool = False


@dataclass(frozen=True)
class SubmitReport:
    """What was done, or with ``outcome`` None what would be; scores in [0, 1]."""

    name: str
    target: str
    destination: str
    sha256: str
    plan: tuple[str, ...]
    outcome: Outcome | None = None
    ref: str | None = None
    message: str = ""
    public: Scores | None = None
    private: Scores | None = None
    quota_left: int | None = None
    notes: tuple[str, ...] = ()


def open_ledger(competition: Competition) -> Ledger:
    """Return the competition's ledger."""
    return Ledger(competition.submissions_dir / LEDGER_NAME)


def submit(
    competition: Competition, file: Path | None, options: SubmitOptions, *, clock: Clock
) -> SubmitReport:
    """Check a submission and send it.

    Args:
        file: None takes the newest of the competition's submissions.
        clock: the current time, with its zone; asked before sending and again after.

    Raises:
        UsageError: no such target, or no submission to send.
        SubmissionError: the file breaks a rule; carries every offence.
        QuotaError: no submission is left today.
        DuplicateError: the same bytes went there before, or may have.
        UploadError: the file may not go there, or surely did not arrive.
    """
    target = _build_target(competition, options)
    destination = target.destination(competition)
    path = file or find_newest(competition)
    ledger = open_ledger(competition)
    if options.dry_run:
        job = _Job(competition, target, destination, ledger, clock)
        submission, notes = _read_checked(path, competition)
        report = job.report(submission, notes)
        used = [entry for entry in ledger.read() if job.is_same(entry, submission)]
        earlier = [f"the same bytes: {entry.outcome} at {entry.time}" for entry in used]
        return replace(report, notes=(*report.notes, *earlier))
    with ledger.locked():
        aside = ledger.mend()
        submission, notes = _read_checked(path, competition)
        if aside is not None:
            notes = (*notes, f"the ledger's torn last line was put aside: {aside}")
        return _Job(competition, target, destination, ledger, clock).run(
            submission, notes, resend=options.resend
        )


@dataclass(frozen=True)
class _Job:
    """One run of ``submit``, the ledger's lock held."""

    competition: Competition
    target: UploadTarget
    destination: str
    ledger: Ledger
    clock: Clock

    def run(self, submission: Submission, notes: tuple[str, ...], *, resend: bool) -> SubmitReport:
        arrived = self._settle_earlier(submission, resend=resend)
        if arrived is not None:
            found = (*notes, "an earlier attempt had arrived; nothing was sent again")
            return self.report(submission, found, arrived)
        if self.target.has_quota and self.quota_left() == 0:
            rules = self.competition.profile.submission
            raise QuotaError(
                f"all {rules.per_day} submissions to {self.target.name} of today"
                f" ({rules.timezone}) are used; wait for the next day"
            )
        fields = {
            "target": self.target.name,
            "destination": self.destination,
            "name": submission.name,
            "sha256": submission.sha256,
            "bytes": len(submission.data),
        }
        intent = self.ledger.append_intent(self.clock(), fields)
        try:
            receipt = self.target.send(submission, self.competition)
        except UploadError as error:
            outcome: Outcome = "refused" if isinstance(error, QuotaError) else "failed"
            self.ledger.append_receipt(intent, self.clock(), outcome, ref=None, message=str(error))
            raise
        self._record(intent, receipt)
        return self.report(submission, notes, receipt)

    def _settle_earlier(self, submission: Submission, *, resend: bool) -> Receipt | None:
        """Return the receipt of an earlier attempt that turns out to have arrived.

        Raises:
            DuplicateError: the same bytes were sent, or may have been, and ``resend`` is not set.
        """
        earlier = [e for e in self.ledger.read() if self.is_same(e, submission)]
        for entry in earlier:
            if entry.outcome == "unknown" and self.target.can_find:
                receipt = self.target.find(submission, self.competition)
                if receipt is not None:
                    self._record(entry.id, receipt)
                    return receipt
                message = f"{self.target.name} was asked: it did not arrive"
                self.ledger.append_receipt(
                    entry.id, self.clock(), "failed", ref=None, message=message
                )
            elif entry.outcome in ("sent", "unknown") and not resend:
                happened = (
                    "were sent"
                    if entry.outcome == "sent"
                    else "may have been sent (no answer came)"
                )
                raise DuplicateError(
                    f"these bytes ({submission.short_hash}) {happened} to {entry.target}"
                    f" ({entry.destination}) at {entry.time}, as {entry.name};"
                    " to send them once more, add --resend"
                )
        return None

    def _record(self, intent: int, receipt: Receipt) -> None:
        now = self.clock()
        self.ledger.append_receipt(
            intent, now, receipt.outcome, ref=receipt.ref, message=receipt.message
        )
        if receipt.public is not None or receipt.private is not None:
            public, private = _write_scores(receipt.public), _write_scores(receipt.private)
            self.ledger.append_score(intent, now, public=public, private=private)

    def is_same(self, entry: Entry, submission: Submission) -> bool:
        """Say whether an entry is of the same bytes and the same destination."""
        place = (self.target.name, self.destination, submission.sha256)
        return (entry.target, entry.destination, entry.sha256) == place

    def quota_left(self) -> int | None:
        """Return how many submissions are left today, None without a quota."""
        return count_quota_left(self.competition, self.ledger, self.target, self.clock())

    def report(
        self, submission: Submission, notes: tuple[str, ...], receipt: Receipt | None = None
    ) -> SubmitReport:
        """Tell what was done, or without a receipt what would be."""
        report = SubmitReport(
            name=submission.name,
            target=self.target.name,
            destination=self.destination,
            sha256=submission.sha256,
            plan=tuple(self.target.plan(submission, self.competition)),
            quota_left=self.quota_left(),
            notes=notes,
        )
        if receipt is None:
            return report
        return replace(
            report,
            outcome=receipt.outcome,
            ref=receipt.ref,
            message=receipt.message,
            public=receipt.public,
            private=receipt.private,
        )


def count_quota_left(
    competition: Competition, ledger: Ledger, target: UploadTarget, now: datetime
) -> int | None:
    """Return how many submissions to a target are left today, None where there is no quota."""
    rules = competition.profile.submission
    if rules.per_day is None or not target.has_quota:
        return None
    used = count_on_day(ledger.read(), now, rules.timezone, target=target.name)
    return max(0, rules.per_day - used)


def find_newest(competition: Competition) -> Path:
    """Return the newest submission, by the time in its ``.run.json``, else the file's own.

    Raises:
        UsageError: there is none.
    """
    folder = competition.submissions_dir
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if not files:
        raise UsageError(f"{folder} holds no submission; run: python run.py blend")
    return max(files, key=_read_time)


def build_submit_tables(report: SubmitReport) -> list[Table]:
    """Show what was done, or would be, for a person."""
    row = {
        "name": report.name,
        "target": report.target,
        "outcome": report.outcome or "not sent (dry run)",
        "public_f1": report.public and report.public.micro_f1,
        "public_auprc": report.public and report.public.auprc,
        "private_f1": report.private and report.private.micro_f1,
        "private_auprc": report.private and report.private.auprc,
        "quota_left": report.quota_left,
        "sha256": report.sha256,
    }
    columns = [
        Column("name", "submission"),
        Column("target", "to"),
        Column("outcome", "outcome"),
        Column("public_f1", "public F1", "score"),
        Column("public_auprc", "public AUPRC", "score"),
        Column("private_f1", "private F1", "score"),
        Column("private_auprc", "private AUPRC", "score"),
        Column("quota_left", "left today", "count"),
    ]
    steps = [f"would {step}" for step in report.plan] if report.outcome is None else []
    notes = [*([report.message] if report.message else []), *steps, *report.notes]
    return [Table("submit", "Submission", columns, [row], notes)]


def _build_target(competition: Competition, options: SubmitOptions) -> UploadTarget:
    name = options.target or competition.profile.upload.default
    if name not in TARGETS:
        raise UsageError(f"no target {name!r}; choose from {', '.join(TARGETS)}")
    if options.folder is not None and name != "folder":
        raise UsageError(f"--folder goes with --to folder, not with {name}")
    if competition.limit is not None:
        raise UploadError(
            f"{competition.name} holds a sample of the rows (--limit): its submissions are for"
            " trying out and cannot be sent"
        )
    if competition.is_demo_fallback and name not in DEMO_TARGETS:
        raise UploadError(
            f"this is the bundled demo: it goes to {' or '.join(DEMO_TARGETS)}, not to {name};"
            " name the real one by --competition or --data"
        )
    return TARGETS[name](TargetOptions(folder=options.folder))


def _read_checked(path: Path, competition: Competition) -> tuple[Submission, tuple[str, ...]]:
    """Return a file that keeps every rule, and remarks on it."""
    if not path.is_file():
        raise UsageError(f"{path} is no file")
    name = check_name(path.stem)
    checked = check_submission(path, competition)
    checked.raise_offences()
    data = path.read_bytes()
    submission = Submission(name, path, data, hashlib.sha256(data).hexdigest())
    if submission.sha256 != checked.sha256:
        raise UploadError(f"{path} was changed while it was checked; try again when it is finished")
    return submission, tuple(_shorten(remark) for remark in checked.remarks)


def _shorten(remark: Offence) -> str:
    return f"remark: {remark.found} ({remark.remedy})"


def _write_scores(scores: Scores | None) -> Mapping[str, float | None] | None:
    if scores is None:
        return None
    area = None if math.isnan(scores.auprc) else scores.auprc
    return {"micro_f1": scores.micro_f1, "auprc": area}


def _read_time(path: Path) -> tuple[datetime, str]:
    own = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    try:
        run = json.loads(path.with_name(f"{path.stem}.run.json").read_text("utf-8"))
        time = datetime.fromisoformat(run["time"])
    except (OSError, ValueError, TypeError, KeyError):
        return own, path.name
    return (time if time.tzinfo else time.replace(tzinfo=UTC)), path.name
