"""Merge offences that have the same cause."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from competition.errors import Offence

_VALUE = re.compile(r"'[^']*'|[0-9]+")
REPEATED = 10
"""Minimum number of offences with the same wording that are merged to one with a count."""
ONE_CAUSE = 0.5
"""Minimum fraction of the rows for offences with the same remedy to be merged."""


def gather_causes(offences: Sequence[Offence], n_rows: int) -> list[Offence]:
    """Merge offences with the same wording in many rows, or the same remedy in most rows.

    Returns:
        The offences; each merged group is represented by its first offence, with the count.
    """
    if len(offences) < REPEATED:
        return list(offences)
    by_wording: dict[tuple[str | None, str, str], list[int]] = defaultdict(list)
    by_remedy: dict[tuple[str | None, str], list[int]] = defaultdict(list)  # values left out
    for place, offence in enumerate(offences):
        by_wording[offence.column, offence.found, offence.remedy].append(place)
        by_remedy[offence.column, _VALUE.sub("…", offence.remedy)].append(place)
    dropped: set[int] = set()
    merged: dict[int, Offence] = {}
    for places in by_remedy.values():
        if len(places) >= max(REPEATED, ONE_CAUSE * n_rows):
            first = offences[places[0]]
            found = f"{first.found}; the same or similar in {len(places):,} of {n_rows:,} rows"
            merged[places[0]] = replace(first, found=found)
            dropped.update(places[1:])
    for places in by_wording.values():
        if len(places) >= REPEATED and places[0] not in dropped and places[0] not in merged:
            first = offences[places[0]]
            found = f"{first.found} in {len(places):,} rows, first in this one"
            merged[places[0]] = replace(first, found=found)
            dropped.update(places[1:])
    return [merged.get(i, offence) for i, offence in enumerate(offences) if i not in dropped]
