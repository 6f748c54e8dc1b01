"""Log-loss: the mean of -log p(gold); lower is better, so scores are its negative.

Source: ``sklearn.metrics.log_loss``; rows are scaled to sum to 1 first, as Kaggle does.

Legend: N rows, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from competition.arrays import Float64s, Ints
from competition.scoring.metrics.metric import MetricKind, Predicted, Task, divide

SMALLEST = 1e-15  # probability that is counted; a smaller one counts as this


@dataclass(frozen=True)
class LogLoss:
    """The mean log-probability of the gold label."""

    def count(self, gold: Ints, predicted: Predicted) -> Float64s:
        """Return (N, 2): log-probability of the gold label, and 1."""
        probs = np.asarray(predicted[0], dtype=np.float64)
        own = probs[np.arange(len(gold)), gold]
        logs = np.log(np.maximum(divide(own, probs.sum(axis=1)), SMALLEST))
        return np.stack([logs, np.ones(len(gold))], axis=1)

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) means."""
        return divide(sums[..., 0], sums[..., 1])


def build(_task: Task) -> LogLoss:
    """Build the kernel; it needs to know nothing."""
    return LogLoss()


LOG_LOSS = MetricKind(
    "log-loss", "log_loss", "log_loss", "log-loss", "log-loss", "probabilities", build,
    bounds=(float("-inf"), 0.0),
)  # fmt: skip
