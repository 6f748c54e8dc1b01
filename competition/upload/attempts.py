"""The attempts at one place: what the ledger says of them, and what it is told.

Used by ``send`` under the ledger's lock. Before anything is sent, a platform that can be asked says
what became of attempts that a crash or a lost answer left open; what it says passes the mask before
it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from competition.errors import DuplicateError, UploadError
from competition.ledger import Entry, Ledger, Outcome
from competition.profile import Competition
from competition.upload.masking import Mask
from competition.upload.target import (
    Findable,
    Receipt,
    Scoring,
    Sought,
    Submission,
    UploadTarget,
    Verdict,
)

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Settled:
    """What asking about open attempts gave; ``arrived`` is the receipt of the same bytes."""

    notes: tuple[str, ...] = ()
    arrived: Entry | None = None


@dataclass(frozen=True)
class Attempts:
    """The attempts at one target and destination."""

    competition: Competition
    target: UploadTarget
    destination: str
    ledger: Ledger
    clock: Clock
    mask: Mask

    def read(self) -> list[Entry]:
        """Return them all, the oldest first."""
        place = (self.target.name, self.destination)
        return [e for e in self.ledger.read() if (e.target, e.destination) == place]

    def read_same(self, submission: Submission) -> list[Entry]:
        """Return those with the same bytes."""
        return [entry for entry in self.read() if entry.sha256 == submission.sha256]

    def settle(self, submission: Submission) -> Settled:
        """Ask what became of every attempt that is open, and record it.

        Raises:
            UploadError: it cannot be asked, or the same bytes left so lately that they may still
                turn up.
        """
        if not isinstance(self.target, Findable):
            return Settled()
        notes: list[str] = []
        arrived: Entry | None = None
        for entry in [each for each in self.read() if each.outcome == "unknown"]:
            is_same = entry.sha256 == submission.sha256
            receipt = self._find(self.target, entry, submission.path if is_same else None)
            if receipt is not None:
                self.record(entry.id, receipt)
                notes.append(f"{_name(entry)} had arrived: {self.mask.hide(receipt.message)}")
                arrived = self._read_one(entry.id) if is_same else arrived
                continue
            left_s = self.target.settle_s - (self.clock() - entry.time).total_seconds()
            if left_s > 0 and is_same:
                raise UploadError(
                    f"{_name(entry)} is not at {self.target.name} yet, but left so lately that it"
                    f" may still turn up; try again in {left_s:.0f} s"
                )
            if left_s <= 0:
                message = f"{self.target.name} was asked: it did not arrive"
                self._append(entry.id, "failed", None, message)
                notes.append(f"{_name(entry)} did not arrive")
        return Settled(tuple(notes), arrived)

    def find_unscored(self, submission: Submission) -> Entry | None:
        """Return the last attempt with these bytes that arrived and whose score is unknown."""
        same = [e for e in self.read_same(submission) if e.outcome == "sent" and e.ref is not None]
        unscored = [e for e in same if e.public is None and e.private is None]
        return unscored[-1] if unscored else None

    def check_not_sent(self, submission: Submission) -> None:
        """Refuse to send the same bytes twice.

        Raises:
            DuplicateError: they were sent, or may have been, or were rejected.
        """
        for entry in self.read_same(submission):
            if entry.outcome == "sent":
                happened = "were sent"
            elif entry.outcome == "unknown":
                happened = "may have been sent (no answer came)"
            elif entry.outcome == "refused" and entry.ref is not None:
                happened = "were sent and rejected"
            else:
                continue
            hint = "to send them once more, add --resend"
            can_wait = isinstance(self.target, Scoring) and self.target.can_poll(self.competition)
            if can_wait and self.find_unscored(submission) is not None:
                hint += "; for their score, add --wait"
            raise DuplicateError(
                f"these bytes ({submission.short_hash}) {happened} to {entry.target}"
                f" ({entry.destination}) at {entry.time}, as {entry.name}; {hint}"
            )

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
        """Record what came of an attempt; return the receipt as it was recorded, masked."""
        ref = None if receipt.ref is None else self.mask.hide(receipt.ref)
        masked = replace(receipt, ref=ref, message=self.mask.hide(receipt.message))
        self._append(intent, masked.outcome, masked.ref, masked.message)
        if masked.public is not None or masked.private is not None:
            self.ledger.append_score(
                intent, self.clock(), public=masked.public, private=masked.private
            )
        return masked

    def record_failure(self, intent: int, outcome: Outcome, error: UploadError) -> None:
        """Record that an attempt surely did not arrive."""
        self._append(intent, outcome, None, self.mask.hide(str(error)))

    def record_verdict(self, intent: int, ref: str, verdict: Verdict) -> None:
        """Record what a platform decided; nothing while it has not."""
        message = self.mask.hide(verdict.message)
        if verdict.state == "rejected":
            self._append(intent, "refused", ref, message)
        elif verdict.public is not None or verdict.private is not None:
            now = self.clock()
            self.ledger.append_score(intent, now, public=verdict.public, private=verdict.private)
        elif verdict.state == "scored":
            self._append(intent, "sent", ref, message or "done, without a score")

    def _find(self, target: Findable, entry: Entry, path: Path | None) -> Receipt | None:
        refs = frozenset(each.ref for each in self.read() if each.ref is not None)
        sought = Sought(entry.name, entry.sha256, path, refs)
        try:
            return target.find(sought, self.competition)
        except UploadError as error:
            raise type(error)(
                f"what became of {_name(entry)} could not be asked: {error}"
            ) from None

    def _read_one(self, intent: int) -> Entry:
        return next(entry for entry in self.ledger.read() if entry.id == intent)

    def _append(self, intent: int, outcome: Outcome, ref: str | None, message: str) -> None:
        self.ledger.append_receipt(intent, self.clock(), outcome, ref=ref, message=message)


def _name(entry: Entry) -> str:
    return f"the attempt with {entry.name} of {entry.time}"
