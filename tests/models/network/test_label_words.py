"""label_words: a head begins with what its backbone says of the labels' words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from competition.errors import EncoderError, VariantError
from competition.profile_language import read_language
from models.network.encoder_source import EncoderSource
from models.network.label_words import init_head, tokenize_words
from models.network.network import RelationModel, build_model
from models.parts.heads import LabelWordsHead, Positions
from models.variant import resolve_variant
from tests.models.conftest import SENTENCES, make_encoder

WORDS = ([5, 6], [7], [8, 9, 10], [11])
WORDS_OF = {f"label {at}": " ".join(map(str, each)) for at, each in enumerate(WORDS)}
MASKED = ["bert", "roberta", "modernbert", "klue-roberta", "xlm-roberta"]
ROWS = torch.tensor([[2, 12, 13, 14, 15, 3], [2, 16, 17, 3, 0, 0]])
LENGTHS = torch.tensor([6, 4])


class Tokenizer:
    """Knows the labels' words, as numbers."""

    unk_token_id = 1

    def __call__(self, words: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [int(each) for each in words.split()]}


def build(folder: Path, *overrides: tuple[str, Any], name: str = "label-words") -> RelationModel:
    variant = resolve_variant(
        name, encoder="none", encoder_override=str(folder), overrides=overrides
    )
    source = EncoderSource("tiny", folder, "identity", has_weights=True)
    model = build_model(variant, source, labels=4, vocabulary=9, device_type="cpu")
    init_head(model, variant, source, Tokenizer(), WORDS_OF)
    return model.eval()


def as_decoder(folder: Path, *overrides: tuple[str, Any]) -> RelationModel:
    return build(folder, ("format", "instruct"), *overrides)


def positions(asked: Sequence[int]) -> Positions:
    others = dict.fromkeys(Positions.names(), torch.zeros(2, dtype=torch.int64))
    return Positions(**(others | {"lengths": LENGTHS, "prompt_mask": torch.tensor(asked)}))


def mean_by_label(logits: torch.Tensor) -> torch.Tensor:
    return torch.stack([logits[:, list(tokens)].mean(dim=1) for tokens in WORDS], dim=1)


def save_with_output_layer(kind: Any, folder: Path, **settings: Any) -> Any:
    """Give an encoder folder a random output layer, as pretraining leaves it; return the whole."""
    whole = kind.from_pretrained(folder, attn_implementation="eager", **settings).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    whole.save_pretrained(folder)
    return whole


@pytest.mark.parametrize("architecture", MASKED)
def test_an_encoder_scores_the_words_at_the_mask_before_training(
    architecture: str, tmp_path: Path
) -> None:
    folder = make_encoder(architecture, tmp_path / "e")
    whole = save_with_output_layer(AutoModelForMaskedLM, folder)
    model, asked = build(folder), [3, 2]
    mask = (torch.arange(6) < LENGTHS[:, None]).long()
    with torch.no_grad():
        wanted = whole(input_ids=ROWS, attention_mask=mask).logits[torch.arange(2), asked]
        logits = model(ROWS, mask, positions(asked))
    assert wanted.std() > 0.05
    torch.testing.assert_close(logits, mean_by_label(wanted), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("architecture", "is_tied"),
    [("qwen3", True), ("qwen3", False), ("llama", False), ("gemma2", True)],
)
def test_a_decoder_scores_the_words_at_the_last_token_before_training(
    architecture: str, is_tied: bool, tmp_path: Path
) -> None:
    folder = make_encoder(architecture, tmp_path / "e")
    whole = save_with_output_layer(AutoModelForCausalLM, folder, tie_word_embeddings=is_tied)
    whole.config.final_logit_softcapping = None  # Gemma 2 squeezes its scores afterwards
    model = as_decoder(folder)
    mask = (torch.arange(6) < LENGTHS[:, None]).long()
    with torch.no_grad():
        wanted = whole(input_ids=ROWS, attention_mask=mask).logits[torch.arange(2), LENGTHS - 1]
        logits = model(ROWS, mask, positions([0, 0]))
    assert wanted.std() > 0.01
    torch.testing.assert_close(logits, mean_by_label(wanted), atol=1e-4, rtol=1e-3)


def test_adapters_leave_the_words_of_a_decoder_as_they_are(tmp_path: Path) -> None:
    folder = make_encoder("qwen3", tmp_path / "e")
    save_with_output_layer(AutoModelForCausalLM, folder, tie_word_embeddings=True)
    whole, adapted = as_decoder(folder), as_decoder(folder, ("adapt.rank", 2))
    trained = {
        name
        for name, each in adapted.named_parameters()
        if each.requires_grad and "lora" not in name
    }
    assert trained == {"head.out.bias"}
    assert whole.head.get_parameter("out.weight").requires_grad
    assert not adapted.frozen_names() & {"head.out.weight"}  # kept with the adapters


def test_what_cannot_score_words_is_refused_with_a_way_out(tmp_path: Path) -> None:
    for architecture in (
        "bert",
        "t5",
    ):  # saved without an output layer, and without one of its kind
        with pytest.raises(VariantError, match=r"files have none of the .* choose head = 'mask'"):
            build(make_encoder(architecture, tmp_path / architecture))
    folder = make_encoder("llama", tmp_path / "llama")
    with pytest.raises(VariantError, match="choose head = 'mask'"):
        as_decoder(folder)
    save_with_output_layer(AutoModelForCausalLM, folder)
    as_decoder(folder)
    (folder / "a.safetensors").write_bytes(b"\x08")
    variant = resolve_variant("label-words", encoder="none", encoder_override=str(folder))
    source = EncoderSource("tiny", folder, "identity", has_weights=True)
    with pytest.raises(EncoderError, match=r"a\.safetensors cannot be read"):
        init_head(as_model(folder), variant, source, Tokenizer(), WORDS_OF)
    with pytest.raises(VariantError, match=r"format = 'mask-prompt'"):
        build(tmp_path / "bert", ("format", "typed-punct"))


def as_model(folder: Path) -> RelationModel:
    """Build a decoder whose words are to be read from a folder that was damaged since."""
    damaged, whole = folder / "a.safetensors", folder / "model.safetensors"
    kept = damaged.read_bytes()
    damaged.unlink()
    assert whole.exists()
    try:
        return as_decoder(folder)
    finally:
        damaged.write_bytes(kept)


def test_an_encoder_without_weights_begins_with_a_random_head(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "e")
    variant = resolve_variant("label-words", encoder="none", encoder_override=str(folder))
    source = EncoderSource("tiny", folder, "identity", has_weights=False)
    model = build_model(variant, source, labels=4, vocabulary=9, device_type="cpu")
    before = model.head.get_parameter("out.weight").clone()
    init_head(model, variant, source, None, {})
    assert isinstance(model.head, LabelWordsHead)
    assert torch.equal(before, model.head.get_parameter("out.weight"))


def test_labels_are_tokenised_as_their_words(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_encoder("bert", tmp_path / "e", SENTENCES))
    word = SENTENCES[0].split()[0]
    tokens = tokenize_words(tokenizer, {"a": word, "b": f"{word} {word}"})
    assert tokens[1] == tokens[0] * 2


def test_labels_without_words_of_their_own_are_refused(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_encoder("bert", tmp_path / "e", SENTENCES))
    word = SENTENCES[0].split()[0]
    with pytest.raises(VariantError, match=r"'a' and 'b' have the same words"):
        tokenize_words(tokenizer, {"a": word, "b": word})
    with pytest.raises(VariantError, match=r"knows none of the words 'ᚠᚢ' of label 'a'"):
        tokenize_words(tokenizer, {"a": "ᚠᚢ"})


def test_every_label_of_klue_has_words_of_its_own() -> None:
    from competition.profile import read_bundled

    labels = read_bundled("klue-re").labels
    words = [read_language().words_of(label) for label in labels]
    assert len(set(words)) == len(labels)
    assert not any(word.isascii() for word in words)
    assert read_language("english").words_of("org:top_members/employees") == (
        "org top members employees"
    )
