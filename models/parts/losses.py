"""Losses: logits and labels to one number per step, from one place.

Every loss is a *sum* over rows; a step divides by its rows, so that micro-batches of unequal size
add up to exactly one step. ``Objective`` joins what a variant asks for: the loss, class weights
counted from the fold's own training rows, and labels ruled out by entity types.
Legend: n training rows, B batch, C labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.restriction import mask_logits
from models.settings import LossSettings, TrainSettings

RESULT_VERSION = 1
VERSION_NAME = "models.losses"

CROSS_ENTROPY = "cross-entropy"
LEAST_MISSING = 1e-6
"""Nearest that a probability counts as being to 1; below it, powers under 1 have no slope."""

AnyInts = npt.NDArray[np.integer[Any]]


def cross_entropy(logits: Tensor, label_ids: Tensor, label_smoothing: float) -> Tensor:
    """Return the summed cross-entropy of logits (B, C) against label ids (B,), a scalar.

    Source: Szegedy et al. 2016, arXiv 1512.00567, section 7, for the smoothing.
    """
    return F.cross_entropy(
        logits.float(), label_ids, reduction="sum", label_smoothing=label_smoothing
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """B rows as a loss sees them: what the network says, and what is true.

    Attributes:
        log_probs: (B, C) float32 over the labels that each row may have; of others, far below all.
        label_ids: (B,) int64 gold.
        gold: (B,) log-probability of each row's gold label.
        cross_entropy: (B,) cross-entropy of each row, smoothed as the variant says.
    """

    log_probs: Tensor
    label_ids: Tensor
    gold: Tensor
    cross_entropy: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss: what each row adds, and what a variant may set beside it.

    Attributes:
        of_rows: takes the rows and ``loss_options`` to (B,) what each row adds; finite, and with a
            finite slope, for all finite logits.
        reads: the ``loss_options`` that this loss reads; changing one is refused for all others.
        smooths: it is made of ``Judged.cross_entropy`` and may be smoothed.
    """

    of_rows: Callable[[Judged, LossSettings], Tensor]
    reads: tuple[str, ...] = ()
    smooths: bool = False


def even_loss(rows: Judged, options: LossSettings) -> Tensor:
    """Let every row add its cross-entropy, (B,)."""
    del options
    return rows.cross_entropy


def focal_loss(rows: Judged, options: LossSettings) -> Tensor:
    """Let a row's cross-entropy count the less, the surer its gold label is, (B,).

    Source: Lin et al. 2017, arXiv 1708.02002, equation 4.
    """
    return rows.cross_entropy * focal_share(rows.gold, options.focal_gamma)


def focal_share(gold_log_probs: Tensor, gamma: float) -> Tensor:
    """Return how much rows count: (1 − p)^gamma, (B,) in [0, 1].

    >>> focal_share(torch.tensor([0.9, 0.5]).log(), 2.0)
    tensor([0.0100, 0.2500])
    """
    missing = -torch.expm1(gold_log_probs)
    return missing.clamp_min(LEAST_MISSING).pow(gamma)


LOSSES: dict[str, Loss] = {
    CROSS_ENTROPY: Loss(even_loss, smooths=True),
    "focal": Loss(focal_loss, reads=("focal_gamma",)),
}


@dataclass(frozen=True)
class Objective:
    """What a fit minimises.

    Attributes:
        loss: a name of ``LOSSES``.
        label_smoothing: share of the target that is spread over the labels a row may have.
        options: what the loss reads.
        class_weights: (C,) float32 weight of a row by its gold label; none: all alike.
    """

    loss: str
    label_smoothing: float
    options: LossSettings = field(default_factory=LossSettings)
    class_weights: Tensor | None = None

    def sum(self, logits: Tensor, label_ids: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return the loss summed over rows, a scalar; finite for all finite logits.

        Args:
            logits: (B, C) raw.
            label_ids: (B,) int64 gold.
            allowed: (B, C) bool, or none where every label is; a row whose own gold label is
                forbidden is not masked at all.
        """
        if self.loss == CROSS_ENTROPY and self.class_weights is None and allowed is None:
            return cross_entropy(logits, label_ids, self.label_smoothing)
        judged = self._judge(logits, label_ids, allowed)
        rows = LOSSES[self.loss].of_rows(judged, self.options)
        if self.class_weights is not None:
            rows = rows * self.class_weights.to(logits.device)[label_ids]
        return rows.sum()

    def _judge(self, logits: Tensor, label_ids: Tensor, allowed: Tensor | None) -> Judged:
        log_probs = self.log_probs(logits, label_ids, allowed)
        open_ = None if allowed is None else _open_labels(allowed, label_ids)
        gold = log_probs.gather(1, label_ids[:, None]).squeeze(1)
        kept, spread = 1 - self.label_smoothing, self.label_smoothing
        smoothed = -kept * gold - spread * _mean_over(log_probs, open_)
        return Judged(log_probs, label_ids, gold, smoothed)

    def log_probs(self, logits: Tensor, label_ids: Tensor, allowed: Tensor | None) -> Tensor:
        """Return (B, C) float32 log-probabilities over the labels that each row may have."""
        scores = logits.float()
        if allowed is not None:
            scores = mask_logits(scores, _open_labels(allowed, label_ids))
        return F.log_softmax(scores, dim=-1)


class Asked(Protocol):
    """What of a variant says what is minimised; a variant checks the names of ``LOSSES``."""

    @property
    def loss(self) -> str:
        """A name of ``LOSSES``."""
        ...

    @property
    def loss_options(self) -> LossSettings:
        """What the losses and the class weights take."""
        ...

    @property
    def train(self) -> TrainSettings:
        """Holds the label smoothing."""
        ...


def build_objective(asked: Asked, label_ids: AnyInts, n_labels: int) -> Objective:
    """Build what a fit minimises.

    Args:
        asked: the variant.
        label_ids: (n,) labels of the fold's training rows, the only ones that weights count.
        n_labels: C.
    """
    options = asked.loss_options
    return Objective(
        loss=asked.loss,
        label_smoothing=asked.train.label_smoothing,
        options=options,
        class_weights=weigh_classes(label_ids, n_labels, options),
    )


def weigh_classes(label_ids: AnyInts, n_labels: int, options: LossSettings) -> Tensor | None:
    """Return what a row of each class weighs, (C,) float32; ``None`` where all weigh the same.

    The mean over the n training rows is 1, so that the learning rate means what it meant. A label
    of no training row gets the weight of one that is seen once.

    >>> weigh_classes(np.array([0, 0, 0, 0, 1]), 2, LossSettings(class_weight="inverse-sqrt"))
    tensor([0.8333, 1.6667])

    Source: Cui et al. 2019, arXiv 1901.05555, section 4, for ``effective``.
    """
    if options.class_weight == "none":
        return None
    counts = np.bincount(label_ids, minlength=n_labels)
    seen = np.maximum(counts, 1)
    beta = options.effective_beta
    weights = (1 - beta) / (1 - beta**seen) if options.class_weight == "effective" else seen**-0.5
    return torch.from_numpy(weights * counts.sum() / (weights @ counts)).float()


def symmetric_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ½ KL(p‖q) + ½ KL(q‖p) summed over rows, for log-probabilities (B, C); a scalar."""
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum() / 2


def _open_labels(allowed: Tensor, label_ids: Tensor) -> Tensor:
    """Open every label to the rows whose gold label is forbidden, (B, C) bool."""
    return allowed | ~allowed.gather(1, label_ids[:, None])


def _mean_over(log_probs: Tensor, open_: Tensor | None) -> Tensor:
    """Return each row's mean log-probability over its open labels, (B,)."""
    if open_ is None:
        return log_probs.mean(dim=1)
    return log_probs.masked_fill(~open_, 0.0).sum(dim=1) / open_.sum(dim=1)
