"""Input formats: pure functions from a row to the text an encoder is fed.

Third on the way of a row, after folds and augmentation. A format returns *segments* (the encoder's
separator is put between them), says which segment is the body (the one that holds the sentence and
may be cut to a window), and where in the body the entities and their opening markers stand.
A format is a body, with or without a prompt beside it; options apply to every format alike.
Spans are half-open and in characters of their segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from competition.data.rows import Entity, Row
from competition.errors import FormatError
from models.parts.particles import attach
from models.settings import FormatSettings

RESULT_VERSION = 1
VERSION_NAME = "models.formats"

MASK_SLOT = "[MASK]"
"""Stands in a prompt where the encoder's own mask token will."""
KOREAN_TYPES = {
    "PER": "사람",
    "ORG": "단체",
    "LOC": "장소",
    "DAT": "날짜",
    "POH": "기타",
    "NOH": "수량",
}
KOREAN_WORDS = tuple(KOREAN_TYPES.values())
PLAIN = FormatSettings()
MOST_SOURCES = 50

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
    an opening marker is the first character of its mark. ``prompt_mask`` is the segment that holds
    ``MASK_SLOT``, and the slot's span there.
    """

    segments: tuple[str, ...]
    body: int
    subject: Span
    object: Span
    subject_mark: Span
    object_mark: Span
    prompt_mask: tuple[int, Span] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question or statement beside the body: in front of it, or behind it with a mask slot."""

    text: str
    slot: Span | None = None


def no_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Name no token: the format uses only what every tokenizer knows."""
    del entity_types
    return ()


@dataclass(frozen=True, slots=True)
class Format:
    """A format: how its body is written, the tokens this needs registered, and its prompt.

    ``prompt`` is handed the row itself, so subject and object have their roles there whatever the
    order of the markers. ``words`` are those that tell rows apart and stand in no sentence.
    """

    body: Callable[[Row], Formatted]
    tokens: Callable[[Sequence[str]], tuple[str, ...]] = no_tokens
    needs_types: bool = False
    prompt: Callable[[Row], Prompt] | None = None
    words: tuple[str, ...] = ()

    def build(self, row: Row, settings: FormatSettings = PLAIN) -> Formatted:
        """Write a row in this format.

        >>> settings = FormatSettings(mask_entities=True, show_source=True)
        >>> FORMATS["entity-marker"].build(EXAMPLE_ROW, settings).segments
        ... # doctest: +NORMALIZE_WHITESPACE
        ('wikipedia', '〈Something〉는 [OBJ][OBJ-PER][/OBJ]이 쓰고 [SUBJ][SUBJ-ORG][/SUBJ]가
         1969년 앨범에 담은 노래다.')

        Args:
            row: the row.
            settings: the options. ``mask_entities`` puts a token in the place of both words, in
                the body and in the prompt, and their spans are the token's. ``marker_order =
                "text"`` gives the subject's markers (in ``concat``: its place in front) to whoever
                comes first in the sentence; spans keep their roles. ``show_source`` puts the
                source before all other segments, so ``body`` is one higher; a row without a source
                has no such segment.

        Raises:
            FormatError: entity types are shown and the row has none.
        """
        if settings.mask_entities:
            row = mask_words(row)
        text_order = settings.marker_order == "text"
        formatted = _write_in_text_order(self.body, row) if text_order else self.body(row)
        if self.prompt is not None:
            formatted = _add_prompt(formatted, self.prompt(row))
        if settings.show_source and row.source and row.source.strip():
            formatted = _put_in_front(formatted, row.source)
        return formatted

    def new_tokens(
        self, entity_types: Sequence[str], settings: FormatSettings = PLAIN
    ) -> tuple[str, ...]:
        """Name the tokens to register: the markers', then those that stand for masked words.

        >>> FORMATS["entity-marker"].new_tokens(["PER"], FormatSettings(mask_entities=True))
        ('[SUBJ]', '[/SUBJ]', '[OBJ]', '[/OBJ]', '[SUBJ-PER]', '[OBJ-PER]')
        """
        masks = mask_tokens(entity_types) if settings.mask_entities else ()
        return (*self.tokens(entity_types), *masks)

    def own_words(self, settings: FormatSettings, sources: Iterable[str | None]) -> tuple[str, ...]:
        """Name the words that this format writes and that a tokenizer made for it must know.

        A tokenizer that learns from the sentences alone may know none of them, and all would look
        the same. Of many sources, the ``MOST_SOURCES`` most frequent are named.

        >>> settings = FormatSettings(show_source=True)
        >>> FORMATS["typed-punct"].own_words(settings, ["wikitree", None, "wikipedia", "wikitree"])
        ('wikitree', 'wikipedia')
        """
        if not settings.show_source:
            return self.words
        counts = Counter(source for source in sources if source and source.strip())
        by_count = sorted(counts, key=lambda source: (-counts[source], source))
        return (*self.words, *by_count[:MOST_SOURCES])


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
    return _punctuated(row, _type_of(row, row.subject), _type_of(row, row.object))


def typed_punct_ko(row: Row) -> Formatted:
    """Put punctuation and the type as a Korean word around both words.

    >>> typed_punct_ko(EXAMPLE_ROW).segments[0][13:]
    '# ^ 사람 ^ 조지 해리슨 # 이 쓰고 @ * 단체 * 비틀즈 @ 가 1969년 앨범에 담은 노래다.'
    """
    return _punctuated(row, _korean_type(row, row.subject), _korean_type(row, row.object))


def query(row: Row) -> Prompt:
    """Ask for the relation of the two words.

    >>> FORMATS["query"].build(EXAMPLE_ROW).segments  # doctest: +NORMALIZE_WHITESPACE
    ('비틀즈와 조지 해리슨의 관계',
     '〈Something〉는 # ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가
      1969년 앨범에 담은 노래다.')
    """
    return Prompt(f"{attach(row.subject.word, '와/과')} {row.object.word}의 관계")


def declarative(row: Row) -> Prompt:
    """State that the object is the subject's person, place and so on, by its type in Korean.

    >>> FORMATS["declarative"].build(EXAMPLE_ROW).segments  # doctest: +NORMALIZE_WHITESPACE
    ('이 문장에서 조지 해리슨은 비틀즈의 사람이다.',
     '〈Something〉는 # ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가
      1969년 앨범에 담은 노래다.')
    """
    obj, kind = attach(row.object.word, "은/는"), _korean_type(row, row.object)
    return Prompt(f"이 문장에서 {obj} {row.subject.word}의 {kind}이다.")


def mask_prompt(row: Row) -> Prompt:
    """State what the object is to the subject, with a slot for the answer.

    >>> FORMATS["mask-prompt"].build(EXAMPLE_ROW).segments  # doctest: +NORMALIZE_WHITESPACE
    ('〈Something〉는 # ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가
      1969년 앨범에 담은 노래다.',
     '비틀즈의 조지 해리슨은 [MASK] 이다.')
    """
    before = f"{row.subject.word}의 {attach(row.object.word, '은/는')} "
    return Prompt(f"{before}{MASK_SLOT} 이다.", (len(before), len(before) + len(MASK_SLOT)))


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


def mask_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Name the tokens that stand for masked words.

    >>> mask_tokens(["PER"])
    ('[SUBJ-PER]', '[OBJ-PER]')
    """
    return tuple(f"[{role}-{kind}]" for kind in entity_types for role in ("SUBJ", "OBJ"))


FORMATS: dict[str, Format] = {
    "concat": Format(concat),
    "declarative": Format(typed_punct, needs_types=True, prompt=declarative, words=KOREAN_WORDS),
    "entity-marker": Format(entity_marker, entity_marker_tokens),
    "mask-prompt": Format(typed_punct, needs_types=True, prompt=mask_prompt),
    "query": Format(typed_punct, needs_types=True, prompt=query),
    "typed-marker": Format(typed_marker, typed_marker_tokens, needs_types=True),
    "typed-punct": Format(typed_punct, needs_types=True),
    "typed-punct-ko": Format(typed_punct_ko, needs_types=True, words=KOREAN_WORDS),
}


def check_format(
    name: str, settings: FormatSettings, *, entity_types: Sequence[str], has_source: bool
) -> None:
    """Refuse a format, or an option of it, that shows what a competition does not have.

    Args:
        name: a key of ``FORMATS``.
        settings: the options.
        entity_types: the competition's; empty if it is untyped.
        has_source: whether its files have a column for the source.

    Raises:
        FormatError: says what is absent and what to use instead.
    """
    if FORMATS[name].needs_types and not entity_types:
        raise FormatError(
            f"the format {name!r} shows entity types and this competition has none; "
            "use a variant without them, such as entity-marker or concat-cls"
        )
    if settings.mask_entities and not entity_types:
        raise FormatError(
            "formatting.mask_entities shows entity types and this competition has none; "
            "leave it out"
        )
    if settings.show_source and not has_source:
        raise FormatError(
            "formatting.show_source shows the source and the competition's profile names no "
            "column for it (columns.source); leave it out"
        )


def mask_words(row: Row) -> Row:
    """Put a token that names role and type in the place of both words; offsets follow.

    >>> mask_words(EXAMPLE_ROW).sentence
    '〈Something〉는 [OBJ-PER]이 쓰고 [SUBJ-ORG]가 1969년 앨범에 담은 노래다.'
    >>> mask_words(EXAMPLE_ROW).subject
    Entity(word='[SUBJ-ORG]', start=27, end=37, type='ORG')

    Source: "entity mask" in Zhou & Chen 2021, arXiv 2102.01373, section 3, after Zhang et al. 2017.
    """
    subject = replace(row.subject, word=f"[SUBJ-{_type_of(row, row.subject)}]")
    obj = replace(row.object, word=f"[OBJ-{_type_of(row, row.object)}]")
    written = _marked(replace(row, subject=subject, object=obj), ("", ""), ("", ""))
    return replace(
        row,
        sentence=written.segments[0],
        subject=replace(subject, start=written.subject[0], end=written.subject[1]),
        object=replace(obj, start=written.object[0], end=written.object[1]),
    )


def _type_of(row: Row, entity: Entity) -> str:
    if entity.type is None:
        raise FormatError(
            f"row {row.id}: this format shows entity types and the competition has none; "
            "use a variant without them, such as entity-marker or concat-cls, and leave out "
            "formatting.mask_entities"
        )
    return entity.type


def _korean_type(row: Row, entity: Entity) -> str:
    """Return an entity's type as a Korean word; a type that is not KLUE's stands for itself."""
    kind = _type_of(row, entity)
    return KOREAN_TYPES.get(kind, kind)


def _punctuated(row: Row, subject: str, obj: str) -> Formatted:
    return _marked(row, (f"@ * {subject} * ", " @ "), (f"# ^ {obj} ^ ", " # "))


def _write_in_text_order(body: Callable[[Row], Formatted], row: Row) -> Formatted:
    """Write a body as if whoever comes first were the subject; the spans keep their roles."""
    if row.subject.start < row.object.start:
        return body(row)
    written = body(replace(row, subject=row.object, object=row.subject))
    return replace(
        written,
        subject=written.object,
        object=written.subject,
        subject_mark=written.object_mark,
        object_mark=written.subject_mark,
    )


def _add_prompt(formatted: Formatted, prompt: Prompt) -> Formatted:
    if prompt.slot is None:
        return _put_in_front(formatted, prompt.text)
    place = len(formatted.segments)
    segments = (*formatted.segments, prompt.text)
    return replace(formatted, segments=segments, prompt_mask=(place, prompt.slot))


def _put_in_front(formatted: Formatted, text: str) -> Formatted:
    asked = formatted.prompt_mask
    return replace(
        formatted,
        segments=(text, *formatted.segments),
        body=formatted.body + 1,
        prompt_mask=None if asked is None else (asked[0] + 1, asked[1]),
    )


def _marked(row: Row, subject: tuple[str, str], obj: tuple[str, str]) -> Formatted:
    """Write texts before and after both words, each at its entity's offsets, and track the spans.

    An entity's ``word`` is what is written; its offsets say what of the sentence it replaces.
    """
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
