"""Dataclasses of a blend's options, inputs, evaluation and report.

``blend`` fills them in; ``spec``, ``tables`` and ``risk_tables`` read them.

Legend: M members, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.audit.shift import Shift
from competition.blend.diagnostics import MemberWarning
from competition.blend.fit import BlendFit
from competition.blend.pooling import PooledRows, Weights
from competition.blend.public_noise import HalfNoise
from competition.blend.reweighting import EXPECTED, Reweight, ReweightedFit
from competition.blend.search import BEST_SINGLE, BLEND, CONVEX, GREEDY, SYSTEMS, UNIFORM
from competition.folds.kfold import Prepared
from competition.predictions.expected_scores import TestForecast
from competition.predictions.members import LeftOut, Member
from competition.scoring.assessment import Assessment, PairedScores, Side
from competition.scoring.criteria import Criteria
from competition.scoring.expected import Expected
from competition.submission.record import Objective

COMPARED = (BEST_SINGLE, UNIFORM, CONVEX, GREEDY)
"""The ensembles that the blend is compared to."""


@dataclass(frozen=True)
class BlendOptions:
    """How to blend.

    Attributes:
        trials: of each search.
        seed: of the searches, the intervals and the simulated boards.
        objective: what to search for.
        reweight: fit to rows reweighted to resemble the test; None: equal weights.
        is_primary: the objective is the primary metric.
    """

    trials: int
    seed: int
    objective: Objective
    reweight: Reweight | None = None
    is_primary: bool = True

    @property
    def is_plain(self) -> bool:
        """Return whether it searches for the primary metric on equally weighted rows."""
        return self.is_primary and self.reweight is None


@dataclass(frozen=True, eq=False)
class BlendInputs:
    """Inputs of a blend.

    Attributes:
        rows: the members' out-of-fold rows, equally weighted, with folds.
        row_weights: weightings that ``--reweight`` and the warnings about members use, by name.
        forecast: of how the test is mixed; None where that cannot be seen.
        left_out: variants that are not members.
    """

    prepared: Prepared
    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...]
    rows: PooledRows
    shift: Shift | None
    row_weights: Mapping[str, Weights]
    forecast: TestForecast | None

    @property
    def negative_share(self) -> float | None:
        """Return the test's share of the negative label: the profile's, else the forecast's."""
        known = self.prepared.competition.profile.metrics.shifted_negative_share
        if known is not None or self.forecast is None:
            return known
        return self.forecast.mix.negative_share

    @property
    def test_weights(self) -> dict[str, Weights]:
        """Return weights under which the rows are mixed as in the test, where there are any."""
        return {} if self.forecast is None else {EXPECTED: self.forecast.weights}

    @property
    def criteria(self) -> Criteria:
        """Return the metrics."""
        return self.rows.criteria

    @property
    def names(self) -> list[str]:
        """Return the members' names."""
        return [member.name for member in self.members]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of all ensembles and members.

    Attributes:
        fitted: each of ``search.SYSTEMS``, on the rows it was tuned on.
        nested: each of ``search.SYSTEMS``, tuned on the other folds.
        single_fitted: scores of each member by each metric, with decision rule and temperature
            tuned on all rows.
        singles: each member, with both tuned on the other folds.
        expected: on the test, of each of ``nested`` and ``singles``; empty where unknown.
        as_pooled: of the fitted blend at temperature 1, by what its temperature is chosen for; None
            without such a metric.
        compared: the nested blend minus each of ``COMPARED``.
    """

    fitted: Mapping[str, Assessment]
    nested: Mapping[str, Assessment]
    single_fitted: Mapping[str, tuple[float, ...]]
    singles: Mapping[str, Assessment]
    expected: Mapping[str, Expected]
    compared: Mapping[str, PairedScores]
    as_pooled: float | None


@dataclass(frozen=True, eq=False)
class BlendReport:
    """All results of ``blend``.

    Attributes:
        nested_weights: (K, M) float64.
        gold_shares: label shares of the train rows.
        reweighted: convex fits under each row weighting.
        noise: simulated noise of the public leaderboard.
    """

    path: Path
    options: BlendOptions
    inputs: BlendInputs
    fit: BlendFit
    evaluation: Evaluation
    nested_weights: NDArray[np.float64]
    oof_side: Side
    test_side: Side
    gold_shares: tuple[float, ...]
    reweighted: Mapping[str, ReweightedFit]
    noise: tuple[HalfNoise, ...]
    warnings: tuple[MemberWarning, ...]

    @property
    def ensembles(self) -> tuple[str, ...]:
        """Return the ensembles worth showing: of one member, only the blend."""
        return SYSTEMS if len(self.inputs.names) > 1 else (BLEND,)
