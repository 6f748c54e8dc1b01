"""Ways of weighing: greedy picks, the search, and members that are dropped."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from competition.metrics import auprc
from competition.pooling import build_pooled_rows, pool
from competition.search import (
    BEST_SINGLE,
    BLEND,
    GREEDY,
    SYSTEMS,
    UNIFORM,
    SearchPlan,
    drop_members,
    fit_points,
    search_weights,
    select_greedily,
    tune_point,
)
from tests.competition.planted import NEGATIVE_ID, plant

PLAN = SearchPlan(trials=25, seed=0)


def make_rows(seed=0, names=("sees-1-2", "sees-3-4", "useless"), negative_id=NEGATIVE_ID):
    members, gold, _ = plant(1200, seed, names)
    return build_pooled_rows(members, gold, negative_id)


def tune_singles(rows):
    return [tune_point(rows, weights) for weights in np.eye(len(rows.logs))]


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_pair_beats_the_best_single_and_the_useless_member_weighs_little(seed):
    points = fit_points(make_rows(seed), PLAN)
    blend = points[BLEND]
    assert blend.f1 > points[BEST_SINGLE].f1 + 0.05
    assert blend.weights[2] < 0.12 * blend.weights.sum()
    assert points[GREEDY].f1 >= points[BEST_SINGLE].f1


@pytest.mark.parametrize("negative_id", [NEGATIVE_ID, None])
@pytest.mark.parametrize("trials", [0, 3, 25])
def test_the_blend_is_never_below_a_comparator_on_what_it_optimises(negative_id, trials):
    points = fit_points(make_rows(negative_id=negative_id), SearchPlan(trials, 1))
    assert set(points) == set(SYSTEMS)
    for name in SYSTEMS:
        assert points[BLEND].f1 >= points[name].f1
        assert (points[name].threshold is None) == (negative_id is None)


def test_comparators_are_what_they_say():
    rows = make_rows()
    points = fit_points(rows, SearchPlan(0, 0))
    assert points[UNIFORM].weights.tolist() == pytest.approx([1 / 3] * 3)
    assert points[BEST_SINGLE].f1 == max(point.f1 for point in tune_singles(rows))
    assert sorted(points[BEST_SINGLE].weights) == [0, 0, 1]
    assert points[GREEDY].weights.sum() == pytest.approx(1)
    for point in points.values():
        assert tune_point(rows, point.weights).f1 == point.f1


def test_one_member_is_tuned_alone_without_a_search():
    calls = []
    plan = SearchPlan(10, 0, lambda: calls.append(1))
    points = fit_points(make_rows(names=("sees-1-2",)), plan)
    for point in points.values():
        assert point.f1 <= points[BLEND].f1
    assert points[BEST_SINGLE].weights.tolist() == [1.0]
    assert not calls


def test_greedy_selection_starts_from_the_best_and_never_falls_below_it():
    rows = make_rows()
    singles = tune_singles(rows)
    found = select_greedily(rows, singles)
    assert found.f1 > max(point.f1 for point in singles)
    worst = make_rows(names=("useless", "useless"))
    singles = tune_singles(worst)
    assert select_greedily(worst, singles).f1 >= max(point.f1 for point in singles)


def test_the_search_tries_its_starts_first_and_counts_every_trial():
    rows = make_rows()
    starts = [*tune_singles(rows), tune_point(rows, np.array([0.8, 0.9, 0.0]))]
    calls = []
    found = search_weights(rows, starts, SearchPlan(4, 0, lambda: calls.append(1)))
    assert len(calls) == 4
    assert found.f1 == max(start.f1 for start in starts)


def test_the_same_seed_finds_the_same_and_optuna_stays_silent(caplog, capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    rows = make_rows()
    singles = tune_singles(rows)
    with caplog.at_level(logging.INFO):
        first, again = (search_weights(rows, singles, PLAN) for _ in range(2))
    assert first.weights.tobytes() == again.weights.tobytes()
    assert first.threshold == again.threshold
    assert "".join(capfd.readouterr()) == ""
    assert not caplog.records
    assert optuna.logging.get_verbosity() == before


def test_a_member_without_use_is_dropped_and_one_of_use_is_kept():
    rows = make_rows()
    copies = build_pooled_rows(plant(1200)[0][:2], rows.gold, NEGATIVE_ID)
    good = tune_point(copies, np.array([1.0, 1.0]))
    assert (drop_members(copies, good).weights > 0).all()
    burdened = tune_point(rows, np.array([0.9, 0.9, 0.5]))
    lighter = drop_members(rows, burdened)
    assert lighter.weights[2] == 0
    assert lighter.f1 >= burdened.f1
    assert auprc(rows.gold, pool(rows.logs, lighter.weights)) >= auprc(
        rows.gold, pool(rows.logs, burdened.weights)
    )
    assert (drop_members(rows, tune_singles(rows)[0]).weights > 0).sum() == 1
