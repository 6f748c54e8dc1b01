"""Extra labelled training rows from a user's CSV, and the check that they leak no held-out row.

Added to the training rows of a fold after cleaning. An extra row in the same group as a held-out
row must not train the model that is scored on that row: such rows are refused, or left out of the
folds concerned.

Legend: E extra rows, H held-out rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from competition.arrays import Int64s
from competition.data.corpus import read_rows
from competition.data.csv_records import show_id
from competition.data.groups import build_groups
from competition.data.rows import Rows, join_rows
from competition.errors import CorpusError, Offence, UsageError
from competition.profile import Profile

RESULT_VERSION = 1
VERSION_NAME = "models.extra"


def read_extra_rows(
    path: Path, profile: Profile, *, say: Callable[[str], None] | None = None
) -> Rows:
    """Read a CSV with the columns of the train file, with the same checks.

    Raises:
        UsageError: the file does not exist.
        CorpusError: lists every error in the file.
    """
    if not path.is_file():
        raise UsageError(
            f"extra_train: {path} does not exist; name a CSV with the columns of the train file"
        )
    reading = read_rows(path, profile, is_train=True)
    if reading.offences:
        raise CorpusError(
            f"{path}: correct these extra rows, or remove extra_train",
            reading.offences,
        )
    for notice in reading.notices:
        if say is not None:
            say(str(notice))
    return reading.rows


def check_extra(
    extra: Rows,
    heldout: Rows,
    group_by: Sequence[str],
    *,
    overlap: Literal["refuse", "leave-out"],
    file: str,
    fold: int,
) -> Int64s:
    """Return the extra rows that may be trained on when a fold is held out.

    Args:
        extra: E rows.
        heldout: H rows of the fold, of all routes; their labels are not used.
        group_by: columns that define groups, as in the profile's folds.
        overlap: refuse rows that share a group with a held-out row, or leave them out.
        file: name of the file of extra rows, for the message.
        fold: the held-out fold, for the message.

    Returns:
        (at most E,) int64 indices into ``extra``, ascending.

    Raises:
        CorpusError: rows share a group with held-out rows and ``overlap`` is "refuse"; lists them.
    """
    tied, partners = find_overlap(extra, heldout, group_by)
    if len(tied) and overlap == "refuse":
        what = " or ".join(column.replace("_", " ") for column in group_by)
        remedy = 'remove it, or set extra_overlap = "leave-out"'
        offences = [
            Offence(file, None, None, show_id(id_), f"shares a group with row {other}", remedy)
            for id_, other in zip(extra.ids[tied], heldout.ids[partners], strict=True)
        ]
        raise CorpusError(
            f"{file}: {len(tied):,} of {len(extra):,} extra rows share {what} with held-out rows "
            f"of fold {fold}, directly or through other extra rows: training on them would leak "
            "labels and inflate the score. With leave-out, each still trains the other folds",
            offences,
        )
    return np.setdiff1d(np.arange(len(extra)), tied)


def find_overlap(extra: Rows, heldout: Rows, group_by: Sequence[str]) -> tuple[Int64s, Int64s]:
    """Find extra rows that share a group (``groups.build_groups``) with a held-out row.

    Groups are connected components, so rows linked through other extra rows are found too.

    Returns:
        (k,) indices into ``extra``, ascending, and (k,) the first held-out row of each one's group.
    """
    groups = build_groups(join_rows(_unlabelled(extra), _unlabelled(heldout)), group_by)
    own, theirs = groups[: len(extra)], groups[len(extra) :]
    first_of = np.full(int(groups.max(initial=-1)) + 1, -1, np.int64)
    present, first = np.unique(theirs, return_index=True)
    first_of[present] = first
    partners = first_of[own]
    tied = np.flatnonzero(partners >= 0)
    return tied, partners[tied]


def _unlabelled(rows: Rows) -> Rows:
    return Rows(rows.frame, None)
