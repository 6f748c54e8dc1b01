from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from competition.errors import TrainingError
from competition.folds.kfold import Prepared
from models.jobs.job import run_job
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import WEIGHTS_FILE, JobSpec, read_kept
from models.network.network import build_model
from models.network.tokenizer import load_tokenizer
from models.training.checkpoints import (
    place,
    read_start,
    read_state,
    read_weight_facts,
    read_weights,
    write_state,
    write_weights,
)
from models.training.control import Watch
from models.training.hardware import build_accelerator, fix_randomness_of_kernels
from models.training.loop import FitReport, FitTask, fit_fold
from tests.models.conftest import TINY_SCRATCH, inputs_of

Specs = Callable[..., list[JobSpec]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    fix_randomness_of_kernels()


def fit(spec: JobSpec, path: Path, log: list[str], *, stop_at: int = 10**9) -> FitReport:
    assert spec.network is not None
    steps = iter(range(1, 10**9))
    vocabulary = len(load_tokenizer(spec.network.source, spec.network.new_tokens))
    torch.manual_seed(1)
    model = build_model(
        spec.variant, spec.network.source, labels=4, vocabulary=vocabulary, device_type="cpu"
    )
    return fit_fold(
        model,
        spec.variant,
        inputs_of(spec),
        task=FitTask(3, 0, fingerprint=spec.fingerprint, state_path=path),
        accelerator=build_accelerator("float32"),
        watch=Watch(lambda at: None, lambda: next(steps) >= stop_at, log.append),
    )


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("models.training.checkpoints.save_file", save)


def test_a_full_disk_does_not_end_a_healthy_fit(
    make_specs: Specs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (spec,) = make_specs("typed-punct", ("run.state_every_s", 1e-9), folds=(0,))
    log: list[str] = []
    fill_disk(monkeypatch)
    report = fit(spec, tmp_path / "state", log)
    assert report.finished
    assert log
    assert set(log) == {
        f"training continues without a new checkpoint: {tmp_path / 'state'} cannot be written "
        f"([Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}); is the disk full?"
    }
    with pytest.raises(TrainingError, match="cannot be written"):  # what is stopped needs it
        fit(spec, tmp_path / "state", log, stop_at=2)


def test_settings_of_the_hardware_leave_a_state_valid(make_specs: Specs, tmp_path: Path) -> None:
    (spec,) = make_specs(folds=(0,))
    saving = (("run.micro_tokens", 100), ("run.gradient_checkpointing", True))
    (smaller,) = make_specs("typed-punct", *saving, folds=(0,))
    assert smaller.fingerprint == spec.fingerprint
    assert smaller.variant.run != spec.variant.run
    log: list[str] = []
    assert fit(spec, tmp_path / "state", log, stop_at=3).steps == 3
    report = fit(smaller, tmp_path / "state", log)
    assert (report.first_step, report.finished) == (3, True)


def test_optimiser_state_is_on_the_device_the_optimiser_expects() -> None:
    there = nn.Parameter(torch.zeros(2, device="meta"))
    step, mean = torch.tensor(3.0), torch.zeros(2)
    assert place(mean, "exp_avg", there, is_fused=False).device.type == "meta"
    assert place(step, "step", there, is_fused=True).device.type == "meta"
    assert place(step, "step", there, is_fused=False) is step


@pytest.mark.parametrize("is_fused", [True, False])
def test_an_optimiser_resumes_from_its_state(is_fused: bool, tmp_path: Path) -> None:
    def make() -> tuple[nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=is_fused)

    def take_steps(model: nn.Linear, optimizer: torch.optim.AdamW, count: int) -> None:
        for _ in range(count):
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    straight, interrupted, resumed = make(), make(), make()
    take_steps(*straight, 5)
    take_steps(*interrupted, 2)
    write_state(tmp_path / "state", *interrupted, {"fingerprint": "f"})
    assert read_state(tmp_path / "state", *resumed, "f") == {"fingerprint": "f"}
    take_steps(*resumed, 3)
    assert torch.equal(resumed[0].weight, straight[0].weight)


def test_damaged_weights_are_reported(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    path = tmp_path / "model.safetensors"
    write_weights(path, model.state_dict(), {"fingerprint": "f"})
    assert read_weight_facts(path) == read_weights(path, model) == {"fingerprint": "f"}
    with pytest.raises(TrainingError, match="is of another model"):
        read_weights(path, nn.Linear(4, 2))
    with pytest.raises(TrainingError, match="is of another model"):
        read_weights(path, nn.Linear(3, 2, bias=False))
    path.write_bytes(path.read_bytes()[:-4])
    assert read_weight_facts(path) is None
    with pytest.raises(TrainingError, match=r"model\.safetensors is damaged .*--overwrite$"):
        read_weights(path, model)
    with pytest.raises(TrainingError, match=r"model\.safetensors is damaged .*--overwrite$"):
        read_start(path, model, "f")


def test_overwrite_replaces_damaged_weights(
    make_specs: Specs, prepared: Prepared, quiet_watch: Watch
) -> None:
    (spec,) = make_specs(folds=(0,))
    run_job(spec, quiet_watch)
    path = spec.job_dir / WEIGHTS_FILE
    whole = path.read_bytes()

    def missing(*, overwrite: bool) -> list[JobSpec]:
        request = FoldRequest(
            variants=("typed-punct",),
            encoder="scratch",
            overrides=TINY_SCRATCH,
            save_as="tiny",
            folds=(0,),
            overwrite=overwrite,
        )
        return list(plan_jobs(prepared, request, lambda text: None, threads=1).jobs)

    assert missing(overwrite=True) == []
    path.write_bytes(whole[:-4])
    assert read_kept(spec.job_dir) is None
    assert missing(overwrite=False) == []
    (again,) = missing(overwrite=True)
    run_job(again, quiet_watch)
    assert path.read_bytes() == whole
