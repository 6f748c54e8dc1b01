"""Predict probabilities with a network, each process that shares the job its part of the rows.

After the last step of a fit, with the weights as saved. Legend: n rows, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from competition.arrays import Int64s, Probs
from competition.errors import TrainingError
from models.data.batches import TokenizedRows, collate
from models.network.network import RelationModel
from models.parts.restriction import mask_logits
from models.training.ranks import ALONE, Ranks, deal

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
            for hand in deal(np.arange(len(indices)), lengths, self.micro_tokens, self.ranks):
                probs = self._predict_part(rows, indices, hand.rows, allowed)
                places = np.full(len(probs), FILLER) if hand.is_filler else hand.rows
                own.append((places, probs))
        places, probs = (np.concatenate(parts) for parts in zip(*own, strict=True))
        if self.ranks.size > 1 and len(indices):
            places, probs = self._gather(places, probs)
        return put_in_order(places, probs, len(indices))

    def _predict_part(
        self,
        rows: TokenizedRows,
        indices: Int64s,
        part: Int64s,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> Probs:
        """Return the probabilities of the rows of one micro-batch."""
        batch = collate(rows, indices[part], self.pad_id).to(self.accelerator.device)
        with self.accelerator.autocast():
            logits: Tensor = self.model(batch.input_ids, batch.attention_mask, batch.positions)
        if allowed is not None:
            logits = mask_logits(logits, torch.from_numpy(allowed[part]).to(logits.device))
        # float64 on the CPU: an MPS device has none
        return torch.softmax(logits.float().cpu().double(), dim=-1).float().numpy()

    def _gather(self, places: Int64s, probs: Probs) -> tuple[Int64s, Probs]:
        """Return the places and probabilities of all ranks, whose numbers of rows may differ."""
        found = []
        for values in (places, probs):
            own = torch.from_numpy(values).to(self.accelerator.device)
            even = self.accelerator.pad_across_processes(own, pad_index=FILLER)
            found.append(self.accelerator.gather(even).cpu().numpy())
        return found[0], found[1]


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
