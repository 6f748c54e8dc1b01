"""Members whose worth is known: each sees some labels well, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from competition.predictions import Member

N_LABELS, NEGATIVE_ID, N_FOLDS, N_TEST = 5, 0, 3, 40
SIGHT = {
    "sees-1-2": (0.6, 2.4, 2.4, 0.2, 0.2),
    "sees-3-4": (0.6, 0.2, 0.2, 2.4, 2.4),
    "useless": (0.0, 0.0, 0.0, 0.0, 0.0),
}


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)


def plant_member(name: str, gold: npt.NDArray[np.int64], seed: int) -> Member:
    """Make a member whose logits at the gold label rise by what it sees of that label."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (len(gold), N_LABELS))
    logits[np.arange(len(gold)), gold] += np.array(SIGHT[name])[gold]
    test = softmax(rng.normal(0, 2, (N_FOLDS, N_TEST, N_LABELS)))
    return Member(name, softmax(logits), test, (1,), None, f"recipe {name}", True, f"why {name}")


def plant(
    n_rows: int = 1500, seed: int = 0, names: Sequence[str] = tuple(SIGHT)
) -> tuple[list[Member], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return members, gold (N,) and folds (N,)."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(N_LABELS, n_rows, p=[0.4, 0.2, 0.15, 0.15, 0.1])
    members = [plant_member(name, gold, 100 * seed + i) for i, name in enumerate(names)]
    return members, gold, rng.integers(0, N_FOLDS, n_rows)
