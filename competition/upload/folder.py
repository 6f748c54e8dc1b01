"""Target ``folder``: copies the checked file, with a receipt, to a folder; the offline default."""

from __future__ import annotations

from pathlib import Path

from competition.files import dump_json, join_inside, sha256_of, write_atomically
from competition.profile import Competition
from competition.upload.target import Receipt, Sought, Submission, TargetOptions


class FolderTarget:
    """Leaves ``<name>-<short hash>.csv`` and its receipt, so that no copy hides another."""

    name = "folder"
    has_quota = False
    settle_s = 0.0

    def __init__(self, options: TargetOptions) -> None:
        """Take --folder."""
        self._folder = options.folder

    def destination(self, competition: Competition) -> str:
        """Return the folder's path: --folder, else ``submissions/<competition>/outbox``."""
        folder = self._folder or competition.submissions_dir / "outbox"
        return str(folder.expanduser().absolute())

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Name the two files that would be written."""
        copy, receipt = self._paths(submission, competition)
        return [f"copy {submission.path} to {copy}", f"write {receipt}"]

    def find(self, sought: Sought, competition: Competition) -> Receipt | None:
        """Look whether the copy and its receipt are there and whole."""
        copy, receipt = self._paths(sought, competition)
        if not receipt.is_file() or not copy.is_file() or sha256_of(copy) != sought.sha256:
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

    def _paths(self, file: Submission | Sought, competition: Competition) -> tuple[Path, Path]:
        stem = f"{file.name}-{file.sha256[:8]}"
        folder = Path(self.destination(competition))
        return join_inside(folder, f"{stem}.csv"), join_inside(folder, f"{stem}.receipt.json")
