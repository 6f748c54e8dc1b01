"""The interface of an engine: what runs jobs somewhere, and tells what becomes of them.

``models.jobs.workers`` decides which job starts when, counts outcomes and handles stops and
deadlines, for every engine alike. An engine starts one job after another, passes on what they say,
and can ask them to stop. Another engine is one more file here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from competition.options import check_at_least
from models.jobs.spec import JobSpec
from models.variant import Variant

LOCAL = "local"
Kind = Literal["started", "progress", "said", "busy", "failed", "done"]
ENDS: frozenset[Kind] = frozenset({"busy", "failed", "done"})
"""The last message of a job: another process runs it, it failed, or it was done or stopped."""


@dataclass(frozen=True)
class Message:
    """What an engine says of a job.

    Attributes:
        spec: the job, the object that was given to ``start``.
        kind: ``started`` when it begins to run; see also ``ENDS``.
        payload: ``Progress`` of progress, ``JobOutcome`` of done, a text of said and failed.
    """

    spec: JobSpec
    kind: Kind
    payload: Any = None


@dataclass(frozen=True)
class EngineChoice:
    """Which engine, and what is asked of it; see ``models.jobs.engines.choice``.

    Attributes:
        address: of a Ray cluster; None for the one of this machine.
        workers: the largest number of jobs at a time; None for the engine's own.
        threads: of each job of a network; None for the engine's own.
        gpus_per_job: of each job of a network; None for the engine's own.
    """

    name: str = LOCAL
    address: str | None = None
    workers: int | None = None
    threads: int | None = None
    gpus_per_job: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: one is too small.
        """
        check_at_least("--workers", self.workers, 1)
        check_at_least("--threads", self.threads, 1)
        check_at_least("--gpus-per-job", self.gpus_per_job, 0)

    @property
    def jobs_here(self) -> int:
        """Return how many jobs run at a time in processes that this command starts itself."""
        return (self.workers or 1) if self.name == LOCAL else 1


HERE = EngineChoice()
"""One job at a time in a process of this machine."""


class Engine(Protocol):
    """Runs jobs. Closed by its owner, after which none of its jobs runs any more.

    Attributes:
        max_started: the largest number of jobs that may be started and not yet ended.
        threads: of each job of a network, which its results depend on in the last bits.
    """

    max_started: int
    threads: int

    def count_running(self, variants: Sequence[Variant]) -> int:
        """Return about how many jobs of some variants run at a time, of those started."""

    def describe(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Return lines that say where jobs will run."""

    def expect(self, jobs: Sequence[JobSpec]) -> None:
        """Prepare for jobs, all that will be started before the next call."""

    def start(self, spec: JobSpec) -> None:
        """Start a job, or queue it where it will run."""

    def receive(self, timeout_s: float) -> list[Message]:
        """Wait up to ``timeout_s`` for messages of started jobs, and return them in order."""

    def request_stop(self) -> None:
        """Ask all started jobs to write a checkpoint and end; may be called again and again."""

    def close(self) -> None:
        """Kill the jobs that have not ended, and free what the engine holds."""
