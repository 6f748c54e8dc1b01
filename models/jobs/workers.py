"""Run jobs in worker processes: start, monitor and stop them, and report those that die.

Each job runs in a process of its own, forked from a server process with the libraries loaded (or
spawned, on systems where forking is unsafe), so memory does not grow from job to job and a killed
job does not affect others. A job logs to ``job.log`` in its checkpoint folder. If the parent
process disappears, a job writes its training state and exits.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from typing import Any

from filelock import FileLock, Timeout

from competition.console import make_streams_safe
from competition.errors import HarnessError, TrainingError, explain_os_error
from competition.predictions.members import ResultKey, Store
from models.jobs.job import run_job
from models.jobs.spec import LOG_FILE, JobOutcome, JobSpec
from models.training.control import Progress, Watch, stop_requests
from models.training.hardware import report_gpu_errors

PRELOAD = (
    "models.jobs.workers",
    "transformers.modeling_utils",
    "accelerate",
    "safetensors.torch",
    "torch._inductor.config",
)
"""Modules that take a job two seconds to import; torch imports the last one when it is restricted
to deterministic kernels."""
BUSY_WAIT_S = 5.0
SOCKET_FOLDER_MAX_BYTES = (
    104 - 1 - len("/pymp-12345678/listener-12345678")
)  # the least of any system
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes one of our own
POLL_S = 0.5


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
    """Outcomes of jobs: finished, stopped after writing a training state, or failed, and why."""

    finished: tuple[JobOutcome, ...]
    stopped: tuple[ResultKey, ...]
    failed: tuple[tuple[ResultKey, str], ...]


@dataclass
class _Running:
    spec: JobSpec
    slot: int
    process: Any
    link: Connection
    is_stopping: bool = False


def run_jobs(
    specs: Sequence[JobSpec], *, workers: int, deadline: float | None, hooks: FoldHooks
) -> FoldRun:
    """Run jobs, ``workers`` at a time, until all are done or stopped by the deadline or Ctrl-C.

    Args:
        specs: the jobs, in the order to start them.
        workers: number of parallel processes; worker i uses GPU i.
        deadline: on the clock of ``time.monotonic``; running jobs then write their training state
            and exit.
        hooks: callbacks.
    """
    context = _process_context()
    waiting = list(specs)
    running: dict[int, _Running] = {}
    finished: list[JobOutcome] = []
    stopped: list[ResultKey] = []
    failed: list[tuple[ResultKey, str]] = []
    retry_at: dict[ResultKey, float] = {}  # jobs that another process is running
    said = "stopping: running jobs write a checkpoint; press Ctrl-C again to kill them"
    with stop_requests(said, deadline=deadline) as should_stop:
        while waiting or running:
            stopping, now = should_stop(), time.monotonic()
            ready = [spec for spec in waiting if retry_at.get(spec.key, 0.0) <= now]
            chosen = ready[: 0 if stopping else workers - len(running)]
            waiting = [spec for spec in waiting if not any(spec is one for one in chosen)]
            for spec in chosen:
                slot = next(i for i in range(workers) if i not in running)
                running[slot] = _start(context, spec, slot)
                hooks.started(running[slot].spec)
            if stopping:
                stopped += [spec.key for spec in waiting]
                waiting.clear()
                for job in running.values():
                    _request_stop(job)
            for job in _ready(running):
                answer = _receive(job, hooks)
                if answer is None:
                    continue
                del running[job.slot]
                job.process.join()
                kind, payload = answer
                if kind == "busy":
                    waiting.append(job.spec)
                    retry_at[job.spec.key] = time.monotonic() + BUSY_WAIT_S
                elif kind == "failed":
                    failed.append((job.spec.key, payload))
                    hooks.failed(job.spec, payload)
                elif payload.finished:
                    finished.append(payload)
                    hooks.finished(job.spec, payload)
                else:
                    stopped.append(job.spec.key)
            if waiting and not running:
                time.sleep(POLL_S)
    return FoldRun(tuple(finished), tuple(stopped), tuple(failed))


def work(spec: JobSpec, slot: int, link: Connection) -> None:
    """Run one job in this process and send its outcome over ``link``; entry point of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    make_streams_safe()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(link, stop), daemon=True).start()

    def log(text: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        _append_to_log(spec, f"{now} pid {os.getpid()} {text}\n")
        _send(link, ("said", text))

    try:
        spec.job_dir.mkdir(parents=True, exist_ok=True)
        with report_gpu_errors():
            _choose_gpu(slot)
            answer = _work_locked(spec, stop, link, log)
    except HarnessError as error:
        answer = ("failed", str(error))
    except BaseException as error:
        known = explain_os_error(error) if isinstance(error, OSError) else None
        answer = ("failed", known or "a bug in this program:\n" + traceback.format_exc())
    _append_to_log(spec, _write_answer(answer))
    _send(link, answer)
    link.close()


def _append_to_log(spec: JobSpec, text: str) -> None:
    """Append to the log of a job; the job continues if it cannot be written (a full disk)."""
    with suppress(OSError), (spec.job_dir / LOG_FILE).open("ab", buffering=0) as stream:
        stream.write(text.encode("utf-8", errors="replace"))


def _write_answer(answer: tuple[str, Any]) -> str:
    """Format the outcome of a job as the last line of its log."""
    kind, payload = answer
    if kind == "busy":
        return "busy: another process is running this job\n"
    if kind == "failed":
        return f"failed: {payload}\n"
    if payload.finished:
        return "finished: the result is in the store\n"
    return f"stopped at step {payload.step}: the next fold command resumes here\n"


def _process_context() -> Any:
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


def _work_locked(
    spec: JobSpec, stop: threading.Event, link: Connection, log: Callable[[str], None]
) -> tuple[str, Any]:
    """Run a job, unless another process is running it or has finished it since it was planned."""
    try:
        with FileLock(spec.job_dir / "job.lock", timeout=0):
            header = Store(spec.store_dir, spec.labels).read_header(spec.key)
            if header is not None and header.fingerprint != spec.replaces:
                if header.fingerprint == spec.fingerprint:
                    log("done by another process in the meantime")
                    return "done", JobOutcome(spec.key, finished=True)
                return "failed", (
                    "in the meantime, another process stored a result of another recipe under "
                    "this name; train yours under a new name with --as NAME"
                )
            log(f"started, fingerprint {spec.fingerprint[:16]}")
            last_logged = -1e9

            def report(progress: Progress) -> None:
                nonlocal last_logged
                _send(link, ("progress", progress))
                if time.monotonic() - last_logged > 15:
                    last_logged = time.monotonic()
                    line = f"step {progress.step} of {progress.steps}, loss {progress.loss:.4f}"
                    stream_line = f"{line}, {progress.rows_per_s:.0f} rows/s"
                    log(stream_line)

            watch = Watch(report=report, should_stop=stop.is_set, log=log)
            return "done", run_job(spec, watch)
    except Timeout:
        return "busy", None


def _listen(link: Connection, stop: threading.Event) -> None:
    """Set ``stop`` when the parent sends a message or exits."""
    try:
        link.recv()
    except (EOFError, OSError):
        pass
    finally:
        stop.set()


def _send(link: Connection, message: tuple[str, Any]) -> None:
    with suppress(OSError):  # the parent has exited; `_listen` stops the job
        link.send(message)


def _start(context: Any, spec: JobSpec, slot: int) -> _Running:
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(spec, slot, theirs), name=spec.job_dir.name)
    process.start()
    theirs.close()
    return _Running(spec, slot, process, ours)


def _ready(running: Mapping[int, _Running]) -> Iterator[_Running]:
    by_link = {id(job.link): job for job in running.values()}
    for link in wait([job.link for job in running.values()], timeout=POLL_S) if by_link else []:
        yield by_link[id(link)]


def _receive(job: _Running, hooks: FoldHooks) -> tuple[str, Any] | None:
    """Receive one message of a job; return it if it is the final outcome."""
    try:
        kind, payload = job.link.recv()
    except (EOFError, OSError):
        job.process.join()
        return "failed", _explain_death(job.process.exitcode)
    if kind == "progress":
        hooks.progress(job.spec, payload)
        return None
    if kind == "said":
        hooks.said(job.spec, payload)
        return None
    return kind, payload


def _explain_death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = "; out of memory?" if -exitcode == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}; run the same command again to resume"
    return f"its process exited without a result (exit code {exitcode})"


def _request_stop(job: _Running) -> None:
    if not job.is_stopping:
        job.is_stopping = True
        _send(job.link, ("stop", None))


def _choose_gpu(slot: int) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(slot % torch.cuda.device_count())


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
