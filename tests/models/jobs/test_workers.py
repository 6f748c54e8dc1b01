from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.connection import arbitrary_address
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from competition.errors import TrainingError
from models.jobs.engines import processes
from models.jobs.engines.engine import Message
from models.jobs.engines.local import LocalEngine
from models.jobs.engines.worker import work
from models.jobs.spec import LOG_FILE, JobOutcome, JobSpec
from models.jobs.workers import FoldHooks, run_jobs

Specs = Callable[..., list[JobSpec]]


def refuse(error: Exception) -> Callable[..., Any]:
    def raise_it(*arguments: Any, **options: Any) -> Any:
        raise error

    return raise_it


def answer_of(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Run a job in this process as a worker would, and return its last message."""
    monkeypatch.setattr("models.jobs.engines.worker.signal.signal", lambda number, action: None)
    ours, theirs = multiprocessing.Pipe()
    work(spec, 0, theirs)
    kind, payload = "", ""
    while ours.poll():
        try:
            kind, payload = ours.recv()
        except EOFError:
            break
    ours.close()
    return kind, payload


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "the GPU is out of memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (RuntimeError("shapes differ"), "a bug in this program:\nTraceback"),
    ],
)
def test_a_job_says_why_it_failed(
    error: Exception, said: str, make_specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = make_specs(folds=(0,))
    monkeypatch.setattr("models.jobs.engines.worker.run_job", refuse(error))
    kind, reason = answer_of(spec, monkeypatch)
    assert kind == "failed"
    assert reason.startswith(said)
    assert f"failed: {said}" in (spec.job_dir / LOG_FILE).read_text()


def test_an_unavailable_gpu_fails_only_the_job(
    make_specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = make_specs(folds=(0,))
    busy = RuntimeError("CUDA error: out of memory")
    monkeypatch.setattr("models.jobs.engines.worker.choose_gpu", refuse(busy))
    kind, reason = answer_of(spec, monkeypatch)
    assert (kind, reason[:24]) == ("failed", "the GPU is out of memory")


@pytest.mark.parametrize(
    ("platform", "methods", "method"),
    [
        ("linux", ["fork", "spawn", "forkserver"], "forkserver"),
        ("darwin", ["spawn", "fork", "forkserver"], "spawn"),
        ("win32", ["spawn"], "spawn"),
    ],
)
def test_the_start_method_depends_on_the_platform(
    platform: str, methods: list[str], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: methods)
    assert processes.process_context().get_start_method() == method


class EndsWhileAsked:
    """An engine whose only job ends just after the command was asked to stop."""

    max_started = threads = 1

    def expect(self, jobs: Sequence[JobSpec]) -> None:
        pass

    def start(self, spec: JobSpec) -> None:
        self.spec = spec

    def receive(self, timeout_s: float) -> list[Message]:
        signal.raise_signal(signal.SIGTERM)
        return [Message(self.spec, "done", JobOutcome(self.spec.key, finished=True))]


def test_a_stop_request_is_reported_although_every_job_finished(make_specs: Specs) -> None:
    specs = make_specs(folds=(0,))
    hooks = FoldHooks(*[lambda *said: None] * 5)
    run = run_jobs(specs, engine=EndsWhileAsked(), deadline=None, hooks=hooks)  # type: ignore[arg-type]
    assert [outcome.key for outcome in run.finished] == [specs[0].key]
    assert run.stopped == ()
    assert run.asked_to_stop
    assert not run_jobs([], engine=EndsWhileAsked(), deadline=None, hooks=hooks).asked_to_stop  # type: ignore[arg-type]


def _count_frozen(link: Any) -> None:
    link.send(gc.get_freeze_count())


@pytest.mark.skipif(sys.platform == "darwin", reason="there is no fork server")
def test_no_job_collects_garbage_among_the_libraries() -> None:
    ours, theirs = processes.process_context().Pipe()
    process = processes.process_context().Process(target=_count_frozen, args=(theirs,))
    process.start()
    assert ours.recv() > 100_000
    process.join()


def _greet(spec: JobSpec, slot: int, link: Any) -> None:
    link.send(f"hello from {spec.variant.name}")


def test_a_gpu_is_divided_among_the_jobs_that_run_not_among_those_that_could(
    make_specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.jobs.engines.local.count_sharers", lambda workers: workers)
    specs = make_specs(folds=(0, 1))
    engine = LocalEngine(4)
    for n_jobs in (2, 1):
        engine.expect(specs[:n_jobs])
        engine.describe(specs)
        assert engine._sharers == n_jobs


def test_a_job_does_not_run_the_main_module_again(
    make_specs: Specs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that calls ``harness.fold`` needs no guard."""
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('run twice')")
    main = ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    (spec,) = make_specs(folds=(0,))
    with closing(LocalEngine(1, _greet)) as engine:
        engine.start(spec)
        (link,) = engine.links
        assert link.recv() == f"hello from {spec.variant.name}"
    assert sys.modules["__main__"] is main


@pytest.mark.parametrize("has_short_folder", [True, False])
def test_a_long_folder_for_temporary_files_keeps_no_job_from_starting(
    has_short_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    if not has_short_folder:
        monkeypatch.setattr(processes, "SHORT_FOLDERS", ())
        assert processes.process_context().get_start_method() == "spawn"
        return
    assert processes.process_context().get_start_method() == "forkserver"
    assert tempfile.gettempdir() == str(folder)
    address = arbitrary_address("AF_UNIX")  # as the server of the processes names its own
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
    Path(address).unlink()


@pytest.mark.parametrize("refused", ["log", "folder"])
def test_a_disk_that_takes_no_log_shows_no_traceback(
    refused: str, make_specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = make_specs(folds=(0,))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(spec.job_dir))
    open_ = Path.open

    def open_but_the_log(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == LOG_FILE:
            raise full
        return open_(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_but_the_log)
    if refused == "folder":
        monkeypatch.setattr(Path, "mkdir", refuse(full))
    monkeypatch.setattr("models.jobs.engines.worker.run_job", refuse(TrainingError("it is over")))
    kind, reason = answer_of(spec, monkeypatch)
    assert kind == "failed"
    assert "Traceback" not in reason
    assert ("No space left" in reason) == (refused == "folder")
