"""Kill a node of a Ray cluster while ``fold`` runs; the end must be as if nothing had happened.

``python -m tools.torture.nodes`` starts a head and a node here, each with its own session
folder, runs ``fold --engine ray`` on them, kills the node with all its processes once a training
state of a job there has come back, starts another node, and compares every file with those of a
local run.
``--epochs 40 --folds 0,1,2`` makes it longer; ``--variant tfidf-linear`` has no states.
"""

from __future__ import annotations

import argparse
import os
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
from dataclasses import dataclass
from pathlib import Path

from tools.torture.homes import Home
from tools.torture.warm import Command

HEAD, KILLED, KEPT = "head", "killed", "kept"
PATIENCE_S = 600.0
OPEN = {"RAY_AUTH_MODE": "disabled"}  # else a token in the home of a user would be asked for
START_ATTEMPTS = 3
PORTS = (20_000, 30_000)
STARTED = "Ray runtime started"
OBJECT_STORE_BYTES = 100_000_000
TINY = (
    *("--encoder", "scratch", "--set", "scratch.layers=1", "--set", "scratch.hidden=32"),
    *("--set", "scratch.vocabulary=600", "--set", "max_tokens=64"),
    *("--set", "run.state_every_s=0.2"),
)


class NodeStartError(Exception):
    """Ray's daemons did not start in time, as on a machine with too much other work."""


@dataclass(frozen=True)
class Node:
    """A node of a Ray cluster on this machine: a command that starts its daemons and stays."""

    name: str
    process: subprocess.Popen[bytes]

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
    how = ["--head", "--port", port, "--include-dashboard", "false"]
    how = how if name == HEAD else ["--address", address]
    temporary = folder / name / "tmp"
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
            env={**os.environ, **OPEN, "TMPDIR": str(temporary), "RAY_USAGE_STATS_ENABLED": "0"},
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
    home = Home(folder / "cluster", OPEN).make()
    address = f"127.0.0.1:{find_port()}"
    jobs, log = home.path / "checkpoints", folder / "cluster.log"
    has_states = "tfidf-linear" not in command
    # the head runs no jobs; as the only node it is the one that the command belongs to
    nodes = [start_started(HEAD, folder, address, cpus=0)]
    try:
        process = home.start([*command, "--engine", "ray", "--address", address])
        _wait(lambda: "on Ray, " in log.read_text("utf-8"), process)
        nodes.append(start_started(KILLED, folder, address, cpus=1))
        _wait(lambda: _has_come(jobs, has_states=has_states), process, nodes[1].process)
        nodes[1].kill()
        say(f"killed node {KILLED}")
        nodes.append(start_started(KEPT, folder, address, cpus=1))
        code = process.wait(PATIENCE_S)
    finally:
        for node in nodes:
            node.kill()
    said = log.read_text("utf-8")
    logs = "\n".join(path.read_text("utf-8") for path in jobs.rglob("job.log"))
    faults = [f"exit code {code}: {said[-2000:]}"] if code else []
    faults += [] if "lost with its node" in said else [f"no job was lost: {said[-2000:]}"]
    if has_states and "resumed at step" not in said:
        faults.append(f"no job was resumed: {logs[-2000:]}")
    wanted, found = reference.read(), home.read()
    faults += [f"{name} differs" for name in sorted(wanted) if wanted[name] != found.get(name)]
    faults += [f"{name} is left" for name in sorted(found.keys() - wanted.keys())]
    say(f"{len(wanted)} files compared, {len(faults)} faults")
    return faults


def start_started(name: str, folder: Path, address: str, *, cpus: int) -> Node:
    """Start a node and wait for it; on a busy machine its daemons may need several attempts.

    Raises:
        NodeStartError: with the end of its log.
    """
    log = folder / f"{name}.log"
    for _ in range(START_ATTEMPTS):
        shutil.rmtree(folder / name, ignore_errors=True)
        node = start_node(name, folder, address, cpus=cpus)
        end = time.monotonic() + PATIENCE_S
        while node.process.poll() is None and time.monotonic() < end:
            if STARTED in log.read_text("utf-8", errors="replace"):
                return node
            time.sleep(0.1)
        node.kill()
    raise NodeStartError(log.read_text("utf-8", errors="replace")[-2000:])


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
            parent = int((entry / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _has_come(jobs: Path, *, has_states: bool) -> bool:
    """Return whether a job runs on the node to be killed, and sent a training state."""
    for log in jobs.rglob("job.log"):
        lines = log.read_text("utf-8")
        if f"begins on node {KILLED}" in lines and "started, fingerprint" in lines:
            return not has_states or (log.parent / "state.safetensors").is_file()
    return False


def _wait(is_done: Callable[[], bool], *needed: subprocess.Popen[bytes] | Command) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_done():
        ended = [process.args for process in needed if process.poll() is not None]
        if ended or time.monotonic() > end:
            raise TimeoutError(f"{ended} ended" if ended else "it takes too long")
        time.sleep(0.02)


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
