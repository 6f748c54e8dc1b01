"""Storages of a study: liveness of processes, damaged journals, refused URLs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from competition.errors import UsageError
from competition.files import name_machine
from models.tuning import storage as room
from models.tuning.storage import (
    Processes,
    open_database,
    open_journal,
    parse_storage,
    storage_failures,
)


def test_what_killed_processes_left_goes_when_another_begins(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    facts = {"pid": child.pid, "machine": name_machine(), "born": "long ago"}
    (tmp_path / "gone.1.lease").write_text(json.dumps(facts), "utf-8")
    with Processes(tmp_path) as here, Processes(tmp_path) as other:
        assert here.is_alive(other.name)
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {f"{each.name}.1.lease" for each in (here, other)}


def test_a_process_counts_as_alive_until_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from models.tuning.storage import Processes\n"
        "with Processes(Path(sys.argv[1])) as here:\n"
        "    print(here.name, flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    with Processes(tmp_path) as here:
        assert name
        assert name != here.name
        assert here.is_alive(name)
        assert here.is_alive(here.name)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert not here.is_alive(name)
        assert not here.is_alive(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["id,label\n1,2\n", "my notes, without a last newline"])
def test_a_file_that_is_not_a_journal_is_refused_and_unchanged(
    content: str, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"notes\.txt is not a journal"):
        open_journal(path, lambda text: None)
    assert path.read_text() == content
    with pytest.raises(UsageError, match="is not a journal"):
        open_journal(tmp_path, lambda text: None)


def test_a_journal_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b'{"op_code":0,"torn\n{"op_code":1}\n')
    with pytest.raises(UsageError, match=r"journal\.log is damaged"):
        open_journal(path, lambda text: None)


def test_a_journal_with_an_incomplete_first_line_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b'{"op_code":0,"wor')
    said: list[str] = []
    open_journal(path, said.append)
    assert path.read_bytes() == b""
    assert "removed an incomplete last line (17 bytes)" in said[0]


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://a@b/c"])
def test_other_databases_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="postgresql://USER@HOST/DATABASE"):
        parse_storage(url, tmp_path)


def test_an_address_that_cannot_be_read_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: object())  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="@ as %40") as caught:
        parse_storage("postgresql://me:s3cret@pass:word@host/studies", tmp_path)
    assert not re.search("s3cret|pass:|word@", str(caught.value))
    assert parse_storage("postgresql://me@host/x", tmp_path) == "postgresql+psycopg://me@host/x"


def test_a_missing_psycopg_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"pip install 'psycopg\[binary\]'"):
        parse_storage("postgresql://a@b/c", tmp_path)


def test_an_unreachable_database_is_reported_without_its_password() -> None:
    url = "postgresql+psycopg://someone:hunter2@127.0.0.1:1/none?connect_timeout=2"
    begun = time.monotonic()
    with (
        pytest.raises(UsageError, match="storage of the study cannot be reached") as caught,
        storage_failures(),
        open_database(url, 5.0, lambda study, trial: None),
    ):
        raise AssertionError("it answers")
    assert "hunter2" not in str(caught.value)
    assert time.monotonic() - begun < 30


def open_newer(
    url: str,
    *,
    heartbeat_stale_trial_callback: Any = None,
    failed_trial_callback: Any = None,
    **options: Any,
) -> Any:
    """Take the callbacks that a database of Optuna 4.9 takes."""
    assert failed_trial_callback is None  # deprecated
    return Mock(on_stale=heartbeat_stale_trial_callback)


def open_older(
    url: str,
    *,
    engine_kwargs: Any,
    heartbeat_interval: int,
    grace_period: int,
    failed_trial_callback: Any = None,
) -> Any:
    """Take the arguments that a database of Optuna 4.6 takes."""
    return Mock(on_stale=failed_trial_callback)


@pytest.mark.parametrize("database", [open_newer, open_older])
def test_every_version_of_optuna_gets_what_to_call_for_stale_trials(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_stale(study: Any, trial: Any) -> None:
        raise AssertionError("no trial is stale")

    monkeypatch.setattr(room, "RDBStorage", database)
    with open_database("postgresql+psycopg://a@b/c", 5.0, on_stale) as opened:
        assert opened.on_stale is on_stale  # type: ignore[attr-defined]


def test_a_path_is_a_journal(tmp_path: Path) -> None:
    assert parse_storage(None, tmp_path / "d") == tmp_path / "d"
    assert parse_storage(str(tmp_path / "j.log"), tmp_path) == tmp_path / "j.log"
    url = parse_storage("postgres://a:b@c/d", tmp_path)
    assert url == "postgresql+psycopg://a:b@c/d"
