"""Fetch a competition's rows from a data set on the Hugging Face hub, for ``data --from``.

The train rows and the rows to answer become two Parquet files in the competition's folder. Labels
of the rows to answer are not kept, and numbered labels become the names that the data set gives.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from competition.arrays import Say
from competition.errors import UsageError
from competition.file_kind import WrongFileError, check_row_count
from competition.files import parse_json, write_atomically
from competition.profile import Competition

PREFIX = "hf:"
SPLITS = {"train": ("train",), "test": ("test", "validation")}  # of the hub's, by what they become
ADDRESS = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<folder>[\w.-]+))?")


class Hub(Protocol):
    """The functions of a hub: list the files of a data set, and download one."""

    def list_files(self, name: str) -> Sequence[str]:
        """Return the paths of all files of a data set."""

    def fetch(self, name: str, path: str) -> Path:
        """Return a local copy of one file."""


@dataclass(frozen=True)
class HuggingFace:
    """The Hugging Face hub, by its own client."""

    def list_files(self, name: str) -> Sequence[str]:
        """Return the paths of all files of a data set."""
        from huggingface_hub import HfApi

        paths: list[str] = HfApi().list_repo_files(name, repo_type="dataset")
        return paths

    def fetch(self, name: str, path: str) -> Path:
        """Return a local copy of one file."""
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, path, repo_type="dataset"))


def fetch_rows(competition: Competition, address: str, say: Say, hub: Hub | None = None) -> None:
    """Fetch train and test rows into a competition's folder.

    Args:
        address: ``hf:OWNER/NAME`` or ``hf:OWNER/NAME/FOLDER``, such as ``hf:klue/klue/re``; without
            a folder it is the one that ends the competition's name, if the data set has folders.
        hub: None for the Hugging Face hub.

    Raises:
        UsageError: the address is wrong, the hub cannot be reached, or files are there already.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"--from {address}: write hf:OWNER/NAME, such as hf:klue/klue")
    for path in (competition.train_path, competition.test_path):
        if path.exists():
            raise UsageError(f"--from {address}: {path} is there already; move it away first")
    hub, name = hub or HuggingFace(), found["name"]
    paths = _ask(address, partial(hub.list_files, name))
    folder = found["folder"] or _choose_folder(paths, competition.profile.name)
    for which, splits in SPLITS.items():
        chosen = _choose_split(paths, folder, splits)
        if not chosen:
            inside = f" in its folder {folder}" if folder else ""
            raise UsageError(f"--from {address}: no Parquet file of {splits[0]} rows{inside}")
        say(f"fetching {', '.join(chosen)} of {name}")
        files = [_ask(address, partial(hub.fetch, name, each)) for each in chosen]
        table = _read_tables(address, files)
        label = competition.profile.columns.label
        if which == "train":
            table = _name_labels(address, table, label)
        elif label in table.column_names:
            table = table.drop_columns([label])
        stem = Path(getattr(competition.profile.files, which)).stem
        target = competition.data_dir / f"{stem}.parquet"
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_atomically(target, buffer.getvalue())
        say(f"written: {target}, {table.num_rows:,} rows")


def _ask(address: str, question: Callable[[], Any]) -> Any:
    """Call a hub, whose client raises many kinds of errors."""
    try:
        return question()
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UsageError(
            f"--from {address}: the hub cannot be reached or has no such data set"
            f" ({type(error).__name__}: {reason}); download its files on another machine and name"
            " their folder with --data"
        ) from None


def _choose_folder(paths: Sequence[str], competition: str) -> str | None:
    """Return the folder of a data set that a competition is about; None if it has none.

    >>> _choose_folder(["re/train-0.parquet", "nli/train-0.parquet"], "klue-re")
    're'
    """
    folders = {path.partition("/")[0] for path in paths if path.count("/") == 1}
    return next((each for each in sorted(folders) if competition.endswith(f"-{each}")), None)


def _choose_split(paths: Sequence[str], folder: str | None, splits: Sequence[str]) -> list[str]:
    """Return the Parquet files of the first split that a data set has.

    >>> _choose_split(["re/train-0.parquet", "re/dev-0.parquet"], "re", ("test", "dev"))
    ['re/dev-0.parquet']
    """
    inside = [
        path
        for path in sorted(paths)
        if path.endswith(".parquet") and (folder is None or path.startswith(f"{folder}/"))
    ]
    for split in splits:
        chosen = [path for path in inside if Path(path).name.startswith(f"{split}-")]
        if chosen:
            return chosen
    return []


def _read_tables(address: str, files: Sequence[Path]) -> pa.Table:
    """Read Parquet files of the same columns as one table."""
    try:
        for path in files:
            check_row_count(path, pq.read_metadata(path).num_rows)
        return pa.concat_tables([pq.read_table(path) for path in files])
    except (pa.ArrowException, OSError, ValueError, WrongFileError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UsageError(f"--from {address}: its files cannot be read ({reason})") from None


def _name_labels(address: str, table: pa.Table, label: str) -> pa.Table:
    """Replace numbered labels by the names that the data set gives, if it gives any.

    Raises:
        UsageError: a number has no name.
    """
    place = table.schema.get_field_index(label)
    if place < 0 or not pa.types.is_integer(table.schema.field(place).type):
        return table
    names = _read_names((table.schema.metadata or {}).get(b"huggingface", b"{}"), label)
    if not names:
        return table
    numbers = table.column(place).to_pylist()
    for row, number in enumerate(numbers, start=1):
        if number is None or not 0 <= number < len(names):
            raise UsageError(
                f"--from {address}: row {row:,} of the train rows has the label {number}, and the"
                f" data set names labels 0 to {len(names) - 1}"
            )
    return table.set_column(place, label, pa.array([names[number] for number in numbers]))


def _read_names(told: bytes, label: str) -> list[str]:
    """Return the names of a column's numbers, as a data set gives them; empty if it gives none."""
    try:
        found = parse_json(told)
    except ValueError:
        return []
    for key in ("info", "features", label, "names"):
        found = found.get(key) if isinstance(found, dict) else None
    is_named = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return list(found) if is_named else []
