"""The leaderboard settings of a profile: one section for each target, every key checked.

Read by ``competition.profile`` with the rest of the TOML file; used by the targets. A section that
lacks what its target needs is no error until something is sent there. No section holds a key or a
token: those come from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

SLUG = r"^[a-z0-9][a-z0-9._-]*$"
HEADER = r"^[A-Za-z][A-Za-z0-9-]*$"
VARIABLE = r"^[A-Z_][A-Z0-9_]*$"
SIDE_AND_METRIC = r"^(public|private)_[a-z][a-z0-9_]*$"


def _check_url(url: str) -> str:
    """Reject invalid addresses, and those with a login, which would get into the ledger."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
        raise ValueError("write a whole address such as https://board.example.org/api")
    if parts.username or parts.password:
        raise ValueError("an address holds no login; name the key by its environment variable")
    if " " in url or parts.fragment:
        raise ValueError("an address holds no spaces and no fragment")
    return url


TargetName = Literal[
    "folder",
    "local",
    "kaggle",
    "aistages",
    "evalai",
    "http",
]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
Url = Annotated[str, AfterValidator(_check_url)]
Number = Annotated[int, Field(ge=1)]
FieldPath = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")]


class _Section(BaseModel):
    """A TOML table: every key is known, nothing is coerced, nothing changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LocalBoard(_Section):
    """The local leaderboard's fixed split of the test rows into a public and a private part."""

    public_frac: Annotated[float, Field(gt=0, lt=1)] = 0.5
    seed: int = 42


class ScoreFields(_Section):
    """The dotted paths of scores in an answer; ``scale`` is its value of a full score.

    A platform that shows 71.5 for 0.715 has scale 100. ``paths`` are by side and metric, such as
    ``public_f1``: in a profile they are beside ``scale``.
    """

    paths: dict[Annotated[str, Field(pattern=SIDE_AND_METRIC)], FieldPath] = Field(
        default_factory=dict
    )
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, found: Any) -> Any:
        if not isinstance(found, Mapping) or "paths" in found:
            return found
        paths = {key: path for key, path in found.items() if key != "scale"}
        unknown = [key for key in paths if not re.fullmatch(SIDE_AND_METRIC, str(key))]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r}: write public_ or private_ and a metric, such as public_f1"
            )
        return {"paths": paths, **{key: found[key] for key in found if key == "scale"}}


class KaggleBoard(_Section):
    """A Kaggle competition, by the name in its address."""

    competition: Annotated[str, Field(pattern=SLUG)] | None = None
    scores: ScoreFields = ScoreFields()


class AIStagesBoard(_Section):
    """An AI Stages competition: the API's address and the competition's number."""

    host: Url | None = None
    id: Number | None = None


class EvalAIBoard(_Section):
    """A phase of an EvalAI challenge; ``scores`` are paths in the result file its host writes."""

    host: Url = "https://eval.ai"
    challenge: Number | None = None
    phase: Number | None = None
    scores: ScoreFields = ScoreFields()


class HttpAnswer(_Section):
    """The paths in a server's JSON answer; ``done`` and ``rejected`` are values of status."""

    id: FieldPath | None = "id"
    status: FieldPath = "status"
    error: FieldPath = "error"
    done: Texts = ("finished",)
    rejected: Texts = ("failed",)


class HttpBoard(_Section):
    """A server that takes a form with a file; without ``status_url`` it cannot be asked later."""

    url: Url | None = None
    method: Literal["POST", "PUT"] = "POST"
    file_field: Text = "file"
    fields: dict[Text, str] = Field(default_factory=dict)
    key_variable: Annotated[str, Field(pattern=VARIABLE)] | None = None
    key_header: Annotated[str, Field(pattern=HEADER)] = "Authorization"
    key_prefix: str = "Bearer "
    status_url: Url | None = None
    answer: HttpAnswer = HttpAnswer()
    scores: ScoreFields = ScoreFields()

    @model_validator(mode="after")
    def _can_be_asked(self) -> HttpBoard:
        if self.status_url is not None and ("{id}" not in self.status_url or not self.answer.id):
            raise ValueError("status_url holds {id}, which answer.id finds in the answer")
        return self


class UploadRules(_Section):
    """The default target of ``submit``, and the settings of each target."""

    default: TargetName = "folder"
    local: LocalBoard = LocalBoard()
    kaggle: KaggleBoard = KaggleBoard()
    aistages: AIStagesBoard = AIStagesBoard()
    evalai: EvalAIBoard = EvalAIBoard()
    http: HttpBoard = HttpBoard()
