from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from competition.errors import TrainingError
from competition.folds.kfold import Prepared
from models.data import ngrams
from models.data.ngrams import FeatureReader
from models.settings import MlpSettings
from models.training.control import Progress
from models.training.mlp import MlpModel, MlpTask, fit_mlp
from models.training.mlp_file import read_mlp, write_mlp

TASK = MlpTask(MlpSettings(most_features=4096, hidden=16, epochs=4, batch_rows=8), 4, seed=1)


@pytest.fixture
def gold(prepared: Prepared) -> np.ndarray:
    return prepared.corpus.train.gold.astype(np.int64)


def fit(prepared: Prepared, label_ids: np.ndarray, task: MlpTask = TASK) -> MlpModel:
    model = fit_mlp(prepared.corpus.train, label_ids, task)
    assert model is not None
    return model


def test_it_learns_and_gives_the_same_bytes_each_time(prepared: Prepared, gold: np.ndarray) -> None:
    train, test = prepared.corpus.train, prepared.corpus.test
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    own, again = (fit(prepared, gold).predict(train) for _ in range(2))
    assert own.tobytes() == again.tobytes()
    assert (own.shape, own.dtype) == ((64, 4), np.float32)
    np.testing.assert_allclose(own.sum(axis=1), 1, atol=1e-6)
    assert (own.argmax(axis=1) == gold).mean() > 0.9
    other = fit(prepared, gold, replace(TASK, seed=2)).predict(train)
    assert not np.array_equal(own, other)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert fit(prepared, gold).predict(test.take(np.zeros(0, np.int64))).shape == (0, 4)


def test_progress_is_reported_to_the_last_step(prepared: Prepared, gold: np.ndarray) -> None:
    heard: list[Progress] = []
    fit(prepared, gold, replace(TASK, report=heard.append))
    assert (heard[-1].step, heard[-1].steps, heard[-1].eta_s) == (32, 32, 0)
    assert 0 < heard[-1].loss < np.log(4)
    assert heard[-1].rows_per_s > 0


def test_features_do_not_depend_on_how_many_rows_are_hashed_at_a_time(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FeatureReader(TASK.settings).fit(prepared.corpus.train)
    monkeypatch.setattr(ngrams, "HASHED_ROWS", 7)
    parts = FeatureReader(TASK.settings).fit(prepared.corpus.train)
    for name in ("data", "indices", "indptr"):
        assert getattr(parts, name).tobytes() == getattr(whole, name).tobytes()


def test_a_label_without_training_rows_is_improbable(prepared: Prepared, gold: np.ndarray) -> None:
    probs = fit(prepared, np.where(gold == 2, 0, gold)).predict(prepared.corpus.train)
    assert 0 < probs[:, 2].max() < 0.2


def test_soft_labels_replace_those_of_the_last_rows(prepared: Prepared, gold: np.ndarray) -> None:
    """Rows with wrong labels, but the right soft labels, are learned by the soft ones."""
    half = len(gold) // 2
    wrong = np.concatenate([gold[:half], (gold[half:] + 1) % 4])
    soft = np.eye(4, dtype=np.float32)[gold[half:]]
    trained = {
        weight: fit(prepared, wrong, replace(TASK, soft_labels=soft, soft_weight=weight))
        for weight in (1.0, 0.01)
    }
    taught = {w: model.predict(prepared.corpus.train)[half:] for w, model in trained.items()}
    assert (taught[1.0].argmax(axis=1) == gold[half:]).mean() > 0.9
    confidence = {w: probs[np.arange(half), gold[half:]].mean() for w, probs in taught.items()}
    assert confidence[0.01] < confidence[1.0]


def test_a_fit_stops_before_a_step(prepared: Prepared, gold: np.ndarray) -> None:
    answers = iter([False, False, True])
    task = replace(TASK, should_stop=lambda: next(answers))
    assert fit_mlp(prepared.corpus.train, gold, task) is None
    assert next(answers, None) is None


def test_a_loss_that_is_not_finite_is_said(prepared: Prepared, gold: np.ndarray) -> None:
    settings = TASK.settings.model_copy(update={"lr": 1e38})
    with pytest.raises(TrainingError, match=r"the loss is .* choose a lower mlp\.lr"):
        fit_mlp(prepared.corpus.train, gold, replace(TASK, settings=settings))


def test_a_model_read_from_its_file_predicts_the_same_bytes(
    prepared: Prepared, gold: np.ndarray, tmp_path: Path
) -> None:
    model, path = fit(prepared, gold), tmp_path / "mlp.safetensors"
    write_mlp(path, model, {"name": "x"})
    test = prepared.corpus.test
    assert read_mlp(path).predict(test).tobytes() == model.predict(test).tobytes()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match="is damaged"):
        read_mlp(path)
