"""Labels and groups → folds, by arithmetic alone; ``folds`` keeps what is dealt here on disk.

Legend: N train rows, K folds, G groups.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd

from competition.arrays import Int16s
from competition.data.groups import Int32s
from competition.errors import FoldsError

_ROUNDS_KEPT = 4

Int8s = npt.NDArray[np.int8]


def build_folds(label_ids: Int16s, groups: Int32s, *, count: int, seed: int) -> Int8s:
    """Deal groups to folds so that every label is spread evenly.

    Groups with the same labels are alike: whole rounds of K of them are dealt one to each fold,
    and scikit-learn's StratifiedGroupKFold deals what is left, several rounds of each kind among
    it. Its loop over groups alone takes minutes on millions of rows.

    Args:
        label_ids: (N,) label of each row.
        groups: (N,) group of each row, in [0, G).
        count: K.
        seed: of the shuffling.

    Returns:
        (N,) int8 fold of each row.

    Raises:
        FoldsError: the rows cannot fill K folds.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    if n_groups < count:
        raise FoldsError(
            f"{len(groups):,} train rows in {n_groups:,} groups cannot fill {count} folds; set "
            "folds.count lower in the profile, or give more rows"
        )
    fold_of_group = _deal_rounds(_sign_groups(label_ids, groups, n_groups), count, seed)
    is_left = fold_of_group[groups] < 0
    fold_of = fold_of_group[groups]
    fold_of[is_left] = _split_grouped(label_ids[is_left], groups[is_left], count, seed)
    if len(np.unique(fold_of)) < count:
        raise FoldsError(f"the train rows leave one of {count} folds empty; set folds.count lower")
    return fold_of


def _sign_groups(label_ids: Int16s, groups: Int32s, n_groups: int) -> npt.NDArray[np.uint64]:
    """Return (G,) signatures, equal where groups hold the same labels equally often."""
    bits = np.random.default_rng(0).integers(2**64, size=int(label_ids.max()) + 1, dtype=np.uint64)
    by_group = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[by_group], np.arange(n_groups))
    return np.asarray(np.add.reduceat(bits[label_ids[by_group]], starts), dtype=np.uint64)


def _deal_rounds(signatures: npt.NDArray[np.uint64], count: int, seed: int) -> Int8s:
    """Return the (G,) fold of each group dealt in a whole round, -1 for those left."""
    shuffled = np.random.default_rng(seed).permutation(len(signatures))
    alike = pd.Series(signatures[shuffled])
    place = alike.groupby(alike).cumcount().to_numpy()
    total = alike.map(alike.value_counts()).to_numpy()
    dealt = np.maximum(total // count - _ROUNDS_KEPT, 0) * count
    folds = np.full(len(signatures), -1, dtype=np.int8)
    folds[shuffled] = np.where(place < dealt, place % count, -1)
    return folds


def _split_grouped(label_ids: Int16s, groups: Int32s, count: int, seed: int) -> Int8s:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    fold_of = np.full(len(groups), -1, dtype=np.int8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a rare label misses some folds
            for fold, (_, held_out) in enumerate(splitter.split(groups, label_ids, groups)):
                fold_of[held_out] = fold
    except ValueError as error:
        raise FoldsError(
            f"the train rows cannot fill {count} folds ({error}); set folds.count lower"
        ) from None
    return fold_of


def count_leaking(groups: Int32s, fold_of: Int8s) -> int:
    """Return how many rows share a group with a row of another fold.

    >>> count_leaking(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 0, 1, 1]))
    2
    """
    if not len(groups):
        return 0
    low = np.full(int(groups.max()) + 1, np.iinfo(np.int8).max, dtype=np.int8)
    high = np.full_like(low, -1)
    np.minimum.at(low, groups, fold_of)
    np.maximum.at(high, groups, fold_of)
    return int((low < high)[groups].sum())
