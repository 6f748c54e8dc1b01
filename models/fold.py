"""``fold``: plan the jobs, run them, say what came out. The command line calls only this room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from competition.console import Column, Table
from competition.errors import PredictionsError
from competition.folds import Prepared, read_prepared
from competition.intervals import auprc_interval, build_resamples, f1_interval
from competition.metrics import auprc, decide, micro_f1, weights_for_negative_share
from competition.predictions import ResultKey, Store, find_missing_folds, read_member
from competition.profile import Competition
from competition.progress import ProgressBoard, format_seconds
from models.hardware import threads_per_job
from models.job import JobOutcome, JobSpec
from models.jobs import FoldRequest, plan_jobs
from models.training import Progress
from models.variant import Variant
from models.workers import FoldHooks, FoldRun, raise_failures, run_jobs

COLUMNS = (
    Column("variant", "variant"),
    Column("seeds", "seeds"),
    Column("micro_f1", "OOF micro-F1", "score"),
    Column("micro_f1_interval", "95% interval", "interval"),
    Column("auprc", "AUPRC", "score"),
    Column("auprc_interval", "95% interval", "interval"),
    Column("shifted_f1", "F1 shifted", "score"),
    Column("missing", "missing"),
)


REPLICATES = 200


@dataclass(frozen=True)
class FoldSummary:
    """What ``fold`` did, for the command line to print."""

    tables: tuple[Table, ...]
    complete: bool


def run_fold(competition: Competition, request: FoldRequest, board: ProgressBoard) -> FoldSummary:
    """Train what is missing of the requested variants and summarise their out-of-fold scores.

    Raises:
        TrainingError: a job failed; the others were still run.
        HarnessError: the data, a variant or an encoder cannot be used.
    """
    started = time.monotonic()
    prepared = read_prepared(competition)
    threads = threads_per_job(request.threads, request.workers)
    plan = plan_jobs(prepared, request, board.say, threads=threads)
    for key in plan.done:
        board.say(f"{name_of(key)}: done before, kept")
    if plan.jobs:
        board.say(
            f"{len(plan.jobs)} jobs to train, {len(plan.done)} done before; "
            f"{request.workers} at a time, {threads} threads each"
        )
    deadline = None if request.stop_after_s is None else started + request.stop_after_s
    run = run_jobs(
        plan.jobs, workers=request.workers, deadline=deadline, hooks=_hooks(board, len(plan.jobs))
    )
    raise_failures(run)
    return FoldSummary((build_summary(prepared, plan.variants, run),), complete=not run.stopped)


def name_of(key: ResultKey) -> str:
    """Write a job's name for a person.

    >>> name_of(ResultKey("typed-punct", 42, 3))
    'typed-punct seed 42 fold 3'
    """
    return f"{key.variant} seed {key.seed} fold {key.fold}"


def build_summary(prepared: Prepared, variants: Sequence[Variant], run: FoldRun) -> Table:
    """Build the table of out-of-fold scores over all folds of each variant."""
    rows = [_summarise(prepared, variant) for variant in variants]
    profile = prepared.competition.profile
    notes = []
    if profile.metrics.shifted_negative_share is not None:
        share = profile.metrics.shifted_negative_share
        notes.append(f"F1 shifted: reweighted to {share:.0%} {profile.negative_label}.")
    if run.stopped:
        notes.append(f"{len(run.stopped)} jobs are not done; run the same command again to go on.")
    elif all(not row["missing"] for row in rows):
        notes.append("Next: python run.py blend")
    return Table("fold", "Out-of-fold scores", COLUMNS, rows, notes)


def _summarise(prepared: Prepared, variant: Variant) -> dict[str, object]:
    profile = prepared.competition.profile
    store = Store(prepared.competition.oof_dir, profile.labels)
    row: dict[str, object] = {"variant": variant.name, "seeds": " ".join(map(str, variant.seeds))}
    try:
        member = read_member(store, variant.name, prepared)
    except PredictionsError:
        missing = find_missing_folds(store, variant.name, prepared.folds.count)
        row["missing"] = "; ".join(f"seed {s}: folds {f}" for s, f in missing.items() if f)
        return row
    answered = ~(member.oof[:, 0] != member.oof[:, 0])
    gold, probs = prepared.corpus.train.gold[answered], member.oof[answered]
    negative = profile.negative_id
    resamples = build_resamples(prepared.groups[answered], replicates=REPLICATES, seed=0)
    pred = decide(probs, negative, None)
    row |= {
        "micro_f1": micro_f1(gold, pred, negative),
        "micro_f1_interval": f1_interval(gold, pred, negative, resamples),
        "auprc": auprc(gold, probs),
        "auprc_interval": auprc_interval(gold, probs, resamples),
        "missing": "",
    }
    share = profile.metrics.shifted_negative_share
    if share is not None and negative is not None:
        weights = weights_for_negative_share(gold, negative, share)
        row["shifted_f1"] = micro_f1(gold, pred, negative, weights)
    return row


def _hooks(board: ProgressBoard, total: int) -> FoldHooks:
    done = 0

    def started(spec: JobSpec) -> None:
        board.update(name_of(spec.key), 0.0, "starting")

    def progress(spec: JobSpec, at: Progress) -> None:
        text = f"{at.rows_per_s:.0f} rows/s, loss {at.loss:.3f}, {format_seconds(at.eta_s)} left"
        board.update(name_of(spec.key), at.step / at.steps, text)

    def said(spec: JobSpec, text: str) -> None:
        if text.startswith("resumed"):
            board.say(f"{name_of(spec.key)}: {text}")

    def finished(spec: JobSpec, outcome: JobOutcome) -> None:
        nonlocal done
        done += 1
        board.close(name_of(spec.key))
        if outcome.micro_f1 is None:
            board.say(f"[{done}/{total}] {name_of(spec.key)}: done by another process")
            return
        board.say(
            f"[{done}/{total}] {name_of(spec.key)}: micro-F1 {100 * outcome.micro_f1:.2f}, "
            f"AUPRC {100 * (outcome.auprc or 0):.2f}, {outcome.rows_per_s:.0f} rows/s, "
            f"{format_seconds(outcome.seconds)}"
        )
        for warning in outcome.warnings:
            board.say(f"  warning: {warning}")

    def failed(spec: JobSpec, reason: str) -> None:
        board.close(name_of(spec.key))
        board.say(f"{name_of(spec.key)}: failed: {reason.splitlines()[0]}")

    return FoldHooks(started, progress, said, finished, failed)
