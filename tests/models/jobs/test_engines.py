"""Engines: what travels with a job, which starts first, and what is said where one is missing."""

from __future__ import annotations

import ast
import multiprocessing
import pickle
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from competition.errors import UsageError
from models.jobs.engines.choice import open_engine
from models.jobs.engines.engine import EngineChoice
from models.jobs.engines.parcel import find_inputs, join_rows, move, split_rows
from models.jobs.order import estimate_work, order_longest_first
from models.jobs.spec import JobSpec

Specs = Callable[..., list[JobSpec]]
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


def test_the_rows_of_a_fold_travel_once_for_all_its_jobs(make_specs: Specs) -> None:
    first, second = make_specs(seeds=(1, 2), folds=(0,))
    bare, rows = split_rows(first)
    assert pickle.dumps(rows) == pickle.dumps(split_rows(second)[1])
    assert len(pickle.dumps(bare)) < 10_000
    joined = join_rows(*[pickle.loads(pickle.dumps(each)) for each in (bare, rows)])
    assert pickle.dumps(joined) == pickle.dumps(pickle.loads(pickle.dumps(first)))


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


def test_ray_is_imported_in_two_modules_only() -> None:
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
    assert importing == {"ray_engine.py", "ray_node.py"}


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
        theirs.send(("said", "begun"))
        assert theirs.recv() == ("stop", None)
        assert not theirs.poll(0.05)
        theirs.send(("done", 7))
        theirs.close()

    thread = threading.Thread(target=job)
    thread.start()
    rest = ray_node._look_after(ours, Sender())  # type: ignore[arg-type]
    thread.join()
    said = [pickle.loads(each) for each in (*heard, *rest)]
    assert said == [("said", "begun"), ("done", 7)]


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
