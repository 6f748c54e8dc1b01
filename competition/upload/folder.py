"""Target ``folder``: copies the checked file and a receipt to a folder; the offline default."""

from __future__ import annotations

from pathlib import Path

from competition.files import dump_json, join_inside, sha256_of, write_atomically
from competition.profile import Competition
from competition.upload.target import Receipt, Submission, TargetOptions, UnconfirmedUpload


class FolderTarget:
    """Write ``<name>-<short hash>.csv`` and a receipt; copies never overwrite one another."""

    name = "folder"
    has_quota = False
    max_delay_s = 0.0

    def __init__(self, options: TargetOptions) -> None:
        """Store --folder."""
        self._folder = options.folder

    def destination(self, competition: Competition) -> str:
        """Return the folder's path: --folder, else ``submissions/<competition>/outbox``."""
        folder = self._folder or competition.submissions_dir / "outbox"
        return str(folder.expanduser().absolute())

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Describe the two files that would be written."""
        copy, receipt = self._paths(submission, competition)
        return [f"copy {submission.path} to {copy}", f"write {receipt}"]

    def find(self, upload: UnconfirmedUpload, competition: Competition) -> Receipt | None:
        """Return a receipt if the copy is complete and its receipt exists."""
        copy, receipt = self._paths(upload, competition)
        if not receipt.is_file() or not copy.is_file() or sha256_of(copy) != upload.sha256:
            return None
        return Receipt(ref=copy.name, message=f"copied to {copy}")

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Copy the file, then write its receipt."""
        copy, receipt = self._paths(submission, competition)
        write_atomically(copy, submission.data)
        facts = {
            "competition": competition.name,
            "name": submission.name,
            "file": copy.name,
            "sha256": submission.sha256,
            "bytes": len(submission.data),
        }
        write_atomically(receipt, dump_json(facts))
        return Receipt(ref=copy.name, message=f"copied to {copy}")

    def _paths(
        self, file: Submission | UnconfirmedUpload, competition: Competition
    ) -> tuple[Path, Path]:
        stem = f"{file.name}-{file.sha256[:8]}"
        folder = Path(self.destination(competition))
        return join_inside(folder, f"{stem}.csv"), join_inside(folder, f"{stem}.receipt.json")
