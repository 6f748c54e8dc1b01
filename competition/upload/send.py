"""Send one submission once, and record it: check, quota, intent, upload, receipt, scores.

From the first check to the last record the ledger is locked, so that two processes cannot both use
the last submission of the day. The lock is not held while waiting for a score.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from competition.errors import (
    HarnessError,
    QuotaError,
    UploadError,
    UsageError,
    explain_os_error,
)
from competition.files import sha256_of
from competition.profile import Competition
from competition.scoring.criteria import build_criteria
from competition.submission.ledger import Entry, Ledger, count_on_day, open_ledger
from competition.upload.aistages import AIStagesTarget
from competition.upload.attempts import Attempts, Clock
from competition.upload.choice import find_file, find_newest, read_checked
from competition.upload.evalai import EvalAITarget
from competition.upload.folder import FolderTarget
from competition.upload.http import HttpTarget
from competition.upload.kaggle import KaggleTarget
from competition.upload.local import LocalTarget
from competition.upload.masking import Mask
from competition.upload.report import SubmitReport
from competition.upload.target import (
    Findable,
    LostAnswerError,
    QuotaReporting,
    Receipt,
    RejectedError,
    Scoring,
    Submission,
    TargetOptions,
    UnconfirmedUpload,
    UploadTarget,
    ask,
    can_poll,
    describe_error,
)
from competition.upload.waiting import OnWait, follow, follow_others
from competition.upload.wire import is_plain_http

TARGETS: dict[str, Callable[[TargetOptions], UploadTarget]] = {
    "folder": FolderTarget,
    "local": LocalTarget,
    "kaggle": KaggleTarget,
    "aistages": AIStagesTarget,
    "evalai": EvalAITarget,
    "http": HttpTarget,
}
DEMO_TARGETS = ("folder", "local")


@dataclass(frozen=True)
class SubmitOptions:
    """The options of the command line."""

    target: str | None = None
    folder: Path | None = None
    dry_run: bool = False
    resend: bool = False
    wait: bool = False
    plain_http: bool = False


def submit(
    competition: Competition,
    file: Path | None,
    options: SubmitOptions,
    *,
    clock: Clock,
    sleep: Callable[[float], None] = time.sleep,
    on_wait: OnWait = lambda _waited_s, _status: None,
) -> SubmitReport:
    """Check a submission and send it; with ``wait``, wait until it is scored or rejected.

    Args:
        file: None chooses the competition's newest submission. With ``wait`` it chooses the newest
            attempt without a score, if there is one, and sends nothing.
        clock: returns the current time with its zone.
        sleep: pauses for a number of seconds, between retries and while waiting.
        on_wait: called before each pause with the seconds waited so far and the status.

    Raises:
        UsageError: no such target, no submission to send, or nothing to wait for.
        SubmissionError: the file breaks a rule; carries every offence.
        QuotaError: no submission is left today.
        DuplicateError: the same bytes were sent there before, or may have been.
        UploadError: the file must not be sent there, certainly did not arrive, or would be sent
            over plain http without --plain-http.
    """
    mask, remarks = Mask(), list[str]()
    made_with = TargetOptions(options.folder, mask, sleep, remarks.append)
    target = _build_target(competition, options, made_with)
    place = target.destination(competition)
    attempts = Attempts(competition, target, place, open_ledger(competition), clock, mask)
    job = _Job(attempts, options, sleep)
    try:
        if options.dry_run:
            return job.preview(file)
        job.check_places()
        if file is None and not attempts.read():
            find_newest(
                competition
            )  # raises if there is nothing to send, before the ledger is created
        with attempts.ledger.locked():
            outcome = job.run(file)
        report = outcome.report
        if options.wait and outcome.asks is not None:
            report = follow(attempts, report, outcome.asks, sleep=sleep, on_wait=on_wait)
        if options.wait and file is None and not outcome.is_new:
            report = follow_others(attempts, report, outcome.asks)
        return replace(report, notes=(*report.notes, *map(mask.hide, dict.fromkeys(remarks))))
    except UploadError as error:
        hidden = mask.hide(str(error))
        if hidden == str(error):
            raise
        raise type(error)(hidden) from None


@dataclass(frozen=True)
class _Outcome:
    """What was done; ``asks`` is the attempt whose scores are missing, if any."""

    report: SubmitReport
    asks: Entry | None
    is_new: bool = False


@dataclass(frozen=True)
class _Job:
    """One run of ``submit``."""

    attempts: Attempts
    options: SubmitOptions
    sleep: Callable[[float], None]

    def check_places(self) -> None:
        """Refuse destinations to which the key would be sent unencrypted.

        Raises:
            UploadError: there is one, and --plain-http was not given.
        """
        warnings = self._warn()
        if warnings and not self.options.plain_http:
            raise UploadError(f"{'; '.join(warnings)}; use https, or allow it with --plain-http")

    def preview(self, file: Path | None) -> SubmitReport:
        """Report what would be done, without contacting the platform."""
        attempts, target = self.attempts, self.attempts.target
        asked = ""
        if self.options.wait and isinstance(target, Scoring):
            asked = f"{target.plan_poll(attempts.competition)}; until it is scored or rejected"
        awaited = self._find_awaited(file)
        if awaited is not None:
            notes = (*self._warn(), *self._describe_awaited(awaited))
            report = self._report(awaited, notes, self._count_left())
            return replace(report, outcome=None, message="", is_pending=False, plan=(asked,))
        submission, remarks = self._read(file)
        earlier = [
            f"the same bytes: {entry.outcome} at {attempts.when(entry)}"
            for entry in attempts.read_same(submission)
        ]
        n_open = sum(entry.outcome == "unknown" for entry in attempts.read())
        if n_open and isinstance(target, Findable):
            earlier.append(
                f"would first ask {target.name} for the outcome of {n_open} open attempts"
            )
        plan = target.plan(submission, attempts.competition)
        return SubmitReport(
            name=submission.name,
            target=target.name,
            destination=attempts.destination,
            sha256=submission.sha256,
            plan=(*plan, asked) if asked else tuple(plan),
            kinds=build_criteria(attempts.competition.profile).kinds,
            quota_left=None if isinstance(target, QuotaReporting) else self._count_left(),
            notes=(*remarks, *self._warn(), *earlier),
            file=submission.path,
        )

    def run(self, file: Path | None) -> _Outcome:
        """Send, or report what was sent before; the ledger must be locked."""
        notes = self.attempts.repair()
        awaited = self._find_awaited(file)
        if awaited is not None:
            return self._report_earlier(
                awaited, (*notes, *self._warn(), *self._describe_awaited(awaited))
            )
        submission, remarks = self._read(file)
        reconciled = self.attempts.reconcile(submission, self.sleep)
        notes = (*remarks, *notes, *self._warn(), *reconciled.notes)
        if reconciled.arrived is not None:
            notes = (*notes, "an earlier attempt had arrived; nothing was sent")
            return self._report_earlier(reconciled.arrived, notes, submission)
        if not self.options.resend:
            entry = self._find_sent(submission)
            if entry is not None:
                said = f"already sent at {self.attempts.when(entry)}; nothing was sent"
                return self._report_earlier(entry, (*notes, said), submission)
            self.attempts.check_not_sent(submission)
        left, remark = self._find_left()
        if left == 0:
            raise QuotaError(self._explain_quota(is_from_platform=not remark))
        intent = self.attempts.record_intent(submission)
        receipt = self.attempts.record_answer(intent, self._send(intent, submission))
        if left is not None and receipt.outcome != "refused":
            left -= 1
        entry = self.attempts.read_one(intent)
        report = self._report(entry, (*notes, *remark), left, submission)
        return _Outcome(report, entry if self.attempts.is_awaited(entry) else None, is_new=True)

    def _read(self, file: Path | None) -> tuple[Submission, tuple[str, ...]]:
        competition = self.attempts.competition
        path = file or find_newest(competition)
        return read_checked(path, competition, self.attempts.target.name)

    def _find_awaited(self, file: Path | None) -> Entry | None:
        """Return the newest attempt without a score, if --wait was given without a file."""
        if file is not None or self.options.resend or not self.options.wait:
            return None
        return max(filter(self.attempts.is_open, self.attempts.read()), key=_id_of, default=None)

    def _find_sent(self, submission: Submission) -> Entry | None:
        """Return the attempt with these bytes whose scores to request, undecided ones first."""
        if not self.options.wait:
            return None
        same = [e for e in self.attempts.read_same(submission) if e.outcome == "sent"]
        undecided = [entry for entry in same if self.attempts.is_open(entry)]
        lacking = [entry for entry in same if self.attempts.list_missing(entry)]
        return max(undecided or lacking or same, key=_id_of, default=None)

    def _describe_awaited(self, entry: Entry) -> tuple[str, ...]:
        """Return notes on the attempt that is waited for, and on a newer file that is not sent."""
        said = f"waiting for {entry.name}, sent at {self.attempts.when(entry)}; nothing is sent"
        try:
            newest = find_newest(self.attempts.competition)
        except UsageError:
            return (said,)
        known = {each.sha256 for each in self.attempts.read() if each.outcome != "failed"}
        return (said,) if sha256_of(newest) in known else (said, f"to send {newest}, name it")

    def _report_earlier(
        self, entry: Entry, notes: tuple[str, ...], submission: Submission | None = None
    ) -> _Outcome:
        left = None if isinstance(self.attempts.target, QuotaReporting) else self._count_left()
        report = self._report(entry, notes, left, submission)
        # a decided one is asked too: the platform may have scored it again
        return _Outcome(report, entry if self.attempts.can_ask(entry) else None)

    def _send(self, intent: int, submission: Submission) -> Receipt:
        """Send once; if the answer is lost, ask whether the file arrived.

        Any unexpected exception of a platform's client counts as a lost answer.
        """
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
        except Exception as error:
            if _is_of_this_machine(error):
                raise  # the next run checks what arrived
            said = f"no valid answer ({describe_error(error)})"
            lost = Receipt(ref=None, message=attempts.mask.quote(said), outcome="unknown")
        if not isinstance(target, Findable):
            advice = f"check on {target.name} whether it arrived; sending again needs --resend"
            return replace(lost, message=f"{lost.message}; {advice}")
        refs = frozenset(entry.ref for entry in attempts.read() if entry.ref is not None)
        upload = UnconfirmedUpload(submission.name, submission.sha256, submission.path, refs)
        try:
            found = ask(lambda: target.find(upload, attempts.competition))
        except UploadError:
            found = None
        advice = "run submit again to check whether it arrived"
        return found or replace(lost, message=f"{lost.message}; {advice}")

    def _find_left(self) -> tuple[int | None, tuple[str, ...]]:
        """Return the remaining quota, from the platform if it reports it, and a remark."""
        if not isinstance(self.attempts.target, QuotaReporting):
            return self._count_left(), ()
        target = self.attempts.target
        left = ask(lambda: target.ask_quota(self.attempts.competition))
        if left is not None:
            return left, ()
        name = self.attempts.target.name
        return self._count_left(), (f"{name} does not report its quota; counted from the ledger",)

    def _count_left(self) -> int | None:
        """Return the remaining quota by the ledger."""
        attempts, now = self.attempts, self.attempts.clock()
        return count_quota_left(attempts.competition, attempts.ledger, attempts.target, now)

    def _explain_quota(self, *, is_from_platform: bool) -> str:
        target, rules = self.attempts.target, self.attempts.competition.profile.submission
        if is_from_platform and isinstance(target, QuotaReporting):
            return f"{target.name} reports that no submission is left; wait for the next day"
        return (
            f"all {rules.per_day} submissions to {target.name} for today ({rules.timezone}) are"
            " used; wait for the next day"
        )

    def _warn(self) -> tuple[str, ...]:
        """Return a warning for every address to which a secret would be sent unencrypted."""
        attempts, target = self.attempts, self.attempts.target
        places = {attempts.destination: "the key and the file would be sent"}
        url = target.poll_url(attempts.competition) if isinstance(target, Scoring) else None
        if url is not None:
            places.setdefault(url, "the key would be sent")
        return tuple(
            f"{place} is not an https address: {what} unencrypted"
            for place, what in places.items()
            if is_plain_http(place)
        )

    def _report(
        self,
        entry: Entry,
        notes: tuple[str, ...],
        left: int | None,
        submission: Submission | None = None,
    ) -> SubmitReport:
        """Build the report on an attempt; without ``submission``, look for its file."""
        competition = self.attempts.competition
        return SubmitReport(
            name=entry.name if submission is None else submission.name,
            target=entry.target,
            destination=entry.destination,
            sha256=entry.sha256,
            plan=(),
            kinds=build_criteria(competition.profile).kinds,
            outcome=entry.outcome,
            ref=entry.ref,
            message=entry.message,
            public=entry.public,
            private=entry.private,
            quota_left=left,
            is_pending=self.attempts.is_open(entry),
            is_on_page=self.attempts.is_on_page(entry),
            notes=notes,
            file=find_file(competition, entry) if submission is None else submission.path,
        )


def _is_of_this_machine(error: Exception) -> bool:
    """Return whether an error is about a local file, not about a server's answer."""
    is_disk = isinstance(error, OSError) and explain_os_error(error) is not None
    return is_disk or isinstance(error, HarnessError)


def _id_of(entry: Entry) -> int:
    return entry.id


def count_quota_left(
    competition: Competition, ledger: Ledger, target: UploadTarget, now: datetime
) -> int | None:
    """Return the number of submissions left today for a target, None if it has no quota.

    Those to its other destinations, such as another competition of the platform, do not count.

    Raises:
        HarnessError: the profile does not say where the target sends to.
    """
    rules = competition.profile.submission
    if rules.per_day is None or not target.has_quota:
        return None
    place = (target.name, target.destination(competition))
    used = count_on_day(ledger.read(), now, rules.timezone, place=place)
    zone = ZoneInfo(rules.timezone)
    today = now.astimezone(zone).date()
    used += sum(each.may_count(today, zone, target.name) for each in ledger.read_damaged())
    return max(0, rules.per_day - used)


def _build_target(
    competition: Competition, options: SubmitOptions, made_with: TargetOptions
) -> UploadTarget:
    name = options.target or competition.profile.upload.default
    if name not in TARGETS:
        raise UsageError(f"there is no target {name!r}; choose from {', '.join(TARGETS)}")
    if options.folder is not None and name != "folder":
        raise UsageError(f"--folder needs --to folder, not --to {name}")
    if competition.limit is not None:
        raise UploadError(
            f"{competition.name} is a sample of the rows (--limit), so its submissions cannot be"
            " sent; run fold and blend without --limit"
        )
    is_demo = competition.is_demo_fallback or competition.profile.files.bundled
    if is_demo and name not in DEMO_TARGETS:
        raise UploadError(
            f"this is the bundled demo, which can be sent to {' or '.join(DEMO_TARGETS)}, not to"
            f" {name}; choose a real competition with --competition or --data"
        )
    target = TARGETS[name](made_with)
    if options.wait and not can_poll(target, competition):
        raise UsageError(f"--wait cannot be used with {name}, which reports no scores")
    return target
