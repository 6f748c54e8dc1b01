"""Benchmark of the training loop against the transformers Trainer: same encoder, rows, threads.

    python benchmarks/bench_training.py [--competition klue-re] [--rows 2560] [--rounds 3]

Alternates over several rounds between: the Trainer with the settings of the competition's winners
(padded to 256, float32), the Trainer at its best (16-bit mixed precision, batches grouped by
length, fused AdamW), the same with this harness's attention implementation, and this harness. The
last line is the limit set by matrix products alone, from a rate measured in the same run.
In rows per second; compare medians and ratios, not single values.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from competition.folds.kfold import read_prepared
from competition.profile import resolve_competition
from models.data.batches import collate, open_tokenized
from models.jobs.network_job import open_inputs
from models.jobs.plan import plan_jobs
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.network.network import RelationModel, build_model
from models.network.tokenizer import load_tokenizer
from models.training.control import Watch
from models.training.hardware import build_accelerator, choose_precision
from models.training.loop import FitTask, fit_fold

BATCH_ROWS = 32
SIZE = {"layers": 6, "hidden": 256, "heads": 4, "feed_forward": 512, "vocabulary": 16000}


def _ignore(heard: object) -> None:
    del heard


def plan_job(competition: str | None, rows: int, home: Path) -> JobSpec:
    resolved = resolve_competition(competition, None, None, home=None)
    resolved = type(resolved)(resolved.profile, home, resolved.data_dir.resolve(), None, False)
    overrides = [(f"scratch.{key}", value) for key, value in SIZE.items()]
    request = FoldRequest(
        variants=("typed-punct",), folds=(0,), encoder="scratch", overrides=tuple(overrides)
    )
    prepared = read_prepared(resolved)
    spec = plan_jobs(prepared, request, _ignore, threads=1).jobs[0]
    held = spec.rows
    picked = np.sort(np.random.default_rng(0).permutation(len(held.train_rows))[:rows])
    columns = ("train_rows", "train_label_ids", "train_groups", "train_folds")
    chosen = {name: getattr(held, name)[picked] for name in columns}
    fields = {**vars(spec), "rows": replace(held, **chosen)}
    epochs = {
        **spec.variant.model_dump(),
        "train": {**spec.variant.train.model_dump(), "epochs": 1},
    }
    fields["variant"] = type(spec.variant).model_validate(epochs)
    return JobSpec(**fields)


def build(spec: JobSpec, attention: str | None = None) -> RelationModel:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(
        spec.variant,
        spec.network.source,
        labels=len(spec.labels),
        vocabulary=0,  # typed-punct needs no token of its own
        device_type=device,
    )
    if attention:
        model.encoder.set_attn_implementation(attention)
    return model


def time_ours(spec: JobSpec) -> float:
    model = build(spec)
    accelerator = build_accelerator(choose_precision("auto"))
    watch = Watch(report=_ignore, should_stop=lambda: False, log=_ignore)
    inputs = open_inputs(spec, load_tokenizer(spec.network.source))
    report = fit_fold(
        model, spec.variant, inputs, task=FitTask(0, 0), accelerator=accelerator, watch=watch
    )
    return report.rows_per_s


class _TrainerModel(torch.nn.Module):
    """The same network with the interface of the Trainer: takes labels, returns the loss."""

    def __init__(self, model: RelationModel, spec: JobSpec) -> None:
        super().__init__()
        self.model = model
        self.smoothing = spec.variant.train.label_smoothing

    def forward(self, input_ids: Any, attention_mask: Any, positions: Any, labels: Any) -> Any:
        logits = self.model(input_ids, attention_mask, positions)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)
        return {"loss": loss, "logits": logits}


class _Rows(torch.utils.data.Dataset[Any]):
    def __init__(self, spec: JobSpec) -> None:
        self.rows = open_tokenized(spec.network.tokens["train"])
        self.spec = spec

    def __len__(self) -> int:
        return len(self.spec.rows.train_rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = int(self.spec.rows.train_rows[i])
        return {
            "row": row,
            "label": int(self.spec.rows.train_label_ids[i]),
            "input_ids": self.rows.row_tokens(row),
            "length": int(self.rows.lengths[row]),
        }


def time_trainer(spec: JobSpec, *, pad_to: int | None, best: bool, attention: str) -> float:
    from transformers import Trainer, TrainingArguments

    rows = open_tokenized(spec.network.tokens["train"])

    def join(items: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(rows, np.array([item["row"] for item in items]), 0)
        ids, mask = batch.input_ids, batch.attention_mask
        if pad_to:
            wide = (0, pad_to - ids.shape[1])
            ids, mask = F.pad(ids, wide), F.pad(mask, wide)
        labels = torch.tensor([item["label"] for item in items])
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "positions": batch.positions,
            "labels": labels,
        }

    precision = choose_precision("auto") if best else "float32"
    settings = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH_ROWS,
        num_train_epochs=1,
        learning_rate=spec.variant.train.lr,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        optim="adamw_torch_fused" if best else "adamw_torch",
        train_sampling_strategy="group_by_length" if best else "random",
        length_column_name="length",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model=_TrainerModel(build(spec, attention), spec),
        args=settings,
        train_dataset=_Rows(spec),
        data_collator=join,
    )
    begun = time.perf_counter()
    trainer.train()
    return len(spec.rows.train_rows) / (time.perf_counter() - begun)


def products_rows_per_s(spec: JobSpec) -> float:
    """Return the rows per second if a step consisted of its matrix products only."""
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
        choose_precision("auto")
    ]
    hidden, inner = SIZE["hidden"], SIZE["feed_forward"]
    lengths = open_tokenized(spec.network.tokens["train"]).lengths[spec.rows.train_rows]
    tokens = int(BATCH_ROWS * lengths.mean())
    shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, 2 * inner), (inner, hidden)]
    seconds = 0.0
    for wide, out in shapes:
        x, w, g = (torch.randn(s).to(dtype) for s in ((tokens, wide), (wide, out), (tokens, out)))
        for product in (lambda: x @ w, lambda: g @ w.T, lambda: x.T @ g):  # noqa: B023
            product()
            begun = time.perf_counter()
            for _ in range(20):
                product()
            seconds += (time.perf_counter() - begun) / 20
    return BATCH_ROWS / (seconds * SIZE["layers"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--competition")
    parser.add_argument("--rows", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--skip-padded", action="store_true", help="skip the slowest setting")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as home:
        spec = plan_job(options.competition, options.rows, Path(home))
        ours_attention = "eager" if not torch.cuda.is_available() else "sdpa"
        arms = {
            "this harness": lambda: time_ours(spec),
            "Trainer, best": lambda: time_trainer(spec, pad_to=None, best=True, attention="sdpa"),
            f"Trainer, best, {ours_attention}": lambda: time_trainer(
                spec, pad_to=None, best=True, attention=ours_attention
            ),
        }
        if not options.skip_padded:
            arms["Trainer, padded to 256, float32"] = lambda: time_trainer(
                spec, pad_to=256, best=False, attention="sdpa"
            )
        figures: dict[str, list[float]] = {name: [] for name in arms}
        lengths = open_tokenized(spec.network.tokens["train"]).lengths[spec.rows.train_rows]
        print(
            f"{len(lengths)} rows, {lengths.mean():.0f} tokens on average, batch {BATCH_ROWS}, "
            f"{options.threads} threads, {choose_precision('auto')}, {SIZE}"
        )
        for turn in range(options.rounds):
            for name, arm in arms.items():
                figures[name].append(arm())
                print(f"round {turn}: {name}: {figures[name][-1]:.1f} rows/s", flush=True)
        ours = figures["this harness"]
        for name, rates in figures.items():
            ratios = [a / b for a, b in zip(ours, rates, strict=True)]
            print(
                f"{name}: median {statistics.median(rates):.1f} rows/s, "
                f"this harness / it: {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f}–{max(ratios):.2f})"
            )
        print(f"matrix products alone: {products_rows_per_s(spec):.0f} rows/s")


if __name__ == "__main__":
    main()
