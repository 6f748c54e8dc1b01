"""Suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

MAX_SUGGESTIONS = 3


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return a question with the choices spelled like a name, "" if there are none.

    Args:
        name: as it was typed.
        choices: or a mapping of what can be typed to how it is shown.

    >>> suggest("typed-punkt", ["typed-punct", "rbert"]), suggest("x", ["typed-punct"])
    ('; did you mean typed-punct?', '')
    """
    near = get_close_matches(name, list(choices), n=MAX_SUGGESTIONS, cutoff=0.7)
    shown = [choices[each] for each in near] if isinstance(choices, Mapping) else near
    return f"; did you mean {' or '.join(shown)}?" if near else ""
