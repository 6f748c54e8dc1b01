"""Send one submission: check, quota, intent, send, receipt, scores; never twice, never unrecorded.

The last step but one on the way of a row. Everything between the first check and the last record
happens under the ledger's lock, so that two people at two terminals cannot both use the last
submission of the day. Waiting for a score holds no lock.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from competition.errors import Offence, QuotaError, UploadError, UsageError
from competition.files import check_name
from competition.ledger import Entry, Ledger, count_on_day
from competition.profile import Competition
from competition.submission import check_submission
from competition.upload.aistages import AIStagesTarget
from competition.upload.attempts import Attempts, Clock
from competition.upload.evalai import EvalAITarget
from competition.upload.folder import FolderTarget
from competition.upload.http import HttpTarget
from competition.upload.kaggle import KaggleTarget
from competition.upload.local import LocalTarget
from competition.upload.masking import Mask
from competition.upload.report import SubmitReport, build_submit_tables
from competition.upload.target import (
    Findable,
    LostAnswerError,
    Rationed,
    Receipt,
    RejectedError,
    Scoring,
    Sought,
    Submission,
    TargetOptions,
    UploadTarget,
)
from competition.upload.waiting import OnWait, try_to_wait
from competition.upload.wire import is_loopback

__all__ = ["TARGETS", "SubmitOptions", "SubmitReport", "build_submit_tables", "submit"]

TARGETS: dict[str, Callable[[TargetOptions], UploadTarget]] = {
    "folder": FolderTarget,
    "local": LocalTarget,
    "kaggle": KaggleTarget,
    "aistages": AIStagesTarget,
    "evalai": EvalAITarget,
    "http": HttpTarget,
}
DEMO_TARGETS = ("folder", "local")
LEDGER_NAME = "ledger.jsonl"


@dataclass(frozen=True)
class SubmitOptions:
    """What the command line says: where to send, and how far to go."""

    target: str | None = None
    folder: Path | None = None
    dry_run: bool = False
    resend: bool = False
    wait: bool = False


def open_ledger(competition: Competition) -> Ledger:
    """Return the competition's ledger."""
    return Ledger(competition.submissions_dir / LEDGER_NAME)


def submit(
    competition: Competition,
    file: Path | None,
    options: SubmitOptions,
    *,
    clock: Clock,
    sleep: Callable[[float], None] = time.sleep,
    on_wait: OnWait = lambda _waited_s, _status: None,
) -> SubmitReport:
    """Check a submission and send it; with ``wait``, stay until it is scored or rejected.

    Args:
        file: None takes the newest of the competition's submissions.
        clock: the current time, with its zone; asked before sending and again after.
        sleep: pauses for some seconds, between attempts and while waiting.
        on_wait: told before each pause how long has been waited, in seconds, and the status.

    Raises:
        UsageError: no such target, or no submission to send, or nothing to wait for.
        SubmissionError: the file breaks a rule; carries every offence.
        QuotaError: no submission is left today.
        DuplicateError: the same bytes went there before, or may have.
        UploadError: the file may not go there, or surely did not arrive.
    """
    mask = Mask()
    target = _build_target(competition, options, TargetOptions(options.folder, mask, sleep))
    path = file or find_newest(competition)
    job = _Job(
        Attempts(
            competition,
            target,
            target.destination(competition),
            open_ledger(competition),
            clock,
            mask,
        ),
        options,
    )
    try:
        if options.dry_run:
            return job.preview(*_read_checked(path, competition))
        with job.attempts.ledger.locked():
            aside = job.attempts.ledger.mend()
            submission, notes = _read_checked(path, competition)
            if aside is not None:
                notes = (*notes, f"the ledger's torn last line was put aside: {aside}")
            report, intent = job.run(submission, notes)
        if options.wait and intent is not None:
            report = job.wait(report, intent, sleep=sleep, on_wait=on_wait)
        return report
    except UploadError as error:
        hidden = mask.hide(str(error))
        if hidden == str(error):
            raise
        raise type(error)(hidden) from None


@dataclass(frozen=True)
class _Job:
    """One run of ``submit``."""

    attempts: Attempts
    options: SubmitOptions

    def preview(self, submission: Submission, notes: tuple[str, ...]) -> SubmitReport:
        """Tell what would be done, asking nobody."""
        attempts, target = self.attempts, self.attempts.target
        earlier = [
            f"the same bytes: {entry.outcome} at {entry.time}"
            for entry in attempts.read_same(submission)
        ]
        n_open = sum(entry.outcome == "unknown" for entry in attempts.read())
        if n_open and isinstance(target, Findable):
            earlier.append(f"would ask {target.name} first what became of {n_open} open attempts")
        left = None if isinstance(target, Rationed) else self._count_left()
        report = self._report(submission, (*notes, *self._warn(), *earlier), left)
        if self.options.wait and isinstance(target, Scoring):
            asked = f"{target.plan_poll(attempts.competition)}; until it is scored or rejected"
            report = replace(report, plan=(*report.plan, asked))
        return report

    def run(
        self, submission: Submission, notes: tuple[str, ...]
    ) -> tuple[SubmitReport, int | None]:
        """Send, the ledger's lock held; return what was done and the attempt yet to be scored."""
        settled = self.attempts.settle(submission)
        notes = (*notes, *self._warn(), *settled.notes)
        if settled.arrived is not None:
            notes = (*notes, "an earlier attempt had arrived; nothing was sent again")
            return self._tell_entry(submission, notes, settled.arrived)
        if not self.options.resend:
            if self.options.wait:
                before = [e for e in self.attempts.read_same(submission) if e.outcome == "sent"]
                entry = self.attempts.find_unscored(submission) or (before[-1] if before else None)
                if entry is not None:
                    said = f"sent at {entry.time} already; nothing was sent again"
                    return self._tell_entry(submission, (*notes, said), entry)
            self.attempts.check_not_sent(submission)
        left, remark = self._find_left()
        if left == 0:
            raise QuotaError(self._explain_quota(is_told=not remark))
        intent = self.attempts.record_intent(submission)
        receipt = self.attempts.record(intent, self._send(intent, submission))
        if left is not None and receipt.outcome != "refused":
            left -= 1
        report = self._report(submission, (*notes, *remark), left, receipt)
        return report, intent if report.is_pending else None

    def wait(
        self,
        report: SubmitReport,
        intent: int,
        *,
        sleep: Callable[[float], None],
        on_wait: OnWait,
    ) -> SubmitReport:
        """Stay until the platform has decided, and record what it decided."""
        target, attempts = self.attempts.target, self.attempts
        assert isinstance(target, Scoring)
        assert report.ref is not None
        verdict, trouble = try_to_wait(
            target, attempts.competition, report.ref, sleep=sleep, on_wait=on_wait
        )
        with attempts.ledger.locked():
            attempts.record_verdict(intent, report.ref, verdict)
        said = tuple(attempts.mask.hide(text) for text in (verdict.message, trouble) if text)
        return replace(
            report,
            outcome="refused" if verdict.state == "rejected" else report.outcome,
            public=verdict.public,
            private=verdict.private,
            is_pending=verdict.state == "pending",
            notes=(*report.notes, *said),
        )

    def _send(self, intent: int, submission: Submission) -> Receipt:
        """Send once; when the answer is lost, ask at once whether the file arrived."""
        target, attempts = self.attempts.target, self.attempts
        try:
            return target.send(submission, attempts.competition)
        except RejectedError as error:
            return Receipt(ref=error.ref, message=str(error), outcome="refused")
        except LostAnswerError as error:
            lost = Receipt(ref=None, message=str(error), outcome="unknown")
        except UploadError as error:
            is_full = isinstance(error, QuotaError)
            attempts.record_failure(intent, "refused" if is_full else "failed", error)
            raise
        if not isinstance(target, Findable):
            advice = f"look at {target.name} whether it arrived; sending again needs --resend"
            return replace(lost, message=f"{lost.message}; {advice}")
        refs = frozenset(entry.ref for entry in attempts.read() if entry.ref is not None)
        sought = Sought(submission.name, submission.sha256, submission.path, refs)
        try:
            found = target.find(sought, attempts.competition)
        except UploadError:
            found = None
        advice = "submit again and it is asked what arrived"
        return found or replace(lost, message=f"{lost.message}; {advice}")

    def _find_left(self) -> tuple[int | None, tuple[str, ...]]:
        """Return what is left today, from the platform where it tells, and a remark."""
        if not isinstance(self.attempts.target, Rationed):
            return self._count_left(), ()
        left = self.attempts.target.ask_quota(self.attempts.competition)
        if left is not None:
            return left, ()
        name = self.attempts.target.name
        return self._count_left(), (f"{name} does not tell its quota; counted from the ledger",)

    def _count_left(self) -> int | None:
        """Count in the ledger what is left today."""
        attempts, now = self.attempts, self.attempts.clock()
        return count_quota_left(attempts.competition, attempts.ledger, attempts.target, now)

    def _explain_quota(self, *, is_told: bool) -> str:
        target, rules = self.attempts.target, self.attempts.competition.profile.submission
        if is_told and isinstance(target, Rationed):
            return f"no submission to {target.name} is left now, it says; wait for the next day"
        return (
            f"all {rules.per_day} submissions to {target.name} of today ({rules.timezone}) are"
            " used; wait for the next day"
        )

    def _warn(self) -> tuple[str, ...]:
        place = self.attempts.destination
        if place.startswith("http://") and not is_loopback(place):
            return (f"{place} is no https address: the key and the file travel in the clear",)
        return ()

    def _tell_entry(
        self, submission: Submission, notes: tuple[str, ...], entry: Entry
    ) -> tuple[SubmitReport, int | None]:
        outcome = entry.outcome if entry.outcome != "failed" else "unknown"
        receipt = Receipt(entry.ref, entry.message, entry.public, entry.private, outcome)
        left = None if isinstance(self.attempts.target, Rationed) else self._count_left()
        report = self._report(submission, notes, left, receipt)
        return report, entry.id if report.is_pending else None

    def _report(
        self,
        submission: Submission,
        notes: tuple[str, ...],
        left: int | None,
        receipt: Receipt | None = None,
    ) -> SubmitReport:
        """Tell what was done, or without a receipt what would be."""
        attempts = self.attempts
        report = SubmitReport(
            name=submission.name,
            target=attempts.target.name,
            destination=attempts.destination,
            sha256=submission.sha256,
            plan=tuple(attempts.target.plan(submission, attempts.competition)),
            quota_left=left,
            notes=notes,
        )
        if receipt is None:
            return report
        has_score = receipt.public is not None or receipt.private is not None
        is_asked = isinstance(attempts.target, Scoring) and attempts.target.can_poll(
            attempts.competition
        )
        is_open = receipt.outcome == "sent" and receipt.ref is not None and not has_score
        return replace(
            report,
            outcome=receipt.outcome,
            ref=receipt.ref,
            message=receipt.message,
            public=receipt.public,
            private=receipt.private,
            is_pending=is_open and is_asked,
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


def _build_target(
    competition: Competition, options: SubmitOptions, made_with: TargetOptions
) -> UploadTarget:
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
    is_demo = competition.is_demo_fallback or competition.profile.files.bundled
    if is_demo and name not in DEMO_TARGETS:
        raise UploadError(
            f"this is the bundled demo: it goes to {' or '.join(DEMO_TARGETS)}, not to {name};"
            " name the real one by --competition or --data"
        )
    target = TARGETS[name](made_with)
    if options.wait and not (isinstance(target, Scoring) and target.can_poll(competition)):
        raise UsageError(f"--wait does not go with {name}, which has no score to wait for")
    return target


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


def _read_time(path: Path) -> tuple[datetime, str]:
    own = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    try:
        run = json.loads(path.with_name(f"{path.stem}.run.json").read_text("utf-8"))
        time = datetime.fromisoformat(run["time"])
    except (OSError, ValueError, TypeError, KeyError):
        return own, path.name
    return (time if time.tzinfo else time.replace(tzinfo=UTC)), path.name
