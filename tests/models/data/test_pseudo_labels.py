from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.data.pseudo_labels import choose_pseudo_rows
from models.settings import PseudoSettings

PROBS = np.array(
    [[0.2, 0.8, 0.0], [0.95, 0.05, 0.0], [0.05, 0.05, 0.9], [0.1, 0.0, 0.9], [0.4, 0.3, 0.3]],
    np.float32,
)


def choose(probs: npt.NDArray[Any] = PROBS, n_train: int = 100, **options: Any) -> Any:
    wanted = PseudoSettings(variant="typed-punct", **options)
    return [part.tolist() for part in choose_pseudo_rows(probs, wanted, n_train)]


def test_the_most_confident_rows_come_first_and_ties_in_row_order() -> None:
    assert choose() == [[1, 2, 3], [0, 2, 2]]
    assert choose(min_confidence=0.5) == [[1, 2, 3, 0], [0, 2, 2, 1]]
    two_kinds = np.tile(np.array([[0.75, 0.25], [0.05, 0.95]], np.float32), (500, 1))
    assert choose(two_kinds, 2000, min_confidence=0.5)[0] == [
        *range(1, 1000, 2),
        *range(0, 1000, 2),
    ]


def test_the_minimum_confidence_holds_in_the_precision_of_the_store() -> None:
    assert float(PROBS[2, 2]) < 0.9  # 0.9 in float32, which counts as 0.9
    assert choose(min_confidence=0.9)[0] == [1, 2, 3]


def test_at_most_a_share_of_the_training_rows_is_chosen() -> None:
    assert choose(n_train=4, most_share=0.5) == [[1, 2], [0, 2]]
    assert choose(n_train=2, most_share=1.5)[0] == [1, 2, 3]
    assert choose(n_train=1, most_share=0.5) == [[], []]


def test_no_row_may_be_confident_enough() -> None:
    assert choose(min_confidence=0.99) == [[], []]
    assert choose(np.empty((0, 3), np.float32)) == [[], []]


LOGITS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 30), st.just(4)), elements=st.integers(-3, 3)
)


@settings(max_examples=50)
@given(
    logits=LOGITS,
    least=st.floats(0.3, 1.0),
    most=st.floats(0.05, 2.0),
)
def test_no_row_with_higher_confidence_is_skipped(
    logits: npt.NDArray[np.float32], least: float, most: float
) -> None:
    raised = np.exp(logits)
    probs = raised / raised.sum(axis=1, keepdims=True)
    wanted = PseudoSettings(variant="x", min_confidence=least, most_share=most)
    rows, label_ids = choose_pseudo_rows(probs, wanted, 10)
    confidence = probs.max(axis=1)
    assert len(rows) <= most * 10
    assert len(set(rows.tolist())) == len(rows)
    assert (confidence[rows] >= np.float32(least)).all()
    assert (label_ids == probs[rows].argmax(axis=1)).all()
    left = np.setdiff1d(np.arange(len(probs)), rows)
    if len(rows) < int(most * 10):
        assert (confidence[left] < np.float32(least)).all()
    elif len(left) and len(rows):
        assert confidence[left].max() <= confidence[rows].min()


def test_a_share_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="most_share"):
        PseudoSettings(variant="x", most_share=0)
