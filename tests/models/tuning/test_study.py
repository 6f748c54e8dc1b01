"""Several processes on one study: nothing is lost, nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from competition.errors import UsageError
from models.tuning import study as room
from models.tuning.study import (
    ATTEMPT,
    MAX_ATTEMPTS,
    PLACE,
    PROCESS,
    RETRY_OF,
    Counts,
    SeededByPlace,
    SharedStudy,
    StudyPlan,
    open_study,
    retry_trial,
)

SPACE = {
    "x": optuna.distributions.FloatDistribution(0.0, 1.0),
    "n": optuna.distributions.CategoricalDistribution(("a", "b", "c")),
}
FIRST = {"x": 0.25, "n": "b"}
Open = Callable[..., SharedStudy]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_one(tmp_path: Path, said: list[str]) -> Iterator[Open]:
    """Open the study of a test, as another process would."""
    with ExitStack() as stack:

        def open_(**changes: Any) -> SharedStudy:
            given = {
                "name": "s",
                "storage": tmp_path / "journal.log",
                "made_from": {"search": ["x"], "folds": [0]},
                "content": {},
                "sampler": SeededByPlace(7, FIRST, SPACE),
                "trials": 3,
                "dead_after_s": 5.0,
            }
            plan = StudyPlan(**(given | changes))
            return stack.enter_context(open_study(plan, said.append))

        yield open_


def begin(shared: SharedStudy) -> optuna.Trial:
    """Start a trial as a process does: claim it and take its settings."""
    trial = shared.study.ask()
    shared.claim(trial)
    trial.suggest_float("x", 0.0, 1.0)
    trial.suggest_categorical("n", ("a", "b", "c"))
    return trial


def trials_of(shared: SharedStudy) -> list[FrozenTrial]:
    found: list[FrozenTrial] = shared.study.get_trials(deepcopy=False)
    return found


def bury(shared: SharedStudy, trial: optuna.Trial) -> None:
    """Assign a trial to a dead process."""
    trial.set_user_attr(PROCESS, "gone-1")


def test_a_trial_of_a_dead_process_is_retried_with_its_settings(open_one: Open) -> None:
    shared = open_one()
    trial = begin(shared)
    assert shared.sweep() == []  # its process lives
    bury(shared, trial)
    assert shared.sweep() == [0]
    assert shared.count() == Counts(spent=0, running=0, waiting=1)
    assert shared.sweep() == []
    again = begin(shared)
    assert again.number == 1
    assert again.params == trial.params
    assert again.user_attrs[PLACE] == 0
    assert again.user_attrs[ATTEMPT] == 2
    shared.study.tell(again, 0.5)
    assert shared.count() == Counts(spent=1, running=0, waiting=0)


def test_what_changed_under_its_name_is_not_mixed(open_one: Open, said: list[str]) -> None:
    before, now = {"encoder": "e1", "results": {"t/s1-f0": "a"}}, {"encoder": "e1"}
    begin(open_one(content=before))
    open_one(content=before)
    with pytest.raises(UsageError, match=r"changed under its name: results\. .*--study NAME"):
        open_one(content=now)
    with pytest.raises(UsageError, match="changed under its name: encoder"):
        open_one(content={**before, "encoder": "e2"})
    assert said == []


def test_a_study_of_an_earlier_version_goes_on(open_one: Open, said: list[str]) -> None:
    shared = open_one()
    begin(shared)
    shared.study.set_user_attr("content", None)
    open_one(content={"encoder": "e1"})
    assert "do not record the content of encoder" in said[0]
    with pytest.raises(UsageError, match="changed under its name: encoder"):
        open_one(content={"encoder": "e2"})


def test_two_processes_sweeping_at_once_queue_a_trial_once(open_one: Open) -> None:
    first, second = open_one(), open_one()
    bury(first, begin(first))
    seen = trials_of(second)[0]  # before the other one ends it
    first.sweep()
    assert second.sweep() == []
    with pytest.raises(ValueError, match="Cannot tell a FAIL trial"):
        second.study.tell(seen.number, state=TrialState.FAIL)
    assert second.count() == Counts(spent=0, running=0, waiting=1)


def test_a_trial_that_keeps_failing_is_given_up(open_one: Open) -> None:
    shared = open_one(trials=1)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        trial = begin(shared)
        assert trial.user_attrs.get(ATTEMPT, 1) == attempt
        bury(shared, trial)
        swept = shared.sweep()
        assert len(swept) == (attempt < MAX_ATTEMPTS)
    assert shared.count() == Counts(spent=1, running=0, waiting=0)


def test_stopping_a_trial_does_not_count_as_an_attempt(open_one: Open) -> None:
    shared = open_one()
    for _ in range(2 * MAX_ATTEMPTS):
        trial = begin(shared)
        shared.study.tell(trial, state=TrialState.FAIL)
        assert retry_trial(shared.study, trials_of(shared)[trial.number], failed=False)
    last = begin(shared)
    assert last.params == FIRST
    assert last.user_attrs[ATTEMPT] == 1
    assert last.user_attrs[PLACE] == 0


def test_a_trial_without_settings_gets_those_of_its_place(open_one: Open, tmp_path: Path) -> None:
    shared, other = open_one(), open_one(storage=tmp_path / "other" / "journal.log")
    for each in (shared, other):
        each.study.tell(begin(each), 0.5)
    trial = shared.study.ask()
    shared.claim(trial)
    bury(shared, trial)
    assert shared.sweep() == [1]
    assert begin(shared).params == begin(other).params


def test_a_trial_that_died_before_it_had_a_place_leaves_its_place_to_the_next(
    open_one: Open,
) -> None:
    shared = open_one()
    shared.study.ask().set_user_attr(PROCESS, "of a process that was killed")
    assert shared.sweep() == []  # nothing to retry
    first = begin(shared)
    assert first.params == FIRST  # the variant itself
    starting = shared.study.ask()
    assert begin(shared).user_attrs[PLACE] == 2  # place 1 is that of the trial that starts
    assert shared.claim(starting) == 1
    assert [trial.user_attrs.get(PLACE) for trial in trials_of(shared)] == [None, 0, 1, 2]


def test_an_unclaimed_trial_is_no_longer_counted(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = open_one()
    shared.study.ask()
    assert shared.sweep() == []
    assert shared.count().running == 1  # its process may be about to claim it
    monkeypatch.setattr(room, "UNCLAIMED_S", -1.0)
    shared.sweep()
    assert shared.count() == Counts(spent=0, running=0, waiting=0)  # it had no settings to keep


def test_no_process_starts_more_trials_than_requested(open_one: Open) -> None:
    first, second = open_one(trials=3), open_one(trials=3)
    begun = [begin(first), begin(second), begin(first)]
    assert not any(first.is_surplus(trial) for trial in begun)
    extra = [begin(first), begin(second)]
    assert all(shared.is_surplus(t) for shared, t in zip((first, second), extra, strict=True))
    for trial in extra:
        first.study.tell(trial.number, state=TrialState.FAIL)
    bury(first, begun[1])
    second.sweep()
    again = begin(second)
    assert again.user_attrs[RETRY_OF] == 1
    assert not second.is_surplus(again)
    assert second.is_surplus(begin(second))


def run_places(shared: SharedStudy, wanted: int, stop_at: frozenset[int] = frozenset()) -> None:
    """Score trials by a made-up rule; stop those whose number is in ``stop_at``."""
    while shared.count().spent < wanted:
        trial = begin(shared)
        if trial.number in stop_at:
            shared.study.tell(trial, state=TrialState.FAIL)
            retry_trial(shared.study, trials_of(shared)[trial.number], failed=False)
        else:
            bonus = {"a": 0.0, "b": 0.2, "c": 0.1}[trial.params["n"]]
            shared.study.tell(trial, bonus - (trial.params["x"] - 0.6) ** 2)


def proposals(shared: SharedStudy) -> list[tuple[dict[str, Any], float]]:
    return [
        (trial.params, trial.value)
        for trial in trials_of(shared)
        if trial.state == TrialState.COMPLETE
    ]


def test_an_interrupted_study_tries_the_same_settings(tmp_path: Path, open_one: Open) -> None:
    straight = open_one(storage=tmp_path / "a" / "journal.log", trials=16)
    run_places(straight, 16)
    stops = frozenset({0, 5, 6, 12})
    for part in (3, 7, 11, 16):
        broken = open_one(storage=tmp_path / "b" / "journal.log", trials=16)
        run_places(broken, part, stops)
    assert proposals(broken) == proposals(straight)
    assert proposals(straight)[0][0] == FIRST
    assert len({str(params) for params, _ in proposals(straight)}) == 16
    other = open_one(storage=tmp_path / "c" / "journal.log", sampler=SeededByPlace(8, FIRST, SPACE))
    run_places(other, 4)
    assert proposals(other)[1:4] != proposals(straight)[1:4]


def test_without_a_first_trial_the_sampler_starts_at_once(open_one: Open) -> None:
    shared = open_one(sampler=SeededByPlace(7, None, SPACE))
    assert begin(shared).params != FIRST


def test_a_study_with_other_inputs_is_refused(open_one: Open) -> None:
    open_one()
    with pytest.raises(UsageError, match=r"differs in folds, .*another --study"):
        open_one(made_from={"search": ["x"], "folds": [1]})


def test_only_an_incomplete_last_line_is_removed(tmp_path: Path, open_one: Open) -> None:
    shared = open_one()
    shared.study.tell(begin(shared), 0.5)
    path = tmp_path / "journal.log"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker_id":"torn')
    again = open_one()
    assert path.read_bytes().startswith(whole)
    assert b"torn" not in path.read_bytes()
    assert again.count() == Counts(spent=1, running=0, waiting=0)
    again.study.tell(begin(again), 0.7)
    assert open_one().count().spent == 2
