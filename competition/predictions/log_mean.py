"""The mean of predictions in log space, in which seeds of a variant are averaged.

Legend: C labels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from competition.arrays import Float64s, Probs

PROBABILITY_FLOOR = 1e-6
CHUNK_ROWS = 65_536  # added at a time


class LogSpaceMean:
    """The renormalised geometric mean of predictions (…, C), which are added one by one.

    Probabilities are clipped at ``PROBABILITY_FLOOR``; NaN stays NaN. However many are added, it
    holds one array, so that the seeds of a large variant need no more memory than one of them.
    """

    def __init__(self) -> None:
        self._first: Probs | None = None  # as it is, as long as there is no other
        self._total: Float64s | None = None
        self._count = 0

    def add(self, probs: Probs) -> None:
        """Add a prediction."""
        self._count += 1
        if self._count == 1:
            self._first = probs
            return
        if self._first is not None:
            self._total = np.zeros(self._first.shape)
            self._add_logs(self._first)
            self._first = None
        self._add_logs(probs)

    def _add_logs(self, probs: Probs) -> None:
        assert self._total is not None
        total = self._total.reshape(-1, probs.shape[-1])
        rows = probs.reshape(total.shape)
        for start in range(0, len(rows), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            total[part] += np.log(np.maximum(rows[part], PROBABILITY_FLOOR), dtype=np.float64)

    def compute(self) -> Probs:
        """Return the mean; a single prediction is returned unchanged. Nothing is left to add to."""
        if self._first is not None:
            return self._first
        total, self._total = self._total, None
        assert total is not None
        total /= self._count
        np.exp(total, out=total)
        total /= total.sum(axis=-1, keepdims=True)
        return total.astype(np.float32)


def average_in_log_space(probs: Iterable[Probs]) -> Probs:
    """Average predictions (…, C), at least one, as ``LogSpaceMean`` does."""
    mean = LogSpaceMean()
    for each in probs:
        mean.add(each)
    return mean.compute()
