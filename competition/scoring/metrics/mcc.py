"""Matthews correlation coefficient of several labels: the correlation of gold and prediction.

Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation
coefficient"; ``sklearn.metrics.matthews_corrcoef``.

Legend: N rows, C labels.
"""

from __future__ import annotations

import numpy as np

from competition.arrays import Float64s
from competition.scoring.metrics.agreement import AgreementMetric, split_agreement
from competition.scoring.metrics.metric import MetricKind, Task, divide


class Mcc(AgreementMetric):
    """Covariance of gold and prediction over the root of both variances; 0 where one is 0."""

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) coefficients."""
        right, rows, pred, gold = split_agreement(sums)
        covariance = rows * right - (pred * gold).sum(axis=-1)
        variances = [rows**2 - (each**2).sum(axis=-1) for each in (pred, gold)]
        return divide(covariance, np.sqrt(np.maximum(variances[0] * variances[1], 0.0)))


def build(task: Task) -> Mcc:
    """Build the kernel for a competition's labels."""
    return Mcc(task.n_labels)


MCC = MetricKind("mcc", "mcc", "mcc", "MCC", "MCC", "labels", build, bounds=(-1.0, 1.0))
