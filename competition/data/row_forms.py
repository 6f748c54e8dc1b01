"""The forms in which a row gives its two entities: a dict in a cell, columns, or tags in the text.

Called by ``corpus`` for every record. ``build_form`` reads the profile once and returns the columns
to read and the functions that turn a record into a sentence and two cells. ``entities.check_cell``
then checks each cell against the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from competition.console import write_count
from competition.data.csv_records import show
from competition.data.entities import Cell, WrongCellError, build_cell_reader
from competition.data.tables import as_field
from competition.data.values import parse_value
from competition.profile import Profile
from competition.profile_rows import EntityPlace

ROLES = ("subject", "object")
_TOKEN = re.compile(r"\S+")
_PARTS = ("word", "start", "end", "type")

Named = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence with entity information from its text.

    ``spans`` are the spans of its tokens; ``marked`` are the cells of tagged subject and object.
    """

    sentence: str
    spans: tuple[tuple[int, int], ...] = ()
    marked: tuple[Cell | WrongCellError, ...] = ()


@dataclass(frozen=True)
class RowForm:
    """How entities are read from a record.

    Attributes:
        wanted: maps each field to its column.
        columns: maps a role to the column to report in offences.
        names: maps a role to the names of start and end in the file.
        open: returns the sentence of a record; None if it is the field itself.
        read: returns the cell of an entity by role, record and sentence; raises WrongCellError.
        read_cell: does the same with the field of an entity, if nothing else is needed.
    """

    wanted: Mapping[str, str]
    columns: Mapping[str, str]
    names: Mapping[str, tuple[str, str]]
    open: Callable[[Named], Text] | None
    read: Callable[[str, Named, Text], Cell]
    read_cell: Callable[[Any], Cell] | None = None


def build_form(profile: Profile) -> RowForm:
    """Build the form of entities that a profile describes."""
    match profile.entity.given_as:
        case "cell":
            return _build_cell_form(profile)
        case "columns":
            return _build_columns_form(profile)
        case "markup":
            return _build_markup_form(profile)


def _build_cell_form(profile: Profile) -> RowForm:
    read_cell = build_cell_reader(profile)
    columns = {"subject": str(profile.columns.subject), "object": str(profile.columns.object)}
    keys = profile.entity
    names = (str(keys.start), str(keys.end))
    in_tokens = keys.counted_in == "tokens"

    def read(role: str, named: Named, text: Text) -> Cell:
        cell = read_cell(named[role])
        if in_tokens:
            return _to_characters(cell, text, names)
        return cell if cell.word or keys.word is not None else fill_word(cell, text.sentence)

    return RowForm(
        columns,
        columns,
        dict.fromkeys(ROLES, names),
        _choose_open(profile),
        read,
        None if in_tokens or keys.word is None else read_cell,
    )


def _build_columns_form(profile: Profile) -> RowForm:
    rules = profile.entity
    places = dict(zip(ROLES, rules.places, strict=True))
    beyond = 1 if rules.end_inclusive else 0
    wanted = {
        f"{role}_{part}": str(getattr(place, part))
        for role, place in places.items()
        for part in _PARTS
        if getattr(place, part) is not None
    }
    columns = {role: str(place.start or place.word) for role, place in places.items()}
    names = {
        role: (str(place.start or "start"), str(place.end or "end"))
        for role, place in places.items()
    }
    in_tokens = rules.counted_in == "tokens"

    def read(role: str, named: Named, text: Text) -> Cell:
        place = places[role]
        word = named[f"{role}_word"] if place.word is not None else ""
        type_ = named[f"{role}_type"] if place.type is not None else None
        if not isinstance(word, str):
            raise WrongCellError(f"{place.word} is {show(word)}, not a text", "write it as a text")
        if place.start is None:
            return _find_word(role, word, type_, named, text, is_whole=rules.whole_words)
        start = _read_offset(place.start, named[f"{role}_start"])
        if place.end is None:
            return Cell(word, start, start + len(word), type_)
        end = _read_offset(place.end, named[f"{role}_end"]) + beyond
        cell = Cell(word, start, end, type_)
        if in_tokens:
            return _to_characters(cell, text, names[role])
        return cell if place.word is not None else fill_word(cell, text.sentence)

    return RowForm(wanted, columns, names, _choose_open(profile), read)


def _build_markup_form(profile: Profile) -> RowForm:
    places = profile.entity.places
    tags = [str(tag) for place in places for tag in (place.open, place.close)]
    pattern = re.compile("|".join(map(re.escape, sorted(tags, key=len, reverse=True))))
    wanted = {
        f"{role}_type": place.type
        for role, place in zip(ROLES, places, strict=True)
        if place.type is not None
    }

    def open_(named: Named) -> Text:
        sentence, positions = strip_tags(str(named["sentence"]), pattern)
        marked = [_place_tags(place, positions, sentence) for place in places]
        return Text(sentence, (), tuple(marked))

    def read(role: str, named: Named, text: Text) -> Cell:
        cell = text.marked[ROLES.index(role)]
        if isinstance(cell, WrongCellError):
            raise cell
        return Cell(cell.word, cell.start, cell.end, named.get(f"{role}_type"))

    columns = dict.fromkeys(ROLES, profile.columns.sentence)
    return RowForm(wanted, columns, dict.fromkeys(ROLES, ("start", "end")), open_, read)


def strip_tags(marked: str, pattern: re.Pattern[str]) -> tuple[str, dict[str, list[int]]]:
    """Remove tags from a sentence; return it with the positions of each tag.

    >>> strip_tags("the <a>flu</a>", re.compile("<a>|</a>"))
    ('the flu', {'<a>': [4], '</a>': [7]})
    """
    places: dict[str, list[int]] = {}
    pieces, at, length = [], 0, 0
    for tag in pattern.finditer(marked):
        pieces.append(marked[at : tag.start()])
        length += tag.start() - at
        places.setdefault(tag[0], []).append(length)
        at = tag.end()
    pieces.append(marked[at:])
    return "".join(pieces), places


def _place_tags(
    place: EntityPlace, positions: Mapping[str, list[int]], sentence: str
) -> Cell | WrongCellError:
    """Return the cell between an entity's tags, stripped of spaces."""
    opening, closing = str(place.open), str(place.close)
    starts, ends = positions.get(opening, []), positions.get(closing, [])
    if opening == closing:
        if len(starts) != 2:
            found = f"{opening} occurs {write_count(len(starts), 'time')}"
            return WrongCellError(found, "write it before and after the entity, and nowhere else")
        starts, ends = starts[:1], starts[1:]
    if len(starts) != 1 or len(ends) != 1:
        found = f"{opening} occurs {len(starts)} times and {closing} {len(ends)} times"
        return WrongCellError(found, "write each tag once in the sentence")
    (start,), (end,) = starts, ends
    inside = sentence[start:end]
    if end <= start or not inside.strip():
        return WrongCellError(f"no word between {opening} and {closing}", "mark a word")
    start += len(inside) - len(inside.lstrip())
    end -= len(inside) - len(inside.rstrip())
    return Cell(sentence[start:end], start, end, None)


def _choose_open(profile: Profile) -> Callable[[Named], Text] | None:
    return open_tokens if profile.entity.counted_in == "tokens" else None


def open_tokens(named: Named) -> Text:
    """Read a sentence as tokens: a list, a list written as text, or a text split at spaces.

    >>> open_tokens({"sentence": ["the", "flu"]})
    Text(sentence='the flu', spans=((0, 3), (4, 7)), marked=())
    """
    value = named["sentence"]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_value(value)
        except ValueError:
            value = named["sentence"]
    if not isinstance(value, list):
        sentence = str(value)
        return Text(sentence, tuple(token.span() for token in _TOKEN.finditer(sentence)))
    spans, at = [], 0
    tokens = [str(as_field(token)) for token in value]
    for token in tokens:
        spans.append((at, at + len(token)))
        at += len(token) + 1
    return Text(" ".join(tokens), tuple(spans))


def _to_characters(cell: Cell, text: Text, names: tuple[str, str]) -> Cell:
    """Convert a cell's offsets from tokens to characters."""
    count = len(text.spans)
    if not 0 <= cell.start < cell.end <= count:
        found = f"{names[0]} {cell.start}, {names[1]} {cell.end - 1} is not a span"
        raise WrongCellError(f"{found} of {count} tokens", "correct the offsets")
    start, end = text.spans[cell.start][0], text.spans[cell.end - 1][1]
    return Cell(cell.word or text.sentence[start:end], start, end, cell.type)


def fill_word(cell: Cell, sentence: str) -> Cell:
    """Set the word of a cell to the text at its offsets."""
    return Cell(sentence[max(cell.start, 0) : max(cell.end, 0)], cell.start, cell.end, cell.type)


def _read_offset(column: str, value: Any) -> int:
    text = str(value).strip()
    digits = text[1:] if text.startswith("-") else text
    if digits.endswith(".0"):  # pandas writes 3.0 in columns with gaps
        digits, text = digits[:-2], text[:-2]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise WrongCellError(f"{column} is {show(value)}, not a whole number", "write the offset")
    return int(text)


def _find_word(
    role: str, word: str, type_: str | None, named: Named, text: Text, *, is_whole: bool
) -> Cell:
    """Find the word in the sentence, if possible outside the other entity."""
    if not word.strip():
        raise WrongCellError(f"the entity's word is empty: {show(word)}", "write the entity's word")
    sentence = text.sentence
    search = _search_whole if is_whole else str.find
    start = search(sentence, word, 0)
    if start < 0:
        raise WrongCellError(f"{show(word)} does not occur in the sentence", "correct the word")
    other = named.get("object_word" if role == "subject" else "subject_word")
    if (isinstance(other, str) and len(other) > len(word)) or (other == word and role == "object"):
        taken = search(sentence, str(other), 0)
        if taken <= start < taken + len(str(other)):  # inside the longer name
            elsewhere = search(sentence, word, taken + len(str(other)))
            start = elsewhere if elsewhere >= 0 else start
    return Cell(word, start, start + len(word), type_)


def _search_whole(sentence: str, word: str, start: int) -> int:
    """Return where a word stands whole, else where one begins with it, else anywhere; -1 nowhere.

    >>> _search_whole("Also Alan and Al.", "Al", 0), _search_whole("Also Alan", "Al", 1)
    (14, 5)
    """
    begun, at = -1, sentence.find(word, start)
    while at >= 0:
        end = at + len(word)
        if not _is_in_word(sentence[max(at - 1, 0) : at]):
            if not _is_in_word(sentence[end : end + 1]):
                return at
            begun = at if begun < 0 else begun
        at = sentence.find(word, at + 1)
    return sentence.find(word, start) if begun < 0 else begun


def _is_in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
