"""Engines: what travels with a job, which starts first, and what is said where one is missing."""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from multiprocessing import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from competition.errors import UsageError
from competition.predictions.store import ResultKey
from competition.profile_language import read_first_relations, read_language
from competition.scoring.criteria import assemble_criteria
from competition.scoring.metrics.metric import Task
from models.jobs.engines.choice import open_engine
from models.jobs.engines.engine import EngineChoice
from models.jobs.engines.parcel import check_paths, find_inputs, move
from models.jobs.engines.processes import process_context
from models.jobs.engines.wire import (
    read_message,
    read_spec,
    write_message,
    write_rows,
    write_spec,
)
from models.jobs.order import estimate_work, order_longest_first
from models.jobs.spec import JobOutcome, JobSpec
from models.training.control import Progress
from models.variant import list_variants, resolve_variant

Specs = Callable[..., list[JobSpec]]
SOFT = np.array([[0.25, 0.75]], np.float32)
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("variant", ["typed-punct", "augment-swap"])
def test_all_that_a_job_reads_travels_and_nothing_else(
    variant: str, make_specs: Specs, tmp_path: Path
) -> None:
    (spec,) = make_specs(variant, folds=(0,))
    network = spec.network
    assert network is not None
    inputs = find_inputs(spec)
    wanted = {network.source.path, *network.tokens.values(), *spec.texts.values()}
    assert {each.path for each in inputs} == wanted
    assert len({each.name for each in inputs}) == len(wanted)
    for each in inputs:
        assert each.files
        assert all(path.is_file() for path in each.files.values())
    places = {str(each.path): f"/there/{each.name}" for each in inputs}
    moved = move(spec, places, Path("/there/home"), Path("/there/cache"))
    assert moved.network is not None
    assert str(moved.network.source.path) == places[str(network.source.path)]
    assert str(tmp_path) not in repr(moved)
    assert replace(moved.network, source=network.source, tokens=network.tokens) == network


def test_a_path_that_cannot_travel_is_refused_before_anything_is_sent(make_specs: Specs) -> None:
    (spec,) = make_specs(folds=(0,))
    check_paths(spec)
    strange = Path(os.fsdecode(b"/home/caf\xe9"))
    with pytest.raises(UsageError, match=r"/home/caf\\xe9 is not UTF-8.*leave out --engine"):
        check_paths(replace(spec, cache_dir=strange))


def test_the_rows_of_a_fold_travel_once_for_all_its_jobs(make_specs: Specs) -> None:
    first, second = make_specs(seeds=(1, 2), folds=(0,))
    rows = write_rows(first)
    assert rows == write_rows(second)
    assert len(write_spec(first)) < 10_000
    assert_same_job(read_spec(write_spec(first), rows), first)


def assert_same_job(found: JobSpec, wanted: JobSpec) -> None:
    """Compare all fields, arrays by their bytes and types."""
    for one, two in ((found.rows, wanted.rows), (found, wanted)):
        for each in fields(two):
            mine, theirs = getattr(one, each.name), getattr(two, each.name)
            if isinstance(theirs, np.ndarray):
                assert mine.dtype == theirs.dtype, each.name
                assert mine.tobytes() == theirs.tobytes(), each.name
            elif each.name != "rows":
                assert mine == theirs, each.name


def test_every_variant_and_metric_travels_as_json(make_specs: Specs) -> None:
    (spec,) = make_specs(folds=(0,))
    rows = write_rows(replace(spec, rows=replace(spec.rows, soft_labels=SOFT)))
    language, relations = read_language("english"), read_first_relations()
    for name in list_variants():
        task = Task(3, (0,), merged=((1, 2),), averaged="gold")
        criteria = assemble_criteria("macro-f1", None, task, writes_labels=False)
        variant = resolve_variant(name, encoder="ko-mini")
        sent = replace(
            spec, variant=variant, criteria=criteria, language=language, relations=relations
        )
        found = read_spec(write_spec(sent), rows)
        assert found.variant == variant
        assert found.rows.soft_labels.tobytes() == SOFT.tobytes()  # type: ignore[union-attr]
        assert_same_job(replace(found, rows=spec.rows), sent)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("said", "a line \x1b with \ud7a3"),
        ("failed", "why"),
        ("started", None),
        ("progress", Progress(3, 9, 0.1 + 0.2, 1e-300, float("inf"))),
        (
            "done",
            JobOutcome(ResultKey("v", 2**32 - 1, 0), True, {"micro_f1": 0.1}, warnings=("w",)),
        ),
    ],
)
def test_messages_travel_as_json(kind: str, payload: Any) -> None:
    assert read_message(write_message(kind, payload)) == (kind, payload)


@pytest.mark.parametrize(
    "data", [b"\x80\x04N.", b'["done", 3]', b'["progress", {"step": "x"}]', b"7"]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_message(data)


def test_a_folder_for_jobs_that_others_could_write_to_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from models.jobs.engines.ray_node import open_private

    folder = open_private(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert open_private(tmp_path) == folder
    folder.chmod(0o770)
    with pytest.raises(PermissionError, match="chmod 700"):
        open_private(tmp_path)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        open_private(tmp_path)


def test_the_sockets_of_processes_lie_in_a_folder_of_this_user_alone() -> None:
    process_context()
    assert stat.S_IMODE(Path(util.get_temp_dir()).stat().st_mode) == 0o700


def test_the_longest_jobs_start_first(make_specs: Specs) -> None:
    plain = make_specs("typed-punct")
    twice = make_specs("typed-punct", ("regularise.r_drop", 1.0), save_as="twice")
    longer = make_specs("typed-punct", ("train.epochs", 9), save_as="longer")
    jobs = [plain[0], twice[0], longer[0], plain[1], plain[2]]
    ordered = order_longest_first(jobs)
    assert [spec.key.variant for spec in ordered] == ["longer", "twice", "tiny", "tiny", "tiny"]
    assert [spec.key.fold for spec in ordered[2:]] == [
        spec.key.fold for spec in sorted(plain, key=estimate_work, reverse=True)
    ]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (EngineChoice("slurm"), "--engine 'slurm': choose one of local, ray"),
        (EngineChoice(address="10.0.0.1:6379"), "--address is for --engine ray"),
        (EngineChoice(gpus_per_job=0.5), "--gpus-per-job is for --engine ray"),
    ],
)
def test_a_choice_without_sense_is_refused(choice: EngineChoice, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_engine(choice)


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ModuleNotFoundError("No module named 'ray'", name="ray")

    monkeypatch.setitem(sys.modules, "models.jobs.engines.ray_engine", Absent("absent"))
    with pytest.raises(UsageError, match=r"pip install -r requirements-ray\.txt"):
        open_engine(EngineChoice("ray"))


def test_ray_is_imported_in_three_modules_only() -> None:
    importing = set()
    for path in (
        *ROOT.glob("*.py"),
        *ROOT.glob("competition/**/*.py"),
        *ROOT.glob("models/**/*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.partition(".")[0] == "ray" for name in named):
                importing.add(path.name)
    assert importing == {"ray_cluster.py", "ray_engine.py", "ray_node.py"}


def test_an_address_where_nothing_listens_is_said_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for wrong in (address, "nowhere"):
        with pytest.raises(UsageError, match=r"no Ray cluster answers there .*`ray start --head`"):
            open_engine(EngineChoice("ray", address=wrong))


def test_a_task_passes_on_what_its_job_says_and_asks_it_once_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    from models.jobs.engines import ray_node

    monkeypatch.setattr(ray_node, "MAIL_S", 0.01)
    heard: list[bytes] = []

    class Sender:
        def exchange(self, raw: list[bytes]) -> bool:
            heard.extend(raw)
            return bool(heard)

    ours, theirs = multiprocessing.Pipe()

    def job() -> None:
        theirs.send_bytes(write_message("said", "begun"))
        assert theirs.recv_bytes() == b"stop"
        assert not theirs.poll(0.05)
        theirs.send_bytes(write_message("failed", "7"))
        theirs.close()

    thread = threading.Thread(target=job)
    thread.start()
    rest = ray_node._look_after(ours, Sender())  # type: ignore[arg-type]
    thread.join()
    said = [read_message(each) for each in (*heard, *rest)]
    assert said == [("said", "begun"), ("failed", "7")]


def test_the_cluster_on_kubernetes_has_the_pinned_ray_and_mounts_what_it_names() -> None:
    cluster, claim = yaml.safe_load_all((ROOT / "docs/clusters/kuberay.yaml").read_text("utf-8"))
    pinned = (ROOT / "requirements-ray.txt").read_text("utf-8").split("ray==")[1].split()[0]
    spec = cluster["spec"]
    assert (cluster["kind"], claim["kind"]) == ("RayCluster", "PersistentVolumeClaim")
    assert spec["rayVersion"] == pinned
    templates = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in templates):
        (container,) = pod["containers"]
        assert container["image"] == f"rayproject/ray:{pinned}-py311"
        assert container["args"][0].endswith("&& $KUBERAY_GEN_RAY_START_CMD")
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


GROUP_KEYS = {"template", "rayStartParams"}


def test_the_cluster_on_kubernetes_has_only_fields_that_the_operator_knows() -> None:
    """Of the API ray.io/v1, RayCluster; a mistyped field would be dropped without a word."""
    cluster = next(yaml.safe_load_all((ROOT / "docs/clusters/kuberay.yaml").read_text("utf-8")))
    spec, (workers,) = cluster["spec"], cluster["spec"]["workerGroupSpecs"]
    assert cluster["apiVersion"] == "ray.io/v1"
    known = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"}
    assert spec.keys() == known | {"workerGroupSpecs"}
    assert spec["autoscalerOptions"].keys() <= {"idleTimeoutSeconds", "upscalingMode", "resources"}
    assert spec["headGroupSpec"].keys() == GROUP_KEYS
    counts = ("replicas", "minReplicas", "maxReplicas")
    assert workers.keys() == GROUP_KEYS | {"groupName", *counts}
    assert all(isinstance(workers[count], int) for count in counts)
    for group in (spec["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


STUBS = {
    "scontrol": "printf 'node-1\\n'; sleep 0.2; printf 'node-2\\n'",
    "srun": """case "$*" in
        *hostname*) echo 127.0.0.1;;
        *--head*) echo "$@" >> "$SAID"; exec "$PYTHON" -c "
import socket, sys
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
sys.stdin.read()" "$(echo "$@" | sed 's/.*--port \\([0-9]*\\).*/\\1/')" < "$PIPE";;
        *) echo "$@" >> "$SAID";;
    esac""",
    "python": """echo "python $*" >> "$SAID"; trap 'echo stopped >> "$SAID"; exit 3' TERM
        touch "$SAID.begun"; while :; do sleep 0.05; done""",
}


def test_the_slurm_script_starts_both_nodes_and_passes_a_signal_on(tmp_path: Path) -> None:
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "activate").write_text(f"PATH={commands}:$PATH\n")
    for name, text in STUBS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    os.mkfifo(tmp_path / "pipe")
    said = tmp_path / "said"
    slurm = {"SUBMIT_DIR": str(tmp_path), "JOB_NODELIST": "node-[1-2]", "JOB_ID": "4711"}
    slurm |= {"CPUS_PER_TASK": "16", "JOB_NUM_NODES": "2"}
    process = subprocess.Popen(
        ["bash", str(ROOT / "docs/clusters/slurm.sbatch"), "fold", "rbert", "--seeds", "1,2"],
        env={
            **os.environ,
            **{f"SLURM_{name}": value for name, value in slurm.items()},
            "SAID": str(said),
            "PIPE": str(tmp_path / "pipe"),
            "PYTHON": sys.executable,
        },
        start_new_session=True,
    )
    try:
        # for reading too, so that a script that ends before it reads is a failure, not a wait
        with os.fdopen(os.open(tmp_path / "pipe", os.O_RDWR), "r+b", buffering=0):
            end = time.monotonic() + 60
            while not (tmp_path / "said.begun").exists():
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            process.terminate()
            assert process.wait(60) == 3
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    step = "--overlap --nodes=1 {} --cpus-per-task=16 {} node-1 ray start"
    lines = said.read_text().splitlines()
    assert lines[0].startswith(step.format("--ntasks=1", "-w") + " --head --block")
    assert sorted(lines[1:]) == [
        step.format("--ntasks-per-node=1", "-x")
        + " --block --address 127.0.0.1:24711 --num-cpus 16",
        "python run.py fold rbert --seeds 1,2 --engine ray --address 127.0.0.1:24711",
        "stopped",
    ]
