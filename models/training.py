"""The one loop: fit a fold on its training rows, then predict rows with the weights as saved.

Reads top to bottom. Every step seeds its own randomness from (seed, fold, step), so a job that was
interrupted anywhere goes on as if it had not been. Held-out rows enter only ``predict_rows``.
Legend: n rows, C labels, B rows of a micro-batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from competition.errors import TrainingError
from models.batches import Ints, TokenizedRows, collate, plan_epoch, split_by_tokens
from models.encoder import RelationModel, parameter_depth
from models.losses import LOSSES
from models.settings import TrainSettings
from models.states import read_state, write_state
from models.variant import Variant

RESULT_VERSION = 1

REPORT_EVERY_S = 1.0
STATE_COST_FRAC = 0.05
"""States are written at most so often that writing takes this share of the time."""


@dataclass(frozen=True)
class FoldInputs:
    """All that training sees of the data: no held-out label is in it.

    ``train_rows`` (n,) are row numbers into ``train``; ``train_label_ids`` (n,) belong to them.
    ``heldout_rows`` and ``test_rows`` are predicted after the last step.
    """

    train: TokenizedRows
    test: TokenizedRows
    train_rows: Ints
    train_label_ids: Ints
    heldout_rows: Ints
    test_rows: Ints
    pad_id: int

    @cached_property
    def train_lengths(self) -> Ints:
        """Tokens of each training row, (n,)."""
        return self.train.lengths_of(self.train_rows)


@dataclass(frozen=True, slots=True)
class FitTask:
    """Which fit this is: ``seed`` and ``fold`` own its randomness.

    Training states go to ``state_path`` (``None`` keeps none) and are taken up again only under
    the same ``fingerprint``.
    """

    seed: int
    fold: int
    fingerprint: str = ""
    state_path: Path | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a fit stands."""

    step: int
    steps: int
    loss: float
    rows_per_s: float
    eta_s: float


@dataclass(frozen=True)
class Watch:
    """What the outside asks of a fit: hear of progress, and say when to stop."""

    report: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    log: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit did in this process."""

    finished: bool
    first_step: int
    steps: int
    loss: float
    rows_per_s: float
    seconds: float


def fit_fold(
    model: RelationModel,
    variant: Variant,
    inputs: FoldInputs,
    *,
    task: FitTask,
    accelerator: Any,
    watch: Watch,
) -> FitReport:
    """Fit a model on a fold's training rows, from its training state if there is one.

    Args:
        model: float32 weights; changed in place.
        variant: what to do; its ``train`` settings change results, its ``run`` settings do not.
        inputs: the fold's rows.
        task: which fit this is, and where its training states go.
        accelerator: places the model, casts, scales and clips.
        watch: hears progress and may stop the fit at a step, leaving a training state.

    Raises:
        TrainingError: the loss is not a number, or there is nothing to train on.
    """
    settings = variant.train
    n_rows = len(inputs.train_rows)
    if n_rows == 0:
        raise TrainingError(f"{variant.name}: fold {task.fold} has no training rows")
    steps_per_epoch = math.ceil(n_rows / settings.batch_rows)
    total_steps = max(1, round(settings.epochs * steps_per_epoch))
    optimizer = build_optimizer(model, settings)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    bare: nn.Module = accelerator.unwrap_model(prepared)
    step = _resume(task, bare, optimizer, accelerator, watch)
    first_step, started = step, time.monotonic()
    state_saved, state_cost = started, 0.0
    reported, rows_done, running_loss, running_steps = started, 0, torch.zeros(()), 0
    loss_value, plan_of, plan = math.nan, -1, []
    prepared.train()
    while step < total_steps:
        epoch, at = divmod(step, steps_per_epoch)
        if epoch != plan_of:
            shuffle = np.random.default_rng([task.seed, task.fold, epoch])
            plan = plan_epoch(
                inputs.train_lengths, settings.batch_rows, settings.bucket_steps, shuffle
            )
            plan_of = epoch
        torch.manual_seed(step_seed(task.seed, task.fold, step))
        set_rates(optimizer, settings, step, total_steps)
        loss = _take_step(prepared, variant, inputs, plan[at], optimizer, accelerator)
        step, rows_done = step + 1, rows_done + len(plan[at])
        running_loss, running_steps = running_loss.to(loss.device) + loss, running_steps + 1
        now = time.monotonic()
        stopping = watch.should_stop()
        due = now - state_saved > max(variant.run.state_every_s, state_cost / STATE_COST_FRAC)
        if now - reported > REPORT_EVERY_S or stopping or due or step == total_steps:
            loss_value = float(running_loss) / running_steps
            check_loss(loss_value, variant, step)
            rate = rows_done / (now - started)
            left = (total_steps - step) * settings.batch_rows
            watch.report(Progress(step, total_steps, loss_value, rate, left / rate))
            reported, running_loss, running_steps = now, torch.zeros(()), 0
        if task.state_path and (due or stopping) and step < total_steps:
            facts = {
                "fingerprint": task.fingerprint,
                "step": step,
                "scaler": _scaler_state(accelerator),
            }
            write_state(task.state_path, bare, _bare_optimizer(optimizer), facts)
            watch.log(f"state written at step {step} of {total_steps}")
            state_saved = time.monotonic()
            state_cost = state_saved - now
        if stopping and step < total_steps:
            break
    seconds = time.monotonic() - started
    accelerator.free_memory()
    return FitReport(
        finished=step >= total_steps,
        first_step=first_step,
        steps=step,
        loss=loss_value,
        rows_per_s=rows_done / seconds if seconds > 0 else math.nan,
        seconds=seconds,
    )


def predict_rows(
    model: RelationModel,
    rows: TokenizedRows,
    indices: Ints,
    *,
    accelerator: Any,
    pad_id: int,
    micro_tokens: int,
) -> npt.NDArray[np.float32]:
    """Predict rows, in the order of ``indices``.

    Returns:
        (n, C) float32 probabilities; rows sum to 1.
    """
    model.eval()
    probs: list[npt.NDArray[np.float32]] = []
    order: list[Ints] = []
    with torch.inference_mode():
        for part in split_by_tokens(
            np.arange(len(indices)), rows.lengths_of(indices), micro_tokens
        ):
            batch = collate(rows, indices[part], pad_id).to(accelerator.device)
            with accelerator.autocast():
                logits = model(batch.input_ids, batch.attention_mask, batch.positions)
            probs.append(torch.softmax(logits.double(), dim=-1).float().cpu().numpy())
            order.append(part)
    out = np.empty((len(indices), model.labels), np.float32)
    if order:
        out[np.concatenate(order)] = np.concatenate(probs)
    return out


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Build AdamW with one group per (depth, decayed or not); ``rate_scale`` holds the layer's.

    Norms and biases are not decayed. A layer's rate is ``layer_decay`` times that of the one above.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    layers = max((parameter_depth(name, 0) for name, _ in named), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        below_top = max(0, layers - parameter_depth(name, layers))
        scale = settings.layer_decay**below_top
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "rate_scale": scale}
            for (scale, decay), parameters in groups.items()
        ],
        lr=settings.lr,
        betas=(0.9, settings.adam_beta2),
        fused=named[0][1].device.type in {"cpu", "cuda"},
    )


def set_rates(optimizer: Any, settings: TrainSettings, step: int, total_steps: int) -> None:
    """Set each group's rate for a step: linear warm-up, then linear decay."""
    frac = rate_frac(step, total_steps, settings.warmup_frac, settings.final_lr_frac)
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * group["rate_scale"] * frac


def rate_frac(step: int, total_steps: int, warmup_frac: float, final_frac: float) -> float:
    """Return the share of the peak rate at a step counted from 0.

    >>> [round(rate_frac(step, 10, 0.2, 0.0), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.125]
    """
    warm = round(warmup_frac * total_steps)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total_steps - warm)
    return 1.0 + (final_frac - 1.0) * done


def step_seed(seed: int, fold: int, step: int) -> int:
    """Return the seed of one step's dropout, independent of how the step was reached."""
    return int(np.random.SeedSequence([seed, fold, step]).generate_state(1, np.uint64)[0] >> 1)


def check_loss(loss: float, variant: Variant, step: int) -> None:
    """Stop a fit whose loss is not a number.

    Raises:
        TrainingError: it is not.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"{variant.name}: the loss became {loss} by step {step}; lower train.lr "
            f"(now {variant.train.lr:g}), or try --set run.precision=float32"
        )


def _take_step(
    model: Any,
    variant: Variant,
    inputs: FoldInputs,
    rows: Ints,
    optimizer: Any,
    accelerator: Any,
) -> Tensor:
    """Do one optimiser step over micro-batches; return its mean loss, detached."""
    parts = list(split_by_tokens(rows, inputs.train_lengths, variant.run.micro_tokens))
    total = torch.zeros((), device=accelerator.device)
    for part, is_last in zip(parts, _last_flags(parts), strict=True):
        batch = collate(inputs.train, inputs.train_rows[part], inputs.pad_id)
        batch = batch.to(accelerator.device)
        label_ids = torch.from_numpy(inputs.train_label_ids[part]).to(accelerator.device)
        with nullcontext() if is_last else accelerator.no_sync(model):
            logits = model(batch.input_ids, batch.attention_mask, batch.positions)
            summed = LOSSES[variant.loss](logits, label_ids, variant.train.label_smoothing)
            loss = summed / len(rows)
            accelerator.backward(loss)
        total += loss.detach()
    accelerator.clip_grad_norm_(model.parameters(), variant.train.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    return total


def _last_flags(parts: Sequence[Ints]) -> Iterator[bool]:
    return (place == len(parts) - 1 for place in range(len(parts)))


def _resume(task: FitTask, model: nn.Module, optimizer: Any, accelerator: Any, watch: Watch) -> int:
    """Load the training state if there is one for this task; return the step to go on with."""
    if task.state_path is None:
        return 0
    facts = read_state(task.state_path, model, _bare_optimizer(optimizer), task.fingerprint)
    if facts is None:
        return 0
    if facts["scaler"] and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(facts["scaler"])
    watch.log(f"resumed at step {facts['step']}")
    return int(facts["step"])


def _bare_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    bare: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return bare


def _scaler_state(accelerator: Any) -> dict[str, Any] | None:
    return accelerator.scaler.state_dict() if accelerator.scaler is not None else None
