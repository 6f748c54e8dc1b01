from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.pretraining.masking import Kind, MaskRules, Replacement, mask_batch, number_units

MASK, SPECIALS = 4, 5
VOCABULARY = np.arange(SPECIALS, 200)
KINDS: tuple[Kind, ...] = ("whole-word", "span", "token")


def rules(kind: Kind = "whole-word", replacement: Replacement = "mixed") -> MaskRules:
    return MaskRules(kind, replacement, MASK, VOCABULARY)


def made_batch(seed: int, rows: int = 16, length: int = 64) -> tuple[np.ndarray, ...]:
    """Make ids, word beginnings, and special tokens: [CLS] first, and some separators."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(SPECIALS, 200, (rows, length))
    starts = generator.random((rows, length)) < 0.6
    hidden = generator.random((rows, length)) < 0.04
    hidden[:, 0] = True
    ids[hidden], starts[hidden] = 3, True
    return ids, starts, hidden


def words_of(starts: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Number the words in a simple loop over tokens."""
    words, count = np.full(starts.shape, -1), -1
    for row, column in np.ndindex(*starts.shape):
        if hidden[row, column]:
            continue
        if starts[row, column] or column == 0 or hidden[row, column - 1]:
            count += 1
        words[row, column] = count
    return words


@given(seed=st.integers(0, 10_000), rate=st.floats(0.05, 0.6))
def test_words_are_masked_whole(seed: int, rate: float) -> None:
    ids, starts, hidden = made_batch(seed, rows=3, length=24)
    generator = np.random.default_rng(seed)
    _, places = mask_batch(ids, starts, hidden, rules=rules(), rate=rate, generator=generator)
    words = words_of(starts, hidden).reshape(-1)
    chosen = np.isin(np.arange(words.size), places)
    for word in np.unique(words[words >= 0]):
        assert len(set(chosen[words == word])) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_is_close_to_the_rate_and_no_special_token_is_masked(kind: Kind) -> None:
    ids, starts, hidden = made_batch(1, rows=64)
    for rate in (0.1, 0.15, 0.3):
        generator = np.random.default_rng(2)
        shown, places = mask_batch(
            ids, starts, hidden, rules=rules(kind), rate=rate, generator=generator
        )
        assert not hidden.reshape(-1)[places].any()
        assert (shown[hidden] == ids[hidden]).all()
        assert len(places) / (~hidden).sum() == pytest.approx(rate, abs=0.01)
        assert len(places) / (~hidden).sum() <= rate


def test_spans_cover_several_words_in_a_row() -> None:
    _, starts, hidden = made_batch(3, rows=64)
    units = {}
    for kind in KINDS:
        units[kind] = number_units(starts, hidden, kind, np.random.default_rng(4))
        assert ((units[kind] == -1) == hidden.reshape(-1)).all()
    assert units["token"].max() > units["whole-word"].max() > 2 * units["span"].max()
    words = words_of(starts, hidden).reshape(-1)
    for word in np.unique(words[words >= 0]):
        assert len(set(units["span"][words == word])) == 1
    for unit in range(units["span"].max() + 1):
        places = np.flatnonzero(units["span"] == unit)
        assert (np.diff(places) == 1).all()
        assert places[0] // 64 == places[-1] // 64
        assert len(set(words[places])) <= 10


def test_mixed_replacement_uses_mask_random_and_original_tokens() -> None:
    ids, starts, hidden = made_batch(5, rows=256)
    generator = np.random.default_rng(6)
    shown, places = mask_batch(ids, starts, hidden, rules=rules(), rate=0.4, generator=generator)
    before, after = ids.reshape(-1)[places], shown.reshape(-1)[places]
    assert (after == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (after == before).mean() == pytest.approx(0.1, abs=0.02)
    assert after[after != MASK].min() >= SPECIALS
    rest = np.setdiff1d(np.arange(ids.size), places)
    assert (shown.reshape(-1)[rest] == ids.reshape(-1)[rest]).all()


def test_mask_replacement_always_uses_the_mask() -> None:
    ids, starts, hidden = made_batch(7)
    shown, places = mask_batch(
        ids,
        starts,
        hidden,
        rules=rules(replacement="mask"),
        rate=0.2,
        generator=np.random.default_rng(8),
    )
    assert (shown.reshape(-1)[places] == MASK).all()


def test_masks_depend_on_the_seed_and_mask_at_least_one_token() -> None:
    ids, starts, hidden = made_batch(9)

    def draw(seed: int, rate: float = 0.15) -> list[int]:
        generator = np.random.default_rng(seed)
        _, places = mask_batch(ids, starts, hidden, rules=rules(), rate=rate, generator=generator)
        return places.tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(draw(1, rate=1e-6)) >= 1


def test_a_batch_of_special_tokens_is_not_masked() -> None:
    ids, starts, hidden = made_batch(10)
    shown, places = mask_batch(
        ids,
        starts,
        np.ones_like(hidden),
        rules=rules("span"),
        rate=0.2,
        generator=np.random.default_rng(0),
    )
    assert (shown == ids).all()
    assert len(places) == 0
