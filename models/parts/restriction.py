"""Type restriction: rule out labels that a pair of entity types never has in the training rows.

Such labels are removed from the softmax, in prediction only or in training too.
Legend: n training rows, N rows, P pairs of entity types, C labels, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from competition.arrays import Int64s
from competition.data.rows import Rows
from competition.errors import VariantError

RESULT_VERSION = 1
VERSION_NAME = "models.restriction"

AnyInts = npt.NDArray[np.integer[Any]]
Table = npt.NDArray[np.bool_]


def number_pairs(rows: Rows, entity_types: Sequence[str]) -> Int64s:
    """Return the number of each row's pair of entity types.

    Args:
        entity_types: the profile's types; T of them make T × T pairs.

    Returns:
        (N,) int64, in [0, T²): the index of the subject type times T, plus that of the object type.

    Raises:
        VariantError: a row has no entity type.
    """
    places = {kind: place for place, kind in enumerate(entity_types)}
    subject, obj = (rows.text(f"{role}_type").tolist() for role in ("subject", "object"))
    if None in subject or None in obj:
        raise VariantError(
            "restrict needs entity types, but this competition has none; remove [restrict] from "
            "the variant"
        )
    pairs = zip(subject, obj, strict=True)
    numbers = (places[first] * len(places) + places[second] for first, second in pairs)
    return np.fromiter(numbers, np.int64, count=len(rows))


def build_table(
    pair_ids: AnyInts,
    label_ids: AnyInts,
    n_pairs: int,
    n_labels: int,
    *,
    min_count: int,
    negative_ids: Sequence[int],
) -> Table:
    """Return the labels allowed per pair: those with at least ``min_count`` training rows.

    The negative labels are always allowed. A pair for which no label occurs that often allows every
    label.

    >>> pairs, labels = np.array([0, 0, 0, 0, 1]), np.array([1, 1, 2, 0, 2])
    >>> build_table(pairs, labels, 3, 3, min_count=2, negative_ids=(0,)).astype(int).tolist()
    [[1, 1, 0], [1, 1, 1], [1, 1, 1]]

    Args:
        pair_ids: (n,) pair of each training row, in [0, P).
        label_ids: (n,) their labels, in [0, C).
        n_pairs: P.
        n_labels: C.
        min_count: minimum number of training rows to allow a label.
        negative_ids: the negative labels, if there are any.

    Returns:
        (P, C) bool; every row allows at least one label.

    Source: Lyu & Chen 2021, arXiv 2105.08393 (RECENT). They use a manual table and a classifier per
    pair; here the table is counted, and the logits of one classifier are masked.
    """
    counts = np.bincount(pair_ids * n_labels + label_ids, minlength=n_pairs * n_labels)
    table: Table = counts.reshape(n_pairs, n_labels) >= min_count
    table[~table.any(axis=1)] = True
    table[:, list(negative_ids)] = True
    return table


def measure_coverage(table: Table, pair_ids: AnyInts, label_ids: AnyInts) -> float:
    """Return the share of rows whose gold label the table allows; NaN if there are no rows."""
    return float(table[pair_ids, label_ids].mean()) if len(label_ids) else float("nan")


def mask_logits(logits: Tensor, allowed: Tensor) -> Tensor:
    """Mask the logits of labels that are not allowed: their probability becomes 0.

    Uses the lowest finite number instead of -inf, with which a difference of two log-probabilities
    would be NaN.

    Returns:
        (B, C) logits of the same type; masked ones get no gradient.
    """
    return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
