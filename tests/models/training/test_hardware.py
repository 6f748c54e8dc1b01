from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import run
from competition.errors import VariantError
from models.network.backbone import choose_attention
from models.settings import RunSettings
from models.training.hardware import (
    build_accelerator,
    choose_precision,
    describe_machine,
    explain_gpu_error,
    find_device,
    fix_randomness_of_kernels,
    list_gpu_notices,
)
from models.variant import OUTSIDE_FINGERPRINT, Variant

ROOT = Path(__file__).parents[3]
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
NO_KERNEL = torch.AcceleratorError(
    "CUDA error: no kernel image is available for execution on the device"
)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No GPU, no MPS, no nvidia-smi, whatever this machine has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def have_gpus(devices: pytest.MonkeyPatch, count: int, *, bf16: bool = True) -> None:
    devices.setattr(torch.cuda, "is_available", lambda: True)
    devices.setattr(torch.cuda, "device_count", lambda: count)
    devices.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA X")
    devices.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OUT_OF_MEMORY, "is out of memory; add --set run.micro_tokens=4096"),
        (RuntimeError("CUDA error: out of memory"), "is out of memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"), "is out of memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "is out of memory"),
        (NO_KERNEL, "has no kernels for this GPU (cpu); for an older GPU"),
    ],
)
def test_gpu_errors_a_user_can_fix_become_one_line(
    error: RuntimeError, said: str, devices: pytest.MonkeyPatch
) -> None:
    message = explain_gpu_error(error)
    assert message is not None
    assert said in message
    assert "\n" not in message


def test_other_errors_keep_their_traceback() -> None:
    assert explain_gpu_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert explain_gpu_error(ValueError("out of memory")) is None


def test_memory_saving_settings_do_not_change_the_recipe() -> None:
    message = explain_gpu_error(OUT_OF_MEMORY) or ""
    named = re.findall(r"--set run\.(\w+)=", message)
    assert named == ["micro_tokens", "gradient_checkpointing"]
    assert set(named) <= set(RunSettings.model_fields)
    assert "run" in OUTSIDE_FINGERPRINT
    assert "run" not in Variant(name="v", why="v", encoder="e").recipe()


@pytest.mark.parametrize(
    ("command", "first_step"),
    [
        (["fold", "typed-punct"], "models.jobs.fold.read_prepared"),
        (["tune", "typed-punct"], "models.tuning.tune.read_prepared"),
        (["pretrain", "--encoder", "ko-mini"], "models.pretraining.pretrain.resolve_settings"),
        (["predict", __file__], "models.jobs.predict.read_rows"),
    ],
)
def test_every_command_that_uses_a_gpu_reports_out_of_memory(
    command: list[str],
    first_step: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(first_step, fail)
    monkeypatch.setattr(sys, "argv", ["run.py", *command, "--competition", "demo"])
    error: RuntimeError = OUT_OF_MEMORY
    with pytest.raises(SystemExit) as caught:
        run.main()
    assert caught.value.code == 2
    assert "\nerror: the GPU is out of memory" in capsys.readouterr().err
    error = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        run.main()


def test_the_commands_start_without_torch() -> None:
    loaded = "'torch' in sys.modules or 'models.training.hardware' in sys.modules"
    check = f"import sys, run; sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_a_notice_names_gpus_that_torch_does_not_see(devices: pytest.MonkeyPatch) -> None:
    assert list_gpu_notices(2) == ()
    devices.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    devices.setattr(torch.version, "cuda", None)
    (notice,) = list_gpu_notices(2)
    assert "uses the cpu: torch" in notice
    assert "without CUDA" in notice
    devices.setattr(torch.version, "cuda", "13.0")
    assert "driver older than CUDA 13.0" in list_gpu_notices()[0]
    devices.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert list_gpu_notices(2) == ()


def test_a_notice_counts_idle_gpus(devices: pytest.MonkeyPatch) -> None:
    have_gpus(devices, 4)
    assert list_gpu_notices(1) == ("notice: 4 GPUs, 1 used: --workers 4",)
    assert list_gpu_notices(4) == ()
    assert list_gpu_notices() == ()  # a command that uses one


def test_fp16_is_refused_on_a_cpu(devices: pytest.MonkeyPatch) -> None:
    with pytest.raises(VariantError, match=r"needs a GPU.*run\.precision=float32"):
        choose_precision("fp16")
    assert choose_precision("fp16", is_firm=False) == "float32"
    have_gpus(devices, 1)
    assert choose_precision("fp16") == choose_precision("fp16", is_firm=False) == "fp16"


def test_auto_follows_the_device(devices: pytest.MonkeyPatch) -> None:
    have_gpus(devices, 1, bf16=False)
    assert choose_precision("auto") == "fp16"
    have_gpus(devices, 1)
    assert choose_precision("auto") == "bf16"
    devices.setattr(torch.cuda, "is_available", lambda: False)
    devices.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_precision("auto") == "float32"
    assert find_device() == "mps"
    assert describe_machine()["device"] == "mps"


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        (None, "float32"),
        ("_is_avx512_bf16_supported", "bf16"),
        ("_is_amx_tile_supported", "bf16"),
    ],
)
def test_an_older_torch_knows_less_of_the_cpu(
    able: str | None, precision: str, devices: pytest.MonkeyPatch
) -> None:
    devices.delattr(torch.cpu, "get_capabilities")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        devices.delattr(torch.cpu, name)
        if name == able:
            devices.setattr(torch.cpu, name, lambda: True, raising=False)
    assert choose_precision("auto") == precision
    assert describe_machine()["cpu"] == platform.machine()


@pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="on a CPU alone"
)
def test_the_accelerator_uses_the_device_that_was_found() -> None:
    assert build_accelerator("float32").device.type == find_device() == "cpu"


def test_a_process_alone_waits_for_no_other_under_a_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = build_accelerator("float32")
    assert accelerator.num_processes == 1
    assert accelerator.gradient_accumulation_steps == 1  # else each loss would be divided by it
    assert os.environ["WORLD_SIZE"] == "2"


def test_only_a_cpu_is_restricted_to_deterministic_kernels(devices: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    devices.setattr(torch, "set_deterministic_debug_mode", asked.append)
    devices.setattr(torch.backends.cudnn, "allow_tf32", True)
    fix_randomness_of_kernels()
    assert asked == ["error"]
    assert torch.backends.cudnn.allow_tf32
    devices.setattr(torch.backends.mps, "is_available", lambda: True)
    fix_randomness_of_kernels()
    have_gpus(devices, 1)
    fix_randomness_of_kernels()
    assert asked == ["error"]
    assert not torch.backends.cudnn.allow_tf32  # recurrent layers in float32, as they are asked to


def test_fold_describes_its_hardware(devices: pytest.MonkeyPatch) -> None:
    from dataclasses import dataclass

    from models.jobs.engines.local import describe_hardware

    @dataclass
    class Spec:
        variant: Variant

    plain = Variant(name="v", why="v", encoder="e", run=RunSettings(precision="float32"))
    linear = Variant(name="l", why="l", encoder="e", learner="linear")
    jobs = [Spec(plain), Spec(plain), Spec(linear)]
    assert describe_hardware(jobs, 1) == ["on cpu, float32, eager attention"]  # type: ignore[arg-type]
    assert describe_hardware([Spec(linear)], 1) == []  # type: ignore[list-item]
    have_gpus(devices, 2)
    assert choose_attention(plain, "cuda") == "sdpa"
    assert describe_hardware(jobs, 1) == [  # type: ignore[arg-type]
        "on NVIDIA X, float32, sdpa attention",
        "notice: 2 GPUs, 1 used: --workers 2",
    ]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    ("gpus", "cores", "workers"), [(0, 4, 4), (0, 64, 10), (1, 64, 2), (4, 64, 4), (16, 64, 10)]
)
def test_the_demo_does_not_crowd_a_gpu(gpus: int, cores: int, workers: int, tmp_path: Path) -> None:
    lines = "".join(f"echo 'GPU {i}: NVIDIA X (UUID: {i})'\n" for i in range(gpus))
    for name, script in (("nvidia-smi", lines or "exit 9\n"), ("getconf", f"echo {cores}\n")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    shown = subprocess.run(
        ["make", "--dry-run", "demo"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"fold --competition demo --workers {workers}\n" in shown.stdout
