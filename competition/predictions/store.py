"""The store of results: out-of-fold and test predictions of each job, as deterministic Parquet.

There is one file per job (variant × seed × fold): columns ``id``, ``split`` (``oof`` or ``test``),
``fold``, then one float32 column per label in label order. A JSON header in the schema's metadata
records what determined the predictions. ``competition.predictions.members`` joins the files of a
variant.

Legend: n and m the out-of-fold and test rows of one file, C labels.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from competition.arrays import Probs
from competition.errors import PredictionsError, UsageError
from competition.file_kind import WrongFileError, check_row_count, recognise
from competition.files import (
    dump_json,
    first_problem,
    is_name,
    join_inside,
    parse_json,
    write_atomically,
)
from competition.predictions.rerun import advise_training
from competition.predictions.stored import (
    NOT_A_VARIANT,
    StoredHeader,
    StoredRun,
    StoredVariant,
)
from competition.profile import Competition

SCHEMA_VERSION = 1
SUM_TOLERANCE = 1e-3
HEADER_KEY, HEADER_HASH_KEY = b"predictions", b"predictions.sha256"
FILE_PATTERN = re.compile(r"s(0|[1-9][0-9]{0,17})-f(0|[1-9][0-9]{0,8})\.parquet")
LEADING_COLUMNS = ("id", "split", "fold")

Ids = npt.NDArray[np.object_]


@dataclass(frozen=True, order=True, slots=True)
class ResultKey:
    """The job that made a result file."""

    variant: str
    seed: int
    fold: int


@dataclass(frozen=True)
class Header:
    """The header of a result file.

    ``recipe`` is a hash of everything that determines the result except seed and fold. ``route`` is
    None for a variant that predicts every row, else ``<route>:<part>`` such as ``length:short``.
    """

    key: ResultKey
    fingerprint: str
    recipe: str
    variant: Mapping[str, Any]
    labels: tuple[str, ...]
    data_hash: str
    folds_hash: str
    route: str | None
    routes_hash: str | None


@dataclass(frozen=True, eq=False)
class Result(Header):
    """The predictions of one job: ids (n,) and (m,) objects, probs (n, C) and (m, C) float32."""

    oof_ids: Ids
    oof_probs: Probs
    test_ids: Ids
    test_probs: Probs


@dataclass(frozen=True)
class Store:
    """The result files of one competition, under ``oof/<competition>/``."""

    directory: Path
    labels: tuple[str, ...]

    def path(self, key: ResultKey) -> Path:
        """Return the path of a job's Parquet file."""
        if key.variant == NOT_A_VARIANT:
            raise UsageError(
                f"{NOT_A_VARIANT!r} cannot be the name of a variant: routes are stored there"
            )
        folder = join_inside(self.directory, key.variant)
        if folder.is_file():
            raise UsageError(f"{key.variant!r} cannot be the name of a variant: {folder} is a file")
        return join_inside(folder, f"s{key.seed}-f{key.fold}.parquet")

    def run_path(self, key: ResultKey) -> Path:
        """Return the path of a job's provenance (time, host, versions, scores)."""
        return self.path(key).with_suffix(".run.json")

    def variants(self) -> list[str]:
        """Return the names of variants with at least one result, sorted."""
        if not self.directory.is_dir():
            return []
        names = [entry.name for entry in self.directory.iterdir() if entry.is_dir()]
        valid = (name for name in names if is_name(name) and name != NOT_A_VARIANT)
        return sorted(name for name in valid if self.keys(name))

    def keys(self, variant: str) -> list[ResultKey]:
        """Return the keys of a variant's results, sorted by seed and fold."""
        folder = join_inside(self.directory, variant)
        if not folder.is_dir():
            return []
        matches = (FILE_PATTERN.fullmatch(entry.name) for entry in folder.iterdir())
        return sorted(ResultKey(variant, int(m[1]), int(m[2])) for m in matches if m)

    def write(self, result: Result, run: Mapping[str, Any]) -> Path:
        """Write a job's provenance and predictions; return the path of the Parquet file.

        Raises:
            PredictionsError: other labels, repeated ids, or rows that are not probabilities.
        """
        path = self.path(result.key)
        check_labels(result, self.labels, path)
        _check_result(result, path)
        data = _encode(result)
        write_atomically(self.run_path(result.key), dump_json(run))
        write_atomically(path, data)
        return path

    def adopt(self, key: ResultKey, data: bytes, run: Mapping[str, Any]) -> Path:
        """Write the provenance and the bytes of a result file that has been checked."""
        path = self.path(key)
        write_atomically(self.run_path(key), dump_json(run))
        write_atomically(path, data)
        return path

    def remove(self, key: ResultKey) -> None:
        """Delete a job's predictions and provenance."""
        self.path(key).unlink(missing_ok=True)
        self.run_path(key).unlink(missing_ok=True)

    def read_header(self, key: ResultKey) -> Header | None:
        """Read the header of a result; None if there is no file.

        Raises:
            PredictionsError: the file is damaged, or belongs to another job or competition.
        """
        path = self.path(key)
        if not path.is_file():
            return None
        header = _read_header(path)
        self._check_key(header, key, path)
        return header

    def read(self, key: ResultKey) -> Result:
        """Read a job's predictions.

        Raises:
            PredictionsError: the file is missing or damaged, belongs to another job or competition,
                or contains rows that are not probabilities.
        """
        path = self.path(key)
        if not path.is_file():
            raise PredictionsError(f"{path} does not exist; {advise_training(path.parent)}")
        result = read_result(path)
        self._check_key(result, key, path)
        return result

    def read_run(self, key: ResultKey) -> dict[str, Any]:
        """Read a job's provenance; empty if there is no file (a team-mate may not have sent it).

        Raises:
            PredictionsError: the file is not a JSON object, or a field has another type.
        """
        path = self.run_path(key)
        if not path.is_file():
            return {}
        try:
            text = path.read_text("utf-8")
            StoredRun.model_validate_json(text)
            run: dict[str, Any] = parse_json(text)
        except ValueError as error:
            raise PredictionsError(
                f"{path} is not a valid provenance file ({first_problem(error)}); delete it"
            ) from error
        return run

    def _check_key(self, header: Header, key: ResultKey, path: Path) -> None:
        if header.key != key:
            raise PredictionsError(
                f"{path} holds {header.key.variant}, seed {header.key.seed}, fold"
                f" {header.key.fold}: it was renamed or copied; restore its name"
            )
        check_labels(header, self.labels, path)


def open_store(competition: Competition) -> Store:
    """Return the store of a competition."""
    return Store(competition.oof_dir, competition.profile.labels)


def check_no_blend(competition: Competition, variant: str) -> None:
    """Check that no blend has the name of a new variant: ``compare`` could not tell them apart.

    Raises:
        UsageError: a blend has it, and no result of the variant is stored.
    """
    blend = join_inside(competition.submissions_dir, f"{variant}.json")
    if blend.exists() and not open_store(competition).keys(variant):
        raise UsageError(
            f"{variant} is the name of a blend, {blend}; choose another for the variant with --as"
        )


def check_labels(
    header: Header, labels: tuple[str, ...], path: Path, remedy: str | None = None
) -> None:
    """Check that a result has the labels of the profile in the same order.

    Raises:
        PredictionsError: the labels or their order differ; ends with ``remedy``, or by default the
            advice to move the file.
    """
    if header.labels == labels:
        return
    found, advice = "other labels", "it belongs to another profile: move it away"
    if sorted(header.labels) == sorted(labels):
        found = "labels in another order"
        advice = f"restore that order, or move {path.parent} away and train again"
    raise PredictionsError(
        f"{path} was made with {found} than the competition profile has; {remedy or advice}"
    )


def _advise_redo(path: Path) -> str:
    """Return advice on how to replace an unusable file."""
    return f"delete it; {advise_training(path.parent)}"


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Convert exceptions of pyarrow on a damaged file to PredictionsError."""
    try:
        yield
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        _refuse_other_file(path)
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise PredictionsError(f"{path} is damaged ({reason}); {_advise_redo(path)}") from error


def _refuse_other_file(path: Path) -> None:
    """Describe a file in place of a result, such as a Git LFS pointer, and what to do."""
    try:
        recognise(path)
    except WrongFileError as wrong:
        raise PredictionsError(f"{path} is {wrong.found}; {wrong.remedy}") from None
    except OSError:
        return  # the reader's own error says more


def _read_header(path: Path) -> Header:
    """Read the header of a file."""
    with _damage_reported(path):
        footer = pq.read_metadata(path)
    return _decode_header(footer, path)


def is_result(path: Path) -> bool:
    """Return whether a Parquet file is a result file of this harness."""
    try:
        return HEADER_KEY in (pq.read_metadata(path).metadata or {})
    except (OSError, ValueError, pa.ArrowException):
        return False


def read_result(path: Path) -> Result:
    """Read a result file at any path.

    Raises:
        PredictionsError: the file is damaged or not a result file, or contains rows of another
            fold, repeated ids, or rows that are not probabilities.
    """
    with _damage_reported(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        _check_row_count(path, file.metadata.num_rows)
        table, footer = file.read(), file.metadata
    header = _decode_header(footer, path)
    with _damage_reported(path):
        ids = table.column(0).to_numpy()
        split = table.column(1).to_numpy()
        probs = _stack_columns(table)
    is_oof = split == "oof"
    folds = set(table.column(2).unique().to_pylist())
    if not (is_oof | (split == "test")).all() or folds - {header.key.fold}:
        raise PredictionsError(
            f"{path}: it contains rows of another split or fold; {_advise_redo(path)}"
        )
    fields = {name: getattr(header, name) for name in Header.__dataclass_fields__}
    result = Result(
        **fields,
        oof_ids=ids[is_oof],
        oof_probs=probs[is_oof],
        test_ids=ids[~is_oof],
        test_probs=probs[~is_oof],
    )
    _check_result(result, path)
    return result


def _check_row_count(path: Path, n_rows: int) -> None:
    try:
        check_row_count(path, n_rows)
    except WrongFileError as wrong:
        raise PredictionsError(f"{path} is {wrong.found}; {wrong.remedy}") from None


def _check_result(result: Result, path: Path) -> None:
    """Check that ids are unique and that rows are finite and sum to 1."""
    n_labels = len(result.labels)
    _check_probs(result.oof_ids, result.oof_probs, n_labels, f"{path}, oof rows")
    _check_probs(result.test_ids, result.test_probs, n_labels, f"{path}, test rows")


def _decode_header(footer: pq.FileMetaData, path: Path) -> Header:
    metadata = footer.metadata or {}
    text = metadata.get(HEADER_KEY)
    if text is None:
        raise PredictionsError(f"{path} is not a result of this harness; {_advise_redo(path)}")
    if metadata.get(HEADER_HASH_KEY) != hashlib.sha256(text).hexdigest().encode():
        raise PredictionsError(f"{path} is damaged: its header was changed; {_advise_redo(path)}")
    try:
        stored = StoredHeader.model_validate_json(text)
        StoredVariant.model_validate_json(json.dumps(stored.variant))
    except ValueError as error:
        reason = first_problem(error)
        raise PredictionsError(
            f"{path} has an invalid header ({reason}); {_advise_redo(path)}"
        ) from None
    if stored.schema_version != SCHEMA_VERSION:
        raise PredictionsError(
            f"{path} does not have schema version {SCHEMA_VERSION}; {_advise_redo(path)}"
        )
    fields = stored.model_dump(exclude={"schema_version"})
    header = Header(**fields | {"key": ResultKey(**fields["key"])})
    if tuple(footer.schema.names) != (*LEADING_COLUMNS, *header.labels):
        raise PredictionsError(
            f"{path}: the columns are not the labels in order; {_advise_redo(path)}"
        )
    return header


def _encode(result: Result) -> bytes:
    """Encode as Parquet; equal results give equal bytes with the same pyarrow version."""
    fields = {name: getattr(result, name) for name in Header.__dataclass_fields__}
    fields |= {"schema_version": SCHEMA_VERSION, "key": asdict(result.key)}
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    ids = np.concatenate([result.oof_ids, result.test_ids])
    probs = np.concatenate([result.oof_probs, result.test_probs]).astype(np.float32)
    split = ["oof"] * len(result.oof_ids) + ["test"] * len(result.test_ids)
    columns = [
        pa.array(ids, pa.string()),
        pa.array(split, pa.string()),
        pa.array(np.full(len(ids), result.key.fold), pa.int32()),
        *(pa.array(np.ascontiguousarray(column)) for column in probs.T),
    ]
    table = pa.Table.from_arrays(columns, names=[*LEADING_COLUMNS, *result.labels])
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer,
        table.schema,
        compression="zstd",
        use_dictionary=["split", "fold"],
        use_byte_stream_split=[label for label in result.labels if label not in LEADING_COLUMNS],
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        digest = hashlib.sha256(text).hexdigest().encode()
        writer.add_key_value_metadata({HEADER_KEY: text, HEADER_HASH_KEY: digest})
    return buffer.getvalue()


def _stack_columns(table: pa.Table) -> Probs:
    """Return the label columns as an array (n, C) float32."""
    first = len(LEADING_COLUMNS)
    probs = np.empty((table.num_rows, table.num_columns - first), dtype=np.float32)
    for index in range(probs.shape[1]):
        column = table.column(first + index)
        if column.type != pa.float32() or column.null_count:
            raise ValueError(f"column {table.schema.names[first + index]!r} is not float32")
        probs[:, index] = column.to_numpy()
    return probs


def _check_probs(ids: Ids, probs: Probs, n_labels: int, where: str) -> None:
    """Check shapes, unique ids, and that rows are probabilities."""
    if probs.shape != (len(ids), n_labels):
        raise PredictionsError(
            f"{where}: probabilities have shape {probs.shape}, not {(len(ids), n_labels)}"
        )
    if not all(isinstance(row_id, str) for row_id in ids):
        raise PredictionsError(f"{where}: ids must be text")
    if len(set(ids)) != len(ids):
        raise PredictionsError(f"{where}: an id occurs more than once")
    wrong = ~np.isfinite(probs).all(axis=1)
    if wrong.any():
        raise PredictionsError(
            f"{where}: {wrong.sum()} rows contain NaN or infinity, the first is id"
            f" {ids[wrong.argmax()]}; training diverged: train this fold again"
        )
    sums = probs.sum(axis=1, dtype=np.float64)
    wrong = (np.abs(sums - 1) > SUM_TOLERANCE) | (probs < 0).any(axis=1)
    if wrong.any():
        first = wrong.argmax()
        raise PredictionsError(
            f"{where}: {wrong.sum()} rows are not probabilities, the first is id {ids[first]} with"
            f" sum {sums[first]:.4f} and minimum {probs[first].min():.4g}; apply softmax to the"
            " logits once"
        )
