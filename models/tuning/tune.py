"""The ``tune`` command: hyperparameter search with Optuna on some of the folds.

A trial is a variant whose jobs run and resume like those of ``fold``, but are stored in the folder
of the study. Hyperparameters are chosen by held-out scores of the tuned folds, so the resulting
variant is marked as tuned on them.

Legend: n held-out rows of the folds so far, C labels.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

import numpy as np
import optuna
from optuna.exceptions import TrialPruned
from optuna.trial import FrozenTrial, TrialState

from competition.errors import (
    HarnessError,
    PredictionsError,
    StoppedError,
    TrainingError,
    UsageError,
    VariantError,
)
from competition.files import check_name, first_problem
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.store import Store
from competition.profile import Competition
from competition.progress import ProgressBoard, format_seconds
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide
from models.jobs.engines.choice import open_engine
from models.jobs.engines.engine import LOCAL, Engine
from models.jobs.plan import job_dir, plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.jobs.workers import FoldHooks, run_jobs
from models.training.hardware import (
    list_gpu_notices,
    report_gpu_errors,
)
from models.training.loop import DIVERGED
from models.tuning.parallel import run_beside
from models.tuning.plan import Search, TrialScores, TuneRequest, plan_search
from models.tuning.report import (
    FOLDS_DONE,
    REASON,
    TuneSummary,
    check_owned,
    check_write,
    find_path,
    summarise,
)
from models.tuning.space import Found, describe_found, read_found
from models.tuning.study import PLACE, RETRY_OF, SharedStudy, open_study, retry_trial

WAIT_S = 1.0
MAX_FAILURES = 3  # failed jobs in a row, after which the hyperparameters are not the cause


class JobFailedError(Exception):
    """A job of a trial failed for a reason other than its hyperparameters."""


class SurplusError(Exception):
    """All requested trials have been started, by this process or others."""


@report_gpu_errors()
def run_tune(competition: Competition, request: TuneRequest, board: ProgressBoard) -> TuneSummary:
    """Run the requested number of trials, then write the best one as a variant file.

    Raises:
        UsageError: an invalid request, or the storage cannot be used.
        VariantError: an unknown hyperparameter, or a value that is never valid.
        TrainingError: jobs failed, or no trial finished.
    """
    check_write(request.write)
    prepared = read_prepared(competition)
    search = plan_search(prepared, request)
    check_owned(find_path(search), search.plan.name)
    board.say(f"study {search.plan.name}, in {search.plan.shown}")
    if search.base.is_network and request.engine.name == LOCAL:
        for notice in list_gpu_notices(request.engine.jobs_here):
            board.say(notice)
    deadline = None
    if request.stop_after_s is not None:
        deadline = time.monotonic() + request.stop_after_s
    run = _Run(search, board, deadline)
    with (
        open_study(search.plan, board.say) as shared,
        closing(open_engine(request.engine)) as engine,
    ):
        is_local = request.engine.name == LOCAL
        room = 1 if is_local else engine.count_running([search.base])
        at_once = min(room, request.trials)
        if at_once == 1:
            complete = _Tuner(run, shared, engine).run()
        else:
            board.say(f"up to {at_once} trials at a time")
            loops = [partial(_tune_beside, run, place) for place in range(at_once)]
            complete = run_beside(loops, run.stop, deadline)
        return summarise(search, shared, complete)


def score_jobs(specs: Sequence[JobSpec], prepared: Prepared) -> TrialScores:
    """Score finished jobs on their pooled held-out rows, averaging seeds in log space."""
    row_of = {row_id: row for row, row_id in enumerate(prepared.corpus.train.ids)}
    probs, gold = [], []
    for fold in sorted({spec.key.fold for spec in specs}):
        results = [
            Store(spec.store_dir, spec.labels).read(spec.key)
            for spec in specs
            if spec.key.fold == fold
        ]
        probs.append(average_in_log_space([result.oof_probs for result in results]))
        rows = [row_of[row_id] for row_id in results[0].oof_ids]
        gold.append(prepared.corpus.train.gold[rows].astype(np.int64))
    pooled, known = np.concatenate(probs), np.concatenate(gold)
    criteria = build_criteria(prepared.competition.profile)
    return TrialScores(criteria, criteria.score(known, (pooled, decide(pooled))))


@dataclass(frozen=True)
class _Run:
    """What all trials of this process share; with an engine of many machines, several at a time.

    Attributes:
        stop: set when they should stop.
        planning: held while the jobs of a trial are planned.
    """

    search: Search
    board: ProgressBoard
    deadline: float | None
    stop: threading.Event = field(default_factory=threading.Event)
    planning: threading.Lock = field(default_factory=threading.Lock)


def _tune_beside(run: _Run, place: int) -> bool:
    """Run trials in one of several threads, with its own study, sampler and engine."""
    plan = replace(run.search.plan, sampler=copy.deepcopy(run.search.plan.sampler))
    with (
        open_study(plan, run.board.say) as shared,
        closing(open_engine(run.search.request.engine)) as engine,
    ):
        return _Tuner(run, shared, engine, waits=place == 0).run()


class _Tuner:
    """Runs trials of one study, one after the other.

    Args:
        run: what it shares with other tuners of this process.
        shared: the study.
        engine: where jobs run.
        waits: for trials of others at the end, in case one has to be retried.
    """

    def __init__(
        self, run: _Run, shared: SharedStudy, engine: Engine, *, waits: bool = True
    ) -> None:
        self.common = run
        self.search, self.board, self.deadline = run.search, run.board, run.deadline
        self.shared = shared
        self.engine = engine
        self.waits = waits
        self.failures = 0
        self.has_planned = False
        self.asked_to_stop = False

    @property
    def objective(self) -> str:
        """Return what is maximised."""
        return self.search.request.objective or self.search.criteria.primary.kind.name

    def run(self) -> bool:
        """Run trials until all are done (True) or this process is stopped (False)."""
        has_notified = False
        while True:
            for place in self.shared.sweep():
                self.board.say(f"trial {place} ended without a score and is queued again")
            counts = self.shared.count()
            wanted = self.shared.trials
            if counts.spent >= wanted:
                return True
            if self.asked_to_stop or self.common.stop.is_set():
                return False
            if self.deadline is not None and time.monotonic() > self.deadline:
                return False
            if not counts.waiting and counts.spent + counts.running >= wanted:
                if not self.waits:
                    return True
                if not has_notified:
                    self.board.say(f"waiting for {counts.running} trials of other processes")
                has_notified = True
                time.sleep(WAIT_S)
            elif not self._run_one():
                return False

    def _run_one(self) -> bool:
        """Run one trial; return False if it was stopped."""
        study = self.shared.study
        started: list[int] = []

        def measure(trial: optuna.Trial) -> float:
            started.append(trial.number)
            try:
                return self._measure(trial)
            except (HarnessError, JobFailedError) as error:
                trial.set_user_attr(REASON, first_problem(error))  # if it is given up
                raise

        try:
            study.optimize(measure, n_trials=1)
        except SurplusError:
            return True
        except StoppedError:
            self._requeue(started[-1], failed=False)
            return False
        except JobFailedError as failure:
            self._count_failure(started[-1], str(failure))
            return True
        except BaseException as error:
            if not started:
                raise
            if not self._is_taken_over(started[-1]):
                self._requeue(started[-1], failed=_may_recur(error))
                raise
            place = self._read(started[-1]).user_attrs[PLACE]
            self.board.say(f"trial {place} was taken over by another process")
            return True
        self._report(self._read(started[-1]))
        return True

    def _measure(self, trial: optuna.Trial) -> float:
        """Train and score one trial, fold by fold, with pruning after each."""
        place = self.shared.claim(trial)
        if self.shared.is_surplus(trial):
            raise SurplusError
        parameters = {each.key: each.suggest(trial) for each in self.search.space}
        specs = self._plan(trial, place, read_found(self.search.space, parameters))
        folds = sorted({spec.key.fold for spec in specs})
        workers = self.search.request.engine.jobs_here
        started = time.monotonic()
        value = float("nan")
        for start in range(0, len(folds), workers):
            batch = folds[start : start + workers]
            self._run_jobs(trial, place, [spec for spec in specs if spec.key.fold in batch])
            for fold in batch:
                scores = score_jobs([s for s in specs if s.key.fold <= fold], self.search.prepared)
                value = scores.value(self.objective)
                trial.report(value, folds.index(fold))
            for key, score in scores.scores.items():
                trial.set_user_attr(key, score)
            trial.set_user_attr(FOLDS_DONE, [each for each in folds if each <= batch[-1]])
            is_last = batch[-1] == folds[-1]
            if not is_last and trial.should_prune():
                _prune(trial, f"below the median after fold {batch[-1]}")
            if not is_last and self.asked_to_stop:
                raise StoppedError
        trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
        return value

    def _plan(self, trial: optuna.Trial, place: int, found: Found) -> list[JobSpec]:
        """Plan the jobs of a trial; one that is retried resumes from its own files."""
        search = self.search
        name = f"{search.base.name}@t{place}"
        request = FoldRequest(
            variants=(search.request.variant,),
            folds=search.request.folds,
            encoder=search.request.encoder,
            overrides=(*search.request.overrides, *found),
            save_as=check_name(name),
            overwrite=True,
            keep_checkpoints=False,
            engine=search.request.engine,
        )
        try:
            search.resolve(found, name)
        except VariantError as error:
            _prune(trial, f"incompatible hyperparameters: {error}")
        threads = self.engine.threads
        say = _say_nothing if self.has_planned else self.board.say
        with self.common.planning:
            plan = plan_jobs(search.prepared, request, say, threads=threads, deadline=self.deadline)
        self.has_planned = True
        if plan.done:
            raise UsageError(
                f"{search.prepared.competition.oof_dir / name} already holds results of this name;"
                " move that folder away, or choose another --study"
            )
        return [
            replace(
                spec,
                store_dir=search.folder / "oof",
                job_dir=job_dir(search.folder / "jobs", spec.key),
            )
            for spec in plan.jobs
        ]

    def _run_jobs(self, trial: optuna.Trial, place: int, specs: Sequence[JobSpec]) -> None:
        run = run_jobs(
            specs,
            engine=self.engine,
            deadline=self.deadline,
            hooks=_hooks(self.board, place),
            stop=self.common.stop,
        )
        self.asked_to_stop = run.asked_to_stop
        if run.failed:
            reason = run.failed[0][1]
            if DIVERGED in reason:
                _prune(trial, f"diverged: {reason}")
            raise JobFailedError(reason)
        if run.stopped:
            raise StoppedError

    def _requeue(self, number: int, *, failed: bool) -> bool:
        return retry_trial(self.shared.study, self._read(number), failed=failed)

    def _count_failure(self, number: int, reason: str) -> None:
        """Queue a failed trial again; stop if its hyperparameters are not the cause."""
        is_queued = self._requeue(number, failed=True)
        place = self._read(number).user_attrs[PLACE]
        self.failures += 1
        outcome = "it is queued again" if is_queued else "it is given up"
        self.board.say(f"trial {place} failed; {outcome}: {reason.splitlines()[0]}")
        finished = self.shared.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished or self.failures >= MAX_FAILURES:
            raise TrainingError(f"trial {place}: {reason}\nRun the same command again to continue.")

    def _read(self, number: int) -> FrozenTrial:
        trials = self.shared.study.get_trials(deepcopy=False)
        return next(trial for trial in trials if trial.number == number)

    def _is_taken_over(self, number: int) -> bool:
        trials = self.shared.study.get_trials(deepcopy=False)
        return any(trial.user_attrs.get(RETRY_OF) == number for trial in trials)

    def _report(self, trial: FrozenTrial) -> None:
        self.failures = 0
        facts = trial.user_attrs
        kinds = self.search.criteria.kinds
        scores = [
            f"{kind.title} {kind.write(facts[kind.key])}" for kind in kinds if kind.key in facts
        ]
        said = ", ".join([*scores, *([facts[REASON]] if REASON in facts else [])])
        spent = self.shared.count().spent
        self.board.say(
            f"[{spent}/{self.shared.trials}] trial {facts[PLACE]}: {said};"
            f" {describe_found(self.search.space, trial.params)}"
        )


def _prune(trial: optuna.Trial, reason: str) -> NoReturn:
    """Prune a trial and record the reason."""
    trial.set_user_attr(REASON, reason)
    raise TrialPruned(reason)


def _may_recur(error: BaseException) -> bool:
    """Return whether an error may be due to one trial, which must not fail again for ever.

    Not one of the request or of stored results: with another trial it would be the same.
    """
    return isinstance(error, HarnessError) and not isinstance(error, UsageError | PredictionsError)


def _say_nothing(text: str) -> None:
    """Discard a message; used after the first trial, so that messages are not repeated."""
    del text


def _hooks(board: ProgressBoard, place: int) -> FoldHooks:
    def name_of(spec: JobSpec) -> str:
        return f"trial {place} seed {spec.key.seed} fold {spec.key.fold}"

    def said(spec: JobSpec, text: str) -> None:
        if text.startswith("resumed"):
            board.say(f"{name_of(spec)}: {text}")

    return FoldHooks(
        started=lambda spec: board.update(name_of(spec), 0.0, "starting"),
        progress=lambda spec, at: board.update(
            name_of(spec),
            at.step / at.steps,
            f"{at.rows_per_s:.0f} rows/s, loss {at.loss:.3f}, {format_seconds(at.eta_s)} left",
        ),
        said=said,
        finished=lambda spec, _: board.close(name_of(spec)),
        failed=lambda spec, _: board.close(name_of(spec)),
    )
