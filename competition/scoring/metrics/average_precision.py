"""Average precision: the mean over labels of the precision at each gold row.

The area under the precision-recall curve in steps, without interpolation. Every label counts; one
without a gold row is left out of the mean.

Source: ``sklearn.metrics.average_precision_score`` with ``average="macro"``.

Legend: N rows, C labels, D distinct scores of a label's gold rows, R replicates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Floats, Ints
from competition.scoring.metrics.curve import TINY, accumulate, sum_segments
from competition.scoring.metrics.metric import MetricKind, Task


@dataclass(frozen=True)
class AveragePrecision:
    """The area under each label's curve in steps."""

    def measure_areas(
        self, gold: Ints, probs: Floats, weights: Floats | None
    ) -> NDArray[np.float64]:
        """Return (C,) areas; NaN for a label without a (weighted) gold row."""
        columns = np.ascontiguousarray(np.asarray(probs).T)
        even = np.ones(len(gold)) if weights is None else np.asarray(weights, dtype=np.float64)
        areas = np.full(len(columns), np.nan)
        for label_id, scores in enumerate(columns):
            is_gold = gold == label_id
            if is_gold.any():
                areas[label_id] = self.combine(*sum_segments(scores, is_gold, even))[0]
        return areas

    def combine(self, sums: NDArray[np.float64], hits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (R,) areas; NaN where no gold row has weight."""
        rows_at, _, hits_at, _ = accumulate(sums, hits)
        golds = hits_at[0]
        areas = np.full(golds.shape, np.nan)
        steps = (hits * hits_at / np.maximum(rows_at, TINY)).sum(axis=0)
        np.divide(steps, golds, out=areas, where=golds > 0)
        return areas


def build(_task: Task) -> AveragePrecision:
    """Build the kernel; it needs to know nothing."""
    return AveragePrecision()


AVERAGE_PRECISION = MetricKind(
    "average-precision", "average_precision", "average_precision", "average precision",
    "average precision", "probabilities", build,
)  # fmt: skip
