"""The tokens around a row's segments, as each kind of backbone expects them.

Beside ``models.data.batches``, which assembles rows with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Frame:
    """The tokens before, between and after the segments of a row."""

    first: tuple[int, ...]
    between: tuple[int, ...]
    last: tuple[int, ...]

    def length(self, segments: int) -> int:
        """Return the number of tokens around that many segments."""
        return len(self.first) + len(self.between) * (segments - 1) + len(self.last)


def frame_of(tokenizer: Any) -> Frame:
    """Return what a tokenizer's kind of backbone expects around segments a and b.

    ``[CLS] a [SEP] b [SEP]`` for BERT, ``a </s> b </s>`` for T5, and ``<bos> a <line break> b``
    for a decoder, which has neither: its last token is the row's own.
    """
    if tokenizer.sep_token_id is not None:
        first = () if tokenizer.cls_token_id is None else (tokenizer.cls_token_id,)
        return Frame(first, (tokenizer.sep_token_id,), (tokenizer.sep_token_id,))
    first = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    line_break = tokenizer("\n", add_special_tokens=False, verbose=False)["input_ids"]
    return Frame(first, tuple(line_break), ())
