"""The training loop: fit a network on the training rows of a fold, then predict other rows.

Mixed precision, gradient accumulation over micro-batches, learning-rate warm-up and decay,
checkpoints. There is no early stopping: held-out rows are predicted after the last step
(``models.training.predictor``). Each step derives its random seed from (seed, fold, step), so an
interrupted fit resumes with the same results. ``models.training.ranks``: processes share a fit.
Legend: n rows, C labels, B rows of a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from competition.arrays import Int64s
from competition.errors import TrainingError
from models.data.fold_inputs import FoldInputs
from models.data.sampling import PlanFacts, build_planner
from models.network.network import RelationModel, parameter_depth
from models.parts.losses import Objective, build_objective
from models.settings import TrainSettings
from models.training.checkpoints import read_facts, read_state, write_state
from models.training.control import Pace, Progress, Watch
from models.training.ema import build_average, take_average
from models.training.feed import Feed, FeedPlan, build_parts
from models.training.memory import TokenBudget
from models.training.optimizer import make_adamw
from models.training.ranks import ALONE, Hand, Ranks, rank_seed
from models.training.sharding import shard
from models.training.step import (
    MemoryFullError,
    Step,
    StepSettings,
    count_passes,
    has_unused,
    take_step,
)
from models.variant import Variant

RESULT_VERSION = 1
VERSION_NAME = "models.training"

DIVERGED = "training diverged: the loss is"
"""How the message of a diverged fit starts; ``tune`` recognises it."""


@dataclass(frozen=True, slots=True)
class FitTask:
    """Identify a fit; all its random numbers derive from ``seed`` and ``fold``.

    Training states (checkpoints to resume from) are written to ``state_path``, unless it is
    ``None``, and are resumed only under the same ``fingerprint``, by any number of ``ranks``, and
    with the same ``layout``: the order of labels, entity types and new tokens, which says what the
    rows of weights belong to.
    """

    seed: int
    fold: int
    fingerprint: str = ""
    state_path: Path | None = None
    ranks: Ranks = ALONE
    layout: str = ""


@dataclass(frozen=True, slots=True)
class FitReport:
    """Summarise what a fit did in this process."""

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
    """Fit a model on the training rows of a fold, resuming from its training state if it has one.

    Args:
        variant: all hyperparameters; only those under ``run`` leave the results unchanged.
        task: the identity of the fit and the path of its training states.
        accelerator: moves the model to its device; mixed precision, loss scaling and clipping.
        watch: receives progress, and may stop the fit after a step, which writes a training state;
            that of the main rank decides for all.

    Raises:
        TrainingError: the loss is not finite, there are no training rows, the ranks read different
            training states, or the fit is being stopped and its training state cannot be written.
    """
    rate = variant.train.lr * variant.start_rate
    settings = variant.train.model_copy(update={"lr": rate})
    n_rows = len(inputs.train_rows)
    if n_rows == 0:
        raise TrainingError(f"{variant.name}: fold {task.fold} has no training rows")
    steps_per_epoch = math.ceil(n_rows / settings.batch_rows)
    total_steps = max(1, round(settings.epochs * steps_per_epoch))
    ranks = task.ranks
    stepping = StepSettings(
        objective=build_objective(variant, inputs.train_label_ids, model.labels),
        clip_norm=settings.clip_norm,
        regularise=variant.regularise,
    )
    prepared, optimizer, weights = _place(
        model,
        variant,
        inputs,
        settings=settings,
        objective=stepping.objective,
        accelerator=accelerator,
    )
    plan = FeedPlan(
        _build_planner(variant, inputs, task, total_steps),
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        ranks=ranks,
        table=_training_table(variant, inputs),
        packs=model.packs,
    )
    budget = TokenBudget(variant.run.micro_tokens // count_passes(variant.regularise))
    step = _resume(task, weights.state, optimizer, accelerator, watch, total_steps)
    pace = Pace(variant.run.state_every_s)
    meter = _Meter(step, total_steps, settings.batch_rows, pace)
    prepared.train()
    with Feed(plan, inputs, accelerator.device) as feed:
        while step < total_steps:
            set_rates(optimizer, settings, step, total_steps)
            loss = None
            while loss is None:  # again in smaller parts if memory is full
                torch.manual_seed(rank_seed(task.seed, task.fold, step, ranks))
                fed = feed.take_step(step, budget.tokens)
                try:
                    loss = take_step(
                        prepared,
                        Step(
                            [part.to(accelerator.device) for part in fed.parts],
                            rows=fed.rows,
                            progress=step / total_steps,
                        ),
                        stepping,
                        optimizer=optimizer,
                        accelerator=accelerator,
                    )
                except MemoryFullError as error:
                    watch.log(budget.halve(fed.parts, error))
            weights.average_in()
            step += 1
            meter.count(loss, fed.rows)
            stopping, due, is_report_due = ranks.share(
                (watch.should_stop(), pace.is_state_due(), pace.is_report_due())
            )
            if is_report_due or stopping or due or step == total_steps:
                progress = meter.read(step, accelerator)
                check_loss(progress.loss, variant, step)
                watch.report(progress)
            if task.state_path and (due or stopping) and step < total_steps:
                with pace.writing():
                    trouble = _keep_state(
                        task, step, weights.state, optimizer, accelerator, is_needed=stopping
                    )
                watch.log(trouble or f"checkpoint written at step {step} of {total_steps}")
            if stopping:
                break
    if step >= total_steps:
        weights.use_average()
    accelerator.free_memory()
    return meter.finish(step)


@dataclass
class _Weights:
    """The weights being trained, their moving average (EMA) if any, and both as one module."""

    bare: nn.Module
    average: AveragedModel | None
    state: nn.Module

    @staticmethod
    def of(bare: nn.Module, decay: float) -> _Weights:
        if not decay:
            return _Weights(bare, None, bare)
        average = build_average(bare, decay)
        return _Weights(bare, average, nn.ModuleDict({"model": bare, "average": average}))

    def average_in(self) -> None:
        if self.average is not None:
            self.average.update_parameters(self.bare)

    def use_average(self) -> None:
        """Replace the weights by their average."""
        if self.average is not None:
            take_average(self.average, self.bare)


def _place(
    model: RelationModel,
    variant: Variant,
    inputs: FoldInputs,
    *,
    settings: TrainSettings,
    objective: Objective,
    accelerator: Any,
) -> tuple[Any, Any, _Weights]:
    """Move a network to its device, or spread it over those of all ranks, with its optimiser."""
    decay = variant.regularise.ema_decay
    if accelerator.num_processes > 1 and variant.run.shard:
        from accelerate.utils import AutocastKwargs

        weights = _Weights.of(model, decay)  # before: a sharded network cannot be copied
        accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
        prepared = accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
        shard(model, accelerator)
        if weights.average is not None:
            shard(weights.average.module, accelerator)
        return prepared, accelerator.prepare(build_optimizer(model, settings)), weights
    if accelerator.num_processes > 1:
        table = _training_table(variant, inputs)
        one = [Hand(np.arange(1))]
        (part,) = build_parts(inputs.plain, one, inputs.pad_id, table, packs=model.packs)
        unused = has_unused(model, part, objective, accelerator)
        accelerator.ddp_handler.find_unused_parameters = unused
    optimizer = build_optimizer(model, settings)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    return prepared, optimizer, _Weights.of(accelerator.unwrap_model(prepared), decay)


class _Meter:
    """Measure the speed of a fit, and the mean loss since the last reading."""

    def __init__(self, first_step: int, total_steps: int, batch_rows: int, pace: Pace) -> None:
        self.first_step, self.total_steps, self.batch_rows = first_step, total_steps, batch_rows
        self.pace = pace
        self.rows, self.steps = 0, 0
        self.sum = torch.zeros(())
        self.loss = math.nan

    def count(self, loss: Tensor, rows: int) -> None:
        self.sum = self.sum.to(loss.device) + loss  # read seldom: reading waits for the device
        self.steps, self.rows = self.steps + 1, self.rows + rows

    def read(self, step: int, accelerator: Any) -> Progress:
        self.loss = float(accelerator.reduce(self.sum, reduction="sum")) / self.steps
        self.sum, self.steps = torch.zeros(()), 0
        self.pace.note_report()
        rate = self.rows / self.pace.seconds
        left_s = (self.total_steps - step) * self.batch_rows / rate
        return Progress(step, self.total_steps, self.loss, rate, left_s)

    def finish(self, step: int) -> FitReport:
        seconds = self.pace.seconds
        return FitReport(
            finished=step >= self.total_steps,
            first_step=self.first_step,
            steps=step,
            loss=self.loss,
            rows_per_s=self.rows / seconds if seconds > 0 else math.nan,
            seconds=seconds,
        )


def _build_planner(
    variant: Variant, inputs: FoldInputs, task: FitTask, total_steps: int
) -> Callable[[int], list[Int64s]]:
    """Build the function that lists the rows of each step of an epoch."""
    facts = PlanFacts(inputs.plain.lengths, inputs.train_label_ids, inputs.difficulty, total_steps)
    return build_planner(variant, facts, seed=task.seed, fold=task.fold)


def _keep_state(
    task: FitTask,
    step: int,
    weights: nn.Module,
    optimizer: Any,
    accelerator: Any,
    *,
    is_needed: bool,
) -> str | None:
    """Write a training state; if that fails, training continues without one.

    Returns:
        A warning if the state could not be written, else None. The main rank writes it; the others
        contribute what they hold.
    """
    assert task.state_path is not None
    facts = {
        "fingerprint": task.fingerprint,
        "layout": task.layout,
        "step": step,
        "scaler": _scaler_state(accelerator),
    }
    try:
        write_state(
            task.state_path,
            weights,
            _bare_optimizer(optimizer),
            facts,
            is_main=task.ranks.is_main,
        )
    except TrainingError as error:
        if is_needed:
            raise
        return f"training continues without a new checkpoint: {error}"
    return None


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Build the optimiser of a network, AdamW with layer-wise learning-rate decay.

    Each layer's learning rate is ``layer_decay`` times that of the layer above; a group's
    ``rate_scale`` is its factor. Weight decay leaves out norms and biases.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    layers = max((parameter_depth(name, 0) for name, _ in named), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        below_top = max(0, layers - parameter_depth(name, layers))
        scale = settings.layer_decay**below_top
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    each = [
        {"params": parameters, "weight_decay": decay, "rate_scale": scale}
        for (scale, decay), parameters in groups.items()
    ]
    return make_adamw(each, settings, model)


def set_rates(optimizer: Any, settings: TrainSettings, step: int, total_steps: int) -> None:
    """Set the learning rate of each group for a step: linear warm-up, then linear decay."""
    frac = rate_frac(step, total_steps, settings.warmup_frac, settings.final_lr_frac)
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * group["rate_scale"] * frac


def rate_frac(step: int, total_steps: int, warmup_frac: float, final_frac: float) -> float:
    """Return the learning rate at a step (counted from 0), as a fraction of its peak.

    >>> [round(rate_frac(step, 10, 0.2, 0.0), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.125]
    """
    warm = round(warmup_frac * total_steps)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total_steps - warm)
    return 1.0 + (final_frac - 1.0) * done


def check_loss(loss: float, variant: Variant, step: int) -> None:
    """Check that the loss is finite.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"{variant.name}: {DIVERGED} {loss} at step {step}. Lower train.lr (now "
            f"{variant.train.lr:g}), or try --set run.precision=float32, which needs more memory "
            "(on a small GPU, add --set run.micro_tokens=4096)"
        )


def _training_table(variant: Variant, inputs: FoldInputs) -> Tensor | None:
    """Return the labels allowed per type pair, (A, C) bool, if training restricts them."""
    if inputs.pairs is None or variant.restrict is None or variant.restrict.when != "train":
        return None
    return torch.from_numpy(inputs.pairs.table)


def _resume(
    task: FitTask,
    model: nn.Module,
    optimizer: Any,
    accelerator: Any,
    watch: Watch,
    total_steps: int,
) -> int:
    """Load the training state of this task if there is one; return the step to resume at."""
    if task.state_path is None:
        return 0
    facts = None
    # states of earlier versions say nothing of their layout
    if (read_facts(task.state_path) or {}).get("layout", task.layout) == task.layout:
        facts = read_state(task.state_path, model, _bare_optimizer(optimizer), task.fingerprint)
    steps = task.ranks.gather(0 if facts is None else int(facts["step"]))
    if len(set(steps)) > 1:
        raise TrainingError(
            f"the processes read different checkpoints from {task.state_path} (of steps "
            f"{', '.join(map(str, steps))}); all machines of a launch need one shared folder"
        )
    if facts is None:
        return 0
    if facts["scaler"] and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(facts["scaler"])
    watch.log(f"resumed at step {facts['step']} of {total_steps}")
    return int(facts["step"])


def _bare_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    bare: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return bare


def _scaler_state(accelerator: Any) -> dict[str, Any] | None:
    return accelerator.scaler.state_dict() if accelerator.scaler is not None else None
