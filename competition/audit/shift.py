"""Adversarial validation: a classifier of train against test rows, to measure covariate shift.

``data`` prints its AUC and most important features; ``blend`` uses its odds as importance weights
for out-of-fold rows. It uses no labels. Each row is scored by a model that was not trained on its
group, so a shared sentence does not leak.

Legend: N train rows, M test rows, F features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from competition.arrays import cache, read_cached
from competition.console import Column, Table
from competition.data.corpus import Corpus
from competition.data.csv_records import show
from competition.data.groups import build_groups
from competition.data.rows import Rows
from competition.errors import FoldsError
from competition.folds.assignment import build_folds
from competition.profile import Competition
from competition.scoring.bootstrap import bound, build_resamples

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

VERSION = 1  # of the computation: raising it invalidates cached results
MIN_SIDE_ROWS, MAX_ROWS = 10, 300_000  # of either side, and of both together
FOLDS = 5
CHARS = (1, 2)  # lengths of the character n-grams
MAX_NGRAMS = 50_000
RARE_FRAC = 1 / 4000  # n-grams in fewer rows are left out
STRENGTH = 1.0  # scikit-learn's C
CLIP = 10.0  # maximum weight of a row, relative to its weight without shift
SEED = 0
REPLICATES = 200
FEATURES_SHOWN = 12

Odds = NDArray[np.float64]
OnStep = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class ShiftFeature:
    """A feature that differs between train and test: shares of rows, or means."""

    what: str
    value: str
    train: float
    test: float
    is_share: bool


@dataclass(frozen=True, eq=False)
class Shift:
    """Result of adversarial validation.

    Attributes:
        odds: (N,) density ratio of test to train for each train row, 1 without shift; from a model
            that was not trained on the row's group.
        auc: area under the classifier's ROC curve; 0.5 means no detectable shift.
        low: lower end of its 95% bootstrap interval over groups.
        high: upper end.
        features: the features that contribute most to the classification.
    """

    odds: Odds
    auc: float
    low: float
    high: float
    features: tuple[ShiftFeature, ...]

    def weights(self) -> Odds:
        """Return importance weights (N,): the odds clipped at ``CLIP``, scaled to mean 1."""
        clipped: Odds = np.minimum(self.odds, CLIP)
        return np.asarray(clipped / clipped.mean(), dtype=np.float64)

    def effective_rows(self) -> float:
        """Return the effective sample size under these weights.

        Source: Kish 1965, "Survey Sampling", section 11.7: (Σ w)² / Σ w².
        """
        return measure_effective_rows(self.weights())


def measure_effective_rows(weights: Odds) -> float:
    """Return the effective sample size: the equivalent number of equally weighted rows.

    >>> measure_effective_rows(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def find_obstacle(corpus: Corpus) -> str | None:
    """Return why the shift of this corpus cannot be measured, or None."""
    smaller, both = min(len(corpus.train), len(corpus.test)), len(corpus.train) + len(corpus.test)
    if smaller < MIN_SIDE_ROWS:
        few = f"one side has {smaller} rows, fewer than {MIN_SIDE_ROWS}"
        return f"the shift is not measured: {few}"
    if both > MAX_ROWS:
        return f"the shift is not measured: {both:,} rows, more than {MAX_ROWS:,}"
    return None


ONE_SIDED = (
    "the shift is not measured: rows form so few or so large groups that a classifier trained"
    " without some of them would see only train or only test rows"
)


def explain_absence(shift: Shift | None, corpus: Corpus) -> str | None:
    """Return why the shift of this corpus was not measured, or None if it was."""
    if shift is not None:
        return None
    return find_obstacle(corpus) or ONE_SIDED


def read_or_fit_shift(
    competition: Competition, corpus: Corpus, on_step: OnStep | None = None
) -> Shift | None:
    """Read the cached shift of these rows, or measure and cache it.

    Args:
        competition: its ``checkpoints/<competition>/cache`` holds the cache, keyed by the data's
            hash and by ``folds.group_by``.

    Returns:
        None if it cannot be measured; ``explain_absence`` returns the reason.
    """
    if find_obstacle(corpus) is not None:
        return None
    made_of = _describe_inputs(corpus, competition.profile.folds.group_by)
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    path = competition.checkpoints_dir / "cache" / f"shift{VERSION}-{digest[:16]}.npz"
    kept = _read(path, corpus, made_of)
    if kept is not None:
        return kept
    group_by = competition.profile.folds.group_by
    shift = fit_shift(corpus, group_by, on_step or (lambda _frac, _text: None))
    if shift is None:
        return None
    about = {**made_of, "auc": shift.auc, "low": shift.low, "high": shift.high}
    about["telling"] = [asdict(each) for each in shift.features]
    cache(path, odds=shift.odds, about=np.array(json.dumps(about, ensure_ascii=False)))
    return shift


def _describe_inputs(corpus: Corpus, group_by: tuple[str, ...]) -> dict[str, Any]:
    """Return what determines the shift: the rows and their grouping."""
    return {"corpus_hash": corpus.hash, "group_by": sorted(group_by)}


def _read(path: Path, corpus: Corpus, made_of: dict[str, Any]) -> Shift | None:
    """Read the cached shift; None if it is damaged or belongs to other rows or groups."""
    found = read_cached(path, "odds", "about")
    if found is None:
        return None
    odds, text = found
    try:
        about = _About.model_validate_json(str(text))
    except ValueError:
        return None
    is_sound = odds.dtype == np.float64 and np.isfinite(odds).all() and (odds > 0).all()
    if about.made_of != made_of or odds.shape != (len(corpus.train),) or not is_sound:
        return None
    return Shift(odds, about.auc, about.low, about.high, about.telling)


class _About(BaseModel):
    """What the cache of the shift says beside the odds."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    corpus_hash: str
    group_by: list[str]
    auc: float
    low: float
    high: float
    telling: tuple[ShiftFeature, ...]

    @property
    def made_of(self) -> dict[str, Any]:
        """Return the description of the rows and their grouping."""
        return {"corpus_hash": self.corpus_hash, "group_by": self.group_by}


def fit_shift(corpus: Corpus, group_by: tuple[str, ...], on_step: OnStep) -> Shift | None:
    """Measure how well a classifier separates train from test rows, and by which features.

    The classifier is a class-balanced logistic regression over character n-grams, source, types,
    lengths, distance and order of the entities, cross-validated over groups.

    Args:
        corpus: at least ``MIN_SIDE_ROWS`` rows on each side.

    Returns:
        None if some training part would hold rows of one side only.

    Source: Bickel, Brückner & Scheffer 2007, "Discriminative learning for differing training and
    test distributions", section 3: density ratios from a classifier's odds.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n_train = len(corpus.train)
    rows = Rows(pd.concat([corpus.train.frame, corpus.test.frame], ignore_index=True), None)
    is_test = np.arange(len(rows)) >= n_train
    groups = build_groups(rows, group_by)
    fold_of = _assign_folds(is_test, groups)
    if fold_of is None:
        return None
    count = int(fold_of.max()) + 1
    on_step(0.0, "counting characters")
    features, names = build_features(rows)
    log_odds = np.empty(len(rows))
    with threadpool_limits(1):  # another order of summation would change the odds
        for fold in range(count):
            on_step((fold + 1) / (count + 2), f"classifier {fold + 1} of {count}")
            held_out = fold_of == fold
            model = _fit(features[~held_out], is_test[~held_out])
            log_odds[held_out] = model.decision_function(features[held_out])
        on_step((count + 1) / (count + 2), "the most important features")
        whole = _fit(features, is_test)
    auc, low, high = _measure_auc(log_odds, is_test, groups)
    ranked = _rank_features(features, names, is_test, np.asarray(whole.coef_[0]))
    return Shift(np.exp(log_odds[:n_train]).astype(np.float64), auc, low, high, ranked)


def _assign_folds(is_test: NDArray[np.bool_], groups: NDArray[np.int32]) -> NDArray[np.int8] | None:
    """Return (N + M,) folds by group, or None if a training part would have one side only."""
    count = min(FOLDS, int(groups.max()) + 1)
    if count < 2:
        return None
    try:
        fold_of = build_folds(is_test.astype(np.int16), groups, count=count, seed=SEED)
    except FoldsError:
        return None
    for fold in range(count):
        seen = is_test[fold_of != fold]
        if seen.all() or not seen.any():
            return None
    return fold_of


def _fit(features: csr_matrix, is_test: NDArray[np.bool_]) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, class_weight="balanced", tol=1e-3, max_iter=1000)
    return model.fit(features, is_test)


def build_features(rows: Rows) -> tuple[csr_matrix, list[tuple[str, str]]]:
    """Return (N + M, F) float32 features and their names: kind and value.

    Numeric features come last, standardised; all others are non-negative.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    frame = rows.frame
    counter = TfidfVectorizer(
        analyzer="char",
        ngram_range=CHARS,
        min_df=max(2, int(RARE_FRAC * len(rows))),
        max_features=MAX_NGRAMS,
        sublinear_tf=True,
        dtype=np.float32,
    )
    parts = [counter.fit_transform(frame["sentence"].tolist())]
    names = [("characters", show(ngram)) for ngram in counter.get_feature_names_out()]
    for column in ("source", "subject_type", "object_type"):
        if frame[column].notna().any():
            codes, found = pd.factorize(frame[column].fillna("none"))
            ones, at = np.ones(len(codes), np.float32), np.arange(len(codes))
            parts.append(csr_matrix((ones, (at, codes)), shape=(len(codes), len(found))))
            names += [(column.replace("_", " "), str(value)) for value in found]
    for name, values in _build_numbers(frame).items():
        scaled = (values - values.mean()) / max(float(values.std()), 1e-9)
        parts.append(csr_matrix(scaled.astype(np.float32)[:, None]))
        names.append(("number", name))
    return hstack(parts, format="csr", dtype=np.float32), names


def _build_numbers(frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return the numeric features of each row; lengths and distance as logarithms."""
    subject, object_ = frame["subject_start"].to_numpy(), frame["object_start"].to_numpy()
    ends = np.where(subject < object_, frame["subject_end"], frame["object_end"])
    between = np.maximum(np.maximum(subject, object_) - ends, 0)
    return {
        "log of the sentence's length": np.log1p(frame["sentence"].str.len().to_numpy(float)),
        "log of the distance between the entities": np.log1p(between.astype(float)),
        "subject after object": (subject > object_).astype(float),
    }


def _measure_auc(
    scores: Odds, is_test: NDArray[np.bool_], groups: NDArray[np.int32]
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its 95% bootstrap interval over groups."""
    place = np.unique(scores, return_inverse=True)[1]

    def measure(weights: Odds) -> float:
        test, train = (np.bincount(place, weights * side) for side in (is_test, ~is_test))
        below = np.cumsum(train) - 0.5 * train
        return float((test * below).sum() / max(test.sum() * train.sum(), 1e-12))

    resamples = build_resamples(groups, replicates=REPLICATES, seed=SEED)
    drawn = [measure(row[resamples.group_of]) for counts in resamples.chunks() for row in counts]
    return measure(np.ones(len(scores))), *bound(np.array(drawn))


def _rank_features(
    features: csr_matrix,
    names: list[tuple[str, str]],
    is_test: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> tuple[ShiftFeature, ...]:
    """Return the features with the largest product of coefficient and difference of means."""
    train, test = features[~is_test], features[is_test]
    means = [np.asarray(side.mean(axis=0)).ravel() for side in (train, test)]
    moved = np.abs(weights * (means[1] - means[0]))
    ranked = []
    for place in np.argsort(-moved, kind="stable")[:FEATURES_SHOWN]:
        what, value = names[place]
        is_share = what != "number"
        sides = (train, test)
        if is_share:
            before, after = (float((side[:, [place]] > 0).mean()) for side in sides)
        else:
            before, after = (float(side[place]) for side in means)
        ranked.append(ShiftFeature(what, value, before, after, is_share))
    return tuple(ranked)


def build_shift_tables(shift: Shift | None, corpus: Corpus) -> list[Table]:
    """Show the result of adversarial validation and the most important features."""
    if shift is None:
        why = explain_absence(shift, corpus)
        return [Table("told_apart", "Adversarial validation", (), [], [why or ""])]
    is_absent = shift.low <= 0.5  # features of a classifier at chance level mean nothing
    columns = (
        Column("what", "Feature"),
        Column("value", "value"),
        Column("train", "train"),
        Column("test", "test"),
    )
    rows = [
        {
            "what": each.what,
            "value": each.value,
            "train": f"{each.train:.1%}" if each.is_share else f"{each.train:+.2f} SD",
            "test": f"{each.test:.1%}" if each.is_share else f"{each.test:+.2f} SD",
        }
        for each in (() if is_absent else shift.features)
    ]
    effective, n_rows = shift.effective_rows(), len(shift.odds)
    notes = [
        f"A classifier separates train from test rows, cross-validated by group, with an AUC of"
        f" {shift.auc:.3f} ({shift.low:.3f}–{shift.high:.3f});"
        f" {'it detects no shift' if is_absent else '0.5 would be no shift'}.",
        f"Weighted by its odds (at most {CLIP:g}), the {n_rows:,} train rows have an effective"
        f" sample size of {effective:,.0f} ({effective / n_rows:.0%}).",
    ]
    return [Table("told_apart", "Adversarial validation", columns, rows, notes, "rows")]
