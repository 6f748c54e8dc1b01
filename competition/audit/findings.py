"""The guesses of ``init`` about files, each with its confidence and reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Sure = Literal["sure", "likely", "a guess"]
ROLE_NAMES = {
    "subject": re.compile(
        r"(^|[._ -])(subj(ect)?|sub|head|h|e1|ent1|entity_?1|arg1|first|src|s)([._ 0-9-]|$)|주어",
        re.I,
    ),
    "object": re.compile(
        r"(^|[._ -])(obj(ect)?|tail|t|e2|ent2|entity_?2|arg2|second|dst|o)([._ 0-9-]|$)|목적어",
        re.I,
    ),
}


@dataclass(frozen=True)
class Guess:
    """One thing that was guessed: what it is about, the value, how sure, and why."""

    what: str
    value: Any
    sure: Sure
    why: str


@dataclass
class Findings:
    """All that was guessed of a competition; ``guesses`` in the order of a profile."""

    guesses: list[Guess] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    entity: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    negative: str | None = None
    unknown: str | None = None
    is_korean: bool = False
    submission: dict[str, Any] = field(default_factory=dict)
    has_whole_sample: bool = False  # the sample submission has the rows of the test file

    def add(self, what: str, value: Any, sure: Sure, why: str) -> None:
        """Keep a guess."""
        self.guesses.append(Guess(what, value, sure, why))
