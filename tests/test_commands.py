"""The commands from end to end, as a person runs them.

Most run in this process. Those about imports, exit codes, kills and signals are processes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer import BadParameter

from competition.errors import UsageError
from competition.options import MAX_SEED
from models.jobs.request import FoldRequest
from models.pretraining.request import PretrainRequest
from models.tuning.plan import TuneRequest
from run import _integers
from tests.conftest import RunCommand, write_tiny
from tools.torture.warm import Starter

ROOT = Path(__file__).parent.parent
PATIENCE_S = 240  # for a busy machine; nothing waits so long on an idle one
TINY = [
    *("--encoder", "scratch", "--threads", "1", "--set", "scratch.layers=1"),
    *("--set", "scratch.hidden=32", "--set", "scratch.heads=1", "--set", "scratch.feed_forward=32"),
    *("--set", "scratch.vocabulary=400", "--set", "train.batch_rows=8", "--set", "train.epochs=2"),
]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "COMPETITION_HOME": str(home), "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}


def run_process(home: Path, *arguments: str, exits: int = 0) -> str:
    ended = subprocess.run(
        [sys.executable, ROOT / "run.py", *arguments],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == exits, f"{arguments}: {ended.stdout}\n{ended.stderr}"
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    return ["--competition", str(write_tiny(tmp_path))]


def files_of(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_whole_evening(tmp_path: Path, tiny: list[str], run_command: RunCommand) -> None:
    assert "no_relation" in run_command("data", *tiny)
    shown = run_command("show", "typed-punct", "--rows", "1", *tiny, "--encoder", "scratch")
    assert "[CLS]" in shown
    for variant in ("typed-punct", "concat-cls"):
        run_command("fold", variant, *TINY, "--as", variant, "--workers", "2", *tiny)
    again = run_command("fold", "concat-cls", *TINY, "--as", "concat-cls", *tiny)
    assert again.count("done before, kept") == 3
    assert files_of(tmp_path / "oof" / "tiny") == {
        "folds.csv",
        "folds.json",
        *(
            f"{v}/s42-f{f}.{e}"
            for v in ("typed-punct", "concat-cls")
            for f in range(3)
            for e in ("parquet", "run.json")
        ),
    }
    blended = run_command("blend", "--name", "first", "--trials", "5", *tiny)
    made = tmp_path / "submissions" / "tiny"
    named = " ".join(tiny)
    assert f"Written: {made / 'first.csv'}\n" in blended
    assert f"python run.py check {named} {made / 'first.csv'}; python run.py submit" in blended
    assert files_of(made) == {"first.csv", "first.json", "first.run.json"}
    before = (made / "first.csv").read_bytes(), (made / "first.json").read_bytes()
    run_command("blend", "--name", "second", "--trials", "5", *tiny)
    assert (made / "second.csv").read_bytes() == before[0]
    run_command("check", str(made / "first.csv"), *tiny)
    solution = str(tmp_path / "data" / "solution.csv")
    scored = json.loads(
        run_command(
            "score",
            str(made / "first.csv"),
            "--solution",
            solution,
            *tiny,
            "--json",
            only_stdout=True,
        )
    )
    assert scored
    assert (
        "dry"
        in run_command(
            "submit", str(made / "first.csv"), "--to", "local", "--dry-run", *tiny
        ).lower()
    )
    run_command("submit", str(made / "first.csv"), "--to", "local", *tiny)
    twice = run_command("submit", str(made / "second.csv"), "--to", "local", *tiny, exits=2)
    assert "to send them again, add --resend" in twice
    board = run_command("board", *tiny)
    assert "typed-punct" in board
    assert "first" in board


def test_a_variant_of_ones_own_is_known_by_the_command_that_made_it(
    tmp_path: Path, tiny: list[str], run_command: RunCommand
) -> None:
    words = ["fold", "tfidf-linear", "--set", "linear.regularisation=0.3", "--as", "mine"]
    said = run_command(*words, "--threads", "1", "--folds", "0", *tiny)
    named = " ".join(tiny)
    again = f"run.py fold {named} tfidf-linear --set linear.regularisation=0.3 --as mine"
    assert f"Next: python {again} --threads 1\n" in said
    kept = json.loads((tmp_path / "oof" / "tiny" / "mine" / "s42-f0.run.json").read_text("utf-8"))
    assert kept["command"] == " ".join([*words, "--threads", "1", "--folds", "0", *tiny])
    refused = run_command("fold", "mine", *tiny, exits=2)
    assert f"; mine was made by: python {again} --threads 1 --folds 0\n" in refused


@pytest.mark.slow
def test_specialists_answer_together_as_one_member(
    tmp_path: Path, tiny: list[str], run_command: RunCommand
) -> None:
    for variant in ("short", "medium", "long"):
        run_command("fold", variant, *TINY, "--as", variant, "--workers", "2", *tiny)
    assert {"length.csv", "length.json"} <= files_of(tmp_path / "oof" / "tiny" / "routes")
    blend = ("blend", "short", "medium", "long", "--trials", "2", "--name", "b", *tiny)
    tables = json.loads(run_command(*blend, "--json", only_stdout=True))
    assert [row["name"] for row in tables["members"]["rows"]] == ["route:length"]
    run_command("check", str(tmp_path / "submissions" / "tiny" / "b.csv"), *tiny)


@pytest.mark.slow
def test_a_kill_loses_nothing(tmp_path: Path, run_command: RunCommand, starter: Starter) -> None:
    """After kill -9 in a job its worker ends too, and the same command resumes from there."""
    stores = []
    for home, killed in ((tmp_path / "straight", False), (tmp_path / "killed", True)):
        home.mkdir()
        tiny = ["--competition", str(write_tiny(home))]
        command = ["fold", "typed-punct", *TINY, "--as", "t", "--workers", "1", *tiny]
        command += ["--set", "train.epochs=12", "--set", "run.state_every_s=0.02"]
        command += ["--folds", "0,1"]
        if killed:
            process = starter.start(command, environment(home), home / "out.log")
            log = home / "checkpoints" / "tiny" / "t" / "s42-f1" / "job.log"
            deadline = time.monotonic() + PATIENCE_S
            while not (log.exists() and "checkpoint written" in log.read_text()):
                assert time.monotonic() < deadline, "fold 1 never wrote a state"
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)
            wait_until_gone(int(log.read_text().split("pid ")[1].split()[0]))
            done = {p.name: p.stat().st_mtime_ns for p in (home / "oof" / "tiny" / "t").iterdir()}
            assert "s42-f0.parquet" in done
            assert "s42-f1.parquet" not in done
        said = run_command(*command, home=home)
        if killed:
            assert "t seed 42 fold 0: done before, kept" in said
            assert "t seed 42 fold 1: resumed at step " in said
            assert "fold 1: resumed at step 0" not in said
            after = {p.name: p.stat().st_mtime_ns for p in (home / "oof" / "tiny" / "t").iterdir()}
            assert after["s42-f0.parquet"] == done["s42-f0.parquet"]
        stores.append({p.name: p.read_bytes() for p in (home / "oof/tiny/t").glob("*.parquet")})
    assert len(stores[0]) == 2
    assert stores[0] == stores[1]


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_writes_states_and_the_next_fold_goes_on(
    tmp_path: Path, tiny: list[str], run_command: RunCommand, starter: Starter
) -> None:
    command = ["fold", "typed-punct", *TINY, "--as", "t", "--folds", "0", *tiny]
    command += ["--set", "train.epochs=300"]
    output = tmp_path / "out.log"
    process = starter.start(command, environment(tmp_path), output)
    log = tmp_path / "checkpoints" / "tiny" / "t" / "s42-f0" / "job.log"
    deadline = time.monotonic() + PATIENCE_S
    while not (log.exists() and "step" in log.read_text()):
        assert process.poll() is None, output.read_text("utf-8")
        assert time.monotonic() < deadline, "fold 0 never took a step"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    code, said = process.wait(PATIENCE_S), output.read_text("utf-8")
    assert code == 3, said
    assert "run the same command again to continue" in said
    assert (log.parent / "state.safetensors").exists()
    shorter = run_command(*command, "--stop-after", "0s", exits=3)
    assert "1 job not done" in shorter


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fold", "no-such-variant"], "choose one of augment-aeda"),
        (["fold", "--encoder", "klue/roberta-large"], "use --encoder FOLDER"),
        (["fold", "typed-punct", "--set", "train.lr"], "key=value"),
        (["blend"], "python run.py fold"),
        (["submit"], "python run.py blend"),
        (["check", "nothing.csv"], "nothing.csv"),
        (["check", "x" * 300], "File name too long; use a shorter name"),
        (["submit", "--to", "folder", "--folder", "tiny.toml"], "tiny.toml is not a folder"),
        (["board", "--competition", "nope"], "nope"),
    ],
)
def test_user_errors_have_no_traceback(
    arguments: list[str], said: str, tmp_path: Path, tiny: list[str], run_command: RunCommand
) -> None:
    own = [] if "--competition" in arguments else tiny
    assert said in " ".join(run_command(*arguments, *own, exits=2).split())
    assert not (tmp_path / "submissions").exists()


def test_a_wrong_metric_is_refused_before_anything_is_read(
    tmp_path: Path, run_command: RunCommand
) -> None:
    path = write_tiny(tmp_path)
    (tmp_path / "data" / "train.csv").unlink()
    text = path.read_text("utf-8").replace("[metrics]", '[metrics]\nprimary = "f1"')
    path.write_text(text, encoding="utf-8")
    for command in ("data", "fold"):
        said = run_command(command, "--competition", str(path), exits=2)
        assert "there is no metric 'f1'" in said


def test_a_seed_is_what_every_generator_accepts() -> None:
    assert _integers("--seeds", f"42, {MAX_SEED}") == (42, MAX_SEED)
    assert _integers("--seeds", None) == ()
    for wrong in ("-1", "1.5", "9" * 5_000):
        with pytest.raises(BadParameter, match="not a list like 0,1"):
            _integers("--seeds", wrong)
    for seed in (-1, MAX_SEED + 1):
        for request in (
            lambda seed: FoldRequest(seeds=(42, seed)),
            lambda seed: TuneRequest("typed-punct", seed=seed),
            lambda seed: PretrainRequest(size="mini", seed=seed),
        ):
            with pytest.raises(UsageError, match=rf"--seeds? {seed}: a seed is an integer from 0"):
                request(seed)


def test_bad_rows_stop_every_command_and_nothing_is_written(
    tmp_path: Path, tiny: list[str], run_command: RunCommand
) -> None:
    train = tmp_path / "data" / "train.csv"
    train.write_text(train.read_text("utf-8").replace("per:employer", "per:boss", 1), "utf-8")
    assert "per:boss" in run_process(tmp_path, "data", *tiny, exits=2)
    for command in (["fold", "concat-cls"], ["blend"]):
        assert "per:boss" in run_command(*command, *tiny, exits=2)
    assert not (tmp_path / "oof").exists() or not files_of(tmp_path / "oof")


def test_without_data_the_demo_is_meant_and_said(run_command: RunCommand) -> None:
    said = run_command("data")
    assert "bundled demo" in said.splitlines()[0] or "bundled demo" in said


def test_only_commands_that_train_or_estimate_import_torch(tmp_path: Path, tiny: list[str]) -> None:
    """One process runs them all, the lightest first; what one imports is held against it."""
    commands = [
        ["--help"],
        ["check", "x.csv", *tiny],
        ["score", "x.csv", "--solution", "y", *tiny],
        ["board", *tiny],
        ["blend", *tiny],
        ["compare", "a", "b", *tiny],
    ]
    code = (
        "import runpy, sys\n"
        f"for words in {commands!r}:\n"
        f"    sys.argv = [{str(ROOT / 'run.py')!r}, *words]\n"
        "    try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "    except SystemExit: pass\n"
        "    else: sys.exit(f'{words} did not end')\n"
        "    heavy = {'torch', 'transformers', 'accelerate'}\n"
        "    heavy |= {'pandas', 'pyarrow'} if words[0] in ('--help', 'check') else set()\n"
        "    if heavy & set(sys.modules):\n"
        "        sys.exit(f'{words} imported {heavy & set(sys.modules)}')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr


def test_help_answers_at_once() -> None:
    """Seconds of the processor are compared, as other tests and programs run beside this one."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    def once() -> float:
        before = used()
        subprocess.run([sys.executable, ROOT / "run.py", "--help"], check=True, capture_output=True)
        return used() - before

    assert 0 < min(once() for _ in range(3)) < 0.3


def test_proposed_commands_mean_the_same_competition(
    tmp_path: Path, tiny: list[str], run_command: RunCommand
) -> None:
    profile = Path(tiny[1]).rename(tmp_path / "my tiny.toml")
    named = ["--competition", str(profile), "--limit", "60"]
    said = run_command("board", *named)
    assert f"python run.py fold --competition '{profile}' --limit 60" in said
    assert f"run.py fold --competition '{profile}'" in run_command("board", *named, "--json")
    failed = run_command("blend", *named, exits=2)
    assert f"run: python run.py fold --competition '{profile}' --limit 60" in failed
