"""Expected test score: the score of out-of-fold rows, importance-weighted to match the test set.

Above ``label_shift`` and ``metrics``. What a system predicts for the test rows, and how confident
it is, shows how these differ from held-out rows. Label shift and covariate shift explain it in
different ways, and neither is right everywhere; so row weights are estimated under both, and one
after the other too. ``read_evidence`` estimates them from one system; ``TestMix`` averages over the
systems there are, since the test is the same for all, and scores any system under the mean weights.
The interval holds the spread between the estimates, their error on drawn tests whose score is
known, and an error that grows with the correction.

Legend: N held-out rows, M test rows, K models that predict the test rows, C labels, L levels of
strata, V views, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from competition.arrays import Float64s, Floats, Int64s, Ints
from competition.scoring.assessment import Score
from competition.scoring.criteria import Criteria
from competition.scoring.decisions import Negatives
from competition.scoring.label_shift import Answers, Cells, ShiftModel, build_cells
from competition.scoring.metrics.metric import Predicted, Weigher
from competition.scoring.metrics.micro_f1 import is_any_of

DRAWS = 8  # of each view
SEED = 0
REACH = 1.67  # standard errors; their parts overlap, so that 1.96 hold 99% of simulated scores
LABEL_STRENGTH, ANSWER_STRENGTH = 100.0, 10.0  # test rows that a surrounding stratum counts as
MAX_TABLE_CELLS = 4_000_000  # labels × answers × strata of one estimate
UNEXPLAINED = 0.008  # standard error where nothing is corrected; from pseudo-tests, as the next
UNEXPLAINED_FRAC = 0.15  # standard error of a correction, as a share of it


@dataclass(frozen=True, slots=True)
class View:
    """An assumption about the shift (label or covariate), and the granularity of its estimate.

    Attributes:
        assumption: label shift; covariate shift; or covariate shift for what label shift leaves
            unexplained.
        steps: of confidence that a predicted label is split into; 1: the label alone.
        share: of the view in the mean over all views.
    """

    assumption: Literal["label", "covariate", "both"]
    steps: int
    share: float


# label shift with steps of confidence has twice the error of the others on pseudo-tests, and errs
# the other way where rows are harder than their labels say
VIEWS = (
    View("label", 1, 2 / 7),
    View("label", 3, 1 / 7),
    View("covariate", 5, 2 / 7),
    View("both", 5, 2 / 7),
)
VIEWS_OF_LABELS = (View("label", 1, 0.5), View("covariate", 1, 0.5))


@dataclass(frozen=True, eq=False)
class Ground:
    """The data that the estimates of all systems share: the rows of both sides and their strata.

    Attributes:
        gold: (N,) label ids of the held-out rows.
        criteria: the metrics, and which labels are negative.
        groups: (N,) rows that are drawn together.
        strata: (L, N) nested strata, from one of all rows to the finest.
        test_strata: (L, M) likewise of the test rows.
    """

    gold: Ints
    criteria: Criteria
    groups: Ints
    strata: Int64s
    test_strata: Int64s

    @property
    def n_labels(self) -> int:
        """Return C."""
        return self.criteria.n_labels

    def weigher(self, predicted: Predicted) -> Weigher:
        """Return a system's score by the primary metric as a function of row weights."""
        return self.criteria.primary.weigher(self.gold, predicted)


@dataclass(frozen=True, eq=False)
class System:
    """The predictions of a member or a blend on both sides.

    Attributes:
        probs: (N, C) of the held-out rows, by models that did not see them.
        pred: (N,) label ids.
        test_probs: (K, M, C) of the test rows, each model's alone.
        test_pred: (K, M) label ids, decided by the same rule.
        is_average: the test predictions are an average of models, flatter than one model's; then
            confidence is not compared, only predicted labels.
    """

    probs: Floats
    pred: Ints
    test_probs: Floats
    test_pred: Ints
    is_average: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """The estimate of the test set's composition from one system.

    Attributes:
        weights: (V, N) float32 of the held-out rows under each view, mean 1.
        shares: (V,) of the views in their mean.
        variance: of the error of an estimate of the primary score where its view is right.
        negative_share: of the test's rows, None without a negative label.
    """

    weights: np.ndarray[tuple[int, int], np.dtype[np.float32]] = field(repr=False)
    shares: Float64s
    variance: float
    negative_share: float | None


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected test scores of a system.

    Attributes:
        primary: score by the primary metric, with a 95% interval of what the estimate does not
            know.
        secondary: by the secondary metric, of the weighted rows; None if there is none.
    """

    primary: Score
    secondary: float | None


@dataclass(frozen=True, eq=False)
class TestMix:
    """The composition of the test set, estimated from all systems."""

    __test__ = False  # no test of pytest's

    ground: Ground
    evidence: Sequence[Evidence]

    @property
    def weights(self) -> Float64s:
        """Return (N,) importance weights, mean 1: the mean over systems and views."""
        means = [each.shares @ each.weights.astype(np.float64) for each in self.evidence]
        return np.asarray(np.mean(means, axis=0))

    @property
    def negative_share(self) -> float | None:
        """Return the fraction of the negative label in the test set, None without one."""
        found = [e.negative_share for e in self.evidence if e.negative_share is not None]
        return float(np.mean(found)) if found else None

    def expect(self, probs: Floats, pred: Ints) -> Expected:
        """Estimate the test score of any system on the same held-out rows.

        Source: the combination is ours; docs/experiments.md has the pseudo-tests and simulations
        that it was chosen on.
        """
        weights, criteria = self.weights, self.ground.criteria
        score_at = self.ground.weigher((probs, pred))
        value = score_at(weights)
        plain = criteria.primary.score(self.ground.gold, (probs, pred))
        spread = [
            share * (score_at(row.astype(np.float64)) - value) ** 2
            for each in self.evidence
            for share, row in zip(each.shares, each.weights, strict=True)
        ]
        variance = (
            float(np.mean([each.variance for each in self.evidence]))
            + sum(spread) / len(self.evidence)
            + UNEXPLAINED**2
            + (UNEXPLAINED_FRAC * (plain - value)) ** 2
        )
        reach = REACH * float(np.sqrt(variance))
        lowest, highest = criteria.primary.kind.bounds
        score = Score(value, max(lowest, value - reach), min(highest, value + reach))
        if criteria.secondary is None:
            return Expected(score, None)
        return Expected(score, criteria.secondary.score(self.ground.gold, (probs, pred), weights))


def read_evidence(ground: Ground, system: System, *, seed: int = SEED) -> Evidence:
    """Estimate the test set's composition from one system's predictions.

    Args:
        ground: the rows; at least one on the test's side.
    """
    views = VIEWS_OF_LABELS if system.is_average else VIEWS
    cells = build_cells(ground.strata, ground.test_strata)
    weights = [weigh(ground, system, view, cells) for view in views]
    squares = [
        float((_simulate(ground, system, view, each, seed + place) ** 2).mean())
        for place, (view, each) in enumerate(zip(views, weights, strict=True))
    ]
    shares = np.array([view.share for view in views])
    return Evidence(
        np.stack(weights).astype(np.float32),
        shares,
        float(shares @ np.array(squares)),
        _measure_negative_share(ground, views, weights),
    )


def weigh(ground: Ground, system: System, view: View, cells: Cells | None = None) -> Float64s:
    """Return (N,) importance weights of the held-out rows, mean 1, under one view.

    ``cells`` are those of the strata, where they are built already.
    """
    if cells is None:
        cells = build_cells(ground.strata, ground.test_strata)
    weights = np.ones(len(ground.gold))
    if view.assumption != "covariate":
        steps = view.steps if view.assumption == "label" else 1
        model = _build_model(ground, system, steps, cells, LABEL_STRENGTH)
        weights = model.weigh(model.fit_labels())
    if view.assumption != "label":
        model = _build_model(ground, system, view.steps, cells, ANSWER_STRENGTH)
        weights = model.weigh(model.fit_answers(weights), weights)
    return weights


def _build_model(
    ground: Ground, system: System, steps: int, cells: Cells, strength: float
) -> ShiftModel:
    """Discretise predictions, as finely as the view asks and the size of the tables allows."""
    while steps > 1 and ground.n_labels**2 * steps * len(cells) > MAX_TABLE_CELLS:
        steps -= 1
    if ground.n_labels**2 * steps * len(cells) > MAX_TABLE_CELLS:
        cells = build_cells(ground.strata[:1], ground.test_strata[:1])
    seen, test_seen = grade(system, ground.criteria.negative_ids, steps)
    gold, n_labels = ground.gold.astype(np.int64), ground.n_labels
    answers = Answers(gold, seen, test_seen, n_labels, n_labels * steps)
    return ShiftModel(answers, cells, strength)


def grade(system: System, negative_ids: Negatives, steps: int) -> tuple[Int64s, Int64s]:
    """Number answers by predicted label and confidence bin.

    Steps hold equally many held-out rows, separately for the negative labels and all others.

    Returns:
        (N,) for the held-out rows and (K, M) for the test rows, in [0, C × steps).
    """
    pred, test_pred = system.pred.astype(np.int64), system.test_pred.astype(np.int64)
    if steps == 1:
        return pred, test_pred
    sure = np.take_along_axis(system.probs, pred[:, None], axis=1)[:, 0]
    test_sure = np.take_along_axis(system.test_probs, test_pred[..., None], axis=2)[..., 0]
    step, test_step = np.zeros_like(pred), np.zeros_like(test_pred)
    for is_negative in (False, True):
        rows, test_rows = (np.isin(each, negative_ids) == is_negative for each in (pred, test_pred))
        if rows.any():
            edges = np.quantile(sure[rows], np.linspace(0, 1, steps + 1)[1:-1])
            step[rows] = np.searchsorted(edges, sure[rows])
            test_step[test_rows] = np.searchsorted(edges, test_sure[test_rows])
    return pred * steps + step, test_pred * steps + test_step


def _simulate(ground: Ground, system: System, view: View, weights: Float64s, seed: int) -> Float64s:
    """Estimate known scores in simulations: (R,) errors of a view if its assumption holds.

    Held-out rows play both parts: some groups are drawn as held-out rows, and from the others a
    test is drawn by the weights that the view gave to the rows.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 10.3 (bias); that
    groups not drawn serve as the test is ours.
    """
    _, group_of = np.unique(ground.groups, return_inverse=True)
    n_groups, n_test = int(group_of.max()) + 1, ground.test_strata.shape[1]
    probs, pred = system.probs, system.pred
    errors = []
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, draw])
        drawn = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)[group_of]
        odds = np.where(drawn == 0, weights, 0.0)
        if not odds.any():
            continue
        held = np.repeat(np.arange(len(drawn)), drawn)
        test = rng.choice(len(odds), n_test, p=odds / odds.sum())
        part = replace(
            ground,
            gold=ground.gold[held],
            groups=ground.groups[held],
            strata=ground.strata[:, held],
            test_strata=ground.strata[:, test],
        )
        answers = System(probs[held], pred[held], probs[test][None], pred[test][None])
        score = part.weigher((answers.probs, answers.pred))(weigh(part, answers, view))
        known = ground.criteria.primary.score(ground.gold[test], (probs[test], pred[test]))
        errors.append(score - known)
    return np.array(errors) if len(errors) > 1 else np.zeros(2)


def _measure_negative_share(
    ground: Ground, views: Sequence[View], weights: Sequence[Float64s]
) -> float | None:
    """Return the mean over the views that use predicted labels only."""
    if not ground.criteria.negative_ids:
        return None
    is_negative = is_any_of(ground.gold, ground.criteria.negative_ids)
    shares = [
        float(np.average(is_negative, weights=each))
        for view, each in zip(views, weights, strict=True)
        if view.assumption == "both" or (view.assumption == "label" and view.steps == 1)
    ]
    return float(np.mean(shares))
