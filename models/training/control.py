"""Control of a training loop: seeds, progress, checkpoint intervals, stopping on request.

Shared by the training loop, pretraining and the jobs around them. There is no early stopping: no
validation score ever ends a fit. It ends after its last step, or, to be resumed later, on a signal
(Ctrl-C) or at the ``--stop-after`` deadline.
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
"""Writing training states takes at most about this fraction of the time."""


class Pace:
    """Decide when a loop is due to report progress and to write a training state; in seconds.

    >>> now = 0.0
    >>> pace = Pace(60.0, clock=lambda: now)
    >>> now = 61.0
    >>> with pace.writing():
    ...     now = 71.0  # a slow disk: 10 s, so the next state is due after 200 s
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
        """Return the time since the start of the loop."""
        return self._clock() - self._started

    def is_report_due(self) -> bool:
        """Return whether the last report is older than ``REPORT_EVERY_S``."""
        return self._clock() - self._reported > REPORT_EVERY_S

    def note_report(self) -> None:
        """Record that a report was made now."""
        self._reported = self._clock()

    def is_state_due(self) -> bool:
        """Return whether a state is due, given the requested interval and the cost of the last."""
        rest_s = max(self._every_s, self._cost_s / STATE_COST_FRAC)
        return self._clock() - self._written > rest_s

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure how long a state takes to write, which sets when the next one is due."""
        began = self._clock()
        yield
        self._written = self._clock()
        self._cost_s = self._written - began


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a fit: ``step`` of ``steps``, the recent mean loss, speed and time left."""

    step: int
    steps: int
    loss: float
    rows_per_s: float
    eta_s: float


@dataclass(frozen=True)
class Watch:
    """Callbacks of a fit: progress reports, a check whether to stop, log lines."""

    report: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    log: Callable[[str], None]


@contextmanager
def stop_requests(said: str, *, deadline: float | None = None) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether to stop, after Ctrl-C, SIGTERM or a deadline.

    A second signal raises ``KeyboardInterrupt``. Only the main thread receives signals; in other
    threads only the deadline counts.

    Args:
        said: message printed to stderr on the first signal.
        deadline: on the clock of ``time.monotonic``; None for no limit.
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
    """Return the random seed of a step, the same whether or not the fit was interrupted before.

    Args:
        stream: the fold, or one of pretraining's random streams.
        step: counted from 0; a number beyond the last step for draws before the first.
    """
    state = np.random.SeedSequence([seed, stream, step]).generate_state(1, np.uint64)
    return int(state[0] >> 1)
