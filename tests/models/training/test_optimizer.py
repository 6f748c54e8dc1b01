"""Optimisers of bitsandbytes: refused in one line, resumed to the byte, part of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from competition.errors import DeviceError, VariantError
from competition.predictions.store import Store
from models.jobs.job import run_job
from models.jobs.spec import JobSpec
from models.network.network import build_model
from models.settings import TrainSettings
from models.training import optimizer
from models.training.control import Watch
from models.training.loop import build_optimizer
from models.training.memory import estimate_need
from models.training.optimizer import MOMENT_BYTES, check_optimizer

EIGHT = (("train.optimizer", "adamw-8bit"),)
MEANINGS = torch.linspace(-1, 1, 256)


class Blockwise(torch.optim.Optimizer):
    """Keeps its state as optimisers of bitsandbytes do: a count, moments, and shared constants."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    def init_state(self, group: Any, p: Any, group_at: int, at: int) -> None:
        del group, group_at, at
        self.state[p].update(step=0, state1=torch.zeros_like(p), qmap1=MEANINGS)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        del closure
        for group_at, group in enumerate(self.param_groups):
            for at, p in enumerate(group["params"]):
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.init_state(group, p, group_at, at)
                state = self.state[p]
                state["step"] += 1
                state["state1"].lerp_(p.grad, 1 - group["betas"][0])
                p.sub_(state["state1"].sign() * group["lr"] / state["step"] ** 0.5)


class Manager:
    def __init__(self) -> None:
        self.bits: list[int] = []

    def override_config(self, parameters: Any, key: str, value: int) -> None:
        assert key == "optim_bits"
        self.bits.append(value)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Manager:
    """Take the place of bitsandbytes."""
    manager = Manager()
    optim = SimpleNamespace(
        AdamW8bit=Blockwise, GlobalOptimManager=SimpleNamespace(get_instance=lambda: manager)
    )
    monkeypatch.setattr(optimizer, "find_spec", lambda name: name)
    monkeypatch.setattr(optimizer, "import_module", lambda name: SimpleNamespace(optim=optim))
    return manager


@pytest.fixture
def whole_library() -> None:
    pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("library", ["stand_in", "whole_library"])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_fit_in_8_bits_is_resumed_to_the_byte(
    library: str, request: pytest.FixtureRequest, make_specs: Callable[..., list[JobSpec]]
) -> None:
    request.getfixturevalue(library)

    def run(name: str, *stops: int) -> bytes:
        (spec,) = make_specs("typed-punct", *EIGHT, folds=(0,), save_as=name)
        said: list[str] = []
        for after in (*stops, 10**9):
            asked: list[int] = []

            def should_stop(seen: list[int] = asked, last: int = after) -> bool:
                seen.append(1)
                return len(seen) >= last

            watch = Watch(report=lambda at: None, should_stop=should_stop, log=said.append)
            finished = run_job(spec, watch).finished
        assert finished
        assert sum(line.startswith("resumed at step") for line in said) == len(stops)
        return Store(spec.store_dir, spec.labels).read(spec.key).oof_probs.tobytes()

    assert run("whole") == run("stopped", 2)


def test_only_what_uses_it_has_another_recipe(make_specs: Callable[..., list[JobSpec]]) -> None:
    (plain,) = make_specs("typed-punct", folds=(0,))
    (named,) = make_specs("typed-punct", ("train.optimizer", "adamw"), folds=(0,), save_as="n")
    (eight,) = make_specs("typed-punct", *EIGHT, folds=(0,), save_as="e")
    assert plain.fingerprint == named.fingerprint != eight.fingerprint


def test_embeddings_keep_32_bits(
    stand_in: Manager, make_specs: Callable[..., list[JobSpec]]
) -> None:
    (spec,) = make_specs("typed-punct", *EIGHT, folds=(0,))
    assert spec.network is not None
    model = build_model(
        spec.variant, spec.network.source, labels=3, vocabulary=0, device_type="cpu"
    )
    made = build_optimizer(model, spec.variant.train)
    assert isinstance(made, Blockwise)
    assert stand_in.bits == [32]
    assert {group["rate_scale"] for group in made.param_groups} == {1.0}


@pytest.mark.parametrize(
    ("name", "device", "is_there", "said"),
    [
        ("adamw-8bit", "cuda", False, r"needs bitsandbytes.*pip install -r requirements-gpu\.txt"),
        ("paged-adamw", "cpu", True, "needs a CUDA GPU, whose memory is paged"),
        ("paged-adamw-8bit", "mps", True, "needs a CUDA GPU, whose memory is paged"),
    ],
)
def test_what_an_optimiser_lacks_is_one_line(
    name: Any, device: str, is_there: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "find_spec", lambda name: name if is_there else None)
    settings = TrainSettings(optimizer=name)
    with pytest.raises(DeviceError, match=said) as caught:
        check_optimizer(settings, device, shards=False)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(optimizer, "find_spec", lambda name: name)
    check_optimizer(settings, "cuda", shards=False)
    with pytest.raises(VariantError, match=r"run\.shard splits the moments of adamw alone"):
        check_optimizer(settings, "cuda", shards=True)
    check_optimizer(TrainSettings(), "cpu", shards=True)


def test_moments_in_8_bits_take_a_quarter_and_paged_ones_nothing() -> None:
    model = torch.nn.Linear(64, 64, bias=False)
    config = SimpleNamespace(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        _attn_implementation="sdpa",
    )
    found = {
        name: estimate_need(model, config, precision="bf16", longest=8, moments=size).optimizer
        for name, size in MOMENT_BYTES.items()
    }
    numbers = 64 * 64
    assert found == {
        "adamw": 8 * numbers,
        "adamw-8bit": 2 * numbers + 8 * numbers // 256,
        "paged-adamw": 0,
        "paged-adamw-8bit": 0,
    }
