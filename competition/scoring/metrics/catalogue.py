"""All metrics by the name that a profile gives them: a new one is a room and a line here."""

from __future__ import annotations

from competition.scoring.metrics.accuracy import ACCURACY
from competition.scoring.metrics.auprc import AUPRC
from competition.scoring.metrics.average_precision import AVERAGE_PRECISION
from competition.scoring.metrics.kappa import KAPPA
from competition.scoring.metrics.log_loss import LOG_LOSS
from competition.scoring.metrics.macro_f1 import MACRO_F1
from competition.scoring.metrics.mcc import MCC
from competition.scoring.metrics.metric import CurveKernel, Metric, MetricKind, Task
from competition.scoring.metrics.micro_f1 import MICRO_F1
from competition.scoring.metrics.weighted_f1 import WEIGHTED_F1

METRICS: dict[str, MetricKind] = {
    "micro-f1": MICRO_F1,
    "macro-f1": MACRO_F1,
    "weighted-f1": WEIGHTED_F1,
    "accuracy": ACCURACY,
    "kappa": KAPPA,
    "mcc": MCC,
    "log-loss": LOG_LOSS,
    "auprc": AUPRC,
    "average-precision": AVERAGE_PRECISION,
}
"""From a profile's ``metrics.primary`` and ``metrics.secondary`` to the metric."""


def build_metric(name: str, task: Task) -> Metric:
    """Build a metric of ``METRICS`` for a competition's labels."""
    kind = METRICS[name]
    kernel = kind.build(task)
    if isinstance(kernel, CurveKernel):
        return Metric(kind, curve=kernel)
    return Metric(kind, sums=kernel)
