"""Leases: files that record which process works on something, safe on network file systems.

The kernel's file locks end with their process, but on many network file systems they are not
shared between machines, or not supported. A lease is a small file instead, which names its owner
(machine, process, start) and is written again every ``BEAT_S`` seconds. It is stale if its process
is gone, where that can be seen, or if it was not written for ``STALE_S``.

The files of a lease are numbered: ``job.1.lease``, ``job.2.lease``. The highest number holds. A
stale lease is succeeded by the next number, which only one process can create, so that two
processes never take over the same one. All it needs of a file system is that of two processes
creating a name, one fails. Ages are differences of two times that the file system itself set, so
the clocks of machines need not agree.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from competition.files import is_alive, name_in_errors, name_machine, parse_json

BEAT_S = 15.0
STALE_S = 120.0
"""Eight missed beats: no lease is lost if a file server hangs for a minute."""
POLL_S = 0.1


@dataclass
class Lease:
    """A lease that this process holds.

    Attributes:
        file: its path.
        is_lost: another process took it over, because this one did not write it for too long.
    """

    file: Path
    facts: dict[str, Any] = field(repr=False)
    is_lost: bool = False

    def beat(self) -> None:
        """Write the lease again; notice if it was taken over. A disk error waits for the next."""
        self.facts["beats"] += 1
        try:
            with self.file.open("r+b") as stream:
                stream.write(_write_facts(self.facts))
        except FileNotFoundError:
            self.is_lost = True
        except OSError:
            pass


class Leases:
    """The leases of one owner; a thread keeps them alive until they are released or closed.

    Args:
        beat_s: how often each is written.
        stale_s: after which silence a lease of another machine is taken over.
    """

    def __init__(self, *, beat_s: float = BEAT_S, stale_s: float = STALE_S) -> None:
        self._beat_s, self._stale_s = beat_s, stale_s
        self._held: list[Lease] = []
        self._guard = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self, path: Path) -> Lease | None:
        """Take the lease of a path, without waiting; return None if another process holds it.

        Args:
            path: of what is leased; the lease is beside it and begins with its name.

        Raises:
            OSError: the folder cannot be written; names ``path``.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        before = list_leases(path)
        owner = _identify(before[-1]) if before else None
        if before and not is_stale(before[-1], self._stale_s):
            return None
        lease = _create(path, 1 + (_number(before[-1]) if before else 0))
        if lease is None:
            return None
        # the predecessor may have been released, and another process may have started at 1 again
        is_next = not before or (owner is not None and _identify(before[-1]) == owner)
        if not is_next or list_leases(path)[-1:] != [lease.file]:
            lease.file.unlink(missing_ok=True)
            return None
        for old in before:
            old.unlink(missing_ok=True)
        self._keep(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Release a lease."""
        with self._guard:
            self._held = [each for each in self._held if each is not lease]
        if not lease.is_lost:
            lease.file.unlink(missing_ok=True)

    def close(self) -> None:
        """Release all leases."""
        self._closed.set()
        for lease in tuple(self._held):
            self.release(lease)
        if self._thread is not None:
            self._thread.join()

    def _keep(self, lease: Lease) -> None:
        with self._guard:
            self._held.append(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat_all, daemon=True)
                self._thread.start()

    def _beat_all(self) -> None:
        while not self._closed.wait(self._beat_s):
            with self._guard:
                for lease in self._held:
                    lease.beat()


@contextmanager
def hold(
    path: Path,
    *,
    should_give_up: Callable[[], bool] = lambda: False,
    on_wait: Callable[[str], None] | None = None,
    poll_s: float = POLL_S,
) -> Iterator[Lease]:
    """Hold the lease of a path in the block; wait while another process holds it.

    Args:
        should_give_up: called while waiting.
        on_wait: called once with the owner's name, if there is a wait.

    Raises:
        TimeoutError: it was given up.
    """
    with Leases() as leases:
        lease = leases.acquire(path)
        if lease is None and on_wait is not None:
            on_wait(name_owner(path) or "another process")
        while lease is None:
            if should_give_up():
                raise TimeoutError(f"gave up waiting for {path}")
            time.sleep(poll_s)
            lease = leases.acquire(path)
        yield lease


def name_owner(path: Path) -> str | None:
    """Return who holds the lease of a path, such as ``process 4711 of node-3``; None if free."""
    held = list_leases(path)
    facts = _read_facts(held[-1]) if held else None
    return None if facts is None else f"process {facts['pid']} of {facts['host']}"


def describe_lost(lease: Lease) -> str:
    """Return why a lease was lost, and what to do."""
    return (
        f"{lease.file} was taken over by another process, because this one was silent for "
        f"{STALE_S:.0f} s (a suspended machine, or a file server that did not answer); run the "
        "same command again"
    )


def clear_stale(path: Path) -> None:
    """Remove the lease of a path if its owner is gone and the lease is no longer needed.

    A disk that refuses it does no harm.
    """
    with suppress(OSError), Leases() as leases:
        if list_leases(path):
            leases.acquire(path)  # not if it is held; given back with the block


def list_leases(path: Path) -> list[Path]:
    """Return the files of the lease of a path, the one that holds last."""
    pattern = re.compile(rf"{re.escape(path.name)}\.(\d{{1,9}})\.lease")
    found = [each for each in path.parent.iterdir() if pattern.fullmatch(each.name)]
    return sorted(found, key=_number)


def is_stale(file: Path, stale_s: float = STALE_S) -> bool:
    """Return whether the owner of a lease is gone, or has been silent for ``stale_s``."""
    facts = _read_facts(file)
    if facts is not None and facts["machine"] == name_machine():
        return not is_alive(facts["pid"]) or facts["born"] != find_birth(facts["pid"])
    try:
        with file.open("rb") as stream:  # opening asks the file server, a mere stat may not
            written = os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return False  # released, or taken over by another process
    return _ask_time(file.parent) - written > stale_s


def find_birth(pid: int) -> str | None:
    """Return when a process started, which distinguishes it from later ones with its number.

    None if unknown.

    Of a process that has ended but was not waited for, it is ``gone``.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
    state, *rest = stat.rpartition(b")")[2].split()
    return "gone" if state in (b"Z", b"X") else f"{boot[:8]}-{rest[18].decode()}"


def _create(path: Path, number: int) -> Lease | None:
    """Create a lease with its content in one step; return None if the file exists."""
    facts = {
        "host": platform.node(),
        "machine": name_machine(),
        "pid": os.getpid(),
        "born": find_birth(os.getpid()),
        "token": secrets.token_hex(8),
        "beats": 0,
    }
    lease = Lease(path.with_name(f"{path.name}.{number}.lease"), facts)
    own = f"{facts['machine']}-{facts['pid']}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[:40]}.{own}.tmp")
    try:
        with name_in_errors(path):
            temporary.write_bytes(_write_facts(facts))
            return lease if _link(temporary, lease.file) else None
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, file: Path) -> bool:
    """Create a second name of a file; return False if that name exists."""
    try:
        file.hardlink_to(temporary)
    except FileExistsError:
        # a file server may have answered twice, and the first answer been lost
        return temporary.stat().st_nlink == 2
    except OSError:  # a file system without hard links
        try:
            with file.open("xb") as stream:
                stream.write(temporary.read_bytes())
        except FileExistsError:
            return False
    return True


def _write_facts(facts: dict[str, Any]) -> bytes:
    """Format a lease; every beat has the same length, so that no reader sees two in one."""
    return (json.dumps({**facts, "beats": f"{facts['beats']:010d}"}) + "\n").encode()


def _read_facts(file: Path) -> dict[str, Any] | None:
    """Read a lease; None if it is gone or unreadable, and so judged by its age alone."""
    try:
        facts = parse_json(file.read_bytes())
        known = isinstance(facts["pid"], int) and isinstance(facts["machine"], str)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"host": "another machine", "born": None, **facts} if known else None


def _identify(file: Path) -> str | None:
    """Return what distinguishes a lease from a later one of the same name; None if it is gone."""
    facts = _read_facts(file)
    if facts is not None and "token" in facts:
        return str(facts["token"])
    try:
        return f"inode {file.stat().st_ino}"
    except OSError:
        return None


def _number(file: Path) -> int:
    return int(file.name.split(".")[-2])


def _ask_time(folder: Path) -> float:
    """Return the time of the file system, by the time of a file that is written now."""
    own = f"{name_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    probe = folder / f".time.{own}.tmp"
    try:
        probe.write_bytes(b"?")
        return probe.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink()
