"""Storage of trials: a journal file, or a PostgreSQL database.

A journal is for processes that share a folder, which detect dead ones by their leases; a database
is for machines that do not, which detect them by heartbeats.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import platform
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from competition.errors import UsageError
from competition.lease import Leases, hold, is_stale, list_leases

POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
LOCK_POLL_S = 0.01
MAX_TABLE_ATTEMPTS = 10  # to create the tables of a new database while other processes do so too
JOURNAL_START = b'{"op_code"'

OnStale = Callable[[optuna.Study, FrozenTrial], None]


def parse_storage(text: str | None, default: Path) -> Path | str:
    """Parse ``--storage``: the path of a journal file, or the URL of a database.

    Returns:
        A path, or a URL with psycopg as its driver.

    Raises:
        UsageError: the URL is not PostgreSQL, or psycopg is not installed.
    """
    if text is None:
        return default
    scheme, is_url, rest = text.partition("://")
    if not is_url:
        return Path(text).expanduser().absolute()
    if scheme not in POSTGRES_SCHEMES:
        raise UsageError(
            f"--storage {scheme}://…: give the path of a journal file, for one machine, or"
            " postgresql://USER@HOST/DATABASE, for several"
        )
    if importlib.util.find_spec("psycopg") is None:
        raise UsageError(
            "--storage postgresql://… needs psycopg; run: python -m pip install 'psycopg[binary]'"
        )
    url = f"postgresql+psycopg://{rest}"
    try:
        make_url(url)
    except (ArgumentError, ValueError):  # what they say may hold a part of the password
        raise UsageError(
            "--storage postgresql://…: write postgresql://USER@HOST/DATABASE; leave the password to"
            " PGPASSWORD or ~/.pgpass, or write its @ as %40 and its / as %2F"
        ) from None
    return url


def name_process() -> str:
    """Return a readable name of this process: machine and process id."""
    return f"{platform.node()}-{os.getpid()}"


class JournalLock:
    """The lock of a journal: a lease, which is taken over if its process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = ExitStack()

    def acquire(self) -> bool:
        """Acquire the lock, waiting if necessary."""
        self._held.enter_context(hold(self._path, poll_s=LOCK_POLL_S))
        return True

    def release(self) -> None:
        """Release the lock."""
        self._held.close()


class Processes:
    """The processes that work on a journal; each holds a lease while it is alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"{name_process()}-{uuid.uuid4().hex[:8]}"
        self._leases = Leases()

    def __enter__(self) -> Processes:
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.lease"):  # of processes that were killed
            if is_stale(left):
                left.unlink(missing_ok=True)
        self._leases.acquire(self._folder / self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self._leases.close()

    def is_alive(self, name: str) -> bool:
        """Return whether the process of that name is alive."""
        if name == self.name:
            return True
        held = list_leases(self._folder / name)
        if not held:
            return False
        if not is_stale(held[-1]):
            return True
        held[-1].unlink(missing_ok=True)
        return False


def open_journal(path: Path, say: Callable[[str], None]) -> JournalStorage:
    """Open a journal, or create it; remove an incomplete last line (full disk, crash).

    Raises:
        UsageError: the file is not a journal, or is damaged before its last line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalLock(path)
    lock.acquire()
    try:
        torn = _cut_torn_line(path)
    finally:
        lock.release()
    if torn:
        say(f"notice: {path}: removed an incomplete last line ({torn} bytes)")
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except ValueError as error:
        raise UsageError(f"--storage {path} is damaged: {error}; name another file") from None


def _cut_torn_line(path: Path) -> int:
    """Remove what follows the last newline of a journal; return the number of bytes removed."""
    if not path.exists():
        return 0
    content = b"" if path.is_dir() else path.read_bytes()
    if path.is_dir() or not (content + JOURNAL_START).startswith(JOURNAL_START):
        raise UsageError(f"--storage {path} is not a journal of Optuna; name another file")
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return len(content) - whole


@contextmanager
def open_database(url: str, dead_after_s: float, on_stale: OnStale) -> Iterator[RDBStorage]:
    """Open a database, creating its tables if needed, and close it after the block.

    Args:
        url: with psycopg as its driver.
        dead_after_s: time without a heartbeat after which a process counts as dead.
        on_stale: called with a study and a trial that was failed for that reason.
    """
    database = _make_tables(url, dead_after_s, on_stale)
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


def _make_tables(url: str, dead_after_s: float, on_stale: OnStale) -> RDBStorage:
    interval = max(1, round(dead_after_s / 4))
    for left in reversed(range(MAX_TABLE_ATTEMPTS)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=interval,
                    grace_period=max(2, round(dead_after_s)),
                    **{_name_callback(): on_stale},
                )
        except (IntegrityError, ProgrammingError):  # another process creates the same tables
            if not left:
                raise
            time.sleep(0.5)
    raise AssertionError("unreachable")


def _name_callback() -> str:
    """Return what a database calls ``on_stale``: before Optuna 4.9 it had another name."""
    name = "heartbeat_stale_trial_callback"
    return name if name in inspect.signature(RDBStorage).parameters else "failed_trial_callback"


@contextmanager
def storage_failures() -> Iterator[None]:
    """Convert errors of the storage into ``UsageError``, without the password in its URL.

    Raises:
        UsageError: the storage cannot be reached.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()
        raise UsageError(
            "the storage of the study cannot be reached: "
            f"{reason[0] if reason else type(cause).__name__}; fix that and run the same command"
            " again to continue"
        ) from None
