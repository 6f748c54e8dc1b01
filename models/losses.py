"""Losses: logits and labels to one number per step.

Every loss is a *sum* over rows; the training loop divides by the rows of the optimiser step, so
that micro-batches of unequal size add up to exactly one step. Legend: B batch, C labels.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

RESULT_VERSION = 1

Loss = Callable[[Tensor, Tensor, float], Tensor]


def cross_entropy(logits: Tensor, label_ids: Tensor, label_smoothing: float) -> Tensor:
    """Return the summed cross-entropy of logits (B, C) against label ids (B,), a scalar.

    Source: Szegedy et al. 2016, arXiv 1512.00567, section 7, for the smoothing.
    """
    return F.cross_entropy(
        logits.float(), label_ids, reduction="sum", label_smoothing=label_smoothing
    )


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy}
