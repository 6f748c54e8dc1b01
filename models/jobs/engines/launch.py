"""Run jobs in all processes of a launch together: torchrun, or accelerate launch.

Each process of the launch runs ``run.py``. The main one does all that one process does: it plans,
prints, and starts a job in a separate process, which takes the locks and writes. The others do
what it says: start a process beside it, which computes a part of each step. So a job that loses a
process fails alone, and nothing remains of it but its last checkpoint. The linear model is trained
by the main process while the others wait.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

from competition.errors import TrainingError, UsageError
from models.jobs.engines.engine import ENDS, Message
from models.jobs.engines.local import LocalEngine, describe_hardware
from models.jobs.engines.worker import choose_gpu, explain_failure, send, work
from models.jobs.job import run_job
from models.jobs.network_job import learn_network
from models.jobs.spec import JobSpec
from models.training.control import Watch
from models.training.hardware import report_gpu_errors, threads_per_job
from models.training.ranks import LOST, joined
from models.variant import Variant

PATIENCE_S = 15.0
"""How long processes may take to end after the first of them did, before they are killed."""
ORPHAN_S = 30.0
ADDRESS = "relation-extraction-harness"
"""Key under which the main process publishes where it listens."""
FOREIGN = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
AGAIN = "run the same command again to resume from its last checkpoint"


@dataclass(frozen=True)
class Launch:
    """A launch, as its main process sees it.

    Attributes:
        others: links to the other processes; that of rank r comes at place r - 1.
        local: number of processes on this machine.
        shards: whether the launcher is configured to use FSDP.
        is_lost: set when a process is gone, and all that is left is to say so.
    """

    others: Sequence[Connection]
    local: int
    shards: bool
    is_lost: threading.Event = field(default_factory=threading.Event)

    @property
    def size(self) -> int:
        """Number of processes."""
        return len(self.others) + 1

    def close(self) -> None:
        """Let the other processes end."""
        for link in self.others:
            send(link, ("bye", None))
            link.close()


def is_launched() -> bool:
    """Return whether a launcher started this process and others.

    One that starts a single process makes no difference: its traces are removed.
    """
    if "LOCAL_RANK" not in os.environ:
        return False
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return True
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    return False


def enter_launch() -> Launch | None:
    """Meet the other processes of a launch.

    Returns:
        The launch in the main process, which must close it. In the others None, after the main one
        has closed it or ended.

    Raises:
        UsageError: the launcher is configured to use an engine that is not supported.
    """
    foreign = [name for key, name in FOREIGN.items() if os.environ.get(key) == "true"]
    if foreign:
        raise UsageError(
            f"accelerate launch is set to use {foreign[0]}, which is not supported; use "
            "--use_fsdp --fsdp_version 2 for an encoder that does not fit one GPU"
        )
    shards = os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true"
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if rank:
        _follow(_call(store, rank))
        return None
    launch = Launch(_listen(store, size, is_local=local == size), local, shards)

    def on_terminate(number: int, frame: Any) -> None:
        del frame
        if not launch.is_lost.is_set():  # else the launcher ends all, and there is something to say
            raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, on_terminate)
    return launch


def _listen(store: Any, size: int, *, is_local: bool) -> list[Connection]:
    """Return links to the other processes, in the order of their ranks."""
    key = secrets.token_bytes(32)
    host = "127.0.0.1" if is_local else os.environ["MASTER_ADDR"]
    with Listener(("127.0.0.1" if is_local else "", 0), backlog=size, authkey=key) as listener:
        store.set(ADDRESS, f"{host} {listener.address[1]} {key.hex()}")
        found: dict[int, Connection] = {}
        while len(found) < size - 1:
            link = listener.accept()
            found[link.recv()] = link
    return [found[rank] for rank in sorted(found)]


def _call(store: Any, rank: int) -> Connection:
    """Return the link to the main process."""
    host, port, key = store.get(ADDRESS).decode().split()
    link = Client((host, int(port)), authkey=bytes.fromhex(key))
    link.send(rank)
    return link


def _follow(main: Connection) -> None:
    """Do what the main process says, until it lets this one end, or ends itself."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the main process decides when to stop
        signal.signal(number, signal.SIG_IGN)
    local, name = LocalEngine(1), ""
    try:
        while True:
            wait([main, *local.links])
            if main.poll():
                order, payload = main.recv()
                if order == "bye":
                    return
                was_running = bool(local.links)
                local.close()
                if order == "run":
                    spec, name = payload
                    local = LocalEngine(1, partial(work_beside, name))
                    local.start(spec)
                elif was_running:
                    main.send((name, f"{LOST} first"))
            for message in local.receive(0):
                if message.kind in ENDS:
                    main.send((name, message.payload))
    except (EOFError, OSError):
        return  # the main process has ended, and says why
    finally:
        local.close()


@dataclass
class _Job:
    """The job that runs.

    Attributes:
        name: where its processes meet; None before the main one asks for the others.
        end: how it ended in the main process.
        failures: by rank, of those that ended: why, or None.
        give_up_at: when those that still run are killed.
    """

    spec: JobSpec
    name: str | None = None
    end: Message | None = None
    failures: dict[int, str | None] = field(default_factory=dict)
    give_up_at: float | None = None


class LaunchEngine:
    """Runs one job at a time, in all processes of a launch."""

    max_started = 1

    def __init__(self, launch: Launch, threads: int | None = None) -> None:
        self.threads = threads_per_job(threads, launch.local)
        self.size = launch.size
        self._launch = launch
        self._local = LocalEngine(1, work_first)
        self._job: _Job | None = None
        self._launcher = os.getppid()

    def count_running(self, variants: Sequence[Variant]) -> int:
        """Return how many jobs run at a time: one."""
        del variants
        return 1

    def describe(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Return lines that describe the device of the networks among jobs."""
        return describe_hardware(jobs, self._launch.local)

    def expect(self, jobs: Sequence[JobSpec]) -> None:
        """Do nothing: jobs run one after the other, and share no GPU."""

    def start(self, spec: JobSpec) -> None:
        """Start a job in the main process."""
        self._job = _Job(spec)
        self._local.start(spec)

    def receive(self, timeout_s: float) -> list[Message]:
        """Return what the main process of the job sent, and how the job ended.

        Raises:
            TrainingError: a process of the launch, or the launcher, is gone.
        """
        wait([*self._local.links, *self._launch.others], timeout_s)
        messages = []
        for message in self._local.receive(0):
            if message.kind == "said" and message.payload.startswith(GATHER):
                self._gather(message.payload.removeprefix(GATHER))
            elif message.kind in ENDS:
                self._note_end(message)
            else:
                messages.append(message)
        for rank, link in enumerate(self._launch.others, 1):
            self._hear(rank, link)
        if os.getppid() != self._launcher:
            self._launch.is_lost.set()
            raise TrainingError(f"the launcher of these processes is gone; {AGAIN}")
        end = self._settle()
        return messages if end is None else [*messages, end]

    def request_stop(self) -> None:
        """Ask the job to write a checkpoint and end; its main process tells the others."""
        self._local.request_stop()

    def close(self) -> None:
        """Kill the job, if it has not ended."""
        self._local.close()
        if self._job is not None and self._job.name is not None:
            self._tell(("kill", None))
        self._job = None

    def _gather(self, name: str) -> None:
        """Have the other processes join the job."""
        assert self._job is not None
        self._job.name = name
        self._tell(("run", (self._job.spec, name)))

    def _tell(self, order: tuple[str, Any]) -> None:
        for link in self._launch.others:
            send(link, order)

    def _hear(self, rank: int, link: Connection) -> None:
        """Note what another process says of its part of the job."""
        while link.poll():
            try:
                name, failure = link.recv()
            except (EOFError, OSError):
                self._launch.is_lost.set()
                what = "" if self._job is None else f", and with it {self._job.spec.job_dir.name}"
                raise TrainingError(
                    f"process {rank} of {self._launch.size} of this launch has died{what}; was it "
                    f"killed, or out of memory? {AGAIN}"
                ) from None
            if self._job is not None and self._job.name == name:
                self._job.failures[rank] = failure
                if failure is not None:
                    self._set_limit()

    def _note_end(self, message: Message) -> None:
        assert self._job is not None
        self._job.end = message
        self._set_limit()

    def _set_limit(self) -> None:
        assert self._job is not None
        if self._job.give_up_at is None:
            self._job.give_up_at = time.monotonic() + PATIENCE_S

    def _settle(self) -> Message | None:
        """Return how the job ended, once it has ended in all processes; kill those that hang."""
        job = self._job
        if job is None:
            return None
        waits_for_others = job.name is not None and len(job.failures) < len(self._launch.others)
        if job.end is not None and not waits_for_others:
            self._job = None
            return judge(job.end, job.failures)
        if job.give_up_at is not None and time.monotonic() > job.give_up_at:
            if job.end is None:
                self._local.close()
                job.end = Message(job.spec, "failed", f"{LOST} first")
            if waits_for_others:
                self._tell(("kill", None))
                job.give_up_at = None
        return None


def judge(end: Message, failures: dict[int, str | None]) -> Message:
    """Return how a job ended, of what its processes say: not that another ended, but why it did.

    Args:
        end: of the main process.
        failures: of the others, by rank.
    """
    if end.kind != "failed" or not str(end.payload).startswith(LOST):
        return end
    for rank, failure in sorted(failures.items()):
        if failure is not None and not failure.startswith(LOST):
            return Message(end.spec, "failed", f"in process {rank} of the launch: {failure}")
    return end


GATHER = "the other processes of the launch join: "
"""How the main process of a job asks for the others, before the name of where they meet."""


def work_first(spec: JobSpec, slot: int, link: Connection) -> None:
    """Run a job as the main one of its processes; entry point."""
    del slot
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to all; the launch's main process decides
    threading.Thread(target=_end_as_orphan, args=(os.getppid(),), daemon=True).start()

    def run(spec: JobSpec, watch: Watch) -> Any:
        if not spec.variant.is_network:
            return run_job(spec, watch)
        name = secrets.token_hex(8)
        watch.log(f"{GATHER}{name}")
        with joined(name) as ranks:
            return run_job(spec, watch, partial(learn_network, ranks=ranks))

    work(spec, int(os.environ["LOCAL_RANK"]), link, run)


def work_beside(name: str, spec: JobSpec, slot: int, link: Connection) -> None:
    """Compute a part of a job beside its main process, and send why it failed, or None."""
    del slot
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(link,), daemon=True).start()
    watch = Watch(report=_say_nothing, should_stop=lambda: False, log=_say_nothing)
    answer: tuple[str, str | None] = ("done", None)
    try:
        with report_gpu_errors():
            choose_gpu(int(os.environ["LOCAL_RANK"]))
            with joined(name) as ranks:
                learn_network(spec, watch, ranks)
    except BaseException as error:
        answer = ("failed", f"{explain_failure(error).rstrip()} (on {socket.gethostname()})")
    send(link, answer)
    link.close()


def _end_as_orphan(parent: int) -> None:
    """End this process some time after what started it, so that it cannot wait for others forever.

    Until then it may write a checkpoint.
    """
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(ORPHAN_S)
    os._exit(1)


def _say_nothing(said: object) -> None:
    """Leave it to the main process of the job to say it."""
    del said


def _end_with(link: Connection) -> None:
    """End this process when the one that started it does; its part alone is useless."""
    try:
        link.recv()
    except (EOFError, OSError):
        os._exit(1)
