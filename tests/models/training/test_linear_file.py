"""A linear model read from its file predicts the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from competition.data.rows import Rows
from competition.errors import TrainingError
from competition.folds.kfold import Prepared
from models.settings import LinearSettings
from models.training.linear import LinearModel, LinearTask, fit_linear
from models.training.linear_file import read_linear, write_linear

SETTINGS = LinearSettings(most_features=4096)


def fit(train: Rows, label_ids: np.ndarray, groups: np.ndarray | None) -> LinearModel:
    return fit_linear(train, label_ids, LinearTask(SETTINGS, 4, 1, groups))


def test_the_same_bytes_with_any_number_of_labels(prepared: Prepared, tmp_path: Path) -> None:
    train, test = prepared.corpus.train, prepared.corpus.test
    gold, groups = train.gold.astype(np.int64), prepared.groups.astype(np.int64)
    two, one = np.flatnonzero(gold < 2), np.flatnonzero(gold == 2)
    models = [
        fit(train, gold, groups),
        fit(train, gold, np.zeros(len(train), np.int64)),  # one group cannot be calibrated
        fit(train.take(two), gold[two], groups[two]),
        fit(train.take(one), gold[one], None),
    ]
    assert [model.is_calibrated for model in models] == [True, False, True, False]
    for number, model in enumerate(models):
        path = tmp_path / f"{number}.safetensors"
        write_linear(path, model, {"name": "x"})
        again = read_linear(path)
        assert again.predict(test).tobytes() == model.predict(test).tobytes(), number
        assert again.is_calibrated == model.is_calibrated
        assert len(again.predict(test.take(np.zeros(0, np.int64)))) == 0


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(TrainingError, match="is damaged"):
        read_linear(path)
