"""An exponential moving average of the weights, kept beside them while a fit runs.

Fed by the training loop after each step; at the end its weights take the place of the trained ones
before they are rounded, saved and predicted with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

RESULT_VERSION = 1
VERSION_NAME = "models.averaging"

_Tensors = tuple[Tensor, ...] | list[Tensor]


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """Build the average of a model's weights; call its ``update_parameters(model)`` each step.

    The first update copies the weights, so that what they were before training has no part in it.
    The copy and the count of updates are the average's state; both must be kept to resume.

    Args:
        model: what is trained, already on its device; it is copied and left alone.
        decay: what the average keeps of itself each step, in (0, 1), once warmed up.
    """

    def update(averaged: _Tensors, current: _Tensors, updates: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - warm_decay(decay, int(updates)))

    average = AveragedModel(model, multi_avg_fn=update)
    average.requires_grad_(False)
    return average


def warm_decay(decay: float, updates: int) -> float:
    """Return the decay after a number of updates: low at first, so that early weights fade.

    >>> [round(warm_decay(0.99, updates), 3) for updates in (1, 10, 100, 10_000)]
    [0.182, 0.55, 0.918, 0.99]

    Source: TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``: (1 + n) / (10 + n).
    """
    return min(decay, (1 + updates) / (10 + updates))


def take_average(average: AveragedModel, model: nn.Module) -> None:
    """Give a model the averaged weights, in place."""
    model.load_state_dict(average.module.state_dict())
