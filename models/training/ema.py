"""Exponential moving average (EMA) of the weights.

The training loop updates it after each step; after the last step the averaged weights replace the
trained ones, and are rounded, saved and used for prediction.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

RESULT_VERSION = 1
VERSION_NAME = "models.averaging"

_Tensors = tuple[Tensor, ...] | list[Tensor]


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """Build the moving average of a model's weights; call ``update_parameters(model)`` each step.

    The first update copies the weights, so the initial weights do not enter the average. The copy
    and the number of updates are its state; both are needed to resume.

    Args:
        model: the model being trained, already on its device; it is copied, not changed.
        decay: weight of the old average in each update, in (0, 1), after its own warm-up.
    """

    def update(averaged: _Tensors, current: _Tensors, updates: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - warm_decay(decay, int(updates)))

    average = AveragedModel(model, multi_avg_fn=update)
    average.requires_grad_(False)
    return average


def warm_decay(decay: float, updates: int) -> float:
    """Return the decay after a number of updates: low at first, to forget early weights quickly.

    >>> [round(warm_decay(0.99, updates), 3) for updates in (1, 10, 100, 10_000)]
    [0.182, 0.55, 0.918, 0.99]

    Source: TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``: (1 + n) / (10 + n).
    """
    return min(decay, (1 + updates) / (10 + updates))


def take_average(average: AveragedModel, model: nn.Module) -> None:
    """Copy the averaged weights into a model, in place."""
    model.load_state_dict(average.module.state_dict())
