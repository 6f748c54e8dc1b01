"""Rows reweighted like the test: the weights, the refitted blend, and what is refused."""

from __future__ import annotations

import pytest

from competition.audit.shift import Shift
from competition.blend.pooling import build_pooled_rows, fit_convex
from competition.blend.reweighting import (
    PLAIN,
    build_row_weights,
    choose_row_weights,
    fit_reweighted,
)
from competition.errors import UsageError
from tests.competition.klue_scores import criteria_of
from tests.competition.planted import NEGATIVE_ID, plant_store


@pytest.fixture(scope="module")
def store():
    return plant_store(0, "misleads", n_rows=2000)


def shift_of(store):
    return Shift(store.odds, 0.8, 0.7, 0.9, ())


def test_weights_have_mean_one_and_the_requested_share(store):
    found = build_row_weights(store.gold, (NEGATIVE_ID,), 0.6, shift_of(store))
    assert list(found) == ["share", "odds"]
    for weights in found.values():
        assert weights.mean() == pytest.approx(1.0)
    share = found["share"]
    assert share[store.gold == NEGATIVE_ID].sum() / share.sum() == pytest.approx(0.6)
    assert build_row_weights(store.gold, (NEGATIVE_ID,), None, None) == {}


def test_what_would_change_is_shown_under_each_weighing(store):
    rows = build_pooled_rows(store.members, store.gold, criteria_of(NEGATIVE_ID))
    ways = build_row_weights(store.gold, (NEGATIVE_ID,), 0.6, shift_of(store))
    found = fit_reweighted(rows, ways)
    assert list(found) == [PLAIN, "share", "odds"]
    assert (found[PLAIN].weights == fit_convex(rows)).all()
    assert found[PLAIN].effective_rows == 2000
    assert found["odds"].effective_rows < 2000
    # the last member is lost on the rows that the test has more of
    assert found["odds"].weights[-1] < 0.5 * found[PLAIN].weights[-1]
    assert found["odds"].ranks[-1] == len(store.members)
    assert found["share"].rule.threshold > found[PLAIN].rule.threshold
    for seen in found.values():
        assert sorted(seen.ranks) == [1, 2, 3, 4, 5]
        assert seen.primary[list(seen.ranks).index(1)] == seen.primary.max()


def test_what_cannot_be_had_is_refused_with_the_reason(store):
    ways = build_row_weights(store.gold, (NEGATIVE_ID,), 0.6, None)
    assert choose_row_weights(ways, None, "x") is None
    assert choose_row_weights(ways, "share", None) is ways["share"]
    with pytest.raises(UsageError, match="--reweight odds: too few rows"):
        choose_row_weights(ways, "odds", "too few rows")
    with pytest.raises(UsageError, match="shifted_negative_share"):
        choose_row_weights({}, "share", None)
    with pytest.raises(UsageError, match="choose odds or share"):
        choose_row_weights(ways, "prior", None)
