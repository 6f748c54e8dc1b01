from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import VariantError
from competition.folds.kfold import Prepared, read_prepared
from competition.profile import Competition, resolve_competition
from models.parts.restriction import build_table, mask_logits, measure_coverage, number_pairs

PAIRS, LABELS = 4, 5
NEGATIVE = 2

known_rows = st.lists(
    st.tuples(st.integers(0, PAIRS - 1), st.integers(0, LABELS - 1)), min_size=1, max_size=40
)


def table_of(rows: list[tuple[int, int]], **options: Any) -> Any:
    pairs, labels = np.array(rows).T
    settings = {"min_count": 2, "negative_ids": (NEGATIVE,)} | options
    return build_table(pairs, labels, PAIRS, LABELS, **settings)


def test_pairs_are_numbered_by_subject_then_object(prepared: Prepared) -> None:
    rows = prepared.corpus.train
    numbers = number_pairs(rows, ["PER", "ORG", "LOC"])
    assert numbers.shape == (len(rows),)
    place = {"PER": 0, "ORG": 1, "LOC": 2}
    for row, number in zip(rows, numbers, strict=True):
        assert row.subject.type is not None
        assert row.object.type is not None
        assert number == place[row.subject.type] * 3 + place[row.object.type]
    assert len(set(numbers)) == 4


def test_a_competition_without_types_cannot_be_restricted(foreign_competition: Competition) -> None:
    rows = read_prepared(foreign_competition).corpus.train
    with pytest.raises(VariantError, match=r"remove \[restrict\] from the variant"):
        number_pairs(rows, [])


@given(known_rows, st.integers(1, 4))
def test_a_table_allows_labels_that_occur_often_enough(
    rows: list[tuple[int, int]], min_count: int
) -> None:
    table = table_of(rows, min_count=min_count)
    assert table[:, NEGATIVE].all()
    for pair in range(PAIRS):
        often = {label for _, label in rows if rows.count((pair, label)) >= min_count}
        allowed = set(np.flatnonzero(table[pair]).tolist())
        assert allowed == (often | {NEGATIVE} if often else set(range(LABELS)))


@given(known_rows)
def test_without_a_negative_label_every_pair_still_allows_one(rows: list[tuple[int, int]]) -> None:
    table = table_of(rows, min_count=3, negative_ids=())
    assert table.any(axis=1).all()


def test_every_negative_label_is_allowed() -> None:
    table = table_of([(0, 2), (0, 2)], min_count=2, negative_ids=(0, 1))
    assert table[0].tolist() == [True, True, True, *[False] * (LABELS - 3)]


@given(known_rows)
def test_with_min_count_one_every_training_label_is_allowed(
    rows: list[tuple[int, int]],
) -> None:
    pairs, labels = np.array(rows).T
    assert measure_coverage(table_of(rows, min_count=1), pairs, labels) == 1.0


def test_coverage_is_the_share_of_gold_that_is_allowed() -> None:
    table = np.array([[True, False], [True, True]])
    assert measure_coverage(table, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == 0.75
    assert math.isnan(measure_coverage(table, np.zeros(0, int), np.zeros(0, int)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_masked_logits_give_a_softmax_over_allowed_labels(dtype: torch.dtype) -> None:
    logits = torch.randn(3, LABELS, generator=torch.Generator().manual_seed(0)).to(dtype)
    allowed = torch.ones(3, LABELS, dtype=torch.bool)
    allowed[0, [1, 3]] = allowed[1, 1:] = False
    masked = mask_logits(logits, allowed)
    assert masked.dtype == dtype
    probs = masked.double().softmax(dim=1)
    unmasked = logits.double().softmax(dim=1) * allowed
    torch.testing.assert_close(probs, unmasked / unmasked.sum(dim=1, keepdim=True))
    assert (probs[~allowed] == 0).all()
    assert torch.equal(masked[2], logits[2])


def forbidden_gold(prepared: Prepared) -> list[float]:
    """Return the share of positive held-out labels that the table of each fold rules out."""
    profile, train = prepared.competition.profile, prepared.corpus.train
    pairs, gold = number_pairs(train, profile.entity_types), train.gold
    shares = []
    for fold in range(prepared.folds.count):
        held = prepared.folds.fold_of == fold
        table = build_table(
            pairs[~held],
            gold[~held],
            len(profile.entity_types) ** 2,
            len(profile.labels),
            min_count=2,
            negative_ids=profile.negative_ids,
        )
        judged = held & (gold != profile.negative_ids[0])
        shares.append(1 - measure_coverage(table, pairs[judged], gold[judged]))
    return shares


def test_a_counted_table_rules_out_few_gold_labels(klue_re_dir: Path, tmp_path: Path) -> None:
    """The published table of a winning team ruled out 18.8% of the positive labels."""
    found = resolve_competition("klue-re", klue_re_dir, None, home=tmp_path)
    assert max(forbidden_gold(read_prepared(found))) < 0.01
