"""Run a job of a network: open its inputs, fit, round the weights, predict with them.

Called by ``models.jobs.job`` in a separate process. Token arrays are memory-mapped; difficulty is
measured on the training folds, once per fold. Legend: n training rows, C labels.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from competition.arrays import Float64s, Probs
from competition.files import write_atomically
from competition.lease import hold
from competition.profile_language import read_language
from models.data.batches import TokenizedRows, open_tokenized, stack_rows
from models.data.fold_inputs import Augmenter, FoldInputs, Pairs
from models.data.pool import read_texts
from models.jobs.spec import STATE_FILE, WEIGHTS_FILE, JobSpec, Learned, NetworkSpec, describe_model
from models.network.encoder_source import locate_folder
from models.network.label_words import init_head
from models.network.network import RelationModel, build_model, enable_gradient_checkpointing
from models.network.new_parameters import draw_padding
from models.network.tokenizer import find_padding_ids, load_tokenizer
from models.parts.restriction import build_table, measure_coverage, number_pairs
from models.training import linear
from models.training.checkpoints import read_start, round_weights, write_weights
from models.training.compiling import check_compile, compile_encoder
from models.training.control import Watch, step_seed
from models.training.hardware import (
    build_accelerator,
    choose_precision,
    fix_randomness_of_kernels,
    limit_gpu_memory,
)
from models.training.linear import LinearTask, measure_difficulty
from models.training.loop import FitTask, fit_fold
from models.training.memory import divide_need, estimate_need, measure_free, plan_memory
from models.training.optimizer import MOMENT_BYTES, check_optimizer
from models.training.predictor import Predictor
from models.training.ranks import ALONE, Ranks
from models.training.sharding import check_shardable
from models.variant import Variant, fingerprint

INITIAL_STEP = 2**32 - 1  # seeds the random initialisation, before step 0


def learn_network(spec: JobSpec, watch: Watch, ranks: Ranks = ALONE) -> Learned | int:
    """Fit a network on the training rows of a fold, and predict with its weights as saved.

    Args:
        ranks: the processes that share the job. Only the main one writes; all get the predictions.

    Returns:
        The predictions, or the step at which the fit was stopped.

    Raises:
        TrainingError, EncoderError: as raised by the modules it calls.
        VariantError: the variant cannot be sharded.
    """
    network = spec.network
    assert network is not None
    if spec.variant.run.shard:
        check_shardable(spec.variant.adapt, ranks.size)
    torch.set_num_threads(spec.threads)
    fix_randomness_of_kernels()
    limit_gpu_memory(spec.sharers)
    precision = ranks.share(choose_precision(spec.variant.run.precision))
    accelerator = build_accelerator(precision, ranks)
    check_optimizer(spec.variant.train, accelerator.device.type, shards=spec.variant.run.shard)
    check_compile(spec.variant.run, accelerator.device.type)
    tokenizer = load_tokenizer(network.source, network.new_tokens)
    torch.manual_seed(step_seed(spec.key.seed, spec.key.fold, INITIAL_STEP))
    model = build_model(
        spec.variant,
        network.source,
        labels=len(spec.labels),
        vocabulary=len(tokenizer),
        device_type=accelerator.device.type,
        precision=precision,
    )
    padding = find_padding_ids(network.source, tokenizer, network.new_tokens)
    if padding:
        draw_padding(model.encoder.get_input_embeddings().weight, padding)
    words = (spec.language or read_language()).words_of_all(spec.labels)
    init_head(model, spec.variant, network.source, tokenizer, words)
    if network.start is not None:
        path, wanted = network.start
        base = None if spec.variant.adapt is None else network.source.identity
        read_start(path, model, wanted, base=base)
    inputs = _open_in_turn(spec, tokenizer, ranks)
    task = FitTask(
        spec.key.seed,
        spec.key.fold,
        spec.fingerprint,
        spec.job_dir / STATE_FILE,
        ranks,
        layout=fingerprint(
            {"labels": spec.labels, "types": spec.entity_types, "new_tokens": network.new_tokens}
        ),
    )
    variant = _lay_out(model, spec, inputs, accelerator, ranks, watch)
    if variant.run.compile:
        compile_encoder(model.encoder)
        watch.log("compiling: the first step and the first predictions take a minute or more")
    fit = fit_fold(model, variant, inputs, task=task, accelerator=accelerator, watch=watch)
    if not fit.finished:
        return fit.steps
    weights = round_weights(model, is_main=ranks.is_main)
    predictor = Predictor(model, accelerator, inputs.pad_id, spec.variant.run.micro_tokens, ranks)
    started = time.monotonic()
    oof_probs, test_probs = _predict(predictor, inputs)
    predicted_per_s = (len(oof_probs) + len(test_probs)) / (time.monotonic() - started)
    if spec.keep_checkpoint and ranks.is_main:
        saved = {
            **describe_model(spec),
            "encoder": {"name": network.source.name, "identity": network.source.identity},
            "labels": spec.labels,
            "new_tokens": network.new_tokens,
            "entity_types": spec.entity_types,
            "allowed": None if inputs.pairs is None else inputs.pairs.table.tolist(),
        }
        write_weights(spec.job_dir / WEIGHTS_FILE, weights, saved)
    facts = {
        "precision": precision,
        "attention": model.encoder.config._attn_implementation,
        "encoder": network.source.name,
        **({"encoder_folder": folder} if (folder := locate_folder(variant.encoder)) else {}),
        "resumed_at_step": fit.first_step,
        "steps": fit.steps,
        "rows_cut": {name: part.cut for name, part in open_parts(network).items()},
        "loss": fit.loss,
        **({"processes": ranks.size} if ranks.size > 1 else {}),
    }
    notes: tuple[str, ...] = ()
    if inputs.pairs is not None:
        allowed = _measure_restriction(spec, inputs, inputs.pairs)
        facts["gold_allowed"] = allowed
        notes = (
            f"the type restriction allows {allowed['heldout']:.1%} of the held-out gold labels, "
            f"{allowed['train']:.1%} of the training labels",
        )
    return Learned(
        oof_probs,
        test_probs,
        fit.seconds,
        fit.rows_per_s,
        predicted_per_s,
        fit.steps,
        facts,
        notes=notes,
    )


def _lay_out(
    model: RelationModel,
    spec: JobSpec,
    inputs: FoldInputs,
    accelerator: Any,
    ranks: Ranks,
    watch: Watch,
) -> Variant:
    """Return the variant as it fits the device's memory; only its ``run`` section may differ."""
    variant = spec.variant
    longest = int(inputs.plain.lengths.max(initial=1))
    averages = variant.regularise.ema_decay > 0
    config = model.encoder.config
    precision = {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    need = estimate_need(
        model,
        config,
        precision=precision,
        longest=longest,
        averages=averages,
        moments=MOMENT_BYTES[variant.train.optimizer],
    )
    run = variant.run
    rounds_shards = run.shard and precision != "float32"
    if run.shard:
        need = divide_need(need, model, ranks.size)
    own = measure_free(accelerator.device, spec.sharers)
    free = [each for each in ranks.gather(own) if each is not None]
    plan = plan_memory(
        need,
        free=min(free, default=None),
        micro_tokens=run.micro_tokens,
        longest=longest,
        checkpointing=run.gradient_checkpointing or rounds_shards,
    )
    watch.log(f"memory: about {need.describe(plan.micro_tokens)}")
    if plan.checkpointing and not run.gradient_checkpointing:
        enable_gradient_checkpointing(model.encoder)
        why = "so that no rank keeps all weights rounded" if rounds_shards else "else nothing fits"
        watch.log(f"memory: layers are computed twice (gradient checkpointing), {why}")
    if plan.micro_tokens != run.micro_tokens:
        watch.log(f"memory: micro-batches of at most {plan.micro_tokens} tokens")
    laid_out = run.model_copy(
        update={"micro_tokens": plan.micro_tokens, "gradient_checkpointing": plan.checkpointing}
    )
    return variant.model_copy(update={"run": laid_out})


def _predict(predictor: Predictor, inputs: FoldInputs) -> tuple[Probs, Probs]:
    """Predict held-out and test rows, each restricted to the labels its type pair allows."""
    pairs, oof_allowed, test_allowed = inputs.pairs, None, None
    if pairs is not None:
        oof_allowed = pairs.table[pairs.pool[inputs.heldout_rows]]
        test_allowed = pairs.table[pairs.test[inputs.test_rows]]
    oof = predictor.predict(inputs.pool, inputs.heldout_rows, oof_allowed)
    return oof, predictor.predict(inputs.test, inputs.test_rows, test_allowed)


def _measure_restriction(spec: JobSpec, inputs: FoldInputs, pairs: Pairs) -> dict[str, float]:
    """Return the share of gold labels that the restriction allows; called after predicting."""
    train, heldout = pairs.pool[inputs.train_rows], pairs.pool[inputs.heldout_rows]
    return {
        "train": measure_coverage(pairs.table, train, inputs.train_label_ids),
        "heldout": measure_coverage(pairs.table, heldout, spec.heldout_label_ids),
    }


def _open_in_turn(spec: JobSpec, tokenizer: Any, ranks: Ranks) -> FoldInputs:
    """Open the training inputs, on the main rank first: what it caches, the others read."""
    inputs = open_inputs(spec, tokenizer) if ranks.is_main else None
    ranks.share(None)
    return inputs or open_inputs(spec, tokenizer)


def open_inputs(spec: JobSpec, tokenizer: Any) -> FoldInputs:
    """Open the training inputs of a job: all data except the held-out labels."""
    network = spec.network
    assert network is not None
    parts, rows = open_parts(network), spec.rows
    return FoldInputs(
        pool=stack_rows(list(parts.values())),
        test=parts["test"],
        train_rows=rows.train_rows,
        train_label_ids=rows.train_label_ids,
        heldout_rows=rows.heldout_rows,
        test_rows=rows.test_rows,
        pad_id=tokenizer.pad_token_id,
        difficulty=_read_difficulty(spec),
        pairs=_read_pairs(spec),
        augmenter=_build_augmenter(spec, tokenizer),
        soft_labels=rows.soft_labels,
    )


def open_parts(network: NetworkSpec) -> dict[str, TokenizedRows]:
    """Memory-map the tokens of each split of the pool, in the order of the pool."""
    return {name: open_tokenized(folder) for name, folder in network.tokens.items()}


def _build_augmenter(spec: JobSpec, tokenizer: Any) -> Augmenter | None:
    if spec.variant.augment is None:
        return None
    return Augmenter(
        texts=read_texts(spec.texts, spec.rows.train_rows),
        variant=spec.variant,
        scheme=spec.scheme,
        seed=spec.key.seed,
        fold=spec.key.fold,
        tokenizer=tokenizer,
    )


def _read_pairs(spec: JobSpec) -> Pairs | None:
    restrict, rows = spec.variant.restrict, spec.rows
    if restrict is None:
        return None
    parts = {
        name: number_pairs(read_texts({name: path}), spec.entity_types)
        for name, path in spec.texts.items()
    }
    pool = np.concatenate(list(parts.values()))
    table = build_table(
        pool[rows.train_rows],
        rows.train_label_ids,
        len(spec.entity_types) ** 2,
        len(spec.labels),
        min_count=restrict.min_count,
        negative_ids=spec.negative_ids,
    )
    return Pairs(pool, parts["test"], table)


def _read_difficulty(spec: JobSpec) -> Float64s | None:
    """Return the difficulty of each training row, (n,), measured once per fold and cached."""
    curriculum = spec.variant.curriculum
    if curriculum is None or curriculum.by != "difficulty":
        return None
    rows = spec.rows
    made_from = fingerprint(
        {
            "texts": {name: path.parent.name for name, path in spec.texts.items()},
            "rows": rows.train_rows.tolist(),
            "labels": rows.train_label_ids.tolist(),
            "folds": rows.train_folds.tolist(),
            "linear": spec.variant.linear.model_dump(mode="json"),
            "seed": spec.key.seed,
            "version": linear.RESULT_VERSION,
        }
    )
    path = spec.cache_dir / f"difficulty-{made_from[:16]}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path.with_suffix("")):
        if not path.is_file():
            _write_array(path, _measure(spec))
    values: Float64s = np.load(path, allow_pickle=False)
    return values


def _measure(spec: JobSpec) -> Float64s:
    rows = spec.rows
    return measure_difficulty(
        read_texts(spec.texts, rows.train_rows),
        rows.train_label_ids,
        rows.train_folds,
        LinearTask(spec.variant.linear, len(spec.labels), spec.key.seed),
    )


def _write_array(path: Path, values: Float64s) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
