"""Clean training rows: remove duplicates, and duplicates whose labels conflict.

Runs after corrections and before formats. Only labels of training rows are used; held-out rows are
never removed.

Legend: N rows, n training rows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from competition.arrays import Bools, Ints
from competition.data.rows import ROW_KEY, Rows
from competition.errors import VariantError
from models.settings import CleanSettings

RESULT_VERSION = 1
VERSION_NAME = "models.cleaning"


def clean_rows(
    rows: Rows, train_rows: Ints, negative_id: int | None, settings: CleanSettings
) -> Ints:
    """Remove duplicate and conflicting training rows.

    Rows are duplicates if they share the sentence and both spans (``ROW_KEY``, as in the audit).
    Conflicts are resolved first, then the first of each set of duplicates is kept.

    Args:
        rows: N rows; only those at ``train_rows`` are used.
        train_rows: (n,) row numbers of the training rows of a fold.
        negative_id: id of the negative label, if the competition has one.
        settings: what to do with duplicates and conflicts.

    Returns:
        (at most n,) row numbers, the kept ones of ``train_rows``, in their order.

    Raises:
        VariantError: conflicts = "drop-negative", but there is no negative label.
    """
    if settings.conflicts == "drop-negative" and negative_id is None:
        raise VariantError(
            'clean.conflicts = "drop-negative" needs a negative label and the competition has '
            'none; use "drop-all" or "keep"'
        )
    keys = rows.frame.iloc[train_rows].groupby(list(ROW_KEY), sort=False).ngroup().to_numpy()
    label_ids = rows.gold[train_rows]
    keep = np.ones(len(train_rows), bool)
    if settings.conflicts != "keep":
        keep &= ~_find_conflicts(keys, label_ids, negative_id, settings)
    if settings.duplicates == "drop":
        labelled = pd.DataFrame({"key": keys, "label": label_ids})
        keep &= ~labelled.duplicated().to_numpy()
    return train_rows[keep]


def _find_conflicts(
    keys: Ints, label_ids: Ints, negative_id: int | None, settings: CleanSettings
) -> Bools:
    """Return a mask (n,) of rows to drop: all rows of a conflict, or only the negative ones."""
    labelled = pd.DataFrame({"key": keys, "label": label_ids})
    conflicts: Bools = labelled.groupby("key")["label"].transform("nunique").to_numpy() > 1
    return conflicts if settings.conflicts == "drop-all" else conflicts & (label_ids == negative_id)
