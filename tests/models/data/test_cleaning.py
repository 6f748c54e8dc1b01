from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from competition.data.rows import Rows
from competition.errors import VariantError
from models.data.cleaning import clean_rows
from models.settings import CleanSettings
from tests.models.made_rows import in_columns, mark

NEGATIVE, SPOUSE, TITLE = 0, 1, 2
PAIR, TURNED = "<가>와 {나}의 글", "{가}와 <나>의 글"
ROWS = in_columns(
    [
        mark("0", PAIR),
        mark("1", "<가>와 나의 {글}"),  # the sentence again, another object
        mark("2", PAIR),
        mark("3", TURNED),  # roles exchanged: another row
        mark("4", PAIR, types=("ORG", "ORG")),  # a type is no part of what a row is
        mark("5", "<다>의 {라}"),
        mark("6", "<다>의 {라}"),
        mark("7", "<마>의 {바}"),
        mark("8", "<마>의 {바}"),
        mark("9", "<마>의 {바}"),
    ],
    [SPOUSE, SPOUSE, NEGATIVE, SPOUSE, SPOUSE, TITLE, SPOUSE, NEGATIVE, TITLE, SPOUSE],
)
ALL = np.arange(len(ROWS))


def clean(train_rows: Any = ALL, *, rows: Rows = ROWS, **settings: Any) -> list[int]:
    return clean_rows(rows, train_rows, (NEGATIVE,), CleanSettings(**settings)).tolist()


def test_nothing_is_dropped_unless_requested() -> None:
    assert clean() == ALL.tolist()


def test_of_equal_rows_the_first_is_kept() -> None:
    assert clean(duplicates="drop") == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert clean(ALL[::-1], duplicates="drop") == [9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_drop_negative_removes_the_negative_row_of_a_conflict() -> None:
    assert clean(conflicts="drop-negative") == [0, 1, 3, 4, 5, 6, 8, 9]


def test_several_negative_labels_give_way_to_a_positive_one_and_not_to_each_other() -> None:
    drop = CleanSettings(conflicts="drop-negative")
    kept = clean_rows(ROWS, ALL, (NEGATIVE, TITLE), drop)
    assert kept.tolist() == [0, 1, 3, 4, 6, 9]  # SPOUSE alone is positive
    kept = clean_rows(ROWS, ALL[7:9], (NEGATIVE, TITLE), drop)
    assert kept.tolist() == [7, 8]


def test_drop_all_removes_every_row_of_a_conflict() -> None:
    assert clean(conflicts="drop-all") == [1, 3]


def test_conflicts_are_resolved_before_duplicates() -> None:
    assert clean(conflicts="drop-negative", duplicates="drop") == [0, 1, 3, 5, 6, 8, 9]


def test_duplicates_outside_the_training_rows_are_ignored() -> None:
    assert clean(np.array([2, 5, 7]), conflicts="drop-all", duplicates="drop") == [2, 5, 7]
    assert clean(np.empty(0, np.int64), conflicts="drop-all", duplicates="drop") == []


@effort(max_examples=25)
@given(
    is_heldout=st.lists(st.booleans(), min_size=10, max_size=10),
    labels=st.lists(st.integers(0, 2), min_size=10, max_size=10),
)
def test_held_out_labels_are_not_used(is_heldout: list[bool], labels: list[int]) -> None:
    heldout = np.array(is_heldout)
    changed = Rows(ROWS.frame, np.where(heldout, labels, ROWS.gold).astype(np.int16))
    settings = {"duplicates": "drop", "conflicts": "drop-negative"}
    train_rows = np.flatnonzero(~heldout)
    assert clean(train_rows, rows=changed, **settings) == clean(train_rows, **settings)


def test_drop_negative_needs_a_negative_label() -> None:
    with pytest.raises(VariantError, match="drop-all"):
        clean_rows(ROWS, ALL, (), CleanSettings(conflicts="drop-negative"))
    assert len(clean_rows(ROWS, ALL, (), CleanSettings(conflicts="drop-all"))) == 2
