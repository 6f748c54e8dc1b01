from __future__ import annotations

import gzip
import json
import lzma
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from competition.errors import PretrainingError
from models.network.encoder_source import EncoderSource
from models.network.tokenizer import load_tokenizer
from models.pretraining.corpora import (
    MAX_HELDOUT_FRAC,
    Mixture,
    PackedText,
    Text,
    build_library,
    drop_repeated,
    pack_lines,
    read_lines,
    read_or_pack,
    sample_lines,
)
from tests.models.conftest import SENTENCES, make_encoder

LINES = (*SENTENCES, "짧다.", "서울에서 부산까지 😀 간다.")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_encoder("modernbert", tmp_path_factory.mktemp("encoder"))
    return load_tokenizer(EncoderSource("tiny", folder, "tiny", has_weights=True))


def test_plain_and_packed_files_read_the_same(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "\n".join(LINES)) + "\r\n \n\n"
    raw = decomposed.encode()
    (tmp_path / "a.txt").write_bytes(raw)
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(raw))
    (tmp_path / "a.txt.zst").write_bytes(pa.compress(raw, codec="zstd", asbytes=True))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "a16.txt").write_bytes(decomposed.encode("utf-16"))
    for name in ("a.txt", "a.txt.xz", "a.txt.zst", "a.txt.gz", "a16.txt"):
        assert tuple(read_lines(tmp_path / name)) == LINES
    (tmp_path / "korean.txt").write_bytes("가나다 라마\n바사 아자\n".encode("cp949"))
    assert tuple(read_lines(tmp_path / "korean.txt")) == ("가나다 라마", "바사 아자")


@pytest.mark.parametrize("key", ["text", "sentence"])
def test_a_corpus_of_objects_is_read_by_its_text_not_as_keys_and_escapes(
    tmp_path: Path, key: str
) -> None:
    records = [{"id": i, key: line} for i, line in enumerate(LINES)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "a.json").write_text(json.dumps(records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"):
        assert tuple(read_lines(tmp_path / name)) == LINES


def test_a_null_is_no_text(tmp_path: Path) -> None:
    records = [{"text": "하나"}, {"text": None}, {"text": "둘"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert tuple(read_lines(tmp_path / name)) == ("하나", "둘")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text"),
        (b" \n\n", "holds no text"),
        (b'{"body": "x"}\n{"body": "y"}\n', "JSON Lines with 'body'; name its text 'text'"),
        (
            b'{"text": ["a", "b"]}\n{"text": "c"}\n',
            "row whose 'text' is a list; give each row",
        ),
        (b"<!doctype html><p>x", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "git lfs pull"),
    ],
)
def test_a_corpus_that_is_none_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(PretrainingError, match=r"a\.txt") as caught:
        list(read_lines(tmp_path / "a.txt"))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["absent.txt", "bad.xz", "bad.zst", "latin.txt"])
def test_an_unreadable_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "bad.xz").write_bytes(lzma.compress(b"text" * 1000)[:40])
    (tmp_path / "bad.zst").write_bytes(b"no zstd at all")
    with pytest.raises(PretrainingError, match=name):
        list(read_lines(tmp_path / name))


def test_duplicates_and_forbidden_lines_are_removed() -> None:
    texts = [Text("a", ("one", "two", "one"), 1, 1), Text("b", ("two", "three", "four"), 2, 3)]
    kept, met = drop_repeated(texts, forbidden=["four "])
    assert [text.lines for text in kept] == [("one", "two"), ("three",)]
    assert (kept[1].weight, kept[1].decay_weight, met) == (2, 3, 1)


def test_packing_keeps_every_token_in_order(tokenizer: Any) -> None:
    tokens, starts = pack_lines(LINES, tokenizer)
    assert tokens.dtype == np.uint16
    expected: list[int] = []
    for line in LINES:
        expected += [*tokenizer(line, add_special_tokens=False)["input_ids"], 3]
    assert tokens.tolist() == expected
    library = build_library([PackedText("a", tokens, starts)], 8, tokenizer.cls_token_id)
    count = len(expected) // 7
    ids, _ = library.read(np.arange(count))
    assert (ids[:, 0] == tokenizer.cls_token_id).all()
    assert ids[:, 1:].reshape(-1).tolist() == expected[: 7 * count]


def test_words_begin_where_the_tokenizer_says(tokenizer: Any) -> None:
    line = "비틀즈는 서울이 노래다"
    tokens, starts = pack_lines([line], tokenizer)
    pieces = tokenizer.convert_ids_to_tokens(tokens.tolist())
    assert any(piece.startswith("##") for piece in pieces)
    assert starts.tolist() == [not piece.startswith("##") for piece in pieces]


def test_a_text_is_tokenised_once(tmp_path: Path, tokenizer: Any) -> None:
    text = Text("a", LINES, 1, 1)
    made = read_or_pack(tmp_path, text, tokenizer, "hash")
    again = read_or_pack(tmp_path, text, None, "hash")
    assert again.tokens.tolist() == made.tokens.tolist()
    assert again.starts.tolist() == made.starts.tolist()
    with pytest.raises(TypeError):
        read_or_pack(tmp_path, text, None, "another tokenizer's hash")


def packed(name: str, sequences: int, seed: int) -> PackedText:
    tokens = np.random.default_rng(seed).integers(5, 100, sequences * 7 + 3).astype(np.uint16)
    return PackedText(name, tokens, np.ones(len(tokens), bool))


def test_a_small_share_is_held_out_deterministically() -> None:
    texts = [packed("a", 300, 0), packed("b", 200, 1)]
    library = build_library(texts, 8, 2)
    assert 0 < library.heldout.sum() <= MAX_HELDOUT_FRAC * 500
    for text in (0, 1):
        trained = library.numbers_of(text, heldout=False)
        held = library.numbers_of(text, heldout=True)
        assert sorted([*trained, *held]) == list(
            range(library.firsts[text], library.firsts[text + 1])
        )
    assert (build_library(texts, 8, 2).heldout == library.heldout).all()
    with pytest.raises(PretrainingError, match="too short"):
        build_library([packed("a", 1, 0)], 8, 2)


def test_texts_are_mixed_by_weight() -> None:
    members = [np.arange(10), np.arange(10, 30), np.arange(30, 40)]
    mixture = Mixture(members, [2.0, 0.25, 0.0], seed=[1])
    epochs = 4
    seen = np.bincount(mixture.take(0, epochs * 25), minlength=40)
    assert seen[:10].tolist() == [8] * 10
    assert seen[10:30].tolist() == [1] * 20
    assert seen[30:].sum() == 0


def test_the_order_does_not_depend_on_how_it_is_read() -> None:
    members = [np.arange(7), np.arange(7, 20)]

    def mixture(seed: int = 3) -> Mixture:
        return Mixture(members, [1.5, 0.3], seed=[seed])

    whole = mixture().take(0, 200)
    pieces = mixture()
    assert np.concatenate([pieces.take(at, 8) for at in range(0, 200, 8)]).tolist() == list(whole)
    assert mixture().take(150, 50).tolist() == whole[150:].tolist()
    assert mixture(4).take(0, 200).tolist() != whole.tolist()
    epoch = int(mixture().epoch_sequences)
    assert whole[:epoch].tolist() != whole[epoch : 2 * epoch].tolist()


def test_texts_without_weight_are_refused() -> None:
    with pytest.raises(PretrainingError, match="weight 0"):
        Mixture([np.arange(5)], [0.0], seed=[1])


def test_tokenizer_lines_are_sampled_by_weight() -> None:
    texts = [
        Text("a", tuple("a" * 10 for _ in range(20)), 3, 3),
        Text("b", tuple("b" * 10 for _ in range(20)), 0.5, 0.5),
    ]
    everything = "".join(sample_lines(texts, 10_000))
    assert (everything.count("a"), everything.count("b")) == (600, 100)
    some = "".join(sample_lines(texts, 140))
    assert (some.count("a"), some.count("b")) == (120, 20)
