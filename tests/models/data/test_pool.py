from __future__ import annotations

import ast
import csv
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.data.rows import Rows
from competition.errors import CorpusError
from competition.folds.kfold import Prepared
from competition.predictions.store import Result, ResultKey, Store
from models.data.pool import (
    NO_FOLD,
    FoldRows,
    Pool,
    PredictedLabels,
    build_pool,
    choose_fold_rows,
    write_texts,
)
from models.data.pool import read_texts as read
from models.variant import Variant, resolve_variant


@pytest.fixture
def resolve() -> Callable[..., Variant]:
    def make(*overrides: tuple[str, Any]) -> Variant:
        return resolve_variant("typed-punct", encoder="scratch", overrides=overrides, save_as="v")

    return make


def choose(prepared: Prepared, variant: Variant, fold: int, **options: Any) -> FoldRows:
    pool = build_pool(prepared, variant)
    return choose_fold_rows(prepared, pool, variant, route=None, fold=fold, **options)


def write_extra(prepared: Prepared, name: str, rows: list[int], *, rename: bool) -> None:
    """Write train rows as extra rows; if renamed, they share no sentence or pair with train."""
    source = prepared.competition.train_path
    with source.open(encoding="utf-8", newline="") as stream:
        header, *records = list(csv.reader(stream))
    kept = [records[row] for row in rows]
    for number, record in enumerate(kept):
        record[0] = f"x{number}"
        if rename:
            for column, role in ((2, "s"), (3, "o")):
                entity = ast.literal_eval(record[column])
                word = entity["word"]
                other = f"{role}{number:0{len(word) - 1}d}"[: len(word)].ljust(len(word), "가")
                record[1] = record[1].replace(word, other)
                record[column] = record[column].replace(word, other)
    path = prepared.competition.home / name
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *kept])


def test_cleaning_removes_training_rows_but_no_held_out_rows(
    prepared: Prepared, resolve: Callable[..., Variant]
) -> None:
    plain = resolve()
    cleaned = resolve(("clean.conflicts", "drop-all"), ("clean.duplicates", "drop"))
    gone = 0
    for fold in range(prepared.folds.count):
        before, after = choose(prepared, plain, fold), choose(prepared, cleaned, fold)
        assert before.heldout_rows.tolist() == after.heldout_rows.tolist()
        assert set(after.train_rows) <= set(before.train_rows)
        assert after.added["cleaned_out"] == len(before.train_rows) - len(after.train_rows)
        assert before.made_of == {}
        gone += after.added["cleaned_out"]
    assert gone > 0


def test_extra_rows_are_trained_on_but_never_predicted(
    prepared: Prepared, resolve: Callable[..., Variant]
) -> None:
    write_extra(prepared, "more.csv", [0, 1, 2, 3], rename=True)
    variant = resolve(("extra_train", "more.csv"))
    rows = choose(prepared, variant, 1)
    first = len(prepared.corpus.train) + len(prepared.corpus.test)
    extra = rows.train_rows >= first
    assert rows.added["extra"] == extra.sum() == 4
    (digest,) = rows.made_of.values()
    write_extra(prepared, "more.csv", [0, 1, 2, 4], rename=True)
    assert set(choose(prepared, variant, 1).made_of) == {"extra_train_hash"}
    assert choose(prepared, variant, 1).made_of["extra_train_hash"] != digest
    assert (rows.train_label_ids[extra] == prepared.corpus.train.gold[:4]).all()
    assert (rows.train_folds[extra] == NO_FOLD).all()
    assert not set(rows.train_groups[extra]) & set(rows.train_groups[~extra])
    assert rows.heldout_rows.max() < len(prepared.corpus.train)


def test_extra_rows_that_leak_held_out_rows_are_refused_or_left_out(
    prepared: Prepared, resolve: Callable[..., Variant]
) -> None:
    write_extra(prepared, "same.csv", list(range(12)), rename=False)
    with pytest.raises(CorpusError, match="share sentence or entity pair"):
        choose(prepared, resolve(("extra_train", "same.csv")), 0)
    lenient = resolve(("extra_train", "same.csv"), ("extra_overlap", "leave-out"))
    first = len(prepared.corpus.train) + len(prepared.corpus.test)
    for fold in range(prepared.folds.count):
        rows = choose(prepared, lenient, fold)
        copied = rows.train_rows[rows.train_rows >= first] - first
        assert 0 < len(copied) < 12
        assert not set(prepared.groups[copied]) & set(prepared.groups[rows.heldout_rows])


def test_corrections_change_the_inputs_of_both_splits_and_the_recipe(
    prepared: Prepared, resolve: Callable[..., Variant]
) -> None:
    train, test = prepared.corpus.train, prepared.corpus.test
    path = prepared.competition.home / "types.csv"
    path.write_text(
        f"split,id,role,type\ntrain,{train.ids[5]},object,LOC\ntest,{test.ids[2]},subject,ORG\n",
        encoding="utf-8",
    )
    pool = build_pool(prepared, resolve(("clean.corrections", "types.csv")))
    assert (pool.train.row(5).object.type, pool.test.row(2).subject.type) == ("LOC", "ORG")
    assert pool.train.row(6) == train.row(6)
    assert pool.made_of["corrections"]
    assert (pool.train.gold == train.gold).all()


def store_result(prepared: Prepared, key: ResultKey, test_probs: Any) -> None:
    profile, corpus = prepared.competition.profile, prepared.corpus
    heldout = np.flatnonzero(prepared.folds.fold_of == key.fold)
    n_labels = len(profile.labels)
    result = Result(
        key=key,
        fingerprint="f",
        recipe="r",
        variant={"name": key.variant},
        labels=profile.labels,
        data_hash=corpus.hash,
        folds_hash=prepared.folds.hash,
        route=None,
        routes_hash=None,
        oof_ids=corpus.train.ids[heldout],
        oof_probs=np.full((len(heldout), n_labels), 1 / n_labels, np.float32),
        test_ids=corpus.test.ids,
        test_probs=test_probs,
    )
    Store(prepared.competition.oof_dir, profile.labels).write(result, {})


def test_pseudo_labels_come_from_the_model_of_the_same_fold(
    prepared: Prepared, resolve: Callable[..., Variant]
) -> None:
    n_test, n_labels = len(prepared.corpus.test), len(prepared.competition.profile.labels)
    for fold in range(prepared.folds.count):
        probs = np.full((n_test, n_labels), 0.2 / (n_labels - 1), np.float32)
        probs[:, fold] = 0.8  # every fold's model is sure of another label
        store_result(prepared, ResultKey("other", 42, fold), probs)
    variant = resolve(("pseudo.variant", "other"), ("pseudo.min_confidence", 0.7))
    for fold in range(prepared.folds.count):
        rows = choose(
            prepared, variant, fold, predicted=PredictedLabels(ResultKey("other", 42, fold))
        )
        is_test = rows.train_rows >= len(prepared.corpus.train)
        assert rows.added["pseudo"] == is_test.sum() == n_test
        assert (rows.train_label_ids[is_test] == fold).all()
        assert (rows.train_folds[is_test] == NO_FOLD).all()


def test_soft_labels_come_from_the_models_of_the_same_fold(
    prepared: Prepared, resolve: Callable[..., Variant]
) -> None:
    n_test, n_labels = len(prepared.corpus.test), len(prepared.competition.profile.labels)
    for fold in range(prepared.folds.count):
        probs = np.full((n_test, n_labels), 0.2 / (n_labels - 1), np.float32)
        probs[:, fold] = 0.8
        store_result(prepared, ResultKey("one", 42, fold), probs)
        store_result(prepared, ResultKey("two", 42, fold), probs[:, ::-1])
    members = ("distil.members", ["one", "two"])
    for fold in range(prepared.folds.count):
        teachers = PredictedLabels(
            teachers=(ResultKey("one", 42, fold), ResultKey("two", 42, fold))
        )
        rows = choose(prepared, resolve(members), fold, predicted=teachers)
        plain = choose(prepared, resolve(), fold)
        heldout = plain.heldout_rows
        n_soft = n_test + len(heldout)
        assert rows.soft_labels is not None
        assert rows.soft_labels.shape == (n_soft, n_labels)
        assert rows.added["soft"] == n_soft
        assert rows.train_rows[:-n_soft].tolist() == plain.train_rows.tolist()
        test_rows = len(prepared.corpus.train) + np.arange(n_test)
        assert rows.train_rows[-n_soft:].tolist() == [*test_rows, *heldout]
        expected = np.full(n_labels, 0.2 / (n_labels - 1))
        expected[fold] = 0.8
        assert np.allclose(rows.soft_labels[:n_test], (expected + expected[::-1]) / 2)
        assert np.allclose(rows.soft_labels[n_test:], 1 / n_labels)
        assert (rows.train_folds[-n_soft:] == NO_FOLD).all()
        only = choose(prepared, resolve(members, ("distil.rows", "test")), fold, predicted=teachers)
        assert only.added["soft"] == n_test


def test_texts_on_disk_hold_no_label(prepared: Prepared, tmp_path: Path) -> None:
    corpus = prepared.corpus
    pool = Pool(corpus.train, corpus.test, None, prepared.groups.astype(np.int64), {})
    paths = write_texts(tmp_path, pool)
    assert list(paths) == ["train", "test"]
    back = read(paths)
    assert back.label_ids is None
    assert "label" not in " ".join(back.frame.columns)
    places = np.array([len(corpus.train) + 1, 3])
    assert list(read(paths, places)) == [corpus.test.row(1), corpus.train.row(3)]


def test_what_a_job_gets_does_not_depend_on_held_out_labels(
    prepared: Prepared, resolve: Callable[..., Variant]
) -> None:
    write_extra(prepared, "more.csv", [0, 1, 2, 3], rename=True)
    variant = resolve(
        ("clean.conflicts", "drop-negative"),
        ("clean.duplicates", "drop"),
        ("extra_train", "more.csv"),
    )
    train = prepared.corpus.train
    heldout = np.flatnonzero(prepared.folds.fold_of == 2)
    gold = train.gold.copy()
    gold[heldout] = (gold[heldout] + 1) % 4
    other = replace(prepared, corpus=replace(prepared.corpus, train=Rows(train.frame, gold)))
    first, second = choose(prepared, variant, 2), choose(other, variant, 2)
    for name in ("train_rows", "train_label_ids", "train_groups", "train_folds", "heldout_rows"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    assert first.added == second.added


def test_truncated_text_files_are_written_again(
    prepared: Prepared, resolve: Callable[..., Variant], tmp_path: Path
) -> None:
    pool = build_pool(prepared, resolve())
    paths = write_texts(tmp_path, pool)
    before = paths["train"].read_bytes()
    os.truncate(paths["train"], len(before) // 2)
    untouched = paths["test"].stat().st_mtime_ns
    assert write_texts(tmp_path, pool) == paths
    assert paths["train"].read_bytes() == before
    assert paths["test"].stat().st_mtime_ns == untouched
