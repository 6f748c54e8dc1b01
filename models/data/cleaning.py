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
from competition.scoring.decisions import Negatives
from competition.scoring.metrics.micro_f1 import is_any_of
from models.settings import CleanSettings

RESULT_VERSION = 1
VERSION_NAME = "models.cleaning"


def clean_rows(
    rows: Rows, train_rows: Ints, negative_ids: Negatives, settings: CleanSettings
) -> Ints:
    """Remove duplicate and conflicting training rows.

    Rows are duplicates if they share the sentence and both spans (``ROW_KEY``, as in the audit).
    Conflicts are resolved first, then the first of each set of duplicates is kept.

    Args:
        train_rows: (n,) row numbers of the training rows of a fold.

    Returns:
        (at most n,) row numbers, the kept ones of ``train_rows``, in their order.

    Raises:
        VariantError: conflicts = "drop-negative", but there is no negative label.
    """
    if settings.conflicts == "drop-negative" and not negative_ids:
        raise VariantError(
            'clean.conflicts = "drop-negative" needs a negative label and the competition has '
            'none; use "drop-all" or "keep"'
        )
    keys = rows.frame.iloc[train_rows].groupby(list(ROW_KEY), sort=False).ngroup().to_numpy()
    label_ids = rows.gold[train_rows]
    keep = np.ones(len(train_rows), bool)
    if settings.conflicts != "keep":
        keep &= ~_find_conflicts(keys, label_ids, negative_ids, settings)
    if settings.duplicates == "drop":
        labelled = pd.DataFrame({"key": keys, "label": label_ids})
        keep &= ~labelled.duplicated().to_numpy()
    return train_rows[keep]


def _find_conflicts(
    keys: Ints, label_ids: Ints, negative_ids: Negatives, settings: CleanSettings
) -> Bools:
    """Return a mask (n,) of rows to drop: all rows of a conflict, or only the negative ones.

    Negative rows are dropped only beside a positive one: several negative labels of one key have no
    winner.
    """
    is_negative = is_any_of(label_ids, negative_ids)
    frame = pd.DataFrame({"key": keys, "label": label_ids, "positive": ~is_negative})
    by_key = frame.groupby("key")
    if settings.conflicts == "drop-all":
        conflicts: Bools = by_key["label"].transform("nunique").to_numpy() > 1
    else:
        conflicts = is_negative & by_key["positive"].transform("any").to_numpy(bool)
    return conflicts
