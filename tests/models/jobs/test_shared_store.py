"""Several ``fold`` commands on one store at once: every job is trained once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from competition.lease import Lease, Leases
from competition.predictions.store import Result, Store
from models.jobs import workers
from models.jobs.engines.engine import Message
from models.jobs.engines.processes import process_context
from models.jobs.engines.worker import claim
from models.jobs.spec import JobOutcome, JobSpec

Specs = Callable[..., list[JobSpec]]
COMMANDS = 8


class FakeEngine:
    """Runs jobs within ``start``; they write a result and a line, or kill the whole process."""

    max_started = 1

    def __init__(self, trained: Path, dies_at: int | None) -> None:
        self.trained, self.dies_at, self.begun = trained, dies_at, 0
        self.messages: list[Message] = []

    def expect(self, jobs: Sequence[JobSpec]) -> None:
        """There is nothing to prepare."""

    def start(self, spec: JobSpec) -> None:
        with Leases() as leases:
            claimed = claim(spec, leases, lambda text: None)
            if not isinstance(claimed, Lease):
                self.messages.append(Message(spec, *claimed))
                return
            self.begun += 1
            time.sleep(0.02)
            if self.begun == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            Store(spec.store_dir, spec.labels).write(make_result(spec), {})
            with self.trained.open("a") as stream:
                stream.write(f"{spec.key.seed} {spec.key.fold}\n")
        self.messages.append(Message(spec, "done", JobOutcome(spec.key, finished=True)))

    def receive(self, timeout_s: float) -> list[Message]:
        messages, self.messages = self.messages, []
        return messages

    def request_stop(self) -> None:
        """There is nothing to stop: a job has ended when ``start`` returns."""

    def close(self) -> None:
        """There is nothing to free."""


def make_result(spec: JobSpec) -> Result:
    rows, tests = len(spec.rows.heldout_rows), len(spec.rows.test_rows)
    share = np.full(len(spec.labels), 1 / len(spec.labels), np.float32)
    return Result(
        key=spec.key,
        fingerprint=spec.fingerprint,
        recipe=spec.recipe,
        variant=spec.variant.recipe(),
        labels=spec.labels,
        data_hash=spec.data_hash,
        folds_hash=spec.folds_hash,
        route=None,
        routes_hash=None,
        oof_ids=np.array([f"o{row}" for row in range(rows)], dtype=object),
        oof_probs=np.tile(share, (rows, 1)),
        test_ids=np.array([f"t{row}" for row in range(tests)], dtype=object),
        test_probs=np.tile(share, (tests, 1)),
    )


def fold(specs: list[JobSpec], trained: Path, dies_at: int | None) -> None:
    """Run jobs as one command does; one command is killed in its second job."""
    workers.BUSY_WAIT_S = workers.POLL_S = 0.05
    hooks = workers.FoldHooks(*[lambda *_: None] * 5)
    workers.run_jobs(specs, engine=FakeEngine(trained, dies_at), deadline=None, hooks=hooks)


def test_eight_commands_train_every_job_once_and_a_kill_leaves_no_lease(
    make_specs: Specs, tmp_path: Path
) -> None:
    specs = make_specs(seeds=(1, 2, 3, 4))
    assert len(specs) == 12
    trained = tmp_path / "trained.txt"
    commands = [
        process_context().Process(target=fold, args=(specs, trained, 2 if place == 0 else None))
        for place in range(COMMANDS)
    ]
    for command in commands:
        command.start()
    for command in commands:
        command.join(60)
    assert [command.exitcode for command in commands] == [-signal.SIGKILL, *[0] * (COMMANDS - 1)]
    assert set(Counter(trained.read_text().splitlines()).values()) == {1}
    store = Store(specs[0].store_dir, specs[0].labels)
    assert store.keys("tiny") == sorted(spec.key for spec in specs)
    assert not list(tmp_path.rglob("*.lease"))
    assert not list(tmp_path.rglob("*.tmp"))
