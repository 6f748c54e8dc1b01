"""The nested estimate sees held-out rows only, and the blend is applied as it was fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from competition.blend import (
    answer_alone,
    apply_blend,
    count_nested_fits,
    estimate_nested,
    fit_blend,
)
from competition.errors import BlendError
from competition.metrics import auprc, decide, micro_f1
from competition.pooling import build_pooled_rows, pool, pool_test
from competition.search import (
    BEST_SINGLE,
    BLEND,
    CONVEX,
    SYSTEMS,
    UNIFORM,
    SearchPlan,
    fit_points,
)
from competition.shrinkage import SHARES, fit_all, mix_weights
from tests.competition.planted import N_FOLDS, NEGATIVE_ID, plant

PLAN = SearchPlan(trials=15, seed=0)


@pytest.fixture(scope="module")
def planted():
    return plant(900)


def fit_planted(planted, plan=PLAN, negative_id=NEGATIVE_ID):
    members, gold, folds = planted
    rows = replace(build_pooled_rows(members, gold, negative_id), folds=folds)
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
        assert micro_f1(planted[1], fit.fitted[name].pred, NEGATIVE_ID) == pytest.approx(point.f1)
    assert fit.blend.weights == tuple(fit.fitted[BLEND].points[0].weights)
    assert fit.blend.threshold == fit.fitted[BLEND].points[0].threshold


def test_probabilities_are_untouched_by_the_decision(planted, fit):
    members, gold, _ = planted
    rows = build_pooled_rows(members, gold, NEGATIVE_ID)
    expected = pool(rows.logs, np.array(fit.blend.weights))
    assert fit.fitted[BLEND].probs.tobytes() == expected.tobytes()


def test_nested_answers_come_from_the_other_folds_alone(planted, fit):
    members, gold, folds = planted
    rows = build_pooled_rows(members, gold, NEGATIVE_ID)
    rows = replace(rows, folds=folds)
    for fold in range(N_FOLDS):
        points = fit_points(rows.take(folds != fold), PLAN).points
        held_out = rows.take(folds == fold)
        for name in SYSTEMS:
            probs = pool(held_out.logs, points[name].weights)
            estimate = fit.nested[name]
            assert estimate.probs[folds == fold].tobytes() == probs.tobytes()
            expected = decide(probs, NEGATIVE_ID, points[name].threshold)
            assert (estimate.pred[folds == fold] == expected).all()


@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_labels_of_a_fold_do_not_reach_its_own_answers(planted, fit, fold):
    members, gold, folds = planted
    shuffled = gold.copy()
    shuffled[folds == fold] = np.random.default_rng(0).permutation(gold[folds == fold])
    rows = build_pooled_rows(members, shuffled, NEGATIVE_ID)
    again = estimate_nested(rows, folds, PLAN)
    for name in SYSTEMS:
        kept, found = fit.nested[name], again[name]
        assert kept.points[fold].weights.tobytes() == found.points[fold].weights.tobytes()
        assert kept.points[fold].threshold == found.points[fold].threshold
        assert (kept.pred[folds == fold] == found.pred[folds == fold]).all()
    others = [k for k in range(N_FOLDS) if k != fold]
    changed = [fit.nested[UNIFORM].points[k].f1 != again[UNIFORM].points[k].f1 for k in others]
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
    assert probs.tobytes() == pool_test(members, np.array(fit.blend.weights)).tobytes()
    assert (pred == decide(probs, NEGATIVE_ID, fit.blend.threshold)).all()


def test_other_members_than_the_fitted_ones_are_refused(planted, fit):
    members = planted[0]
    with pytest.raises(BlendError, match="same order"):
        apply_blend(fit.blend, members[::-1])


def test_without_a_negative_label_the_most_probable_label_is_taken(planted):
    fit = fit_planted(planted, SearchPlan(5, 0), None)
    assert fit.blend.threshold is None
    for estimate in (*fit.fitted.values(), *fit.nested.values()):
        assert (estimate.pred == estimate.probs.argmax(axis=1)).all()


def test_one_member_gets_a_threshold_and_a_nested_estimate(planted):
    members, gold, folds = planted
    fit = fit_planted((members[:1], gold, folds))
    assert fit.blend.weights[0] > 0
    assert fit.blend.threshold is not None
    assert micro_f1(gold, fit.nested[BLEND].pred, NEGATIVE_ID) > 0.3


def test_rows_without_folds_are_refused(planted):
    members, gold, _ = planted
    with pytest.raises(BlendError, match="across folds"):
        fit_blend(["a"], build_pooled_rows(members[:1], gold, NEGATIVE_ID), PLAN)


def test_each_member_alone_is_decided_by_a_threshold_of_the_other_folds(planted, fit):
    members, gold, folds = planted
    rows = replace(build_pooled_rows(members, gold, NEGATIVE_ID), folds=folds)
    for place in range(len(members)):
        probs = answer_alone(rows, place)
        threshold = fit.fit.singles[place].threshold
        assert (fit.single_preds[0, place] == decide(probs, NEGATIVE_ID, threshold)).all()
        for fold in range(N_FOLDS):
            inside = fit_points(rows.take(folds != fold), PLAN).singles[place].threshold
            expected = decide(probs[folds == fold], NEGATIVE_ID, inside)
            assert (fit.single_preds[1, place, folds == fold] == expected).all()


@pytest.mark.parametrize("shrink", [False, True])
def test_nested_answers_are_pooled_at_the_temperatures_of_the_convex_fits(planted, shrink):
    members, gold, folds = planted
    sharp = [
        replace(each, oof=each.oof**4 / (each.oof**4).sum(axis=1)[:, None]) for each in members
    ]
    rows = build_pooled_rows(sharp, gold, NEGATIVE_ID)
    calls = []
    plan = SearchPlan(10, 0, lambda: calls.append(1), shrink=shrink)
    nested = estimate_nested(rows, folds, plan)
    convex = [point.weights.sum() for point in nested[CONVEX].points]
    assert max(convex) < 0.6
    np.testing.assert_allclose([p.weights.sum() for p in nested[BLEND].points], convex)
    assert len(calls) == 10 * count_nested_fits(N_FOLDS, shrink=shrink)
    if not shrink:  # pooled at two temperatures, the blend's area was 2 points below
        assert auprc(gold, nested[BLEND].probs) >= auprc(gold, nested[CONVEX].probs)


def test_shrinking_goes_as_far_back_to_the_convex_weights_as_the_folds_say(planted):
    members, gold, folds = planted
    rows = replace(build_pooled_rows(members, gold, NEGATIVE_ID), folds=folds)
    plan = SearchPlan(8, 0, shrink=True)
    found = fit_all(rows, plan)
    plain = fit_all(rows, replace(plan, shrink=False))
    assert plain.shrinkage is None
    assert found.shrinkage in SHARES
    expected = mix_weights(plain, found.shrinkage)
    np.testing.assert_allclose(found.points[BLEND].weights, expected)
    convex = plain.points["convex"].weights
    np.testing.assert_allclose(mix_weights(plain, 1.0), convex)
    np.testing.assert_allclose(mix_weights(plain, 0.0), plain.points[BLEND].weights)
