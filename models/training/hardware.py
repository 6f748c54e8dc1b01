"""Hardware: device, mixed precision (bf16, fp16 with loss scaling, float32), threads.

Detected at run time. All of it is provenance: recorded beside a result, outside its fingerprint.
GPU errors that a user can fix become messages that say how.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch

from competition.errors import DeviceError, VariantError
from models.training.ranks import ALONE, Ranks

Precision = Literal["float32", "bf16", "fp16"]
MEMORY_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
NO_KERNELS = "no kernel image is available"
LAUNCH_VARIABLES = ("LOCAL_RANK", "RANK", "WORLD_SIZE")
"""By which accelerate knows that a launcher started this process."""


def find_device() -> Literal["cuda", "mps", "cpu"]:
    """Return the kind of device that computations run on: the best that torch can use."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe_device() -> str:
    """Return a readable name of the device: the GPU's name, ``mps`` or ``cpu``."""
    device = find_device()
    return torch.cuda.get_device_name() if device == "cuda" else device


def count_sharers(workers: int) -> int:
    """Return how many of several parallel jobs share a GPU of this machine; 1 without GPUs."""
    return math.ceil(workers / torch.cuda.device_count()) if torch.cuda.is_available() else 1


def limit_gpu_memory(sharers: int) -> None:
    """Let this process take no more than its part of a GPU's memory, if jobs share one.

    A job that wants more splits its micro-batches, and the others go on.
    """
    if sharers > 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1 / sharers)


def list_gpu_notices(workers: int | None = None) -> tuple[str, ...]:
    """Return notices about unused GPUs: those that torch does not see, or that stay idle.

    Args:
        workers: number of parallel jobs, each on its own GPU while there are enough; None for a
            command that uses one GPU.
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
        f"notice: nvidia-smi is installed, but torch sees no GPU and uses the {find_device()}: "
        f"{cause}; see pytorch.org/get-started",
    )


def choose_precision(wanted: str, *, is_firm: bool = True) -> Precision:
    """Return the precision of matrix products under mixed precision.

    ``auto`` is bf16 where the hardware supports it natively, fp16 with loss scaling on a GPU that
    does not (such as a T4), and float32 elsewhere: a CPU without bf16 instructions is slower in it.

    Args:
        wanted: a variant's ``run.precision``.
        is_firm: raise if the device does not support it; if False, fall back to float32.

    Raises:
        VariantError: fp16 on a CPU.
    """
    device = find_device()
    if wanted == "fp16" and device == "cpu":
        if not is_firm:
            return "float32"
        raise VariantError(
            "run.precision=fp16 needs a GPU and torch sees none; leave it at auto, or use "
            "--set run.precision=float32"
        )
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "mps":
        return "float32"
    able = read_cpu()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def read_cpu() -> Mapping[str, Any]:
    """Return what torch knows of the CPU: its name, and whether it has some instructions.

    Before torch 2.11 it is no more than whether bf16 has instructions. Every CPU with tiles (AMX)
    multiplies bf16 in them.
    """
    read = getattr(torch.cpu, "get_capabilities", None)
    if read is not None:
        known: Mapping[str, Any] = read()
        return known
    names = {
        "avx512_bf16": "_is_avx512_bf16_supported",
        "amx_bf16": "_is_amx_tile_supported",
    }
    return {key: getattr(torch.cpu, name, bool)() for key, name in names.items()}


def build_accelerator(precision: Precision, ranks: Ranks = ALONE) -> Any:
    """Build the accelerator of one job, replacing any earlier one of this process.

    A single process has its own even under a launcher. What ``accelerate launch`` sets for
    scripts of another kind, such as gradient accumulation by a constant, has no effect.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

    AcceleratorState._reset_state(reset_partial_state=True)
    exchange = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    with nullcontext() if ranks.size > 1 else without_launch():
        return Accelerator(
            mixed_precision="no" if precision == "float32" else precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[exchange],
            cpu=ranks.size > 1 and find_device() == "cpu",
        )


@contextmanager
def without_launch() -> Iterator[None]:
    """Hide from accelerate that a launcher started this process: it would wait for the others."""
    hidden = {name: os.environ.pop(name) for name in LAUNCH_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def fix_randomness_of_kernels() -> None:
    """On a CPU, restrict torch to deterministic kernels.

    On a GPU, fast kernels stay enabled, and results may differ in the last bits. TF32 is disabled
    for cuDNN's recurrent layers, so that float32 means float32 there too.
    """
    if find_device() != "cpu":
        torch.backends.cudnn.allow_tf32 = False
        return
    torch.set_deterministic_debug_mode("error")  # the same, without importing the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def threads_per_job(threads: int | None, workers: int) -> int:
    """Return the number of threads per job: as requested, else the cores divided by workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return threads or max(1, (cores or 1) // workers)


def describe_machine() -> dict[str, str]:
    """Return the provenance of a result: host, device, and versions of the libraries."""
    import accelerate
    import transformers

    return {
        "host": platform.node(),
        "device": describe_device(),
        "cpu": str(read_cpu().get("cpu_name", platform.machine())),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }


@contextmanager
def report_gpu_errors() -> Iterator[None]:
    """Convert GPU errors that a user can fix into ``DeviceError``.

    Raises:
        DeviceError: the GPU is out of memory, or torch has no kernels for it.
    """
    try:
        yield
    except RuntimeError as error:
        known = explain_gpu_error(error)
        if known is None:
            raise
        raise DeviceError(known) from error


def is_memory_full(error: BaseException) -> bool:
    """Return whether an error means that the device's memory is full."""
    is_ours = isinstance(error, RuntimeError) and any(sign in str(error) for sign in MEMORY_FULL)
    return isinstance(error, torch.OutOfMemoryError) or is_ours


def explain_gpu_error(error: BaseException) -> str | None:
    """Return a message if the GPU is out of memory or not supported by torch, else None."""
    if not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if is_memory_full(error):
        return (
            "the GPU is out of memory; add --set run.micro_tokens=4096 (then 2048) or --set "
            "run.gradient_checkpointing=true, or use fewer --workers: none of these changes "
            "results or their names, and jobs resume from their checkpoints. predict has no such "
            "options: close other programs that use the GPU, or run it on the CPU: "
            "CUDA_VISIBLE_DEVICES= python run.py predict …"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return (
            f"torch cannot compile this encoder here ({text.strip().splitlines()[0]}); leave out "
            "run.compile, which changes no results"
        )
    if NO_KERNELS in text:
        return (
            f"torch {torch.__version__} has no kernels for this GPU ({describe_device()}); for an "
            "older GPU, install the same torch built for an older CUDA (see "
            "pytorch.org/get-started), or run on the CPU: CUDA_VISIBLE_DEVICES="
        )
    return None
