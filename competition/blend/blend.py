"""Blend a competition's variants from end to end: read, fit, estimate, write.

What ``run.py blend`` calls. Reads members from the store, fits the blend, leaves a submission, and
reports what it is worth beside its best variant and where it may mislead; ``blend_parts`` says what
a report holds, ``blend_tables`` and ``trust_tables`` show it, ``blend_spec`` writes it down.

Legend: M members, N rows, C labels, K folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.audit.shift import OnStep, explain_absence, read_or_fit_shift
from competition.blend.diagnostics import find_alarms
from competition.blend.fit import (
    BlendFit,
    Estimate,
    apply_blend,
    estimate_single,
    fit_blend,
)
from competition.blend.pooling import PooledRows, build_pooled_rows, check_memory, pool
from competition.blend.public_noise import BoardRows, HalfNoise, Pair, simulate_halves
from competition.blend.report import COMPARED, BlendOptions, BlendReport, Material, Worth
from competition.blend.reweighting import (
    Reweight,
    build_row_weights,
    choose_row_weights,
    look_ahead,
)
from competition.blend.search import BLEND, SearchPlan
from competition.blend.spec import build_spec, name_blend
from competition.errors import BlendError
from competition.files import check_name
from competition.folds.kfold import read_prepared
from competition.predictions.members import Store, read_members
from competition.profile import Competition
from competition.scoring.assessment import (
    Assessor,
    Predicted,
    Side,
    build_assessor,
    compare,
    measure_shares,
    measure_side,
)
from competition.scoring.metrics import auprc, micro_f1, unflatten
from competition.submission.record import Objective
from competition.submission.write import write_submission


def run_blend(  # noqa: PLR0913 - the options of one command
    competition: Competition,
    variants: Sequence[str],
    *,
    trials: int,
    seed: int,
    name: str | None,
    run: Mapping[str, Any],
    on_progress: Callable[[int, int], None] | None = None,
    objective: Objective = "micro-f1",
    reweight: Reweight | None = None,
    on_step: OnStep | None = None,
) -> BlendReport:
    """Blend variants and leave the submission ``<name>.csv`` with its two companions.

    Args:
        variants: which to blend; none takes every complete one.
        trials: of each search.
        seed: of the searches, the intervals and the simulated boards.
        name: of the submission; None is ``name_blend``'s, so that no other blend is overwritten.
        run: provenance to keep beside the submission, time included.
        on_progress: called with trials done and trials in all.
        objective: what to search for.
        reweight: fit to rows weighed to be like the test.
        on_step: called while the shift is measured, with the share done and what comes next.

    Raises:
        BlendError: nothing can be blended, or it would not fit in memory.
        PredictionsError: a variant that was named cannot be a member.
        UsageError: the rows cannot be weighed as asked.
    """
    if name is not None:
        check_name(name)
    options = BlendOptions(trials, seed, objective, reweight)
    material = _gather(competition, variants, on_step)
    obstacle = explain_absence(material.shift, material.prepared.corpus)
    weights = choose_row_weights(material.row_weights, reweight, obstacle)
    total = options.count_trials(material.prepared.folds.count)
    plan = SearchPlan(trials, seed, _count_trials(on_progress, total), objective)
    fit = fit_blend(material.names, replace(material.rows, weights=weights), plan)
    test = apply_blend(fit.blend, material.members)
    name = name or name_blend(material.members, options)
    path = competition.submissions_dir / f"{name}.csv"
    report = _build_report(path, options, material, fit, test)
    ids = list(material.prepared.corpus.test.ids)
    write_submission(competition, name, ids, *test, build_spec(report), run)
    return report


def _gather(competition: Competition, variants: Sequence[str], on_step: OnStep | None) -> Material:
    """Read the members, if they fit in memory, and measure the shift."""
    prepared = read_prepared(competition)
    corpus, profile = prepared.corpus, competition.profile
    store = Store(competition.oof_dir, profile.labels)
    test_shape = (prepared.folds.count, len(corpus.test), profile.n_labels)
    n_members = len(variants or store.variants())
    check_memory(n_members, (len(corpus.train), profile.n_labels), test_shape)
    members, left_out = read_members(store, variants, prepared)
    if not members:
        reasons = "".join(f"\n  {each.name}: {each.reason}" for each in left_out)
        raise BlendError(
            f"no variant in {store.directory} can be blended; run: python run.py fold{reasons}"
        )
    rows = build_pooled_rows(members, corpus.train.gold, profile.negative_id)
    shift = read_or_fit_shift(competition, corpus, on_step)
    share = profile.metrics.shifted_negative_share
    return Material(
        prepared,
        tuple(members),
        tuple(left_out),
        replace(rows, folds=prepared.folds.fold_of),
        shift,
        build_row_weights(rows.gold, rows.negative_id, share, shift),
    )


def _count_trials(
    on_progress: Callable[[int, int], None] | None, total: int
) -> Callable[[], None] | None:
    """Turn calls per trial into calls with how many are done."""
    if on_progress is None:
        return None
    done = 0

    def on_trial() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    return on_trial


def _build_report(
    path: Path,
    options: BlendOptions,
    material: Material,
    fit: BlendFit,
    test: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> BlendReport:
    """Assess what was fitted, and look for what may mislead."""
    rows, prepared = material.rows, material.prepared
    assessor = build_assessor(
        rows.gold,
        rows.negative_id,
        prepared.groups,
        row_weights=material.row_weights,
        seed=options.seed,
    )
    return BlendReport(
        path=path,
        options=options,
        material=material,
        fit=fit,
        worth=_assess(assessor, rows, fit, material.names),
        nested_weights=np.stack([point.weights for point in fit.nested[BLEND].points]),
        oof_side=_measure_side(_answered(fit.fitted[BLEND]), fit),
        test_side=_measure_side(test, fit),
        gold_shares=measure_shares(rows.gold, rows.logs.shape[1]),
        outlook=look_ahead(rows, material.row_weights),
        noise=tuple(_simulate(material, fit, options.seed)),
        alarms=tuple(find_alarms(material.members, rows, prepared.groups, material.row_weights)),
    )


def _answered(estimate: Estimate) -> Predicted:
    return estimate.probs, estimate.pred


def _measure_side(answered: Predicted, fit: BlendFit) -> Side:
    """Measure a side's confidence where labels are decided; flattened, it is no probability."""
    probs, pred = answered
    return measure_side((unflatten(probs, fit.blend.temperature), pred), fit.blend.negative_id)


def _assess(assessor: Assessor, rows: PooledRows, fit: BlendFit, names: Sequence[str]) -> Worth:
    alone = {
        name: _answered(estimate_single(rows, place, fit.inside))
        for place, name in enumerate(names)
    }
    nested = assessor.assess_all({key: _answered(e) for key, e in fit.nested.items()})
    return Worth(
        fitted=assessor.assess_all({key: _answered(e) for key, e in fit.fitted.items()}),
        nested=nested,
        single_fitted={
            name: _score(rows, estimate_single(rows, place, {None: fit.fit}))
            for place, name in enumerate(names)
        },
        singles=assessor.assess_all(alone),
        compared={key: compare(nested[BLEND], nested[key]) for key in COMPARED},
        as_pooled=auprc(rows.gold, pool(rows.logs, fit.fit.points[BLEND].weights)),
    )


def _score(rows: PooledRows, estimate: Estimate) -> tuple[float, float]:
    return (
        micro_f1(rows.gold, estimate.pred, rows.negative_id),
        auprc(rows.gold, estimate.probs),
    )


def _simulate(material: Material, fit: BlendFit, seed: int) -> list[HalfNoise]:
    """Simulate the public half for the blend against what it is compared to."""
    if len(material.members) == 1:
        return []
    rows, profile = material.rows, material.prepared.competition.profile
    board = BoardRows(
        rows.gold,
        rows.negative_id,
        len(material.prepared.corpus.test),
        profile.metrics.shifted_negative_share,
    )
    answers = {key: _answered(fit.nested[key]) for key in (BLEND, *COMPARED)}
    pairs: list[Pair] = [(BLEND, key) for key in COMPARED]
    return simulate_halves(board, answers, pairs, seed=seed)
