"""Ensembles: greedy selection, the search, and members that are dropped."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from competition.blend.objective import Evaluator
from competition.blend.pooling import build_pooled_rows, pool
from competition.blend.search import (
    BEST_SINGLE,
    BLEND,
    CONVEX,
    GREEDY,
    MIN_SUM,
    SYSTEMS,
    UNIFORM,
    SearchPlan,
    drop_members,
    fit_points,
    scale_point,
    search_weights,
    select_greedily,
)
from tests.competition.klue_scores import auprc, criteria_of, micro_f1
from tests.competition.planted import NEGATIVE_ID, plant

PLAN = SearchPlan(trials=25, seed=0)


def make_rows(seed=0, names=("sees-1-2", "sees-3-4", "useless"), negative_id=NEGATIVE_ID):
    members, gold, _ = plant(1200, seed, names)
    return build_pooled_rows(members, gold, criteria_of(negative_id))


def tune_singles(evaluator):
    return [evaluator.measure(weights) for weights in np.eye(len(evaluator.rows.logs))]


def everyone(rows):
    return np.arange(len(rows.logs))


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_pair_beats_the_best_single_and_the_useless_member_weighs_little(seed):
    points = fit_points(make_rows(seed), PLAN).points
    blend = points[BLEND]
    assert blend.primary > points[BEST_SINGLE].primary + 0.05
    assert blend.weights[2] < 0.12 * blend.weights.sum()
    assert points[GREEDY].primary >= points[BEST_SINGLE].primary


@pytest.mark.parametrize("negative_id", [NEGATIVE_ID, None])
@pytest.mark.parametrize("trials", [0, 3, 25])
def test_the_blend_is_never_below_a_comparator_on_what_it_optimises(negative_id, trials):
    rows = make_rows(negative_id=negative_id)
    points = fit_points(rows, SearchPlan(trials, 1)).points
    assert set(points) == set(SYSTEMS)
    assert points[BLEND].primary >= points[CONVEX].primary
    total = points[CONVEX].weights.sum()
    for name in SYSTEMS:
        assert points[BLEND].primary >= scale_point(Evaluator(rows), points[name], total).primary
        assert (points[name].rule.threshold is None) == (negative_id is None)


def warm(rows, power):
    """Raise all members' probabilities to a power: above 1 they are surer than they are right."""
    raised = rows.logs * np.float32(power)
    raised -= np.log(np.exp(raised).sum(axis=1, keepdims=True))
    return replace(rows, logs=raised)


@pytest.mark.parametrize("objective", ["micro-f1", "auprc", "both"])
@pytest.mark.parametrize("power", [0.4, 3.0])
def test_the_blend_has_the_temperature_of_the_convex_fit_whatever_wins(power, objective):
    rows = warm(make_rows(), power)
    for trials in (0, 6):
        points = fit_points(rows, SearchPlan(trials, 0, None, objective)).points
        total = points[CONVEX].weights.sum()
        assert abs(total - 1) > 0.3
        assert points[BLEND].weights.sum() == pytest.approx(total)
        again = Evaluator(rows, objective).measure(points[BLEND].weights)
        assert (again.primary, again.rule.threshold, again.secondary) == (
            points[BLEND].primary,
            points[BLEND].rule.threshold,
            points[BLEND].secondary,
        )


def test_a_sum_is_changed_with_all_that_follows_and_kept_above_nothing():
    evaluator = Evaluator(make_rows())
    point = evaluator.measure(np.array([0.4, 0.4, 0.2]))
    scaled = scale_point(evaluator, point, 2.0)
    np.testing.assert_allclose(scaled.weights, [0.8, 0.8, 0.4])
    assert scaled.rule.threshold > point.rule.threshold
    assert scale_point(evaluator, point, 0.0).weights.sum() == pytest.approx(MIN_SUM)
    nothing = evaluator.measure(np.zeros(3))
    assert scale_point(evaluator, nothing, 2.0) is nothing


def test_comparators_are_what_they_say():
    rows = make_rows()
    fit = fit_points(rows, SearchPlan(0, 0))
    points = fit.points
    assert points[UNIFORM].weights.tolist() == pytest.approx([1 / 3] * 3)
    assert points[BEST_SINGLE].primary == max(point.primary for point in fit.singles)
    assert [single.primary for single in fit.singles] == [
        p.primary for p in tune_singles(Evaluator(rows))
    ]
    assert sorted(points[BEST_SINGLE].weights) == [0, 0, 1]
    assert points[GREEDY].weights.sum() == pytest.approx(1)
    for point in points.values():
        assert Evaluator(rows).measure(point.weights).primary == point.primary


def test_one_member_is_tuned_alone_without_a_search():
    calls = []
    plan = SearchPlan(10, 0, lambda: calls.append(1))
    points = fit_points(make_rows(names=("sees-1-2",)), plan).points
    assert points[BLEND] is points[BEST_SINGLE]  # it must not lose to the member itself
    assert points[BEST_SINGLE].weights.tolist() == [1.0]
    assert not calls


def test_greedy_selection_starts_from_the_best_and_never_falls_below_it():
    evaluator = Evaluator(make_rows())
    singles = tune_singles(evaluator)
    found = select_greedily(evaluator, singles, np.arange(3))
    assert found.primary > max(point.primary for point in singles)
    worst = Evaluator(make_rows(names=("useless", "useless")))
    singles = tune_singles(worst)
    both = np.arange(2)
    assert select_greedily(worst, singles, both).primary >= max(point.primary for point in singles)
    alone = select_greedily(evaluator, tune_singles(evaluator), both[:1])
    assert alone.weights.tolist() == [1.0, 0.0, 0.0]


def test_members_that_are_not_selected_stay_out_of_the_blend_though_greedy_takes_some():
    taken_by_greedy = 0
    for seed in range(3):
        rows = make_rows(seed, names=("sees-1-2", "sees-3-4", *["useless"] * 4))
        few = np.arange(len(rows.gold)) < 240
        rows = replace(rows.take(few), folds=np.arange(240) % 3)
        for trials in (0, 5):
            fit = fit_points(rows, SearchPlan(trials, 0))
            dropped = [each.member for each in fit.selection.dropped]
            assert not fit.points[BLEND].weights[dropped].any()
            taken_by_greedy += bool(fit.points[GREEDY].weights[dropped].any())
    assert taken_by_greedy


def test_the_search_tries_its_starts_first_and_counts_every_trial():
    rows = make_rows()
    evaluator = Evaluator(rows)
    starts = [evaluator.measure(np.array([0.4, 0.6, 0.0])), *tune_singles(evaluator)]
    calls = []
    plan = SearchPlan(4, 0, lambda: calls.append(1))
    found = search_weights(evaluator, starts, everyone(rows), plan)
    assert len(calls) == len(found) == 4
    np.testing.assert_allclose([p.weights for p in found], [p.weights for p in starts])


def test_the_search_weighs_kept_members_only_and_holds_the_sum_of_its_starts():
    rows = make_rows()
    evaluator = Evaluator(rows)
    starts = [evaluator.measure(w) for w in (np.array([0.9, 0.9, 0.0]), *1.8 * np.eye(3)[:2])]
    found = search_weights(evaluator, starts, np.array([0, 1]), SearchPlan(8, 0))
    weights = np.array([point.weights for point in found])
    assert not weights[:, 2].any()
    np.testing.assert_allclose(weights.sum(axis=1), 1.8)
    np.testing.assert_allclose(weights[:3], [each.weights for each in starts[:3]])


def test_the_same_seed_finds_the_same_and_optuna_stays_silent(caplog, capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    rows = make_rows()
    evaluator = Evaluator(rows)
    singles = tune_singles(evaluator)
    with caplog.at_level(logging.INFO):
        first, again = (search_weights(evaluator, singles, everyone(rows), PLAN) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.weights.tobytes() == other.weights.tobytes()
        assert one.rule.threshold == other.rule.threshold
    assert "".join(capfd.readouterr()) == ""
    assert not caplog.records
    assert optuna.logging.get_verbosity() == before


def test_a_member_without_use_is_dropped_and_one_of_use_is_kept():
    rows = make_rows()
    pair = build_pooled_rows(plant(1200)[0][:2], rows.gold, criteria_of(NEGATIVE_ID))
    good = Evaluator(pair).measure(np.array([1.0, 1.0]))
    assert (drop_members(Evaluator(pair), good).weights > 0).all()
    evaluator = Evaluator(rows)
    burdened = evaluator.measure(np.array([0.9, 0.9, 0.5]))
    lighter = drop_members(evaluator, burdened)
    assert lighter.weights[2] == 0
    assert lighter.weights.sum() == pytest.approx(burdened.weights.sum())
    assert lighter.primary >= burdened.primary
    assert auprc(rows.gold, pool(rows.logs, lighter.weights)) >= auprc(
        rows.gold, pool(rows.logs, burdened.weights)
    )
    assert (drop_members(evaluator, tune_singles(evaluator)[0]).weights > 0).sum() == 1


def test_an_objective_is_best_at_what_it_aims_at():
    rows = make_rows()
    fits = {goal: fit_points(rows, SearchPlan(25, 0, None, goal)) for goal in ("auprc", "both")}
    plain = fit_points(rows, PLAN)

    def area(point):
        return auprc(rows.gold, pool(rows.logs, point.weights))

    for goal, key in (("auprc", "secondary"), ("both", "primary")):
        points = fits[goal].points
        total = points[CONVEX].weights.sum()
        for name in SYSTEMS:
            scaled = scale_point(Evaluator(rows, goal), points[name], total)
            assert getattr(points[BLEND], key) >= getattr(scaled, key)
    assert fits["auprc"].points[BLEND].secondary == area(fits["auprc"].points[BLEND])
    assert fits["auprc"].points[BLEND].secondary >= area(plain.points[BLEND])
    assert plain.points[BLEND].secondary is None


def test_the_front_holds_what_none_beats_and_the_kept_point_is_not_beaten():
    fit = fit_points(make_rows(), SearchPlan(25, 0, None, "both"))
    front = fit.front
    assert [p.primary for p in front] == sorted((p.primary for p in front), reverse=True)
    assert [p.secondary for p in front] == sorted(p.secondary for p in front)
    kept = fit.points[BLEND]
    total = fit.points[CONVEX].weights.sum()
    for name in (BEST_SINGLE, UNIFORM, CONVEX, GREEDY):
        other = scale_point(Evaluator(make_rows(), "both"), fit.points[name], total)
        assert not (other.primary > kept.primary)
        assert not (other.primary == kept.primary and other.secondary > kept.secondary)


def test_weighed_rows_are_what_is_fitted_and_scored():
    rows = make_rows()
    weights = np.where(rows.gold == NEGATIVE_ID, 2.0, 0.4)
    weighted = replace(rows, weights=weights / weights.mean())
    fit = fit_points(weighted, PLAN)
    point = fit.points[BLEND]
    probs = pool(rows.logs, point.weights)
    pred = np.where(
        probs[:, 1:].max(axis=1) >= point.rule.threshold, probs[:, 1:].argmax(axis=1) + 1, 0
    )
    assert point.primary == pytest.approx(micro_f1(rows.gold, pred, NEGATIVE_ID, weighted.weights))
    even = np.array([1.0, 1.0, 0.0])
    assert (
        Evaluator(weighted).measure(even).rule.threshold
        > Evaluator(rows).measure(even).rule.threshold
    )
    doubled = make_rows()
    twice = replace(doubled, weights=np.ones(len(doubled.gold)))
    assert fit_points(twice, PLAN).points[BLEND].primary == pytest.approx(
        fit_points(doubled, PLAN).points[BLEND].primary
    )
