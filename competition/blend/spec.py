"""Build the JSON that describes a blend beside its submission, and the blend's name.

The JSON holds only what the inputs determine, so the same members, options and seed give the same
bytes; ``board`` and ``compare`` read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.blend.report import BlendOptions, BlendReport
from competition.blend.reweighting import SHARE
from competition.predictions.members import Member
from competition.profile import Competition, Profile
from competition.scoring.criteria import describe_scoring
from competition.scoring.decisions import Rule
from competition.scoring.expected import Expected
from competition.scoring.metrics.metric import MetricKind
from competition.submission.record import read_record

HASH_CHARS = 8
MIN_SHOWN = 1e-6  # the smallest gain that six digits show


def name_blend(members: Sequence[Member], options: BlendOptions, competition: Competition) -> str:
    """Return a unique name for this blend: ``blend-`` and a short hash of its inputs.

    The hash leaves out the profile's metrics, as older names do. Where a blend with other metrics
    has that name, they are hashed too, so that it is not overwritten.
    """
    made_of = [(member.name, member.recipe, list(member.seeds)) for member in members]
    asked: list[Any] = [made_of, options.trials, options.seed]
    if not options.is_plain:
        asked += [options.objective, options.reweight, False]  # the False keeps older names valid
    name = _hash(asked)
    if _is_taken(competition.submissions_dir / f"{name}.json", options, competition.profile):
        share = competition.profile.metrics.shifted_negative_share
        described = describe_scoring(competition.profile)
        name = _hash([*asked, described, share if options.reweight == SHARE else None])
    return name


def _hash(asked: list[Any]) -> str:
    text = json.dumps(asked, ensure_ascii=False)
    return f"blend-{hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]}"


def _is_taken(path: Path, options: BlendOptions, profile: Profile) -> bool:
    """Return whether a JSON is that of a blend with other metrics, or of another share."""
    try:
        record = read_record(path, profile.n_labels)
    except (OSError, ValueError):  # a damaged one is written again
        return False
    if record is None:
        return False
    share = profile.metrics.shifted_negative_share
    is_same_share = options.reweight != SHARE or record.shifted_negative_share == share
    return (
        record.differs_from(profile) or record.objective != options.objective or not is_same_share
    )


def build_spec(report: BlendReport) -> dict[str, Any]:
    """Build the description of a submission: its inputs, weights and estimated scores."""
    prepared, blend, options = report.inputs.prepared, report.fit.blend, report.options
    profile = prepared.competition.profile
    return {
        "kind": "blend",
        "competition": prepared.competition.name,
        "corpus_hash": prepared.corpus.hash,
        "folds_hash": prepared.folds.hash,
        "labels": list(profile.labels),
        "negative_label": profile.negative_label,
        "scored_by": describe_scoring(profile),
        "trials": options.trials,
        "seed": options.seed,
        "objective": options.objective,
        "reweight": options.reweight,
        **_describe_rule(blend.rule),
        "temperature": blend.temperature,
        "members": [
            _describe_member(member, weight, by_fold)
            for member, weight, by_fold in zip(
                report.inputs.members, blend.weights, report.nested_weights.T, strict=True
            )
        ],
        "left_out": describe_left_out(report),
        "shifted_negative_share": profile.metrics.shifted_negative_share,
        **_describe_evaluation(report),
        "oof": asdict(report.oof_side),
        "test": asdict(report.test_side),
        "noise": [each.describe() for each in report.noise],
        "alarms": [asdict(each) for each in report.warnings],
    }


def _describe_member(member: Member, weight: float, by_fold: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "name": member.name,
        "parts": list(member.parts),
        "weight": weight,
        "weight_by_fold": [float(each) for each in by_fold],
        "recipe": member.recipe,
        "route": member.route,
        "seeds": list(member.seeds),
        "test_is_average": member.test_is_average,
    }


def _describe_rule(rule: Rule) -> dict[str, Any]:
    """Describe the decision rule; a power of the shares only where the metric asks for one."""
    described: dict[str, Any] = {"threshold": rule.threshold}
    if rule.factors is not None:
        described |= {"prior_power": rule.power, "label_factors": list(rule.factors)}
    return described


def _describe_evaluation(report: BlendReport) -> dict[str, Any]:
    evaluation, first = report.evaluation, report.inputs.criteria.kinds[0]
    return {
        "singles": {key: each.describe() for key, each in evaluation.singles.items()},
        f"singles_fitted_{first.short}": {
            key: first.show(scores[0]) for key, scores in evaluation.single_fitted.items()
        },
        "fitted": {key: each.describe() for key, each in evaluation.fitted.items()},
        "nested": {
            key: each.describe()
            | _describe_expected(evaluation.expected.get(key), report.inputs.criteria.kinds)
            for key, each in evaluation.nested.items()
        },
        "nested_blend_minus": {key: each.describe() for key, each in evaluation.compared.items()},
    }


def _describe_expected(expected: Expected | None, kinds: Sequence[MetricKind]) -> dict[str, Any]:
    if expected is None:
        return {}
    found: dict[str, Any] = {kinds[0].short: expected.primary.describe(kinds[0])}
    if expected.secondary is not None:
        found[kinds[1].short] = kinds[1].show(expected.secondary)
    return {"expected": found}


def describe_left_out(report: BlendReport) -> list[dict[str, str]]:
    """Return name and reason for each variant or member that is not in the blend."""
    names, selection = report.inputs.names, report.fit.fit.selection
    found = [asdict(each) for each in report.inputs.left_out]
    dropped = {each.member: each for each in selection.dropped}
    for place, (name, weight) in enumerate(zip(names, report.fit.blend.weights, strict=True)):
        if weight > 0:
            continue
        why = dropped.get(place)
        if why is None:
            reason = _explain_dropped(report.inputs.criteria.kinds)
        elif why.of is not None:
            reason = f"a copy of {names[why.of]}"
        else:
            change = "no higher" if (why.gain or 0.0) < MIN_SHOWN else f"{why.gain:.6f} lower"
            reason = f"no gain: log-loss on rows not fitted to is {change} without it"
        found.append({"name": name, "reason": reason})
    return found


def _explain_dropped(kinds: Sequence[MetricKind]) -> str:
    """Explain why a search left a member out.

    >>> from competition.scoring.metrics.catalogue import METRICS
    >>> _explain_dropped([METRICS["micro-f1"], METRICS["auprc"]])
    'neither micro-F1 nor AUPRC is lower without it'
    >>> _explain_dropped([METRICS["accuracy"]])
    'accuracy is no lower without it'
    """
    first, *second = kinds
    worse = "higher" if first.is_loss else "lower"
    if not second:
        return f"{first.title} is no {worse} without it"
    if first.is_loss or second[0].is_loss:
        return f"neither {first.title} nor {second[0].title} is worse without it"
    return f"neither {first.title} nor {second[0].title} is lower without it"
