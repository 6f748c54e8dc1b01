"""What a person sees: tables on the terminal, or the same rows as JSON.

Every command that shows figures builds ``Table`` objects; this room prints them.
Scores are floats in [0, 1] in the rows (and in JSON) and ×100 on the terminal.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "count", "score", "interval", "share", "difference", "spread", "number"]


WIDTH_OF_FILES = 120  # where the output is no terminal, whose width would be known
NARROWEST_TEXT = 18

FORMATTERS: dict[Kind, Callable[[Any], str]] = {
    "text": str,
    "count": lambda value: f"{value:,}",
    "score": lambda value: f"{100 * value:.2f}",
    "difference": lambda value: f"{100 * value:+.2f}",
    "interval": lambda value: f"{100 * value[0]:.2f}–{100 * value[1]:.2f}",
    "spread": lambda value: f"{100 * value[0]:+.2f} to {100 * value[1]:+.2f}",
    "share": lambda value: f"{100 * value:.1f}%",
    "number": lambda value: f"{value:.4g}",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the key of its value in each row, its header and how the value is written."""

    key: str
    header: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; ``rows`` map column keys to plain JSON values, ``notes`` stand below it."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()


def format_value(value: Any, kind: Kind) -> str:
    """Write one value for a terminal.

    >>> format_value(0.7153, "score"), format_value((0.7, 0.73), "interval")
    ('71.53', '70.00–73.00')
    >>> format_value(None, "score"), format_value(0.294, "share")
    ('–', '29.4%')
    >>> format_value(-0.012, "difference")
    '-1.20'
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return FORMATTERS[kind](value)


def _narrowest(table: Table, column: Column) -> int:
    """Return the width below which a text column is no longer readable."""
    longest = max((len(format_value(row.get(column.key), "text")) for row in table.rows), default=0)
    return min(NARROWEST_TEXT, max(longest, len(column.header)))


def print_tables(tables: Sequence[Table], *, as_json: bool) -> None:
    """Print tables for a person, or as one JSON object keyed by table name."""
    if as_json:
        payload = {
            table.name: {"rows": [dict(row) for row in table.rows], "notes": list(table.notes)}
            for table in tables
        }
        print(json.dumps(payload, ensure_ascii=False, indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_FILES
    for table in tables:
        if table.rows:
            grid = RichTable(
                title=escape(table.title),
                title_justify="left",
                title_style="bold",
                box=box.SIMPLE_HEAD,
                padding=(0, 1, 0, 0),
            )
            for column in table.columns:
                right = column.kind != "text"
                grid.add_column(
                    escape(column.header).replace(" ", "\n") if right else escape(column.header),
                    justify="right" if right else "left",
                    no_wrap=right,
                    min_width=None if right else _narrowest(table, column),
                    overflow="fold",
                )
            for row in table.rows:
                cells = (format_value(row.get(c.key), c.kind) for c in table.columns)
                grid.add_row(*(escape(cell) for cell in cells))
            console.print(grid)
        else:
            console.print(f"[bold]{escape(table.title)}[/bold]")
        for note in table.notes:
            console.print(escape(note))
