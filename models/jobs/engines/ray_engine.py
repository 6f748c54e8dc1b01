"""Run jobs on a Ray cluster: each is a task that asks for CPUs and GPUs, and runs on some node.

The only modules that need Ray are this one, ``ray_cluster`` and ``ray_node``. The driver is the
process of the command: it alone holds leases, writes the store, and keeps the training states that
nodes send. A job whose node is lost starts again elsewhere from the last of them.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ObjectStoreFullError,
    OutOfDiskError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from competition.console import write_count
from competition.errors import HarnessError, explain_os_error
from competition.files import parse_json, write_atomically
from competition.lease import Lease, Leases
from competition.predictions.learning_curves import CURVE_FILE
from competition.predictions.store import Store
from competition.provenance import read_commit
from models.jobs.engines.engine import ENDS, EngineChoice, Message
from models.jobs.engines.parcel import CHECKPOINTS, Input, check_paths, find_inputs, name_folders
from models.jobs.engines.processes import explain_death
from models.jobs.engines.ray_cluster import connect, count_resources, explain_lost, name_node
from models.jobs.engines.ray_node import Delivery, Mailbox, Shipment, clean, read_bytes, run_there
from models.jobs.engines.wire import read_message, write_rows, write_spec
from models.jobs.engines.worker import append_to_log, claim, explain_failure, write_answer
from models.jobs.spec import STATE_FILE, JobOutcome, JobSpec, count_threads
from models.jobs.tracking import Recorder
from models.variant import Variant

MAX_ATTEMPTS = 4  # of a job whose nodes or tasks are lost; then it counts as failed
MAX_THREADS = 8  # of a job on a GPU, if the command does not say
POLL_S = 0.25
CLEAN_S = 10.0
NO_LIMIT = 1_000_000  # of jobs that are started
STORE_FULL = (
    "Ray's object store has no room for what the job reads: start Ray with more "
    "(`ray start --object-store-memory BYTES`), or free the disk of its temporary folder"
)


@dataclass
class _Task:
    """A job that was sent to the cluster.

    Attributes:
        job: names this attempt.
        lease: of the job, held until it ends.
        curve: records its learning curve here; trackers run where the job does.
        last: the message that ended its process, if it came.
    """

    spec: JobSpec
    job: str
    ref: Any
    lease: Lease
    attempt: int
    curve: Recorder
    has_begun: bool = False
    last: tuple[Any, Any] = ("", None)


@dataclass
class _Shared:
    """What the engines of one process share: inputs in the object store and on nodes.

    Attributes:
        home: names the folder on nodes.
        shipped: references to inputs, by their name or the hash of their bytes.
        nodes: identifiers of those on which jobs began.
        engines: number of open engines; the last one cleans up.
        guard: held to change any of it.
    """

    home: str = field(default_factory=lambda: secrets.token_hex(4))
    shipped: dict[str, Any] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    engines: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)


@cache
def _share(connection: str) -> _Shared:
    """Return what the engines of a connection to a cluster share."""
    del connection  # the key
    return _Shared()


class RayEngine:
    """Runs jobs on a Ray cluster. Several may be open in one process; they share the connection."""

    def __init__(self, choice: EngineChoice) -> None:
        self._is_owner = not ray.is_initialized()
        if self._is_owner:
            connect(choice.address)
        cpus, gpus = count_resources()
        self.gpus = choice.gpus_per_job if choice.gpus_per_job is not None else float(gpus > 0)
        self.threads = choice.threads or _share_cpus(cpus, gpus, self.gpus)
        self.max_started = choice.workers or NO_LIMIT
        self._workers = choice.workers
        self._is_stopping = False
        self._leases = Leases()
        self._shared = _share(ray.get_runtime_context().get_job_id())
        with self._shared.guard:
            self._shared.engines += 1
        self._tasks: dict[str, _Task] = {}
        self._messages: list[Message] = []
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()

    def count_running(self, variants: Sequence[Variant]) -> int:
        """Return how many jobs the cluster has room for, if each takes what the largest does."""
        if self._workers is not None:
            return self._workers
        cpus, gpus = count_resources()
        asked_cpus, asked_gpus = max(map(self._ask, variants))
        room = min(cpus / asked_cpus, gpus / asked_gpus if asked_gpus else NO_LIMIT)
        return max(1, int(room))

    def describe(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Return lines that say where jobs run, and what each takes."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        cpus, gpus = count_resources()
        asked = sorted({self._ask(spec.variant) for spec in jobs}, reverse=True)
        largest, *smaller = map(_write_resources, asked)
        smaller = [f", of a model of n-grams {each}" for each in smaller]
        lines = [
            f"on Ray, {write_count(len(nodes), 'node')} with {cpus:g} CPUs and {gpus:g} GPUs; each"
            f" job takes {largest}{''.join(smaller)}"
        ]
        fits = any(
            node["Resources"].get("CPU", 0.0) >= asked[0][0]
            and node["Resources"].get("GPU", 0.0) >= asked[0][1]
            for node in nodes
        )
        if not fits:
            lines.append(f"notice: no node has {largest}; jobs wait until such a node joins")
        return lines

    def expect(self, jobs: Sequence[JobSpec]) -> None:
        """Do nothing: each job asks for its part of a GPU."""

    def start(self, spec: JobSpec) -> None:
        """Send a job to the cluster, where it waits for room; its lease is taken now."""
        check_paths(spec)
        claimed: Any
        try:
            claimed = claim(spec, self._leases, lambda text: append_to_log(spec, f"{text}\n"))
        except (HarnessError, OSError) as error:
            claimed = "failed", _explain(error)
        if isinstance(claimed, Lease):
            self._send(spec, claimed, attempt=1)
        else:
            self._messages.append(Message(spec, *claimed))

    def receive(self, timeout_s: float) -> list[Message]:
        """Return what jobs said, and the outcomes of those that ended; write their results."""
        end = time.monotonic() + timeout_s
        while not self._messages and self._tasks:
            self._wait(min(POLL_S, max(0.0, end - time.monotonic())))
            if time.monotonic() >= end:
                break
        messages, self._messages = self._messages, []
        return messages

    def request_stop(self) -> None:
        """Let running jobs write a checkpoint, which comes back, and take waiting ones back."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._mailbox.stop.remote()
        for task in self._tasks.values():
            if not task.has_begun:
                ray.cancel(task.ref)

    def close(self) -> None:
        """Cancel what is left, remove files on the nodes, and disconnect."""
        with suppress(RayError):
            for task in self._tasks.values():
                ray.cancel(task.ref, force=True)
            with self._shared.guard:
                self._shared.engines -= 1
                if not self._shared.engines:
                    self._clean_nodes()
            ray.kill(self._mailbox)
        self._leases.close()
        if self._is_owner:
            ray.shutdown()

    def _ask(self, variant: Variant) -> tuple[int, float]:
        """Return how many CPUs and GPUs a job of a variant asks for."""
        return count_threads(variant, self.threads), self.gpus if variant.is_network else 0.0

    def _wait(self, timeout_s: float) -> None:
        by_ref = {task.ref: task for task in self._tasks.values()}
        ready, _ = ray.wait(list(by_ref), num_returns=1, timeout=timeout_s)
        try:
            mail = ray.get(self._mailbox.collect.remote())
        except RayError as error:
            raise explain_lost(error) from None
        for job, node, raw, state in mail:
            if job in self._tasks:  # else it was given up
                self._hear(self._tasks[job], node, raw, state)
        for ref in ready:
            self._end(by_ref[ref])

    def _hear(self, task: _Task, node: str, raw: Sequence[bytes], state: Any) -> None:
        if not task.has_begun:
            task.has_begun = True
            with self._shared.guard:
                self._shared.nodes.add(node)
            name = name_node(node)
            append_to_log(task.spec, f"{_now()} begins on node {name}, attempt {task.attempt}\n")
            self._messages.append(Message(task.spec, "started"))
        for each in raw:
            kind, payload = read_message(each)
            if kind == "said":
                append_to_log(task.spec, f"{_now()} {payload}\n")
            if kind == "progress":
                task.curve.report(payload, time.monotonic())
            if kind in ENDS:
                task.last = (kind, payload)
            else:
                self._messages.append(Message(task.spec, kind, payload))
        if state is not None:
            with suppress(RayError, OSError):  # its node is gone, or the disk is full
                _write_array(task.spec.job_dir / STATE_FILE, ray.get(state))

    def _end(self, task: _Task) -> None:
        """Take the outcome of a task, or send its job again if its node was lost."""
        del self._tasks[task.job]
        try:
            delivery: Delivery = ray.get(task.ref)
        except TaskCancelledError:
            self._finish(task.spec, task.lease, "done", _leave(task.spec))
        except RayTaskError as error:  # before its process was started, or after its end
            self._send_again(task, f"its task failed: {_explain(error.cause)}")
        except RayError as error:
            lost = str(error).strip().partition("\n")[0] or type(error).__name__
            self._send_again(task, f"lost with its node ({type(error).__name__})", lost)
        else:
            self._hear(task, delivery.node, delivery.raw, None)
            if task.last[0] not in ENDS:
                task.last = ("failed", explain_death(delivery.exitcode))
            elif task.last[0] == "done":
                try:
                    self._take_files(task.spec, delivery)
                except OSError as error:
                    task.last = ("failed", _explain(error))
            self._finish(task.spec, task.lease, *task.last)

    def _finish(self, spec: JobSpec, lease: Lease, kind: Any, payload: Any) -> None:
        append_to_log(spec, write_answer((kind, payload)))
        self._leases.release(lease)
        self._messages.append(Message(spec, kind, payload))

    def _send_again(self, task: _Task, what: str, details: str = "") -> None:
        """Send a job again, or give it up; after a request to stop, leave it unfinished.

        Args:
            task: what became of its last attempt is known.
            what: happened to it, for the user.
            details: for its log.
        """
        if task.attempt == MAX_ATTEMPTS:
            text = f"given up after {MAX_ATTEMPTS} attempts, the last: {what} {details}".rstrip()
            self._finish(task.spec, task.lease, "failed", text)
            return
        append_to_log(task.spec, f"{_now()} {what} {details}".rstrip() + "\n")
        if self._is_stopping:
            self._finish(task.spec, task.lease, "done", _leave(task.spec))
            return
        self._messages.append(Message(task.spec, "said", f"{what}; it runs again"))
        self._send(task.spec, task.lease, attempt=task.attempt + 1)

    def _send(self, spec: JobSpec, lease: Lease, *, attempt: int) -> None:
        """Send a job to the cluster; it fails alone if what it reads cannot be sent.

        Raises:
            UsageError: the connection was lost.
        """
        try:
            self._submit(spec, lease, attempt)
        except (ObjectStoreFullError, OutOfDiskError) as error:
            self._finish(spec, lease, "failed", f"{STORE_FULL} ({type(error).__name__})")
        except (RayError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # a file is gone
                self._finish(spec, lease, "failed", explain_failure(error))
                return
            self._leases.release(lease)
            raise explain_lost(error) from None

    def _submit(self, spec: JobSpec, lease: Lease, attempt: int) -> None:
        state = spec.job_dir / STATE_FILE
        key = spec.key
        job = f"{key.variant}-s{key.seed}-f{key.fold}.{attempt}"
        shipment = Shipment(
            job=job,
            home=self._shared.home,
            spec=write_spec(replace(spec, sharers=max(1, int(1 // (self.gpus or 1.0))))),
            rows=self._put(write_rows(spec)),
            inputs={str(each.path): self._ship(each) for each in find_inputs(spec)},
            state_file=f"{name_folders(spec)[1]}/{STATE_FILE}",
            state=ray.put(read_bytes(state)) if state.is_file() else None,
        )
        cpus, gpus = self._ask(spec.variant)
        task = ray.remote(max_calls=0)(run_there).options(
            name=job, num_cpus=cpus, num_gpus=gpus, max_retries=0
        )
        ref = task.remote(shipment, self._mailbox)
        curve = Recorder(replace(spec, track=()), lambda text: append_to_log(spec, f"{text}\n"))
        self._tasks[job] = _Task(spec, job, ref, lease, attempt, curve)

    def _ship(self, given: Input) -> tuple[str, dict[str, Any]]:
        """Put the files of an input into the object store, once."""
        name = f"{given.name}{'' if given.path.is_dir() else '-file'}"
        with self._shared.guard:
            if name not in self._shared.shipped:
                read = {relative: read_bytes(path) for relative, path in given.files.items()}
                put = {relative: ray.put(each) for relative, each in read.items()}
                self._shared.shipped[name] = put
            found: dict[str, Any] = self._shared.shipped[name]
        return name, found

    def _put(self, data: bytes) -> Any:
        """Put bytes into the object store, once."""
        digest = hashlib.sha256(data).hexdigest()
        with self._shared.guard:
            if digest not in self._shared.shipped:
                self._shared.shipped[digest] = ray.put(data)
            return self._shared.shipped[digest]

    def _take_files(self, spec: JobSpec, delivery: Delivery) -> None:
        """Write what a job left: weights and state first, its result last."""
        store = Store(spec.store_dir, spec.labels)
        files = dict(delivery.files)
        there = f"{name_folders(spec)[0]}/{spec.key.variant}"
        result = files.pop(f"{there}/{store.path(spec.key).name}", None)
        run = files.pop(f"{there}/{store.run_path(spec.key).name}", None)
        for name, content in files.items():
            folder, _, rest = name.partition("/")
            if folder == CHECKPOINTS and not rest.endswith(f"/{CURVE_FILE}"):
                _write_array(spec.job_dir.parent.parent / rest, content)
        if result is not None and run is not None:
            facts = {**parse_json(bytes(run)), "commit": read_commit()}
            store.adopt(spec.key, bytes(result), facts)
            (spec.job_dir / STATE_FILE).unlink(missing_ok=True)

    def _clean_nodes(self) -> None:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]} & self._shared.nodes
        task = ray.remote(clean)
        refs = [
            task.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(self._shared.home)
            for node in alive
        ]
        ray.wait(refs, num_returns=len(refs), timeout=CLEAN_S)


def _write_resources(asked: tuple[int, float]) -> str:
    cpus, gpus = asked
    return write_count(cpus, "CPU") + (f" and {gpus:g} GPU" if gpus else "")


def _share_cpus(cpus: float, gpus: float, gpus_per_job: float) -> int:
    """Return the threads of a job: its share of a cluster's CPUs by its GPUs; without GPUs one."""
    if not gpus_per_job or not gpus:
        return 1
    return int(min(MAX_THREADS, max(1.0, cpus * gpus_per_job // gpus)))


def _leave(spec: JobSpec) -> JobOutcome:
    """Return the outcome of a job that was not finished."""
    return JobOutcome(spec.key, finished=False)


def _explain(error: Exception) -> str:
    known = explain_os_error(error) if isinstance(error, OSError) else None
    return known or str(error)


def _write_array(path: Path, content: Any) -> None:
    write_atomically(path, memoryview(content))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
