"""Run jobs on an engine: start, monitor and stop them, and report those that fail.

Which job runs where is up to the engine (``models.jobs.engines``), by default processes of this
machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from competition.errors import TrainingError
from competition.predictions.store import ResultKey
from models.jobs.engines.engine import ENDS, Engine, Message
from models.jobs.spec import JobOutcome, JobSpec
from models.training.control import Progress, stop_requests

BUSY_WAIT_S = 5.0
POLL_S = 0.5
STOPPING = "stopping: running jobs write a checkpoint; press Ctrl-C again to kill them"


@dataclass(frozen=True)
class FoldHooks:
    """Callbacks of ``run_jobs``."""

    started: Callable[[JobSpec], None]
    progress: Callable[[JobSpec, Progress], None]
    said: Callable[[JobSpec, str], None]
    finished: Callable[[JobSpec, JobOutcome], None]
    failed: Callable[[JobSpec, str], None]


@dataclass(frozen=True)
class FoldRun:
    """Outcomes of jobs: finished, stopped after writing a training state, or failed, and why.

    ``asked_to_stop`` is True after a signal or the deadline, even if every job still finished.
    """

    finished: tuple[JobOutcome, ...]
    stopped: tuple[ResultKey, ...]
    failed: tuple[tuple[ResultKey, str], ...]
    asked_to_stop: bool = False


def run_jobs(
    specs: Sequence[JobSpec],
    *,
    engine: Engine,
    deadline: float | None,
    hooks: FoldHooks,
    stop: threading.Event | None = None,
) -> FoldRun:
    """Run jobs until all are done or stopped by the deadline or Ctrl-C.

    Args:
        engine: where they run; it must have no other jobs.
        deadline: on the clock of ``time.monotonic``; running jobs then write their training state
            and exit.
        stop: stops jobs too when it is set; signals reach the main thread only.
    """
    waiting = list(specs)
    running = 0
    outcomes = _Outcomes(hooks)
    engine.expect(specs)
    retry_at: dict[ResultKey, float] = {}  # jobs that another process is running
    with stop_requests(STOPPING, deadline=deadline) as is_asked:

        def should_stop() -> bool:
            return is_asked() or (stop is not None and stop.is_set())

        while waiting or running:
            stopping = should_stop()
            now = time.monotonic()
            ready = [spec for spec in waiting if retry_at.get(spec.key, 0.0) <= now]
            chosen = ready[: 0 if stopping else engine.max_started - running]
            waiting = [spec for spec in waiting if not any(spec is one for one in chosen)]
            for spec in chosen:
                engine.start(spec)
            running += len(chosen)
            if stopping:
                outcomes.stopped += [spec.key for spec in waiting]
                waiting.clear()
                engine.request_stop()
            for message in engine.receive(POLL_S) if running else []:
                running -= message.kind in ENDS
                if message.kind == "busy":
                    waiting.append(message.spec)
                    retry_at[message.spec.key] = time.monotonic() + BUSY_WAIT_S
                else:
                    outcomes.take(message)
            if waiting and not running:
                time.sleep(POLL_S)
    return outcomes.build(asked_to_stop=should_stop())  # asked perhaps while the last jobs ended


class _Outcomes:
    """Calls the hooks for messages of jobs, and collects the outcomes."""

    def __init__(self, hooks: FoldHooks) -> None:
        self.hooks = hooks
        self.finished: list[JobOutcome] = []
        self.stopped: list[ResultKey] = []
        self.failed: list[tuple[ResultKey, str]] = []

    def take(self, message: Message) -> None:
        """Take a message other than ``busy``."""
        spec, payload, hooks = message.spec, message.payload, self.hooks
        if message.kind == "started":
            hooks.started(spec)
        elif message.kind == "progress":
            hooks.progress(spec, payload)
        elif message.kind == "said":
            hooks.said(spec, payload)
        elif message.kind == "failed":
            self.failed.append((spec.key, payload))
            hooks.failed(spec, payload)
        elif payload.finished:
            self.finished.append(payload)
            hooks.finished(spec, payload)
        else:
            self.stopped.append(spec.key)

    def build(self, *, asked_to_stop: bool) -> FoldRun:
        """Return what came of the jobs."""
        outcomes = tuple(self.finished), tuple(self.stopped), tuple(self.failed)
        return FoldRun(*outcomes, asked_to_stop)


def raise_failures(failed: Sequence[tuple[ResultKey, str]]) -> None:
    """Raise one error for all failed jobs, grouped by reason.

    Raises:
        TrainingError: a job failed.
    """
    reasons: dict[str, list[str]] = {}
    for key, reason in failed:
        reasons.setdefault(reason, []).append(f"{key.variant} s{key.seed} f{key.fold}")
    if reasons:
        raise TrainingError(
            "\n".join(f"{', '.join(jobs)}: {reason}" for reason, jobs in reasons.items())
        )
