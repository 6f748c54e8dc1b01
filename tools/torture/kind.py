"""A kind of file to be changed slightly: a valid one, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of file: a valid one, how it is read, and whether its fields are JSON too."""

    data: bytes
    read: Callable[[bytes], None]
    is_json_lines: bool = False
