"""Planted faults are named, sound stores are left in peace."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from competition.blend.diagnostics import find_copy_warnings, find_leaks, find_member_warnings
from competition.blend.pooling import build_pooled_rows
from competition.scoring.label_shift import weights_for_negative_share
from tests.competition.klue_scores import criteria_of
from tests.competition.planted import NEGATIVE_ID, plant_store

SEEDS = range(20)
N_ROWS = 6000
KINDS = {"copy": "copies", "leak": "leak", "misleads": "misleads"}


@cache
def look(seed, fault):
    store = plant_store(seed, fault, n_rows=N_ROWS)
    rows = build_pooled_rows(store.members, store.gold, criteria_of(NEGATIVE_ID))
    ways = {
        "share": weights_for_negative_share(store.gold, (NEGATIVE_ID,), 0.6),
        "odds": store.odds,
    }
    return store, find_member_warnings(store.members, rows, store.groups, ways)


@pytest.mark.parametrize("fault", KINDS)
def test_a_planted_fault_is_named_in_18_of_20_stores(fault):
    named = 0
    for seed in SEEDS:
        store, warnings = look(seed, fault)
        named += any(a.kind == KINDS[fault] and store.faulty <= set(a.members) for a in warnings)
    assert named >= 18


def test_at_most_one_of_20_sound_stores_raises_an_alarm():
    raised = [warning for seed in SEEDS for warning in look(seed, None)[1]]
    assert len(raised) <= 1, raised


def test_an_alarm_says_who_and_how_much():
    warnings = look(0, "leak")[1]
    (warning,) = [each for each in warnings if each.kind == "leak"]
    assert warning.members == ("m4",)
    assert f"{100 * warning.size:.1f} points" in warning.text
    assert "seen its out-of-fold rows" in warning.text
    warnings = look(0, "misleads")[1]
    (warning,) = [each for each in warnings if each.kind == "misleads"]
    assert "m4 does harm on test-like rows (weighted by odds)" in warning.text


def test_three_copies_are_one_alarm_and_do_not_hide_a_leak():
    store = plant_store(3, "leak", n_rows=2000)
    copies = [replace(store.members[0], name=name) for name in ("again", "once-more")]
    members = [*store.members, *copies]
    rows = build_pooled_rows(members, store.gold, criteria_of(NEGATIVE_ID))
    (copy,) = find_copy_warnings(members, rows)
    assert copy.members == ("m0", "again", "once-more")
    assert "keep only one of them" in copy.text
    kinds = [warning.kind for warning in find_member_warnings(members, rows, store.groups, {})]
    assert kinds == ["copies", "leak"]


def test_alike_out_of_fold_but_not_on_the_test_is_no_copy():
    store = plant_store(0, n_rows=1500)
    changed = replace(store.members[0], name="other", test=store.members[1].test)
    members = [store.members[0], changed]
    assert (
        find_copy_warnings(
            members, build_pooled_rows(members, store.gold, criteria_of(NEGATIVE_ID))
        )
        == []
    )


def test_one_average_is_flatter_and_no_leak():
    """An average of five folds' models is less sure; it is laid beside the others' averages."""
    raised = 0
    for seed in range(5):
        store = plant_store(seed, n_rows=3000)
        last = store.members[-1]
        average = np.repeat(last.test.mean(axis=0, keepdims=True), len(last.test), axis=0)
        imported = replace(last, test=average, test_is_average=True)
        raised += len(find_leaks([*store.members[:-1], imported], store.odds))
    assert raised == 0


def test_a_leak_in_one_average_is_named():
    store = plant_store(1, "leak", n_rows=3000)
    last = store.members[-1]
    average = np.repeat(last.test.mean(axis=0, keepdims=True), len(last.test), axis=0)
    imported = replace(last, test=average, test_is_average=True)
    (warning,) = find_leaks([*store.members[:-1], imported], store.odds)
    assert warning.members == ("m4",)


def test_a_weak_member_is_not_said_to_mislead():
    """Much worse than the others, but it still deserves its small weight."""
    for seed in range(3):
        store = plant_store(seed, n_rows=3000)
        rng = np.random.default_rng(seed)
        noisy = store.members[-1].oof * np.exp(rng.normal(0, 1.5, store.members[-1].oof.shape))
        weak = replace(
            store.members[-1], oof=(noisy / noisy.sum(axis=1, keepdims=True)).astype(np.float32)
        )
        members = [*store.members[:-1], weak]
        rows = build_pooled_rows(members, store.gold, criteria_of(NEGATIVE_ID))
        warnings = find_member_warnings(members, rows, store.groups, {"odds": store.odds})
        assert [each for each in warnings if each.kind == "misleads"] == []


def test_one_member_raises_nothing():
    store = plant_store(0, n_rows=500)
    rows = build_pooled_rows(store.members[:1], store.gold, criteria_of(NEGATIVE_ID))
    assert find_member_warnings(store.members[:1], rows, store.groups, {"odds": store.odds}) == []
