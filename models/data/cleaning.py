"""Which of a fold's training rows are kept: the same row twice, and twins whose labels disagree.

Stands between folds and formats on the way of a row; corrected types (``corrections``) come before
it. It looks at the labels of the rows that it is handed as training rows and at no others, and a
held-out row stays as it is, whatever its twins say.

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
    """Choose the training rows that a model is fitted on.

    Two rows are the same row when they share the sentence and both spans (``ROW_KEY``, as
    ``data`` counts them). Conflicts are settled first, then the first of equal rows is kept.

    Args:
        rows: N rows; only those at ``train_rows`` are looked at.
        train_rows: (n,) row numbers of a fold's training rows.
        negative_id: the negative label's id, if the competition has one.
        settings: what to do about duplicates and conflicts.

    Returns:
        (at most n,) row numbers, those of ``train_rows`` that stay, in their order.

    Raises:
        VariantError: the negative twin is to be dropped where there is no negative label.
    """
    if settings.conflicts == "drop-negative" and negative_id is None:
        raise VariantError(
            'clean.conflicts = "drop-negative" needs a negative label and the competition names '
            'none; use "drop-all" or "keep"'
        )
    keys = rows.frame.iloc[train_rows].groupby(list(ROW_KEY), sort=False).ngroup().to_numpy()
    label_ids = rows.gold[train_rows]
    keep = np.ones(len(train_rows), bool)
    if settings.conflicts != "keep":
        keep &= ~_find_losers(keys, label_ids, negative_id, settings)
    if settings.duplicates == "drop":
        twins = pd.DataFrame({"key": keys, "label": label_ids})
        keep &= ~twins.duplicated().to_numpy()
    return train_rows[keep]


def _find_losers(
    keys: Ints, label_ids: Ints, negative_id: int | None, settings: CleanSettings
) -> Bools:
    """Mark (n,) the rows that lose a conflict: all of its key, or only the negative ones."""
    twins = pd.DataFrame({"key": keys, "label": label_ids})
    clashes: Bools = twins.groupby("key")["label"].transform("nunique").to_numpy() > 1
    return clashes if settings.conflicts == "drop-all" else clashes & (label_ids == negative_id)
