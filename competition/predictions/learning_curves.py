"""Learning curves: the loss of a job as it trains, one JSON object per line beside its log.

Jobs append to the file; the report and anyone's notebook read it. Resumed or repeated steps replace
the ones before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from competition.arrays import Say

CURVE_FILE = "metrics.jsonl"


Count = Annotated[int, Field(ge=0, lt=10**12)]
Number = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point: ``step`` of ``steps``, mean loss since the point before, rows per second."""

    time: str
    step: Count
    steps: Count
    loss: Number
    rows_per_s: Number


_POINT = TypeAdapter(CurvePoint)


def append_point(folder: Path, point: CurvePoint) -> None:
    """Append a point to the curve of a job."""
    with (folder / CURVE_FILE).open("ab", buffering=0) as stream:
        stream.write(json.dumps(asdict(point)).encode() + b"\n")


def read_curve(folder: Path, say: Say | None = None) -> list[CurvePoint]:
    """Read the curve of a job, by ascending step; empty if it has none.

    Args:
        say: called with a line about each damaged line, which is left out.
    """
    try:
        lines = (folder / CURVE_FILE).read_bytes().splitlines()
    except OSError:
        return []
    points: list[CurvePoint] = []
    for number, line in enumerate(lines, start=1):
        try:
            point = _POINT.validate_json(line, strict=True)
        except ValueError:
            if say is not None:
                say(f"{folder / CURVE_FILE}, line {number} is damaged and left out")
            continue
        while points and points[-1].step >= point.step:
            points.pop()
        points.append(point)
    return points
