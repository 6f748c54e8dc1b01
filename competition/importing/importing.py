"""``run.py import``: add predictions from another machine or tool to the store.

Result files of this harness are checked and copied byte for byte; a table or arrays of another
tool (``rows``) become one result file per fold. Nothing is written if there is an offence. Imported
predictions are scored on their out-of-fold rows and compared with the members in the store.

Legend: K folds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from competition.console import Column, Table, build_offences_table, write_count
from competition.errors import Offence, PredictionsError, UsageError
from competition.files import check_name, parse_json, sha256_of
from competition.folds.kfold import Prepared, read_prepared
from competition.importing.review import compare_with_members, score_results
from competition.importing.rows import (
    ForeignFiles,
    ForeignRows,
    describe_rows,
    read_foreign_rows,
)
from competition.predictions.belonging import check_belongs, is_of_these_rows, place_rows
from competition.predictions.members import find_missing_folds, read_members
from competition.predictions.store import (
    FILE_PATTERN,
    Header,
    Result,
    ResultKey,
    Store,
    check_no_blend,
    is_result,
    open_store,
    read_result,
)
from competition.profile import Competition
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind

SEED = 0  # of a table, whose seeds are already averaged
MIN_HASH_CHARS = 8
OFFENCES_IN_TABLE = 1_000
REMEDY = "import results of the same data, profile, folds.csv and routes/length.csv"


@dataclass(frozen=True)
class ImportOptions:
    """How to import.

    Attributes:
        save_as: the variant's name; None keeps the results' own, or the file's.
        folds_hash: given instead of a column with each row's fold.
        test: a file of the test rows, if the table or array has the out-of-fold rows only.
        label_order: the order of columns that do not name their labels.
        run: provenance to keep beside the results, time included.
    """

    save_as: str | None = None
    folds_hash: str | None = None
    run: Mapping[str, Any] | None = None
    test: Path | None = None
    label_order: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """A result that was imported or already existed."""

    key: ResultKey
    is_new: bool


@dataclass(frozen=True)
class ImportReport:
    """The report of an import; if there are offences, nothing was written.

    ``can_blend``: the imported results complete at least one member.
    ``scores``: of the imported out-of-fold rows, by the key of each metric, for each variant and
    seed; ``kinds``: the metrics.
    """

    path: Path
    imported: tuple[Imported, ...]
    offences: tuple[Offence, ...]
    notes: tuple[str, ...]
    can_blend: bool = False
    kinds: tuple[MetricKind, ...] = ()
    scores: Mapping[tuple[str, int], Mapping[str, float]] = field(default_factory=dict)


def run_import(competition: Competition, path: Path, options: ImportOptions) -> ImportReport:
    """Import a table, a folder of result files, or a folder of such folders.

    Raises:
        PredictionsError: result files that do not match the data here, or the results of this name.
        UsageError: the path holds nothing to import, or the name is not valid.
    """
    if options.save_as is not None:
        check_name(options.save_as)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    prepared = read_prepared(competition)
    store = open_store(competition)
    if path.is_file() and not is_result(path):
        return _import_table(path, prepared, store, options)
    for value, option in (
        (options.folds_hash, "--folds-hash"),
        (options.test, "--test"),
        (options.label_order, "--label-order"),
    ):
        if value is not None:
            raise UsageError(f"{option} goes with a table; results of this harness carry their own")
    return _import_results(path, prepared, store, options)


def _import_table(
    path: Path, prepared: Prepared, store: Store, options: ImportOptions
) -> ImportReport:
    if options.test is not None and not options.test.is_file():
        raise UsageError(f"--test {options.test}: no such file")
    given = options.folds_hash
    if given is not None and (
        len(given) < MIN_HASH_CHARS or not prepared.folds.hash.startswith(given.lower())
    ):
        raise UsageError(
            f"--folds-hash {given} is not the hash of the folds here (give at least 8 digits):"
            " out-of-fold predictions of other folds would leak labels; train on this"
            " competition's folds.csv"
        )
    files = ForeignFiles(path, options.test, options.label_order)
    reading = read_foreign_rows(files, prepared, needs_folds=given is None)
    rows = reading.rows
    if rows is None:
        return ImportReport(path, (), reading.offences, reading.notices)
    name = check_name(options.save_as or path.name.partition(".")[0])
    results = _build_results(name, rows, prepared, path.name)
    run = {"imported_from": str(path.absolute()), "imported_sha256": sha256_of(path)}
    if options.test is not None:
        run |= {"test_from": str(options.test.absolute()), "test_sha256": sha256_of(options.test)}
    check_no_blend(prepared.competition, name)
    stale = _find_stale(name, prepared, store)
    _check_room(results, store, stale)
    imported = []
    for result in results:
        is_new = store.read_header(result.key) is None or result.key in stale
        if is_new:
            store.write(result, {**run, **(options.run or {})})
        imported.append(Imported(result.key, is_new))
    for key in stale - {result.key for result in results}:
        store.remove(key)  # of a fold that no longer exists
    notes = [*reading.notices, *_describe_table(rows, name, len(stale))]
    notes += compare_with_members([name], store, prepared)
    scores = score_results(results, prepared)
    kinds = build_criteria(prepared.competition.profile).kinds
    return ImportReport(path, tuple(imported), (), tuple(notes), True, kinds, scores)


def _describe_table(rows: ForeignRows, name: str, n_stale: int) -> list[str]:
    """Return notes on what an import replaced and what its table lacks."""
    notes = []
    if n_stale:
        notes.append(
            f"{name}: replaced {n_stale} results that were imported for other data or folds."
        )
    if rows.is_average:
        notes.append(
            "The test predictions are one average of all folds, which is less confident than the"
            " single models that blend weights are fitted to; predictions per fold are better."
        )
    if not rows.has_folds:
        notes.append("The folds were compared by the hash only, not for each row.")
    return notes


def _build_results(
    name: str, rows: ForeignRows, prepared: Prepared, file_name: str
) -> list[Result]:
    """Build a result for each fold.

    The recipe is a hash of the predictions, the data and the folds.
    """
    said = describe_rows(rows)
    digest = hashlib.sha256(json.dumps(said).encode())
    digest.update(f"{prepared.corpus.hash} {prepared.folds.hash}".encode())
    for values in (rows.oof, rows.test):
        digest.update(np.ascontiguousarray(values).tobytes())
    recipe = digest.hexdigest()
    train, test = prepared.corpus.train, prepared.corpus.test
    results = []
    for fold in range(prepared.folds.count):
        in_fold = prepared.folds.fold_of == fold
        results.append(
            Result(
                key=ResultKey(name, SEED, fold),
                fingerprint=hashlib.sha256(f"{recipe} {SEED} {fold}".encode()).hexdigest(),
                recipe=recipe,
                variant={"name": name, "why": f"imported from {file_name}", "imported": said},
                labels=prepared.competition.profile.labels,
                data_hash=prepared.corpus.hash,
                folds_hash=prepared.folds.hash,
                route=None,
                routes_hash=None,
                oof_ids=train.ids[in_fold],
                oof_probs=rows.oof[in_fold],
                test_ids=test.ids,
                test_probs=rows.test[fold],
            )
        )
    return results


def _import_results(
    path: Path, prepared: Prepared, store: Store, options: ImportOptions
) -> ImportReport:
    """Import result files of this harness."""
    files = _find_results(path)
    if not files:
        raise UsageError(
            f"{path} is neither a table nor a folder of result files (s<seed>-f<fold>.parquet);"
            " give the folder of a variant, a CSV or a Parquet table"
        )
    found = [(file, read_result(file)) for file in files]
    names = {result.key.variant for _, result in found}
    if options.save_as is not None and len(names) > 1:
        raise UsageError(
            f"--as gives one name, but {path} contains several variants: {', '.join(sorted(names))}"
        )
    for file, result in found:
        _check_result(result, prepared, file)
    renamed = [(file, _rename(result, options.save_as)) for file, result in found]
    for name in {result.key.variant for _, result in renamed}:
        check_no_blend(prepared.competition, name)
    _check_room([result for _, result in renamed], store)
    imported = []
    for file, result in renamed:
        is_new = store.read_header(result.key) is None
        if is_new:
            _write(store, file, result, options)
        imported.append(Imported(result.key, is_new))
    variants = tuple(dict.fromkeys(each.key.variant for each in imported))
    notes = _describe_missing(variants, store, prepared)
    notes += compare_with_members(variants, store, prepared)
    specialists = {result.key.variant for _, result in renamed if result.route is not None}
    can_blend = _makes_member(variants, specialists, store, prepared)
    scores = score_results([result for _, result in renamed], prepared)
    kinds = build_criteria(prepared.competition.profile).kinds
    return ImportReport(path, tuple(imported), (), tuple(notes), can_blend, kinds, scores)


def _find_results(path: Path) -> list[Path]:
    """Return the result files at a path: the file itself, a variant's folder, or several."""
    if path.is_file():
        return [path]
    folders = [path, *sorted(entry for entry in path.iterdir() if entry.is_dir())]
    return [
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if FILE_PATTERN.fullmatch(file.name)
    ]


def _check_result(result: Result, prepared: Prepared, path: Path) -> None:
    """Check that a result has the current labels, data, folds and routes, and all rows."""
    answered = check_belongs([(path, result)], prepared, remedy=REMEDY)
    corpus, in_fold = prepared.corpus, prepared.folds.fold_of == result.key.fold
    parts = (
        (result.oof_ids, corpus.train.ids, answered.train & in_fold, "oof"),
        (result.test_ids, corpus.test.ids, answered.test, "test"),
    )
    for ids, known, expected, split in parts:
        row_of = {row_id: row for row, row_id in enumerate(known)}
        place_rows(ids, row_of, expected, f"{path}, {split} rows")


def _rename(result: Result, name: str | None) -> Result:
    if name is None or name == result.key.variant:
        return result
    variant = {**result.variant, "name": name} if "name" in result.variant else result.variant
    return replace(result, key=replace(result.key, variant=name), variant=variant)


def _find_stale(name: str, prepared: Prepared, store: Store) -> frozenset[ResultKey]:
    """Return results of this name that were imported from a table for other data or folds.

    They are unusable, and only another import can replace them.
    """
    stale = set()
    for key in store.keys(name):
        header = store.read_header(key)
        if header is None or not header.variant.get("imported"):
            continue
        if not is_of_these_rows(header, prepared):
            stale.add(key)
    return frozenset(stale)


def _check_room(
    results: Sequence[Result], store: Store, replaced: frozenset[ResultKey] = frozenset()
) -> None:
    """Check that no results of another recipe exist under the same name."""
    by_name: dict[str, Header] = {}
    for result in results:
        name = result.key.variant
        kept = (store.read_header(key) for key in store.keys(name) if key not in replaced)
        known = by_name.get(name) or next(kept, None) or result
        by_name[name] = known
        if (known.recipe, known.route) != (result.recipe, result.route):
            is_table = known.variant.get("imported") and result.variant.get("imported")
            folder = store.path(result.key).parent
            replacing = f"; to replace it, delete {folder} first" if is_table else ""
            raise PredictionsError(
                f"{name} already exists with another recipe, and results of two recipes cannot be"
                f" mixed; import under another name: --as NAME{replacing}"
            )


def _write(store: Store, file: Path, result: Result, options: ImportOptions) -> None:
    """Write a checked result: the original bytes, or encoded again under another name."""
    theirs = _read_provenance(file.with_suffix(".run.json"))
    run = {**theirs, "imported_from": str(file.absolute()), "imported": options.run}
    data = file.read_bytes()
    if options.save_as is None or read_result(file).key == result.key:
        store.adopt(result.key, data, run)
    else:
        store.write(result, run)


def _read_provenance(path: Path) -> dict[str, Any]:
    """Read the provenance of an imported result, empty if it is damaged or missing."""
    try:
        found = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # provenance is optional
    return found if isinstance(found, dict) else {}


def _makes_member(
    names: Sequence[str], specialists: Set[str], store: Store, prepared: Prepared
) -> bool:
    """Return whether a variant has a seed with all folds; specialists also need all parts."""
    for name in names:
        missing = find_missing_folds(store, name, prepared.folds.count)
        if name not in specialists and not all(missing.values()):
            return True
    members = read_members(store, (), prepared)[0] if specialists else []
    return any(specialists & set(member.parts) for member in members)


def _describe_missing(names: Sequence[str], store: Store, prepared: Prepared) -> list[str]:
    notes = []
    for name in names:
        missing = find_missing_folds(store, name, prepared.folds.count)
        notes += [
            f"{name}, seed {seed}, lacks folds {', '.join(map(str, folds))}"
            for seed, folds in missing.items()
            if folds
        ]
    return notes


def build_import_tables(report: ImportReport) -> list[Table]:
    """Build the table of imported results, or of all offences."""
    if report.offences:
        count = write_count(len(report.offences), "offence")
        notes = [f"{count} in {report.path}; nothing was imported.", *report.notes]
        shown = report.offences[:OFFENCES_IN_TABLE]
        with_file = len({offence.file for offence in shown}) > 1
        return [build_offences_table("offences", "Offences", shown, notes, with_file=with_file)]
    columns = [
        Column("variant", "variant"),
        Column("seed", "seed", "count"),
        Column("folds", "imported folds"),
        Column("kept", "already there"),
        *(
            kind.column(kind.key, kind.head if place else f"OOF {kind.head}")
            for place, kind in enumerate(report.kinds)
        ),
    ]
    rows = []
    for name, seed in dict.fromkeys((e.key.variant, e.key.seed) for e in report.imported):
        mine = [e for e in report.imported if (e.key.variant, e.key.seed) == (name, seed)]
        new, old = ([str(e.key.fold) for e in mine if e.is_new is want] for want in (True, False))
        row = {"variant": name, "seed": seed, "folds": " ".join(new), "kept": " ".join(old)}
        if (name, seed) in report.scores:
            row |= report.scores[name, seed]
        rows.append(row)
    notes = [*report.notes, *(["Next: python run.py blend"] if report.can_blend else [])]
    return [Table("imported", f"From {report.path}", columns, rows, notes)]
