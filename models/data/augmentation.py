"""Data augmentation: mask entities, insert punctuation (AEDA), swap roles, delete words.

Applied to training rows only, and drawn again in each epoch. The draw depends only on (seed, fold,
epoch, id), not on other rows. An augmented row contains text of no other row, and swapped roles
keep the unordered entity pair, so folds grouped by sentence and pair remain valid.

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
WORDS_PER_MARK = 3
"""At most one punctuation mark is inserted per this many words."""
MASKED_ROLES = (("subject",), ("object",), ("subject", "object"))
_WORD = re.compile(r"\S+")

Span = tuple[int, int]
Draw = np.random.Generator


@dataclass(frozen=True)
class Scheme:
    """Labels and entity types of a competition, in its order, with inverse labels and language.

    ``relations`` has the inverse labels, for swapped roles, and ``language`` the wording of
    formats; both default to klue-re's.
    """

    labels: tuple[str, ...]
    negative_ids: tuple[int, ...]
    entity_types: tuple[str, ...]
    relations: Relations | None = None
    language: Language | None = None

    @cached_property
    def inverse(self) -> dict[int, int]:
        """Label id → label id after swapping subject and object, for labels that allow it.

        >>> Scheme(("none", "per:parents", "per:children", "per:title"), (0,), ()).inverse
        {0: 0, 1: 2, 2: 1}
        """
        ids = {label: i for i, label in enumerate(self.labels)}
        rules = (self.relations or read_first_relations()).exchanged
        rules |= {self.labels[negative]: self.labels[negative] for negative in self.negative_ids}
        return {ids[label]: ids[rules[label]] for label in self.labels if rules.get(label) in ids}

    @cached_property
    def subject_types(self) -> frozenset[str]:
        """The entity types that some label's prefix names as its subject type.

        >>> sorted(Scheme(("none", "per:title", "org:members"), (0,), ("PER", "DAT")).subject_types)
        ['PER']
        """
        return frozenset(map(_type_named, self.labels)) & frozenset(self.entity_types)

    def can_be_subject(self, entity: Entity, label_id: int) -> bool:
        """Return whether an entity has a type that fits the subject of a label, by its prefix.

        ``per:title`` needs a PER. A label without a prefix allows any type that another label
        names: a DAT as subject would occur in augmented rows only and reveal them.
        """
        named = _type_named(self.labels[label_id])
        if named in self.subject_types:
            return entity.type == named
        return not self.subject_types or entity.type in self.subject_types


@dataclass(frozen=True)
class Augmented:
    """Augmented rows.

    Attributes:
        places: (k,) int64 indices into the input rows, ascending.
        rows: k changed rows, with the ids and sources of their originals.
        label_ids: (k,) int64, those of the originals except where roles were swapped.
    """

    places: Ints
    rows: tuple[Row, ...]
    label_ids: Ints


def check_augment(settings: AugmentSettings, scheme: Scheme) -> None:
    """Check augmentation settings against a competition.

    Raises:
        VariantError: an unknown label, entity masking without entity types, or role swapping
            where no chosen label has an inverse.
    """
    unknown = [label for label in settings.labels if label not in scheme.labels]
    if unknown:
        raise VariantError(
            f"augment.labels: {unknown[0]!r} is not a label of this competition; "
            f"choose from {', '.join(scheme.labels)}"
        )
    if "entity-mask" in settings.ways and not scheme.entity_types:
        raise VariantError(
            "augment.ways: entity-mask replaces an entity by its type, but the competition has no "
            "entity types; use aeda, swap or delete"
        )
    if "swap" in settings.ways and not scheme.inverse.keys() & _chosen(settings, scheme):
        chosen = settings.labels or scheme.labels
        raise VariantError(
            f"augment.ways: no label is known for the swapped roles of {', '.join(chosen)}; name "
            "inverse labels under [relations] in the profile, or remove swap"
        )


def augment(
    rows: Sequence[Row],
    label_ids: Ints,
    settings: AugmentSettings,
    *,
    scheme: Scheme,
    key: tuple[int, int, int],
) -> Augmented:
    """Augment a random share of training rows, each in one applicable way.

    Args:
        settings: ways, share and labels, checked by ``check_augment``.
        scheme: labels and entity types of the competition.
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
    """Try the ways in random order; return the row changed by the first that applies."""
    for way in draw.permutation(len(settings.ways)).tolist():
        name = settings.ways[way]
        if name != "swap":
            changed = TEXT_WAYS[name](row, draw)
            if changed is not None:
                return changed, label_id
        elif label_id in scheme.inverse:
            new_id = scheme.inverse[label_id]
            if scheme.can_be_subject(row.object, new_id):
                return swap_roles(row), new_id
    return None


def mask_entities(row: Row, roles: Sequence[str]) -> Row:
    """Replace the entity of each role by its type.

    >>> mask_entities(EXAMPLE_ROW, ("subject", "object")).sentence
    '〈Something〉는 PER이 쓰고 ORG가 1969년 앨범에 담은 노래다.'

    Raises:
        FormatError: the entity has no type.
    """
    for role in roles:
        entity = row.subject if role == "subject" else row.object
        if entity.type is None:
            raise FormatError(f"row {row.id}: the {role} cannot be masked: it has no entity type")
        row = _splice(row, (entity.start, entity.end), entity.type)
    return row


def insert_marks(row: Row, marks: Mapping[int, str]) -> Row:
    """Insert punctuation in front of words; ``marks`` maps a character offset to a mark.

    >>> insert_marks(EXAMPLE_ROW, {13: "!", 29: ";"}).sentence
    '〈Something〉는 ! 조지 해리슨이 쓰고 비틀즈가 ; 1969년 앨범에 담은 노래다.'

    Source: Karimi et al. 2021, "AEDA", arXiv 2108.13230, section 3: a random number of marks, at
        most a third of the words, at random positions. Here, none is put inside an entity.
    """
    for place in sorted(marks, reverse=True):
        row = _splice(row, (place, place), f"{marks[place]} ")
    return row


def delete_word(row: Row, word: Span) -> Row:
    """Delete a word outside the entities, and the spaces after it (at the end: before it).

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
    """Swap subject and object; the sentence is unchanged.

    >>> swap_roles(EXAMPLE_ROW).subject
    Entity(word='조지 해리슨', start=13, end=19, type='PER')
    """
    return replace(row, subject=row.object, object=row.subject)


def find_gaps(row: Row) -> list[int]:
    """Return the offsets where words begin, except inside an entity.

    >>> find_gaps(EXAMPLE_ROW)
    [0, 13, 21, 24, 29, 35, 39, 42]
    """
    spans = _entity_spans(row)
    starts = [word.start() for word in _WORD.finditer(row.sentence)]
    return [at for at in starts if not any(start < at < end for start, end in spans)]


def find_free_words(row: Row) -> list[Span]:
    """Return the spans of words, split at whitespace, that overlap no entity.

    >>> [EXAMPLE_ROW.sentence[slice(*word)] for word in find_free_words(EXAMPLE_ROW)]
    ['〈Something〉는', '쓰고', '1969년', '앨범에', '담은', '노래다.']
    """
    spans = _entity_spans(row)
    words = [word.span() for word in _WORD.finditer(row.sentence)]
    return [(a, b) for a, b in words if not any(a < end and start < b for start, end in spans)]


def _draw_mask(row: Row, draw: Draw) -> Row | None:
    if overlaps(row):
        return None  # text shared by both entities cannot be replaced for one of them
    masked = mask_entities(row, MASKED_ROLES[int(draw.integers(len(MASKED_ROLES)))])
    return None if masked == row else masked


def _draw_marks(row: Row, draw: Draw) -> Row | None:
    gaps = find_gaps(row)
    if not gaps:
        return None
    most = max(1, len(_WORD.findall(row.sentence)) // WORDS_PER_MARK)
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
"""Ways that change the text and keep the label; they return None if a row has nothing to change."""


def _chosen(settings: AugmentSettings, scheme: Scheme) -> set[int]:
    names = settings.labels or scheme.labels
    return {scheme.labels.index(name) for name in names}


def _type_named(label: str) -> str:
    return label.partition(":")[0].upper()


def _entity_spans(row: Row) -> tuple[Span, Span]:
    return (row.subject.start, row.subject.end), (row.object.start, row.object.end)


def _is_free_space(row: Row, at: int) -> bool:
    """Return whether there is a space outside the entities at an offset."""
    inside = any(start <= at < end for start, end in _entity_spans(row))
    return 0 <= at < len(row.sentence) and row.sentence[at].isspace() and not inside


def _splice(row: Row, span: Span, text: str) -> Row:
    """Replace a span by a text: the span of an entity, or one that overlaps no entity."""
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
