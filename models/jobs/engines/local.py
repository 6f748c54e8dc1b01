"""Run jobs in processes of this machine.

Each job runs in a separate process, forked from a server process with the libraries loaded (or
spawned, on systems where forking is unsafe), so memory does not grow from job to job and a killed
job does not affect others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from models.jobs.engines.engine import ENDS, Message
from models.jobs.engines.processes import explain_death, process_context, without_main
from models.jobs.engines.worker import work
from models.jobs.spec import JobSpec
from models.network.backbone import choose_attention
from models.training.hardware import (
    choose_precision,
    count_sharers,
    describe_device,
    find_device,
    list_gpu_notices,
    threads_per_job,
)
from models.variant import Variant


@dataclass
class _Running:
    spec: JobSpec
    slot: int
    process: Any
    link: Connection
    is_stopping: bool = False


Entry = Callable[[JobSpec, int, Connection], None]
"""What the process of a job runs, given its slot and a link to this process."""


class LocalEngine:
    """Runs jobs in processes of this machine; the job in slot i uses GPU i."""

    def __init__(self, workers: int, entry: Entry = work, *, threads: int | None = None) -> None:
        self.max_started = workers
        self.threads = threads_per_job(threads, workers)
        self._sharers = count_sharers(workers)
        self._entry = entry
        self._running: dict[int, _Running] = {}
        self._started: list[Message] = []

    @property
    def links(self) -> list[Connection]:
        """Return the links to the processes that run."""
        return [job.link for job in self._running.values()]

    def count_running(self, variants: Sequence[Variant]) -> int:
        """Return how many jobs run at a time, whatever they are."""
        del variants
        return self.max_started

    def describe(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Return lines that describe the device of the networks among jobs."""
        return describe_hardware(jobs, self.max_started)

    def expect(self, jobs: Sequence[JobSpec]) -> None:
        """Divide the memory of each GPU among the jobs that will share it."""
        self._sharers = count_sharers(min(self.max_started, max(1, len(jobs))))

    def start(self, spec: JobSpec) -> None:
        """Start the process of a job."""
        slot = next(i for i in range(self.max_started) if i not in self._running)
        context = process_context()
        ours, theirs = context.Pipe()
        shared = replace(spec, sharers=self._sharers)
        process = context.Process(
            target=self._entry, args=(shared, slot, theirs), name=spec.job_dir.name
        )
        with without_main():
            process.start()
        theirs.close()
        self._running[slot] = _Running(spec, slot, process, ours)
        self._started.append(Message(spec, "started"))

    def receive(self, timeout_s: float) -> list[Message]:
        """Return what processes sent, one message of each at most."""
        messages, self._started = self._started, []
        by_link = {id(job.link): job for job in self._running.values()}
        links = self.links
        for link in wait(links, timeout=0 if messages else timeout_s) if links else []:
            messages.append(self._receive_one(by_link[id(link)]))
        return messages

    def request_stop(self) -> None:
        """Ask all processes to write a checkpoint and exit."""
        for job in self._running.values():
            if not job.is_stopping:
                job.is_stopping = True
                with suppress(OSError):  # it has exited
                    job.link.send(("stop", None))

    def close(self) -> None:
        """Kill the processes that are left."""
        for job in self._running.values():
            job.process.kill()
            job.process.join()
            job.link.close()
        self._running.clear()

    def _receive_one(self, job: _Running) -> Message:
        try:
            kind, payload = job.link.recv()
        except (EOFError, OSError):
            job.process.join()
            kind, payload = "failed", explain_death(job.process.exitcode)
        if kind in ENDS:
            job.process.join()
            job.link.close()
            del self._running[job.slot]
        return Message(job.spec, kind, payload)


def describe_hardware(jobs: Sequence[JobSpec], workers: int) -> list[str]:
    """Return lines that describe the device, precision and attention of the networks in jobs.

    Raises:
        VariantError: the device does not support the requested precision.
    """
    device = find_device()
    lines = {
        f"on {describe_device()}, {choose_precision(spec.variant.run.precision)}, "
        f"{choose_attention(spec.variant, device)} attention"
        for spec in jobs
        if spec.variant.is_network
    }
    return [*sorted(lines), *(list_gpu_notices(workers) if lines else ())]
