"""Suspected wrong labels: confident learning on out-of-fold probabilities.

``errors`` lists what is found here and writes it as a file of corrections.

Legend: N rows, C labels, S suspects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints


@dataclass(frozen=True, eq=False)
class Suspects:
    """Rows whose label is probably wrong, the most suspect first.

    Attributes:
        rows: (S,) places among the rows.
        label_ids: (S,) the label that each probably should have.
        own: (S,) probability of the label that it has.
        other: (S,) probability of the label that it probably should have.
    """

    rows: NDArray[np.int64]
    label_ids: NDArray[np.int64]
    own: Floats
    other: Floats

    def __len__(self) -> int:
        """Return S."""
        return len(self.rows)


def find_suspects(gold: Ints, probs: Floats) -> Suspects:
    """Find rows that another label claims with confidence.

    A label's threshold is the mean probability of it over the rows that have it, so a label that
    the model is rarely sure of needs less. A row is suspect when some label reaches its threshold
    and the most probable of those labels is not the row's own. Suspects are ranked by the
    probability of their own label, lowest first.

    Args:
        gold: (N,) label ids as published.
        probs: (N, C) probabilities from models that did not see the row.

    Source: Northcutt, Jiang & Chuang 2021, arXiv 1911.00068: the confident joint (section 3.1),
    its off-diagonal rows, ranked by self-confidence. Its estimate of how many there are is not
    used.
    """
    probs = np.asarray(probs, dtype=np.float64)
    n_rows, n_labels = probs.shape
    own = probs[np.arange(n_rows), gold]
    sums = np.bincount(gold, weights=own, minlength=n_labels)
    counts = np.bincount(gold, minlength=n_labels)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    claims = np.where(probs >= thresholds, probs, -1.0)
    claimed = claims.argmax(axis=1)
    found = np.flatnonzero((claims.max(axis=1) >= 0) & (claimed != gold))
    order = found[np.argsort(own[found], kind="stable")]
    label_ids = claimed[order].astype(np.int64)
    return Suspects(order.astype(np.int64), label_ids, own[order], probs[order, label_ids])
