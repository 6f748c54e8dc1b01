"""What a job leaves on disk while and after it trains: training states and final weights.

A training state is one safetensors file with everything the next step needs; randomness needs
nothing, since each step seeds its own. Final weights are 16-bit; predictions are made with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from competition.errors import TrainingError

READABLE_BY_TEAM = 0o644  # safetensors itself leaves files to their owner alone
TRAIN_AGAIN = "run fold for it again, without --no-checkpoints and with --overwrite"

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


def write_state(
    path: Path, model: nn.Module, optimizer: Optimizers, facts: Mapping[str, Any]
) -> None:
    """Write weights, optimiser state and ``facts`` (JSON-able) as one file, whole or not at all.

    A tensor that goes by two names (tied weights) is written under the first; what stays as it was
    loaded (``kept_state``) is left out.
    """
    kept = kept_state(model)
    tensors = {f"model.{n}": each for n, each in distinct_weights(model).items() if n in kept}
    for index, (_, state, _) in enumerate(_states(optimizer)):
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = value
    _save(path, tensors, facts)


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return the facts stored with a training state; ``None`` without one that can be read."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as stored:
            facts: dict[str, Any] = json.loads(stored.metadata()["facts"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return facts


def read_state(
    path: Path, model: nn.Module, optimizer: Optimizers, fingerprint: str
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
    tied = {n: weights[first] for n, first in _tied_names(model).items() if first in weights}
    load_kept(model, {**weights, **tied})
    for index, (parameter, state, is_fused) in enumerate(_states(optimizer)):
        own = f"optimizer.{index}."
        state.clear()
        for name, tensor in tensors.items():
            if name.startswith(own):
                key = name.removeprefix(own)
                state[key] = place(tensor, key, parameter, is_fused=is_fused)
    return facts


def kept_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training may change: all, or adapters and head beside a frozen base.

    A base is named by the hash of its content and loaded anew, so its weights are never kept.
    """
    name_frozen: Callable[[], set[str]] = getattr(model, "frozen_names", set)
    frozen = name_frozen()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_kept(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what ``kept_state`` names into a model, in place; nothing may be absent or beyond it.

    Raises:
        RuntimeError: names or shapes differ.
    """
    wanted = kept_state(model).keys()
    if wanted != tensors.keys():
        raise RuntimeError(f"weights differ in {sorted(wanted ^ tensors.keys())[:3]}")
    model.load_state_dict(dict(tensors), strict=False)


def distinct_weights(model: nn.Module, prefer: str = "") -> dict[str, Tensor]:
    """Return the model's tensors, each under one name: the first, of those that begin as preferred.

    A tensor has several names where weights are tied, such as those of a masked-language head and
    the token embeddings.
    """
    tied = _tied_names(model, prefer)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def _tied_names(model: nn.Module, prefer: str = "") -> dict[str, str]:
    """Map each further name of a tensor to the one it is kept under."""
    firsts: dict[tuple[int, torch.Size], str] = {}
    tied: dict[str, str] = {}
    state = model.state_dict()
    for name in sorted(state, key=lambda name: not name.startswith(prefer)):
        tensor = state[name]
        first = firsts.setdefault((tensor.data_ptr(), tensor.shape), name)
        if first != name and tensor.numel():
            tied[name] = first
    return tied


def round_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round floating-point tensors to float16, on the CPU; others stay as they are.

    Raises:
        TrainingError: a weight has no 16-bit value (training diverged).
    """
    rounded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        half = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        if tensor.is_floating_point() and not torch.isfinite(half).all():
            raise TrainingError(
                f"the weights {name} do not fit 16 bits: training diverged; lower the learning rate"
            )
        rounded[name] = half.cpu().contiguous()
    return rounded


def round_weights(model: nn.Module) -> dict[str, Tensor]:
    """Round the model's weights to 16 bits, in place too, and return them as they will be saved.

    Raises:
        TrainingError: a weight has no 16-bit value (training diverged).
    """
    kept = kept_state(model)
    rounded = round_tensors(kept)
    for name, tensor in kept.items():
        tensor.copy_(rounded[name])
    return rounded


def write_weights(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write final weights as safetensors with ``facts`` (JSON-able) in the header."""
    _save(path, dict(weights), facts)


def read_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load final weights into a model and return the facts stored with them.

    Raises:
        TrainingError: the file is damaged.
    """
    tensors, facts = _read_weights(path)
    load_kept(model, tensors)
    return facts


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read final weights as float32, and the facts stored with them."""
    try:
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name).float() for name in _names(stored)}
            return tensors, json.loads(stored.metadata()["facts"])
    except SafetensorError as error:
        raise TrainingError(f"{path} is damaged ({error}); {TRAIN_AGAIN}") from None


def read_weight_facts(path: Path) -> dict[str, Any] | None:
    """Return the facts stored with final weights, without loading them; None if they are damaged.

    A file that was cut short, as a full disk or a broken copy leaves it, cannot be opened at all.
    """
    return read_facts(path)


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


def _states(optimizer: Optimizers) -> list[tuple[nn.Parameter, dict[str, Any], bool]]:
    """List every parameter with its optimiser's state of it and whether that one is fused."""
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    return [
        (parameter, one.state[parameter], bool(group.get("fused")))
        for one in optimizers
        for group in one.param_groups
        for parameter in group["params"]
    ]


def place(tensor: Tensor, key: str, parameter: nn.Parameter, *, is_fused: bool) -> Tensor:
    """Put a part of an optimiser's state where the optimiser keeps it.

    That is beside the parameter, but for the count of steps, which only a fused one has there.
    """
    return tensor if key == "step" and not is_fused else tensor.to(parameter.device)


def read_start(path: Path, model: nn.Module, fingerprint: str, *, base: str | None = None) -> None:
    """Load another fit's final weights into a model: its encoder, and what else fits in shape.

    Args:
        path: what ``write_weights`` left.
        model: a network with an ``encoder``, changed in place.
        fingerprint: that of the fit whose weights these must be.
        base: identity of the frozen base beside which the weights learn, if there is one.

    Raises:
        TrainingError: the file is absent, damaged, of another fit, or of another encoder.
    """
    if not path.is_file():
        raise TrainingError(
            f"{path} is missing, where start_from wants trained weights; {TRAIN_AGAIN}"
        )
    tensors, facts = _read_weights(path)
    if facts["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{path} holds weights of another fit than the stored result; {TRAIN_AGAIN}"
        )
    if base is not None and facts["encoder"]["identity"] != base:
        raise TrainingError(f"start_from: {path} holds adapters of another base than this variant")
    own = kept_state(model)
    fitting = {n: t for n, t in tensors.items() if n in own and own[n].shape == t.shape}
    lacking = [n for n in own if n.startswith("encoder.") and n not in fitting]
    if lacking:
        raise TrainingError(
            f"start_from: {path} has another encoder than this variant "
            f"({len(lacking)} weights do not fit, {lacking[0]!r} is one)"
        )
    model.load_state_dict(fitting, strict=False)
