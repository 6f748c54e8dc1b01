"""Copies and members without gain are left out, each with its reason; what helps stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from competition.blend.pooling import build_pooled_rows, fit_convex, floored_logs, measure_log_loss
from competition.blend.selection import are_copies, find_copies, select_members
from tests.competition.klue_scores import criteria_of
from tests.competition.planted import NEGATIVE_ID, plant, plant_store, softmax


def make_rows(seed=0, n_rows=1500):
    members, gold, folds = plant(n_rows, seed)
    return replace(build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID)), folds=folds)


def cross_fitted_loss(rows, kept):
    """Measure what the selection goes by, with a whole fit in place of its second-order model."""
    part = rows.take_members(np.array(kept))
    total = 0.0
    for fold in np.unique(rows.folds):
        weights = fit_convex(part.take(rows.folds != fold))
        held_out = part.take(rows.folds == fold)
        total += measure_log_loss(held_out, weights)[0] * len(held_out.gold)
    return total / len(rows.gold)


@pytest.mark.parametrize("seed", range(4))
def test_a_member_goes_when_the_loss_outside_is_no_higher_without_it(seed):
    rows = make_rows(seed)
    selection = select_members(rows)
    assert {0, 1} <= set(selection.kept)
    without = cross_fitted_loss(rows, [0, 1])
    gain = cross_fitted_loss(rows, [0, 1, 2]) - without
    assert (2 in selection.kept) == (gain < 0)
    for each in selection.dropped:
        assert (each.member, each.reason) == (2, "no gain")
        assert each.gain == pytest.approx(gain, abs=2e-5)
    assert selection.convex[2] == 0 or 2 in selection.kept


def test_the_convex_weights_are_those_of_the_kept_alone():
    rows = make_rows(1)
    selection = select_members(rows)
    alone = fit_convex(rows.take_members(selection.kept))
    assert (selection.convex[selection.kept] == alone).all()
    assert not np.delete(selection.convex, selection.kept).any()


def test_copies_go_and_the_first_stays():
    rows = make_rows()
    logs = np.concatenate([rows.logs, rows.logs[1:2], rows.logs[:1]])
    selection = select_members(replace(rows, logs=logs))
    copies = [(each.member, each.of) for each in selection.dropped if each.reason == "copy"]
    assert copies == [(3, 1), (4, 0)]
    assert {0, 1} <= set(selection.kept) <= {0, 1, 2}


def test_a_copy_at_another_temperature_or_blurred_is_a_copy_and_a_sibling_is_none():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (900, 6))

    def logs(values):
        return floored_logs(softmax(values)).T

    first = logs(logits)
    assert are_copies(first, first)
    assert are_copies(first, logs(1.2 * logits))
    assert are_copies(first, logs(logits + rng.normal(0, 0.02, logits.shape)))
    assert not are_copies(first, logs(logits + rng.normal(0, 0.5, logits.shape)))
    assert not are_copies(first, logs(np.zeros_like(logits)))


@pytest.mark.parametrize("seed", range(5))
def test_members_of_similar_quality_are_no_copies(seed):
    store = plant_store(seed, n_rows=800)
    assert find_copies(build_pooled_rows(store.members, store.gold, criteria_of(0)).logs) == []


def test_without_folds_or_with_one_member_nothing_is_measured():
    rows = make_rows()
    assert select_members(replace(rows, folds=None)).dropped == ()
    alone = select_members(rows.take_members(np.array([2])))
    assert alone.kept.tolist() == [0]
    flat = np.zeros_like(rows.logs[:1])
    only = select_members(replace(rows, logs=flat))
    assert only.kept.tolist() == [0]


def test_a_member_that_says_nothing_at_all_goes():
    rows = make_rows()
    flat = np.full_like(rows.logs[:1], np.log(0.2))
    selection = select_members(replace(rows, logs=np.concatenate([rows.logs[:2], flat])))
    assert selection.kept.tolist() == [0, 1]
    assert selection.dropped[0].gain == pytest.approx(0, abs=1e-6)
