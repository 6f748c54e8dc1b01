"""Target ``local``: a local leaderboard for a competition whose solution file is available.

The test rows are split into a public and a private part by a hash of their ids, so that the split
depends neither on the order of the rows nor on other submissions.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.errors import UploadError
from competition.profile import Competition
from competition.submission.answers import Answers
from competition.submission.form import read_lines
from competition.submission.score import join_solution, score_rows
from competition.upload.target import (
    Receipt,
    ScoreMap,
    Submission,
    TargetOptions,
    UnconfirmedUpload,
)


class LocalTarget:
    """Score a submission against the profile's solution file."""

    name = "local"
    has_quota = True
    max_delay_s = 0.0

    def __init__(self, _options: TargetOptions) -> None:
        """Ignore the options: the profile has all settings."""

    def destination(self, competition: Competition) -> str:
        """Return the name of the solution file, which must exist."""
        return self._solution_path(competition).name

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Describe what would be scored."""
        share = competition.profile.upload.local.public_frac
        solution = self._solution_path(competition)
        return [f"score {submission.path} against {solution}, {share:.0%} of the rows in public"]

    def find(self, upload: UnconfirmedUpload, competition: Competition) -> Receipt | None:
        """Score the file again, which gives the same answer.

        If the file is not available, report that it did not arrive: nothing was stored.
        """
        if upload.path is None:
            return None
        data = upload.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != upload.sha256:
            return None
        return self._score(Submission(upload.name, upload.path, data, upload.sha256), competition)

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Score the public and the private part of the test rows."""
        return self._score(submission, competition)

    def _score(self, submission: Submission, competition: Competition) -> Receipt:
        """Score the checked bytes; the file itself may have changed since."""
        profile, rules = competition.profile, competition.profile.upload.local
        solution = self._solution_path(competition)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / submission.file_name
            path.write_bytes(submission.data)
            lines = read_lines(competition)
            ids, gold, answers = join_solution(path, solution, profile, lines)
        public = split_public(ids, frac=rules.public_frac, seed=rules.seed)

        def score(rows: npt.NDArray[np.bool_]) -> ScoreMap | None:
            if not rows.any():
                return None  # with few rows, chance may leave a part empty
            pred, probs = answers.pred[rows], answers.probs[rows]
            part = Answers([], [], pred, probs, answers.has_probs)
            return score_rows(gold[rows], part, profile).values

        n_public, n_private = int(public.sum()), int((~public).sum())
        return Receipt(
            ref=submission.short_hash,
            message=f"scored on {n_public:,} public and {n_private:,} private rows",
            public=score(public),
            private=score(~public),
        )

    def _solution_path(self, competition: Competition) -> Path:
        path = competition.solution_path
        if path is None:
            raise UploadError(
                f"{competition.profile.name} has no solution file (files.solution in its profile),"
                " so there is no local leaderboard; use --to folder"
            )
        if not path.is_file():
            raise UploadError(f"there is no solution file {path}")
        return path


def split_public(ids: list[str], *, frac: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return a mask (M,) of the public rows, which depends only on each row's id and the seed."""
    digests = (hashlib.sha256(f"{seed}:{row_id}".encode()).digest() for row_id in ids)
    points = np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.float64)
    return points < frac * 2.0**64
