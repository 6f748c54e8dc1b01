"""Scores of each label: precision, recall, F1 and the area under its curve.

Legend: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from competition.arrays import Ints
from competition.console import Column
from competition.scoring.criteria import Criteria
from competition.scoring.metrics.metric import Predicted


@dataclass(frozen=True, slots=True)
class LabelScore:
    """The scores of one label; shares are None for 0/0.

    ``area``: under its curve, where a metric of the competition is the mean of these.
    """

    label: str
    gold: int
    predicted: int
    hits: int
    area: float | None

    @property
    def precision(self) -> float | None:
        """Return the share of the rows predicted as it that have it."""
        return self.hits / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Return the share of its rows that are predicted as it."""
        return self.hits / self.gold if self.gold else None

    @property
    def f1(self) -> float | None:
        """Return the harmonic mean of both, None for a label that no row has or gets."""
        total = self.gold + self.predicted
        return 2 * self.hits / total if total else None


def score_labels(
    labels: Sequence[str],
    criteria: Criteria,
    gold: Ints,
    predicted: Predicted,
    *,
    has_probs: bool = True,
) -> list[LabelScore]:
    """Score every label, in label order.

    Args:
        predicted: (N, C) probabilities, used for areas if ``has_probs``, and (N,) label ids.
    """
    probs, pred = predicted
    of_gold, of_pred, hits = (
        np.bincount(each, minlength=len(labels)) for each in (gold, pred, gold[gold == pred])
    )
    areas = np.full(len(labels), np.nan)
    if criteria.curved is not None and has_probs:
        areas = criteria.curved.measure_areas(gold, probs)
    return [
        LabelScore(label, int(a), int(b), int(c), None if np.isnan(area) else float(area))
        for label, a, b, c, area in zip(labels, of_gold, of_pred, hits, areas, strict=True)
    ]


def lay_out_labels(
    scores: Sequence[LabelScore], criteria: Criteria
) -> tuple[list[Column], list[dict[str, Any]]]:
    """Return the columns and rows of a table of label scores."""
    columns = [
        Column("label", "label"),
        Column("gold", "rows", "count"),
        Column("predicted", "predicted", "count"),
        Column("precision", "precision", "score"),
        Column("recall", "recall", "score"),
        Column("f1", "F1", "score"),
    ]
    rows = [{column.key: getattr(each, column.key) for column in columns} for each in scores]
    if criteria.curved is not None:
        kind = criteria.curved.kind
        columns.append(kind.column(kind.key, kind.head))
        for row, each in zip(rows, scores, strict=True):
            row[kind.key] = each.area
    return columns, rows
