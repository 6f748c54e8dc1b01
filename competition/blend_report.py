"""Blend a competition's variants from end to end: read, fit, estimate, write.

What ``run.py blend`` calls. Reads members from the store, fits the blend, leaves a submission, and
reports what it is worth beside its best variant; ``blend_tables`` shows the report.

Legend: M members, N rows, C labels, K folds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.assessment import (
    Assessment,
    Assessor,
    Comparison,
    Side,
    build_assessor,
    measure_shares,
    measure_side,
)
from competition.blend import BlendFit, Estimate, apply_blend, estimate_fitted, fit_blend
from competition.errors import BlendError
from competition.files import check_name
from competition.folds import Prepared, read_prepared
from competition.pooling import build_pooled_rows, check_memory
from competition.predictions import LeftOut, Member, Store, read_members
from competition.profile import Competition
from competition.search import BEST_SINGLE, BLEND, CONVEX, GREEDY, UNIFORM, SearchPlan, tune_point
from competition.submission import write_submission

HASH_CHARS = 8
COMPARED = (BEST_SINGLE, UNIFORM, CONVEX, GREEDY)


@dataclass(frozen=True, eq=False)
class BlendReport:
    """Everything ``blend`` found; ``blend_tables`` shows it.

    ``singles`` maps each member to its assessment under its own best threshold; ``fitted`` and
    ``nested`` map each of ``search.SYSTEMS``; ``compared`` maps what the nested blend is compared
    to. ``nested_weights`` is (K, M) float64; ``gold_shares`` the train rows' labels.
    """

    path: Path
    fit: BlendFit
    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...]
    singles: Mapping[str, Assessment]
    fitted: Mapping[str, Assessment]
    nested: Mapping[str, Assessment]
    compared: Mapping[str, Comparison]
    nested_weights: NDArray[np.float64]
    oof_side: Side
    test_side: Side
    gold_shares: tuple[float, ...]
    labels: tuple[str, ...]
    shifted_share: float | None


def run_blend(  # noqa: PLR0913 - the options of one command
    competition: Competition,
    variants: Sequence[str],
    *,
    trials: int,
    seed: int,
    name: str | None,
    run: Mapping[str, Any],
    on_progress: Callable[[int, int], None] | None = None,
) -> BlendReport:
    """Blend variants and leave the submission ``<name>.csv`` with its two companions.

    Args:
        variants: which to blend; none takes every complete one.
        trials: of each search.
        seed: of the searches and of the intervals.
        name: of the submission; None is ``name_blend``'s, so that no other blend is overwritten.
        run: provenance to keep beside the submission, time included.
        on_progress: called with trials done and trials in all.

    Raises:
        BlendError: nothing can be blended, or it would not fit in memory.
        PredictionsError: a variant that was named cannot be a member.
    """
    if name is not None:
        check_name(name)
    prepared = read_prepared(competition)
    members, left_out = _read(prepared, variants)
    gold, negative_id = prepared.corpus.train.gold, competition.profile.negative_id
    on_trial = _count_trials(on_progress, trials * (prepared.folds.count + 1))
    plan = SearchPlan(trials, seed, on_trial)
    name = name or name_blend(members, trials, seed)
    fit = fit_blend(members, gold, prepared.folds.fold_of, negative_id, plan)
    probs, pred = apply_blend(fit.blend, members)
    assessor = build_assessor(
        gold,
        negative_id,
        prepared.groups,
        shifted_share=competition.profile.metrics.shifted_negative_share,
        seed=seed,
    )
    report = BlendReport(
        path=competition.submissions_dir / f"{name}.csv",
        fit=fit,
        members=tuple(members),
        left_out=tuple(left_out),
        **_assess(assessor, fit, members),
        compared=_compare(assessor, fit),
        nested_weights=np.stack([point.weights for point in fit.nested[BLEND].points]),
        oof_side=measure_side(_answered(fit.fitted[BLEND]), negative_id),
        test_side=measure_side((probs, pred), negative_id),
        gold_shares=measure_shares(gold, competition.profile.n_labels),
        labels=competition.profile.labels,
        shifted_share=competition.profile.metrics.shifted_negative_share,
    )
    spec = build_spec(report, prepared) | {"trials": trials, "seed": seed}
    write_submission(competition, name, list(prepared.corpus.test.ids), probs, pred, spec, run)
    return report


def name_blend(members: Sequence[Member], trials: int, seed: int) -> str:
    """Return a name that tells this blend from every other: ``blend-`` and a short hash."""
    made_of = [(member.name, member.recipe, list(member.seeds)) for member in members]
    text = json.dumps([made_of, trials, seed], ensure_ascii=False)
    return f"blend-{hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]}"


def build_spec(report: BlendReport, prepared: Prepared) -> dict[str, Any]:
    """Write down what determined a submission, and what it is estimated to be worth."""
    blend, profile = report.fit.blend, prepared.competition.profile
    return {
        "kind": "blend",
        "competition": prepared.competition.name,
        "corpus_hash": prepared.corpus.hash,
        "folds_hash": prepared.folds.hash,
        "labels": list(report.labels),
        "negative_label": profile.negative_label,
        "threshold": blend.threshold,
        "members": [
            {
                "name": member.name,
                "weight": weight,
                "recipe": member.recipe,
                "route": member.route,
                "seeds": list(member.seeds),
            }
            for member, weight in zip(report.members, blend.weights, strict=True)
        ],
        "shifted_negative_share": report.shifted_share,
        "singles": {key: asdict(each) for key, each in report.singles.items()},
        "fitted": {key: asdict(each) for key, each in report.fitted.items()},
        "nested": {key: asdict(each) for key, each in report.nested.items()},
        "nested_blend_minus": {key: asdict(each) for key, each in report.compared.items()},
        "oof": asdict(report.oof_side),
        "test": asdict(report.test_side),
    }


def _read(prepared: Prepared, variants: Sequence[str]) -> tuple[list[Member], list[LeftOut]]:
    """Read the members, if they fit in memory."""
    corpus, profile = prepared.corpus, prepared.competition.profile
    store = Store(prepared.competition.oof_dir, profile.labels)
    n_members = len(variants or store.variants())
    test_shape = (prepared.folds.count, len(corpus.test), profile.n_labels)
    check_memory(n_members, (len(corpus.train), profile.n_labels), test_shape)
    members, left_out = read_members(store, variants, prepared)
    if not members:
        reasons = "".join(f"\n  {each.name}: {each.reason}" for each in left_out)
        raise BlendError(
            f"no variant in {store.directory} can be blended; run: python run.py fold{reasons}"
        )
    return members, left_out


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


def _answered(estimate: Estimate) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return estimate.probs, estimate.pred


def _assess(
    assessor: Assessor, fit: BlendFit, members: Sequence[Member]
) -> dict[str, dict[str, Assessment]]:
    rows = build_pooled_rows(members, assessor.gold, assessor.negative_id)
    singles = {}
    for member, weights in zip(members, np.eye(len(members)), strict=True):
        singles[member.name] = _answered(estimate_fitted(rows, tune_point(rows, weights)))
    return {
        "singles": assessor.assess_all(singles),
        "fitted": assessor.assess_all({key: _answered(e) for key, e in fit.fitted.items()}),
        "nested": assessor.assess_all({key: _answered(e) for key, e in fit.nested.items()}),
    }


def _compare(assessor: Assessor, fit: BlendFit) -> dict[str, Comparison]:
    blend = _answered(fit.nested[BLEND])
    return {key: assessor.compare(blend, _answered(fit.nested[key])) for key in COMPARED}
