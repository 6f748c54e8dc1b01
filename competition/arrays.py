"""Types that many rooms share: arrays by what they hold, and ``Say``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

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
