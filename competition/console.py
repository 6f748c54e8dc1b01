"""Output: tables on the terminal, or the same rows as JSON.

Every command that shows figures builds ``Table`` objects; this room prints them.
Scores are floats in [0, 1] in the rows (and in JSON) and ×100 on the terminal.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TextIO

from competition.closing import CLOSING, WARNING, find_kind, split_closing
from competition.errors import Offence

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

Kind = Literal[
    "text",
    "count",
    "score",
    "interval",
    "share",
    "difference",
    "spread",
    "number",
    "plain_score",
    "plain_interval",
    "plain_difference",
    "plain_spread",
]
Detail = Literal["rows", "table"]
"""What of a table is shown only in full: its rows, or all of it."""
Measure = tuple[int, int]
"""The least and the full width of a column, in cells of a terminal."""

UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that steer a terminal, reorder their neighbours, or show nothing.

Ids, sentences, labels and headers are others' text: ESC would run, U+202E would turn a line round.
"""
FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # show nothing either
WIDTH_OF_FILES = 120  # where the output is no terminal, whose width would be known
NARROWEST_TEXT = 18
GAP = 2  # spaces between columns, where there is room
COMMAND = re.compile(r"python run\.py |kaggle (?:datasets|kernels) ")

TYPOGRAPHY = {
    "–": "-",
    "—": "-",
    "…": "~",
    "×": "x",
    "±": "~",
    "−": "-",
    "→": ">",
    "“": '"',
    "”": '"',
}
"""Substitutes for characters that a terminal's encoding lacks, of the same width."""
READABLE = "harness.readable"

FORMATTERS: dict[Kind, Callable[[Any], str]] = {
    "text": str,
    "count": lambda value: f"{value:,}",
    "score": lambda value: f"{100 * value:.2f}",
    "difference": lambda value: f"{100 * value:+.2f}",
    "interval": lambda value: f"{100 * value[0]:.2f}–{100 * value[1]:.2f}",
    "spread": lambda value: f"{100 * value[0]:+.2f} to {100 * value[1]:+.2f}",
    "share": lambda value: f"{100 * value:.1f}%",
    "number": lambda value: f"{value:.4g}",
    "plain_score": lambda value: f"{value:.4f}",
    "plain_interval": lambda value: f"{value[0]:.4f}–{value[1]:.4f}",
    "plain_difference": lambda value: f"{value:+.4f}",
    "plain_spread": lambda value: f"{value[0]:+.4f} to {value[1]:+.4f}",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the key of its value in each row, its header and how the value is written.

    ``begins_part``: a table too wide for the terminal is parted before this column first.
    """

    key: str
    header: str
    kind: Kind = "text"
    begins_part: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; ``rows`` map column keys to JSON values, ``notes`` are printed below.

    ``detail`` names what the short form on the terminal leaves out; JSON has everything.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    detail: Detail | None = None


def build_offences_table(
    name: str,
    title: str,
    offences: Sequence[Offence],
    notes: Sequence[str] = (),
    *,
    remedy: str = "what to do",
    with_file: bool = False,
) -> Table:
    """Build a table of offences or remarks; ``remedy`` is the head of its last column."""
    heads = {key: key for key in ("line", "column", "id", "found")} | {"remedy": remedy}
    if with_file:
        heads = {"file": "file", **heads}
    rows = [{key: getattr(offence, key) for key in heads} for offence in offences]
    return Table(name, title, [Column(key, head) for key, head in heads.items()], rows, notes)


def escape(text: str) -> str:
    r"""Return a text with all escaped that would steer a terminal or show nothing.

    Everything that is printed passes here; newlines and tabs stay.

    >>> escape("관계 \x1b[31m \u202eabc\u200b"), escape("line\n\tnext")
    ('관계 \\x1b[31m \\u202eabc\\u200b', 'line\n\tnext')
    """
    if text.isprintable() and FILLERS.isdisjoint(text):
        return text
    return "".join(_escape_character(c) if is_hidden(c) else c for c in text)


def is_hidden(character: str) -> bool:
    """Return whether a character is invisible or controls a terminal, except newline and tab."""
    if character in "\n\t" or (character.isprintable() and character not in FILLERS):
        return False
    return character in FILLERS or unicodedata.category(character) in UNSAFE


def _escape_character(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape_json(text: str) -> str:
    r"""Escape the same characters in JSON, which then means the same.

    >>> escape_json(json.dumps("\x9b31m", ensure_ascii=False))
    '"\\u009b31m"'
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(_escape_for_json(c) if is_hidden(c) else c for c in text)


def _escape_for_json(character: str) -> str:
    pairs = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{pairs[place : place + 4]}" for place in range(0, len(pairs), 4))


def make_streams_safe() -> None:
    """Make the standard streams accept every character, whatever their encoding.

    Under CP949, ASCII and the like, signs of ours become plain ones and others their escapes.
    """
    codecs.register_error(READABLE, _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's takes every character already
            stream.reconfigure(errors=READABLE)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(TYPOGRAPHY.get(c) or _escape_character(c) for c in text), error.end


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print text; ``file`` None is the standard output."""
    print(escape(text), file=file, flush=True)


def format_value(value: Any, kind: Kind) -> str:
    """Write one value for a terminal.

    >>> format_value(0.7153, "score"), format_value((0.7, 0.73), "interval")
    ('71.53', '70.00–73.00')
    >>> format_value(None, "score"), format_value(0.294, "share")
    ('–', '29.4%')
    >>> format_value((math.nan, math.nan), "plain_spread")
    '–'
    >>> format_value(-0.012, "difference")
    '-1.20'
    """
    if _is_unknown(value) or (isinstance(value, tuple | list) and any(map(_is_unknown, value))):
        return "–"
    return escape(FORMATTERS[kind](value))


def _is_unknown(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def write_count(count: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun; ``many`` is the noun's plural where no s makes it.

    >>> write_count(1, "offence"), write_count(1200, "offence"), write_count(1, "entry", "entries")
    ('1 offence', '1,200 offences', '1 entry')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def print_tables(tables: Sequence[Table], *, as_json: bool, in_full: bool = False) -> None:
    """Print tables for a person, or as one JSON object keyed by table name.

    Args:
        in_full: print details too, which are otherwise only named. JSON always has them.
    """
    if as_json:
        payload = {
            table.name: {"rows": [dict(row) for row in table.rows], "notes": list(table.notes)}
            for table in tables
        }
        print_json(payload)
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _find_width_behind() or WIDTH_OF_FILES
    kept, closing = split_closing([table.notes for table in tables])
    left_out: list[str] = []
    for table, notes in zip(tables, kept, strict=True):
        shown = replace(table, notes=notes)
        is_short = table.detail is not None and len(table.rows) > 0 and not in_full
        if is_short:
            shown, left_out = _shorten(shown), [*left_out, table.title]
        if shown.rows or shown.notes or not (is_short or table.notes):
            _print_table(console, shown)
    if left_out:
        _print_note(console, f"--full shows {len(left_out)} more tables: {'; '.join(left_out)}.")
    for note in closing:
        _print_note(console, note, CLOSING[find_kind(note) or ""])


def _shorten(table: Table) -> Table:
    """Leave out the details of a table; its warnings stay."""
    notes = [n for n in table.notes if table.detail == "rows" or find_kind(n) == WARNING]
    return replace(table, rows=(), notes=notes)


def _find_width_behind() -> int | None:
    """Return the width of the terminal behind a pipe, as to a pager; None if there is none."""
    try:
        if not stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
            return None
    except (OSError, ValueError):  # a notebook's output is no file
        return None
    for stream in (sys.stderr, sys.stdin):
        with suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(stream.fileno()).columns
    return None


def _print_note(console: Console, note: str, style: str = "") -> None:
    from rich.text import Text

    for line in _wrap(escape(note), console.width):
        console.print(Text(line, style=style), soft_wrap=True)


def print_json(payload: object) -> None:
    """Print plain values as JSON, in which nothing steers a terminal."""
    text = escape_json(json.dumps(payload, ensure_ascii=False, indent=2))
    print(text if _can_write(text) else json.dumps(payload, indent=2))


def _can_write(text: str) -> bool:
    """Return whether the standard output's encoding has every character of a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _print_table(console: Console, table: Table) -> None:
    """Print a table in as many parts as it takes, its title above and its notes below."""
    from rich.text import Text

    measured = {column.key: _measure(table, column) for column in table.columns}
    parts = _part_columns(table.columns, measured, console.width) if table.rows else [()]
    for place, columns in enumerate(parts):
        title = f"{table.title}, continued" if place else table.title
        console.print(Text(escape(title), style="bold"), soft_wrap=True)
        if columns:
            widths = [measured[column.key] for column in columns]
            console.print(_build_grid(table, columns, widths, console.width), crop=False)
    for note in table.notes:
        _print_note(console, note)


def _wrap(note: str, width: int) -> list[str]:
    """Break a note's lines between words; a command stays whole, so it can be copied.

    >>> _wrap("one two three", 8), _wrap("run: python run.py fold", 8)
    (['one two', 'three'], ['run: python run.py fold'])
    >>> _wrap("first of all run: python run.py fold", 12)
    ['first of all', 'run:', 'python run.py fold']
    """
    from rich.cells import cell_len

    lines: list[str] = []
    for whole in note.splitlines():
        found = COMMAND.search(whole)
        before = whole[: found.start()].rstrip(" ") if found else whole
        if not found:
            lines += _fill(whole, width)
        elif cell_len(whole) > width and cell_len(before) > width // 2:
            lines += [*_fill(before, width), whole[found.start() :]]
        else:
            lines.append(whole)
    return lines


def _fill(text: str, width: int) -> list[str]:
    """Break a line between words."""
    from rich.cells import cell_len

    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        longer = f"{lines[-1]} {word}"
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _part_columns(
    columns: Sequence[Column], measured: Mapping[str, Measure], width: int
) -> list[list[Column]]:
    """Share a table's columns among parts that fit a width; each begins with the first column."""
    first, *others = columns
    if _find_gap([measured[column.key] for column in columns], width) is not None:
        return [[first, *others]]
    parts: list[list[Column]] = []
    for column in others:
        if parts and not column.begins_part:
            longer = [measured[each.key] for each in (*parts[-1], column)]
            if _find_gap(longer, width) is not None:
                parts[-1].append(column)
                continue
        parts.append([first, column])
    return parts or [[first]]


def _find_gap(measured: Sequence[Measure], width: int) -> int | None:
    """Return how many spaces part the columns, fewer before names are broken; None: too wide."""
    (_, whole), *others = measured
    if _sum_widths([whole, *(least for least, _ in others)], GAP) <= width:
        return GAP
    return 1 if _sum_widths([least for least, _ in measured], 1) <= width else None


def _measure(table: Table, column: Column) -> Measure:
    """Return the least and the full width of a column; figures are never broken or cut."""
    from rich.cells import cell_len

    cells = (format_value(row.get(column.key), column.kind) for row in table.rows)
    texts = [line for text in (_head(column), *cells) for line in text.split("\n")]
    full = max(1, *map(cell_len, texts))
    return (min(full, NARROWEST_TEXT) if column.kind == "text" else full), full


def _head(column: Column) -> str:
    """Write a column's header; a figure's, one word a line, is no wider than it must be."""
    header = escape(column.header)
    return header if column.kind == "text" else header.replace(" ", "\n")


def _sum_widths(widths: Sequence[int], gap: int) -> int:
    """Return the width of a grid: columns, separators, and a space on both sides."""
    return sum(widths) + gap * (len(widths) - 1) + 2


def _share_width(measured: Sequence[Measure], width: int, gap: int) -> list[int]:
    """Widen columns from their least towards their full width: the first, then the narrowest.

    If even the least widths are too wide, they are used: nothing is cut.
    """
    widths = [least for least, _ in measured]
    for _ in range(width - _sum_widths(widths, gap)):
        growing = [i for i, (_, full) in enumerate(measured) if widths[i] < full]
        if not growing:
            break
        widths[min(growing, key=lambda i: (i > 0, widths[i]))] += 1
    return widths


def _build_grid(
    table: Table, columns: Sequence[Column], measured: Sequence[Measure], width: int
) -> RichTable:
    """Build the grid of some measured columns of a table, for a terminal width."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    gap = _find_gap(measured, width) or 1
    widths = _share_width(measured, width, gap)
    grid = RichTable(
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        width=_sum_widths(widths, gap),
    )
    for column, each in zip(columns, widths, strict=True):
        right = column.kind != "text"
        justify: Literal["left", "right"] = "right" if right else "left"
        head = Text(_head(column))
        grid.add_column(head, justify=justify, no_wrap=right, width=each, overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(format_value(row.get(c.key), c.kind)) for c in columns))
    return grid
