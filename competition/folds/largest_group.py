"""Reject a group of rows that is too large for a fold, with remedies tried on the rows.

The remedy after which the fewest rows share a value with another fold comes first.

Legend: N train rows, K folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from competition.data.csv_records import show
from competition.data.groups import Int32s, build_groups, build_keys, name_group_column
from competition.data.rows import Rows
from competition.errors import FoldsError
from competition.folds.assignment import build_folds, count_leaking
from competition.profile import FoldRules

PAIR_COLUMNS = ("subject_word", "object_word")


@dataclass(frozen=True)
class Remedy:
    """Rules under which folds can be built, and the number of rows that leak then."""

    group_by: tuple[str, ...]
    count: int
    leaking: int


def check_largest_group(rows: Rows, groups: Int32s, rules: FoldRules) -> None:
    """Raise if one group would fill most of a fold, with possible remedies.

    Raises:
        FoldsError: a group of several rows exceeds 1/(2K) of the rows.
    """
    sizes = np.bincount(groups)
    largest = int(sizes.max())
    if _is_fair(largest, len(rows), rules.count):
        return
    is_largest = groups == sizes.argmax()
    lines = [
        f"grouped by {' and '.join(rules.group_by)}, one group holds {largest:,} of {len(rows):,} "
        f"train rows ({largest / len(rows):.0%}); with {rules.count} folds at most "
        f"{1 / (2 * rules.count):.0%} are allowed.",
        *(f"  {link}" for link in _describe_links(rows, rules.group_by, is_largest)),
        *_describe_remedies(
            sorted(find_remedies(rows, groups, rules), key=_rank), len(rows), rules
        ),
    ]
    raise FoldsError("\n".join(lines))


def _is_fair(largest: int, n_rows: int, count: int) -> bool:
    return largest == 1 or largest <= n_rows / (2 * count)


def _rank(remedy: Remedy) -> tuple[int, int, int]:
    return remedy.leaking, -remedy.count, -len(remedy.group_by)


def find_remedies(rows: Rows, groups: Int32s, rules: FoldRules) -> Iterator[Remedy]:
    """Yield similar rules under which folds can be built.

    These are fewer folds with all columns, or as many folds with each subset of the columns.
    """
    largest = int(np.bincount(groups).max())
    for count in range(rules.count - 1, 1, -1):
        if _is_fair(largest, len(rows), count) and _try(rows, groups, count, rules) is not None:
            yield Remedy(rules.group_by, count, 0)
            break
    for size in range(len(rules.group_by) - 1, -1, -1):
        for kept in combinations(rules.group_by, size):
            fewer = build_groups(rows, kept)
            if _is_fair(int(np.bincount(fewer).max()), len(rows), rules.count):
                fold_of = _try(rows, fewer, rules.count, rules)
                if fold_of is not None:
                    yield Remedy(kept, rules.count, count_leaking(groups, fold_of))


def _try(rows: Rows, groups: Int32s, count: int, rules: FoldRules) -> npt.NDArray[np.int8] | None:
    labels = rows.label_ids
    label_ids = np.zeros(len(rows), np.int16) if labels is None else labels
    try:
        return build_folds(label_ids, groups, count=count, seed=rules.seed)
    except FoldsError:
        return None


def _describe_remedies(remedies: list[Remedy], n_rows: int, rules: FoldRules) -> list[str]:
    if not remedies:
        return [
            "No choice of fewer columns or folds works; provide your own folds (folds.file in "
            "the profile), or more rows."
        ]
    tried = []
    for remedy in remedies:
        leak = f"{remedy.leaking:,} of {n_rows:,} rows ({remedy.leaking / n_rows:.1%}) would"
        then = "no row would" if not remedy.leaking else leak
        tried.append(f"  {_write(remedy, rules)}: {then} share one of these with another fold")
    return [
        "Tried on these rows:",
        *tried,
        f"Set {_write(remedies[0], rules)} in the profile's [folds]: it leaks the fewest "
        "rows. Leaked rows make scores too optimistic.",
    ]


def _write(remedy: Remedy, rules: FoldRules) -> str:
    if remedy.count != rules.count:
        return f"count = {remedy.count}"
    columns = ", ".join(f'"{column}"' for column in remedy.group_by)
    return f"group_by = [{columns}]"


def _describe_links(
    rows: Rows, columns: Sequence[str], mask: npt.NDArray[np.bool_]
) -> Iterator[str]:
    """Describe the value of each column that links most rows of a group, if it links any."""
    for column in columns:
        keys = build_keys(rows, column)
        values, counts = np.unique(keys[mask], return_counts=True)
        if counts.max() == 1:
            continue
        row = rows.frame.iloc[int(np.flatnonzero(keys == values[counts.argmax()])[0])]
        names = PAIR_COLUMNS if column == "entity_pair" else (name_group_column(column),)
        value = " / ".join(str(row[name]) for name in names)
        yield f"{column}: {int(counts.max()):,} of them share {show(value)}"
