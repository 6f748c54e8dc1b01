"""One job: train a fold of a variant with a seed, predict, and leave one result.

Runs in a process of its own (``models.workers``); what it is told is a ``JobSpec``, what it leaves
is one file of the store and, if wanted, the trained weights. Held-out labels are looked at once,
for the scores, after the last prediction.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from competition.metrics import auprc, decide, micro_f1
from competition.predictions import Result, ResultKey, Store
from competition.provenance import read_commit
from models.batches import Ints, TokenizedRows, open_tokenized
from models.encoder import EncoderSource, build_model, choose_attention, load_tokenizer
from models.hardware import (
    build_accelerator,
    choose_precision,
    describe_machine,
    fix_randomness_of_kernels,
)
from models.states import round_weights, write_weights
from models.training import FitReport, FitTask, FoldInputs, Watch, fit_fold, predict_rows, step_seed
from models.variant import Variant

STATE_FILE, WEIGHTS_FILE, LOG_FILE = "state.safetensors", "model.safetensors", "job.log"
INITIAL_STEP = 2**32 - 1  # seeds the weights drawn before step 0


@dataclass(frozen=True)
class JobSpec:
    """Everything one job needs, small enough to be sent to another process."""

    key: ResultKey
    fingerprint: str
    recipe: str
    variant: Variant
    source: EncoderSource
    labels: tuple[str, ...]
    negative_id: int | None
    data_hash: str
    folds_hash: str
    routes_hash: str | None
    store_dir: Path
    job_dir: Path
    train_tokens: Path
    test_tokens: Path
    train_rows: Ints
    train_label_ids: Ints
    heldout_rows: Ints
    heldout_label_ids: Ints = field(repr=False)
    test_rows: Ints
    new_tokens: tuple[str, ...]
    keep_checkpoint: bool
    threads: int


@dataclass(frozen=True)
class JobOutcome:
    """What a job answers: whether it finished, its scores, and what a person must hear."""

    key: ResultKey
    finished: bool
    micro_f1: float | None = None
    auprc: float | None = None
    rows_per_s: float | None = None
    seconds: float = 0.0
    step: int = 0
    warnings: tuple[str, ...] = ()


def run_job(spec: JobSpec, watch: Watch) -> JobOutcome:
    """Train one fold, predict its held-out and the test rows, and leave the result.

    Raises:
        TrainingError, EncoderError: as the rooms below say.
    """
    torch.set_num_threads(spec.threads)
    fix_randomness_of_kernels()
    precision = choose_precision(spec.variant.run.precision)
    accelerator = build_accelerator(precision)
    tokenizer = load_tokenizer(spec.source, spec.new_tokens)
    torch.manual_seed(step_seed(spec.key.seed, spec.key.fold, INITIAL_STEP))
    model = build_model(
        spec.variant,
        spec.source,
        labels=len(spec.labels),
        vocabulary=len(tokenizer),
        device_type=accelerator.device.type,
    )
    inputs = open_inputs(spec, tokenizer.pad_token_id)
    started = datetime.datetime.now(datetime.UTC)
    fit = fit_fold(
        model,
        spec.variant,
        inputs,
        task=FitTask(spec.key.seed, spec.key.fold, spec.fingerprint, spec.job_dir / STATE_FILE),
        accelerator=accelerator,
        watch=watch,
    )
    if not fit.finished:
        return JobOutcome(spec.key, finished=False, step=fit.steps)
    weights = round_weights(model)
    result, outcome = _predict(spec, model, inputs, accelerator, fit)
    if spec.keep_checkpoint:
        facts = {
            "fingerprint": spec.fingerprint,
            "variant": spec.variant.model_dump(mode="json"),
            "encoder": {"name": spec.source.name, "identity": spec.source.identity},
            "labels": spec.labels,
            "new_tokens": spec.new_tokens,
        }
        write_weights(spec.job_dir / WEIGHTS_FILE, weights, facts)
    run = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": read_commit(),
        "machine": describe_machine(),
        "precision": precision,
        "threads": spec.threads,
        "attention": choose_attention(spec.variant, accelerator.device.type),
        "encoder": spec.source.name,
        "seconds": round(fit.seconds, 3),
        "resumed_at_step": fit.first_step,
        "steps": fit.steps,
        "rows_per_s": round(fit.rows_per_s, 2),
        "train_rows": len(spec.train_rows),
        "rows_cut": {"train": inputs.train.cut, "test": inputs.test.cut},
        "loss": fit.loss,
        "micro_f1": outcome.micro_f1,
        "auprc": outcome.auprc,
        "warnings": list(outcome.warnings),
    }
    Store(spec.store_dir, spec.labels).write(result, run)
    (spec.job_dir / STATE_FILE).unlink(missing_ok=True)
    return outcome


def open_inputs(spec: JobSpec, pad_id: int) -> FoldInputs:
    """Map what training may see of a job's data: everything but the held-out labels."""
    return FoldInputs(
        train=open_tokenized(spec.train_tokens),
        test=open_tokenized(spec.test_tokens),
        train_rows=spec.train_rows,
        train_label_ids=spec.train_label_ids,
        heldout_rows=spec.heldout_rows,
        test_rows=spec.test_rows,
        pad_id=pad_id,
    )


def _predict(
    spec: JobSpec, model: Any, inputs: FoldInputs, accelerator: Any, fit: FitReport
) -> tuple[Result, JobOutcome]:
    """Predict held-out and test rows; only then look at the held-out labels, for the scores."""

    def predict(rows: TokenizedRows, indices: Ints) -> npt.NDArray[np.float32]:
        return predict_rows(
            model,
            rows,
            indices,
            accelerator=accelerator,
            pad_id=inputs.pad_id,
            micro_tokens=spec.variant.run.micro_tokens,
        )

    oof_probs = predict(inputs.train, spec.heldout_rows)
    test_probs = predict(inputs.test, spec.test_rows)
    result = Result(
        key=spec.key,
        fingerprint=spec.fingerprint,
        recipe=spec.recipe,
        variant={"name": spec.variant.name, "why": spec.variant.why, **spec.variant.recipe()},
        labels=spec.labels,
        data_hash=spec.data_hash,
        folds_hash=spec.folds_hash,
        route=spec.variant.route,
        routes_hash=spec.routes_hash,
        oof_ids=inputs.train.ids[spec.heldout_rows].astype(object),
        oof_probs=oof_probs,
        test_ids=inputs.test.ids[spec.test_rows].astype(object),
        test_probs=test_probs,
    )
    gold = spec.heldout_label_ids
    pred = decide(oof_probs, spec.negative_id, None)
    warnings = []
    if len(np.unique(pred)) == 1 and len(np.unique(gold)) > 1:
        warnings.append(
            f"collapsed: every held-out row is predicted {spec.labels[pred[0]]!r}; "
            "try another seed, a lower train.lr or a longer train.warmup_frac"
        )
    return result, JobOutcome(
        key=spec.key,
        finished=True,
        micro_f1=micro_f1(gold, pred, spec.negative_id),
        auprc=auprc(gold, oof_probs),
        rows_per_s=fit.rows_per_s,
        seconds=fit.seconds,
        step=fit.steps,
        warnings=tuple(warnings),
    )
