"""Label shift and covariate shift between held-out and test rows, estimated from predictions.

Beside ``metrics``: ``expected`` weights held-out rows by these estimates. There are two
assumptions. *Label shift*: rows of one label are predicted alike on both sides, so in each stratum
the shares of the labels are those under which the answers seen in the test are most likely.
*Covariate shift*: an answer is right as often on both sides, so held-out rows are weighted until
answers are given as often as in the test. Where a stratum has few rows, both stay near what the
stratum around it says.

Legend: N held-out rows, M test rows, K models that answer for the test rows, C labels, L levels of
nested strata, O distinct answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Bools, Float64s, Int64s, Ints
from competition.errors import UsageError
from competition.scoring.metrics.micro_f1 import is_any_of

MIN_ROWS = 100  # held-out rows of a stratum; smaller ones are taken together
LENT_ROWS = 20.0  # held-out rows that the answers in the surrounding stratum count as, per label
MAX_ITERATIONS, TOLERANCE = 100, 1e-4  # of EM, and the change of a share that ends it
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one system and their rows.

    Attributes:
        gold: (N,) label ids of the held-out rows.
        seen: (N,) the answer for each held-out row, such as the predicted label, in [0, O).
        test_seen: (K, M) likewise for the test rows, by each model.
        n_labels: C.
        n_seen: O.
    """

    gold: Int64s
    seen: Int64s
    test_seen: Int64s
    n_labels: int
    n_seen: int


@dataclass(frozen=True, eq=False)
class Cell:
    """A stratum of one level with rows on both sides.

    Attributes:
        rows: of the held-out rows, (n,).
        test_rows: (m,).
        own: (m,) bool, the test rows for which no finer stratum has rows enough.
        parent: place of the cell around it among the cells; None for the first.
    """

    rows: Int64s
    test_rows: Int64s
    own: Bools
    parent: int | None


Cells = tuple[Cell, ...]


@dataclass(frozen=True, eq=False)
class Shift:
    """The ratio of frequencies in the test set and among held-out rows.

    Attributes:
        ratios: by cell, of each label (C,) or of each answer (O,): its share in the test over its
            share among the held-out rows.
        by_label: of labels rather than of answers.
    """

    ratios: tuple[Float64s, ...] = field(repr=False)
    by_label: bool


@dataclass(frozen=True, eq=False)
class ShiftModel:
    """Estimates the shift in each cell for one system.

    ``strength``: the shares in the surrounding cell count as this many test rows.
    """

    answers: Answers
    cells: Cells
    strength: float

    def fit_labels(self) -> Shift:
        """Estimate the label frequencies in each cell under label shift.

        Source: Saerens, Latinne & Decaestecker 2002 (EM for new priors), on the confusion matrix
        instead of probabilities, which need not be calibrated then (Lipton, Wang & Smola 2018,
        arXiv 1802.03916); the Dirichlet prior around the surrounding cell is ours.
        """
        n_labels, n_seen = self.answers.n_labels, self.answers.n_seen
        ratios: list[Float64s] = []
        chances: list[Float64s] = []
        given: list[Float64s] = []
        for cell in self.cells:
            rows = cell.rows
            place = self.answers.gold[rows] * n_seen + self.answers.seen[rows]
            joint = np.bincount(place, minlength=n_labels * n_seen).reshape(n_labels, n_seen)
            found, here = (_to_shares(joint.sum(axis=axis)) for axis in (1, 0))
            if cell.parent is None:
                lent, prior, lent_rows = np.full((n_labels, n_seen), 1 / n_seen), found, 1.0
            else:
                lent = _tilt(chances[cell.parent], given[cell.parent], here)
                prior, lent_rows = _to_shares(found * ratios[cell.parent]), LENT_ROWS
            given.append(here)
            chances.append((joint + lent_rows * lent) / (joint.sum(axis=1) + lent_rows)[:, None])
            share = _fit_shares(chances[-1], self._count_test(cell), prior, self.strength)
            ratios.append(np.divide(share, found, out=np.ones(n_labels), where=found > 0))
        return Shift(tuple(ratios), by_label=True)

    def fit_answers(self, weights: Float64s) -> Shift:
        """Estimate the frequency of each answer in each cell, for weights under covariate shift.

        Args:
            weights: (N,) that the held-out rows have already.

        Source: Białek, Kuberski, Perrakis & Bifet 2024, arXiv 2401.08348 (estimates from the
        confidence on the test); strata, counts and the prior are ours.
        """
        ratios: list[Float64s] = []
        for cell in self.cells:
            seen = self.answers.seen[cell.rows]
            found = _to_shares(np.bincount(seen, weights[cell.rows], self.answers.n_seen))
            prior = found if cell.parent is None else _to_shares(found * ratios[cell.parent])
            counts = _reassign(self._count_test(cell), prior)
            share = (counts + self.strength * prior) / (counts.sum() + self.strength)
            ratios.append(np.divide(share, found, out=np.ones(len(share)), where=found > 0))
        return Shift(tuple(ratios), by_label=False)

    def _count_test(self, cell: Cell) -> Float64s:
        """Return (O,) the number of a cell's test rows with each answer, averaged over models."""
        counts = self.answers.test_seen[:, cell.test_rows]
        counted = np.bincount(counts.ravel(), minlength=self.answers.n_seen)
        return np.asarray(counted / len(counts), dtype=np.float64)

    def weigh(self, shift: Shift, weights: Float64s | None = None) -> Float64s:
        """Return (N,) importance weights of the held-out rows, mean 1, that match the test set.

        Args:
            weights: (N,) that the rows have already; None: all alike.
        """
        key = self.answers.gold if shift.by_label else self.answers.seen
        ratios = [of[key[cell.rows]] for of, cell in zip(shift.ratios, self.cells, strict=True)]
        return spread(self.cells, ratios, np.ones(len(key)) if weights is None else weights)


def spread(cells: Cells, ratios: Sequence[Float64s], weights: Float64s) -> Float64s:
    """Scale the weights of each cell's rows to the number of its test rows."""
    spread = np.zeros(len(weights))
    for cell, ratio in zip(cells, ratios, strict=True):
        spread[cell.rows] += cell.own.sum() * _to_shares(weights[cell.rows] * ratio)
    mean = float(spread.mean())
    return spread / mean if mean else np.ones(len(weights))


def _to_shares(counts: Float64s | Int64s) -> Float64s:
    """Normalise counts to sum to 1; zeros stay zeros."""
    return np.asarray(counts / max(float(counts.sum()), TINY), dtype=np.float64)


def _tilt(chances: Float64s, there: Float64s, here: Float64s) -> Float64s:
    """Lend (C, O) chances of answers to a cell where answers are given in other shares.

    Unchanged, they would claim answers that this cell hardly ever gets, and
    the confusions of its rare labels would count as correct answers.
    """
    lent = chances * np.divide(here, there, out=np.zeros(len(here)), where=there > 0)
    return np.asarray(lent / np.maximum(lent.sum(axis=1, keepdims=True), TINY))


def _reassign(counts: Float64s, prior: Float64s) -> Float64s:
    """Match answers that occur only among held-out rows to those that occur only in the test set.

    Rare answers are mostly errors, and few are given on both sides; without this they would lose
    their weight, and every score would rise.
    """
    is_held = prior > 0
    lost = float(counts[~is_held].sum())
    is_unseen = is_held & (counts == 0)
    if not lost or not is_held.any():
        return counts
    receivers = np.where(is_unseen if is_unseen.any() else is_held, prior, 0.0)
    return np.asarray(np.where(is_held, counts, 0.0) + lost * _to_shares(receivers))


def build_cells(strata: Int64s, test_strata: Int64s) -> Cells:
    """Find the cells of nested strata, outer cells first.

    Args:
        strata: (L, N) of the held-out rows, from one of all rows to the finest.
        test_strata: (L, M) likewise of the test rows.
    """
    strata, test_strata = _merge_small(strata, test_strata)
    at_home = np.ones(test_strata.shape, dtype=bool)  # has the row's stratum rows enough?
    for level in range(1, len(strata)):
        highest = int(max(strata[level].max(initial=0), test_strata[level].max(initial=0)))
        sizes = np.bincount(strata[level], minlength=highest + 1)
        at_home[level] = sizes[test_strata[level]] >= MIN_ROWS
    finest = len(strata) - 1 - at_home[::-1].argmax(axis=0)
    cells: list[Cell] = []
    place_of: dict[tuple[int, int], int] = {}
    for level in range(len(strata)):
        rows_of = _list_rows(strata[level])
        test_rows_of = _list_rows(test_strata[level])
        for stratum, test_rows in test_rows_of.items():
            first = int(test_rows[0])
            if not at_home[level, first]:
                continue
            parent = _find_parent(test_strata[:level, first], at_home[:level, first], place_of)
            place_of[level, stratum] = len(cells)
            rows = rows_of.get(stratum, np.empty(0, dtype=np.int64))
            cells.append(Cell(rows, test_rows, finest[test_rows] == level, parent))
    return tuple(cells)


def _merge_small(strata: Int64s, test_strata: Int64s) -> tuple[Int64s, Int64s]:
    """Merge strata with too few held-out rows within the same stratum of the level above.

    Else their test rows would be answered for by all rows of the stratum above, most of which are
    of its larger parts.
    """
    merged, test_merged = strata.copy(), test_strata.copy()
    for level in range(1, len(strata)):
        highest = int(max(strata[level].max(initial=0), test_strata[level].max(initial=0)))
        is_small = np.bincount(strata[level], minlength=highest + 1) < MIN_ROWS
        for own, above in ((merged, merged), (test_merged, test_merged)):
            rest = is_small[own[level]]
            own[level, rest] = highest + 1 + above[level - 1, rest]
    return merged, test_merged


def _list_rows(strata: Int64s) -> dict[int, Int64s]:
    """Return the rows of each stratum, in order."""
    order = np.argsort(strata, kind="stable")
    names, starts = np.unique(strata[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def _find_parent(
    strata: Int64s, at_home: Bools, place_of: Mapping[tuple[int, int], int]
) -> int | None:
    """Return the index of the innermost enclosing cell; ``strata`` (levels,) are those above."""
    for level in range(len(strata) - 1, -1, -1):
        if at_home[level]:
            return place_of[level, int(strata[level])]
    return None


def _fit_shares(chances: Float64s, counts: Float64s, prior: Float64s, strength: float) -> Float64s:
    """Return the maximum a posteriori shares (C,), given answers and a Dirichlet prior.

    Args:
        chances: (C, O) how likely each answer is for a row of each label.
        counts: (O,) how often each answer was given.
        prior: (C,) shares around which the prior is centred; a label with 0 stays at 0.
        strength: the number of rows that the prior counts as.
    """
    labels, answers = np.flatnonzero(prior > 0), np.flatnonzero(counts > 0)
    chances, counts, around = chances[np.ix_(labels, answers)], counts[answers], prior[labels]
    shares, total = around, strength + counts.sum()
    for _ in range(MAX_ITERATIONS):
        before = shares
        explained = chances @ (counts / np.maximum(shares @ chances, TINY))
        shares = (strength * around + shares * explained) / total
        if np.abs(shares - before).max(initial=0) < TOLERANCE:
            break
    out = np.zeros(len(prior))
    out[labels] = _to_shares(shares)
    return out


def weights_for_negative_share(
    gold: Ints, negative_ids: tuple[int, ...], share: float
) -> NDArray[np.float64]:
    """Return row weights under which the negative label has a given share (label shift).

    Returns:
        (N,) float64, mean 1.

    Raises:
        UsageError: there is no negative label, or all rows are negative, or none is.
    """
    is_negative = is_any_of(gold, negative_ids)
    found = float(is_negative.mean())
    if not 0.0 < found < 1.0:
        raise UsageError(
            f"scores cannot be reweighted to a negative-label share of {share}: the share in the "
            f"data is {found}; remove metrics.shifted_negative_share from the profile"
        )
    return np.where(is_negative, share / found, (1.0 - share) / (1.0 - found))
