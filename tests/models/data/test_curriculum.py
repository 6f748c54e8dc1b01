from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.curriculum import (
    TIES,
    CurriculumPace,
    measure_competence,
    plan_curriculum_epoch,
    rank_by_difficulty,
    rank_within_labels,
)
from models.settings import CurriculumSettings

SETTINGS = CurriculumSettings(by="length", start_competence=0.2, pace_frac=0.5)


@given(
    st.integers(1, 500),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
)
def test_competence_grows_from_its_start_to_all_rows(
    total_steps: int, start: float, pace: float
) -> None:
    settings = CurriculumSettings(by="length", start_competence=start, pace_frac=pace)
    shares = [measure_competence(step, total_steps, settings) for step in range(total_steps + 1)]
    assert shares[0] == pytest.approx(start)
    assert shares == sorted(shares)
    full = math.ceil(max(1.0, pace * total_steps))
    assert shares[min(full, total_steps)] == pytest.approx(1.0)


def test_the_square_root_shows_as_many_new_rows_early_as_its_equation_says() -> None:
    halfway = measure_competence(25, 100, SETTINGS)
    assert halfway == pytest.approx(math.sqrt(0.5 * (1 - 0.2**2) + 0.2**2))


def test_easy_rows_come_first_and_ties_are_drawn_once_per_job() -> None:
    difficulty = np.repeat([2.0, 0.0, 1.0], 20)
    order = rank_by_difficulty(difficulty, seed=42, fold=1)
    assert sorted(order.tolist()) == list(range(60))
    assert difficulty[order].tolist() == sorted(difficulty.tolist())
    assert order[:20].tolist() != list(range(20, 40)), "ties in file order"
    assert order.tolist() == rank_by_difficulty(difficulty, seed=42, fold=1).tolist()
    assert order.tolist() != rank_by_difficulty(difficulty, seed=42, fold=2).tolist()


def test_the_order_of_ties_differs_from_the_shuffle_of_any_epoch() -> None:
    first_epoch = np.random.default_rng([42, 1, 0]).permutation(60)
    assert first_epoch.tolist() == np.random.default_rng([42, 1]).permutation(60).tolist()
    assert TIES > 0
    ties = rank_by_difficulty(np.zeros(60), seed=42, fold=1)
    assert ties.tolist() != first_epoch.tolist()


@pytest.mark.parametrize("bucket_steps", [1, 3])
@pytest.mark.parametrize("total", [7, 64, 101])
def test_no_row_is_used_before_competence_allows_it(total: int, bucket_steps: int) -> None:
    lengths = np.random.default_rng(1).integers(5, 50, total)
    difficulty = np.random.default_rng(2).random(total)
    order = rank_by_difficulty(difficulty, seed=0, fold=0)
    rank = np.argsort(order)
    steps_per_epoch = math.ceil(total / 8)
    pace = CurriculumPace(SETTINGS, 3 * steps_per_epoch, batch_rows=8, bucket_steps=bucket_steps)
    for epoch in range(3):
        plan = plan_curriculum_epoch(order, lengths, pace, epoch, np.random.default_rng(epoch))
        sizes = [len(step) for step in plan]
        assert len(plan) == steps_per_epoch
        assert sum(sizes) == total
        assert sorted(sizes)[1:] == [8] * (steps_per_epoch - 1)
        for at, step in enumerate(plan):
            competence = measure_competence(
                epoch * steps_per_epoch + at, pace.total_steps, SETTINGS
            )
            assert rank[step].max() < max(1, round(competence * total))


def test_a_pool_repeats_no_row_before_it_has_shown_them_all() -> None:
    order = np.arange(40)
    always_ten = CurriculumSettings(by="length", start_competence=0.25, pace_frac=1.0)
    pace = CurriculumPace(always_ten, 10**9, batch_rows=4, bucket_steps=5)
    plan = plan_curriculum_epoch(order, order, pace, 0, np.random.default_rng(0))
    for pool in (plan[:5], plan[5:]):
        counts = np.bincount(np.concatenate(pool), minlength=40)
        assert counts.tolist() == [2] * 10 + [0] * 30


@pytest.mark.parametrize(("pace_frac", "once"), [(0.2, 1.0), (0.4, 1.0), (0.5, 0.95)])
def test_an_epoch_shows_every_row_once(pace_frac: float, once: float) -> None:
    """In the first of two epochs; only rows not yet available in its last pool are missing."""
    settings = CurriculumSettings(by="length", start_competence=0.1, pace_frac=pace_frac)
    order = np.random.default_rng(4).permutation(1000)
    pace = CurriculumPace(settings, 2 * 125, batch_rows=8, bucket_steps=5)
    plan = plan_curriculum_epoch(order, np.arange(1000), pace, 0, np.random.default_rng(0))
    counts = np.bincount(np.concatenate(plan), minlength=1000)
    assert np.mean(counts == 1) >= once
    assert counts.max() <= 2


def test_ranks_within_labels_put_every_label_among_the_easiest() -> None:
    difficulty = np.concatenate([np.linspace(0, 0.3, 90), np.linspace(0.9, 1, 10)])
    labels = np.repeat([0, 1], [90, 10])
    easiest = rank_by_difficulty(rank_within_labels(difficulty, labels), seed=0, fold=0)[:20]
    assert np.bincount(labels[easiest]).tolist() == [18, 2]
    assert difficulty[easiest[labels[easiest] == 1]].max() == pytest.approx(0.9 + 0.1 / 9)


def test_a_pool_is_sorted_by_length() -> None:
    lengths = np.random.default_rng(3).permutation(64)
    pace = CurriculumPace(SETTINGS, 1, batch_rows=8, bucket_steps=8)
    plan = plan_curriculum_epoch(np.arange(64), lengths, pace, 1, np.random.default_rng(0))
    spans = sorted((int(lengths[step].min()), int(lengths[step].max())) for step in plan)
    assert spans == [(at, at + 7) for at in range(0, 64, 8)]
    assert [int(lengths[step].min()) for step in plan] != sorted(low for low, _ in spans)
