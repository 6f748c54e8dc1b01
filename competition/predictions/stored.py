"""What stands in a result file's header and in the provenance beside it, as strict models.

Behind ``store``, which reads both. A colleague's machine, or anyone, may have written them: a hash
says that a header was not changed since, not that its seed is a number.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from competition.files import is_name

NOT_A_VARIANT = "routes"  # oof/<competition>/routes/ says which rows a specialist answers for


def _check_is_name(name: str) -> str:
    if not is_name(name) or name == NOT_A_VARIANT:
        raise ValueError("it cannot be a variant's name")
    return name


class Stored(BaseModel):
    """A JSON object whose every key is known and of its type."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class StoredKey(Stored):
    """Which job a file says it is the result of."""

    variant: Annotated[str, AfterValidator(_check_is_name)]
    seed: Annotated[int, Field(ge=0, lt=10**18)]
    fold: Annotated[int, Field(ge=0, lt=10**9)]


class StoredTuning(Stored):
    """What ``tune`` found."""

    model_config = ConfigDict(extra="ignore")

    folds: tuple[int, ...] = ()
    folds_hash: str = ""


class StoredVariant(Stored):
    """What is read of a stored variant; its other settings only count as its fingerprint."""

    model_config = ConfigDict(extra="ignore")

    name: str = ""
    why: str = ""
    tune: StoredTuning | None = None
    imported: dict[str, Any] | None = None


class StoredHeader(Stored):
    """What a result file says of itself."""

    key: StoredKey
    fingerprint: str
    recipe: str
    variant: dict[str, Any]
    labels: tuple[str, ...]
    data_hash: str
    folds_hash: str
    route: Annotated[str, Field(pattern=r"^[a-z]+:[a-z]+$")] | None
    routes_hash: str | None
    schema_version: int


class StoredRun(Stored):
    """What is read of a job's provenance; the rest of it is for people."""

    model_config = ConfigDict(extra="ignore")

    command: str = ""
    finished: str = ""
    threads: Annotated[int, Field(ge=1)] | None = None
    rows_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
