"""Lines of the ledger that cannot be read, and what they may have said.

One damaged line must not hide the rest of the ledger. It is named and left aside; whatever could
be lost with it, a file that was sent, its place in the day's quota, the id of an attempt, is
assumed to be in it as far as its text allows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, tzinfo

_KIND = re.compile(r'"kind"\s*:\s*"([a-z]+)"')
_SHA = re.compile(r'"sha256"\s*:\s*"([0-9a-f]{64})"')
_TARGET = re.compile(r'"target"\s*:\s*"([^"]*)"')
_TIME = re.compile(r'"time"\s*:\s*"([^"]+)"')
_ID = re.compile(r'"(?:id|intent)"\s*:\s*([0-9]{1,9})(?![0-9])')
MAX_ID = 10**9
MAX_NAMED = 5  # a ledger that is another file altogether has thousands


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """A line that was left aside: its number from 1, what is wrong with it, and its text."""

    number: int
    reason: str
    text: str

    @property
    def may_be_attempt(self) -> bool:
        """Return whether it may have recorded that a file was about to be sent."""
        kind = _KIND.search(self.text)
        return kind is None or kind[1] not in ("receipt", "score")

    @property
    def ids(self) -> list[int]:
        """Return the ids of attempts that it names."""
        return [int(found) for found in _ID.findall(self.text)]

    def may_name(self, sha256: str) -> bool:
        """Return whether it may have recorded an attempt with these bytes."""
        if not self.may_be_attempt:
            return False
        found = _SHA.search(self.text)
        return found is None or found[1] == sha256

    def may_count(self, today: date, zone: tzinfo, target: str) -> bool:
        """Return whether it records an attempt of today at a target, as far as it can be read."""
        found, named = _TIME.search(self.text), _TARGET.search(self.text)
        if not self.may_be_attempt or found is None:
            return False
        try:
            time = datetime.fromisoformat(found[1])
        except ValueError:
            return False
        is_there = named is None or named[1] == target
        return is_there and time.tzinfo is not None and time.astimezone(zone).date() == today

    def describe(self) -> str:
        """Describe the line and its error."""
        return f"line {self.number}: {self.reason}"


def describe_damage(damaged: list[DamagedLine], where: str) -> str:
    """Describe the ignored lines and what to do; "" if there are none."""
    if not damaged:
        return ""
    some = "; ".join(each.describe() for each in damaged[:MAX_NAMED])
    more = f"; and {len(damaged) - MAX_NAMED:,} more" if len(damaged) > MAX_NAMED else ""
    lines = (
        "a line that cannot be read was" if len(damaged) == 1 else "lines that cannot be read were"
    )
    return (
        f"{where}: {lines} left aside ({some}{more}): restore them from a backup, or remove them if"
        " you know what they said"
    )
