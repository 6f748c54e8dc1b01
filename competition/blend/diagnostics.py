"""Members that a blend had better not trust, named before they cost a submission.

Beside ``blend`` on the way of a row: members that are copies of each other, a member that knows its
out-of-fold rows too well, a member that misleads on rows like the test's. Each alarm needs both a
size that matters and to stand clear of chance, so that a sound store raises none.

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
from competition.predictions.members import Member

SIGNIFICANT = 3.0  # standard errors: one false alarm in 700 looks at members that do neither
# Mean confidence that out-of-fold rows have too much of. On KLUE-RE, whose test is far from its
# train rows, a sound member has 0.04; one that learnt its out-of-fold rows has 0.1 and more.
LEAK = 0.06
ODDS = "odds"  # the name of the weights that the shift classifier gives
BINS = 6  # of the others' confidence
LEAST_IN_STRATUM = 20  # rows on each side
HARM = 0.01  # share of the log-loss on test-like rows that a member adds


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong with which members; ``size`` in the unit that ``text`` says."""

    kind: Literal["copies", "leak", "misleads"]
    members: tuple[str, ...]
    size: float
    text: str


def find_alarms(
    members: Sequence[Member],
    rows: PooledRows,
    groups: Ints,
    row_weights: Mapping[str, Weights],
) -> list[Alarm]:
    """Look for members that a blend had better not trust.

    Args:
        members: M of them, in the order of the rows' logs.
        rows: their out-of-fold rows.
        groups: (N,) which rows are right or wrong together.
        row_weights: ways of weighing rows to be like the test, (N,) each, by how to call them.
    """
    alarms = find_copy_alarms(members, rows)
    copies = {name for alarm in alarms for name in alarm.members[1:]}
    distinct = [place for place, member in enumerate(members) if member.name not in copies]
    if len(distinct) < 2:
        return alarms
    kept = [members[place] for place in distinct]
    alarms += find_leaks(kept, row_weights.get(ODDS))
    part = rows if len(kept) == len(members) else rows.take_members(np.array(distinct))
    return alarms + find_misleading(kept, part, groups, row_weights)


def find_copy_alarms(members: Sequence[Member], rows: PooledRows) -> list[Alarm]:
    """Name members that say the same on out-of-fold and on test rows."""
    step = max(1, rows.logs.shape[2] // SAMPLED_ROWS)
    oof = rows.logs[:, :, ::step]
    n_test = members[0].test.shape[1]
    test = [
        np.ascontiguousarray(floored_logs(m.test[0][:: max(1, n_test // SAMPLED_ROWS)]).T)
        for m in members
    ]
    alarms: list[Alarm] = []
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
        text = f"{' and '.join(names)} say the same: one voice, so leave out all but one"
        alarms.append(Alarm("copies", names, float(len(names)), text))
    return alarms


def find_leaks(members: Sequence[Member], weights: Weights | None = None) -> list[Alarm]:
    """Name members that are surer of out-of-fold rows than of test rows, as the others are not.

    Confidence falls from out-of-fold to test rows for every member when the test is another mix of
    rows. So rows are compared that the other members answer alike: with the same kind of label and
    the same confidence. Where these are equal, a member that never saw the out-of-fold rows has no
    reason to be surer of them.

    Args:
        members: two or more.
        weights: (N,) odds of each row in the test, to take off what the mix of rows explains.
    """
    if weights is None:
        weights = np.ones(len(members[0].oof))
    alarms = []
    for place, member in enumerate(members):
        others = [each for i, each in enumerate(members) if i != place]
        excess, error = _measure_excess(member, others, weights)
        if excess > max(LEAK, SIGNIFICANT * error):
            text = (
                f"{member.name} is surer of out-of-fold rows than of test rows that the others"
                f" answer alike, by {100 * excess:.1f} points: it may have seen its out-of-fold"
                " rows, or rows too much like them"
            )
            alarms.append(Alarm("leak", (member.name,), excess, text))
    return alarms


def _measure_excess(
    member: Member, others: Sequence[Member], weights: Weights
) -> tuple[float, float]:
    """Return how much surer a member is of out-of-fold rows, stratum by stratum, and its error."""
    consensus = _consensus([other.oof for other in others])
    edges = np.quantile(consensus.max(axis=1), np.linspace(0, 1, BINS + 1)[1:-1])
    sure, test_consensus = _pair_test(member, others)
    oof = _sum_strata(_confide(member.oof), consensus, edges, weights)
    test = _sum_strata(sure, test_consensus, edges, np.ones(len(sure)))
    copies = len(sure) / member.test.shape[1]  # a test row stands there once for each fold's model
    is_used = (oof.n_rows >= LEAST_IN_STRATUM) & (test.n_rows >= LEAST_IN_STRATUM * copies)
    if not is_used.any():
        return 0.0, np.inf
    share = np.where(is_used, oof.weight, 0.0)
    share /= share.sum()
    excess = (share * (oof.mean - test.mean)).sum()
    variance = (share**2 * (oof.variance + copies * test.variance)).sum()
    return float(excess), float(np.sqrt(variance))


@dataclass(frozen=True, eq=False)
class _Strata:
    """Sums over the rows of each stratum; ``variance`` is that of the mean, were rows apart."""

    n_rows: Floats
    weight: Floats
    mean: Floats
    variance: Floats


def _sum_strata(values: Floats, consensus: Floats, edges: Floats, weights: Weights) -> _Strata:
    """Sum (N,) values over strata: the consensus' label and which bin its confidence falls in."""
    stratum = consensus.argmax(axis=1) * BINS + np.searchsorted(edges, consensus.max(axis=1))
    size = consensus.shape[1] * BINS
    n_rows = np.bincount(stratum, minlength=size).astype(np.float64)
    weight = np.bincount(stratum, weights, size).astype(np.float64)
    mean = np.bincount(stratum, weights * values, size) / np.maximum(weight, 1e-12)
    squares = np.bincount(stratum, (weights * (values - mean[stratum])) ** 2, size)
    return _Strata(n_rows, weight, mean, squares / np.maximum(weight, 1e-12) ** 2)


def _pair_test(member: Member, others: Sequence[Member]) -> tuple[Floats, Floats]:
    """Return the member's confidence and the others' consensus on test rows, fold by fold.

    A test table that is one average is flatter than any model; the others are averaged likewise.
    """
    if member.test_is_average:
        averages = [other.test.mean(axis=0) for other in others]
        return _confide(member.test[0]), _consensus(averages)
    n_folds = len(member.test)
    sure = [_confide(member.test[fold]) for fold in range(n_folds)]
    agreed = [_consensus([other.test[fold] for other in others]) for fold in range(n_folds)]
    return np.concatenate(sure), np.concatenate(agreed)


def _confide(probs: Probs) -> Floats:
    return np.asarray(probs.max(axis=1))


def _consensus(probs: Sequence[Probs]) -> Floats:
    return np.asarray(np.mean(probs, axis=0, dtype=np.float32))


def find_misleading(
    members: Sequence[Member],
    rows: PooledRows,
    groups: Ints,
    row_weights: Mapping[str, Weights],
) -> list[Alarm]:
    """Name members that are worse than useless on rows like the test's.

    Such a member makes the blend worse there, though fitted weights took it in: the convex pool is
    fitted with and without it to all rows alike, and both are measured by log-loss on rows weighed
    to be like the test. Or it knows less than nothing there: on the rows that the test has more of,
    believing it a little is worse than believing the labels' shares alone.
    """
    everyone = fit_convex(rows)
    whole = _lose(rows, everyone)
    alarms = []
    for place, member in enumerate(members):
        gain = np.zeros(len(whole))
        if everyone[place] > 0:
            others = rows.take_members(np.delete(np.arange(len(members)), place))
            gain = whole - _lose(others, fit_convex(others))
        for name, weights in row_weights.items():
            share, harm, error = _weigh_harm(gain, whole, weights, groups)
            blind = _measure_blindness(rows, place, weights, groups)
            found = ""
            if share > HARM and harm > SIGNIFICANT * error:
                found = f"without it the pool's log-loss there is {100 * share:.1f}% lower"
            elif blind > SIGNIFICANT:
                found = "there it points away from the right label"
            if found:
                text = f"{member.name} is worse than useless on test-like rows ({name}): {found}"
                alarms.append(Alarm("misleads", (member.name,), share, text))
                break
    return alarms


def _weigh_harm(
    gain: Floats, whole: Floats, weights: Weights, groups: Ints
) -> tuple[float, float, float]:
    """Return the weighted mean of (N,) gains, as a share of the loss and plain, and its error."""
    harm, error = _mean_by_group(gain, weights, groups)
    return harm / max(float(np.average(whole, weights=weights)), 1e-9), harm, error


def _measure_blindness(rows: PooledRows, place: int, weights: Weights, groups: Ints) -> float:
    """Return by how many standard errors a little of a member is worse than the labels' shares.

    On the rows that weigh more than the mean. With shares π, the pool π_c · m_c^β has at β = 0 the
    derivative E[Σ_c π_c log m_c − log m_gold] of its log-loss: above 0, any β makes it worse.
    """
    heavy = weights > weights.mean()
    if not heavy.any():
        return 0.0
    logs, gold = rows.logs[place][:, heavy], rows.gold[heavy]
    shares = np.bincount(gold, weights[heavy], len(logs)) / weights[heavy].sum()
    slope = shares @ logs - logs[gold, np.arange(len(gold))]
    mean, error = _mean_by_group(slope, weights[heavy], groups[heavy])
    return mean / max(error, 1e-9) if mean > 0 else 0.0


def _lose(rows: PooledRows, weights: Weights) -> Floats:
    probs = pool(rows.logs, weights)
    own = probs[np.arange(len(rows.gold)), rows.gold]
    return -np.log(np.maximum(own, np.finfo(np.float32).tiny), dtype=np.float64)


def _mean_by_group(values: Floats, weights: Weights, groups: Ints) -> tuple[float, float]:
    """Return the weighted mean of (N,) values and its standard error over groups."""
    mean = float(np.average(values, weights=weights))
    place = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(place, weights * (values - mean))
    return mean, float(np.sqrt((sums**2).sum()) / weights.sum())
