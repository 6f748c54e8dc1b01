"""The ``fold`` command: K-fold cross-validation. Plan jobs, run them, print out-of-fold scores."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from competition.arrays import Say
from competition.console import Table, write_count
from competition.errors import StoppedError, UsageError
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.rerun import write_command
from competition.predictions.store import ResultKey, check_no_blend, open_store
from competition.predictions.variant_scores import (
    VariantScore,
    score_variants,
)
from competition.predictions.variants_table import build_variants_table
from competition.profile import Competition
from competition.progress import ProgressBoard, RemainingTime, format_seconds
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from models.jobs.engines.choice import open_engine
from models.jobs.engines.engine import LOCAL, Engine
from models.jobs.engines.launch import Launch, LaunchEngine
from models.jobs.estimate import (
    check_feasible,
    describe_estimate,
    estimate_run,
    estimate_smaller,
    is_hopeless,
)
from models.jobs.order import estimate_work, order_longest_first
from models.jobs.plan import plan_jobs
from models.jobs.request import (
    FoldRequest,
    check_variant,
    list_missing,
    resolve_all,
)
from models.jobs.spec import JobOutcome, JobSpec
from models.jobs.suitability import check_files
from models.jobs.tracking import check_trackers, flatten, track_summary
from models.jobs.waves import include_bases, order_in_waves, without_broken
from models.jobs.workers import FoldHooks, FoldRun, raise_failures, run_jobs
from models.pretraining.exposure import read_exposure
from models.training.control import Progress
from models.training.hardware import (
    report_gpu_errors,
)
from models.training.sharding import check_shardable
from models.variant import Variant

MAX_NAMED = 4
SAID = ("resumed", "training continues without", "lost with its node", "its task failed")
"""How lines of a job begin that its command prints; the others are in the job's log."""
RESUMED = re.compile(r"resumed at step (\d+) of (\d+)")


@dataclass(frozen=True)
class FoldSummary:
    """Output of ``fold`` for the command line."""

    tables: tuple[Table, ...]
    complete: bool


@report_gpu_errors()
def run_fold(
    competition: Competition,
    request: FoldRequest,
    board: ProgressBoard,
    launch: Launch | None = None,
) -> FoldSummary:
    """Run the missing jobs of the requested variants and summarise their out-of-fold scores.

    Args:
        launch: the processes that share each job, if a launcher started several.

    Raises:
        TrainingError: a job failed; the others were still run.
        UsageError: it would take days, and ``--yes`` was not given.
        HarnessError: the data, a variant or an encoder is invalid.
    """
    started = time.monotonic()
    check_trackers(request.track)
    check_files(request.variants, competition.profile, request.overrides)
    prepared = read_prepared(competition)
    for notice in (*prepared.corpus.notices, *prepared.folds.notices):
        board.say(f"notice: {notice}")
    request = _suit_launch(request, launch)
    for name in request.variants:
        check_variant(open_store(competition), name)
    variants = include_bases(
        prepared, request, resolve_all(competition.profile, request), board.say
    )
    for variant in variants:
        check_no_blend(competition, variant.name)
    _check_sharding(variants, launch)
    if request.engine.name == LOCAL:
        _say_plan(prepared, request, variants, board.say)
    deadline = None if request.stop_after_s is None else started + request.stop_after_s
    with closing(_open_engine(request, launch)) as engine:
        fold = _Fold(prepared, request, engine, deadline, board)
        run = fold.run(order_in_waves(competition.profile, request, variants))
    raise_failures(run.failed)
    scores = score_variants(prepared, [variant.name for variant in variants])
    table = build_summary(prepared, request, variants, run, scores)
    if request.track:
        _track_scores(competition, request, scores, board.say)
    return FoldSummary((table,), complete=not run.stopped)


class _Fold:
    """Runs the jobs of waves of variants, each after those it builds on."""

    def __init__(
        self,
        prepared: Prepared,
        request: FoldRequest,
        engine: Engine,
        deadline: float | None,
        board: ProgressBoard,
    ) -> None:
        self.prepared, self.request, self.engine = prepared, request, engine
        self.deadline, self.board = deadline, board
        self.shared = ""
        if isinstance(engine, LaunchEngine):
            self.shared = f" in {engine.size} processes together"
        self.say = _say_once(board.say)
        self.broken: set[str] = set()

    def run(self, waves: Sequence[Sequence[Variant]]) -> FoldRun:
        """Run all waves, or those before a stop; return the outcomes of all.

        Jobs of waves after a stop count as stopped.
        """
        finished: list[JobOutcome] = []
        stopped: list[ResultKey] = []
        failed: list[tuple[ResultKey, str]] = []
        for place, wave in enumerate(waves):
            later = [variant for each in waves[place + 1 :] for variant in each]
            try:
                run = self._run_wave(wave, [variant.name for variant in later])
            except StoppedError as error:
                if place == 0:
                    raise
                self.say(str(error))  # what earlier waves finished is still summarised
                run = FoldRun((), tuple(self._list_missing(wave)), (), asked_to_stop=True)
            finished += run.finished
            stopped += run.stopped
            failed += run.failed
            self.broken |= {key.variant for key, _ in run.failed}
            if run.asked_to_stop or run.stopped:
                stopped += self._list_missing(later)
                break
        return FoldRun(tuple(finished), tuple(stopped), tuple(failed))

    def _list_missing(self, variants: Sequence[Variant]) -> list[ResultKey]:
        store, count = open_store(self.prepared.competition), self.prepared.folds.count
        missing = (list_missing(store, self.request, each, count) for each in variants)
        return [key for keys in missing for key in keys]

    def _run_wave(self, wave: Sequence[Variant], later: Sequence[str]) -> FoldRun:
        engine, profile = self.engine, self.prepared.competition.profile
        plan = plan_jobs(
            self.prepared,
            self.request,
            self.say,
            threads=engine.threads,
            variants=without_broken(profile, self.request, wave, self.broken, self.say),
            deadline=self.deadline,
        )
        for key in plan.done:
            self.say(f"{name_of(key)}: done before, kept")
        jobs = order_longest_first(plan.jobs) if engine.max_started > 1 else plan.jobs
        if jobs:
            what = ", ".join(later) if len(later) <= MAX_NAMED else f"{len(later)} more variants"
            then = f"; then {what}" if later else ""
            self.say(
                f"{write_count(len(jobs), 'job')} to train, {len(plan.done)} done before; "
                f"{engine.count_running([spec.variant for spec in jobs])} at a time{self.shared}, "
                f"{_write_threads(jobs)} each{then}"
            )
            for line in engine.describe(jobs):
                self.say(line)
        hooks = _hooks(self.board, jobs)
        return run_jobs(jobs, engine=engine, deadline=self.deadline, hooks=hooks)


def _write_threads(jobs: Sequence[JobSpec]) -> str:
    """Write the threads of each job; models of n-grams have fewer than networks."""
    fewest, *more = sorted({spec.threads for spec in jobs})
    return (
        f"{fewest} or {write_count(more[0], 'thread')}" if more else write_count(fewest, "thread")
    )


def _track_scores(
    competition: Competition, request: FoldRequest, scores: Sequence[VariantScore], say: Say
) -> None:
    """Log the out-of-fold scores of the complete variants as one run of each tracker."""
    values: dict[str, float] = {}
    for score in scores:
        if score.assessment is not None:
            found = dict(flatten(score.assessment.describe()))
            values |= {f"{score.name}.oof_{key}": float(each) for key, each in found.items()}
    folder, project = competition.checkpoints_dir, competition.oof_dir.name
    track_summary(request.track, values, folder=folder, project=project, say=say)


def _suit_launch(request: FoldRequest, launch: Launch | None) -> FoldRequest:
    """Return the request as a launch runs it."""
    if launch is None:
        return request
    if request.engine.name != LOCAL:
        raise UsageError(
            f"--engine {request.engine.name}: a launcher starts its own processes; start "
            "run.py without it"
        )
    if request.engine.jobs_here > 1:
        raise UsageError(
            f"--workers {request.engine.jobs_here}: the {launch.size} processes of a launch train "
            "one job at a time, together; leave out --workers, or start run.py without a launcher"
        )
    sharding = (("run.shard", True),) if launch.shards else ()
    return replace(request, overrides=(*request.overrides, *sharding))


def _check_sharding(variants: Sequence[Variant], launch: Launch | None) -> None:
    """Refuse to shard what cannot be sharded, before anything is downloaded."""
    size = 1 if launch is None else launch.size
    for variant in variants:
        if variant.run.shard and variant.is_network:
            check_shardable(variant.adapt, size)


def _open_engine(request: FoldRequest, launch: Launch | None) -> Engine:
    if launch is None:
        return open_engine(request.engine)
    return LaunchEngine(launch, request.engine.threads)


def _say_plan(
    prepared: Prepared, request: FoldRequest, variants: Sequence[Variant], say: Say
) -> None:
    """Print the estimate of a run, before anything is downloaded."""
    competition = prepared.competition
    estimate = estimate_run(prepared, request, variants)
    for line in describe_estimate(estimate, competition.home):
        say(line)
    smaller = None
    if is_hopeless(estimate, request):
        smaller = estimate_smaller(prepared, request, variants)
    check_feasible(estimate, request, smaller)


def name_of(key: ResultKey) -> str:
    """Return a readable name of a job.

    >>> name_of(ResultKey("typed-punct", 42, 3))
    'typed-punct seed 42 fold 3'
    """
    return f"{key.variant} seed {key.seed} fold {key.fold}"


def build_summary(
    prepared: Prepared,
    request: FoldRequest,
    variants: Sequence[Variant],
    run: FoldRun,
    scores: Sequence[VariantScore],
) -> Table:
    """Build the table of out-of-fold scores, with notes on what to do next."""
    table = build_variants_table(prepared, scores)
    lacking = [each for each in scores if each.lacks]
    if run.stopped:
        count = write_count(len(run.stopped), "job")
        notes = [f"{count} not done; run the same command again to continue."]
    elif lacking:
        notes = _advise(prepared, request, variants, lacking)
    else:
        notes = ["Next: python run.py blend"]
    kind = build_criteria(prepared.competition.profile).kinds[0]
    return replace(table, notes=(*table.notes, *_close(scores, run, kind), *notes))


def _close(scores: Sequence[VariantScore], run: FoldRun, kind: MetricKind) -> list[str]:
    """Return the closing lines: the best of these variants, and what its jobs warned of."""
    lines = []
    scored = [each for each in scores if each.assessment is not None]
    expected = {each.name: each.on_test.expected.primary.value for each in scored if each.on_test}

    def rank(score: VariantScore) -> float:
        assert score.assessment is not None
        return expected.get(score.name, -inf) if expected else score.assessment.primary.value

    if scored:
        best = max(scored, key=rank)
        assert best.assessment is not None
        which = "best expected score" if expected else "best of these"
        which = which if len(scored) > 1 else "done"
        figure = f"out-of-fold {kind.head} {kind.write(best.assessment.primary.value)}"
        if expected:
            figure += f", expected on the test {kind.write(rank(best))}"
        lines.append(f"Verdict: {which}: {best.name}, {figure}.")
    warned: dict[str, list[str]] = {}
    for outcome in run.finished:
        for text in outcome.warnings:
            warned.setdefault(text, []).append(name_of(outcome.key))
    for text, names in warned.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"Warning: {names[0]}{more}: {text}.")
    return lines


def _advise(
    prepared: Prepared,
    request: FoldRequest,
    variants: Sequence[Variant],
    lacking: Sequence[VariantScore],
) -> list[str]:
    """Explain how blend treats incomplete variants, and which command trains the rest."""
    unfinished: dict[str, list[int]] = {}
    said, broken = [], []
    fair_folds = _find_fair_folds(prepared, variants)
    for score in lacking:
        name, partial = score.name, score.incomplete_seeds
        if score.fault is not None:
            broken.append(name)  # it has a complete seed; another note says what is wrong
            continue
        if name not in fair_folds:
            unfinished[name] = partial
        seeds = f"{'seed' if len(partial) == 1 else 'seeds'} {', '.join(map(str, partial))}"
        is_member = len(partial) < len(score.missing)
        said.append(f"{name} without {seeds}" if is_member else f"{name} is left out")
    notes = [f"blend uses complete seeds only: {'; '.join(said)}."] if said else []
    notes += [f"blend leaves out {', '.join(broken)} until that is fixed."] if broken else []
    notes += [
        f"The encoder of {name} was not pretrained on fold {fold}, so compare it on that fold: "
        f"python run.py compare {name} OTHER --folds {fold}"
        for name, fold in fair_folds.items()
    ]
    return notes + ([f"Next: {_complete(request, variants, unfinished)}"] if unfinished else [])


def _find_fair_folds(prepared: Prepared, variants: Sequence[Variant]) -> dict[str, int]:
    """Return, by variant, the only fold that its encoder's pretraining left out."""
    found = {}
    for variant in variants:
        if not variant.is_network or variant.pretrain == "tapt":  # which reads every fold
            continue
        exposure = read_exposure(Path(variant.encoder))
        if exposure.left_out_fold is not None and exposure.folds_hash == prepared.folds.hash:
            found[variant.name] = exposure.left_out_fold
    return found


def _complete(
    request: FoldRequest, variants: Sequence[Variant], unfinished: Mapping[str, Sequence[int]]
) -> str:
    """Return the command that trains all folds of the seeds that have some results."""
    wanted = {seed for seeds in unfinished.values() for seed in seeds}
    asked = {variant.name: set(variant.seeds) for variant in variants}
    command = request.command or f"fold {' '.join(unfinished)}"
    is_asked = all(set(seeds) <= asked[name] for name, seeds in unfinished.items())
    if is_asked and (request.command or not request.seeds):
        return write_command(command, "--folds")
    seeds = ",".join(map(str, sorted(wanted)))
    return f"{write_command(command, '--folds', '--seeds')} --seeds {seeds}"


def _say_once(say: Say) -> Say:
    """Return a function that prints each line once: variants share formats and encoders."""
    said: set[str] = set()

    def say_new(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return say_new


def _hooks(board: ProgressBoard, jobs: Sequence[JobSpec]) -> FoldHooks:
    done = 0
    remaining = RemainingTime({spec.key: estimate_work(spec) for spec in jobs})

    def started(spec: JobSpec) -> None:
        remaining.update(spec.key, 0.0)
        board.update(name_of(spec.key), 0.0, "starting")

    def progress(spec: JobSpec, at: Progress) -> None:
        remaining.update(spec.key, at.step / at.steps)
        text = f"{at.rows_per_s:.0f} rows/s, loss {at.loss:.3f}, {format_seconds(at.eta_s)} left"
        board.update(name_of(spec.key), at.step / at.steps, text)

    say = _say_once(board.say)

    def said(spec: JobSpec, text: str) -> None:
        if (resumed := RESUMED.match(text)) is not None:
            remaining.resume(spec.key, int(resumed[1]) / int(resumed[2]))
        if text.startswith(SAID):
            say(f"{name_of(spec.key)}: {text}")

    def finished(spec: JobSpec, outcome: JobOutcome) -> None:
        nonlocal done
        done += 1
        board.close(name_of(spec.key))
        if outcome.scores is None:
            remaining.drop(spec.key)
            board.say(f"[{done}/{len(jobs)}] {name_of(spec.key)}: done by another process")
            return
        remaining.update(spec.key, 1.0)
        left = remaining.seconds()
        rest = f"; about {format_seconds(left)} for the rest" if left else ""
        board.say(
            f"[{done}/{len(jobs)}] {name_of(spec.key)}: {spec.criteria.write(outcome.scores)}, "
            f"{outcome.rows_per_s:.0f} rows/s, "
            f"{format_seconds(outcome.seconds)}{rest}"
        )
        for warning in outcome.warnings:
            board.say(f"  warning: {warning}")
        for note in outcome.notes:
            board.say(f"  {note}")

    def failed(spec: JobSpec, reason: str) -> None:
        remaining.drop(spec.key)
        board.close(name_of(spec.key))
        board.say(f"{name_of(spec.key)}: failed: {reason.splitlines()[0]}")

    return FoldHooks(started, progress, said, finished, failed)
