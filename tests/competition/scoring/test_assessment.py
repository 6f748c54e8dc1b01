"""Answers are scored by both keys, side by side as alone."""

from __future__ import annotations

import numpy as np
import pytest

from competition.scoring.assessment import build_assessor, compare, measure_shares, measure_side
from competition.scoring.label_shift import weights_for_negative_share
from tests.competition.klue_scores import (
    auprc,
    criteria_of,
    decide,
    micro_f1,
    paired_auprc,
    paired_f1,
)
from tests.competition.planted import NEGATIVE_ID, plant


@pytest.fixture
def planted():
    members, gold, _ = plant(300)
    groups = np.arange(300) // 3
    return [(m.oof, decide(m.oof, NEGATIVE_ID, 0.3)) for m in members], gold, groups


def build(gold, groups, seed=0):
    return build_assessor(gold, criteria_of(NEGATIVE_ID), groups, seed=seed)


def test_scores_are_the_metrics_and_lie_in_their_intervals(planted):
    answers, gold, groups = planted
    probs, pred = answers[0]
    found = build(gold, groups).assess(answers[0])
    assert found.primary.value == micro_f1(gold, pred, NEGATIVE_ID)
    assert found.secondary.value == auprc(gold, probs)
    for score in (found.primary, found.secondary):
        assert score.low < score.value < score.high

    assert found.describe()["f1"] == {
        "value": found.primary.value,
        "low": found.primary.low,
        "high": found.primary.high,
    }


def test_side_by_side_is_as_alone_and_in_order(planted):
    answers, gold, groups = planted
    assessor = build(gold, groups, seed=3)
    named = {f"m{i}": each for i, each in enumerate(answers)}
    found = assessor.assess_all(named)
    assert list(found) == list(named)
    alone = {name: assessor.assess(each) for name, each in named.items()}
    assert {name: each.describe() for name, each in found.items()} == {
        name: each.describe() for name, each in alone.items()
    }


def test_comparing_takes_the_first_minus_the_second(planted):
    answers, gold, groups = planted
    assessor = build(gold, groups)
    found = compare(assessor.assess(answers[0]), assessor.assess(answers[2]))
    assert 0 < found.primary.low < found.primary.difference < found.primary.high
    assert found.secondary.p_worse == 0


def test_sides_and_shares_by_hand():
    probs = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    side = measure_side((probs, np.array([0, 1])), (0,))
    assert (side.positive_share, side.n_rows) == (0.5, 2)
    assert side.confidence == pytest.approx(0.65)
    assert side.label_shares == measure_shares(np.array([0, 1]), 3) == (0.5, 0.5, 0.0)
    assert measure_side((probs, np.array([0, 1])), ()).positive_share == 1.0


def test_comparing_is_what_the_paired_bootstrap_says(planted):
    answers, gold, groups = planted
    assessor = build(gold, groups)
    found = compare(assessor.assess(answers[0]), assessor.assess(answers[1]))
    preds, probs = (answers[0][1], answers[1][1]), (answers[0][0], answers[1][0])
    assert found.primary == paired_f1(gold, preds, NEGATIVE_ID, assessor.resamples[0])
    assert found.secondary == paired_auprc(gold, probs, assessor.resamples[1])


def test_weights_weigh_the_rows_of_scores_and_intervals(planted):
    answers, gold, groups = planted
    weights = weights_for_negative_share(gold, (NEGATIVE_ID,), 0.7)
    assessor = build_assessor(gold, criteria_of(NEGATIVE_ID), groups, seed=0, weights=weights)
    first, second = (assessor.assess(each) for each in answers[:2])
    assert first.primary.value == micro_f1(gold, answers[0][1], NEGATIVE_ID, weights)
    assert first.primary.low < first.primary.value < first.primary.high
    preds, probs = (answers[0][1], answers[1][1]), (answers[0][0], answers[1][0])
    found = compare(first, second)
    assert found.primary == paired_f1(gold, preds, NEGATIVE_ID, assessor.resamples[0], weights)
    assert found.secondary == paired_auprc(gold, probs, assessor.resamples[1], weights)
