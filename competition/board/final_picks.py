"""Which submissions to select at the end: what each is likely worth, and which differ.

The end of the way of a row, shown by ``board``. A platform scores the best of the few that are
selected. The public half alone is noise below its margin, the nested estimate alone does not know
the test; so they are weighed against each other by how wrong each is, and the further picks are
those most likely to be right where the first is wrong.

Legend: S submissions, T test rows, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Float64s

# Variance of (public - private difference) over the share of rows answered otherwise, where no
# blend has measured it: a test of 7,765 rows, 60% of them negative.
DISAGREEMENT_VARIANCE = 5.4e-4
TRANSFER_SD = 0.01  # how far the nested ranking is off on the test, until scores show it
LEAST_TRANSFER_SD = 0.003
ENOUGH_SCORED = 4  # submissions with both scores from which the transfer error is measured
SUPPOSED_DISAGREEMENT = 0.1  # of two submissions, where no two files can be compared
DRAWS = 4000
SEED = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A submission that can be selected.

    Attributes:
        nested_f1: the blend's own honest estimate, None where nothing says it.
        public_f1: what the public half says, None before it is scored.
        labels: (T,) predicted labels in the order of the file; None when the file is gone. Files of
            other lengths cannot be compared.
    """

    name: str
    nested_f1: float | None
    public_f1: float | None
    labels: NDArray[np.object_] | None


@dataclass(frozen=True, slots=True)
class Pick:
    """A submission to select, in order, with the reason in words."""

    name: str
    expected_f1: float
    reason: str


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is expected of the private half.

    Attributes:
        expected: (S,) micro-F1.
        variance: (S,) of the error of it.
        disagreement: (S, S) share of test rows answered otherwise; supposed where not compared.
        compared: (S, S) bool, whether the two files could be compared.
        gap: public minus nested, the median of those with both; None without any.
        half_variance: of a public minus private difference, per share of rows answered otherwise.
    """

    expected: Float64s
    variance: Float64s
    disagreement: Float64s
    compared: NDArray[np.bool_]
    gap: float | None
    half_variance: float

    def margin(self, first: int, second: int) -> float:
        """Return the public lead of one over the other below which it may turn, at 95%."""
        return 1.96 * math.sqrt(self.half_variance * self.disagreement[first, second])


def pick_final(
    candidates: Sequence[Candidate], count: int, half_variance: float = DISAGREEMENT_VARIANCE
) -> tuple[list[Pick], Forecast | None]:
    """Choose which submissions to select.

    Args:
        candidates: only those with a nested or a public score can be judged.
        count: how many may be selected.
        half_variance: measured by ``halves``, see ``Forecast``.

    Returns:
        The picks, best first, and the forecast of the candidates that could be judged.
    """
    candidates = _keep_comparable(candidates)
    known = [
        each for each in candidates if each.nested_f1 is not None or each.public_f1 is not None
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
        for place, reason in zip(chosen, _explain(known, forecast, chosen, gains), strict=True)
    ]
    return picks, forecast


def _keep_comparable(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leave out nested estimates that no public score was ever laid beside, if there are any."""
    public = [each for each in candidates if each.public_f1 is not None]
    has_gap = any(each.nested_f1 is not None for each in public)
    return list(candidates) if has_gap or not public else public


def forecast_private(known: Sequence[Candidate], half_variance: float) -> Forecast:
    """Weigh nested estimate and public score of each submission by how wrong each is.

    The nested estimate, moved by the gap common to all, errs by how ranks carry over to the test;
    the public score by the draw of its half.
    """
    disagreement, compared = _measure_disagreement(known)
    both = [e for e in known if e.nested_f1 is not None and e.public_f1 is not None]
    parted = np.array([(e.public_f1 or 0.0) - (e.nested_f1 or 0.0) for e in both])
    gap = float(np.median(parted)) if len(parted) else None
    size = len(known)
    typical = disagreement.sum() / (size * (size - 1)) if size > 1 else 0.0
    # a pair's public minus private difference holds the chance of two halves in two submissions
    public_variance = max(half_variance * typical / 4, 1e-8)
    transfer_variance = TRANSFER_SD**2
    if len(parted) >= ENOUGH_SCORED:
        seen = float(np.var(parted, ddof=1)) - public_variance
        transfer_variance = max(seen, LEAST_TRANSFER_SD**2)
    expected, variance = np.empty(size), np.empty(size)
    for place, each in enumerate(known):
        told: list[tuple[float, float]] = []
        if each.nested_f1 is not None:
            told.append((each.nested_f1 + (gap or 0.0), transfer_variance))
        if each.public_f1 is not None:
            told.append((each.public_f1, public_variance))
        weights = np.array([1.0 / error for _, error in told])
        expected[place] = float(weights @ np.array([value for value, _ in told]) / weights.sum())
        variance[place] = 1.0 / float(weights.sum())
    return Forecast(expected, variance, disagreement, compared, gap, half_variance)


def _measure_disagreement(known: Sequence[Candidate]) -> tuple[Float64s, NDArray[np.bool_]]:
    """Return (S, S) shares of rows answered otherwise, and which of them were measured.

    Where a file is gone or of another length, the share is supposed to be the mean of the others.
    """
    size = len(known)
    found = np.full((size, size), np.nan)
    for i, first in enumerate(known):
        for j, second in enumerate(known):
            found[i, j] = 0.0 if i == j else _measure_apart(first, second)
    apart = found[~np.eye(size, dtype=bool)]
    seen = apart[~np.isnan(apart)]
    supposed = float(seen.mean()) if len(seen) else SUPPOSED_DISAGREEMENT
    compared = ~np.isnan(found)
    return np.where(compared, found, supposed), compared


def _measure_apart(first: Candidate, second: Candidate) -> float:
    """Return the share of rows answered otherwise; NaN where the files cannot be compared."""
    one, other = first.labels, second.labels
    if one is None or other is None or one.shape != other.shape:
        return math.nan
    return float(np.mean(one != other))


def _draw(forecast: Forecast) -> Float64s:
    """Draw (D, S) private scores.

    Two submissions differ on the private half by chance with half the variance of public minus
    private. Shares of rows answered otherwise are squared distances, so doubly centred they are
    the covariance that gives every pair its variance.
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
    known: Sequence[Candidate], forecast: Forecast, chosen: Sequence[int], gains: Sequence[float]
) -> list[str]:
    first = chosen[0]
    reasons = [f"highest expected private micro-F1 ({_tell(known[first], forecast)})"]
    for place, gain in zip(chosen[1:], gains[1:], strict=True):
        below = 100 * (forecast.expected[first] - forecast.expected[place])
        reason = f"expected {below:.2f} below the first ({_tell(known[place], forecast)})"
        if forecast.compared[first, place]:
            reason += (
                f", but answers {forecast.disagreement[first, place]:.1%} of the rows otherwise:"
                f" together they promise {100 * gain:.2f} more than without it"
            )
        else:
            reason += "; the files cannot be compared, so how much they differ is not known"
        reasons.append(reason)
    return reasons


def _tell(candidate: Candidate, forecast: Forecast) -> str:
    parts = []
    if candidate.nested_f1 is not None:
        parts.append(f"nested {100 * candidate.nested_f1:.2f}")
        if forecast.gap is not None:
            parts[-1] += f", moved by the common gap of {100 * forecast.gap:+.2f}"
    if candidate.public_f1 is not None:
        parts.append(f"public {100 * candidate.public_f1:.2f}")
    return "; ".join(parts)
