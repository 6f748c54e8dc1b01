from __future__ import annotations

import json
from pathlib import Path

import pytest

from competition.errors import EncoderError
from models.network.encoder_source import EncoderSource
from models.network.tokenizer import check_reading, load_tokenizer
from tests.models.conftest import SENTENCES, make_encoder

KOREAN = [sentence for sentence in SENTENCES if "PER" not in sentence]
ENGLISH = ("The Beatles wrote songs in 1969. @ # * ^ PER ORG", "Born in Seoul, she joined a firm.")
SIGNS = [("@ * PER * @", "# ^ PER ^ #")]


def source_in(folder: Path) -> EncoderSource:
    return EncoderSource("enc", folder, "i", has_weights=True)


def test_a_folder_without_tokenizer_files_is_refused(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    with pytest.raises(EncoderError, match=r"no tokenizer files .*save_pretrained\(FOLDER\)"):
        load_tokenizer(source_in(folder))


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match="cannot be loaded") as caught:
        load_tokenizer(source_in(folder))
    assert "\n" not in str(caught.value)


def test_a_class_that_reads_otherwise_than_the_file_is_named(tmp_path: Path) -> None:
    """BertTokenizer writes in lower case, which splits Hangul, unless its settings say not to."""
    source = source_in(make_encoder("bert", tmp_path))
    path = tmp_path / "tokenizer_config.json"
    plain = {**json.loads(path.read_text()), "tokenizer_class": "BertTokenizer"}

    def check(**settings: bool) -> list[str]:
        path.write_text(json.dumps({**plain, **settings}))
        return check_reading(source, load_tokenizer(source), [*KOREAN, "PER ORG LOC"], [])

    assert check(do_lower_case=False) == []
    with pytest.raises(EncoderError, match=r"as \[UNK\]: transformers reads .*do_lower_case"):
        check()
    notice = check(strip_accents=False)[0]
    assert "reads 33% of the sentences otherwise than tokenizer.json" in notice
    assert "by its own BertTokenizer" in notice


def test_a_tokenizer_of_the_language_passes_without_a_word(tmp_path: Path) -> None:
    source = source_in(make_encoder("bert", tmp_path))
    assert check_reading(source, load_tokenizer(source), KOREAN, SIGNS) == []


def test_a_tokenizer_of_another_language_is_refused(tmp_path: Path) -> None:
    source = source_in(make_encoder("bert", tmp_path, ENGLISH))
    tokenizer = load_tokenizer(source)
    with pytest.raises(EncoderError, match=r"reads \d\d% of the sentences' characters as \[UNK\]"):
        check_reading(source, tokenizer, KOREAN, SIGNS)
    assert check_reading(source, tokenizer, ENGLISH, SIGNS) == []


def test_what_is_read_poorly_is_noted(tmp_path: Path) -> None:
    source = source_in(make_encoder("bert", tmp_path))
    some = [*KOREAN * 2, "퀅뷁쌻 퀅뷁쌻"]
    (notice,) = check_reading(source, load_tokenizer(source), some, SIGNS)
    assert "% of the sentences' characters as [UNK]" in notice
    bytes_only = source_in(make_encoder("qwen2", tmp_path / "bytes", ENGLISH))
    other, notice = check_reading(bytes_only, load_tokenizer(bytes_only), KOREAN, SIGNS)
    assert "otherwise than tokenizer.json says, by its own Qwen2Tokenizer" in other
    assert "tokens for a character" in notice


def test_markers_that_look_equal_are_refused_and_what_is_lost_is_noted(tmp_path: Path) -> None:
    source = source_in(make_encoder("xlm-roberta", tmp_path, KOREAN))
    tokenizer = load_tokenizer(source)
    with pytest.raises(EncoderError, match=r"neither '@ \*' nor '# \^'.*typed-marker"):
        check_reading(source, tokenizer, KOREAN, [("@ *", "# ^")])
    notices = check_reading(source, tokenizer, KOREAN, [("비틀즈 PER", "PER")])
    assert "reads PER of the markers as [UNK]" in notices[0]
    assert len(check_reading(source, tokenizer, KOREAN, [("", "")])) == len(notices) - 1


def test_a_tokenizer_of_another_encoder_is_refused(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "vocab_size": 40}))
    source = source_in(folder)
    with pytest.raises(EncoderError, match="its weights 40: they belong to different encoders"):
        check_reading(source, load_tokenizer(source), KOREAN, SIGNS)
