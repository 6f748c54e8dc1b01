"""How a long loop is controlled: its seeds, its progress, when it writes a state, when it stops.

The training loop, pretraining and the jobs around them share it. There is no early stopping: a fit
ends after its last step, or when a person, a signal or ``--stop-after`` asks for it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

REPORT_EVERY_S = 1.0
STATE_COST_FRAC = 0.05
"""States are written at most so often that writing takes this share of the time."""


class Pace:
    """A loop's clock, in seconds; it begins to run when it is made.

    >>> now = 0.0
    >>> pace = Pace(60.0, clock=lambda: now)
    >>> now = 61.0
    >>> with pace.writing():
    ...     now = 71.0  # a slow disk: ten seconds, so the next state is due after two hundred
    >>> now = 270.0
    >>> pace.is_state_due()
    False
    >>> now = 272.0
    >>> pace.is_state_due(), pace.seconds
    (True, 272.0)
    """

    def __init__(
        self, state_every_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_s, self._clock = state_every_s, clock
        self._started = self._reported = self._written = clock()
        self._cost_s = 0.0

    @property
    def seconds(self) -> float:
        """Return how long the loop has run."""
        return self._clock() - self._started

    def is_report_due(self) -> bool:
        """Say whether the last report is old."""
        return self._clock() - self._reported > REPORT_EVERY_S

    def note_report(self) -> None:
        """Take note that a report was made now."""
        self._reported = self._clock()

    def is_state_due(self) -> bool:
        """Say whether the last state is old, by what a person asked for and by what it cost."""
        rest_s = max(self._every_s, self._cost_s / STATE_COST_FRAC)
        return self._clock() - self._written > rest_s

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure the writing of a state, from which the next one is reckoned."""
        began = self._clock()
        yield
        self._written = self._clock()
        self._cost_s = self._written - began


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


@contextmanager
def stop_requests(said: str, *, deadline: float | None = None) -> Iterator[Callable[[], bool]]:
    """Yield what tells whether to stop; a second Ctrl-C or SIGTERM raises ``KeyboardInterrupt``.

    Signals reach the main thread alone; elsewhere only the deadline counts.

    Args:
        said: printed to stderr when a person asks.
        deadline: on ``time.monotonic``'s clock; None: no limit.
    """
    asked = threading.Event()

    def should_stop() -> bool:
        return asked.is_set() or (deadline is not None and time.monotonic() > deadline)

    if threading.current_thread() is not threading.main_thread():
        yield should_stop
        return

    def on_signal(number: int, frame: Any) -> None:
        del number, frame
        if asked.is_set():
            raise KeyboardInterrupt
        print(said, file=sys.stderr)
        asked.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        yield should_stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def step_seed(seed: int, stream: int, step: int) -> int:
    """Return the seed of one step's random draws, independent of how the step was reached.

    Args:
        seed: of the run.
        stream: what the draws are for: the fold, or one of pretraining's streams.
        step: counted from 0, or a number beyond all steps for what is drawn before the first.
    """
    state = np.random.SeedSequence([seed, stream, step]).generate_state(1, np.uint64)
    return int(state[0] >> 1)
