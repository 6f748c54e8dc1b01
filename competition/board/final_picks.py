"""Recommend the final submissions to select, by expected private score and diversity.

A platform scores the best of the few selected submissions. The public score is noisy, and the
blend's own estimate does not know the test's labels, so both are averaged with inverse-variance
weights. Its own estimate is the expected test score where every submission has one, else the nested
score. Each further pick maximises the expected improvement of the best score.

Legend: S submissions, T test rows, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Float64s
from competition.scoring.metrics.metric import MetricKind

# Variance of (public - private difference) per share of differing labels, if no blend has measured
# it: for a test of 7,765 rows, 60% of them negative.
DISAGREEMENT_VARIANCE = 5.4e-4
TRANSFER_SD = 0.01  # error of nested estimates on the test, until enough scores are known
MIN_TRANSFER_SD = 0.003
ENOUGH_SCORED = 4  # submissions with both scores, to estimate the transfer error
DEFAULT_DISAGREEMENT = 0.1  # of two submissions, if no files can be compared
DRAWS = 4000
SEED = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A submission that can be selected.

    Attributes:
        own_score: the blend's own estimate, or None.
        public_score: the public score, None before it is scored.
        labels: (T,) predicted labels in the order of the file; None if the file is missing. Files
            of different lengths cannot be compared.
        own_name: what ``own_score`` is: ``nested``, or ``expected`` on the test.
    """

    name: str
    own_score: float | None
    public_score: float | None
    labels: NDArray[np.object_] | None
    own_name: str = "nested"


@dataclass(frozen=True, slots=True)
class Pick:
    """A submission to select, with its reason."""

    name: str
    expected_score: float
    reason: str


@dataclass(frozen=True, eq=False)
class Forecast:
    """Expected private scores of S submissions.

    Attributes:
        expected: (S,) by the primary metric, higher being better.
        variance: (S,) of its error.
        disagreement: (S, S) share of differing labels; a default if not compared.
        compared: (S, S) bool, whether the two files could be compared.
        gap: median of public minus nested scores; None if none has both.
        half_variance: of a public minus private difference, per share of differing labels.
    """

    expected: Float64s
    variance: Float64s
    disagreement: Float64s
    compared: NDArray[np.bool_]
    gap: float | None
    half_variance: float

    def margin(self, first: int, second: int) -> float:
        """Return the public lead below which the order may reverse on the private half, at 95%."""
        return 1.96 * math.sqrt(self.half_variance * self.disagreement[first, second])


def pick_final(
    candidates: Sequence[Candidate],
    count: int,
    kind: MetricKind,
    half_variance: float = DISAGREEMENT_VARIANCE,
) -> tuple[list[Pick], Forecast | None]:
    """Select the final submissions.

    Args:
        candidates: only those with a nested or a public score are considered.

    Returns:
        The picks, best first, and the forecast for the candidates with a score.
    """
    candidates = _keep_comparable(candidates)
    known = [
        each for each in candidates if each.own_score is not None or each.public_score is not None
    ]
    if not known:
        return [], None
    forecast = forecast_private(known, half_variance)
    chosen = [int(np.argmax(forecast.expected))]
    draws = _draw(forecast)
    gains = [0.0]
    while len(chosen) < min(count, len(known)):
        best = draws[:, chosen].max(axis=1)
        gain = np.maximum(draws - best[:, None], 0.0).mean(axis=0)
        gain[chosen] = -1.0
        chosen.append(int(np.argmax(gain)))
        gains.append(float(gain[chosen[-1]]))
    picks = [
        Pick(known[place].name, float(forecast.expected[place]), reason)
        for place, reason in zip(
            chosen, _explain(known, forecast, chosen, gains, kind), strict=True
        )
    ]
    return picks, forecast


def _keep_comparable(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drop candidates without a public score if the gap to nested scores is unknown."""
    public = [each for each in candidates if each.public_score is not None]
    has_gap = any(each.own_score is not None for each in public)
    return list(candidates) if has_gap or not public else public


def forecast_private(known: Sequence[Candidate], half_variance: float) -> Forecast:
    """Average nested estimate and public score with inverse-variance weights.

    The error of the nested estimate, corrected by the common gap, is how ranks transfer to the
    test; that of the public score is the random choice of its half.
    """
    disagreement, compared = _measure_disagreement(known)
    both = [e for e in known if e.own_score is not None and e.public_score is not None]
    gaps = np.array([(e.public_score or 0.0) - (e.own_score or 0.0) for e in both])
    gap = float(np.median(gaps)) if len(gaps) else None
    size = len(known)
    typical = disagreement.sum() / (size * (size - 1)) if size > 1 else 0.0
    # a pair's public minus private difference contains the noise of two halves and two submissions
    public_variance = max(half_variance * typical / 4, 1e-8)
    transfer_variance = TRANSFER_SD**2
    if len(gaps) >= ENOUGH_SCORED:
        observed = float(np.var(gaps, ddof=1)) - public_variance
        transfer_variance = max(observed, MIN_TRANSFER_SD**2)
    expected, variance = np.empty(size), np.empty(size)
    for place, each in enumerate(known):
        scores: list[tuple[float, float]] = []
        if each.own_score is not None:
            scores.append((each.own_score + (gap or 0.0), transfer_variance))
        if each.public_score is not None:
            scores.append((each.public_score, public_variance))
        weights = np.array([1.0 / error for _, error in scores])
        expected[place] = float(weights @ np.array([value for value, _ in scores]) / weights.sum())
        variance[place] = 1.0 / float(weights.sum())
    return Forecast(expected, variance, disagreement, compared, gap, half_variance)


def _measure_disagreement(known: Sequence[Candidate]) -> tuple[Float64s, NDArray[np.bool_]]:
    """Return (S, S) shares of differing labels, and which of them were measured.

    If a file is missing or of another length, the mean of the other shares is used.
    """
    size = len(known)
    found = np.full((size, size), np.nan)
    for i, first in enumerate(known):
        for j, second in enumerate(known):
            found[i, j] = 0.0 if i == j else _measure_difference(first, second)
    pairs = found[~np.eye(size, dtype=bool)]
    measured = pairs[~np.isnan(pairs)]
    default = float(measured.mean()) if len(measured) else DEFAULT_DISAGREEMENT
    compared = ~np.isnan(found)
    return np.where(compared, found, default), compared


def _measure_difference(first: Candidate, second: Candidate) -> float:
    """Return the share of differing labels; NaN if the files cannot be compared."""
    one, other = first.labels, second.labels
    if one is None or other is None or one.shape != other.shape:
        return math.nan
    return float(np.mean(one != other))


def _draw(forecast: Forecast) -> Float64s:
    """Draw (D, S) private scores.

    The random difference of two submissions on the private half has half the variance of public
    minus private. Shares of differing labels are squared distances, so double centring turns them
    into a covariance matrix with these variances.
    """
    size = len(forecast.expected)
    centre = np.eye(size) - 1.0 / size
    distance = forecast.half_variance / 2 * forecast.disagreement
    covariance = -0.5 * centre @ distance @ centre + np.diag(forecast.variance)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = np.random.default_rng(SEED).normal(size=(DRAWS, size))
    return np.asarray(forecast.expected + normal @ root.T)


def _explain(
    known: Sequence[Candidate],
    forecast: Forecast,
    chosen: Sequence[int],
    gains: Sequence[float],
    kind: MetricKind,
) -> list[str]:
    first = chosen[0]
    best = "lowest" if kind.is_loss else "highest"
    reasons = [f"{best} expected private {kind.title} ({_describe(known[first], forecast, kind)})"]
    for place, gain in zip(chosen[1:], gains[1:], strict=True):
        behind = kind.write(abs(forecast.expected[first] - forecast.expected[place])).lstrip("-")
        side = "above" if kind.is_loss else "below"
        described = _describe(known[place], forecast, kind)
        reason = f"expected {behind} {side} the first ({described})"
        if forecast.compared[first, place]:
            reason += (
                f", but {forecast.disagreement[first, place]:.1%} of its labels differ: it raises"
                f" the expected best score by {kind.write(gain).lstrip('-')}"
            )
        else:
            reason += "; the files cannot be compared, so their difference is unknown"
        reasons.append(reason)
    return reasons


def _describe(candidate: Candidate, forecast: Forecast, kind: MetricKind) -> str:
    parts = []
    if candidate.own_score is not None:
        parts.append(f"{candidate.own_name} {kind.write(candidate.own_score)}")
        if forecast.gap is not None:
            parts[-1] += f", corrected by the common gap of {kind.write_difference(forecast.gap)}"
    if candidate.public_score is not None:
        parts.append(f"public {kind.write(candidate.public_score)}")
    return "; ".join(parts)
