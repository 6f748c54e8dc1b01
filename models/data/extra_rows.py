"""More labelled rows for training, from a CSV of a person's own, and what keeps them fair.

Read beside the corpus, joined to a fold's training rows after ``clean``. An extra row that the
folds would have put together with a held-out row must not teach the model that is scored on it:
such rows are refused, or left out for the folds concerned.

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
    """Read rows in the columns of the train file and check them as train rows are checked.

    Args:
        path: the CSV.
        profile: what it should hold.
        say: hears what was odd but accepted.

    Raises:
        UsageError: there is no such file.
        CorpusError: with every offence.
    """
    if not path.is_file():
        raise UsageError(f"extra_train: {path} is no file; name a CSV with the columns of train")
    reading = read_rows(path, profile, is_train=True)
    if reading.offences:
        raise CorpusError(
            f"{path}: extra rows must be mended before training, or extra_train left out",
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
    """Find the extra rows that may be trained on when a fold is held out.

    Args:
        extra: E rows.
        heldout: H rows of the fold, whatever their route; their labels are not looked at.
        group_by: what ties rows together, as in the profile's folds.
        overlap: refuse rows that are tied to a held-out row, or leave them out.
        file: name of the extra rows' file, for the message.
        fold: the fold that is held out, for the message.

    Returns:
        (at most E,) int64 places in ``extra``, ascending.

    Raises:
        CorpusError: rows are tied to held-out rows and ``overlap`` is "refuse"; names each.
    """
    tied, partners = find_overlap(extra, heldout, group_by)
    if len(tied) and overlap == "refuse":
        what = " or ".join(column.replace("_", " ") for column in group_by)
        remedy = 'take it out, or set extra_overlap = "leave-out"'
        offences = [
            Offence(file, None, None, show_id(id_), f"is tied to held-out row {other}", remedy)
            for id_, other in zip(extra.ids[tied], heldout.ids[partners], strict=True)
        ]
        raise CorpusError(
            f"{file}: {len(tied):,} of {len(extra):,} extra rows share {what} with rows that fold "
            f"{fold} holds out, themselves or through other extra rows; its score would not be "
            "fair. Left out, they still train the folds whose held-out rows they are not tied to",
            offences,
        )
    return np.setdiff1d(np.arange(len(extra)), tied)


def find_overlap(extra: Rows, heldout: Rows, group_by: Sequence[str]) -> tuple[Int64s, Int64s]:
    """Find extra rows in one group with a held-out row, as ``groups.build_groups`` groups.

    Rows are grouped together, so that an extra row is also found when it is tied to a held-out row
    through other extra rows.

    Returns:
        (k,) places in ``extra``, ascending, and (k,) the first held-out row that each is tied to.
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
