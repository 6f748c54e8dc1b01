"""The rows a variant trains on and predicts, for each fold.

Applies corrections, adds extra, pseudo-labelled and soft-labelled rows, and removes rows by
cleaning. All rows
that a job may read are in one pool (train rows, then test rows, then extra rows) and are
identified by their index in it.
Legend: N train, M test, E extra rows; n training rows of a fold.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from competition.arrays import Float32s, Int64s, Say
from competition.data.corpus import Corpus
from competition.data.groups import build_groups
from competition.data.rows import Rows, hash_rows, join_rows
from competition.files import write_atomically
from competition.folds.kfold import Prepared
from competition.predictions.store import ResultKey, open_store
from competition.profile import Competition
from models.data.cleaning import clean_rows
from models.data.corrections import apply_corrections, read_corrections
from models.data.distillation import TeacherProbs, build_soft_labels
from models.data.extra_rows import check_extra, read_extra_rows
from models.data.pseudo_labels import choose_pseudo_rows
from models.data.route import Route
from models.variant import Variant

NO_FOLD = -1  # of a row that is in no fold


@dataclass(frozen=True)
class Pool:
    """All rows that a variant's jobs may read.

    Attributes:
        train: N rows, corrected.
        test: M rows, corrected.
        extra: E rows that the user supplies, for training only; they are not cleaned.
        groups: group of each row, (N,), or (N + M + E,) if test or extra rows are trained on.
        made_of: hashes of the user's files, which become part of the recipe.
    """

    train: Rows
    test: Rows
    extra: Rows | None
    groups: Int64s
    made_of: dict[str, Any]

    @cached_property
    def parts(self) -> dict[str, Rows]:
        """The rows of the pool by split, in the order of their indices."""
        named = {"train": self.train, "test": self.test, "extra": self.extra}
        return {name: rows for name, rows in named.items() if rows is not None}


@dataclass(frozen=True)
class FoldRows:
    """The rows of one fold, as indices into the pool.

    Attributes:
        train_rows: (n,) training rows.
        train_label_ids: (n,) their labels; training sees no other label.
        train_groups: (n,) their groups, kept whole when training rows are split further.
        train_folds: (n,) the fold of each, ``NO_FOLD`` for extra, pseudo- and soft-labelled rows.
        heldout_rows: rows of the fold to predict.
        test_rows: test rows to predict, as row numbers of the test file.
        added: number of extra rows, of pseudo- and soft-labelled ones, and of rows removed by
            cleaning.
        made_of: hashes of the user's files that were used, by purpose.
        soft_labels: (k, C) float32 soft labels of the last k training rows, whose label in
            ``train_label_ids`` is the most probable one; None without distillation.
    """

    train_rows: Int64s
    train_label_ids: Int64s
    train_groups: Int64s
    train_folds: Int64s
    heldout_rows: Int64s
    test_rows: Int64s
    added: dict[str, int]
    made_of: dict[str, Any]
    soft_labels: Float32s | None = None


@dataclass(frozen=True)
class PredictedLabels:
    """The results whose predictions become labels of unlabelled rows.

    Attributes:
        pseudo: of pseudo-labelling.
        teachers: of distillation, in the order of ``distil.members``.
    """

    pseudo: ResultKey | None = None
    teachers: tuple[ResultKey, ...] = ()


def build_pool(prepared: Prepared, variant: Variant, say: Say | None = None) -> Pool:
    """Build the pool: apply a variant's corrections and read its extra rows.

    File names in the variant are relative to the competition's directory, like its data.

    Raises:
        CorpusError: the file of corrections or of extra rows is invalid.
    """
    profile, home = prepared.competition.profile, prepared.competition.home
    train, test, made_of = correct_rows(prepared.competition, prepared.corpus, variant)
    extra = None
    if variant.extra_train:
        extra = read_extra_rows(home / variant.extra_train, profile, say=say)
        made_of["extra_train"] = hash_rows(extra, labels=tuple(profile.labels))
    groups = prepared.groups.astype(np.int64)
    if extra is not None or variant.pseudo is not None or variant.distil is not None:
        unlabelled = [Rows(part.frame, None) for part in (train, test, extra) if part is not None]
        groups = build_groups(join_rows(*unlabelled), profile.folds.group_by).astype(np.int64)
    return Pool(train, test, extra, groups, made_of)


def correct_rows(
    competition: Competition, corpus: Corpus, variant: Variant
) -> tuple[Rows, Rows, dict[str, Any]]:
    """Return train and test rows with a variant's corrections, and the hash of the corrections.

    Raises:
        CorpusError: the file of corrections is invalid.
    """
    if not variant.clean.corrections:
        return corpus.train, corpus.test, {}
    corrections = read_corrections(
        competition.home / variant.clean.corrections,
        corpus.train,
        corpus.test,
        entity_types=competition.profile.entity_types,
        labels=competition.profile.labels,
        may_have_more=competition.limit is not None,
    )
    train = apply_corrections(corpus.train, corrections.train, competition.profile.labels)
    test = apply_corrections(corpus.test, corrections.test)
    return train, test, {"corrections": corrections.hash}


def choose_fold_rows(
    prepared: Prepared,
    pool: Pool,
    variant: Variant,
    *,
    route: Route | None,
    fold: int,
    predicted: PredictedLabels | None = None,
) -> FoldRows:
    """Choose the rows of a fold without using held-out labels.

    Args:
        route: of a specialist, which trains on and predicts only the rows of its route.
        predicted: the results whose predictions become labels, of the same fold.

    Raises:
        CorpusError: extra rows share a group with the held-out rows.
    """
    in_route = route.train if route else np.ones(len(pool.train), bool)
    test_in_route = route.test if route else np.ones(len(pool.test), bool)
    heldout = prepared.folds.fold_of == fold
    negative_ids = prepared.competition.profile.negative_ids
    own = np.flatnonzero(in_route & ~heldout)
    kept = clean_rows(pool.train, own, negative_ids, variant.clean)
    pieces: list[tuple[Any, ...]] = [(kept, pool.train.gold[kept], prepared.folds.fold_of[kept])]
    added = {"cleaned_out": len(own) - len(kept)}
    if pool.extra is not None:
        rows = _allowed_extra(prepared, pool, variant, fold)
        places = len(pool.train) + len(pool.test) + rows
        pieces.append((places, pool.extra.gold[rows], np.full(len(rows), NO_FOLD)))
        added["extra"] = len(rows)
    predicted = predicted or PredictedLabels()
    if predicted.pseudo is not None:
        rows, label_ids = _pseudo_rows(
            prepared, pool, variant, predicted.pseudo, test_in_route, len(kept)
        )
        pieces.append((len(pool.train) + rows, label_ids, np.full(len(rows), NO_FOLD)))
        added["pseudo"] = len(rows)
    heldout_rows, test_rows = np.flatnonzero(in_route & heldout), np.flatnonzero(test_in_route)
    soft_labels = None
    if predicted.teachers:
        rows, soft_labels = _soft_rows(
            prepared, pool, variant, predicted.teachers, heldout_rows, test_rows
        )
        pieces.append((rows, soft_labels.argmax(axis=1), np.full(len(rows), NO_FOLD)))
        added["soft"] = len(rows)
    columns = [np.concatenate(column).astype(np.int64) for column in zip(*pieces, strict=True)]
    train_rows, train_label_ids, train_folds = columns
    return FoldRows(
        train_rows=train_rows,
        train_label_ids=train_label_ids,
        train_groups=pool.groups[train_rows],
        train_folds=train_folds,
        heldout_rows=heldout_rows,
        test_rows=test_rows,
        added=added,
        made_of={f"{use}_hash": digest for use, digest in pool.made_of.items()},
        soft_labels=soft_labels,
    )


def _allowed_extra(prepared: Prepared, pool: Pool, variant: Variant, fold: int) -> Int64s:
    assert pool.extra is not None
    assert variant.extra_train is not None
    return check_extra(
        pool.extra,
        pool.train.take(np.flatnonzero(prepared.folds.fold_of == fold)),
        prepared.competition.profile.folds.group_by,
        overlap=variant.extra_overlap,
        file=Path(variant.extra_train).name,
        fold=fold,
    )


def _pseudo_rows(
    prepared: Prepared, pool: Pool, variant: Variant, source: ResultKey, able: Any, n_train: int
) -> tuple[Int64s, Int64s]:
    """Choose pseudo-labelled test rows from the predictions of another variant, same fold."""
    assert variant.pseudo is not None
    competition = prepared.competition
    result = open_store(competition).read(source)
    row_of = {row_id: row for row, row_id in enumerate(pool.test.ids)}
    rows = np.array([row_of[row_id] for row_id in result.test_ids], np.int64)
    usable = able[rows]
    picked, label_ids = choose_pseudo_rows(result.test_probs[usable], variant.pseudo, n_train)
    return rows[usable][picked], label_ids


def _soft_rows(
    prepared: Prepared,
    pool: Pool,
    variant: Variant,
    teachers: Sequence[ResultKey],
    heldout_rows: Int64s,
    test_rows: Int64s,
) -> tuple[Int64s, Float32s]:
    """Return the unlabelled rows that a student trains on, as indices, and their soft labels."""
    assert variant.distil is not None
    competition = prepared.competition
    store = open_store(competition)
    results = [store.read(key) for key in teachers]
    of_test = [TeacherProbs(r.key.variant, r.test_ids, r.test_probs) for r in results]
    rows = [len(pool.train) + test_rows]
    labels = [build_soft_labels(of_test, pool.test.ids[test_rows], variant.distil)]
    if variant.distil.rows == "test+heldout":
        of_heldout = [TeacherProbs(r.key.variant, r.oof_ids, r.oof_probs) for r in results]
        rows.append(heldout_rows)
        labels.append(build_soft_labels(of_heldout, pool.train.ids[heldout_rows], variant.distil))
    return np.concatenate(rows), np.concatenate(labels)


def write_texts(folder: Path, pool: Pool) -> dict[str, Path]:
    """Write the rows of the pool without labels, unless the files exist and are complete.

    The name of the folder must identify the content.

    Returns:
        The file of each split, in the order of the pool.
    """
    paths = {name: folder / f"{name}.parquet" for name in pool.parts}
    for name, rows in pool.parts.items():
        if not _is_whole(paths[name]):
            buffer = io.BytesIO()
            rows.frame.to_parquet(buffer, index=False)
            write_atomically(paths[name], buffer.getvalue())
    return paths


def _is_whole(path: Path) -> bool:
    """Return whether a Parquet file exists and is complete, by reading its footer."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def read_texts(paths: Mapping[str, Path], places: Int64s | None = None) -> Rows:
    """Read rows without labels: the whole pool, or the rows at some indices."""
    rows = join_rows(*(Rows(pd.read_parquet(path), None) for path in paths.values()))
    return rows if places is None else rows.take(places)
