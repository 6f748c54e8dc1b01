"""What every place a submission can be sent to has in common.

A target is one small file with one class; ``competition.upload.send`` names them all and is the
only caller. Checks, quota and the ledger are not a target's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from competition.profile import Competition
from competition.score import Scores


@dataclass(frozen=True)
class Submission:
    """A checked file: what is sent are these bytes, whatever happens to the path meanwhile."""

    name: str
    path: Path
    data: bytes
    sha256: str

    @property
    def short_hash(self) -> str:
        """Return the eight hex digits that let a person or a platform recognise the bytes."""
        return self.sha256[:8]


@dataclass(frozen=True)
class Receipt:
    """What a target answered.

    ``outcome`` is ``sent``; ``refused`` when the platform has the file and rejected it; ``unknown``
    when the answer was lost after the upload.
    """

    ref: str | None
    message: str
    public: Scores | None = None
    private: Scores | None = None
    outcome: Literal["sent", "refused", "unknown"] = "sent"


@dataclass(frozen=True)
class TargetOptions:
    """What the command line says about a target; each takes what concerns it."""

    folder: Path | None = None


class UploadTarget(Protocol):
    """A place to send submissions to.

    ``can_find``: it can be asked whether a file arrived.
    ``has_quota``: what is sent counts towards the profile's submissions a day.
    """

    name: str
    can_find: bool
    has_quota: bool

    def destination(self, competition: Competition) -> str:
        """Return where a file would go, without secrets; UploadError when it cannot go there."""
        ...

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Return what ``send`` would do, step by step, for --dry-run; secrets masked."""
        ...

    def find(self, submission: Submission, competition: Competition) -> Receipt | None:
        """Return the receipt of a file that arrived earlier, None when it did not."""
        ...

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Send the file; UploadError when it surely did not arrive."""
        ...
