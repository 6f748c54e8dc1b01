"""When a long loop says where it stands, and when it leaves a state to go on from.

Shared by ``training`` and ``pretraining``, which ask after every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
