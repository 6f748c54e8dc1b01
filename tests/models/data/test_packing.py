"""Packing: where tokens stand without padding."""

from __future__ import annotations

import numpy as np
import torch

from models.data.packing import pack


def test_a_packing_takes_tokens_out_of_a_padded_batch_and_doubled_twice() -> None:
    lengths = np.array([2, 4, 1])
    padded = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 4], [3, 0, 0, 0]])
    packing = pack(lengths)
    assert padded.flatten()[packing.places].tolist() == [5, 6, 7, 8, 9, 4, 3]
    assert packing.steps.tolist() == [0, 1, 0, 1, 2, 3, 0]
    assert (packing.starts.tolist(), packing.starts.dtype) == ([0, 2, 6, 7], torch.int32)
    twice = packing.doubled()
    again = pack(np.concatenate([lengths, lengths]))
    for name in ("places", "steps", "starts", "longest"):
        assert torch.equal(*(torch.as_tensor(getattr(each, name)) for each in (twice, again)))
