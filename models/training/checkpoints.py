"""Checkpoints: training states to resume from, and final weights to predict with.

A training state is one safetensors file with all that the next step needs; it holds no random
state, since each step sets its own seed, and whole tensors, so any number of processes can resume
from it. Final weights are 16-bit, and predictions are made with them as saved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from competition.errors import TrainingError
from competition.files import hidden_folder, parse_json
from models.training.optimizer import moments_of, refill
from models.training.sharding import is_sharded, spread, whole

READABLE_BY_TEAM = 0o644  # safetensors makes files readable by their owner only
TRAIN_AGAIN = "run fold for it again, without --no-checkpoints and with --overwrite"

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


def write_state(
    path: Path,
    model: nn.Module,
    optimizer: Optimizers,
    facts: Mapping[str, Any],
    *,
    is_main: bool = True,
) -> None:
    """Write weights, optimiser state and ``facts`` (JSON-serialisable) to one file, atomically.

    Tied weights (one tensor with several names) are written once, under the first name. Weights
    that stay as loaded (see ``kept_state``) are left out. Only the main process writes; if tensors
    are sharded, all processes must call this, to contribute their parts.
    """
    kept = kept_state(model)
    tensors = {f"model.{n}": each for n, each in distinct_weights(model).items() if n in kept}
    for index, held in enumerate(_states(optimizer)):
        for key, value in moments_of(held.state).items():
            tensors[f"optimizer.{index}.{key}"] = value
    for name, tensor in tensors.items():
        if is_sharded(tensor):
            full = whole(tensor)
            tensors[name] = full.cpu() if is_main else full[:0]
    if is_main:
        _save(path, tensors, facts)


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return the facts stored with a training state; ``None`` if it is absent or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as stored:
            facts = parse_json(stored.metadata()["facts"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def read_state(
    path: Path, model: nn.Module, optimizer: Optimizers, fingerprint: str
) -> dict[str, Any] | None:
    """Load a training state into model and optimiser and return its facts.

    Returns ``None`` and loads nothing if the state is absent, damaged or of another fingerprint.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as stored:
            facts: dict[str, Any] = parse_json(stored.metadata()["facts"])
            if facts["fingerprint"] != fingerprint:
                return None
            tensors = {name: stored.get_tensor(name) for name in _names(stored)}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    prefix = "model."
    weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    tied = {n: weights[first] for n, first in _tied_names(model).items() if first in weights}
    load_kept(model, {**weights, **tied})
    for index, held in enumerate(_states(optimizer)):
        own = f"optimizer.{index}."
        kept = {n.removeprefix(own): t for n, t in tensors.items() if n.startswith(own)}
        held.state.clear()
        if kept and hasattr(held.optimizer, "init_state"):
            refill(held.optimizer, held.place, kept)
            continue
        for key, tensor in kept.items():
            held.state[key] = place(tensor, key, held.parameter, is_fused=held.is_fused)
    return facts


def kept_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training may change: all, or adapters and head beside a frozen base.

    A base is named by the hash of its content and loaded again, so its weights are never kept.
    """
    name_frozen: Callable[[], set[str]] = getattr(model, "frozen_names", set)
    frozen = name_frozen()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_kept(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load what ``kept_state`` names into a model, in place; nothing may be absent or beyond it.

    Raises:
        RuntimeError: names or shapes differ.
    """
    own = kept_state(model)
    if own.keys() != tensors.keys():
        raise RuntimeError(f"weights differ in {sorted(own.keys() ^ tensors.keys())[:3]}")
    model.load_state_dict({n: spread(each, own[n]) for n, each in tensors.items()}, strict=False)


def distinct_weights(model: nn.Module, prefer: str = "") -> dict[str, Tensor]:
    """Return the tensors of a model, tied weights once: under the first name, or one by ``prefer``.

    Weights are tied when one tensor has several names, such as the output layer of a
    masked-language model and its token embeddings. A name that starts with ``prefer`` comes first.
    """
    tied = _tied_names(model, prefer)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def _tied_names(model: nn.Module, prefer: str = "") -> dict[str, str]:
    """Map each additional name of a tied tensor to the name it is stored under."""
    firsts: dict[tuple[int, torch.Size], str] = {}
    tied: dict[str, str] = {}
    state = model.state_dict()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in sorted(state, key=lambda name: not name.startswith(prefer)):
        tensor = state[name]
        # this rank's part of a sharded tensor may be empty, and then has no address
        address = id(parameters[name]) if is_sharded(tensor) else tensor.data_ptr()
        first = firsts.setdefault((address, tensor.shape), name)
        if first != name and tensor.numel():
            tied[name] = first
    return tied


def round_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round floating-point tensors to float16, on the CPU; others are unchanged.

    Raises:
        TrainingError: a weight exceeds the range of float16 (training diverged).
    """
    return {name: _round(name, tensor) for name, tensor in tensors.items()}


def _round(name: str, tensor: Tensor) -> Tensor:
    half = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
    if tensor.is_floating_point() and not torch.isfinite(half).all():
        raise TrainingError(
            f"training diverged: the weights {name} exceed 16-bit range; lower the learning rate"
        )
    return half.cpu().contiguous()


def round_weights(model: nn.Module, *, is_main: bool = True) -> dict[str, Tensor]:
    """Round the weights of a model to float16, in place as well, and return them for saving.

    Of a sharded model, all processes must call this, and only the main one gets the weights.

    Raises:
        TrainingError: a weight exceeds the range of float16 (training diverged).
    """
    rounded: dict[str, Tensor] = {}
    for name, tensor in kept_state(model).items():
        half = _round(name, whole(tensor))
        tensor.copy_(spread(half.to(tensor.dtype), tensor))
        if is_main:
            rounded[name] = half
    return rounded


def write_weights(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write final weights as safetensors, with ``facts`` (JSON-serialisable) in the header."""
    _save(path, dict(weights), facts)


def read_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load final weights into a model and return the facts stored with them.

    Raises:
        TrainingError: the file is damaged, or holds weights of another model.
    """
    tensors, facts = _read_weights(path)
    try:
        load_kept(model, tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{path} is of another model ({reason}); {TRAIN_AGAIN}") from None
    return facts


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read final weights as float32, and the facts stored with them."""
    try:
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name).float() for name in _names(stored)}
            return tensors, dict(parse_json(stored.metadata()["facts"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is damaged ({error}); {TRAIN_AGAIN}") from None


def read_weight_facts(path: Path) -> dict[str, Any] | None:
    """Return the facts stored with final weights, without loading them; None if they are damaged.

    A truncated file, left by a full disk or a broken copy, counts as damaged.
    """
    return read_facts(path)


def _save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    try:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with hidden_folder(path.parent) as folder:
            temporary = folder / path.name
            save_file(contiguous, temporary, metadata={"facts": json.dumps(facts, sort_keys=True)})
            temporary.chmod(READABLE_BY_TEAM)
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be written ({error}); is the disk full?") from error


def _names(stored: Any) -> list[str]:
    names: list[str] = stored.keys()  # a safetensors file cannot be iterated
    return names


@dataclass(frozen=True, slots=True)
class _Held:
    """A parameter in an optimiser: its state, its group and its place there."""

    optimizer: torch.optim.Optimizer
    place: tuple[int, int]
    parameter: nn.Parameter
    is_fused: bool

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.optimizer.state[self.parameter]
        return state


def _states(optimizer: Optimizers) -> list[_Held]:
    """List each parameter with the optimiser that holds its state."""
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    return [
        _Held(one, (group_at, at), parameter, bool(group.get("fused")))
        for one in optimizers
        for group_at, group in enumerate(one.param_groups)
        for at, parameter in enumerate(group["params"])
    ]


def place(tensor: Tensor, key: str, parameter: nn.Parameter, *, is_fused: bool) -> Tensor:
    """Move a tensor of an optimiser's state to the device where the optimiser expects it.

    That is the parameter's device, except for the step count of an optimiser that is not fused. The
    moments of a sharded parameter are sharded like it.
    """
    if key == "step":
        return tensor.to(parameter.device) if is_fused else tensor
    return spread(tensor, parameter)


def read_start(path: Path, model: nn.Module, fingerprint: str, *, base: str | None = None) -> None:
    """Initialise a model from the final weights of another fit (warm start).

    Loads the encoder, and all other weights whose name and shape match.

    Args:
        path: a file written by ``write_weights``.
        model: a network with an ``encoder``, changed in place.
        fingerprint: of the fit that the weights must come from.
        base: identity of the frozen base on which adapters were trained, if there is one.

    Raises:
        TrainingError: the file is absent, damaged, of another fit, or of another encoder.
    """
    if not path.is_file():
        raise TrainingError(f"start_from: the trained weights {path} are missing; {TRAIN_AGAIN}")
    tensors, facts = _read_weights(path)
    if facts.get("fingerprint") != fingerprint:
        raise TrainingError(
            f"start_from: {path} is from another fit than the stored result; {TRAIN_AGAIN}"
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
