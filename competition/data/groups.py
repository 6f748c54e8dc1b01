"""Group rows that must stay in the same fold (group K-fold), and sample whole groups.

Rows that share a sentence, or an unordered pair of entity words, are linked; the connected
components are the groups. The entity pairs of the test set are new to a model, so those of a
held-out fold must be new too, or labels leak.

Legend: N rows, C labels, G groups, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from competition.arrays import Int16s, Int64s
from competition.data.rows import Rows
from competition.errors import UsageError

Int32s = npt.NDArray[np.int32]


GROUP_COLUMNS = {
    "sentence": "sentence",
    "subject": "subject_word",
    "object": "object_word",
    "source": "source",
}
"""The built-in values of ``group_by``, except ``entity_pair``, with their columns."""


def name_group_column(column: str) -> str:
    """Return the column of ``Rows.frame`` for a value of ``group_by``.

    >>> name_group_column("subject"), name_group_column("document")
    ('subject_word', 'by document')
    """
    return GROUP_COLUMNS.get(column, f"by {column}")


def build_keys(rows: Rows, column: str) -> Int64s:
    """Number the distinct values of a ``group_by`` column.

    Args:
        column: ``sentence``, ``subject``, ``object``, ``source``, a column of the train file, or
            ``entity_pair``: both words, in either order. Each missing value is distinct.

    Returns:
        (N,) int64, equal for rows that share the value.
    """
    if column != "entity_pair":
        return _number_values(rows, name_group_column(column))
    both = pd.concat([rows.frame["subject_word"], rows.frame["object_word"]], ignore_index=True)
    codes, words = pd.factorize(both)
    pairs = codes.astype(np.int64).reshape(2, len(rows))
    return _number(pairs.min(axis=0) * len(words) + pairs.max(axis=0))


def _number_values(rows: Rows, name: str) -> Int64s:
    if name not in rows.frame:  # test rows may lack a column of the train file
        return np.arange(len(rows), dtype=np.int64)
    codes = np.asarray(pd.factorize(rows.frame[name])[0], dtype=np.int64)
    is_missing = codes < 0
    codes[is_missing] = len(rows) + np.arange(int(is_missing.sum()))
    return _number(codes)


def _number(values: pd.Series[Any] | Int64s) -> Int64s:
    return np.asarray(pd.factorize(values)[0], dtype=np.int64)


def build_groups(rows: Rows, group_by: Sequence[str]) -> Int32s:
    """Number the connected components of rows that share a value of any ``group_by`` column.

    Returns:
        (N,) int32 in [0, G), numbered by first appearance; if ``group_by`` is empty, each row is
        a separate group.
    """
    if not group_by or not len(rows):
        return np.arange(len(rows), dtype=np.int32)
    keys = build_keys(rows, group_by[0])
    for column in group_by[1:]:
        keys = _join(keys, build_keys(rows, column))
    return pd.factorize(keys)[0].astype(np.int32)


def _join(left: Int64s, right: Int64s) -> Int64s:
    """Return (N,) components of rows linked by either numbering; one edge per row."""
    n_left = int(left.max()) + 1
    size = n_left + int(right.max()) + 1
    edges = (np.ones(len(left), dtype=np.int8), (left, right + n_left))
    _, component = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return np.asarray(component[left], dtype=np.int64)


def share_out(total: int, weights: npt.NDArray[Any]) -> Int64s:
    """Split ``total`` in proportion to weights, by largest remainders.

    >>> share_out(10, np.array([5, 3, 1])).tolist()
    [6, 3, 1]
    """
    exact = total * weights / max(weights.sum(), 1)
    whole: Int64s = np.floor(exact).astype(np.int64)
    rest = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:rest]] += 1
    return whole


def sample_rows(
    label_ids: Int16s, groups: Int32s, size: int, *, seed: int, fold_count: int
) -> Int64s:
    """Sample about ``size`` rows in whole groups, stratified by label.

    A group larger than 1/(2K) of the sample is left out, since folds would reject it. The sample is
    never larger than ``size``.

    Args:
        size: the number of rows; if N or more, all rows are returned.
        fold_count: K; the sample must have at least as many groups.

    Returns:
        (about size,) row indices in ascending order.

    Raises:
        UsageError: too few rows for K folds.
    """
    if size >= len(groups):
        return np.arange(len(groups), dtype=np.int64)
    if size < fold_count:
        raise UsageError(
            f"--limit {size} is too small for {fold_count} folds; use at least {fold_count}"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    sizes = np.bincount(groups)
    quota = share_out(size, np.bincount(label_ids))
    is_alone = sizes[groups] == 1
    taken = _take_linked(label_ids, groups, order, quota, size // (2 * fold_count))
    remaining = quota - np.bincount(label_ids[taken], minlength=len(quota))
    alone = order[is_alone[order]]
    rank = pd.Series(label_ids[alone]).groupby(label_ids[alone]).cumcount().to_numpy()
    first = alone[rank < remaining[label_ids[alone]]]
    rest = alone[rank >= remaining[label_ids[alone]]]
    chosen = np.concatenate([taken, first])
    chosen = np.concatenate([chosen, rest[: size - len(chosen)]])
    if len(np.unique(groups[chosen])) < fold_count:
        raise UsageError(
            f"--limit {size} leaves fewer than {fold_count} groups of rows for as many folds; "
            "use a larger limit"
        )
    return np.sort(chosen)


def _take_linked(
    label_ids: Int16s, groups: Int32s, order: Int64s, quota: Int64s, largest: int
) -> Int64s:
    """Choose groups of several rows in random order, up to their share of each label's quota."""
    sizes = np.bincount(groups)
    linked = order[(sizes[groups[order]] > 1) & (sizes[groups[order]] <= largest)]
    counts = np.bincount(label_ids, minlength=len(quota))
    is_linked = np.bincount(label_ids[sizes[groups] > 1], minlength=len(quota))
    left = np.ceil(quota * is_linked / np.maximum(counts, 1)).astype(np.int64)
    left = np.minimum(left, quota)
    by_group = np.argsort(groups, kind="stable")
    ends = np.cumsum(sizes)
    taken: list[Int64s] = []
    for group in pd.unique(groups[linked]):
        members = by_group[ends[group] - sizes[group] : ends[group]]
        rest = left - np.bincount(label_ids[members], minlength=len(quota))
        if rest.min() >= 0:
            left = rest
            taken.append(members)
            if not left.any():
                break
    return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)
