"""What is measured is what is aimed at, and no comparator beats what is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from competition.blend.objective import Evaluator, Point
from competition.blend.pooling import build_pooled_rows, pool, tune_rule
from competition.scoring.decisions import ARGMAX
from competition.submission.record import Objective
from tests.competition.klue_scores import auprc, criteria_of
from tests.competition.planted import NEGATIVE_ID, plant


def point(f1: float, area: float) -> Point:
    return Point(np.ones(1), ARGMAX, f1, area)


def evaluate(objective: Objective) -> Evaluator:
    members, gold, _ = plant(20)
    return Evaluator(build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID)), objective)


@pytest.mark.parametrize("objective", ["micro-f1", "auprc", "both"])
def test_a_measure_is_the_metrics(objective: Objective) -> None:
    members, gold, _ = plant(400)
    rows = build_pooled_rows(members, gold, criteria_of(NEGATIVE_ID))
    weights = np.array([0.5, 0.4, 0.1])
    found = Evaluator(rows, objective).measure(weights)
    assert (found.rule, found.primary) == tune_rule(rows, weights)
    expected = None if objective == "micro-f1" else auprc(gold, pool(rows.logs, weights))
    assert found.secondary == expected


def test_with_one_score_the_highest_is_chosen_and_a_comparator_wins_a_tie() -> None:
    comparators, tried = [point(0.7, 0.5), point(0.6, 0.6)], [point(0.7, 0.4), point(0.65, 0.7)]
    assert evaluate("micro-f1").choose(comparators, tried) is comparators[0]
    assert evaluate("auprc").choose(comparators, tried) is tried[1]


def test_with_both_f1_reaches_the_comparators_and_then_auprc_decides() -> None:
    evaluator = evaluate("both")
    comparators = [point(0.70, 0.50), point(0.60, 0.90)]
    able, better, unable = point(0.71, 0.55), point(0.705, 0.60), point(0.699, 0.95)
    assert evaluator.choose(comparators, [able, better, unable]) is better
    assert evaluator.choose(comparators, [unable]) is comparators[0]


def test_the_front_has_no_point_that_another_beats() -> None:
    rng = np.random.default_rng(0)
    points = [point(*pair) for pair in rng.random((60, 2)).round(1)]
    front = evaluate("both").find_front(points)
    for each in front:
        assert not any(p.primary > each.primary and p.secondary >= each.secondary for p in points)
        assert not any(p.primary >= each.primary and p.secondary > each.secondary for p in points)
    kept = {(p.primary, p.secondary) for p in front}
    for each in points:
        beaten = any(p.primary >= each.primary and p.secondary >= each.secondary for p in front)
        assert beaten or (each.primary, each.secondary) in kept
    (only,) = evaluate("micro-f1").find_front(points)
    assert only.primary == max(each.primary for each in points)
