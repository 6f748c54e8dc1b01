"""Pydantic models of a result file's header and of its provenance file.

Used by ``store``. Files may come from other machines: the hash shows that a header was not changed
since, not that its fields have the right types.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from competition.files import is_name

NOT_A_VARIANT = "routes"  # oof/<competition>/routes/ says which rows a specialist answers for


def _check_is_name(name: str) -> str:
    if not is_name(name) or name == NOT_A_VARIANT:
        raise ValueError("it cannot be the name of a variant")
    return name


class Stored(BaseModel):
    """A JSON object with known keys of fixed types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class StoredKey(Stored):
    """The job that made a result file."""

    variant: Annotated[str, AfterValidator(_check_is_name)]
    seed: Annotated[int, Field(ge=0, lt=10**18)]
    fold: Annotated[int, Field(ge=0, lt=10**9)]


class StoredTuning(Stored):
    """What ``tune`` recorded in a variant."""

    model_config = ConfigDict(extra="ignore")

    folds: tuple[int, ...] = ()
    folds_hash: str = ""


class StoredVariant(Stored):
    """The fields of a stored variant that are read; the others matter only for its fingerprint."""

    model_config = ConfigDict(extra="ignore")

    name: str = ""
    why: str = ""
    tune: StoredTuning | None = None
    imported: dict[str, Any] | None = None


class StoredHeader(Stored):
    """The header of a result file."""

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
    """The fields of a job's provenance that are read; the others are for the user."""

    model_config = ConfigDict(extra="ignore")

    command: str = ""
    finished: str = ""
    threads: Annotated[int, Field(ge=1)] | None = None
    rows_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
