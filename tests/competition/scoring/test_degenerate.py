"""degenerate: what throws points away is named, and models' probabilities never are."""

from __future__ import annotations

import numpy as np
import pytest

from competition.scoring.degenerate import find_waste


def soften(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("n_labels", [2, 3, 30])
@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("n_rows", [12, 1000])
def test_a_model_is_not_blamed(n_labels: int, scale: float, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, scale, (n_rows, n_labels))
    probs = soften(logits)
    assert find_waste(probs) is None
    if scale > 1 and n_labels > 2:
        found = find_waste(soften(probs))
        assert found is not None
        assert "softmax was applied twice" in found.found


def test_averages_of_hard_votes_are_votes() -> None:
    votes = np.eye(4)[np.random.default_rng(0).integers(0, 4, (5, 100))].mean(axis=0)
    found = find_waste(votes)
    assert found is not None
    assert "votes, not probabilities" in found.found


def test_few_digits_are_ties() -> None:
    probs = soften(np.random.default_rng(0).normal(0, 2, (100, 5))).round(2)
    found = find_waste(probs)
    assert found is not None
    assert "two digits at most" in found.found


def test_few_rows_tell_nothing() -> None:
    assert find_waste(np.eye(3)) is None
