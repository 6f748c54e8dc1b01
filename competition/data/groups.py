"""Which rows must stay on one side of a split, and how to sample without tearing them apart.

Between corpus and folds. Rows that share a sentence, or an unordered pair of entity words, are
linked; linked rows form groups (connected components). The test's pairs are new to a model, so a
held-out fold's must be too (the competition's trap 1).

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
"""What rows can be grouped by without a column of their own, beside ``entity_pair``."""


def name_group_column(column: str) -> str:
    """Return the column of ``Rows.frame`` that holds what rows are grouped by.

    >>> name_group_column("subject"), name_group_column("document")
    ('subject_word', 'by document')
    """
    return GROUP_COLUMNS.get(column, f"by {column}")


def build_keys(rows: Rows, column: str) -> Int64s:
    """Number the distinct values of what rows are grouped by.

    Args:
        rows: N rows.
        column: ``sentence``, ``subject``, ``object``, ``source``, a column of the train file, or
            ``entity_pair``: both words, in either order. A row without a value shares it with none.

    Returns:
        (N,) int64, equal where the rows share the value.
    """
    if column != "entity_pair":
        return _number_values(rows, name_group_column(column))
    both = pd.concat([rows.frame["subject_word"], rows.frame["object_word"]], ignore_index=True)
    codes, words = pd.factorize(both)
    pairs = codes.astype(np.int64).reshape(2, len(rows))
    return _number(pairs.min(axis=0) * len(words) + pairs.max(axis=0))


def _number_values(rows: Rows, name: str) -> Int64s:
    if name not in rows.frame:  # of test rows, which need no column of the train file
        return np.arange(len(rows), dtype=np.int64)
    codes = np.asarray(pd.factorize(rows.frame[name])[0], dtype=np.int64)
    alone = codes < 0
    codes[alone] = len(rows) + np.arange(int(alone.sum()))
    return _number(codes)


def _number(values: pd.Series[Any] | Int64s) -> Int64s:
    return np.asarray(pd.factorize(values)[0], dtype=np.int64)


def build_groups(rows: Rows, group_by: Sequence[str]) -> Int32s:
    """Number the connected components of rows that share a value of any ``group_by`` column.

    Returns:
        (N,) int32 in [0, G), numbered by first appearance; each row alone when ``group_by`` is
        empty.
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
    """Sample about ``size`` rows in whole groups, labels in proportion.

    A group of several rows that would exceed 1/(2K) of the sample is left out, as folds would
    refuse it. The sample is never larger than ``size``.

    Args:
        label_ids: (N,) label of each row.
        groups: (N,) group of each row.
        size: how many rows to sample; all when N or more.
        seed: of the choice.
        fold_count: K, the folds that the sample must fill.

    Returns:
        (about size,) row indices in ascending order.

    Raises:
        UsageError: too few rows for K folds.
    """
    if size >= len(groups):
        return np.arange(len(groups), dtype=np.int64)
    if size < fold_count:
        raise UsageError(
            f"--limit {size} cannot fill {fold_count} folds; give at least {fold_count}"
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
            f"--limit {size} leaves fewer than {fold_count} groups of rows that may be parted; "
            "give a larger limit"
        )
    return np.sort(chosen)


def _take_linked(
    label_ids: Int16s, groups: Int32s, order: Int64s, quota: Int64s, largest: int
) -> Int64s:
    """Take groups of several rows, in random order, up to their share of each label's quota."""
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
