"""Knowledge distillation: soft labels of unlabelled rows, from an ensemble of other variants.

The teachers are the ensemble's models of the same fold, so that no label of a held-out row reaches
the student. The student trains on its fold's labelled rows and on the test rows, and on the
held-out rows of the fold as well, whose soft labels come from models that never saw their labels.
Held-out and test rows are treated alike, and the out-of-fold score includes the gain.

Legend: k unlabelled rows, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.arrays import Float32s, Float64s, Floats, Int64s, Objects
from competition.errors import PredictionsError
from models.settings import DistilSettings

RESULT_VERSION = 1
VERSION_NAME = "models.distillation"


@dataclass(frozen=True)
class TeacherProbs:
    """What one teacher predicts: ``ids`` (m,) of rows and ``probs`` (m, C), parallel."""

    name: str
    ids: Objects
    probs: Floats


def build_soft_labels(
    teachers: Sequence[TeacherProbs], ids: Objects, settings: DistilSettings
) -> Float32s:
    """Average the teachers' probabilities for some rows (soft voting), and soften the average.

    Args:
        teachers: one for each of ``settings.members``, in that order.

    Returns:
        (k, C) float32 probabilities; rows sum to 1.

    Raises:
        PredictionsError: a teacher has no prediction for one of the rows.
    """
    shares = np.array(settings.shares or [1.0] * len(teachers))
    shares = shares / shares.sum()
    chosen = [_take(teacher, ids) for teacher in teachers]
    average = sum(share * probs for share, probs in zip(shares, chosen, strict=True))
    return soften(np.asarray(average, np.float64), settings.temperature).astype(np.float32)


def soften(probs: Float64s, temperature: float) -> Float64s:
    """Return probabilities at a temperature: their power 1 / temperature, normalised.

    >>> soften(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.667, 0.333]]

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2: a softmax of logits divided by the
    temperature, which for logits log p is this power.
    """
    powered = np.asarray(probs, np.float64) ** (1.0 / temperature)
    softened: Float64s = powered / powered.sum(axis=1, keepdims=True)
    return softened


def _take(teacher: TeacherProbs, ids: Objects) -> Float64s:
    place_of = {row_id: place for place, row_id in enumerate(teacher.ids.tolist())}
    missing = [row_id for row_id in ids.tolist() if row_id not in place_of]
    if missing:
        raise PredictionsError(
            f"{teacher.name} has no prediction for {len(missing):,} of {len(ids):,} rows, such as "
            f"{missing[0]}; distil.members must predict every row (a length specialist does not)"
        )
    places: Int64s = np.array([place_of[row_id] for row_id in ids.tolist()], np.int64)
    return teacher.probs[places].astype(np.float64)
