"""Offences of a file → the same, each cause said once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from competition.errors import Offence

_VALUE = re.compile(r"'[^']*'|[0-9]+")
REPEATED = 10
"""From so many offences of one wording on they are one, with their number."""
ONE_CAUSE = 0.5
"""Offences with one remedy that meet this share of the rows have one cause."""


def gather_causes(offences: Sequence[Offence], n_rows: int) -> list[Offence]:
    """Say once what has one cause: the same wording in many rows, or one remedy for most rows.

    Args:
        offences: of one file, in its order.
        n_rows: how many records it has.

    Returns:
        The offences, each group of one cause as its first, with their number.
    """
    if len(offences) < REPEATED:
        return list(offences)
    by_wording: dict[tuple[str | None, str, str], list[int]] = defaultdict(list)
    by_remedy: dict[tuple[str | None, str], list[int]] = defaultdict(list)  # values left out
    for place, offence in enumerate(offences):
        by_wording[offence.column, offence.found, offence.remedy].append(place)
        by_remedy[offence.column, _VALUE.sub("…", offence.remedy)].append(place)
    dropped: set[int] = set()
    told: dict[int, Offence] = {}
    for places in by_remedy.values():
        if len(places) >= max(REPEATED, ONE_CAUSE * n_rows):
            first = offences[places[0]]
            found = f"{first.found}: this or the like in {len(places):,} of {n_rows:,} rows"
            told[places[0]] = replace(first, found=found)
            dropped.update(places[1:])
    for places in by_wording.values():
        if len(places) >= REPEATED and places[0] not in dropped and places[0] not in told:
            first = offences[places[0]]
            found = f"{first.found} in {len(places):,} rows, this one first"
            told[places[0]] = replace(first, found=found)
            dropped.update(places[1:])
    return [told.get(i, offence) for i, offence in enumerate(offences) if i not in dropped]
