"""Packing: the rows of a batch one after another, without padding, and where each token stands.

An attention kernel for rows of different lengths needs no padding (``models.network.varlen``).
Legend: B rows, T tokens of the longest, S tokens of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from competition.arrays import Int64s


@dataclass(frozen=True, slots=True)
class Packing:
    """The tokens of a padded batch (B, T) that are no padding, row by row.

    Attributes:
        places: (S,) int64, index of each token in the flattened batch.
        steps: (S,) int64, place of each token in its row, from 0.
        starts: (B + 1,) int32, where each row starts, and the end of the last one.
        longest: T.
    """

    places: Tensor
    steps: Tensor
    starts: Tensor
    longest: int

    def map(self, change: Callable[[Tensor], Tensor]) -> Packing:
        """Return the packing with its tensors changed, such as moved to a device."""
        return Packing(change(self.places), change(self.steps), change(self.starts), self.longest)

    def doubled(self) -> Packing:
        """Return the packing of a batch that repeats all its rows once."""
        rows, tokens = len(self.starts) - 1, len(self.places)
        return Packing(
            places=torch.cat([self.places, self.places + rows * self.longest]),
            steps=torch.cat([self.steps, self.steps]),
            starts=torch.cat([self.starts, self.starts[1:] + tokens]),
            longest=self.longest,
        )


def pack(lengths: Int64s) -> Packing:
    """Return the packing of a batch, padded to its longest row.

    >>> packed = pack(np.array([2, 3]))
    >>> packed.places.tolist(), packed.steps.tolist(), packed.starts.tolist()
    ([0, 1, 3, 4, 5], [0, 1, 0, 1, 2], [0, 2, 5])
    """
    longest = int(lengths.max())
    starts = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    steps = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    places = np.repeat(np.arange(len(lengths)) * longest, lengths) + steps
    return Packing(
        torch.from_numpy(places.astype(np.int64)),
        torch.from_numpy(steps.astype(np.int64)),
        torch.from_numpy(starts),
        longest,
    )
