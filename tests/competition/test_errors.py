"""errors: what the system refuses is said in words, and a defect keeps its traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from competition.errors import explain_os_error


def explain(cause: OSError) -> str:
    return explain_os_error(cause) or "a defect"


def test_wrong_paths_are_named_with_what_to_do(tmp_path: Path) -> None:
    file, long = tmp_path / "file", tmp_path / ("x" * 300)
    file.touch()
    said = {}
    for name, path in {"folder": tmp_path, "in a file": file / "x", "long": long}.items():
        with pytest.raises(OSError, match="Errno") as caught:
            path.open("wb")
        said[name] = explain(caught.value)
    with pytest.raises(FileExistsError) as caught:
        file.mkdir()
    said["there"] = explain(caught.value)
    assert said == {
        "folder": f"{tmp_path}: Is a directory; a file is expected; give another path",
        "in a file": f"{file / 'x'}: Not a directory; a part of the path is a file, not a"
        " folder; give another path",
        "long": f"{long}: File name too long; use a shorter name",
        "there": f"{file}: File exists; a file or folder with this name exists; move it, or"
        " give another path",
    }


def test_a_full_disk_without_a_name_and_what_cannot_be_fixed() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explain(full).startswith("No space left on device; free some space")
    assert explain(PermissionError(errno.EACCES, "", b"/a")).startswith("/a: Permission denied;")
    for defect in (OSError("disk"), FileNotFoundError(errno.ENOENT, "", "x"), OSError(9999, "")):
        assert explain(defect) == "a defect"
