"""Expected test scores of members, from an estimate of the test set's composition.

Used by the tables of ``fold``, ``board``, ``blend`` and ``compare``. The test predictions of every
member give an estimate of the test set's composition (label shift and covariate shift), which is
cached on disk; ``forecast_test`` combines the estimates of several members.

Legend: N train rows, M test rows, K folds, C labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from competition.arrays import Float64s, Floats, Int64s, Ints, cache, read_cached
from competition.errors import HarnessError
from competition.folds.kfold import Prepared
from competition.folds.strata import Strata, build_strata
from competition.predictions.members import Member, read_member
from competition.predictions.store import Store
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide
from competition.scoring.expected import (
    Evidence,
    Expected,
    Ground,
    System,
    TestMix,
    read_evidence,
)
from competition.scoring.metrics.metric import MetricKind

VERSION = 1  # of the cache: raise it if the results of ``read_evidence`` change
MIN_ROWS = 20  # of each side
MAX_ROWS = 200_000  # of each side; above that, whole groups are sampled at random
SEED = 0


@dataclass(frozen=True, eq=False)
class TestForecast:
    """An estimate of the test set's composition, for systems on the same train rows.

    Attributes:
        mix: the estimate on the rows that were used.
        rows: (n,) the positions of those rows among the rows that a system predicts.
        n_rows: the number of rows that a system predicts.
        n_members: the number of members on which it is based.
        strict_share: the fraction of test rows that repeat a sentence or an entity pair of the
            train rows, if no held-out row does; else 0.
    """

    mix: TestMix
    rows: Int64s
    n_rows: int
    n_members: int
    strict_share: float

    __test__ = False  # not a test class for pytest

    @cached_property
    def weights(self) -> Float64s:
        """Return (n_rows,) importance weights, mean 1, that match the rows to the test set."""
        weights = np.zeros(self.n_rows)
        weights[self.rows] = self.mix.weights
        return weights * (self.n_rows / max(len(self.rows), 1))

    def expect(self, probs: Floats, pred: Ints) -> Expected:
        """Estimate the test score of a system's (n_rows, C) probabilities and (n_rows,) labels."""
        return self.mix.expect(probs[self.rows], pred[self.rows])


@dataclass(frozen=True, eq=False)
class TestReader:
    """Estimates the test set's composition from members; estimates are cached on disk."""

    __test__ = False  # not a test class for pytest

    prepared: Prepared
    strata: Strata

    def forecast(self, members: Iterable[Member]) -> TestForecast | None:
        """Combine the evidence of one or more members that predict the same rows.

        Returns:
            None if a side has fewer than ``MIN_ROWS`` rows or only one group.
        """
        ground: Ground | None = None
        rows = test_rows = np.empty(0, dtype=np.int64)
        evidence: list[Evidence] = []
        n_rows = 0
        for member in members:
            if ground is None:
                answers, test_answers = member.covered, member.test_covered
                rows = _choose(np.flatnonzero(answers), self.prepared.groups)
                test_rows = _choose(np.flatnonzero(test_answers), None)
                ground, n_rows = self._build_ground(rows, test_rows), int(answers.sum())
                if min(len(rows), len(test_rows)) < MIN_ROWS or len(np.unique(ground.groups)) < 2:
                    return None
                places = np.searchsorted(np.flatnonzero(answers), rows)
            evidence.append(self._read_or_measure(ground, member, rows, test_rows))
        if ground is None:
            return None
        strict = 0.0 if self.strata.train_repeated else self.strata.test_repeated
        return TestForecast(TestMix(ground, evidence), places, n_rows, len(evidence), strict)

    def _build_ground(self, rows: Int64s, test_rows: Int64s) -> Ground:
        profile = self.prepared.competition.profile
        return Ground(
            self.prepared.corpus.train.gold[rows].astype(np.int64),
            build_criteria(profile),
            self.prepared.groups[rows],
            self.strata.train[:, rows],
            self.strata.test[:, test_rows],
        )

    def _read_or_measure(
        self, ground: Ground, member: Member, rows: Int64s, test_rows: Int64s
    ) -> Evidence:
        probs, test_probs = member.oof[rows], member.test[:, test_rows]
        test_pred = np.stack([decide(each) for each in test_probs])
        system = System(probs, decide(probs), test_probs, test_pred, member.test_is_average)
        path = self._path(ground, system, rows, test_rows)
        kept = _read(path, len(rows))
        if kept is None:
            kept = read_evidence(ground, system)
            _write(path, kept)
        return kept

    def _path(self, ground: Ground, system: System, rows: Int64s, test_rows: Int64s) -> Path:
        """Return the cache file of these predictions."""
        digest = hashlib.sha256()
        prepared = self.prepared
        about = [VERSION, prepared.corpus.hash, prepared.folds.hash, system.is_average]
        about.append(sorted(prepared.competition.profile.folds.group_by))
        # what is kept was measured by these
        about += [ground.criteria.primary.kind.name, repr(ground.criteria.task)]
        digest.update(json.dumps(about).encode())
        for array in (rows, test_rows, system.probs, system.test_probs):
            digest.update(np.ascontiguousarray(array).tobytes())
        folder = prepared.competition.checkpoints_dir / "cache"
        return folder / f"evidence{VERSION}-{digest.hexdigest()[:16]}.npz"


def build_test_reader(prepared: Prepared) -> TestReader:
    """Create a TestReader for a competition."""
    corpus = prepared.corpus
    return TestReader(prepared, build_strata(corpus.train, corpus.test, prepared.folds.fold_of))


def forecast_test(prepared: Prepared, store: Store) -> TestForecast | None:
    """Estimate the test set's composition from every complete variant in a store.

    Args:
        store: the store; specialists and variants that cannot be members are left out.

    Returns:
        None if there are no members, or a side has too few rows or groups.
    """
    reader = build_test_reader(prepared)
    whole = read_whole(store, lambda name: read_member(store, name, prepared))
    return reader.forecast(whole)


def read_whole(store: Store, read: Callable[[str], Member]) -> Iterator[Member]:
    """Yield the variants of a store that predict every row.

    Args:
        read: reads one by its name; those that it cannot read are left out.
    """
    for name in store.variants():
        try:
            member = read(name)
        except HarnessError:
            continue  # incomplete or unusable, as the table of variants shows
        if member.covers_all:
            yield member


def describe_forecast(forecast: TestForecast, negative_name: str | None) -> list[str]:
    """Return notes that explain expected scores and their limits."""
    share, count = forecast.mix.negative_share, forecast.n_members
    whose = f"{count} variants" if count > 1 else "one variant"
    negative = "" if share is None else f"; about {share:.0%} of them {negative_name}"
    notes = [
        "Expected: on the test set, from out-of-fold rows weighted to match its composition,"
        f" estimated from the predictions of {whose}{negative}. The interval covers the level,"
        " which all members share; differences between members are more certain."
    ]
    if forecast.strict_share > 0:
        notes.append(
            f"{forecast.strict_share:.1%} of the test rows repeat a sentence or an entity pair of"
            " the train rows and no held-out row does, so the expected scores may be too low."
        )
    return notes


def lay_out_expected(expected: Expected, kinds: Sequence[MetricKind]) -> dict[str, Any]:
    """Return the expected test scores as cells of a table row, as people read them."""
    first, *second = kinds
    own, score = f"expected_{first.short}", expected.primary
    row: dict[str, Any] = {
        own: first.show(score.value),
        f"{own}_interval": first.show_ends(score.low, score.high),
    }
    if second and expected.secondary is not None:
        row[f"expected_{second[0].short}"] = second[0].show(expected.secondary)
    return row


def _choose(rows: Int64s, groups: Ints | None) -> Int64s:
    """Return at most about ``MAX_ROWS`` of the rows, sampled in whole groups if any."""
    if len(rows) <= MAX_ROWS:
        return rows
    codes = rows if groups is None else groups[rows]
    rng = np.random.default_rng(SEED)
    kept = rng.random(int(codes.max()) + 1) < MAX_ROWS / len(rows)
    return np.asarray(rows[kept[codes]])


def _read(path: Path, n_rows: int) -> Evidence | None:
    """Read a cache file; None if it is missing or damaged."""
    found = read_cached(path, "weights", "shares", "numbers")
    if found is None or any(each.dtype.kind != "f" or not each.ndim for each in found):
        return None
    weights, shares, numbers = found
    if weights.shape != (len(shares), n_rows) or numbers.shape != (2,):
        return None
    if not (np.isfinite(weights).all() and np.isfinite(shares).all() and np.isfinite(numbers[0])):
        return None
    negative = float(numbers[1])
    return Evidence(weights, shares, float(numbers[0]), None if np.isnan(negative) else negative)


def _write(path: Path, evidence: Evidence) -> None:
    negative = np.nan if evidence.negative_share is None else evidence.negative_share
    numbers = np.array([evidence.variance, negative])
    cache(path, weights=evidence.weights, shares=evidence.shares, numbers=numbers)
