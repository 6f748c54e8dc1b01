"""Expected test scores of members: what each shows of the test, kept on disk and joined.

Between ``members`` and the tables of ``fold``, ``board``, ``blend`` and ``compare``. Every member
that predicts the test rows is evidence of how they are mixed; ``forecast_test`` joins the evidence
of several, and any system on the same rows is scored under it.

Legend: N train rows, M test rows, K folds, C labels.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from competition.arrays import Bools, Float64s, Floats, Int64s, Ints
from competition.errors import HarnessError
from competition.files import write_cache
from competition.folds.kfold import Prepared
from competition.folds.strata import Strata, build_strata
from competition.predictions.members import Member, Store, read_member
from competition.scoring.expected import (
    Evidence,
    Expected,
    Ground,
    System,
    TestMix,
    read_evidence,
)
from competition.scoring.metrics import decide

VERSION = 1  # of what is kept on disk: raise it when ``read_evidence`` computes something else
MIN_ROWS = 20  # of each side
MAX_ROWS = 200_000  # of each side; of more, whole groups are drawn at random
SEED = 0


@dataclass(frozen=True, eq=False)
class Forecast:
    """How the test is mixed, for systems on the same train rows.

    Attributes:
        mix: of the rows that were looked at.
        rows: their places among the rows that a system predicts, (n,).
        n_rows: how many rows a system predicts.
        n_members: whose evidence it is.
        strict_share: of the test rows, those that repeat a sentence or an entity pair of the train
            rows, where no held-out row does; else 0.
    """

    mix: TestMix
    rows: Int64s
    n_rows: int
    n_members: int
    strict_share: float

    @cached_property
    def weights(self) -> Float64s:
        """Return (n_rows,) weights, mean 1, under which rows are mixed as in the test."""
        weights = np.zeros(self.n_rows)
        weights[self.rows] = self.mix.weights
        return weights * (self.n_rows / max(len(self.rows), 1))

    def expect(self, probs: Floats, pred: Ints) -> Expected:
        """Estimate the test score of a system's (n_rows, C) probabilities and (n_rows,) labels."""
        return self.mix.expect(probs[self.rows], pred[self.rows])


@dataclass(frozen=True, eq=False)
class TestReader:
    """Reads off members how the test is mixed; what each shows is kept in the cache folder.

    Attributes:
        prepared: whose rows.
        strata: of these rows.
    """

    __test__ = False  # no test of pytest's

    prepared: Prepared
    strata: Strata

    def forecast(self, members: Iterable[Member]) -> Forecast | None:
        """Join the evidence of members that predict the same rows, one or more.

        Returns:
            None where a side has fewer than ``MIN_ROWS`` rows, or one group only.
        """
        ground: Ground | None = None
        rows = test_rows = np.empty(0, dtype=np.int64)
        evidence: list[Evidence] = []
        n_rows = 0
        for member in members:
            if ground is None:
                answers, test_answers = _find_answers(member)
                rows = _choose(np.flatnonzero(answers), self.prepared.groups)
                test_rows = _choose(np.flatnonzero(test_answers), None)
                ground, n_rows = self._build_ground(rows, test_rows), int(answers.sum())
                if min(len(rows), len(test_rows)) < MIN_ROWS or _has_one_group(ground):
                    return None
                places = np.searchsorted(np.flatnonzero(answers), rows)
            evidence.append(self._read_or_measure(ground, member, rows, test_rows))
        if ground is None:
            return None
        strict = 0.0 if self.strata.train_repeated else self.strata.test_repeated
        return Forecast(TestMix(ground, evidence), places, n_rows, len(evidence), strict)

    def _build_ground(self, rows: Int64s, test_rows: Int64s) -> Ground:
        profile = self.prepared.competition.profile
        return Ground(
            self.prepared.corpus.train.gold[rows].astype(np.int64),
            profile.n_labels,
            profile.negative_id,
            self.prepared.groups[rows],
            self.strata.train[:, rows],
            self.strata.test[:, test_rows],
        )

    def _read_or_measure(
        self, ground: Ground, member: Member, rows: Int64s, test_rows: Int64s
    ) -> Evidence:
        negative_id = ground.negative_id
        probs, test_probs = member.oof[rows], member.test[:, test_rows]
        test_pred = np.stack([decide(each, negative_id, None) for each in test_probs])
        system = System(
            probs, decide(probs, negative_id, None), test_probs, test_pred, member.test_is_average
        )
        path = self._path(system, rows, test_rows)
        kept = _read(path, len(rows))
        if kept is None:
            kept = read_evidence(ground, system)
            _write(path, kept)
        return kept

    def _path(self, system: System, rows: Int64s, test_rows: Int64s) -> Path:
        """Return where the evidence of these very predictions is kept."""
        digest = hashlib.sha256()
        prepared = self.prepared
        about = [VERSION, prepared.corpus.hash, prepared.folds.hash, system.is_average]
        about.append(sorted(prepared.competition.profile.folds.group_by))
        digest.update(json.dumps(about).encode())
        for array in (rows, test_rows, system.probs, system.test_probs):
            digest.update(np.ascontiguousarray(array).tobytes())
        folder = prepared.competition.checkpoints_dir / "cache"
        return folder / f"evidence{VERSION}-{digest.hexdigest()[:16]}.npz"


def build_test_reader(prepared: Prepared) -> TestReader:
    """Prepare to read off members how the test of a competition is mixed."""
    corpus = prepared.corpus
    return TestReader(prepared, build_strata(corpus.train, corpus.test, prepared.folds.fold_of))


def forecast_test(
    prepared: Prepared, store: Store, members: Iterable[Member] = ()
) -> Forecast | None:
    """Join what every complete variant of a store shows of the test.

    Args:
        prepared: whose rows.
        store: of their predictions; variants that cannot be members, and specialists, are left out.
        members: used where the store has no other, such as specialists joined to one.

    Returns:
        None where there is none, or a side has too few rows or groups.
    """
    reader = build_test_reader(prepared)
    return reader.forecast(_read_whole(prepared, store)) or reader.forecast(members)


def _read_whole(prepared: Prepared, store: Store) -> Iterator[Member]:
    for name in store.variants():
        try:
            member = read_member(store, name, prepared)
        except HarnessError:
            continue  # incomplete or unusable, as the tables of variants say
        if member.covers_all:
            yield member


def describe_forecast(forecast: Forecast, negative_label: str | None) -> list[str]:
    """Say what an expected score is, and what it cannot know."""
    share, count = forecast.mix.negative_share, forecast.n_members
    whose = f"{count} variants" if count > 1 else "one variant"
    negative = "" if share is None else f"; about {share:.0%} of them {negative_label}"
    notes = [
        "Expected: on the test, by out-of-fold rows weighted to be mixed as its rows are, which the"
        f" predictions of {whose} show{negative}. The interval is of the level, uncertain for all"
        " alike; differences between members are known better."
    ]
    if forecast.strict_share > 0:
        notes.append(
            f"{forecast.strict_share:.1%} of the test rows repeat a sentence or an entity pair of"
            " the train rows and no held-out row does, so that what repetition gives is left out."
        )
    return notes


def _find_answers(member: Member) -> tuple[Bools, Bools]:
    return ~np.isnan(member.oof[:, 0]), ~np.isnan(member.test[0, :, 0])


def _choose(rows: Int64s, groups: Ints | None) -> Int64s:
    """Return at most about ``MAX_ROWS`` of the rows, in whole groups where there are groups."""
    if len(rows) <= MAX_ROWS:
        return rows
    codes = rows if groups is None else groups[rows]
    rng = np.random.default_rng(SEED)
    kept = rng.random(int(codes.max()) + 1) < MAX_ROWS / len(rows)
    return np.asarray(rows[kept[codes]])


def _has_one_group(ground: Ground) -> bool:
    return bool((ground.groups == ground.groups[0]).all())


def _read(path: Path, n_rows: int) -> Evidence | None:
    """Read what was kept, if it is whole; else it is measured again."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            weights, shares, numbers = kept["weights"], kept["shares"], kept["numbers"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if weights.shape != (len(shares), n_rows) or numbers.shape != (2,):
        return None
    negative = float(numbers[1])
    return Evidence(weights, shares, float(numbers[0]), None if np.isnan(negative) else negative)


def _write(path: Path, evidence: Evidence) -> None:
    negative = np.nan if evidence.negative_share is None else evidence.negative_share
    stream = io.BytesIO()
    np.savez(
        stream,
        weights=evidence.weights,
        shares=evidence.shares,
        numbers=np.array([evidence.variance, negative]),
    )
    write_cache(path, stream.getvalue())
