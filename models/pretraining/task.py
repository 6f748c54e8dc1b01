"""The task of a pretraining run: sequences, masks, schedule, and checkpoint files.

Sequences come from ``corpora``, masks from ``masking``; ``loop`` trains on them.
Legend: B sequences of a step, T tokens of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from competition.arrays import Int64s
from models.pretraining.corpora import Library, Mixture
from models.pretraining.masking import MaskRules, mask_batch
from models.pretraining.request import Schedule
from models.training.checkpoints import read_facts

STABLE_FILE = "stable.safetensors"
ORDER_STREAM, MASK_STREAM, DROPOUT_STREAM, DECAY_STREAM = range(4)


@dataclass(frozen=True)
class PretrainTask:
    """The data, schedule and identity of a run.

    ``stable_weights`` and ``decay_weights`` have one weight per text. ``stable_print`` is the
    fingerprint of all that determines the steps before the decay, ``whole_print`` that of the
    whole run.
    """

    library: Library
    stable_weights: tuple[float, ...]
    decay_weights: tuple[float, ...]
    rules: MaskRules
    special_ids: Int64s
    schedule: Schedule
    seed: int
    folder: Path
    stable_print: str
    whole_print: str

    @property
    def state_path(self) -> Path:
        """The file of the checkpoint to resume from."""
        return self.folder / "state.safetensors"

    @property
    def stable_path(self) -> Path:
        """The file of the checkpoint at the start of the decay."""
        return self.folder / STABLE_FILE

    def build_orders(self) -> tuple[Mixture, Mixture]:
        """Return the orders of sequences, before the decay and in it."""
        texts = range(len(self.library.texts))
        members = [self.library.numbers_of(text, heldout=False) for text in texts]
        stable = Mixture(members, self.stable_weights, seed=[self.seed, ORDER_STREAM])
        return stable, Mixture(members, self.decay_weights, seed=[self.seed, DECAY_STREAM])


def build_batch(
    task: PretrainTask, numbers: Int64s, rate: float, generator: np.random.Generator
) -> tuple[Int64s, Int64s, Int64s]:
    """Read sequences and mask them; return ids (B, T), masked ids (B, T) and masked places."""
    ids, starts = task.library.read(numbers)
    hidden = np.isin(ids, task.special_ids)
    shown, places = mask_batch(
        ids, starts, hidden, rules=task.rules, rate=rate, generator=generator
    )
    return ids, shown, places


def cut_batch(
    places: Int64s, shape: tuple[int, ...], micro_tokens: int
) -> Iterator[tuple[slice, Int64s]]:
    """Split a batch (B, T) into micro-batches of whole sequences; yield rows and masked places.

    >>> list(cut_batch(np.array([1, 3, 5]), (2, 3), micro_tokens=3))
    [(slice(0, 1, None), array([1])), (slice(1, 2, None), array([0, 2]))]
    """
    rows, length = shape
    step = max(1, micro_tokens // length)
    for begin in range(0, rows, step):
        end = min(rows, begin + step)
        own = places[(places >= begin * length) & (places < end * length)] - begin * length
        if len(own):
            yield slice(begin, end), own


def find_fitting(task: PretrainTask, path: Path) -> tuple[int, str] | None:
    """Return the step and the fingerprint of a checkpoint if it matches the task, else None.

    A checkpoint from before the decay matches every run whose decay starts at its step or later.
    """
    facts = read_facts(path)
    if facts is None:
        return None
    step, known = facts.get("step"), facts.get("fingerprint")
    if not isinstance(step, int) or not isinstance(known, str):
        return None
    if known == task.stable_print and step <= task.schedule.decay_start:
        return step, known
    return (step, known) if known == task.whole_print else None


def is_kept(task: PretrainTask, step: int) -> bool:
    """Return whether the checkpoint at the start of the decay exists."""
    facts = read_facts(task.stable_path)
    wanted = {"fingerprint": task.stable_print, "step": step}
    return facts is not None and wanted.items() <= facts.items()
