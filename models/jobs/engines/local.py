"""Run jobs in processes of this machine.

Each job runs in a process of its own, forked from a server process with the libraries loaded (or
spawned, on systems where forking is unsafe), so memory does not grow from job to job and a killed
job does not affect others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from typing import Any

from models.jobs.engines.engine import ENDS, Message
from models.jobs.engines.worker import work
from models.jobs.spec import JobSpec

PRELOAD = (
    "models.jobs.engines.worker",
    "transformers.modeling_utils",
    "accelerate",
    "safetensors.torch",
    "torch._inductor.config",
)
"""Modules that take a job two seconds to import; torch imports the last one when it is restricted
to deterministic kernels."""
SOCKET_FOLDER_MAX_BYTES = (
    104 - 1 - len("/pymp-12345678/listener-12345678")
)  # the least of any system
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes one of our own


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

    def __init__(self, workers: int, entry: Entry = work) -> None:
        self.slots = workers
        self._entry = entry
        self._running: dict[int, _Running] = {}
        self._started: list[Message] = []

    @property
    def links(self) -> list[Connection]:
        """Return the links to the processes that run."""
        return [job.link for job in self._running.values()]

    def start(self, spec: JobSpec) -> None:
        """Start the process of a job."""
        slot = next(i for i in range(self.slots) if i not in self._running)
        context = process_context()
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self._entry, args=(spec, slot, theirs), name=spec.job_dir.name
        )
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


def process_context() -> Any:
    """Return how processes are started: by a fork server with the libraries loaded, if supported.

    Not on macOS, whose system libraries are not safe to use after a fork.
    """
    methods = multiprocessing.get_all_start_methods()
    if sys.platform == "darwin" or "forkserver" not in methods:
        return multiprocessing.get_context("spawn")
    if not _has_short_socket_folder():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context


def _has_short_socket_folder() -> bool:
    """Choose a folder for the fork server's socket; return False if there is none.

    The socket is in the folder for temporary files, and the system limits its path to about a
    hundred bytes. If TMPDIR is longer, multiprocessing creates its folder elsewhere.
    """
    before = tempfile.gettempdir()
    for folder in (before, *SHORT_FOLDERS):
        is_short = len(os.fsencode(folder)) <= SOCKET_FOLDER_MAX_BYTES
        if is_short and os.access(folder, os.W_OK | os.X_OK):
            tempfile.tempdir = folder
            try:
                made = util.get_temp_dir()  # kept for as long as this process lives
            finally:
                tempfile.tempdir = before
            return len(os.fsencode(made)) <= SOCKET_FOLDER_MAX_BYTES + len("/pymp-12345678")
    return False


def explain_death(exitcode: int | None) -> str:
    """Return why a process ended without a result, from its exit code."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = "; out of memory?" if -exitcode == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}; run the same command again to resume"
    return f"its process exited without a result (exit code {exitcode})"
