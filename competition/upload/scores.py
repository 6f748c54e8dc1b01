"""Extract scores from a platform's answer by the paths in the profile, scaled to [0, 1].

A value that is no valid score becomes a remark, not an error, because the file has arrived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from competition.upload.masking import Mask
from competition.upload.target import ScoreMap
from competition.upload_rules import ScoreFields

METRICS = {"micro_f1": "f1", "auprc": "auprc"}  # their names in the ledger and in a profile


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


def find_scores(answer: Any, fields: ScoreFields, mask: Mask) -> FoundScores:
    """Extract the scores of an answer; quotations in remarks are masked.

    >>> from competition.upload_rules import ScoreFields
    >>> found = find_scores({"f1": "71.5"}, ScoreFields(public_f1="f1", scale=100.0), Mask())
    >>> found.public, found.private
    ({'micro_f1': 0.715}, None)
    """
    sides: list[ScoreMap | None] = []
    remarks: list[str] = []
    for side in ("public", "private"):
        scores: dict[str, float | None] = {}
        for name, short in METRICS.items():
            key = f"{side}_{short}"
            value = dig(answer, getattr(fields, key))
            if value is None or value == "":
                continue
            score = _read(value, fields.scale)
            if score is None:
                said = mask.quote(str(value))[:40]
                remarks.append(
                    f"{key} is {said!r}, not a score between 0 and {fields.scale:g}:"
                    " correct scores in the profile"
                )
            else:
                scores[name] = score
        sides.append(scores or None)
    return FoundScores(sides[0], sides[1], "; ".join(remarks))


def list_missing(
    public: ScoreMap | None, private: ScoreMap | None, fields: ScoreFields
) -> tuple[str, ...]:
    """Return the names of scores that the profile expects and that are not known yet.

    >>> from competition.upload_rules import ScoreFields
    >>> fields = ScoreFields(public_f1="a", private_f1="b")
    >>> list_missing({"micro_f1": 0.7}, None, fields)
    ('private_f1',)
    """
    return tuple(
        f"{side}_{short}"
        for side, known in (("public", public), ("private", private))
        for name, short in METRICS.items()
        if getattr(fields, f"{side}_{short}") is not None and (known or {}).get(name) is None
    )


def merge_scores(known: ScoreMap | None, new: ScoreMap | None) -> ScoreMap | None:
    """Merge the scores of one side; new values replace known ones.

    >>> merge_scores({"micro_f1": 0.7}, {"auprc": 0.6}), merge_scores(None, None)
    ({'micro_f1': 0.7, 'auprc': 0.6}, None)
    """
    return {**(known or {}), **(new or {})} or None


def _read(value: Any, scale: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        score = float(value) / scale
    except (ValueError, OverflowError):
        return None
    return score if math.isfinite(score) and 0 <= score <= 1 else None
