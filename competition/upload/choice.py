"""Choose the file to send, the one named or the newest, and check it.

Used by ``send`` to find submissions that ``blend`` wrote.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from competition.errors import Offence, UploadError, UsageError
from competition.files import check_name, join_inside, sha256_of
from competition.profile import Competition
from competition.submission.check import check_submission
from competition.submission.ledger import Entry
from competition.submission.record import list_submissions, when_written
from competition.upload.target import Submission


def find_newest(competition: Competition) -> Path:
    """Return the newest submission, by the time in its ``.run.json`` or else its modification time.

    Hidden files, such as those of editors, are ignored.

    Raises:
        UsageError: there is no submission.
    """
    files = _list_files(competition)
    if not files:
        folder = competition.submissions_dir
        raise UsageError(f"{folder} holds no submission; run: python run.py blend")
    return max(files, key=when_written)


def _list_files(competition: Competition) -> list[Path]:
    return [path for path in list_submissions(competition.submissions_dir) if path.is_file()]


def _warn_of_newer(path: Path, competition: Competition) -> tuple[str, ...]:
    """Return a remark if the files' modification times name another newest submission."""
    files = _list_files(competition)
    if path not in files or path != max(files, key=when_written):
        return ()
    latest = max(files, key=lambda each: each.stat().st_mtime_ns)
    if latest.stat().st_mtime_ns <= path.stat().st_mtime_ns:
        return ()
    return (
        f"remark: {path.name} is the newest by the time that blend recorded, but {latest.name} was"
        " modified last (was a clock set back, or a file copied?); name the one that you mean",
    )


def find_file(competition: Competition, entry: Entry) -> Path | None:
    """Return the file that an attempt sent, None if it is gone or has changed."""
    path = join_inside(competition.submissions_dir, f"{entry.name}.csv")
    return path if path.is_file() and sha256_of(path) == entry.sha256 else None


def read_checked(
    path: Path, competition: Competition, target: str | None = None
) -> tuple[Submission, tuple[str, ...]]:
    """Read and check a submission; return it with remarks.

    Raises:
        UsageError: there is no such file, or its name is not valid for a submission.
        SubmissionError: the file breaks rules; carries every offence.
        UploadError: the file changed after it was checked.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    name = check_name(path.stem)
    checked = check_submission(path, competition, target=target)
    checked.raise_offences()
    data = path.read_bytes()
    submission = Submission(name, path, data, hashlib.sha256(data).hexdigest())
    if submission.sha256 != checked.sha256:
        raise UploadError(f"{path} changed while it was checked; try again when it is complete")
    remarks = tuple(_shorten(remark) for remark in checked.remarks)
    return submission, (*remarks, *_warn_of_newer(path, competition))


def _shorten(remark: Offence) -> str:
    return f"remark: {remark.found} ({remark.remedy})"
