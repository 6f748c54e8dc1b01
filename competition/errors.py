"""Every error a person can meet, drawn as a tree; each says what was found, where, and what to do.

    HarnessError                 a person can mend it: printed without a traceback, exit code 2
    ├── UsageError               a command was asked for what it cannot give
    ├── ProfileError             a competition file (TOML) does not describe a competition
    ├── CorpusError              rows of a CSV cannot be used; carries every offence found
    ├── FoldsError               folds or routes are missing, foreign, unfair or leaking
    ├── VariantError             a variant file (TOML) does not describe a variant
    ├── EncoderError             an encoder cannot be loaded or does not fit its tokenizer
    ├── FormatError              a row cannot be turned into a model's input
    ├── DeviceError              a GPU refuses: its memory is full, or torch cannot use it
    ├── TrainingError            a fold cannot be trained: the loss is not a number, or the job died
    ├── PretrainingError         text cannot be read, or an encoder cannot be pretrained on it
    ├── StoppedError             a person or a deadline stopped it; its state is kept (exit code 3)
    ├── PredictionsError         stored predictions are missing, partial, foreign or damaged
    ├── BlendError               members cannot be blended
    ├── SubmissionError          a CSV breaks the leaderboard's rules; carries every offence found
    └── UploadError              a submission was not, or may not be, sent
        ├── QuotaError           no submission is left today
        └── DuplicateError       the same bytes were sent before

Everything else that is raised is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OFFENCES_SHOWN = 20
_ROOM = "make room, then run the same command again: finished files are kept"
_RIGHTS = "give yourself the right to it, then run the same command again: finished files are kept"
MENDABLE_ERRNOS: Mapping[int, str] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "larger files than that do not fit there; name a place on another disk",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "nothing can be written there; name a place on another disk",
    errno.EISDIR: "a file is needed there; name another path",
    errno.ENOTDIR: "something on the way there is a file, not a folder; name another path",
    errno.EEXIST: "what stands there is in the way; move it, or name another path",
    errno.ENAMETOOLONG: "take a shorter name",
}
"""What a system may refuse and a person can mend, and how."""


@dataclass(frozen=True, slots=True)
class Offence:
    """One thing found wrong in a file: where it stands, what it is and what to do."""

    file: str
    line: int | None
    column: str | None
    id: str | None
    found: str
    remedy: str

    def __str__(self) -> str:
        """Render as one line: ``train.csv, line 7, column 'label', id 5: found …; remedy``."""
        place = [self.file]
        if self.line is not None:
            place.append(f"line {self.line}")
        if self.column is not None:
            place.append(f"column {self.column!r}")
        if self.id is not None:
            place.append(f"id {self.id}")
        return f"{', '.join(place)}: {self.found}; {self.remedy}"


def explain_os_error(error: OSError) -> str | None:
    """Say what the system refused and what to do, if a person can mend it.

    >>> explain_os_error(OSError(errno.EISDIR, "", "/tmp"))
    '/tmp: Is a directory; a file is needed there; name another path'
    """
    if error.errno is None or error.errno not in MENDABLE_ERRNOS:
        return None
    is_named = isinstance(error.filename, str | bytes | os.PathLike)
    where = f"{os.fsdecode(error.filename)}: " if is_named else ""
    return f"{where}{os.strerror(error.errno)}; {MENDABLE_ERRNOS[error.errno]}"


class HarnessError(Exception):
    """A person can mend this; the command line prints it without a traceback."""

    exit_code = 2


class UsageError(HarnessError):
    """A command was asked for what it cannot give."""


class ProfileError(HarnessError):
    """A competition file does not describe a competition."""


class OffencesError(HarnessError):
    """A file holds offences; the message lists the first of them, ``offences`` holds all."""

    def __init__(self, summary: str, offences: Sequence[Offence]) -> None:
        self.offences = tuple(offences)
        shown = [f"  {offence}" for offence in self.offences[:OFFENCES_SHOWN]]
        if len(self.offences) > OFFENCES_SHOWN:
            shown.append(f"  … and {len(self.offences) - OFFENCES_SHOWN} more")
        super().__init__("\n".join([summary, *shown]))


class CorpusError(OffencesError):
    """Rows of a CSV cannot be used."""


class FoldsError(HarnessError):
    """Folds or routes are missing, foreign, unfair or leaking."""


class VariantError(HarnessError):
    """A variant file does not describe a variant."""


class EncoderError(HarnessError):
    """An encoder cannot be loaded or does not fit its tokenizer."""


class FormatError(HarnessError):
    """A row cannot be turned into a model's input."""


class DeviceError(HarnessError):
    """A GPU refuses: its memory is full, or torch has no kernels for it."""


class TrainingError(HarnessError):
    """A fold cannot be trained."""


class PretrainingError(HarnessError):
    """Text cannot be read, or an encoder cannot be pretrained on it."""


class StoppedError(HarnessError):
    """A person or a deadline stopped it; its state is kept, and the same command goes on."""

    exit_code = 3


class PredictionsError(HarnessError):
    """Stored predictions are missing, partial, foreign or damaged."""


class BlendError(HarnessError):
    """Members cannot be blended."""


class SubmissionError(OffencesError):
    """A CSV breaks the leaderboard's rules."""


class UploadError(HarnessError):
    """A submission was not, or may not be, sent."""


class QuotaError(UploadError):
    """No submission is left today."""


class DuplicateError(UploadError):
    """The same bytes were sent before."""
