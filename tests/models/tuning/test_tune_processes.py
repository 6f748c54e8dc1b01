"""tune in separate processes: killed and resumed, and two processes over PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from models.tuning import storage as room
from models.tuning.study import PLACE, PROCESS, RETRY_OF
from tests.conftest import RunCommand, write_tiny
from tools.torture.warm import Command, Starter

TINY = [
    *("--encoder", "scratch", "--threads", "1", "--set", "scratch.layers=1"),
    *("--set", "scratch.hidden=32", "--set", "scratch.heads=1", "--set", "scratch.feed_forward=32"),
    *("--set", "scratch.vocabulary=400", "--set", "train.batch_rows=8"),
    *("--set", "run.precision=float32", "--set", "run.state_every_s=0.02"),
    *("--search", "train.lr=1e-4..1e-2:log", "--study", "s"),
]
PATIENCE_S = 240  # for a busy machine; nothing waits so long on an idle one


@dataclass
class Tuner:
    """A ``tune`` command in a process of its own; its output goes to a file."""

    process: Command
    output: Path

    def finish(self) -> str:
        """Wait for its end; return its output."""
        code, said = self.process.wait(PATIENCE_S), self.said()
        assert code == 0, said
        assert "Traceback" not in said
        return said

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(PATIENCE_S) == -signal.SIGKILL

    def said(self) -> str:
        return self.output.read_text("utf-8")


@pytest.fixture
def start(starter: Starter, tmp_path: Path) -> Callable[..., Tuner]:
    environment = {**os.environ, "COMPETITION_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}

    def begin(name: str, *arguments: str) -> Tuner:
        words, output = ["tune", "typed-punct", *TINY, *arguments], tmp_path / f"{name}.log"
        return Tuner(starter.start(words, environment, output), output)

    return begin


def wait_for(condition: Callable[[], bool], tuner: Tuner) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        assert tuner.process.poll() is None, tuner.said()
        time.sleep(0.05)


@pytest.mark.slow
def test_after_a_kill_the_same_command_resumes_inside_the_fold(
    tmp_path: Path, run_command: RunCommand, start: Callable[..., Tuner]
) -> None:
    command = ["--competition", str(write_tiny(tmp_path)), "--trials", "3"]
    command += ["--set", "train.epochs=40"]
    tuner = start("killed", *command)
    folder = tmp_path / "checkpoints" / "tiny" / "tune" / "s"

    def has_state() -> bool:
        logs = (folder / "jobs").glob("*@t1/s42-f0/job.log")
        return any("checkpoint written" in log.read_text() for log in logs)

    wait_for(has_state, tuner)
    tuner.kill()
    done = {path: path.stat().st_mtime_ns for path in (folder / "oof").glob("*@t0/*.parquet")}
    assert len(done) == 1
    said = run_command("tune", "typed-punct", *TINY, *command)
    assert "trial 1 ended without a score and is queued again" in said
    assert re.search(r"trial 1 seed 42 fold 0: resumed at step [1-9]", said)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list((folder / "oof").glob("*/s42-f0.parquet"))) == 3
    assert (folder / "processes").is_dir()
    assert list((folder / "processes").iterdir()) == []


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server for this test; yield its URL."""
    programs = find_postgres()
    if programs is None:
        missing = "PostgreSQL is not installed (apt-get install postgresql)"
        if os.environ.get("TESTS_NEED_POSTGRESQL"):
            pytest.fail(missing)
        pytest.skip(missing)
    # initdb refuses to run as root, and what it makes must be its own
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if user is not None:
        shutil.chown(folder, user)
    data, port = folder / "data", find_free_port()
    how = {"user": user, "extra_groups": [], "cwd": folder} if user else {"cwd": folder}
    made = [programs / "initdb", "-D", data, "-U", "tuner", "-A", "trust", "-N", "-E", "UTF8"]
    subprocess.run(made, check=True, capture_output=True, **how)  # type: ignore[call-overload]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *options], stdout=log, stderr=log, **how
        )
    try:
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
        deadline = time.monotonic() + PATIENCE_S
        while subprocess.run(ready, check=False).returncode != 0:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def find_postgres() -> Path | None:
    """Return the folder of the server's programs; Debian keeps them off the PATH."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    return None if found is None else Path(found).parent


def find_free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_may_be_killed(
    tmp_path: Path, postgres: str, start: Callable[..., Tuner]
) -> None:
    """No finished trial is lost, the total is reached, and none is counted twice."""
    command = ["--competition", str(write_tiny(tmp_path)), "--trials", "6"]
    command += ["--storage", postgres, "--dead-after", "4s", "--set", "train.epochs=15"]
    doomed, survivor = start("doomed", *command), start("survivor", *command)
    url = postgres.replace("postgresql://", "postgresql+psycopg://")
    # like both of them, it may meet tables that another process is creating
    storage = room._make_tables(url, 60.0, lambda study, trial: None)

    def read() -> list[FrozenTrial]:
        if not optuna.get_all_study_names(storage):
            return []
        return list(optuna.load_study(study_name="s", storage=storage).get_trials())

    def doomed_runs_one() -> bool:
        trials = [trial for trial in read() if PROCESS in trial.user_attrs]
        both = {trial.user_attrs[PROCESS] for trial in trials}
        running = [t for t in trials if t.state == TrialState.RUNNING and t.params]
        ours = [t for t in running if t.user_attrs[PROCESS].endswith(f"-{doomed.process.pid}")]
        return len(both) == 2 and bool(ours)

    wait_for(doomed_runs_one, doomed)
    doomed.kill()
    before = {t.number: t.value for t in read() if t.state == TrialState.COMPLETE}
    said = survivor.finish()
    trials = read()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert before.items() <= {t.number: t.value for t in complete}.items()
    assert sorted(t.user_attrs[PLACE] for t in complete) == list(range(6))
    assert len({str(t.params) for t in complete}) == 6
    assert not [t for t in trials if t.state in {TrialState.RUNNING, TrialState.WAITING}]
    lost = [t for t in trials if t.state == TrialState.FAIL and t.params]
    assert len(lost) == 1
    again = next(t for t in complete if t.user_attrs.get(RETRY_OF) == lost[0].number)
    assert again.params == lost[0].params
    assert f"trial {again.user_attrs[PLACE]} ended without a score" in said
    assert (tmp_path / "checkpoints/tiny/tune/s").is_dir()
    assert postgres not in said
    storage.remove_session()
    storage.engine.dispose()
