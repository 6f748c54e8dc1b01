"""Corpus → folds: stratified by label, grouped by what rows share, frozen on disk.

After ``corpus`` on the way of a row. Folds are made once per competition and verified ever after;
whatever is blended shares their hash. A person's own file is accepted, checked, and said to leak
where it does.

Legend: N train rows, K folds, G groups, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.arrays import Objects
from competition.data.corpus import Corpus, read_corpus
from competition.data.csv_records import show
from competition.data.groups import Int32s, build_groups, sample_rows
from competition.errors import FoldsError, Offence
from competition.folds.assignment import Int8s, build_folds, count_leaking
from competition.folds.frozen_table import (
    FrozenTable,
    Record,
    build_text,
    hash_text,
    read_records,
    refuse,
)
from competition.folds.largest_group import check_largest_group
from competition.profile import Competition

__all__ = [
    "Folds",
    "Prepared",
    "build_folds",
    "build_groups",
    "check_largest_group",
    "count_leaking",
    "read_or_make_folds",
    "read_prepared",
    "sample_rows",
]

HEADER = ("id", "fold")
MAX_FOLDS = 100


@dataclass(frozen=True)
class Folds:
    """Which fold holds each train row out.

    Attributes:
        fold_of: (N,) int8 in [0, K), in the order of the train rows.
        count: K.
        hash: SHA-256 over ids and folds.
        notices: what a person's own file does that a made one would not.
    """

    fold_of: Int8s
    count: int
    hash: str
    notices: tuple[Offence, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """Everything about the data that a later room needs.

    Attributes:
        groups: (N,) int32, the rows that must not be parted; intervals resample them.
    """

    competition: Competition
    corpus: Corpus
    groups: Int32s
    folds: Folds


def read_prepared(competition: Competition) -> Prepared:
    """Read and check the corpus, group its train rows, read or make the folds.

    Raises:
        CorpusError: rows cannot be used.
        FoldsError: folds cannot be made, or are not those of these rows.
        UsageError: the limit gives no fair sample.
    """
    corpus = read_corpus(competition)
    groups = build_groups(corpus.train, competition.profile.folds.group_by)
    return Prepared(competition, corpus, groups, read_or_make_folds(competition, corpus, groups))


def read_or_make_folds(competition: Competition, corpus: Corpus, groups: Int32s) -> Folds:
    """Read the frozen folds of these rows, or make and freeze them.

    Taken in this order: ``oof/<competition>/folds.csv`` when it is there, the file that the
    profile names as ``folds.file``, folds made from the profile's rules.

    Args:
        competition: where, and by which rules.
        corpus: whose N train rows.
        groups: (N,) of ``build_groups``.

    Raises:
        FoldsError: folds cannot be made, were changed, or are not those of these rows.
    """
    table = FrozenTable(competition.oof_dir, "folds")
    with table.lock():
        origin = table.read_origin()
        if table.csv_path.exists():
            return _read_frozen(table, origin, competition, corpus, groups)
        return _make(table, origin, competition, corpus, groups)


def _build_text(corpus: Corpus, fold_of: Int8s) -> str:
    return build_text(HEADER, corpus.train.ids.tolist(), fold_of.tolist())


def _own_path(competition: Competition) -> Path | None:
    named = competition.profile.folds.file
    return None if named is None else competition.home / Path(named).expanduser()


def _rules_of(competition: Competition) -> dict[str, Any]:
    rules = competition.profile.folds
    return {"count": rules.count, "seed": rules.seed, "group_by": list(rules.group_by)}


def _read_frozen(
    table: FrozenTable,
    origin: dict[str, Any] | None,
    competition: Competition,
    corpus: Corpus,
    groups: Int32s,
) -> Folds:
    records = read_records(table.csv_path, HEADER)
    if origin is not None:
        rows = [(id_,) for id_ in corpus.train.ids.tolist()]
        files = str(competition.train_path)
        table.check_same_rows(records, origin, rows, HEADER, what="train rows", files=files)
    fold_of = _place_folds(table.csv_path, records, corpus.train.ids)
    text = _build_text(corpus, fold_of)
    if origin is None:
        origin = {"source": "own file", "hash": hash_text(text), "count": int(fold_of.max()) + 1}
        table.adopt(origin)
    if hash_text(text) != origin["hash"]:
        raise table.changed()
    own = _own_path(competition)
    if own is not None:
        _check_same_as_own(table, own, competition, corpus, origin)
    elif origin.get("source") == "made":
        _check_rules(table, origin, _rules_of(competition))
    return _finish(table.csv_path, fold_of, origin, groups)


def _check_same_as_own(
    table: FrozenTable, own: Path, competition: Competition, corpus: Corpus, origin: dict[str, Any]
) -> None:
    fold_of = read_fold_file(own, corpus.train.ids, may_have_more=competition.limit is not None)
    if hash_text(_build_text(corpus, fold_of)) != origin["hash"]:
        raise FoldsError(
            f"{own}, which the profile names as folds.file, differs from the frozen "
            f"{table.csv_path}. Results were or will be made with the frozen ones: take folds.file "
            f"out of the profile to keep them, or delete {table.csv_path.name} and "
            f"{table.json_path.name} to take the file's."
        )


def _check_rules(table: FrozenTable, origin: dict[str, Any], rules: dict[str, Any]) -> None:
    changed = [
        f"folds.{key} was {origin.get(key)!r} and is {value!r}"
        for key, value in rules.items()
        if origin.get(key) != value
    ]
    if changed:
        raise FoldsError(
            f"{table.csv_path} was made by other rules than the profile's: {'; '.join(changed)}. "
            f"Set the profile back, or delete {table.csv_path.name} and {table.json_path.name} to "
            "make new folds; results made with the old ones do not blend with the new."
        )


def _make(
    table: FrozenTable,
    origin: dict[str, Any] | None,
    competition: Competition,
    corpus: Corpus,
    groups: Int32s,
) -> Folds:
    rules, own = competition.profile.folds, _own_path(competition)
    made: dict[str, Any]
    if own is not None:
        limited = competition.limit is not None
        fold_of = read_fold_file(own, corpus.train.ids, may_have_more=limited)
        made = {"source": "own file", "count": int(fold_of.max()) + 1}
    else:
        check_largest_group(corpus.train, groups, rules)
        fold_of = build_folds(corpus.train.gold, groups, count=rules.count, seed=rules.seed)
        made = {"source": "made", **_rules_of(competition)}
    text = _build_text(corpus, fold_of)
    made["hash"] = hash_text(text)
    if origin is not None and origin["hash"] != made["hash"]:
        raise table.lost()
    table.write(text, made)
    return _finish(table.csv_path, fold_of, made, groups)


def _finish(path: Path, fold_of: Int8s, origin: dict[str, Any], groups: Int32s) -> Folds:
    leaking = count_leaking(groups, fold_of)
    if leaking and origin.get("source") == "made":
        raise FoldsError(
            f"{path} parts {leaking:,} rows from rows that share their sentence or entities: the "
            "train file was changed after the folds were made. Restore the file, or delete "
            f"{path.name} and folds.json to make new folds."
        )
    notices = []
    if origin.get("source") != "made":
        share = leaking / max(len(groups), 1)
        found = (
            f"folds of your own: {leaking:,} of {len(groups):,} rows ({share:.1%}) share their "
            "sentence or entities with a row of another fold"
        )
        remedy = "scores look better than they are" if leaking else "none leaks"
        notices = [Offence(path.name, None, None, None, found, remedy)]
    return Folds(fold_of, int(fold_of.max()) + 1, origin["hash"], tuple(notices))


def read_fold_file(path: Path, ids: Objects, *, may_have_more: bool = False) -> Int8s:
    """Read a CSV of ``id,fold`` for exactly these rows, in any order.

    Args:
        path: the file.
        ids: (N,) ids of the train rows.
        may_have_more: rows of other ids are passed over, for a sample of the train rows.

    Returns:
        (N,) int8, folds 0 to K-1, none of them empty.

    Raises:
        FoldsError: with every line that is wrong.
    """
    return _place_folds(path, read_records(path, HEADER), ids, may_have_more=may_have_more)


def _place_folds(
    path: Path, records: Sequence[Record], ids: Objects, *, may_have_more: bool = False
) -> Int8s:
    fold_of = np.full(len(ids), -1, dtype=np.int8)
    lines = np.zeros(len(ids), dtype=np.int64)
    places = pd.Index(ids).get_indexer(pd.Index([fields[0] for _, fields in records], dtype=object))
    offences: list[Offence] = []

    def offend(line: int, column: str, id_: str, found: str, remedy: str) -> None:
        offences.append(Offence(path.name, line, column, id_, found, remedy))

    for place, (line, (id_, fold)) in zip(places.tolist(), records, strict=True):
        if place < 0:
            if not may_have_more:
                offend(line, "id", id_, "no train row has this id", "take the line out")
        elif fold_of[place] >= 0:
            offend(line, "id", id_, f"also on line {lines[place]}", "name every row once")
        elif not (fold.isascii() and fold.isdigit() and len(fold) < 4 and int(fold) < MAX_FOLDS):
            offend(line, "fold", id_, f"fold {show(fold)}", f"number folds 0 to {MAX_FOLDS - 1}")
        else:
            fold_of[place], lines[place] = int(fold), line
    if not offences:
        offences = _find_gaps(path, ids, fold_of)
    refuse(path, offences)
    return fold_of


def _find_gaps(path: Path, ids: Objects, fold_of: Int8s) -> list[Offence]:
    missing = np.flatnonzero(fold_of < 0)
    if len(missing):
        remedy = "give every train row a fold (was the train file changed?)"
        return [Offence(path.name, None, "id", ids[i], "has no fold", remedy) for i in missing]
    count = int(fold_of.max()) + 1
    empty = [fold for fold in range(max(count, 2)) if not (fold_of == fold).any()]
    remedy = "number the folds 0, 1, … with no gap, at least two"
    return [Offence(path.name, None, "fold", None, f"no row is in fold {f}", remedy) for f in empty]
