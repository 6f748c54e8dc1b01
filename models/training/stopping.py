"""Ctrl-C, SIGTERM and ``--stop-after`` as one question: whether the work stops at its next step.

Asked by the loops that can leave a training state behind and go on from it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
