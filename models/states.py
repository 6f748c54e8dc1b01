"""What a job leaves on disk while and after it trains: training states and final weights.

A training state is one safetensors file with everything the next step needs; randomness needs
nothing, since each step seeds its own. Final weights are 16-bit; predictions are made with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from competition.errors import TrainingError

READABLE_BY_TEAM = 0o644  # safetensors itself leaves files to their owner alone


def write_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write weights, optimiser state and ``facts`` (JSON-able) as one file, whole or not at all."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{index}.{key}"] = value
    _save(path, tensors, facts)


def read_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str
) -> dict[str, Any] | None:
    """Load a training state into model and optimiser; ``None`` if there is none for this job.

    A state of another fingerprint, or a damaged one, is not used.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as stored:
            facts: dict[str, Any] = json.loads(stored.metadata()["facts"])
            if facts["fingerprint"] != fingerprint:
                return None
            tensors = {name: stored.get_tensor(name) for name in _names(stored)}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    prefix = "model."
    weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    model.load_state_dict(weights)
    for index, parameter in enumerate(_parameters(optimizer)):
        own = f"optimizer.{index}."
        optimizer.state[parameter] = {
            name.removeprefix(own): _on_device_of(parameter, name.removeprefix(own), tensor)
            for name, tensor in tensors.items()
            if name.startswith(own)
        }
    return facts


def round_weights(model: nn.Module) -> dict[str, Tensor]:
    """Round the model's weights to 16 bits, in place too, and return them as they will be saved.

    Raises:
        TrainingError: a weight has no 16-bit value (training diverged).
    """
    rounded: dict[str, Tensor] = {}
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            half = tensor.to(torch.float16)
            if not torch.isfinite(half).all():
                raise TrainingError(
                    f"the weights {name} do not fit 16 bits: training diverged; lower train.lr"
                )
            tensor.copy_(half)
            rounded[name] = half.cpu().contiguous()
        else:
            rounded[name] = tensor.cpu().contiguous()
    return rounded


def write_weights(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write final weights as safetensors with ``facts`` (JSON-able) in the header."""
    _save(path, dict(weights), facts)


def read_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load final weights into a model and return the facts stored with them."""
    with safe_open(path, "pt") as stored:
        model.load_state_dict({n: stored.get_tensor(n).float() for n in _names(stored)})
        facts: dict[str, Any] = json.loads(stored.metadata()["facts"])
    return facts


def _save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"facts": json.dumps(facts, sort_keys=True)})
        temporary.chmod(READABLE_BY_TEAM)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written ({error}); is the disk full?") from error


def _names(stored: Any) -> list[str]:
    names: list[str] = stored.keys()  # a safetensors file is no mapping: it cannot be iterated
    return names


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _on_device_of(parameter: nn.Parameter, key: str, tensor: Tensor) -> Tensor:
    return tensor if key == "step" and not parameter.is_cuda else tensor.to(parameter.device)
