"""Memory: the estimate against counted bytes, the plan against what is free, and a full device."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from competition.errors import DeviceError
from competition.predictions.store import Store
from models.jobs.job import run_job
from models.jobs.spec import JobSpec
from models.network.network import RelationModel
from models.training.control import Watch
from models.training.hardware import count_sharers, limit_gpu_memory
from models.training.memory import (
    GIB,
    MemoryNeed,
    MemoryPlan,
    divide_need,
    estimate_need,
    measure_free,
    plan_memory,
)

NEED = MemoryNeed(
    weights=GIB,
    gradients=GIB,
    optimizer=2 * GIB,
    copies=0,
    per_token=2**20,
    per_token_checkpointed=2**18,
)
ASKED = {"micro_tokens": 8192, "longest": 200, "checkpointing": False}
CONFIG = SimpleNamespace(
    hidden_size=8,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    _attn_implementation="sdpa",
)


def plan(free: int | None, **asked: Any) -> MemoryPlan:
    return plan_memory(NEED, free=free, **{**ASKED, **asked})


def test_a_plan_takes_what_fits_and_no_more_than_requested() -> None:
    assert plan(None) == MemoryPlan(8192, checkpointing=False)
    assert plan(100 * GIB) == MemoryPlan(8192, checkpointing=False)
    assert plan(100 * GIB, checkpointing=True) == MemoryPlan(8192, checkpointing=True)
    tight = plan(5 * GIB)  # 0.9 of it less 4 GiB: half a GiB of tokens
    assert tight == MemoryPlan(512, checkpointing=False)
    assert NEED.fixed + tight.micro_tokens * NEED.per_token <= 0.9 * 5 * GIB


def test_layers_are_computed_twice_only_where_the_longest_row_does_not_fit_else() -> None:
    free = int((4 * GIB + 100 * 2**20 + 2**17) / 0.9)
    assert plan(free, longest=90) == MemoryPlan(100, checkpointing=False)
    assert plan(free, longest=200) == MemoryPlan(400, checkpointing=True)
    with pytest.raises(DeviceError, match=r"4\.6 GiB that are free.*adapt\.rank=16.*nf4"):
        plan(free, longest=500)


def test_an_estimate_counts_what_is_trained_and_what_is_only_there() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    whole = estimate_need(model, CONFIG, precision="float32", longest=10)
    assert (whole.weights, whole.gradients, whole.optimizer) == (4 * 90, 4 * 90, 8 * 90)
    assert whole.copies == 0
    model[0].requires_grad_(False).to(torch.bfloat16)
    adapted = estimate_need(model, CONFIG, precision="bf16", longest=10, averages=True)
    assert adapted.weights == 2 * (2 * 72 + 4 * 18)
    assert (adapted.gradients, adapted.optimizer, adapted.copies) == (4 * 18, 8 * 18, 2 * 16)
    assert adapted.per_token < whole.per_token
    plain = SimpleNamespace(**{**vars(CONFIG), "_attn_implementation": "eager"})
    assert (
        estimate_need(model, plain, precision="bf16", longest=500).per_token
        > 2 * estimate_need(model, plain, precision="bf16", longest=10).per_token
    )


@pytest.mark.parametrize(
    "told", [{"_attn_implementation": "varlen"}, {"num_attention_heads": None}]
)
def test_no_scores_are_counted_where_none_are_kept(told: dict[str, Any]) -> None:
    model = torch.nn.Linear(8, 8)
    given = {**vars(CONFIG), "_attn_implementation": "eager", **told}
    config = SimpleNamespace(**{name: each for name, each in given.items() if each is not None})
    fused, here = (
        estimate_need(model, each, precision="bf16", longest=500) for each in (CONFIG, config)
    )
    assert here == fused


def fit(spec: JobSpec, said: list[str]) -> Any:
    watch = Watch(report=lambda at: None, should_stop=lambda: False, log=said.append)
    assert run_job(spec, watch).finished
    return Store(spec.store_dir, spec.labels).read(spec.key).oof_probs


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let training, or prediction, fail as a GPU does, over a number of tokens at once."""

    def limit(tokens: int, *, training: bool = True) -> None:
        forward = RelationModel.forward

        def checked(self: Any, input_ids: Any, *others: Any) -> Any:
            if self.training == training and input_ids.numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return forward(self, input_ids, *others)

        monkeypatch.setattr(RelationModel, "forward", checked)

    return limit


def test_a_step_that_does_not_fit_goes_on_in_smaller_parts(
    make_specs: Callable[..., list[JobSpec]], small_device: Callable[..., None]
) -> None:
    exact = (("train.head_dropout", 0.0), ("scratch.dropout", 0.0))
    overrides = (("train.epochs", 1), ("run.micro_tokens", 4096), *exact)
    (roomy,) = make_specs("typed-punct", *overrides, folds=(0,))
    said: list[str] = []
    wanted = fit(roomy, said)
    assert any(line.startswith("memory: about weights") for line in said)
    (tight,) = make_specs("typed-punct", *overrides, folds=(0,), save_as="tight")
    small_device(150)
    said.clear()
    found = fit(tight, said)
    assert any("out of memory: continuing with micro-batches of at most" in line for line in said)
    assert tight.fingerprint == roomy.fingerprint
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_row_that_does_not_fit_alone_ends_in_the_devices_own_words(
    make_specs: Callable[..., list[JobSpec]], small_device: Callable[..., None]
) -> None:
    (spec,) = make_specs("typed-punct", folds=(0,))
    small_device(3)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        fit(spec, [])


def test_what_a_gpu_has_free_decides_before_the_first_step(
    make_specs: Callable[..., list[JobSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = make_specs("typed-punct", folds=(0,))
    monkeypatch.setattr("models.jobs.network_job.measure_free", lambda device, sharers: 2**23)
    said: list[str] = []
    fit(spec, said)
    assert any("memory: micro-batches of at most" in line for line in said), said
    monkeypatch.setattr("models.jobs.network_job.measure_free", lambda device, sharers: 2**10)
    (other,) = make_specs("typed-punct", folds=(1,))
    with pytest.raises(DeviceError, match=r"needs more than the 0\.0 GiB"):
        fit(other, [])


def test_jobs_on_one_gpu_take_their_parts_of_it(
    make_specs: Callable[..., list[JobSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = make_specs("typed-punct", folds=(0,))
    gpus, limits = 2, []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * GIB, 12 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    assert [count_sharers(workers) for workers in (1, 2, 3, 4, 6)] == [1, 1, 2, 2, 3]
    assert [measure_free(torch.device("cuda"), each) for each in (1, 2, 3)] == [
        9 * GIB,
        6 * GIB,
        4 * GIB,
    ]
    limit_gpu_memory(1)
    limit_gpu_memory(4)
    assert limits == [0.25]
    assert spec.sharers == 1


def test_predictions_that_do_not_fit_are_made_in_smaller_parts(
    make_specs: Callable[..., list[JobSpec]],
    small_device: Callable[..., None],
    quiet_watch: Watch,
) -> None:
    (roomy,) = make_specs("typed-punct", folds=(0,))
    wanted = fit(roomy, [])
    (tight,) = make_specs("typed-punct", folds=(0,), save_as="tight")
    small_device(150, training=False)
    np.testing.assert_allclose(fit(tight, []), wanted, atol=1e-5)
    (other,) = make_specs("typed-punct", folds=(1,))
    small_device(3, training=False)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        run_job(other, quiet_watch)


def test_sharding_divides_all_but_what_is_gathered() -> None:
    encoder = nn.Module()
    encoder.layer = nn.ModuleList([nn.Linear(9, 10) for _ in range(3)])
    encoder.words = nn.Embedding(7, 10)
    model = nn.Module()
    model.encoder = encoder
    need = divide_need(NEED, model, 4)
    assert (need.weights, need.gradients, need.optimizer) == (GIB / 4, GIB / 4, GIB / 2)
    assert need.copies == 8 * (70 + 2 * 100)  # weights and gradients of the words and two blocks
    assert need.per_token == NEED.per_token
