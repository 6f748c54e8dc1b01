"""What a competition is scored by: its metrics and the decision rule that follows from them.

The one place that reads the profile's ``[metrics]``. Everything above asks ``Criteria`` for names
and scores, and knows of no metric by name.

Legend: C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from competition.errors import ProfileError
from competition.profile import Profile
from competition.scoring.decisions import Negatives
from competition.scoring.metrics.catalogue import METRICS, build_metric
from competition.scoring.metrics.metric import Metric, MetricKind, RuleKind, Task

FIRST, SECOND = "micro-f1", "auprc"
"""The metrics of a profile that names none: those of KLUE-RE."""
OF_CLASSES = ("macro-f1", "weighted-f1")  # metrics that can count some labels, or merged ones
BOTH = "both"


@dataclass(frozen=True)
class Criteria:
    """The metrics of a competition.

    Attributes:
        primary: what ranks submissions.
        secondary: what decides ties, or a second board; None if there is none.
        task: the labels that they are computed for.
        writes_labels: whether submissions have a column of labels; without one, the leaderboard
            takes the most probable label.
    """

    primary: Metric
    secondary: Metric | None
    task: Task
    writes_labels: bool = True

    @property
    def n_labels(self) -> int:
        """Return C."""
        return self.task.n_labels

    @property
    def negative_ids(self) -> Negatives:
        """Return the negative labels."""
        return self.task.negative_ids

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Return the primary metric, and the secondary one if there is one."""
        return (self.primary,) if self.secondary is None else (self.primary, self.secondary)

    @property
    def kinds(self) -> tuple[MetricKind, ...]:
        """Return the metrics' names and bounds, the primary one first."""
        return tuple(metric.kind for metric in self.metrics)

    @property
    def decided(self) -> Metric | None:
        """Return the metric that labels are decided for, None if neither reads labels."""
        return next((each for each in self.metrics if each.kind.reads == "labels"), None)

    @property
    def ranked(self) -> Metric | None:
        """Return the metric that probabilities are tempered for, None if neither reads them."""
        return next((each for each in self.metrics if each.kind.reads == "probabilities"), None)

    @property
    def curved(self) -> Metric | None:
        """Return the metric that is a mean over labels' curves, None if there is none."""
        return next((each for each in self.metrics if each.curve is not None), None)

    @property
    def rule(self) -> RuleKind:
        """Return the kind of the decision rule; a threshold needs a negative label."""
        kind: RuleKind = "argmax" if self.decided is None else self.decided.kind.rule
        is_free = self.writes_labels and (kind != "threshold" or self.negative_ids)
        return kind if is_free else "argmax"

    @property
    def objectives(self) -> tuple[str, ...]:
        """Return what can be searched for: each metric, or both."""
        names = tuple(kind.name for kind in self.kinds)
        return (*names, BOTH) if len(names) > 1 else names

    def score(self, gold: Any, predicted: Any) -> dict[str, float]:
        """Return each metric's score, higher being better, by its key."""
        return {each.kind.key: each.score(gold, predicted) for each in self.metrics}

    def write(self, scores: Mapping[str, float | None]) -> str:
        """Write scores of ``score`` for a person: ``micro-F1 71.53, AUPRC –`` if one is unknown."""
        return ", ".join(f"{kind.title} {kind.write(scores.get(kind.key))}" for kind in self.kinds)

    def show(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return scores of ``score`` as people and leaderboards write them."""
        kinds = {kind.key: kind for kind in self.kinds}
        return {key: kinds[key].show(score) for key, score in scores.items()}


def build_criteria(profile: Profile) -> Criteria:
    """Build the metrics that a profile names.

    Raises:
        ProfileError: a metric or label is unknown, or a key applies to no metric of the profile.
    """
    rules, has_probs = profile.metrics, profile.submission.has_probs
    primary = rules.primary or FIRST
    secondary = rules.secondary
    if rules.primary is None and secondary is None and has_probs:
        secondary = SECOND
    for key, name in (("primary", primary), ("secondary", secondary)):
        if name is not None and name not in METRICS:
            raise ProfileError(
                f"metrics.{key}: there is no metric {name!r}; choose {', '.join(METRICS)}"
            )
        if name is not None and METRICS[name].reads == "probabilities" and not has_probs:
            raise ProfileError(
                f"metrics.{key}: {name} is computed on probabilities, and [submission] names no"
                " column of them; set probs_column or probs_columns"
            )
    if primary == secondary:
        raise ProfileError(
            f"metrics.secondary: {secondary!r} is the primary metric already; choose another, or"
            " leave it out"
        )
    _check_labels(profile, primary, secondary)
    return assemble_criteria(
        primary,
        secondary,
        Task(
            profile.n_labels,
            profile.negative_ids,
            None if rules.labels is None else _number(profile, rules.labels),
            tuple(_number(profile, group) for group in rules.merged.values()),
            rules.average_over,
        ),
        writes_labels=profile.submission.label_column is not None,
    )


@lru_cache(maxsize=64)
def assemble_criteria(
    primary: str, secondary: str | None, task: Task, *, writes_labels: bool = True
) -> Criteria:
    """Build the metrics of these names, which must be in ``METRICS``."""
    second = None if secondary is None else build_metric(secondary, task)
    first = build_metric(primary, task)
    return Criteria(first, second, task, writes_labels)


def describe_scoring(profile: Profile) -> dict[str, Any]:
    """Describe the metrics and the labels that they count, as a blend's JSON records them.

    Profiles that say the same in other words, such as ``labels`` that are all but the negative
    one, have the same description.
    """
    criteria = build_criteria(profile)
    second, task = criteria.secondary, criteria.task

    def name(label_ids: tuple[int, ...]) -> list[str]:
        return [profile.labels[label_id] for label_id in label_ids]

    return {
        "primary": criteria.primary.kind.name,
        "secondary": None if second is None else second.kind.name,
        "negative": name(task.negative_ids),
        "counted": name(task.counted_ids),
        "merged": [name(group) for group in task.merged],
        "average_over": task.averaged,
    }


def _number(profile: Profile, labels: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(sorted(profile.label_ids[label] for label in labels))


def _check_labels(profile: Profile, *names: str | None) -> None:
    """Check the keys that only means over classes read."""
    rules = profile.metrics
    given = [key for key in ("labels", "merged", "average_over") if key in rules.model_fields_set]
    if given and not set(names) & set(OF_CLASSES):
        raise ProfileError(
            f"metrics.{given[0]}: only {' and '.join(OF_CLASSES)} read it; leave it out, or set "
            "negative_label to what the metric does not count"
        )
