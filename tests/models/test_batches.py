from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import FormatError
from competition.folds import Prepared
from competition.rows import Rows
from models.batches import (
    POSITION_NAMES,
    TokenizedRows,
    choose_window,
    collate,
    plan_epoch,
    read_or_tokenize,
    split_by_tokens,
    tokenize_rows,
)
from models.encoder import EncoderSource, load_tokenizer
from models.formats import FORMATS
from tests.models.conftest import ARCHITECTURES, make_encoder

SPAN = st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda s: (s[0], s[0] + s[1]))


@given(
    first=SPAN,
    gap=st.integers(0, 60),
    second=st.integers(1, 12),
    tail=st.integers(0, 60),
    budget=st.integers(1, 200),
)
def test_a_window_keeps_both_spans_whole_or_is_refused(
    first: tuple[int, int], gap: int, second: int, tail: int, budget: int
) -> None:
    other = (first[1] + gap, first[1] + gap + second)
    length = other[1] + tail
    needed = first[1] - first[0] + second
    for a, b in ((first, other), (other, first)):
        pieces = choose_window(length, a, b, budget)
        if pieces is None:
            assert needed > budget
            continue
        kept = [i for start, end in pieces for i in range(start, end)]
        assert kept == sorted(set(kept))
        assert len(kept) <= budget
        assert len(kept) == min(budget, length) or len(pieces) == 2 or len(kept) >= needed
        assert set(range(*first)) | set(range(*other)) <= set(kept)
        assert 0 <= kept[0] <= kept[-1] < length


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("format_name", ["concat", "typed-punct", "entity-marker", "typed-marker"])
def test_positions_hold_for_every_kind_of_tokenizer(
    architecture: str, format_name: str, tmp_path: Path, prepared: Prepared
) -> None:
    source = EncoderSource("t", make_encoder(architecture, tmp_path / "e"), "i", has_weights=True)
    form = FORMATS[format_name]
    tokenizer = load_tokenizer(source, form.new_tokens(["PER", "ORG", "LOC"]))
    rows = prepared.corpus.train
    tokenized = tokenize_rows(rows, form, tokenizer, 256)
    at = {name: i for i, name in enumerate(POSITION_NAMES)}
    for i, row in enumerate(rows):
        ids, where = tokenized.row_tokens(i), tokenized.positions[i]
        for role, entity in (("subject", row.subject), ("object", row.object)):
            span = ids[where[at[f"{role}_start"]] : where[at[f"{role}_end"]]].tolist()
            alone = tokenizer(entity.word, add_special_tokens=False)["input_ids"]
            if architecture != "xlm-roberta" and format_name != "concat":
                assert span == alone  # there, the word stands between spaces or special tokens
            mark = tokenizer.convert_ids_to_tokens(int(ids[where[at[f"{role}_mark"]]]))
            if format_name == "typed-punct":  # a lone ▁ stands for the space that precedes the sign
                sign = "@" if role == "subject" else "#"
                assert mark in (sign, f"▁{sign}", "▁", tokenizer.unk_token)
            elif format_name.endswith("marker"):
                assert mark.startswith("[SUBJ" if role == "subject" else "[OBJ")
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == tokenizer.sep_token_id
        assert (where >= 1).all()
        assert (where <= len(ids) - 1).all()


def test_a_repeated_word_is_marked_where_the_offset_says(
    tmp_path: Path, prepared: Prepared
) -> None:
    source = EncoderSource("t", make_encoder("bert", tmp_path / "e"), "i", has_weights=True)
    tokenizer = load_tokenizer(source)
    frame = prepared.corpus.train.frame.head(1).copy()
    for name, value in {
        "sentence": "노래 해리슨 노래 비틀즈",
        "subject_word": "노래",
        "subject_start": 7,
        "subject_end": 9,
        "object_word": "비틀즈",
        "object_start": 10,
        "object_end": 13,
    }.items():
        frame[name] = value
    rows = Rows(frame, None)
    tokenized = tokenize_rows(rows, FORMATS["concat"], tokenizer, 256)
    place = dict(zip(POSITION_NAMES, tokenized.positions[0].tolist(), strict=True))
    before = tokenizer("노래 비틀즈 노래 해리슨", add_special_tokens=False)["input_ids"]
    assert place["subject_start"] == 1 + len(before) + 2  # [CLS], and a [SEP] after each word


def test_a_long_row_is_cut_around_its_entities(tmp_path: Path, prepared: Prepared) -> None:
    source = EncoderSource("t", make_encoder("bert", tmp_path / "e"), "i", has_weights=True)
    tokenizer = load_tokenizer(source)
    rows, form = prepared.corpus.train, FORMATS["typed-punct"]
    whole = tokenize_rows(rows, form, tokenizer, 256)
    limit = int(whole.lengths.max()) - 3
    cut = tokenize_rows(rows, form, tokenizer, limit)
    assert cut.cut == (whole.lengths > limit).sum() > 0
    assert cut.lengths.max() <= limit
    for i in range(len(rows)):
        for role in (0, 1):
            a, b = (t.positions[i] for t in (whole, cut))
            start, end = 2 + 2 * role, 3 + 2 * role
            kept = cut.row_tokens(i)[b[start] : b[end]]
            assert (kept == whole.row_tokens(i)[a[start] : a[end]]).all()
    with pytest.raises(FormatError, match="do not fit 12 tokens"):
        tokenize_rows(rows, form, tokenizer, 12)


def test_rows_are_tokenised_once_and_mapped(tmp_path: Path, prepared: Prepared) -> None:
    source = EncoderSource("t", make_encoder("bert", tmp_path / "e"), "i", has_weights=True)
    tokenizer = load_tokenizer(source)
    made = read_or_tokenize(
        tmp_path / "rows", prepared.corpus.test, FORMATS["concat"], tokenizer, 64
    )
    again = read_or_tokenize(tmp_path / "rows", prepared.corpus.test, FORMATS["concat"], None, 64)
    assert isinstance(again.tokens, np.memmap)
    assert (made.tokens == again.tokens).all()
    assert again.ids.tolist() == prepared.corpus.test.ids.tolist()


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=80),
    batch=st.integers(1, 9),
    pool=st.integers(1, 5),
    budget=st.integers(1, 200),
    seed=st.integers(0, 9),
)
def test_an_epoch_is_a_partition_and_micro_batches_keep_the_budget(
    lengths: list[int], batch: int, pool: int, budget: int, seed: int
) -> None:
    sizes = np.array(lengths)
    steps = plan_epoch(sizes, batch, pool, np.random.default_rng(seed))
    again = plan_epoch(sizes, batch, pool, np.random.default_rng(seed))
    assert all((a == b).all() for a, b in zip(steps, again, strict=True))
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(sizes)))
    assert sorted(len(step) for step in steps)[1:] == [batch] * (len(steps) - 1)
    for step in steps:
        parts = list(split_by_tokens(step, sizes, budget))
        assert sorted(np.concatenate(parts).tolist()) == sorted(step.tolist())
        assert all(len(p) * sizes[p].max() <= budget or len(p) == 1 for p in parts)


def test_collate_pads_to_the_longest() -> None:
    rows = TokenizedRows(
        np.array([2, 7, 3, 2, 3], np.int32),
        np.array([0, 3, 5]),
        np.zeros((2, 6), np.int32),
        np.array(["a", "b"]),
        0,
    )
    batch = collate(rows, [0, 1], 0)
    assert batch.input_ids.tolist() == [[2, 7, 3], [2, 3, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.positions.lengths.tolist() == [3, 2]
