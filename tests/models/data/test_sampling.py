from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.data.batches import plan_epoch
from models.data.sampling import PlanFacts, build_planner, weigh_rows
from models.settings import SamplingSettings
from models.variant import Variant, resolve_variant

N = 203
LENGTHS = np.random.default_rng(0).integers(5, 60, N)
LABEL_IDS = np.minimum(np.random.default_rng(1).geometric(0.4, N) - 1, 5)
DIFFICULTY = np.random.default_rng(2).random(N)


def make_variant(name: str = "typed-punct", *overrides: tuple[str, Any]) -> Variant:
    small = (("train.batch_rows", 8), ("train.bucket_steps", 4))
    return resolve_variant(name, encoder="scratch", overrides=[*small, *overrides])


def make_facts(difficulty: Any = DIFFICULTY, total_steps: int = 78) -> PlanFacts:
    return PlanFacts(LENGTHS, LABEL_IDS, difficulty, total_steps)


def test_a_plain_epoch_is_a_seeded_shuffle() -> None:
    planner = build_planner(make_variant(), make_facts(None), seed=42, fold=3)
    for epoch in (0, 1, 7):
        wanted = plan_epoch(LENGTHS, 8, 4, np.random.default_rng([42, 3, epoch]))
        for got, step in zip(planner(epoch), wanted, strict=True):
            assert got.tobytes() == step.tobytes()


@pytest.mark.parametrize(
    "name", ["typed-punct", "weighted-sampling", "curriculum-length", "curriculum-difficulty"]
)
def test_an_epoch_depends_on_seed_fold_and_its_number_alone(name: str) -> None:
    variant, facts = make_variant(name), make_facts()
    whole = build_planner(variant, facts, seed=1, fold=2)
    in_order = [np.concatenate(whole(epoch)).tolist() for epoch in range(3)]
    later = build_planner(variant, facts, seed=1, fold=2)
    assert np.concatenate(later(2)).tolist() == in_order[2], "a resumed job has another plan"
    assert in_order[0] != in_order[1]
    for seed, fold in ((1, 3), (2, 2)):
        other = build_planner(variant, facts, seed=seed, fold=fold)
        assert np.concatenate(other(0)).tolist() != in_order[0]


@pytest.mark.parametrize(
    "name", ["typed-punct", "weighted-sampling", "curriculum-length", "curriculum-difficulty"]
)
def test_every_epoch_has_the_same_number_of_steps_and_rows(name: str) -> None:
    planner = build_planner(make_variant(name), make_facts(), seed=0, fold=0)
    for epoch in range(3):
        plan = planner(epoch)
        assert len(plan) == 26
        assert sorted(len(step) for step in plan) == [3] + [8] * 25
        places = np.concatenate(plan)
        assert places.dtype == np.int64
        assert 0 <= places.min() <= places.max() < N


def test_weights_depend_on_the_label_alone_and_power_one_levels_the_labels() -> None:
    weights = weigh_rows(LABEL_IDS, SamplingSettings(label_power=1.0))
    assert weights.sum() == pytest.approx(1.0)
    shares = np.bincount(LABEL_IDS, weights=weights)
    np.testing.assert_allclose(shares, 1 / 6)
    half = np.bincount(LABEL_IDS, weights=weigh_rows(LABEL_IDS, SamplingSettings(label_power=0.5)))
    roots = np.sqrt(np.bincount(LABEL_IDS))
    np.testing.assert_allclose(half, roots / roots.sum())


def test_a_label_absent_from_the_fold_does_not_change_weights() -> None:
    weights = weigh_rows(np.array([0, 4, 4, 4, 4]), SamplingSettings(label_power=0.5))
    assert np.isfinite(weights).all()
    assert weights[0] == pytest.approx(2 * weights[1])


def test_weighted_draws_follow_the_weights() -> None:
    variant = make_variant("weighted-sampling", ("sampling.label_power", 1.0))
    planner = build_planner(variant, make_facts(), seed=0, fold=0)
    drawn = np.concatenate([np.concatenate(planner(epoch)) for epoch in range(60)])
    shares = np.bincount(LABEL_IDS[drawn]) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 6, atol=0.02)
    assert len(np.unique(np.concatenate(planner(0)))) < N, "drawn without replacement"


def test_weighted_steps_hold_rows_of_similar_length() -> None:
    variant = make_variant("weighted-sampling", ("train.bucket_steps", 26))
    plan = build_planner(variant, make_facts(), seed=0, fold=0)(0)
    spread = np.mean([np.ptp(LENGTHS[step]) for step in plan])
    assert spread < 10 < np.ptp(LENGTHS)


@pytest.mark.parametrize(
    ("name", "hardness"), [("curriculum-length", LENGTHS), ("curriculum-difficulty", DIFFICULTY)]
)
def test_a_curriculum_starts_with_easy_rows_and_ends_in_plain_shuffles(
    name: str, hardness: Any
) -> None:
    variant = make_variant(name, ("curriculum.pace_frac", 0.5), ("train.bucket_steps", 1))
    planner = build_planner(variant, make_facts(), seed=5, fold=0)
    easy = np.quantile(hardness, 0.2)
    first = planner(0)
    assert hardness[first[0]].max() <= easy
    assert hardness[np.concatenate(first[-3:])].max() > easy
    plain = plan_epoch(LENGTHS, 8, 1, np.random.default_rng([5, 0, 2]))
    assert np.concatenate(planner(2)).tolist() == np.concatenate(plain).tolist()


def test_a_curriculum_by_difficulty_needs_difficulties() -> None:
    with pytest.raises(ValueError, match="difficulty"):
        build_planner(make_variant("curriculum-difficulty"), make_facts(None), seed=0, fold=0)
