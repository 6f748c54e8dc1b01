"""Blend a competition's variants and write the submission: the entry point of ``run.py blend``.

It reads the members from the store, fits the ensemble, writes a submission, and compares its
nested score to that of the best single variant. ``report`` defines the result, ``tables`` and
``risk_tables`` print it, and ``spec`` builds its JSON.

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
from competition.blend.diagnostics import find_member_warnings, find_misaligned_members
from competition.blend.fit import (
    BlendFit,
    Estimate,
    apply_blend,
    estimate_single,
    fit_blend,
)
from competition.blend.pooling import PooledRows, build_pooled_rows, check_memory, pool
from competition.blend.public_noise import BoardRows, HalfNoise, Pair, simulate_halves
from competition.blend.report import COMPARED, BlendInputs, BlendOptions, BlendReport, Evaluation
from competition.blend.reweighting import (
    Reweight,
    build_row_weights,
    choose_row_weights,
    fit_reweighted,
)
from competition.blend.search import BLEND, SearchPlan
from competition.blend.spec import build_spec, name_blend
from competition.errors import BlendError, UsageError
from competition.files import check_name
from competition.folds.kfold import read_prepared
from competition.options import check_at_least, check_seeds
from competition.predictions.expected_scores import build_test_reader
from competition.predictions.members import read_members
from competition.predictions.store import open_store
from competition.profile import Competition
from competition.scoring.assessment import (
    Assessor,
    Side,
    build_assessor,
    compare,
    measure_shares,
    measure_side,
)
from competition.scoring.criteria import Criteria, build_criteria
from competition.scoring.decisions import unflatten
from competition.scoring.metrics.metric import Predicted
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
    objective: Objective | None = None,
    reweight: Reweight | None = None,
    on_step: OnStep | None = None,
) -> BlendReport:
    """Blend variants and write the submission ``<name>.csv`` with its two JSON files.

    Args:
        variants: which to blend; an empty sequence takes every complete one.
        trials: of each search.
        seed: of the searches, the intervals and the simulated boards.
        name: of the submission; None takes ``name_blend``, which overwrites no other blend.
        run: provenance to store beside the submission, including the time.
        objective: of the search: a metric of the competition, or both; None: the primary one.
        reweight: fit to rows reweighted to resemble the test.

    Raises:
        BlendError: nothing can be blended, or the blend would not fit in memory.
        PredictionsError: a named variant cannot be a member.
        UsageError: an option is out of range, the name is a variant's, the requested row weights
            are not available, or no such objective.
    """
    check_at_least("--trials", trials, 0)
    check_seeds("--seed", [seed])
    if name is not None:
        _check_free(name, competition)
    objective, is_primary = choose_objective(build_criteria(competition.profile), objective)
    options = BlendOptions(trials, seed, objective, reweight, is_primary)
    inputs = _read_inputs(competition, variants, on_step)
    obstacle = explain_absence(inputs.shift, inputs.prepared.corpus)
    weights = choose_row_weights(inputs.row_weights, reweight, obstacle)
    total = options.trials * (1 + inputs.prepared.folds.count)  # the fit, and its nested estimate
    plan = SearchPlan(trials, seed, _count_trials(on_progress, total), objective)
    fit = fit_blend(inputs.names, replace(inputs.rows, weights=weights), plan)
    test = apply_blend(fit.blend, inputs.members)
    name = name or name_blend(inputs.members, options, competition)
    path = competition.submissions_dir / f"{name}.csv"
    report = _build_report(path, options, inputs, fit, test)
    ids = list(inputs.prepared.corpus.test.ids)
    write_submission(competition, name, ids, *test, build_spec(report), run)
    return report


def _check_free(name: str, competition: Competition) -> None:
    """Check the name of a blend, which ``compare`` and ``errors`` tell from those of variants.

    Raises:
        UsageError: it cannot be a name, or is that of a variant.
    """
    if open_store(competition).keys(check_name(name)):
        raise UsageError(f"--name {name}: a variant has that name; choose another for the blend")


def choose_objective(criteria: Criteria, asked: Objective | None) -> tuple[Objective, bool]:
    """Return what to search for, and whether that is the primary metric alone.

    Raises:
        UsageError: it is no metric of the competition.
    """
    objective = criteria.primary.kind.name if asked is None else asked
    if objective not in criteria.objectives:
        raise UsageError(
            f"--objective {objective!r}: choose {', '.join(criteria.objectives)}, the metrics of"
            " the profile"
        )
    return objective, objective == criteria.primary.kind.name


def _read_inputs(
    competition: Competition, variants: Sequence[str], on_step: OnStep | None
) -> BlendInputs:
    """Check the memory needed, read the members and measure the shift."""
    prepared = read_prepared(competition)
    corpus, profile = prepared.corpus, competition.profile
    store = open_store(competition)
    test_shape = (prepared.folds.count, len(corpus.test), profile.n_labels)
    n_members = len(variants or store.variants())
    check_memory(n_members, (len(corpus.train), profile.n_labels), test_shape)
    members, left_out = read_members(store, variants, prepared)
    if not members:
        reasons = "".join(f"\n  {each.name}: {each.reason}" for each in left_out)
        raise BlendError(
            f"no variant in {store.directory} can be blended; run: python run.py fold{reasons}"
        )
    rows = build_pooled_rows(members, corpus.train.gold, build_criteria(profile))
    shift = read_or_fit_shift(competition, corpus, on_step)
    share = profile.metrics.shifted_negative_share
    return BlendInputs(
        prepared,
        tuple(members),
        tuple(left_out),
        replace(rows, folds=prepared.folds.fold_of),
        shift,
        build_row_weights(rows.gold, rows.criteria.negative_ids, share, shift),
        build_test_reader(prepared).forecast(members),
    )


def _count_trials(
    on_progress: Callable[[int, int], None] | None, total: int
) -> Callable[[], None] | None:
    """Return a callback per trial that reports the number of finished trials."""
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
    inputs: BlendInputs,
    fit: BlendFit,
    test: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> BlendReport:
    """Score the fitted blend and its comparators, and check the members."""
    rows, prepared = inputs.rows, inputs.prepared
    assessor = build_assessor(
        rows.gold,
        rows.criteria,
        prepared.groups,
        seed=options.seed,
    )
    return BlendReport(
        path=path,
        options=options,
        inputs=inputs,
        fit=fit,
        evaluation=_assess(assessor, inputs, fit),
        nested_weights=np.stack([point.weights for point in fit.nested[BLEND].points]),
        oof_side=_measure_side(_predicted(fit.fitted[BLEND]), fit),
        test_side=_measure_side(test, fit),
        gold_shares=measure_shares(rows.gold, rows.logs.shape[1]),
        reweighted=fit_reweighted(rows, inputs.test_weights),
        noise=tuple(_simulate(inputs, fit, options.seed)),
        warnings=(
            *find_misaligned_members(inputs.members, prepared),
            *find_member_warnings(inputs.members, rows, prepared.groups, inputs.row_weights),
        ),
    )


def _predicted(estimate: Estimate) -> Predicted:
    return estimate.probs, estimate.pred


def _measure_side(predicted: Predicted, fit: BlendFit) -> Side:
    """Summarise a side before flattening; flattened values are no longer calibrated."""
    probs, pred = predicted
    return measure_side((unflatten(probs, fit.blend.temperature), pred), fit.blend.negative_ids)


def _assess(assessor: Assessor, inputs: BlendInputs, fit: BlendFit) -> Evaluation:
    rows, names = inputs.rows, inputs.names
    singles = {
        name: _predicted(estimate_single(rows, place, fit.inside))
        for place, name in enumerate(names)
    }
    systems = {key: _predicted(estimate) for key, estimate in fit.nested.items()}
    nested, forecast = assessor.assess_all(systems), inputs.forecast
    return Evaluation(
        fitted=assessor.assess_all({key: _predicted(e) for key, e in fit.fitted.items()}),
        nested=nested,
        single_fitted={
            name: _score(rows, estimate_single(rows, place, {None: fit.fit}))
            for place, name in enumerate(names)
        },
        singles=assessor.assess_all(singles),
        expected={}
        if forecast is None
        else {key: forecast.expect(*each) for key, each in {**singles, **systems}.items()},
        compared={key: compare(nested[BLEND], nested[key]) for key in COMPARED},
        as_pooled=_score_as_pooled(rows, fit),
    )


def _score_as_pooled(rows: PooledRows, fit: BlendFit) -> float | None:
    """Score the fitted blend at temperature 1 by what its temperature is chosen for."""
    metric = rows.criteria.ranked
    if metric is None:
        return None
    probs = pool(rows.logs, fit.fit.points[BLEND].weights)
    return metric.score(rows.gold, (probs, fit.fitted[BLEND].pred))


def _score(rows: PooledRows, estimate: Estimate) -> tuple[float, ...]:
    predicted = _predicted(estimate)
    return tuple(metric.score(rows.gold, predicted) for metric in rows.criteria.metrics)


def _simulate(inputs: BlendInputs, fit: BlendFit, seed: int) -> list[HalfNoise]:
    """Simulate the public leaderboard for the blend and its comparators."""
    if len(inputs.members) == 1:
        return []
    rows = inputs.rows
    board = BoardRows(
        rows.gold,
        rows.criteria,
        len(inputs.prepared.corpus.test),
        inputs.negative_share,
    )
    predictions = {key: _predicted(fit.nested[key]) for key in (BLEND, *COMPARED)}
    pairs: list[Pair] = [(BLEND, key) for key in COMPARED]
    return simulate_halves(board, predictions, pairs, seed=seed)
