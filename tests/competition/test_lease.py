"""Leases: one holder at a time, whatever was killed, on this machine and on others."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from competition import lease as room
from competition.lease import Leases, clear_stale, hold, is_stale, list_leases, name_owner
from tests.conftest import leave_lease


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s42-f0" / "job"


def test_one_holds_at_a_time_and_leaves_nothing(path: Path) -> None:
    with Leases() as ours, Leases() as theirs:
        lease = ours.acquire(path)
        assert lease is not None
        assert theirs.acquire(path) is None
        assert name_owner(path) == f"process {os.getpid()} of {room.platform.node()}"
        ours.release(lease)
        assert theirs.acquire(path) is not None
    assert list(path.parent.iterdir()) == []


def test_the_lease_of_a_process_that_was_killed_is_taken_over_at_once(path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave_lease(path, pid=gone.pid)
    with Leases() as leases:
        lease = leases.acquire(path)
        assert lease is not None
        assert list_leases(path) == [lease.file]
        assert lease.file.name == "job.2.lease"
    assert list(path.parent.iterdir()) == []


def test_an_unneeded_lease_is_removed_if_its_owner_is_gone(path: Path) -> None:
    clear_stale(path)  # there is not even a folder
    leave_lease(path, born="before")
    clear_stale(path)
    assert list(path.parent.iterdir()) == []
    with hold(path) as held:
        clear_stale(path)
        assert list_leases(path) == [held.file]
    leave_lease(path, machine="another")  # silent for less than a minute
    clear_stale(path)
    assert len(list_leases(path)) == 1


def test_a_process_of_the_same_number_that_started_later_is_another(path: Path) -> None:
    if room.find_birth(os.getpid()) is None:
        pytest.skip("this system does not tell when a process started")
    assert is_stale(leave_lease(path, born="00000000-1"))
    assert not is_stale(leave_lease(path))


def test_a_zombie_process_is_gone(path: Path) -> None:
    born = room.find_birth(os.getpid())
    if born is None:
        pytest.skip("this system does not tell when a process started")
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    file = leave_lease(path, pid=zombie.pid, born=room.find_birth(zombie.pid))
    while not is_stale(file):
        time.sleep(0.01)
    zombie.wait()


@pytest.mark.parametrize("content", ["theirs", "torn"])
def test_the_lease_of_another_machine_is_taken_over_when_it_is_silent(
    content: str, path: Path
) -> None:
    file = leave_lease(path, machine="0123abcd", host="node-7")
    if content == "torn":
        file.write_bytes(b'{"mach')
    with Leases() as leases:
        assert leases.acquire(path) is None
        written = time.time() - room.STALE_S - 60
        os.utime(file, (written, written))
        assert leases.acquire(path) is not None


def test_a_lease_is_written_again_and_its_loss_is_noticed(path: Path) -> None:
    with Leases(beat_s=0.01) as leases:
        lease = leases.acquire(path)
        assert lease is not None
        size = lease.file.stat().st_size
        while int(json.loads(lease.file.read_bytes() or b'{"beats": 0}')["beats"]) < 2:
            time.sleep(0.01)
        assert lease.file.stat().st_size == size
        lease.file.rename(path.with_name("job.2.lease"))  # as if another had taken it over
        while not lease.is_lost:
            time.sleep(0.01)
    assert [file.name for file in list_leases(path)] == ["job.2.lease"]


def take(leases: Leases, path: Path, start: threading.Barrier) -> bool:
    start.wait()
    return leases.acquire(path) is not None


def test_of_many_that_find_a_stale_lease_one_takes_it_over(path: Path) -> None:
    for _ in range(20):
        leave_lease(path, born="00000000-1", pid=os.getpid())
        start = threading.Barrier(8)
        with Leases() as leases, ThreadPoolExecutor(8) as pool:
            got = [pool.submit(take, leases, path, start) for _ in range(8)]
            assert sum(each.result() for each in got) <= 1
        with Leases() as leases:
            assert leases.acquire(path) is not None
    assert list(path.parent.iterdir()) == []


def test_a_lease_that_is_released_while_it_is_taken_over_has_no_successor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = leave_lease(path)

    def release(found: Path, stale_s: float) -> bool:
        found.unlink()
        return True

    monkeypatch.setattr(room, "is_stale", release)
    with Leases() as leases:
        assert leases.acquire(path) is None
        assert not file.exists()
        assert list_leases(path) == []


def test_a_lease_of_the_same_name_that_others_took_meanwhile_is_theirs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One succeeds the stale lease and releases it, and another starts at 1 again."""
    leave_lease(path, born="00000000-1", pid=os.getpid())
    create = room._create
    others = [Leases(), Leases()]

    def pause(found: Path, number: int) -> room.Lease | None:
        monkeypatch.setattr(room, "_create", create)
        second = others[0].acquire(found)
        assert second is not None
        others[0].release(second)
        assert others[1].acquire(found) is not None
        return create(found, number)

    monkeypatch.setattr(room, "_create", pause)
    with others[0], others[1], Leases() as leases:
        assert leases.acquire(path) is None
        assert room._create is create, "others came between"
        assert [each.name for each in list_leases(path)] == [f"{path.name}.1.lease"]


def test_a_file_system_without_hard_links_will_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    test_one_holds_at_a_time_and_leaves_nothing(path)


def test_a_waiting_process_knows_for_whom_and_can_give_up(path: Path) -> None:
    said: list[str] = []
    with hold(path):
        with (
            pytest.raises(TimeoutError),
            hold(path, should_give_up=lambda: True, on_wait=said.append),
        ):
            pass
        assert said == [f"process {os.getpid()} of {room.platform.node()}"]
    with hold(path, should_give_up=lambda: True):
        pass


def test_a_disk_that_refuses_a_lease_names_what_is_leased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _data: bytes) -> int:
        raise OSError(errno.EROFS, "", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match=r"ledger\.jsonl") as caught, hold(tmp_path / "ledger.jsonl"):
        pass
    assert caught.value.filename == str(tmp_path / "ledger.jsonl")
