"""Assign training rows to optimiser steps: shuffling, weighted sampling, curriculum learning.

The plan of an epoch depends only on (seed, fold, epoch), so a resumed run follows the same plan as
an uninterrupted one.

Legend: n training rows of a fold, C labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.arrays import Floats, Int64s
from models.data.batches import plan_epoch
from models.data.curriculum import (
    CurriculumPace,
    measure_competence,
    plan_curriculum_epoch,
    rank_by_difficulty,
    rank_within_labels,
)
from models.settings import CurriculumSettings, SamplingSettings, TrainSettings
from models.variant import Variant

RESULT_VERSION = 1
VERSION_NAME = "models.sampling"

Planner = Callable[[int], list[Int64s]]
"""Epoch, counted from 0 → its optimiser steps: ceil(n / batch_rows) arrays of indices in [0, n)."""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a planner knows about the n training rows of a fold.

    Attributes:
        lengths: (n,) tokens of each row.
        label_ids: (n,) label of each row.
        difficulty: (n,) from ``linear.measure_difficulty``; None if the variant does not need it.
        total_steps: number of optimiser steps of the whole fit.
    """

    lengths: Int64s
    label_ids: Int64s
    difficulty: Floats | None
    total_steps: int


def build_planner(variant: Variant, facts: PlanFacts, *, seed: int, fold: int) -> Planner:
    """Build the planner of a variant.

    Args:
        variant: its ``sampling`` or ``curriculum``, with ``train.batch_rows`` and
            ``train.bucket_steps``; with neither, every epoch is a plain shuffle.
        facts: the rows of the fold.
        seed, fold: of the job; seed all random draws.

    Returns:
        A function from an epoch to its steps.

    Raises:
        ValueError: a curriculum by difficulty, but ``facts.difficulty`` is None.
    """
    train = variant.train

    def shuffle(epoch: int) -> np.random.Generator:
        return np.random.default_rng([seed, fold, epoch])

    def plan_plain(epoch: int) -> list[Int64s]:
        return plan_epoch(facts.lengths, train.batch_rows, train.bucket_steps, shuffle(epoch))

    if variant.sampling is not None:
        weights = weigh_rows(facts.label_ids, variant.sampling)
        return lambda epoch: plan_weighted_epoch(weights, facts.lengths, train, shuffle(epoch))
    if variant.curriculum is None:
        return plan_plain
    pace = CurriculumPace(
        variant.curriculum, facts.total_steps, train.batch_rows, train.bucket_steps
    )
    order = rank_by_difficulty(_choose_difficulty(variant.curriculum, facts), seed=seed, fold=fold)
    steps_per_epoch = -(-len(order) // train.batch_rows)

    def plan_easy_first(epoch: int) -> list[Int64s]:
        if measure_competence(epoch * steps_per_epoch, pace.total_steps, pace.settings) >= 1.0:
            return plan_plain(epoch)
        return plan_curriculum_epoch(order, facts.lengths, pace, epoch, shuffle(epoch))

    return plan_easy_first


def weigh_rows(label_ids: Int64s, settings: SamplingSettings) -> npt.NDArray[np.float64]:
    """Return the sampling probability of each row, (n,) float64, summing to 1.

    >>> by_root = SamplingSettings(label_power=0.5)
    >>> weigh_rows(np.array([0, 0, 0, 0, 1]), by_root).round(3).tolist()
    [0.167, 0.167, 0.167, 0.167, 0.333]

    Source: Kang et al. 2020, arXiv 1910.09217, equation 1, where q is 1 - ``label_power``.
    """
    counts = np.bincount(label_ids).astype(np.float64)
    weights = counts[label_ids] ** -settings.label_power
    normalised: npt.NDArray[np.float64] = weights / weights.sum()
    return normalised


def plan_weighted_epoch(
    weights: npt.NDArray[np.float64],
    lengths: Int64s,
    train: TrainSettings,
    generator: np.random.Generator,
) -> list[Int64s]:
    """Sample n rows with replacement by weight, and split them into steps like a plain epoch.

    Returns:
        Arrays of indices; an index may occur several times, also within a step.
    """
    drawn = generator.choice(len(weights), len(weights), p=weights)
    steps = plan_epoch(lengths[drawn], train.batch_rows, train.bucket_steps, generator)
    return [drawn[step] for step in steps]


def _choose_difficulty(settings: CurriculumSettings, facts: PlanFacts) -> Floats:
    if settings.by == "length":
        return facts.lengths.astype(np.float64)
    if facts.difficulty is None:
        raise ValueError("curriculum.by = difficulty needs PlanFacts.difficulty")
    return rank_within_labels(facts.difficulty, facts.label_ids)
