"""How unlike train and test are: a classifier that tells them apart, and its odds of each row.

Beside ``audit`` and ``blend`` on the way of a row: ``data`` shows it, ``blend`` weighs out-of-fold
rows by the odds to show what would change on rows like the test's. It sees no label. Held-out rows
are judged by a model that saw none of their group, so a shared sentence gives nothing away.

Legend: N train rows, M test rows, F features.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.console import Column, Table
from competition.data.corpus import Corpus
from competition.data.csv_records import show
from competition.data.groups import build_groups
from competition.data.rows import Rows
from competition.errors import FoldsError
from competition.files import write_cache
from competition.folds.assignment import build_folds
from competition.profile import Competition
from competition.scoring.bootstrap import bound, build_resamples

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

VERSION = 1  # of what is fitted: raise it and what is kept on disk is fitted anew
LEAST_ROWS, MOST_ROWS = 10, 300_000  # of one side, and of both together
FOLDS = 5
CHARS = (1, 2)  # lengths of the character n-grams
MOST_NGRAMS = 50_000
RARE_FRAC = 1 / 4000  # n-grams in fewer rows than this are left out
STRENGTH = 1.0  # scikit-learn's C
CLIP = 10.0  # most that one row may weigh, over what it weighs where train and test are alike
SEED = 0
REPLICATES = 200
TELLING_SHOWN = 12

Odds = NDArray[np.float64]
Strings = NDArray[np.object_]
OnStep = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Telling:
    """A feature that tells train from test; ``train`` and ``test`` are shares of rows, or means."""

    what: str
    value: str
    train: float
    test: float
    is_share: bool


@dataclass(frozen=True, eq=False)
class Shift:
    """How well train and test can be told apart.

    Attributes:
        odds: (N,) how much more often a row like this stands in the test than in train; 1 where
            both have it alike. From a model that saw no row of its group.
        auc: area under the classifier's ROC curve; 0.5 where nothing tells them apart.
        low: end of its 95% interval over groups.
        high: likewise.
        telling: features that move the classifier most, from train to test.
    """

    odds: Odds
    auc: float
    low: float
    high: float
    telling: tuple[Telling, ...]

    def weights(self) -> Odds:
        """Return the odds clipped at ``CLIP`` and scaled to mean 1, (N,)."""
        clipped: Odds = np.minimum(self.odds, CLIP)
        return np.asarray(clipped / clipped.mean(), dtype=np.float64)

    def effective_rows(self) -> float:
        """Return how many rows of equal weight would be worth as much.

        Source: Kish 1965, "Survey Sampling", section 11.7: (Σ w)² / Σ w².
        """
        return measure_effective_rows(self.weights())


def measure_effective_rows(weights: Odds) -> float:
    """Return how many rows of equal weight are worth as much as these.

    >>> measure_effective_rows(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def find_obstacle(corpus: Corpus) -> str | None:
    """Say why train and test of this corpus cannot be told apart here, if so."""
    least, both = min(len(corpus.train), len(corpus.test)), len(corpus.train) + len(corpus.test)
    if least < LEAST_ROWS:
        return f"the shift is not measured: one side has {least} rows, fewer than {LEAST_ROWS}"
    if both > MOST_ROWS:
        return f"the shift is not measured: {both:,} rows, more than {MOST_ROWS:,}"
    return None


ONE_SIDED = (
    "the shift is not measured: rows hang together in so few or so large groups that a classifier"
    " which leaves some of them out would see train or test rows only"
)


def explain_absence(shift: Shift | None, corpus: Corpus) -> str | None:
    """Say why the shift of this corpus was not measured, None where it was."""
    if shift is not None:
        return None
    return find_obstacle(corpus) or ONE_SIDED


def read_or_fit_shift(
    competition: Competition, corpus: Corpus, on_step: OnStep | None = None
) -> Shift | None:
    """Read the shift that was measured for these rows, or measure it and keep it.

    Args:
        competition: whose ``checkpoints/<competition>/cache`` holds it, keyed by the data's hash
            and by what groups rows.
        corpus: the rows.
        on_step: called with the share that is done and what comes next.

    Returns:
        None where it cannot be measured; ``explain_absence`` says why.
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
    about["telling"] = [asdict(each) for each in shift.telling]
    stream = io.BytesIO()
    np.savez(stream, odds=shift.odds, about=np.array(json.dumps(about, ensure_ascii=False)))
    write_cache(path, stream.getvalue())
    return shift


def _describe_inputs(corpus: Corpus, group_by: tuple[str, ...]) -> dict[str, Any]:
    """Return what determines the shift: the rows, and which of them are held out together."""
    return {"corpus_hash": corpus.hash, "group_by": sorted(group_by)}


def _read(path: Path, corpus: Corpus, made_of: dict[str, Any]) -> Shift | None:
    """Read what was kept, if it is whole and of these rows and groups; else it is made anew."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            odds, about = kept["odds"], json.loads(str(kept["about"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    same = {key: about.get(key) for key in made_of} == made_of
    if not same or odds.shape != (len(corpus.train),):
        return None
    telling = tuple(Telling(**each) for each in about["telling"])
    return Shift(odds, about["auc"], about["low"], about["high"], telling)


def fit_shift(corpus: Corpus, group_by: tuple[str, ...], on_step: OnStep) -> Shift | None:
    """Measure how well train and test rows can be told apart, and by what.

    A logistic regression over character n-grams, source, types, lengths, distance and order of the
    entities, with both sides weighing alike, fitted to four fifths of the groups and asked about
    the last.

    Args:
        corpus: at least ``LEAST_ROWS`` rows on each side.
        group_by: what rows of one group share, as for the folds.
        on_step: called with the share that is done and what comes next.

    Returns:
        None where the groups of some four fifths hold rows of one side only.

    Source: Bickel, Brückner & Scheffer 2007, "Discriminative learning for differing training and
    test distributions", section 3: density ratios from a classifier's odds.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n_train = len(corpus.train)
    rows = Rows(pd.concat([corpus.train.frame, corpus.test.frame], ignore_index=True), None)
    is_test = np.arange(len(rows)) >= n_train
    groups = build_groups(rows, group_by)
    fold_of = _deal(is_test, groups)
    if fold_of is None:
        return None
    count = int(fold_of.max()) + 1
    on_step(0.0, "counting characters")
    features, names = build_features(rows)
    log_odds = np.empty(len(rows))
    with threadpool_limits(1):  # sums in another order would be other odds
        for fold in range(count):
            on_step((fold + 1) / (count + 2), f"classifier {fold + 1} of {count}")
            held_out = fold_of == fold
            model = _fit(features[~held_out], is_test[~held_out])
            log_odds[held_out] = model.decision_function(features[held_out])
        on_step((count + 1) / (count + 2), "the most telling features")
        whole = _fit(features, is_test)
    auc, low, high = _measure_auc(log_odds, is_test, groups)
    telling = _rank_features(features, names, is_test, np.asarray(whole.coef_[0]))
    return Shift(np.exp(log_odds[:n_train]).astype(np.float64), auc, low, high, telling)


def _deal(is_test: NDArray[np.bool_], groups: NDArray[np.int32]) -> NDArray[np.int8] | None:
    """Return (N + M,) folds of whole groups; None where some classifier would see one side only."""
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
    """Return (N + M, F) float32 features and what each one is: kind and value.

    Numbers stand last, scaled to mean 0 and deviation 1; everything else is 0 or above.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    frame = rows.frame
    counter = TfidfVectorizer(
        analyzer="char",
        ngram_range=CHARS,
        min_df=max(2, int(RARE_FRAC * len(rows))),
        max_features=MOST_NGRAMS,
        sublinear_tf=True,
        dtype=np.float32,
    )
    parts = [counter.fit_transform(frame["sentence"].tolist())]
    names = [("characters", show(ngram)) for ngram in counter.get_feature_names_out()]
    for column in ("source", "subject_type", "object_type"):
        if frame[column].notna().any():
            codes, found = pd.factorize(frame[column].fillna("none"))
            parts.append(csr_matrix(np.eye(len(found), dtype=np.float32)[codes]))
            names += [(column.replace("_", " "), str(value)) for value in found]
    for name, values in _build_numbers(frame).items():
        scaled = (values - values.mean()) / max(float(values.std()), 1e-9)
        parts.append(csr_matrix(scaled.astype(np.float32)[:, None]))
        names.append(("number", name))
    return hstack(parts, format="csr", dtype=np.float32), names


def _build_numbers(frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return what is counted of each row; lengths and distance as logarithms."""
    subject, object_ = frame["subject_start"].to_numpy(), frame["object_start"].to_numpy()
    ends = np.where(subject < object_, frame["subject_end"], frame["object_end"])
    between = np.maximum(np.maximum(subject, object_) - ends, 0)
    return {
        "log of the sentence's length": np.log1p(frame["sentence"].str.len().to_numpy(float)),
        "log of the distance between the entities": np.log1p(between.astype(float)),
        "subject stands after object": (subject > object_).astype(float),
    }


def _measure_auc(
    scores: Odds, is_test: NDArray[np.bool_], groups: NDArray[np.int32]
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its 95% interval over groups."""
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
) -> tuple[Telling, ...]:
    """Return the features whose weight times difference of means moves the classifier most."""
    train, test = features[~is_test], features[is_test]
    means = [np.asarray(side.mean(axis=0)).ravel() for side in (train, test)]
    moved = np.abs(weights * (means[1] - means[0]))
    telling = []
    for place in np.argsort(-moved, kind="stable")[:TELLING_SHOWN]:
        what, value = names[place]
        is_share = what != "number"
        sides = (train, test)
        if is_share:
            before, after = (float((side[:, [place]] > 0).mean()) for side in sides)
        else:
            before, after = (float(side[place]) for side in means)
        telling.append(Telling(what, value, before, after, is_share))
    return tuple(telling)


def build_shift_tables(shift: Shift | None, corpus: Corpus) -> list[Table]:
    """Show how well train and test can be told apart, and by what."""
    if shift is None:
        why = explain_absence(shift, corpus)
        return [Table("told_apart", "Train told from test", (), [], [why or ""])]
    is_absent = shift.low <= 0.5  # what moves a classifier that only guesses tells nothing
    columns = (
        Column("what", "Train told from test"),
        Column("value", "by"),
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
        for each in (() if is_absent else shift.telling)
    ]
    effective, n_rows = shift.effective_rows(), len(shift.odds)
    notes = [
        f"A classifier that never saw a row's group tells train from test with an AUC of"
        f" {shift.auc:.3f} ({shift.low:.3f}–{shift.high:.3f});"
        f" {'there is no shift that it finds' if is_absent else '0.5 would be no shift'}.",
        f"Weighed by its odds (at most {CLIP:g} times), the {n_rows:,} train rows are worth"
        f" {effective:,.0f} ({effective / n_rows:.0%}) of rows like the test's.",
    ]
    return [Table("told_apart", "Train told from test", columns, rows, notes)]
