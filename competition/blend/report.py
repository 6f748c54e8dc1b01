"""What a blend is asked for, made of and worth: the parts of its report, and nothing that computes.

``blend_report`` fills them in; ``blend_spec``, ``blend_tables`` and ``trust_tables`` read them.

Legend: M members, K folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.audit.shift import Shift
from competition.blend.diagnostics import Alarm
from competition.blend.fit import BlendFit
from competition.blend.pooling import PooledRows, Weights
from competition.blend.public_noise import HalfNoise
from competition.blend.reweighting import Outlook, Reweight
from competition.blend.search import BEST_SINGLE, CONVEX, GREEDY, UNIFORM
from competition.folds.kfold import Prepared
from competition.predictions.members import LeftOut, Member
from competition.scoring.assessment import Assessment, PairedScores, Side
from competition.submission.record import Objective

COMPARED = (BEST_SINGLE, UNIFORM, CONVEX, GREEDY)
"""What the blend is compared to."""


@dataclass(frozen=True)
class BlendOptions:
    """How to blend.

    Attributes:
        trials: of each search.
        seed: of the searches, the intervals and the simulated boards.
        objective: what to search for.
        reweight: fit to rows weighed to be like the test; None: all rows alike.
    """

    trials: int
    seed: int
    objective: Objective = "micro-f1"
    reweight: Reweight | None = None

    def count_trials(self, n_folds: int) -> int:
        """Return how many trials the fit and its nested estimate make."""
        return self.trials * (1 + n_folds)


@dataclass(frozen=True, eq=False)
class Material:
    """What a blend is made of.

    Attributes:
        rows: the members' out-of-fold rows, all counting alike, with folds.
        row_weights: ways of weighing them to be like the test.
        left_out: variants that are no members.
    """

    prepared: Prepared
    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...]
    rows: PooledRows
    shift: Shift | None
    row_weights: Mapping[str, Weights]

    @property
    def names(self) -> list[str]:
        """Return the members' names."""
        return [member.name for member in self.members]


@dataclass(frozen=True, eq=False)
class Worth:
    """What every way of weighing and every member is worth.

    Attributes:
        fitted: each of ``search.SYSTEMS``, on the rows it was tuned on.
        nested: each of ``search.SYSTEMS``, tuned on the other folds.
        single_fitted: each member's micro-F1 and AUPRC, its threshold and temperature tuned on all
            rows.
        singles: each member, both tuned on the other folds.
        as_pooled: the fitted blend's AUPRC before it is flattened.
        compared: the nested blend minus each of ``COMPARED``.
    """

    fitted: Mapping[str, Assessment]
    nested: Mapping[str, Assessment]
    single_fitted: Mapping[str, tuple[float, float]]
    singles: Mapping[str, Assessment]
    compared: Mapping[str, PairedScores]
    as_pooled: float


@dataclass(frozen=True, eq=False)
class BlendReport:
    """Everything ``blend`` found.

    Attributes:
        nested_weights: (K, M) float64.
        gold_shares: of the train rows' labels.
        outlook: what weights and ranks would be on rows like the test's.
        noise: how far public and private halves part.
    """

    path: Path
    options: BlendOptions
    material: Material
    fit: BlendFit
    worth: Worth
    nested_weights: NDArray[np.float64]
    oof_side: Side
    test_side: Side
    gold_shares: tuple[float, ...]
    outlook: Mapping[str, Outlook]
    noise: tuple[HalfNoise, ...]
    alarms: tuple[Alarm, ...]
