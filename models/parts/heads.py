"""Classification heads: from the encoder's hidden states to logits, one small class per head.

A head reads states by position (``Positions``), never by token id.
Legend: B batch, T tokens, D hidden, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from competition.errors import VariantError
from models.settings import FormatSettings

RESULT_VERSION = 1
VERSION_NAME = "models.heads"
HEAD_VERSIONS = {"bilstm": 3}
"""Versions of heads whose code changed since their first results, independently of the others."""


@dataclass(frozen=True, slots=True)
class Positions:
    """The positions of the parts of each row, in tokens; all (B,) int64, spans half-open.

    ``subject_mark`` and ``subject_close`` are the first and the last token of what belongs to the
    entity, its markers included; the object's likewise.
    """

    lengths: Tensor
    subject_mark: Tensor
    object_mark: Tensor
    subject_start: Tensor
    subject_end: Tensor
    object_start: Tensor
    object_end: Tensor
    prompt_mask: Tensor
    subject_close: Tensor
    object_close: Tensor

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the names of the fields, in order."""
        return tuple(Positions.__dataclass_fields__)


def pick(states: Tensor, position: Tensor) -> Tensor:
    """Return the state at one position of each row: (B, T, D), (B,) to (B, D)."""
    return states[torch.arange(states.shape[0], device=states.device), position]


def mean_over_span(states: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return the mean state over a half-open span of each row: (B, T, D), (B,), (B,) to (B, D)."""
    at = torch.arange(states.shape[1], device=states.device)
    inside = (at >= start[:, None]) & (at < end[:, None])
    total = torch.where(inside[:, :, None], states, 0.0).sum(dim=1)
    return total / (end - start)[:, None]


def drop_out(dropout: nn.Dropout, features: Tensor, samples: int) -> Tensor:
    """Apply dropout to features (B, D); in training, the mean over several masks (multi-sample).

    The next layer is linear, so averaging features equals averaging logits.

    Source: Inoue 2019, arXiv 1905.09788, section 3; the paper averages the losses of the samples.
    Here their logits are averaged, as competitors do, with higher dropout rates.
    """
    if samples == 1 or not dropout.training:
        dropped: Tensor = dropout(features)
        return dropped
    return torch.stack([dropout(features) for _ in range(samples)]).mean(dim=0)


class Head(Protocol):
    """A function that builds a head for states of size ``hidden`` and ``labels`` labels.

    ``samples`` is the number of dropout masks averaged before the last layer in training.
    """

    def __call__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> nn.Module:
        """Return a module that maps states (B, T, D) and ``Positions`` to logits (B, C)."""
        ...


class ClsHead(nn.Module):
    """A linear layer on the first state ([CLS]): the usual baseline."""

    def __init__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> None:
        super().__init__()
        self.samples = samples
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        del positions
        logits: Tensor = self.out(drop_out(self.dropout, states[:, 0], self.samples))
        return logits


class EntityStartHead(nn.Module):
    """The states at both opening markers, concatenated, with one hidden layer.

    Source: Zhou & Chen 2021, arXiv 2102.01373, section 3; their hidden layer and dropout order.
    """

    def __init__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> None:
        super().__init__()
        self.samples = samples
        self.mix = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        subject = pick(states, positions.subject_mark)
        obj = pick(states, positions.object_mark)
        mixed = torch.relu(self.mix(torch.cat([subject, obj], dim=-1)))
        logits: Tensor = self.out(drop_out(self.dropout, mixed, self.samples))
        return logits


class EntityStartEndHead(nn.Module):
    """The states at both opening markers and at the last token of both entities.

    Like ``EntityStartHead``, which reads only the opening markers; Korean attaches particles to the
    end of an entity.
    """

    def __init__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> None:
        super().__init__()
        self.samples = samples
        self.mix = nn.Linear(4 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        read = (
            positions.subject_mark,
            positions.subject_end - 1,
            positions.object_mark,
            positions.object_end - 1,
        )
        mixed = torch.relu(self.mix(torch.cat([pick(states, at) for at in read], dim=-1)))
        logits: Tensor = self.out(drop_out(self.dropout, mixed, self.samples))
        return logits


class EntityCloseLastHead(nn.Module):
    """The states at both closing markers and at the row's last token, to logits.

    For decoders: the closing marker is the first token that has seen the whole entity, and the last
    token alone has seen all. States are normalised first: those of large decoders have a few huge
    entries.

    Source: Zhou & Chen 2021, arXiv 2102.01373, section 3, for the layers; there the opening markers
    are read.
    """

    def __init__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> None:
        super().__init__()
        self.samples = samples
        self.norm = nn.LayerNorm(hidden)
        self.mix = nn.Linear(3 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        read = (positions.subject_close, positions.object_close, positions.lengths - 1)
        seen = [self.norm(pick(states, at).float()) for at in read]
        mixed = torch.relu(self.mix(torch.cat(seen, dim=-1)))
        logits: Tensor = self.out(drop_out(self.dropout, mixed, self.samples))
        return logits


class RBertHead(nn.Module):
    """R-BERT: [CLS] and the mean state of each entity, each through a linear layer, concatenated.

    Both entities share the weights of their layer.

    Source: Wu & He 2019, arXiv 1905.08284, section 3.2: dropout, tanh, then a linear layer on each.
    """

    def __init__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> None:
        super().__init__()
        self.samples = samples
        self.read_cls = nn.Linear(hidden, hidden)
        self.read_entity = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(3 * hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        subject = mean_over_span(states, positions.subject_start, positions.subject_end)
        obj = mean_over_span(states, positions.object_start, positions.object_end)
        joined = torch.cat(
            [
                self.read_cls(torch.tanh(self.dropout(states[:, 0]))),
                self.read_entity(torch.tanh(self.dropout(subject))),
                self.read_entity(torch.tanh(self.dropout(obj))),
            ],
            dim=-1,
        )
        logits: Tensor = self.out(drop_out(self.dropout, joined, self.samples))
        return logits


class MaskHead(nn.Module):
    """The state at the prompt's [MASK], through a layer like that of a masked-language head.

    The encoder was pretrained to predict a word at [MASK]; this head predicts the relation there.

    Source: Devlin et al. 2019, arXiv 1810.04805, for the layer (their released code): linear, GELU,
    layer norm. The output layer has labels instead of the vocabulary. If the checkpoint has this
    layer, ``models.network.new_parameters`` initialises the head with it.
    """

    def __init__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> None:
        super().__init__()
        self.samples = samples
        self.mix: nn.Module = nn.Linear(hidden, hidden)
        self.activate: nn.Module = nn.GELU()
        self.norm: nn.Module = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        return self.score(pick(states, positions.prompt_mask))

    def score(self, states: Tensor) -> Tensor:
        """Return logits (B, C) for states (B, D)."""
        mixed = self.norm(self.activate(self.mix(states)))
        logits: Tensor = self.out(drop_out(self.dropout, mixed, self.samples))
        return logits


class LabelWordsHead(MaskHead):
    """Scores words for the labels where the backbone was pretrained to predict a word.

    That is the prompt's [MASK], or the last token of a decoder, whose states predict words without
    a further layer. The output layer begins with the words' vectors in the backbone's own output
    layer (``models.network.label_words``), so that the head knows the labels before training.

    Source: Chen et al. 2022, arXiv 2104.07650 (KnowPrompt), section 4.1: a virtual answer word for
    each label, initialised with the mean of its words' vectors and then trained.
    """

    def skip_layer(self) -> None:
        """Score the states as they are, as a decoder's output layer does."""
        self.mix, self.norm = nn.Identity(), nn.Identity()
        self.activate = nn.Identity()

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        is_asked = positions.prompt_mask > 0  # the first token is never the prompt's
        answer = torch.where(is_asked, positions.prompt_mask, positions.lengths - 1)
        return self.score(pick(states, answer))


class BiLstmHead(nn.Module):
    """A bidirectional LSTM over all states, added to them and read at both opening markers.

    The sum keeps what the encoder says of the entities, and the LSTM adds what it reads to their
    left and right; its two final states alone would have to carry both entities past every other
    word, which few rows do not teach.

    Padding is excluded: the backward LSTM starts at the last token of a row. This equals packed
    sequences up to rounding, in half the time on a CPU, where packing does not use the fast kernel.
    Runs in float32, since rounding errors accumulate in a recurrence.
    """

    def __init__(self, hidden: int, labels: int, dropout: float, samples: int = 1) -> None:
        super().__init__()
        self.samples = samples
        half = hidden // 2
        self.forwards = nn.LSTM(hidden, half, batch_first=True)
        self.backwards = nn.LSTM(hidden, hidden - half, batch_first=True)
        for reader in (self.forwards, self.backwards):
            _open_forget_gate(reader)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, labels)

    def forward(self, states: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for states (B, T, D)."""
        hidden, lengths = states.float(), positions.lengths
        with torch.autocast(states.device.type, enabled=False):
            forwards, _ = self.forwards(hidden)
            backwards, _ = self.backwards(reverse_rows(hidden, lengths))
            hidden = hidden + torch.cat([forwards, reverse_rows(backwards, lengths)], dim=-1)
        read = (positions.subject_mark, positions.object_mark)
        mixed = torch.relu(self.mix(torch.cat([pick(hidden, at) for at in read], dim=-1)))
        logits: Tensor = self.out(drop_out(self.dropout, mixed, self.samples))
        return logits


def _open_forget_gate(reader: nn.LSTM) -> None:
    """Initialise the forget gate open, with a bias of 1; near 0, it halves the state at each token.

    Source: Jozefowicz et al. 2015, An Empirical Exploration of Recurrent Network Architectures,
    section 2.2: a bias of 1.
    """
    forget = slice(reader.hidden_size, 2 * reader.hidden_size)  # of input, forget, cell, output
    with torch.no_grad():
        reader.get_parameter("bias_ih_l0")[forget] = 1.0
        reader.get_parameter("bias_hh_l0")[forget] = 0.0


def reverse_rows(states: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each row, leaving its padding in place.

    >>> reverse_rows(torch.tensor([[[1], [2], [3], [0]]]), torch.tensor([3])).flatten().tolist()
    [3, 2, 1, 0]
    """
    at = torch.arange(states.shape[1], device=states.device)
    source = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)
    return states.gather(1, source[..., None].expand_as(states))


HEADS: dict[str, Head] = {
    "bilstm": BiLstmHead,
    "cls": ClsHead,
    "entity-close-last": EntityCloseLastHead,
    "entity-start": EntityStartHead,
    "entity-start-end": EntityStartEndHead,
    "label-words": LabelWordsHead,
    "mask": MaskHead,
    "rbert": RBertHead,
}
READS_PROMPT = frozenset({"label-words", "mask"})
READS_LAST = frozenset({"label-words"})
"""Heads that read the last token if the format has no [MASK]; only a decoder has seen all there."""
READS_EARLY = frozenset({"cls", "entity-start", "entity-start-end", "rbert"})
"""Heads that read tokens before the words in question: a causal backbone has not seen these yet."""
READS_FIRST = frozenset({"cls", "rbert"})
"""Heads that read the first token, which must stand for the whole row."""


def list_masked_formats() -> list[str]:
    """Return the names of the formats that have a [MASK]."""
    from models.parts.formats import EXAMPLE_ROW, FORMATS

    return [
        name
        for name, form in FORMATS.items()
        if form.build(EXAMPLE_ROW, FormatSettings()).prompt_mask is not None
    ]


def check_head_fits(head_name: str, format_name: str) -> None:
    """Check that the format has a [MASK] if the head reads one.

    Raises:
        VariantError: it has none; names the formats that have one.
    """
    if head_name not in READS_PROMPT - READS_LAST:
        return
    having = list_masked_formats()
    if format_name not in having:
        raise VariantError(
            f"head {head_name!r} reads the [MASK] of a prompt, format {format_name!r} has none; "
            f"use format = {' or '.join(map(repr, having))}, or another head"
        )
