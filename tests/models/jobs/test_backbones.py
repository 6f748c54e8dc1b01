"""Backbones of every kind through a whole job: fitted, stopped, resumed, predicted with again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM

from competition.errors import EncoderError, TrainingError, VariantError
from competition.folds.kfold import Prepared
from competition.predictions.store import Result, Store
from competition.profile_language import Language
from models.jobs.job import run_job
from models.jobs.plan import plan_jobs
from models.jobs.predict import predict_job
from models.jobs.request import FoldRequest
from models.jobs.spec import STATE_FILE, WEIGHTS_FILE, JobSpec
from models.network.network import build_model
from models.network.tokenizer import find_padding_ids, load_tokenizer
from models.training.control import Watch
from models.training.hardware import fix_randomness_of_kernels
from tests.models.conftest import DECODERS, ENCODERS, make_encoder

Overrides = tuple[tuple[str, Any], ...]

QUICK = {"klue-roberta", "deberta-v3", "t5", "qwen3", "gemma3"}
TINY: Overrides = (
    ("head", "entity-close-last"),
    ("train.batch_rows", 8),
    ("train.epochs", 1),
    ("train.lr", 1e-3),
    ("train.head_dropout", 0.1),
    ("run.precision", "float32"),
)
LORA: Overrides = (("adapt.rank", 2),)


def by_speed(names: Any) -> list[Any]:
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture
def plan(prepared: Prepared, tmp_path: Path) -> Callable[..., JobSpec]:
    """Plan one fold with a tiny backbone, which has read the tiny competition's letters."""
    torch.set_num_threads(1)
    fix_randomness_of_kernels()
    text = prepared.corpus.train.text("sentence").tolist()
    sentences = [*text, "PER ORG LOC @ # * ^ 주어 관계"]

    def make(name: str, *overrides: tuple[str, Any], save_as: str = "one") -> JobSpec:
        folder = tmp_path / name
        if not folder.exists():
            make_encoder(name, folder, sentences)
        wanted = FoldRequest(
            variants=("typed-punct",),
            folds=(0,),
            encoder=str(folder),
            overrides=(*TINY, *overrides),
            save_as=save_as,
        )
        return plan_jobs(prepared, wanted, lambda text: None, threads=1).jobs[0]

    return make


def watch_that_stops(after: int) -> Watch:
    asked: list[int] = []
    return Watch(
        report=lambda at: None,
        should_stop=lambda: asked.append(1) or len(asked) >= after,  # type: ignore[func-returns-value]
        log=lambda text: None,
    )


def result_of(spec: JobSpec) -> Result:
    return Store(spec.store_dir, spec.labels).read(spec.key)


def check_whole_job(plan: Callable[..., JobSpec], name: str, overrides: Overrides) -> JobSpec:
    """Train a fold with a stop and without one; both, and ``predict``, must give the same bytes."""
    stopped = plan(name, *overrides)
    assert not run_job(stopped, watch_that_stops(1)).finished
    assert run_job(stopped, watch_that_stops(10**9)).finished
    whole = plan(name, *overrides, save_as="whole")
    assert run_job(whole, watch_that_stops(10**9)).finished
    result = result_of(stopped)
    assert result.oof_probs.tobytes() == result_of(whole).oof_probs.tobytes()
    assert np.ptp(result.oof_probs, axis=0).max() > 1e-4  # rows are told apart
    return stopped


@pytest.mark.parametrize("name", by_speed([*ENCODERS, *DECODERS]))
def test_a_fold_is_trained_resumed_and_predicted_the_same(
    name: str, plan: Callable[..., JobSpec], prepared: Prepared
) -> None:
    spec = check_whole_job(plan, name, ())
    again = predict_job(spec, prepared.corpus.test, 1)
    np.testing.assert_array_equal(again, result_of(spec).test_probs)


def test_a_job_without_padding_predicts_on_a_machine_that_cannot(
    plan: Callable[..., JobSpec], prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = plan("klue-roberta", ("run.attention", "varlen"))
    assert run_job(spec, watch_that_stops(10**9)).finished
    run = Store(spec.store_dir, spec.labels).read_run(spec.key)
    assert run["encoder_folder"] == spec.variant.encoder
    monkeypatch.setattr("models.network.varlen._find_problem", lambda *given: "needs a kernel")
    again = predict_job(spec, prepared.corpus.test, 1)
    np.testing.assert_allclose(again, result_of(spec).test_probs, atol=1e-5)


@pytest.mark.parametrize("name", by_speed(["bert", "t5", "qwen3", "gemma2", "llama"]))
def test_adapters_alone_are_trained_kept_and_predicted_with(
    name: str, plan: Callable[..., JobSpec], prepared: Prepared
) -> None:
    spec = check_whole_job(plan, name, LORA)
    again = predict_job(spec, prepared.corpus.test, 1)
    np.testing.assert_array_equal(again, result_of(spec).test_probs)
    with safe_open(spec.job_dir / WEIGHTS_FILE, "pt") as kept:
        names = set(kept.keys())
    assert all("lora_" in each or each.startswith("head.") for each in names)
    assert any("lora_B" in each for each in names)
    assert spec.network is not None
    model = build_model(
        spec.variant, spec.network.source, labels=3, vocabulary=9, device_type="cpu"
    )
    trained = [parameter.requires_grad for parameter in model.parameters()]
    assert any(trained)
    assert not all(trained)


@pytest.mark.parametrize("adapters", [(), LORA])
def test_a_decoder_that_says_the_labels_words_is_trained_and_predicted_with(
    adapters: Overrides, plan: Callable[..., JobSpec], prepared: Prepared, tmp_path: Path
) -> None:
    plan("qwen3")  # makes the folder
    AutoModelForCausalLM.from_pretrained(tmp_path / "qwen3").save_pretrained(tmp_path / "qwen3")
    said = (("head", "label-words"), ("format", "instruct"), *adapters)
    spec = check_whole_job(plan, "qwen3", said)
    again = predict_job(spec, prepared.corpus.test, 1)
    np.testing.assert_array_equal(again, result_of(spec).test_probs)
    with safe_open(spec.job_dir / WEIGHTS_FILE, "pt") as kept:
        assert {"head.out.weight", "head.out.bias"} <= set(kept.keys())
        assert not [each for each in kept.keys() if "head.mix" in each]  # noqa: SIM118


def test_words_that_do_not_tell_labels_apart_are_refused_before_any_job(
    plan: Callable[..., JobSpec], prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = dict.fromkeys(prepared.competition.profile.labels, "관계")
    monkeypatch.setattr(Language, "words_of_all", lambda self, labels: words)
    with pytest.raises(VariantError, match="have the same words, '관계'"):
        plan("qwen3", ("head", "label-words"), ("format", "instruct"))


def test_a_state_of_adapters_holds_no_base(plan: Callable[..., JobSpec]) -> None:
    whole, adapted = plan("qwen3"), plan("qwen3", *LORA, save_as="adapted")
    for spec in (whole, adapted):
        assert not run_job(spec, watch_that_stops(1)).finished
    sizes = [(spec.job_dir / STATE_FILE).stat().st_size for spec in (whole, adapted)]
    assert sizes[1] < sizes[0] / 2
    with safe_open(adapted.job_dir / STATE_FILE, "pt") as kept:
        assert not [each for each in kept.keys() if "base_layer" in each]  # noqa: SIM118


def test_what_adapters_are_is_part_of_the_recipe(plan: Callable[..., JobSpec]) -> None:
    prints = {
        plan("qwen3", *overrides, save_as=f"v{at}").fingerprint
        for at, overrides in enumerate(
            [
                (),
                LORA,
                (("adapt.rank", 4),),
                (*LORA, ("adapt.alpha", 8)),
                (("bidirectional", True),),
            ]
        )
    }
    assert len(prints) == 5


def test_adapters_begin_where_another_variants_ended_and_on_no_other_base(
    plan: Callable[..., JobSpec],
) -> None:
    first = plan("qwen3", *LORA)
    assert run_job(first, watch_that_stops(10**9)).finished
    second = plan("qwen3", *LORA, ("start_from", "one"), save_as="two")
    assert second.network is not None
    assert second.network.start is not None
    assert run_job(second, watch_that_stops(10**9)).finished
    assert result_of(second).oof_probs.tobytes() != result_of(first).oof_probs.tobytes()
    other = plan("llama", *LORA, ("start_from", "one"), save_as="three")
    with pytest.raises(TrainingError, match="adapters of another base"):
        run_job(other, watch_that_stops(10**9))


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ((("format", "entity-marker"),), VariantError, "trains no token vectors.*instruct"),
        ((("regularise.adversarial", "fgm"),), VariantError, "regularise.adversarial moves"),
        ((("regularise.ema_decay", 0.9),), VariantError, "regularise.ema_decay copies"),
    ],
)
def test_what_needs_the_whole_backbone_is_refused_with_adapters(
    overrides: Overrides, error: type[Exception], said: str, plan: Callable[..., JobSpec]
) -> None:
    with pytest.raises(error, match=said):
        plan("bert", *LORA, *overrides)


def test_a_layer_that_does_not_exist_is_named_with_those_that_do(
    plan: Callable[..., JobSpec],
) -> None:
    spec = plan("qwen3", ("adapt.targets", ["q_proj", "Wqkv"]))
    with pytest.raises(VariantError, match=r"'Wqkv' is not a linear layer.*down_proj.*q_proj"):
        run_job(spec, watch_that_stops(1))


@pytest.mark.parametrize("rows", [0, 2])
def test_markers_among_the_padding_of_a_table_do_not_begin_alike(
    rows: int,
    plan: Callable[..., JobSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a table was padded to a round number of rows, all of them the same."""
    plan("bert")  # makes the folder
    model = AutoModel.from_pretrained(tmp_path / "bert")
    known = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(known + rows)
    with torch.no_grad():
        model.get_input_embeddings().weight[known:] = 0.5
    model.save_pretrained(tmp_path / "bert")
    spec = plan("bert", ("format", "entity-marker"), save_as="padded")
    seen: list[torch.Tensor] = []

    def fit(network: Any, *given: Any, **options: Any) -> None:
        seen.append(network.encoder.get_input_embeddings().weight.detach().clone())
        raise TrainingError("seen")

    monkeypatch.setattr("models.jobs.network_job.fit_fold", fit)
    with pytest.raises(TrainingError, match="seen"):
        run_job(spec, watch_that_stops(1))
    table, apart = seen[0], torch.pdist(seen[0][:known]).mean()
    assert torch.pdist(table[known : known + 4]).min() > 0.3 * apart
    assert spec.network is not None
    tokenizer = load_tokenizer(spec.network.source, spec.network.new_tokens)
    taken = find_padding_ids(spec.network.source, tokenizer, spec.network.new_tokens)
    assert taken == list(range(known, known + rows))
    monkeypatch.setattr("models.jobs.setup.find_padding_ids", lambda *given: [])
    before = plan("bert", ("format", "entity-marker"), save_as="padded")
    assert (before.fingerprint == spec.fingerprint) == (rows == 0)
    tokenizer.save_pretrained(tmp_path / "bert")  # now it knows the markers
    assert not find_padding_ids(spec.network.source, tokenizer, spec.network.new_tokens)


def test_four_bits_without_what_they_need_are_one_line(plan: Callable[..., JobSpec]) -> None:
    spec = plan("qwen3", ("adapt.quantise", "nf4"))
    with pytest.raises(EncoderError, match=r"needs (bitsandbytes|a CUDA GPU)") as caught:
        run_job(spec, watch_that_stops(1))
    assert "\n" not in str(caught.value)


def test_a_base_has_the_jobs_precision_and_what_is_trained_is_float32(
    plan: Callable[..., JobSpec],
) -> None:
    spec = plan("qwen3", *LORA)
    assert spec.network is not None
    model = build_model(
        spec.variant,
        spec.network.source,
        labels=3,
        vocabulary=9,
        device_type="cpu",
        precision="bf16",
    )
    kinds = {(each.requires_grad, each.dtype) for each in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
