"""Detect valid probabilities that lose score: hard votes, softmax applied twice, constant rows.

``check`` remarks on a submission's, ``import`` on those of a table. AUPRC is computed on them, so
it falls where they only repeat the label, and blending weighs them as if they were probabilities.

Legend: N rows, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats

MIN_ROWS = 8
MAX_LEVELS = 12
"""Rows of hard votes hold no more different values than this, whatever their number."""
CLOSE = 1e-6
EDGE, MIN_AT_EDGE = 0.05, 0.1
"""A least probability before the second softmax that is next to none; the share of such rows."""
NEARLY_ALL = 0.99  # of the rows: a confident model also gives some rows a 1


@dataclass(frozen=True, slots=True)
class Waste:
    """Why probabilities score less than they could, and what to do."""

    found: str
    remedy: str


def find_waste(probs: Floats) -> Waste | None:
    """Return the defect of (N, C) finite probabilities, None if there is none.

    >>> import numpy as np
    >>> find_waste(np.eye(3)[[0, 1, 2] * 3]).found
    'every row holds one 1 and otherwise 0: labels, not probabilities'
    """
    if len(probs) < MIN_ROWS or probs.shape[1] < 2:
        return None
    values = np.asarray(probs, dtype=np.float64)
    if np.ptp(values, axis=0).max() <= CLOSE:
        remedy = "AUPRC is that of chance: fill in a model's predictions for each row"
        return Waste("all rows hold the same probabilities", remedy)
    votes = _find_votes(values)
    if votes is not None:
        remedy = "AUPRC falls: write the mean of the models' probabilities, not of their labels"
        return Waste(votes, remedy)
    if np.abs(values - values.round(2)).max() < CLOSE:
        found = "all probabilities have two digits at most: many rows are tied"
        return Waste(found, "AUPRC falls with ties: write all digits that the model gives")
    if _is_softmax_twice(values):
        most = np.e / (np.e + probs.shape[1] - 1)
        found = f"no probability is above {most:.3f}: softmax was applied twice"
        remedy = "AUPRC and blends lose by it: apply softmax once, to the logits"
        return Waste(found, remedy)
    return None


def _find_votes(values: NDArray[np.float64]) -> str | None:
    """Detect one-hot rows, smoothed or not, and fractions of votes."""
    levels = np.unique(values.round(6))
    is_one = (values >= 1 - CLOSE).any(axis=1)
    if is_one.mean() >= NEARLY_ALL:
        return "every row holds one 1 and otherwise 0: labels, not probabilities"
    if len(levels) <= MAX_LEVELS and len(values) > 4 * len(levels):
        return f"only {len(levels)} different values in all rows: votes, not probabilities"
    return None


def _is_softmax_twice(values: NDArray[np.float64]) -> bool:
    """Return whether all rows are the softmax of probabilities.

    Then q = softmax(p) with p a distribution, so that log q − mean(log q) + 1/C gives back p: no
    value of it is below 0. An average of such rows is nearly one, hence the slack.
    """
    if (values <= 0).any():
        return False
    logs = np.log(values)
    within = logs - logs.mean(axis=1, keepdims=True) + 1 / values.shape[1]
    slack = 0.02
    fits = (within >= -slack).all(axis=1) & (within <= 1 + slack).all(axis=1)
    # flat rows of a model that knows nothing fit too, but they do not reach 0 without passing it
    return bool(fits.all() and (within.min(axis=1) < EDGE).mean() >= MIN_AT_EDGE)
