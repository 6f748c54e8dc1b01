"""The pool is the formula, its fit is the convex optimum, and threads change no byte."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad
from threadpoolctl import threadpool_limits

from competition.blend import pooling
from competition.blend.pooling import (
    FLOOR,
    build_pooled_rows,
    check_memory,
    fit_convex,
    floored_logs,
    measure_curvature,
    measure_log_loss,
    pool,
    pool_test,
    tune_rule,
)
from competition.errors import BlendError
from tests.competition.klue_scores import best_threshold, criteria_of, decide, micro_f1
from tests.competition.planted import NEGATIVE_ID, plant

WEIGHTS = np.array([0.7, 0.5, 0.1])


@pytest.fixture
def rows():
    members, gold, _ = plant(700)
    return build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID))


def test_floored_logs_by_hand():
    floored = np.array([1.0, FLOOR, 0.25]) / (1.25 + FLOOR)
    logs = floored_logs(np.array([[1.0, 0.0, 0.25]], dtype=np.float32))
    assert logs.dtype == np.float32
    np.testing.assert_allclose(logs, np.log([floored]), rtol=1e-6)


def test_pool_by_hand():
    probs = np.array([[[0.7, 0.2, 0.1]], [[0.4, 0.5, 0.1]]])
    logs = floored_logs(probs).transpose(0, 2, 1).copy()
    expected = (0.8 * np.log(probs[0]) + 0.5 * np.log(probs[1])).squeeze()
    expected = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(pool(logs, np.array([0.8, 0.5]))[0], expected, rtol=1e-5)


def test_weights_of_nought_give_equal_probabilities(rows):
    np.testing.assert_allclose(pool(rows.logs, np.zeros(3)), 0.2, rtol=1e-6)


def test_one_member_of_weight_one_is_itself():
    members, gold, _ = plant(50)
    rows = build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID))
    np.testing.assert_allclose(
        pool(rows.logs, np.array([0.0, 1.0, 0.0])), members[1].oof, rtol=1e-4, atol=2 * FLOOR
    )


def test_the_size_of_blocks_changes_nothing(rows, monkeypatch):
    whole = pool(rows.logs, WEIGHTS)
    monkeypatch.setattr(pooling, "BLOCK_ROWS", 64)
    assert pool(rows.logs, WEIGHTS).tobytes() == whole.tobytes()


@pytest.mark.parametrize("negative_id", [NEGATIVE_ID, 3, None])
def test_tuning_in_the_pool_equals_tuning_on_its_probabilities(rows, negative_id):
    rows = replace(rows, criteria=criteria_of(negative_id))
    probs = pool(rows.logs, WEIGHTS)
    rule, score = tune_rule(rows, WEIGHTS)
    threshold = rule.threshold
    assert (threshold, score) == best_threshold(probs, rows.gold, negative_id)
    pred = decide(probs, negative_id, threshold)
    assert score == pytest.approx(micro_f1(rows.gold, pred, negative_id), abs=1e-12)


def test_gradient_of_the_log_loss(rows):
    off = check_grad(
        lambda w: measure_log_loss(rows, w)[0],
        lambda w: measure_log_loss(rows, w)[1],
        WEIGHTS,
        epsilon=1e-3,
    )
    assert off < 2e-3


def test_log_loss_equals_scikit_learns(rows):
    from sklearn.metrics import log_loss

    probs = pool(rows.logs, WEIGHTS).astype(np.float64)
    probs /= probs.sum(axis=1, keepdims=True)
    expected = log_loss(rows.gold, probs, labels=range(5))
    assert measure_log_loss(rows, WEIGHTS)[0] == pytest.approx(expected, rel=1e-5)


def test_convex_weights_are_the_optimum_and_leave_out_the_useless(rows):
    weights = fit_convex(rows)
    assert (weights >= 0).all()
    assert weights[2] < 0.05 * weights[0]
    best = measure_log_loss(rows, weights)[0]
    rng = np.random.default_rng(0)
    for _ in range(30):
        beside = np.maximum(weights + rng.normal(0, 0.05, 3), 0)
        assert measure_log_loss(rows, beside)[0] >= best - 1e-6


def test_convex_weights_hold_a_temperature():
    members, gold, _ = plant(1500)
    cold = [replace(m, oof=np.exp(2 * floored_logs(m.oof))) for m in members]
    weights = fit_convex(build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID)))
    halved = fit_convex(build_pooled_rows(cold, gold, criteria_of(NEGATIVE_ID)))
    np.testing.assert_allclose(halved, weights / 2, atol=0.03)


def test_threads_change_no_byte(rows):
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            weights = fit_convex(rows)
            found.append((weights.tobytes(), pool(rows.logs, weights).tobytes()))
    assert found[0] == found[1]


def test_test_rows_are_averaged_over_folds_in_log_space_after_the_blend():
    members, _, _ = plant(50)
    weights = np.array([0.9, 0.4, 0.0])
    per_fold = []
    for fold in range(3):
        logs = sum(w * np.log(m.test[fold]) for w, m in zip(weights, members, strict=True))
        blended = np.exp(logs)
        per_fold.append(blended / blended.sum(axis=1, keepdims=True))
    expected = np.exp(np.mean(np.log(per_fold), axis=0))
    expected /= expected.sum(axis=1, keepdims=True)
    probs = pool_test(members, weights)
    np.testing.assert_allclose(probs, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


def test_no_member_and_a_partial_member_are_refused():
    members, gold, _ = plant(50)
    with pytest.raises(BlendError, match="nothing to blend"):
        build_pooled_rows([], gold, criteria_of(NEGATIVE_ID))
    partial = replace(members[1], covers_all=False)
    with pytest.raises(BlendError, match=r"sees-3-4 .*every row"):
        build_pooled_rows([members[0], partial], gold, criteria_of(NEGATIVE_ID))


def test_what_does_not_fit_in_memory_is_refused_with_figures(monkeypatch):
    pages = {"SC_PHYS_PAGES": 2**21, "SC_PAGE_SIZE": 4096}  # 8 GiB
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    check_memory(8, (32_470, 30), (5, 7_765, 30))
    with pytest.raises(BlendError, match=r"100 members need about .* GiB .* has 8\.0"):
        check_memory(100, (1_000_000, 30), (5, 100_000, 30))


@pytest.mark.parametrize("weighted", [False, True])
def test_curvature_is_the_change_of_the_gradient(rows, weighted):
    if weighted:
        weights = np.random.default_rng(1).uniform(0.2, 1.8, len(rows.gold))
        rows = replace(rows, weights=weights / weights.mean())
    loss, gradient, curvature = measure_curvature(rows, WEIGHTS)
    expected = measure_log_loss(rows, WEIGHTS)
    assert loss == expected[0]
    assert (gradient == expected[1]).all()
    np.testing.assert_allclose(curvature, curvature.T, rtol=1e-3, atol=1e-4)
    for place, step in enumerate(0.01 * np.eye(3)):
        above, below = (measure_log_loss(rows, WEIGHTS + s)[1] for s in (step, -step))
        np.testing.assert_allclose((above - below) / 0.02, curvature[place], atol=4e-3)


def test_a_weight_of_two_is_a_repeated_row(rows):
    twice = np.concatenate([np.arange(len(rows.gold)), np.arange(200)])
    weights = 1.0 + (np.arange(len(rows.gold)) < 200)
    weighted = replace(rows, weights=weights / weights.mean())
    repeated = replace(
        rows, logs=np.ascontiguousarray(rows.logs[:, :, twice]), gold=rows.gold[twice]
    )
    rule, score = tune_rule(weighted, WEIGHTS)
    other, other_score = tune_rule(repeated, WEIGHTS)
    assert (rule.threshold, score) == pytest.approx((other.threshold, other_score))
    loss, gradient = measure_log_loss(weighted, WEIGHTS)
    again = measure_log_loss(repeated, WEIGHTS)
    assert loss == pytest.approx(again[0], rel=1e-5)
    np.testing.assert_allclose(gradient, again[1], atol=1e-5)
    without = tune_rule(replace(weighted, criteria=criteria_of(None)), WEIGHTS)
    assert without[1] == pytest.approx(
        tune_rule(replace(repeated, criteria=criteria_of(None)), WEIGHTS)[1]
    )


def test_some_rows_and_some_members_are_taken_with_all_that_belongs_to_them(rows):
    rows = replace(rows, weights=np.arange(700.0), folds=np.arange(700) % 4)
    some = rows.take(rows.folds == 1)
    assert (some.gold == rows.gold[1::4]).all()
    assert (some.weights == np.arange(700.0)[1::4]).all()
    assert (some.folds == 1).all()
    pair = rows.take_members(np.array([2, 0]))
    assert (pair.logs == rows.logs[[2, 0]]).all()
    assert (
        pair.count_positive()
        == rows.count_positive()
        == rows.weights[rows.gold != NEGATIVE_ID].sum()
    )
