"""The inputs of one fit: tokenised rows and training labels, without any held-out label.

The training loop reads the rows of each epoch from here, with data augmentation if the variant has
it.
Legend: P rows of the pool, n training rows, M test rows, A pairs of entity types, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.arrays import Float32s, Float64s, Int64s
from competition.data.rows import Rows, collect_rows
from models.data.augmentation import Scheme, augment
from models.data.batches import TokenizedRows, stack_rows, take_rows, tokenize_rows
from models.parts.formats import choose_format
from models.parts.restriction import number_pairs
from models.variant import Variant


@dataclass(frozen=True)
class EpochRows:
    """The training rows of one epoch; ``rows`` and ``label_ids`` (n,) are parallel.

    ``rows`` are indices into ``tokens``; ``pair_ids`` (n,) is None unless labels are restricted;
    ``soft_labels`` (k, C) are those of the last k rows, None without distillation.
    """

    tokens: TokenizedRows
    rows: Int64s
    label_ids: Int64s
    pair_ids: Int64s | None
    soft_labels: Float32s | None = None

    @cached_property
    def lengths(self) -> Int64s:
        """Tokens of each row, (n,)."""
        return self.tokens.lengths_of(self.rows)

    def soft_labels_of(self, places: Int64s) -> Float32s | None:
        """Return the soft labels of some rows, (b, C); zeros for labelled ones.

        None without distillation.
        """
        if self.soft_labels is None:
            return None
        found = np.zeros((len(places), self.soft_labels.shape[1]), np.float32)
        at = places - (len(self.rows) - len(self.soft_labels))
        found[at >= 0] = self.soft_labels[at[at >= 0]]
        return found


@dataclass(frozen=True)
class Pairs:
    """The entity-type pair of each row, and the labels allowed for each pair.

    Attributes:
        pool: (P,) pair of each row of the pool.
        test: (M,) pair of each test row.
        table: (A, C) bool, computed from training rows only.
    """

    pool: Int64s
    test: Int64s
    table: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Augmenter:
    """Data augmentation of an epoch; ``texts`` are the n training rows, without labels."""

    texts: Rows
    variant: Variant
    scheme: Scheme
    seed: int
    fold: int
    tokenizer: Any

    def build(self, epoch: int, plain: EpochRows) -> EpochRows:
        """Return the rows of an epoch, some of them augmented."""
        settings = self.variant.augment
        assert settings is not None
        changed = augment(
            self._rows,
            plain.label_ids,
            settings,
            scheme=self.scheme,
            key=(self.seed, self.fold, epoch),
        )
        if not len(changed.places):
            return plain
        texts = collect_rows(changed.rows)
        tokens = tokenize_rows(
            texts,
            choose_format(self.variant.format, self.scheme.language),
            self.tokenizer,
            self.variant.max_tokens,
            formatting=self.variant.formatting,
        )
        rows = np.arange(len(plain.rows))
        rows[changed.places] = len(rows) + np.arange(len(changed.places))
        label_ids = plain.label_ids.copy()
        label_ids[changed.places] = changed.label_ids
        pair_ids = None
        if plain.pair_ids is not None:
            pair_ids = plain.pair_ids.copy()
            pair_ids[changed.places] = number_pairs(texts, self.scheme.entity_types)
        stacked = stack_rows([take_rows(plain.tokens, plain.rows), tokens])
        return EpochRows(stacked, rows, label_ids, pair_ids)

    @cached_property
    def _rows(self) -> list[Any]:
        return list(self.texts)


@dataclass(frozen=True)
class FoldInputs:
    """The inputs of one fit, without any held-out label.

    ``train_rows`` (n,) are indices into ``pool``, with labels ``train_label_ids`` (n,).
    ``heldout_rows`` and ``test_rows`` are predicted after the last step. ``soft_labels`` (k, C)
    belong to the last k training rows.
    """

    pool: TokenizedRows
    test: TokenizedRows
    train_rows: Int64s
    train_label_ids: Int64s
    heldout_rows: Int64s
    test_rows: Int64s
    pad_id: int
    difficulty: Float64s | None = None
    pairs: Pairs | None = None
    augmenter: Augmenter | None = None
    soft_labels: Float32s | None = None

    @cached_property
    def plain(self) -> EpochRows:
        """The training rows without augmentation."""
        pair_ids = None if self.pairs is None else self.pairs.pool[self.train_rows]
        return EpochRows(
            self.pool, self.train_rows, self.train_label_ids, pair_ids, self.soft_labels
        )

    def epoch(self, number: int) -> EpochRows:
        """Return the training rows of an epoch; the same for each call with the same number."""
        return self.plain if self.augmenter is None else self.augmenter.build(number, self.plain)
