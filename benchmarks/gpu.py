"""Check training and prediction on this machine's GPU, then measure how fast they are.

    python benchmarks/gpu.py --quick        # the checks and a short table
    python benchmarks/gpu.py                # under nine minutes on one card

Nothing is downloaded: backbones are random weights of real architectures, tokenizers are trained on
the rows at hand (``data/klue-re`` where it is, else the bundled demo). Every check and every figure
goes to a table and to ``--out``, a JSON file. Without a GPU the same code runs on a CPU, with small
networks: that shows that it works, not how fast a GPU is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.bench_training import time_trainer
from competition.data.corpus import read_corpus
from competition.errors import HarnessError
from competition.folds.kfold import read_prepared
from competition.predictions.store import Store
from competition.profile import resolve_competition
from models.data.batches import collate, open_tokenized
from models.jobs.engines.local import LocalEngine
from models.jobs.engines.processes import process_context
from models.jobs.job import run_job
from models.jobs.network_job import open_inputs
from models.jobs.plan import plan_jobs
from models.jobs.predict import predict_job
from models.jobs.request import FoldRequest
from models.jobs.spec import STATE_FILE, WEIGHTS_FILE, JobSpec
from models.jobs.workers import FoldHooks, run_jobs
from models.network.encoder_source import EncoderSource
from models.network.network import build_model
from models.network.tokenizer import load_tokenizer
from models.parts.losses import build_objective
from models.settings import AdaptSettings
from models.training.compiling import check_compile, compile_encoder
from models.training.control import Watch
from models.training.feed import build_parts
from models.training.hardware import (
    build_accelerator,
    choose_precision,
    describe_device,
    find_device,
)
from models.training.loop import FitTask, build_optimizer, fit_fold
from models.training.memory import estimate_need
from models.training.optimizer import check_optimizer
from models.training.ranks import Hand
from models.training.step import Step, StepSettings, take_step

LABELS_HEAD = "entity-close-last"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 64}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
LARGE |= {"intermediate_size": 4096}
MIDDLE = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8}
MIDDLE |= {"intermediate_size": 2048}
GROUPED = {"num_key_value_heads": 1, "head_dim": 16}
ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1}
KINDS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "roberta": ("Roberta", ROBERTA),
    "roberta-plain": ("Roberta", {**ROBERTA, "attention_probs_dropout_prob": 0.0}),
    "qwen3": ("Qwen3", GROUPED),
    "gemma3": ("Gemma3Text", GROUPED),
}
COMPARED = ("roberta", "qwen3", "gemma3")
"""Kinds that are trained in all modes; ``roberta-plain`` has no dropout in its attention."""
MODES: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "bf16 checkpointing": {"precision": "bf16", "gradient_checkpointing": True},
    "bf16 without padding": {"precision": "bf16", "attention": "varlen"},
    "bf16 compiled": {"precision": "bf16", "compile": True},
    "bf16 adamw-8bit": {"precision": "bf16", "optimizer": "adamw-8bit"},
    "bf16 paged-adamw-8bit": {"precision": "bf16", "optimizer": "paged-adamw-8bit"},
    "bf16 lora": {"precision": "bf16", "adapt": AdaptSettings(rank=4)},
    "bf16 lora nf4": {"precision": "bf16", "adapt": AdaptSettings(rank=4, quantise="nf4")},
}


RUN_SETTINGS = ("precision", "gradient_checkpointing", "attention", "compile")
TRAIN_SETTINGS = ("epochs", "lr", "optimizer")
MISSING = ("run.attention = 'varlen' needs", "train.optimizer = ", "run.compile needs", "adapt.")
"""How the messages begin, after a name, of what this machine has no means for."""


class SkippedError(Exception):
    """A check that this machine has no means for; the text says which."""


@dataclass
class Bench:
    """What all checks share, and what they found."""

    home: Path
    spec: JobSpec
    is_small: bool
    is_quick: bool
    deadline: float
    compiles: bool = False
    found: list[dict[str, Any]] = field(default_factory=list)

    def check(self, name: str, work: Callable[[], str]) -> None:
        """Run a check, keep what it says, and go on with the next one whatever happens."""
        begun = time.perf_counter()
        status, detail = "ok", ""
        if time.monotonic() > self.deadline:
            status, detail = "skipped", "no time left"
        else:
            try:
                detail = work()
            except SkippedError as error:
                status, detail = "skipped", str(error)
            except Exception as error:
                status, detail = "FAILED", f"{type(error).__name__}: {error}"
                traceback.print_exc()
        seconds = time.perf_counter() - begun
        row = {"check": name, "status": status, "detail": detail, "seconds": round(seconds, 2)}
        self.found.append(row)
        print(f"{status:8}{seconds:7.1f} s  {name}: {detail}", flush=True)


def is_gpu() -> bool:
    return torch.cuda.is_available()


def ignore(*heard: object) -> None:
    del heard


def silent(lines: list[str] | None = None, stop_at: int | None = None) -> Watch:
    """Return a watch that keeps the log's lines and may stop at the given question."""
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return stop_at is not None and len(asked) >= stop_at

    said = [] if lines is None else lines
    return Watch(report=ignore, should_stop=should_stop, log=said.append)


def plan_spec(rows: int, home: Path) -> JobSpec:
    """Plan one fold on real rows, some of its training and held-out rows alone."""
    root = Path(__file__).resolve().parent.parent
    name = "klue-re" if (root / "data/klue-re/train.csv").is_file() else "demo"
    resolved = resolve_competition(name, None, 4 * rows if name == "klue-re" else None)
    resolved = replace(resolved, home=home, data_dir=resolved.data_dir.resolve())
    request = FoldRequest(
        variants=("typed-punct",),
        folds=(0,),
        encoder="scratch",
        overrides=(("head", LABELS_HEAD), ("scratch.vocabulary", 4000)),
    )
    planned = plan_jobs(read_prepared(resolved), request, ignore, threads=1).jobs[0]
    held = planned.rows
    few = {
        "train_rows": held.train_rows[:rows],
        "train_label_ids": held.train_label_ids[:rows],
        "train_groups": held.train_groups[:rows],
        "train_folds": held.train_folds[:rows],
        "heldout_rows": held.heldout_rows[:64],
        "test_rows": held.test_rows[:64],
    }
    return replace(
        planned,
        rows=replace(held, **few),
        heldout_label_ids=planned.heldout_label_ids[:64],
        threads=torch.get_num_threads(),
    )


def make_backbone(bench: Bench, kind: str, size: Mapping[str, int], *, weights: bool) -> Any:
    """Lay a random backbone of a kind beside the tokenizer of the rows; return its source."""
    import transformers

    scratch = bench.spec.network.source.path
    folder = bench.home / f"{kind}-{size['hidden_size']}"
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for file in scratch.glob("tokenizer*"):
            shutil.copy(file, folder)
        tokenizer = load_tokenizer(bench.spec.network.source)
        prefix, more = KINDS[kind]
        config = getattr(transformers, f"{prefix}Config")(
            **{**size, **more, "vocab_size": len(tokenizer), "pad_token_id": 0}
        )
        config.save_pretrained(folder)
        if weights:
            torch.manual_seed(0)
            getattr(transformers, f"{prefix}Model")(config).save_pretrained(folder)
    return EncoderSource(folder.name, folder, folder.name, has_weights=weights)


def spec_of(bench: Bench, source: EncoderSource, name: str, **changes: Any) -> JobSpec:
    """Return the planned job with another backbone, and other settings of its variant."""
    variant = bench.spec.variant
    run = {key: changes.pop(key) for key in RUN_SETTINGS if key in changes}
    train = {"epochs": 1.0, "lr": 1e-4}
    train |= {key: changes.pop(key) for key in TRAIN_SETTINGS if key in changes}
    updates: dict[str, Any] = {
        "name": name,
        "run": variant.run.model_copy(update={"state_every_s": 1000.0, **run}),
        "train": variant.train.model_copy(update=train),
        **changes,
    }
    return replace(
        bench.spec,
        key=replace(bench.spec.key, variant=name),
        fingerprint=name,
        variant=variant.model_copy(update=updates),
        network=replace(bench.spec.network, source=source),
        job_dir=bench.home / "jobs" / name,
    )


def check_mode(bench: Bench, kind: str, mode: str) -> str:
    """Train a job to its end, and predict the test rows again from the weights that it kept."""
    changes = dict(MODES[mode])
    if changes["precision"] == "fp16" and not is_gpu():
        raise SkippedError("fp16 needs a GPU")
    if changes.get("compile") and not (is_gpu() or bench.compiles):
        raise SkippedError("compiling takes minutes on a CPU; --compile does it all the same")
    if changes.get("attention") and kind == "roberta":
        kind = "roberta-plain"
    source = make_backbone(bench, kind, SMALL, weights=True)
    spec = spec_of(bench, source, f"{kind}-{mode}".replace(" ", "-"), **changes)
    spec.job_dir.mkdir(parents=True, exist_ok=True)
    if not do_or_skip(lambda: run_job(spec, silent())).finished:
        raise RuntimeError("the job did not finish")
    result = Store(spec.store_dir, spec.labels).read(spec.key)
    for probs in (result.oof_probs, result.test_probs):
        if not np.isfinite(probs).all() or not np.allclose(probs.sum(axis=1), 1, atol=1e-4):
            raise RuntimeError("predictions are no probabilities")
    if not np.ptp(result.oof_probs, axis=0).max() > 0:
        raise RuntimeError("every row is predicted alike")
    rows = read_test_rows(spec)
    again = predict_job(spec, rows, spec.threads)
    worst = float(np.abs(again - result.test_probs).max())
    limit = 1e-5 if changes["precision"] == "float32" else 5e-2  # a few steps of bf16
    if worst > limit:
        raise RuntimeError(f"predictions from kept weights differ by {worst:.2g}")
    size = (spec.job_dir / WEIGHTS_FILE).stat().st_size / 2**20
    return f"kept weights {size:.2f} MiB, predict differs by at most {worst:.1g}"


def do_or_skip(work: Callable[[], Any]) -> Any:
    """Do something, or say in one line what this machine lacks for it."""
    try:
        return work()
    except HarnessError as error:
        if not any(each in str(error) for each in MISSING):
            raise
        raise SkippedError(str(error)) from None


def read_test_rows(spec: JobSpec) -> Any:
    """Return the test rows that a job answers for."""
    root = Path(__file__).resolve().parent.parent
    name = "klue-re" if (root / "data/klue-re/train.csv").is_file() else "demo"
    limit = 4 * len(spec.rows.train_rows) if name == "klue-re" else None
    corpus = read_corpus(resolve_competition(name, None, limit))
    return corpus.test.take(spec.rows.test_rows)


def check_against_cpu(bench: Bench) -> str:
    """Compare the GPU's float32 logits with the CPU's, for the same weights and rows."""
    if not is_gpu():
        raise SkippedError("there is no GPU to compare")
    torch.backends.cuda.matmul.allow_tf32 = False
    worst = 0.0
    for kind in COMPARED:
        source = make_backbone(bench, kind, SMALL, weights=True)
        spec = spec_of(bench, source, "exact")
        tokens = open_tokenized(spec.network.tokens["train"])
        batch = collate(tokens, spec.rows.train_rows[:8], 0)
        found = []
        for device in ("cpu", "cuda"):
            torch.manual_seed(0)
            model = build_model(
                spec.variant, source, labels=5, vocabulary=0, device_type=device
            ).eval()
            there = batch.to(torch.device(device))
            with torch.inference_mode():
                logits = model.to(device)(there.input_ids, there.attention_mask, there.positions)
            found.append(logits.float().cpu())
        worst = max(worst, float((found[0] - found[1]).abs().max()))
    if worst > 1e-3:
        raise RuntimeError(f"logits differ by {worst:.2g}")
    return f"logits of {', '.join(COMPARED)} differ by at most {worst:.1g}"


def check_without_padding(bench: Bench) -> str:
    """Compare logits and gradients with and without padding, for the same weights and rows."""
    worst = 0.0
    precision = "bf16" if is_gpu() else "float32"
    for kind in ("roberta-plain", "qwen3", "gemma3"):
        source = make_backbone(bench, kind, SMALL, weights=True)
        rows = open_tokenized(bench.spec.network.tokens["train"])
        batch = collate(rows, bench.spec.rows.train_rows[:8], 0, packs=True)
        found = []
        for attention in ("varlen", "eager"):
            spec = spec_of(bench, source, "padding", precision=precision, attention=attention)
            accelerator = build_accelerator(precision)
            torch.manual_seed(0)
            made = partial(
                build_model,
                spec.variant,
                source,
                labels=5,
                vocabulary=0,
                device_type=accelerator.device.type,
                precision=precision,
            )
            model = do_or_skip(made).eval().to(accelerator.device)
            with accelerator.autocast():
                logits = model(*batch.to(accelerator.device).inputs)
            logits.float().square().sum().backward()
            grad = model.encoder.get_input_embeddings().weight.grad
            found.append(
                (logits.detach().float().cpu(), grad.float().cpu() / grad.abs().max().cpu())
            )
        for packed, padded in zip(*found, strict=True):
            worst = max(worst, float((packed - padded).abs().max()))
    if worst > (5e-2 if is_gpu() else 1e-4):
        raise RuntimeError(f"logits or gradients differ by {worst:.2g}")
    return f"logits and gradients differ by at most {worst:.1g} in {precision}"


def check_no_waiting(bench: Bench) -> str:
    """Take steps of an encoder while torch forbids waiting for the GPU."""
    if not is_gpu():
        raise SkippedError("there is no GPU to wait for")
    source = make_backbone(bench, "roberta", SMALL, weights=True)
    spec = spec_of(bench, source, "waiting", precision="bf16")
    accelerator = build_accelerator("bf16")
    model = build_model(
        spec.variant, source, labels=len(spec.labels), vocabulary=0, device_type="cuda"
    )
    model, optimizer = accelerator.prepare(model, build_optimizer(model, spec.variant.train))
    inputs = open_inputs(spec, load_tokenizer(source))
    settings = StepSettings(
        build_objective(spec.variant, inputs.train_label_ids, len(spec.labels)),
        clip_norm=1.0,
        regularise=spec.variant.regularise,
    )
    hand = Hand(np.arange(16))
    parts = build_parts(inputs.plain, [hand], inputs.pad_id, None, packs=False)
    pinned = [part.pinned() for part in parts]
    for at in range(3):
        torch.cuda.set_sync_debug_mode("error" if at else "default")  # the first one allocates
        try:
            step = Step([part.to(accelerator.device) for part in pinned], rows=16, progress=0.5)
            take_step(model, step, settings, optimizer=optimizer, accelerator=accelerator)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "steps wait for nothing"


def check_memory(bench: Bench) -> str:
    """Hold the estimate against the measured peak; then let a fit run out of memory."""
    if not is_gpu():
        raise SkippedError("there is no GPU memory to fill")
    source = make_backbone(bench, "roberta", MIDDLE, weights=False)
    spec = spec_of(bench, source, "memory", precision="bf16")
    total = torch.cuda.get_device_properties(0).total_memory
    lines: list[str] = []
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    time_harness(spec, lines)
    peak = torch.cuda.max_memory_allocated()
    model = build_model(spec.variant, source, labels=5, vocabulary=0, device_type="cuda")
    rows = open_tokenized(spec.network.tokens["train"]).lengths[spec.rows.train_rows]
    need = estimate_need(model, model.encoder.config, precision="bf16", longest=int(rows.max()))
    tokens = min(spec.variant.run.micro_tokens, spec.variant.train.batch_rows * int(rows.max()))
    guessed = need.fixed + need.per_token * tokens
    del model
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((need.fixed + peak) / 2 / total)
        time_harness(spec, lines)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    if not any(line.startswith("out of memory: continuing") for line in lines):
        raise RuntimeError(f"the fit did not run out of memory below its peak: {lines}")
    return f"estimated {guessed / 2**30:.2f} GiB, peak {peak / 2**30:.2f} GiB; less: {lines[-1]}"


def work_until_killed(spec: JobSpec) -> None:
    """Do a job in a process of its own; the parent kills it."""
    run_job(spec, silent())


def check_resume(bench: Bench) -> str:
    """Kill a job once it has left a training state; the next one must go on from it."""
    source = make_backbone(bench, "roberta", SMALL, weights=True)
    spec = spec_of(bench, source, "killed", epochs=200.0)
    run = spec.variant.run.model_copy(update={"state_every_s": 0.05})
    spec = replace(spec, variant=spec.variant.model_copy(update={"run": run}))
    spec.job_dir.mkdir(parents=True, exist_ok=True)
    process = process_context().Process(target=work_until_killed, args=(spec,))
    process.start()
    until = time.monotonic() + 120
    while not (spec.job_dir / STATE_FILE).is_file():
        if time.monotonic() > until or process.exitcode is not None:
            process.kill()
            raise RuntimeError(f"no training state appeared (exit code {process.exitcode})")
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    lines: list[str] = []
    outcome = run_job(spec, silent(lines, stop_at=3))
    resumed = [line for line in lines if line.startswith("resumed at step")]
    if not resumed or outcome.finished:
        raise RuntimeError(f"the job did not go on from its state: {lines}")
    return f"killed, then {resumed[0]}"


def check_two_jobs(bench: Bench) -> str:
    """Run two jobs one after the other, then both at once on the same device."""
    source = make_backbone(bench, "roberta", SMALL, weights=True)
    hooks = FoldHooks(ignore, ignore, ignore, ignore, ignore)
    seconds = {}
    for workers in (1, 2):
        specs = [
            spec_of(bench, source, f"job{at}-of-{workers}", epochs=1.0 if bench.is_small else 4.0)
            for at in range(2)
        ]
        begun = time.perf_counter()
        with closing(LocalEngine(workers)) as engine:
            done = run_jobs(specs, engine=engine, deadline=None, hooks=hooks)
        seconds[workers] = time.perf_counter() - begun
        if done.failed or len(done.finished) != 2:
            raise RuntimeError(f"{workers} at a time: {done.failed}")
    gain = seconds[1] / seconds[2]
    return f"{seconds[1]:.1f} s one by one, {seconds[2]:.1f} s together ({gain:.2f} times as fast)"


def measure_rate(precision: str) -> float:
    """Return the device's matrix rate in FLOP/s: square products of random numbers."""
    device = "cuda" if is_gpu() else "cpu"
    side = 8192 if is_gpu() else 512
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    rates = []
    for _ in range(4):
        wait()
        begun = time.perf_counter()
        for _ in range(10):
            left @ right
        wait()
        rates.append(10 * 2 * side**3 / (time.perf_counter() - begun))
    return statistics.median(rates[1:])


def wait() -> None:
    if is_gpu():
        torch.cuda.synchronize()


def count_flops(spec: JobSpec, parameters: int) -> float:
    """Return the FLOP of a row's forward and backward pass, without padding.

    Six per weight of the layers and token (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), and
    the products of queries, keys and values with each other.
    """
    config_path = spec.network.source.path / "config.json"
    config = json.loads(config_path.read_text())
    lengths = open_tokenized(spec.network.tokens["train"]).lengths[spec.rows.train_rows]
    mean, square = float(lengths.mean()), float((lengths.astype(float) ** 2).mean())
    attention = 12 * config["num_hidden_layers"] * config["hidden_size"] * square
    return 6 * parameters * mean + attention


def time_harness(spec: JobSpec, lines: list[str] | None = None) -> float:
    """Train an epoch as ``fold`` does, after two steps to warm up; return rows a second."""
    torch.manual_seed(0)
    precision = choose_precision(spec.variant.run.precision)
    device = find_device()
    check_optimizer(spec.variant.train, device, shards=False)
    check_compile(spec.variant.run, device)
    model = build_model(
        spec.variant,
        spec.network.source,
        labels=len(spec.labels),
        vocabulary=0,
        device_type=device,
        precision=precision,
    )
    if spec.variant.run.compile:
        compile_encoder(model.encoder)
    inputs = open_inputs(spec, load_tokenizer(spec.network.source))
    for epochs in (2 * spec.variant.train.batch_rows / len(inputs.train_rows), 1.0):
        train = spec.variant.train.model_copy(update={"epochs": epochs})
        fit = fit_fold(
            model,
            spec.variant.model_copy(update={"train": train}),
            inputs,
            task=FitTask(0, 0),
            accelerator=build_accelerator(precision),
            watch=silent(lines),
        )
    wait()
    return fit.rows_per_s


def time_plain_loop(spec: JobSpec) -> float:
    """Train an epoch in the loop that a person writes: random batches, padded to their longest.

    Attention is torch's fused kernel, which is FlashAttention where the mask allows it.
    """
    torch.manual_seed(0)
    device = torch.device("cuda" if is_gpu() else "cpu")
    source = spec.network.source
    model = build_model(
        spec.variant, source, labels=len(spec.labels), vocabulary=0, device_type=device.type
    ).to(device)
    model.encoder.set_attn_implementation("sdpa")
    optimizer = build_optimizer(model, spec.variant.train)
    rows = open_tokenized(spec.network.tokens["train"])
    order = np.random.default_rng(0).permutation(len(spec.rows.train_rows))
    size = spec.variant.train.batch_rows
    model.train()
    wait()
    begun = time.perf_counter()
    for start in range(0, len(order), size):
        at = order[start : start + size]
        batch = collate(rows, spec.rows.train_rows[at], 0).to(device)
        gold = torch.from_numpy(spec.rows.train_label_ids[at]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(batch.input_ids, batch.attention_mask, batch.positions)
        F.cross_entropy(logits.float(), gold, label_smoothing=0.1).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    wait()
    return len(order) / (time.perf_counter() - begun)


def measure_speed(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time the arms in turn, each more than once; return the table and what it is measured by."""
    size = SMALL if bench.is_small else LARGE
    source = make_backbone(bench, "roberta", size, weights=False)
    plain = make_backbone(bench, "roberta-plain", size, weights=False)

    def with_(source: EncoderSource = source, **changes: Any) -> Callable[[], float]:
        return lambda: time_harness(spec_of(bench, source, "speed", precision="bf16", **changes))

    spec = spec_of(bench, source, "speed", precision="bf16")
    rate = measure_rate("bf16")
    torch.manual_seed(0)
    model = build_model(spec.variant, source, labels=5, vocabulary=0, device_type="cpu")
    inner = sum(each.numel() for name, each in model.named_parameters() if ".layer." in name)
    del model
    flops = count_flops(spec, inner)
    arms: dict[str, Callable[[], float]] = {
        "this harness": with_(),
        "this harness, compiled": with_(compile=True),
        "the same, attention undropped": with_(plain),
        "the same, without padding": with_(plain, attention="varlen"),
        "this harness, 8-bit AdamW": with_(optimizer="adamw-8bit"),
        "this harness, checkpointing": with_(gradient_checkpointing=True),
        "this harness, LoRA": with_(adapt=AdaptSettings()),
        "plain loop, fused attention": lambda: time_plain_loop(spec),
        "Trainer at its best": lambda: time_trainer(spec, pad_to=None, best=True, attention="sdpa"),
        "Trainer padded to 256": lambda: time_trainer(
            spec, pad_to=256, best=False, attention="sdpa"
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    peaks: dict[str, float] = {}
    lacking: dict[str, str] = {}
    if not (is_gpu() or bench.compiles):
        lacking["this harness, compiled"] = "compiling takes minutes on a CPU"
    for _ in range(1 if bench.is_quick else 2):
        for name, arm in arms.items():
            if time.monotonic() > bench.deadline or name in lacking:
                continue
            if is_gpu():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                rates[name].append(do_or_skip(arm))
            except SkippedError as error:
                lacking[name] = str(error)
                print(f"         {name}: skipped, {error}", flush=True)
                continue
            if is_gpu():
                peaks[name] = torch.cuda.max_memory_allocated() / 2**30
            print(f"         {name}: {rates[name][-1]:.1f} rows/s", flush=True)
    ours = statistics.median(rates["this harness"]) if rates["this harness"] else math.nan
    table = [
        {
            "arm": name,
            "rows_per_s": round(statistics.median(each), 2),
            "matrix_share": round(statistics.median(each) * flops / rate, 4),
            "peak_gib": round(peaks[name], 2) if name in peaks else None,
            "harness_times": round(ours / statistics.median(each), 2),
        }
        for name, each in rates.items()
        if each
    ]
    lengths = open_tokenized(spec.network.tokens["train"]).lengths[spec.rows.train_rows]
    facts = {
        "backbone": f"roberta architecture {dict(size)}, random weights",
        "rows": len(lengths),
        "mean_tokens": round(float(lengths.mean()), 1),
        "batch_rows": spec.variant.train.batch_rows,
        "matrix_rate_tflops": round(rate / 1e12, 2),
        "lacking": lacking,
    }
    return table, facts


def print_speed(table: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    print(f"\n{facts}\n{'arm':32}{'rows/s':>10}{'share of rate':>15}{'peak GiB':>10}{'ours/it':>9}")
    for row in table:
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        print(
            f"{row['arm']:32}{row['rows_per_s']:>10.1f}{row['matrix_share']:>15.1%}{peak:>10}"
            f"{row['harness_times']:>9.2f}"
        )


def describe_run() -> dict[str, Any]:
    import accelerate
    import transformers

    return {
        "device": describe_device(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, fewer rows")
    parser.add_argument("--rows", type=int, help="training rows of each arm")
    parser.add_argument("--minutes", type=float, default=8.5, help="skip what begins later")
    parser.add_argument("--compile", action="store_true", help="on a CPU too, where it is slow")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    rows = options.rows or ((512 if options.quick else 2048) if is_gpu() else 64)
    print(f"{describe_run()}, {rows} rows", flush=True)
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(
            Path(home),
            plan_spec(rows, Path(home)),
            is_small=not is_gpu(),
            is_quick=options.quick,
            deadline=time.monotonic() + 60 * options.minutes,
            compiles=options.compile,
        )
        for kind in COMPARED:
            for mode in MODES:
                if options.quick and kind != "roberta" and "lora" not in mode:
                    continue
                bench.check(f"{kind}, {mode}", lambda k=kind, m=mode: check_mode(bench, k, m))
        bench.check("exact against the CPU", lambda: check_against_cpu(bench))
        bench.check("rows without padding", lambda: check_without_padding(bench))
        bench.check("no waiting inside a step", lambda: check_no_waiting(bench))
        bench.check("memory, estimated and full", lambda: check_memory(bench))
        bench.check("resume after a kill", lambda: check_resume(bench))
        bench.check("two jobs on one device", lambda: check_two_jobs(bench))
        speed: dict[str, Any] = {}

        def measure() -> str:
            speed["table"], speed["facts"] = measure_speed(bench)
            return f"{len(speed['table'])} arms"

        bench.check("speed", measure)
    if speed:
        print_speed(speed["table"], speed["facts"])
    told = {"machine": describe_run(), "checks": bench.found, "speed": speed}
    options.out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {options.out}")
    return int(any(row["status"] == "FAILED" for row in bench.found))


if __name__ == "__main__":
    sys.exit(main())
