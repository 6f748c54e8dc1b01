from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from competition.errors import PredictionsError, UsageError
from competition.folds.kfold import Prepared, read_prepared
from competition.lease import Leases
from competition.predictions.store import Store
from competition.profile import resolve_competition
from models.data.fold_inputs import FoldInputs
from models.data.pool import FoldRows, build_pool, choose_fold_rows
from models.data.route import Route
from models.jobs.engines.local import LocalEngine
from models.jobs.engines.worker import explain_failure
from models.jobs.job import COLLAPSE_ADVICE, _describe, run_job
from models.jobs.plan import Plan, plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobOutcome, JobSpec
from models.jobs.workers import FoldHooks, FoldRun, raise_failures, run_jobs
from models.parts.heads import Positions
from models.settings import TuneSettings
from models.training.control import Watch
from models.variant import LINEAR, resolve_variant
from tests.conftest import leave_lease, write_tiny
from tests.models.conftest import TINY_SCRATCH, inputs_of

Specs = Callable[..., list[JobSpec]]


def plan(prepared: Prepared, **request: Any) -> Plan:
    wanted = FoldRequest(
        variants=request.pop("variants", ("typed-punct",)),
        encoder="scratch",
        overrides=(*TINY_SCRATCH, *request.pop("overrides", ())),
        **request,
    )
    return plan_jobs(prepared, wanted, lambda text: None, threads=1)


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


Twins = tuple[Prepared, Prepared]
HELD_OUT = 1  # the fold whose labels differ between the twins
READS_LABELS: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    "plain": ("typed-punct", ()),
    "difficulty": ("curriculum-difficulty", ()),
    "restricted": ("type-restricted", ()),
    "restricted-in-training": ("type-restricted-train", ()),
    "class-weights": ("class-weights", ()),
    "weighted-sampling": ("weighted-sampling", ()),
    "swapped": ("augment-swap", (("augment.share", 1.0),)),
    "masked-and-restricted": ("augment-mask", (("augment.share", 1.0), ("restrict.when", "train"))),
    "dedup": ("dedup", ()),
    "pseudo": ("pseudo", (("pseudo.variant", "base"), ("pseudo.min_confidence", 0.01))),
    "distilled": ("distil", (("distil.members", ["base"]),)),
    "warm": ("typed-punct", (("start_from", "base"),)),
    "tapt": ("tapt", ()),
}
"""By name, a variant and its overrides: whatever reads labels, or reads what was made with them."""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory, module_watch: Watch) -> Twins:
    """The tiny competition twice, the held-out labels of one fold permuted in the second's file.

    Each has a home, and so caches, of its own: what one keeps on disk cannot hide what the other
    would have made. Both have a result of ``typed-punct`` for that fold, named ``base``.
    """
    made: list[Prepared] = []
    for name in ("as-they-are", "permuted"):
        home = tmp_path_factory.mktemp(name)
        profile = write_tiny(home)
        for path in (profile, *(home / "data").iterdir()):  # an organisation can be a subject
            text = path.read_text(encoding="utf-8").replace("per:employer", "org:dissolved")
            path.write_text(text, encoding="utf-8", newline="")
        found = resolve_competition(str(profile), None, None, home=home)
        if made:
            _permute_labels(found.train_path, made[0].folds.fold_of == HELD_OUT)
            found.oof_dir.mkdir(parents=True)
            for file in ("folds.csv", "folds.json"):
                shutil.copy(made[0].competition.oof_dir / file, found.oof_dir / file)
        made.append(read_prepared(found))
        run_job(plan(made[-1], save_as="base", folds=(HELD_OUT,)).jobs[0], module_watch)
    first, second = made
    differs = first.corpus.train.gold != second.corpus.train.gold
    assert differs.any()
    assert (first.folds.fold_of == second.folds.fold_of).all()
    assert not differs[first.folds.fold_of != HELD_OUT].any()
    return first, second


@pytest.fixture(scope="module")
def module_watch() -> Watch:
    return Watch(report=lambda at: None, should_stop=lambda: False, log=lambda text: None)


def _permute_labels(path: Path, heldout: Any) -> None:
    """Permute the labels of the held-out rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as stream:
        header, *records = csv.reader(stream)
    at, places = header.index("label"), np.flatnonzero(heldout).tolist()
    labels = [records[place][at] for place in places]
    for place, label in zip(places, labels[-1:] + labels[:-1], strict=True):
        records[place][at] = label
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *records])


def content(value: Any) -> Any:
    """Return the content of a value, recursively, in a form that can be compared."""
    if isinstance(value, np.ndarray):
        held = value.tolist() if value.dtype == object else value.tobytes()
        return value.dtype.str, value.shape, held
    if isinstance(value, pd.DataFrame):
        return value.to_csv()
    if is_dataclass(value):
        return {field.name: content(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "backend_tokenizer"):
        return value.backend_tokenizer.to_str()
    return value


def content_of_job(job: JobSpec) -> dict[str, Any]:
    """Return all inputs of a job's training, with augmented epochs and class weights."""
    network = job.network
    assert network is not None
    inputs = inputs_of(job)
    start = None if network.start is None else load_file(network.start[0])
    source = network.source.path / "model.safetensors"
    return {
        **content(inputs),
        "plain": content(inputs.plain),
        "epochs": [content(inputs.epoch(number)) for number in (0, 1)],
        "rows": content(job.rows),
        "texts": {name: content(pd.read_parquet(path)) for name, path in job.texts.items()},
        "encoder": load_file(source) if network.source.has_weights else None,
        "start": start,
    }


@pytest.mark.parametrize("name", READS_LABELS)
def test_training_inputs_do_not_depend_on_held_out_labels(name: str, twins: Twins) -> None:
    variant, overrides = READS_LABELS[name]
    jobs = [
        plan(p, variants=(variant,), overrides=overrides, save_as=name, folds=(HELD_OUT,)).jobs[0]
        for p in twins
    ]
    assert (jobs[0].heldout_label_ids != jobs[1].heldout_label_ids).any()
    before, after = (content_of_job(job) for job in jobs)
    assert before.keys() == after.keys()
    for field in before.keys() - {"encoder", "start"}:
        assert before[field] == after[field], field
    for field in ("encoder", "start"):
        weights, others = before[field] or {}, after[field] or {}
        assert content(list(weights)) == content(list(others))
        for tensor, values in weights.items():
            assert content(values) == content(others[tensor]), f"{field}: {tensor}"


def test_training_inputs_do_depend_on_training_labels(twins: Twins) -> None:
    """Otherwise the test above would compare nothing."""

    def made(name: str) -> tuple[JobSpec, FoldInputs]:
        variant, overrides = READS_LABELS[name]
        asked = {"variants": (variant,), "overrides": overrides, "save_as": name}
        job = plan(twins[0], folds=(HELD_OUT,), **asked).jobs[0]
        return job, inputs_of(job)

    assert made("difficulty")[1].difficulty is not None
    pairs = made("restricted")[1].pairs
    assert pairs is not None
    assert not pairs.table.all()
    for name in ("swapped", "masked-and-restricted"):
        inputs = made(name)[1]
        assert inputs.epoch(0) is not inputs.plain
    assert made("pseudo")[0].rows.added["pseudo"] > 0
    soft_labels = made("distilled")[1].soft_labels
    assert soft_labels is not None
    assert len(soft_labels) == made("distilled")[0].rows.added["soft"] > 0
    network = made("warm")[0].network
    assert network is not None
    assert network.start is not None
    adapted = made("tapt")[0].network
    assert adapted is not None
    assert adapted.source.has_weights
    assert not {"heldout_label_ids", "labels"} & set(FoldInputs.__dataclass_fields__)


@pytest.mark.parametrize("variant", ["typed-punct", "type-restricted", "tfidf-linear"])
def test_predictions_do_not_depend_on_held_out_labels(
    variant: str, twins: Twins, quiet_watch: Watch
) -> None:
    results = []
    for data in twins:
        encoder, overrides = (None, ()) if variant == "tfidf-linear" else ("scratch", TINY_SCRATCH)
        asked = FoldRequest((variant,), (HELD_OUT,), (), encoder, overrides, f"out-{variant}")
        spec = plan_jobs(data, asked, print, threads=1).jobs[0]
        run_job(spec, quiet_watch)
        results.append(Store(spec.store_dir, spec.labels).read(spec.key))
    assert results[0].oof_probs.tobytes() == results[1].oof_probs.tobytes()
    assert results[0].test_probs.tobytes() == results[1].test_probs.tobytes()


def choose(prepared: Prepared, route: Route | None, fold: int) -> FoldRows:
    variant = resolve_variant("typed-punct", encoder="scratch")
    pool = build_pool(prepared, variant)
    return choose_fold_rows(prepared, pool, variant, route=route, fold=fold)


def test_train_and_held_out_rows_partition_the_data_without_shared_groups(
    prepared: Prepared,
) -> None:
    n_rows, seen = len(prepared.corpus.train), []
    for fold in range(prepared.folds.count):
        rows = choose(prepared, None, fold)
        assert sorted([*rows.train_rows, *rows.heldout_rows]) == list(range(n_rows))
        held = prepared.groups[rows.heldout_rows]
        assert not set(prepared.groups[rows.train_rows]) & set(held)
        assert (rows.train_label_ids == prepared.corpus.train.gold[rows.train_rows]).all()
        assert (rows.train_groups == prepared.groups[rows.train_rows]).all()
        assert fold not in rows.train_folds
        assert len(rows.test_rows) == len(prepared.corpus.test)
        seen += rows.heldout_rows.tolist()
    assert sorted(seen) == list(range(n_rows))


def test_a_specialist_trains_on_and_predicts_only_its_route(prepared: Prepared) -> None:
    mask = np.arange(len(prepared.corpus.train)) % 2 == 0
    route = Route(mask, np.arange(len(prepared.corpus.test)) < 5, "h")
    rows = choose(prepared, route, 0)
    assert mask[rows.train_rows].all()
    assert mask[rows.heldout_rows].all()
    assert rows.test_rows.tolist() == [0, 1, 2, 3, 4]


def test_a_job_writes_exactly_its_files(make_specs: Specs, quiet_watch: Watch) -> None:
    spec = make_specs(folds=(0,))[0]
    outcome = run_job(spec, quiet_watch)
    assert files_of(spec.store_dir / "tiny") == ["s42-f0.parquet", "s42-f0.run.json"]
    assert files_of(spec.job_dir) == ["model.safetensors"]
    run = json.loads((spec.store_dir / "tiny" / "s42-f0.run.json").read_text())
    assert run["micro_f1"] == outcome.scores["micro_f1"]
    assert run["precision"] == "float32"
    assert run["threads"] == 1
    lean = make_specs(folds=(1,), keep_checkpoints=False)[0]
    run_job(lean, quiet_watch)
    assert files_of(lean.job_dir) == []


def test_the_command_is_recorded_only_in_the_provenance(
    make_specs: Specs, quiet_watch: Watch
) -> None:
    command = "fold typed-punct --encoder scratch --as tiny --workers 2"
    plain, told = make_specs(folds=(0,))[0], make_specs(folds=(0,), command=command)[0]
    assert (plain.fingerprint, plain.recipe) == (told.fingerprint, told.recipe)
    store = Store(plain.store_dir, plain.labels)
    run_job(plain, quiet_watch)
    before = store.path(plain.key).read_bytes()
    assert "command" not in store.read_run(plain.key)
    run_job(told, quiet_watch)
    assert store.path(told.key).read_bytes() == before
    assert store.read_run(told.key)["command"] == command


def test_a_result_of_a_tuned_variant_names_the_folds(make_specs: Specs) -> None:
    variant = make_specs(folds=(0,))[0].variant
    told = {"folds": [0], "trials": 2, "study": "s"}
    for tune in (told, told | {"folds_hash": "f" * 64}):
        tuned = variant.model_copy(update={"tune": TuneSettings.model_validate(tune)})
        assert _describe(tuned) == _describe(variant) | {"tune": tune}
        assert tuned.recipe() == variant.recipe()


def test_keeping_the_weights_does_not_change_the_predictions(
    make_specs: Specs, quiet_watch: Watch
) -> None:
    kept, lean = make_specs(folds=(0,))[0], make_specs(folds=(0,), keep_checkpoints=False)[0]
    store = Store(kept.store_dir, kept.labels)
    run_job(kept, quiet_watch)
    before = store.path(kept.key).read_bytes()
    run_job(lean, quiet_watch)
    assert store.path(lean.key).read_bytes() == before


def test_a_collapsed_fold_gives_a_warning(make_specs: Specs, quiet_watch: Watch) -> None:
    spec = make_specs("concat-cls", ("train.lr", 1e-9), folds=(0,))[0]
    same = np.ones_like(spec.rows.train_label_ids)
    constant = replace(spec, rows=replace(spec.rows, train_label_ids=same))
    hot = replace(constant, variant=make_specs("concat-cls", ("train.lr", 0.02))[0].variant)
    outcome = run_job(hot, quiet_watch)
    assert (
        "training collapsed: all held-out rows are predicted as 'no_relation'"
        in outcome.warnings[0]
    )
    assert "a lower train.lr" in outcome.warnings[0]
    assert "train." not in COLLAPSE_ADVICE[LINEAR]


def test_finished_jobs_are_not_planned_again(prepared: Prepared, quiet_watch: Watch) -> None:
    first = plan(prepared, save_as="t")
    assert [job.key.fold for job in first.jobs] == [0, 1, 2]
    run_job(first.jobs[1], quiet_watch)
    folder = first.jobs[1].job_dir  # as if it had been killed after it stored its result
    for name, of in (("state.safetensors", first.jobs[1]), ("kept.safetensors", first.jobs[0])):
        facts = json.dumps({"fingerprint": of.fingerprint})
        save_file({"step": np.zeros(1)}, folder / name, metadata={"facts": facts})
    leave_lease(folder / "job", born="before")
    again = plan(prepared, save_as="t")
    assert [job.key.fold for job in again.jobs] == [0, 2]
    assert [key.fold for key in again.done] == [1]
    assert not list(folder.glob("*.lease"))
    assert not (folder / "state.safetensors").exists()
    (folder / "kept.safetensors").rename(folder / "state.safetensors")
    plan(prepared, save_as="t")
    assert (folder / "state.safetensors").exists()  # of another recipe: it may go on
    two = plan(prepared, save_as="t", folds=(1,), seeds=(42, 43))
    assert [(job.key.seed, job.key.fold) for job in two.jobs] == [(43, 1)]


def test_a_result_of_another_recipe_is_never_mixed_in(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    run_job(plan(prepared, save_as="t", folds=(0,)).jobs[0], quiet_watch)
    changed = (("train.lr", 5e-4),)
    with pytest.raises(PredictionsError, match="another recipe"):
        plan(prepared, save_as="t", overrides=changed)
    replaced = plan(prepared, save_as="t", overrides=changed, overwrite=True)
    assert len(replaced.jobs) == 3
    assert len(plan(prepared, overrides=changed).jobs) == 3  # under a name of its own


def test_hardware_settings_do_not_make_a_result_stale(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    run_job(plan(prepared, save_as="t", folds=(0,)).jobs[0], quiet_watch)
    again = plan(prepared, save_as="t", folds=(0,), overrides=(("run.micro_tokens", 512),))
    assert again.jobs == ()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"folds": (3,)}, "--folds 3: the folds are 0 to 2"),
        ({"variants": ("typed-punct", "concat-cls"), "save_as": "x"}, "--as takes one variant"),
        ({"variants": ("typed-punct", "typed-punct")}, "name each variant once"),
    ],
)
def test_an_invalid_request_is_refused(
    prepared: Prepared, request_: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        plan(prepared, **request_)


def test_every_position_that_a_head_reads_exists() -> None:
    from models.data.batches import POSITION_NAMES

    assert ("lengths", *POSITION_NAMES) == Positions.names()


def run_all(specs: list[JobSpec], **options: Any) -> tuple[FoldRun, list[str]]:
    heard: list[str] = []
    on_said = options.get("on_said", lambda spec, text: None)

    def said(spec: JobSpec, text: str) -> None:
        heard.append(text)
        on_said(spec, text)

    on_finished = options.get("on_finished", lambda spec, outcome: None)

    def finished(spec: JobSpec, outcome: JobOutcome) -> None:
        heard.append(f"finished {spec.key.fold}")
        on_finished(spec, outcome)

    hooks = FoldHooks(
        started=lambda spec: heard.append(f"started {spec.key.fold}"),
        progress=lambda spec, at: None,
        said=said,
        finished=finished,
        failed=lambda spec, reason: heard.append(f"failed {spec.key.fold}"),
    )
    with closing(LocalEngine(2)) as engine:
        run = run_jobs(specs, engine=engine, deadline=options.get("deadline"), hooks=hooks)
    return run, heard


@pytest.mark.parametrize("variant", ["ngram-mlp", "tfidf-linear"])
def test_a_model_of_ngrams_ends_at_the_last_step_that_it_reports(
    variant: str, prepared: Prepared
) -> None:
    request = FoldRequest((variant,), (0,), overrides=(("mlp.epochs", 1),) * ("mlp" in variant))
    (spec,) = plan_jobs(prepared, request, lambda text: None, threads=8).jobs
    assert spec.threads == 1
    reported = [0]
    watch = Watch(lambda at: reported.append(at.step), lambda: False, lambda text: None)
    assert run_job(spec, watch).step == reported[-1]
    assert (reported[-1] > 0) == (variant == "ngram-mlp")


def test_jobs_in_worker_processes_give_the_same_result(
    make_specs: Specs, quiet_watch: Watch
) -> None:
    specs = make_specs()
    store = Store(specs[0].store_dir, specs[0].labels)
    alone = []
    for spec in reversed(specs):
        run_job(spec, quiet_watch)
        alone.append(store.path(spec.key).read_bytes())
        store.path(spec.key).unlink()
    run, heard = run_all(specs)
    assert sorted(outcome.key.fold for outcome in run.finished) == [0, 1, 2]
    assert [store.path(spec.key).read_bytes() for spec in reversed(specs)] == alone
    assert heard.count("finished 1") == 1
    for spec in specs:
        assert files_of(spec.job_dir) == ["job.log", "metrics.jsonl", "model.safetensors"]


def test_a_failed_job_does_not_stop_the_others(make_specs: Specs) -> None:
    good, bad = make_specs(folds=(0, 1))
    broken = replace(bad, variant=make_specs("typed-punct", ("train.lr", 1e30))[0].variant)
    run, heard = run_all([broken, good])
    assert [outcome.key.fold for outcome in run.finished] == [0]
    assert "failed 1" in heard
    from competition.errors import TrainingError

    with pytest.raises(TrainingError, match=r"tiny s42 f1: .*the loss is nan"):
        raise_failures(run.failed)


def test_a_file_that_vanished_while_a_job_ran_is_named() -> None:
    for gone in (FileNotFoundError(2, "No such file", "/a/b"), FileNotFoundError("/a/b")):
        assert explain_failure(gone) == "/a/b is gone; run the same command again to make it again"


def test_another_recipe_stored_meanwhile_is_not_replaced(
    make_specs: Specs, quiet_watch: Watch
) -> None:
    spec = make_specs(folds=(0,))[0]
    store = Store(spec.store_dir, spec.labels)
    run_job(spec, quiet_watch)
    other = replace(store.read(spec.key), fingerprint="f" * 64)
    store.write(other, {})
    before = store.path(spec.key).read_bytes()
    run, _ = run_all([spec])
    assert "another recipe" in run.failed[0][1]
    assert store.path(spec.key).read_bytes() == before
    run, _ = run_all([replace(spec, replaces=other.fingerprint)])
    assert run.finished


def test_a_deadline_stops_jobs_with_a_checkpoint(make_specs: Specs) -> None:
    specs = make_specs("typed-punct", ("train.epochs", 500), folds=(0, 1))
    run, _ = run_all(specs, deadline=0.0)
    assert {key.fold for key in run.stopped} == {0, 1}
    assert not run.finished


@pytest.mark.slow
def test_a_killed_worker_is_reported_and_its_job_resumed(
    make_specs: Specs, quiet_watch: Watch
) -> None:
    long = (("train.epochs", 60), ("run.state_every_s", 0.02))
    specs = make_specs("typed-punct", *long, folds=(0,))

    def kill(spec: JobSpec, text: str) -> None:
        if text.startswith("checkpoint written"):
            os.kill(int((spec.job_dir / "job.log").read_text().split("pid ")[1].split()[0]), 9)

    run, _ = run_all(specs, on_said=kill)
    assert "killed by SIGKILL; out of memory?" in run.failed[0][1]
    path = Store(specs[0].store_dir, specs[0].labels).path(specs[0].key)
    assert not path.exists()
    run, heard = run_all(specs)
    resumed = [text for text in heard if text.startswith("resumed at step")]
    assert len(resumed) == 1
    assert int(resumed[0].split()[-1]) > 0
    interrupted = path.read_bytes()
    path.unlink()
    run_job(specs[0], quiet_watch)
    assert path.read_bytes() == interrupted


def test_a_job_running_in_another_process_is_waited_for(
    make_specs: Specs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.jobs.workers.BUSY_WAIT_S", 0.2)
    busy, free = make_specs(folds=(0, 1))
    busy.job_dir.mkdir(parents=True)
    other = Leases()
    assert other.acquire(busy.job_dir / "job")

    def release(spec: JobSpec, outcome: JobOutcome) -> None:
        other.close()

    run, heard = run_all([busy, free], on_finished=release)
    assert [outcome.key.fold for outcome in run.finished] == [1, 0]
    assert heard.count("started 0") > 1
    assert all(outcome.scores is not None for outcome in run.finished)
