from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competition.errors import TrainingError
from models.data.batches import collate
from models.data.fold_inputs import EpochRows, FoldInputs
from models.jobs.network_job import open_inputs
from models.jobs.spec import JobSpec
from models.network.network import RelationModel, build_model
from models.network.tokenizer import load_tokenizer
from models.parts.losses import cross_entropy
from models.training.checkpoints import read_weights, round_weights, write_weights
from models.training.control import Progress, Watch
from models.training.hardware import build_accelerator, choose_precision, fix_randomness_of_kernels
from models.training.loop import (
    FitReport,
    FitTask,
    build_optimizer,
    fit_fold,
    set_rates,
)
from models.training.predictor import Predictor
from tests.models.conftest import inputs_of

Specs = Callable[..., list[JobSpec]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    fix_randomness_of_kernels()


def fit(spec: JobSpec, watch: Watch, **options: Any) -> tuple[RelationModel, FitReport]:
    assert spec.network is not None
    tokenizer = load_tokenizer(spec.network.source, spec.network.new_tokens)
    torch.manual_seed(1)
    model = build_model(
        spec.variant,
        spec.network.source,
        labels=len(spec.labels),
        vocabulary=len(tokenizer),
        device_type="cpu",
    )
    accelerator = build_accelerator(choose_precision(spec.variant.run.precision))
    inputs = options.pop("inputs", None) or open_inputs(spec, tokenizer)
    report = fit_fold(
        model,
        spec.variant,
        inputs,
        task=FitTask(options.pop("seed", 3), 0, **options),
        accelerator=accelerator,
        watch=watch,
    )
    return model, report


def tiny_model(spec: JobSpec) -> RelationModel:
    assert spec.network is not None
    return build_model(
        spec.variant, spec.network.source, labels=4, vocabulary=400, device_type="cpu"
    )


def same(a: RelationModel, b: RelationModel) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def stop_at(step: int) -> Watch:
    at = 0

    def should_stop() -> bool:
        nonlocal at
        at += 1
        return at >= step

    return Watch(report=lambda progress: None, should_stop=should_stop, log=lambda text: None)


@pytest.mark.parametrize("variant", ["typed-punct", "concat-cls"])
def test_the_network_overfits_eight_rows(
    variant: str, make_specs: Specs, quiet_watch: Watch
) -> None:
    overrides = (
        ("train.epochs", 80),
        ("train.lr", 5e-3),
        ("train.label_smoothing", 0.0),
        ("train.head_dropout", 0.0),
        ("scratch.dropout", 0.0),
    )
    spec = make_specs(variant, *overrides)[0]
    inputs = inputs_of(spec)
    eight = replace(
        inputs,
        train_rows=inputs.train_rows[:8],
        train_label_ids=inputs.train_label_ids[:8],
    )
    model, _ = fit(spec, quiet_watch, inputs=eight)
    predictor = Predictor(model, build_accelerator("float32"), pad_id=0, micro_tokens=100)
    probs = predictor.predict(eight.pool, eight.train_rows)
    assert probs[np.arange(8), eight.train_label_ids].min() > 0.9
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(
    make_specs: Specs, quiet_watch: Watch
) -> None:
    spec = make_specs()[0]
    first, again = fit(spec, quiet_watch)[0], fit(spec, quiet_watch)[0]
    assert same(first, again)
    assert not same(first, fit(spec, quiet_watch, seed=4)[0])


def test_micro_batches_add_up_to_one_step(make_specs: Specs, quiet_watch: Watch) -> None:
    still = (("train.head_dropout", 0.0), ("scratch.dropout", 0.0))
    whole = make_specs("typed-punct", *still)[0]
    split = replace(
        whole, variant=make_specs("typed-punct", *still, ("run.micro_tokens", 60))[0].variant
    )
    assert split.variant.run.micro_tokens != whole.variant.run.micro_tokens
    one, many = fit(whole, quiet_watch)[0], fit(split, quiet_watch)[0]
    for a, b in zip(one.state_dict().values(), many.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-3)


RESUMED = {
    "plain": ("typed-punct", ()),
    "bf16": ("typed-punct", (("run.precision", "bf16"),)),
    "ema": ("ema", ()),
    "masked": ("augment-mask", (("augment.share", 0.7),)),
    "weighted": ("weighted-sampling", ()),
    "difficulty": ("curriculum-difficulty", ()),
}
"""By name, a variant that carries something from step to step or epoch to epoch; overrides."""


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_fit_ends_in_the_same_bits(
    name: str, make_specs: Specs, quiet_watch: Watch, tmp_path: Path
) -> None:
    variant, overrides = RESUMED[name]
    spec = make_specs(variant, *overrides, folds=(0,))[0]
    straight, full = fit(spec, quiet_watch)
    assert full.finished
    path = tmp_path / "state.safetensors"
    for step in (3, 2, 4) if name == "plain" else (5, 4):  # each time a few steps further
        _, part = fit(spec, stop_at(step), state_path=path, fingerprint="f")
        assert not part.finished
    assert (part.first_step, part.steps) == (5, 9)
    resumed, report = fit(spec, quiet_watch, state_path=path, fingerprint="f")
    assert report.first_step == 9
    assert same(straight, resumed)
    inputs = inputs_of(spec)
    first, second = (
        Predictor(model, build_accelerator("float32"), inputs.pad_id, 500).predict(
            inputs.pool, inputs.heldout_rows
        )
        for model in (straight, resumed)
    )
    assert first.tobytes() == second.tobytes()


@dataclass(frozen=True)
class FakeAugmenter:
    """An augmenter that gives each row the next row's label, and replaces all ordinary tokens."""

    asked: list[int] = field(default_factory=list)

    def build(self, epoch: int, plain: EpochRows) -> EpochRows:
        self.asked.append(epoch)
        return replace(
            plain,
            tokens=replace(plain.tokens, tokens=swap_tokens(plain.tokens.tokens)),
            label_ids=np.roll(plain.label_ids, 1),
        )


def swap_tokens(tokens: Any) -> Any:
    """Replace each token except the special ones by its neighbour in the vocabulary."""
    return np.where(tokens < 10, tokens, tokens ^ 1).astype(tokens.dtype)


def test_training_uses_the_rows_of_each_epoch(make_specs: Specs, quiet_watch: Watch) -> None:
    spec = make_specs(folds=(0,))[0]
    inputs, augmenter = inputs_of(spec), FakeAugmenter()
    by_epoch = replace(inputs, augmenter=augmenter)  # type: ignore[arg-type]
    at_once = replace(
        inputs,
        pool=replace(inputs.pool, tokens=swap_tokens(inputs.pool.tokens)),
        train_label_ids=np.roll(inputs.train_label_ids, 1),
    )
    trained = fit(spec, quiet_watch, inputs=by_epoch)[0]
    assert augmenter.asked == [0, 1]
    assert same(trained, fit(spec, quiet_watch, inputs=at_once)[0])
    assert not same(trained, fit(spec, quiet_watch, inputs=inputs)[0])


@dataclass(frozen=True)
class FirstOnly(FoldInputs):
    """Gives the rows of the first epoch in every epoch."""

    def epoch(self, number: int) -> EpochRows:
        return super().epoch(0)


def test_an_augmented_fit_sees_new_rows_each_epoch(make_specs: Specs, quiet_watch: Watch) -> None:
    spec = make_specs("augment-mask", ("augment.share", 0.7), folds=(0,))[0]
    inputs = inputs_of(spec)
    as_they_are = {name: getattr(inputs, name) for name in FoldInputs.__dataclass_fields__}
    trained = fit(spec, quiet_watch, inputs=inputs)[0]
    assert not same(trained, fit(spec, quiet_watch, inputs=replace(inputs, augmenter=None))[0])
    assert not same(trained, fit(spec, quiet_watch, inputs=FirstOnly(**as_they_are))[0])


@pytest.mark.parametrize("is_restricted", [False, True])
def test_probabilities_are_one_softmax_of_the_logits(
    is_restricted: bool, make_specs: Specs, quiet_watch: Watch
) -> None:
    spec = make_specs(folds=(0,))[0]
    model, inputs = fit(spec, quiet_watch)[0], inputs_of(spec)
    with torch.no_grad():
        model.head.out.weight.mul_(20)  # type: ignore[union-attr,operator]
    rows = inputs.heldout_rows
    allowed = np.random.default_rng(0).random((len(rows), 4)) < 0.7 if is_restricted else None
    if allowed is not None:
        allowed[:, 1] = True
    probs = Predictor(model, build_accelerator("float32"), inputs.pad_id, 100).predict(
        inputs.pool, rows, allowed
    )
    model.eval()
    by_hand = []
    for place, row in enumerate(rows.tolist()):
        batch = collate(inputs.pool, np.array([row]), inputs.pad_id)
        with torch.inference_mode():
            logits = model(batch.input_ids, batch.attention_mask, batch.positions)[0]
        shares = np.exp(logits.double().numpy())
        if allowed is not None:
            shares = np.where(allowed[place], shares, 0)
        by_hand.append(shares / shares.sum())
    assert np.ptp(by_hand) > 0.5  # far from where a second softmax would leave them
    np.testing.assert_allclose(probs, by_hand, atol=1e-4)


def test_a_training_state_of_another_fit_or_a_damaged_one_is_not_used(
    make_specs: Specs, quiet_watch: Watch, tmp_path: Path
) -> None:
    spec = make_specs()[0]
    path = tmp_path / "state.safetensors"
    fit(spec, stop_at(2), state_path=path, fingerprint="f")
    assert fit(spec, stop_at(1), state_path=path, fingerprint="g")[1].first_step == 0
    fit(spec, stop_at(2), state_path=path, fingerprint="f")
    path.write_bytes(path.read_bytes()[:-100])
    assert fit(spec, stop_at(1), state_path=path, fingerprint="f")[1].first_step == 0


def test_a_training_state_that_cannot_be_written_raises_and_leaves_no_file(
    make_specs: Specs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.training.checkpoints.save_file", full_disk)
    with pytest.raises(TrainingError, match="is the disk full"):
        fit(make_specs()[0], stop_at(2), state_path=tmp_path / "state.safetensors")
    assert list(tmp_path.glob("*state*")) == []


def test_a_loss_that_is_not_finite_stops_the_fit(make_specs: Specs, quiet_watch: Watch) -> None:
    spec = make_specs("typed-punct", ("train.lr", 1e30), ("train.warmup_frac", 0))[0]
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+\. Lower train\.lr"):
        fit(spec, quiet_watch)


def test_progress_reports_speed_and_time_left(make_specs: Specs) -> None:
    heard: list[Progress] = []
    watch = Watch(report=heard.append, should_stop=lambda: False, log=lambda text: None)
    report = fit(make_specs()[0], watch)[1]
    assert heard[-1].step == heard[-1].steps == report.steps
    assert heard[-1].rows_per_s > 0
    assert math.isclose(heard[-1].eta_s, 0)


def test_learning_rates_fall_with_depth_and_norms_are_not_decayed(make_specs: Specs) -> None:
    spec = make_specs("typed-punct", ("train.layer_decay", 0.5), ("scratch.layers", 3))[0]
    model = tiny_model(spec)
    optimizer = build_optimizer(model, spec.variant.train)
    set_rates(optimizer, spec.variant.train, 1000, 1001)
    name_of = {id(p): name for name, p in model.named_parameters()}
    scale = {
        name_of[id(p)]: group["rate_scale"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(scale) == len(name_of)
    assert scale["head.out.weight"] == 1
    assert scale["encoder.layers.2.mlp.Wo.weight"] == 1
    assert scale["encoder.layers.0.mlp.Wo.weight"] == 0.25
    assert scale["encoder.embeddings.tok_embeddings.weight"] == 0.125
    decayed = {
        name_of[id(p)]
        for group in optimizer.param_groups
        if group["weight_decay"]
        for p in group["params"]
    }
    assert "encoder.layers.0.mlp_norm.weight" not in decayed
    assert "head.out.bias" not in decayed
    assert "head.out.weight" in decayed


def test_smoothed_cross_entropy_is_a_sum_over_rows() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    gold = torch.tensor([0, 2])
    log_probs = torch.log_softmax(logits, dim=1)
    by_hand = -(0.9 * log_probs[[0, 1], gold] + 0.1 * log_probs.mean(dim=1)).sum()
    torch.testing.assert_close(cross_entropy(logits, gold, 0.1), by_hand)


def test_predictions_use_the_weights_as_saved(
    make_specs: Specs, quiet_watch: Watch, tmp_path: Path
) -> None:
    spec = make_specs()[0]
    model, _ = fit(spec, quiet_watch)
    weights = round_weights(model)
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float16}
    write_weights(tmp_path / "model.safetensors", weights, {"a": 1})
    other = fit(spec, stop_at(1))[0]
    assert not same(model, other)
    assert read_weights(tmp_path / "model.safetensors", other) == {"a": 1}
    assert same(model, other)


def test_weights_beyond_16_bits_are_refused(make_specs: Specs) -> None:
    spec = make_specs()[0]
    model = tiny_model(spec)
    with torch.no_grad():
        model.head.out.weight[0, 0] = 1e6  # type: ignore[union-attr,operator]
    with pytest.raises(TrainingError, match="exceed 16-bit range"):
        round_weights(model)
