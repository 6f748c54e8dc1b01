"""Members of known quality: each predicts some labels well, or none at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from competition.predictions.members import Member

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


Fault = Literal["copy", "leak", "misleads"]
STORE_LABELS, STORE_FOLDS = 8, 5
TRAIN_SHARES = np.array([0.30, 0.20, 0.14, 0.12, 0.09, 0.07, 0.05, 0.03])
TEST_SHARES = np.array([0.60, 0.06, 0.04, 0.12, 0.02, 0.08, 0.02, 0.06])
OTHER_DOMAIN = (0.15, 0.55)  # share of the rows of another source, in train and in test


@dataclass(frozen=True, eq=False)
class PlantedStore:
    """Members of similar quality with errors in common, and a test of another mix of rows.

    ``odds`` (N,) is how much more often a row's source stands in the test; ``faulty`` the members
    that a warning must name.
    """

    members: list[Member]
    gold: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    odds: npt.NDArray[np.float64]
    faulty: frozenset[str]


@dataclass(frozen=True, eq=False)
class _Side:
    """Rows of train or test: gold labels, rows of the other source, what all members share."""

    gold: npt.NDArray[np.int64]
    is_other: npt.NDArray[np.bool_]
    is_test: bool
    seen: npt.NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, n_rows: int, *, is_test: bool) -> _Side:
        shares = TEST_SHARES if is_test else TRAIN_SHARES
        gold = rng.choice(STORE_LABELS, n_rows, p=shares)
        is_other = rng.random(n_rows) < OTHER_DOMAIN[is_test]
        seen = np.log(TRAIN_SHARES) + rng.normal(0, 1.1, (n_rows, STORE_LABELS))
        # harder rows are harder for everyone, and rows of the other source are harder
        seen[np.arange(n_rows), gold] += rng.normal(2.6, 1.3, n_rows) - 0.5 * is_other
        return cls(gold, is_other, is_test, seen)


def plant_store(
    seed: int, fault: Fault | None = None, *, n_rows: int = 3000, n_members: int = 5
) -> PlantedStore:
    """Plant a store with five folds; the last member has the fault, if there is one."""
    rng = np.random.default_rng((seed, 7))
    train = _Side.draw(rng, n_rows, is_test=False)
    test = _Side.draw(rng, n_rows // 4, is_test=True)
    members = []
    for place in range(n_members):
        is_last = place == n_members - 1
        members.append(_plant_voice(f"m{place}", rng, (train, test), fault if is_last else None))
    faulty = frozenset([members[-1].name]) if fault else frozenset()
    if fault == "copy":
        members[-1] = _copy(members[1], members[-1].name, rng, seed)
    before, after = OTHER_DOMAIN
    odds = np.where(train.is_other, after / before, (1 - after) / (1 - before))
    groups = rng.integers(0, n_rows // 2, n_rows)
    folds = groups % STORE_FOLDS
    return PlantedStore(members, train.gold, folds, groups, odds, faulty)


def _plant_voice(
    name: str, rng: np.random.Generator, sides: tuple[_Side, _Side], fault: Fault | None
) -> Member:
    """Make a member: what all see, what it alone sees, its own noise and temperature."""
    skill, warmth = rng.normal(1.2, 0.15), rng.uniform(0.85, 1.25)
    liking = rng.normal(0, 0.15, STORE_LABELS)

    def answer(side: _Side, noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        own = side.seen + liking + noise
        n_rows = len(side.gold)
        aim = side.gold.copy()
        if fault == "misleads":  # good at home; on the other source it mistakes most labels
            is_lost = side.is_other & (lost[side.is_test] < 0.95)
            own[is_lost] = np.roll(own[is_lost], 1, axis=1)
            aim[is_lost] = (aim[is_lost] + 1) % STORE_LABELS
        own[np.arange(n_rows), aim] += skill + 0.6 * (fault == "misleads")
        return own

    train, test = sides
    lost = [rng.random(len(side.gold)) for side in sides]
    kept = [rng.normal(0, 0.7, (len(side.gold), STORE_LABELS)) for side in sides]
    oof = answer(train, kept[0] + rng.normal(0, 0.4, kept[0].shape))
    if fault == "leak":  # it has learnt most of these rows by heart
        learnt = rng.random(len(train.gold)) < 0.75
        oof[np.flatnonzero(learnt), train.gold[learnt]] += 2.5
    by_fold = [
        answer(test, kept[1] + rng.normal(0, 0.4, kept[1].shape)) for _ in range(STORE_FOLDS)
    ]
    return Member(
        name, softmax(warmth * oof), softmax(warmth * np.stack(by_fold)), (1,), None,
        f"recipe {name}", True, f"why {name}",
    )  # fmt: skip


def _copy(member: Member, name: str, rng: np.random.Generator, seed: int) -> Member:
    """Copy a member: to the last bit, at another temperature, or blurred a little."""
    how = seed % 3
    if how == 0:
        return replace(member, name=name)

    def change(probs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logs = np.log(np.maximum(probs, 1e-9)).astype(np.float64)
        logs = 1.1 * logs if how == 1 else logs + rng.normal(0, 0.05, logs.shape)
        return softmax(logs)

    return replace(member, name=name, oof=change(member.oof), test=change(member.test))
