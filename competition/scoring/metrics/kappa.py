"""Cohen's kappa: accuracy above what the label shares of both sides give by chance.

Source: Cohen 1960, "A coefficient of agreement for nominal scales";
``sklearn.metrics.cohen_kappa_score``.

Legend: N rows, C labels.
"""

from __future__ import annotations

from competition.arrays import Float64s
from competition.scoring.metrics.agreement import AgreementMetric, split_agreement
from competition.scoring.metrics.metric import MetricKind, Task, divide


class Kappa(AgreementMetric):
    """(Agreement - chance) / (1 - chance); 0 where chance alone is 1."""

    def combine(self, sums: Float64s) -> Float64s:
        """Return (…) kappas."""
        right, rows, pred, gold = split_agreement(sums)
        chance = (pred * gold).sum(axis=-1)
        return divide(rows * right - chance, rows**2 - chance)


def build(task: Task) -> Kappa:
    """Build the kernel for a competition's labels."""
    return Kappa(task.n_labels)


KAPPA = MetricKind(
    "kappa", "kappa", "kappa", "Cohen's kappa", "kappa", "labels", build,
    bounds=(-1.0, 1.0),
)  # fmt: skip
