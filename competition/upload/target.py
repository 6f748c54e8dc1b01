"""The interface of an upload target.

A target is one small file with one class; ``competition.upload.send`` lists them and is the only
caller. Checks, the ledger and waiting are outside the targets. What only some platforms report
(which files arrived, the remaining quota, scores) is a separate protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeGuard, TypeVar, runtime_checkable

from competition.errors import HarnessError, UploadError
from competition.profile import Competition
from competition.scoring.metrics.metric import MetricKind
from competition.upload.masking import Mask

ScoreMap = Mapping[str, float | None]
_Reply = TypeVar("_Reply")


@dataclass(frozen=True)
class Submission:
    """A checked file; ``data`` is what is sent, even if the file is changed later."""

    name: str
    path: Path
    data: bytes
    sha256: str

    @property
    def short_hash(self) -> str:
        """Return the first eight hex digits of the hash, which identify the bytes."""
        return self.sha256[:8]

    @property
    def file_name(self) -> str:
        """Return the file name to send."""
        return f"{self.name}.csv"

    @property
    def description(self) -> str:
        """Return the description to send, which ends with the file's tag."""
        return f"{self.name} {write_tag(self.sha256)}"


@dataclass(frozen=True)
class UnconfirmedUpload:
    """An upload of unknown outcome; ``path`` is its file, if available.

    ``known_refs`` are the ids of other attempts in the ledger, which are excluded.
    """

    name: str
    sha256: str
    path: Path | None = None
    known_refs: frozenset[str] = frozenset()

    @property
    def tag(self) -> str:
        """Return the tag at the end of the description."""
        return write_tag(self.sha256)


@dataclass(frozen=True)
class ScorePaths:
    """The dotted paths of scores in a platform's answer, by side and metric.

    Attributes:
        kinds: the competition's metrics.
        paths: such as ``public_f1`` → ``scores.public.micro_f1``.
        scale: what the platform calls a full score.
    """

    kinds: tuple[MetricKind, ...]
    paths: Mapping[str, str]
    scale: float = 1.0


@dataclass(frozen=True)
class Receipt:
    """A target's answer; scores by the key of each metric, as the leaderboard shows them.

    ``outcome`` is ``sent``, ``refused`` if the platform rejected the file, or ``unknown`` if the
    answer was lost after the upload.
    """

    ref: str | None
    message: str
    public: ScoreMap | None = None
    private: ScoreMap | None = None
    outcome: Literal["sent", "refused", "unknown"] = "sent"


@dataclass(frozen=True)
class Verdict:
    """A platform's decision on a submission."""

    state: Literal["pending", "scored", "rejected"]
    message: str = ""
    public: ScoreMap | None = None
    private: ScoreMap | None = None


@dataclass(frozen=True)
class TargetOptions:
    """Options for creating a target; each target uses what it needs.

    ``remark`` is called with messages for the user.
    """

    folder: Path | None = None
    mask: Mask = field(default_factory=Mask)
    sleep: Callable[[float], None] = time.sleep
    remark: Callable[[str], None] = lambda _text: None


class LostAnswerError(Exception):
    """The file was sent without a valid answer: it may have arrived. Raised by ``send`` only."""


class RejectedError(Exception):
    """The platform read the file and rejected it. Raised by ``send`` only.

    ``ref`` is set if the platform still counts it as a submission.
    """

    def __init__(self, message: str, ref: str | None = None) -> None:
        super().__init__(message)
        self.ref = ref


class UploadTarget(Protocol):
    """A destination for submissions.

    ``has_quota``: uploads count towards the profile's daily limit.
    """

    name: str
    has_quota: bool

    def destination(self, competition: Competition) -> str:
        """Return the destination without secrets; raise UploadError if it is not configured."""
        ...

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Describe the steps of ``send`` for --dry-run, without key or network."""
        ...

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Send the file once.

        Raises:
            UploadError: it certainly did not arrive.
            RejectedError: it arrived and was rejected.
            LostAnswerError: it may have arrived.
        """
        ...


@runtime_checkable
class Findable(Protocol):
    """A target that reports whether a file arrived.

    ``max_delay_s``: the maximum time between an upload and its appearance, in seconds.
    """

    max_delay_s: float

    def find(self, upload: UnconfirmedUpload, competition: Competition) -> Receipt | None:
        """Return the receipt of a file that arrived earlier, None if it did not arrive."""
        ...


@runtime_checkable
class QuotaReporting(Protocol):
    """A target that reports its quota."""

    def ask_quota(self, competition: Competition) -> int | None:
        """Return the number of submissions left, None if the platform does not say."""
        ...


@runtime_checkable
class Scoring(Protocol):
    """A target that reports scores after the upload."""

    def score_fields(self, competition: Competition) -> ScorePaths:
        """Return the scores that it can report, by the profile."""
        ...

    def poll_url(self, competition: Competition) -> str | None:
        """Return the address to which ``poll`` sends the key; None if it is not configured."""
        ...

    def plan_poll(self, competition: Competition) -> str:
        """Describe the request of ``poll`` for --dry-run, without key or network."""
        ...

    def poll(self, ref: str, competition: Competition) -> Verdict:
        """Request the status once; raise UploadError if that fails."""
        ...


def can_poll(target: UploadTarget, competition: Competition) -> TypeGuard[Scoring]:
    """Return whether a target can report scores."""
    return isinstance(target, Scoring) and target.poll_url(competition) is not None


def ask(question: Callable[[], _Reply]) -> _Reply:
    """Call a request to a platform; turn unexpected exceptions into UploadError.

    Raises:
        UploadError: the request failed.
        HarnessError, OSError: a local file cannot be read.
    """
    try:
        return question()
    except (HarnessError, OSError):
        raise
    except Exception as error:
        raise UploadError(f"the answer is not valid ({describe_error(error)})") from error


def describe_error(error: Exception) -> str:
    """Return an exception's type and message; the text must pass a ``Mask``."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def not_configured(competition: Competition, section: str, keys: str) -> UploadError:
    """Return the error for a target whose section of the profile lacks keys."""
    return UploadError(
        f"the profile {competition.profile.name} does not configure {section}: set {keys} under"
        f" [upload.{section}]"
    )


def write_tag(sha256: str) -> str:
    """Return the tag that identifies a file on a platform.

    >>> write_tag("abcdef123456")
    '[re:abcdef12]'
    """
    return f"[re:{sha256[:8]}]"
