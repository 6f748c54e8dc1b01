"""Intervals resample groups, the same for both sides, and replicates are exact."""

from __future__ import annotations

import numpy as np
import pytest

from competition.scoring import bootstrap
from competition.scoring.bootstrap import bound, build_resamples
from tests.competition.klue_scores import (
    auprc,
    auprc_replicates,
    count_hits,
    f1_replicates,
    micro_f1,
    paired_auprc,
    paired_f1,
)


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    n_rows, n_labels = 300, 4
    groups = rng.integers(0, 90, n_rows) * 7 - 11
    gold = rng.integers(0, n_labels, n_rows)
    probs = np.round(rng.dirichlet(np.ones(n_labels), n_rows), 2)
    probs[np.arange(n_rows), gold] += 0.3
    return groups, gold, probs, rng.random(n_rows)


def draws(resamples):
    return np.concatenate(list(resamples.chunks()))[:, resamples.group_of]


@pytest.mark.parametrize("weighted", [False, True])
def test_replicates_equal_scores_of_the_rows_drawn(rows, weighted):
    groups, gold, probs, weights = rows
    weights = weights if weighted else None
    resamples = build_resamples(groups, replicates=12, seed=1)
    pred = probs.argmax(axis=1)
    f1 = f1_replicates(count_hits(gold, pred, 0), resamples, weights)
    areas = auprc_replicates(gold, probs, resamples, weights)
    for i, drawn in enumerate(draws(resamples)):
        again = np.repeat(np.arange(len(gold)), drawn.astype(int))
        w = None if weights is None else weights[again]
        assert f1[i] == pytest.approx(micro_f1(gold[again], pred[again], 0, w), abs=1e-12)
        assert areas[i] == pytest.approx(auprc(gold[again], probs[again], w), abs=1e-9)


def test_whole_groups_are_drawn_and_as_many_as_there_are(rows):
    groups = rows[0]
    resamples = build_resamples(groups, replicates=5, seed=0)
    counts = np.concatenate(list(resamples.chunks()))
    assert counts.shape == (5, len(np.unique(groups)))
    assert (counts.sum(axis=1) == counts.shape[1]).all()
    drawn = draws(resamples)
    for group in np.unique(groups):
        assert (drawn[:, groups == group].std(axis=1) == 0).all()


def test_draws_depend_on_the_seed_and_not_on_the_size_of_chunks(rows, monkeypatch):
    groups = rows[0]
    whole = draws(build_resamples(groups, replicates=9, seed=4))
    monkeypatch.setattr(bootstrap, "CHUNK_CELLS", 200)
    assert (draws(build_resamples(groups, replicates=9, seed=4)) == whole).all()
    assert (draws(build_resamples(groups, replicates=9, seed=5)) != whole).any()


def test_groups_widen_the_interval_when_rows_of_a_group_are_similar():
    gold = np.ones(400, dtype=int)
    pred = np.repeat(np.arange(20) % 2, 20)
    by_group = build_resamples(np.repeat(np.arange(20), 20), replicates=400, seed=0)
    by_row = build_resamples(np.arange(400), replicates=400, seed=0)
    low, high = bound(f1_replicates(count_hits(gold, pred, 0), by_group))
    narrow_low, narrow_high = bound(f1_replicates(count_hits(gold, pred, 0), by_row))
    assert high - low > 3 * (narrow_high - narrow_low)


def test_intervals_hold_the_score(rows):
    groups, gold, probs, _ = rows
    resamples = build_resamples(groups, replicates=200, seed=0)
    pred = probs.argmax(axis=1)
    low, high = bound(f1_replicates(count_hits(gold, pred, 0), resamples))
    assert low < micro_f1(gold, pred, 0) < high
    low, high = bound(auprc_replicates(gold, probs, resamples))
    assert low < auprc(gold, probs) < high


def test_a_system_beside_itself_differs_by_nothing(rows):
    groups, gold, probs, _ = rows
    resamples = build_resamples(groups, replicates=50, seed=0)
    pred = probs.argmax(axis=1)
    for paired in (
        paired_f1(gold, (pred, pred), 0, resamples),
        paired_auprc(gold, (probs, probs), resamples),
    ):
        assert (paired.difference, paired.low, paired.high, paired.p_worse) == (0, 0, 0, 1)


def test_a_clear_gain_has_an_interval_above_zero(rows):
    groups, gold, probs, _ = rows
    resamples = build_resamples(groups, replicates=200, seed=0)
    worse = np.random.default_rng(0).permutation(probs)
    by_f1 = paired_f1(gold, (probs.argmax(axis=1), worse.argmax(axis=1)), 0, resamples)
    by_auprc = paired_auprc(gold, (probs, worse), resamples)
    for paired in (by_f1, by_auprc):
        assert 0 < paired.low < paired.difference < paired.high
        assert paired.p_worse == 0
    back = paired_f1(gold, (worse.argmax(axis=1), probs.argmax(axis=1)), 0, resamples)
    assert (back.low, back.high) == (pytest.approx(-by_f1.high), pytest.approx(-by_f1.low))


def test_a_label_that_is_not_drawn_is_left_out_of_that_replicate():
    gold = np.array([0, 0, 0, 1])
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    resamples = build_resamples(np.arange(4), replicates=60, seed=0)
    assert (draws(resamples)[:, 3] == 0).any()
    assert auprc_replicates(gold, probs, resamples) == pytest.approx(np.ones(60))
