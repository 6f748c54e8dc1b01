"""``tune``: search a variant's settings on some folds, trial by trial, and leave what was found.

Over ``models.jobs.plan`` and ``models.jobs.workers``: a trial is a variant like any other, whose
jobs run and resume as those of ``fold`` do, but whose results lie in the study's own folder.
Held-out scores of the tuned folds choose the settings, so what is found is marked as tuned on them.

Legend: n held-out rows of the folds so far, C labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import optuna
from optuna.exceptions import TrialPruned
from optuna.trial import FrozenTrial, TrialState

from competition.errors import HarnessError, StoppedError, TrainingError, UsageError, VariantError
from competition.files import check_name, check_writable
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.members import Store, average_in_log_space
from competition.profile import Competition
from competition.progress import ProgressBoard, format_seconds
from competition.scoring.metrics import auprc, decide, micro_f1
from models.jobs.plan import job_dir, plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.jobs.workers import FoldHooks, run_jobs
from models.training.hardware import (
    list_gpu_notices,
    report_gpu_errors,
    threads_per_job,
)
from models.training.loop import DIVERGED
from models.tuning.plan import OBJECTIVES, Search, TrialScores, TuneRequest, plan_search
from models.tuning.report import AUPRC, FOLDS_DONE, MICRO_F1, REASON, SCORES, TuneSummary, summarise
from models.tuning.space import Found, describe_found, read_found
from models.tuning.study import PLACE, RETRY_OF, SharedStudy, open_study, try_again
from models.variant import LINEAR

WAIT_S = 1.0
FAILURES_BORNE = 3  # failed jobs in a row after which the trouble is not the settings'


class JobFailedError(Exception):
    """A trial's job failed for another reason than its settings; carries the reason."""


class SurplusError(Exception):
    """As many trials as are wanted were begun, by whichever process."""


@report_gpu_errors()
def run_tune(competition: Competition, request: TuneRequest, board: ProgressBoard) -> TuneSummary:
    """Search until as many trials as wanted are done, then write the best as a variant file.

    Raises:
        UsageError: a request that cannot be met, or a storage that cannot be used.
        VariantError: a setting that does not exist, or a value that never fits.
        TrainingError: jobs fail, or no trial finished.
    """
    if request.write is not None:
        check_writable(request.write, "--write")
    prepared = read_prepared(competition)
    search = plan_search(prepared, request)
    board.say(f"study {search.plan.name}, in {search.plan.shown}")
    for notice in list_gpu_notices(request.workers) if search.base.learner != LINEAR else ():
        board.say(notice)
    deadline = None
    if request.stop_after_s is not None:
        deadline = time.monotonic() + request.stop_after_s
    with open_study(search.plan, board.say) as shared:
        tuner = _Tuner(search, shared, board, deadline)
        complete = tuner.run()
        return summarise(search, shared, complete)


def score_jobs(specs: Sequence[JobSpec], prepared: Prepared) -> TrialScores:
    """Score finished jobs on their pooled held-out rows; seeds are averaged in log space."""
    profile = prepared.competition.profile
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
    pred = decide(pooled, profile.negative_id, None)
    return TrialScores(micro_f1(known, pred, profile.negative_id), auprc(known, pooled))


class _Tuner:
    """Runs trials of one study in this process."""

    def __init__(
        self, search: Search, shared: SharedStudy, board: ProgressBoard, deadline: float | None
    ) -> None:
        self.search = search
        self.shared = shared
        self.board = board
        self.deadline = deadline
        self.failures = 0
        self.has_planned = False

    def run(self) -> bool:
        """Run trials until all are done (True) or this process is stopped (False)."""
        told = False
        while True:
            for place in self.shared.sweep():
                self.board.say(f"trial {place} ended without a score; its settings are tried again")
            counts = self.shared.count()
            wanted = self.shared.trials
            if counts.spent >= wanted:
                return True
            if self.deadline is not None and time.monotonic() > self.deadline:
                return False
            if not counts.waiting and counts.spent + counts.running >= wanted:
                if not told:
                    self.board.say(f"waiting for {counts.running} trials of other processes")
                told = True
                time.sleep(WAIT_S)
            elif not self._run_one():
                return False

    def _run_one(self) -> bool:
        """Run one trial; False when it was stopped.

        Raises:
            TrainingError: jobs fail, whatever the settings.
        """
        study = self.shared.study
        begun: list[int] = []

        def measure(trial: optuna.Trial) -> float:
            begun.append(trial.number)
            return self._measure(trial)

        try:
            study.optimize(measure, n_trials=1)
        except SurplusError:
            return True
        except StoppedError:
            self._give_back(begun[-1], failed=False)
            return False
        except JobFailedError as failure:
            self._bear(begun[-1], str(failure))
            return True
        except BaseException as error:
            if not begun:
                raise
            if not self._is_taken_over(begun[-1]):
                # what a person can mend may lie in these settings; it must not stop them for ever
                self._give_back(begun[-1], failed=isinstance(error, HarnessError))
                raise
            place = self._read(begun[-1]).user_attrs[PLACE]
            self.board.say(f"trial {place} was taken over by another process meanwhile")
            return True
        self._report(self._read(begun[-1]))
        return True

    def _measure(self, trial: optuna.Trial) -> float:
        """Train and score one trial, fold by fold.

        Raises:
            TrialPruned: its settings do not go together, diverge, or fall behind the others.
            StoppedError, JobFailedError, SurplusError: it ends without a score.
        """
        place = self.shared.claim(trial)
        if self.shared.is_surplus(trial):
            raise SurplusError
        parameters = {each.key: each.suggest(trial) for each in self.search.space}
        specs = self._plan(trial, place, read_found(self.search.space, parameters))
        folds = sorted({spec.key.fold for spec in specs})
        workers = self.search.request.workers
        begun = time.monotonic()
        value = float("nan")
        for start in range(0, len(folds), workers):
            batch = folds[start : start + workers]
            self._run_jobs(trial, place, [spec for spec in specs if spec.key.fold in batch])
            for fold in batch:
                scores = score_jobs([s for s in specs if s.key.fold <= fold], self.search.prepared)
                value = OBJECTIVES[self.search.request.objective](scores)
                trial.report(value, folds.index(fold))
            trial.set_user_attr(MICRO_F1, scores.micro_f1)
            trial.set_user_attr(AUPRC, scores.auprc)
            trial.set_user_attr(FOLDS_DONE, [each for each in folds if each <= batch[-1]])
            if batch[-1] != folds[-1] and trial.should_prune():
                _prune(trial, f"below the median after fold {batch[-1]}")
        trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
        return value

    def _plan(self, trial: optuna.Trial, place: int, found: Found) -> list[JobSpec]:
        """Plan a trial's jobs; a trial that is tried again goes on with the files it left."""
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
            workers=search.request.workers,
            threads=search.request.threads,
        )
        try:
            search.resolve(found, name)
        except VariantError as error:
            _prune(trial, f"these settings do not go together: {error}")
        threads = threads_per_job(request.threads, request.workers)
        say = _say_nothing if self.has_planned else self.board.say
        plan = plan_jobs(search.prepared, request, say, threads=threads, deadline=self.deadline)
        self.has_planned = True
        if plan.done:
            raise UsageError(
                f"{search.prepared.competition.oof_dir / name} holds results of this name; move"
                " that folder away, or tune under another --study"
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
            workers=self.search.request.workers,
            deadline=self.deadline,
            hooks=_hooks(self.board, place),
        )
        if run.failed:
            reason = run.failed[0][1]
            if DIVERGED in reason:
                _prune(trial, f"diverged: {reason}")
            raise JobFailedError(reason)
        if run.stopped:
            raise StoppedError

    def _give_back(self, number: int, *, failed: bool) -> bool:
        return try_again(self.shared.study, self._read(number), failed=failed)

    def _bear(self, number: int, reason: str) -> None:
        """Have a failed trial tried again; stop where the settings are not to blame.

        Raises:
            TrainingError: nothing has finished yet, or several jobs failed in a row.
        """
        again = self._give_back(number, failed=True)
        place = self._read(number).user_attrs[PLACE]
        self.failures += 1
        told = "its settings are tried again" if again else "it is given up"
        self.board.say(f"trial {place} failed; {told}: {reason.splitlines()[0]}")
        finished = self.shared.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished or self.failures >= FAILURES_BORNE:
            raise TrainingError(f"trial {place}: {reason}\nRun the same command again to go on.")

    def _read(self, number: int) -> FrozenTrial:
        trials = self.shared.study.get_trials(deepcopy=False)
        return next(trial for trial in trials if trial.number == number)

    def _is_taken_over(self, number: int) -> bool:
        trials = self.shared.study.get_trials(deepcopy=False)
        return any(trial.user_attrs.get(RETRY_OF) == number for trial in trials)

    def _report(self, trial: FrozenTrial) -> None:
        self.failures = 0
        facts = trial.user_attrs
        scores = [
            f"{header} {100 * facts[key]:.2f}" for key, header in SCORES.items() if key in facts
        ]
        said = ", ".join([*scores, *([facts[REASON]] if REASON in facts else [])])
        spent = self.shared.count().spent
        self.board.say(
            f"[{spent}/{self.shared.trials}] trial {facts[PLACE]}: {said};"
            f" {describe_found(self.search.space, trial.params)}"
        )


def _prune(trial: optuna.Trial, reason: str) -> NoReturn:
    """End a trial without blaming the search: its settings are worse, not broken.

    Raises:
        TrialPruned: always.
    """
    trial.set_user_attr(REASON, reason)
    raise TrialPruned(reason)


def _say_nothing(text: str) -> None:
    """Keep what was said before from being said again with every trial."""
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
