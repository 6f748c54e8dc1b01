"""The processes that share one fit (ranks), each with its own device.

A launcher such as torchrun starts them. A step has the same rows for any number of ranks: ``deal``
splits them. Rank 0 is the main one: it alone decides, prints and writes; the others follow.
Legend: n rows.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from competition.arrays import Int64s
from competition.errors import TrainingError
from models.data.batches import split_by_tokens
from models.training.control import step_seed

Value = TypeVar("Value")
WAIT = datetime.timedelta(hours=1)
"""How long a rank waits for the others, which may be writing to a slow disk."""
LOST = "another process of the launch ended"
"""How the message begins if this process failed only because another did."""
LOST_SIGNS = ("closed by peer", "reset by peer", "Broken pipe", "gloo", "NCCL")


@dataclass(frozen=True)
class Ranks:
    """One of the processes that share a fit, and how many they are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which decides, prints and writes."""
        return self.rank == 0

    def share(self, value: Value) -> Value:
        """Return the main rank's value, on every rank; all must call it."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in their order; all must call it."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        held: list[Any] = [None] * self.size
        dist.all_gather_object(held, value)
        return held


ALONE = Ranks()
"""A process that shares its fit with no other."""


@contextmanager
def joined(name: str) -> Iterator[Ranks]:
    """Join the other processes of a launch; they must give the same name, new each time.

    The launcher's environment variables say where they meet. Short messages go over the CPU,
    gradients and weights over what connects the devices.

    Raises:
        TrainingError: the others ended, so that this process cannot go on.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = PrefixStore(name, TCPStore(host, port, wait_for_workers=False))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=WAIT,
        )
        yield Ranks(rank, size)
        dist.destroy_process_group()
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise TrainingError(f"{LOST}; run the same command again to resume") from error


def is_lost(error: RuntimeError) -> bool:
    """Return whether an error means that another rank ended."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in LOST_SIGNS)


@dataclass(frozen=True, slots=True)
class Hand:
    """One micro-batch of a rank.

    ``is_filler`` marks a row of another rank, computed again only so that all ranks have the same
    number of micro-batches: they exchange gradients and weights in each. It counts nowhere.
    """

    rows: Int64s
    is_filler: bool = False


def deal(rows: Int64s, lengths: Int64s, max_tokens: int, ranks: Ranks = ALONE) -> list[Hand]:
    """Split rows into micro-batches, and return those of one rank.

    Rows are sorted by length and dealt in turn, so that all ranks have about the same work.

    Args:
        rows: (n,) indices into ``lengths``; the same on all ranks.
        lengths: tokens of each row.
        max_tokens: of a micro-batch, padding included; the same on all ranks.
        ranks: the processes that share the rows.

    Returns:
        The same number of micro-batches on all ranks, longest rows first.

    >>> lengths = np.array([9, 5, 7, 3, 4])
    >>> [hand.rows.tolist() for hand in deal(np.arange(5), lengths, 14, Ranks(0, 2))]
    [[0], [1, 3]]
    >>> deal(np.arange(5), lengths, 14, Ranks(1, 2))[1]
    Hand(rows=array([3]), is_filler=True)
    """
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    shares = [
        list(split_by_tokens(order[rank :: ranks.size], lengths, max_tokens))
        for rank in range(ranks.size)
    ]
    own = [Hand(part) for part in shares[ranks.rank]]
    missing = max(map(len, shares)) - len(own)
    return own + [Hand(order[-1:], is_filler=True)] * missing


def rank_seed(seed: int, stream: int, step: int, ranks: Ranks) -> int:
    """Return the random seed of a step on one rank; rank 0 has that of a process on its own.

    So each rank draws its own dropout masks.
    """
    seed = step_seed(seed, stream, step)
    return seed if ranks.is_main else step_seed(seed, ranks.rank, step)
