"""Strata: what can be seen of a row without a label, the same way on both sides."""

from __future__ import annotations

import itertools

import numpy as np

from competition.data.rows import COLUMNS, OFFSET_COLUMNS, Rows, build_frame
from competition.folds.strata import build_strata


def make_rows(*rows: tuple[str, str, str, str | None]) -> Rows:
    """Rows of (sentence, subject, object, type of both)."""
    columns: dict[str, list[object]] = {name: [] for name in COLUMNS}
    for number, (sentence, subject, object_, type_) in enumerate(rows):
        values: dict[str, object] = {"id": str(number), "sentence": sentence}
        values |= {"subject_word": subject, "object_word": object_}
        values |= {"subject_type": type_, "object_type": type_}
        for name in COLUMNS:
            columns[name].append(values.get(name, 0 if name in OFFSET_COLUMNS else None))
    return Rows(build_frame(columns), None)


TRAIN = make_rows(
    ("s0", "Kim", "Seoul", "PER"),
    ("s1", "Kim", "Busan", "PER"),
    ("s2", "Lee", "Seoul", "ORG"),
    ("s3", "Park", "Daegu", "ORG"),
)
FOLD_OF = np.array([0, 0, 1, 1], dtype=np.int8)


def test_an_entity_is_known_only_from_rows_that_the_models_were_trained_on() -> None:
    test = make_rows(("t0", "Kim", "Jeju", "PER"), ("t1", "Choi", "Seoul", "ORG"))
    strata = build_strata(TRAIN, test, FOLD_OF)
    assert strata.names == ("all", "types", "known entities")
    # train: Seoul of row 0 stands in fold 1 too, Kim in fold 0 alone; test: every train row counts
    only_object = strata.train[2][[0]], strata.train[2][[2]]
    assert strata.train[2][0] != strata.train[2][1]
    assert strata.train[2][2] != strata.train[2][3]
    assert strata.test[2][1] == only_object[1][0], "an ORG row whose object alone is known"
    assert strata.test[2][0] not in strata.train[2], "a PER row whose subject alone is known"
    assert not strata.train_repeated
    assert not strata.test_repeated


def test_levels_are_nested() -> None:
    test = make_rows(("t0", "Kim", "Jeju", "PER"))
    strata = build_strata(TRAIN, test, FOLD_OF)
    both = np.concatenate([strata.train, strata.test], axis=1)
    for coarse, fine in itertools.pairwise(both):
        for stratum in np.unique(fine):
            assert len(np.unique(coarse[fine == stratum])) == 1


def test_repeated_rows_are_a_level_only_where_both_sides_have_them() -> None:
    test = make_rows(("s0", "Choi", "Jeju", "PER"), ("t1", "Seoul", "Kim", "PER"))
    grouped = build_strata(TRAIN, test, FOLD_OF)
    assert "repeated" not in grouped.names, "no train row repeats a row of another fold"
    assert (grouped.train_repeated, grouped.test_repeated) == (0.0, 1.0)
    lax = build_strata(
        make_rows(*[("s0", "Kim", "Seoul", "PER")] * 2, ("s1", "Lee", "Jeju", "PER")),
        test,
        np.array([0, 1, 1], dtype=np.int8),
    )
    assert lax.names == ("all", "types", "repeated", "known entities")
    assert lax.train_repeated == 2 / 3


def test_untyped_rows_have_no_level_of_types() -> None:
    train = make_rows(("s0", "Kim", "Seoul", None), ("s1", "Lee", "Jeju", None))
    strata = build_strata(train, train, np.array([0, 1], dtype=np.int8))
    assert strata.names == ("all", "known entities")


def test_a_type_that_the_test_alone_has_is_a_separate_stratum() -> None:
    test = make_rows(("t0", "Kim", "Jeju", "LOC"))
    strata = build_strata(TRAIN, test, FOLD_OF)
    assert strata.test[1][0] not in strata.train[1]
