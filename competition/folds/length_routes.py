"""Length routes: assign rows to the short, medium or long specialist, frozen like the folds.

The limits between routes come from the profile, or are the terciles of the train rows' lengths.
Lengths are measured once, by the first training run, so that all specialists of a store split the
rows in the same way.

Legend: N train rows, M test rows, K folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.arrays import Ints, Objects
from competition.data.csv_records import show
from competition.data.rows import Rows
from competition.errors import FoldsError, Offence
from competition.folds.frozen_table import (
    FrozenTable,
    Record,
    build_text,
    hash_text,
    read_records,
    refuse,
)
from competition.folds.kfold import Prepared

HEADER = ("id", "split", "route")
LENGTH_ROUTES = ("short", "medium", "long")

Measure = Callable[[Rows], Ints]


@dataclass(frozen=True)
class Routes:
    """The route of every row.

    Attributes:
        train: (N,) str objects, in the order of the train rows.
        test: (M,) str objects, in the order of the test rows.
        names: the routes, shortest first.
        hash: SHA-256 over ids, splits and routes.
        borders: maximum lengths of short and medium rows, in ``unit``; None for a user's own file.
        unit: of the lengths; "own file" for a user's own file.
    """

    train: Objects
    test: Objects
    names: tuple[str, ...]
    hash: str
    borders: tuple[int, int] | None
    unit: str


def read_or_make_length_routes(prepared: Prepared, measure: Measure | None, unit: str) -> Routes:
    """Read the frozen length routes of these rows, or build and freeze them.

    Args:
        measure: rows → (n,) non-negative lengths; None if lengths cannot be measured here.
        unit: of the lengths, such as ``tokens of klue/roberta-large``.

    Raises:
        FoldsError: there are neither routes nor a measure; the routes were changed or belong to
            other rows; a route would have no row in some fold.
    """
    table = FrozenTable(prepared.competition.oof_dir / "routes", "length")
    with table.lock():
        origin = table.read_origin()
        if table.csv_path.exists():
            return _read_frozen(table, origin, prepared)
        if measure is None:
            raise FoldsError(
                f"{table.csv_path} does not exist yet: it is built when the first length "
                "specialist is trained. Train one (for example: fold short), then try again."
            )
        return _make(table, origin, prepared, measure, unit)


def _profile_borders(prepared: Prepared) -> tuple[int, int] | None:
    rules = prepared.competition.profile.routes.length
    if rules.short_max_tokens is None or rules.medium_max_tokens is None:
        return None
    return rules.short_max_tokens, rules.medium_max_tokens


def build_borders(lengths: npt.NDArray[Any]) -> tuple[int, int]:
    """Return the terciles of lengths: the maximum short and the maximum medium length.

    >>> build_borders(np.array([5, 1, 3, 2, 4, 6]))
    (2, 4)
    """
    low, high = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    return int(low), int(high)


def route_lengths(lengths: npt.NDArray[Any], borders: tuple[int, int]) -> Objects:
    """Return the route of each length.

    >>> route_lengths(np.array([1, 2, 3, 9]), (2, 4)).tolist()
    ['short', 'short', 'medium', 'long']
    """
    return np.asarray(LENGTH_ROUTES, dtype=object)[np.searchsorted(borders, lengths)]


def _measure(rows: Rows, measure: Measure) -> npt.NDArray[Any]:
    lengths = np.asarray(measure(rows))
    if lengths.shape != (len(rows),):
        raise ValueError(f"{len(rows)} rows were measured as an array of shape {lengths.shape}")
    return lengths


def _make(
    table: FrozenTable,
    origin: dict[str, Any] | None,
    prepared: Prepared,
    measure: Measure,
    unit: str,
) -> Routes:
    train_lengths = _measure(prepared.corpus.train, measure)
    test_lengths = _measure(prepared.corpus.test, measure)
    borders = _profile_borders(prepared) or build_borders(train_lengths)
    train, test = route_lengths(train_lengths, borders), route_lengths(test_lengths, borders)
    text = _build_text(prepared, train, test)
    made: dict[str, Any] = {
        "source": "made",
        "hash": hash_text(text),
        "unit": unit,
        "borders": list(borders),
        "borders_from": "profile" if _profile_borders(prepared) else "terciles",
    }
    if origin is not None and origin["hash"] != made["hash"]:
        raise table.lost()
    routes = _finish(train, test, made)
    _check_filled(table.csv_path, routes, prepared)
    table.write(text, made)
    return routes


def _read_frozen(table: FrozenTable, origin: dict[str, Any] | None, prepared: Prepared) -> Routes:
    records = read_records(table.csv_path, HEADER)
    if origin is not None:
        _check_same_rows(table, origin, records, prepared)
    train, test = _place_routes(table.csv_path, records, prepared)
    text = _build_text(prepared, train, test)
    is_new = origin is None
    if origin is None:
        origin = {"source": "own file", "hash": hash_text(text), "unit": "own file"}
    if hash_text(text) != origin["hash"]:
        raise table.changed()
    wanted, borders = _profile_borders(prepared), origin.get("borders")
    if wanted is not None and borders is not None and list(wanted) != borders:
        raise FoldsError(
            f"{table.csv_path} was built with the borders {borders}, but the profile's "
            f"routes.length says {list(wanted)}. Restore the profile, or delete "
            f"{table.csv_path.name} and {table.json_path.name} to build new routes; old results of "
            "length specialists cannot be blended with new ones."
        )
    routes = _finish(train, test, origin)
    _check_filled(table.csv_path, routes, prepared)
    if is_new:
        table.adopt(origin)
    return routes


def _check_same_rows(
    table: FrozenTable, origin: dict[str, Any], records: Sequence[Record], prepared: Prepared
) -> None:
    corpus = prepared.corpus
    rows = [(id_, "train") for id_ in corpus.train.ids.tolist()]
    rows += [(id_, "test") for id_ in corpus.test.ids.tolist()]
    paths = (*prepared.competition.train_paths, prepared.competition.test_path)
    files = " and ".join(map(str, paths))
    table.check_same_rows(records, origin, rows, HEADER, what="rows", files=files)


def _finish(train: Objects, test: Objects, origin: dict[str, Any]) -> Routes:
    borders = origin.get("borders")
    pair = None if borders is None else (int(borders[0]), int(borders[1]))
    return Routes(train, test, LENGTH_ROUTES, origin["hash"], pair, str(origin.get("unit")))


def _build_text(prepared: Prepared, train: Objects, test: Objects) -> str:
    corpus = prepared.corpus
    ids = [*corpus.train.ids.tolist(), *corpus.test.ids.tolist()]
    splits = ["train"] * len(train) + ["test"] * len(test)
    return build_text(HEADER, ids, splits, [*train.tolist(), *test.tolist()])


def _check_filled(path: Path, routes: Routes, prepared: Prepared) -> None:
    """Raise if a route has no row in some fold: its specialist could not be scored there."""
    fold_of, count = prepared.folds.fold_of, prepared.folds.count
    empty = []
    for name in routes.names:
        filled = np.bincount(fold_of[routes.train == name], minlength=count)
        folds = np.flatnonzero(filled == 0)
        if len(folds) == count:
            empty.append(f"{name} (in no fold)")
        elif len(folds):
            empty.append(f"{name} (not in fold {', '.join(map(str, folds))})")
    if empty:
        borders = "" if routes.borders is None else f" with the borders {list(routes.borders)}"
        raise FoldsError(
            f"{path.name}{borders} has routes without train rows: {'; '.join(empty)}. Set other "
            "borders in the profile (routes.length.short_max_tokens, medium_max_tokens)."
        )


def _place_routes(
    path: Path, records: Sequence[Record], prepared: Prepared
) -> tuple[Objects, Objects]:
    """Assign the lines of ``id,split,route``, in any order, to exactly these rows.

    Returns:
        (N,) and (M,) route names of train and test rows.
    """
    parts = {"train": prepared.corpus.train.ids, "test": prepared.corpus.test.ids}
    places = {split: {id_: i for i, id_ in enumerate(ids)} for split, ids in parts.items()}
    found: dict[str, list[str | None]] = {split: [None] * len(ids) for split, ids in parts.items()}
    offences: list[Offence] = []

    def offend(line: int | None, column: str, id_: str, what: str, remedy: str) -> None:
        offences.append(Offence(path.name, line, column, id_, what, remedy))

    for line, (id_, split, route) in records:
        if split not in parts:
            offend(line, "split", id_, f"split {show(split)}", "write train or test")
        elif id_ not in places[split]:
            offend(line, "id", id_, f"no {split} row has this id", "remove the line")
        elif found[split][places[split][id_]] is not None:
            offend(line, "id", id_, f"this {split} row is listed twice", "list each row once")
        elif route not in LENGTH_ROUTES:
            offend(line, "route", id_, f"route {show(route)}", f"use {', '.join(LENGTH_ROUTES)}")
        else:
            found[split][places[split][id_]] = route
    if not offences:
        for split, ids in parts.items():
            for id_, route_found in zip(ids, found[split], strict=True):
                if route_found is None:
                    offend(None, "id", id_, f"this {split} row has no route", "add one")
    refuse(path, offences)
    return np.asarray(found["train"], dtype=object), np.asarray(found["test"], dtype=object)
