"""The linear learner: TF-IDF of character n-grams and a calibrated linear SVM (scikit-learn).

Replaces the network when ``learner = "linear"``, and estimates the difficulty of training rows for
curriculum learning. It does not import torch, and scikit-learn only where it is used.
``RESULT_VERSION`` covers the features of ``models.data.ngrams`` too.

Legend: n training rows, r rows to predict, C labels, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.arrays import Float64s, Int64s, Probs, Say
from competition.data.rows import Rows
from models.data.ngrams import FeatureReader, Matrix
from models.settings import LinearSettings

RESULT_VERSION = 1
VERSION_NAME = "models.linear"
RARE_LABELS_VERSION = 1  # of what a job with rare labels computes; part of its fingerprint

TOLERANCE = 0.1  # of the solver; a smaller one takes longer and changes no score


@dataclass(frozen=True)
class LinearTask:
    """What `fit_linear` needs besides the rows.

    Attributes:
        settings: hyperparameters of the features, the classifier and its calibration.
        n_labels: C.
        seed: of the solver.
        groups: (n,) group of each training row, kept whole by the calibration's cross-validation;
            None puts each row in its own group.
        has_rare_labels: ``find_rare_labels`` found some.
    """

    settings: LinearSettings
    n_labels: int
    seed: int
    groups: Int64s | None = None
    has_rare_labels: bool = False


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear model; ``present`` are the labels that occur in its training rows.

    ``is_calibrated`` is False if there are too few groups to fit a temperature; probabilities are
    then an uncalibrated softmax of the decision values. ``absent_share`` is the probability of
    each label without a training row.
    """

    reader: FeatureReader
    classifier: Any
    present: Int64s
    n_labels: int
    is_calibrated: bool
    absent_share: float = 0.0

    def predict(self, rows: Rows) -> Probs:
        """Predict r rows: (r, C) float32; rows sum to 1."""
        out = np.zeros((len(rows), self.n_labels), np.float32)
        if len(self.present) < 2:
            out[:, self.present] = 1.0
        elif len(rows):
            found = self.reader.read(rows)
            out[:, self.present] = (
                self.classifier.predict_proba(found)
                if self.is_calibrated
                else softmax(two_sided(self.classifier.decision_function(found)))
            )
        if self.absent_share:
            is_absent = ~np.isin(np.arange(self.n_labels), self.present)
            out *= np.float32(1.0 - self.absent_share * is_absent.sum())
            out[:, is_absent] = self.absent_share
        return out


@dataclass(frozen=True)
class ScaledClassifier:
    """A linear SVM with one inverse temperature for all its labels."""

    estimator: Any
    scale: float

    def predict_proba(self, features: Matrix) -> Float64s:
        """Return the calibrated probabilities, (r, C')."""
        return softmax(self.scale * two_sided(self.estimator.decision_function(features)))


def fit_linear(
    train: Rows, train_label_ids: Int64s, task: LinearTask, say: Say | None = None
) -> LinearModel:
    """Fit the linear model on training rows.

    Source: temperature scaling of cross-validated decision values, after Guo et al. 2017, arXiv
    1706.04599; the final classifier is fitted to all rows.
    """
    settings, groups = task.settings, task.groups
    reader = FeatureReader(settings)
    features = reader.fit(train)
    if say is not None:
        say(f"linear: {features.shape[0]:,} rows, {features.nnz // len(train):,} features each")
    classifier = _build_classifier(settings, task.seed)
    group_of = np.arange(len(train)) if groups is None else groups
    if task.has_rare_labels:
        return _fit_with_rare_labels(reader, features, train_label_ids, group_of, task)
    splits = list(_calibration_splits(features, train_label_ids, group_of, settings.inner_folds))
    if splits:
        from sklearn.calibration import CalibratedClassifierCV

        classifier = CalibratedClassifierCV(
            classifier, method="temperature", cv=splits, ensemble=False
        )
    present = np.unique(train_label_ids)
    if len(present) > 1:
        classifier.fit(features, train_label_ids)
    return LinearModel(reader, classifier, present, task.n_labels, is_calibrated=bool(splits))


def find_rare_labels(
    label_ids: Int64s, groups: Int64s, inner_folds: int, n_labels: int
) -> npt.NDArray[np.int64]:
    """Return the labels that keep a model from being calibrated with all of them.

    These are labels without a training row, and those that some part of the calibration's
    cross-validation lacks. With too few groups for its parts, all labels are returned.

    Args:
        groups: (n,) rows that are left out together.
    """
    every = np.arange(n_labels)
    if len(np.unique(groups)) < inner_folds:
        return every
    splits = _split(inner_folds, np.zeros(len(label_ids)), label_ids, groups)
    return np.setdiff1d(every, _find_common(label_ids, [train for train, _ in splits]))


def _find_common(label_ids: Int64s, parts: Sequence[Int64s]) -> Int64s:
    """Return the labels that every part has."""
    common = np.unique(label_ids)
    for part in parts:
        common = np.intersect1d(common, label_ids[part])
    return common


def _fit_with_rare_labels(
    reader: FeatureReader,
    features: Matrix,
    label_ids: Int64s,
    groups: Int64s,
    task: LinearTask,
) -> LinearModel:
    """Fit a model with one temperature, from the rows whose label every part has.

    A label without a training row gets the share that one row of n would have.
    """
    present = np.unique(label_ids)
    n_absent = task.n_labels - len(present)
    share = 1.0 / (len(label_ids) + task.n_labels) if n_absent else 0.0
    classifier = _build_classifier(task.settings, task.seed)
    if len(present) < 2:
        return LinearModel(reader, classifier, present, task.n_labels, False, share)
    scale = _fit_scale(features, label_ids, groups, task)
    classifier.fit(features, label_ids)
    is_calibrated = scale is not None
    fitted = classifier if scale is None else ScaledClassifier(classifier, scale)
    return LinearModel(reader, fitted, present, task.n_labels, is_calibrated, share)


def _fit_scale(
    features: Matrix, label_ids: Int64s, groups: Int64s, task: LinearTask
) -> float | None:
    """Fit an inverse temperature by log-loss; None if there are too few groups or labels."""
    count = min(task.settings.inner_folds, len(np.unique(groups)))
    if count < 2:
        return None
    splits = list(_split(count, features, label_ids, groups))
    common = _find_common(label_ids, [train for train, _ in splits])
    if len(common) < 2:
        return None
    scores, gold = [], []
    for train, out in splits:
        known = out[np.isin(label_ids[out], common)]
        if not len(known):
            continue
        part = _build_classifier(task.settings, task.seed).fit(features[train], label_ids[train])
        scores.append(two_sided(part.decision_function(features[known])))
        gold.append(np.searchsorted(part.classes_, label_ids[known]))

    def measure(log_scale: float) -> float:
        loss = 0.0
        for values, places in zip(scores, gold, strict=True):
            shares = softmax(np.exp(log_scale) * values)
            own = shares[np.arange(len(places)), places]
            loss -= float(np.log(np.maximum(own, np.finfo(np.float64).tiny)).sum())
        return loss

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(measure, bounds=(-10.0, 10.0), method="bounded")
    return float(np.exp(found.x))


def measure_difficulty(
    train: Rows,
    train_label_ids: Int64s,
    fold_of_rows: npt.NDArray[np.integer[Any]],
    task: LinearTask,
) -> Float64s:
    """Measure how hard each training row is for a linear model that was not trained on it.

    Only rows of the training folds are used, so held-out labels have no influence.

    Args:
        fold_of_rows: (n,) rows with the same number are left out together.
        task: as for `fit_linear`; its groups are not used, since folds keep groups whole.

    Returns:
        (n,) in [0, 1], 1 - p(gold); 1 for a row whose label no other fold has.
    """
    difficulty = np.ones(len(train))
    for fold in np.unique(fold_of_rows):
        out = np.flatnonzero(fold_of_rows == fold)
        rest = np.flatnonzero(fold_of_rows != fold)
        present = np.unique(train_label_ids[rest])
        if len(present) < 2:
            continue
        reader = FeatureReader(task.settings)
        classifier = _build_classifier(task.settings, task.seed)
        classifier.fit(reader.fit(train.take(rest)), train_label_ids[rest])
        scores = two_sided(classifier.decision_function(reader.read(train.take(out))))
        probs = np.zeros((len(out), task.n_labels))
        probs[:, present] = softmax(scores)
        difficulty[out] = 1 - probs[np.arange(len(out)), train_label_ids[out]]
    return difficulty


def _build_classifier(settings: LinearSettings, seed: int) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=settings.regularisation, tol=TOLERANCE, random_state=seed)


def _split(
    count: int, features: Any, label_ids: Int64s, groups: Int64s
) -> Iterator[tuple[Int64s, Int64s]]:
    """Yield the training and the left-out indices of each part; a group stays together."""
    from sklearn.model_selection import GroupKFold

    return GroupKFold(count).split(features, label_ids, groups)  # type: ignore[no-any-return]


def _calibration_splits(
    features: Matrix, label_ids: Int64s, groups: Int64s, count: int
) -> Iterator[tuple[Int64s, Int64s]]:
    """Yield the calibration's cross-validation splits: training and left-out indices, by group.

    Yields nothing if some label is missing from the training rows of a split.
    """
    if len(np.unique(groups)) < count:
        return
    splits = list(_split(count, features, label_ids, groups))
    n_present = len(np.unique(label_ids))
    if n_present > 1 and all(len(np.unique(label_ids[train])) == n_present for train, _ in splits):
        yield from splits


def two_sided(scores: Float64s) -> Float64s:
    """Expand the decision values of a binary classifier from (r,) to (r, 2)."""
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def softmax(scores: Float64s) -> Float64s:
    """Return the softmax of each row of (r, C')."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
