"""The loop of masked-language-model training: predict hidden tokens, step by step, resumably.

After ``corpora`` and ``masking``; ``pretrain`` saves the trained network as an encoder. Step i sees
the same sequences, masks and dropout however it was reached and however long the run is to be; only
the decay at the end depends on the length. So a run can be stopped anywhere and, from the state
kept where its decay began, be made longer.
Legend: B sequences of a step, T tokens of each, n masked tokens of a micro-batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from models.training.checkpoints import read_state, write_state
from models.training.control import Pace, step_seed

RESULT_VERSION = 1
VERSION_NAME = "models.pretraining"

HELDOUT_SEED = 20_000_000  # masks of held-out text are the same throughout a run
HELDOUT_MASK_RATE = 0.15  # whatever is trained with, so that runs can be compared


@dataclass(frozen=True, slots=True)
class PretrainProgress:
    """Where a run stands; loss and accuracy are of the masked tokens since the last report."""

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
    """What the outside asks of a run: hear of progress, and say when to stop."""

    report: Callable[[PretrainProgress], None]
    should_stop: Callable[[], bool]
    log: Callable[[str], None]


@dataclass(frozen=True)
class PretrainReport:
    """What a run did; ``history`` holds one entry a look at held-out text."""

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
    """Train a masked-language model, from a state of an earlier run where one fits.

    Args:
        model: float32 weights; changed in place.
        settings: how.
        task: on what, and where states go.
        accelerator: places the model, casts, scales and clips.
        watch: hears progress and may stop the run at a step, leaving a state.

    Raises:
        PretrainingError: the loss is not a number, or the settings do not suit the hardware.
        TrainingError: the state of a run that is being stopped cannot be written.
    """
    run = _Run.begin(model, settings, task, accelerator, watch)
    schedule = task.schedule
    first_step, pace = run.step, Pace(settings.run.state_every_s)
    run.model.train()
    while run.step < schedule.steps:
        if run.step == schedule.decay_start > 0 and not is_kept(task, run.step):
            said = f"decay begins at step {run.step}: a longer run can go on from here"
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
            run.look()
        if is_last and schedule.decay_start == schedule.steps:
            run.keep(task.stable_path, "a longer run can go on from here")
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
        run.look()
    seconds = pace.seconds
    accelerator.free_memory()
    return PretrainReport(
        finished=is_done,
        first_step=first_step,
        steps=run.step,
        seconds=seconds,
        tokens_per_s=(run.step - first_step) * run.step_tokens / max(seconds, 1e-9),
        history=tuple(run.history),
    )


@dataclass
class _Run:
    """A run as it goes: the network, its optimisers, and what is carried from step to step.

    ``since_look`` and ``since_report`` hold sums over masked tokens: loss, hits, tokens.
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
        self.since_look, self.since_report = self._zeros(), self._zeros()

    @staticmethod
    def begin(
        model: MaskedModel,
        settings: PretrainSettings,
        task: PretrainTask,
        accelerator: Any,
        watch: PretrainWatch,
    ) -> _Run:
        """Place the network and take up the furthest state that fits."""
        bare_optimizers = build_optimizers(model, settings)
        if len(bare_optimizers) > 1 and accelerator.scaler is not None:
            raise PretrainingError(
                "optimizer=muon does not go with fp16; add --set run.precision=float32"
            )
        prepared, *optimizers = accelerator.prepare(model, *bare_optimizers)
        bare = accelerator.unwrap_model(prepared)
        run = _Run(prepared, bare, optimizers, bare_optimizers, settings, task, accelerator, watch)
        run.resume()
        return run

    @property
    def step_tokens(self) -> int:
        """Return the tokens of a step."""
        return self.settings.batch_sequences * self.settings.sequence_tokens

    def resume(self) -> None:
        """Load the furthest state that fits this run, if there is one."""
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
            self.since_look += self.since_look.new_tensor(facts["sums"])
            self.watch.log(f"resumed at step {self.step}")
            return

    def keep(self, path: Path, said: str, *, is_needed: bool = False) -> None:
        """Write a state and say so; where the disk does not take it, the run goes on without.

        Raises:
            PretrainingError: the loss is not a number; no run may go on from there.
            TrainingError: it was needed, as the run is to stop.
        """
        self._check_loss(float(self.since_look[0] + self.since_report[0]))
        try:
            self.write(path)
        except TrainingError as error:
            if is_needed:
                raise
            said = f"training continues without a new checkpoint: {error}"
        self.watch.log(said)

    def write(self, path: Path) -> None:
        """Write a state; one from before the decay is good for longer runs as well."""
        is_stable = self.step <= self.task.schedule.decay_start
        scaler = self.accelerator.scaler
        facts = {
            "fingerprint": self.task.stable_print if is_stable else self.task.whole_print,
            "step": self.step,
            "history": self.history,
            "sums": self.since_look.tolist(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        write_state(path, self.bare, self.bare_optimizers, facts)

    def take_step(self) -> None:
        """Do one optimiser step over micro-batches; one without a token to hide changes nothing."""
        settings, step = self.settings, self.step
        generator = np.random.default_rng([self.task.seed, MASK_STREAM, step])
        rate = settings.mask_rate
        rate += (settings.final_mask_rate - rate) * self.task.schedule.decayed(step)
        ids, shown, places = build_batch(self.task, self._next_sequences(), rate, generator)
        pieces = list(cut_batch(places, ids.shape, settings.run.micro_tokens))
        for at, (rows, own) in enumerate(pieces):
            is_last = at == len(pieces) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss, hits = self._guess(ids[rows], shown[rows], own)
                self.accelerator.backward(loss / len(places))
            sums = torch.stack([loss.detach(), hits, hits.new_tensor(len(own))])
            self.since_look += sums
            self.since_report += sums
        if pieces:
            self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
        self.step += 1

    def progress(self, steps_per_s: float) -> PretrainProgress:
        """Say where the run stands since the last time it was asked.

        Raises:
            PretrainingError: the loss is not a number.
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
                f"the loss became {loss} by step {self.step}; lower lr (now "
                f"{self.settings.lr:g}), or try --set run.precision=float32, which needs more "
                "memory (on a small GPU, with --set run.micro_tokens=4096)"
            )

    def look(self) -> None:
        """Predict held-out text under masks that are always the same; note it in the history.

        Raises:
            PretrainingError: no token of it can be hidden, or the loss is not a number.
        """
        loss, hits, count = self.since_look.tolist()
        self.since_look.zero_()
        self._check_loss(loss)
        self.model.eval()
        by_text = {
            packed.name: self._look_at(text)
            for text, packed in enumerate(self.task.library.texts)
            if len(self.task.library.numbers_of(text, heldout=True))
        }
        self.model.train()
        total = np.sum(list(by_text.values()), axis=0)
        if not total[2]:
            raise PretrainingError(
                "no token of the held-out text can be hidden: the tokenizer knows none of it"
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
        self.watch.log(describe_look(entry))

    def _look_at(self, text: int) -> npt.NDArray[np.float64]:
        """Return loss, hits and masked tokens of one text's held-out sequences, (3,) float64."""
        sums = np.zeros(3)
        numbers = self.task.library.numbers_of(text, heldout=True)
        size = self.settings.batch_sequences
        for begin in range(0, len(numbers), size):
            generator = np.random.default_rng([HELDOUT_SEED, begin])
            ids, shown, places = build_batch(
                self.task, numbers[begin : begin + size], HELDOUT_MASK_RATE, generator
            )
            for rows, own in cut_batch(places, ids.shape, self.settings.run.micro_tokens):
                with torch.inference_mode():
                    loss, hits = self._guess(ids[rows], shown[rows], own)
                sums += [float(loss), float(hits), len(own)]
        return sums

    def _next_sequences(self) -> Int64s:
        """Return the numbers of this step's sequences, (B,)."""
        size, start = self.settings.batch_sequences, self.task.schedule.decay_start
        if self.step < start:
            return self.orders[0].take(self.step * size, size)
        return self.orders[1].take((self.step - start) * size, size)

    def _guess(self, ids: Int64s, shown: Int64s, places: Int64s) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the number of right guesses of a micro-batch."""
        device = self.accelerator.device
        at = torch.from_numpy(places).to(device)
        gold = torch.from_numpy(ids).to(device).flatten().index_select(0, at)
        logits = self.model(torch.from_numpy(shown).to(device), at).float()
        loss = F.cross_entropy(logits, gold, reduction="sum")
        return loss, (logits.detach().argmax(-1) == gold).sum().to(loss.dtype)

    def _zeros(self) -> Tensor:
        """Return three sums; double precision where the device has it."""
        device = self.accelerator.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        return torch.zeros(3, dtype=wide, device=device)


def describe_look(entry: Mapping[str, Any]) -> str:
    """Write an entry of the history as a line of the log."""
    return (
        f"step {entry['step']}, {entry['tokens']:,} tokens seen: held-out loss "
        f"{entry['heldout_loss']:.4f}, accuracy {100 * entry['heldout_accuracy']:.2f}%; "
        f"trained-on loss {entry['loss']:.4f} since the last look"
    )
