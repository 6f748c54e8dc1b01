"""Plan jobs (variant × seed × fold): find those whose result is missing from the store.

``plan_jobs`` resolves the variants of a request, compares fingerprints with the store, and
describes missing results as ``JobSpec``, which ``models.jobs.workers`` runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.arrays import Say
from competition.errors import PredictionsError, UsageError
from competition.folds.kfold import Prepared
from competition.lease import clear_stale, list_leases
from competition.predictions.store import Header, ResultKey
from competition.scoring.criteria import build_criteria
from models.data.pool import PredictedLabels, choose_fold_rows
from models.jobs.request import PSEUDO, START, TEACHER, FoldRequest, name_bases, resolve_all
from models.jobs.setup import VariantSetup, set_up_variant, tokenize_pool, write_pool_texts
from models.jobs.spec import (
    LEASED,
    STATE_FILE,
    WEIGHTS_FILE,
    JobSpec,
    NetworkSpec,
    count_threads,
    read_kept,
)
from models.jobs.suitability import check_difficulty
from models.training.checkpoints import read_facts
from models.training.linear import RARE_LABELS_VERSION, find_rare_labels
from models.variant import LINEAR, Variant, fingerprint


@dataclass(frozen=True)
class Plan:
    """Jobs to run, and results that already exist."""

    variants: tuple[Variant, ...]
    jobs: tuple[JobSpec, ...]
    done: tuple[ResultKey, ...]


def plan_jobs(
    prepared: Prepared,
    request: FoldRequest,
    say: Say,
    *,
    threads: int,
    variants: Sequence[Variant] | None = None,
    deadline: float | None = None,
) -> Plan:
    """Find the missing jobs of the requested variants, or of some of them.

    Task-adaptive pretraining (TAPT), where a variant needs it, runs here, until the deadline.

    Raises:
        StoppedError: TAPT was stopped.
        PredictionsError: a stored result of the same name has another recipe.
        UsageError, VariantError, EncoderError: the request is invalid.
    """
    if variants is None:
        variants = resolve_all(prepared.competition.profile, request)
    folds = request.folds or tuple(range(prepared.folds.count))
    beyond = [fold for fold in folds if not 0 <= fold < prepared.folds.count]
    if beyond:
        raise UsageError(f"--folds {beyond[0]}: the folds are 0 to {prepared.folds.count - 1}")
    jobs: list[JobSpec] = []
    done: list[ResultKey] = []
    for variant in variants:
        setup = set_up_variant(
            variant,
            prepared,
            bases=name_bases(prepared.competition.profile, request, variant),
            say=say,
            threads=threads * request.engine.jobs_here,  # no job is running yet
            deadline=deadline,
        )
        wanted = _plan_results(setup, folds)
        missing = [each for each in wanted if not _is_done(setup, each, request)]
        if missing:
            check_difficulty(variant, prepared.folds.count)
        jobs += _build_specs(setup, missing, request, say, threads)
        kept = [each for each in wanted if each not in missing]
        for each in kept:
            _clear(job_dir(prepared.competition.checkpoints_dir, each.key), each.fingerprint)
        done += [each.key for each in kept]
    return Plan(tuple(variants), tuple(jobs), tuple(done))


def build_job(
    prepared: Prepared, variant: Variant, key: ResultKey, say: Say, *, bases: Mapping[str, str]
) -> JobSpec:
    """Describe one job of a resolved variant, whether or not it is done.

    Args:
        prepared: rows and folds.
        variant: resolved.
        key: which job.
        say: called with progress messages.
        bases: by role, the stored variants that it builds on (``JobSpec.bases``).

    Raises:
        UsageError, VariantError, EncoderError: the variant cannot be trained here.
    """
    setup = set_up_variant(variant, prepared, bases=bases, say=say)
    wanted = [each for each in _plan_results(setup, [key.fold]) if each.key == key]
    return _build_specs(setup, wanted, FoldRequest(), say, 1)[0]


def job_dir(checkpoints_dir: Path, key: ResultKey) -> Path:
    """Return the checkpoint folder of a job: training state, final weights and log."""
    return checkpoints_dir / key.variant / f"s{key.seed}-f{key.fold}"


def _clear(folder: Path, fingerprint: str) -> None:
    """Remove what a job leaves in its folder if it is killed after it stored its result."""
    leased, state = folder / LEASED, folder / STATE_FILE
    clear_stale(leased)
    facts = read_facts(state)  # that of another recipe is kept
    if facts is not None and facts.get("fingerprint") == fingerprint and not list_leases(leased):
        with suppress(OSError):
            state.unlink()


@dataclass(frozen=True)
class _Wanted:
    """A requested result: its identity, the results it builds on, and the stored one, if any."""

    key: ResultKey
    fingerprint: str
    bases: Mapping[str, Header]  # by role
    stored: Header | None
    has_rare_labels: bool = False


def _plan_results(setup: VariantSetup, folds: Sequence[int]) -> list[_Wanted]:
    """List the results of a variant; a fingerprint includes those of results it builds on."""
    wanted = []
    rare = _find_rare_folds(setup, folds)
    for seed in setup.variant.seeds:
        for fold in folds:
            key = ResultKey(setup.variant.name, seed, fold)
            stored = setup.store.read_header(key)
            found = (
                _identify(setup, key, bases, stored, has_rare_labels=fold in rare)
                for bases in setup.list_bases(key)
            )
            best = next(found)
            is_other = stored is not None and best.fingerprint != stored.fingerprint
            others = (each for each in found if stored and each.fingerprint == stored.fingerprint)
            wanted.append(next(others, best) if is_other else best)
    return wanted


def _identify(
    setup: VariantSetup,
    key: ResultKey,
    bases: Mapping[str, Header],
    stored: Header | None,
    *,
    has_rare_labels: bool,
) -> _Wanted:
    """Return a result that builds on these results."""
    ids = {role: header.fingerprint for role, header in bases.items()}
    extra: dict[str, Any] = {"builds_on": ids} if ids else {}
    if has_rare_labels:  # else results are those of versions that knew no such case
        extra["rare_labels"] = RARE_LABELS_VERSION
    print_ = fingerprint({**setup.parts, "seed": key.seed, "fold": key.fold, **extra})
    return _Wanted(key, print_, bases, stored, has_rare_labels)


def _find_rare_folds(setup: VariantSetup, folds: Sequence[int]) -> set[int]:
    """Return the folds whose training rows lack a label, or have too few rows of one to calibrate.

    That is a matter of linear models, and of the rows that are there before others predict.
    """
    if setup.variant.learner != LINEAR:
        return set()
    found = set()
    for fold in folds:
        rows = choose_fold_rows(
            setup.prepared, setup.pool, setup.variant, route=setup.route, fold=fold
        )
        n_labels = setup.prepared.competition.profile.n_labels
        inner = setup.variant.linear.inner_folds
        if len(find_rare_labels(rows.train_label_ids, rows.train_groups, inner, n_labels)):
            found.add(fold)
    return found


def _build_specs(
    setup: VariantSetup,
    missing: Sequence[_Wanted],
    request: FoldRequest,
    say: Say,
    threads: int,
) -> list[JobSpec]:
    if not missing:
        return []
    variant, prepared, pool = setup.variant, setup.prepared, setup.pool
    competition = prepared.competition
    profile = competition.profile
    folders = {} if setup.source is None else tokenize_pool(setup, say)
    texts = write_pool_texts(setup)
    recipe = fingerprint(setup.parts)
    specs = []
    for wanted in missing:
        key = wanted.key
        rows = choose_fold_rows(
            prepared,
            pool,
            variant,
            route=setup.route,
            fold=key.fold,
            predicted=_list_predicted(wanted.bases),
        )
        specs.append(
            JobSpec(
                key=key,
                fingerprint=wanted.fingerprint,
                replaces=None if wanted.stored is None else wanted.stored.fingerprint,
                bases=setup.bases,
                recipe=recipe,
                variant=variant,
                labels=profile.labels,
                negative_ids=profile.negative_ids,
                criteria=build_criteria(profile),
                has_rare_labels=wanted.has_rare_labels,
                entity_types=tuple(profile.entity_types),
                data_hash=prepared.corpus.hash,
                folds_hash=prepared.folds.hash,
                routes_hash=setup.route.hash if setup.route else None,
                store_dir=competition.oof_dir,
                job_dir=job_dir(competition.checkpoints_dir, key),
                cache_dir=setup.cache_dir,
                rows=rows,
                heldout_label_ids=prepared.corpus.train.gold[rows.heldout_rows].astype(np.int64),
                texts=texts,
                network=_build_network(setup, wanted.bases.get(START), folders),
                keep_checkpoint=request.keep_checkpoints,
                threads=count_threads(variant, threads),
                command=request.command,
                track=request.track,
                relations=profile.exchange_rules,
                language=profile.language,
            )
        )
    return specs


def _list_predicted(bases: Mapping[str, Header]) -> PredictedLabels:
    """Return the results that give labels, by the roles of what a job builds on."""
    pseudo = bases.get(PSEUDO)
    teachers = [header.key for role, header in bases.items() if role.startswith(TEACHER)]
    return PredictedLabels(None if pseudo is None else pseudo.key, tuple(teachers))


def _build_network(
    setup: VariantSetup, start_from: Header | None, folders: Mapping[str, Path]
) -> NetworkSpec | None:
    if setup.source is None:
        return None
    start = None
    if start_from is not None:
        folder = job_dir(setup.prepared.competition.checkpoints_dir, start_from.key)
        start = (folder / WEIGHTS_FILE, start_from.fingerprint)
    return NetworkSpec(setup.source, setup.new_tokens, folders, start)


def _is_done(setup: VariantSetup, wanted: _Wanted, request: FoldRequest) -> bool:
    """Return whether a result is in the store; with ``--overwrite``, its weights must exist too."""
    if wanted.stored is None:
        return False
    if wanted.stored.fingerprint == wanted.fingerprint:
        folder = job_dir(setup.prepared.competition.checkpoints_dir, wanted.key)
        repairs = request.overwrite and request.keep_checkpoints
        kept = read_kept(folder) if repairs else None
        return not repairs or (kept is not None and kept.fingerprint == wanted.fingerprint)
    if request.overwrite:
        return False
    raise PredictionsError(
        f"{setup.store.path(wanted.key)} holds a result of another recipe (the variant, data, "
        "folds or encoder have changed). Keep it and train under a new name with --as NAME, or "
        "replace it with --overwrite"
    )
