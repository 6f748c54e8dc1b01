"""Run several loops of trials beside each other, in threads of one process.

The trials train elsewhere, on the machines of an engine; a thread here only waits for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from models.training.control import stop_requests

POLL_S = 0.5
STOPPING = "stopping: running trials write a checkpoint"


def run_beside(
    loops: Sequence[Callable[[], bool]], stop: threading.Event, deadline: float | None
) -> bool:
    """Run loops in threads until all have ended; return whether all were complete.

    Args:
        loops: each runs until its work is complete (True) or ``stop`` is set (False).
        stop: set here by Ctrl-C, at the deadline, and when a loop raises, whose error is raised
            once the others have ended.
        deadline: on the clock of ``time.monotonic``.
    """
    with (
        stop_requests(STOPPING, deadline=deadline) as should_stop,
        ThreadPoolExecutor(len(loops)) as pool,
    ):
        futures = [pool.submit(loop) for loop in loops]
        waiting: set[Future[bool]] = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=POLL_S)
            if should_stop() or any(each.exception() is not None for each in done):
                stop.set()
    outcomes = [each.result() for each in futures]
    return all(outcomes)
