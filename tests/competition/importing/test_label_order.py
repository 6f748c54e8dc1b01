"""The order of columns without names, found by the gold labels of out-of-fold rows."""

from __future__ import annotations

import numpy as np

from competition.importing.label_order import find_order

LABELS = ["none", "made", "born", "works", "lives"]


def answers_of(gold: np.ndarray, order: list[int]) -> np.ndarray:
    """Return right answers as the numbers of columns whose labels are in ``order``."""
    return np.argsort(order)[gold]


def test_labels_with_as_many_rows_are_not_guessed_by_their_number() -> None:
    gold = np.repeat(np.arange(5), [6, 400, 6, 1000, 900])
    for order, name in (([3, 4, 1, 0, 2], "by number of rows"), ([3, 4, 1, 2, 0], None)):
        found = find_order(gold, answers_of(gold, order), LABELS)
        assert found is not None
        assert found.name == name
        assert found.places.tolist() == np.argsort(order).tolist()


def test_an_order_that_has_two_rare_columns_wrong_is_in_doubt() -> None:
    gold = np.repeat(np.arange(5), [1000, 900, 800, 6, 5])
    alphabetical = [2, 4, 1, 0, 3]
    found = find_order(gold, answers_of(gold, alphabetical), LABELS)
    assert found is not None
    assert found.name == "alphabetical"
    swapped = [2, 3, 1, 0, 4]
    found = find_order(gold, answers_of(gold, swapped), LABELS)
    assert found is not None
    assert found.name is None
    assert found.places.tolist() == np.argsort(swapped).tolist()


def test_the_first_appearance_is_that_in_the_train_file() -> None:
    """A table of out-of-fold rows may list them fold by fold."""
    file_gold = np.tile([3, 0, 4, 2, 1], 20)
    table = np.sort(file_gold)[::-1]
    found = find_order(table, answers_of(table, [3, 0, 4, 2, 1]), LABELS, file_gold)
    assert found is not None
    assert found.name == "of first appearance in the train file"
