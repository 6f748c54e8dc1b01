"""Input formats: pure functions from a row to the input text of an encoder.

A format returns *segments* (joined by the encoder's separator token), the index of the body (the
segment with the sentence, which may be truncated), and the spans of entities and markers in the
body. A format consists of a body and, optionally, a prompt; the options apply to all formats.
Prompts and words for types are in the language set in the profile. Without entity types, formats
omit them. Spans are half-open and in characters of their segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from competition.data.rows import Entity, Row
from competition.errors import FormatError
from competition.profile_language import MASK, Language, parse_template, read_language
from models.parts.markers import Formatted, Span, mark_words, overlaps
from models.parts.particles import Particle, attach
from models.settings import FormatSettings

RESULT_VERSION = 1
VERSION_NAME = "models.formats"

MASK_SLOT = "[MASK]"
"""Placeholder in a prompt for the encoder's mask token."""
PLAIN = FormatSettings()
MAX_SOURCES = 50
INSTRUCT = "{subject} ({subject_type}), {object} ({object_type}):"

EXAMPLE_ROW = Row(
    id="0",
    sentence="〈Something〉는 조지 해리슨이 쓰고 비틀즈가 1969년 앨범에 담은 노래다.",
    subject=Entity("비틀즈", 24, 27, "ORG"),
    object=Entity("조지 해리슨", 13, 19, "PER"),
    source="wikipedia",
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question beside the body: in front, or behind it with a mask slot or if ``is_behind``."""

    text: str
    slot: Span | None = None
    is_behind: bool = False


def no_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Return no tokens: the format needs none beyond those of the tokenizer."""
    del entity_types
    return ()


@dataclass(frozen=True, slots=True)
class Format:
    """A format: how its body is written, the tokens this needs registered, and its prompt.

    ``prompt`` is handed the row itself, so subject and object have their roles there whatever the
    order of the markers. ``words`` are those that distinguish rows and occur in no sentence;
    ``says_types`` adds the language's words for types, which the body is given in place of types.
    ``prompt_says_types`` does so for a prompt. A format that ``needs_types`` is refused where there
    are none. ``spoken`` is klue-re's language where none is named.
    """

    body: Callable[[Row], Formatted]
    tokens: Callable[[Sequence[str]], tuple[str, ...]] = no_tokens
    prompt: Callable[[Row, Language], Prompt] | None = None
    words: tuple[str, ...] = ()
    needs_types: bool = False
    says_types: bool = False
    prompt_says_types: bool = False
    spoken: Language | None = None

    @property
    def language(self) -> Language:
        """The language of prompts and of words for types."""
        return self.spoken or read_language()

    def speaking(self, language: Language) -> Format:
        """Return this format in another language."""
        return replace(self, spoken=language)

    def build(self, row: Row, settings: FormatSettings = PLAIN) -> Formatted:
        """Format a row.

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
                has no such segment. ``instruction`` comes before everything.

        Raises:
            FormatError: words are masked and an entity has no type.
        """
        if settings.mask_entities:
            row = mask_words(row)
        text_order = settings.marker_order == "text"
        shown = say_types(row, self.language) if self.says_types else row
        formatted = _write_in_text_order(self.body, shown) if text_order else self.body(shown)
        if self.prompt is not None:
            formatted = _add_prompt(formatted, self.prompt(row, self.language))
        if settings.show_source and row.source and row.source.strip():
            formatted = _put_in_front(formatted, row.source)
        if settings.instruction:
            formatted = _put_in_front(formatted, settings.instruction)
        return formatted

    def new_tokens(
        self, entity_types: Sequence[str], settings: FormatSettings = PLAIN
    ) -> tuple[str, ...]:
        """Return the new tokens: markers, then the tokens for masked entities.

        >>> FORMATS["entity-marker"].new_tokens(["PER"], FormatSettings(mask_entities=True))
        ('[SUBJ]', '[/SUBJ]', '[OBJ]', '[/OBJ]', '[SUBJ-PER]', '[OBJ-PER]')
        """
        masks = mask_tokens(entity_types) if settings.mask_entities else ()
        return (*self.tokens(entity_types), *masks)

    def own_words(self, settings: FormatSettings, sources: Iterable[str | None]) -> tuple[str, ...]:
        """Return the words that a tokenizer trained for this format must know.

        They may not occur in the sentences, and a tokenizer trained on these only would map all of
        them to the unknown token. At most ``MAX_SOURCES`` sources are included, by frequency.

        >>> settings = FormatSettings(show_source=True)
        >>> FORMATS["typed-punct"].own_words(settings, ["wikitree", None, "wikipedia", "wikitree"])
        ('wikitree', 'wikipedia')
        """
        words = self.words
        if self.says_types or self.prompt_says_types:
            words += tuple(self.language.type_words.values())
        if not settings.show_source:
            return words
        counts = Counter(source for source in sources if source and source.strip())
        by_count = sorted(counts, key=lambda source: (-counts[source], source))
        return (*words, *by_count[:MAX_SOURCES])


def concat(row: Row) -> Formatted:
    """Put both entities in front of the unchanged sentence.

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
    """Put new marker tokens around both entities.

    >>> entity_marker(EXAMPLE_ROW).segments[0]
    '〈Something〉는 [OBJ]조지 해리슨[/OBJ]이 쓰고 [SUBJ]비틀즈[/SUBJ]가 1969년 앨범에 담은 노래다.'
    """
    return mark_words(row, ("[SUBJ]", "[/SUBJ]"), ("[OBJ]", "[/OBJ]"))


def typed_marker(row: Row) -> Formatted:
    """Put new marker tokens with the entity type around both entities.

    >>> typed_marker(EXAMPLE_ROW).segments[0][13:56]
    '[OBJ:PER]조지 해리슨[/OBJ:PER]이 쓰고 [SUBJ:ORG]비틀즈'
    """
    if row.subject.type is None or row.object.type is None:
        return entity_marker(row)
    subject, obj = row.subject.type, row.object.type
    return mark_words(
        row, (f"[SUBJ:{subject}]", f"[/SUBJ:{subject}]"), (f"[OBJ:{obj}]", f"[/OBJ:{obj}]")
    )


def typed_punct(row: Row) -> Formatted:
    """Put punctuation and the entity type around both entities, without new tokens.

    >>> typed_punct(EXAMPLE_ROW).segments[0][13:]
    '# ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가 1969년 앨범에 담은 노래다.'

    Source: Zhou & Chen 2021, arXiv 2102.01373, "typed entity marker (punct)".
    """
    return _punctuated(row, row.subject.type, row.object.type)


def say_types(row: Row, language: Language) -> Row:
    """Return the row with its entity types replaced by words of a language.

    >>> say_types(EXAMPLE_ROW, read_language("english")).subject
    Entity(word='비틀즈', start=24, end=27, type='organization')
    """
    if row.subject.type is None or row.object.type is None:
        return row
    subject, obj = row.subject, row.object
    return replace(
        row,
        subject=replace(subject, type=language.word_of(subject.type)),
        object=replace(obj, type=language.word_of(obj.type)),
    )


def query(row: Row, language: Language) -> Prompt:
    """Ask for the relation between the entities.

    >>> FORMATS["query"].build(EXAMPLE_ROW).segments  # doctest: +NORMALIZE_WHITESPACE
    ('비틀즈와 조지 해리슨의 관계',
     '〈Something〉는 # ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가
      1969년 앨범에 담은 노래다.')
    >>> FORMATS["query"].speaking(read_language("english")).build(EXAMPLE_ROW).segments[0]
    'What is the relation between 비틀즈 and 조지 해리슨?'
    """
    return fill_template(language.query, row, language)


def declarative(row: Row, language: Language) -> Prompt:
    """State that the object is the subject's person, place and so on, with a word for its type.

    >>> FORMATS["declarative"].build(EXAMPLE_ROW).segments  # doctest: +NORMALIZE_WHITESPACE
    ('이 문장에서 조지 해리슨은 비틀즈의 사람이다.',
     '〈Something〉는 # ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가
      1969년 앨범에 담은 노래다.')
    """
    return fill_template(language.declarative, row, language)


def mask_prompt(row: Row, language: Language) -> Prompt:
    """State what the object is to the subject, with a mask slot for the relation.

    >>> FORMATS["mask-prompt"].build(EXAMPLE_ROW).segments  # doctest: +NORMALIZE_WHITESPACE
    ('〈Something〉는 # ^ PER ^ 조지 해리슨 # 이 쓰고 @ * ORG * 비틀즈 @ 가
      1969년 앨범에 담은 노래다.',
     '비틀즈의 조지 해리슨은 [MASK] 이다.')
    """
    return fill_template(language.mask_prompt, row, language)


def fill_template(template: str, row: Row, language: Language) -> Prompt:
    """Fill a template with the entities of a row; the slot is the position of ``{mask}``."""
    values = {
        "subject": row.subject.word,
        "object": row.object.word,
        "subject_type": language.word_of(row.subject.type),
        "object_type": language.word_of(row.object.type),
        MASK: MASK_SLOT,
    }
    text, slot = "", None
    for before, name, particle in parse_template(template):
        text += before
        start = len(text)
        if name:
            text += attach(values[name], cast(Particle, particle)) if particle else values[name]
        if name == MASK:
            slot = (start, len(text))
    return Prompt(text, slot)


def instruct(row: Row, language: Language) -> Prompt:
    """Name both words and leave the relation to be said, which a decoder reads last.

    >>> FORMATS["instruct"].build(EXAMPLE_ROW).segments[-1]
    '비틀즈 (단체), 조지 해리슨 (사람):'
    """
    return replace(fill_template(INSTRUCT, row, language), is_behind=True)


def entity_marker_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Return the tokens of ``entity_marker``."""
    del entity_types
    return ("[SUBJ]", "[/SUBJ]", "[OBJ]", "[/OBJ]")


def typed_marker_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Return the tokens of ``typed_marker`` for all entity types; without types, the plain ones.

    >>> typed_marker_tokens(["PER"])
    ('[SUBJ:PER]', '[/SUBJ:PER]', '[OBJ:PER]', '[/OBJ:PER]')
    """
    if not entity_types:
        return entity_marker_tokens(entity_types)
    return tuple(
        f"[{slash}{role}:{kind}]"
        for kind in entity_types
        for role in ("SUBJ", "OBJ")
        for slash in ("", "/")
    )


def mask_tokens(entity_types: Sequence[str]) -> tuple[str, ...]:
    """Return the tokens for masked entities.

    >>> mask_tokens(["PER"])
    ('[SUBJ-PER]', '[OBJ-PER]')
    """
    return tuple(f"[{role}-{kind}]" for kind in entity_types for role in ("SUBJ", "OBJ"))


FORMATS: dict[str, Format] = {
    "concat": Format(concat),
    "declarative": Format(typed_punct, prompt=declarative, prompt_says_types=True),
    "entity-marker": Format(entity_marker, entity_marker_tokens),
    "instruct": Format(typed_punct, prompt=instruct, prompt_says_types=True),
    "mask-prompt": Format(typed_punct, prompt=mask_prompt),
    "query": Format(typed_punct, prompt=query),
    "typed-marker": Format(typed_marker, typed_marker_tokens),
    "typed-punct": Format(typed_punct),
    "typed-punct-ko": Format(typed_punct, says_types=True),
}


def choose_format(name: str, language: Language | None) -> Format:
    """Return a format in a language; None for that of klue-re."""
    return FORMATS[name] if language is None else FORMATS[name].speaking(language)


def check_format(
    name: str, settings: FormatSettings, *, entity_types: Sequence[str], has_source: bool
) -> None:
    """Check that a competition has all that a format and its options use.

    Raises:
        FormatError: names what is missing and what to use instead.
    """
    if FORMATS[name].needs_types and not entity_types:
        raise FormatError(
            f"format {name!r} needs entity types, but this competition has none; "
            "use another, such as typed-punct, which then omits types"
        )
    if settings.mask_entities and not entity_types:
        raise FormatError(
            "formatting.mask_entities needs entity types, but this competition has none; remove it"
        )
    if settings.show_source and not has_source:
        raise FormatError(
            "formatting.show_source needs a source column, but the profile has none "
            "(columns.source); remove it"
        )


def mask_words(row: Row) -> Row:
    """Replace both entities by tokens for role and type, and update the offsets.

    >>> mask_words(EXAMPLE_ROW).sentence
    '〈Something〉는 [OBJ-PER]이 쓰고 [SUBJ-ORG]가 1969년 앨범에 담은 노래다.'
    >>> mask_words(EXAMPLE_ROW).subject
    Entity(word='[SUBJ-ORG]', start=27, end=37, type='ORG')

    Source: "entity mask" in Zhou & Chen 2021, arXiv 2102.01373, section 3, after Zhang et al. 2017.
    """
    subject = replace(row.subject, word=f"[SUBJ-{_type_of(row, row.subject)}]")
    obj = replace(row.object, word=f"[OBJ-{_type_of(row, row.object)}]")
    if overlaps(row):
        return _mask_overlapping(row, subject, obj)
    written = mark_words(replace(row, subject=subject, object=obj), ("", ""), ("", ""))
    return replace(
        row,
        sentence=written.segments[0],
        subject=replace(subject, start=written.subject[0], end=written.subject[1]),
        object=replace(obj, start=written.object[0], end=written.object[1]),
    )


def _mask_overlapping(row: Row, subject: Entity, obj: Entity) -> Row:
    """Replace all text covered by overlapping entities by both tokens, in order."""
    start, end = min(subject.start, obj.start), max(subject.end, obj.end)
    first, second = sorted([subject, obj], key=lambda entity: (entity.start, -entity.end))
    tokens = f"{first.word} {second.word}"
    sentence = row.sentence[:start] + tokens + row.sentence[end:]
    middle = start + len(first.word)
    placed = {
        first.word: replace(first, start=start, end=middle),
        second.word: replace(second, start=middle + 1, end=start + len(tokens)),
    }
    return replace(row, sentence=sentence, subject=placed[subject.word], object=placed[obj.word])


def _type_of(row: Row, entity: Entity) -> str:
    if entity.type is None:
        raise FormatError(
            f"row {row.id}: formatting.mask_entities needs entity types, but the competition has "
            "none; remove it"
        )
    return entity.type


def _punctuated(row: Row, subject: str | None, obj: str | None) -> Formatted:
    """Mark both entities with punctuation; without types, with the outer characters only.

    Source: without types, Zhou & Chen 2021, arXiv 2102.01373, "entity marker (punct)".
    """
    if subject is None or obj is None:
        return mark_words(row, ("@ ", " @ "), ("# ", " # "))
    return mark_words(row, (f"@ * {subject} * ", " @ "), (f"# ^ {obj} ^ ", " # "))


def _write_in_text_order(body: Callable[[Row], Formatted], row: Row) -> Formatted:
    """Format a body as if the first entity were the subject; the spans keep their roles."""
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
    if prompt.slot is None and not prompt.is_behind:
        return _put_in_front(formatted, prompt.text)
    segments = (*formatted.segments, prompt.text)
    asked = prompt.slot and (len(formatted.segments), prompt.slot)
    return replace(formatted, segments=segments, prompt_mask=asked)


def _put_in_front(formatted: Formatted, text: str) -> Formatted:
    asked = formatted.prompt_mask
    return replace(
        formatted,
        segments=(text, *formatted.segments),
        body=formatted.body + 1,
        prompt_mask=None if asked is None else (asked[0] + 1, asked[1]),
    )
