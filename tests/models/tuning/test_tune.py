"""tune with fake jobs: trials, retries, pruning and the file it writes."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pytest
from optuna.trial import TrialState

from competition.errors import TrainingError, UsageError, VariantError
from competition.folds.kfold import Prepared
from competition.predictions.store import Result, Store
from competition.progress import ProgressBoard
from models.jobs.engines.engine import Engine, EngineChoice
from models.jobs.request import resolve_requested
from models.jobs.spec import JobOutcome, JobSpec
from models.jobs.workers import FoldHooks, FoldRun
from models.training.loop import check_loss
from models.tuning import tune as room
from models.tuning.parallel import run_beside
from models.tuning.plan import TuneRequest, plan_search
from models.tuning.report import TuneSummary, build_toml
from models.tuning.study import MAX_ATTEMPTS, open_study
from models.tuning.tune import run_tune
from models.variant import Variant, list_variants, resolve_variant
from tests.competition.klue_scores import auprc, decide, micro_f1
from tests.competition.planted import softmax
from tests.models.conftest import ONE_THREAD, TINY_SCRATCH, make_encoder

SEARCH = ("train.lr=1e-4..1e-2:log", "train.label_smoothing=0.0|0.1|0.2")
REQUEST = TuneRequest(
    variant="typed-punct",
    search=SEARCH,
    folds=(0,),
    trials=5,
    encoder="scratch",
    overrides=TINY_SCRATCH,
    study="s",
    engine=ONE_THREAD,
)
BEST_LR = 2e-3


@dataclass
class FakeJobs:
    """Fake jobs: predictions are better the nearer train.lr is to ``BEST_LR``; they can fail."""

    prepared: Prepared
    started: list[JobSpec] = field(default_factory=list)
    fail: Callable[[JobSpec], str | None] = lambda spec: None
    stop: Callable[[JobSpec], bool] = lambda spec: False

    def run(
        self, specs: Sequence[JobSpec], *, engine: Engine, hooks: FoldHooks, **how: Any
    ) -> FoldRun:
        finished, stopped, failed = [], [], []
        for spec in specs:
            self.started.append(spec)
            reason = self.fail(spec)
            if reason is not None:
                failed.append((spec.key, reason))
            elif self.stop(spec):
                stopped.append(spec.key)
            else:
                Store(spec.store_dir, spec.labels).write(self.answer(spec), {})
                finished.append(JobOutcome(spec.key, finished=True))
        return FoldRun(tuple(finished), tuple(stopped), tuple(failed))

    def answer(self, spec: JobSpec) -> Result:
        train, test = self.prepared.corpus.train, self.prepared.corpus.test
        rows = np.flatnonzero(self.prepared.folds.fold_of == spec.key.fold)
        rng = np.random.default_rng([spec.key.fold, spec.key.seed])
        logits = rng.normal(0, 1, (len(rows), len(spec.labels)))
        sight = 3 - 2 * abs(np.log10(spec.variant.train.lr / BEST_LR))
        logits[np.arange(len(rows)), train.gold[rows]] += sight
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
            oof_ids=train.ids[rows],
            oof_probs=softmax(logits),
            test_ids=test.ids,
            test_probs=softmax(np.zeros((len(test), len(spec.labels)))),
        )


@pytest.fixture
def jobs(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    made_up = FakeJobs(prepared)
    monkeypatch.setattr(room, "run_jobs", made_up.run)
    return made_up


def tune(prepared: Prepared, **changes: Any) -> TuneSummary:
    request = replace(REQUEST, **changes)
    return run_tune(prepared.competition, request, ProgressBoard(live=False))


def trials_in(summary: TuneSummary) -> list[dict[str, Any]]:
    return [dict(row) for row in summary.tables[0].rows]


def folder_of(prepared: Prepared) -> Path:
    return prepared.competition.checkpoints_dir / "tune" / "s"


def load(prepared: Prepared, **changes: Any) -> optuna.Study:
    plan = plan_search(prepared, replace(REQUEST, **changes)).plan
    with open_study(plan, lambda text: None) as shared:
        return shared.study


def test_the_best_trial_is_written_as_a_variant_file(prepared: Prepared, jobs: FakeJobs) -> None:
    summary = tune(prepared, trials=12)
    assert summary.complete
    rows = trials_in(summary)
    assert [row["trial"] for row in rows] == list(range(12))
    assert rows[0]["parameters"] == {"train.lr": 1e-3, "train.label_smoothing": "0.1"}  # as it is
    best = max(rows, key=lambda row: row["value"])
    assert [row["state"] for row in rows].count("best") == 1
    assert best["state"] == "best"
    assert summary.path is not None
    variant = resolve_requested(prepared.competition.profile, str(summary.path))
    assert variant.train.lr == best["parameters"]["train.lr"]
    assert str(variant.train.label_smoothing) == best["parameters"]["train.label_smoothing"]
    tried = next(spec.variant for spec in jobs.started if spec.variant.train.lr == variant.train.lr)
    assert variant.recipe() == tried.recipe()
    assert variant.name == f"{plan_search(prepared, REQUEST).base.name}-tuned"
    assert "tuned on folds 0: best of 12 trials by micro-f1" in variant.why
    assert variant.tune is not None
    assert (variant.tune.folds, variant.tune.trials, variant.tune.study) == ((0,), 12, "s")
    assert variant.tune.folds_hash == prepared.folds.hash
    moved = variant.model_copy(
        update={"tune": variant.tune.model_copy(update={"folds_hash": "f" * 64})}
    )
    assert moved.recipe() == variant.recipe()
    found = summary.tables[1]
    assert [row["setting"] for row in found.rows] == ["train.lr", "train.label_smoothing"]
    assert sum(row["importance"] for row in found.rows) == pytest.approx(1)
    assert any("--folds 1,2" in note for note in found.notes)


def test_the_value_of_a_trial_is_its_held_out_score(prepared: Prepared, jobs: FakeJobs) -> None:
    for objective in ("micro-f1", "auprc", "both"):
        summary = tune(
            prepared, folds=(0, 2), trials=1, objective=objective, study=f"s-{objective}"
        )
        row = trials_in(summary)[0]
        probs, gold = pooled(prepared, jobs.started[-2:])
        f1, area = micro_f1(gold, decide(probs, 1, None), 1), auprc(gold, probs)
        assert (row["micro_f1"], row["auprc"]) == (f1, area)
        assert row["value"] == {"micro-f1": f1, "auprc": area, "both": (f1 + area) / 2}[objective]
        assert row["folds"] == [0, 2]


def pooled(
    prepared: Prepared, specs: Sequence[JobSpec]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    results = [Store(spec.store_dir, spec.labels).read(spec.key) for spec in specs]
    row_of = {row_id: row for row, row_id in enumerate(prepared.corpus.train.ids)}
    rows = [row_of[row_id] for result in results for row_id in result.oof_ids]
    gold = prepared.corpus.train.gold[rows].astype(np.int64)
    return np.concatenate([result.oof_probs for result in results]), gold


def test_trials_are_stored_in_the_folder_of_the_study_only(
    prepared: Prepared, jobs: FakeJobs
) -> None:
    tune(prepared, trials=2)
    left = {entry.name for entry in prepared.competition.oof_dir.iterdir()}
    assert left <= {"folds.csv", "folds.json"}
    base = plan_search(prepared, REQUEST).base.name
    stored = folder_of(prepared) / "oof"
    assert {entry.name for entry in stored.iterdir()} == {f"{base}@t0", f"{base}@t1"}
    assert not any(spec.keep_checkpoint for spec in jobs.started)
    assert all(folder_of(prepared) in spec.job_dir.parents for spec in jobs.started)


def test_the_same_command_resumes_and_repeats_nothing(prepared: Prepared, jobs: FakeJobs) -> None:
    first = trials_in(tune(prepared, trials=3))
    assert len(jobs.started) == 3
    again = trials_in(tune(prepared, trials=3))
    assert len(jobs.started) == 3
    assert again == first
    more = trials_in(tune(prepared, trials=5))
    assert len(jobs.started) == 5
    assert [row["parameters"] for row in more[:3]] == [row["parameters"] for row in first]


def test_a_stopped_search_continues_with_the_same_trials(
    prepared: Prepared, jobs: FakeJobs
) -> None:
    straight = trials_in(tune(prepared, trials=11, study="straight"))
    stops = {11 + 1, 11 + 4, 11 + 5, 11 + 12}  # of the jobs started, the straight study's included
    jobs.stop = lambda spec: len(jobs.started) in stops
    for _ in stops:
        summary = tune(prepared, trials=11)
        assert not summary.complete
        assert summary.path is None
        assert "run the same command again" in summary.tables[0].notes[-1]
    broken = tune(prepared, trials=11)
    assert broken.complete
    assert trials_in(broken) == straight
    assert len(jobs.started) == 11 + 11 + len(stops)


@pytest.mark.parametrize("folds", [(0,), (0, 1)])
def test_a_stop_while_jobs_end_is_not_forgotten(
    folds: tuple[int, ...], prepared: Prepared, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(specs: Sequence[JobSpec], **how: Any) -> FoldRun:
        return replace(jobs.run(specs, **how), asked_to_stop=True)

    monkeypatch.setattr(room, "run_jobs", run)
    assert not tune(prepared, trials=2, folds=folds).complete
    assert len(jobs.started) == 1
    monkeypatch.setattr(room, "run_jobs", jobs.run)
    assert [row["trial"] for row in trials_in(tune(prepared, trials=2, folds=folds))] == [0, 1]
    monkeypatch.setattr(room, "run_jobs", run)
    assert tune(prepared, trials=1, folds=(0,), study="one").complete  # nothing was left to stop


def test_a_retried_trial_finds_its_own_files(prepared: Prepared, jobs: FakeJobs) -> None:
    jobs.stop = lambda spec: spec.key.fold == 1 and len(jobs.started) == 2
    assert not tune(prepared, folds=(0, 1), trials=1).complete
    jobs.stop = lambda spec: False
    assert tune(prepared, folds=(0, 1), trials=1).complete
    assert [(spec.key.fold, spec.job_dir, spec.fingerprint) for spec in jobs.started[2:]] == [
        (spec.key.fold, spec.job_dir, spec.fingerprint) for spec in jobs.started[:2]
    ]


def test_a_diverging_trial_is_pruned_not_scored(prepared: Prepared, jobs: FakeJobs) -> None:
    def diverge(spec: JobSpec) -> str | None:
        try:
            check_loss(float("nan") if len(jobs.started) == 2 else 1.0, spec.variant, 7)
        except TrainingError as error:
            return str(error)  # as a worker hands it over
        return None

    jobs.fail = diverge
    rows = trials_in(tune(prepared, trials=4))
    assert [row["state"] for row in rows].count("pruned") == 1
    assert rows[1]["state"] == "pruned"
    assert (rows[1]["value"], rows[1]["micro_f1"]) == (None, None)
    assert "the loss is nan at step 7" in rows[1]["reason"]


def test_incompatible_settings_are_pruned(prepared: Prepared, jobs: FakeJobs) -> None:
    search = ("scratch.hidden=36|64", "scratch.heads=2|3", "train.lr=1e-4..1e-2:log")
    fixed = tuple(each for each in TINY_SCRATCH if not each[0].startswith("scratch.h"))
    summary = tune(prepared, trials=8, search=search, overrides=fixed)
    rows = trials_in(summary)
    wrong = [row for row in rows if row["parameters"].get("scratch.hidden") == "64"]
    wrong = [row for row in wrong if row["parameters"]["scratch.heads"] == "3"]
    assert wrong
    assert {row["state"] for row in wrong} == {"pruned"}
    assert all("multiple of 2 × heads" in row["reason"] for row in wrong)
    assert len(jobs.started) == 8 - len(wrong)


def test_a_trial_below_the_median_is_not_trained_on_the_other_folds(
    prepared: Prepared, jobs: FakeJobs
) -> None:
    rows = trials_in(tune(prepared, folds=(0, 1, 2), trials=14))
    trials = load(prepared, folds=(0, 1, 2)).get_trials()
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        step, value = trial.last_step, trial.value
        before = trials[: trial.number]
        others = [t.intermediate_values[step] for t in before if t.state == TrialState.COMPLETE]
        assert value < np.median(others)
        assert step < 2
        assert rows[trial.number]["reason"] == f"below the median after fold {step}"
        assert rows[trial.number]["folds"] == list(range(step + 1))
    assert len(jobs.started) == sum(len(row["folds"]) for row in rows)
    assert all(row["folds"] == [0, 1, 2] for row in rows[:4])


def test_folds_run_in_parallel_with_several_workers(
    prepared: Prepared, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def run(specs: Sequence[JobSpec], **how: Any) -> FoldRun:
        batches.append([spec.key.fold for spec in specs])
        return jobs.run(specs, **how)

    monkeypatch.setattr(room, "run_jobs", run)
    tune(prepared, folds=(0, 1, 2), trials=1, engine=EngineChoice(workers=2))
    assert batches == [[0, 1], [2]]


def test_a_failure_of_the_first_trial_stops_the_search_and_loses_nothing(
    prepared: Prepared, jobs: FakeJobs
) -> None:
    jobs.fail = lambda spec: "No space left on device"
    with pytest.raises(TrainingError, match=r"No space left .*\n.*same command again"):
        tune(prepared)
    assert len(jobs.started) == 1
    jobs.fail = lambda spec: None
    rows = trials_in(tune(prepared, trials=2))
    assert [row["trial"] for row in rows] == [0, 1]
    assert jobs.started[1].fingerprint == jobs.started[0].fingerprint


def test_a_failing_job_is_retried_and_finally_given_up(
    prepared: Prepared, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_FAILURES", MAX_ATTEMPTS + 1)
    unlucky: list[str] = []

    def fail(spec: JobSpec) -> str | None:
        if len(jobs.started) == 2:
            unlucky.append(spec.fingerprint)
        return "killed by SIGKILL" if spec.fingerprint in unlucky else None

    jobs.fail = fail
    rows = trials_in(tune(prepared, trials=3))
    assert [row["state"] for row in rows].count("given up") == 1
    assert sum(spec.fingerprint in unlucky for spec in jobs.started) == MAX_ATTEMPTS
    assert len(rows) == 3


def test_several_failures_in_a_row_stop_the_search(prepared: Prepared, jobs: FakeJobs) -> None:
    jobs.fail = lambda spec: "the disk is full" if len(jobs.started) > 1 else None
    with pytest.raises(TrainingError, match="the disk is full"):
        tune(prepared)
    assert len(jobs.started) == 1 + room.MAX_FAILURES


def test_a_bug_keeps_its_traceback_and_the_trial(prepared: Prepared, jobs: FakeJobs) -> None:
    def fail(spec: JobSpec) -> str | None:
        raise ZeroDivisionError("ours")

    jobs.fail = fail
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            tune(prepared)
    jobs.fail = lambda spec: None
    rows = trials_in(tune(prepared, trials=1))
    assert [row["trial"] for row in rows] == [0]
    assert len({spec.fingerprint for spec in jobs.started}) == 1


def test_a_trial_that_cannot_be_planned_is_finally_given_up(
    prepared: Prepared, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_jobs = room.plan_jobs

    def plan(prepared: Prepared, request: Any, *arguments: Any, **how: Any) -> Any:
        if request.save_as.endswith("@t1"):
            raise VariantError("it builds on a variant that is not trained")
        return plan_jobs(prepared, request, *arguments, **how)

    monkeypatch.setattr(room, "plan_jobs", plan)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(VariantError, match="not trained"):
            tune(prepared, trials=3)
    rows = trials_in(tune(prepared, trials=3))
    assert [row["state"] == "given up" for row in rows] == [False, True, False]
    assert rows[1]["reason"] == "it builds on a variant that is not trained"


def test_a_missing_base_costs_no_trial_and_another_one_is_not_mixed(
    prepared: Prepared, jobs: FakeJobs, make_specs: Callable[..., list[JobSpec]]
) -> None:
    request = {"trials": 1, "overrides": (*TINY_SCRATCH, ("start_from", "base"))}
    for _ in range(MAX_ATTEMPTS + 1):
        with pytest.raises(UsageError, match="builds on base, which has no result for fold 0"):
            tune(prepared, **request)
    base = jobs.answer(make_specs(save_as="base", folds=(0,))[0])
    store = Store(prepared.competition.oof_dir, base.labels)
    store.write(base, {})
    assert [row["state"] for row in trials_in(tune(prepared, **request))] == ["best"]
    store.write(replace(base, fingerprint="f" * 64), {})
    with pytest.raises(UsageError, match="changed under its name: results"):
        tune(prepared, **request)


def test_content_behind_names_is_recorded(prepared: Prepared, tmp_path: Path) -> None:
    encoder = tmp_path / "enc"
    encoder.mkdir()
    (encoder / "config.json").write_text("{}")
    first = str(prepared.corpus.train.ids[0])
    kinds = prepared.competition.profile.entity_types
    for name, kind in (("a.csv", kinds[0]), ("b.csv", kinds[1])):
        lines = f"split,id,role,type\ntrain,{first},subject,{kind}\n"
        (prepared.competition.home / name).write_text(lines, "utf-8")
    search = ("train.lr=1e-4..1e-2:log", "clean.corrections=a.csv|b.csv")
    request = replace(REQUEST, encoder=str(encoder), overrides=(), search=search)
    before = plan_search(prepared, request).plan
    (prepared.competition.home / "a.csv").write_text(lines, "utf-8")
    changed = plan_search(prepared, request).plan
    assert changed.content["encoder"] == before.content["encoder"]
    assert changed.content["files"] != before.content["files"]
    (encoder / "config.json").write_text("{ }")
    after = plan_search(prepared, request).plan
    assert after.content["encoder"] != before.content["encoder"]
    assert before.made_from == after.made_from


def test_a_trial_taken_over_by_another_process_is_left_to_it(
    prepared: Prepared, jobs: FakeJobs
) -> None:
    """A process that was suspended finds its trial retried elsewhere, and continues."""
    other: list[Any] = []

    def take_over(spec: JobSpec) -> bool:
        if len(jobs.started) == 2:
            study = load(prepared)
            trial = study.get_trials()[-1]
            study.tell(trial.number, state=TrialState.FAIL)
            other.append(room.retry_trial(study, trial, failed=True))
        return False

    jobs.stop = take_over
    rows = trials_in(tune(prepared, trials=3))
    assert other == [True]
    assert sorted(row["trial"] for row in rows) == [0, 1, 2]
    assert len(jobs.started) == 4


def test_an_error_says_why_no_trial_finished(prepared: Prepared, jobs: FakeJobs) -> None:
    jobs.fail = lambda spec: "t: training diverged: the loss is nan at step 3. Lower train.lr"
    with pytest.raises(TrainingError, match="none of 2 trials finished; the first one: diverged"):
        tune(prepared, trials=2)


def test_the_deadline_stops_the_search_between_trials(prepared: Prepared, jobs: FakeJobs) -> None:
    summary = tune(prepared, stop_after_s=0.0)
    assert not summary.complete
    assert jobs.started == []


def test_a_file_of_the_user_is_not_overwritten(
    prepared: Prepared, jobs: FakeJobs, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('why = "my own"\n')
    with pytest.raises(UsageError, match="another --write"):
        tune(prepared, trials=1, write=mine)
    assert mine.read_text() == 'why = "my own"\n'
    other = tmp_path / "other.toml"
    assert tune(prepared, trials=1, write=other).path == other
    assert tune(prepared, trials=2, write=other).path == other
    told = {"folds": [0], "trials": 2, "study": "s", "folds_hash": prepared.folds.hash}
    assert tomllib.loads(other.read_text())["tune"] == told


def test_the_written_file_finds_its_encoder_from_anywhere(
    prepared: Prepared, jobs: FakeJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = prepared.corpus.train.text("sentence").tolist()
    make_encoder("bert", tmp_path / "my enc", sentences)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "a b" / "best.toml"
    out.parent.mkdir()
    summary = tune(prepared, trials=1, write=out, encoder="my enc", overrides=())
    assert summary.path == out
    assert tomllib.loads(out.read_text("utf-8"))["encoder"] == str(tmp_path / "my enc")
    assert f"Next: python run.py fold '{out}'" in summary.tables[1].notes


def test_write_is_checked_before_training(
    prepared: Prepared, jobs: FakeJobs, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"--write .*: is a folder; give a file"):
        tune(prepared, write=tmp_path)
    with pytest.raises(UsageError, match=r"--write: .*tiny\.toml is not a folder"):
        tune(prepared, write=tmp_path / "tiny.toml" / "found.toml")
    with pytest.raises(UsageError, match="names end in"):
        tune(prepared, write=tmp_path / "best.txt")
    with pytest.raises(UsageError, match="'my best' cannot be a name"):
        tune(prepared, write=tmp_path / "my best.toml")
    (tmp_path / "old.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not from this study"):
        tune(prepared, write=tmp_path / "old.toml")
    assert jobs.started == []
    assert not (prepared.competition.checkpoints_dir / "tune").exists()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"folds": (3,)}, UsageError, "the folds are 0 to 2"),
        ({"folds": ()}, UsageError, "the folds are 0 to 2"),
        ({"objective": "accuracy"}, UsageError, "use micro-f1, auprc, both"),
        ({"search": ("train.lr=1",)}, UsageError, "neither a range"),
        ({"search": ("train.rate=1..2",)}, VariantError, "no such setting"),
        ({"search": ("train.epochs=1..2",)}, UsageError, "--set and --search both name"),
        ({"variant": "nope"}, VariantError, "no variant 'nope'"),
        ({"study": "../s"}, UsageError, "cannot be a name"),
    ],
)
def test_an_invalid_request_is_refused_before_anything_is_written(
    prepared: Prepared, jobs: FakeJobs, changes: dict[str, Any], error: type, said: str
) -> None:
    with pytest.raises(error, match=said):
        tune(prepared, **changes)
    assert not (prepared.competition.checkpoints_dir / "tune").exists()
    assert jobs.started == []


def test_the_name_of_a_study_depends_on_its_search(prepared: Prepared) -> None:
    base = plan_search(prepared, replace(REQUEST, study=None)).plan.name
    same = replace(REQUEST, study=None, trials=99, engine=EngineChoice(workers=2), stop_after_s=1.0)
    assert plan_search(prepared, same).plan.name == base
    for change in ({"folds": (1,)}, {"search": SEARCH[:1]}, {"seed": 1}, {"objective": "auprc"}):
        other = plan_search(prepared, replace(REQUEST, study=None, **change))  # type: ignore[arg-type]
        assert other.plan.name != base


@pytest.mark.parametrize("name", list_variants())
def test_a_written_variant_reads_back_equal(name: str, tmp_path: Path) -> None:
    defaults = {"train.lr": 0.123, "train.epochs": 9}
    variant = resolve_variant(name, encoder="klue/roberta-large", defaults=defaults)
    path = tmp_path / f"{name}.toml"
    path.write_text(build_toml(variant), "utf-8")
    assert resolve_variant(str(path), encoder="scratch").recipe() == variant.recipe()


def test_a_written_variant_overrides_the_profile(tmp_path: Path) -> None:
    shown = {"formatting.show_source": True}
    wanted = resolve_variant(
        "typed-punct",
        encoder="a/b",
        defaults=shown,
        overrides=[("formatting.show_source", False)],
    )
    path = tmp_path / "v.toml"
    path.write_text(build_toml(wanted), "utf-8")
    assert resolve_variant(str(path), encoder="a/b", defaults=shown).recipe() == wanted.recipe()


def test_strings_and_sections_survive_being_written(tmp_path: Path) -> None:
    overrides = [
        ("why", 'says "관계" \\ and\ttab'),
        ("seeds", [1, 2]),
        ("run.bin_weights", True),
        ("regularise.r_drop", 0.0),
        ("train.lr", 1e-7),
    ]
    variant = resolve_variant("typed-punct", encoder="a/b", overrides=overrides)
    path = tmp_path / "v.toml"
    path.write_text(build_toml(variant), "utf-8")
    tree = tomllib.loads(path.read_text("utf-8"))
    assert tree["why"] == variant.why
    assert tree["regularise"]["r_drop"] == 0.0  # at its default, and yet what was found
    again = resolve_variant(str(path), encoder="x", defaults={"regularise.r_drop": 1.0})
    assert again.recipe() == variant.recipe()
    assert (again.seeds, again.run) == (variant.seeds, variant.run)


def test_tables_are_plain_json(prepared: Prepared, jobs: FakeJobs) -> None:
    for table in tune(prepared, trials=2).tables:
        assert json.loads(json.dumps([dict(row) for row in table.rows])) == list(table.rows)


def test_on_an_engine_with_room_several_trials_run_beside_each_other(
    prepared: Prepared, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3)
    threads: set[int] = set()
    opened: list[FakeRoom] = []

    def run(specs: Sequence[JobSpec], **how: Any) -> FoldRun:
        if len(threads) < 3:
            threads.add(threading.get_ident())
            together.wait(60)  # three trials are in it at the same time
        return jobs.run(specs, **how)

    def open_room(choice: EngineChoice) -> FakeRoom:
        opened.append(FakeRoom())
        return opened[-1]

    monkeypatch.setattr(room, "run_jobs", run)
    monkeypatch.setattr(room, "open_engine", open_room)
    rows = trials_in(tune(prepared, trials=7, engine=EngineChoice("ray")))
    assert [row["trial"] for row in rows] == list(range(7))
    assert len(jobs.started) == 7
    assert len(threads) == 3
    assert [each.is_closed for each in opened] == [True] * 4  # one asked how much room there is


@dataclass
class FakeRoom:
    """An engine with room for three jobs; its jobs are fakes."""

    max_started: int = 3
    threads: int = 1
    is_closed: bool = False

    def count_running(self, variants: Sequence[Variant]) -> int:
        assert [variant.is_network for variant in variants] == [True]
        return 3

    def close(self) -> None:
        self.is_closed = True


def test_of_loops_beside_each_other_one_that_fails_stops_the_others() -> None:
    stop = threading.Event()

    def fail() -> bool:
        raise UsageError("the storage is gone")

    with pytest.raises(UsageError, match="the storage is gone"):
        run_beside([fail, lambda: stop.wait(60)], stop, None)
    assert stop.is_set()
    assert run_beside([lambda: True, lambda: True], threading.Event(), None)
    assert not run_beside([lambda: True, lambda: False], threading.Event(), None)
