"""Progress of running tasks: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from competition.console import escape, say

LINE_EVERY_S = 20.0


def format_seconds(seconds: float) -> str:
    """Format a duration briefly.

    >>> format_seconds(5), format_seconds(190), format_seconds(7320)
    ('5 s', '3 min 10 s', '2 h 2 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class RemainingTime:
    """Estimate the remaining time of tasks of known sizes from the speed so far.

    The clock starts with the first task, not while rows are read and jobs are planned.

    >>> now = iter([0.0, 60.0])
    >>> remaining = RemainingTime({"a": 100.0, "b": 300.0, "c": 900.0}, clock=lambda: next(now))
    >>> remaining.drop("c")
    >>> remaining.update("a", 0.0)
    >>> remaining.resume("a", 0.5)  # earlier work does not count as speed
    >>> remaining.update("a", 1.0)
    >>> remaining.seconds()
    360.0
    """

    def __init__(
        self, sizes: Mapping[Hashable, float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sizes, self._clock = dict(sizes), clock
        self._began: float | None = None
        self._first: dict[Hashable, float] = {}
        self._latest: dict[Hashable, float] = {}

    def update(self, task: Hashable, frac: float) -> None:
        """Record that a fraction ``frac`` (0 to 1) of a task is done."""
        if self._began is None:
            self._began = self._clock()
        self._first.setdefault(task, frac)
        self._latest[task] = frac

    def resume(self, task: Hashable, frac: float) -> None:
        """Record that a task goes on from a fraction that was done earlier."""
        self._first[task] = self._latest[task] = frac

    def drop(self, task: Hashable) -> None:
        """Remove a task that failed or was done elsewhere."""
        for kept in (self._sizes, self._first, self._latest):
            kept.pop(task, None)

    def seconds(self) -> float | None:
        """Return the seconds until all tasks are done; None if nothing was done yet."""
        done = sum(
            self._sizes[task] * (self._latest[task] - frac) for task, frac in self._first.items()
        )
        left = sum(size * (1 - self._latest.get(task, 0.0)) for task, size in self._sizes.items())
        if self._began is None or done <= 0:
            return None
        return left * (self._clock() - self._began) / done


class ProgressBoard:
    """Show one bar per task on a terminal, elsewhere a line per task every ``LINE_EVERY_S``."""

    def __init__(self, *, live: bool | None = None) -> None:
        self._live = sys.stderr.isatty() if live is None else live
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> ProgressBoard:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bars = Progress(
                TextColumn("{task.fields[name]}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        if self._bars is not None:
            self._bars.console.print(escape(text), markup=False, highlight=False)
        else:
            say(text, file=sys.stderr)

    def update(self, name: str, frac: float, text: str) -> None:
        """Show the fraction ``frac`` (0 to 1) of task ``name`` that is done, with a short text."""
        if self._bars is not None:
            shown = escape(text)
            if name not in self._tasks:
                task = self._bars.add_task("", total=1.0, name=escape(name), text=shown)
                self._tasks[name] = task
            self._bars.update(self._tasks[name], completed=frac, text=shown)
            return
        now = time.monotonic()
        if now - self._printed.setdefault(name, now - LINE_EVERY_S / 2) >= LINE_EVERY_S:
            self._printed[name] = now
            say(f"{name}: {100 * frac:.0f}%, {text}", file=sys.stderr)

    def close(self, name: str) -> None:
        """Remove a task's bar."""
        if self._bars is not None and name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        self._printed.pop(name, None)
