"""K-fold assignment of the train rows: stratified by label, grouped, and frozen on disk.

Folds are built once per competition and verified at each use; all blended results share their
hash. A user's own fold file is accepted and checked, and any leakage between its folds reported.

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
from competition.data.csv_records import match_ids, show
from competition.data.groups import Int32s, build_groups
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

HEADER = ("id", "fold")
MAX_FOLDS = 100


@dataclass(frozen=True)
class Folds:
    """The fold that holds out each train row.

    Attributes:
        fold_of: (N,) int8 in [0, K), in the order of the train rows.
        count: K.
        hash: SHA-256 over ids and folds.
        notices: problems of a user's own file that built folds do not have.
    """

    fold_of: Int8s
    count: int
    hash: str
    notices: tuple[Offence, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A competition's checked data, groups and folds.

    Attributes:
        groups: (N,) int32; rows of one group share a fold, and the bootstrap resamples groups.
    """

    competition: Competition
    corpus: Corpus
    groups: Int32s
    folds: Folds


def read_prepared(competition: Competition) -> Prepared:
    """Read and check the corpus, group its train rows, and read or build the folds.

    Raises:
        CorpusError: rows cannot be used.
        FoldsError: folds cannot be built, or do not belong to these rows.
        UsageError: the limit is too small for a stratified sample.
    """
    corpus = read_corpus(competition)
    groups = build_groups(corpus.train, competition.profile.folds.group_by)
    return Prepared(competition, corpus, groups, read_or_make_folds(competition, corpus, groups))


def read_or_make_folds(competition: Competition, corpus: Corpus, groups: Int32s) -> Folds:
    """Read the frozen folds of these rows, or build and freeze them.

    The sources in order of precedence: ``oof/<competition>/folds.csv`` if it exists, the file that
    the profile names as ``folds.file``, folds built by the profile's rules.

    Args:
        competition: with its folders and profile.

    Raises:
        FoldsError: folds cannot be built, were changed, or do not belong to these rows.
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
        files = " and ".join(map(str, competition.train_paths))
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
            f"{own}, the profile's folds.file, differs from the frozen {table.csv_path}, which "
            "results are based on. Remove folds.file from the profile to keep the frozen folds, or "
            f"delete {table.csv_path.name} and {table.json_path.name} to use the folds of the file."
        )


def _check_rules(table: FrozenTable, origin: dict[str, Any], rules: dict[str, Any]) -> None:
    changed = [
        f"folds.{key} was {origin.get(key)!r} and is {value!r}"
        for key, value in rules.items()
        if origin.get(key) != value
    ]
    if changed:
        raise FoldsError(
            f"{table.csv_path} was built by other rules than the profile's: {'; '.join(changed)}. "
            f"Restore the profile, or delete {table.csv_path.name} and {table.json_path.name} to "
            "build new folds; results of the old folds cannot be blended with new ones."
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
            f"{path} puts {leaking:,} rows into other folds than rows with the same sentence or "
            "entities: the train file was changed after the folds were built. Restore the file, or "
            f"delete {path.name} and folds.json to build new folds."
        )
    notices = []
    if origin.get("source") != "made":
        share = leaking / max(len(groups), 1)
        found = (
            f"your own folds: {leaking:,} of {len(groups):,} rows ({share:.1%}) share their "
            "sentence or entities with a row of another fold"
        )
        remedy = "scores are too optimistic" if leaking else "no leakage"
        notices = [Offence(path.name, None, None, None, found, remedy)]
    return Folds(fold_of, int(fold_of.max()) + 1, origin["hash"], tuple(notices))


def read_fold_file(path: Path, ids: Objects, *, may_have_more: bool = False) -> Int8s:
    """Read a CSV with ``id,fold`` for exactly these rows, in any order.

    Args:
        may_have_more: ignore rows with other ids, for a sample of the train rows.

    Returns:
        (N,) int8, folds 0 to K-1, none of them empty.

    Raises:
        FoldsError: with every invalid line.
    """
    return _place_folds(path, read_records(path, HEADER), ids, may_have_more=may_have_more)


def _place_folds(
    path: Path, records: Sequence[Record], ids: Objects, *, may_have_more: bool = False
) -> Int8s:
    fold_of = np.full(len(ids), -1, dtype=np.int8)
    lines = np.zeros(len(ids), dtype=np.int64)
    named = match_ids([fields[0] for _, fields in records], list(ids))
    places = pd.Index(ids).get_indexer(pd.Index(named, dtype=object))
    offences: list[Offence] = []

    def offend(line: int, column: str, id_: str, found: str, remedy: str) -> None:
        offences.append(Offence(path.name, line, column, id_, found, remedy))

    for place, (line, (id_, said)) in zip(places.tolist(), records, strict=True):
        fold = said.removesuffix(".0")  # as tables with gaps write whole numbers
        if place < 0:
            if not may_have_more:
                offend(line, "id", id_, "no train row has this id", "remove the line")
        elif fold_of[place] >= 0:
            offend(line, "id", id_, f"also on line {lines[place]}", "list each row once")
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
    remedy = "number the folds 0, 1, … without gaps, at least two"
    return [Offence(path.name, None, "fold", None, f"no row is in fold {f}", remedy) for f in empty]
