from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from competition.errors import EncoderError, VariantError
from models.data.batches import collate, tokenize_rows
from models.network.encoder_source import (
    EncoderSource,
    list_bundled,
    recommended_settings,
    resolve_encoder,
)
from models.network.network import RelationModel, build_model, check_backbone, parameter_depth
from models.network.tokenizer import load_tokenizer
from models.parts.formats import FORMATS
from models.pretraining.request import PretrainSettings
from models.variant import resolve_variant
from tests.models.conftest import ARCHITECTURES, SENTENCES, TINY_SCRATCH, make_encoder

SEEN_BY_NONE = (
    "그는 1978년 3월 서울에서 태어나 고등학교를 졸업한 뒤 대학교에서 경제학을 공부하였다.",
    "회사는 지난해 매출이 크게 늘어 올해 새로운 공장을 세울 계획이라고 밝혔다.",
)


def variant(encoder: str, *overrides: tuple[str, Any]) -> Any:
    return resolve_variant(
        "typed-punct", encoder="none", encoder_override=encoder, overrides=overrides, save_as="v"
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_local_folder_of_each_architecture_can_be_loaded_and_used(
    architecture: str, tmp_path: Path, prepared: Any
) -> None:
    folder = make_encoder(architecture, tmp_path / architecture)
    wanted = variant(str(folder), ("format", "typed-marker"))
    source = resolve_encoder(wanted, sentences=(), cache_dir=tmp_path)
    form = FORMATS["typed-marker"]
    tokenizer = load_tokenizer(source, form.new_tokens(["PER", "ORG", "LOC"]))
    model = build_model(wanted, source, labels=4, vocabulary=len(tokenizer), device_type="cpu")
    assert model.encoder.get_input_embeddings().num_embeddings == len(tokenizer)
    rows = tokenize_rows(prepared.corpus.train, form, tokenizer, 256)
    batch = collate(rows, [0, 1, 2], tokenizer.pad_token_id)
    logits = model.eval()(batch.input_ids, batch.attention_mask, batch.positions)
    assert logits.shape == (3, 4)
    alone = collate(rows, [1], tokenizer.pad_token_id)
    one = model(alone.input_ids, alone.attention_mask, alone.positions)
    torch.testing.assert_close(one[0], logits[1], atol=1e-5, rtol=1e-4)  # padding is not read
    depths = {parameter_depth(name, 2) for name, _ in model.named_parameters()}
    assert depths == {0, 1, 2, 3}


def test_weights_in_half_precision_are_trained_in_float32(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = make_encoder("roberta", tmp_path / "r")
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    source = resolve_encoder(variant(str(folder)), sentences=(), cache_dir=tmp_path)
    model = build_model(variant(str(folder)), source, labels=4, vocabulary=9, device_type="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_marker_tokens_are_whole_and_only_added_if_needed(tmp_path: Path) -> None:
    source = EncoderSource("t", make_encoder("bert", tmp_path), "i", has_weights=True)
    plain, marked = load_tokenizer(source), load_tokenizer(source, ("[SUBJ]", "[/SUBJ]"))
    assert len(marked) == len(plain) + 2
    assert marked.tokenize("가[SUBJ]나")[1] == "[SUBJ]"


def test_scratch_is_created_once_and_deterministically(tmp_path: Path) -> None:
    wanted = variant("scratch", *TINY_SCRATCH)
    here = resolve_encoder(wanted, sentences=SENTENCES, cache_dir=tmp_path / "a", reserved=("PER",))
    again = resolve_encoder(
        wanted, sentences=SENTENCES, cache_dir=tmp_path / "a", reserved=("PER",)
    )
    there = resolve_encoder(
        wanted, sentences=SENTENCES, cache_dir=tmp_path / "b", reserved=("PER",)
    )
    assert here == again
    assert here.identity == there.identity
    other = resolve_encoder(wanted, sentences=SENTENCES[:2], cache_dir=tmp_path / "a")
    assert other.identity != here.identity
    tokenizer = load_tokenizer(here)
    assert tokenizer.tokenize("PER")[0] == "PER"
    assert not tokenizer("비틀즈의 조지")["input_ids"].count(tokenizer.unk_token_id)


def test_identity_depends_on_content_not_on_location(tmp_path: Path) -> None:
    first = make_encoder("bert", tmp_path / "one")
    second = make_encoder("bert", tmp_path / "two")
    identities = [
        resolve_encoder(variant(str(f)), sentences=(), cache_dir=tmp_path).identity
        for f in (first, second)
    ]
    assert identities[0] == identities[1]
    (second / "config.json").write_text((second / "config.json").read_text() + "\n")
    changed = resolve_encoder(variant(str(second)), sentences=(), cache_dir=tmp_path)
    assert changed.identity != identities[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./missing", "does not exist"),
        ("klue/roberta-large", "the bundled --encoder ko-mini"),
        ("no such name", "use --encoder FOLDER"),
    ],
)
def test_an_unreachable_encoder_gives_a_one_line_message(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(EncoderError, match=said) as caught:
        resolve_encoder(variant(name), sentences=(), cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_the_bundled_encoder_is_found_by_its_name(tmp_path: Path) -> None:
    assert list_bundled() == ["ko-mini"]
    source = resolve_encoder(variant("ko-mini"), sentences=(), cache_dir=tmp_path / "unused")
    assert source.has_weights
    assert not (tmp_path / "unused").exists()
    assert sum(path.stat().st_size for path in source.path.iterdir()) < 32 * 2**20
    card = (source.path / "README.md").read_text()
    assert "CC BY-SA 4.0" in card
    assert "no line equal to a test sentence was seen" in card
    by_folder = resolve_encoder(variant(str(source.path)), sentences=(), cache_dir=tmp_path)
    assert by_folder.identity == source.identity


def test_the_bundled_encoder_knows_korean(tmp_path: Path) -> None:
    """It predicts masked words of unseen sentences far better than word frequency does."""
    from models.pretraining.masked_model import build_masked_model

    source = resolve_encoder(variant("ko-mini"), sentences=(), cache_dir=tmp_path)
    tokenizer = load_tokenizer(source)
    model = build_masked_model(
        source, PretrainSettings(), vocabulary=len(tokenizer), attention="eager", say=print
    ).eval()
    right = total = 0
    with torch.inference_mode():
        for sentence in SEEN_BY_NONE:
            ids = torch.tensor([tokenizer(sentence)["input_ids"]])
            for place in range(1, ids.shape[1] - 1):
                hidden = ids.clone()
                hidden[0, place] = tokenizer.mask_token_id
                right += int(model(hidden, torch.tensor([place])).argmax() == ids[0, place])
                total += 1
    assert right / total > 0.25, (right, total)


@pytest.mark.parametrize(
    ("facts", "rate"),
    [
        ({"size": "mini", "from": "scratch"}, 1e-3),
        ({"size": None, "from": "ko-mini"}, 1e-3),
        ({"size": "small", "from": "scratch"}, None),
        ({"of": "another tool"}, None),
    ],
)
def test_recommended_settings_follow_the_kind_of_a_pretrained_folder(
    facts: dict[str, Any], rate: float | None, tmp_path: Path
) -> None:
    (tmp_path / "pretraining.json").write_text(json.dumps(facts))
    assert recommended_settings(str(tmp_path)).get("train.lr") == rate
    assert recommended_settings("klue/roberta-large") == {}
    assert recommended_settings("ko-mini")["train.lr"] == 1e-3


def test_missing_weights_are_refused_and_loading_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_encoder("bert", tmp_path / "e")
    wanted = variant(str(folder))
    source = resolve_encoder(wanted, sentences=(), cache_dir=tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "cls.bias": torch.zeros(3)}, folder / "model.safetensors")
    capfd.readouterr()
    build_model(wanted, source, labels=4, vocabulary=9, device_type="cpu")
    assert capfd.readouterr() == ("", "")
    name = next(name for name in weights if name.endswith("encoder.layer.1.output.dense.weight"))
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"has no weights for .*layer\.1\.output\.dense\.weight"):
        build_model(wanted, source, labels=4, vocabulary=9, device_type="cpu")


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    folder = make_encoder("roberta", tmp_path / "r")
    wanted = variant(str(folder), ("max_tokens", 512))
    source = resolve_encoder(wanted, sentences=(), cache_dir=tmp_path)
    with pytest.raises(EncoderError, match="supports at most 511 tokens"):
        build_model(wanted, source, labels=4, vocabulary=9, device_type="cpu")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = make_encoder("bert", tmp_path / "e")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="has no weights"):
        resolve_encoder(variant(str(folder)), sentences=(), cache_dir=tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(EncoderError, match=r"no config\.json"):
        resolve_encoder(variant(str(folder)), sentences=(), cache_dir=tmp_path)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "t5", "bart", "deberta-v2", "phi"])
def test_the_encoders_own_dropout_can_be_set(architecture: str, tmp_path: Path) -> None:
    folder = make_encoder(architecture, tmp_path / "e")
    source = EncoderSource("tiny", folder, "identity", has_weights=True)

    def build(rate: float | None) -> RelationModel:
        rates = (("train.encoder_dropout", rate),) if rate is not None else ()
        wanted = variant(str(folder), *rates, ("head", "entity-close-last"))
        return build_model(wanted, source, labels=4, vocabulary=20, device_type="cpu").train()

    def passes(rate: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        model = build(rate)
        ids = torch.arange(5, 17).reshape(2, 6)
        first, second = (
            model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            for _ in range(2)
        )
        return first, second

    assert torch.equal(*passes(0.0))
    assert not torch.equal(*passes(0.3))
    published = 0.0 if architecture in {"modernbert", "phi"} else 0.1
    assert torch.equal(*passes(None)) == (published == 0.0)
    rates = {each.p for each in build(0.3).encoder.modules() if isinstance(each, torch.nn.Dropout)}
    assert rates <= {0.3}


def test_a_dropout_that_a_backbone_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    source = EncoderSource("tiny", tmp_path, "identity", has_weights=False)
    plain = (("head", "entity-close-last"),)
    check_backbone(variant("none", *plain), source)
    with pytest.raises(VariantError, match=r"train\.encoder_dropout has no effect on tiny"):
        check_backbone(variant("none", *plain, ("train.encoder_dropout", 0.1)), source)


def _is_checkpointing(encoder: Any) -> bool:
    """Ask under either name: transformers renamed the property in 5.x."""
    if hasattr(encoder, "is_activation_checkpointing"):
        return bool(encoder.is_activation_checkpointing)
    return bool(encoder.is_gradient_checkpointing)


@pytest.mark.parametrize("roles", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpointing_gives_the_same_gradients(
    architecture: str, roles: bool, tmp_path: Path, prepared: Any
) -> None:
    folder = make_encoder(architecture, tmp_path / "e")
    source = EncoderSource("tiny", folder, "identity", has_weights=True)
    tokenizer = load_tokenizer(source)
    rows = tokenize_rows(prepared.corpus.train, FORMATS["typed-punct"], tokenizer, 256)
    batch = collate(rows, [0, 1, 2], tokenizer.pad_token_id)

    def take_gradients(is_checkpointed: bool) -> tuple[bool, torch.Tensor, dict[str, Any]]:
        wanted = variant(
            str(folder),
            ("run.gradient_checkpointing", is_checkpointed),
            ("entity_embedding", roles),
            ("train.encoder_dropout", 0.1),
        )
        torch.manual_seed(0)
        model = build_model(
            wanted, source, labels=4, vocabulary=len(tokenizer), device_type="cpu"
        ).train()
        torch.manual_seed(1)
        model(batch.input_ids, batch.attention_mask, batch.positions).square().sum().backward()
        with torch.inference_mode():
            probs = model.eval()(batch.input_ids, batch.attention_mask, batch.positions)
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return _is_checkpointing(model.encoder), probs, grads

    (is_on, probs, grads), (_, plain_probs, plain) = take_gradients(True), take_gradients(False)
    assert is_on
    assert grads.keys() == plain.keys()
    assert all(torch.equal(grad, plain[name]) for name, grad in grads.items())
    assert torch.equal(probs, plain_probs)
