"""Target ``local``: a leaderboard of one's own, for a competition whose solution file is at hand.

The test rows are split once and for all into a public and a private part, by a hash of their ids,
so that neither the order of rows nor another submission moves a row.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from competition.errors import UploadError
from competition.profile import Competition
from competition.submission.answers import Answers
from competition.submission.score import join_solution, score_rows
from competition.upload.target import Receipt, ScoreMap, Sought, Submission, TargetOptions


class LocalTarget:
    """Scores a submission against the profile's solution file."""

    name = "local"
    has_quota = True
    settle_s = 0.0

    def __init__(self, _options: TargetOptions) -> None:
        """Take nothing: the profile says all."""

    def destination(self, competition: Competition) -> str:
        """Return the solution file's name; there must be one."""
        return self._solution_path(competition).name

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Say what is scored."""
        share = competition.profile.upload.local.public_frac
        solution = self._solution_path(competition)
        return [f"score {submission.path} against {solution}, {share:.0%} of the rows in public"]

    def find(self, sought: Sought, competition: Competition) -> Receipt | None:
        """Score the file again, which is what this leaderboard would have answered.

        Of a file that is not at hand nothing was kept, so it did not arrive.
        """
        if sought.path is None:
            return None
        data = sought.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sought.sha256:
            return None
        return self._score(Submission(sought.name, sought.path, data, sought.sha256), competition)

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Score the public and the private part."""
        return self._score(submission, competition)

    def _score(self, submission: Submission, competition: Competition) -> Receipt:
        """Score the checked bytes, whatever stands under the path by now."""
        profile, rules = competition.profile, competition.profile.upload.local
        solution = self._solution_path(competition)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / submission.file_name
            path.write_bytes(submission.data)
            ids, gold, answers = join_solution(path, solution, profile)
        public = split_public(ids, frac=rules.public_frac, seed=rules.seed)

        def score(rows: npt.NDArray[np.bool_]) -> ScoreMap:
            pred, probs = answers.pred[rows], answers.probs[rows]
            part = score_rows(gold[rows], Answers([], [], pred, probs), profile)
            area = None if math.isnan(part.auprc) else part.auprc
            return {"micro_f1": part.micro_f1, "auprc": area}

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
            raise UploadError(f"the solution file {path} is not there")
        return path


def split_public(ids: list[str], *, frac: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which rows (M,) are public; each row's side depends on its id and the seed alone."""
    digests = (hashlib.sha256(f"{seed}:{row_id}".encode()).digest() for row_id in ids)
    points = np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.float64)
    return points < frac * 2.0**64
