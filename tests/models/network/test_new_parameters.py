from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from models.network.encoder_source import EncoderSource
from models.network.label_words import init_head
from models.network.network import RelationModel, build_model
from models.network.new_parameters import draw_new_tokens, draw_padding
from models.parts.heads import MaskHead
from models.variant import resolve_variant
from tests.models.conftest import ARCHITECTURES, make_encoder


def build(folder: Path, *, new_tokens: int = 0) -> RelationModel:
    vocabulary = AutoConfig.from_pretrained(folder).vocab_size + new_tokens
    variant = resolve_variant("mask-prompt", encoder="none", encoder_override=str(folder))
    source = EncoderSource("tiny", folder, "identity", has_weights=True)
    model = build_model(variant, source, labels=4, vocabulary=vocabulary, device_type="cpu")
    init_head(model, variant, source, None, {})
    return model


def test_new_tokens_have_the_spread_of_known_tokens_and_differ() -> None:
    torch.manual_seed(0)
    table = torch.randn(2000, 16) * torch.linspace(0.1, 2, 16) + 3
    before = table.clone()
    draw_new_tokens(table, 1000)
    assert torch.equal(table[:1000], before[:1000])
    torch.testing.assert_close(table[1000:].mean(0), table[:1000].mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(table[1000:].std(0), table[:1000].std(0), atol=0, rtol=0.15)


def test_new_tokens_among_padding_have_the_spread_of_known_tokens() -> None:
    torch.manual_seed(0)
    table = torch.randn(2000, 16) * torch.linspace(0.1, 2, 16) + 3
    table[1000:] = 0.0
    before, ids = table.clone(), list(range(1000, 1900))
    draw_padding(table, ids)
    assert torch.equal(table[:1000], before[:1000])
    assert not table[1900:].any()
    torch.testing.assert_close(table[ids].mean(0), table[:1000].mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(table[ids].std(0), table[:1000].std(0), atol=0, rtol=0.15)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_new_tokens_are_initialised_differently(architecture: str, tmp_path: Path) -> None:
    model = build(make_encoder(architecture, tmp_path / "e"), new_tokens=4)
    table = model.encoder.get_input_embeddings().weight
    known, new = table[:-4], table[-4:]
    assert torch.pdist(new).min() > 0.3 * torch.pdist(known).mean()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_mask_head_is_initialised_from_the_masked_language_head(
    architecture: str, tmp_path: Path
) -> None:
    folder = make_encoder(architecture, tmp_path / "e")
    drawn = [build(folder).head for _ in range(2)]
    assert all(isinstance(head, MaskHead) for head in drawn)
    assert not torch.equal(drawn[0].mix.weight, drawn[1].mix.weight)  # the folder has none
    masked = AutoModelForMaskedLM.from_pretrained(folder)
    masked.save_pretrained(folder)
    (layer,) = [
        module
        for name, module in masked.named_modules()
        if name.endswith("dense") and ".layer" not in name
    ]
    head = build(folder).head
    fits = layer.weight.shape == head.mix.weight.shape  # ELECTRA's is as wide as its embeddings
    assert fits == (architecture != "electra")
    assert torch.equal(head.mix.weight, layer.weight) == fits
