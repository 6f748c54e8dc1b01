"""alignment: a member whose test rows are not those of its ids is reported, a correct one not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from competition.data.rows import Rows, build_frame
from competition.folds.kfold import Prepared
from competition.importing.alignment import find_misaligned
from competition.predictions.members import Member
from tests.competition.planted import softmax

N_TRAIN, N_TEST, N_LABELS, N_FOLDS = 300, 200, 4, 3
LABELS = ("per:birthplace", "no_relation", "per:employer", "per:sibling")


def make_rows(rng: np.random.Generator, gold: np.ndarray, *, is_train: bool) -> Rows:
    """Make rows whose types determine the label, except no_relation, which any pair has."""
    size = len(gold)
    pair = np.where(gold == 1, rng.integers(0, 3, size), np.array([0, 0, 1, 2])[gold])
    frame = build_frame(
        {
            "id": [str(i) for i in range(size)],
            "sentence": ["가" * int(n) for n in rng.integers(5, 300, size)],
            "subject_type": ["PER"] * size,
            "object_type": [("LOC", "ORG", "PER")[i] for i in pair],
            "source": [None] * size,
            **{f"{role}_word": ["가"] * size for role in ("subject", "object")},
            **{f"{r}_{e}": [0] * size for r in ("subject", "object") for e in ("start", "end")},
        }
    )
    return Rows(frame, gold.astype(np.int16) if is_train else None)


def plant(prepared: Prepared, n_members: int, seed: int = 0) -> tuple[list[Member], Prepared]:
    """Plant members that see three labels of four; the test has many more negatives."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(N_LABELS, N_TRAIN, p=[0.3, 0.3, 0.2, 0.2])
    hidden = rng.choice(N_LABELS, N_TEST, p=[0.1, 0.6, 0.1, 0.2])
    sides = [(gold, rng.normal(0, 1, (N_TRAIN, N_LABELS))), (hidden, rng.normal(0, 1, (N_TEST, 4)))]

    def answer(side: tuple[np.ndarray, np.ndarray], more: float) -> np.ndarray:
        labels, shared = side
        logits = shared + rng.normal(0, 0.7, shared.shape)
        logits[np.arange(len(labels)), labels] += 2.2 - more
        return softmax(logits)

    members = []
    for i in range(n_members):
        oof, test = answer(sides[0], 0), np.stack([answer(sides[1], 0.4)] * N_FOLDS)
        members.append(Member(f"m{i}", oof, test, (1,), None, f"r{i}", True, ""))
    corpus = replace(
        prepared.corpus,
        train=make_rows(rng, gold, is_train=True),
        test=make_rows(rng, hidden, is_train=False),
    )
    return members, replace(prepared, corpus=corpus)


def lengths(prepared: Prepared) -> np.ndarray:
    return prepared.corpus.test.frame["sentence"].str.len().to_numpy()


DAMAGES: dict[str, tuple[Callable[[np.ndarray, Prepared], np.ndarray], str]] = {
    "shuffled": (
        lambda t, _: t[:, np.random.default_rng(5).permutation(N_TEST)],
        "in another order than their ids",
    ),
    "shifted by one": (lambda t, _: np.roll(t, 1, axis=1), "are 1 row too late"),
    "reversed": (lambda t, _: t[:, ::-1], "are in reversed order"),
    "by length": (
        lambda t, p: t[:, np.argsort(lengths(p), kind="stable")],
        "sorted by length, the shortest first",
    ),
    "ids as text": (
        lambda t, p: t[:, np.argsort(p.corpus.test.ids.astype(str), kind="stable")],
        "sorted by id as text",
    ),
    "labels": (lambda t, _: t[:, :, [2, 3, 0, 1]], "another label order"),
}


@pytest.mark.parametrize("n_members", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_sound_members_are_not_named(prepared: Prepared, n_members: int, seed: int) -> None:
    members, planted = plant(prepared, n_members, seed)
    assert find_misaligned(members, planted) == []


@pytest.mark.parametrize("n_members", [2, 3])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_member_is_named_with_the_reason(
    prepared: Prepared, damage: str, n_members: int
) -> None:
    members, planted = plant(prepared, n_members)
    change, reason = DAMAGES[damage]
    members[-1] = replace(members[-1], test=change(members[-1].test, planted))
    (found,) = find_misaligned(members, planted)
    assert (found.member, found.side) == (members[-1].name, "test")
    assert reason in found.text
    assert f"{members[-1].name} agrees with m" in found.text
    assert find_misaligned(members, planted, ["m0"]) == []


def test_a_member_alone_is_judged_by_the_types_of_the_entities(prepared: Prepared) -> None:
    (member,), planted = plant(prepared, 1)
    wrong = replace(member, test=np.roll(member.test, 1, axis=1))
    (found,) = find_misaligned([wrong], planted)
    assert "fit the types of the entities" in found.text
    assert "are 1 row too late" in found.text


def test_out_of_fold_rows_may_be_the_wrong_ones(prepared: Prepared) -> None:
    members, planted = plant(prepared, 3)
    members[0] = replace(members[0], oof=np.roll(members[0].oof, 1, axis=0))
    (found,) = find_misaligned(members, planted)
    assert (found.member, found.side) == ("m0", "oof")
    assert "out-of-fold predictions are 1 row too late" in found.text


def test_one_fold_may_be_the_wrong_one(prepared: Prepared) -> None:
    members, planted = plant(prepared, 2)
    test = members[1].test.copy()
    test[2] = test[2][::-1]
    members[1] = replace(members[1], test=test)
    (found,) = find_misaligned(members, planted)
    assert "the test predictions of fold 2" in found.text
