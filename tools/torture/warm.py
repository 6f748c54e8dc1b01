"""Start commands quickly, as forks of a process that has loaded the libraries.

Loading takes most of the time of a small command, and nothing is written meanwhile. A fork runs the
same code from there on: it has a session of its own, its fork server and the server's jobs are
processes, and each can be killed. ``python -m tools.torture.warm`` is that process; it takes
requests as lines of JSON, and writes the exit code of each command to a file.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, util
from pathlib import Path
from typing import IO, Any, NoReturn, cast

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    *("run", "models.jobs.engines.worker", "transformers.modeling_utils", "accelerate"),
    *("safetensors.torch", "models.jobs.fold", "models.pretraining.pretrain", "models.tuning.tune"),
    *("competition.blend.blend", "competition.importing.importing", "competition.upload.send"),
    *("competition.board.board", "transformers.models.modernbert.modeling_modernbert"),
    "models.jobs.engines.preloaded",
)
POLL_S = 0.005


@dataclass
class Command:
    """A command that was started; as far as needed, it behaves like ``subprocess.Popen``."""

    args: Sequence[str]
    pid: int
    code_file: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        if self.returncode is None:
            with suppress(FileNotFoundError):
                self.returncode = int(self.code_file.read_text("ascii"))
        return self.returncode

    def wait(self, timeout: float = 1800.0) -> int:
        """Wait for its end and return its exit code.

        Raises:
            TimeoutError: it takes longer.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} still runs")
            time.sleep(POLL_S)
        return code


class Starter:
    """Starts commands as forks of one process."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._folder = server, folder

    def start(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> Command:
        """Start ``run.py`` with these words; its output is appended to ``log``."""
        request = {"words": list(words), "environment": dict(environment), "log": str(log)}
        requests, answers = (
            cast("IO[str]", self._server.stdin),
            cast("IO[str]", self._server.stdout),
        )
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        pid = int(answers.readline())
        return Command(words, pid, self._folder / f"{pid}.code")


@contextmanager
def warm() -> Iterator[Starter]:
    """Load the libraries, and start commands in the block."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        words = [sys.executable, "-m", "tools.torture.warm", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        with server:
            if not cast("IO[str]", server.stdout).readline():  # once the libraries are loaded
                raise RuntimeError("the libraries cannot be loaded")
            yield Starter(server, Path(folder))


def serve(folder: Path) -> None:
    """Take requests from stdin until it is closed."""
    for room in ROOMS:
        importlib.import_module(room)
    os.write(1, b"ready\n")
    ended_r, ended_w = os.pipe()
    os.set_blocking(ended_w, False)
    signal.set_wakeup_fd(ended_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([0, ended_r], [], [])
        if ended_r in ready:
            os.read(ended_r, 4096)
            _note_ends(folder)
        if 0 in ready:
            request = _read_line()
            if not request:
                return
            pid = os.fork()
            if pid == 0:
                _become_command(**json.loads(request))
            (folder / f"{pid}.code").unlink(missing_ok=True)  # of an earlier one of that number
            os.write(1, f"{pid}\n".encode())


def _read_line() -> bytes:
    """Read a line from stdin without a buffer, which ``select`` would not see."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def _note_ends(folder: Path) -> None:
    """Write the exit code of each command that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        part = folder / f"{pid}.part"
        part.write_text(str(os.waitstatus_to_exitcode(status)), "ascii")
        part.rename(folder / f"{pid}.code")


def _become_command(words: Sequence[str], environment: dict[str, str], log: str) -> NoReturn:
    """Run a command in this process, which has just been forked, and end it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(target, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(environment)
    util.spawnv_passfds = _fork_passing  # type: ignore[assignment]
    sys.argv = ["run.py", *words]
    _end_with(lambda: importlib.import_module("run").main())


def _fork_passing(path: bytes, words: Sequence[Any], passed: Sequence[int]) -> int:
    """Start a helper of multiprocessing, given as ``python -c CODE``, as a fork; return its number.

    It stands for a function of multiprocessing, which starts an interpreter that loads all again.
    """
    del path
    pid = os.fork()
    if pid == 0:
        _become_helper(words[-1], passed)
    return pid


def _become_helper(code: str, passed: Sequence[int]) -> NoReturn:
    """Run a helper's code with no files open but those passed to it."""
    kept = sorted({0, 1, 2, *passed})
    for low, high in zip(kept, [*kept[1:], 1024], strict=True):
        os.closerange(low + 1, high)
    forkserver._forkserver.__init__()  # type: ignore[misc]  # its lock was held
    _end_with(lambda: exec(code, {}))  # noqa: S102 - it is multiprocessing's own code


def _end_with(main: Any) -> NoReturn:
    """Run a function and end this process with the exit code that it raises."""
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with suppress(Exception):
            util._exit_function()  # type: ignore[attr-defined]  # what multiprocessing does at exit
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
