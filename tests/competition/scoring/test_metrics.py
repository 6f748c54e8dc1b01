"""Scores equal scikit-learn's on random arrays, and worked edge cases hold."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, f1_score, precision_recall_curve

from competition.errors import UsageError
from competition.scoring.label_shift import weights_for_negative_share
from tests.competition.klue_scores import auprc, auprc_by_class, best_threshold, decide, micro_f1

SEEDS = st.integers(0, 2**32 - 1)


def sklearn_areas(gold, probs, weights=None):
    areas = []
    for label_id in range(probs.shape[1]):
        golds = gold == label_id
        if not (golds if weights is None else weights[golds] > 0).any():
            areas.append(np.nan)
            continue
        precision, recall, _ = precision_recall_curve(
            golds, probs[:, label_id], sample_weight=weights
        )
        areas.append(auc(recall, precision))
    return np.array(areas)


def random_rows(seed, n_rows, n_labels, decimals, dtype):
    """Probabilities rounded to few decimals tie often; to many, hardly ever."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, n_labels, n_rows)
    probs = rng.dirichlet(np.full(n_labels, 0.4), n_rows)
    probs[np.arange(n_rows), gold] += rng.random(n_rows)
    probs /= probs.sum(axis=1, keepdims=True)
    return rng, gold, np.round(probs, decimals).astype(dtype)


class TestAuprc:
    @settings(max_examples=150, deadline=None)
    @given(
        SEEDS,
        st.integers(1, 120),
        st.integers(2, 6),
        st.integers(0, 9),
        st.sampled_from([np.float32, np.float64]),
        st.sampled_from(["none", "counts", "floats"]),
    )
    def test_equals_scikit_learn(self, seed, n_rows, n_labels, decimals, dtype, kind):
        rng, gold, probs = random_rows(seed, n_rows, n_labels, decimals, dtype)
        weights = {
            "none": None,
            "counts": rng.integers(0, 3, n_rows).astype(float),
            "floats": rng.random(n_rows) * rng.integers(0, 2, n_rows),
        }[kind]
        np.testing.assert_allclose(
            auprc_by_class(gold, probs, weights), sklearn_areas(gold, probs, weights), atol=1e-9
        )

    def test_equals_scikit_learn_on_scores_that_are_no_probabilities(self):
        _, gold, probs = random_rows(5, 400, 4, 9, np.float32)
        logits = np.log(np.maximum(probs, 1e-6)) * 3
        np.testing.assert_allclose(
            auprc_by_class(gold, logits), sklearn_areas(gold, logits), atol=1e-9
        )

    def test_scores_that_differ_in_the_last_bit_only_are_no_ties(self):
        low, high = np.float32(0.7), np.nextafter(np.float32(0.7), np.float32(1))
        probs = np.array([[low, 0.3], [high, 0.3]], dtype=np.float32)
        assert auprc_by_class(np.array([0, 1]), probs)[0] == pytest.approx(0.25)
        assert auprc_by_class(np.array([1, 0]), probs)[0] == pytest.approx(1.0)

    def test_a_label_without_gold_is_left_out_without_a_warning(self):
        gold = np.array([0, 0, 1])
        probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            areas = auprc_by_class(gold, probs)
        assert np.isnan(areas).tolist() == [False, False, True]
        assert auprc(gold, probs) == 1.0

    def test_a_label_whose_gold_rows_weigh_nothing_is_left_out(self):
        probs = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
        areas = auprc_by_class(np.array([0, 0, 1]), probs, np.array([1.0, 1.0, 0.0]))
        assert areas[0] == 1.0
        assert np.isnan(areas[1])

    def test_worked_case(self):
        # by falling score: gold, other, gold -> points (0, 1), (1/2, 1), (1/2, 1/2), (1, 2/3)
        gold = np.array([0, 1, 0])
        probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
        assert auprc_by_class(gold, probs)[0] == pytest.approx(0.5 + 0.5 * (1 / 2 + 2 / 3) / 2)

    @pytest.mark.parametrize("n_rows", [1, 7])
    def test_all_scores_tied_give_half_way_to_the_share(self, n_rows):
        gold = np.zeros(n_rows + 1, dtype=int)
        gold[-1] = 1
        probs = np.full((n_rows + 1, 2), 0.5)
        shares = np.array([n_rows, 1]) / (n_rows + 1)
        np.testing.assert_allclose(auprc_by_class(gold, probs), (1 + shares) / 2)

    def test_single_row_and_no_rows(self):
        assert auprc(np.array([1]), np.array([[0.4, 0.6]])) == 1.0
        assert np.isnan(auprc(np.array([], dtype=int), np.empty((0, 2))))

    def test_one_label_for_all_rows(self):
        gold = np.zeros(5, dtype=int)
        assert auprc(gold, np.random.default_rng(0).random((5, 3))) == pytest.approx(1.0)


class TestMicroF1:
    @settings(max_examples=100, deadline=None)
    @given(SEEDS, st.integers(1, 60), st.integers(2, 5), st.booleans(), st.booleans())
    def test_equals_scikit_learn(self, seed, n_rows, n_labels, has_negative, weighted):
        rng = np.random.default_rng(seed)
        gold, pred = rng.integers(0, n_labels, (2, n_rows))
        negative_id = int(rng.integers(n_labels)) if has_negative else None
        weights = rng.random(n_rows) if weighted else None
        counted = [label_id for label_id in range(n_labels) if label_id != negative_id]
        expected = f1_score(
            gold, pred, labels=counted, average="micro", sample_weight=weights, zero_division=0
        )
        assert micro_f1(gold, pred, negative_id, weights) == pytest.approx(expected, abs=1e-12)

    def test_nothing_predicted_and_nothing_gold_is_zero(self):
        assert micro_f1(np.zeros(3, int), np.zeros(3, int), 0) == 0.0

    def test_a_gold_negative_predicted_positive_costs_precision(self):
        assert micro_f1(np.array([0, 1]), np.array([1, 1]), 0) == pytest.approx(2 / 3)

    def test_without_a_negative_label_it_is_accuracy(self):
        assert micro_f1(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]), None) == 0.75


class TestDecide:
    def test_the_best_positive_label_is_taken_at_the_threshold_and_not_below(self):
        probs = np.array([[0.5, 0.3, 0.2], [0.51, 0.29, 0.2], [0.1, 0.4, 0.5]])
        assert decide(probs, 0, 0.3).tolist() == [1, 0, 2]

    def test_it_may_differ_from_the_most_probable_label(self):
        probs = np.array([[0.6, 0.4]])
        assert decide(probs, 0, None).tolist() == [0]
        assert decide(probs, 0, 0.25).tolist() == [1]

    def test_without_a_negative_label_the_most_probable_label_is_taken(self):
        assert decide(np.array([[0.6, 0.4]]), None, 0.1).tolist() == [0]

    def test_the_input_is_left_alone(self):
        probs = np.array([[0.6, 0.4]])
        decide(probs, 0, 0.3)
        assert probs.tolist() == [[0.6, 0.4]]


class TestBestThreshold:
    @settings(max_examples=150, deadline=None)
    @given(SEEDS, st.integers(1, 80), st.integers(2, 5), st.integers(1, 9))
    def test_equals_brute_force(self, seed, n_rows, n_labels, decimals):
        rng, gold, probs = random_rows(seed, n_rows, n_labels, decimals, np.float32)
        negative_id = int(rng.integers(n_labels))
        threshold, score = best_threshold(probs, gold, negative_id)
        tried = np.append(np.unique(probs.astype(np.float64)), 2.0)
        brute = max(micro_f1(gold, decide(probs, negative_id, t), negative_id) for t in tried)
        assert score == pytest.approx(brute, abs=1e-12)
        reached = micro_f1(gold, decide(probs, negative_id, threshold), negative_id)
        assert reached == pytest.approx(score, abs=1e-12)

    def test_neighbouring_floats_are_distinguished(self):
        low = np.float64(0.7)
        high = np.nextafter(low, 1)
        probs = np.array([[0.3, high], [0.3, low]])
        threshold, score = best_threshold(probs, np.array([1, 0]), 0)
        assert score == 1.0
        assert decide(probs, 0, threshold).tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("probabilities", "expected"), [([0.9, 0.8, 0.7, 0.6], 0.3), ([0.4, 0.38, 0.37, 0.1], 0.39)]
    )
    def test_of_equally_good_ones_the_nearest_to_half_the_score_is_taken(
        self, probabilities, expected
    ):
        # right, wrong, wrong, right: one row kept gives 2/3, and so do all four; F*/2 is 1/3
        positive = np.array(probabilities)
        probs = np.stack([1 - positive, positive], axis=1)
        threshold, score = best_threshold(probs, np.array([1, 0, 0, 1]), 0)
        assert (threshold, score) == (pytest.approx(expected), pytest.approx(2 / 3))

    def test_nothing_right_scores_zero(self):
        threshold, score = best_threshold(np.array([[0.4, 0.6]]), np.array([0]), 0)
        assert score == 0.0
        assert threshold is not None

    def test_without_a_negative_label_there_is_none(self):
        assert best_threshold(np.array([[0.4, 0.6]]), np.array([1]), None) == (None, 1.0)


class TestWeightsForNegativeShare:
    def test_the_share_is_reached_and_the_mean_is_one(self):
        gold = np.array([0] * 3 + [1] * 7)
        weights = weights_for_negative_share(gold, (0,), 0.6)
        assert weights.mean() == pytest.approx(1.0)
        assert weights[gold == 0].sum() / weights.sum() == pytest.approx(0.6)

    @pytest.mark.parametrize(
        ("gold", "negative_ids"), [([1, 1], (0,)), ([0, 0], (0,)), ([0, 1], ())]
    )
    def test_what_cannot_be_reweighted_is_refused(self, gold, negative_ids):
        with pytest.raises(UsageError, match="shifted_negative_share"):
            weights_for_negative_share(np.array(gold), negative_ids, 0.6)
