"""The sections of a profile that say how answers are scored and submitted.

Part of ``profile``, which puts all sections together; ``competition.scoring.criteria`` and
``competition.submission`` read by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
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
    both they are micro-F1 and, if probabilities are submitted, AUPRC. The next three are for means
    over classes. ``shifted_negative_share`` is the share of the negative label in the test.
    """

    primary: Text | None = None
    secondary: Text | None = None
    labels: Texts | None = None
    merged: dict[Text, Texts] = Field(default_factory=dict)
    average_over: Literal["gold", "seen", "all"] = "seen"
    shifted_negative_share: Share | None = None

    def check_labels(self, labels: Sequence[str], negative_labels: Sequence[str]) -> None:
        """Check the labels that are counted or merged.

        Raises:
            ValueError: names one that is not there.
        """
        merged = [label for group in self.merged.values() for label in group]
        check_unique(tuple(merged))
        for key, named in (("labels", self.labels or ()), ("merged", merged)):
            for label in named:
                if label not in labels:
                    raise ValueError(f"metrics.{key} names {label!r}, which is not one of labels")
        counted = self.labels or [each for each in labels if each not in negative_labels]
        for label in merged:
            if label not in counted:
                raise ValueError(f"metrics.merged names {label!r}, which is not counted")


SUBMITTED = ("label_column", "probs_column", "probs_columns")


class SubmissionRules(Section):
    """The leaderboard's file and its daily quota, counted in the days of ``timezone``.

    Once a section names a column, what it does not name is not in the file. ``probs_columns``: one
    column per label, by a template with ``{label}`` or by names in label order. ``label_as``:
    names, or numbers, which are indices of ``labels``. ``final_picks`` is how many submissions may
    be selected to count at the end. ``joined_by`` is how the platform finds the row that an answer
    is for: one that joins by ``id`` takes rows in any order, CR LF line ends, a byte order mark and
    empty lines, as what reads with pandas does. Unset, Kaggle, the local leaderboard and a folder
    do, and others go by ``position``.
    """

    id_column: Text = "id"
    label_column: Text | None = "pred_label"
    label_as: Literal["name", "number"] = "name"
    probs_column: Text | None = "probs"
    probs_columns: Text | Texts | None = None
    separator: Literal[",", "\t", ";", "|"] | None = None
    header: bool = True
    per_day: Positive | None = None
    final_picks: Positive = 2
    joined_by: Literal["id", "position"] | None = None
    timezone: Annotated[Text, AfterValidator(_check_timezone)] = "UTC"

    @property
    def has_probs(self) -> bool:
        """Return whether probabilities are submitted."""
        return self.probs_column is not None or self.probs_columns is not None

    def write_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return each label as a submission writes it: its name, or its number."""
        as_number = self.label_as == "number"
        return tuple(str(i) for i in range(len(labels))) if as_number else tuple(labels)

    def name_probs_columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the column of each label's probability, none without ``probs_columns``."""
        named = self.probs_columns
        if isinstance(named, str):
            return tuple(named.replace("{label}", label) for label in labels)
        return named or ()

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, found: Any) -> Any:
        """Set the columns that are not named to None, once one is named."""
        if isinstance(found, Mapping) and any(key in found for key in ("id_column", *SUBMITTED)):
            return {**dict.fromkeys(SUBMITTED), **found}
        return found

    @model_validator(mode="after")
    def _differ(self) -> SubmissionRules:
        named = (self.id_column, self.label_column, self.probs_column)
        check_unique(tuple(name for name in named if name is not None))
        if self.label_column is None and not self.has_probs:
            raise ValueError(
                "name label_column, or probs_column for lists of probabilities, or probs_columns"
                " for one column per label"
            )
        if self.label_column is None and self.label_as != "name":
            raise ValueError("label_as needs a label_column, whose values it describes")
        if self.probs_column is not None and self.probs_columns is not None:
            raise ValueError("set probs_column or probs_columns, not both")
        if isinstance(self.probs_columns, str) and "{label}" not in self.probs_columns:
            raise ValueError('probs_columns must contain {label}, such as "p_{label}"')
        return self
