"""Simulated halves: drawn as the test is mixed, noise as the binomial law says, seeds repeat."""

from __future__ import annotations

import numpy as np
import pytest

from competition.blend.public_noise import BoardRows, simulate_halves
from tests.competition.klue_scores import criteria_of, decide
from tests.competition.planted import NEGATIVE_ID, plant


@pytest.fixture(scope="module")
def planted():
    members, gold, _ = plant(4000)
    answers = {m.name: (m.oof, decide(m.oof, NEGATIVE_ID, 0.35)) for m in members}
    return answers, gold


def rows_of(gold, n_test=1000, share=0.6):
    return BoardRows(gold, criteria_of(NEGATIVE_ID), n_test, share)


def test_a_drawn_test_has_the_share_and_the_size_and_no_row_twice(planted):
    drawn = rows_of(planted[1]).draw(np.random.default_rng(0))
    assert len(drawn) == len(set(drawn)) == 1000
    assert (planted[1][drawn] == NEGATIVE_ID).sum() == 600
    assert not (planted[1][drawn[:600]] == NEGATIVE_ID).all()
    own = rows_of(planted[1], share=None).draw(np.random.default_rng(0))
    assert (planted[1][own] == NEGATIVE_ID).mean() == pytest.approx(0.4, abs=0.05)
    more = rows_of(planted[1][:100], n_test=300).draw(np.random.default_rng(0))
    assert len(more) == 300


def test_a_system_does_not_part_from_itself_and_all_pairs_see_the_same_draws(planted):
    answers, gold = planted
    pairs = [("sees-1-2", "sees-1-2"), ("sees-1-2", "useless"), ("useless", "sees-1-2")]
    same, there, back = simulate_halves(rows_of(gold), answers, pairs, seed=1)
    assert (*same.sds, same.agreement) == (0, 0, 1)
    assert there.sds[0] == pytest.approx(back.sds[0])
    assert there.sds[1] == pytest.approx(back.sds[1])
    assert there.margins[0] == pytest.approx(1.96 * there.sds[0])
    assert there.margins[1] == pytest.approx(1.96 * there.sds[1])
    again = simulate_halves(rows_of(gold), answers, pairs, seed=1)
    assert again[1] == there


def test_noise_is_what_chance_alone_makes():
    """Without a negative label F1 is the share of right rows, whose noise is known."""
    rng = np.random.default_rng(3)
    gold = np.zeros(20_000, dtype=np.int64)
    right, coin = np.zeros_like(gold), rng.integers(0, 2, len(gold))
    probs = rng.dirichlet(np.ones(2), len(gold))
    answers = {"right": (probs, right), "coin": (probs, coin)}
    (found,) = simulate_halves(
        BoardRows(gold, criteria_of(None), 1000, None), answers, [("right", "coin")], seed=0
    )
    expected = np.sqrt(2 * 0.25 / 500)  # two halves of 500 rows, each right half of the time
    assert found.sds[0] == pytest.approx(expected, rel=0.2)
    assert found.sds[1] == 0
    assert found.agreement == pytest.approx(0.5, abs=0.02)


def test_agreement_is_of_the_rows_that_are_drawn():
    """Two systems that part on positive rows only, on a test with few of them."""
    gold = np.repeat([NEGATIVE_ID, NEGATIVE_ID + 1], 2000)
    probs = np.full((len(gold), 3), 1 / 3)
    other = np.where(gold == NEGATIVE_ID, gold, NEGATIVE_ID)
    rows = BoardRows(gold, criteria_of(NEGATIVE_ID), 1000, 0.9)
    answers = {"one": (probs, gold), "other": (probs, other)}
    (found,) = simulate_halves(rows, answers, [("one", "other")], seed=0)
    assert found.agreement == pytest.approx(0.9)


def test_noise_falls_with_rows_and_with_agreement(planted):
    answers, gold = planted
    near = answers["sees-1-2"][1].copy()
    near[::50] = NEGATIVE_ID
    answers = {**answers, "near": (answers["sees-1-2"][0], near)}
    pairs = [("sees-1-2", "near"), ("sees-1-2", "sees-3-4")]
    close, far = simulate_halves(rows_of(gold), answers, pairs, seed=0)
    assert close.sds[0] < 0.5 * far.sds[0]
    few = simulate_halves(rows_of(gold, n_test=250), answers, pairs, seed=0)
    assert few[1].sds[0] > 1.5 * far.sds[0]
