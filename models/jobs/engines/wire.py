"""Jobs and their messages as JSON and arrays, for the way between machines.

Only what the types of the fields allow is read, so reading runs no code, as unpickling would.
Legend: n rows.
"""

from __future__ import annotations

import io
import json
from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

import numpy as np
from pydantic import BaseModel, TypeAdapter

from competition.arrays import Int64s
from competition.files import parse_json
from competition.scoring.criteria import Criteria, assemble_criteria
from competition.scoring.metrics.metric import Task
from models.data.pool import FoldRows
from models.jobs.engines.engine import Kind
from models.jobs.spec import JobOutcome, JobSpec
from models.training.control import Progress

HELDOUT, FACTS = "heldout_label_ids", "facts"
ROWS = ("rows", HELDOUT)
"""Fields of a job that ``write_rows`` writes."""
PAYLOADS: dict[str, Any] = {"progress": Progress, "done": JobOutcome}
"""The type of a message's payload by its kind; those of other kinds are texts."""


class _Metrics(BaseModel):
    """``Criteria`` by the names of its metrics."""

    primary: str
    secondary: str | None
    task: Task
    writes_labels: bool


def write_spec(spec: JobSpec) -> bytes:
    """Return a job without its rows and held-out labels as JSON."""
    values: dict[str, Any] = {name: getattr(spec, name) for name in _types()}
    criteria = spec.criteria
    values["criteria"] = _Metrics(
        primary=criteria.primary.kind.name,
        secondary=None if criteria.secondary is None else criteria.secondary.kind.name,
        task=criteria.task,
        writes_labels=criteria.writes_labels,
    )
    return _write({name: _dump(kind, values[name]) for name, kind in _types().items()})


def read_spec(data: bytes, rows: bytes) -> JobSpec:
    """Return the job that ``write_spec`` and ``write_rows`` wrote.

    Raises:
        ValueError: the bytes are not a job.
    """
    written = parse_json(data)
    values = {name: _load(kind, written[name]) for name, kind in _types().items()}
    metrics: _Metrics = values["criteria"]
    values["criteria"] = assemble_criteria(
        metrics.primary, metrics.secondary, metrics.task, writes_labels=metrics.writes_labels
    )
    fold_rows, heldout_label_ids = _read_rows(rows)
    return JobSpec(**values, rows=fold_rows, heldout_label_ids=heldout_label_ids)


def write_rows(spec: JobSpec) -> bytes:
    """Return the rows and held-out labels of a job as arrays; jobs of a fold have the same."""
    rows = {each.name: getattr(spec.rows, each.name) for each in fields(FoldRows)}
    arrays = {name: value for name, value in rows.items() if isinstance(value, np.ndarray)}
    facts = {name: value for name, value in rows.items() if name not in arrays}
    written: dict[str, Any] = {
        FACTS: np.frombuffer(_write(facts), np.uint8),
        HELDOUT: spec.heldout_label_ids,
        **arrays,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **written)
    return buffer.getvalue()


def write_message(kind: str, payload: Any) -> bytes:
    """Return a message of a job as JSON."""
    return _write([kind, _dump(PAYLOADS[kind], payload) if kind in PAYLOADS else payload])


def read_message(data: bytes) -> tuple[Kind, Any]:
    """Return the kind and payload that ``write_message`` wrote.

    Raises:
        ValueError: the bytes are not a message.
    """
    written, payload = parse_json(data)
    kind: Kind = _load(Kind, written)
    return kind, _load(PAYLOADS[kind], payload) if kind in PAYLOADS else payload


def _read_rows(data: bytes) -> tuple[FoldRows, Int64s]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found: dict[str, Any] = dict(arrays)
    heldout_label_ids = found.pop(HELDOUT)
    return FoldRows(**{**parse_json(bytes(found.pop(FACTS))), **found}), heldout_label_ids


@cache
def _types() -> dict[str, Any]:
    """Return the type of each field of a job that ``write_spec`` writes."""
    hints = get_type_hints(JobSpec)
    named = {each.name: hints[each.name] for each in fields(JobSpec) if each.name not in ROWS}
    assert named["criteria"] is Criteria
    return {**named, "criteria": _Metrics}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _dump(kind: Any, value: Any) -> Any:
    return _adapter(kind).dump_python(value, mode="json")


def _load(kind: Any, value: Any) -> Any:
    return _adapter(kind).validate_json(json.dumps(value))


def _write(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
