"""The nested estimate sees held-out rows only, and the blend is applied as it was fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from competition.blend import fit as fit_room
from competition.blend import pooling
from competition.blend.fit import (
    apply_blend,
    estimate_nested,
    estimate_single,
    fit_blend,
)
from competition.blend.pooling import (
    FLATTER,
    SHARPER,
    build_pooled_rows,
    choose_temperature,
    pool,
    pool_test,
)
from competition.blend.search import (
    BEST_SINGLE,
    BLEND,
    CONVEX,
    SYSTEMS,
    UNIFORM,
    SearchPlan,
    fit_points,
)
from competition.errors import BlendError
from competition.scoring.decisions import unflatten
from tests.competition.klue_scores import auprc, criteria_of, decide, micro_f1
from tests.competition.planted import N_FOLDS, NEGATIVE_ID, plant, softmax

PLAN = SearchPlan(trials=15, seed=0)


@pytest.fixture(scope="module")
def planted():
    return plant(900)


def fit_planted(planted, plan=PLAN, negative_id=NEGATIVE_ID):
    members, gold, folds = planted
    rows = replace(build_pooled_rows(members, gold, criteria_of(negative_id)), folds=folds)
    return fit_blend([member.name for member in members], rows, plan)


@pytest.fixture(scope="module")
def fit(planted):
    return fit_planted(planted)


def test_the_planted_blend_beats_the_best_single_nested_too(planted, fit):
    gold = planted[1]
    for estimates in (fit.fitted, fit.nested):
        scores = {name: micro_f1(gold, e.pred, NEGATIVE_ID) for name, e in estimates.items()}
        areas = {name: auprc(gold, e.probs) for name, e in estimates.items()}
        assert scores[BLEND] > scores[BEST_SINGLE] + 0.04
        assert areas[BLEND] > areas[BEST_SINGLE] + 0.04


def test_fitted_scores_are_those_the_points_promise(planted, fit):
    for name in SYSTEMS:
        (point,) = fit.fitted[name].points
        assert micro_f1(planted[1], fit.fitted[name].pred, NEGATIVE_ID) == pytest.approx(
            point.primary
        )
    assert fit.blend.weights == tuple(fit.fitted[BLEND].points[0].weights)
    assert fit.blend.rule.threshold == fit.fitted[BLEND].points[0].rule.threshold


def test_probabilities_are_untouched_by_the_decision(planted, fit):
    members, gold, _ = planted
    rows = build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID))
    expected = pool(rows.logs, np.array(fit.blend.weights), temperature=fit.blend.temperature)
    assert fit.fitted[BLEND].probs.tobytes() == expected.tobytes()


def test_nested_answers_come_from_the_other_folds_alone(planted, fit):
    members, gold, folds = planted
    rows = build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID))
    rows = replace(rows, folds=folds)
    for fold in range(N_FOLDS):
        others = rows.take(folds != fold)
        points = fit_points(others, PLAN).points
        held_out = rows.take(folds == fold)
        for name in SYSTEMS:
            weights = points[name].weights
            estimate = fit.nested[name]
            temperature = choose_temperature(others, weights)
            assert estimate.points[fold].temperature == temperature
            ranked = pool(held_out.logs, weights, temperature=temperature)
            assert estimate.probs[folds == fold].tobytes() == ranked.tobytes()
            probs = pool(held_out.logs, weights)
            expected = decide(probs, NEGATIVE_ID, points[name].rule.threshold)
            assert (estimate.pred[folds == fold] == expected).all()


@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_labels_of_a_fold_do_not_reach_its_own_answers(planted, fit, fold):
    members, gold, folds = planted
    shuffled = gold.copy()
    shuffled[folds == fold] = np.random.default_rng(0).permutation(gold[folds == fold])
    rows = build_pooled_rows(members, shuffled, criteria_of(NEGATIVE_ID))
    again = estimate_nested(rows, folds, PLAN)
    for name in SYSTEMS:
        kept, found = fit.nested[name], again[name]
        assert kept.points[fold].weights.tobytes() == found.points[fold].weights.tobytes()
        assert kept.points[fold].rule.threshold == found.points[fold].rule.threshold
        assert kept.points[fold].temperature == found.points[fold].temperature
        assert (kept.pred[folds == fold] == found.pred[folds == fold]).all()
    others = [k for k in range(N_FOLDS) if k != fold]
    changed = [
        fit.nested[UNIFORM].points[k].primary != again[UNIFORM].points[k].primary for k in others
    ]
    assert all(changed)


def test_the_best_single_is_chosen_inside_the_folds():
    """Fold 0 favours one member so strongly that choosing on all rows would pick it."""
    members, gold, folds = plant(900, names=("sees-1-2", "useless"))
    oof = members[1].oof.copy()
    oof[folds == 0] = np.eye(5, dtype=np.float32)[gold[folds == 0]]
    oof[folds != 0] = 0.2
    members[1].oof[:] = oof
    members[0].oof[folds == 0] = 0.2
    fit = fit_planted((members, gold, folds), SearchPlan(0, 0))
    chosen = [int(point.weights.argmax()) for point in fit.nested[BEST_SINGLE].points]
    assert chosen[0] == 0
    assert micro_f1(gold[folds == 0], fit.nested[BEST_SINGLE].pred[folds == 0], NEGATIVE_ID) < 0.8


def test_the_same_inputs_and_seed_give_the_same_bytes(planted, fit):
    again = fit_planted(planted)
    assert again.blend == fit.blend
    for name in SYSTEMS:
        assert again.nested[name].probs.tobytes() == fit.nested[name].probs.tobytes()


def test_the_blend_is_applied_as_it_was_fitted(planted, fit):
    members = planted[0]
    probs, pred = apply_blend(fit.blend, members)
    pooled = pool_test(members, np.array(fit.blend.weights))
    assert probs.tobytes() == pooled.tobytes()
    assert (pred == decide(pooled, NEGATIVE_ID, fit.blend.rule.threshold)).all()
    flat, again = apply_blend(replace(fit.blend, temperature=2.8), members)
    assert (again == pred).all()
    np.testing.assert_allclose(unflatten(flat, 2.8), pooled, rtol=2e-6)
    assert flat.max(axis=1).mean() < pooled.max(axis=1).mean() - 0.1


def test_other_members_than_the_fitted_ones_are_refused(planted, fit):
    members = planted[0]
    with pytest.raises(BlendError, match="same order"):
        apply_blend(fit.blend, members[::-1])


def test_without_a_negative_label_the_most_probable_label_is_taken(planted):
    fit = fit_planted(planted, SearchPlan(5, 0), None)
    assert fit.blend.rule.threshold is None
    for estimate in (*fit.fitted.values(), *fit.nested.values()):
        assert (estimate.pred == estimate.probs.argmax(axis=1)).all()


def test_one_member_gets_a_threshold_and_a_nested_estimate(planted):
    members, gold, folds = planted
    fit = fit_planted((members[:1], gold, folds))
    assert fit.blend.weights[0] > 0
    assert fit.blend.rule.threshold is not None
    assert micro_f1(gold, fit.nested[BLEND].pred, NEGATIVE_ID) > 0.3


def test_rows_without_folds_are_refused(planted):
    members, gold, _ = planted
    with pytest.raises(BlendError, match="across folds"):
        fit_blend(["a"], build_pooled_rows(members[:1], gold, criteria_of(NEGATIVE_ID)), PLAN)


def test_each_member_alone_is_decided_by_a_threshold_of_the_other_folds(planted, fit):
    members, gold, folds = planted
    rows = replace(build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID)), folds=folds)
    for place in range(len(members)):
        probs = pool(rows.logs[place : place + 1], np.ones(1))
        threshold = fit.fit.singles[place].rule.threshold
        fitted = estimate_single(rows, place, {None: fit.fit})
        nested = estimate_single(rows, place, fit.inside)
        assert (fitted.pred == decide(probs, NEGATIVE_ID, threshold)).all()
        for fold in range(N_FOLDS):
            inside = fit_points(rows.take(folds != fold), PLAN).singles[place].rule.threshold
            expected = decide(probs[folds == fold], NEGATIVE_ID, inside)
            assert (nested.pred[folds == fold] == expected).all()


def test_nested_answers_are_pooled_at_the_temperatures_of_the_convex_fits(planted):
    members, gold, folds = planted
    sharp = [
        replace(each, oof=each.oof**4 / (each.oof**4).sum(axis=1)[:, None]) for each in members
    ]
    rows = build_pooled_rows(sharp, gold, criteria_of(NEGATIVE_ID))
    calls = []
    plan = SearchPlan(10, 0, lambda: calls.append(1))
    nested = estimate_nested(rows, folds, plan)
    convex = [point.weights.sum() for point in nested[CONVEX].points]
    assert max(convex) < 0.6
    np.testing.assert_allclose([p.weights.sum() for p in nested[BLEND].points], convex)
    assert len(calls) == 10 * N_FOLDS
    # pooled at two temperatures, the blend's area was 2 points below
    assert auprc(gold, nested[BLEND].probs) >= auprc(gold, nested[CONVEX].probs)


def make_too_sure(member, rows=slice(None), seed=0):
    """Square a member's probabilities and add chance to its negative label's, on some rows."""
    logs = 2.0 * np.log(member.oof.astype(np.float64))
    logs[:, NEGATIVE_ID] += np.random.default_rng(seed).normal(0, 6.0, len(logs))
    oof = member.oof.copy()
    oof[rows] = softmax(logs)[rows]
    return replace(member, oof=oof)


def plant_too_sure():
    members, gold, folds = plant(1500, 1, ("sees-1-2", "sees-3-4"))
    return [make_too_sure(member, seed=seed) for seed, member in enumerate(members)], gold, folds


def test_a_pool_that_is_too_sure_ranks_better_flattened_and_decides_the_same(monkeypatch):
    members, gold, folds = plant_too_sure()
    rows = replace(build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID)), folds=folds)
    flat = estimate_nested(rows, folds, PLAN)
    monkeypatch.setattr(fit_room, "choose_temperature", lambda rows, weights: 1.0)
    plain = estimate_nested(rows, folds, PLAN)
    for name in SYSTEMS:
        assert (plain[name].pred == flat[name].pred).all()
        assert [point.temperature for point in plain[name].points] == [1.0] * N_FOLDS
    for name in (BEST_SINGLE, UNIFORM):
        assert [point.temperature for point in flat[name].points] == [2.0] * N_FOLDS
        assert auprc(gold, flat[name].probs) > auprc(gold, plain[name].probs) + 0.004
    assert flat[CONVEX].points[0].temperature == 1.0  # the convex fit is not too sure


@pytest.mark.parametrize(("least", "expected"), [(0.0, {0.7, 1.4, 2.0}), (0.005, {1.0, 2.0})])
def test_a_temperature_is_the_best_of_a_few_or_one(monkeypatch, least, expected):
    monkeypatch.setattr(pooling, "MIN_GAIN", least)
    chosen = set()
    clean = plant(1500, 1, ("sees-1-2", "sees-3-4"))
    for (members, gold, _), size in ((clean, 0.25), (clean, 1.0), (plant_too_sure(), 0.5)):
        rows, weights = build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID)), np.full(2, size)
        areas = {
            each: auprc(gold, pool(rows.logs, weights, temperature=each))
            for each in (1.0, *FLATTER, *SHARPER)
        }
        found = choose_temperature(rows, weights)
        best = max(areas.values())
        assert areas[found] == pytest.approx(areas[1.0] if best < areas[1.0] + least else best)
        chosen.add(found)
    assert chosen == expected


def test_where_nothing_is_gained_the_temperature_is_one(monkeypatch):
    """Two labels: any temperature leaves every order of rows as it is."""
    monkeypatch.setattr(pooling, "MIN_GAIN", 0.0)
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 400)
    chance = rng.uniform(0.01, 0.99, 400) * 0.7 + 0.15 * gold
    probs = np.stack([1 - chance, chance], axis=1).astype(np.float32)
    rows = build_pooled_rows([replace(plant(10)[0][0], oof=probs)], gold, criteria_of(NEGATIVE_ID))
    assert choose_temperature(rows, np.ones(1)) == 1.0
    assert choose_temperature(replace(rows, gold=np.full(400, 7)), np.ones(1)) == 1.0


def test_a_temperature_is_chosen_on_the_other_folds_alone():
    """All folds but fold 0 are too sure; its rows would choose another temperature than it gets."""
    members, gold, folds = plant(1500, 1, ("sees-1-2",))
    rows = build_pooled_rows(
        [make_too_sure(members[0], folds != 0)], gold, criteria_of(NEGATIVE_ID)
    )
    assert choose_temperature(rows.take(folds == 0), np.ones(1)) == 1.0
    nested = estimate_nested(rows, folds, SearchPlan(0, 0))
    assert nested[BEST_SINGLE].points[0].temperature == 2.0
    held_out = rows.take(folds == 0)
    expected = pool(held_out.logs, np.ones(1), temperature=2.0)
    assert nested[BEST_SINGLE].probs[folds == 0].tobytes() == expected.tobytes()


def test_weighed_rows_choose_the_temperature():
    members, gold, folds = plant(1500, 1, ("sees-1-2",))
    rows = build_pooled_rows(
        [make_too_sure(members[0], folds != 0)], gold, criteria_of(NEGATIVE_ID)
    )
    weights = [np.where(chosen, 1.0, 1e-9) for chosen in (folds == 0, folds != 0)]
    found = [choose_temperature(replace(rows, weights=each), np.ones(1)) for each in weights]
    assert found == [1.0, 2.0]


def test_each_member_alone_is_ranked_at_its_own_temperature():
    members, gold, folds = plant_too_sure()
    rows = replace(build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID)), folds=folds)
    fit = fit_blend([each.name for each in members], rows, SearchPlan(0, 0))
    assert fit.fit.singles[0].temperature == 2.0
    expected = pool(rows.logs[:1], np.ones(1), temperature=2.0)
    assert estimate_single(rows, 0, {None: fit.fit}).probs.tobytes() == expected.tobytes()
    assert fit.blend.temperature == fit.fit.points[BLEND].temperature
