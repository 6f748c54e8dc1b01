"""One optimiser step: gradients over micro-batches, regularised or attacked, clipped, applied.

Called by the training loop for each step. Everything here holds for the step as a whole: a sum
over rows divided by the step's rows, however the rows are cut into micro-batches.
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
from models.parts.heads import Positions
from models.parts.losses import Objective, symmetric_divergence
from models.settings import RegulariseSettings
from models.training.hardware import is_memory_full

RESULT_VERSION = 2
VERSION_NAME = "models.steps"


@dataclass(frozen=True, slots=True)
class StepPart:
    """One micro-batch: its rows, their gold labels (B,) int64, the labels each row may have.

    ``allowed`` (B, C) bool is ``None`` where nothing is ruled out.
    """

    batch: Batch
    label_ids: Tensor
    allowed: Tensor | None = None

    def to(self, device: torch.device) -> StepPart:
        """Return the micro-batch on a device."""
        allowed = None if self.allowed is None else self.allowed.to(device)
        return StepPart(self.batch.to(device), self.label_ids.to(device), allowed)


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What every step of a fit minimises, and how."""

    objective: Objective
    clip_norm: float
    regularise: RegulariseSettings


class MemoryFullError(Exception):
    """A step's micro-batches do not fit the device; ``cause`` is what it said. Nothing changed."""

    def __init__(self, cause: RuntimeError) -> None:
        super().__init__(str(cause))
        self.cause = cause


Target = tuple[nn.Parameter, Tensor | float]
"""A weight, and how far it is to be moved, as an L2 distance."""

Move = tuple[nn.Parameter, Tensor]
"""A weight, and the scalar by which its gradient is multiplied and added to it."""


def take_step(
    model: Any,
    parts: Sequence[StepPart],
    settings: StepSettings,
    *,
    optimizer: Any,
    accelerator: Any,
    progress: float,
) -> Tensor:
    """Do one optimiser step over micro-batches; return its mean loss, detached.

    Args:
        model: the prepared network.
        parts: the step's micro-batches, which may differ in size.
        settings: the same for every step of a fit.
        optimizer: the prepared optimiser, its rates set.
        accelerator: casts, scales, synchronises and clips.
        progress: share of the fit's steps that are done, in [0, 1).

    Returns:
        The loss on the weights as they were, what R-Drop adds included: a scalar on the device.

    Raises:
        MemoryFullError: the micro-batches do not fit; the weights are as they were.
    """
    try:
        total = _add_all_gradients(model, parts, settings, accelerator, optimizer, progress)
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
    model: Any,
    parts: Sequence[StepPart],
    settings: StepSettings,
    accelerator: Any,
    optimizer: Any,
    progress: float,
) -> Tensor:
    """Add the gradients of a step, and those under attack; return the mean loss before it."""
    total = _add_gradients(model, parts, settings, accelerator)
    regularise = settings.regularise
    if regularise.adversarial != "none" and progress >= regularise.adversarial_from:
        attack = ATTACKS[regularise.adversarial]
        bare = accelerator.unwrap_model(model)
        moves = plan_moves(attack.aim(bare, regularise.adversarial_size))
        if moves:
            with _moved(moves):
                if attack.replaces:
                    optimizer.zero_grad()
                _add_gradients(model, parts, settings, accelerator)
    return total


def count_passes(regularise: RegulariseSettings) -> int:
    """Return how often a micro-batch's activations are held at once: twice under R-Drop."""
    return 2 if regularise.r_drop > 0 else 1


def _add_gradients(
    model: Any, parts: Sequence[StepPart], settings: StepSettings, accelerator: Any
) -> Tensor:
    """Add the step's gradients to what the weights have; return its mean loss, detached.

    Processes exchange gradients once, after the last micro-batch.
    """
    rows = sum(len(part.label_ids) for part in parts)
    total = torch.zeros((), device=accelerator.device)
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            loss = _sum_losses(model, part, settings) / rows
            accelerator.backward(loss)
        total += loss.detach()
    return total


def _sum_losses(model: Any, part: StepPart, settings: StepSettings) -> Tensor:
    """Return the loss of a micro-batch's rows, summed."""
    batch, objective, weight = part.batch, settings.objective, settings.regularise.r_drop
    if weight == 0:
        logits = model(batch.input_ids, batch.attention_mask, batch.positions)
        return objective.sum(logits, part.label_ids, part.allowed)
    return _sum_twice(model, _doubled(part), objective, weight)


def _sum_twice(model: Any, twice: StepPart, objective: Objective, weight: float) -> Tensor:
    """Return the mean loss of two dropout passes and ``weight`` times how far they lie apart.

    Both passes are one call over each row twice: each copy draws dropout masks of its own, and a
    network that is spread over processes expects one call before gradients flow.

    Source: Wu et al. 2021, arXiv 2106.14448 (R-Drop), section 2; the paper sums the losses of the
    two passes, here they are averaged as in its released code, which keeps the size of a step.
    """
    batch = twice.batch
    logits = model(batch.input_ids, batch.attention_mask, batch.positions)
    loss = objective.sum(logits, twice.label_ids, twice.allowed) / 2
    first, second = objective.log_probs(logits, twice.label_ids, twice.allowed).chunk(2)
    return loss + weight * symmetric_divergence(first, second)


def _doubled(part: StepPart) -> StepPart:
    """Return the micro-batch with its rows once more behind them."""

    def twice(values: Tensor) -> Tensor:
        return torch.cat([values, values])

    batch = part.batch
    positions = Positions(*(twice(getattr(batch.positions, name)) for name in Positions.names()))
    allowed = None if part.allowed is None else twice(part.allowed)
    doubled = Batch(twice(batch.input_ids), twice(batch.attention_mask), positions)
    return StepPart(doubled, twice(part.label_ids), allowed)


def aim_fgm(model: Any, size: float) -> list[Target]:
    """Aim at the table of word embeddings, by ``size`` times the norm of a typical word's vector.

    Source: Miyato et al. 2017, arXiv 1605.07725, section 3; theirs moves each row's own
    normalised embeddings, here the table of them is moved once for the whole step.
    """
    table = model.encoder.get_input_embeddings().weight
    typical = torch.linalg.vector_norm(table.detach()) / len(table) ** 0.5
    return [(table, size * typical)]


def aim_awp(model: Any, size: float) -> list[Target]:
    """Aim at every weight matrix but the table of words, by ``size`` times its own norm.

    Of the table only the step's own words would move, all of them by what is meant for the whole.

    Source: Wu et al. 2020, arXiv 2004.05884, section 4, with one step of the inner loop and
    inputs that stay; biases and norms stay too, as in their code.
    """
    table = model.encoder.get_input_embeddings().weight
    matrices = [each for each in model.parameters() if each.ndim > 1 and each is not table]
    return [(weight, size * torch.linalg.vector_norm(weight.detach())) for weight in matrices]


def plan_moves(aims: Sequence[Target]) -> list[Move]:
    """Turn aims into moves along the gradients that the weights have.

    Under fp16 a gradient carries the loss scale and so does its norm: in their quotient it cancels,
    and nothing has to be unscaled before the optimiser's own time.

    Returns:
        One move for each weight that has a direction to go; none at all when a gradient is not
        finite, which leaves the step to be judged as if there were no attack.
    """
    found = [(weight, size) for weight, size in aims if weight.grad is not None]
    if not found:
        return []
    norms = torch.stack([torch.linalg.vector_norm(_gradient(weight)) for weight, _ in found])
    factors = torch.stack([torch.as_tensor(size).to(norms) for _, size in found]) / norms
    can_move = (norms > 0).tolist()  # also waits for the device, once
    if not bool(norms.isfinite().all()):
        return []
    moves = zip(found, factors.unbind(), can_move, strict=True)
    return [(weight, factor) for (weight, _), factor, moves_ in moves if moves_]


@dataclass(frozen=True, slots=True)
class Attack:
    """An adversarial step: where it moves the weights, from the whole step's gradients.

    The gradients taken there are added to the step's own, or take their place (``replaces``).
    """

    aim: Callable[[Any, float], list[Target]]
    replaces: bool


ATTACKS: dict[str, Attack] = {
    "fgm": Attack(aim_fgm, replaces=False),
    "awp": Attack(aim_awp, replaces=True),
}


@contextmanager
def _moved(moves: Sequence[Move]) -> Iterator[None]:
    """Move weights along their gradients, and put the very bits back afterwards."""
    kept = [weight.detach().clone() for weight, _ in moves]
    try:
        with torch.no_grad():
            for weight, factor in moves:
                weight.add_(_gradient(weight) * factor)
        yield
    finally:
        with torch.no_grad():
            for (weight, _), before in zip(moves, kept, strict=True):
                weight.copy_(before)


def _gradient(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    return weight.grad
