"""Provenance of an artefact (time and commit), stored beside it, never inside it."""

from __future__ import annotations

import subprocess
import tomllib
from datetime import datetime
from importlib import metadata
from pathlib import Path

PROJECT = "relation-extraction-harness"


def read_version() -> str:
    """Return the version of this code: of the checkout, or of the package that is installed."""
    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if path.is_file():
        return str(tomllib.loads(path.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version(PROJECT)


def read_commit() -> str | None:
    """Return the commit of this checkout, with ``-dirty`` if files differ; None outside git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def describe_run(now: datetime) -> dict[str, str | None]:
    """Return the current time (ISO, to the second) and the commit."""
    return {"time": now.isoformat(timespec="seconds"), "commit": read_commit()}
