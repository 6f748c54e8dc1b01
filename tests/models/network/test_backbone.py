"""Backbones of every kind that people use, tiny: loaded, masked, framed, or refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, MODEL_MAPPING

from competition.errors import EncoderError, VariantError
from competition.folds.kfold import Prepared
from models.data.batches import Batch, collate, tokenize_rows
from models.network.backbone import choose_attention, relax_attention
from models.network.config import check_length, count_positions, name_kind, read_config
from models.network.encoder_source import EncoderSource, resolve_encoder
from models.network.network import (
    RelationModel,
    build_model,
    check_backbone,
    check_first_token,
    enable_gradient_checkpointing,
    parameter_depth,
)
from models.network.tokenizer import load_tokenizer
from models.network.varlen import check_varlen
from models.parts.formats import FORMATS
from models.variant import Variant, resolve_variant
from tests.models.conftest import BACKBONES, DECODERS, ENCODERS, make_encoder

LABELS = 4


@pytest.fixture(scope="module", params=BACKBONES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_encoder(request.param, tmp_path_factory.mktemp(request.param))
    return resolve_encoder(variant_of(str(folder)), sentences=(), cache_dir=folder)


def variant_of(encoder: str, *overrides: tuple[str, Any]) -> Variant:
    return resolve_variant(
        "typed-punct",
        encoder="none",
        encoder_override=encoder,
        overrides=(("head", "entity-close-last"), *overrides),
        save_as="v",
    )


def build(source: EncoderSource, *overrides: tuple[str, Any]) -> RelationModel:
    torch.manual_seed(1)
    wanted = variant_of(str(source.path), *overrides)
    vocabulary = len(load_tokenizer(source))
    return build_model(
        wanted, source, labels=LABELS, vocabulary=vocabulary, device_type="cpu"
    ).eval()


def batch_of(prepared: Prepared, source: EncoderSource, rows: list[int]) -> Batch:
    tokenizer = load_tokenizer(source)
    tokens = tokenize_rows(prepared.corpus.train, FORMATS["typed-punct"], tokenizer, 256)
    return collate(tokens, rows, tokenizer.pad_token_id, packs=True)


def logits_of(model: RelationModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(*batch.inputs)
    return logits


def test_padding_is_not_read_and_every_layer_has_its_depth(
    source: EncoderSource, prepared: Prepared
) -> None:
    model = build(source)
    together = logits_of(model, batch_of(prepared, source, [0, 1, 2]))
    for row in range(3):
        alone = logits_of(model, batch_of(prepared, source, [row]))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)
    assert together.std(dim=0).min() > 0
    depths = {name: parameter_depth(name, 2) for name, _ in model.named_parameters()}
    assert set(depths.values()) == {0, 1, 2, 3}
    words = model.encoder.get_input_embeddings().weight
    assert {depths[name] for name, each in model.named_parameters() if each is words} == {0}


def test_entity_embedding_begins_without_effect_and_then_has_one(
    source: EncoderSource, prepared: Prepared
) -> None:
    batch = batch_of(prepared, source, [0, 1])
    plain, roles = build(source), build(source, ("entity_embedding", True))
    assert roles.roles is not None
    torch.testing.assert_close(logits_of(roles, batch), logits_of(plain, batch))
    with torch.no_grad():
        roles.roles.vectors.weight[1:].normal_()
    assert (logits_of(roles, batch) - logits_of(plain, batch)).abs().max() > 1e-4


def test_a_padding_side_of_the_tokenizers_own_changes_nothing(
    source: EncoderSource, prepared: Prepared, tmp_path: Path
) -> None:
    before = batch_of(prepared, source, [0, 1])
    for file in source.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**told, "padding_side": "left"}))
    moved = EncoderSource(source.name, tmp_path, source.identity, has_weights=True)
    assert torch.equal(batch_of(prepared, moved, [0, 1]).input_ids, before.input_ids)


SETTINGS = {
    "roberta": ("entity_embedding",),
    "qwen3": ("entity_embedding", "bidirectional"),
    "gemma3": ("bidirectional",),
}
OF_THEIR_OWN_KIND = {"deberta-v2", "deberta-v3", "t5", "bart", "gemma2"}


def narrow(source: EncoderSource, folder: Path) -> EncoderSource:
    """Let layers of a backbone that see only what is near see less than a row, if it has such."""
    for file in source.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    told = json.loads((folder / "config.json").read_text())
    near = {name: 8 for name in ("local_attention", "sliding_window") if told.get(name)}
    (folder / "config.json").write_text(json.dumps({**told, **near}))
    return EncoderSource(source.name, folder, source.identity, has_weights=True)


def test_a_soft_cap_is_never_left_to_a_kernel_without_one(tmp_path: Path) -> None:
    wanted = variant_of("none")
    for name, kernel in (("gemma2", "eager"), ("gemma3", "sdpa")):
        source = EncoderSource(name, make_encoder(name, tmp_path / name), "i", has_weights=True)
        config = read_config(source)

        class Network:
            _supports_sdpa = True  # as transformers 5.17 says of Gemma 2

        assert choose_attention(wanted, "cuda", Network, config) == kernel


def is_modernbert_of_its_own_kind() -> bool:
    """Ask transformers, whose first 5.x versions did without the common interface there."""
    from transformers import ModernBertModel

    return not getattr(ModernBertModel, "_supports_attention_backend", False)


def test_rows_without_padding_give_the_same_logits_and_gradients(
    source: EncoderSource, prepared: Prepared, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["source"]
    near = narrow(source, tmp_path)
    overrides = [(setting, True) for setting in SETTINGS.get(name, ())]
    if name in OF_THEIR_OWN_KIND or (name == "modernbert" and is_modernbert_of_its_own_kind()):
        with pytest.raises(
            VariantError, match=r"attention is of its own kind; leave run\.attention"
        ):
            build(near, ("run.attention", "varlen"), *overrides)
        return
    batch = batch_of(prepared, near, [0, 1, 2, 5])
    assert (batch.attention_mask == 0).any()

    def run(attention: str) -> tuple[Tensor, Tensor]:
        model = build(near, ("run.attention", attention), *overrides)
        logits = model(*batch.inputs)
        logits.square().sum().backward()
        grad = model.encoder.get_input_embeddings().weight.grad
        assert grad is not None
        return logits, grad

    (packed, packed_grad), (padded, padded_grad) = run("varlen"), run("eager")
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(packed_grad, padded_grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "settings", "packs"),
    [
        ("mobilebert", {}, False),
        ("mobilebert", {"trigram_input": False}, True),
        ("lfm2", {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}, False),
        ("minimax", {}, False),
        ("granitemoehybrid", {}, False),
    ],
)
def test_layers_that_would_mix_neighbouring_rows_need_padding(
    kind: str, settings: dict[str, Any], packs: bool
) -> None:
    config = CONFIG_MAPPING[kind](**settings)
    network = MODEL_MAPPING[type(config)]
    if packs:
        check_varlen(config, network, device_type="cpu", precision="float32")
        return
    with pytest.raises(VariantError, match=r"rows that follow one another would mix; leave run\."):
        check_varlen(config, network, device_type="cpu", precision="float32")


def test_a_network_trained_without_padding_predicts_where_there_is_no_kernel(
    tmp_path: Path,
) -> None:
    source = EncoderSource("bert", make_encoder("bert", tmp_path), "i", has_weights=True)
    trained = variant_of(str(tmp_path), ("run.attention", "varlen"))
    here = {"device_type": "cpu", "precision": "float32"}
    assert relax_attention(trained, source, **here) is trained
    relaxed = relax_attention(trained, source, device_type="cuda", precision="float32")
    assert relaxed == variant_of(str(tmp_path))


def first_state_moves(model: RelationModel, batch: Batch) -> bool:
    """Say whether the first token's state changes when the last token does."""
    changed = batch.input_ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % model.encoder.get_input_embeddings().num_embeddings

    def first(ids: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = model.head.register_forward_hook(lambda module, given, out: seen.append(given[0]))
        logits_of(model, replace(batch, input_ids=ids))
        hook.remove()
        return seen[0][0, 0]

    return bool((first(batch.input_ids) - first(changed)).abs().max() > 1e-6)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_decoder_reads_both_ways_only_if_requested(
    name: str, attention: str, tmp_path: Path, prepared: Prepared
) -> None:
    if (name, attention) == ("gemma2", "sdpa"):
        pytest.skip("the fused kernel has no soft cap; choose_attention takes the plain one")
    folder = make_encoder(name, tmp_path)
    source = EncoderSource(name, folder, "i", has_weights=True)
    assert name_kind(read_config(source)) == "decoder"
    batch = batch_of(prepared, source, [0])
    kernel = ("run.attention", attention)
    causal, both = build(source, kernel), build(source, kernel, ("bidirectional", True))
    assert not first_state_moves(causal, batch)
    assert first_state_moves(both, batch)
    together = logits_of(both, batch_of(prepared, source, [0, 1]))
    torch.testing.assert_close(logits_of(both, batch)[0], together[0], atol=1e-5, rtol=1e-4)


SEES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "depth": 1}
SEES |= {"intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}


@pytest.mark.parametrize(
    ("kind", "text", "vision"),
    [("qwen3_vl", "qwen3_vl_text", "qwen3_vl_vision"), ("mistral3", "ministral3", "pixtral")],
)
def test_a_decoder_that_also_sees_images_reads_from_left_to_right(
    kind: str, text: str, vision: str, tmp_path: Path, prepared: Prepared
) -> None:
    make_encoder("qwen3", tmp_path)  # for its tokenizer, which has no [CLS]
    told = json.loads((tmp_path / "config.json").read_text())
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes += ("intermediate_size", "vocab_size", "head_dim")
    config = CONFIG_MAPPING[kind](
        text_config={**{name: told[name] for name in sizes}, "model_type": text},
        vision_config={**SEES, "model_type": vision},
    )
    torch.manual_seed(0)
    MODEL_MAPPING[type(config)](config).save_pretrained(tmp_path)
    source = EncoderSource(kind, tmp_path, "i", has_weights=True)
    batch = batch_of(prepared, source, [0, 1])
    models = {name: build(source, ("run.attention", name)) for name in ("eager", "sdpa", "varlen")}
    for model in models.values():
        torch.testing.assert_close(
            logits_of(model, batch), logits_of(models["eager"], batch), atol=1e-5, rtol=1e-4
        )
        assert not first_state_moves(model, batch_of(prepared, source, [0]))
    with pytest.raises(VariantError, match="reads from left to right"):
        check_backbone(variant_of(str(tmp_path), ("head", "entity-start")), source)


def test_segments_are_framed_as_each_kind_expects(tmp_path: Path, prepared: Prepared) -> None:
    wanted = {
        "bert": ("[CLS]", "[SEP]", "[SEP]"),
        "t5": (None, "</s>", "</s>"),
        "llama": ("<bos>", "Ċ", None),
        "qwen2": (None, "Ċ", None),
    }
    for name, (first, between, last) in wanted.items():
        source = EncoderSource(name, make_encoder(name, tmp_path / name), "i", has_weights=True)
        tokenizer = load_tokenizer(source)
        assert tokenizer.pad_token_id is not None
        row = prepared.corpus.train.take([0])
        ids = tokenize_rows(row, FORMATS["query"], tokenizer, 256).row_tokens(0).tolist()
        tokens = tokenizer.convert_ids_to_tokens(ids)
        assert (tokens[0] == first) == (first is not None)
        assert tokens.count(between) == (1 if last is None else 2)
        assert (tokens[-1] == last) == (last is not None)


def test_only_the_encoder_of_an_encoder_decoder_is_kept(tmp_path: Path) -> None:
    for name in ("t5", "bart"):
        model = build(EncoderSource(name, make_encoder(name, tmp_path / name), "i", True))
        assert not any("decoder" in parameter for parameter, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        (
            "qwen3",
            (("head", "entity-start"),),
            "reads from left to right.*or --set bidirectional=true",
        ),
        ("qwen3", (("head", "cls"),), "reads from left to right.*'entity-close-last'$"),
        ("bert", (("bidirectional", True),), "reads both ways already"),
    ],
)
def test_a_head_that_a_backbone_does_not_suit_is_refused(
    name: str, overrides: Any, said: str, tmp_path: Path
) -> None:
    source = EncoderSource(name, make_encoder(name, tmp_path), "i", has_weights=True)
    with pytest.raises(VariantError, match=said):
        build(source, *overrides)


@pytest.mark.parametrize(
    ("kind", "settings"), [("opt", {}), ("biogpt", {}), ("bloom", {}), ("falcon", {"alibi": True})]
)
def test_a_decoder_that_counts_positions_from_the_mask_reads_one_way(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    CONFIG_MAPPING[kind](**settings).save_pretrained(tmp_path)
    source = EncoderSource(kind, tmp_path, "i", has_weights=True)
    check_backbone(variant_of(str(tmp_path), ("head", "entity-close-last")), source)
    wanted = variant_of(str(tmp_path), ("bidirectional", True))
    with pytest.raises(VariantError, match=f"a {kind} counts positions from the mask"):
        check_backbone(wanted, source)


@pytest.mark.parametrize("lacks", ["pooler", "encoder.embedding_hidden_mapping_in"])
def test_weights_of_a_pooling_layer_alone_may_be_absent(
    lacks: str, tmp_path: Path, prepared: Prepared
) -> None:
    """As where ALBERT was saved as a masked-language model."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    config = CONFIG_MAPPING["albert"](**sizes, vocab_size=400, embedding_size=16)
    make_encoder("bert", tmp_path)  # for its tokenizer
    whole = MODEL_MAPPING[type(config)](config)
    kept = {name: each for name, each in whole.state_dict().items() if lacks not in name}
    whole.save_pretrained(tmp_path, state_dict=kept)
    source = EncoderSource("albert", tmp_path, "i", has_weights=True)
    if lacks != "pooler":
        with pytest.raises(EncoderError, match=f"has no weights for {lacks}.bias, {lacks}.weight$"):
            build(source)
        return
    logits = logits_of(build(source), batch_of(prepared, source, [0, 1, 2]))
    assert logits.std(dim=0).min() > 0


@pytest.mark.parametrize("kind", ["bert", "ibert", "longformer", "luke", "mpnet", "roberta"])
def test_as_many_tokens_as_a_backbone_has_positions_can_be_read(kind: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    sizes |= {"intermediate_size": 16, "max_position_embeddings": 24, "pad_token_id": 1}
    own = {"longformer": {"attention_window": [8]}, "luke": {"entity_vocab_size": 9}}
    config = CONFIG_MAPPING[kind](**sizes, **own.get(kind, {}))
    network = MODEL_MAPPING[type(config)](config).eval()
    most = count_positions(config)
    assert most is not None
    with torch.no_grad():
        network(input_ids=torch.full((1, most), 7))
        with pytest.raises((IndexError, RuntimeError)):
            network(input_ids=torch.full((1, most + 1), 7))
    source = EncoderSource(kind, tmp_path, "i", has_weights=True)
    with pytest.raises(EncoderError, match=f"at most {most} tokens.*--set max_tokens={most}"):
        check_length(source, config, most + 1, "max_tokens")


def test_a_network_that_cannot_compute_layers_twice_is_one_line() -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    config = CONFIG_MAPPING["albert"](**sizes, vocab_size=9, embedding_size=16)
    network = MODEL_MAPPING[type(config)](config)
    with pytest.raises(EncoderError, match=r"a albert cannot be computed twice .* leave out run\."):
        enable_gradient_checkpointing(network)


def test_xlnet_has_no_limit_of_tokens(tmp_path: Path) -> None:
    config = CONFIG_MAPPING["xlnet"]()
    assert name_kind(config) == "encoder"
    check_length(EncoderSource("xlnet", tmp_path, "i", has_weights=True), config, 4096, "max")


def test_a_head_that_reads_a_first_token_needs_one(tmp_path: Path) -> None:
    source = EncoderSource("t5", make_encoder("t5", tmp_path), "i", has_weights=True)
    wanted = variant_of(str(tmp_path), ("head", "rbert"))
    with pytest.raises(VariantError, match="reads a token in front of the row"):
        check_first_token(wanted, source, load_tokenizer(source))


def test_every_named_kind_is_tried() -> None:
    assert {"deberta-v3", "modernbert", "xlm-roberta-xl", "t5", "klue-roberta"} <= ENCODERS.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "config.json cannot be read: it holds no JSON object"),
        ("{", "config.json cannot be read"),
        ('{"model_type": "x", "auto_map": {"AutoModel": "m.X"}}', "code of its own .*never run"),
        ('{"model_type": "x"}', "knows no network of kind 'x'"),
        ('{"model_type": "bert", "hidden_size": "wide"}', "config.json cannot be used"),
    ],
)
def test_a_config_that_cannot_be_used_is_said_in_one_line(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(EncoderError, match=said) as caught:
        read_config(EncoderSource("e", tmp_path, "i", has_weights=True))
    assert "\n" not in str(caught.value)


def test_a_config_that_an_older_library_rejects_is_read_in_two_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As transformers 5.9 rejects rotary parameters for kinds of layer that there are none of."""
    source = resolve_encoder(variant_of("ko-mini"), sentences=(), cache_dir=Path("unused"))
    direct = read_config(source).to_dict()

    def reject(*arguments: Any, **options: Any) -> Any:
        raise TypeError("Field 'rope_parameters' does not match")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", reject)
    in_steps = read_config(source).to_dict()
    assert {**in_steps, "_name_or_path": ""} == {**direct, "_name_or_path": ""}
