"""Losses: cross-entropy with label smoothing, focal loss, class weights, R-Drop's divergence.

Every loss is a *sum* over rows, and a step divides by its number of rows, so gradient accumulation
is exact with micro-batches of unequal size. ``Objective`` combines the loss, class weights counted
on the training rows of the fold, and labels ruled out by entity types.
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
from models.settings import DistilSettings, LossSettings, TrainSettings

RESULT_VERSION = 1
VERSION_NAME = "models.losses"

CROSS_ENTROPY = "cross-entropy"
MIN_MISSING = 1e-6
"""Minimum of 1 - p, since powers below 1 have an infinite gradient at 0."""

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
    """The inputs of a loss: predictions and gold labels of B rows.

    Attributes:
        log_probs: (B, C) float32 over the labels that each row may have; very low for others.
        label_ids: (B,) int64 gold labels.
        gold: (B,) log-probability of each row's gold label.
        cross_entropy: (B,) cross-entropy of each row, with label smoothing.
    """

    log_probs: Tensor
    label_ids: Tensor
    gold: Tensor
    cross_entropy: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and the options that it uses.

    Attributes:
        of_rows: maps the rows and ``loss_options`` to the loss of each row, (B,); finite, with a
            finite gradient, for all finite logits.
        reads: the ``loss_options`` that this loss uses; setting them is refused with other losses.
        smooths: whether it uses ``Judged.cross_entropy`` and so supports label smoothing.
    """

    of_rows: Callable[[Judged, LossSettings], Tensor]
    reads: tuple[str, ...] = ()
    smooths: bool = False


def plain_loss(rows: Judged, options: LossSettings) -> Tensor:
    """Return the cross-entropy of each row, (B,)."""
    del options
    return rows.cross_entropy


def focal_loss(rows: Judged, options: LossSettings) -> Tensor:
    """Return the focal loss of each row, (B,): cross-entropy, less for confident rows.

    Source: Lin et al. 2017, arXiv 1708.02002, equation 4.
    """
    return rows.cross_entropy * focal_factor(rows.gold, options.focal_gamma)


def focal_factor(gold_log_probs: Tensor, gamma: float) -> Tensor:
    """Return the focal factor (1 − p)^gamma of each row, (B,) in [0, 1].

    >>> focal_factor(torch.tensor([0.9, 0.5]).log(), 2.0)
    tensor([0.0100, 0.2500])
    """
    missing = -torch.expm1(gold_log_probs)
    return missing.clamp_min(MIN_MISSING).pow(gamma)


LOSSES: dict[str, Loss] = {
    CROSS_ENTROPY: Loss(plain_loss, smooths=True),
    "focal": Loss(focal_loss, reads=("focal_gamma",)),
}


@dataclass(frozen=True)
class Objective:
    """The objective that a fit minimises.

    Attributes:
        loss: a key of ``LOSSES``.
        label_smoothing: share of the target that is spread over the labels a row may have.
        options: options of the loss.
        class_weights: (C,) float32 weight of a row by its gold label; None for equal weights.
        soft_weight: weight of a row with soft labels (distillation), relative to a labelled one.
    """

    loss: str
    label_smoothing: float
    options: LossSettings = field(default_factory=LossSettings)
    class_weights: Tensor | None = None
    soft_weight: float = 1.0

    def sum(
        self,
        logits: Tensor,
        label_ids: Tensor,
        allowed: Tensor | None = None,
        soft_labels: Tensor | None = None,
    ) -> Tensor:
        """Return the loss summed over rows, a scalar; finite for all finite logits.

        Args:
            logits: (B, C) raw.
            label_ids: (B,) int64 gold.
            allowed: (B, C) bool, or None to allow every label; a row whose own gold label is not
                allowed is not masked at all.
            soft_labels: (B, C) float32 probabilities, zeros for labelled rows, or None. The loss of
                such a row is the plain cross-entropy against them, without smoothing or class
                weight.
        """
        if soft_labels is not None:
            is_soft = soft_labels.sum(dim=1) > 0
            labelled = self._of_rows(logits, label_ids, allowed)
            soft = -(soft_labels * F.log_softmax(logits.float(), dim=-1)).sum(dim=1)
            return torch.where(is_soft, self.soft_weight * soft, labelled).sum()
        if self.loss == CROSS_ENTROPY and self.class_weights is None and allowed is None:
            return cross_entropy(logits, label_ids, self.label_smoothing)
        return self._of_rows(logits, label_ids, allowed).sum()

    def _of_rows(self, logits: Tensor, label_ids: Tensor, allowed: Tensor | None) -> Tensor:
        """Return the loss of each row against its gold label, (B,)."""
        judged = self._judge(logits, label_ids, allowed)
        rows = LOSSES[self.loss].of_rows(judged, self.options)
        if self.class_weights is not None:
            weights = self.class_weights.to(logits.device, non_blocking=True)
            rows = rows * weights[label_ids]
        return rows

    def _judge(self, logits: Tensor, label_ids: Tensor, allowed: Tensor | None) -> Judged:
        log_probs = self.log_probs(logits, label_ids, allowed)
        open_ = None if allowed is None else _open_labels(allowed, label_ids)
        gold = log_probs.gather(1, label_ids[:, None]).squeeze(1)
        kept, spread = 1 - self.label_smoothing, self.label_smoothing
        smoothed = -kept * gold - spread * _mean_over(log_probs, open_)
        return Judged(log_probs, label_ids, gold, smoothed)

    def log_probs(self, logits: Tensor, label_ids: Tensor, allowed: Tensor | None) -> Tensor:
        """Return log-probabilities over the labels that each row may have, (B, C) float32."""
        scores = logits.float()
        if allowed is not None:
            scores = mask_logits(scores, _open_labels(allowed, label_ids))
        return F.log_softmax(scores, dim=-1)


class LossChoice(Protocol):
    """The settings of a variant that define its objective."""

    @property
    def loss(self) -> str:
        """A key of ``LOSSES``."""
        ...

    @property
    def loss_options(self) -> LossSettings:
        """Options of the losses and of class weights."""
        ...

    @property
    def train(self) -> TrainSettings:
        """Contains the label smoothing."""
        ...

    @property
    def distil(self) -> DistilSettings | None:
        """Contains the weight of rows with soft labels."""
        ...


def build_objective(choice: LossChoice, label_ids: AnyInts, n_labels: int) -> Objective:
    """Build the objective of a fit."""
    options = choice.loss_options
    return Objective(
        loss=choice.loss,
        label_smoothing=choice.train.label_smoothing,
        options=options,
        class_weights=compute_class_weights(label_ids, n_labels, options),
        soft_weight=1.0 if choice.distil is None else choice.distil.weight,
    )


def compute_class_weights(
    label_ids: AnyInts, n_labels: int, options: LossSettings
) -> Tensor | None:
    """Return class weights, (C,) float32; ``None`` if all are equal.

    Their mean over the n training rows is 1, so the learning rate keeps its meaning. A label absent
    from training gets the weight of a label that occurs once.

    >>> inverse = LossSettings(class_weight="inverse-sqrt")
    >>> compute_class_weights(np.array([0, 0, 0, 0, 1]), 2, inverse)
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
    """Allow all labels for rows whose gold label is not allowed, (B, C) bool."""
    return allowed | ~allowed.gather(1, label_ids[:, None])


def _mean_over(log_probs: Tensor, open_: Tensor | None) -> Tensor:
    """Return the mean log-probability of each row over its allowed labels, (B,)."""
    if open_ is None:
        return log_probs.mean(dim=1)
    return log_probs.masked_fill(~open_, 0.0).sum(dim=1) / open_.sum(dim=1)
