"""Guess how rows give their entities: tags, cells or columns, and the unit of offsets.

Part of ``guess``. An offset column is one only where the words fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from competition.audit.findings import ROLE_NAMES, Findings, Sure
from competition.audit.peek import SAMPLE, Peek, open_value

Values = Sequence[Any]
PART_NAMES = {
    "start": re.compile(r"(start|begin|from|offset|pos|span|idx|index)", re.I),
    "end": re.compile(r"(end|stop|to$|last|until)", re.I),
    "type": re.compile(r"(type|kind|ner|tag|유형)", re.I),
}
TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)>|\[(/?)([A-Za-z][\w:.-]*)\]")
MOSTLY = 0.9
HALF = 0.5
SPACES = 0.05  # of the characters; about 0.16 in English, 0.2 in Korean, none in Chinese
WHOLE = re.compile(r"\d{1,9}(\.0)?", re.ASCII)
FEW = 0.98
MARKS_INSIDE = 0.1  # of entities end in a mark, at most; 0.5% in KLUE-RE


def guess_entities(found: Findings, train: Peek) -> None:
    """Guess how subject and object are given, after the sentence was found."""
    if "sentence" not in found.columns:
        return
    sentences = _texts(found, train)[: SAMPLE * 5]
    if not _guess_markup(found, train, sentences):
        _guess_offsets(found, train, sentences)


def _texts(found: Findings, train: Peek) -> Values:
    return [open_value(value) for value in train.columns[found.columns["sentence"]]]


def _guess_markup(found: Findings, train: Peek, sentences: Values) -> bool:
    """Find two pairs of tags that occur once in nearly every sentence."""
    texts = [text for text in sentences if isinstance(text, str)]
    opened: Counter[str] = Counter()
    for text in texts:
        tags = Counter(match[0] for match in TAG.finditer(text))
        for tag, count in tags.items():
            closing = f"{tag[0]}/{tag[1:]}"
            if count == 1 and tags[closing] == 1:
                opened[tag] += 1
    usual = [tag for tag, count in opened.most_common(2) if count >= MOSTLY * len(texts)]
    if len(usual) < 2 or not texts:
        return False
    usual.sort(key=lambda tag: (not ROLE_NAMES["subject"].search(tag[1:-1]), tag))
    found.entity = {"given_as": "markup"}
    for role, tag in zip(ROLE_NAMES, usual, strict=True):
        found.entity[role] = {"open": tag, "close": f"{tag[0]}/{tag[1:]}"}
        kind = _find_part(train, role, "type")
        if kind is not None:
            found.entity[role]["type"] = kind
    why = f"{opened[usual[1]] / len(texts):.0%} of the sentences hold {' and '.join(usual)} once"
    found.add("entity.given_as", "markup", "sure", why)
    is_told = ROLE_NAMES["subject"].search(usual[0][1:-1]) is not None
    found.add("subject", usual[0], "likely" if is_told else "a guess", "by the name of the tag")
    return True


def _find_part(train: Peek, role: str, part: str) -> str | None:
    for name in train.columns:
        if ROLE_NAMES[role].search(name) and PART_NAMES[part].search(name):
            return name
    return None


@dataclass(frozen=True)
class _Place:
    """Columns that may contain the parts of an entity."""

    start: str | None = None
    end: str | None = None
    word: str | None = None
    type: str | None = None


def _has_spaces(sentences: Values) -> bool:
    """Return whether spaces separate words, unlike in Chinese and Japanese."""
    texts = [str(text) for text in sentences]
    return sum(text.count(" ") for text in texts) > SPACES * sum(map(len, texts))


@dataclass(frozen=True)
class _Span:
    """The offsets of an entity in a row, and its word if a column has it."""

    text: Any
    start: int
    end: int
    word: Any


def _guess_offsets(found: Findings, train: Peek, sentences: Values) -> None:
    taken = {found.columns.get("id"), found.columns["sentence"]}
    places = {role: _find_place(train, role, taken, sentences) for role in ROLE_NAMES}
    if any(place.start is None and place.word is None for place in places.values()):
        found.add("entity", None, "a guess", "no columns of two entities were recognised")
        return
    unit, inclusive, share = _fit_offsets(train, places, sentences)
    has_word = all(place.word is not None for place in places.values())
    if places["subject"].start is None:
        fits: Sure = "likely"
        which = "whole word like" if _has_spaces(sentences) else "place of"
        why = f"words without offsets; the first {which} each in the sentence is taken"
    elif has_word:
        fits = "sure" if share >= FEW else "a guess"
        why = f"the words occur there in {share:.1%} of the rows looked at"
    else:
        fits, why = "likely", "no word to hold them against; by what stands at the ends"
    if has_word and share < MOSTLY and places["subject"].start is not None:
        places = {role: replace(place, word=None) for role, place in places.items()}
    _keep_places(found, train, places)
    found.entity |= {"counted_in": unit, "end_inclusive": inclusive}
    if all(place.start is None for place in places.values()) and _has_spaces(sentences):
        found.entity["whole_words"] = True
    found.add("entity.given_as", found.entity["given_as"], fits, why)
    if places["subject"].start is not None:
        found.add("entity.counted_in", unit, fits, why)
        found.add("entity.end_inclusive", inclusive, fits, why)


def _find_place(train: Peek, role: str, taken: set[str | None], sentences: Values) -> _Place:
    """Find the columns of an entity by their names and values."""
    names = [name for name in train.columns if name not in taken and ROLE_NAMES[role].search(name)]
    numbers = [name for name in names if _is_whole(train.columns[name])]
    ends = [n for n in numbers if PART_NAMES["end"].search(n.split(".")[-1].split("_")[-1])]
    ends = ends or [n for n in numbers if PART_NAMES["end"].search(n) or n.endswith(".1")]
    starts = [n for n in numbers if n not in ends[:1] and not n.endswith(".1")]
    texts = [n for n in names if n not in numbers and _is_text(train.columns[n])]
    within = {n: _share_within(train.columns[n], sentences) for n in texts}
    words = [n for n in texts if within[n] >= MOSTLY]
    types = [n for n in texts if PART_NAMES["type"].search(n) and n not in words]
    start, end = (starts[0], ends[0]) if starts and ends else (None, None)
    return _Place(start, end, words[0] if words else None, types[0] if types else None)


def _is_whole(values: Values) -> bool:
    sample = values[:SAMPLE]
    hits = sum(WHOLE.fullmatch(str(value)) is not None for value in sample)
    return bool(sample) and hits >= FEW * len(sample)  # a row may lack one


def _is_text(values: Values) -> bool:
    sample = values[:SAMPLE]
    hits = sum(
        isinstance(value, str) and bool(value.strip()) and value[:1] not in ("{", "[")
        for value in sample
    )
    return bool(sample) and hits >= FEW * len(sample)


def _share_within(values: Values, sentences: Values) -> float:
    pairs = list(zip(values, sentences, strict=False))
    hits = sum(
        str(value) in (" ".join(map(str, text)) if isinstance(text, list) else str(text))
        for value, text in pairs
    )
    return hits / max(len(pairs), 1)


def _fit_offsets(
    train: Peek, places: Mapping[str, _Place], sentences: Values
) -> tuple[str, bool, float]:
    """Return the unit and kind of end for which most words match, and their fraction."""
    units = ["tokens"] if any(isinstance(text, list) for text in sentences[:SAMPLE]) else []
    units = units or ["characters", "tokens"]
    place = places["subject"]
    if place.start is None or place.end is None:
        return units[0], False, 0.0
    spans = _read_spans(train, place, sentences)
    if place.word is None:
        spans += _read_spans(train, places["object"], sentences)
        unit = "tokens" if _count_tokens(spans) else units[0]
        return unit, _is_inclusive(spans, unit), 0.0
    best = ("characters", False, -1.0)
    for unit in units:
        for inclusive in (False, True):
            hits = sum(
                _cut(each.text, each.start, each.end + inclusive, unit) == each.word
                for each in spans
            )
            share = hits / max(len(spans), 1)
            best = max(best, (unit, inclusive, share), key=lambda item: item[2])
    return best


def _read_spans(train: Peek, place: _Place, sentences: Values) -> list[_Span]:
    """Return the spans of an entity in the first rows; rows without whole numbers are left out."""
    if place.start is None or place.end is None:
        return []
    starts, ends = train.columns[place.start], train.columns[place.end]
    words = [None] * len(starts) if place.word is None else train.columns[place.word]
    return [
        _Span(text, int(float(start)), int(float(end)), word)
        for text, start, end, word in zip(sentences, starts, ends, words, strict=False)
        if WHOLE.fullmatch(str(start)) and WHOLE.fullmatch(str(end))
    ]


def _count_tokens(spans: Sequence[_Span]) -> bool:
    """Return whether offsets without words count the tokens of texts.

    All of them must be tokens, and most must not begin a word if they counted characters.
    """
    if not all(each.start <= each.end <= len(str(each.text).split()) for each in spans):
        return False
    begins = [
        _begins_word(str(each.text)[max(each.start - 1, 0) : each.start + 1])
        for each in spans
        if each.start
    ]
    return bool(begins) and sum(begins) < HALF * len(begins)


def _begins_word(pair: str) -> bool:
    """Return whether the second of two characters is the first of a word."""
    return pair[1:].isalnum() and not pair[:1].isalnum()


def _is_inclusive(spans: Sequence[_Span], unit: str) -> bool:
    """Guess whether ends are inclusive without words to hold the offsets against.

    An empty span is inclusive. Else, in characters: what stands at an exclusive end is often a
    space or a mark, and the last character of an entity hardly ever is.
    """
    shortest = min((each.end - each.start for each in spans), default=0)
    if shortest == 0 or unit == "tokens":
        return shortest == 0
    at_end = [str(each.text)[each.end : each.end + 1] for each in spans]
    return sum(not char.isalnum() for char in at_end) < MARKS_INSIDE * len(at_end)


def _cut(text: Any, start: int, end: int, unit: str) -> str:
    if unit == "characters":
        return str(text)[start:end]
    tokens = text if isinstance(text, list) else str(text).split()
    return " ".join(map(str, tokens[start:end]))


def _keep_places(found: Findings, train: Peek, places: Mapping[str, _Place]) -> None:
    """Return places as cells if both are dicts with the same keys, else as columns."""
    roots, keys = [], []
    for place in places.values():
        names = [n for n in (place.word, place.start, place.end, place.type) if n is not None]
        roots.append({name.partition(".")[0] for name in names})
        keys.append([name.partition(".")[2] for name in names])
    is_cell = (
        all(len(root) == 1 for root in roots)
        and keys[0] == keys[1]
        and all(key and "." not in key for key in keys[0])
        and places["subject"].start is not None
        and all(root <= set(train.columns) for root in roots)
    )
    parts = ("word", "start", "end", "type")
    if is_cell:
        for role, (root,) in zip(places, map(tuple, roots), strict=True):
            found.columns[role] = root
        subject = places["subject"]
        held = {part: getattr(subject, part) for part in parts}
        cell = {part: name.partition(".")[2] for part, name in held.items() if name}
        found.entity = {"given_as": "cell", **cell}
        return
    found.entity = {"given_as": "columns"}
    is_typed = all(place.type is not None for place in places.values())
    for role, place in places.items():
        held = {part: getattr(place, part) for part in parts if part != "type" or is_typed}
        found.entity[role] = {part: name for part, name in held.items() if name is not None}


def list_entity_columns(found: Findings) -> set[str]:
    """Return the columns that contain parts of entities."""
    used = set()
    for role in ROLE_NAMES:
        place = found.entity.get(role, {})
        used |= {place[part] for part in ("word", "start", "end", "type") if part in place}
        used |= {found.columns[role]} if role in found.columns else set()
    return used
