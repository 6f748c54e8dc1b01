"""Detect unreliable blend members: copies, leaked out-of-fold rows, harm on test-like rows.

Each warning requires an effect that is both large enough to matter and statistically significant,
so that sound members raise none.

Legend: M members, N rows, C labels, K folds, T test rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from competition.arrays import Floats, Ints, Probs
from competition.blend.pooling import PooledRows, Weights, fit_convex, floored_logs, pool
from competition.blend.selection import SAMPLED_ROWS, are_copies
from competition.folds.kfold import Prepared
from competition.importing.alignment import find_misaligned
from competition.predictions.members import Member

SIGNIFICANT = 3.0  # standard errors: one false warning in about 700 checks of a sound member
# Excess of mean confidence on out-of-fold rows. On KLUE-RE, with its large shift, a sound member
# has 0.04; one that was trained on its out-of-fold rows has 0.1 and more.
LEAK = 0.06
ODDS = "odds"  # name of the row weights from adversarial validation
BINS = 6  # of the other members' confidence
MIN_IN_STRATUM = 20  # rows on each side
HARM = 0.01  # share of the log-loss on test-like rows that a member adds


@dataclass(frozen=True, slots=True)
class MemberWarning:
    """A problem of one or more members; ``size`` is in the unit that ``text`` names."""

    kind: Literal["copies", "leak", "misleads", "misaligned"]
    members: tuple[str, ...]
    size: float
    text: str


def find_member_warnings(
    members: Sequence[Member],
    rows: PooledRows,
    groups: Ints,
    row_weights: Mapping[str, Weights],
) -> list[MemberWarning]:
    """Return warnings about members that should not be trusted.

    Args:
        members: M of them, in the order of the rows' logs.
        groups: (N,) group of each row, for standard errors.
        row_weights: weightings under which rows resemble the test, (N,) each, by name.
    """
    warnings = find_copy_warnings(members, rows)
    copies = {name for warning in warnings for name in warning.members[1:]}
    distinct = [place for place, member in enumerate(members) if member.name not in copies]
    if len(distinct) < 2:
        return warnings
    kept = [members[place] for place in distinct]
    warnings += find_leaks(kept, row_weights.get(ODDS))
    part = rows if len(kept) == len(members) else rows.take_members(np.array(distinct))
    return warnings + find_misleading(kept, part, groups, row_weights)


def find_misaligned_members(members: Sequence[Member], prepared: Prepared) -> list[MemberWarning]:
    """Return warnings about members whose test rows do not belong to their out-of-fold rows."""
    return [
        MemberWarning("misaligned", (each.member,), 1.0, each.text)
        for each in find_misaligned(members, prepared)
    ]


def find_copy_warnings(members: Sequence[Member], rows: PooledRows) -> list[MemberWarning]:
    """Return warnings about members with the same predictions on out-of-fold and test rows."""
    step = max(1, rows.logs.shape[2] // SAMPLED_ROWS)
    oof = rows.logs[:, :, ::step]
    n_test = members[0].test.shape[1]
    test = [
        np.ascontiguousarray(floored_logs(m.test[0][:: max(1, n_test // SAMPLED_ROWS)]).T)
        for m in members
    ]
    warnings: list[MemberWarning] = []
    seen: set[int] = set()
    for first in range(len(members)):
        same = [
            place
            for place in range(first + 1, len(members))
            if place not in seen
            and are_copies(oof[first], oof[place])
            and are_copies(test[first], test[place])
        ]
        if first in seen or not same:
            continue
        seen |= set(same)
        names = tuple(members[place].name for place in (first, *same))
        text = f"{' and '.join(names)} make the same predictions; keep only one of them"
        warnings.append(MemberWarning("copies", names, float(len(names)), text))
    return warnings


def find_leaks(members: Sequence[Member], weights: Weights | None = None) -> list[MemberWarning]:
    """Return warnings about members with too much confidence on their out-of-fold rows.

    Under a shift, every member is less confident on test rows than on out-of-fold rows. Therefore
    rows are compared within strata in which the other members predict the same label with similar
    confidence. There a member that never saw the out-of-fold rows should be equally confident on
    both sides.

    Args:
        members: two or more.
        weights: (N,) odds of each row from adversarial validation, to correct for the shift.
    """
    if weights is None:
        weights = np.ones(len(members[0].oof))
    warnings = []
    for place, member in enumerate(members):
        others = [each for i, each in enumerate(members) if i != place]
        excess, error = _measure_excess(member, others, weights)
        if excess > max(LEAK, SIGNIFICANT * error):
            text = (
                f"{member.name} is {100 * excess:.1f} points more confident on out-of-fold rows"
                " than on test rows for which the other members predict the same: it may have"
                " seen its out-of-fold rows, or near-duplicates of them, in training"
            )
            warnings.append(MemberWarning("leak", (member.name,), excess, text))
    return warnings


def _measure_excess(
    member: Member, others: Sequence[Member], weights: Weights
) -> tuple[float, float]:
    """Return the stratified excess confidence on out-of-fold rows, and its standard error."""
    consensus = _consensus([other.oof for other in others])
    edges = np.quantile(consensus.max(axis=1), np.linspace(0, 1, BINS + 1)[1:-1])
    confidence, test_consensus = _pair_test(member, others)
    oof = _sum_strata(_confidence(member.oof), consensus, edges, weights)
    test = _sum_strata(confidence, test_consensus, edges, np.ones(len(confidence)))
    copies = len(confidence) / member.test.shape[1]  # each test row counts once per fold's model
    is_used = (oof.n_rows >= MIN_IN_STRATUM) & (test.n_rows >= MIN_IN_STRATUM * copies)
    if not is_used.any():
        return 0.0, np.inf
    share = np.where(is_used, oof.weight, 0.0)
    share /= share.sum()
    excess = (share * (oof.mean - test.mean)).sum()
    variance = (share**2 * (oof.variance + copies * test.variance)).sum()
    return float(excess), float(np.sqrt(variance))


@dataclass(frozen=True, eq=False)
class _Strata:
    """Statistics of each stratum; ``variance`` is that of the mean for independent rows."""

    n_rows: Floats
    weight: Floats
    mean: Floats
    variance: Floats


def _sum_strata(values: Floats, consensus: Floats, edges: Floats, weights: Weights) -> _Strata:
    """Summarise (N,) values per stratum: label and confidence bin of the consensus."""
    stratum = consensus.argmax(axis=1) * BINS + np.searchsorted(edges, consensus.max(axis=1))
    size = consensus.shape[1] * BINS
    n_rows = np.bincount(stratum, minlength=size).astype(np.float64)
    weight = np.bincount(stratum, weights, size).astype(np.float64)
    mean = np.bincount(stratum, weights * values, size) / np.maximum(weight, 1e-12)
    squares = np.bincount(stratum, (weights * (values - mean[stratum])) ** 2, size)
    return _Strata(n_rows, weight, mean, squares / np.maximum(weight, 1e-12) ** 2)


def _pair_test(member: Member, others: Sequence[Member]) -> tuple[Floats, Floats]:
    """Return the member's confidence and the others' consensus on test rows, fold by fold.

    If the member's test table is one average over models, the others are averaged too.
    """
    if member.test_is_average:
        averages = [other.test.mean(axis=0) for other in others]
        return _confidence(member.test[0]), _consensus(averages)
    n_folds = len(member.test)
    confidence = [_confidence(member.test[fold]) for fold in range(n_folds)]
    consensus = [_consensus([other.test[fold] for other in others]) for fold in range(n_folds)]
    return np.concatenate(confidence), np.concatenate(consensus)


def _confidence(probs: Probs) -> Floats:
    return np.asarray(probs.max(axis=1))


def _consensus(probs: Sequence[Probs]) -> Floats:
    return np.asarray(np.mean(probs, axis=0, dtype=np.float32))


def find_misleading(
    members: Sequence[Member],
    rows: PooledRows,
    groups: Ints,
    row_weights: Mapping[str, Weights],
) -> list[MemberWarning]:
    """Return warnings about members that do harm on test-like rows.

    Such a member makes the blend worse there although the fit gives it weight: the convex pool is
    fitted with and without it to equally weighted rows, and both are compared by log-loss on rows
    reweighted to resemble the test. Or it is worse than uninformative there: on rows that are more
    frequent in the test, adding a little of it to the label shares raises the log-loss.
    """
    convex = fit_convex(rows)
    with_all = _row_losses(rows, convex)
    warnings = []
    for place, member in enumerate(members):
        gain = np.zeros(len(with_all))
        if convex[place] > 0:
            others = rows.take_members(np.delete(np.arange(len(members)), place))
            gain = with_all - _row_losses(others, fit_convex(others))
        for name, weights in row_weights.items():
            share, harm, error = _measure_harm(gain, with_all, weights, groups)
            blind = _measure_blindness(rows, place, weights, groups)
            found = ""
            if share > HARM and harm > SIGNIFICANT * error:
                found = f"without it the pool's log-loss there is {100 * share:.1f}% lower"
            elif blind > SIGNIFICANT:
                found = "its probabilities point away from the gold label there"
            if found:
                text = f"{member.name} does harm on test-like rows (weighted by {name}): {found}"
                warnings.append(MemberWarning("misleads", (member.name,), share, text))
                break
    return warnings


def _measure_harm(
    gain: Floats, losses: Floats, weights: Weights, groups: Ints
) -> tuple[float, float, float]:
    """Return the weighted mean of (N,) gains relative to the loss, itself, and its error."""
    harm, error = _mean_by_group(gain, weights, groups)
    return harm / max(float(np.average(losses, weights=weights)), 1e-9), harm, error


def _measure_blindness(rows: PooledRows, place: int, weights: Weights, groups: Ints) -> float:
    """Return by how many standard errors a member is worse than the label shares alone.

    Computed on the rows with more than the mean weight. With shares π, the pool π_c · m_c^β has at
    β = 0 the derivative E[Σ_c π_c log m_c − log m_gold] of its log-loss: above 0, any β makes it
    worse.
    """
    heavy = weights > weights.mean()
    if not heavy.any():
        return 0.0
    logs, gold = rows.logs[place][:, heavy], rows.gold[heavy]
    shares = np.bincount(gold, weights[heavy], len(logs)) / weights[heavy].sum()
    slope = shares @ logs - logs[gold, np.arange(len(gold))]
    mean, error = _mean_by_group(slope, weights[heavy], groups[heavy])
    return mean / max(error, 1e-9) if mean > 0 else 0.0


def _row_losses(rows: PooledRows, weights: Weights) -> Floats:
    probs = pool(rows.logs, weights)
    own = probs[np.arange(len(rows.gold)), rows.gold]
    return -np.log(np.maximum(own, np.finfo(np.float32).tiny), dtype=np.float64)


def _mean_by_group(values: Floats, weights: Weights, groups: Ints) -> tuple[float, float]:
    """Return the weighted mean of (N,) values and its standard error over groups."""
    mean = float(np.average(values, weights=weights))
    place = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(place, weights * (values - mean))
    return mean, float(np.sqrt((sums**2).sum()) / weights.sum())
