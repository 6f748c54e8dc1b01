"""Grouped stratified K-fold assignment in memory; ``kfold`` stores the result.

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

_ROUNDS_KEPT = 4  # of each kind of group, left to StratifiedGroupKFold

Int8s = npt.NDArray[np.int8]


def build_folds(label_ids: Int16s, groups: Int32s, *, count: int, seed: int) -> Int8s:
    """Assign groups to folds so that each label is spread evenly (stratified group K-fold).

    Groups with the same labels are interchangeable. Most of them are assigned in complete rounds,
    one group to each of the K folds; scikit-learn's StratifiedGroupKFold assigns the rest. Alone,
    its Python loop over groups takes minutes on millions of rows.

    Returns:
        (N,) int8 fold of each row.

    Raises:
        FoldsError: there are too few rows or groups for K folds.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    if n_groups < count:
        raise FoldsError(
            f"{len(groups):,} train rows in {n_groups:,} groups cannot fill {count} folds; set a "
            "lower folds.count in the profile, or provide more rows"
        )
    fold_of_group = _assign_rounds(_sign_groups(label_ids, groups, n_groups), count, seed)
    fold_of = fold_of_group[groups]
    is_left = fold_of < 0
    fold_of[is_left] = _split_grouped(label_ids[is_left], groups[is_left], count, seed)
    if len(np.unique(fold_of)) < count:
        raise FoldsError(f"one of {count} folds would hold no train row; set a lower folds.count")
    return fold_of


def _sign_groups(label_ids: Int16s, groups: Int32s, n_groups: int) -> npt.NDArray[np.uint64]:
    """Return (G,) signatures that are equal for groups with the same label counts."""
    bits = np.random.default_rng(0).integers(2**64, size=int(label_ids.max()) + 1, dtype=np.uint64)
    by_group = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[by_group], np.arange(n_groups))
    return np.asarray(np.add.reduceat(bits[label_ids[by_group]], starts), dtype=np.uint64)


def _assign_rounds(signatures: npt.NDArray[np.uint64], count: int, seed: int) -> Int8s:
    """Return the (G,) fold of each group assigned in a complete round, -1 for the rest."""
    shuffled = np.random.default_rng(seed).permutation(len(signatures))
    kinds = pd.Series(signatures[shuffled])
    place = kinds.groupby(kinds).cumcount().to_numpy()
    total = kinds.map(kinds.value_counts()).to_numpy()
    n_assigned = np.maximum(total // count - _ROUNDS_KEPT, 0) * count
    folds = np.full(len(signatures), -1, dtype=np.int8)
    folds[shuffled] = np.where(place < n_assigned, place % count, -1)
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
            f"the train rows cannot fill {count} folds ({error}); set a lower folds.count"
        ) from None
    return fold_of


def count_leaking(groups: Int32s, fold_of: Int8s) -> int:
    """Return the number of rows that share a group with a row of another fold.

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
