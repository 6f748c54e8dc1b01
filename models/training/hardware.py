"""What the machine offers: number format, threads, device. Asked of the hardware, never assumed.

Everything decided here is provenance: recorded beside a result, outside its fingerprint. What a
GPU refuses is put here into words that a person can act on.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from competition.errors import DeviceError, VariantError

Precision = Literal["float32", "bf16", "fp16"]
MEMORY_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
NO_KERNELS = "no kernel image is available"


def find_device() -> Literal["cuda", "mps", "cpu"]:
    """Return the kind of device that the work is laid on: the best that torch can use."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe_device() -> str:
    """Return what a person calls the device: a GPU's name, ``mps`` or ``cpu``."""
    device = find_device()
    return torch.cuda.get_device_name() if device == "cuda" else device


def list_gpu_notices(workers: int | None = None) -> tuple[str, ...]:
    """Say what a person may not have meant: GPUs that torch does not see, or that stay idle.

    Args:
        workers: jobs at a time, each with a GPU of its own as long as there are some; None for a
            command that uses one.
    """
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if workers is None or gpus <= workers:
            return ()
        return (f"notice: {gpus} GPUs, {workers} used: --workers {gpus}",)
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    if is_hidden or shutil.which("nvidia-smi") is None:
        return ()
    cause = (
        f"torch {torch.__version__} is built without CUDA"
        if torch.version.cuda is None
        else f"is the driver older than CUDA {torch.version.cuda}, for which torch is built?"
    )
    return (
        f"notice: there is nvidia-smi, but torch sees no GPU and works on the {find_device()}: "
        f"{cause}; see pytorch.org/get-started",
    )


def choose_precision(wanted: str, *, is_firm: bool = True) -> Precision:
    """Return the number format that matrix products are done in.

    ``auto`` is bf16 where the hardware multiplies it natively, fp16 with loss scaling on a GPU
    without it (such as a T4), float32 elsewhere: a CPU without bf16 instructions is slower in it.

    Args:
        wanted: a variant's ``run.precision``.
        is_firm: refuse what the device cannot do, rather than take float32.

    Raises:
        VariantError: fp16 is wanted on a CPU, where nothing multiplies it.
    """
    device = find_device()
    if wanted == "fp16" and device == "cpu":
        if not is_firm:
            return "float32"
        raise VariantError(
            "run.precision=fp16 needs a GPU and torch sees none; leave it at auto, or say "
            "--set run.precision=float32"
        )
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "mps":
        return "float32"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def build_accelerator(precision: Precision) -> Any:
    """Build the accelerator of one job, forgetting any that this process had before."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision="no" if precision == "float32" else precision)


def fix_randomness_of_kernels() -> None:
    """On a CPU, let torch use only kernels that give the same bits each time.

    A GPU's fast kernels are left alone: there, the same bits are not promised. What asks for
    float32 gets it there too: cuDNN's recurrent layers would round to TF32 on their own.
    """
    if find_device() != "cpu":
        torch.backends.cudnn.allow_tf32 = False
        return
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def threads_per_job(threads: int | None, workers: int) -> int:
    """Return the threads of one job: what was asked for, else the cores shared by the workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return threads or max(1, (cores or 1) // workers)


def describe_machine() -> dict[str, str]:
    """Return what a result's provenance says about the machine and its libraries."""
    import accelerate
    import transformers

    return {
        "host": platform.node(),
        "device": describe_device(),
        "cpu": str(torch.cpu.get_capabilities().get("cpu_name", platform.machine())),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }


@contextmanager
def report_gpu_errors() -> Iterator[None]:
    """Turn what a GPU refuses and a person can mend into one of our own errors.

    Raises:
        DeviceError: the GPU's memory is full, or torch has no kernels for it.
    """
    try:
        yield
    except RuntimeError as error:
        known = explain_gpu_error(error)
        if known is None:
            raise
        raise DeviceError(known) from error


def is_memory_full(error: BaseException) -> bool:
    """Say whether an error means that the device's memory is full."""
    is_ours = isinstance(error, RuntimeError) and any(sign in str(error) for sign in MEMORY_FULL)
    return isinstance(error, torch.OutOfMemoryError) or is_ours


def explain_gpu_error(error: BaseException) -> str | None:
    """Say what a GPU refused, if a person can mend it: its memory is full, or it is too old."""
    if not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if is_memory_full(error):
        return (
            "the GPU's memory is full; add --set run.micro_tokens=4096 (then 2048) or --set "
            "run.gradient_checkpointing=true, or take fewer --workers: results keep their names, "
            "and what has a training state goes on from it. predict, which has no such options, "
            "works without the GPU: CUDA_VISIBLE_DEVICES= python run.py predict …"
        )
    if NO_KERNELS in text:
        return (
            f"torch {torch.__version__} has no kernels for this GPU ({describe_device()}); for an "
            "older one, install the same torch built for an older CUDA (see "
            "pytorch.org/get-started), or work without it: CUDA_VISIBLE_DEVICES="
        )
    return None
