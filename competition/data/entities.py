"""Parse and check the cell of an entity: its word, type and offsets.

Called by ``corpus`` for both entities of every row. An invalid cell raises WrongCellError with what
was found and what to do; nothing is guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from competition.data.csv_records import show
from competition.data.rows import Entity
from competition.data.values import parse_value
from competition.profile import Profile

_CELL_MAX_CHARS = 100_000
_JAMO = re.compile("[\u1100-\u11ff]")
_JAMO_RUN = re.compile("[가-힣]?[\u1100-\u11ff]+")


class WrongCellError(Exception):
    """An invalid cell; becomes an offence with its position."""

    def __init__(self, found: str, remedy: str) -> None:
        """Store what was found and what to do."""
        super().__init__(found)
        self.found = found
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Cell:
    """The content of an entity's cell before it is checked; end is exclusive."""

    word: str
    start: int
    end: int
    type: str | None


def is_decomposed(text: str) -> bool:
    """Return whether a text contains decomposed Hangul (separate jamo, NFD, as on macOS)."""
    return _JAMO.search(text) is not None


def compose(text: str) -> str:
    """Compose decomposed Hangul (NFC); nothing else changes.

    >>> compose("\u1107\u1175\u1110\u1173\u11af\u110c\u1173") + compose("e\u0301")
    '비틀즈e\u0301'
    """
    return _JAMO_RUN.sub(lambda run: unicodedata.normalize("NFC", run[0]), text)


def compose_span(sentence: str, start: int, end: int) -> tuple[int, int] | None:
    """Return the span in ``compose(sentence)``; None if it splits a syllable.

    >>> compose_span("\u1102\u1161\u1102\u1173\u11ab 비틀즈", 6, 9)
    (3, 6)
    """
    before, middle = compose(sentence[:start]), compose(sentence[start:end])
    if before + middle + compose(sentence[end:]) != compose(sentence):
        return None
    return len(before), len(before) + len(middle)


def build_cell_reader(profile: Profile) -> Callable[[Any], Cell]:
    """Build a function that parses a cell: by a pattern if possible, else as JSON or a literal.

    In JSON and Parquet the cell may be a dict. If the profile has no key for the word, the word is
    empty. The function raises WrongCellError.
    """
    keys = profile.entity
    word = r"'([^'\\\r\n]+)'"
    number = "([0-9]{1,9})"
    kinds = {"word": word, "start": number, "end": number, "type": word}
    held = {kind: getattr(keys, kind) for kind in kinds}
    named = {kind: key for kind, key in held.items() if key is not None}
    pattern = ", ".join(f"{re.escape(repr(key))}: {kinds[kind]}" for kind, key in named.items())
    match = re.compile(r"\{" + pattern + r"\}").fullmatch
    beyond = 1 if keys.end_inclusive else 0
    has_word, is_typed = keys.word is not None, keys.type is not None

    def read(text: Any) -> Cell:
        usual = match(text) if isinstance(text, str) else None
        if usual is None:
            return _read_unusual(text, profile)
        parts = usual.groups()
        at = 1 if has_word else 0
        type_ = parts[-1] if is_typed else None
        return Cell(
            parts[0] if has_word else "", int(parts[at]), int(parts[at + 1]) + beyond, type_
        )

    return read


def _read_unusual(text: Any, profile: Profile) -> Cell:
    keys = profile.entity
    remedy = f"write a dict with the keys {', '.join(keys.keys)}"
    value = text
    if isinstance(text, str):
        if len(text) > _CELL_MAX_CHARS:
            raise WrongCellError(f"an entity of {len(text):,} characters: {show(text)}", remedy)
        try:
            value = parse_value(text)
        except ValueError:
            raise WrongCellError(
                f"neither JSON nor a Python literal: {show(text)}", remedy
            ) from None
    if not isinstance(value, dict):
        raise WrongCellError(f"a {type(value).__name__}, not a dict: {show(text)}", remedy)
    absent = [key for key in keys.keys if key not in value]
    if absent:
        raise WrongCellError(f"no key {', '.join(map(repr, absent))} in {show(text)}", remedy)
    start, end = (_read_whole(value, str(key)) for key in (keys.start, keys.end))
    word, kind = (None if key is None else _read_word(value, key) for key in (keys.word, keys.type))
    return Cell(word or "", start, end + (1 if keys.end_inclusive else 0), kind)


def _read_whole(value: dict[str, Any], key: str) -> int:
    number = value[key]
    if type(number) is not int:
        raise WrongCellError(f"{key} is {show(number)}, not a whole number", "write the offset")
    return int(number)


def _read_word(value: dict[str, Any], key: str) -> str:
    word = value[key]
    if not isinstance(word, str):
        raise WrongCellError(f"{key} is {show(word)}, not a text", "write it as a text")
    return word


def check_cell(
    cell: Cell, sentence: str, profile: Profile, names: tuple[str, str] = ("start", "end")
) -> Entity:
    """Check a cell against its sentence as written in the file.

    Raises:
        WrongCellError: the word is empty, the type unknown, or the span does not match the word.
    """
    if not cell.word.strip() and (cell.word or profile.entity.word is not None):
        raise WrongCellError(
            f"the entity's word is empty: {show(cell.word)}", "write the entity's word"
        )
    if cell.type is not None and cell.type not in profile.entity_types:
        known = ", ".join(profile.entity_types)
        remedy = f"use one of {known}, or add it to the profile's entity_types"
        raise WrongCellError(f"unknown entity type {show(cell.type)}", remedy)
    if not 0 <= cell.start < cell.end <= len(sentence):
        remedy = f"correct the offsets{_hint(cell, sentence, profile)}"
        found = f"{_name_span(cell, profile, names)} is not a span of {len(sentence)} characters"
        raise WrongCellError(found, remedy)
    there = sentence[cell.start : cell.end]
    if there != cell.word and compose(there) != compose(cell.word):
        remedy = f"correct word or offsets{_hint(cell, sentence, profile)}"
        span = _name_span(cell, profile, names)
        raise WrongCellError(f"the text at {span} is {show(there)}, not {show(cell.word)}", remedy)
    return Entity(cell.word, cell.start, cell.end, cell.type)


def _name_span(cell: Cell, profile: Profile, names: tuple[str, str]) -> str:
    """Format a span as in its file."""
    end = cell.end - 1 if profile.entity.end_inclusive else cell.end
    return f"{names[0]} {cell.start}, {names[1]} {end}"


def _hint(cell: Cell, sentence: str, profile: Profile) -> str:
    """Return a hint where the word occurs, "" if there is none."""
    shift = -1 if profile.entity.end_inclusive else 1
    if cell.start >= 0 and sentence[cell.start : cell.end + shift] == cell.word:
        other = str(not profile.entity.end_inclusive).lower()
        return f" (they match if the profile sets entity.end_inclusive = {other})"
    composed = compose(sentence)
    if composed != sentence and composed[cell.start : cell.end] == compose(cell.word):
        return " (they count composed syllables, but the text is decomposed: save the file as NFC)"
    places = [match.start() for match in re.finditer(re.escape(cell.word), sentence)]
    if places:
        return f" (the word occurs at {', '.join(map(str, places[:3]))})"
    return ""


def compose_entity(entity: Entity, sentence: str) -> Entity:
    """Return the entity in the composed sentence.

    Raises:
        WrongCellError: its span splits a syllable.
    """
    span = compose_span(sentence, entity.start, entity.end)
    if span is None:
        found = f"the span of {show(entity.word)} splits a syllable of decomposed Hangul"
        raise WrongCellError(found, "save the file as NFC and count offsets in the result")
    return Entity(compose(entity.word), *span, entity.type)
