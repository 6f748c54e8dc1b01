"""What a blend would look like if the out-of-fold rows were mixed as the test's are.

Beside ``blend`` on the way of a row. Rows are weighed by the share of the negative label that the
profile expects in the test, or by the odds of ``shift``; nothing that is written uses such weights
unless ``blend --reweight`` says so.

Legend: M members, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Ints
from competition.audit.shift import Shift, measure_effective_rows
from competition.blend.objective import Aim
from competition.blend.pooling import PooledRows, Weights, fit_convex
from competition.errors import UsageError
from competition.scoring.assessment import SHARE
from competition.scoring.metrics import weights_for_negative_share

Reweight = Literal["odds", "share"]
PLAIN = "plain"


@dataclass(frozen=True, eq=False)
class Outlook:
    """What the convex fit says under one weighing of the rows.

    Attributes:
        weights: (M,) convex weights.
        threshold: the best one for them; None without a negative label.
        f1: (M,) micro-F1 of each member alone, under its own best threshold.
        effective_rows: how many rows of equal weight would be worth as much.
    """

    weights: Weights
    threshold: float | None
    f1: NDArray[np.float64]
    effective_rows: float

    @property
    def ranks(self) -> NDArray[np.intp]:
        """Return (M,) the rank of each member by micro-F1, 1 the best."""
        return np.argsort(np.argsort(-self.f1, kind="stable"), kind="stable") + 1


def build_row_weights(
    gold: Ints, negative_id: int | None, share: float | None, shift: Shift | None
) -> dict[str, Weights]:
    """Return (N,) float64 weights of mean 1 for each way of weighing rows that can be had.

    Args:
        gold: (N,) label ids.
        negative_id: the negative label, or None.
        share: what of the test the profile expects to be negative, or None.
        shift: the measured shift, or None.

    Raises:
        UsageError: the rows cannot be reweighted to that share.
    """
    weights: dict[str, Weights] = {}
    if share is not None:
        weights[SHARE] = weights_for_negative_share(gold, negative_id, share)
    if shift is not None:
        weights["odds"] = shift.weights()
    return weights


def choose_row_weights(
    row_weights: Mapping[str, Weights], reweight: str | None, obstacle: str | None
) -> Weights | None:
    """Return the (N,) weights to fit with, None where all rows count alike.

    Args:
        row_weights: of ``build_row_weights``.
        reweight: which of them.
        obstacle: why there are no odds, if so.

    Raises:
        UsageError: they cannot be had.
    """
    if reweight is None:
        return None
    if reweight not in get_args(Reweight):
        raise UsageError(f"--reweight {reweight!r}: choose {' or '.join(get_args(Reweight))}")
    if reweight not in row_weights:
        why = obstacle or "the profile has no metrics.shifted_negative_share"
        raise UsageError(f"--reweight {reweight}: {why}")
    return row_weights[reweight]


def look_ahead(rows: PooledRows, row_weights: Mapping[str, Weights]) -> dict[str, Outlook]:
    """Fit the convex pool under each weighing of the rows, all alike first.

    The convex fit has one answer and no seed; so what differs is due to the weighing.
    """
    ways: dict[str, Weights | None] = {PLAIN: None, **row_weights}
    return {name: _look(rows, weights) for name, weights in ways.items()}


def _look(rows: PooledRows, weights: Weights | None) -> Outlook:
    weighed = PooledRows(rows.logs, rows.gold, rows.negative_id, weights)
    aim = Aim(weighed)
    point = aim.measure(fit_convex(weighed))
    singles = np.array([aim.measure(one).f1 for one in np.eye(len(rows.logs))])
    effective = len(rows.gold) if weights is None else measure_effective_rows(weights)
    return Outlook(point.weights, point.threshold, singles, float(effective))
