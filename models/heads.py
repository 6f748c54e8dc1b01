"""Heads: the encoder's hidden states to logits, one small class per head.

Last learned step on the way of a row. Legend: B batch, T tokens, D hidden, C labels.
A head reads states by position (``Positions``), never by token id.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

RESULT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Positions:
    """Where the parts of each row stand, in tokens; all (B,) int64, spans half-open."""

    lengths: Tensor
    subject_mark: Tensor
    object_mark: Tensor
    subject_start: Tensor
    subject_end: Tensor
    object_start: Tensor
    object_end: Tensor

    @staticmethod
    def names() -> tuple[str, ...]:
        """Name the fields in order."""
        return tuple(Positions.__dataclass_fields__)


def pick(states: Tensor, position: Tensor) -> Tensor:
    """Return the state at one position of each row: (B, T, D), (B,) to (B, D)."""
    return states[torch.arange(states.shape[0], device=states.device), position]


class ClsHead(nn.Module):
    """The first state ([CLS]) to logits: the start of every team."""

    def __init__(self, hidden: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        del positions
        logits: Tensor = self.out(self.dropout(states[:, 0]))
        return logits


class EntityStartHead(nn.Module):
    """The states at both opening markers, concatenated, through one hidden layer to logits.

    Source: Zhou & Chen 2021, arXiv 2102.01373, section 3; their hidden layer and dropout order.
    """

    def __init__(self, hidden: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        subject = pick(states, positions.subject_mark)
        obj = pick(states, positions.object_mark)
        mixed = torch.relu(self.mix(torch.cat([subject, obj], dim=-1)))
        logits: Tensor = self.out(self.dropout(mixed))
        return logits


class BiLstmHead(nn.Module):
    """A 2-layer bidirectional LSTM over all states; its last layer's two final states to logits.

    Rows are packed by their true lengths: the forward state ends at the row's last token, not in
    padding. Of the final states, stacked (2 layers × 2 directions, B, D), the last two belong to
    the last layer. Runs in float32: recurrences add up rounding.
    """

    def __init__(self, hidden: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            hidden, hidden, num_layers=2, dropout=dropout, bidirectional=True, batch_first=True
        )
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        packed = nn.utils.rnn.pack_padded_sequence(
            states.float(), positions.lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        with torch.autocast(states.device.type, enabled=False):
            _, (final, _) = self.lstm(packed)
        both = torch.cat([final[-2], final[-1]], dim=-1)
        logits: Tensor = self.out(self.dropout(both))
        return logits


HEADS: dict[str, type[ClsHead] | type[EntityStartHead] | type[BiLstmHead]] = {
    "bilstm": BiLstmHead,
    "cls": ClsHead,
    "entity-start": EntityStartHead,
}
