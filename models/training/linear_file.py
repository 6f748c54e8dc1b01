"""A fitted linear model as a file of arrays, which predicts the same bytes without being refitted.

``fold`` keeps no linear model, since it can fit it again from the training rows; a bundle for a
machine without those rows, or with another scikit-learn, holds it.

Legend: C' labels present in training, F features, r rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from competition.arrays import Float64s
from competition.errors import TrainingError
from competition.files import first_problem, write_atomically
from models.data.ngrams import FeatureReader, Matrix
from models.settings import LinearSettings
from models.training.linear import LinearModel, ScaledClassifier, softmax, two_sided


@dataclass(frozen=True)
class StoredClassifier:
    """The arrays of a fitted linear SVM and its temperature.

    Attributes:
        weights: (C', F), or (1, F) for two labels.
        intercepts: (C',) or (1,).
        scale: inverse temperature of the calibration; None without calibration.
    """

    weights: Float64s
    intercepts: Float64s
    scale: float | None

    def decision_function(self, features: Matrix) -> Float64s:
        """Return the decision values, (r, C'), or (r,) for two labels."""
        scores = np.asarray(features @ self.weights.T + self.intercepts)
        return scores.ravel() if scores.shape[1] == 1 else scores

    def predict_proba(self, features: Matrix) -> Float64s:
        """Return the calibrated probabilities, (r, C')."""
        assert self.scale is not None
        return softmax(self.scale * two_sided(self.decision_function(features)))


def write_linear(path: Path, model: LinearModel, facts: dict[str, Any]) -> None:
    """Write a fitted linear model, with ``facts`` (JSON-serialisable) beside it in the header."""
    reader = model.reader
    arrays: dict[str, Any] = {"present": model.present, **reader.dump()}
    scale = None
    if len(model.present) > 1:
        fitted = model.classifier
        if isinstance(fitted, ScaledClassifier):
            fitted, scale = fitted.estimator, fitted.scale
        elif model.is_calibrated:
            (calibrated,) = fitted.calibrated_classifiers_
            fitted, scale = calibrated.estimator, float(calibrated.calibrators[0].beta_)
        arrays |= {"weights": fitted.coef_, "intercepts": fitted.intercept_}
    header = {
        "settings": reader.settings.model_dump(mode="json"),
        "n_labels": model.n_labels,
        "scale": scale,
        **({"absent_share": model.absent_share} if model.absent_share else {}),
        **facts,
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomically(path, save(contiguous, metadata={"facts": json.dumps(header)}))


def read_linear(path: Path) -> LinearModel:
    """Read a fitted linear model.

    Raises:
        TrainingError: the file is damaged.
    """
    with reading_model(path), safe_open(path, "np") as stored:
        header = _Header.model_validate_json(stored.metadata()["facts"])
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        return _build(header, arrays)
    raise AssertionError("unreachable")


@contextmanager
def reading_model(path: Path) -> Iterator[None]:
    """Convert what a damaged file of a model leads to into one error.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        yield
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = first_problem(error)
        raise TrainingError(f"{path} is damaged ({reason}); copy it again") from None


class _Header(BaseModel):
    """What is stored with a model, as far as it is read again."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    settings: LinearSettings
    n_labels: int
    scale: float | None
    absent_share: float = 0.0


def _build(header: _Header, arrays: dict[str, Any]) -> LinearModel:
    reader = FeatureReader(header.settings)
    reader.load(arrays)
    classifier = None
    if "weights" in arrays:
        classifier = StoredClassifier(arrays["weights"], arrays["intercepts"], header.scale)
    return LinearModel(
        reader,
        classifier,
        arrays["present"],
        header.n_labels,
        is_calibrated=header.scale is not None,
        absent_share=header.absent_share,
    )
