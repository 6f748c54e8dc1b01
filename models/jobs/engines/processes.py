"""How the processes of jobs are started, and why they died. It imports no learning library."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util
from types import ModuleType
from typing import Any

PRELOAD = (
    "models.jobs.engines.worker",
    "transformers.modeling_utils",
    "accelerate",
    "safetensors.torch",
    "sklearn.calibration",
    "sklearn.feature_extraction.text",
    "sklearn.svm",
    "models.jobs.engines.preloaded",
)
"""Modules that take a job two seconds to import; the last keeps them out of garbage collection."""
SOCKET_FOLDER_MAX_BYTES = (
    104 - 1 - len("/pymp-12345678/listener-12345678")
)  # the least of any system
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes one of our own


MAIN_LOCK = threading.Lock()  # a second thread would take the empty module for the real one


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


@contextmanager
def without_main() -> Iterator[None]:
    """Start processes that do not run this one's main module again; jobs use nothing of it.

    Otherwise every job would import ``run.py``, or run a script that calls ``harness.fold`` again.
    """
    with MAIN_LOCK:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


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
