"""Predict probabilities with a network, each process that shares the job its part of the rows.

After the last step of a fit, with the weights as saved. Legend: n rows, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from competition.arrays import Int64s, Probs
from competition.errors import TrainingError
from models.data.batches import TokenizedRows, collate
from models.network.network import RelationModel
from models.parts.restriction import mask_logits
from models.training.hardware import is_memory_full
from models.training.ranks import ALONE, Ranks, deal

Item = TypeVar("Item")
FILLER = -1
"""The place of a row that is computed but not wanted."""


@dataclass(frozen=True)
class Predictor:
    """Predict probabilities with a network in evaluation mode.

    ``micro_tokens`` is the maximum number of tokens in a batch, padding included. ``ranks`` share
    the rows; all of them get all predictions.
    """

    model: RelationModel
    accelerator: Any
    pad_id: int
    micro_tokens: int
    ranks: Ranks = ALONE

    def predict(
        self, rows: TokenizedRows, indices: Int64s, allowed: npt.NDArray[np.bool_] | None = None
    ) -> Probs:
        """Predict rows, in the order of ``indices``.

        Args:
            rows: token arrays.
            indices: (n,) the rows to predict.
            allowed: (n, C) bool, the labels each row may have; others get probability 0. None
                allows all.

        Returns:
            (n, C) float32 probabilities; rows sum to 1.

        Raises:
            TrainingError: some row has no prediction, or several.
        """
        self.model.eval()
        own = [(np.empty(0, np.int64), np.empty((0, self.model.labels), np.float32))]
        lengths = rows.lengths_of(indices)
        with torch.inference_mode():
            hands = deal(np.arange(len(indices)), lengths, self.micro_tokens, self.ranks)
            computed = ((hand, self._compute(rows, indices, hand.rows, allowed)) for hand in hands)
            for hand, logits in one_behind(computed):
                # float64 on the CPU: an MPS device has none
                probs = torch.softmax(logits.float().cpu().double(), dim=-1).float().numpy()
                places = np.full(len(probs), FILLER) if hand.is_filler else hand.rows
                own.append((places, probs))
        places, probs = (np.concatenate(parts) for parts in zip(*own, strict=True))
        if self.ranks.size > 1 and len(indices):
            places, probs = self._gather(places, probs)
        return put_in_order(places, probs, len(indices))

    def _compute(
        self,
        rows: TokenizedRows,
        indices: Int64s,
        part: Int64s,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> Tensor:
        """Return the logits of the rows of one micro-batch, on the device; by halves if need be."""
        try:
            return self._compute_at_once(rows, indices, part, allowed)
        except RuntimeError as error:
            if not is_memory_full(error) or len(part) == 1 or self.ranks.size > 1:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        halves = np.array_split(part, 2)
        return torch.cat([self._compute(rows, indices, each, allowed) for each in halves])

    def _compute_at_once(
        self,
        rows: TokenizedRows,
        indices: Int64s,
        part: Int64s,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> Tensor:
        device = self.accelerator.device
        batch = collate(rows, indices[part], self.pad_id, packs=self.model.packs)
        if device.type == "cuda":
            batch = batch.map(Tensor.pin_memory)
        with self.accelerator.autocast():
            logits: Tensor = self.model(*batch.to(device).inputs)
        if allowed is not None:
            logits = mask_logits(logits, torch.from_numpy(allowed[part]).to(logits.device))
        return logits

    def _gather(self, places: Int64s, probs: Probs) -> tuple[Int64s, Probs]:
        """Return the places and probabilities of all ranks, whose numbers of rows may differ."""
        found = []
        for values in (places, probs):
            own = torch.from_numpy(values).to(self.accelerator.device)
            even = self.accelerator.pad_across_processes(own, pad_index=FILLER)
            found.append(self.accelerator.gather(even).cpu().numpy())
        return found[0], found[1]


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, each once the next one exists: a GPU computes while the one before is read.

    >>> seen = []
    >>> [seen.copy() for _ in one_behind(seen.append(at) for at in range(3))]
    [[0, 1], [0, 1, 2], [0, 1, 2]]
    """
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def put_in_order(places: Int64s, probs: Probs, rows: int) -> Probs:
    """Put each prediction at its place, (n, C); fillers are dropped.

    Raises:
        TrainingError: some row has no prediction, or several.
    """
    is_kept = places != FILLER
    places, probs = places[is_kept], probs[is_kept]
    counts = np.bincount(places, minlength=rows)
    if len(counts) != rows or (counts != 1).any():
        raise TrainingError(
            f"{(counts == 0).sum()} of {rows} rows have no prediction, {(counts > 1).sum()} have "
            "several: a bug in how processes share rows"
        )
    out = np.empty((rows, probs.shape[1]), np.float32)
    out[places] = probs
    return out
