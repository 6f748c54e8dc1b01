"""The tree of user errors; each message names what was found, where, and what to do.

    HarnessError                 the user can fix it: printed without a traceback, exit code 2
    ├── UsageError               invalid options, or options that do not go together
    ├── ProfileError             a competition file (TOML) is invalid
    ├── CorpusError              rows of a CSV are invalid; holds every offence found
    ├── FoldsError               folds or routes are missing, of other data, unbalanced or leaking
    ├── VariantError             a variant file (TOML) is invalid
    ├── EncoderError             an encoder cannot be loaded or does not fit its tokenizer
    ├── FormatError              a row cannot be turned into a model's input
    ├── DeviceError              a GPU is out of memory, or torch cannot use it
    ├── TrainingError            a fold cannot be trained: the loss is not a number, or the job died
    ├── PretrainingError         text cannot be read, or an encoder cannot be pretrained on it
    ├── StoppedError             stopped by the user or a deadline; its state is kept (exit code 3)
    ├── PredictionsError         stored predictions are missing, incomplete, of other data or
        damaged
    ├── BlendError               members cannot be blended
    ├── SubmissionError          a CSV breaks the leaderboard's rules; holds every offence found
    └── UploadError              a submission was not sent, or must not be
        ├── QuotaError           no submission is left today
        └── DuplicateError       the same file was sent before

Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OFFENCES_SHOWN = 20
_ROOM = "free some space, then run the same command again: finished files are kept"
_RIGHTS = "change its permissions, then run the same command again: finished files are kept"
FIXABLE_ERRNOS: Mapping[int, str] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "the file system does not allow files of this size; give a path on another disk",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "the file system is read-only; give a path on another disk",
    errno.EISDIR: "a file is expected; give another path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; give another path",
    errno.EEXIST: "a file or folder with this name exists; move it, or give another path",
    errno.ENAMETOOLONG: "use a shorter name",
}
"""System errors that the user can fix, and how."""


@dataclass(frozen=True, slots=True)
class Offence:
    """One error in a file: where it is, what was found and what to do."""

    file: str
    line: int | None
    column: str | None
    id: str | None
    found: str
    remedy: str

    def __str__(self) -> str:
        """Format as one line: ``train.csv, line 7, column 'label', id 5: found …; remedy``."""
        place = [self.file]
        if self.line is not None:
            place.append(f"line {self.line}")
        if self.column is not None:
            place.append(f"column {self.column!r}")
        if self.id is not None:
            place.append(f"id {self.id}")
        return f"{', '.join(place)}: {self.found}; {self.remedy}"


def explain_os_error(error: OSError) -> str | None:
    """Return a message with what to do for a system error that the user can fix, else None.

    >>> explain_os_error(OSError(errno.EISDIR, "", "/tmp"))
    '/tmp: Is a directory; a file is expected; give another path'
    """
    if error.errno is None or error.errno not in FIXABLE_ERRNOS:
        return None
    is_named = isinstance(error.filename, str | bytes | os.PathLike)
    where = f"{os.fsdecode(error.filename)}: " if is_named else ""
    return f"{where}{os.strerror(error.errno)}; {FIXABLE_ERRNOS[error.errno]}"


class HarnessError(Exception):
    """An error that the user can fix; the command line prints it without a traceback."""

    exit_code = 2


class UsageError(HarnessError):
    """Invalid options, or options that do not go together."""


class ProfileError(HarnessError):
    """A competition file is invalid."""


class OffencesError(HarnessError):
    """A file has errors; the message lists the first of them, ``offences`` holds all."""

    def __init__(self, summary: str, offences: Sequence[Offence]) -> None:
        self.offences = tuple(offences)
        shown = [f"  {offence}" for offence in self.offences[:OFFENCES_SHOWN]]
        if len(self.offences) > OFFENCES_SHOWN:
            shown.append(f"  … and {len(self.offences) - OFFENCES_SHOWN} more")
        super().__init__("\n".join([summary, *shown]))


class CorpusError(OffencesError):
    """Rows of a CSV are invalid."""


class FoldsError(HarnessError):
    """Folds or routes are missing, of other data, unbalanced or leaking."""


class VariantError(HarnessError):
    """A variant file is invalid."""


class EncoderError(HarnessError):
    """An encoder cannot be loaded or does not fit its tokenizer."""


class FormatError(HarnessError):
    """A row cannot be turned into a model's input."""


class DeviceError(HarnessError):
    """A GPU is out of memory, or torch has no kernels for it."""


class TrainingError(HarnessError):
    """A fold cannot be trained."""


class PretrainingError(HarnessError):
    """Text cannot be read, or an encoder cannot be pretrained on it."""


class StoppedError(HarnessError):
    """Stopped by the user or a deadline; the same command resumes from the kept state."""

    exit_code = 3


class PredictionsError(HarnessError):
    """Stored predictions are missing, incomplete, of other data or damaged."""


class BlendError(HarnessError):
    """Members cannot be blended."""


class SubmissionError(OffencesError):
    """A CSV breaks the leaderboard's rules."""


class UploadError(HarnessError):
    """A submission was not sent, or must not be."""


class QuotaError(UploadError):
    """No submission is left today."""


class DuplicateError(UploadError):
    """The same file was sent before."""
