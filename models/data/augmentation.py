"""Training rows changed afresh each epoch: words hidden or left out, marks put in, roles exchanged.

Stands between folds and formats on the way of a row, and only a fold's training rows come here. A
row's fate is drawn from (seed, fold, epoch, id) alone, so the other rows do not matter to it.
A changed row holds nothing of any other row, and an exchanged pair is still the same unordered
pair, so that folds grouped by sentence and pair stay fair.

Legend: n training rows, C labels.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from competition.arrays import Ints
from competition.data.rows import Entity, Row
from competition.errors import FormatError, VariantError
from competition.profile_language import Language, Relations, read_first_relations
from models.parts.formats import EXAMPLE_ROW  # noqa: F401 (the doctests show it)
from models.parts.markers import overlaps
from models.settings import AugmentSettings

RESULT_VERSION = 1
VERSION_NAME = "models.augmentation"

MARKS = (".", ";", "?", ":", "!", ",")
MARKED_PART = 3
"""At most one mark for this many words."""
MASKED_ROLES = (("subject",), ("object",), ("subject", "object"))
_WORD = re.compile(r"\S+")

Span = tuple[int, int]
Draw = np.random.Generator


@dataclass(frozen=True)
class Scheme:
    """The labels and entity types of a competition, in its order, and the facts of both.

    ``relations`` says which labels hold once the roles are exchanged, ``language`` how formats
    write; both are klue-re's where none are named.
    """

    labels: tuple[str, ...]
    negative_id: int | None
    entity_types: tuple[str, ...]
    relations: Relations | None = None
    language: Language | None = None

    @cached_property
    def exchanged(self) -> dict[int, int]:
        """Label id → label id once the roles are exchanged, for the labels that allow it.

        >>> Scheme(("none", "per:parents", "per:children", "per:title"), 0, ()).exchanged
        {0: 0, 1: 2, 2: 1}
        """
        ids = {label: i for i, label in enumerate(self.labels)}
        rules = (self.relations or read_first_relations()).exchanged
        if self.negative_id is not None:
            rules[self.labels[self.negative_id]] = self.labels[self.negative_id]
        return {ids[label]: ids[rules[label]] for label in self.labels if rules.get(label) in ids}

    @cached_property
    def subject_types(self) -> frozenset[str]:
        """The types that labels name as their subject's.

        >>> sorted(Scheme(("none", "per:title", "org:members"), 0, ("PER", "DAT")).subject_types)
        ['PER']
        """
        return frozenset(map(_type_named, self.labels)) & frozenset(self.entity_types)

    def can_be_subject(self, entity: Entity, label_id: int) -> bool:
        """Say whether an entity's type suits a label's subject, as label names tell it.

        ``per:title`` is a fact of a PER. Where a label names no type, the subject's must be one
        that others name: a DAT that is a subject in changed rows only would give them away.
        """
        named = _type_named(self.labels[label_id])
        if named in self.subject_types:
            return entity.type == named
        return not self.subject_types or entity.type in self.subject_types


@dataclass(frozen=True)
class Augmented:
    """The rows that were changed.

    Attributes:
        places: (k,) int64 places among the rows given, ascending.
        rows: k changed rows, their ids and sources as before.
        label_ids: (k,) int64, as before but where roles were exchanged.
    """

    places: Ints
    rows: tuple[Row, ...]
    label_ids: Ints


def check_augment(settings: AugmentSettings, scheme: Scheme) -> None:
    """Refuse settings that a competition cannot follow, or that would do nothing in it.

    Raises:
        VariantError: an unknown label, hidden words without types to show in their place, or
            exchanged roles where no chosen label allows it.
    """
    unknown = [label for label in settings.labels if label not in scheme.labels]
    if unknown:
        raise VariantError(
            f"augment.labels names {unknown[0]!r}, which is no label of this competition; "
            f"choose among {', '.join(scheme.labels)}"
        )
    if "entity-mask" in settings.ways and not scheme.entity_types:
        raise VariantError(
            "augment.ways: entity-mask puts the entity's type in place of its word and the "
            "competition has no types; use aeda, swap or delete"
        )
    if "swap" in settings.ways and not scheme.exchanged.keys() & _chosen(settings, scheme):
        chosen = settings.labels or scheme.labels
        raise VariantError(
            f"augment.ways: none of {', '.join(chosen)} is known to hold, or to have a label, when "
            "subject and object are exchanged; name such labels in the profile's [relations], or "
            "leave swap out"
        )


def augment(
    rows: Sequence[Row],
    label_ids: Ints,
    settings: AugmentSettings,
    *,
    scheme: Scheme,
    key: tuple[int, int, int],
) -> Augmented:
    """Change a random share of training rows, each in one of the ways that suit it.

    Args:
        rows: n rows of a fold's training part.
        label_ids: (n,) their labels.
        settings: the ways, the share and the labels concerned; ``check_augment`` passed them.
        scheme: what the label ids stand for.
        key: seed, fold and epoch.
    """
    chosen = _chosen(settings, scheme)
    places: list[int] = []
    changed: list[Row] = []
    new_ids: list[int] = []
    for place, (row, label_id) in enumerate(zip(rows, label_ids.tolist(), strict=True)):
        if label_id not in chosen:
            continue
        draw = np.random.default_rng([settings.seed, *key, zlib.crc32(row.id.encode())])
        if draw.random() >= settings.share:
            continue
        other = _change(row, label_id, settings, scheme=scheme, draw=draw)
        if other is not None:
            places.append(place)
            changed.append(other[0])
            new_ids.append(other[1])
    return Augmented(np.array(places, np.int64), tuple(changed), np.array(new_ids, np.int64))


def _change(
    row: Row, label_id: int, settings: AugmentSettings, *, scheme: Scheme, draw: Draw
) -> tuple[Row, int] | None:
    """Return the row as the first way that suits it leaves it, the ways in random order."""
    for way in draw.permutation(len(settings.ways)).tolist():
        name = settings.ways[way]
        if name != "swap":
            changed = TEXT_WAYS[name](row, draw)
            if changed is not None:
                return changed, label_id
        elif label_id in scheme.exchanged:
            new_id = scheme.exchanged[label_id]
            if scheme.can_be_subject(row.object, new_id):
                return swap_roles(row), new_id
    return None


def mask_entities(row: Row, roles: Sequence[str]) -> Row:
    """Put the type in place of the word of each role.

    >>> mask_entities(EXAMPLE_ROW, ("subject", "object")).sentence
    '〈Something〉는 PER이 쓰고 ORG가 1969년 앨범에 담은 노래다.'

    Raises:
        FormatError: the entity has no type.
    """
    for role in roles:
        entity = row.subject if role == "subject" else row.object
        if entity.type is None:
            raise FormatError(f"row {row.id}: the {role} has no type to show in place of its word")
        row = _splice(row, (entity.start, entity.end), entity.type)
    return row


def insert_marks(row: Row, marks: Mapping[int, str]) -> Row:
    """Put marks in front of words; ``marks`` is place in the sentence → mark.

    >>> insert_marks(EXAMPLE_ROW, {13: "!", 29: ";"}).sentence
    '〈Something〉는 ! 조지 해리슨이 쓰고 비틀즈가 ; 1969년 앨범에 담은 노래다.'

    Source: Karimi et al. 2021, "AEDA", arXiv 2108.13230, section 3: a random number of marks, at
        most a third of the words, at random places. No mark goes inside an entity here.
    """
    for place in sorted(marks, reverse=True):
        row = _splice(row, (place, place), f"{marks[place]} ")
    return row


def delete_word(row: Row, word: Span) -> Row:
    """Take out a word that holds no part of an entity, and the spaces after it (else before it).

    >>> delete_word(EXAMPLE_ROW, (35, 38)).sentence
    '〈Something〉는 조지 해리슨이 쓰고 비틀즈가 1969년 담은 노래다.'
    """
    start, end = word
    while _is_free_space(row, end):
        end += 1
    if end == len(row.sentence):
        while _is_free_space(row, start - 1):
            start -= 1
    return _splice(row, (start, end), "")


def swap_roles(row: Row) -> Row:
    """Make the object the subject and the other way round; the sentence stays.

    >>> swap_roles(EXAMPLE_ROW).subject
    Entity(word='조지 해리슨', start=13, end=19, type='PER')
    """
    return replace(row, subject=row.object, object=row.subject)


def find_gaps(row: Row) -> list[int]:
    """Return the places in front of words, save those inside an entity.

    >>> find_gaps(EXAMPLE_ROW)
    [0, 13, 21, 24, 29, 35, 39, 42]
    """
    spans = _entity_spans(row)
    starts = [word.start() for word in _WORD.finditer(row.sentence)]
    return [at for at in starts if not any(start < at < end for start, end in spans)]


def find_free_words(row: Row) -> list[Span]:
    """Return the words, parted by spaces, that hold no part of an entity.

    >>> [EXAMPLE_ROW.sentence[slice(*word)] for word in find_free_words(EXAMPLE_ROW)]
    ['〈Something〉는', '쓰고', '1969년', '앨범에', '담은', '노래다.']
    """
    spans = _entity_spans(row)
    words = [word.span() for word in _WORD.finditer(row.sentence)]
    return [(a, b) for a, b in words if not any(a < end and start < b for start, end in spans)]


def _draw_mask(row: Row, draw: Draw) -> Row | None:
    if overlaps(row):
        return None  # what stands in both words cannot be replaced for one of them
    masked = mask_entities(row, MASKED_ROLES[int(draw.integers(len(MASKED_ROLES)))])
    return None if masked == row else masked


def _draw_marks(row: Row, draw: Draw) -> Row | None:
    gaps = find_gaps(row)
    if not gaps:
        return None
    most = max(1, len(_WORD.findall(row.sentence)) // MARKED_PART)
    count = min(int(draw.integers(1, most + 1)), len(gaps))
    places = draw.choice(len(gaps), count, replace=False).tolist()
    marks = draw.integers(len(MARKS), size=count).tolist()
    return insert_marks(row, {gaps[i]: MARKS[j] for i, j in zip(places, marks, strict=True)})


def _draw_deletion(row: Row, draw: Draw) -> Row | None:
    words = find_free_words(row)
    return delete_word(row, words[int(draw.integers(len(words)))]) if words else None


TEXT_WAYS: dict[str, Callable[[Row, Draw], Row | None]] = {
    "entity-mask": _draw_mask,
    "aeda": _draw_marks,
    "delete": _draw_deletion,
}
"""Ways that change the text and keep the label; None where a row does not suit."""


def _chosen(settings: AugmentSettings, scheme: Scheme) -> set[int]:
    names = settings.labels or scheme.labels
    return {scheme.labels.index(name) for name in names}


def _type_named(label: str) -> str:
    return label.partition(":")[0].upper()


def _entity_spans(row: Row) -> tuple[Span, Span]:
    return (row.subject.start, row.subject.end), (row.object.start, row.object.end)


def _is_free_space(row: Row, at: int) -> bool:
    """Say whether a space that belongs to no entity stands at a place."""
    inside = any(start <= at < end for start, end in _entity_spans(row))
    return 0 <= at < len(row.sentence) and row.sentence[at].isspace() and not inside


def _splice(row: Row, span: Span, text: str) -> Row:
    """Put a text in place of an entity's whole span, or of one that no entity reaches into."""
    start, end = span
    sentence = row.sentence[:start] + text + row.sentence[end:]
    subject, obj = (_move(entity, span, text) for entity in (row.subject, row.object))
    return replace(row, sentence=sentence, subject=subject, object=obj)


def _move(entity: Entity, span: Span, text: str) -> Entity:
    start, end = span
    if (entity.start, entity.end) == span:
        return replace(entity, word=text, end=start + len(text))
    if entity.start < end:
        return entity
    shift = len(text) - (end - start)
    return replace(entity, start=entity.start + shift, end=entity.end + shift)
