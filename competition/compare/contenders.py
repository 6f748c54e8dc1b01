"""Read what can be compared: variants, joint specialists, and blends.

``predictions/members`` reads complete members for a blend; this module reads the folds and seeds
that two contenders have in common, so that two variants trained on one fold can be compared too.

Legend: N train rows, C labels, K folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.arrays import Bools, Probs
from competition.audit.shift import explain_absence, read_or_fit_shift
from competition.blend.fit import estimate_nested, predict_pool
from competition.blend.objective import Point
from competition.blend.pooling import PooledRows, build_pooled_rows
from competition.blend.reweighting import build_row_weights, choose_row_weights
from competition.blend.search import BLEND, SearchPlan
from competition.errors import PredictionsError, UsageError
from competition.folds.kfold import Prepared
from competition.predictions.belonging import check_belongs, place_rows
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import (
    ROUTE_PREFIX,
    Member,
    find_specialists,
    is_tuned_elsewhere,
    read_headers,
    read_members,
    read_unchanged,
)
from competition.predictions.store import Header, ResultKey, Store, open_store
from competition.profile import Profile, flatten_settings
from competition.scoring.criteria import build_criteria
from competition.submission.record import BlendRecord, is_blend, list_blends, read_record

NETWORK = "network"  # the learner of a variant that names none
NO_SETTINGS = ("name", "why", "seeds", "tune")  # metadata of a variant
NAMED = 20  # blends in a message, the newest
TOGETHER = ","  # separates specialists in one argument; names cannot contain it

Job = tuple[int, int]
"""A seed and a fold."""


@dataclass(frozen=True, eq=False)
class Contender:
    """One side of a comparison.

    Attributes:
        name: as the user typed it.
        probs: (N, C) float32 out-of-fold probabilities, a blend's flattened; NaN for rows that it
            does not predict.
        blend_pred: (N,) label ids that a blend predicts: under its nested thresholds from
            ``read_contenders``, under its fitted one from ``read_contender``; None for variants.
        seeds: averaged over; empty for blends and imported tables.
        seed_counts: the number of them in each fold.
        learner: of variants.
        part: (N,) bool, the train rows that it predicts when all folds are trained; None: all.
        tuned_on: folds its hyperparameters were tuned on, where its scores are optimistic.
        is_tuned_elsewhere: it was tuned on another fold assignment, so all folds are affected.
        settings: of a single trained variant, by dotted key; empty for anything else.
        temperatures: of each fold's fit of a blend; empty for variants.
    """

    name: str
    probs: Probs
    blend_pred: npt.NDArray[np.int64] | None = None
    seeds: tuple[int, ...] = ()
    seed_counts: tuple[int, ...] = ()
    learner: str = ""
    part: Bools | None = None
    tuned_on: tuple[int, ...] = ()
    temperatures: tuple[float, ...] = ()
    is_tuned_elsewhere: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_blend(self) -> bool:
        """Return whether it is a blend, whose labels depend on tuned weights."""
        return self.blend_pred is not None


def list_different_settings(first: Contender, second: Contender) -> list[tuple[str, Any, Any]]:
    """List the settings in which two single variants differ; None if one has no such setting.

    Settings of a network and of a linear model are not comparable and not listed.
    """
    one, other = first.settings, second.settings
    if not one or not other or one.get("learner") != other.get("learner"):
        return []
    keys = sorted(one.keys() | other.keys())
    return [(key, one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)]


def read_contenders(
    prepared: Prepared,
    names: tuple[str, str],
    folds: Sequence[int] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Contender, Contender]:
    """Read two contenders with the same folds and, for variants, the same seeds.

    An imported table has no seed: its folds are compared to all seeds of the other.

    Args:
        names: each a variant, specialists joined by commas, ``route:length``, or a blend that
            ``blend`` wrote. A blend is represented by its recomputed nested predictions.
        folds: only these; empty takes every fold that both have.

    Raises:
        PredictionsError: nothing in common, or results of other data, folds or settings.
        UsageError: an unknown name, or the same name twice.
    """
    if names[0] == names[1]:
        raise UsageError(f"{names[0]} is given twice; give two different names")
    store = open_store(prepared.competition)
    sides = [_find(prepared, store, name) for name in names]
    jobs = _common_jobs(sides, names, set(folds) or set(range(prepared.folds.count)))
    first, second = (
        _read_variants(store, name, side, side.select(jobs), prepared)
        if isinstance(side, _Parts)
        else _read_blend(store, name, side, prepared, on_progress)
        for name, side in zip(names, sides, strict=True)
    )
    return first, second


def read_contender(prepared: Prepared, name: str) -> Contender:
    """Read one contender with all finished jobs; for a blend, its fitted predictions.

    A blend's fitted predictions come from weights and a threshold tuned on the same rows; they show
    where it errs, not how well it scores.

    Raises:
        PredictionsError: results of other data, folds or settings, or none in common.
        UsageError: an unknown name.
    """
    store = open_store(prepared.competition)
    side = _find(prepared, store, name)
    if isinstance(side, _Parts):
        if not side.jobs:
            raise PredictionsError(
                f"{name}: {_write(side.variants)} have no seed and fold in common; train the"
                " missing ones: python run.py fold VARIANT --seeds … --folds …"
            )
        return _read_variants(store, name, side, sorted(side.jobs), prepared)
    record = _read_record(side, prepared.competition.profile)
    rows = _read_blend_rows(store, name, record, prepared)
    weights = np.array([member.weight for member in record.members])
    point = Point(weights, record.rule, primary=0.0, temperature=record.temperature)
    probs, pred = predict_pool(rows.logs, point, rows.criteria.negative_ids)
    return Contender(name, probs, pred, temperatures=(record.temperature,))


@dataclass(frozen=True)
class _Parts:
    """The variants behind a name, and the jobs that all of them have finished.

    ``is_table``: it was imported as a table, so its seed is meaningless.
    """

    variants: tuple[str, ...]
    jobs: frozenset[Job]
    is_table: bool = False

    @property
    def folds(self) -> set[int]:
        """Return the folds of its jobs."""
        return {fold for _, fold in self.jobs}

    def select(self, common: Sequence[Job]) -> list[Job]:
        """Return its jobs among those to compare on."""
        if not self.is_table:
            return list(common)
        folds = {fold for _, fold in common}
        return sorted(job for job in self.jobs if job[1] in folds)


def _find(prepared: Prepared, store: Store, name: str) -> _Parts | Path:
    """Return the variants behind a name, or the JSON of a blend."""
    if name.startswith(ROUTE_PREFIX):
        variants = find_specialists(store, name)
    else:
        variants = tuple(part.strip() for part in name.split(TOGETHER) if part.strip())
        spec = prepared.competition.submissions_dir / f"{name}.json"
        if len(variants) == 1 and spec.is_file():
            if not store.keys(variants[0]):
                return spec
            if is_blend(spec):
                raise UsageError(
                    f"{name} is the name of a variant and of a blend, {spec}; rename the files of"
                    " the blend, or make it again with another name: python run.py blend --name …"
                )
    missing = [variant for variant in variants if not store.keys(variant)]
    if missing or not variants:
        known = ", ".join(store.variants()) or "none yet; run: python run.py fold"
        blends = list_blends(prepared.competition.submissions_dir)[-NAMED:]
        known += f"; blends: {', '.join(blends)}" if blends else ""
        what = missing[0] if missing else name
        raise UsageError(f"{what!r} has no out-of-fold rows and is not a blend; variants: {known}")
    done = [{(key.seed, key.fold) for key in store.keys(variant)} for variant in variants]
    first = store.read_header(store.keys(variants[0])[0])
    is_table = len(variants) == 1 and first is not None and bool(first.variant.get("imported"))
    return _Parts(variants, frozenset(set.intersection(*done)), is_table)


def _common_jobs(
    sides: Sequence[_Parts | Path], names: tuple[str, str], wanted: set[int]
) -> list[Job]:
    """Return the jobs that all sides with variants have finished, among the given folds.

    A table counts as finished for every seed of its folds.
    """
    parts = [side for side in sides if isinstance(side, _Parts)]
    if not parts:
        return []
    trained = [part.jobs for part in parts if not part.is_table]
    shared = frozenset.intersection(*(trained or [part.jobs for part in parts]))
    folds = wanted.intersection(*(part.folds for part in parts if part.is_table))
    common = sorted(job for job in shared if job[1] in folds)
    if not common:
        has = "; ".join(
            f"{name} has {_write_jobs(side)}"
            for name, side in zip(names, sides, strict=True)
            if isinstance(side, _Parts)
        )
        raise PredictionsError(
            f"no seed and fold in common among folds {_write(sorted(wanted))}: {has}; train the"
            " missing ones: python run.py fold VARIANT --seeds … --folds …"
        )
    return common


def _write_jobs(side: _Parts) -> str:
    by_seed: dict[int, list[int]] = {}
    for seed, fold in sorted(side.jobs):
        by_seed.setdefault(seed, []).append(fold)
    if side.is_table:
        return "; ".join(f"folds {_write(folds)} (imported)" for folds in by_seed.values())
    return ", ".join(f"seed {seed} folds {_write(folds)}" for seed, folds in by_seed.items()) or "–"


def _write(items: Iterable[object]) -> str:
    """Format a list as for an option: ``0,1,2``."""
    return ",".join(map(str, items))


def _read_variants(
    store: Store, name: str, side: _Parts, jobs: Sequence[Job], prepared: Prepared
) -> Contender:
    """Join the common jobs of a contender's variants into one (N, C) array."""
    probs = np.full((len(prepared.corpus.train), len(store.labels)), np.nan, dtype=np.float32)
    tuned_on: set[int] = set()
    elsewhere = False
    settings: dict[str, Any] = {}
    learner = ""
    part = np.zeros(len(prepared.corpus.train), dtype=bool)
    for variant in side.variants:
        header, own, predicted = _read_variant(store, variant, jobs, prepared)
        part |= predicted
        both = ~np.isnan(probs[:, 0]) & ~np.isnan(own[:, 0])
        if both.any():
            raise UsageError(
                f"{name}: {_write(side.variants)} predict {both.sum()} rows twice; give one"
                " specialist for each part, joined by commas"
            )
        probs = np.where(np.isnan(probs), own, probs)
        tuned_on |= set((header.variant.get("tune") or {}).get("folds", ()))
        elsewhere |= is_tuned_elsewhere(header.variant, prepared.folds.hash)
        learner = header.variant.get("learner", NETWORK)
        if len(side.variants) == 1 and not header.variant.get("imported"):
            recipe = header.variant.items()
            settings = flatten_settings(
                {key: each for key, each in recipe if key not in NO_SETTINGS}
            )
    seeds = () if side.is_table else tuple(sorted({seed for seed, _ in jobs}))
    return Contender(
        name,
        probs,
        seeds=seeds,
        seed_counts=tuple(Counter(fold for _, fold in jobs).values()) if seeds else (),
        learner=learner,
        part=part,
        tuned_on=tuple(sorted(tuned_on)),
        is_tuned_elsewhere=elsewhere,
        settings=settings,
    )


def _read_variant(
    store: Store, variant: str, jobs: Sequence[Job], prepared: Prepared
) -> tuple[Header, Probs, Bools]:
    """Return a variant's header and its out-of-fold probabilities from some jobs.

    Returns:
        The header; (N, C) float32, averaged over the seeds of each fold, NaN for other rows; (N,)
        which rows the variant predicts in all folds together.
    """
    found = read_headers(store, [ResultKey(variant, seed, fold) for seed, fold in jobs])
    answered = check_belongs(found, prepared)
    header = found[0][1]
    ids, fold_of = prepared.corpus.train.ids, prepared.folds.fold_of
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    probs = np.full((len(ids), len(store.labels)), np.nan, dtype=np.float32)
    for fold in sorted({fold for _, fold in jobs}):
        expected = answered.train & (fold_of == fold)
        predictions = []
        for seed in (seed for seed, job_fold in jobs if job_fold == fold):
            key = ResultKey(variant, seed, fold)
            result = read_unchanged(store, key, header)
            rows = place_rows(result.oof_ids, row_of, expected, f"{store.path(key)}, oof rows")
            predictions.append(result.oof_probs[np.argsort(rows)])
        probs[expected] = average_in_log_space(predictions)
    return header, probs, answered.train


def _read_blend(
    store: Store,
    name: str,
    path: Path,
    prepared: Prepared,
    on_progress: Callable[[int, int], None] | None,
) -> Contender:
    """Recompute the nested predictions of a blend.

    Its fitted predictions were tuned on the same rows and are too optimistic for a comparison.
    """
    record = _read_record(path, prepared.competition.profile)
    if record.shrink:
        raise PredictionsError(
            f"{path} was made with --shrink, which blend no longer has, so its nested predictions"
            f" cannot be recomputed; run: python run.py blend --name {name}"
        )
    objectives = build_criteria(prepared.competition.profile).objectives
    if record.objective not in objectives:
        raise PredictionsError(
            f"{path} was made for {record.objective}, and the profile's metrics are now"
            f" {', '.join(objectives)}; run: python run.py blend --name {name}"
        )
    rows = _read_blend_rows(store, name, record, prepared)
    corpus, profile = prepared.corpus, prepared.competition.profile
    if record.reweight is not None:
        shift = read_or_fit_shift(prepared.competition, corpus)
        share = record.shifted_negative_share or profile.metrics.shifted_negative_share
        weightings = build_row_weights(rows.gold, profile.negative_ids, share, shift)
        weights = choose_row_weights(weightings, record.reweight, explain_absence(shift, corpus))
        rows = replace(rows, weights=weights)
    done, total = 0, record.trials * prepared.folds.count

    def on_trial() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    plan = SearchPlan(record.trials, record.seed, on_trial, record.objective)
    nested = estimate_nested(rows, prepared.folds.fold_of, plan)[BLEND]
    temperatures = tuple(point.temperature for point in nested.points)
    return Contender(name, nested.probs, nested.pred, temperatures=temperatures)


def _read_record(path: Path, profile: Profile) -> BlendRecord:
    try:
        record = read_record(path, profile.n_labels)
        reason = "it comes from another tool"
    except (OSError, ValueError) as error:
        record, reason = None, str(error)
    if record is None:
        raise PredictionsError(
            f"{path} does not describe a blend ({reason}); only a submission that blend wrote can"
            f" be compared: python run.py blend --name {path.stem}"
        )
    if record.differs_from(profile):
        raise PredictionsError(
            f"{path} was made with other metrics or negative labels than the profile's; run: python"
            f" run.py blend --name {path.stem}"
        )
    return record


def _read_blend_rows(
    store: Store, name: str, record: BlendRecord, prepared: Prepared
) -> PooledRows:
    """Read the out-of-fold rows of a blend's members, in its order."""
    members: list[Member] = []
    for member in record.members:
        found, _ = read_members(store, member.parts, prepared)
        same = len(found) == 1 and found[0].recipe == member.recipe
        if not same or found[0].seeds != member.seeds:
            raise PredictionsError(
                f"the blend {name} was made with another {member.name} than the one in the store;"
                f" run: python run.py blend --name {name}"
            )
        members.append(replace(found[0], name=member.name))
    criteria = build_criteria(prepared.competition.profile)
    return build_pooled_rows(members, prepared.corpus.train.gold, criteria)
