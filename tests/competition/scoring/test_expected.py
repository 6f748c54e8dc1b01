"""The expected test score: planted shifts are found, and the interval holds the true score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from competition.arrays import Float64s, Int64s
from competition.scoring.expected import (
    Expected,
    Ground,
    System,
    TestMix,
    View,
    grade,
    read_evidence,
    weigh,
)
from competition.scoring.label_shift import MIN_ROWS, build_cells
from tests.competition.klue_scores import auprc, criteria_of, micro_f1, mix_by_cells

N_LABELS = 4


def plant(
    shares: Float64s, strata: Int64s, rng: np.random.Generator, *, sharpness: float = 2.0
) -> tuple[Int64s, Float64s]:
    """Draw labels by the shares of each row's stratum (S, C), and probabilities that err."""
    gold = np.array([rng.choice(N_LABELS, p=shares[stratum]) for stratum in strata])
    logits = rng.normal(0, 1, (len(gold), N_LABELS)) + sharpness * np.eye(N_LABELS)[gold]
    probs = np.exp(logits)
    return gold, probs / probs.sum(axis=1, keepdims=True)


def build_case(
    train_shares: Float64s, test_shares: Float64s, test_strata: Int64s, *, seed: int = 0
) -> tuple[Ground, System, Int64s]:
    """Return what an estimate may see, and the test's labels."""
    rng = np.random.default_rng(seed)
    strata = rng.integers(len(train_shares), size=2000)
    gold, probs = plant(train_shares, strata, rng)
    test_gold, test_probs = plant(test_shares, test_strata, rng)
    ground = Ground(
        gold,
        criteria_of(0, N_LABELS),
        np.arange(len(gold)),
        np.stack([np.zeros(len(strata), dtype=np.int64), strata]),
        np.stack([np.zeros(len(test_strata), dtype=np.int64), test_strata]),
    )
    system = System(probs, probs.argmax(1), test_probs[None], test_probs.argmax(1)[None])
    return ground, system, test_gold


EVEN = np.full((2, N_LABELS), 0.25)
MOSTLY_NEGATIVE = np.array([[0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]])


def expect(ground: Ground, system: System, *, seed: int = 0) -> Expected:
    mix = TestMix(ground, [read_evidence(ground, system, seed=seed)])
    return mix.expect(system.probs, system.pred)


def true_f1(system: System, test_gold: Int64s) -> float:
    return micro_f1(test_gold, system.test_pred[0], 0)


def test_a_shift_of_labels_is_seen_in_predicted_labels() -> None:
    strata = np.random.default_rng(1).integers(2, size=2000)
    ground, system, test_gold = build_case(EVEN, MOSTLY_NEGATIVE, strata)
    plain, truth = micro_f1(ground.gold, system.pred, 0), true_f1(system, test_gold)
    found = expect(ground, system)
    assert plain - truth > 0.05, "the plain score misleads"
    assert found.primary.value == pytest.approx(truth, abs=0.04)
    assert found.primary.low <= truth <= found.primary.high
    mix = TestMix(ground, [read_evidence(ground, system)])
    assert mix.negative_share == pytest.approx(0.7, abs=0.04)
    assert mix.weights.mean() == pytest.approx(1.0)


def test_a_shift_of_labels_in_one_stratum_alone_is_distinguished_from_one_of_strata() -> None:
    only_first = np.array([[0.85, 0.05, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25]])
    strata = (np.random.default_rng(2).random(2000) < 0.5).astype(np.int64)
    ground, system, _ = build_case(EVEN, only_first, strata)
    weights = weigh(ground, system, View("label", 1, 1.0))
    for stratum, share in enumerate(only_first[:, 0]):
        rows = ground.strata[1] == stratum
        found = np.average(ground.gold[rows] == 0, weights=weights[rows])
        assert found == pytest.approx(share, abs=0.06)


def test_a_shift_of_strata_alone_weights_strata_alone() -> None:
    shares = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.3, 0.3, 0.3]])
    strata = (np.random.default_rng(3).random(2000) < 0.9).astype(np.int64)
    ground, system, test_gold = build_case(shares, shares, strata)
    cells = build_cells(ground.strata, ground.test_strata)
    weights = mix_by_cells(cells, len(ground.gold))
    second = ground.strata[1] == 1
    assert weights[second].sum() / weights.sum() == pytest.approx(0.9, abs=0.03)
    assert micro_f1(ground.gold, system.pred, 0, weights) == pytest.approx(
        true_f1(system, test_gold), abs=0.04
    )


def test_harder_rows_are_seen_in_confidence() -> None:
    rng = np.random.default_rng(4)
    zeros = np.zeros(3000, dtype=np.int64)
    gold, probs = plant(EVEN, zeros, rng, sharpness=2.5)
    easy = rng.random(3000) < 0.5
    gold[~easy], probs[~easy] = plant(EVEN, zeros[~easy], rng, sharpness=0.5)
    test_gold, test_probs = plant(EVEN, zeros[:2000], rng, sharpness=0.5)
    ground = Ground(
        gold, criteria_of(0, N_LABELS), np.arange(3000), zeros[None], zeros[None, :2000]
    )
    system = System(probs, probs.argmax(1), test_probs[None], test_probs.argmax(1)[None])
    truth = true_f1(system, test_gold)
    plain = micro_f1(gold, system.pred, 0)
    by_labels = micro_f1(gold, system.pred, 0, weigh(ground, system, View("label", 1, 1.0)))
    by_confidence = micro_f1(gold, system.pred, 0, weigh(ground, system, View("covariate", 5, 1.0)))
    assert abs(by_confidence - truth) < 0.6 * abs(by_labels - truth)
    assert abs(by_confidence - truth) < 0.6 * abs(plain - truth)


def test_without_a_shift_the_estimate_stays_near_the_plain_score() -> None:
    errors = []
    for seed in range(4):
        strata = np.random.default_rng(seed).integers(2, size=2000)
        ground, system, _ = build_case(EVEN, EVEN, strata, seed=seed)
        errors.append(expect(ground, system).primary.value - micro_f1(ground.gold, system.pred, 0))
    assert abs(np.mean(errors)) < 0.02


def test_no_negative_label_and_a_single_level_are_enough() -> None:
    ground, system, test_gold = build_case(EVEN, MOSTLY_NEGATIVE, np.zeros(1000, dtype=np.int64))
    bare = replace(
        ground,
        criteria=criteria_of(None, N_LABELS),
        strata=ground.strata[:1],
        test_strata=ground.test_strata[:1],
    )
    assert TestMix(bare, [read_evidence(bare, system)]).negative_share is None
    assert expect(bare, system).primary.value == pytest.approx(
        micro_f1(test_gold, system.test_pred[0], None), abs=0.06
    )


def test_an_average_is_compared_by_its_labels_alone() -> None:
    """An average of models is flatter than one; read as confidence, that would look like shift."""
    ground, system, _ = build_case(EVEN, EVEN, np.zeros(2000, dtype=np.int64))
    flat = system.test_probs**0.3
    flattened = replace(system, test_probs=flat / flat.sum(axis=2, keepdims=True), is_average=True)
    plain = micro_f1(ground.gold, system.pred, 0)
    assert expect(ground, flattened).primary.value == pytest.approx(plain, abs=0.02)
    assert abs(expect(ground, replace(flattened, is_average=False)).primary.value - plain) > 0.03


def test_systems_are_scored_under_the_mean_of_what_all_of_them_show() -> None:
    ground, first, _ = build_case(EVEN, MOSTLY_NEGATIVE, np.zeros(1000, dtype=np.int64))
    _, other, _ = build_case(EVEN, MOSTLY_NEGATIVE, np.zeros(1000, dtype=np.int64), seed=1)
    second = replace(other, probs=first.probs[::-1], pred=first.pred[::-1])
    evidence = [read_evidence(ground, each) for each in (first, second)]
    both = TestMix(ground, evidence)
    alone = [TestMix(ground, [each]).weights for each in evidence]
    assert both.weights == pytest.approx(np.mean(alone, axis=0))
    expected = both.expect(first.probs, first.pred)
    assert expected.primary.value == pytest.approx(
        micro_f1(ground.gold, first.pred, 0, both.weights)
    )
    assert expected.secondary == pytest.approx(auprc(ground.gold, first.probs, both.weights))


def test_the_same_rows_give_the_same_estimate() -> None:
    ground, system, _ = build_case(EVEN, MOSTLY_NEGATIVE, np.zeros(500, dtype=np.int64))
    first, second = (expect(ground, system) for _ in range(2))
    assert (first.primary, first.secondary) == (second.primary, second.secondary)
    assert expect(ground, system, seed=1).primary.low != first.primary.low


def test_steps_of_confidence_hold_equally_many_held_out_rows() -> None:
    _ground, system, _ = build_case(EVEN, EVEN, np.zeros(500, dtype=np.int64))
    seen, test_seen = grade(system, (0,), 3)
    assert (seen // 3 == system.pred).all()
    assert (test_seen // 3 == system.test_pred).all()
    sizes = np.bincount(seen[system.pred != 0] % 3)
    assert sizes.max() - sizes.min() <= 1
    surest = system.probs.max(1)[(system.pred != 0) & (seen % 3 == 2)]
    assert surest.min() >= system.probs.max(1)[(system.pred != 0) & (seen % 3 == 1)].max()


def test_small_strata_are_taken_together_not_given_to_their_large_sibling() -> None:
    size = MIN_ROWS
    strata = np.repeat([0, 1, 2], [5 * size, size // 2 + 1, size // 2 + 1])
    above = np.zeros(len(strata), dtype=np.int64)
    cells = build_cells(np.stack([above, strata]), np.array([[0, 0, 0], [0, 1, 2]]))
    weights = mix_by_cells(cells, len(strata))
    assert weights[strata > 0].sum() / weights.sum() == pytest.approx(2 / 3)


def test_too_few_rows_even_together_fall_back_to_the_stratum_around() -> None:
    strata = np.repeat([0, 1], [5 * MIN_ROWS, 10])
    above = np.zeros(len(strata), dtype=np.int64)
    cells = build_cells(np.stack([above, strata]), np.array([[0, 0], [0, 7]]))
    assert [cell.parent for cell in cells] == [None, 0]
    weights = mix_by_cells(cells, len(strata))
    assert weights[strata == 1].min() > 0
