"""The process of one job: run it under its lease, log to its folder, and report over a pipe.

A job logs to ``job.log`` in its checkpoint folder. If the process that started it disappears, it
writes its training state and exits.
"""

from __future__ import annotations

import datetime
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from competition.console import make_streams_safe
from competition.errors import HarnessError, explain_os_error
from competition.files import remove_leftovers
from competition.lease import Lease, Leases, describe_lost, name_owner
from competition.predictions.store import Store
from models.jobs.job import run_job
from models.jobs.spec import LEASED, LOG_FILE, JobOutcome, JobSpec
from models.jobs.tracking import Recorder
from models.training.control import Progress, Watch
from models.training.hardware import report_gpu_errors

Run = Callable[[JobSpec, Watch], JobOutcome]
"""Runs a job, and stores its result."""


class Link(Protocol):
    """The way to the process that started this one: one end of a pipe, or what wraps it."""

    def send(self, message: tuple[str, Any], /) -> None:
        """Send a message.

        Raises:
            OSError: that process has exited.
        """

    def recv(self) -> object:
        """Wait for a message.

        Raises:
            EOFError, OSError: that process has exited.
        """

    def close(self) -> None:
        """Close this end."""


def work(spec: JobSpec, slot: int, link: Link, run: Run | None = None) -> None:
    """Run one job in this process and send its outcome over ``link``; entry point of a worker.

    Args:
        spec: the job.
        slot: uses GPU ``slot``.
        link: to the process that started it.
        run: None for ``run_job``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    make_streams_safe()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(link, stop), daemon=True).start()

    def log(text: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        append_to_log(spec, f"{now} pid {os.getpid()} {text}\n")
        send(link, ("said", text))

    try:
        spec.job_dir.mkdir(parents=True, exist_ok=True)
        with report_gpu_errors():
            choose_gpu(slot)
            answer = _work_leased(spec, stop, link, log, run or run_job)
    except BaseException as error:
        answer = ("failed", explain_failure(error))
    append_to_log(spec, write_answer(answer))
    send(link, answer)
    link.close()


def explain_failure(error: BaseException) -> str:
    """Return what to say of an error that ended a job; call it where the error is caught."""
    if isinstance(error, HarnessError):
        return str(error)
    if isinstance(error, FileNotFoundError):  # it was there when the job was planned
        return f"{error.filename or error} is gone; run the same command again to make it again"
    known = explain_os_error(error) if isinstance(error, OSError) else None
    return known or "a bug in this program:\n" + traceback.format_exc()


def append_to_log(spec: JobSpec, text: str) -> None:
    """Append to the log of a job; the job continues if it cannot be written (a full disk)."""
    with suppress(OSError), (spec.job_dir / LOG_FILE).open("ab", buffering=0) as stream:
        stream.write(text.encode("utf-8", errors="replace"))


def write_answer(answer: tuple[str, Any]) -> str:
    """Format the outcome of a job as the last line of its log."""
    kind, payload = answer
    if kind == "busy":
        return f"busy: {payload} is running this job\n"
    if kind == "failed":
        return f"failed: {payload}\n"
    if payload.finished:
        return "finished: the result is in the store\n"
    return f"stopped at step {payload.step}: the next fold command resumes here\n"


def _work_leased(
    spec: JobSpec, stop: threading.Event, link: Link, log: Callable[[str], None], run: Run
) -> tuple[str, Any]:
    """Run a job, unless another process is running it or has finished it since it was planned."""
    with Leases() as leases:
        claimed = claim(spec, leases, log)
        if not isinstance(claimed, Lease):
            return claimed
        remove_leftovers(spec.job_dir)
        log(f"started, fingerprint {spec.fingerprint[:16]}")
        recorder = Recorder(spec, log)
        last_logged = -1e9

        def report(progress: Progress) -> None:
            nonlocal last_logged
            send(link, ("progress", progress))
            recorder.report(progress, time.monotonic())
            if time.monotonic() - last_logged > 15:
                last_logged = time.monotonic()
                line = f"step {progress.step} of {progress.steps}, loss {progress.loss:.4f}"
                stream_line = f"{line}, {progress.rows_per_s:.0f} rows/s"
                log(stream_line)

        def should_stop() -> bool:
            return stop.is_set() or claimed.is_lost

        try:
            outcome = run(spec, Watch(report=report, should_stop=should_stop, log=log))
        except BaseException:
            recorder.finish(None)
            raise
        recorder.finish(outcome)
        if claimed.is_lost and not outcome.finished:
            return "failed", describe_lost(claimed)
        return "done", outcome


def claim(
    spec: JobSpec, leases: Leases, log: Callable[[str], None]
) -> Lease | tuple[Literal["busy", "done", "failed"], Any]:
    """Take the lease of a job, so that no other process runs it.

    Returns:
        The lease, or the last message of the job: another process is running it, or has finished
        it or stored another recipe since it was planned.
    """
    path = lease_path(spec)
    lease = leases.acquire(path)
    if lease is None:
        return "busy", name_owner(path) or "another process"
    store = Store(spec.store_dir, spec.labels)
    store.keys(spec.key.variant)  # reading the folder makes a network file system look again
    header = store.read_header(spec.key)
    if header is None or header.fingerprint == spec.replaces:
        return lease
    leases.release(lease)
    if header.fingerprint == spec.fingerprint:
        log("done by another process in the meantime")
        return "done", JobOutcome(spec.key, finished=True)
    return "failed", (
        "in the meantime, another process stored a result of another recipe under this name; "
        "train yours under a new name with --as NAME"
    )


def lease_path(spec: JobSpec) -> Path:
    """Return what is leased while a job runs."""
    return spec.job_dir / LEASED


def _listen(link: Link, stop: threading.Event) -> None:
    """Set ``stop`` when the parent sends a message or exits."""
    try:
        link.recv()
    except (EOFError, OSError):
        pass
    finally:
        stop.set()


def send(link: Link, message: tuple[str, Any]) -> None:
    """Send a message to the process that started this one, if that is still there."""
    with suppress(OSError):  # the parent has exited; `_listen` stops the job
        link.send(message)


def choose_gpu(slot: int) -> None:
    """Use one of the GPUs of this machine, if there are any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(slot % torch.cuda.device_count())
