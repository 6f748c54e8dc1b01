"""Strata of held-out and test rows that are similar in what is known without labels.

After ``kfold`` on the way of a row. The expected score of a member weights held-out rows so that
they are mixed as the test's rows are; strata say what "mixed" refers to: the pair of entity types,
and whether a model has met the row's entities in training. They are nested, from one stratum of all
rows to the finest, so that an estimate can fall back where a stratum has few rows.

Legend: N train rows, M test rows, L levels, K folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.arrays import Bools, Int64s, Ints
from competition.data.groups import build_keys
from competition.data.rows import Rows, join_rows


@dataclass(frozen=True, eq=False)
class Strata:
    """Nested strata of train and test rows.

    Attributes:
        names: L names of what each level adds, such as ``types``.
        train: (L, N) int64, the stratum of each train row at each level, as if it were held out.
        test: (L, M) int64, of each test row, numbered alike.
        train_repeated: share of train rows that repeat a sentence or an entity pair of the rows
            that the models which do not see them were trained on.
        test_repeated: share of test rows that repeat one of the train rows.
    """

    names: tuple[str, ...]
    train: Int64s
    test: Int64s
    train_repeated: float
    test_repeated: float


def build_strata(train: Rows, test: Rows, fold_of: Ints) -> Strata:
    """Build the strata of a competition's rows.

    An entity is known to a row if its text is an entity of a row that the row's models
    were trained on: for a train row the rows of the other folds, for a test row all train rows.

    Args:
        fold_of: (N,) which fold holds each train row out.

    Returns:
        Levels ``all``; ``types`` where the rows have them; ``repeated`` (the sentence or the pair
        of entities is known) where some rows of both sides are; ``known entities``.
    """
    n_train = len(train)
    both = join_rows(Rows(train.frame, None), Rows(test.frame, None))
    names, levels = ["all"], [np.zeros(len(both), dtype=np.int64)]
    types = _pair_types(both)
    if types is not None:
        names.append("types")
        levels.append(_refine(levels[-1], types))
    repeated = np.zeros(len(both), dtype=bool)
    for column in ("sentence", "entity_pair"):
        repeated |= _mark_known(build_keys(both, column), n_train, fold_of)
    if repeated[:n_train].any() and repeated[n_train:].any():
        names.append("repeated")
        levels.append(_refine(levels[-1], repeated))
    names.append("known entities")
    levels.append(_refine(levels[-1], _mark_known_entities(both, n_train, fold_of)))
    stacked = np.stack(levels)
    return Strata(
        tuple(names),
        stacked[:, :n_train],
        stacked[:, n_train:],
        float(repeated[:n_train].mean()),
        float(repeated[n_train:].mean()) if len(test) else 0.0,
    )


def _pair_types(rows: Rows) -> Int64s | None:
    """Number the pairs of entity types, (N + M,); None where no entity has a type."""
    frame = rows.frame
    if frame["subject_type"].isna().all() and frame["object_type"].isna().all():
        return None
    subject, object_ = (
        np.asarray(pd.factorize(frame[f"{role}_type"], use_na_sentinel=False)[0], dtype=np.int64)
        for role in ("subject", "object")
    )
    return subject * (int(object_.max()) + 1) + object_


def _mark_known_entities(rows: Rows, n_train: int, fold_of: Ints) -> Int64s:
    """Return (N + M,) 0 to 3: neither entity is known, the object, the subject, both."""
    words = pd.concat([rows.frame["subject_word"], rows.frame["object_word"]], ignore_index=True)
    codes = np.asarray(pd.factorize(words)[0], dtype=np.int64).reshape(2, -1)
    train_codes = codes[:, :n_train].ravel()
    first, last = _find_folds(train_codes, np.tile(fold_of, 2), int(codes.max()) + 1)
    subject, object_ = (_is_elsewhere(each, n_train, fold_of, first, last) for each in codes)
    return 2 * subject.astype(np.int64) + object_


def _mark_known(keys: Int64s, n_train: int, fold_of: Ints) -> Bools:
    """Mark rows (N + M,) whose key a train row of another fold has; for test rows, of any fold."""
    first, last = _find_folds(keys[:n_train], fold_of, int(keys.max()) + 1)
    return _is_elsewhere(keys, n_train, fold_of, first, last)


def _find_folds(keys: Int64s, fold_of: Ints, n_keys: int) -> tuple[Int64s, Int64s]:
    """Return the lowest and the highest fold of each key; -1 if it has none."""
    first, last = np.full(n_keys, np.iinfo(np.int64).max), np.full(n_keys, -1, dtype=np.int64)
    np.minimum.at(first, keys, fold_of.astype(np.int64))
    np.maximum.at(last, keys, fold_of.astype(np.int64))
    first[last < 0] = -1
    return first, last


def _is_elsewhere(
    keys: Int64s,
    n_train: int,
    fold_of: Ints,
    first: Int64s,
    last: Int64s,
) -> Bools:
    """Return a mask (N + M,) of rows whose key occurs in another fold."""
    own = np.full(len(keys), -1, dtype=np.int64)
    own[:n_train] = fold_of
    seen: Bools = last[keys] >= 0
    only_own: Bools = (first[keys] == own) & (last[keys] == own)
    return np.asarray(seen & ~only_own)


def _refine(parent: Int64s, finer: Ints | Bools) -> Int64s:
    """Number the pairs of a parent's stratum and a finer value, (N + M,)."""
    finer = finer.astype(np.int64)
    return np.asarray(
        np.unique(parent * (int(finer.max()) + 1) + finer, return_inverse=True)[1], dtype=np.int64
    )
