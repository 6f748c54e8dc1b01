"""One optimiser step: gradient accumulation over micro-batches, R-Drop, adversarial training.

Gradients are clipped and applied once per step. The loss is a sum over rows divided by the number
of rows in the step, so the result does not depend on how the rows are split into micro-batches, nor
among the processes that share the fit.
Legend: B rows of a micro-batch, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.data.batches import Batch
from models.parts.losses import Objective, symmetric_divergence
from models.settings import RegulariseSettings
from models.training.hardware import is_memory_full
from models.training.sharding import measure_norm, no_sync

RESULT_VERSION = 2
VERSION_NAME = "models.steps"


@dataclass(frozen=True, slots=True)
class StepPart:
    """One micro-batch: rows, gold labels (B,) int64, and ``allowed`` labels.

    ``allowed`` is (B, C) bool; ``None`` allows every label. ``soft_labels`` is (B, C) float32 with
    zeros for labelled rows; ``None`` if all are labelled. The rows of a filler have no weight
    (``models.training.ranks.Hand``).
    """

    batch: Batch
    label_ids: Tensor
    allowed: Tensor | None = None
    soft_labels: Tensor | None = None
    is_filler: bool = False

    def to(self, device: torch.device) -> StepPart:
        """Return the micro-batch on a device; the copy of pinned memory need not be finished."""
        copy = self.batch.to(device)
        is_cuda = device.type == "cuda"  # elsewhere a copy may outlive what it reads
        return self._map(copy, lambda values: values.to(device, non_blocking=is_cuda))

    def pinned(self) -> StepPart:
        """Return the micro-batch in page-locked memory, from which a GPU copies by itself."""
        return self._map(self.batch.map(torch.Tensor.pin_memory), torch.Tensor.pin_memory)

    def doubled(self) -> StepPart:
        """Return the micro-batch with all its rows repeated once."""
        return self._map(self.batch.doubled(), lambda values: torch.cat([values, values]))

    def _map(self, batch: Batch, change: Callable[[Tensor], Tensor]) -> StepPart:
        """Return the micro-batch with another batch, and its other parts changed."""
        allowed = None if self.allowed is None else change(self.allowed)
        soft_labels = None if self.soft_labels is None else change(self.soft_labels)
        return StepPart(batch, change(self.label_ids), allowed, soft_labels, self.is_filler)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step.

    Attributes:
        parts: the micro-batches of this process, which may differ in size.
        rows: number of rows of the step, over all processes.
        progress: fraction of the steps of the fit already taken, in [0, 1).
    """

    parts: Sequence[StepPart]
    rows: int
    progress: float


@dataclass(frozen=True, slots=True)
class StepSettings:
    """Objective, gradient clipping and regularisation, the same for every step of a fit."""

    objective: Objective
    clip_norm: float
    regularise: RegulariseSettings


class MemoryFullError(Exception):
    """A step's micro-batches do not fit the device; ``cause`` is what it said. Nothing changed."""

    def __init__(self, cause: RuntimeError) -> None:
        super().__init__(str(cause))
        self.cause = cause


LAYER_DROPS = ("layerdrop", "encoder_layerdrop")
"""Names of the rate at which configurations let a layer be skipped in training."""

Target = tuple[nn.Parameter, Tensor | float]
"""A weight and the L2 norm of the perturbation to apply to it."""

Perturbation = tuple[nn.Parameter, Tensor]
"""A weight and a scalar; the perturbation is the weight's gradient times the scalar."""


def take_step(
    model: Any, step: Step, settings: StepSettings, *, optimizer: Any, accelerator: Any
) -> Tensor:
    """Take one optimiser step with gradient accumulation over micro-batches.

    Args:
        model: the prepared network.
        step: its rows.
        settings: the same for every step of a fit.
        optimizer: the prepared optimiser, with the learning rates of this step.
        accelerator: mixed precision, loss scaling, gradient synchronisation and clipping.

    Returns:
        The loss at the weights before the step, R-Drop's term included: the sum over the rows of
        this process divided by the rows of the step, a detached scalar on the device.

    Raises:
        MemoryFullError: the micro-batches do not fit in memory; the weights are unchanged.
    """
    try:
        total = _add_all_gradients(model, step, settings, accelerator, optimizer)
    except RuntimeError as error:
        if not is_memory_full(error) or accelerator.num_processes > 1:
            raise
        optimizer.zero_grad()
        raise MemoryFullError(error.with_traceback(None)) from None
    accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    return total


def _add_all_gradients(
    model: Any, step: Step, settings: StepSettings, accelerator: Any, optimizer: Any
) -> Tensor:
    """Add the gradients of a step, and those under attack; return the loss before it."""
    total = _add_gradients(model, step, settings, accelerator)
    regularise = settings.regularise
    if regularise.adversarial != "none" and step.progress >= regularise.adversarial_from:
        attack = ATTACKS[regularise.adversarial]
        bare = accelerator.unwrap_model(model)
        perturbations = plan_perturbations(attack.targets(bare, regularise.adversarial_size))
        if perturbations:
            with _perturbed(perturbations):
                if attack.replaces:
                    optimizer.zero_grad()
                _add_gradients(model, step, settings, accelerator)
    return total


def has_unused(model: Any, part: StepPart, objective: Objective, accelerator: Any) -> bool:
    """Return whether some trained weight may get no gradient, such as that of a pooling layer.

    Processes that exchange gradients must know. Moves the network to the device.

    Args:
        model: the network.
        part: any row.
        objective: of the fit.
        accelerator: mixed precision.
    """
    model.to(accelerator.device)
    part = part.to(accelerator.device)
    with accelerator.autocast():
        batch = part.batch
        logits = model(*batch.inputs)
    torch.autograd.backward(objective.sum(logits, part.label_ids, part.allowed, part.soft_labels))
    lacks = any(each.requires_grad and each.grad is None for each in model.parameters())
    model.zero_grad()
    config = getattr(model.encoder, "config", None)
    return lacks or any(getattr(config, name, 0) > 0 for name in LAYER_DROPS)


def count_passes(regularise: RegulariseSettings) -> int:
    """Return how many forward passes per row are in memory at once: two with R-Drop."""
    return 2 if regularise.r_drop > 0 else 1


def _add_gradients(model: Any, step: Step, settings: StepSettings, accelerator: Any) -> Tensor:
    """Accumulate the gradients of a step over its micro-batches; return its loss, detached.

    Processes exchange gradients once, after the last micro-batch. What they receive is the mean
    over the processes, so each loss is multiplied by their number.
    """
    total = torch.zeros((), device=accelerator.device)
    for place, part in enumerate(step.parts):
        is_last = place == len(step.parts) - 1
        with nullcontext() if is_last else no_sync(model, accelerator):
            loss = _sum_losses(model, part, settings) / step.rows
            if part.is_filler:
                loss = loss * 0
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach()
    return total


def _sum_losses(model: Any, part: StepPart, settings: StepSettings) -> Tensor:
    """Return the loss of a micro-batch, summed over its rows."""
    batch, objective, weight = part.batch, settings.objective, settings.regularise.r_drop
    if weight == 0:
        logits = model(*batch.inputs)
        return objective.sum(logits, part.label_ids, part.allowed, part.soft_labels)
    return _sum_twice(model, part.doubled(), objective, weight)


def _sum_twice(model: Any, twice: StepPart, objective: Objective, weight: float) -> Tensor:
    """Return the R-Drop loss: mean of two dropout passes plus ``weight`` times their divergence.

    Both passes run in one call, with every row twice: each copy gets its own dropout masks, and a
    distributed network expects one forward call before each backward pass.

    Source: Wu et al. 2021, arXiv 2106.14448 (R-Drop), section 2; the paper sums the losses of the
    two passes, here they are averaged as in its released code, which keeps the scale of the loss.
    """
    batch = twice.batch
    logits = model(*batch.inputs)
    loss = objective.sum(logits, twice.label_ids, twice.allowed, twice.soft_labels) / 2
    first, second = objective.log_probs(logits, twice.label_ids, twice.allowed).chunk(2)
    return loss + weight * symmetric_divergence(first, second)


def fgm_targets(model: Any, size: float) -> list[Target]:
    """Return the target of the fast gradient method (FGM): the matrix of token embeddings.

    The perturbation's norm is ``size`` times the root mean square norm of a token's vector.

    Source: Miyato et al. 2017, arXiv 1605.07725, section 3; the paper perturbs the normalised
    embeddings of each row, here the embedding matrix is perturbed once for the whole step.
    """
    table = model.encoder.get_input_embeddings().weight
    typical = measure_norm(table.detach()) / len(table) ** 0.5
    return [(table, size * typical)]


def awp_targets(model: Any, size: float) -> list[Target]:
    """Return the targets of adversarial weight perturbation (AWP): all other weight matrices.

    The perturbation's norm is ``size`` times the norm of the matrix. The token embeddings are left
    out: only tokens of this step have a gradient, and they would absorb the whole perturbation.

    Source: Wu et al. 2020, arXiv 2004.05884, section 4, with one inner step and unperturbed
    inputs; biases and norms are left out, as in their code.
    """
    table = model.encoder.get_input_embeddings().weight
    matrices = [each for each in model.parameters() if each.ndim > 1 and each is not table]
    return [(weight, size * measure_norm(weight.detach())) for weight in matrices]


def plan_perturbations(targets: Sequence[Target]) -> list[Perturbation]:
    """Scale the gradients of the target weights to perturbations of the wanted norm.

    The loss scale of fp16 is in both the gradient and its norm and cancels, so nothing has to be
    unscaled before the optimiser does so.

    Returns:
        One perturbation for each weight with a non-zero gradient; none at all if any gradient is
        not finite, so that the loss scaler then skips the step as usual.
    """
    found = [(weight, size) for weight, size in targets if weight.grad is not None]
    if not found:
        return []
    norms = torch.stack([measure_norm(_gradient(weight)) for weight, _ in found])
    factors = torch.stack([torch.as_tensor(size).to(norms) for _, size in found]) / norms
    is_nonzero = (norms > 0).tolist()  # also synchronises with the device, once
    if not bool(norms.isfinite().all()):
        return []
    scaled = zip(found, factors.unbind(), is_nonzero, strict=True)
    return [(weight, factor) for (weight, _), factor, is_kept in scaled if is_kept]


@dataclass(frozen=True, slots=True)
class Attack:
    """A kind of adversarial training: which weights to perturb, and by how much.

    The gradients at the perturbed weights are added to those of the step, or replace them
    (``replaces``).
    """

    targets: Callable[[Any, float], list[Target]]
    replaces: bool


ATTACKS: dict[str, Attack] = {
    "fgm": Attack(fgm_targets, replaces=False),
    "awp": Attack(awp_targets, replaces=True),
}


@contextmanager
def _perturbed(perturbations: Sequence[Perturbation]) -> Iterator[None]:
    """Perturb weights along their gradients, and restore exactly the same bits afterwards."""
    kept = [weight.detach().clone() for weight, _ in perturbations]
    try:
        with torch.no_grad():
            for weight, factor in perturbations:
                weight.add_(_gradient(weight) * factor)
        yield
    finally:
        with torch.no_grad():
            for (weight, _), before in zip(perturbations, kept, strict=True):
                weight.copy_(before)


def _gradient(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    return weight.grad
