"""Reading a blend again: what made it and what it scored, as the JSON beside its submission says.

After ``blend/spec``, which writes it, on the way of a row: ``check`` compares labels with its rule,
``compare`` makes its nested answers again, ``predict`` answers for new rows as it does, and
``board`` shows its scores. This is the only room that reads that JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

KIND = "blend"
Finite = Annotated[float, Field(allow_inf_nan=False)]

Objective = Literal["micro-f1", "auprc", "both"]
"""What a blend is to be good at."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


R = TypeVar("R", bound=_Record)


class BlendMember(_Record):
    """One member: the variants behind it, their seeds, and the recipe that made its answers."""

    name: str
    parts: Annotated[tuple[str, ...], Field(min_length=1)]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    recipe: str
    seeds: tuple[int, ...]


class BlendRule(_Record):
    """How labels are decided in the pool, and by what it is flattened afterwards.

    Attributes:
        threshold: of the best positive label; None where the most probable label is taken.
        temperature: above 1 flattens.
        csv_sha256: of the submission that it was written for; None where that is not said.
    """

    threshold: Finite | None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    csv_sha256: str | None = None


class BlendRecord(BlendRule):
    """What made a blend, enough to make it again.

    ``shrink``: its weights were pulled towards the convex ones, which blends no longer are.
    """

    trials: int
    seed: int
    objective: Objective
    reweight: str | None
    shrink: bool = False
    members: Annotated[tuple[BlendMember, ...], Field(min_length=1)]


class ScoreEstimate(_Record):
    """A score with its 95% interval; ``low`` and ``high`` are None where none was written."""

    value: Finite
    low: Finite | None = None
    high: Finite | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return both ends of the interval, None without one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class ShiftedScores(_Record):
    """Scores of rows weighed to be like the test."""

    f1: Finite | None = None
    auprc: Finite | None = None


class SystemEstimate(_Record):
    """Scores of a blend or of what it is compared to; ``shifted`` by the way of weighing rows."""

    f1: ScoreEstimate | None = None
    auprc: ScoreEstimate | None = None
    shifted: Mapping[str, ShiftedScores] = {}


class HalfNoiseRecord(_Record):
    """What was simulated of the public half: see ``blend.public_noise``."""

    agreement: Finite
    f1_sd: Finite


class AlarmRecord(_Record):
    """A warning about members."""

    text: str


class SubmissionRecord(_Record):
    """What the JSON beside a submission says of it; all but the hash may be absent.

    Attributes:
        csv_sha256: of the CSV that it was written for.
        members: of the blend.
        fitted: by system, scores of the rows that it was tuned on.
        nested: by system, scores of rows that nothing in it was tuned on.
        noise: how far the public half can be trusted.
        alarms: warnings about members.
    """

    csv_sha256: str
    members: tuple[Any, ...] | None = None
    fitted: Mapping[str, SystemEstimate] = {}
    nested: Mapping[str, SystemEstimate] = {}
    noise: tuple[HalfNoiseRecord, ...] = ()
    alarms: tuple[AlarmRecord, ...] = ()


def read_submission(path: Path) -> SubmissionRecord:
    """Read what is said of a submission, a blend's or another tool's.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, does not say its CSV's hash, or a field is damaged.
    """
    found = _load(path)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return _validate(SubmissionRecord, found)


def read_record(path: Path) -> BlendRecord | None:
    """Read what made a blend; None where the file is another's, or there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or is said to be a blend's and does not say how it was made.
    """
    found = _read(path)
    return None if found is None else _validate(BlendRecord, found)


def read_rule(path: Path) -> BlendRule | None:
    """Read how a blend decides, as ``read_record`` reads the whole.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or is said to be a blend's and does not say how it decides.
    """
    found = _read(path)
    return None if found is None else _validate(BlendRule, found)


def list_blends(folder: Path) -> list[str]:
    """Return the names of a folder's blends, the newest last, whether or not they are whole."""
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    blends = [path for path in paths if not path.name.endswith(".run.json") and _is_blend(path)]
    return [path.stem for path in sorted(blends, key=when_written)]


def when_written(path: Path) -> tuple[datetime, str]:
    """Return when a submission was made, by what stands beside it, else the file's own time."""
    try:
        run = json.loads(path.with_name(f"{path.stem}.run.json").read_text("utf-8"))
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
    """Read JSON that another tool, or another person, may have put there.

    Raises:
        ValueError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _validate(kind: type[R], found: Mapping[str, Any]) -> R:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}") from None


def _is_blend(path: Path) -> bool:
    try:
        return _read(path) is not None
    except (OSError, ValueError):
        return False
