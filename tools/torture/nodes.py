"""Kill a node of a Ray cluster while ``fold`` runs; the end must be as if nothing had happened.

``python -m tools.torture.nodes`` starts a head and two nodes here, each with its own session
folder, runs ``fold --engine ray`` on them, kills a node with all its processes once a training
state of a job there has come back, and compares every file with those of a local run.
``--epochs 40 --folds 0,1,2`` makes it longer; ``--variant tfidf-linear`` has no states.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tools.torture.homes import Home, kill_all
from tools.torture.warm import Command

HEAD, NODES = "head", ("first", "second")
PATIENCE_S = 600.0
OPEN = {"RAY_AUTH_MODE": "disabled"}  # else a token in the home of a user would be asked for
DAEMONS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",  # jobs need workers of an environment of their own
    "RAY_prestart_worker_first_driver": "0",
    # a node that refuses connections is given up after two seconds instead of fifteen; one that
    # is only slow to answer has as long as ever
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}
BEGINS = re.compile(r"begins on node (\S+), attempt")
STATE_FILE = "state.safetensors"
START_ATTEMPTS = 3
PORTS = (20_000, 30_000)
STARTED = "Ray runtime started"
OBJECT_STORE_BYTES = 100_000_000
TINY = (
    *("--encoder", "scratch", "--set", "scratch.layers=1", "--set", "scratch.hidden=32"),
    *("--set", "scratch.vocabulary=600", "--set", "max_tokens=64"),
    *("--set", "run.state_every_s=0.01"),
)

Found = TypeVar("Found")


@dataclass(frozen=True)
class Node:
    """A node of a Ray cluster on this machine: a command that starts its daemons and stays."""

    name: str
    process: subprocess.Popen[bytes]

    def freeze_jobs(self) -> None:
        """Stop the processes of its jobs where they are, but none of Ray's."""
        for pid in list_tree(self.process.pid):
            with suppress(OSError):
                parent = Path(f"/proc/{find_parent(pid)}/cmdline").read_bytes()
                if b"multiprocessing.forkserver" in parent:
                    os.kill(pid, signal.SIGSTOP)

    def kill(self) -> None:
        """Kill all its processes at once, jobs among them."""
        tree = list_tree(self.process.pid)
        for pid in tree:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def start_node(name: str, folder: Path, address: str, *, cpus: int) -> Node:
    """Start a node; ``address`` is the head's."""
    port = address.rpartition(":")[2]
    how = ["--head", "--port", port, "--include-dashboard", "false", "--no-monitor"]
    how = how if name == HEAD else ["--address", address]
    how += ["--include-log-monitor", "false"]
    temporary = folder / name / "tmp"
    shutil.rmtree(folder / name, ignore_errors=True)
    temporary.mkdir(parents=True)
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *how]
    words += [
        "--num-cpus",
        str(cpus),
        "--node-name",
        name,
        "--temp-dir",
        str(folder / name / "ray"),
    ]
    words += ["--object-store-memory", str(OBJECT_STORE_BYTES)]
    words += ["--min-worker-port", "0", "--max-worker-port", "0"]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **OPEN, **DAEMONS, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
    return Node(name, process)


def torture(
    folder: Path,
    command: Sequence[str],
    *,
    reference: Home | None = None,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Run a command locally and on a cluster that loses a node; return what differs.

    Args:
        folder: takes homes and sessions; its path must be short, as it takes sockets too.
        command: ``fold`` and its options.
        reference: where the command was run locally; None to run it here.
        say: called with what happens.
    """
    if reference is None:
        reference = Home(folder / "local").make()
        code, said = reference.run(command)
        if code:
            raise SystemExit(said)
    home = replace(reference, path=folder / "cluster", environment=OPEN).make()
    address = f"127.0.0.1:{find_port()}"
    jobs, log = home.path / "checkpoints", home.log
    log.touch()
    has_states = "tfidf-linear" not in command
    # the head runs no jobs; as the only node it is the one that the command belongs to
    nodes = start_nodes([HEAD], folder, address, cpus=0)
    process = None
    try:
        process = home.start([*command, "--engine", "ray", "--address", address])
        _wait(lambda: "on Ray, " in log.read_text("utf-8"), process, log)
        nodes |= start_nodes(NODES, folder, address, cpus=1)
        if has_states:
            name = _wait(lambda: find_state(folder), process, log)
            nodes[name].freeze_jobs()  # so that the kill comes in the middle of one
            _wait(lambda: has_come_back(jobs, name), process, log)
        else:
            name = _wait(lambda: find_busy(jobs), process, log)
        nodes[name].kill()
        say(f"killed node {name}")
        code = process.wait(PATIENCE_S)
    finally:
        if process is not None and process.poll() is None:
            kill_all(process)
        for node in nodes.values():
            node.kill()
    said = log.read_text("utf-8")
    logs = "\n".join(path.read_text("utf-8") for path in jobs.rglob("job.log"))
    faults = [f"exit code {code}: {said[-2000:]}"] if code else []
    faults += [] if "lost with its node" in said else [f"no job was lost: {said[-2000:]}"]
    faults += ["what Ray's daemons say is printed"] if "(raylet)" in said else []
    if has_states and "resumed at step" not in said:
        faults.append(f"no job was resumed: {logs[-2000:]}")
    wanted, found = reference.read(), home.read()
    faults += [f"{name} differs" for name in sorted(wanted) if wanted[name] != found.get(name)]
    faults += [f"{name} is left" for name in sorted(found.keys() - wanted.keys())]
    say(f"{len(wanted)} files compared, {len(faults)} faults")
    return faults


def start_nodes(names: Sequence[str], folder: Path, address: str, *, cpus: int) -> dict[str, Node]:
    """Start nodes beside each other and wait for them; on a busy machine that may take attempts.

    Ray itself gives up a node whose daemons are not there after half a minute.

    Raises:
        TimeoutError: with the end of the log of one that does not start.
    """
    started: dict[str, Node] = {}
    starting = {name: start_node(name, folder, address, cpus=cpus) for name in names}
    attempts = dict.fromkeys(names, 1)
    try:
        while starting:
            time.sleep(0.1)
            for name, node in tuple(starting.items()):
                said = (folder / f"{name}.log").read_text("utf-8", errors="replace")
                if STARTED in said:
                    started[name] = starting.pop(name)
                elif node.process.poll() is not None:
                    node.kill()
                    attempts[name] += 1
                    if attempts[name] > START_ATTEMPTS:
                        raise TimeoutError(f"Ray's daemons do not start: {said[-2000:]}")
                    starting[name] = start_node(name, folder, address, cpus=cpus)
    except BaseException:
        for node in (*started.values(), *starting.values()):
            node.kill()
        raise
    return started


def find_port() -> int:
    """Return a free port below those that the system, and so Ray's daemons, take for themselves."""
    while True:
        port = secrets.choice(range(*PORTS))
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def list_tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            children.setdefault(find_parent(int(entry.name)), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def find_parent(pid: int) -> int:
    """Return the parent of a process.

    Raises:
        OSError: there is no such process any more.
    """
    return int(Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1])


def find_state(folder: Path) -> str | None:
    """Return a node on which a job has written a training state; None if there is none."""
    for name in NODES:
        if any((folder / name / "tmp").glob(f"harness-*/*/jobs/*/checkpoints/*/*/{STATE_FILE}")):
            return name
    return None


def has_come_back(jobs: Path, node: str) -> bool:
    """Return whether a training state of a job on a node has reached the command."""
    for state in jobs.rglob(STATE_FILE):
        log = state.parent / "job.log"
        if log.is_file() and BEGINS.findall(log.read_text("utf-8"))[-1:] == [node]:
            return True
    return False


def find_busy(jobs: Path) -> str | None:
    """Return the node of a job that has begun; None if there is none."""
    for log in jobs.rglob("job.log"):
        lines = log.read_text("utf-8")
        if "started, fingerprint" in lines and "finished" not in lines:
            return str(BEGINS.findall(lines)[-1])
    return None


def _wait(
    find: Callable[[], Found | None], process: subprocess.Popen[bytes] | Command, log: Path
) -> Found:
    """Wait until something is found while a command runs, and return it.

    Raises:
        TimeoutError: the command ended before, or it takes too long; with the end of its log.
    """
    end = time.monotonic() + PATIENCE_S
    while not (found := find()):
        if process.poll() is not None or time.monotonic() > end:
            why = "the command ended" if process.poll() is not None else "it takes too long"
            raise TimeoutError(f"{why}: {log.read_text('utf-8', errors='replace')[-2000:]}")
        time.sleep(0.005)
    return found


def main() -> None:
    """Kill a node once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="concat-cls")
    parser.add_argument("--folds", default="0,1")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, default=400)
    asked = parser.parse_args()
    command = ["fold", asked.variant, "--folds", asked.folds, "--threads", "1"]
    command += ["--limit", str(asked.limit)]
    if asked.variant != "tfidf-linear":
        command += [*TINY, "--set", f"train.epochs={asked.epochs}"]
    folder = Path(tempfile.mkdtemp(prefix="rn-"))
    try:
        faults = torture(folder, command)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
