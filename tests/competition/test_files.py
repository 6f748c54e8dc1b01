"""files: whole or not at all, and never outside a folder."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from competition.errors import UsageError
from competition.files import (
    append_line_synced,
    check_name,
    dump_json,
    is_name,
    sha256_of,
    write_atomically,
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


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "a" / "log.jsonl"
    append_line_synced(path, "하나")
    append_line_synced(path, "둘")
    assert path.read_bytes() == "하나\n둘\n".encode()
    with pytest.raises(ValueError, match="newline"):
        append_line_synced(path, "a\nb")


def test_json_is_sorted_plain_and_strict() -> None:
    text = dump_json({"b": [math.nan, math.inf], "a": (np.float32(0.5), np.arange(2), {1: None})})
    assert json.loads(text) == {"a": [0.5, [0, 1], {"1": None}], "b": [None, None]}
    assert text.index('"a"') < text.index('"b"')


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x").startswith("ba7816bf8f01cfea")
