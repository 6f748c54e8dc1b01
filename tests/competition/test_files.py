"""files: whole or not at all, and never outside a folder."""

from __future__ import annotations

import errno
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition import files
from competition.arrays import read_cached
from competition.errors import UsageError, explain_os_error
from competition.files import (
    append_lines_synced,
    check_folder,
    check_name,
    check_writable,
    dump_json,
    hidden_folder,
    is_name,
    parse_json,
    parse_toml,
    sha256_of,
    write_atomically,
    write_cache,
)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        ".hidden",
        "-x",
        "a.",
        "a b",
        "가",
        "a\n",
        "x" * 101,
    ],
)
def test_a_name_cannot_leave_its_folder(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(UsageError):
        check_name(name)


@pytest.mark.parametrize("name", ["typed-punct", "typed-punct@ko-mini", "A_1.b+c=3", "x" * 100])
def test_usual_names_pass(name: str) -> None:
    assert check_name(name) == name


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "하나\r\n")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text("utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("write", [write_atomically, append_lines_synced])
def test_what_the_system_refuses_names_the_file(
    write: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match="Errno") as caught:
            write(path, "new")
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    with pytest.raises(FileExistsError) as caught:
        write(tmp_path / "file" / "x", "new")
    assert caught.value.filename == str(tmp_path / "file")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space") as caught:
        write(tmp_path / "new", "new")
    assert explain_os_error(caught.value) == (
        f"{tmp_path / 'new'}: No space left on device; free some space, then run the same command"
        " again: finished files are kept"
    )


def test_a_long_name_in_a_long_script_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("관" * 85)
    write_atomically(path, "x")
    assert path.read_text("utf-8") == "x"


def test_a_place_where_nothing_can_be_written_is_reported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    check_writable(tmp_path / "file", "--out")
    check_writable(tmp_path / "a" / "b" / "new.csv", "--out")
    check_folder(tmp_path / "a" / "b", "--folder")
    with pytest.raises(UsageError, match=r"--out .*: is a folder; give a file"):
        check_writable(tmp_path, "--out")
    for wrong in (tmp_path / "file" / "a", tmp_path / "lost" / "a"):
        with pytest.raises(UsageError, match=f"--out: {wrong.parent} is not a folder"):
            check_writable(wrong, "--out")
    with pytest.raises(UsageError, match=r"--folder: .*/file is not a folder"):
        check_folder(tmp_path / "file", "--folder")
    for check in (check_writable, check_folder):
        with pytest.raises(OSError, match="too long"):
            check(tmp_path / ("x" * 300), "--out")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match=f"{tmp_path} is not writable;"):
        check_writable(tmp_path / "a" / "new.csv", "--out")
    assert not (tmp_path / "a").exists()


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "a" / "log.jsonl"
    append_lines_synced(path, "하나")
    append_lines_synced(path, "둘", "셋")
    assert path.read_bytes() == "하나\n둘\n셋\n".encode()
    with pytest.raises(ValueError, match="newline"):
        append_lines_synced(path, "a\nb")
    assert path.read_bytes() == "하나\n둘\n셋\n".encode()


def test_a_kill_cannot_fall_between_lines_that_belong_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    write = io.FileIO.write

    class Counted(io.FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            writes.append(data)
            return write(self, data)

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Counted(path, mode))
    append_lines_synced(tmp_path / "log.jsonl", "one", "two")
    assert writes == [b"one\ntwo\n"]


def test_json_is_sorted_plain_and_strict() -> None:
    text = dump_json({"b": [math.nan, math.inf], "a": (np.float32(0.5), np.arange(2), {1: None})})
    assert json.loads(text) == {"a": [0.5, [0, 1], {"1": None}], "b": [None, None]}
    assert text.index('"a"') < text.index('"b"')


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x").startswith("ba7816bf8f01cfea")


def test_what_a_killed_writer_left_is_removed_at_the_next_write(tmp_path: Path) -> None:
    left = f".a.csv.{files.name_machine()}-999999999-0123abcd.tmp"
    alive = f".a.csv.{files.name_machine()}-{os.getpid()}-0123abcd.tmp"
    elsewhere, old = ".a.csv.00000000-999999999-0123abcd.tmp", ".b.00000000-1-0123abcd.tmp"
    own = ".mine.tmp"
    for name in (left, alive, elsewhere, old, own):
        (tmp_path / name).write_text("half", "utf-8")
    os.utime(tmp_path / old, (0, 0))
    folder = tmp_path / f".folder.{files.name_machine()}-999999999-0123abcd.tmp"
    folder.mkdir()
    (folder / ".tmpAbCdEf").write_text("what a library was writing", "utf-8")
    write_atomically(tmp_path / "a.csv", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", alive, elsewhere, own}


def test_machines_that_share_a_host_name_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of one image have the same host name and the same initial name space."""
    read, boots = Path.read_text, iter(["0000-1\n", "0000-2\n"])

    def read_boot(path: Path, *args: str) -> str:
        return next(boots) if path.name == "boot_id" else read(path, *args)

    monkeypatch.setattr(Path, "read_text", read_boot)
    assert files.name_machine.__wrapped__() != files.name_machine.__wrapped__()


def test_what_a_library_writes_is_hidden_until_it_is_whole(tmp_path: Path) -> None:
    with hidden_folder(tmp_path / "job") as folder:
        (folder / "x").write_text("whole", "utf-8")
        assert [path.name[0] for path in (tmp_path / "job").iterdir()] == ["."]
        (folder / "x").replace(tmp_path / "job" / "x")
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["x"]


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_cache(tmp_path / "file" / "cache.npz", b"x")
    write_cache(tmp_path / "cache.npz", b"x")
    assert (tmp_path / "cache.npz").read_bytes() == b"x"


def test_json_that_cannot_be_read_is_one_kind_of_error() -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in ("[" * 99_999, "9" * 10_000, b"\xff\xfe\xff", "{"):
        with pytest.raises(ValueError, match=r"nested|digits|decode|Expecting"):
            parse_json(text)


def test_a_damaged_cache_is_none(tmp_path: Path) -> None:
    path = tmp_path / "cache.npz"
    np.savez(path, a=np.arange(3), b=np.array([None], dtype=object))
    good = path.read_bytes()
    assert read_cached(tmp_path / "absent.npz", "a") is None
    found = read_cached(path, "a")
    assert found is not None
    assert found[0].tolist() == [0, 1, 2]
    assert read_cached(path, "a", "c") is None
    assert read_cached(path, "b") is None  # a pickle
    for end in range(0, len(good), 37):
        path.write_bytes(good[:end])
        assert read_cached(path, "a", "b") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = " + "[" * 5000, "nested too deeply"),
        ("x = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("x = " + "{a=" * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("x = " + "9" * 10_000, "too many digits"),
        ("x = 2026-99-99", "Expected"),
    ],
)
def test_toml_that_cannot_be_read_is_one_kind_of_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_toml(text)
