from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from competition.data.rows import Entity, Row, Rows, build_frame
from competition.errors import FormatError
from competition.folds.kfold import Prepared
from models.data.batches import (
    POSITION_NAMES,
    TokenizedRows,
    choose_window,
    collate,
    plan_epoch,
    read_or_tokenize,
    split_by_tokens,
    stack_rows,
    take_rows,
    tokenize_rows,
)
from models.network.encoder_source import EncoderSource
from models.network.entity_embedding import role_ids
from models.network.tokenizer import load_tokenizer
from models.parts.formats import EXAMPLE_ROW, FORMATS, MASK_SLOT, PLAIN
from models.parts.heads import Positions
from models.settings import FormatSettings
from tests.models.conftest import ARCHITECTURES, make_encoder

TYPES = ["PER", "ORG", "LOC"]
MARKED = ("entity-marker", "typed-marker")
PUNCTUATED = ("typed-punct", "typed-punct-ko", "query", "declarative", "mask-prompt")
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


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], EncoderSource]:
    """Make the encoder of each architecture once for the whole module."""

    @cache
    def make(architecture: str) -> EncoderSource:
        folder = make_encoder(architecture, tmp_path_factory.mktemp(architecture))
        return EncoderSource("t", folder, "i", has_weights=True)

    return make


Sources = Callable[[str], EncoderSource]


def make_rows(*columns: dict[str, Any]) -> Rows:
    """Make rows of a sentence and two entities that are named with their first character."""
    made = []
    for i, each in enumerate(columns):
        entities = {
            role: Entity(word, start, start + len(word), kind)
            for role, (word, start, kind) in (("subject", each["s"]), ("object", each["o"]))
        }
        for entity in entities.values():
            assert each["sentence"][entity.start : entity.end] == entity.word
        made.append(Row(str(i), each["sentence"], **entities, source=each.get("source")))
    frame = build_frame(
        {
            "id": [row.id for row in made],
            "sentence": [row.sentence for row in made],
            "source": [row.source for row in made],
            **{
                f"{role}_{part}": [getattr(getattr(row, role), part) for row in made]
                for role in ("subject", "object")
                for part in ("word", "start", "end", "type")
            },
        }
    )
    return Rows(frame, None)


def places_of(tokenized: TokenizedRows, index: int) -> dict[str, int]:
    return dict(zip(POSITION_NAMES, tokenized.positions[index].tolist(), strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_positions_hold_for_every_kind_of_tokenizer(
    architecture: str, format_name: str, sources: Sources, prepared: Prepared
) -> None:
    form, masked = FORMATS[format_name], FormatSettings(mask_entities=True)
    new_tokens = form.new_tokens(TYPES, masked)
    tokenizer = load_tokenizer(sources(architecture), new_tokens)
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer)))[-len(new_tokens) :] == list(
        new_tokens
    )
    rows = prepared.corpus.train.take(np.arange(0, 64, 3))
    for formatting in (PLAIN, masked):
        tokenized = tokenize_rows(rows, form, tokenizer, 256, formatting=formatting)
        for i, row in enumerate(rows):
            ids, where = tokenized.row_tokens(i), places_of(tokenized, i)
            for role, entity in (("subject", row.subject), ("object", row.object)):
                span = ids[where[f"{role}_start"] : where[f"{role}_end"]].tolist()
                short = {"subject": "SUBJ", "object": "OBJ"}[role]
                if formatting is masked:
                    assert tokenizer.convert_ids_to_tokens(span) == [f"[{short}-{entity.type}]"]
                elif architecture != "xlm-roberta" and format_name in (*MARKED, *PUNCTUATED):
                    alone = tokenizer(entity.word, add_special_tokens=False)["input_ids"]
                    assert span == alone  # there, the word stands between spaces or special tokens
                mark = tokenizer.convert_ids_to_tokens(int(ids[where[f"{role}_mark"]]))
                if format_name in MARKED:
                    kind = f":{entity.type}" if format_name == "typed-marker" else ""
                    assert mark == f"[{short}{kind}]"
                elif format_name in PUNCTUATED:  # a lone ▁ is the space that precedes the sign
                    sign = "@" if role == "subject" else "#"
                    assert mark in (sign, f"▁{sign}", "▁", tokenizer.unk_token)
            assert ids[0] == tokenizer.cls_token_id
            assert ids[-1] == tokenizer.sep_token_id
            asked = where.pop("prompt_mask")
            if form.build(EXAMPLE_ROW).prompt_mask is not None:
                assert ids[asked] == tokenizer.mask_token_id
                assert asked > ids.tolist().index(tokenizer.sep_token_id)  # in the segment behind
            else:
                assert asked == 0
            assert min(where.values()) >= 1
            assert max(where.values()) <= len(ids) - 1


def test_a_repeated_word_is_marked_where_the_offset_says(sources: Sources) -> None:
    tokenizer = load_tokenizer(sources("bert"))
    rows = make_rows(
        {"sentence": "노래 해리슨 노래 비틀즈", "s": ("노래", 7, "POH"), "o": ("비틀즈", 10, "ORG")}
    )
    tokenized = tokenize_rows(rows, FORMATS["concat"], tokenizer, 256)
    before = tokenizer("노래 비틀즈 노래 해리슨", add_special_tokens=False)["input_ids"]
    place = places_of(tokenized, 0)
    assert place["subject_start"] == 1 + len(before) + 2  # [CLS], and a [SEP] after each word


@pytest.mark.parametrize("own_mask", [MASK_SLOT, "<mask>"])
@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta"])
def test_the_slot_is_the_tokenizers_own_mask_found_by_position(
    architecture: str, own_mask: str, sources: Sources
) -> None:
    tokenizer = load_tokenizer(sources(architecture))
    swallows_space = own_mask != MASK_SLOT  # as XLM-R's mask does
    tokenizer.add_special_tokens({"mask_token": AddedToken(own_mask, lstrip=swallows_space)})
    row = {"sentence": f"서울의 {MASK_SLOT}와 <mask>", "o": ("서울", 0, "LOC"), "source": "a b"}
    rows = make_rows({**row, "s": (MASK_SLOT, 4, "ORG")}, {**row, "s": ("<mask>", 12, "ORG")})
    for show_source in (False, True):
        tokenized = tokenize_rows(
            rows,
            FORMATS["mask-prompt"],
            tokenizer,
            256,
            formatting=FormatSettings(show_source=show_source),
        )
        for i in range(2):
            ids, asked = tokenized.row_tokens(i), places_of(tokenized, i)["prompt_mask"]
            is_mask = ids == tokenizer.mask_token_id
            assert is_mask[asked]
            assert not is_mask[asked + 1 :].any()
            assert is_mask.sum() >= 2  # the text has one too
            after = tokenizer.decode(ids[asked + 1 : -1]).strip()
            assert after.replace(" ", "").replace("▁", "") == "이다."


def test_a_prompt_with_a_mask_needs_a_tokenizer_with_a_mask_token(
    sources: Sources, prepared: Prepared
) -> None:
    tokenizer = load_tokenizer(sources("bert"))
    tokenizer.mask_token = None
    with pytest.raises(FormatError, match="needs a mask token"):
        tokenize_rows(prepared.corpus.train, FORMATS["mask-prompt"], tokenizer, 256)
    tokenize_rows(prepared.corpus.train, FORMATS["query"], tokenizer, 256)


def split_segments(ids: npt.NDArray[np.int32], sep_id: int) -> list[list[int]]:
    """Return the tokens between the separators, without [CLS]."""
    ends = np.flatnonzero(ids == sep_id).tolist()
    starts = [1, *(end + 1 for end in ends)]
    return [ids[start:end].tolist() for start, end in zip(starts, ends, strict=False)]


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_long_row_is_cut_around_its_entities_and_its_prompt_stays_whole(
    format_name: str, sources: Sources, prepared: Prepared
) -> None:
    form, formatting = FORMATS[format_name], FormatSettings(show_source=True)
    tokenizer = load_tokenizer(sources("bert"), form.new_tokens(TYPES, formatting))
    rows = prepared.corpus.train
    whole = tokenize_rows(rows, form, tokenizer, 256, formatting=formatting)
    limit = int(whole.lengths.max()) - 3
    cut = tokenize_rows(rows, form, tokenizer, limit, formatting=formatting)
    assert (cut.is_cut == (whole.lengths > limit)).all()
    assert cut.cut == cut.is_cut.sum() > 0 == whole.cut
    assert cut.lengths.max() <= limit
    body = form.build(EXAMPLE_ROW, formatting).body
    for i in range(len(rows)):
        now, then = cut.row_tokens(i), whole.row_tokens(i)
        here, there = places_of(cut, i), places_of(whole, i)
        for role in ("subject", "object"):
            start, end = f"{role}_start", f"{role}_end"
            kept = now[here[start] : here[end]]
            assert (kept == then[there[start] : there[end]]).all()
            assert now[here[f"{role}_mark"]] == then[there[f"{role}_mark"]]
        assert now[here["prompt_mask"]] == then[there["prompt_mask"]]
        beside, before = (split_segments(ids, tokenizer.sep_token_id) for ids in (now, then))
        assert len(beside.pop(body)) == len(before.pop(body)) - len(then) + len(now)
        assert beside == before
    with pytest.raises(FormatError, match=r"row \d+: its entities do not fit 12 tokens"):
        tokenize_rows(rows, form, tokenizer, 12, formatting=formatting)


def test_rows_are_tokenised_once_and_mapped(
    tmp_path: Path, sources: Sources, prepared: Prepared
) -> None:
    tokenizer = load_tokenizer(sources("bert"))
    rows, form = prepared.corpus.test, FORMATS["concat"]
    shown = FormatSettings(show_source=True)
    limit = int(tokenize_rows(rows, form, tokenizer, 256, formatting=shown).lengths.max()) - 1
    folder = tmp_path / "rows"
    made = read_or_tokenize(folder, rows, form, tokenizer, limit, formatting=shown)
    again = read_or_tokenize(folder, rows, form, None, limit, formatting=shown)
    assert isinstance(again.tokens, np.memmap)
    assert (made.tokens == again.tokens).all()
    assert again.ids.tolist() == rows.ids.tolist()
    assert made.cut == again.cut > 0
    plain = read_or_tokenize(tmp_path / "plain", rows, form, tokenizer, limit)
    assert (plain.lengths < made.lengths).all()  # no source in front


def test_a_truncated_cache_of_tokens_is_written_again(
    sources: Sources, prepared: Prepared, tmp_path: Path
) -> None:
    rows, tokenizer = prepared.corpus.test, load_tokenizer(sources("bert"))
    folder = tmp_path / "rows"
    made = read_or_tokenize(folder, rows, FORMATS["typed-punct"], tokenizer, 256)
    expected = {name: np.array(getattr(made, name)) for name in ("tokens", "positions", "ids")}
    for name in ("tokens.npy", "ids.npy"):
        for size in (0, 20, (folder / name).stat().st_size - 1):
            os.truncate(folder / name, size)
            again = read_or_tokenize(folder, rows, FORMATS["typed-punct"], tokenizer, 256)
            for array, values in expected.items():
                assert np.array_equal(getattr(again, array), values)


def make_tokenized(lengths: list[int]) -> TokenizedRows:
    """Make rows whose tokens, positions, ids and cuts identify their row."""
    count = len(lengths)
    return TokenizedRows(
        tokens=np.concatenate(
            [np.zeros(0, np.int32), *(np.arange(n) + 100 * i for i, n in enumerate(lengths))]
        ).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        positions=np.repeat(np.arange(count), len(POSITION_NAMES)).reshape(count, -1).astype("i4"),
        ids=np.array([f"r{i}" for i in range(count)], np.str_),
        is_cut=np.arange(count) % 2 == 1,
    )


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    chosen=st.lists(st.integers(0, 7), max_size=10),
)
def test_rows_are_taken_with_all_their_arrays(lengths: list[int], chosen: list[int]) -> None:
    rows = make_tokenized(lengths)
    indices = [i % len(lengths) for i in chosen]
    taken = take_rows(rows, indices)
    assert len(taken) == len(indices)
    for place, index in enumerate(indices):
        assert taken.row_tokens(place).tolist() == rows.row_tokens(index).tolist()
    assert taken.positions.tolist() == rows.positions[indices].tolist()
    assert taken.ids.tolist() == rows.ids[indices].tolist()
    assert taken.cut == sum(i % 2 for i in indices)
    assert (taken.tokens.dtype, taken.offsets.dtype) == (np.int32, np.int64)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    ends=st.lists(st.integers(0, 8), max_size=3),
)
def test_stacking_parts_restores_the_whole(lengths: list[int], ends: list[int]) -> None:
    rows = make_tokenized(lengths)
    bounds = sorted({0, len(lengths), *(end % (len(lengths) + 1) for end in ends)})
    parts = [take_rows(rows, np.arange(a, b)) for a, b in pairwise(bounds)]
    stacked = stack_rows(parts)
    for name in ("tokens", "offsets", "positions", "ids", "is_cut"):
        whole, again = getattr(rows, name), getattr(stacked, name)
        assert whole.tolist() == again.tolist()
        assert whole.dtype == again.dtype


def test_role_ids_mark_subject_and_object(sources: Sources) -> None:
    tokenizer = load_tokenizer(sources("bert"))
    rows = make_rows(
        {"sentence": "김하나 대리", "s": ("김하나", 0, "PER"), "o": ("대리", 4, "POH")},
        {"sentence": "대리 김하나", "s": ("김하나", 3, "PER"), "o": ("대리", 0, "POH")},
    )
    tokenized = tokenize_rows(rows, FORMATS["typed-punct"], tokenizer, 256)
    batch = collate(tokenized, [0, 1], tokenizer.pad_token_id)
    roles = role_ids(batch.positions, batch.input_ids.shape[1])
    assert roles.dtype == torch.int64
    assert roles.shape == batch.input_ids.shape
    words = {0: {1: "김하나", 2: "대리"}, 1: {1: "김하나", 2: "대리"}}
    for i, of_role in words.items():
        for role, word in of_role.items():
            ids = batch.input_ids[i][roles[i] == role].tolist()
            assert ids == tokenizer(word, add_special_tokens=False)["input_ids"]
        outside = tokenizer.decode(batch.input_ids[i][roles[i] == 0], skip_special_tokens=True)
        assert "김" not in outside
        assert "대" not in outside


def test_a_token_that_both_words_share_is_the_subjects() -> None:
    def column(*values: int) -> torch.Tensor:
        return torch.tensor(values)

    where = dict.fromkeys(Positions.names(), column(0, 0))
    where |= {"subject_start": column(1, 3), "subject_end": column(3, 4)}
    where |= {"object_start": column(2, 1), "object_end": column(4, 4)}
    assert role_ids(Positions(**where), 5).tolist() == [[0, 1, 1, 2, 0], [0, 2, 2, 1, 0]]


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
        np.arange(2 * len(POSITION_NAMES), dtype=np.int32).reshape(2, -1),
        np.array(["a", "b"]),
        np.zeros(2, bool),
    )
    batch = collate(rows, [0, 1], 0)
    assert batch.input_ids.tolist() == [[2, 7, 3], [2, 3, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.positions.lengths.tolist() == [3, 2]
    after = len(POSITION_NAMES)  # where the second row begins
    assert batch.positions.subject_mark.tolist() == [0, after]
    assert batch.positions.prompt_mask.tolist() == [6, 6 + after]
