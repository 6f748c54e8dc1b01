"""Masking for masked-language modelling: whole words, spans or single tokens.

Masks are drawn at every step from a generator seeded by the step (dynamic masking), so the same
text is masked differently in each epoch.
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
SPAN_STOPS = 0.2  # probability that a span ends after each word: 3.8 words on average
MAX_SPAN_WORDS = 10


@dataclass(frozen=True)
class MaskRules:
    """How tokens are chosen and replaced.

    ``kind``: whole words, spans of words, or single tokens. ``replacement``: ``mixed`` replaces 80%
    by the mask and 10% by a random token and keeps 10% (BERT); ``mask`` always uses the mask.
    ``ordinary`` (V,) holds the ids of all tokens that are not special, for random replacement.
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
    """Choose the tokens to predict, and mask them.

    Args:
        ids: (B, T) token ids.
        starts: (B, T) True where a word begins.
        hidden: (B, T) True for special tokens, which are never chosen.
        rules: how tokens are chosen and replaced.
        rate: share of the other tokens to choose, 0 to 1; units are added while they fit.
        generator: source of all random draws.

    Returns:
        (B, T) masked ids, and the (n,) chosen places, ascending, in the flattened batch; at least
        one unit is chosen unless all tokens are special.
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

    A unit never extends over a special token or the end of a sequence.

    >>> starts = np.array([[True, True, False, True, True]])
    >>> hidden = np.array([[True, False, False, False, True]])
    >>> number_units(starts, hidden, "whole-word", np.random.default_rng(0)).tolist()
    [-1, 0, 0, 1, -1]

    Source of spans: SpanBERT (Joshi et al. 2020, arXiv 1907.10529), section 3.1, lengths in words;
    here the text is first split into such spans, so that chosen spans cannot overlap.
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
    """Return which word beginnings are also the beginning of a span."""
    flat = begins.reshape(-1)
    forced = np.zeros_like(begins)
    forced[:, 0] = True
    forced[:, 1:] = hidden[:, :-1]
    words = np.flatnonzero(flat)
    lengths = np.minimum(generator.geometric(SPAN_STOPS, len(words)), MAX_SPAN_WORDS)
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
    """Choose units in random order while they fit the rate; returns chosen tokens (B × T,)."""
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
