"""Sharded data parallelism (FSDP2): each rank holds a part of every weight, gradient and moment.

For encoders that do not fit one device. A layer's weights are gathered when it is computed.
accelerate shards on GPUs only, so torch's ``fully_shard`` is called directly: the same code runs on
CPUs, where tests can run it.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from competition.errors import VariantError
from models.settings import AdaptSettings

BLOCK = re.compile(r"encoder\.(?:.*\.)?(?:layer|layers|h|block)\.\d+")
"""The name of a block of the encoder; those inside another block have longer names."""


def check_shardable(adapt: AdaptSettings | None, ranks: int) -> None:
    """Refuse what cannot be sharded.

    Raises:
        VariantError: there is only one process, or the base is quantised to 4 bits.
    """
    if ranks == 1:
        raise VariantError(
            "run.shard splits weights among several processes, and there is one; start them with "
            "torchrun --nproc-per-node 2 run.py fold …, or leave out run.shard"
        )
    if adapt is not None and adapt.quantise != "none":
        raise VariantError(
            f"run.shard: a base in {adapt.quantise} cannot be sharded; use --set "
            "adapt.quantise=none, or leave out run.shard"
        )


def shard(model: nn.Module, accelerator: Any) -> None:
    """Shard a network among all ranks, block by block, in place; then it is on their devices.

    Weights are gathered in their own precision, and autocast rounds them as without sharding. It
    must not keep what it rounded: switch off its cache, and compute blocks twice (checkpointing).

    Args:
        model: a network with an ``encoder``, with the same weights on every rank.
        accelerator: of this rank.

    Source: Zhao et al. 2023, arXiv 2304.11277, section 3, as torch's ``fully_shard``.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for name in find_blocks(model):
        fully_shard(model.get_submodule(name), mesh=mesh)
    fully_shard(model, mesh=mesh)


def count_gathered(model: nn.Module) -> int:
    """Return how many weights a sharded network has whole at a time: two blocks and the rest."""
    total = sum(each.numel() for each in model.parameters())
    blocks = [
        sum(each.numel() for each in model.get_submodule(name).parameters())
        for name in find_blocks(model)
    ]
    return total - sum(blocks) + 2 * max(blocks, default=0)


def find_blocks(model: nn.Module) -> list[str]:
    """Return the names of the encoder's blocks, those inside others left out."""
    found: list[str] = []
    for name, _ in model.named_modules():
        is_inside = any(name.startswith(f"{block}.") for block in found)
        if BLOCK.fullmatch(name) and not is_inside:
            found.append(name)
    return found


def no_sync(model: Any, accelerator: Any) -> AbstractContextManager[None]:
    """Add up gradients on each rank, without exchanging them, until a backward pass outside.

    Those of a sharded network are exchanged after each micro-batch: no rank has room for all.
    """
    if any(is_sharded(each) for each in model.parameters()):
        return nullcontext()
    alone: AbstractContextManager[None] = accelerator.no_sync(model)
    return alone


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this rank holds only a part of a tensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole, gathered from all ranks if it is sharded; then all must call it."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return full


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor on the device of another, sharded if that is: the part of this rank."""
    if not is_sharded(like):
        return tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    mesh, places = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(like.device), mesh, places, src_data_rank=None)


def measure_norm(tensor: Tensor) -> Tensor:
    """Return the L2 norm of a tensor, a scalar; of a sharded one over all ranks."""
    return whole(torch.linalg.vector_norm(tensor))
