"""An Optuna study shared by several processes: claiming, retrying and counting trials.

Any number of processes may work on one study. A trial whose process died is queued again with the
same hyperparameters, and no trial is counted twice.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from competition.errors import UsageError
from models.tuning.storage import (
    Processes,
    name_process,
    open_database,
    open_journal,
    storage_failures,
)

MAX_ATTEMPTS = 4  # of one trial whose process or job keeps dying; then it is given up
UNCLAIMED_S = 60.0  # after which a started trial that no process has claimed counts as lost
STARTUP_TRIALS = 8  # random trials before the sampler uses their scores
PRUNER_TRIALS = 4  # finished trials before the first may be pruned
PROCESSES_DIR = "processes"

PROCESS, ATTEMPT, PLACE, RETRY_OF = "process", "attempt", "place", "retry_of"
MADE_FROM, CONTENT = "made_from", "content"


class SeededByPlace(optuna.samplers.BaseSampler):  # type: ignore[misc]  # optuna is untyped here
    """A TPE sampler seeded per trial, so that an interrupted study samples the same values.

    A trial's place is its position among the trials, kept when it is retried, also by the next
    trial if its process died before it recorded anything. Place 0 is the
    variant itself, so that the best trial is never worse.
    """

    def __init__(
        self, seed: int, first: Mapping[str, Any] | None, space: Mapping[str, Any]
    ) -> None:
        self._seed = seed
        self._first = first
        self._space = dict(space)
        self._current: tuple[int, int, Any] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        """Return the hyperparameters to sample jointly."""
        place, sampler = self._of(study, trial)
        if place == 0 and self._first is not None:
            return self._space
        inferred: dict[str, Any] = sampler.infer_relative_search_space(study, trial)
        return inferred

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Sample hyperparameters jointly."""
        place, sampler = self._of(study, trial)
        if place == 0 and self._first is not None:
            return dict(self._first)
        proposed: dict[str, Any] = sampler.sample_relative(study, trial, search_space)
        return proposed

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Sample one hyperparameter."""
        _, sampler = self._of(study, trial)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def place_of(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the place of a trial."""
        return self._of(study, trial)[0]

    def _of(self, study: optuna.Study, trial: FrozenTrial) -> tuple[int, Any]:
        if self._current is None or self._current[0] != trial.number:
            known = trial.user_attrs.get(PLACE)
            place = find_place(study, trial.number) if known is None else int(known)
            seed = int(np.random.SeedSequence([self._seed, place]).generate_state(1)[0])
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
            self._current = (trial.number, place, sampler)
        return self._current[1], self._current[2]


@dataclass(frozen=True)
class StudyPlan:
    """The definition of a study.

    Attributes:
        storage: a journal file, or the URL of a PostgreSQL database.
        made_from: all that must be equal for trials to be comparable, as plain JSON.
        content: the same of what may change under its name: encoder, stored results, files.
        trials: the total number of trials.
        dead_after_s: time without a heartbeat after which a process counts as dead (database).
    """

    name: str
    storage: Path | str
    made_from: Mapping[str, Any]
    content: Mapping[str, Any]
    sampler: SeededByPlace
    trials: int
    dead_after_s: float

    @property
    def shown(self) -> str:
        """Return the storage for display, without the credentials of a URL."""
        return str(self.storage) if isinstance(self.storage, Path) else "PostgreSQL"


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of trials: ended for good, running in some process, and queued."""

    spent: int
    running: int
    waiting: int


@dataclass(frozen=True)
class SharedStudy:
    """A study that other processes may work on too, as seen by this process."""

    study: optuna.Study
    process: str
    trials: int
    processes: Processes | None

    def count(self) -> Counts:
        """Count the trials; one that was given up is spent, one that is queued again is not."""
        trials = self.study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        given_up = len(find_given_up(trials))
        return Counts(
            states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) + given_up,
            states.count(TrialState.RUNNING),
            states.count(TrialState.WAITING),
        )

    def claim(self, trial: optuna.Trial) -> int:
        """Record that this process runs a trial; return the place of the trial.

        A trial that is retried keeps its place.
        """
        trial.set_user_attr(PROCESS, self.process)
        known = trial.user_attrs.get(PLACE)
        if known is not None:
            return int(known)
        sampler = self.study.sampler
        place = sampler.place_of(self.study, trial)  # the one that it has sampled for
        trial.set_user_attr(PLACE, place)
        return int(place)

    def is_surplus(self, trial: optuna.Trial) -> bool:
        """Return whether enough trials were started before this one, by any process.

        Two processes may both start what they take for the last trial; trial numbers decide.
        """
        trials = self.study.get_trials(deepcopy=False)
        kept = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING}
        given_up = {each.number for each in find_given_up(trials)}
        before = [each for each in trials if each.number < trial.number]
        taken = sum(each.state in kept or each.number in given_up for each in before)
        return taken >= self.trials

    def sweep(self) -> list[int]:
        """Queue trials of dead processes again; return their places."""
        known = {trial.number for trial in self._successors()}
        if self.processes is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_lost(trial):
                try:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                except (ValueError, UpdateFinishedTrialError):
                    continue  # another process was faster, or the trial has ended
                retry_trial(self.study, trial, failed=True)
        new = [trial for trial in self._successors() if trial.number not in known]
        return [trial.user_attrs[PLACE] for trial in new]

    def _successors(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if RETRY_OF in trial.user_attrs]

    def _is_lost(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(PROCESS)
        if owner is None:
            started = trial.datetime_start
            age = datetime.datetime.now() - started if started else datetime.timedelta(0)
            return age.total_seconds() > UNCLAIMED_S
        return self.processes is not None and not self.processes.is_alive(owner)


def find_place(study: optuna.Study, number: int) -> int:
    """Return the first place that no trial before one has, counting retried trials once.

    A trial that is starting has the first place that is free before it. One whose process died
    before it recorded its place has none: the next trial takes that place.
    """
    taken: set[int] = set()
    for trial in sorted(study.get_trials(deepcopy=False), key=lambda each: each.number):
        if trial.number >= number or RETRY_OF in trial.user_attrs:
            continue
        place = trial.user_attrs.get(PLACE)
        if place is None and trial.state == TrialState.FAIL:
            continue
        taken.add(_first_free(taken) if place is None else int(place))
    return _first_free(taken)


def _first_free(taken: Set[int]) -> int:
    return next(place for place in count() if place not in taken)


def find_given_up(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that failed ``MAX_ATTEMPTS`` times."""
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.state == TrialState.FAIL
        and trial.user_attrs.get(ATTEMPT, 1) >= MAX_ATTEMPTS
        and trial.number not in retried
    ]


def retry_trial(study: optuna.Study, trial: FrozenTrial, *, failed: bool) -> bool:
    """Queue a trial without a score again, with its hyperparameters; return whether it was queued.

    A trial that no process claimed has no hyperparameters yet and is not queued.

    Args:
        failed: its process or job died, which counts as an attempt; False if it was stopped.
    """
    parameters = trial.system_attrs.get("fixed_params") or trial.params
    attempt = int(trial.user_attrs.get(ATTEMPT, 1))
    if PLACE not in trial.user_attrs or (failed and attempt >= MAX_ATTEMPTS):
        return False
    study.enqueue_trial(
        dict(parameters),
        user_attrs={
            RETRY_OF: trial.number,
            PLACE: trial.user_attrs[PLACE],
            ATTEMPT: attempt + failed,
        },
    )
    return True


@contextmanager
def open_study(plan: StudyPlan, say: Callable[[str], None]) -> Iterator[SharedStudy]:
    """Open a study, or create it, and work on it until the end of the block.

    Raises:
        UsageError: the storage cannot be reached or is damaged, or it holds a study of that name
            with other inputs.
    """
    with ExitStack() as stack:
        stack.enter_context(storage_failures())
        stack.enter_context(_quiet_optuna())
        if isinstance(plan.storage, Path):
            folder = plan.storage.parent / PROCESSES_DIR
            processes = stack.enter_context(Processes(folder))
            journal = open_journal(plan.storage, say)
            yield _join(plan, journal, processes.name, processes, say)
        else:
            opened = open_database(plan.storage, plan.dead_after_s, _on_stale)
            yield _join(plan, stack.enter_context(opened), name_process(), None, say)


def _on_stale(study: optuna.Study, trial: FrozenTrial) -> None:
    retry_trial(study, trial, failed=True)


def _join(
    plan: StudyPlan,
    storage: Any,
    process: str,
    processes: Processes | None,
    say: Callable[[str], None],
) -> SharedStudy:
    study = optuna.create_study(
        storage=storage,
        study_name=plan.name,
        direction="maximize",
        sampler=plan.sampler,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNER_TRIALS),
        load_if_exists=True,
    )
    known = study.user_attrs.get(MADE_FROM)
    if known is None:
        study.set_user_attr(MADE_FROM, dict(plan.made_from))
        study.set_user_attr(CONTENT, dict(plan.content))
    elif known != plan.made_from:
        other = [key for key in plan.made_from if known.get(key) != plan.made_from[key]]
        raise UsageError(
            f"the study {plan.name} differs in {', '.join(other)}, so its trials cannot be compared"
            " with new ones; choose another --study, or remove --study"
        )
    else:
        _check_content(study, plan, say)
    return SharedStudy(study, process, plan.trials, processes)


def _check_content(study: optuna.Study, plan: StudyPlan, say: Callable[[str], None]) -> None:
    """Check that nothing changed under its name since the first trials of a study."""
    known, now = study.user_attrs.get(CONTENT), dict(plan.content)
    if known is None:  # of an earlier version, or its first process has only begun
        study.set_user_attr(CONTENT, now)
        if now and study.get_trials(deepcopy=False):
            say(
                f"notice: the trials of {plan.name} so far do not record the content of"
                f" {' and '.join(now)}; they are taken to be made with what is here now"
            )
    elif known != now:
        other = [key for key in sorted({*known, *now}) if known.get(key) != now.get(key)]
        raise UsageError(
            f"since the first trials of the study {plan.name}, this changed under its name:"
            f" {', '.join(other)}. New trials could not be compared with them; begin another"
            " study with --study NAME"
        )


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log lines inside the block."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
