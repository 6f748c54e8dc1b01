"""What the Ray engine asks of a cluster and does when it fails, with a cluster made up here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from competition.errors import UsageError
from competition.folds.kfold import Prepared
from competition.lease import Leases
from models.jobs.engines.engine import EngineChoice, Message
from models.jobs.engines.worker import lease_path
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import LOG_FILE, JobSpec
from models.variant import resolve_variant

exceptions = pytest.importorskip("ray.exceptions")
room = pytest.importorskip("models.jobs.engines.ray_engine")
cluster_room = pytest.importorskip("models.jobs.engines.ray_cluster")

Specs = Callable[..., list[JobSpec]]
RESOURCES = {"CPU": 32.0, "GPU": 2.0}
NODE = "a" * 56


@dataclass
class MadeUpRay:
    """Stands for the module ``ray``: what is sent to it is lost with its node."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    refuses: Exception | None = None

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return RESOURCES

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": NODE, "Resources": RESOURCES}]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_job_id=lambda: str(id(self)), get_node_id=lambda: NODE)

    def remote(self, *function: Any, **options: Any) -> Any:
        if not function:
            return self.remote
        return _Remote(self, function[0])

    def put(self, data: Any) -> str:
        if self.refuses is not None:
            raise self.refuses
        return "stored"

    def wait(self, refs: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        return refs[:1], refs[1:]

    def get(self, ref: Any) -> Any:
        if ref == "mail":
            return []
        raise exceptions.LocalRayletDiedError

    def cancel(self, ref: Any, **options: Any) -> None:
        self.cancelled += 1

    def kill(self, actor: Any) -> None:
        pass


class _Remote:
    """A function or an actor of the cluster."""

    def __init__(self, ray: MadeUpRay, given: Any) -> None:
        self.ray, self.given, self.asked = ray, given, {}

    def options(self, **asked: Any) -> _Remote:
        self.asked = asked
        return self

    def remote(self, *arguments: Any) -> Any:
        if self.given is room.Mailbox:
            said = SimpleNamespace(remote=lambda: "mail")
            return SimpleNamespace(collect=said, stop=said)
        self.ray.sent.append(self.asked)
        return object()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> MadeUpRay:
    made_up = MadeUpRay()
    monkeypatch.setattr(room, "ray", made_up)
    monkeypatch.setattr(cluster_room, "ray", made_up)
    return made_up


@pytest.fixture
def engine(ray: MadeUpRay) -> Iterator[Any]:
    with closing(room.RayEngine(EngineChoice("ray"))) as engine:
        yield engine


def plan_linear(prepared: Prepared, threads: int) -> JobSpec:
    request = FoldRequest(variants=("tfidf-linear",), folds=(0,))
    return plan_jobs(prepared, request, lambda text: None, threads=threads).jobs[0]


def test_a_model_of_ngrams_asks_for_one_cpu(
    engine: Any, ray: MadeUpRay, prepared: Prepared, make_specs: Specs
) -> None:
    linear = plan_linear(prepared, engine.threads)
    (network,) = make_specs(folds=(0,))
    for spec in (linear, network):
        engine.start(spec)
    asked = [(each["num_cpus"], each["num_gpus"]) for each in ray.sent]
    assert asked == [(1, 0.0), (8, 1.0)]
    assert linear.threads == 1
    assert engine.count_running([linear.variant]) == 32
    assert engine.count_running([network.variant, linear.variant]) == 2
    assert engine.describe([linear])[0].endswith("each job takes 1 CPU")
    assert engine.describe([linear, network]) == [
        "on Ray, 1 node with 32 CPUs and 2 GPUs; each job takes 8 CPUs and 1 GPU, of a model of"
        " n-grams 1 CPU"
    ]


def is_free(spec: JobSpec) -> bool:
    with Leases() as others:
        return others.acquire(lease_path(spec)) is not None


def test_a_job_that_is_lost_runs_again_but_not_after_a_request_to_stop(
    engine: Any, ray: MadeUpRay, make_specs: Specs
) -> None:
    (spec,) = make_specs(folds=(0,))
    engine.start(spec)
    (message,) = engine.receive(1.0)
    assert message.payload.endswith("it runs again")
    assert len(ray.sent) == 2
    engine.request_stop()
    (message,) = engine.receive(1.0)
    assert (message.spec, message.kind, message.payload.finished) == (spec, "done", False)
    assert len(ray.sent) == 2
    assert is_free(spec)
    assert "lost with its node" in (spec.job_dir / LOG_FILE).read_text("utf-8")


def test_a_full_object_store_fails_the_job_alone_in_one_line(
    engine: Any, ray: MadeUpRay, make_specs: Specs
) -> None:
    (spec,) = make_specs(folds=(0,))
    for error in (exceptions.ObjectStoreFullError("x\ny"), exceptions.OutOfDiskError("x\ny")):
        ray.refuses = error
        engine.start(spec)
        said = f"{room.STORE_FULL} ({type(error).__name__})"
        assert engine.receive(0.0) == [Message(spec, "failed", said)]
        assert "\n" not in said
        assert is_free(spec)
    ray.refuses = FileNotFoundError(2, "No such file", "/a/b")
    engine.start(spec)
    assert engine.receive(0.0)[0].payload.startswith("/a/b is gone; run the same command again")


@pytest.mark.parametrize(
    "error", [exceptions.RaySystemError("x\ny"), OSError("Broken pipe")], ids=["ray", "socket"]
)
def test_a_lost_connection_is_said_in_one_line_and_the_job_is_free(
    error: Exception, engine: Any, ray: MadeUpRay, make_specs: Specs
) -> None:
    (spec,) = make_specs(folds=(0,))
    ray.refuses = error
    with pytest.raises(UsageError, match=r"^the connection to the Ray cluster was lost.*continue$"):
        engine.start(spec)
    assert is_free(spec)


def test_with_workers_so_many_jobs_run_on_a_cluster_that_may_grow(ray: MadeUpRay) -> None:
    variants = [resolve_variant("typed-punct", encoder="scratch")]
    for workers, running, started in ((None, 2, room.NO_LIMIT), (9, 9, 9)):
        with closing(room.RayEngine(EngineChoice("ray", workers=workers))) as engine:
            assert engine.count_running(variants) == running
            assert engine.max_started == started
