"""AdamW: torch's own, or that of bitsandbytes with moments in 8 bits or in paged memory.

Between the weights of a network and the training loop. 8 bits take a quarter of the memory of the
moments. Paged ones lie in memory that the GPU shares with the CPU, and move out when it is full.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from competition.errors import DeviceError, VariantError
from models.settings import TrainSettings

RESULT_VERSION = 1
VERSION_NAME = "models.optimizer"
PLAIN = "adamw"
CLASSES = {
    "adamw-8bit": "AdamW8bit",
    "paged-adamw": "PagedAdamW",
    "paged-adamw-8bit": "PagedAdamW8bit",
}
"""Names of the classes of bitsandbytes."""
MOMENT_BYTES = {PLAIN: 8.0, "adamw-8bit": 2 + 8 / 256, "paged-adamw": 0.0, "paged-adamw-8bit": 0.0}
"""Bytes of a trained weight's two moments on the device; in 8 bits, blocks of 256 have a scale."""
CONSTANTS = ("qmap1", "qmap2")
"""Parts of a state in 8 bits that are the same for every weight: what its 256 values mean."""


def check_optimizer(settings: TrainSettings, device_type: str, *, shards: bool) -> None:
    """Check that an optimiser can be used here, before anything is built.

    Raises:
        DeviceError: bitsandbytes is not installed, or paged memory needs a GPU.
        VariantError: the weights are to be sharded.
    """
    name = settings.optimizer
    if name == PLAIN:
        return
    without = "--set train.optimizer=adamw needs neither (a recipe of its own)"
    if find_spec("bitsandbytes") is None:
        raise DeviceError(
            f"train.optimizer = {name!r} needs bitsandbytes, which is not installed: pip install "
            f"-r requirements-gpu.txt; {without}"
        )
    if name.startswith("paged") and device_type != "cuda":
        raise DeviceError(
            f"train.optimizer = {name!r} needs a CUDA GPU, whose memory is paged; torch sees none; "
            f"{without}"
        )
    if shards:
        raise VariantError(
            f"run.shard splits the moments of adamw alone; leave out train.optimizer = {name!r}"
        )


def make_adamw(
    groups: list[dict[str, Any]], settings: TrainSettings, network: nn.Module
) -> torch.optim.Optimizer:
    """Build the optimiser of a variant.

    In 8 bits, small weights (under 4,096 numbers) and token embeddings keep moments in float32.

    Source: Dettmers et al. 2022, arXiv 2110.02861, sections 2 and 2.3: block-wise dynamic
    quantisation of the moments; 32-bit ones for embeddings.

    Args:
        groups: parameters with their weight decay and learning-rate factor.
        settings: learning rate, decay of the moments, and which optimiser.
        network: whose parameters they are.
    """
    betas = (0.9, settings.adam_beta2)
    if settings.optimizer == PLAIN:
        device = groups[0]["params"][0].device.type
        is_fused = device in {"cpu", "cuda"}
        return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=is_fused)
    library = import_module("bitsandbytes")
    made: torch.optim.Optimizer = getattr(library.optim, CLASSES[settings.optimizer])(
        groups, lr=settings.lr, betas=betas
    )
    manager = library.optim.GlobalOptimManager.get_instance()
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            manager.override_config(module.weight, "optim_bits", 32)
    return made


def moments_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what a training state keeps of an optimiser's state for one parameter."""
    return {
        key: value if isinstance(value, Tensor) else torch.tensor(value)
        for key, value in state.items()
        if key not in CONSTANTS
    }


def refill(optimizer: Any, place: tuple[int, int], tensors: Mapping[str, Tensor]) -> None:
    """Put kept moments back into an optimiser of bitsandbytes, which allocates them by itself.

    Args:
        optimizer: has ``init_state``.
        place: of the parameter: its group, and its place there.
        tensors: as ``moments_of`` returned them.

    Raises:
        RuntimeError: they are of another optimiser.
    """
    group = optimizer.param_groups[place[0]]
    parameter = group["params"][place[1]]
    optimizer.init_state(group, parameter, *place)
    state = optimizer.state[parameter]
    own = moments_of(state)
    if own.keys() != tensors.keys():
        raise RuntimeError(f"moments differ in {sorted(own.keys() ^ tensors.keys())}")
    for key, tensor in tensors.items():
        if isinstance(state[key], Tensor):
            state[key].copy_(tensor)
        else:
            state[key] = tensor.item()
