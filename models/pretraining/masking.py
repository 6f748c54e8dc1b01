"""Which tokens a masked-language model must guess, and what it is shown in their place.

Between packed text and the pretraining loop. Masks are drawn anew at every step from a generator
that the step seeds, so the same text is asked about differently each time it comes.
Legend: B sequences, T tokens of each, U units (tokens, words or spans of words) of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from competition.arrays import Bools, Int64s

RESULT_VERSION = 1
VERSION_NAME = "models.masking"

Kind = Literal["whole-word", "span", "token"]
Replacement = Literal["mixed", "mask"]

SHOWN_AS_MASK = 0.8
SHOWN_AS_RANDOM = 0.1
SPAN_STOPS = 0.2  # chance that a span ends after each word: 3.8 words on average after the cut
SPAN_MOST_WORDS = 10


@dataclass(frozen=True)
class MaskRules:
    """How tokens are chosen and replaced.

    ``kind``: words are chosen whole, in runs of words, or token by token. ``replacement``:
    ``mixed`` shows 80% as the mask, 10% as another token and leaves 10% (BERT); ``mask`` shows the
    mask always. ``ordinary`` (V,) holds the ids that may stand in at random: no special token.
    """

    kind: Kind
    replacement: Replacement
    mask_id: int
    ordinary: Int64s


def mask_batch(
    ids: Int64s,
    starts: Bools,
    hidden: Bools,
    *,
    rules: MaskRules,
    rate: float,
    generator: np.random.Generator,
) -> tuple[Int64s, Int64s]:
    """Choose tokens to guess and replace them.

    Args:
        ids: (B, T) token ids.
        starts: (B, T) where a word begins.
        hidden: (B, T) special tokens, never chosen.
        rules: how tokens are chosen and replaced.
        rate: share of the other tokens to choose, 0 to 1; units are taken while they fit into it.
        generator: owns every draw.

    Returns:
        (B, T) ids as shown, and the (n,) places chosen, ascending, into the flattened batch; at
        least one unit is chosen unless all tokens are special.
    """
    units = number_units(starts, hidden, rules.kind, generator)
    chosen = _choose_units(units, rate, generator)
    places = np.flatnonzero(chosen)
    shown = ids.copy().reshape(-1)
    if rules.replacement == "mask":
        shown[places] = rules.mask_id
        return shown.reshape(ids.shape), places
    fate = generator.random(len(places))
    shown[places[fate < SHOWN_AS_MASK]] = rules.mask_id
    swapped = places[(fate >= SHOWN_AS_MASK) & (fate < SHOWN_AS_MASK + SHOWN_AS_RANDOM)]
    shown[swapped] = generator.choice(rules.ordinary, len(swapped))
    return shown.reshape(ids.shape), places


def number_units(
    starts: Bools, hidden: Bools, kind: Kind, generator: np.random.Generator
) -> Int64s:
    """Number the units of a batch from 0; special tokens get -1. Returns (B × T,).

    A unit never crosses a special token or the end of a sequence.

    >>> starts = np.array([[True, True, False, True, True]])
    >>> hidden = np.array([[True, False, False, False, True]])
    >>> number_units(starts, hidden, "whole-word", np.random.default_rng(0)).tolist()
    [-1, 0, 0, 1, -1]

    Source of spans: SpanBERT (Joshi et al. 2020, arXiv 1907.10529), section 3.1, lengths in words;
    here the text is cut into such spans first, so that two chosen spans cannot overlap.
    """
    begins = np.ones_like(starts) if kind == "token" else starts.copy()
    begins[:, 0] = True
    begins[:, 1:] |= hidden[:, :-1]
    begins &= ~hidden
    if kind == "span":
        begins &= _draw_span_begins(begins, hidden, generator)
    units = np.cumsum(begins.reshape(-1)) - 1
    units[hidden.reshape(-1)] = -1
    return units.astype(np.int64)


def _draw_span_begins(begins: Bools, hidden: Bools, generator: np.random.Generator) -> Bools:
    """Keep of the words' begins those where a span begins."""
    flat = begins.reshape(-1)
    forced = np.zeros_like(begins)
    forced[:, 0] = True
    forced[:, 1:] = hidden[:, :-1]
    words = np.flatnonzero(flat)
    lengths = np.minimum(generator.geometric(SPAN_STOPS, len(words)), SPAN_MOST_WORDS)
    forced_words = forced.reshape(-1)[words]
    kept = np.zeros(len(words), bool)
    left = 0
    for at in range(len(words)):
        if left == 0 or forced_words[at]:
            kept[at] = True
            left = int(lengths[at])
        left -= 1
    out = np.zeros_like(flat)
    out[words[kept]] = True
    return out.reshape(begins.shape)


def _choose_units(units: Int64s, rate: float, generator: np.random.Generator) -> Bools:
    """Take units in random order while they fit into the rate; returns (B × T,) chosen tokens."""
    ordinary = units >= 0
    if not ordinary.any():
        return ordinary
    sizes = np.bincount(units[ordinary])
    order = generator.permutation(len(sizes))
    budget = rate * int(ordinary.sum())
    taken = np.zeros(len(sizes), bool)
    taken[order[np.cumsum(sizes[order]) <= budget]] = True
    if not taken.any():
        taken[order[0]] = True
    return ordinary & taken[units]
