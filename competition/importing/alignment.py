"""Detect members whose test rows are not those of their ids, without test labels.

Used by ``import`` and ``blend``. Rows written beside ids in another order (a shuffled loader,
batches sorted by length, a shift by one) or labels in another order leave every file valid. But
such a member agrees with the others on out-of-fold rows and with none of them on test rows, and
its labels no longer fit the types of the entities.

Legend: N train rows, M test rows, K folds, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Bools, Int64s, Ints
from competition.data.rows import Rows
from competition.folds.kfold import Prepared
from competition.importing.label_order import find_order
from competition.predictions.members import Member

MIN_KAPPA = 0.2
"""Chance-corrected agreement on one side from which on the other side can be judged by it."""
LOST = 0.5
"""A side is lost where less than this share of the other side's agreement is left."""
MIN_ROWS = 30  # on each side
SIGNIFICANT = 4.0  # standard errors of the difference
RESTORED = 0.4
"""An order of the rows is reported if it restores this share of the lost agreement."""
SHIFTS = (1, -1, 2, -2, 3, -3)

Side = Literal["oof", "test"]


@dataclass(frozen=True, slots=True)
class Misalignment:
    """A member whose rows are not those of the ids beside them.

    Attributes:
        member: its name.
        side: ``test`` or ``oof``.
        found: what was measured, the beginning of a sentence.
        reason: what restores the agreement; None if nothing tried does.
    """

    member: str
    side: Side
    found: str
    reason: str | None

    @property
    def text(self) -> str:
        """Return what was found and what to do."""
        rows = "test" if self.side == "test" else "out-of-fold"
        reason = self.reason or f"its {rows} predictions are in another order than their ids"
        return (
            f"{self.found}: {reason}. Write each prediction beside the id of the very row it was"
            " made from, and import it again; do not blend it as it is"
        )


@dataclass(frozen=True)
class _Agreement:
    """How two lists of labels agree: the share of rows, by chance, and how many rows."""

    share: float
    chance: float
    n_rows: int

    @property
    def kappa(self) -> float:
        """Return the agreement beyond chance, Cohen's kappa."""
        return (self.share - self.chance) / max(1e-9, 1 - self.chance)

    @property
    def error(self) -> float:
        """Return the standard error of kappa."""
        spread = np.sqrt(max(self.share * (1 - self.share), 1e-9) / max(1, self.n_rows))
        return float(spread / max(1e-9, 1 - self.chance))


def find_misaligned(
    members: Sequence[Member], prepared: Prepared, names: Sequence[str] | None = None
) -> list[Misalignment]:
    """Return the members whose rows on one side are not those of their ids.

    Args:
        members: to compare, those that predict every row. A single one is judged only by the types
            of its entities.
        names: the members to judge; None: all.
    """
    whole = [member for member in members if member.covers_all]
    answers = [_Answers(member) for member in whole]
    corpus = prepared.corpus
    types = _TypeFit(corpus.train, corpus.train.gold, prepared.competition.profile.n_labels)
    found = []
    for place, own in enumerate(answers):
        if names is not None and own.name not in names:
            continue
        others = [each for at, each in enumerate(answers) if at != place]
        judged = _judge(own, others, types, prepared)
        if judged is not None:
            found.append(judged)
    return found


class _Answers:
    """The most probable labels of a member: oof (N,), test (K, M), or (1, M) of one average."""

    def __init__(self, member: Member) -> None:
        self.name = member.name
        test = member.test[:1] if member.test_is_average else member.test
        self.oof: Int64s = member.oof.argmax(axis=1).astype(np.int64)
        self.test: Int64s = test.argmax(axis=2).astype(np.int64)
        self.average: Int64s = test.mean(axis=0, dtype=np.float32).argmax(axis=1).astype(np.int64)


def _judge(
    own: _Answers, others: Sequence[_Answers], types: _TypeFit, prepared: Prepared
) -> Misalignment | None:
    """Judge one member by the others, and by the types that its labels fit."""
    corpus = prepared.corpus
    fit = types.measure(corpus.train, own.oof), types.measure(corpus.test, own.average)
    pairs = [(_agree(own.oof, o.oof), _agree(own.average, o.average)) for o in others]
    lost = [_find_lost(*pair) for pair in pairs]
    n_sound = sum(_is_sound(*pair) for pair in pairs)
    sides = {side for side in lost if side is not None}
    is_cleared = len(others) == 1 and _is_sound(*fit)  # one of two is wrong: the other one
    if len(sides) == 1 and not n_sound and not is_cleared:
        (side,) = sides
        place = lost.index(side)
        return _describe_by_other(own, others[place], pairs[place], side, prepared)
    side_by_types = _find_lost(*fit)
    if side_by_types is not None and n_sound <= len(others) - n_sound:
        rows = corpus.test if side_by_types == "test" else corpus.train
        mine = own.average if side_by_types == "test" else own.oof
        reason = _find_reason(
            mine, rows, side_by_types, fit, lambda moved: types.measure(rows, moved).kappa
        )
        found = (
            f"the labels of {own.name} fit the types of the entities in"
            f" {100 * fit[0].share:.0f}% of out-of-fold rows with a relation and in"
            f" {100 * fit[1].share:.0f}% of such test rows"
        )
        return Misalignment(own.name, side_by_types, found, reason)
    return _judge_folds(own)


def _describe_by_other(
    own: _Answers,
    other: _Answers,
    pair: tuple[_Agreement, _Agreement],
    side: Side,
    prepared: Prepared,
) -> Misalignment:
    """Describe a member that agrees with another one on one side only, and look for the reason."""
    found = (
        f"{own.name} agrees with {other.name} on {100 * pair[0].share:.0f}% of out-of-fold rows"
        f" and on {100 * pair[1].share:.0f}% of test rows"
    )
    corpus, is_test = prepared.corpus, side == "test"
    mine, reference = (own.average, other.average) if is_test else (own.oof, other.oof)
    if find_order(reference, mine, prepared.competition.profile.labels) is not None:
        where = "test" if is_test else "out-of-fold"
        return Misalignment(own.name, side, found, f"its {where} columns hold another label order")
    reason = _find_reason(
        mine,
        corpus.test if is_test else corpus.train,
        side,
        pair,
        lambda moved: _agree(moved, reference).kappa,
    )
    return Misalignment(own.name, side, found, reason)


def _judge_folds(own: _Answers) -> Misalignment | None:
    """Compare the test predictions of each fold with those of the other folds."""
    if len(own.test) < 3:
        return None
    for fold, answers in enumerate(own.test):
        rest = np.delete(own.test, fold, axis=0)
        mine = np.mean([_agree(answers, each).kappa for each in rest])
        theirs = [_agree(a, b).kappa for at, a in enumerate(rest) for b in rest[at + 1 :]]
        if np.mean(theirs) > MIN_KAPPA and mine < LOST * float(np.min(theirs)):
            share = np.mean([_agree(answers, each).share for each in rest])
            usual = np.mean(
                [_agree(a, b).share for at, a in enumerate(rest) for b in rest[at + 1 :]]
            )
            found = (
                f"{own.name}: the test predictions of fold {fold} agree with those of its other"
                f" folds on {100 * share:.0f}% of the rows, the others with one another on"
                f" {100 * usual:.0f}%"
            )
            reason = f"those of fold {fold} are in another order"
            return Misalignment(own.name, "test", found, reason)
    return None


def _agree(first: Int64s, second: Int64s) -> _Agreement:
    size = int(max(first.max(initial=0), second.max(initial=0))) + 1
    shares = [np.bincount(each, minlength=size) / max(1, len(each)) for each in (first, second)]
    share = float((first == second).mean()) if len(first) else 0.0
    return _Agreement(share, float(shares[0] @ shares[1]), len(first))


def _find_lost(oof: _Agreement, test: _Agreement) -> Side | None:
    """Return the side on which the agreement of the other one is lost."""
    sides: tuple[tuple[Side, _Agreement, _Agreement], ...] = (
        ("test", oof, test),
        ("oof", test, oof),
    )
    for side, kept, lost in sides:
        if min(kept.n_rows, lost.n_rows) < MIN_ROWS:
            return None
        gap = kept.kappa - lost.kappa
        noise = SIGNIFICANT * float(np.hypot(kept.error, lost.error))
        if kept.kappa >= MIN_KAPPA and lost.kappa < LOST * kept.kappa and gap > noise:
            return side
    return None


def _is_sound(oof: _Agreement, test: _Agreement) -> bool:
    """Return whether both sides agree well beyond chance, so that neither is lost."""
    return min(oof.kappa, test.kappa) >= MIN_KAPPA and _find_lost(oof, test) is None


class _TypeFit:
    """Which labels occur with which pair of entity types in the train rows."""

    def __init__(self, train: Rows, gold: Ints, n_labels: int) -> None:
        pairs = _pair_types(train)
        self._place = {pair: place for place, pair in enumerate(sorted(set(pairs)))}
        counts = np.zeros((len(self._place), n_labels), dtype=np.int64)
        np.add.at(counts, (self._find(pairs), np.asarray(gold)), 1)
        self._seen: Bools = counts > 0
        self._is_typed = self._seen.sum(axis=0) < len(self._place)  # labels that not every pair has

    def _find(self, pairs: Sequence[tuple[str, str]]) -> Int64s:
        return np.array([self._place.get(pair, -1) for pair in pairs], dtype=np.int64)

    def measure(self, rows: Rows, answers: Int64s) -> _Agreement:
        """Return the share of rows whose label occurs with their types, and that by chance.

        Only labels that some types never have, and rows with types that train has, are counted.
        """
        places = self._find(_pair_types(rows))
        is_used = (places >= 0) & self._is_typed[answers]
        if not is_used.any():
            return _Agreement(0.0, 0.0, 0)
        places, answers = places[is_used], answers[is_used]
        fits = self._seen[places, answers]
        by_pair = np.bincount(places, minlength=len(self._seen)) / len(places)
        chance = (by_pair @ self._seen)[answers].mean()
        return _Agreement(float(fits.mean()), float(chance), len(fits))


def _pair_types(rows: Rows) -> list[tuple[str, str]]:
    frame = rows.frame
    return list(
        zip(frame["subject_type"].astype(str), frame["object_type"].astype(str), strict=True)
    )


def _find_reason(
    answers: Int64s,
    rows: Rows,
    side: Side,
    pair: tuple[_Agreement, _Agreement],
    measure: Callable[[Int64s], float],
) -> str | None:
    """Return the order that restores the agreement, if one of those tried does."""
    low, high = sorted(each.kappa for each in pair)
    best, reason = low + RESTORED * (high - low), None
    which = "test" if side == "test" else "out-of-fold"
    for said, moved in _list_orders(answers, rows):
        kappa = measure(moved)
        if kappa > best:
            best, reason = kappa, f"its {which} predictions {said}"
    return reason


def _list_orders(answers: Int64s, rows: Rows) -> Iterator[tuple[str, Int64s]]:
    """Yield orders in which a loader may have returned rows, with the answers put back."""
    for shift in SHIFTS:
        rows_ = "row" if abs(shift) == 1 else "rows"
        where = "too late" if shift > 0 else "too early"
        yield f"are {abs(shift)} {rows_} {where}", np.roll(answers, -shift)
    yield "are in reversed order", answers[::-1]
    lengths = rows.frame["sentence"].str.len().to_numpy()
    ids = rows.ids.astype(str)
    orders: dict[str, NDArray[np.intp]] = {
        "are sorted by length, the shortest first": np.argsort(lengths, kind="stable"),
        "are sorted by length, the longest first": np.argsort(-lengths, kind="stable"),
        "are sorted by id as text": np.argsort(ids, kind="stable"),
    }
    for said, order in orders.items():
        moved = np.empty_like(answers)
        moved[order] = answers
        yield said, moved
