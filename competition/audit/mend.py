"""``data --mend DIR``: write copies of the files with repaired offsets.

If the text at an entity's offsets is not its word, the offsets are replaced by those of the word in
the sentence: its only occurrence, or the nearest one. Everything else in the file is unchanged, and
every change is listed.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from competition.console import Column, Table
from competition.data.csv_records import RecordReader, show_id
from competition.data.entities import Cell, WrongCellError, check_cell
from competition.data.row_forms import ROLES, RowForm, Text, build_form
from competition.data.tables import (
    Layout,
    as_field,
    dig,
    read_objects,
    split_path,
    test_layout,
    train_layout,
)
from competition.data.values import parse_value
from competition.errors import CorpusError, Offence, UsageError
from competition.file_kind import WrongFileError, pack_as_named, recognise
from competition.files import write_atomically
from competition.profile import Competition, Profile

SHOWN = 20
_LITERAL = re.compile(r"\s*\{\s*'")
Record = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """An entity with repaired offsets; spans are half-open, in characters."""

    file: str
    line: int
    id: str
    role: str
    word: str
    before: tuple[int, int]
    after: tuple[int, int]
    places: int


@dataclass
class RepairedFile:
    """The result of repairing one file."""

    path: Path
    changes: list[Change] = field(default_factory=list)
    left: int = 0  # entities whose word is not in the sentence, or with another offence


def run_mend(competition: Competition, folder: Path, *, is_whole: bool = False) -> list[Table]:
    """Write repaired copies of the train files and the test file into a folder.

    The sample submission and the solution are copied as they are, so that ``--data`` finds all.

    Raises:
        UsageError: the folder is the data's own or holds a file of a copy's name, or nothing could
            be repaired in this form.
        CorpusError: a file is no clean table, so a copy would lose rows.
    """
    profile, folder = competition.profile, folder.expanduser().absolute()
    if folder.exists() and folder.samefile(competition.data_dir):
        raise UsageError(
            f"--mend {folder}: that is the data itself; give another folder for the copies"
        )
    if profile.entity.given_as == "markup" or profile.entity.counted_in == "tokens":
        raise UsageError("--mend repairs offsets in characters; these rows have none")
    layouts = dict.fromkeys(competition.train_paths, train_layout(profile))
    layouts |= {competition.test_path: test_layout(profile)}
    others = [
        path
        for path in (competition.sample_path, competition.solution_path)
        if path is not None and path.is_file() and path not in layouts
    ]
    copies = _name_copies([*layouts, *others], competition.data_dir, folder)
    repaired = [
        _repair_file(path, copies[path], profile, layout) for path, layout in layouts.items()
    ]
    for path in others:
        write_atomically(copies[path], path.read_bytes())
    return _build_tables(repaired, folder, None if is_whole else SHOWN)


def _name_copies(paths: Collection[Path], data_dir: Path, folder: Path) -> dict[Path, Path]:
    """Return where each copy lies: in the folder as the file lies in the data folder.

    Raises:
        UsageError: a file is there already, such as the original, or two have the same name.
    """
    copies: dict[Path, Path] = {}
    for path in paths:
        inside = path.is_relative_to(data_dir)
        target = folder / (path.relative_to(data_dir) if inside else path.name)
        if target.exists() or target in copies.values():
            found = "is there already" if target.exists() else "would be written twice"
            raise UsageError(f"--mend {folder}: {target} {found}; give a new folder for the copies")
        copies[path] = target
    return copies


def _repair_file(path: Path, target: Path, profile: Profile, layout: Layout) -> RepairedFile:
    form = build_form(profile)
    repaired = RepairedFile(target)
    try:
        kind = recognise(path).form
        if kind == "text":
            reader, records = _read_csv(path, form, profile, layout)
        else:
            reader, records = None, list(read_objects(path))
    except WrongFileError as wrong:
        raise UsageError(f"{path}: {wrong}") from None
    for line, record in records:
        _repair_record(record, line, form, profile, repaired)
    rows = [record for _, record in records]
    if reader is not None:
        written = _write_csv(rows, reader, has_header=layout.header is None).encode()
    elif kind == "parquet":
        written = _write_parquet(rows)
    elif kind == "json":
        written = (json.dumps(rows, ensure_ascii=False, indent=1) + "\n").encode()
    else:
        lines = [json.dumps(record, ensure_ascii=False) for record in rows]
        written = ("\n".join(lines) + "\n").encode()
    write_atomically(target, pack_as_named(target, written))
    return repaired


def _read_csv(
    path: Path, form: RowForm, profile: Profile, layout: Layout
) -> tuple[RecordReader, list[tuple[int, Record]]]:
    """Read every column of a CSV; reject invalid records, which would be lost."""
    wanted = {name: name for name in (profile.columns.sentence, *form.wanted.values())}
    offences: list[Offence] = []
    first = RecordReader(path, wanted, offences.append, layout.separator, layout.header)
    next(first.read(), None)
    every = {name: name for name in first.names}
    offences = []
    reader = RecordReader(
        path, every, offences.append, first.used_separator, layout.header, layout.quotes
    )
    records = [(line, dict(zip(every, fields, strict=True))) for line, fields in reader.read()]
    if offences:
        raise CorpusError(f"{path} is not a valid table; correct these by hand first", offences)
    return reader, records


def _write_csv(rows: list[Record], reader: RecordReader, *, has_header: bool) -> str:
    stream = io.StringIO()
    writer = csv.writer(
        stream,
        delimiter=reader.used_separator,
        lineterminator="\n",
        quoting=csv.QUOTE_MINIMAL if reader.used_quotes else csv.QUOTE_NONE,
        quotechar='"' if reader.used_quotes else None,
    )
    if has_header:
        writer.writerow(reader.names)
    writer.writerows(list(row.values()) for row in rows)
    return stream.getvalue()


def _write_parquet(rows: list[Record]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def _repair_record(
    record: Record, line: int, form: RowForm, profile: Profile, repaired: RepairedFile
) -> None:
    wanted = {"id": profile.columns.id, "sentence": profile.columns.sentence, **form.wanted}
    named = {
        what: "" if name is None else as_field(_get(record, name)) for what, name in wanted.items()
    }
    sentence = named["sentence"]
    if not isinstance(sentence, str):
        return
    for role in ROLES:
        try:
            cell = form.read(role, named, Text(sentence))
        except WrongCellError:
            repaired.left += 1
            continue
        try:
            check_cell(cell, sentence, profile, form.names[role])
        except WrongCellError:
            places = sorted(_find_places(sentence, cell.word), key=_near(cell))
            if not places or not _set_span(record, role, cell, places[0], profile):
                repaired.left += 1
                continue
            start = places[0]
            after = (start, start + len(cell.word))
            change = (repaired.path.name, line, show_id(str(named["id"])), role, cell.word)
            repaired.changes.append(Change(*change, (cell.start, cell.end), after, len(places)))


def _near(cell: Cell) -> Any:
    return lambda start: (abs(start - cell.start), start)


def _find_places(sentence: str, word: str) -> Iterator[int]:
    at = sentence.find(word) if word.strip() else -1
    while at >= 0:
        yield at
        at = sentence.find(word, at + 1)


def _get(record: Record, name: str) -> Any:
    path = split_path(name, list(record))
    return dig(record.get(path[0]), path[1:])


def _set_span(record: Record, role: str, cell: Cell, start: int, profile: Profile) -> bool:
    """Write a span into a record; return False, with the record unchanged, if it cannot be."""
    rules = profile.entity
    end = start + len(cell.word) - (1 if rules.end_inclusive else 0)
    if rules.given_as == "cell":
        column = split_path(str(getattr(profile.columns, role)), list(record))
        named = [(rules.start, start), (rules.end, end)]
        held = [((*column, key), value) for key, value in named if key is not None]
    else:
        place = dict(zip(ROLES, rules.places, strict=True))[role]
        named = [(place.start, start), (place.end, end)]
        held = [(split_path(key, list(record)), value) for key, value in named if key is not None]
    before = copy.deepcopy(record)
    try:
        for path, value in held:
            _replace(record, path, value)
    except (LookupError, ValueError):
        record.clear()
        record.update(before)
        return False
    return True


def _replace(value: Any, path: Sequence[str], new: int) -> Any:
    """Return a nested value with the number at a path replaced; text keeps its notation.

    >>> _replace("{'pos': [3, 5]}", ("pos", "0"), 4), _replace({"start": "3"}, ("start",), 4)
    ("{'pos': [4, 5]}", {'start': '4'})

    Raises:
        LookupError, ValueError: the path does not exist.
    """
    if not path:
        return str(new) if isinstance(value, str) else new
    if isinstance(value, str):
        changed = _replace(parse_value(value), path, new)
        is_literal = _LITERAL.match(value) is not None
        return repr(changed) if is_literal else json.dumps(changed, ensure_ascii=False)
    key, *rest = path
    place: Any = int(key) if isinstance(value, list) else key
    value[place] = _replace(value[place], rest, new)
    return value


def _build_tables(repaired: list[RepairedFile], folder: Path, most: int | None) -> list[Table]:
    columns = (
        Column("file", "File"),
        Column("mended", "entities repaired", "count"),
        Column("left", "left as they are", "count"),
    )
    rows = [
        {"file": each.path.name, "mended": len(each.changes), "left": each.left}
        for each in repaired
    ]
    notes = [f"Copies in {folder}; look at them with --data {folder}."]
    files = Table("mended", "Repaired", columns, rows, notes)
    changes = [change for each in repaired for change in each.changes[:most]]
    return [files, _build_changes(changes, sum(len(each.changes) for each in repaired))]


def _build_changes(changes: list[Change], total: int) -> Table:
    columns = (
        Column("file", "file"),
        Column("line", "line"),
        Column("id", "id"),
        Column("role", "entity"),
        Column("word", "word"),
        Column("before", "offsets before"),
        Column("after", "offsets after"),
        Column("how", "how"),
    )
    rows = [
        {
            "file": change.file,
            "line": change.line,
            "id": change.id,
            "role": change.role,
            "word": change.word,
            "before": f"{change.before[0]}–{change.before[1]}",
            "after": f"{change.after[0]}–{change.after[1]}",
            "how": "only occurrence" if change.places == 1 else f"nearest of {change.places}",
        }
        for change in changes
    ]
    more = total - len(changes)
    notes = [f"… and {more:,} more; --json lists all of them."] if more else []
    return Table("changes", f"Changes ({total:,}), in characters", columns, rows, notes)
