"""Send one submission: check, quota, intent, send, receipt, scores; never twice, never unrecorded.

The last step but one on the way of a row. Everything between the first check and the last record
happens under the ledger's lock, so that two people at two terminals cannot both use the last
submission of the day. Waiting for a score holds no lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from competition.errors import (
    HarnessError,
    QuotaError,
    UploadError,
    UsageError,
    explain_os_error,
)
from competition.files import sha256_of
from competition.profile import Competition
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
    ask,
    explain_oddity,
)
from competition.upload.waiting import OnWait, follow, follow_others
from competition.upload.wire import is_plain_http

__all__ = [
    "TARGETS",
    "SubmitOptions",
    "SubmitReport",
    "build_submit_tables",
    "count_quota_left",
    "open_ledger",
    "submit",
]

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
    """What the command line says: where to send, and how far to go."""

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
    """Check a submission and send it; with ``wait``, stay until it is scored or rejected.

    Args:
        file: None takes the newest of the competition's submissions; with ``wait`` the newest
            attempt that is not scored yet, if there is one, and sends nothing.
        clock: the current time, with its zone; asked before sending and again after.
        sleep: pauses for some seconds, between attempts and while waiting.
        on_wait: told before each pause how long has been waited, in seconds, and the status.

    Raises:
        UsageError: no such target, or no submission to send, or nothing to wait for.
        SubmissionError: the file breaks a rule; carries every offence.
        QuotaError: no submission is left today.
        DuplicateError: the same bytes went there before, or may have.
        UploadError: the file may not go there, or surely did not arrive; the place is plain http
            and nobody insisted.
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
            find_newest(competition)  # nothing to send or to wait for: said before a file is made
        with attempts.ledger.locked():
            told = job.run(file)
        report = told.report
        if options.wait and told.asks is not None:
            report = follow(attempts, report, told.asks, sleep=sleep, on_wait=on_wait)
        if options.wait and file is None and not told.is_new:
            report = follow_others(attempts, report, told.asks)
        return replace(report, notes=(*report.notes, *map(mask.hide, dict.fromkeys(remarks))))
    except UploadError as error:
        hidden = mask.hide(str(error))
        if hidden == str(error):
            raise
        raise type(error)(hidden) from None


@dataclass(frozen=True)
class _Told:
    """What was done: ``asks`` is the attempt whose scores may be asked for, if any."""

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
        """Refuse, before anything is sent, places where the key would travel in the clear.

        Raises:
            UploadError: there is one, and nobody insisted.
        """
        warnings = self._warn()
        if warnings and not self.options.plain_http:
            raise UploadError(f"{'; '.join(warnings)}; use https, or insist with --plain-http")

    def preview(self, file: Path | None) -> SubmitReport:
        """Tell what would be done, asking nobody."""
        attempts, target = self.attempts, self.attempts.target
        asked = ""
        if self.options.wait and isinstance(target, Scoring):
            asked = f"{target.plan_poll(attempts.competition)}; until it is scored or rejected"
        awaited = self._find_awaited(file)
        if awaited is not None:
            notes = (*self._warn(), *self._tell_awaited(awaited))
            report = self._report(awaited, notes, self._count_left())
            return replace(report, outcome=None, message="", is_pending=False, plan=(asked,))
        submission, remarks = self._read(file)
        earlier = [
            f"the same bytes: {entry.outcome} at {attempts.when(entry)}"
            for entry in attempts.read_same(submission)
        ]
        n_open = sum(entry.outcome == "unknown" for entry in attempts.read())
        if n_open and isinstance(target, Findable):
            earlier.append(f"would ask {target.name} first what became of {n_open} open attempts")
        plan = target.plan(submission, attempts.competition)
        return SubmitReport(
            name=submission.name,
            target=target.name,
            destination=attempts.destination,
            sha256=submission.sha256,
            plan=(*plan, asked) if asked else tuple(plan),
            quota_left=None if isinstance(target, Rationed) else self._count_left(),
            notes=(*remarks, *self._warn(), *earlier),
            file=submission.path,
        )

    def run(self, file: Path | None) -> _Told:
        """Send, or tell what was sent before; the ledger's lock is held."""
        notes = self.attempts.mend()
        awaited = self._find_awaited(file)
        if awaited is not None:
            return self._tell(awaited, (*notes, *self._warn(), *self._tell_awaited(awaited)))
        submission, remarks = self._read(file)
        settled = self.attempts.settle(submission, self.sleep)
        notes = (*remarks, *notes, *self._warn(), *settled.notes)
        if settled.arrived is not None:
            notes = (*notes, "an earlier attempt had arrived; nothing was sent again")
            return self._tell(settled.arrived, notes, submission)
        if not self.options.resend:
            entry = self._find_sent(submission)
            if entry is not None:
                said = f"sent at {self.attempts.when(entry)} already; nothing was sent again"
                return self._tell(entry, (*notes, said), submission)
            self.attempts.check_not_sent(submission)
        left, remark = self._find_left()
        if left == 0:
            raise QuotaError(self._explain_quota(is_told=not remark))
        intent = self.attempts.record_intent(submission)
        receipt = self.attempts.record_answer(intent, self._send(intent, submission))
        if left is not None and receipt.outcome != "refused":
            left -= 1
        entry = self.attempts.read_one(intent)
        report = self._report(entry, (*notes, *remark), left, submission)
        return _Told(report, entry if self.attempts.is_awaited(entry) else None, is_new=True)

    def _read(self, file: Path | None) -> tuple[Submission, tuple[str, ...]]:
        competition = self.attempts.competition
        return read_checked(file or find_newest(competition), competition)

    def _find_awaited(self, file: Path | None) -> Entry | None:
        """Return the newest attempt that is not scored yet, where that is what is asked for."""
        if file is not None or self.options.resend or not self.options.wait:
            return None
        return max(filter(self.attempts.is_open, self.attempts.read()), key=_id_of, default=None)

    def _find_sent(self, submission: Submission) -> Entry | None:
        """Return the attempt with these bytes to ask for scores, an undecided one before others."""
        if not self.options.wait:
            return None
        same = [e for e in self.attempts.read_same(submission) if e.outcome == "sent"]
        undecided = [entry for entry in same if self.attempts.is_open(entry)]
        lacking = [entry for entry in same if self.attempts.list_missing(entry)]
        return max(undecided or lacking or same, key=_id_of, default=None)

    def _tell_awaited(self, entry: Entry) -> tuple[str, ...]:
        """Say whose score is waited for, and which newer file is therefore not sent."""
        said = f"waits for {entry.name}, sent at {self.attempts.when(entry)}; sends nothing"
        try:
            newest = find_newest(self.attempts.competition)
        except UsageError:
            return (said,)
        known = {each.sha256 for each in self.attempts.read() if each.outcome != "failed"}
        return (said,) if sha256_of(newest) in known else (said, f"to send {newest}, name it")

    def _tell(
        self, entry: Entry, notes: tuple[str, ...], submission: Submission | None = None
    ) -> _Told:
        left = None if isinstance(self.attempts.target, Rationed) else self._count_left()
        report = self._report(entry, notes, left, submission)
        return _Told(report, entry if self.attempts.is_awaited(entry) else None)

    def _send(self, intent: int, submission: Submission) -> Receipt:
        """Send once; when the answer is lost, ask at once whether the file arrived.

        Whatever else a platform's client or an odd answer raises is a lost answer too.
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
                raise  # the next run asks what arrived
            said = f"no answer that can be used ({explain_oddity(error)})"
            lost = Receipt(ref=None, message=attempts.mask.quote(said), outcome="unknown")
        if not isinstance(target, Findable):
            advice = f"look at {target.name} whether it arrived; sending again needs --resend"
            return replace(lost, message=f"{lost.message}; {advice}")
        refs = frozenset(entry.ref for entry in attempts.read() if entry.ref is not None)
        sought = Sought(submission.name, submission.sha256, submission.path, refs)
        try:
            found = ask(lambda: target.find(sought, attempts.competition))
        except UploadError:
            found = None
        advice = "submit again and it is asked what arrived"
        return found or replace(lost, message=f"{lost.message}; {advice}")

    def _find_left(self) -> tuple[int | None, tuple[str, ...]]:
        """Return what is left today, from the platform where it tells, and a remark."""
        if not isinstance(self.attempts.target, Rationed):
            return self._count_left(), ()
        target = self.attempts.target
        left = ask(lambda: target.ask_quota(self.attempts.competition))
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
        """Name every address to which something secret would travel in the clear."""
        attempts, target = self.attempts, self.attempts.target
        places = {attempts.destination: "the key and the file travel"}
        if isinstance(target, Scoring) and target.can_poll(attempts.competition):
            places.setdefault(target.poll_url(attempts.competition), "the key travels")
        return tuple(
            f"{place} is no https address: {what} in the clear"
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
        """Tell what became of an attempt; its own file is found where no ``submission`` says it."""
        competition = self.attempts.competition
        return SubmitReport(
            name=entry.name if submission is None else submission.name,
            target=entry.target,
            destination=entry.destination,
            sha256=entry.sha256,
            plan=(),
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
    """Say whether a file here cannot be read or written, which has nothing to do with an answer."""
    is_disk = isinstance(error, OSError) and explain_os_error(error) is not None
    return is_disk or isinstance(error, HarnessError)


def _id_of(entry: Entry) -> int:
    return entry.id


def count_quota_left(
    competition: Competition, ledger: Ledger, target: UploadTarget, now: datetime
) -> int | None:
    """Return how many submissions to a target are left today, None where there is no quota."""
    rules = competition.profile.submission
    if rules.per_day is None or not target.has_quota:
        return None
    used = count_on_day(ledger.read(), now, rules.timezone, target=target.name)
    return max(0, rules.per_day - used)


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
