"""Write files atomically, and check names and paths.

All artefacts (folds, predictions, submissions, ledger) are written through this module, so that a
file that exists is complete, even after a power failure.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import reprlib
import secrets
import shutil
import socket
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from competition.errors import UsageError

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]*")
NAME_MAX_CHARS = 100
LEFTOVER = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]{1,10})-[0-9a-f]{8}\.tmp", re.S)
LEFTOVER_S = 86_400.0


def is_name(name: str) -> bool:
    """Return whether a name is valid for a variant or submission (see ``check_name``)."""
    fits = len(name) <= NAME_MAX_CHARS and not name.endswith(".")
    return fits and NAME_PATTERN.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return a variant or submission name if it is valid and so stays inside its folder.

    >>> check_name("typed-punct@ko-mini")
    'typed-punct@ko-mini'

    Raises:
        UsageError: the name is empty, too long, or holds more than letters, digits and ``._@+=-``.
    """
    if len(name) > NAME_MAX_CHARS:
        raise UsageError(
            f"the name {name[:40]!r}… has {len(name)} characters; the limit is {NAME_MAX_CHARS}"
        )
    if not is_name(name):
        raise UsageError(
            f"{name!r} cannot be a name: use ASCII letters, digits and . _ @ + = - only,"
            " beginning with a letter or digit and not ending with a dot"
        )
    return name


def join_inside(folder: Path, name: str) -> Path:
    """Return the path of a name in a folder, which it cannot leave: the one way to join them.

    >>> join_inside(Path("oof"), "typed-punct").as_posix()
    'oof/typed-punct'

    Raises:
        UsageError: as ``check_name``.
    """
    return folder / check_name(name)


def first_problem(error: Exception) -> str:
    """Describe briefly why a model rejected a value, or another error."""
    if not isinstance(error, ValidationError):
        return str(error).partition("\n")[0][:200] or type(error).__name__
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key}: {first['msg']}, not {reprlib.repr(first['input'])}" if key else first["msg"]


def check_utf8(path: Path, remedy: str) -> None:
    """Refuse a path that neither the library of Parquet files nor JSON can write.

    Raises:
        UsageError: it is not UTF-8; ends with the remedy.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = ascii(os.fsencode(path))[2:-1]
        raise UsageError(f"the path {shown} is not UTF-8: {remedy}") from None


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk (a no-op where the system has no such call)."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(path: Path, option: str) -> None:
    """Raise if no file can be written to a path, before the work whose result it takes.

    Raises:
        UsageError: it is a folder, its parent is not a folder, or is not writable.
        OSError: the system cannot tell, for example because the name is too long.
    """
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; give a file")
    check_folder(path.parent, option)


def check_folder(path: Path, option: str) -> None:
    """Raise if a path is not a writable folder and cannot be created as one.

    Raises:
        UsageError, OSError: as ``check_writable``.
    """
    path = path.absolute()
    found = next(each for each in (path, *path.parents) if each.is_symlink() or each.exists())
    if not found.is_dir():
        raise UsageError(f"{option}: {found} is not a folder; give another path")
    if not os.access(found, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {found} is not writable; give another path")


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Make an OSError name the target file instead of the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            if error.filename2 is not None:
                del error.filename2
            error.filename = str(path)
        raise


def write_atomically(path: Path, data: bytes | memoryview | str) -> None:
    """Write ``data`` (text as UTF-8, newlines unchanged) to ``path``, all of it or nothing.

    It writes to a hidden file in the same directory, syncs and renames it. Parent folders are
    created.

    Raises:
        OSError: it could not be written; names ``path``, or the folder that cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode("utf-8") if isinstance(data, str) else data
    _remove_leftovers_once(path.parent)
    start = path.name[:40]  # keeps the temporary name below 255 bytes
    own = f"{name_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{start}.{own}.tmp")
    with name_in_errors(path):
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


@contextmanager
def hidden_folder(directory: Path) -> Iterator[Path]:
    """Make a hidden folder for a file that a library writes, to be renamed out of it.

    Some libraries write to temporary names of their own. Whatever a killed process leaves in the
    folder is removed with it, like the hidden files of ``write_atomically``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _remove_leftovers_once(directory)
    own = f"{name_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    folder = directory / f".folder.{own}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_cache(path: Path, data: bytes | str) -> None:
    """Write a cache file atomically; it is optional, so a full disk is ignored."""
    with suppress(OSError):
        write_atomically(path, data)


def remove_leftovers(directory: Path) -> None:
    """Remove the hidden files and folders of writers that were killed.

    Those of another machine, where one cannot see who still lives, stay for a day.
    """
    for path in directory.glob(".*.tmp"):
        found = LEFTOVER.fullmatch(path.name)
        if found is None:
            continue
        is_ours = found["machine"] == name_machine()
        with suppress(OSError):  # another process was quicker
            is_old = time.time() - path.stat().st_mtime > LEFTOVER_S
            if not is_old and not (is_ours and not is_alive(int(found["pid"]))):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@cache
def _remove_leftovers_once(directory: Path) -> None:
    """Clean each folder once per process: files of killed writers are older than it."""
    remove_leftovers(directory)


@cache
def name_machine() -> str:
    """Return a short name of this machine since its start.

    Containers have their own, and so have machines that share a host name, such as copies of one
    image: a process can check by number only whether processes in its own name space are alive.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def append_lines_synced(path: Path, *lines: str) -> None:
    """Append lines (given without newlines) in one write, and sync them to disk.

    Raises:
        ValueError: a line contains a newline.
        OSError: they could not be written; names ``path``, or the folder that cannot be created.
    """
    if any("\n" in line or "\r" in line for line in lines):
        raise ValueError("a line cannot contain a newline")
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with name_in_errors(path):
        with path.open("ab", buffering=0) as stream:
            _write_whole(stream, "".join(f"{line}\n" for line in lines).encode("utf-8"))
            os.fsync(stream.fileno())
        if is_new:
            sync_directory(path.parent)


def _write_whole(stream: io.FileIO, data: bytes) -> None:
    """Write all data without a buffer; a full disk first accepts a part, then raises."""
    while data:
        data = data[stream.write(data) :]


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML, with whatever it cannot be read for as one kind of error.

    Raises:
        ValueError: it is no TOML, is nested too deeply, or holds a number of thousands of digits.
    """
    with _one_kind_of_error():
        return tomllib.loads(text)


def parse_json(text: str | bytes) -> Any:
    """Read JSON, with whatever it cannot be read for as one kind of error.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or holds a number of thousands of digits.
    """
    with _one_kind_of_error():
        return json.loads(text)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        is_number = "integer string conversion" in str(error)
        raise ValueError("a number has too many digits" if is_number else str(error)) from None


def dump_json(value: Mapping[str, Any]) -> str:
    """Format a mapping as JSON for a file: sorted keys, two spaces, newline at the end.

    NumPy values become plain ones; NaN and infinity, which JSON does not have, become null.

    >>> dump_json({"b": float("nan"), "a": "관계"})
    '{\\n  "a": "관계",\\n  "b": null\\n}\\n'
    """
    return json.dumps(_to_plain(value), ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _to_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
