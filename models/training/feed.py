"""The micro-batches of each step, collated in a thread of its own while a GPU computes.

Between the plan of an epoch and the training loop. What is collated does not depend on when: the
thread draws nothing from the random numbers of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from competition.arrays import Int64s
from models.data.batches import collate
from models.data.fold_inputs import EpochRows, FoldInputs
from models.training.ahead import Ahead
from models.training.ranks import Hand, Ranks, deal
from models.training.step import StepPart


@dataclass(frozen=True, slots=True)
class FedStep:
    """The micro-batches of one step, in this process, and the rows of the step in all."""

    parts: Sequence[StepPart]
    rows: int


@dataclass(frozen=True)
class FeedPlan:
    """What decides the rows of each step.

    Attributes:
        plan_steps: lists the rows of each step of an epoch.
        steps_per_epoch: their number.
        total_steps: of the fit.
        ranks: the processes that share a step.
        table: labels allowed per type pair, (A, C) bool; None allows all.
        packs: batches say where their tokens stand without padding.
    """

    plan_steps: Callable[[int], list[Int64s]]
    steps_per_epoch: int
    total_steps: int
    ranks: Ranks
    table: Tensor | None
    packs: bool


class Feed(Ahead[tuple[int, int], FedStep]):
    """Hands out the micro-batches of steps; those of the next steps are collated ahead."""

    def __init__(self, plan: FeedPlan, inputs: FoldInputs, device: torch.device) -> None:
        super().__init__(self._collate, device)
        self._plan, self._inputs = plan, inputs
        self._pins = device.type == "cuda"
        self._epoch: tuple[int, list[Int64s], EpochRows] | None = None

    def take_step(self, step: int, tokens: int) -> FedStep:
        """Return the micro-batches of a step, of at most ``tokens`` tokens with padding."""
        last = min(step + self.steps, self._plan.total_steps - 1)
        return self.take([(at, tokens) for at in range(step, last + 1)])

    def _collate(self, key: tuple[int, int]) -> FedStep:
        step, tokens = key
        number, at = divmod(step, self._plan.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != number:
            self._epoch = number, self._plan.plan_steps(number), self._inputs.epoch(number)
        _, steps, rows = self._epoch
        hands = deal(steps[at], rows.lengths, tokens, self._plan.ranks)
        parts = build_parts(
            rows, hands, self._inputs.pad_id, self._plan.table, packs=self._plan.packs
        )
        if self._pins:
            parts = [part.pinned() for part in parts]
        return FedStep(parts, len(steps[at]))


def build_parts(
    epoch: EpochRows, hands: Sequence[Hand], pad_id: int, table: Tensor | None, *, packs: bool
) -> list[StepPart]:
    """Collate the micro-batches of one optimiser step."""
    parts = []
    for hand in hands:
        batch = collate(epoch.tokens, epoch.rows[hand.rows], pad_id, packs=packs)
        allowed = None
        if table is not None and epoch.pair_ids is not None:
            allowed = table[torch.from_numpy(epoch.pair_ids[hand.rows])]
        soft = epoch.soft_labels_of(hand.rows)
        soft_labels = None if soft is None else torch.from_numpy(soft)
        label_ids = torch.from_numpy(epoch.label_ids[hand.rows])
        parts.append(StepPart(batch, label_ids, allowed, soft_labels, hand.is_filler))
    return parts
