"""Upload attempts at one destination, read from and recorded in the ledger.

Used by ``send`` under the ledger's lock. Before anything is sent, a platform that supports it is
asked for the outcome of attempts that a crash or a lost answer left open. Its messages pass the
mask before they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from competition.errors import DuplicateError, UploadError
from competition.profile import Competition
from competition.submission.ledger import (
    Entry,
    Ledger,
    Outcome,
    Record,
    build_receipt,
    build_score,
    dump_record,
    format_time,
)
from competition.submission.ledger_damage import describe_damage
from competition.upload.masking import Mask
from competition.upload.scores import list_missing, merge_scores
from competition.upload.target import (
    Findable,
    Receipt,
    Scoring,
    Submission,
    UnconfirmedUpload,
    UploadTarget,
    Verdict,
    ask,
    can_poll,
)

Clock = Callable[[], datetime]
HAPPENED = {"sent": "WAS sent", "unknown": "may have been sent", "refused": "was sent and rejected"}


@dataclass(frozen=True)
class Reconciled:
    """The result of checking open attempts; ``arrived`` is an attempt with the same bytes."""

    notes: tuple[str, ...] = ()
    arrived: Entry | None = None


@dataclass(frozen=True)
class Attempts:
    """The upload attempts at one target and destination."""

    competition: Competition
    target: UploadTarget
    destination: str
    ledger: Ledger
    clock: Clock
    mask: Mask

    def read(self) -> list[Entry]:
        """Return all attempts, oldest first."""
        place = (self.target.name, self.destination)
        return [e for e in self.ledger.read() if (e.target, e.destination) == place]

    def read_same(self, submission: Submission) -> list[Entry]:
        """Return the attempts with the same bytes."""
        return [entry for entry in self.read() if entry.sha256 == submission.sha256]

    def reconcile(self, submission: Submission, sleep: Callable[[float], None]) -> Reconciled:
        """Request the outcome of every open attempt from the platform, and record it.

        An attempt dated in the future was made before the clock was set back, so its age is
        unknown: wait for ``max_delay_s``, then ask again.

        Raises:
            UploadError: the platform cannot be asked, or the same bytes were sent so recently that
                they may still appear.
        """
        if not isinstance(self.target, Findable):
            return Reconciled()
        notes: list[str] = []
        arrived: Entry | None = None
        for entry in [each for each in self.read() if each.outcome == "unknown"]:
            is_same = entry.sha256 == submission.sha256
            path = submission.path if is_same else None
            receipt = self._find(self.target, entry, path)
            age_s = (self.clock() - entry.time).total_seconds()
            if receipt is None and age_s < 0:
                sleep(self.target.max_delay_s)
                receipt, age_s = self._find(self.target, entry, path), self.target.max_delay_s
            if receipt is not None:
                self.record(entry.id, receipt)
                said = self.mask.hide(receipt.message)
                notes.append(f"{self.name(entry)} had arrived: {said}")
                arrived = self.read_one(entry.id) if is_same else arrived
                continue
            left_s = self.target.max_delay_s - age_s
            if left_s > 0 and is_same:
                raise UploadError(
                    f"{self.name(entry)} is not at {self.target.name} yet, but is so recent that"
                    " it may"
                    f" still appear; try again in {left_s:.0f} s"
                )
            if left_s <= 0:
                message = f"{self.target.name} reports that it did not arrive"
                self._append(entry.id, "failed", None, message)
                notes.append(f"{self.name(entry)} did not arrive")
        return Reconciled(tuple(notes), arrived)

    def can_ask(self, entry: Entry) -> bool:
        """Return whether a file arrived and the platform can be asked for its scores."""
        has_arrived = entry.outcome == "sent" and entry.ref is not None
        return has_arrived and can_poll(self.target, self.competition)

    def is_open(self, entry: Entry) -> bool:
        """Return whether a file arrived and the platform will report a decision later."""
        return self.can_ask(entry) and not entry.is_decided

    def is_on_page(self, entry: Entry) -> bool:
        """Return whether a file arrived and its score can only be read on a web page."""
        is_undecided = entry.outcome == "sent" and not entry.is_decided
        return is_undecided and not can_poll(self.target, self.competition)

    def list_missing(self, entry: Entry) -> tuple[str, ...]:
        """Return the names of scores that the platform can report and has not reported."""
        if not self.can_ask(entry) or not isinstance(self.target, Scoring):
            return ()
        fields = self.target.score_fields(self.competition)
        return list_missing(entry.public, entry.private, fields)

    def is_awaited(self, entry: Entry) -> bool:
        """Return whether a decision or a score of an attempt is missing."""
        return self.is_open(entry) or bool(self.list_missing(entry))

    def check_not_sent(self, submission: Submission) -> None:
        """Refuse to send the same bytes twice.

        Raises:
            DuplicateError: they were sent, may have been sent, or were rejected.
        """
        for damaged in self.ledger.read_damaged():
            if damaged.may_name(submission.sha256):
                raise DuplicateError(
                    f"these bytes ({submission.short_hash}) may have been sent: {self.ledger.path},"
                    f" {damaged.describe()}, and it may be the record of it; restore the line from"
                    " a backup, remove it if you know what it said, or add --resend"
                )
        for entry in self.read_same(submission):
            if entry.outcome == "sent":
                happened = "were sent"
            elif entry.outcome == "unknown":
                happened = "may have been sent (no answer came)"
            elif entry.outcome == "refused" and entry.ref is not None:
                happened = "were sent and rejected"
            else:
                continue
            hint = "to send them again, add --resend"
            if any(self.is_awaited(each) for each in self.read_same(submission)):
                hint += "; for their score, add --wait"
            raise DuplicateError(
                f"these bytes ({submission.short_hash}) {happened} to {entry.target}"
                f" ({entry.destination}) at {self.when(entry)}, as {entry.name}; {hint}"
            )

    def repair(self) -> tuple[str, ...]:
        """Move an incomplete last line of the ledger to a file, under its lock; return notes."""
        aside = self.ledger.repair()
        said = describe_damage(self.ledger.read_damaged(), str(self.ledger.path))
        notes = (f"the ledger's incomplete last line was moved to {aside}",) if aside else ()
        return (*notes, said) if said else notes

    def record_intent(self, submission: Submission) -> int:
        """Record that a file is about to be sent; return the attempt's id."""
        fields = {
            "target": self.target.name,
            "destination": self.destination,
            "name": submission.name,
            "sha256": submission.sha256,
            "bytes": len(submission.data),
        }
        return self.ledger.append_intent(self.clock(), fields)

    def record(self, intent: int, receipt: Receipt) -> Receipt:
        """Record the outcome of an attempt; return the masked receipt that was recorded."""
        masked = self._mask(receipt)
        self.ledger.append(*self._build_records(intent, masked))
        return masked

    def record_answer(self, intent: int, receipt: Receipt) -> Receipt:
        """Record the outcome of an upload that was just made, as ``record`` does.

        Raises:
            UploadError: the ledger cannot be written; the message says what happened to the file.
        """
        try:
            return self.record(intent, receipt)
        except OSError as error:
            entry, masked = self.read_one(intent), self._mask(receipt)
            remedy = "run the same command again: it checks what arrived and records it"
            if not isinstance(self.target, Findable):
                records = self._build_records(intent, masked)
                lines = "\n".join(dump_record(record) for record in records)
                remedy = f"add this at the end of {self.ledger.path}:\n{lines}"
            raise UploadError(
                f"{entry.name} {HAPPENED[masked.outcome]} to {entry.target} ({masked.message}),"
                f" but the ledger could not be written: {error.strerror or error}; do not use"
                f" --resend; free some disk space, then {remedy}"
            ) from None

    def record_failure(self, intent: int, outcome: Outcome, error: UploadError) -> None:
        """Record that an attempt certainly did not arrive.

        Raises:
            UploadError: the ledger cannot be written either; the same class as ``error``.
        """
        try:
            self._append(intent, outcome, None, self.mask.hide(str(error)))
        except OSError as full:
            raise type(error)(
                f"{error}; nothing arrived, but the ledger could not be written"
                f" ({full.strerror or full}): free some disk space, then send it with --resend"
            ) from None

    def record_verdict(self, intent: int, verdict: Verdict) -> Entry:
        """Record what is new in a platform's decision; return the updated attempt."""
        entry, message = self.read_one(intent), self.mask.hide(verdict.message)
        if verdict.state == "rejected":
            self._append(intent, "refused", entry.ref, message)
        elif verdict.state == "scored":
            public = merge_scores(entry.public, verdict.public)
            private = merge_scores(entry.private, verdict.private)
            records: list[Record] = []
            message = message or "done, without a score"
            if public is None and private is None and message != entry.message:
                records.append(
                    build_receipt(intent, self.clock(), "sent", ref=entry.ref, message=message)
                )
            if not entry.is_decided or (public, private) != (entry.public, entry.private):
                records.append(build_score(intent, self.clock(), public=public, private=private))
            self.ledger.append(*records)
        return self.read_one(intent)

    def read_one(self, intent: int) -> Entry:
        """Return the attempt with an id."""
        return next(entry for entry in self.ledger.read() if entry.id == intent)

    def when(self, entry: Entry) -> str:
        """Format the time of an attempt in the leaderboard's time zone."""
        return format_time(entry.time, self.competition.profile.submission.timezone)

    def name(self, entry: Entry) -> str:
        """Return a name for an attempt, for messages."""
        return f"the upload of {entry.name} at {self.when(entry)}"

    def _mask(self, receipt: Receipt) -> Receipt:
        ref = None if receipt.ref is None else self.mask.hide(receipt.ref)
        return replace(receipt, ref=ref, message=self.mask.hide(receipt.message))

    def _build_records(self, intent: int, masked: Receipt) -> list[Record]:
        now = self.clock()
        records = [
            build_receipt(intent, now, masked.outcome, ref=masked.ref, message=masked.message)
        ]
        if masked.public is not None or masked.private is not None:
            score = build_score(intent, now, public=masked.public, private=masked.private)
            records.append(score)
        return records

    def _find(self, target: Findable, entry: Entry, path: Path | None) -> Receipt | None:
        refs = frozenset(each.ref for each in self.read() if each.ref is not None)
        upload = UnconfirmedUpload(entry.name, entry.sha256, path, refs)
        try:
            return ask(lambda: target.find(upload, self.competition))
        except UploadError as error:
            raise type(error)(
                f"the outcome of {self.name(entry)} could not be checked: {error}"
            ) from None

    def _append(self, intent: int, outcome: Outcome, ref: str | None, message: str) -> None:
        self.ledger.append_receipt(intent, self.clock(), outcome, ref=ref, message=message)
