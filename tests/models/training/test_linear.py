from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from competition.arrays import Int64s, Probs
from competition.data.rows import Entity, Row, Rows, collect_rows
from competition.folds.kfold import Prepared
from models.data.ngrams import BLOCKS, FeatureReader, read_blocks
from models.parts.formats import EXAMPLE_ROW
from models.settings import LinearSettings
from models.training.linear import (
    LinearTask,
    ScaledClassifier,
    find_rare_labels,
    fit_linear,
    measure_difficulty,
)

SETTINGS = LinearSettings(most_features=4096)


def gold(rows: Rows) -> np.ndarray:
    return rows.gold.astype(np.int64)


def answer(train: Rows, label_ids: Int64s, parts: list[Rows], task: LinearTask) -> list[Probs]:
    model = fit_linear(train, label_ids, task)
    return [model.predict(part) for part in parts]


def test_it_runs_without_torch() -> None:
    code = "import sys, models.training.linear; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_block_reads_its_own_part_of_the_row() -> None:
    blocks = dict(zip(BLOCKS, read_blocks(EXAMPLE_ROW, (1, 4)), strict=True))
    assert "ORG|PER" in blocks["types"]
    assert "비틀즈" in blocks["subject"]
    assert not [f for f in blocks["subject"] if "해리" in f]
    assert "0 이 쓰" in blocks["between"]
    assert "ORG|PER|0 쓰고" in blocks["words between"]
    assert ">가 19" in blocks["around subject"]
    assert "<는 " in blocks["around object"]
    assert "ORG|PER >이" in blocks["near object by types"]


def test_probabilities_are_probabilities_and_the_same_each_time(prepared: Prepared) -> None:
    train, groups = prepared.corpus.train, prepared.groups.astype(np.int64)
    runs = [
        answer(
            train,
            gold(train),
            [train, prepared.corpus.test],
            LinearTask(SETTINGS, 4, 1, groups),
        )
        for _ in range(2)
    ]
    own, test = runs[0]
    assert (own.shape, test.shape) == ((64, 4), (20, 4))
    np.testing.assert_allclose(own.sum(axis=1), 1, atol=1e-5)
    assert own.dtype == np.float32
    assert (own.argmax(axis=1) == gold(train)).mean() > 0.9
    for first, second in zip(*runs, strict=True):
        assert first.tobytes() == second.tobytes()


def test_a_prediction_does_not_depend_on_the_other_rows(prepared: Prepared) -> None:
    train, test = prepared.corpus.train, prepared.corpus.test
    parts = [test, test.take(np.array([3]))]
    many, one = answer(train, gold(train), parts, LinearTask(SETTINGS, 4, 1))
    np.testing.assert_allclose(many[3], one[0], atol=1e-6)


def test_a_label_absent_from_training_gets_probability_zero(prepared: Prepared) -> None:
    train = prepared.corpus.train
    known = train.take(np.flatnonzero(train.gold != 2))
    (probs,) = answer(known, gold(known), [train], LinearTask(SETTINGS, 4, 1))
    assert (probs[:, 2] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    alone = train.take(np.flatnonzero(train.gold == 3))
    (probs,) = answer(alone, gold(alone), [train], LinearTask(SETTINGS, 4, 1))
    assert (probs[:, 3] == 1).all()


@pytest.mark.parametrize("labels", [(0, 1), (1, 3)])
def test_two_labels_are_enough(prepared: Prepared, labels: tuple[int, int]) -> None:
    train = prepared.corpus.train
    some = train.take(np.flatnonzero(np.isin(train.gold, labels)))
    groups = np.zeros(len(some), np.int64)  # one group cannot be split: no calibration
    model = fit_linear(some, gold(some), LinearTask(SETTINGS, 4, 1, groups))
    assert not model.is_calibrated
    probs = model.predict(some)
    assert (probs.argmax(axis=1) == gold(some)).mean() > 0.9


def coin_row(number: int) -> Row:
    word = f"낱말{number}"
    end = len(word)
    subject, obj = Entity(word, 0, end, "PER"), Entity("가나", end + 1, end + 3, "ORG")
    return Row(str(number), f"{word} 가나", subject, obj, None)


def test_calibration_makes_confidence_match_accuracy() -> None:
    """Rows with random labels must not be predicted with high confidence."""
    rng = np.random.default_rng(0)
    rows = collect_rows(coin_row(i) for i in range(400))
    label_ids = rng.integers(0, 2, 400)
    first, rest = np.arange(200), np.arange(200, 400)
    model = fit_linear(rows.take(first), label_ids[first], LinearTask(SETTINGS, 2, 1))
    assert model.is_calibrated
    probs = model.predict(rows.take(rest))
    right = (probs.argmax(axis=1) == label_ids[rest]).mean()
    assert abs(probs.max(axis=1).mean() - right) < 0.12


def test_difficulty_is_measured_by_models_of_the_other_folds(prepared: Prepared) -> None:
    train = prepared.corpus.train
    fold_of = prepared.folds.fold_of
    kept = np.flatnonzero(fold_of != 0)
    some, label_ids = train.take(kept), gold(train)[kept]
    task = LinearTask(SETTINGS, 4, 1)
    before = measure_difficulty(some, label_ids, fold_of[kept], task)
    assert before.shape == (len(kept),)
    assert ((before >= 0) & (before <= 1)).all()
    changed = label_ids.copy()
    changed[0] = (changed[0] + 1) % 4
    after = measure_difficulty(some, changed, fold_of[kept], task)
    same_fold = fold_of[kept] == fold_of[kept][0]
    same_fold[0] = False
    np.testing.assert_array_equal(before[same_fold], after[same_fold])
    assert (before[~same_fold] != after[~same_fold]).any()


def test_features_of_a_single_row_are_dropped(prepared: Prepared) -> None:
    reader = FeatureReader(SETTINGS)
    features = reader.fit(prepared.corpus.train)
    assert (features.getnnz(axis=0) >= 2).all()
    assert reader.read(prepared.corpus.test).shape[1] == features.shape[1]


def test_rare_labels_are_those_that_some_part_lacks(prepared: Prepared) -> None:
    label_ids = np.array([0, 0, 1, 1, 2, 0, 1, 2])
    groups = np.array([0, 1, 0, 1, 0, 2, 2, 0])  # label 2 stands in one group alone
    assert find_rare_labels(label_ids, groups, 3, 5).tolist() == [2, 3, 4]
    assert find_rare_labels(label_ids, groups, 4, 3).tolist() == [0, 1, 2]  # too few groups
    train = prepared.corpus.train
    fours = np.arange(len(train)) // 4  # each has all labels
    assert find_rare_labels(gold(train), fours, SETTINGS.inner_folds, 4).tolist() == []


def test_a_rare_label_does_not_switch_the_calibration_of_others_off() -> None:
    """Two labels by the toss of a coin, a third in one row, and a fourth that is nowhere."""
    rng = np.random.default_rng(0)
    rows = collect_rows(coin_row(i) for i in range(400))
    label_ids = rng.integers(0, 2, 400)
    label_ids[7] = 2
    first, rest = np.arange(200), np.arange(200, 400)
    task = LinearTask(SETTINGS, 4, 1, has_rare_labels=True)
    model = fit_linear(rows.take(first), label_ids[first], task)
    assert model.is_calibrated
    probs = model.predict(rows.take(rest))
    right = (probs.argmax(axis=1) == label_ids[rest]).mean()
    assert abs(probs.max(axis=1).mean() - right) < 0.12
    assert (probs[:, 3] == np.float32(1 / 204)).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)


def test_one_scale_for_all_is_the_scale_of_the_usual_calibration(prepared: Prepared) -> None:
    train = prepared.corpus.train
    fours = np.arange(len(train)) // 4
    plain = fit_linear(train, gold(train), LinearTask(SETTINGS, 4, 1, fours))
    scaled = fit_linear(train, gold(train), LinearTask(SETTINGS, 4, 1, fours, True))
    assert isinstance(scaled.classifier, ScaledClassifier)
    (calibrated,) = plain.classifier.calibrated_classifiers_
    assert scaled.classifier.scale == pytest.approx(calibrated.calibrators[0].beta_, rel=1e-3)
