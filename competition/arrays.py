"""Types of arrays that many rooms share, ``Say``, and files that cache arrays."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.files import write_cache

Ints = npt.NDArray[np.integer[Any]]
Int16s = npt.NDArray[np.int16]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]
Probs = Float32s
"""Probabilities, (…, C): rows sum to 1."""

Say = Callable[[str], None]
"""Called with one line for a person."""


def read_cached(path: Path, *names: str) -> list[npt.NDArray[Any]] | None:
    """Read arrays of a cache file by name; None if it is missing or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            return [kept[name] for name in names]
    except Exception:  # NumPy and what unpacks its archives raise many kinds
        return None


def cache(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write arrays to a cache file; a full disk only costs the time to compute them again."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    write_cache(path, stream.getvalue())
