"""torch.compile of the encoder: one graph for batches of all shapes.

A step's batches have many lengths and numbers of rows, so shapes are dynamic: one graph is compiled
for training and one for prediction, whatever the lengths are.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import Any

from competition.errors import DeviceError, VariantError
from models.settings import RunSettings

BACKEND = "inductor"
COMPILERS = ("c++", "g++", "clang++")
MAX_GRAPHS = 16
"""The most graphs of one function; beyond that torch runs it without compiling."""


def check_compile(run: RunSettings, device_type: str) -> None:
    """Check that ``run.compile`` can be used here, before anything is built.

    Raises:
        DeviceError: torch has no compiler to call.
        VariantError: it does not go together with another setting.
    """
    if not run.compile:
        return
    if run.shard or run.attention == "varlen":
        other = "run.shard" if run.shard else "run.attention = 'varlen'"
        raise VariantError(f"run.compile does not go together with {other}; leave one of them out")
    if device_type == "cpu" and not any(map(shutil.which, COMPILERS)):
        raise DeviceError(
            "run.compile needs a C++ compiler here, and none of c++, g++ and clang++ is on the "
            "PATH; leave it out, which changes no results"
        )
    if device_type == "cuda" and find_spec("triton") is None:
        raise DeviceError(
            "run.compile needs triton on a GPU, which is not installed; leave it out, which "
            "changes no results"
        )
    if device_type not in {"cpu", "cuda"}:
        raise DeviceError(f"run.compile is not available on {device_type}; leave it out")


def compile_encoder(encoder: Any) -> None:
    """Compile an encoder in place when it is first called; its weights keep their names."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(MAX_GRAPHS, torch._dynamo.config.recompile_limit)
    encoder.compile(backend=BACKEND, dynamic=True)
