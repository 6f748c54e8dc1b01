"""Read the JSON beside a submission: inputs, decision rule and scores of a blend.

``blend/spec`` writes it. ``check`` compares labels to the rule, ``compare`` recomputes the nested
predictions, ``predict`` applies the blend to new rows, and ``board`` shows its scores. Only this
module reads that JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from competition.files import parse_json
from competition.profile import Profile
from competition.scoring.criteria import describe_scoring
from competition.scoring.decisions import Rule

KIND = "blend"
Finite = Annotated[float, Field(allow_inf_nan=False)]

Objective = str
"""What a blend optimises: the name of one of the competition's metrics, or ``both``."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


R = TypeVar("R", bound=_Record)


class BlendMember(_Record):
    """One member: its variants, their seeds, and the hash of their recipe."""

    name: str
    parts: Annotated[tuple[str, ...], Field(min_length=1)]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    recipe: str
    seeds: tuple[int, ...]


class ScoringRecord(_Record):
    """What a submission was made to score well by.

    Attributes:
        negative_label: of the profile at that time.
        scored_by: what ``describe_scoring`` gave at that time; None in older files.
        labels: of the profile at that time, in its order; None in files of other tools.
    """

    negative_label: Any = None
    scored_by: Any = None
    labels: Any = None

    def differs_from(self, profile: Profile) -> bool:
        """Return whether the profile now counts other labels or has other metrics.

        A file that says nothing of them does not differ.
        """
        if self.scored_by is not None:
            return bool(self.scored_by != describe_scoring(profile))
        return self.has_other_negatives(profile)

    def has_other_order(self, profile: Profile) -> bool:
        """Return whether the profile now has the same labels in another order."""
        found = self.labels if isinstance(self.labels, list) else []
        names = list(map(str, found))
        return names != [*profile.labels] and sorted(names) == sorted(profile.labels)

    def has_other_negatives(self, profile: Profile) -> bool:
        """Return whether the profile now has other negative labels, which decide other answers."""
        if "negative_label" not in self.model_fields_set:
            return False
        found = self.negative_label
        named = found if isinstance(found, list) else [] if found is None else [found]
        return sorted(map(str, named)) != sorted(profile.negative_labels)


class BlendRule(ScoringRecord):
    """Decision rule of a blend and the temperature applied afterwards.

    Attributes:
        threshold: of the best positive label; None without one.
        prior_power: of the label shares by which probabilities are divided; None without one.
        label_factors: (C,) what probabilities are multiplied by before the highest is taken.
        temperature: a value above 1 flattens.
        csv_sha256: of the submission that it was written for; None if absent.
    """

    threshold: Finite | None
    prior_power: Finite | None = None
    label_factors: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    csv_sha256: str | None = None

    @property
    def rule(self) -> Rule:
        """Return how labels are decided."""
        return Rule(self.threshold, self.prior_power, self.label_factors)

    def check_factors(self, n_labels: int) -> Self:
        """Return the rule itself, if its factors are those of as many labels.

        Raises:
            ValueError: there are more or fewer.
        """
        factors = self.label_factors
        if factors is not None and len(factors) != n_labels:
            raise ValueError(f"label_factors: {len(factors)} numbers for {n_labels} labels")
        return self


class BlendRecord(BlendRule):
    """Everything needed to reproduce a blend.

    ``shrink``: weights were shrunk towards the convex ones, an option that no longer exists.
    ``shifted_negative_share``: of the profile at that time, which ``reweight`` may have used.
    """

    trials: int
    seed: int
    objective: Objective
    reweight: str | None
    shifted_negative_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    shrink: bool = False
    members: Annotated[tuple[BlendMember, ...], Field(min_length=1)]


class MemberWeight(_Record):
    """The weight of a member; ``weight_by_fold`` and ``parts`` are empty in older files."""

    name: str
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    weight_by_fold: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    parts: tuple[str, ...] = ()


class ScoreEstimate(_Record):
    """A score with its 95% interval; ``low`` and ``high`` are None if absent."""

    value: Finite
    low: Finite | None = None
    high: Finite | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return both ends of the interval, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class SystemEstimate(_Record):
    """Scores of a blend or comparator, by the short key of each metric.

    ``expected`` holds those expected on the test, some with an interval; empty in older files.
    """

    scores: Mapping[str, ScoreEstimate | None] = {}
    expected: Mapping[str, ScoreEstimate | Finite] = {}

    @model_validator(mode="before")
    @classmethod
    def _part(cls, found: Any) -> Any:
        if not isinstance(found, Mapping):
            return found
        scores = {key: value for key, value in found.items() if key != "expected"}
        return {"scores": scores, "expected": found.get("expected") or {}}

    def expect(self, short: str) -> ScoreEstimate | None:
        """Return the score expected on the test by a metric, None where the file has none."""
        found = self.expected.get(short)
        return ScoreEstimate(value=found) if isinstance(found, float | int) else found


class HalfNoiseRecord(_Record):
    """Simulated noise of the public leaderboard: see ``blend.public_noise``.

    ``sds`` are standard deviations by the short key of each metric.
    """

    agreement: Finite
    sds: Mapping[str, Finite]

    @model_validator(mode="before")
    @classmethod
    def _part(cls, found: Any) -> Any:
        if not isinstance(found, Mapping):
            return found
        ends = {key: value for key, value in found.items() if str(key).endswith("_sd")}
        sds = {key.removesuffix("_sd"): value for key, value in ends.items()}
        return {"agreement": found.get("agreement"), "sds": sds}


class WarningRecord(_Record):
    """A warning about members."""

    text: str


class SubmissionRecord(ScoringRecord):
    """Content of the JSON beside a submission; everything but the hash is optional.

    Attributes:
        csv_sha256: of the CSV that it was written for.
        corpus_hash: of the data it was tuned on; None in files of other tools.
        folds_hash: of their folds.
        members: of the blend, as another tool may describe them; see ``list_weights``.
        fitted: scores on the rows that were tuned on, by system.
        nested: scores on held-out folds, by system.
        noise: simulated noise of the public leaderboard.
        alarms: warnings about members.
    """

    csv_sha256: str
    corpus_hash: str | None = None
    folds_hash: str | None = None
    members: tuple[Any, ...] | None = None
    fitted: Mapping[str, SystemEstimate] = {}
    nested: Mapping[str, SystemEstimate] = {}
    noise: tuple[HalfNoiseRecord, ...] = ()
    alarms: tuple[WarningRecord, ...] = ()

    def list_weights(self) -> tuple[list[MemberWeight], list[str]]:
        """Return the members' weights, and what is wrong with each member that is left out.

        A member without a weight, as other tools write them, is left out without a word.
        """
        found: list[MemberWeight] = []
        faults: list[str] = []
        for place, member in enumerate(self.members or ()):
            if not isinstance(member, Mapping) or "weight" not in member:
                continue
            try:
                found.append(_validate(MemberWeight, member))
            except ValueError as error:
                faults.append(f"members.{place}.{error}")
        return found, faults


def read_submission(path: Path) -> SubmissionRecord:
    """Read the JSON of a submission, written by ``blend`` or another tool.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, has no hash of the CSV, or a field is invalid.
    """
    found = _load(path)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return _validate(SubmissionRecord, found)


def read_record(path: Path, n_labels: int) -> BlendRecord | None:
    """Read everything needed to reproduce a blend; None if the file is not a blend's or absent.

    Args:
        path: of the JSON.
        n_labels: of the competition.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or is a blend's and a field is missing or invalid.
    """
    found = _read(path)
    return None if found is None else _validate(BlendRecord, found).check_factors(n_labels)


def read_rule(path: Path, n_labels: int) -> BlendRule | None:
    """Read the decision rule of a blend; None if the file is not a blend's or absent.

    Args:
        path: of the JSON.
        n_labels: of the competition.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or is a blend's and a field is missing or invalid.
    """
    found = _read(path)
    return None if found is None else _validate(BlendRule, found).check_factors(n_labels)


def list_submissions(folder: Path) -> list[Path]:
    """Return the paths of a folder's CSV files, sorted, without hidden ones of other programs.

    An absent folder has none.
    """
    found = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    return [path for path in found if not path.name.startswith(".")]


def list_blends(folder: Path) -> list[str]:
    """Return the names of the blends in a folder, newest last, complete or not."""
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    blends = [path for path in paths if not path.name.endswith(".run.json") and is_blend(path)]
    return [path.stem for path in sorted(blends, key=when_written)]


def is_blend(path: Path) -> bool:
    """Return whether a file is the JSON of a blend."""
    try:
        return _read(path) is not None
    except (OSError, ValueError):
        return False


def when_written(path: Path) -> tuple[datetime, str]:
    """Return when a submission was written, from its ``.run.json``, else the file's own time."""
    try:
        run = parse_json(path.with_name(f"{path.stem}.run.json").read_text("utf-8"))
        time = datetime.fromisoformat(run["time"])
    except (OSError, ValueError, TypeError, KeyError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC), path.name
    return (time if time.tzinfo else time.replace(tzinfo=UTC)), path.name


def _read(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    found = _load(path)
    is_blend = isinstance(found, dict) and found.get("kind") == KIND
    return found if is_blend else None


def _load(path: Path) -> Any:
    """Read JSON that may come from another tool."""
    try:
        return parse_json(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _validate(kind: type[R], found: Mapping[str, Any]) -> R:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "scores")  # our own field
        raise ValueError(f"{where}: {first['msg']}") from None
