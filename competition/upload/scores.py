"""Scores out of a platform's answer: found by the profile's paths, brought to [0, 1].

Stands between a target's answer and the ledger. What is no usable score becomes a remark, never an
error: the file is there, whatever its platform calls its score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from competition.upload.settings import ScoreFields
from competition.upload.target import ScoreMap


@dataclass(frozen=True)
class FoundScores:
    """What an answer holds; ``remark`` says what was there and could not be used."""

    public: ScoreMap | None
    private: ScoreMap | None
    remark: str = ""


def dig(answer: Any, path: str | None) -> Any:
    """Return what stands under a dotted path, None where nothing does.

    >>> dig({"result": [{"f1": 0.5}]}, "result.0.f1"), dig({"a": 1}, "a.b"), dig([], "0")
    (0.5, None, None)
    """
    if path is None:
        return None
    for key in path.split("."):
        if isinstance(answer, dict):
            answer = answer.get(key)
        elif isinstance(answer, list) and key.isdecimal() and int(key) < len(answer):
            answer = answer[int(key)]
        else:
            return None
    return answer


def find_scores(answer: Any, fields: ScoreFields) -> FoundScores:
    """Read the scores of an answer.

    >>> from competition.upload.settings import ScoreFields
    >>> found = find_scores({"f1": "71.5"}, ScoreFields(public_f1="f1", scale=100.0))
    >>> found.public, found.private
    ({'micro_f1': 0.715}, None)
    """
    sides: list[ScoreMap | None] = []
    remarks: list[str] = []
    for side in ("public", "private"):
        scores: dict[str, float | None] = {}
        for name, key in (("micro_f1", f"{side}_f1"), ("auprc", f"{side}_auprc")):
            value = dig(answer, getattr(fields, key))
            if value is None or value == "":
                continue
            score = _read(value, fields.scale)
            if score is None:
                remarks.append(
                    f"{key} is {str(value)[:40]!r}, no score between 0 and {fields.scale:g}:"
                    " mend scores in the profile"
                )
            else:
                scores[name] = score
        sides.append(scores or None)
    return FoundScores(sides[0], sides[1], "; ".join(remarks))


def _read(value: Any, scale: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        score = float(value) / scale
    except (ValueError, OverflowError):
        return None
    return score if math.isfinite(score) and 0 <= score <= 1 else None
