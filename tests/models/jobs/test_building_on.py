"""Variants that build on another's result, the order they are trained in, and ``predict``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.errors import (
    PredictionsError,
    StoppedError,
    TrainingError,
    UsageError,
    VariantError,
)
from competition.folds.kfold import Prepared
from competition.predictions.members import AVERAGE
from competition.predictions.store import ResultKey, Store
from competition.progress import ProgressBoard
from models.jobs.fold import run_fold
from models.jobs.job import run_job
from models.jobs.plan import plan_jobs
from models.jobs.predict import PredictRequest, run_predict
from models.jobs.request import FoldRequest, resolve_all
from models.jobs.spec import FACTS_FILE, WEIGHTS_FILE, JobSpec
from models.jobs.waves import include_bases, order_in_waves
from models.jobs.workers import FoldRun
from models.training.checkpoints import read_weight_facts
from models.training.control import Watch
from tests.models.conftest import ONE_THREAD, read_home, request_for


def train_base(
    prepared: Prepared, watch: Watch, *, fold: int, keep: bool = True, name: str = "base"
) -> None:
    wanted = request_for("typed-punct", folds=(fold,), save_as=name, keep_checkpoints=keep)
    for spec in plan_jobs(prepared, wanted, print, threads=1).jobs:
        run_job(spec, watch)


def plan_on_base(prepared: Prepared, *, fold: int, **overrides: Any) -> Any:
    wanted = request_for(
        "typed-punct", overrides=tuple(overrides.items()), folds=(fold,), save_as="next"
    )
    return plan_jobs(prepared, wanted, print, threads=1)


def test_a_warm_start_uses_the_weights_of_the_same_fold(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    train_base(prepared, quiet_watch, fold=1)
    spec = plan_on_base(prepared, fold=1, start_from="base").jobs[0]
    assert spec.network is not None
    assert spec.network.start is not None
    path, wanted = spec.network.start
    assert path.parent.name == "s42-f1"
    assert (read_weight_facts(path) or {})["fingerprint"] == wanted
    cold = plan_on_base(prepared, fold=1).jobs[0]
    assert cold.fingerprint != spec.fingerprint
    assert run_job(spec, quiet_watch).finished


def test_the_fingerprint_includes_the_base(prepared: Prepared, quiet_watch: Watch) -> None:
    train_base(prepared, quiet_watch, fold=0)
    first = plan_on_base(prepared, fold=0, start_from="base").jobs[0]
    wanted = request_for(
        "typed-punct", overrides=(("train.lr", 3e-3),), folds=(0,), save_as="base", overwrite=True
    )
    for spec in plan_jobs(prepared, wanted, print, threads=1).jobs:
        run_job(spec, quiet_watch)
    second = plan_on_base(prepared, fold=0, start_from="base").jobs[0]
    assert first.fingerprint != second.fingerprint


def test_missing_results_or_weights_are_reported(prepared: Prepared, quiet_watch: Watch) -> None:
    with pytest.raises(UsageError, match="builds on base, which has no result for fold 0 yet"):
        plan_on_base(prepared, fold=0, start_from="base")
    train_base(prepared, quiet_watch, fold=0, keep=False)
    spec = plan_on_base(prepared, fold=0, start_from="base").jobs[0]
    with pytest.raises(TrainingError, match="without --no-checkpoints"):
        run_job(spec, quiet_watch)


def test_pseudo_labelling_needs_predictions_per_fold(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    """An average over the models of all folds leaks the held-out labels."""
    train_base(prepared, quiet_watch, fold=0)
    store = Store(prepared.competition.oof_dir, prepared.competition.profile.labels)
    own = store.read(ResultKey("base", 42, 0))
    store.write(replace(own, variant={"why": "kim's", "imported": {"test": AVERAGE}}), {})
    with pytest.raises(PredictionsError, match="averaged over its folds"):
        plan_on_base(prepared, fold=0, **{"pseudo.variant": "base"})
    assert plan_on_base(prepared, fold=0, start_from="base").jobs
    store.write(replace(own, data_hash="f" * 64), {})
    with pytest.raises(PredictionsError, match="other data or folds"):
        plan_on_base(prepared, fold=0, **{"pseudo.variant": "base"})


def test_pseudo_labels_come_from_the_same_fold_and_seed(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    """A model of another fold was trained on the held-out rows and would leak their labels."""
    train_base(prepared, quiet_watch, fold=0)
    store = Store(prepared.competition.oof_dir, prepared.competition.profile.labels)
    own = store.read(ResultKey("base", 42, 0))

    def store_answers(seed: int, fold: int, label_id: int) -> None:
        """Store a model that is sure of one label for every test row."""
        sure = np.full_like(own.test_probs, 0.01)
        sure[:, label_id] = 0.97
        ids = prepared.corpus.train.ids[prepared.folds.fold_of == fold]
        oof_probs = np.full((len(ids), sure.shape[1]), 0.25, np.float32)
        told = {"test_probs": sure, "oof_ids": ids, "oof_probs": oof_probs}
        store.write(replace(own, key=ResultKey("base", seed, fold), **told), {})

    def labels_given(seed: int) -> list[set[int]]:
        overrides = (("pseudo.variant", "base"), ("pseudo.min_confidence", 0.9))
        wanted = request_for("typed-punct", overrides=overrides, seeds=(seed,), save_as="next")
        found = []
        for spec in plan_jobs(prepared, wanted, print, threads=1).jobs:
            is_test = spec.rows.train_rows >= len(prepared.corpus.train)
            assert is_test.sum() == spec.rows.added["pseudo"] > 5
            found.append(set(spec.rows.train_label_ids[is_test].tolist()))
        return found

    for fold, label_id in enumerate((2, 0, 3)):
        store_answers(42, fold, label_id)
    assert labels_given(42) == [{2}, {0}, {3}]
    assert labels_given(7) == [{2}, {0}, {3}]  # no result of that seed
    for fold, label_id in enumerate((3, 2, 0)):
        store_answers(7, fold, label_id)
    assert labels_given(7) == [{3}, {2}, {0}]
    assert labels_given(42) == [{2}, {0}, {3}]


def test_overwrite_trains_missing_weights_again(prepared: Prepared, quiet_watch: Watch) -> None:
    train_base(prepared, quiet_watch, fold=0, keep=False)
    wanted = request_for("typed-punct", folds=(0,), save_as="base")
    assert plan_jobs(prepared, wanted, print, threads=1).jobs == ()
    (spec,) = plan_jobs(prepared, replace(wanted, overwrite=True), print, threads=1).jobs
    assert run_job(spec, quiet_watch).finished
    assert plan_jobs(prepared, replace(wanted, overwrite=True), print, threads=1).jobs == ()


def test_variant_files_of_a_user_can_build_on_each_other(
    prepared: Prepared, tmp_path: Path
) -> None:
    base, warm = tmp_path / "my-base.toml", tmp_path / "my-warm.toml"
    base.write_text('base = "typed-punct"\nwhy = "mine"\n[train]\nlr = 1e-4\n')
    warm.write_text('base = "my-base"\nwhy = "warm"\nstart_from = "my-base"\n')
    with pytest.raises(VariantError, match="only one level is allowed"):
        resolve_all(prepared.competition.profile, FoldRequest(variants=(str(warm),)))
    warm.write_text('base = "typed-punct"\nwhy = "warm"\nstart_from = "my-base"\n')
    request = FoldRequest(variants=(str(warm), str(base)), encoder="ko-mini")
    variants = resolve_all(prepared.competition.profile, request)
    waves = order_in_waves(prepared.competition.profile, request, variants)
    assert [[v.name for v in wave] for wave in waves] == [["my-base@ko-mini"], ["my-warm@ko-mini"]]


def test_variants_are_trained_after_what_they_build_on(prepared: Prepared) -> None:
    profile = prepared.competition.profile
    request = request_for("short", "bilstm", "typed-punct", "pseudo")
    variants = resolve_all(profile, FoldRequest(variants=request.variants, encoder="scratch"))
    waves = order_in_waves(
        profile, FoldRequest(variants=request.variants, encoder="scratch"), variants
    )
    assert [[v.name.partition("@")[0] for v in wave] for wave in waves] == [
        ["typed-punct"],
        ["short", "bilstm", "pseudo"],
    ]


def test_start_rate_scales_the_learning_rate_of_a_warm_start(
    prepared: Prepared, quiet_watch: Watch
) -> None:
    train_base(prepared, quiet_watch, fold=0)
    store = Store(prepared.competition.oof_dir, prepared.competition.profile.labels)
    found = []
    for name, rates in (
        ("share", {"train.lr": 1e-3, "start_rate": 0.25}),
        ("own", {"train.lr": 2.5e-4}),
        ("whole", {"train.lr": 1e-3}),
    ):
        overrides = (("start_from", "base"), *rates.items())
        wanted = request_for("typed-punct", overrides=overrides, folds=(0,), save_as=name)
        (spec,) = plan_jobs(prepared, wanted, print, threads=1).jobs
        run_job(spec, quiet_watch)
        found.append(store.read(spec.key).oof_probs)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    with pytest.raises(VariantError, match="start_rate has no effect without start_from"):
        resolve_all(
            prepared.competition.profile, request_for("bilstm", overrides=(("start_rate", 0.5),))
        )


def test_a_base_without_a_result_is_trained_first(prepared: Prepared, quiet_watch: Watch) -> None:
    profile = prepared.competition.profile
    request = FoldRequest(variants=("short",), encoder="scratch", folds=(0, 1), seeds=(7,))
    asked = resolve_all(profile, request)
    said: list[str] = []

    both = include_bases(prepared, request, asked, said.append)
    waves = order_in_waves(profile, request, both)
    assert [[(v.name, v.seeds) for v in wave] for wave in waves] == [
        [("typed-punct", (7,))],
        [("short", (7,))],
    ]
    assert said == ["short builds on typed-punct, which is trained first"]

    for fold in (0, 1):
        train_base(prepared, quiet_watch, fold=fold, name="typed-punct")
        left = include_bases(prepared, request, asked, said.append)
        assert left == (both if fold == 0 else asked)


def test_a_failure_skips_only_the_variants_that_build_on_it(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, next_ = tmp_path / "bad.toml", tmp_path / "next.toml"
    bad.write_text(
        'base = "typed-punct"\nwhy = "its loss is no number"\n[train]\nlr = 1e30\n'
        "[scratch]\nlayers = 1\nhidden = 32\nheads = 1\nfeed_forward = 32\nvocabulary = 400\n"
    )
    next_.write_text('base = "typed-punct"\nwhy = "next"\nstart_from = "bad"\n')
    names = (str(next_), str(bad), "tfidf-linear")
    competition = prepared.competition
    with (
        ProgressBoard(live=False) as board,
        pytest.raises(TrainingError, match=r"^bad s42 f0: .*the loss is"),
    ):
        run_fold(competition, FoldRequest(variants=names, folds=(0,), engine=ONE_THREAD), board)
    said = capsys.readouterr().err
    assert "1 job to train, 0 done before; 1 at a time, 1 thread each; then next, tfidf" in said
    assert "next: skipped, because it builds on bad, which failed" in said
    assert Store(competition.oof_dir, competition.profile.labels).variants() == ["tfidf-linear"]


def test_a_stop_while_the_last_jobs_of_a_wave_end_keeps_later_waves_from_starting(
    prepared: Prepared, quiet_watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def run(specs: Sequence[JobSpec], **how: Any) -> FoldRun:
        started.extend(spec.key.variant for spec in specs)
        outcomes = [run_job(spec, quiet_watch) for spec in specs]
        return FoldRun(tuple(outcomes), (), (), asked_to_stop=True)

    monkeypatch.setattr("models.jobs.fold.run_jobs", run)
    request = FoldRequest(
        variants=("ngram-distil",),
        overrides=(("distil.members", ["tfidf-linear"]), ("mlp.epochs", 1)),
        save_as="taught",
        folds=(0,),
        engine=ONE_THREAD,
    )
    with ProgressBoard(live=False) as board:
        stopped = run_fold(prepared.competition, request, board)
        assert started == ["tfidf-linear"]
        assert not stopped.complete
        again = "1 job not done; run the same command again to continue."
        assert again in stopped.tables[0].notes
        assert run_fold(prepared.competition, request, board).complete
    assert started[1:] == ["taught"]


def test_a_stop_while_a_later_wave_is_planned_leaves_the_summary(
    prepared: Prepared, quiet_watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Task-adaptive pretraining of a later wave runs while its jobs are planned."""
    planned: list[int] = []

    def plan(*args: Any, **how: Any) -> Any:
        planned.append(1)
        if len(planned) == 2:
            raise StoppedError("pretraining was stopped")
        return plan_jobs(*args, **how)

    monkeypatch.setattr("models.jobs.fold.plan_jobs", plan)
    request = FoldRequest(
        variants=("ngram-distil",),
        overrides=(("distil.members", ["tfidf-linear"]), ("mlp.epochs", 1)),
        folds=(0,),
        engine=ONE_THREAD,
    )
    with ProgressBoard(live=False) as board:
        stopped = run_fold(prepared.competition, request, board)
    assert not stopped.complete
    assert "tfidf-linear" in {row["variant"] for row in stopped.tables[0].rows}
    assert stopped.tables[0].notes[-1].startswith("1 job not done; run the same command again")


def test_variants_that_build_on_each_other_are_refused(prepared: Prepared) -> None:
    profile = prepared.competition.profile
    request = FoldRequest(variants=("typed-punct", "short"), encoder="scratch")
    base, warm = resolve_all(profile, request)
    ring = [base.model_copy(update={"start_from": warm.name.partition("@")[0]}), warm]
    with pytest.raises(UsageError, match="build on each other"):
        order_in_waves(profile, request, ring)


@pytest.fixture
def blended(blended_home: Path, tmp_path: Path) -> Prepared:
    home = shutil.copytree(blended_home, tmp_path / "home")
    return read_home(home, home / "tiny.toml")


@pytest.mark.parametrize("name", ["all", "networks"])
def test_predict_reproduces_the_blend_on_the_test_rows(blended: Prepared, name: str) -> None:
    competition = blended.competition
    out = competition.home / "again.csv"
    table = run_predict(competition, PredictRequest(competition.test_path, name, out), print)
    assert table.rows[0]["rows"] == len(blended.corpus.test)
    assert out.read_bytes() == (competition.submissions_dir / f"{name}.csv").read_bytes()


def test_weights_without_recorded_bases_have_none(blended: Prepared) -> None:
    """Such weights come from versions in which variants could not build on each other."""
    competition = blended.competition
    facts = competition.checkpoints_dir / "tfidf-linear" / "s42-f0" / FACTS_FILE
    kept = json.loads(facts.read_text(encoding="utf-8"))
    assert kept.pop("bases") == {}
    facts.write_text(json.dumps(kept), encoding="utf-8")
    out = competition.home / "again.csv"
    run_predict(competition, PredictRequest(competition.test_path, "all", out), print)
    assert out.read_bytes() == (competition.submissions_dir / "all.csv").read_bytes()


def test_predict_refuses_results_that_no_longer_match(blended: Prepared) -> None:
    competition = blended.competition
    ask = PredictRequest(competition.test_path, "networks", competition.home / "x.csv")
    spec = json.loads((competition.submissions_dir / "networks.json").read_text(encoding="utf-8"))
    used = [m["name"] for m in spec["members"] if m["weight"] > 0]
    weights = competition.checkpoints_dir / used[-1] / "s42-f2" / WEIGHTS_FILE
    weights.rename(weights.with_suffix(".away"))
    said: list[str] = []
    with pytest.raises(PredictionsError, match="has no readable weights"):
        run_predict(competition, ask, said.append)
    assert not [line for line in said if line.endswith(" rows")]  # before any is predicted
    with pytest.raises(UsageError, match="no blend 'nope'"):
        run_predict(competition, PredictRequest(competition.test_path, "nope"), print)
    assert not ask.out or not ask.out.exists()
