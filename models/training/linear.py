"""The linear learner: TF-IDF of character n-grams and a calibrated linear SVM (scikit-learn).

Replaces the network when ``learner = "linear"``, and estimates the difficulty of training rows for
curriculum learning. It does not import torch. Features are extracted in blocks (each entity, the
text between them, the text around each), because the same n-gram means different things in
different places.

Legend: n training rows, r rows to predict, C labels, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.model_selection import GroupKFold
from sklearn.svm import LinearSVC

from competition.arrays import Float64s, Int64s, Probs, Say
from competition.data.rows import Entity, Row, Rows
from models.settings import LinearSettings

RESULT_VERSION = 1
VERSION_NAME = "models.linear"

TOLERANCE = 0.1  # of the solver; a smaller one takes longer and changes no score
MIN_ROWS = 2  # that a feature must occur in
MAX_BETWEEN_CHARS, NEAR_CHARS, EDGE_CHARS = 80, 12, 8
START, END = "\x02", "\x03"  # checked rows contain neither

Matrix = Any  # a scipy CSR matrix (rows, F) float64


@dataclass(frozen=True)
class LinearTask:
    """What `fit_linear` needs besides the rows.

    Attributes:
        settings: hyperparameters of the features, the classifier and its calibration.
        n_labels: C.
        seed: of the solver.
        groups: (n,) group of each training row, kept whole by the calibration's cross-validation;
            None puts each row in its own group.
    """

    settings: LinearSettings
    n_labels: int
    seed: int
    groups: Int64s | None = None


@dataclass(frozen=True)
class LinearModel:
    """A fitted linear model; ``present`` are the labels that occur in its training rows.

    ``is_calibrated`` is False if some label has too few rows to fit a temperature; probabilities
    are then an uncalibrated softmax of the decision values.
    """

    reader: FeatureReader
    classifier: Any
    present: Int64s
    n_labels: int
    is_calibrated: bool

    def predict(self, rows: Rows) -> Probs:
        """Predict r rows: (r, C) float32; rows sum to 1, labels absent from training get 0."""
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
        return out


def fit_linear(
    train: Rows, train_label_ids: Int64s, task: LinearTask, say: Say | None = None
) -> LinearModel:
    """Fit the linear model on training rows.

    Args:
        train: n rows; their own labels are ignored.
        train_label_ids: (n,) their labels.
        task: settings, number of labels, seed and groups.
        say: called with progress messages.

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
    splits = list(_calibration_splits(features, train_label_ids, group_of, settings.inner_folds))
    if splits:
        classifier = CalibratedClassifierCV(
            classifier, method="temperature", cv=splits, ensemble=False
        )
    present = np.unique(train_label_ids)
    if len(present) > 1:
        classifier.fit(features, train_label_ids)
    return LinearModel(reader, classifier, present, task.n_labels, is_calibrated=bool(splits))


def measure_difficulty(
    train: Rows,
    train_label_ids: Int64s,
    fold_of_rows: npt.NDArray[np.integer[Any]],
    task: LinearTask,
) -> Float64s:
    """Measure how hard each training row is for a linear model that was not trained on it.

    Only rows of the training folds are used, so held-out labels have no influence.

    Args:
        train: n rows.
        train_label_ids: (n,) their labels.
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


class FeatureReader:
    """Turn rows into TF-IDF features, block by block."""

    def __init__(self, settings: LinearSettings) -> None:
        self.settings = settings
        self.transformers = {name: TfidfTransformer(sublinear_tf=True) for name in BLOCKS}
        self.kept: dict[str, Int64s] = {}

    def fit(self, rows: Rows) -> Matrix:
        """Learn the vocabulary and IDF from training rows and return their features (n, F).

        Features that occur in fewer than ``MIN_ROWS`` rows are dropped.
        """
        counts = self._count(rows)
        for name, block in counts.items():
            kept = np.flatnonzero(block.getnnz(axis=0) >= MIN_ROWS)
            if len(kept):
                self.kept[name] = kept
                self.transformers[name].fit(block[:, kept])
        return self._weigh(counts)

    def read(self, rows: Rows) -> Matrix:
        """Return the features (r, F) of other rows."""
        return self._weigh(self._count(rows))

    def _count(self, rows: Rows) -> dict[str, Matrix]:
        hasher = FeatureHasher(
            n_features=self.settings.most_features, input_type="string", alternate_sign=False
        )
        found = [list(read_blocks(row, self.settings.char_ngrams)) for row in rows]
        return {
            name: hasher.transform(each[at] for each in found) for at, name in enumerate(BLOCKS)
        }

    def _weigh(self, counts: dict[str, Matrix]) -> Matrix:
        return sparse.hstack(
            [
                BLOCKS[name] * self.transformers[name].transform(counts[name][:, kept])
                for name, kept in self.kept.items()
            ]
        ).tocsr()


BLOCKS = {
    "types": 0.5,
    "subject": 0.5,
    "object": 1.0,
    "subject by types": 0.5,
    "object by types": 1.0,
    "between": 1.0,
    "words between": 0.5,
    "around subject": 1.0,
    "around object": 1.0,
    "near subject by types": 1.0,
    "near object by types": 1.0,
}
"""Weight of each block of features; each block is L2-normalised per row before."""


def read_blocks(row: Row, char_ngrams: tuple[int, int]) -> Iterator[list[str]]:
    """Yield the features of a row, one list per block, in the order of ``BLOCKS``."""
    forward = row.subject.start < row.object.start
    first, second = (row.subject, row.object) if forward else (row.object, row.subject)
    between = row.sentence[first.end : second.start]
    pair = f"{row.subject.type}|{row.object.type}"
    ordered = f"{pair}|{forward:d}"
    length = len(between)
    yield [
        pair,
        ordered,
        f"{ordered} far {min(length // 4, 12)}",
        f"near {forward:d} {min(length, 10)}",
        f"source {row.source}",
        f"source {row.source} {pair}",
    ]
    subject, obj = (f"{START}{e.word}{END}" for e in (row.subject, row.object))
    shortest, longest = char_ngrams
    yield [*_ngrams(subject, shortest, longest), f"={subject}", *row.subject.word.split()]
    yield [*_ngrams(obj, shortest, longest), f"={obj}", *row.object.word.split()]
    yield [f"{pair} {gram}" for gram in _ngrams(subject, shortest, longest - 1)]
    yield [f"{pair} {gram}" for gram in _ngrams(obj, shortest, longest - 1)]
    text = f"{START}{between[:MAX_BETWEEN_CHARS]}{END}"
    yield [f"{forward:d} {gram}" for gram in _ngrams(text, shortest, longest)]
    yield [f"{ordered} {word}" for word in between.split()]
    yield list(_around(row.sentence, row.subject))
    yield list(_around(row.sentence, row.object))
    yield [f"{pair} {edge}" for edge in _edges(row.sentence, row.subject, longest + 1)]
    yield [f"{pair} {edge}" for edge in _edges(row.sentence, row.object, longest + 1)]


def _ngrams(text: str, shortest: int, longest: int) -> list[str]:
    """Return all character n-grams of a text.

    >>> _ngrams("abc", 1, 2)
    ['a', 'b', 'c', 'ab', 'bc']
    """
    return [
        text[at : at + size]
        for size in range(shortest, max(shortest, longest) + 1)
        for at in range(len(text) - size + 1)
    ]


def _edges(sentence: str, entity: Entity, most: int) -> Iterator[str]:
    """Yield the 1 to ``most`` characters right before an entity, and those right after it.

    >>> list(_edges("그는 서울에서", Entity("서울", 3, 5, "LOC"), 2))
    ['< ', '<는 ', '>에', '>에서']
    """
    for size in range(1, min(most, entity.start) + 1):
        yield f"<{sentence[entity.start - size : entity.start]}"
    for size in range(1, min(most, len(sentence) - entity.end) + 1):
        yield f">{sentence[entity.end : entity.end + size]}"


def _around(sentence: str, entity: Entity) -> Iterator[str]:
    """Yield edges, short n-grams and words around an entity, left and right kept separate."""
    yield from _edges(sentence, entity, EDGE_CHARS)
    left = sentence[max(0, entity.start - NEAR_CHARS) : entity.start]
    right = sentence[entity.end : entity.end + NEAR_CHARS]
    yield from (f"L {gram}" for gram in _ngrams(left, 2, 3))
    yield from (f"R {gram}" for gram in _ngrams(right, 2, 3))
    wide = 2 * NEAR_CHARS
    before = sentence[max(0, entity.start - wide) : entity.start].split()[-3:]
    yield from (f"l {word}" for word in before)
    yield from (f"r {word}" for word in sentence[entity.end : entity.end + wide].split()[:4])


def _build_classifier(settings: LinearSettings, seed: int) -> Any:
    return LinearSVC(C=settings.regularisation, tol=TOLERANCE, random_state=seed)


def _calibration_splits(
    features: Matrix, label_ids: Int64s, groups: Int64s, count: int
) -> Iterator[tuple[Int64s, Int64s]]:
    """Yield the calibration's cross-validation splits: training and left-out indices, by group.

    Yields nothing if some label is missing from the training rows of a split.
    """
    if len(np.unique(groups)) < count:
        return
    splits = list(GroupKFold(count).split(features, label_ids, groups))
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
