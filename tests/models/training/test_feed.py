"""The feed of micro-batches: collated ahead or not, a fit has the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from competition.predictions.store import Store
from models.jobs.job import run_job
from models.jobs.spec import JobSpec
from models.network.network import build_model
from models.parts.losses import build_objective
from models.training import feed
from models.training.ahead import AHEAD
from models.training.control import Watch
from models.training.feed import Feed, FeedPlan, build_parts
from models.training.hardware import build_accelerator
from models.training.loop import build_optimizer
from models.training.ranks import ALONE, Hand
from models.training.step import Step, StepSettings, take_step
from tests.models.conftest import inputs_of

CPU = torch.device("cpu")


def plan_of(spec: JobSpec) -> FeedPlan:
    rows = len(spec.rows.train_rows)
    steps = [torch.arange(at, min(at + 8, rows)).numpy() for at in range(0, rows, 8)]
    return FeedPlan(
        lambda epoch: steps[:: 1 if epoch % 2 else -1],
        steps_per_epoch=len(steps),
        total_steps=2 * len(steps),
        ranks=ALONE,
        table=None,
        packs=True,
    )


def tokens_of(fed: feed.FedStep) -> list[list[int]]:
    return [part.batch.input_ids.flatten().tolist() for part in fed.parts]


def test_steps_are_the_same_ahead_also_where_memory_was_full(
    make_specs: Callable[..., list[JobSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = make_specs("augment-swap", folds=(0,))
    plan, inputs = plan_of(spec), inputs_of(spec)
    steps = range(plan.total_steps)
    sizes = [4096 if step < 3 else 100 for step in steps]
    with Feed(plan, inputs, CPU) as now:
        wanted = [tokens_of(now.take_step(*each)) for each in zip(steps, sizes, strict=True)]
    monkeypatch.setitem(AHEAD, "cpu", 2)
    before = threading.active_count()
    with Feed(plan, inputs, CPU) as ahead:
        first = ahead.take_step(0, 4096)
        assert threading.active_count() == before + 1
        found = [tokens_of(first)]
        found += [
            tokens_of(ahead.take_step(*each)) for each in list(zip(steps, sizes, strict=True))[1:]
        ]
    assert found == wanted
    assert threading.active_count() == before
    assert first.rows == sum(len(part.label_ids) for part in first.parts)


def test_what_fails_ahead_is_raised_where_it_is_taken(
    make_specs: Callable[..., list[JobSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = make_specs("typed-punct", folds=(0,))
    monkeypatch.setitem(AHEAD, "cpu", 2)
    plan, inputs = plan_of(spec), inputs_of(spec)

    def fail(*given: Any, **named: Any) -> Any:
        raise OSError("the disk is gone")

    with Feed(plan, inputs, CPU) as ahead:
        monkeypatch.setattr(feed, "collate", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            ahead.take_step(0, 4096)


def test_a_fit_that_collates_ahead_has_the_same_bytes(
    make_specs: Callable[..., list[JobSpec]],
    quiet_watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for ahead in (0, 2):
        monkeypatch.setitem(AHEAD, "cpu", ahead)
        (spec,) = make_specs("typed-punct", folds=(0,), save_as=f"ahead{ahead}")
        assert run_job(spec, quiet_watch).finished
        found.append(Store(spec.store_dir, spec.labels).read(spec.key).oof_probs.tobytes())
    assert found[0] == found[1]


class ReadsBack(TorchDispatchMode):
    """Collects the operations that wait for a GPU, as a value or a shape depends on its result."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [each for each in args[1] if each is not None] if name == "index" else []
        if name in self.WAITING or any(each.dtype == torch.bool for each in masks):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", ["typed-punct", "bilstm", "type-restricted-train"])
def test_a_step_waits_for_nothing_that_it_computes(
    variant: str, make_specs: Callable[..., list[JobSpec]]
) -> None:
    (spec,) = make_specs(variant, ("run.attention", "sdpa"), folds=(0,))  # as on a GPU
    inputs = inputs_of(spec)
    assert spec.network is not None
    model = build_model(
        spec.variant, spec.network.source, labels=len(spec.labels), vocabulary=0, device_type="cpu"
    )
    accelerator = build_accelerator("float32")
    model, optimizer = accelerator.prepare(model, build_optimizer(model, spec.variant.train))
    settings = StepSettings(
        build_objective(spec.variant, inputs.train_label_ids, len(spec.labels)),
        clip_norm=1.0,
        regularise=spec.variant.regularise,
    )
    table = None if inputs.pairs is None else torch.from_numpy(inputs.pairs.table)
    hand = Hand(inputs.plain.lengths.argsort()[[0, 1, -1]])
    parts = build_parts(inputs.plain, [hand], inputs.pad_id, table, packs=False)
    for _ in range(2):  # an optimiser makes its state in its first step
        with ReadsBack() as reads:
            step = Step(parts, rows=3, progress=0.5)
            loss = take_step(model, step, settings, optimizer=optimizer, accelerator=accelerator)
    assert reads.found == []
    with reads:
        float(loss)
    assert reads.found == ["_local_scalar_dense"]
