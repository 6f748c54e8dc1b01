"""One job over several processes, as torchrun starts them: gloo, on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import run
from competition.errors import TrainingError, UsageError
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.store import ResultKey, Store
from competition.profile import resolve_competition
from models.jobs.engines import launch
from models.jobs.engines.engine import Message
from models.jobs.engines.launch import Launch, LaunchEngine, enter_launch, is_launched, judge
from models.jobs.job import run_job
from models.jobs.spec import STATE_FILE, JobOutcome, JobSpec
from models.training.control import Watch
from models.training.ranks import LOST
from tests.models.conftest import TINY_SCRATCH, plan_tiny

ROOT = Path(__file__).parents[3]
FOLDS = (0, 1)
OVERRIDES = (
    ("train.epochs", 10),
    ("train.lr", 3e-3),
    ("train.head_dropout", 0.0),
    ("scratch.dropout", 0.0),
    ("run.micro_tokens", 150),
    ("run.state_every_s", 0.02),
)
Specs = Callable[..., list[JobSpec]]


def start(home: Path, *options: str) -> subprocess.Popen[str]:
    """Start a fold command in two processes."""
    settings = [f"--set={key}={value}" for key, value in (*TINY_SCRATCH, *OVERRIDES)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["run.py", "fold", "typed-punct", "--encoder=scratch", "--as=tiny", "--folds=0,1"]
    return subprocess.Popen(
        [*command, f"--competition={home / 'tiny.toml'}", "--threads=1", *settings, *options],
        cwd=ROOT,
        env={**os.environ, "COMPETITION_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def find_process(launcher: int, rank: str, *, is_job: bool) -> psutil.Process:
    """Return the process of a rank, or the one in which it runs a job."""
    main = [each for each in psutil.Process(launcher).children() if each.environ()["RANK"] == rank]
    if not is_job:
        return main[0]
    (server,) = (each for each in main[0].children() if each.children())
    return server.children()[0]


def stores_equal(a: Store, b: Store, key: ResultKey) -> bool:
    """Compare two results: the same rows in the same order, the probabilities up to rounding."""
    one, two = a.read(key), b.read(key)
    assert one.fingerprint == two.fingerprint
    for part in ("oof_ids", "test_ids"):
        assert getattr(one, part).tolist() == getattr(two, part).tolist()
    for part in ("oof_probs", "test_probs"):
        x, y = getattr(one, part), getattr(two, part)
        assert np.ptp(x, axis=0).max() > 0.2  # it has learned something
        np.testing.assert_allclose(x, y, atol=0.01)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["DDP", "FSDP2"])
def test_two_processes_give_the_predictions_of_one_and_one_resumes_what_they_began(
    sharding: str, prepared: Prepared, quiet_watch: Watch, tmp_path: Path
) -> None:
    """Fold 0 is trained whole; in fold 1 a process is killed, or the command beside the main."""
    is_job = sharding == "DDP"
    alone = plan_tiny(prepared, "typed-punct", *OVERRIDES, folds=FOLDS)
    home = tmp_path / "launched"
    ignored = shutil.ignore_patterns("launched", "tiny@*")
    shutil.copytree(tmp_path, home, ignore=ignored)
    for spec in alone:
        run_job(spec, quiet_watch)
    process = start(home, *([] if is_job else ["--set=run.shard=true"]))
    try:
        job_dir = home / alone[1].job_dir.relative_to(tmp_path)
        deadline = time.monotonic() + 300
        while not (job_dir / STATE_FILE).exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        started = psutil.Process(process.pid).children(recursive=True)
        find_process(process.pid, "1", is_job=is_job).send_signal(signal.SIGKILL)
        said = process.communicate(timeout=120)[0]
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()
    assert process.returncode == 1
    deadline = time.monotonic() + 60
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert line == (
        "error: tiny s42 f1: in process 1 of the launch: its process was killed by SIGKILL; "
        "out of memory?; run the same command again to resume"
        if is_job
        else "error: process 1 of 2 of this launch has died, and with it s42-f1; was it killed, or "
        "out of memory? run the same command again to resume from its last checkpoint"
    )
    assert not [path for path in home.rglob("*") if path.name.endswith(".tmp")]

    again = read_prepared(resolve_competition(str(home / "tiny.toml"), None, None, home=home))
    (rest,) = plan_tiny(again, "typed-punct", *OVERRIDES, folds=FOLDS)
    assert rest.key.fold == 1
    said_now: list[str] = []
    run_job(rest, Watch(quiet_watch.report, quiet_watch.should_stop, said_now.append))
    assert any(text.startswith("resumed at step") for text in said_now)
    own, theirs = (Store(each.store_dir, each.labels) for each in (alone[0], rest))
    assert all(stores_equal(own, theirs, spec.key) for spec in alone)
    run = json.loads(theirs.path(alone[0].key).with_suffix(".run.json").read_text())
    assert run["processes"] == 2


OWN = f"{LOST}; run the same command again to resume"


@pytest.mark.parametrize(
    ("payload", "others", "said"),
    [
        (OWN, {1: None, 2: "no space left"}, "in process 2 of the launch: no space left"),
        (OWN, {1: OWN, 2: "killed"}, "in process 2 of the launch: killed"),
        (OWN, {1: OWN}, OWN),
        ("training diverged", {1: "training diverged"}, "training diverged"),
    ],
)
def test_a_job_says_why_it_failed_and_not_that_others_did(
    payload: str, others: dict[int, str | None], said: str, make_specs: Specs
) -> None:
    (spec,) = make_specs(folds=(0,))
    assert judge(Message(spec, "failed", payload), others) == Message(spec, "failed", said)
    done = Message(spec, "done", JobOutcome(spec.key, finished=True))
    assert judge(done, others) is done


class FakeLocal:
    """The main process of a job, which sends given messages."""

    def __init__(self) -> None:
        self.links: list[Any] = []
        self.messages: list[Message] = []
        self.is_killed = False

    def start(self, spec: JobSpec) -> None:
        self.messages.append(Message(spec, "said", f"{launch.GATHER}meeting"))

    def receive(self, timeout_s: float) -> list[Message]:
        found, self.messages = self.messages, []
        return found

    def close(self) -> None:
        self.is_killed = True


def begin(spec: JobSpec, size: int = 3) -> tuple[LaunchEngine, FakeLocal, Sequence[Any]]:
    """Start a job in a launch whose other processes are this test."""
    pipes = [Pipe() for _ in range(size - 1)]
    engine = LaunchEngine(Launch([ours for ours, _ in pipes], local=size, shards=False))
    engine._local = local = FakeLocal()  # type: ignore[assignment]
    engine.start(spec)
    assert engine.receive(0) == []
    others = [theirs for _, theirs in pipes]
    for order, (joint, name) in [other.recv() for other in others]:
        assert (order, joint.key, name) == ("run", spec.key, "meeting")
    return engine, local, others


def test_a_job_ends_when_all_its_processes_have(make_specs: Specs) -> None:
    (spec,) = make_specs(folds=(0,))
    engine, local, (first, second) = begin(spec)
    end = Message(spec, "done", JobOutcome(spec.key, finished=True))
    local.messages.append(end)
    first.send(("meeting", None))
    second.send(("another meeting", "left over"))
    assert engine.receive(0) == []
    second.send(("meeting", None))
    assert engine.receive(0) == [end]


def test_processes_that_hang_after_one_failed_are_killed(
    make_specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PATIENCE_S", 0.0)
    (spec,) = make_specs(folds=(0,))
    engine, local, (first, second) = begin(spec)
    first.send(("meeting", "the GPU is out of memory"))
    assert engine.receive(0) == []
    assert engine.receive(0) == []
    assert local.is_killed
    assert second.recv() == ("kill", None)
    second.send(("meeting", f"{LOST} first"))
    (end,) = engine.receive(0)
    assert end.payload == "in process 1 of the launch: the GPU is out of memory"


def test_a_lost_process_ends_the_launch(make_specs: Specs) -> None:
    (spec,) = make_specs(folds=(0,))
    engine, _, (_, second) = begin(spec)
    second.close()
    with pytest.raises(TrainingError, match=r"process 2 of 3 of this launch has died.*s42-f0"):
        engine.receive(0)


def test_a_launcher_of_one_process_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not is_launched()
    assert "RANK" not in os.environ
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_launched()


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (["tune", "typed-punct"], r"run\.py tune …; --workers 2 .* --engine ray"),
        (["pretrain", "--scratch", "--size", "mini"], r"run\.py pretrain …; it uses one GPU"),
        (["blend"], r"run\.py blend …$"),
    ],
)
def test_commands_that_run_in_one_process_say_what_to_do_instead(
    command: list[str], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_launches", [Launch([Pipe()[0]], local=2, shards=False)])
    with pytest.raises(UsageError, match=f"a launcher started 2.*{advice}"):
        run.app(command, standalone_mode=False)


def test_other_engines_of_accelerate_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match="DeepSpeed, which is not supported; use --use_fsdp"):
        enter_launch()
