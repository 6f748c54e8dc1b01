"""What changes around a variant after its jobs: the profile, files of rows, seeds of a base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.errors import VariantError
from competition.folds.kfold import Prepared
from competition.predictions.store import ResultKey, open_store
from models.jobs.job import run_job
from models.jobs.network_job import _read_difficulty
from models.jobs.plan import plan_jobs
from models.jobs.predict import _find_job, predict_job
from models.jobs.request import FoldRequest, resolve_requested
from models.jobs.spec import JobSpec
from models.training.control import Watch
from models.tuning.plan import TuneRequest, plan_search
from tests.models.conftest import make_encoder, plan_tiny

Specs = Callable[..., list[JobSpec]]


def with_profile(prepared: Prepared, **changed: Any) -> Prepared:
    competition = prepared.competition
    profile = competition.profile.model_copy(update=changed)
    return replace(prepared, competition=replace(competition, profile=profile))


def write_train_corrections(prepared: Prepared, kind: str) -> None:
    lines = [f"train,{row},object,{kind}" for row in prepared.corpus.train.ids.tolist()]
    path = prepared.competition.home / "corrections.csv"
    path.write_text("\n".join(["split,id,role,type", *lines]) + "\n", "utf-8")


def test_entity_types_may_change_their_order_or_become_more(
    prepared: Prepared, quiet_watch: Watch, tmp_path: Path
) -> None:
    """New tokens and the table of allowed labels are numbered in the order of the types."""
    sentences = [*prepared.corpus.train.text("sentence").tolist(), "PER ORG LOC @ # * ^"]
    encoder = str(make_encoder("bert", tmp_path / "bert", sentences))
    settings = [("train.epochs", 2), ("train.lr", 3e-3), ("max_tokens", 64)]
    settings += [("restrict.when", "predict"), ("train.batch_rows", 8)]

    def train(prepared: Prepared, name: str) -> JobSpec:
        wanted = FoldRequest(
            variants=("typed-marker",), encoder=encoder, overrides=tuple(settings), save_as=name,
            folds=(0,),
        )  # fmt: skip
        (spec,) = plan_jobs(prepared, wanted, print, threads=1).jobs
        assert run_job(spec, quiet_watch).finished
        return spec

    first = train(prepared, "first")
    other = with_profile(prepared, entity_types=("LOC", "PER", "ORG"))
    more = with_profile(prepared, entity_types=("DAT", "PER", "ORG", "LOC"))
    second = train(other, "second")
    for now in (prepared, other, more):
        store = open_store(now.competition)
        for spec in (first, second):
            found = _find_job(now, store, spec.key, print)
            again = predict_job(found, prepared.corpus.test, 1)
            np.testing.assert_array_equal(again, store.read(spec.key).test_probs)


def test_a_job_is_not_resumed_under_another_order_of_labels(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    steps: list[int] = []

    def should_stop() -> bool:
        steps.append(1)
        return len(steps) >= 3

    (spec,) = plan_tiny(prepared, "typed-punct", folds=(0,))
    assert not run_job(spec, replace(quiet_watch, should_stop=should_stop)).finished
    said: list[str] = []
    labels = prepared.competition.profile.labels
    turned = with_profile(prepared, labels=labels[::-1])
    (again,) = plan_tiny(turned, "typed-punct", folds=(0,))
    assert again.fingerprint == spec.fingerprint
    assert run_job(again, replace(quiet_watch, log=said.append)).finished
    assert not any("resumed" in line for line in said)


def test_difficulty_is_measured_on_the_corrected_rows(
    prepared: Prepared, make_specs: Specs
) -> None:
    write_train_corrections(prepared, "LOC")
    plain, corrected = (
        _read_difficulty(make_specs("typed-punct", ("curriculum.by", "difficulty"), *more)[0])
        for more in ((), (("clean.corrections", "corrections.csv"),))
    )
    assert plain is not None
    assert not np.array_equal(plain, corrected)


def test_difficulty_needs_a_model_of_another_training_fold(
    prepared: Prepared, make_specs: Specs
) -> None:
    folds = prepared.folds
    two = replace(prepared, folds=replace(folds, fold_of=folds.fold_of % 2, count=2))
    with pytest.raises(VariantError, match="needs at least 3 folds, not 2"):
        plan_tiny(two, "typed-punct", ("curriculum.by", "difficulty"))
    assert len(plan_tiny(two, "typed-punct", ("curriculum.by", "length"))) == 2


def test_one_more_seed_of_a_base_leaves_what_builds_on_another(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    def plan(seed: int, **more: Any) -> list[JobSpec]:
        wanted = FoldRequest(variants=("tfidf-linear",), seeds=(seed,), folds=(0,), **more)
        return list(plan_jobs(prepared, wanted, lambda text: None, threads=1).jobs)

    def run(jobs: list[JobSpec]) -> None:
        for spec in jobs:
            assert run_job(spec, quiet_watch).finished

    pseudo = (("pseudo.variant", "tfidf-linear"), ("pseudo.min_confidence", 0.5))
    run(plan(42))
    (built,) = plan(43, overrides=pseudo, save_as="second")
    run([built])
    run(plan(43))
    assert plan(43, overrides=pseudo, save_as="second") == []
    store = open_store(prepared.competition)
    assert _find_job(prepared, store, built.key, print).fingerprint == built.fingerprint
    other = store.read(ResultKey("tfidf-linear", 43, 0))
    store.write(replace(other, key=ResultKey("tfidf-linear", 44, 0), data_hash="f" * 16), {})
    stale = (*pseudo, ("linear.regularisation", 0.5))
    (again,) = plan(43, overrides=stale, save_as="second", overwrite=True)
    assert again.replaces == built.fingerprint, "a seed of other data is no obstacle"
    (new,) = plan(43, overrides=pseudo, save_as="third")
    assert new.fingerprint != built.fingerprint, "a new result builds on the same seed"


@pytest.mark.parametrize("name", ["tfidf-linear", "ngram-mlp"])
def test_adapters_of_the_profile_are_not_those_of_n_grams(prepared: Prepared, name: str) -> None:
    profile = prepared.competition.profile
    plain = resolve_requested(profile, name)
    defaults = profile.defaults.model_copy(update={"overrides": {"adapt.rank": 16, "seeds": [7]}})
    found = resolve_requested(profile.model_copy(update={"defaults": defaults}), name)
    assert found.recipe() == plain.recipe()
    assert found.seeds == (7,)


def test_a_search_is_not_continued_with_other_corrections(prepared: Prepared) -> None:
    wanted = TuneRequest(
        "tfidf-linear",
        search=("linear.regularisation=0.1..1.0:log",),
        trials=3,
        overrides=(("clean.corrections", "corrections.csv"),),
    )
    found = []
    for kind in ("LOC", "PER", "PER"):
        write_train_corrections(prepared, kind)
        found.append(plan_search(prepared, wanted).plan)
    assert found[0].name != found[1].name
    assert found[1].made_from == found[2].made_from
