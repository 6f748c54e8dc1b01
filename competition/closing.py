"""The last lines of a command: verdict, warnings, what was written and what to do next.

A note that begins with one of ``CLOSING`` is printed below everything else, so that these lines are
what a person sees without scrolling. There are at most ``MAX_LINES``; other warnings stay at their
tables.
"""

from __future__ import annotations

from collections.abc import Sequence

WARNING = "Warning"
CLOSING = {
    "Verdict": "bold",
    "Better": "bold green",
    "Worse": "bold red",
    WARNING: "yellow",
    "Written": "",
    "Next": "bold cyan",
}
"""The first word of a closing line and its colour, which only repeats what the words say."""
MAX_LINES = 5


def find_kind(note: str) -> str | None:
    """Return the kind of a closing line; None for any other note.

    >>> find_kind("Next: python run.py blend"), find_kind("Next time"), find_kind("Better than A")
    ('Next', None, None)
    """
    kind = note.partition(":")[0]
    return kind if kind in CLOSING and note.startswith(f"{kind}: ") else None


def split_closing(notes: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Take the closing lines out of the notes of some tables.

    >>> some = [["n", "Warning: a", "Next: x"], ["Verdict: v", "Warning: b", "Warning: c"]]
    >>> kept, last = split_closing(some)
    >>> kept, last
    ([['n'], []], ['Verdict: v', 'Warning: a', 'Warning: b', 'Warning: c', 'Next: x'])

    Returns:
        The other notes of each table, and the closing lines in the order of ``CLOSING``.
    """
    order = list(CLOSING)
    every = [note for some in notes for note in some if find_kind(note)]
    warnings = [note for note in every if find_kind(note) == WARNING]
    room = MAX_LINES - (len(every) - len(warnings))
    shown = warnings if len(warnings) <= room else warnings[: max(0, room - 1)]
    more = len(warnings) - len(shown)
    last = [note for note in every if find_kind(note) != WARNING] + shown
    if more:
        last.append(f"{WARNING}: {more} more above.")
    last.sort(key=lambda note: order.index(find_kind(note) or ""))
    taken = set(last)
    return [[note for note in some if note not in taken] for some in notes], last
