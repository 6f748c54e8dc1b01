"""The ``pretrain`` command: train a masked-language model and write an encoder folder.

The command line calls ``run_pretrain``; a variant with task-adaptive pretraining (TAPT) gets its
encoder from ``make_adapted_encoder``. The output is a folder for ``fold --encoder FOLDER``.
"""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from competition.console import Column, Table, write_count
from competition.errors import EncoderError, PretrainingError, StoppedError
from competition.files import remove_leftovers
from competition.lease import describe_lost, hold
from competition.profile import Competition
from competition.progress import ProgressBoard, format_seconds
from models.network.backbone import choose_attention
from models.network.encoder_source import EncoderSource
from models.network.tokenizer import load_tokenizer
from models.pretraining import corpora, loop, masking
from models.pretraining.corpora import PackedText, Text, build_library, pack_texts
from models.pretraining.export import WEIGHTS_FILE, check_free, export_encoder, read_done
from models.pretraining.exposure import Exposure, read_exposure
from models.pretraining.loop import PretrainProgress, PretrainWatch, pretrain
from models.pretraining.masked_model import build_masked_model, check_optimizer
from models.pretraining.masking import MaskRules
from models.pretraining.request import (
    DECAY_SETTINGS,
    DEFAULT_EPOCHS,
    PretrainRequest,
    PretrainSettings,
    build_schedule,
    describe_command,
    leave_out_unused,
    list_unused,
    resolve_settings,
)
from models.pretraining.source import (
    as_variant,
    read_corpus_texts,
    resolve_exposure,
    resolve_source,
)
from models.pretraining.task import DROPOUT_STREAM, STABLE_FILE, PretrainTask
from models.settings import RunSettings
from models.training.control import step_seed, stop_requests
from models.training.hardware import (
    build_accelerator,
    choose_precision,
    describe_machine,
    fix_randomness_of_kernels,
    list_gpu_notices,
    report_gpu_errors,
    threads_per_job,
)
from models.variant import SCRATCH, fingerprint

VERSIONED_ROOMS = (corpora, masking, loop)  # the last also for network and optimisers
INITIAL_STEP = 2**40  # seeds the random initialisation, before the first step
SAY_EVERY_S = 30.0
TRAINING_DIR = "training"
STOPPING = "stopping: the run writes a checkpoint; press Ctrl-C again to kill it"


@dataclass(frozen=True)
class PretrainSummary:
    """Output of ``pretrain`` for the command line."""

    tables: tuple[Table, ...]
    complete: bool


@dataclass(frozen=True)
class PretrainJob:
    """A resolved run: encoder, texts, settings and output folder."""

    request: PretrainRequest
    settings: PretrainSettings
    texts: tuple[Text, ...]
    source: EncoderSource
    exposure: Exposure
    out: Path
    cache_dir: Path
    command: str


@dataclass(frozen=True)
class PretrainHooks:
    """Callbacks of a run: messages, progress, and a check whether to stop."""

    say: Callable[[str], None]
    update: Callable[[float, str], None]
    should_stop: Callable[[], bool]


@report_gpu_errors()
def run_pretrain(
    competition: Competition, request: PretrainRequest, board: ProgressBoard
) -> PretrainSummary:
    """Pretrain an encoder and write it as a folder, resuming from an earlier run if it stopped.

    Raises:
        PretrainingError: text is unreadable or too short, or the loss is not finite.
        HarnessError: the data, an encoder or the request is invalid.
    """
    started = time.monotonic()
    settings = resolve_settings(request)
    check_optimizer(settings)
    texts, own = read_corpus_texts(competition, request, board.say)
    cache_dir = competition.checkpoints_dir / "cache"
    source = resolve_source(competition, request, settings, texts, cache_dir)
    out = request.out or competition.checkpoints_dir / "encoders" / request.default_name
    exposure = resolve_exposure(request, source, own)
    command = describe_command(request, out)
    job = PretrainJob(request, settings, texts, source, exposure, out, cache_dir, command)
    deadline = None if request.stop_after_s is None else started + request.stop_after_s
    with stop_requests(STOPPING, deadline=deadline) as should_stop:
        hooks = PretrainHooks(
            say=board.say,
            update=lambda frac, text: board.update(out.name, frac, text),
            should_stop=should_stop,
        )
        facts, complete = run_pretraining(job, hooks)
    return PretrainSummary((_build_table(out, facts, complete=complete),), complete)


def make_adapted_encoder(
    source: EncoderSource,
    competition: Competition,
    *,
    run: RunSettings,
    say: Callable[[str], None],
    deadline: float | None = None,
    threads: int | None = None,
) -> EncoderSource:
    """Pretrain an encoder on the training sentences of a competition (TAPT), once.

    Settings are the defaults of ``pretrain --encoder``. If another process makes the same encoder,
    waits for it.

    Source: Don't Stop Pretraining (Gururangan et al. 2020, arXiv 2004.10964), section 4.

    Args:
        source: a resolved encoder; one without weights is initialised randomly.
        competition: supplies the training sentences.
        run: hardware settings.
        deadline: on the clock of ``time.monotonic``; the run then writes a checkpoint and stops.

    Raises:
        StoppedError: stopped by the deadline or a signal; the same call resumes.
        EncoderError: the encoder cannot be pretrained.
    """
    from accelerate.utils.memory import clear_device_cache

    request = PretrainRequest(
        encoder=str(source.path) if source.has_weights else SCRATCH, threads=threads
    )
    texts, seen = read_corpus_texts(competition, request, say)
    own = leave_out_unused(run)
    settings = resolve_settings(request).model_copy(update={"run": own})
    made_from = {
        "encoder": source.identity,
        "texts": [text.hash for text in texts],
        "settings": settings.model_dump(mode="json", exclude={"run"}),
        "versions": _versions(),
    }
    out = competition.checkpoints_dir / "encoders" / f"adapted-{fingerprint(made_from)[:16]}"
    command = "python run.py fold VARIANT --set pretrain=tapt"
    cache_dir = competition.checkpoints_dir / "cache"
    exposure = resolve_exposure(request, source, seen)
    job = PretrainJob(request, settings, texts, source, exposure, out, cache_dir, command)
    unused = list_unused(run)
    if unused and not (out / WEIGHTS_FILE).is_file():
        say(f"notice: {' and '.join(unused)} will apply to the jobs, not to pretraining (TAPT)")
    update = _say_periodically(say, f"pretraining {source.name} (TAPT)")
    with stop_requests(STOPPING) as is_asked:

        def should_stop() -> bool:
            return is_asked() or (deadline is not None and time.monotonic() > deadline)

        facts, complete = run_pretraining(job, PretrainHooks(say, update, should_stop), wait=True)
    clear_device_cache(garbage_collection=True)  # jobs in other processes need the memory
    if not complete:
        raise StoppedError(
            f"pretraining {source.name} (TAPT) was stopped at step {facts['stopped_at']}; run the "
            "same command again to continue"
        )
    (out / TRAINING_DIR / STABLE_FILE).unlink(missing_ok=True)  # never continued with more tokens
    if is_asked():  # while the last step ran or the encoder was written
        raise StoppedError(
            f"stopped after pretraining {source.name} (TAPT), which is done; run the same command "
            "again to continue"
        )
    return EncoderSource(f"{source.name}+tapt", out, facts["fingerprint"], has_weights=True)


def run_pretraining(
    job: PretrainJob, hooks: PretrainHooks, *, wait: bool = False
) -> tuple[dict[str, Any], bool]:
    """Run a job under the lease of its folder, and export the encoder when it is finished.

    Args:
        wait: wait for another process that uses the folder instead of raising.

    Returns:
        The facts of the run, and whether it is finished.

    Raises:
        PretrainingError: another process uses the folder, or training failed.
    """
    folder = job.out / TRAINING_DIR
    folder.mkdir(parents=True, exist_ok=True)

    def on_wait(owner: str) -> None:
        if not wait:
            raise PretrainingError(f"{owner} is pretraining into {job.out}")
        hooks.say(f"{owner} is pretraining into {job.out}; waiting for it")

    with ExitStack() as stack:
        held = hold(folder / "run", should_give_up=hooks.should_stop, on_wait=on_wait)
        try:
            lease = stack.enter_context(held)
        except TimeoutError:
            raise StoppedError(
                f"stopped while waiting for another process to pretrain into {job.out}"
            ) from None
        remove_leftovers(folder)
        stops = replace(hooks, should_stop=lambda: hooks.should_stop() or lease.is_lost)
        facts, is_finished = _run_leased(job, folder, stops)
        if lease.is_lost and not is_finished:
            raise PretrainingError(describe_lost(lease))
        return facts, is_finished


def _run_leased(
    job: PretrainJob, folder: Path, hooks: PretrainHooks
) -> tuple[dict[str, Any], bool]:
    request, settings = job.request, job.settings
    threads = threads_per_job(request.threads, 1)
    torch.set_num_threads(threads)
    fix_randomness_of_kernels()
    precision = choose_precision(settings.run.precision)
    accelerator = build_accelerator(precision)
    tokenizer = load_tokenizer(job.source)
    task, facts = build_task(job, tokenizer, folder, hooks.say)
    done = read_done(job.out, facts["fingerprint"])
    if done is not None:
        idle = "; --licence does not change its model card" if request.licence else ""
        hooks.say(f"{job.out}: done before, kept{idle}")
        return done, True
    check_free(job.out, task, facts)
    torch.manual_seed(step_seed(request.seed, DROPOUT_STREAM, INITIAL_STEP))
    attention = choose_attention(as_variant(job.source.name, settings), accelerator.device.type)
    model = build_masked_model(
        job.source, settings, vocabulary=len(tokenizer), attention=attention, say=hooks.say
    )
    hooks.say(
        f"{sum(p.numel() for p in model.parameters()):,} weights, {task.schedule.steps:,} steps of "
        f"{settings.batch_sequences} × {settings.sequence_tokens} tokens, decay from step "
        f"{task.schedule.decay_start:,}; {precision},"
        f" {write_count(threads, 'thread')}"
    )
    if task.schedule.warmup > task.schedule.steps // 2:
        hooks.say(
            f"notice: learning-rate warm-up takes {task.schedule.warmup:,} steps (warmup_steps),"
            f" most of the {task.schedule.steps:,} of this run"
        )
    for notice in list_gpu_notices():
        hooks.say(notice)
    watch = PretrainWatch(_build_report(hooks), hooks.should_stop, hooks.say)
    started = datetime.datetime.now(datetime.UTC)
    report = pretrain(model, settings, task, accelerator=accelerator, watch=watch)
    facts["history"] = list(report.history)
    if not report.finished:
        return {**facts, "stopped_at": report.steps}, False
    run = {
        "started": started.isoformat(timespec="seconds"),
        "tokens_per_s": round(report.tokens_per_s),
        "precision": precision,
        "threads": threads,
        "machine": describe_machine(),
        "command": job.command,
        "licence": request.licence,
    }
    export_encoder(model.whole, tokenizer, job.out, facts=facts, run=run)
    task.state_path.unlink(missing_ok=True)
    return facts, True


def build_task(
    job: PretrainJob, tokenizer: Any, folder: Path, say: Callable[[str], None]
) -> tuple[PretrainTask, dict[str, Any]]:
    """Pack the texts and describe the run; return the task and the facts that determine it.

    Raises:
        EncoderError: the tokenizer has no mask token.
        PretrainingError: the text is too short.
    """
    settings, texts, seed = job.settings, job.texts, job.request.seed
    if tokenizer.mask_token_id is None:
        raise EncoderError(f"{job.source.name}: its tokenizer has no mask token")
    tokenizer_hash = fingerprint({"tokenizer": tokenizer.backend_tokenizer.to_str()})
    packed = pack_texts(texts, tokenizer, tokenizer_hash, cache_dir=job.cache_dir, say=say)
    library = build_library(packed, settings.sequence_tokens, tokenizer.cls_token_id)
    epoch = sum(t.weight * len(p.tokens) for t, p in zip(texts, packed, strict=True))
    tokens = job.request.tokens or round(DEFAULT_EPOCHS * epoch)
    special = np.asarray(sorted(tokenizer.all_special_ids), np.int64)
    stable_print, whole_print = _fingerprints(job, tokens)
    task = PretrainTask(
        library=library,
        stable_weights=tuple(text.weight for text in texts),
        decay_weights=tuple(text.decay_weight for text in texts),
        rules=_build_rules(settings, tokenizer, special),
        special_ids=special,
        schedule=build_schedule(settings, tokens),
        seed=seed,
        folder=folder,
        stable_print=stable_print,
        whole_print=whole_print,
    )
    facts = {
        "fingerprint": whole_print,
        "from": job.source.name,
        "size": job.request.size,
        "kind": job.request.kind,
        "settings": settings.model_dump(mode="json", exclude={"run"}),
        "seed": seed,
        "tokens": task.schedule.steps * settings.batch_sequences * settings.sequence_tokens,
        "steps": task.schedule.steps,
        "texts": [_describe_text(t, p) for t, p in zip(texts, packed, strict=True)],
        **job.exposure.as_facts(),
        "heldout_sequences": int(library.heldout.sum()),
    }
    return task, facts


def _fingerprints(job: PretrainJob, tokens: int) -> tuple[str, str]:
    """Return the fingerprints of the steps before the decay, and of the whole run."""
    settings = job.settings.model_dump(mode="json", exclude={"run"})
    before_decay: dict[str, Any] = {
        "settings": {k: v for k, v in settings.items() if k not in DECAY_SETTINGS},
        "encoder": job.source.identity,
        "texts": [{"name": t.name, "hash": t.hash, "weight": t.weight} for t in job.texts],
        "seed": job.request.seed,
        "versions": _versions(),
    }
    if job.request.leave_out_fold is not None:  # even if no text has a line of that fold
        before_decay["exposure"] = job.exposure.as_facts()["exposure"]
    stable = fingerprint(before_decay)
    decay = {
        "settings": {key: settings[key] for key in DECAY_SETTINGS},
        "weights": [text.decay_weight for text in job.texts],
        "tokens": tokens,
    }
    return stable, fingerprint({"stable": stable, "decay": decay})


def _versions() -> dict[str, int]:
    return {room.VERSION_NAME: room.RESULT_VERSION for room in VERSIONED_ROOMS}


def _build_rules(settings: PretrainSettings, tokenizer: Any, special: Any) -> MaskRules:
    vocabulary = np.arange(len(tokenizer), dtype=np.int64)
    return MaskRules(
        settings.masking,
        settings.replacement,
        tokenizer.mask_token_id,
        vocabulary[~np.isin(vocabulary, special)],
    )


def _describe_text(text: Text, packed: PackedText) -> dict[str, Any]:
    return {
        "name": text.name,
        "lines": len(text.lines),
        "tokens": len(packed.tokens),
        "sha256": text.hash,
        "weight": text.weight,
        "decay_weight": text.decay_weight,
    }


def _build_report(hooks: PretrainHooks) -> Callable[[PretrainProgress], None]:
    def report(at: PretrainProgress) -> None:
        text = (
            f"step {at.step}/{at.steps}, {at.tokens / 1e6:.2f}M tokens, loss {at.loss:.3f}, "
            f"accuracy {100 * at.accuracy:.1f}%, {at.tokens_per_s:.0f} tokens/s, "
            f"learning rate × {at.rate:.2f}, {format_seconds(at.eta_s)} left"
        )
        hooks.update(at.step / at.steps, text)

    return report


def _say_periodically(say: Callable[[str], None], name: str) -> Callable[[float, str], None]:
    said = time.monotonic()

    def update(frac: float, text: str) -> None:
        nonlocal said
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            say(f"{name}: {100 * frac:.0f}%, {text}")

    return update


def _build_table(out: Path, facts: Mapping[str, Any], *, complete: bool) -> Table:
    last = facts["history"][-1] if facts["history"] else {}
    row = {
        "folder": str(out),
        "tokens": facts["tokens"],
        "steps": facts["steps"],
        "done": facts.get("stopped_at", facts["steps"]),
        "heldout_loss": last.get("heldout_loss"),
        "heldout_accuracy": last.get("heldout_accuracy"),
    }
    columns = (
        Column("folder", "folder"),
        Column("tokens", "tokens", "count"),
        Column("steps", "steps", "count"),
        Column("done", "steps done", "count"),
        Column("heldout_loss", "held-out loss", "number"),
        Column("heldout_accuracy", "held-out accuracy", "share"),
    )
    note = "Not finished; run the same command again to continue."
    if complete:
        left_out = read_exposure(out).left_out_fold
        folds = "" if left_out is None else f" --folds {left_out}"
        note = f"Next: python run.py fold --encoder {shlex.quote(str(out))}{folds}"
    return Table("pretrain", "Pretrained encoder", columns, (row,), (note,))
