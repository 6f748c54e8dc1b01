"""Pseudo-tests: real labelled rows split so that one part differs from the other as a test may.

Draws 42 splits of the training rows from fixed seeds: a train part, in three folds of whole groups,
and a pseudo-test part with other types, labels, entities, sources or texts. Seven quick learners of
different kinds answer for each, out-of-fold and for the pseudo-test. What is there is kept, so a
stopped run goes on. ``pseudo_judge.py`` turns the files into the tables of ``docs/experiments.md``.

    python benchmarks/pseudo_tests.py checkpoints/pseudo-tests
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import softmax
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.naive_bayes import ComplementNB
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from competition.audit.shift import read_or_fit_shift
from competition.data.rows import Rows
from competition.folds.assignment import build_folds
from competition.folds.kfold import Prepared, read_prepared
from competition.profile import resolve_competition
from models.data.ngrams import BLOCKS, read_blocks

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TRAIN_ROWS, TEST_ROWS, FOLDS, SEEDS = 6000, 2000, 3, (0, 1, 2)
HASHED = 2**17
CONTEXT = ("between", "words between", "around subject", "around object")
ENTITIES = ("types", "subject", "object", "subject by types", "object by types")


@dataclass(frozen=True)
class Recipe:
    """How a pseudo-test differs from its train part.

    Attributes:
        types: type pairs in the shares of the real test, at random, or as they are.
        negative: share of the negative label within each type pair, on average; None leaves the
            labels as they are.
        labels: spread of random factors on each label's share within each type pair.
        apart: what keeps the parts apart: nothing, source, topic (clusters of texts), length, or
            likeness to the real test's rows.
        novel: share of the pseudo-test's words that are taken out of the train part.
        is_grouped: whether groups of rows stay on one side.
    """

    types: str = "as they are"
    negative: float | None = None
    labels: float = 0.0
    apart: str = "nothing"
    novel: float = 0.0
    is_grouped: bool = True


RECIPES: dict[str, Recipe] = {
    "alike": Recipe(),
    "types": Recipe(types="test"),
    "negative": Recipe(negative=0.6),
    "positive": Recipe(negative=0.1),
    "labels": Recipe(labels=1.0),
    "types and labels": Recipe(types="random", labels=0.7),
    "novel": Recipe(novel=1.0),
    "source": Recipe(apart="source"),
    "topic": Recipe(apart="topic"),
    "long": Recipe(apart="length"),
    "repeated": Recipe(is_grouped=False, negative=0.45),
    "like the test": Recipe(types="test", negative=0.6, labels=0.5, apart="odds", novel=0.6),
    "like the test, source": Recipe(types="test", negative=0.6, apart="source", novel=0.6),
    "like the test, topic": Recipe(types="test", negative=0.6, apart="topic", novel=0.6),
}


# --- splits -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Material:
    """The real rows and what splits are drawn from: type pairs, topics, odds of the real test."""

    prepared: Prepared
    type_pair: Ints
    test_type_shares: Floats
    topic: Ints
    odds: Floats
    counts: dict[str, Any]


def read_material() -> Material:
    prepared = read_prepared(resolve_competition("klue-re", None, None))
    train, test = prepared.corpus.train, prepared.corpus.test
    both = pd.concat([_pair_types(train), _pair_types(test)])
    codes = pd.factorize(both)[0]
    shares = np.bincount(codes[len(train) :], minlength=codes.max() + 1) / len(test)
    shift = read_or_fit_shift(prepared.competition, prepared.corpus)
    assert shift is not None
    blocks = [list(read_blocks(row, (1, 3))) for row in train]
    hasher = FeatureHasher(n_features=HASHED, input_type="string", alternate_sign=False)
    counts = {
        name: hasher.transform(each[at] for each in blocks).astype(np.float32)
        for at, name in enumerate(BLOCKS)
    }
    text = sparse.hstack([counts["around subject"], counts["around object"], counts["between"]])
    reduced = TruncatedSVD(30, random_state=0).fit_transform(
        TfidfTransformer(sublinear_tf=True).fit_transform(text)
    )
    topic = MiniBatchKMeans(12, random_state=0, n_init=3).fit_predict(reduced)
    return Material(prepared, codes[: len(train)], shares, topic, shift.odds, counts)


def _pair_types(rows: Rows) -> pd.Series[Any]:
    frame = rows.frame
    return frame["subject_type"].fillna("-") + "-" + frame["object_type"].fillna("-")


def draw_split(material: Material, recipe: Recipe, seed: int) -> tuple[Ints, Ints]:
    """Return the row indices of the train part and of the pseudo-test part."""
    rng = np.random.default_rng(seed)
    prepared = material.prepared
    train = prepared.corpus.train
    unit = prepared.groups if recipe.is_grouped else np.arange(len(train))
    in_test = (rng.random(unit.max() + 1) < 0.5)[unit]
    in_train = ~in_test
    weight = np.ones(len(train))
    if recipe.apart == "source":
        is_wikitree = (train.frame["source"] == "wikitree").to_numpy()
        in_test, in_train = in_test & is_wikitree, in_train & ~is_wikitree
    elif recipe.apart == "topic":
        clusters = rng.permutation(material.topic.max() + 1)[:5]
        is_there = np.isin(material.topic, clusters)
        in_test, in_train = in_test & is_there, in_train & ~is_there
    elif recipe.apart == "length":
        is_long = train.frame["sentence"].str.len().to_numpy() > 95
        in_test, in_train = in_test & is_long, in_train & ~is_long
    elif recipe.apart == "odds":
        weight = np.clip(material.odds, 0.02, 20)
    chosen = _draw_test(material, recipe, in_test, weight, rng)
    words = train.frame[["subject_word", "object_word"]].to_numpy()
    removed = np.unique(words[chosen])
    removed = set(removed[rng.random(len(removed)) < recipe.novel])
    if removed:
        in_train &= ~np.array([a in removed or b in removed for a, b in words])
    rest = np.flatnonzero(in_train)
    return np.sort(rng.permutation(rest)[:TRAIN_ROWS]), chosen


def _draw_test(
    material: Material, recipe: Recipe, pool: Bools, weight: Floats, rng: np.random.Generator
) -> Ints:
    """Draw pseudo-test rows, cell by cell of type pair and label, without replacement."""
    profile = material.prepared.competition.profile
    gold, pair = material.prepared.corpus.train.gold.astype(np.int64), material.type_pair
    n_labels, n_pairs = profile.n_labels, len(material.test_type_shares)
    cell = pair * n_labels + gold
    table = np.bincount(cell[pool], minlength=n_pairs * n_labels).reshape(n_pairs, n_labels)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    if recipe.labels:
        shares = shares * np.exp(rng.normal(0, recipe.labels, shares.shape))
    if recipe.negative is not None:
        (negative,) = profile.negative_ids
        found = gold[pool] == negative
        odds = (recipe.negative / (1 - recipe.negative)) * ((~found).sum() / found.sum())
        factors = odds * np.exp(rng.normal(0, 0.3, n_pairs))
        shares[:, negative] *= factors
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-12)
    of_types = table.sum(1) / table.sum()
    if recipe.types == "test":
        of_types = material.test_type_shares
    elif recipe.types == "random":
        of_types = of_types * np.exp(rng.normal(0, 1, n_pairs))
    wanted = TEST_ROWS * shares * (of_types / of_types.sum())[:, None]
    chosen = []
    for place, number in enumerate(wanted.ravel()):
        rows = np.flatnonzero(pool & (cell == place))
        size = min(len(rows), int(number) + int(rng.random() < number % 1))
        keys = np.log(weight[rows]) + rng.gumbel(size=len(rows))
        chosen.append(rows[np.argsort(-keys)[:size]])
    return np.sort(np.concatenate(chosen))


# --- learners -----------------------------------------------------------------------------------

Answer = Callable[[Any, Ints, Any], Floats]


def build_features(counts: Mapping[str, Any], fit: Ints, asked: Ints) -> dict[str, Any]:
    """Return each block's TF-IDF features of the rows ``fit`` and, below them, ``asked``."""
    found = {}
    for name, block in counts.items():
        rows = block[fit]
        kept = np.flatnonzero(rows.getnnz(axis=0) >= 2)
        if len(kept):
            rows = rows[:, kept]
            weigher = TfidfTransformer(sublinear_tf=True).fit(rows)
            both = sparse.vstack([rows, block[asked][:, kept]])
            found[name] = BLOCKS[name] * weigher.transform(both)
    return found


def _svm(regularisation: float, scale: float) -> Answer:
    def answer(features: Any, gold: Ints, asked: Any) -> Floats:
        model = LinearSVC(C=regularisation, tol=0.1, random_state=0).fit(features, gold)
        return np.asarray(softmax(scale * model.decision_function(asked), axis=1))

    return answer


def _bayes(features: Any, gold: Ints, asked: Any) -> Floats:
    model = ComplementNB(alpha=0.3, norm=True).fit(features, gold)
    return np.asarray(softmax(400 * model.predict_joint_log_proba(asked), axis=1))


def _neighbours(features: Any, gold: Ints, asked: Any) -> Floats:
    near = (asked @ features.T).toarray()
    places = np.argpartition(-near, 20, axis=1)[:, :20]
    weight = np.take_along_axis(near, places, axis=1) ** 4
    _, codes = np.unique(gold, return_inverse=True)
    votes = np.zeros((len(near), codes.max() + 1))
    np.add.at(votes, (np.arange(len(near))[:, None], codes[places]), weight)
    votes += 0.01 * votes.sum(1, keepdims=True) * np.bincount(codes) / len(codes)
    return np.asarray(votes / votes.sum(1, keepdims=True))


def _network(features: Any, gold: Ints, asked: Any) -> Floats:
    reduced = TruncatedSVD(80, random_state=0, n_iter=3).fit(features)
    scaler = StandardScaler().fit(reduced.transform(features))
    model = MLPClassifier(128, alpha=1e-2, max_iter=12, random_state=0, batch_size=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(scaler.transform(reduced.transform(features)), gold)
    return np.asarray(model.predict_proba(scaler.transform(reduced.transform(asked))))


LEARNERS: dict[str, tuple[tuple[str, ...], Answer]] = {
    "svm": (tuple(BLOCKS), _svm(0.2, 4.0)),
    "svm, stiff": (tuple(BLOCKS), _svm(0.01, 6.0)),
    "svm, context": (CONTEXT, _svm(0.2, 4.0)),
    "svm, entities": (ENTITIES, _svm(0.1, 4.0)),
    "naive Bayes": (tuple(BLOCKS), _bayes),
    "neighbours": (("object by types", *CONTEXT), _neighbours),
    "network": (tuple(BLOCKS), _network),
}


def answer_split(material: Material, train: Ints, test: Ints) -> dict[str, Any]:
    """Let every learner answer for a split: what estimators may see, and the labels."""
    prepared = material.prepared
    n_labels = prepared.competition.profile.n_labels
    gold = prepared.corpus.train.gold.astype(np.int64)
    groups = prepared.groups[train]
    fold_of = build_folds(prepared.corpus.train.gold[train], groups, count=FOLDS, seed=0)
    oof = np.zeros((len(LEARNERS), len(train), n_labels), np.float32)
    answers = np.zeros((len(LEARNERS), FOLDS, len(test), n_labels), np.float32)
    for fold in range(FOLDS):
        fit, held_out = train[fold_of != fold], np.flatnonzero(fold_of == fold)
        asked = np.concatenate([train[held_out], test])
        present = np.unique(gold[fit])
        blocks = build_features(material.counts, fit, asked)
        for place, (names, answer) in enumerate(LEARNERS.values()):
            features = sparse.hstack([blocks[name] for name in names if name in blocks]).tocsr()
            probs = answer(features[: len(fit)], gold[fit], features[len(fit) :])
            oof[place][np.ix_(held_out, present)] = probs[: len(held_out)]
            answers[place, fold][:, present] = probs[len(held_out) :]
    return {
        "oof": oof,
        "test": answers,
        "gold": gold[train],
        "test_gold": gold[test],
        "groups": groups,
        "fold_of": fold_of,
        "train_rows": train,
        "test_rows": test,
    }


def name_split(recipe: str, seed: int) -> str:
    """Name a split's file.

    >>> name_split("like the test, source", 1)
    'like-the-test-source-1'
    """
    return f"{recipe.replace(', ', '-').replace(' ', '-')}-{seed}"


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    material = read_material()
    for seed in SEEDS:
        for name, recipe in RECIPES.items():
            path = folder / f"{name_split(name, seed)}.npz"
            if path.exists():
                continue
            started = time.monotonic()
            train, test = draw_split(material, recipe, seed)
            np.savez(path, **answer_split(material, train, test))
            took = time.monotonic() - started
            print(f"{path.stem}: {len(train):,} and {len(test):,} rows, {took:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)


if __name__ == "__main__":
    main()
