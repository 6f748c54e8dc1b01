"""Variant × seed × fold: which jobs are still missing, and what one job does.

``plan_jobs`` runs in the parent and settles everything that jobs share (encoder, tokenised rows,
routes); ``run_job`` runs in a process of its own (``models.workers``) and leaves one result.
"""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from competition.errors import PredictionsError, UsageError
from competition.folds import Prepared
from competition.metrics import auprc, decide, micro_f1
from competition.predictions import Result, ResultKey, Store
from competition.rows import Rows
from models import batches, encoder, formats, heads, losses, training
from models.batches import Ints, open_tokenized, read_or_tokenize
from models.encoder import EncoderSource, build_model, load_tokenizer, settle_encoder
from models.formats import FORMATS
from models.hardware import (
    build_accelerator,
    choose_precision,
    describe_machine,
    fix_randomness_of_kernels,
)
from models.routing import Route, read_route
from models.states import round_weights, write_weights
from models.training import FitReport, FoldInputs, Watch, fit_fold, predict_rows
from models.variant import Variant, fingerprint, own_encoder, resolve_variant

VERSIONED_ROOMS = (batches, encoder, formats, heads, losses, training)
STATE_FILE, WEIGHTS_FILE, LOG_FILE = "state.safetensors", "model.safetensors", "job.log"


@dataclass(frozen=True)
class FoldRequest:
    """What a person asks of ``fold``."""

    variants: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    encoder: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    save_as: str | None = None
    overwrite: bool = False
    keep_checkpoints: bool = True
    workers: int = 1
    threads: int | None = None
    stop_after_s: float | None = None


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
class Plan:
    """What ``fold`` found to do: jobs still missing, results already there."""

    variants: tuple[Variant, ...]
    jobs: tuple[JobSpec, ...]
    done: tuple[ResultKey, ...]


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


def plan_jobs(
    prepared: Prepared, request: FoldRequest, say: Callable[[str], None], *, threads: int
) -> Plan:
    """Resolve the variants and find the jobs whose result is still missing.

    Raises:
        PredictionsError: a result of the same name was made from something else.
        UsageError, VariantError, EncoderError: the request cannot be met.
    """
    profile = prepared.competition.profile
    names = request.variants or tuple(profile.defaults.variants)
    if request.save_as and len(names) > 1:
        raise UsageError("--as names one variant; name one variant to train, or leave --as out")
    folds = request.folds or tuple(range(prepared.folds.count))
    beyond = [fold for fold in folds if not 0 <= fold < prepared.folds.count]
    if beyond:
        raise UsageError(f"--folds {beyond[0]}: the folds are 0 to {prepared.folds.count - 1}")
    variants, jobs, done = [], [], []
    for name in names:
        variant = _resolve(name, prepared, request)
        variants.append(variant)
        missing, present = _plan_variant(variant, folds, prepared, request, say, threads)
        jobs += missing
        done += present
    if len({variant.name for variant in variants}) < len(variants):
        raise UsageError("two of the variants named have one name; name each once")
    return Plan(tuple(variants), tuple(jobs), tuple(done))


def build_fold_rows(
    prepared: Prepared, route: Route | None, fold: int
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return train rows, their label ids, held-out rows and test rows of a fold, as row numbers.

    A specialist trains on, and answers for, its route's rows only. No held-out label is returned.
    """
    in_route = route.train if route else np.ones(len(prepared.corpus.train), bool)
    test_in_route = route.test if route else np.ones(len(prepared.corpus.test), bool)
    heldout = prepared.folds.fold_of == fold
    train_rows = np.flatnonzero(in_route & ~heldout)
    label_ids = prepared.corpus.train.gold[train_rows].astype(np.int64)
    return train_rows, label_ids, np.flatnonzero(in_route & heldout), np.flatnonzero(test_in_route)


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
    torch.manual_seed(training.step_seed(spec.key.seed, spec.key.fold, -1 & 0xFFFFFFFF))
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
        accelerator=accelerator,
        seed=spec.key.seed,
        fold=spec.key.fold,
        watch=watch,
        state_path=spec.job_dir / STATE_FILE,
        fingerprint=spec.fingerprint,
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
        "attention": encoder.choose_attention(spec.variant, accelerator.device.type),
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


def read_commit() -> str | None:
    """Return the commit of the checkout that runs, ``-dirty`` when files differ; None outside."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _resolve(name: str, prepared: Prepared, request: FoldRequest) -> Variant:
    defaults = prepared.competition.profile.defaults
    chosen = request.encoder or own_encoder(name) or defaults.encoder
    overrides = list(request.overrides)
    if request.seeds:
        overrides.append(("seeds", list(request.seeds)))
    return resolve_variant(
        name,
        encoder=defaults.encoder,
        encoder_override=request.encoder,
        recommended=encoder.recommended_settings(chosen),
        profile_overrides=defaults.overrides,
        overrides=overrides,
        save_as=request.save_as,
    )


def _plan_variant(
    variant: Variant,
    folds: Sequence[int],
    prepared: Prepared,
    request: FoldRequest,
    say: Callable[[str], None],
    threads: int,
) -> tuple[list[JobSpec], list[ResultKey]]:
    competition, corpus = prepared.competition, prepared.corpus
    profile = competition.profile
    cache_dir = competition.checkpoints_dir / "cache"
    source = settle_encoder(
        variant,
        sentences=corpus.train.text("sentence"),
        cache_dir=cache_dir,
        reserved=profile.entity_types,
    )
    form = FORMATS[variant.format]
    if form.needs_types and not profile.entity_types:
        raise UsageError(
            f"variant {variant.name}: the format {variant.format!r} shows entity types and this "
            "competition has none; use entity-marker or concat"
        )
    new_tokens = form.new_tokens(profile.entity_types)
    tokenizer = load_tokenizer(source, new_tokens)
    route = read_route(variant.route, prepared, tokenizer) if variant.route else None
    parts = recipe_parts(variant, source, prepared, route)
    recipe = fingerprint(parts)
    store = Store(competition.oof_dir, profile.labels)
    keys = [ResultKey(variant.name, seed, fold) for seed in variant.seeds for fold in folds]
    prints = {k: fingerprint({**parts, "seed": k.seed, "fold": k.fold}) for k in keys}
    missing = [k for k in keys if not _is_done(store, k, prints[k], request.overwrite)]
    if not missing:
        return [], keys
    tokens = {
        rows_name: _tokenize(rows_name, rows, variant, source, tokenizer, prepared, say)
        for rows_name, rows in (("train", corpus.train), ("test", corpus.test))
    }
    gold = corpus.train.gold
    specs = []
    for key in missing:
        train_rows, label_ids, heldout, test_rows = build_fold_rows(prepared, route, key.fold)
        specs.append(
            JobSpec(
                key=key,
                fingerprint=prints[key],
                recipe=recipe,
                variant=variant,
                source=source,
                labels=profile.labels,
                negative_id=profile.negative_id,
                data_hash=prepared.corpus.hash,
                folds_hash=prepared.folds.hash,
                routes_hash=route.hash if route else None,
                store_dir=competition.oof_dir,
                job_dir=job_dir(competition.checkpoints_dir, key),
                train_tokens=tokens["train"],
                test_tokens=tokens["test"],
                train_rows=train_rows,
                train_label_ids=label_ids,
                heldout_rows=heldout,
                heldout_label_ids=gold[heldout].astype(np.int64),
                test_rows=test_rows,
                new_tokens=new_tokens,
                keep_checkpoint=request.keep_checkpoints,
                threads=threads,
            )
        )
    return specs, [key for key in keys if key not in set(missing)]


def job_dir(checkpoints_dir: Path, key: ResultKey) -> Path:
    """Return the folder of a job's training state, final weights and log."""
    return checkpoints_dir / key.variant / f"s{key.seed}-f{key.fold}"


def recipe_parts(
    variant: Variant, source: EncoderSource, prepared: Prepared, route: Route | None
) -> dict[str, Any]:
    """Return all that determines a variant's results, seed and fold aside, as JSON-able parts."""
    settings = variant.recipe()
    del settings["encoder"]
    return {
        "variant": settings,
        "encoder": source.identity,
        "data": prepared.corpus.hash,
        "folds": prepared.folds.hash,
        "routes": route.hash if route else None,
        "versions": {room.__name__: room.RESULT_VERSION for room in VERSIONED_ROOMS},
    }


def _is_done(store: Store, key: ResultKey, wanted: str, overwrite: bool) -> bool:
    header = store.read_header(key)
    if header is None:
        return False
    if header.fingerprint == wanted:
        return True
    if overwrite:
        return False
    raise PredictionsError(
        f"{store.path(key)} holds a result of another recipe (the variant, data, folds or encoder "
        f"changed since). Keep it and train under a new name with --as NAME, or replace it with "
        "--overwrite"
    )


def _tokenize(
    rows_name: str,
    rows: Rows,
    variant: Variant,
    source: EncoderSource,
    tokenizer: Any,
    prepared: Prepared,
    say: Callable[[str], None],
) -> Path:
    """Tokenise one split once per (data, format, tokenizer, length); return its folder."""
    made_from: Mapping[str, Any] = {
        "data": prepared.corpus.hash,
        "rows": rows_name,
        "format": variant.format,
        "encoder": source.identity,
        "tokens": len(tokenizer),
        "max_tokens": variant.max_tokens,
        "versions": [batches.RESULT_VERSION, formats.RESULT_VERSION],
    }
    name = f"rows-{rows_name}-{fingerprint(made_from)[:16]}"
    folder = prepared.competition.checkpoints_dir / "cache" / name
    made = read_or_tokenize(folder, rows, FORMATS[variant.format], tokenizer, variant.max_tokens)
    if made.cut:
        say(
            f"{variant.name}: {made.cut} of {len(made)} {rows_name} rows are longer than "
            f"{variant.max_tokens} tokens and were cut to a window around their entities"
        )
    return folder


def _predict(
    spec: JobSpec, model: Any, inputs: FoldInputs, accelerator: Any, fit: FitReport
) -> tuple[Result, JobOutcome]:
    """Predict held-out and test rows; only then look at the held-out labels, for the scores."""

    def predict(rows: batches.TokenizedRows, indices: Ints) -> Any:
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
