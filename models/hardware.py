"""What the machine offers: number format, threads, device. Asked of the hardware, never assumed.

Everything decided here is provenance: recorded beside a result, outside its fingerprint.
"""

from __future__ import annotations

import os
import platform
from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16", "fp16"]


def choose_precision(wanted: str) -> Precision:
    """Return the number format that matrix products are done in.

    ``auto`` is bf16 where the hardware multiplies it natively, fp16 with loss scaling on a GPU
    without it (such as a T4), float32 elsewhere: a CPU without bf16 instructions is slower in it.
    """
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.backends.mps.is_available():
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

    A GPU's fast kernels are left alone: there, the same bits are not promised.
    """
    if torch.cuda.is_available():
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

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "host": platform.node(),
        "device": device,
        "cpu": str(torch.cpu.get_capabilities().get("cpu_name", platform.machine())),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }
