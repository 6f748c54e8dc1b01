"""A job as it travels to another machine: which files it reads, and where they lie there.

Every path in a ``JobSpec`` but its three folders names an input: tokens, texts, the encoder, the
weights of a warm start. They are found by walking the fields, so a new kind of input travels too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from competition.files import check_utf8
from models.jobs.spec import JobSpec

CHECKPOINTS = "checkpoints"
OWN_FOLDERS = ("store_dir", "job_dir", "cache_dir")
"""Fields of a job that name folders to write to."""


@dataclass(frozen=True)
class Input:
    """A file or folder that a job reads.

    Attributes:
        path: on this machine.
        name: the same for the same content, as far as paths, sizes and times tell.
        files: by path within ``path``; of a file, itself under its name.
    """

    path: Path
    name: str
    files: Mapping[str, Path]


def find_inputs(spec: JobSpec) -> list[Input]:
    """Return the files and folders that a job reads; a folder without its subfolders."""
    kept = dict.fromkeys(OWN_FOLDERS)
    paths = {path for path in _walk(replace(spec, **kept)) if path.exists()}  # type: ignore[arg-type]
    return [_look_into(path) for path in sorted(paths)]


def move(spec: JobSpec, places: Mapping[str, str], home: Path, cache_dir: Path) -> JobSpec:
    """Return a job with its inputs elsewhere, that writes below ``home`` alone.

    Args:
        spec: the job.
        places: the current path of each input, by its path before.
        home: takes its results and its checkpoint folder.
        cache_dir: takes what its jobs share.
    """

    def find(path: Path) -> Path:
        return Path(places.get(str(path), path))

    moved: JobSpec = _map_paths(spec, find)
    store_dir, job_dir = (home / folder for folder in name_folders(spec))
    return replace(moved, store_dir=store_dir, job_dir=job_dir, cache_dir=cache_dir)


def name_folders(spec: JobSpec) -> tuple[str, str]:
    """Return where a job that was moved has its store and its folder, below its home.

    They are named as at home, as experiment trackers read the name of the competition from them.
    """
    own = spec.job_dir
    return f"oof/{spec.store_dir.name}", f"{CHECKPOINTS}/{own.parent.name}/{own.name}"


def check_paths(spec: JobSpec) -> None:
    """Check that the paths of a job can travel.

    Raises:
        UsageError: one is not UTF-8.
    """
    for path in _walk(spec):
        check_utf8(path, "rename the folder, or leave out --engine")


def _look_into(path: Path) -> Input:
    files = {path.name: path}
    if path.is_dir():
        files = {each.name: each for each in sorted(path.iterdir()) if each.is_file()}
    facts = [(name, each.stat()) for name, each in files.items()]
    described = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in facts)
    return Input(path, hashlib.sha256(f"{path}\n{described}".encode()).hexdigest()[:16], files)


def _walk(value: Any) -> Iterator[Path]:
    """Yield every path in nested dataclasses, mappings and sequences."""
    if isinstance(value, Path):
        yield value
    elif is_dataclass(value):
        for each in fields(value):
            yield from _walk(getattr(value, each.name))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _walk(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _walk(part)


def _map_paths(value: Any, change: Callable[[Path], Path]) -> Any:
    """Return a copy with every path changed; see ``_walk``."""
    if isinstance(value, Path):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        named = {each.name: getattr(value, each.name) for each in fields(value)}
        changed = {name: _map_paths(part, change) for name, part in named.items()}
        same = all(changed[name] is part for name, part in named.items())
        return value if same else replace(value, **changed)
    if isinstance(value, Mapping):
        return {key: _map_paths(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_paths(part, change) for part in value)
    return value
