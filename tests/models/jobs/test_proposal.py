"""data ends with what this machine can do."""

from __future__ import annotations

from competition.data.corpus import read_corpus
from competition.profile import Competition
from models.jobs.estimate import Estimate
from models.jobs.proposal import EVENING_S, choose_runs, propose_runs
from models.jobs.request import FoldRequest


def propose(whole_s: float, small_s: float = 3600.0, *, is_korean: bool = True) -> list[str]:
    def estimate(request: FoldRequest) -> Estimate:
        seconds = {None: whole_s, "ko-mini": small_s}[request.encoder]
        seconds = 180.0 if request.variants == ("tfidf-linear",) else seconds
        return Estimate(1, 0, seconds, {}, 0.0, 0.0, 0.0)

    return choose_runs(estimate, "typed-punct", is_korean=is_korean)


def test_what_takes_an_evening_is_proposed_whole() -> None:
    (line,) = propose(7200.0)
    assert line.startswith("Next: python run.py fold   # about 2 h 0 min on")


def test_a_slower_machine_is_given_what_it_can_do() -> None:
    first, second, warning = propose(60 * EVENING_S)
    assert first == "Next: python run.py fold tfidf-linear   # about 3 min, without a network"
    assert second.startswith("Next: python run.py fold typed-punct --encoder ko-mini   # then, ab")
    assert warning.startswith("Warning: the default list would take about 30 days on ")
    assert len(propose(60 * EVENING_S, is_korean=False)) == 2
    assert len(propose(60 * EVENING_S, 10 * EVENING_S)) == 2


def test_estimates_need_no_folds(tiny_competition: Competition) -> None:
    lines = propose_runs(tiny_competition, read_corpus(tiny_competition))
    assert lines[0].startswith("Next: python run.py fold")
    assert not tiny_competition.oof_dir.exists()
