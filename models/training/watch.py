"""What the outside asks of a fit: hear of progress, and say when to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a fit stands."""

    step: int
    steps: int
    loss: float
    rows_per_s: float
    eta_s: float


@dataclass(frozen=True)
class Watch:
    """How a fit reports, is stopped, and writes to its log."""

    report: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    log: Callable[[str], None]
