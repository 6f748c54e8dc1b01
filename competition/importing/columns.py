"""Recognise the columns of a table from another tool: id, split, fold, probabilities.

Between ``cells`` and ``rows``. Columns are found by their names and the names'
usual synonyms, probabilities as one column for each label (with a prefix, or by number) or as one
column of lists. Deviations from the documented form are reported once.

Legend: C labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from competition.data.csv_records import describe_missing, show
from competition.data.values import parse_value
from competition.importing.cells import Cells, CellTable
from competition.profile import Profile

ID, SPLIT, FOLD = "id", "split", "fold"
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    ID: ("id", "ids", "rowid", "sampleid", "exampleid", "guid", "uid", "index", "idx", "unnamed0"),
    SPLIT: ("split", "part", "set", "subset", "dataset", "phase", "istest", "구분"),
    FOLD: ("fold", "folds", "kfold", "foldid", "foldno", "cv", "cvfold", "foldindex"),
}
LIST_NAMES = (
    "probs", "prob", "probabilities", "probability", "proba", "probas", "predprobs",
    "predproba", "softmax", "logits", "logit", "scores", "outputs", "output",
    "predictions", "prediction", "preds", "pred",
)  # fmt: skip
INDEX_NAMES = ("", "__index_level_0__")  # what pandas calls an index without a name
_NUMBER_AT_END = re.compile(r"(.*?)([0-9]{1,5})")
_NEVER = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class ColumnMap:
    """The recognised columns.

    Attributes:
        id, split, fold: names of columns, None where there is none.
        labels: the column of each label in the profile's order, or empty where ``lists`` is set.
        lists: the column whose cells hold all C numbers of a row.
        is_named: the columns name their labels; else the order of the profile is assumed.
        notices: deviations from the documented form, and unused columns.
        index: the index of a data frame, a column without a name; None if there are ids.
    """

    id: str | None
    split: str | None
    fold: str | None
    labels: tuple[str, ...] = ()
    lists: str | None = None
    is_named: bool = True
    notices: tuple[str, ...] = ()
    index: str | None = None


@dataclass
class ColumnError(Exception):
    """Columns that cannot be understood: (column, found, remedy) of each."""

    faults: list[tuple[str | None, str, str]] = field(default_factory=list)


def find_columns(table: CellTable, profile: Profile) -> ColumnMap:
    """Recognise each column.

    Raises:
        ColumnError: no column holds the probabilities, or some labels have none.
    """
    names, notices = list(table.columns), list[str]()
    own = {ID: (profile.columns.id, profile.submission.id_column)}
    exact = {*SYNONYMS, *own[ID]}
    labels, is_named, said = _find_labels([n for n in names if n not in exact], profile.labels)
    others = [name for name in names if name not in labels]  # a label may be called "index"
    places = {what: _find_synonym(what, others, own.get(what, ())) for what in SYNONYMS}
    notices += [
        f"column {show(name)} is read as {what}"
        for what, name in places.items()
        if name is not None and name != what and name not in own.get(what, ())
    ]
    left = [name for name in names if name not in places.values() or name is None]
    lists = None if labels else _find_lists(table, left, profile)
    if not labels and lists is None:
        raise ColumnError(_explain(table, [n for n in names if n not in exact], profile))
    notices += said
    if lists is not None:
        cell = _first_cell(table.columns[lists])
        is_named = isinstance(_parse(cell), dict)
        if _plain(lists) not in ("probs", _plain(profile.submission.probs_column or "probs")):
            notices.append(f"column {show(lists)} is read as the probabilities")
    unused = [name for name in left if name not in (*labels, lists, *INDEX_NAMES)]
    unused = [name for name in unused if name != profile.submission.label_column]
    if unused:
        notices.append(f"columns not used: {', '.join(unused[:10])[:200]}")
    own_id, index = places[ID], None
    if own_id is None:
        index = next((name for name in left if name in INDEX_NAMES), None)
    return ColumnMap(
        own_id, places[SPLIT], places[FOLD], labels, lists, is_named, tuple(notices), index
    )


def _plain(name: str) -> str:
    """Return a name without case and punctuation, to compare synonyms.

    >>> _plain("Fold_ID"), _plain("Unnamed: 0")
    ('foldid', 'unnamed0')
    """
    return _NEVER.sub("", name).lower()


def _find_synonym(what: str, names: Sequence[str], own: Sequence[str | None]) -> str | None:
    for exact in (what, *own):
        if exact is not None and exact in names:
            return exact
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(_plain(name), name)
    return next((by_plain[each] for each in SYNONYMS[what] if each in by_plain), None)


def _find_labels(
    names: Sequence[str], labels: Sequence[str]
) -> tuple[tuple[str, ...], bool, list[str]]:
    """Return each label's column, whether columns name the labels, and notices."""
    if set(labels) <= set(names):
        return tuple(labels), True, []
    keys = {label: _plain(label) for label in labels}
    if len(set(keys.values())) == len(labels) and all(keys.values()):
        plain: dict[str, str] = {}
        for name in names:
            plain.setdefault(_plain(name), name)
        for start, end in _find_affixes(plain, list(keys.values())):
            found = tuple(plain[start + key + end] for key in keys.values())
            pattern = f"{start}<label>{end}" if start or end else "labels written otherwise"
            said = f"columns are {pattern} ({show(found[0])} is {show(labels[0])}): read so"
            return found, True, [said]
    return _find_numbered(names, labels)


def _find_affixes(plain: Mapping[str, str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return the text before and after every label that names a column for each of them."""
    first = keys[0]
    tried = {
        (name[: name.index(first)], name[name.index(first) + len(first) :])
        for name in plain
        if first in name
    }
    tried |= {
        (name[: name.rindex(first)], name[name.rindex(first) + len(first) :])
        for name in plain
        if first in name
    }
    fits = [each for each in tried if all(each[0] + key + each[1] in plain for key in keys)]
    return sorted(fits, key=lambda each: (len(each[0]) + len(each[1]), each))


def _find_numbered(
    names: Sequence[str], labels: Sequence[str]
) -> tuple[tuple[str, ...], bool, list[str]]:
    """Find columns ``0 … C-1`` or ``1 … C``, with any prefix."""
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        if (found := _NUMBER_AT_END.fullmatch(name)) is not None:
            groups.setdefault(found[1], {})[int(found[2])] = name
    for start, numbered in groups.items():
        for first in (0, 1):
            wanted = range(first, first + len(labels))
            if set(numbered) == set(wanted):
                said = (
                    f"columns are numbers ({show(start + str(first))} is {show(labels[0])}): read"
                    " as places in the profile's labels"
                )
                return tuple(numbered[number] for number in wanted), False, [said]
    return (), True, []


def _find_lists(table: CellTable, names: Sequence[str], profile: Profile) -> str | None:
    """Return the column whose first cell holds C numbers, the best named first."""
    order = [_plain(profile.submission.probs_column or "probs"), *LIST_NAMES]

    def rank(name: str) -> int:
        plain = _plain(name)
        return order.index(plain) if plain in order else len(order)

    fitting = [name for name in names if _is_list(table.columns[name], profile.n_labels)]
    return min(fitting, key=rank, default=None)


def _first_cell(cells: Cells) -> Any:
    return next((cell for cell in cells if not isinstance(cell, str) or cell.strip()), "")


def _is_list(cells: Cells, n_labels: int) -> bool:
    found = _parse(_first_cell(cells)) if cells.dtype == object else None
    return isinstance(found, list | dict) and len(found) == n_labels


def _parse(cell: Any) -> Any:
    return parse_numbers(cell) if not isinstance(cell, dict) else cell


def parse_numbers(cell: Any) -> list[float] | dict[str, Any] | None:
    """Read the numbers of a cell: a list, its text, also as NumPy prints it, or a dict by label.

    >>> parse_numbers("[0.5, 5e-1]"), parse_numbers("[0.5 0.5]"), parse_numbers("0.5, 0.5")
    ([0.5, 0.5], [0.5, 0.5], None)
    """
    if isinstance(cell, str):
        text = cell.strip()
        if text.startswith("{"):
            try:
                found = parse_value(text)
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
        if text.startswith("array(") and text.endswith(")"):
            text = re.sub(r",\s*dtype=\w+\)$", ")", text)[len("array(") : -1].strip()
        if not (text.startswith("[") and text.endswith("]")):
            return None
        cell = text[1:-1].replace(",", " ").split()
    if isinstance(cell, dict):
        return cell
    try:
        return [float(each) for each in cell]
    except (TypeError, ValueError):
        return None


def _explain(
    table: CellTable, names: Sequence[str], profile: Profile
) -> list[tuple[str | None, str, str]]:
    """Explain why the probabilities were not found."""
    labels = profile.labels
    absent = [label for label in labels if label not in names]
    if len(absent) < len(labels):
        by_label = "name one column after each label of the profile; their order does not matter"
        return [(label, describe_missing(label, names)[0], by_label) for label in absent]
    lists = [name for name in names if isinstance(_parse(_first_cell(table.columns[name])), list)]
    if lists:
        count = len(_parse(_first_cell(table.columns[lists[0]])))
        found = f"{count} numbers where there are {len(labels)} labels"
        return [(lists[0], found, "write one number for each label of the profile, in its order")]
    found = f"no column holds probabilities; the header has {show(', '.join(table.columns))}"
    if profile.submission.label_column in names:
        found = f"labels without probabilities; the header has {show(', '.join(table.columns))}"
    remedy = (
        "write one column for each label, named after it, or one column"
        f" {profile.submission.probs_column or 'probs'!r} with a list of {len(labels)} numbers"
    )
    return [(None, found, remedy)]
