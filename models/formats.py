"""Input formats: pure functions from a row to the text an encoder is fed.

Third on the way of a row, after folds and augmentation. A format returns *segments* (the encoder's
separator is put between them), says which segment is the body (the one that holds the sentence and
may be cut to a window), and where in the body the entities and their opening markers stand.
Spans are half-open and in characters of the body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from competition.errors import FormatError
from competition.rows import Entity, Row

RESULT_VERSION = 1

Span = tuple[int, int]


EXAMPLE_ROW = Row(
    id="0",
    sentence="〈Something〉는 조지 해리슨이 쓰고 비틀즈가 1969년 앨범에 담은 노래다.",
    subject=Entity("비틀즈", 24, 27, "ORG"),
    object=Entity("조지 해리슨", 13, 19, "PER"),
    source="wikipedia",
)


@dataclass(frozen=True, slots=True)
class Formatted:
    """What a row becomes: segments, and where the parts stand in ``segments[body]``.

    ``subject`` and ``object`` span the entities' words; ``subject_mark`` and ``object_mark`` span
    everything that belongs to an entity, its markers included, so that a window never splits it;
    an opening marker is the first character of its mark.
    """

    segments: tuple[str, ...]
    body: int
    subject: Span
    object: Span
    subject_mark: Span
    object_mark: Span


def no_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Name no token: the format uses only what every tokenizer knows."""
    del entity_types
    return ()


@dataclass(frozen=True, slots=True)
class Format:
    """A format: how a row is built, and the tokens it needs registered in the tokenizer."""

    build: Callable[[Row], Formatted]
    new_tokens: Callable[[Sequence[str]], tuple[str, ...]] = no_tokens
    needs_types: bool = False


def concat(row: Row) -> Formatted:
    """Put both words in front of the untouched sentence.

    >>> concat(EXAMPLE_ROW).segments  # doctest: +NORMALIZE_WHITESPACE
    ('비틀즈', '조지 해리슨',
     '〈Something〉는 조지 해리슨이 쓰고 비틀즈가 1969년 앨범에 담은 노래다.')
    """
    subject, obj = (row.subject.start, row.subject.end), (row.object.start, row.object.end)
    return Formatted(
        segments=(row.subject.word, row.object.word, row.sentence),
        body=2,
        subject=subject,
        object=obj,
        subject_mark=subject,
        object_mark=obj,
    )


def entity_marker(row: Row) -> Formatted:
    """Put new tokens around both words.

    >>> entity_marker(EXAMPLE_ROW).segments[0]
    '〈Something〉는 [OBJ]조지 해리슨[/OBJ]이 쓰고 [SUBJ]비틀즈[/SUBJ]가 1969년 앨범에 담은 노래다.'
    """
    return _marked(row, ("[SUBJ]", "[/SUBJ]"), ("[OBJ]", "[/OBJ]"))


def typed_marker(row: Row) -> Formatted:
    """Put new tokens that carry the entity's type around both words.

    >>> typed_marker(EXAMPLE_ROW).segments[0][13:56]
    '[OBJ:PER]조지 해리슨[/OBJ:PER]이 쓰고 [SUBJ:ORG]비틀즈'
    """
    subject, obj = _type_of(row, row.subject), _type_of(row, row.object)
    return _marked(
        row, (f"[SUBJ:{subject}]", f"[/SUBJ:{subject}]"), (f"[OBJ:{obj}]", f"[/OBJ:{obj}]")
    )


def typed_punct(row: Row) -> Formatted:
    """Put punctuation that every encoder knows, and the type, around both words.

    >>> typed_punct(EXAMPLE_ROW).segments[0][13:]
    '# ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가 1969년 앨범에 담은 노래다.'

    Source: Zhou & Chen 2021, arXiv 2102.01373, "typed entity marker (punct)".
    """
    subject, obj = _type_of(row, row.subject), _type_of(row, row.object)
    return _marked(row, (f"@ * {subject} * ", " @ "), (f"# ^ {obj} ^ ", " # "))


def entity_marker_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Name the tokens of ``entity_marker``."""
    del entity_types
    return ("[SUBJ]", "[/SUBJ]", "[OBJ]", "[/OBJ]")


def typed_marker_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Name the tokens of ``typed_marker`` for all entity types.

    >>> typed_marker_tokens(["PER"])
    ('[SUBJ:PER]', '[/SUBJ:PER]', '[OBJ:PER]', '[/OBJ:PER]')
    """
    return tuple(
        f"[{slash}{role}:{kind}]"
        for kind in entity_types
        for role in ("SUBJ", "OBJ")
        for slash in ("", "/")
    )


FORMATS: dict[str, Format] = {
    "concat": Format(concat),
    "entity-marker": Format(entity_marker, entity_marker_tokens),
    "typed-marker": Format(typed_marker, typed_marker_tokens, needs_types=True),
    "typed-punct": Format(typed_punct, needs_types=True),
}


def _type_of(row: Row, entity: Entity) -> str:
    if entity.type is None:
        raise FormatError(
            f"row {row.id}: this format shows entity types and the competition has none; "
            "use the format entity-marker or concat"
        )
    return entity.type


def _marked(row: Row, subject: tuple[str, str], obj: tuple[str, str]) -> Formatted:
    """Insert opening and closing texts around both entities, by offset, and track the spans."""
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
    return Formatted(
        segments=("".join(pieces),),
        body=0,
        subject=words["subject"],
        object=words["object"],
        subject_mark=marks["subject"],
        object_mark=marks["object"],
    )
