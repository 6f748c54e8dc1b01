"""Convert the numbers of an imported table to probabilities.

Logits, percentages and rounded values are recognised by what all rows have in common and
converted, with one notice. Each other row is an offence.

Legend: n rows, C labels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from competition.predictions.store import SUM_TOLERANCE

MAX_ROUNDED = 0.01 + 1e-9  # off 1, in a sum, whatever the number of digits: half precision
MIN_OFF = 0.99 * SUM_TOLERANCE  # single precision must not lift a row over the store's limit
ALMOST_ALL = 0.95  # of the rows: then it applies to the table, and is no error of single rows
DIGITS = range(2, 7)
NEGATIVE_NOISE = -1e-6  # below 0 by rounding

Float64s = NDArray[np.float64]
Offend = Callable[[int, str, str], None]
"""Called with a row, what was found and what to do."""


def make_probs(values: Float64s, unread: set[int], offend: Offend) -> tuple[Float64s, list[str]]:
    """Turn numbers into probabilities.

    Args:
        values: (n, C) as written.

    Returns:
        (n, C) probabilities, offending rows unchanged; and notices of what was done.
    """
    notices: list[str] = []
    usable = np.isfinite(values).all(axis=1)
    for row in np.flatnonzero(~usable):
        if int(row) not in unread:
            offend(int(row), "a probability is missing, NaN or infinite", "predict it again")
    if not usable.any():
        return values, notices
    probs = values.copy()
    if _are_logits(values[usable]):
        from scipy.special import softmax

        probs[usable] = softmax(values[usable], axis=1)
        low, high = values[usable].min(), values[usable].max()
        said = f"values from {low:.3g} to {high:.3g} are logits, not probabilities: softmax applied"
        return probs, [said]
    noise = (probs < 0) & (probs >= NEGATIVE_NOISE)
    probs[noise] = 0.0
    sums = np.where(usable, np.nan_to_num(probs, posinf=0.0, neginf=0.0).sum(axis=1), 1.0)
    is_negative = usable & (np.nan_to_num(probs) < 0).any(axis=1)
    is_percent = usable & ~is_negative & (np.abs(sums - 100) <= 1 + _rounding(probs[usable] / 100))
    if is_percent.sum() >= ALMOST_ALL * usable.sum():
        notices.append("rows sum to 100: percentages, divided by 100")
        probs[is_percent] /= 100
        sums = np.where(is_percent, sums / 100, sums)
    is_off = usable & ~is_negative & (np.abs(sums - 1) > MIN_OFF)
    limit = max(MAX_ROUNDED, _rounding(probs[usable]))
    is_rounded = is_off & (np.abs(sums - 1) <= limit)
    if is_rounded.any():
        least, most = sums[is_rounded].min(), sums[is_rounded].max()
        count = int(is_rounded.sum())
        rows = "1 row sums" if count == 1 else f"{count:,} rows sum"
        notices.append(f"{rows} to {least:.3f}–{most:.3f}: rounded, divided by their sums")
        probs[is_rounded] /= sums[is_rounded, None]
    for row in np.flatnonzero(is_negative):
        offend(int(row), f"a probability is {probs[row].min():.4g}", "write softmax output")
    for row in np.flatnonzero(is_off & ~is_rounded):
        found = f"probabilities sum to {sums[row]:.4f}, not 1"
        offend(int(row), found, "write softmax output, applied once to each row")
    return probs, notices


def _are_logits(values: Float64s) -> bool:
    """Return whether numbers are logits or logarithms: nearly every row has one below 0 or above 1.

    Percentages have none below 0.
    """
    outside = (values < NEGATIVE_NOISE).any(axis=1)
    return bool(outside.mean() >= ALMOST_ALL and (values < -0.5).any(axis=1).mean() > 0.5)


def _rounding(probs: Float64s) -> float:
    """Return by how much a row's sum may be off 1, from the digits that all values have."""
    sample = probs[:: max(1, len(probs) // 2_000)]
    for digits in DIGITS:
        if np.abs(sample - sample.round(digits)).max(initial=0.0) < 1e-7:
            return float(min(0.5, 0.5 * 10.0**-digits * probs.shape[1] + 1e-9))
    return 0.0
