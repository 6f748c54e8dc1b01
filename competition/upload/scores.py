"""Extract scores from a platform's answer by the paths in the profile, scaled to [0, 1].

A value that is no valid score becomes a remark, not an error, because the file has arrived.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from competition.errors import ProfileError
from competition.profile import Profile
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from competition.upload.masking import Mask
from competition.upload.target import ScoreMap, ScorePaths
from competition.upload_rules import ScoreFields

EXAMPLES = ("61.02", "50.10")  # of the primary and the secondary score


@dataclass(frozen=True)
class FoundScores:
    """The scores in an answer; ``remark`` describes values that could not be used."""

    public: ScoreMap | None
    private: ScoreMap | None
    remark: str = ""


def dig(answer: Any, path: str | None) -> Any:
    """Return the value at a dotted path, None if there is none.

    >>> dig({"result": [{"f1": 0.5}]}, "result.0.f1"), dig({"a": 1}, "a.b"), dig([], "0")
    (0.5, None, None)
    """
    if path is None:
        return None
    for key in path.split("."):
        if isinstance(answer, dict):
            answer = answer.get(key)
        elif isinstance(answer, list) and key[:9].isdecimal() and int(key[:9]) < len(answer):
            answer = answer[int(key[:9])]
        else:
            return None
    return answer


def resolve_paths(
    profile: Profile, fields: ScoreFields, first: tuple[str, str] | None = None
) -> ScorePaths:
    """Join what a profile says of an answer's scores with its metrics.

    Args:
        profile: whose metrics.
        fields: of one target.
        first: paths of the public and the private primary score, where nothing else is said.

    Raises:
        ProfileError: a path is given for a metric that the profile does not name.
    """
    kinds = build_criteria(profile).kinds
    known = [f"{side}_{kind.short}" for side in ("public", "private") for kind in kinds]
    for key in fields.paths:
        if key not in known:
            raise ProfileError(
                f"upload scores: {key!r} is no score of this competition; its metrics give"
                f" {', '.join(known)}"
            )
    sides = zip(("public", "private"), first or (), strict=False)
    defaults = {f"{side}_{kinds[0].short}": path for side, path in sides}
    return ScorePaths(kinds, {**defaults, **fields.paths}, fields.scale)


def find_scores(answer: Any, fields: ScorePaths, mask: Mask) -> FoundScores:
    """Extract the scores of an answer; quotations in remarks are masked.

    >>> from competition.scoring.metrics.catalogue import METRICS
    >>> fields = ScorePaths((METRICS["micro-f1"],), {"public_f1": "f1"}, 100.0)
    >>> found = find_scores({"f1": "71.5"}, fields, Mask())
    >>> found.public, found.private
    ({'micro_f1': 0.715}, None)
    """
    sides: list[ScoreMap | None] = []
    remarks: list[str] = []
    for side in ("public", "private"):
        scores: dict[str, float | None] = {}
        for kind in fields.kinds:
            key = f"{side}_{kind.short}"
            value = dig(answer, fields.paths.get(key))
            if value is None or value == "":
                continue
            score = _read(value, fields.scale, kind)
            if score is None:
                said = mask.quote(str(value))[:40]
                remarks.append(
                    f"{key} is {said!r}, not a score {_name_range(kind, fields.scale)}:"
                    " correct scores in the profile"
                )
            else:
                scores[kind.key] = score
        sides.append(scores or None)
    return FoundScores(sides[0], sides[1], "; ".join(remarks))


def list_missing(
    public: ScoreMap | None, private: ScoreMap | None, fields: ScorePaths
) -> tuple[str, ...]:
    """Return the names of scores that the profile expects and that are not known yet.

    >>> from competition.scoring.metrics.catalogue import METRICS
    >>> fields = ScorePaths((METRICS["micro-f1"],), {"public_f1": "a", "private_f1": "b"})
    >>> list_missing({"micro_f1": 0.7}, None, fields)
    ('private_f1',)
    """
    return tuple(
        f"{side}_{kind.short}"
        for side, known in (("public", public), ("private", private))
        for kind in fields.kinds
        if f"{side}_{kind.short}" in fields.paths and (known or {}).get(kind.key) is None
    )


def merge_scores(known: ScoreMap | None, new: ScoreMap | None) -> ScoreMap | None:
    """Merge the scores of one side; new values replace known ones.

    >>> merge_scores({"micro_f1": 0.7}, {"auprc": 0.6}), merge_scores(None, None)
    ({'micro_f1': 0.7, 'auprc': 0.6}, None)
    """
    return {**(known or {}), **(new or {})} or None


def name_form(kinds: Sequence[MetricKind]) -> str:
    """Name what is entered: ``F1/AUPRC``."""
    return "/".join(kind.head for kind in kinds)


def write_example(kinds: Sequence[MetricKind]) -> str:
    """Write an example of what is entered: ``61.02/50.10``, or ``0.6102`` for a loss."""
    shown = [
        f"{float(each) / 100:.4f}" if kind.is_loss else each
        for kind, each in zip(kinds, EXAMPLES, strict=False)
    ]
    return "/".join(shown)


def _name_range(kind: MetricKind, scale: float) -> str:
    """Describe the values of a metric that a platform with some scale can show.

    >>> from competition.scoring.metrics.catalogue import METRICS
    >>> _name_range(METRICS["accuracy"], 100.0), _name_range(METRICS["log-loss"], 1.0)
    ('between 0 and 100', 'of at least 0')
    """
    if kind.is_loss:
        return "of at least 0"
    low, high = (scale * end for end in kind.bounds)
    return f"between {low:g} and {high:g}"


def _read(value: Any, scale: float, kind: MetricKind) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        score = float(value) / scale
    except (ValueError, OverflowError):
        return None
    return score if math.isfinite(score) and kind.accepts(score) else None
