"""Find the real label order of columns, by the gold labels of out-of-fold rows.

Columns without names are taken in the profile's order; another order is the classic way to lose.
It shows at once: unchanged they score next to nothing, permuted they score well.

Legend: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.arrays import Ints
from competition.errors import UsageError
from competition.file_kind import WrongFileError, read_text
from competition.files import parse_json

FIT = 0.15
"""Share of rows by which a permutation must be better than the columns unchanged."""
MIN_KAPPA = 0.3
DOUBTFUL_ROWS = 3
"""An order with a name is in doubt if the best permutation answers so many more rows right.

Two rare labels that a model confuses gain a row or two by being swapped; two columns that are
swapped gain most of their rows.
"""

MAX_DIGITS = 10  # of a label's number

Places = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class FoundOrder:
    """Another order than the one assumed.

    Attributes:
        places: (C,) the column of each label of the profile.
        name: what the order is called ("alphabetical"), None where it has no name.
        share: of the rows that the best permutation answers right; ``as_is`` without any.
    """

    places: Places
    name: str | None
    share: float
    as_is: float


def find_order(
    gold: Ints, answers: Ints, labels: Sequence[str], file_gold: Ints | None = None
) -> FoundOrder | None:
    """Find the permutation of labels under which answers fit a reference far better than as is.

    Args:
        gold: (N,) label ids of the reference: gold labels, or what other members answer.
        answers: (N,) label ids in the order of the columns.
        labels: the profile's.
        file_gold: label ids of all train rows in the order of their file, which tools number labels
            by; None: ``gold``.

    Returns:
        None if the columns fit unchanged, or no permutation fits.
    """
    from scipy.optimize import linear_sum_assignment

    if not len(gold):
        return None
    n_labels = len(labels)
    counts = np.zeros((n_labels, n_labels), dtype=np.int64)  # (label, column)
    np.add.at(counts, (gold, answers), 1)
    # labels that decide nothing stay where they are
    weight = counts + 1e-6 * np.eye(n_labels)
    places = linear_sum_assignment(weight, maximize=True)[1].astype(np.intp)
    as_is, best = np.trace(counts) / len(gold), _fit(counts, places)
    chance = float((counts.sum(axis=1) / len(gold)).max())
    if best < as_is + FIT or best < chance + MIN_KAPPA * (1 - chance):
        return None
    named = _list_named(gold if file_gold is None else file_gold, labels)
    name = max(named, key=lambda each: _fit(counts, named[each]))
    fit = _fit(counts, named[name])
    if (best - fit) * len(gold) < DOUBTFUL_ROWS - 0.5:
        return FoundOrder(named[name], name, fit, as_is)
    return FoundOrder(places, None, best, as_is)


def _fit(counts: NDArray[np.int64], places: Places) -> float:
    return float(counts[np.arange(len(places)), places].sum() / counts.sum())


def _list_named(gold: Ints, labels: Sequence[str]) -> dict[str, Places]:
    """Return the orders that tools produce by default, as the column of each label."""
    n_labels = len(labels)
    share = np.bincount(gold, minlength=n_labels)
    seen, first = np.unique(gold, return_index=True)
    by_first = [*seen[np.argsort(first)].tolist()]
    by_first += [label for label in range(n_labels) if label not in by_first]
    orders = {
        "alphabetical": sorted(range(n_labels), key=lambda i: labels[i]),
        "alphabetical, whatever the case": sorted(range(n_labels), key=lambda i: labels[i].lower()),
        "of first appearance in the train file": by_first,
        "by number of rows": sorted(range(n_labels), key=lambda i: -share[i]),
        "reversed": list(range(n_labels))[::-1],
    }
    return {name: np.argsort(np.array(order)).astype(np.intp) for name, order in orders.items()}


def read_label_order(text: str, labels: Sequence[str]) -> Places:
    """Return the column of each label of the profile, from an order that the user names.

    Args:
        text: ``alphabetical``, or a file: one label a line, a JSON list, or a JSON object that
            maps each label to its number.

    Raises:
        UsageError: the file holds other labels.
    """
    if text == "alphabetical":
        return np.argsort(np.array(sorted(range(len(labels)), key=lambda i: labels[i])))
    path = Path(text)
    try:
        said = read_text(path).strip()
    except (WrongFileError, OSError) as error:
        known = "a file of labels (one a line, or JSON), or 'alphabetical'"
        raise UsageError(f"--label-order {text}: {error}; give {known}") from None
    order = _parse_order(said)
    if sorted(order) != sorted(labels):
        odd = sorted({*order} ^ {*labels})[:3]
        raise UsageError(
            f"--label-order {text}: it names other labels than the profile ({', '.join(odd)}, …);"
            " write each label of the profile once, in the order of the columns"
        )
    return np.array([order.index(label) for label in labels], dtype=np.intp)


def _parse_order(text: str) -> list[str]:
    try:
        found = parse_json(text)
    except (ValueError, RecursionError):
        return [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        if len(lists) == 1 and len(found) <= 2:  # {"relations": [...]}
            found = lists[0]
        elif all(type(value) is int for value in found.values()):
            return sorted(map(str, found), key=lambda label: int(found[label]))
        elif all(key.isdecimal() and len(key) < MAX_DIGITS for key in found):
            return [str(found[key]) for key in sorted(found, key=int)]
    return [str(each) for each in found] if isinstance(found, list) else []


def describe_order(places: Places, labels: Sequence[str]) -> str:
    """Describe which labels the columns hold, up to five of those that are elsewhere."""
    moved = [i for i, place in enumerate(places) if i != place]
    some = ", ".join(f"{labels[places[i]]} holds {labels[i]}" for i in moved[:5])
    return f"{some}{f' and {len(moved) - 5} more' if len(moved) > 5 else ''}"
