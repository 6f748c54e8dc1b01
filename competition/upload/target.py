"""What every place a submission can be sent to has in common.

A target is one small file with one class; ``competition.upload.send`` names them all and is the
only caller. Checks, the ledger and waiting are not a target's business. What only some platforms
can do (be asked what arrived, what is left today, what a file scored) is a protocol of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

from competition.errors import HarnessError, UploadError
from competition.profile import Competition
from competition.upload.masking import Mask
from competition.upload_rules import ScoreFields

ScoreMap = Mapping[str, float | None]
_Told = TypeVar("_Told")


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

    @property
    def file_name(self) -> str:
        """Return the name under which the bytes travel."""
        return f"{self.name}.csv"

    @property
    def description(self) -> str:
        """Return the text by which a platform is asked later whether these bytes arrived."""
        return f"{self.name} {write_tag(self.sha256)}"


@dataclass(frozen=True)
class Sought:
    """An attempt whose outcome nobody knows; ``path`` where its file is at hand.

    ``known_refs`` are what the ledger already knows of that place: those are other attempts.
    """

    name: str
    sha256: str
    path: Path | None = None
    known_refs: frozenset[str] = frozenset()

    @property
    def tag(self) -> str:
        """Return what the attempt's description ends with."""
        return write_tag(self.sha256)


@dataclass(frozen=True)
class Receipt:
    """What a target answered; scores map ``micro_f1`` and ``auprc`` to [0, 1].

    ``outcome`` is ``sent``; ``refused`` when the platform has the file and rejected it; ``unknown``
    when the answer was lost after the upload.
    """

    ref: str | None
    message: str
    public: ScoreMap | None = None
    private: ScoreMap | None = None
    outcome: Literal["sent", "refused", "unknown"] = "sent"


@dataclass(frozen=True)
class Verdict:
    """What a platform says of a file it has."""

    state: Literal["pending", "scored", "rejected"]
    message: str = ""
    public: ScoreMap | None = None
    private: ScoreMap | None = None


@dataclass(frozen=True)
class TargetOptions:
    """What a target is made with; each takes what concerns it.

    ``remark`` takes what a person should read beside the outcome.
    """

    folder: Path | None = None
    mask: Mask = field(default_factory=Mask)
    sleep: Callable[[float], None] = time.sleep
    remark: Callable[[str], None] = lambda _text: None


class LostAnswerError(Exception):
    """The file was sent and no usable answer came: it may have arrived. ``send`` alone raises."""


class RejectedError(Exception):
    """The platform read the file and rejected it. ``send`` alone raises it.

    ``ref`` is set when the platform keeps it as a submission all the same.
    """

    def __init__(self, message: str, ref: str | None = None) -> None:
        super().__init__(message)
        self.ref = ref


class UploadTarget(Protocol):
    """A place to send submissions to.

    ``has_quota``: what is sent counts towards the profile's submissions a day.
    """

    name: str
    has_quota: bool

    def destination(self, competition: Competition) -> str:
        """Return where a file would go, without secrets; UploadError when it cannot go there."""
        ...

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Return what ``send`` would do, step by step, for --dry-run; without key or network."""
        ...

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Send the file once.

        Raises:
            UploadError: it surely did not arrive.
            RejectedError: it arrived and was rejected.
            LostAnswerError: nobody knows.
        """
        ...


@runtime_checkable
class Findable(Protocol):
    """A target that can be asked whether a file arrived.

    ``settle_s``: how long after sending a file that is not there may still turn up.
    """

    settle_s: float

    def find(self, sought: Sought, competition: Competition) -> Receipt | None:
        """Return the receipt of a file that arrived earlier, None when it did not."""
        ...


@runtime_checkable
class Rationed(Protocol):
    """A target that tells its quota itself."""

    def ask_quota(self, competition: Competition) -> int | None:
        """Return how many submissions are left now, None when it does not say."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """A target that can be asked later what a file scored."""

    def can_poll(self, competition: Competition) -> bool:
        """Say whether the profile tells how to ask."""
        ...

    def score_fields(self, competition: Competition) -> ScoreFields:
        """Return which scores it can give, as the profile says."""
        ...

    def poll_url(self, competition: Competition) -> str:
        """Return the address that ``poll`` asks with the key, where ``can_poll``."""
        ...

    def plan_poll(self, competition: Competition) -> str:
        """Return what ``poll`` would do, for --dry-run; without key or network."""
        ...

    def poll(self, ref: str, competition: Competition) -> Verdict:
        """Ask once; UploadError when it cannot be asked."""
        ...


def ask(question: Callable[[], _Told]) -> _Told:
    """Ask a platform; whatever an odd answer runs into means that it cannot be asked.

    Raises:
        UploadError: it cannot be asked.
        HarnessError, OSError: a file of this machine cannot be read.
    """
    try:
        return question()
    except (HarnessError, OSError):
        raise
    except Exception as error:
        raise UploadError(f"the answer cannot be used ({explain_oddity(error)})") from error


def explain_oddity(error: Exception) -> str:
    """Say in a few words what an odd answer ran into; it must pass a ``Mask``."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def write_tag(sha256: str) -> str:
    """Write the mark of some bytes.

    >>> write_tag("abcdef123456")
    '[re:abcdef12]'
    """
    return f"[re:{sha256[:8]}]"
