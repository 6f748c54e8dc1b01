"""The pretraining loop: train a masked-language model, with checkpoints to resume from.

Mixed precision and gradient accumulation as in ``models.training``; no early stopping. Step i uses
the same sequences, masks and dropout whether or not the run was interrupted, and for any length of
run; only the learning-rate decay at the end depends on the length. So a run can be stopped anywhere
and, from the checkpoint before its decay, be made longer.
Legend: B sequences of a step, T tokens of each, n masked tokens of a micro-batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from competition.arrays import Int64s
from competition.errors import PretrainingError, TrainingError
from models.pretraining.masked_model import MaskedModel, build_optimizers, set_rates
from models.pretraining.request import PretrainSettings
from models.pretraining.task import (
    DROPOUT_STREAM,
    MASK_STREAM,
    PretrainTask,
    build_batch,
    cut_batch,
    find_fitting,
    is_kept,
)
from models.training.ahead import Ahead
from models.training.checkpoints import read_state, write_state
from models.training.control import Pace, step_seed

RESULT_VERSION = 1
VERSION_NAME = "models.pretraining"

HELDOUT_SEED = 20_000_000  # the masks of held-out text never change
HELDOUT_MASK_RATE = 0.15  # independent of the training settings, so that runs can be compared


@dataclass(frozen=True, slots=True)
class PretrainProgress:
    """Progress of a run; loss and accuracy are of the masked tokens since the last report."""

    step: int
    steps: int
    tokens: int
    loss: float
    accuracy: float
    tokens_per_s: float
    rate: float
    eta_s: float


@dataclass(frozen=True)
class PretrainWatch:
    """Callbacks of a run: progress reports, a check whether to stop, log lines."""

    report: Callable[[PretrainProgress], None]
    should_stop: Callable[[], bool]
    log: Callable[[str], None]


@dataclass(frozen=True)
class PretrainReport:
    """Summary of a run; ``history`` holds one entry per evaluation on held-out text."""

    finished: bool
    first_step: int
    steps: int
    seconds: float
    tokens_per_s: float
    history: tuple[dict[str, Any], ...]


def pretrain(
    model: MaskedModel,
    settings: PretrainSettings,
    task: PretrainTask,
    *,
    accelerator: Any,
    watch: PretrainWatch,
) -> PretrainReport:
    """Train a masked-language model, resuming from a checkpoint if one matches.

    Raises:
        PretrainingError: the loss is not finite, or the hardware does not support the settings.
        TrainingError: the run is being stopped and its checkpoint cannot be written.
    """
    run = _Run.begin(model, settings, task, accelerator, watch)
    with run.feed:
        return _train(run)


def _train(run: _Run) -> PretrainReport:
    task, settings, watch = run.task, run.settings, run.watch
    schedule = task.schedule
    first_step, pace = run.step, Pace(settings.run.state_every_s)
    run.model.train()
    while run.step < schedule.steps:
        if run.step == schedule.decay_start > 0 and not is_kept(task, run.step):
            said = f"learning-rate decay starts at step {run.step}: a longer run can resume here"
            run.keep(task.stable_path, said)
        torch.manual_seed(step_seed(task.seed, DROPOUT_STREAM, run.step))
        set_rates(run.optimizers, schedule.rate(run.step))
        run.take_step()
        stopping, due = watch.should_stop(), pace.is_state_due()
        is_last = run.step == schedule.steps
        if pace.is_report_due() or stopping or due or is_last:
            watch.report(run.progress((run.step - first_step) / pace.seconds))
            pace.note_report()
        if run.step % settings.heldout_every_steps == 0:
            run.evaluate()
        if is_last and schedule.decay_start == schedule.steps:
            run.keep(task.stable_path, "a longer run can resume here")
        if is_last:
            break
        if due or stopping:
            said = f"checkpoint written at step {run.step} of {schedule.steps}"
            with pace.writing():
                run.keep(task.state_path, said, is_needed=stopping)
        if stopping:
            break
    is_done = run.step >= schedule.steps
    if is_done and not (run.history and run.history[-1]["step"] == run.step):
        run.evaluate()
    seconds = pace.seconds
    run.accelerator.free_memory()
    return PretrainReport(
        finished=is_done,
        first_step=first_step,
        steps=run.step,
        seconds=seconds,
        tokens_per_s=(run.step - first_step) * run.step_tokens / max(seconds, 1e-9),
        history=tuple(run.history),
    )


class MaskedPart(NamedTuple):
    """A micro-batch of b sequences: masked ids (b, T), and n places in them with their tokens."""

    shown: Tensor
    places: Tensor
    gold: Tensor


@dataclass
class _Run:
    """A run in progress: the network, its optimisers, and the state carried between steps.

    ``since_evaluation`` and ``since_report`` are sums over masked tokens: loss, correct predictions
    and number of tokens.
    """

    model: Any
    bare: nn.Module
    optimizers: Sequence[Any]
    bare_optimizers: Sequence[torch.optim.Optimizer]
    settings: PretrainSettings
    task: PretrainTask
    accelerator: Any
    watch: PretrainWatch
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.orders = self.task.build_orders()
        self.since_evaluation, self.since_report = self._zeros(), self._zeros()
        self.feed: Ahead[int, list[MaskedPart]] = Ahead(self._build_step, self.accelerator.device)

    @staticmethod
    def begin(
        model: MaskedModel,
        settings: PretrainSettings,
        task: PretrainTask,
        accelerator: Any,
        watch: PretrainWatch,
    ) -> _Run:
        """Prepare the network and resume from the latest matching checkpoint."""
        bare_optimizers = build_optimizers(model, settings)
        if len(bare_optimizers) > 1 and accelerator.scaler is not None:
            raise PretrainingError(
                "optimizer=muon does not support fp16; add --set run.precision=float32"
            )
        prepared, *optimizers = accelerator.prepare(model, *bare_optimizers)
        bare = accelerator.unwrap_model(prepared)
        run = _Run(prepared, bare, optimizers, bare_optimizers, settings, task, accelerator, watch)
        run.resume()
        return run

    @property
    def step_tokens(self) -> int:
        """Number of tokens per step."""
        return self.settings.batch_sequences * self.settings.sequence_tokens

    def resume(self) -> None:
        """Load the latest checkpoint that matches this run, if there is one."""
        fitting = [
            (*found, path)
            for path in (self.task.state_path, self.task.stable_path)
            if (found := find_fitting(self.task, path)) is not None
        ]
        for _, wanted, path in sorted(fitting, reverse=True):
            facts = read_state(path, self.bare, self.bare_optimizers, wanted)
            if facts is None:
                continue
            if facts["scaler"] and self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(facts["scaler"])
            self.step, self.history = int(facts["step"]), list(facts["history"])
            self.since_evaluation += self.since_evaluation.new_tensor(facts["sums"])
            self.watch.log(f"resumed at step {self.step}")
            return

    def keep(self, path: Path, said: str, *, is_needed: bool = False) -> None:
        """Write a checkpoint and log it; if that fails, training continues without one.

        Raises:
            PretrainingError: the loss is not finite, so no run may resume there.
            TrainingError: the checkpoint cannot be written although the run is about to stop.
        """
        self._check_loss(float(self.since_evaluation[0] + self.since_report[0]))
        try:
            self.write(path)
        except TrainingError as error:
            if is_needed:
                raise
            said = f"training continues without a new checkpoint: {error}"
        self.watch.log(said)

    def write(self, path: Path) -> None:
        """Write a checkpoint; one from before the decay also serves longer runs."""
        is_stable = self.step <= self.task.schedule.decay_start
        scaler = self.accelerator.scaler
        facts = {
            "fingerprint": self.task.stable_print if is_stable else self.task.whole_print,
            "step": self.step,
            "history": self.history,
            "sums": self.since_evaluation.tolist(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        write_state(path, self.bare, self.bare_optimizers, facts)

    def take_step(self) -> None:
        """Take one optimiser step with gradient accumulation; skip it if no token is masked."""
        last = min(self.step + self.feed.steps, self.task.schedule.steps - 1)
        parts = self.feed.take(range(self.step, last + 1))
        count = sum(len(part.places) for part in parts)
        for at, part in enumerate(parts):
            is_last = at == len(parts) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss, hits = self._predict(part)
                self.accelerator.backward(loss / count)
            own = torch.full_like(hits, len(part.places))
            sums = torch.stack([loss.detach(), hits, own])
            self.since_evaluation += sums
            self.since_report += sums
        if parts:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
        self.step += 1

    def progress(self, steps_per_s: float) -> PretrainProgress:
        """Return progress since the last call.

        Raises:
            PretrainingError: the loss is not finite.
        """
        loss, hits, count = self.since_report.tolist()
        self.since_report.zero_()
        self._check_loss(loss)
        schedule = self.task.schedule
        return PretrainProgress(
            step=self.step,
            steps=schedule.steps,
            tokens=self.step * self.step_tokens,
            loss=loss / max(1.0, count),
            accuracy=hits / max(1.0, count),
            tokens_per_s=steps_per_s * self.step_tokens,
            rate=schedule.rate(self.step - 1),
            eta_s=(schedule.steps - self.step) / steps_per_s,
        )

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise PretrainingError(
                f"training diverged: the loss is {loss} at step {self.step}. Lower lr (now "
                f"{self.settings.lr:g}), or try --set run.precision=float32, which needs more "
                "memory (on a small GPU, add --set run.micro_tokens=4096)"
            )

    def evaluate(self) -> None:
        """Evaluate on held-out text with fixed masks, and append the scores to the history.

        The scores are for information only: they never stop a run or choose a checkpoint.

        Raises:
            PretrainingError: none of its tokens can be masked, or the loss is not finite.
        """
        loss, hits, count = self.since_evaluation.tolist()
        self.since_evaluation.zero_()
        self._check_loss(loss)
        self.model.eval()
        by_text = {
            packed.name: self._evaluate_text(text)
            for text, packed in enumerate(self.task.library.texts)
            if len(self.task.library.numbers_of(text, heldout=True))
        }
        self.model.train()
        total = np.sum(list(by_text.values()), axis=0)
        if not total[2]:
            raise PretrainingError(
                "no token of the held-out text can be masked: the tokenizer knows none of them"
            )
        entry = {
            "step": self.step,
            "tokens": self.step * self.step_tokens,
            "loss": loss / max(1.0, count),
            "accuracy": hits / max(1.0, count),
            "heldout_loss": float(total[0] / total[2]),
            "heldout_accuracy": float(total[1] / total[2]),
            "heldout_by_text": {n: float(s[0] / s[2]) for n, s in by_text.items() if s[2]},
        }
        self.history.append(entry)
        self.watch.log(describe_evaluation(entry))

    def _evaluate_text(self, text: int) -> npt.NDArray[np.float64]:
        """Return loss, correct predictions and masked tokens of held-out sequences, (3,)."""
        sums = np.zeros(3)
        numbers = self.task.library.numbers_of(text, heldout=True)
        size = self.settings.batch_sequences
        for begin in range(0, len(numbers), size):
            generator = np.random.default_rng([HELDOUT_SEED, begin])
            for part in self._build_parts(
                numbers[begin : begin + size], HELDOUT_MASK_RATE, generator
            ):
                with torch.inference_mode():
                    loss, hits = self._predict(part)
                sums += [float(loss), float(hits), len(part.places)]
        return sums

    def _build_step(self, step: int) -> list[MaskedPart]:
        """Build the micro-batches of a step; depends on nothing but its number."""
        settings, start = self.settings, self.task.schedule.decay_start
        generator = np.random.default_rng([self.task.seed, MASK_STREAM, step])
        rate = settings.mask_rate
        rate += (settings.final_mask_rate - rate) * self.task.schedule.decayed(step)
        size = settings.batch_sequences
        if step < start:
            numbers = self.orders[0].take(step * size, size)
        else:
            numbers = self.orders[1].take((step - start) * size, size)
        return self._build_parts(numbers, rate, generator)

    def _build_parts(
        self, numbers: Int64s, rate: float, generator: np.random.Generator
    ) -> list[MaskedPart]:
        """Mask sequences, and split them into micro-batches."""
        ids, shown, places = build_batch(self.task, numbers, rate, generator)
        parts = []
        for rows, own in cut_batch(places, ids.shape, self.settings.run.micro_tokens):
            arrays = shown[rows], own, ids[rows].reshape(-1)[own]
            tensors = [torch.from_numpy(each) for each in arrays]
            if self.accelerator.device.type == "cuda":
                tensors = [each.pin_memory() for each in tensors]
            parts.append(MaskedPart(*tensors))
        return parts

    def _predict(self, part: MaskedPart) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the number of correct predictions of a micro-batch."""
        device = self.accelerator.device
        waits_not = device.type == "cuda"  # from page-locked memory
        shown, places, gold = (each.to(device, non_blocking=waits_not) for each in part)
        logits = self.model(shown, places).float()
        loss = F.cross_entropy(logits, gold, reduction="sum")
        return loss, (logits.detach().argmax(-1) == gold).sum().to(loss.dtype)

    def _zeros(self) -> Tensor:
        """Return three zero sums, in double precision if the device supports it."""
        device = self.accelerator.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        return torch.zeros(3, dtype=wide, device=device)


def describe_evaluation(entry: Mapping[str, Any]) -> str:
    """Format an entry of the history as a log line."""
    return (
        f"step {entry['step']}, {entry['tokens']:,} tokens seen: held-out loss "
        f"{entry['heldout_loss']:.4f}, accuracy {100 * entry['heldout_accuracy']:.2f}%; "
        f"training loss {entry['loss']:.4f} since the last evaluation"
    )
