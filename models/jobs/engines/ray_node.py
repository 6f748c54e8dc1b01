"""What runs on the nodes of a Ray cluster: a task that looks after the process of one job.

The task unpacks what the job reads (once for each node), starts the job in a separate process, as
the local engine does, passes on what it says, and sends its training states to the driver. It loads
no learning library itself: the process has them from its fork server, and the task of the next job
finds that server running.
"""

from __future__ import annotations

import json
import multiprocessing.connection
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray

from competition.lease import hold
from models.jobs.engines.processes import process_context, without_main

MAIL_S = 0.5
STATE_COST_FRAC = 0.05
"""Sending training states takes at most about this fraction of the time."""
OLD_S = 7 * 86_400.0  # after which what another command left on a node is removed

Bytes = Any  # a NumPy array of bytes, which Ray shares between processes without a copy
Ref = Any


@dataclass(frozen=True)
class Shipment:
    """A job on its way to a node. References to the object store stay references within it.

    Attributes:
        job: names this run of the job.
        home: names the command that sent it.
        spec: the job without its rows; see ``wire``.
        rows: its rows and held-out labels; the jobs of a fold share them.
        inputs: by their path on the driver's machine, the name of each and its files.
        state_file: path of its training state below its home.
        state: the training state to resume from, if there is one.
    """

    job: str
    home: str
    spec: bytes
    rows: Ref
    inputs: Mapping[str, tuple[str, Mapping[str, Ref]]]
    state_file: str
    state: Ref | None


@dataclass(frozen=True)
class Delivery:
    """What came of a job on a node.

    Attributes:
        raw: its last messages; see ``wire``.
        exitcode: of its process; None if none was started.
        files: what it wrote, by path below its home: results, weights, a training state.
        node: identifier of the node.
    """

    raw: tuple[bytes, ...]
    exitcode: int | None
    files: Mapping[str, Bytes] = field(repr=False)
    node: str


class Mailbox:
    """An actor beside the driver, through which jobs and driver talk."""

    def __init__(self) -> None:
        self._mail: list[tuple[str, str, list[bytes], Ref | None]] = []
        self._is_stopping = False

    def exchange(self, job: str, node: str, raw: list[bytes], state: list[Ref]) -> bool:
        """Take messages of a job, and perhaps a training state; return whether it should stop."""
        self._mail.append((job, node, raw, state[0] if state else None))
        return self._is_stopping

    def collect(self) -> list[tuple[str, str, list[bytes], Ref | None]]:
        """Return what has come since the last time: job, node, messages, training state."""
        mail, self._mail = self._mail, []
        return mail

    def stop(self) -> None:
        """Let every job stop at its next exchange."""
        self._is_stopping = True


def run_there(shipment: Shipment, mailbox: Any) -> Delivery:
    """Run a job on this node; the function of a Ray task.

    In a thread: while the main thread of a task waits for Ray, Ray gives its CPUs to another task.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_run_here, shipment, mailbox).result()


def _run_here(shipment: Shipment, mailbox: Any) -> Delivery:
    node = ray.get_runtime_context().get_node_id()
    ray.get(mailbox.exchange.remote(shipment.job, node, [], []))  # it begins
    home = node_folder(shipment.home) / "jobs" / shipment.job
    try:
        places = {path: unpack(shipment.home, *each) for path, each in shipment.inputs.items()}
        if shipment.state is not None:
            _write(home / shipment.state_file, ray.get(shipment.state))
        with without_main():
            ours, theirs = process_context().Pipe()
            how = {"home": str(home), "places": places, "gpus": os.environ.get(GPUS)}
            process = process_context().Process(
                target=work_there, args=((shipment.spec, ray.get(shipment.rows)), how, theirs)
            )
            process.start()
        theirs.close()
        raw = _look_after(ours, _Sender(shipment.job, node, mailbox, home / shipment.state_file))
        process.join()
        return Delivery(tuple(raw), process.exitcode, _read_files(home), node)
    finally:
        shutil.rmtree(home, ignore_errors=True)


GPUS = "CUDA_VISIBLE_DEVICES"  # Ray names in it the GPUs of a task


def work_there(written: tuple[bytes, bytes], how: Mapping[str, Any], link: Any) -> None:
    """Run a job in this process; entry point of a worker on a node."""
    if how["gpus"] is not None:
        os.environ[GPUS] = how["gpus"]
    home = Path(how["home"])
    try:
        from models.jobs.engines.parcel import move
        from models.jobs.engines.wire import read_spec, write_message
        from models.jobs.engines.worker import work

        moved = move(read_spec(*written), how["places"], home, home.parent.parent / "cache")
    except ModuleNotFoundError as error:
        reason = (
            f"node {platform.node()}: {sys.executable} has no library {error.name!r}; install "
            "requirements.txt there, into the Python that runs ray"
        )
        link.send_bytes(_fail(reason))
    except Exception:
        link.send_bytes(_fail(f"node {platform.node()}:\n{traceback.format_exc()}"))
    else:
        work(moved, 0, _PlainLink(link, write_message))


def _fail(reason: str) -> bytes:
    """Return what ``write_message`` does, which may lack its libraries here."""
    return json.dumps(["failed", reason]).encode()


@dataclass(frozen=True)
class _PlainLink:
    """A link that sends messages in the form in which they reach the driver."""

    link: multiprocessing.connection.Connection
    write: Callable[[str, Any], bytes]

    def send(self, message: tuple[str, Any]) -> None:
        self.link.send_bytes(self.write(*message))

    def recv(self) -> object:
        return self.link.recv_bytes()

    def close(self) -> None:
        self.link.close()


def clean(home: str) -> None:
    """Remove what a command left on this node."""
    shutil.rmtree(node_folder(home), ignore_errors=True)


def node_folder(home: str) -> Path:
    """Return the folder of a command on this node, below TMPDIR.

    Raises:
        PermissionError: somebody else could write to it.
    """
    node = ray.get_runtime_context().get_node_id()
    return open_private(Path(tempfile.gettempdir())) / f"{home}-{node[:12]}"


def open_private(parent: Path) -> Path:
    """Return this user's folder in one that others may write to; make it if it is missing.

    Raises:
        PermissionError: what lies there is a link, or belongs to another user, or others may enter.
    """
    folder = parent / f"harness-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not is_own or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(
            f"{folder} on {platform.node()} is not a folder of this user alone, so others could "
            "change what jobs read: remove it, or run `chmod 700` on it if it is yours, or set "
            "TMPDIR to another folder and start Ray again"
        )
    return folder


def unpack(home: str, name: str, files: Mapping[str, Ref]) -> str:
    """Write an input to this node, unless another job has done so; return its path."""
    folder = node_folder(home)
    place = folder / "inputs" / name
    is_file = len(files) == 1 and name.endswith("-file")
    if not place.is_dir():
        _remove_old(folder.parent)
        with hold(place):
            if not place.is_dir():
                partial = place.with_name(f"{name}.partial")
                for relative, ref in files.items():
                    _write(partial / relative, ray.get(ref))
                partial.rename(place)
    os.utime(folder)
    return str(place / next(iter(files)) if is_file else place)


class _Sender:
    """Sends messages and training states of one job to the driver."""

    def __init__(self, job: str, node: str, mailbox: Any, state: Path) -> None:
        self.job, self.node, self.mailbox, self.state = job, node, mailbox, state
        self.sent = self._find_time()
        self.rest_until = 0.0

    def exchange(self, raw: list[bytes]) -> bool:
        """Send messages, and a new training state now and then; return whether to stop."""
        refs = []
        now = time.monotonic()
        written = self._find_time()
        if written > self.sent and now >= self.rest_until:
            with suppress(OSError):
                refs = [ray.put(read_bytes(self.state))]
                self.sent = written
        stop: bool = ray.get(self.mailbox.exchange.remote(self.job, self.node, raw, refs))
        if refs:
            self.rest_until = now + (time.monotonic() - now) / STATE_COST_FRAC
        return stop

    def _find_time(self) -> int:
        try:
            return self.state.stat().st_mtime_ns
        except OSError:
            return 0


def _look_after(link: multiprocessing.connection.Connection, sender: _Sender) -> list[bytes]:
    """Pass on the messages of a process until it ends; return those not yet passed on."""
    raw: list[bytes] = []
    is_stopping = False
    due = time.monotonic()
    while True:
        if link.poll(max(0.0, due - time.monotonic())):
            try:
                raw.append(link.recv_bytes())
            except (EOFError, OSError):
                return raw
        if time.monotonic() >= due:
            stop = sender.exchange(raw)
            raw = []
            due = time.monotonic() + MAIL_S
            if stop and not is_stopping:
                is_stopping = True
                with suppress(OSError):  # it has exited
                    link.send_bytes(b"stop")


def _read_files(home: Path) -> dict[str, Bytes]:
    """Read the output of a job: results and the files of its folder, except logs and leases."""
    found = sorted(home.rglob("*"))
    kept = [
        path
        for path in found
        if path.is_file() and path.suffix not in (".log", ".lease") and path.name[0] != "."
    ]
    return {path.relative_to(home).as_posix(): np.array(read_bytes(path)) for path in kept}


def read_bytes(path: Path) -> Bytes:
    """Return the content of a file as an array, mapped rather than read."""
    if not path.stat().st_size:
        return np.empty(0, np.uint8)
    return np.asarray(np.memmap(path, np.uint8, mode="r"))


def _write(path: Path, content: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(memoryview(content))


def _remove_old(folder: Path) -> None:
    """Remove what commands that were killed left on this node long ago."""
    for path in folder.glob("*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD_S:
                shutil.rmtree(path, ignore_errors=True)
