"""Curriculum learning: train on easy rows first, with a competence function.

Difficulty is the length of a row, or measured by the linear model. No state is kept between
epochs, so an interrupted job resumes with the same plan.

Legend: n training rows of a fold, S steps of an epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.arrays import Floats, Int64s
from models.settings import CurriculumSettings

RESULT_VERSION = 2
VERSION_NAME = "models.curriculum"

TIES = 2**32 - 1
"""Takes the place of the epoch in a random seed; leaving it out would equal epoch 0."""


@dataclass(frozen=True, slots=True)
class CurriculumPace:
    """How fast a curriculum proceeds: ``total_steps`` steps of ``batch_rows`` rows.

    Steps are planned in pools of ``bucket_steps``.
    """

    settings: CurriculumSettings
    total_steps: int
    batch_rows: int
    bucket_steps: int


def measure_competence(step: int, total_steps: int, settings: CurriculumSettings) -> float:
    """Return the competence at a step (from 0): the share of easiest rows available for training.

    >>> by_length = CurriculumSettings(by="length", start_competence=0.1, pace_frac=0.5)
    >>> [round(measure_competence(step, 200, by_length), 3) for step in (0, 1, 25, 50, 99, 100)]
    [0.1, 0.141, 0.507, 0.711, 0.995, 1.0]

    Returns:
        A float in (0, 1].

    Source: Platanios et al. 2019, arXiv 1903.09848, "Competence Functions", the square root:
    c(t) = min(1, sqrt(t (1 - c0²) / T + c0²)); T is ``pace_frac`` of the steps.
    """
    first = settings.start_competence**2
    done = step / max(1.0, settings.pace_frac * total_steps)
    return min(1.0, math.sqrt(done * (1.0 - first) + first))


def rank_by_difficulty(difficulty: Floats, *, seed: int, fold: int) -> Int64s:
    """Order rows from easy to hard; ties are in random order, drawn once per job.

    Args:
        difficulty: (n,) finite numbers, larger is harder.

    Returns:
        (n,) int64 indices, a permutation of ``range(n)``.
    """
    drawn = np.random.default_rng([seed, fold, TIES]).permutation(len(difficulty))
    order: Int64s = drawn[np.argsort(np.asarray(difficulty)[drawn], kind="stable")]
    return order


def rank_within_labels(difficulty: Floats, label_ids: Int64s) -> npt.NDArray[np.float64]:
    """Return the difficulty rank of each row among the rows of its label, (n,) float64 in (0, 1).

    The easiest rows then have the label distribution of all rows, although rare labels are harder.

    >>> rank_within_labels(np.array([0.1, 0.9, 0.2, 0.95]), np.array([0, 1, 0, 1])).tolist()
    [0.25, 0.25, 0.75, 0.75]
    """
    ranks = np.empty(len(difficulty), dtype=np.float64)
    for label in np.unique(label_ids):
        rows = np.flatnonzero(label_ids == label)
        ranks[rows[np.argsort(difficulty[rows], kind="stable")]] = (
            np.arange(len(rows)) + 0.5
        ) / len(rows)
    return ranks


def plan_curriculum_epoch(
    order: Int64s, lengths: Int64s, pace: CurriculumPace, epoch: int, generator: np.random.Generator
) -> list[Int64s]:
    """Split one epoch into optimiser steps, each drawn from the rows available at that step.

    A pool of ``bucket_steps`` steps draws from the rows available at its first step, so that
    sorting the pool by length and shuffling its steps uses no row too early. Rows used least often
    in the epoch are drawn first, so that easy rows do not crowd out hard ones.

    Returns:
        S arrays of indices, as many as in a plain epoch and of the same size, except the last.

    Source: Platanios et al. 2019, arXiv 1903.09848, algorithm 1; changed: pools instead of
    single batches, and a row is repeated only after all available rows were used equally often.
    """
    total = len(order)
    steps_per_epoch = math.ceil(total / pace.batch_rows)
    planned: list[Int64s] = []
    shown = np.zeros(total, dtype=np.int64)
    for first in range(0, steps_per_epoch, pace.bucket_steps):
        competence = measure_competence(
            epoch * steps_per_epoch + first, pace.total_steps, pace.settings
        )
        easiest = order[: max(1, round(competence * total))]
        stop = min(first + pace.bucket_steps, steps_per_epoch)
        size = min(stop * pace.batch_rows, total) - first * pace.batch_rows
        rows = _draw_least_shown(easiest, size, shown, generator)
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        steps = [rows[at : at + pace.batch_rows] for at in range(0, size, pace.batch_rows)]
        planned += [steps[i] for i in generator.permutation(len(steps))]
    return planned


def _draw_least_shown(
    rows: Int64s, size: int, shown: Int64s, generator: np.random.Generator
) -> Int64s:
    """Draw ``size`` rows, least used first, and count their uses in ``shown`` (n,)."""
    drawn: list[Int64s] = []
    for first in range(0, size, len(rows)):
        by_need = rows[np.lexsort((generator.random(len(rows)), shown[rows]))]
        drawn.append(by_need[: size - first])
        shown[drawn[-1]] += 1
    return np.concatenate(drawn)
