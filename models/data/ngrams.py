"""TF-IDF features of character n-grams, for the learners that need no encoder.

Features are extracted in blocks (each entity, the text between them, the text around each), because
the same n-gram means different things in different places. A change of a feature changes results:
raise the ``RESULT_VERSION`` of every learner that reads them. scikit-learn takes a second to load,
so only what fits or reads features imports it.

Legend: n training rows, r rows to predict, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from scipy import sparse

from competition.arrays import Int64s
from competition.data.rows import Entity, Row, Rows
from models.settings import NgramSettings

HASHED_ROWS = 4096  # at a time
MIN_ROWS = 2  # that a feature must occur in
MAX_BETWEEN_CHARS, NEAR_CHARS, EDGE_CHARS = 80, 12, 8
START, END = "\x02", "\x03"  # checked rows contain neither

Matrix = Any  # a scipy CSR matrix (rows, F) float64


class FeatureReader:
    """Turn rows into TF-IDF features, block by block."""

    def __init__(self, settings: NgramSettings) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer

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

    def dump(self) -> dict[str, Any]:
        """Return what was learned from training rows, as arrays by name."""
        arrays: dict[str, Any] = {}
        for name, kept in self.kept.items():
            arrays[f"kept.{name}"] = kept.astype(np.int32)
            arrays[f"idf.{name}"] = self.transformers[name].idf_
        return arrays

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Take what ``dump`` returned."""
        for name, transformer in self.transformers.items():
            if f"kept.{name}" in arrays:
                self.kept[name] = arrays[f"kept.{name}"].astype(np.int64)
                transformer.idf_ = arrays[f"idf.{name}"]

    def _count(self, rows: Rows) -> dict[str, Matrix]:
        from sklearn.feature_extraction import FeatureHasher

        hasher = FeatureHasher(
            n_features=self.settings.most_features, input_type="string", alternate_sign=False
        )
        counts: dict[str, list[Matrix]] = {name: [] for name in BLOCKS}
        waiting, ngrams = iter(rows), self.settings.char_ngrams
        # as text, n-grams take over ten times the memory of their counts
        while found := [list(read_blocks(row, ngrams)) for row in islice(waiting, HASHED_ROWS)]:
            for at, name in enumerate(BLOCKS):
                counts[name].append(hasher.transform(each[at] for each in found))
        return {name: sparse.vstack(parts, format="csr") for name, parts in counts.items()}

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
