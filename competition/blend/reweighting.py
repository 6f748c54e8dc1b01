"""Importance weights for a shifted test set, and the blend fitted under them.

What weights, ranks and threshold would be on rows mixed as the test's are is shown beside the
blend. The written submission uses weights only with ``blend --reweight``: of the negative-label
share that the profile expects in the test, or the odds from adversarial validation
(``audit/shift``).

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
from competition.blend.objective import Evaluator
from competition.blend.pooling import PooledRows, Weights, fit_convex
from competition.errors import UsageError
from competition.scoring.decisions import Negatives, Rule
from competition.scoring.label_shift import weights_for_negative_share

Reweight = Literal["odds", "share"]
PLAIN, SHARE, ODDS, EXPECTED = "plain", "share", "odds", "expected"
"""Names of row weightings; ``EXPECTED`` are those behind the expected test score."""


@dataclass(frozen=True, eq=False)
class ReweightedFit:
    """The convex fit under one row weighting.

    Attributes:
        weights: (M,) convex weights.
        rule: their best decision rule.
        primary: (M,) primary score of each member alone, with its own best rule.
        effective_rows: effective sample size: the number of equally weighted rows with the same
            variance.
    """

    weights: Weights
    rule: Rule
    primary: NDArray[np.float64]
    effective_rows: float

    @property
    def ranks(self) -> NDArray[np.intp]:
        """Return (M,) ranks of the members by the primary score; 1 is the best."""
        return np.argsort(np.argsort(-self.primary, kind="stable"), kind="stable") + 1


def build_row_weights(
    gold: Ints, negative_ids: Negatives, share: float | None, shift: Shift | None
) -> dict[str, Weights]:
    """Return (N,) float64 weights of mean 1 for each available row weighting.

    Args:
        share: of the negative label in the test, from the profile, or None.

    Raises:
        UsageError: the rows cannot be reweighted to that share.
    """
    weights: dict[str, Weights] = {}
    if share is not None:
        weights[SHARE] = weights_for_negative_share(gold, negative_ids, share)
    if shift is not None:
        weights["odds"] = shift.weights()
    return weights


def choose_row_weights(
    row_weights: Mapping[str, Weights], reweight: str | None, obstacle: str | None
) -> Weights | None:
    """Return the (N,) weights to fit with, or None for equal weights.

    Raises:
        UsageError: these weights are not available.
    """
    if reweight is None:
        return None
    if reweight not in get_args(Reweight):
        raise UsageError(f"--reweight {reweight!r}: choose {' or '.join(get_args(Reweight))}")
    if reweight not in row_weights:
        why = obstacle or "the profile has no metrics.shifted_negative_share"
        raise UsageError(f"--reweight {reweight}: {why}")
    return row_weights[reweight]


def fit_reweighted(
    rows: PooledRows, row_weights: Mapping[str, Weights]
) -> dict[str, ReweightedFit]:
    """Fit the convex pool under each row weighting, equal weights first.

    The convex fit is unique and has no seed, so differences are due to the weighting alone.
    """
    weightings: dict[str, Weights | None] = {PLAIN: None, **row_weights}
    return {name: _fit_one(rows, weights) for name, weights in weightings.items()}


def _fit_one(rows: PooledRows, weights: Weights | None) -> ReweightedFit:
    weighted = PooledRows(rows.logs, rows.gold, rows.criteria, weights)
    evaluator = Evaluator(weighted)
    point = evaluator.measure(fit_convex(weighted))
    singles = np.array([evaluator.measure(one).primary for one in np.eye(len(rows.logs))])
    effective = len(rows.gold) if weights is None else measure_effective_rows(weights)
    return ReweightedFit(point.weights, point.rule, singles, float(effective))
