"""Insert markers around the entities of a row, and track the spans of entities and markers.

``formats`` chooses the markers; a change here changes their output and needs a new
``RESULT_VERSION`` there. Spans are half-open and in characters of their segment.
"""

from __future__ import annotations

from dataclasses import dataclass

from competition.data.rows import Row

Span = tuple[int, int]
Spans = dict[str, Span]  # by role


@dataclass(frozen=True, slots=True)
class Formatted:
    """A formatted row: segments, and the spans of its parts in ``segments[body]``.

    ``subject`` and ``object`` are the spans of the entities; ``subject_mark`` and ``object_mark``
    include their markers, so that truncation never splits them, and start with the opening marker.
    ``prompt_mask`` is the index of the segment with ``MASK_SLOT``, and the span of the slot.
    """

    segments: tuple[str, ...]
    body: int
    subject: Span
    object: Span
    subject_mark: Span
    object_mark: Span
    prompt_mask: tuple[int, Span] | None = None


def overlaps(row: Row) -> bool:
    """Return whether the entities overlap: one inside the other, or crossing."""
    return row.subject.start < row.object.end and row.object.start < row.subject.end


def mark_words(row: Row, subject: tuple[str, str], obj: tuple[str, str]) -> Formatted:
    """Insert text before and after both entities, at their offsets, and track the spans.

    The ``word`` of an entity replaces the text of the sentence at its offsets.
    """
    if overlaps(row):
        return _mark_overlapping(row, subject, obj)
    placed = sorted(
        [(row.subject, subject, "subject"), (row.object, obj, "object")],
        key=lambda item: item[0].start,
    )
    pieces: list[str] = []
    at, length = 0, 0
    words: dict[str, Span] = {}
    marks: dict[str, Span] = {}
    for entity, (opening, closing), role in placed:
        pieces += [row.sentence[at : entity.start], opening, entity.word, closing]
        start = length + entity.start - at
        words[role] = (start + len(opening), start + len(opening) + len(entity.word))
        length = words[role][1] + len(closing)
        marks[role] = (start, length - len(closing) + len(closing.rstrip()))
        at = entity.end
    pieces.append(row.sentence[at:])
    return _join(pieces, words, marks)


def _join(pieces: list[str], words: Spans, marks: Spans) -> Formatted:
    """Join the pieces of a marked sentence; spans are by role."""
    text = "".join(pieces)
    spans = (words["subject"], words["object"], marks["subject"], marks["object"])
    return Formatted((text,), 0, *spans)


def _mark_overlapping(row: Row, subject: tuple[str, str], obj: tuple[str, str]) -> Formatted:
    """Mark overlapping entities; the markers of the longer one are outside.

    >>> from competition.data.rows import Entity
    >>> place, school = Entity("서울", 0, 2, "LOC"), Entity("서울대학교", 0, 5, "ORG")
    >>> row = Row("0", "서울대학교에", place, school, None)
    >>> _mark_overlapping(row, ("<", ">"), ("[", "]")).segments[0]
    '[<서울>대학교]에'
    """
    signs = {"subject": subject, "object": obj}
    places = {"subject": row.subject, "object": row.object}
    outer, inner = sorted(places, key=lambda role: (places[role].start, -places[role].end))
    inserts = [
        (places[outer].start, outer, 0),
        (places[inner].start, inner, 0),
        *sorted(  # if both end together, the inner one closes first
            [(places[inner].end, inner, 1), (places[outer].end, outer, 1)], key=lambda item: item[0]
        ),
    ]
    pieces: list[str] = []
    at, length = 0, 0
    begins: dict[tuple[str, int], int] = {}
    for place, role, side in inserts:
        pieces += [row.sentence[at:place], signs[role][side]]
        length += place - at
        begins[role, side] = length
        length += len(signs[role][side])
        at = place
    pieces.append(row.sentence[at:])
    words = {role: (begins[role, 0] + len(signs[role][0]), begins[role, 1]) for role in places}
    marks = {
        role: (begins[role, 0], begins[role, 1] + len(signs[role][1].rstrip())) for role in places
    }
    return _join(pieces, words, marks)
