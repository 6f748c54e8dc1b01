"""Cross-fit the linear model on more folds than the competition has, to judge labels.

Each model learns from nearly all rows, so it knows more than one of a few folds. Its probabilities
help ``errors`` to find wrong labels; they are no member of a blend, whose folds are others.

Legend: N train rows, C labels, K folds.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from competition.arrays import Probs, Say, cache, read_cached
from competition.errors import UsageError
from competition.folds.assignment import build_folds
from competition.folds.kfold import Prepared
from competition.options import check_at_least
from competition.progress import format_seconds
from models.settings import LinearSettings
from models.training import linear
from models.training.linear import LinearTask, find_rare_labels, fit_linear
from models.variant import fingerprint

SEED = 0


def cross_fit_linear(prepared: Prepared, count: int, say: Say) -> Probs:
    """Predict each train row with a linear model that was trained without its fold.

    The probabilities are kept in the cache, so the next call reads them.

    Args:
        prepared: its rows and groups; its own folds are not used.
        count: K; groups stay whole.
        say: called with the progress.

    Returns:
        (N, C) float32, rows sum to 1.

    Raises:
        UsageError: there are fewer groups than folds, or fewer than two folds.
    """
    check_at_least("--cross-fit", count, 2)
    n_groups = len(np.unique(prepared.groups))
    if count > n_groups:
        raise UsageError(f"--cross-fit {count}: there are {n_groups} groups of rows; choose fewer")
    path = _cache_path(prepared, count)
    shape = (len(prepared.corpus.train), len(prepared.competition.profile.labels))
    kept = read_cached(path, "probs")
    if kept is not None and kept[0].shape == shape:
        known: Probs = kept[0]
        return known
    probs = _cross_fit(prepared, count, say)
    cache(path, probs=probs)
    return probs


def _cache_path(prepared: Prepared, count: int) -> Path:
    made_from = fingerprint(
        {
            "data": prepared.corpus.hash,
            "groups": prepared.groups.tolist(),
            "folds": count,
            "linear": LinearSettings().model_dump(mode="json"),
            "version": linear.RESULT_VERSION,
        }
    )
    return prepared.competition.checkpoints_dir / "cache" / f"cross-fit-{made_from[:16]}.npz"


def _cross_fit(prepared: Prepared, count: int, say: Say) -> Probs:
    train, groups = prepared.corpus.train, prepared.groups.astype(np.int64)
    label_ids, n_labels = train.gold.astype(np.int64), prepared.competition.profile.n_labels
    settings = LinearSettings()
    fold_of = build_folds(train.gold, prepared.groups, count=count, seed=SEED)
    probs = np.zeros((len(train), n_labels), np.float32)
    started = time.monotonic()
    for fold in range(count):
        rest, out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        rare = find_rare_labels(label_ids[rest], groups[rest], settings.inner_folds, n_labels)
        task = LinearTask(settings, n_labels, SEED, groups[rest], has_rare_labels=len(rare) > 0)
        model = fit_linear(train.take(rest), label_ids[rest], task)
        probs[out] = model.predict(train.take(out))
        left = (time.monotonic() - started) / (fold + 1) * (count - fold - 1)
        say(f"linear model: {fold + 1} of {count} folds; about {format_seconds(left)} for the rest")
    return probs
