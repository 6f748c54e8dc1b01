"""The sections of a profile that say how answers are scored and submitted.

Part of ``profile``, which puts all sections together; ``competition.scoring.criteria`` and
``competition.submission`` read by them.
"""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from competition.profile_rows import Section, Text, Texts, check_unique

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"no time zone {name!r}; write an IANA name such as Asia/Seoul") from error
    return name


class MetricRules(Section):
    """What submissions are scored by; ``competition.scoring.criteria`` reads it.

    ``primary`` and ``secondary`` are names of ``competition.scoring.metrics.catalogue``; without
    both they are micro-F1 and AUPRC. The next three are for means
    over classes. ``shifted_negative_share`` is the share of the negative label in the test.
    """

    primary: Text | None = None
    secondary: Text | None = None
    labels: Texts | None = None
    merged: dict[Text, Texts] = Field(default_factory=dict)
    average_over: Literal["gold", "seen", "all"] = "seen"
    shifted_negative_share: Share | None = None


class SubmissionRules(Section):
    """The leaderboard's file and its daily quota, counted in the days of ``timezone``.

    ``final_picks`` is how many submissions may be selected to count at the end. ``joined_by`` is
    how the platform finds the row that an answer is for: one that joins by ``id`` takes rows in any
    order, CR LF line ends, a byte order mark and empty lines, as what reads with pandas does.
    Unset, Kaggle, the local leaderboard and a folder do, and others go by ``position``.
    """

    id_column: Text = "id"
    label_column: Text = "pred_label"
    probs_column: Text = "probs"
    per_day: Positive | None = None
    final_picks: Positive = 2
    joined_by: Literal["id", "position"] | None = None
    timezone: Annotated[Text, AfterValidator(_check_timezone)] = "UTC"

    @model_validator(mode="after")
    def _differ(self) -> SubmissionRules:
        check_unique((self.id_column, self.label_column, self.probs_column))
        return self
