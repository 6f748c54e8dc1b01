"""Sentences of the demo competition: `Draft` while being generated, `Sentence` when finished.

`grammar` plans the clauses and writes them into a `Draft`, which keeps the cast, the facts and the
places of the entities; `make_demo` reads the finished `Sentence`.
Legend: an entity is named by its index in the cast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

from tools.make_demo.names import (
    FAMILIES,
    SLOTS,
    Name,
    build_hanja,
    build_name,
    build_short_name,
)
from tools.make_demo.phrase import Event, Phrase, Slot, choose_particle
from tools.make_demo.phrases_organisation import ORGANISATION_EVENTS
from tools.make_demo.phrases_person import PERSON_EVENTS

EVENTS = PERSON_EVENTS + ORGANISATION_EVENTS
SUBJECT_TYPES = ("PER", "ORG")
KIN_TIES = {"per:spouse", "per:children", "per:parents", "per:siblings", "per:other_family"}
STAFF_TIES = ("per:employee_of", "org:top_members/employees")
SAME_TIES = {"per:alternate_names", "org:alternate_names"}
TAIL_PARTS = 8  # a noun phrase's bracket spans fewer pieces of text than this

NOUN_FRAC = 0.28
HANJA_FRAC = 0.02
UNSEEN_PHRASE_FRAC = 0.15


@dataclass(frozen=True, slots=True)
class Mention:
    """A mention of an entity: its index in the cast, half-open character span, and clause."""

    entity: int
    start: int
    end: int
    clause: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A finished sentence; `facts` maps (subject, object) to the stated relation."""

    text: str
    source: str
    cast: tuple[Name, ...]
    mentions: tuple[Mention, ...]
    facts: dict[tuple[int, int], str]

    def negative_pairs(self) -> Iterator[tuple[int, int]]:
        """Yield the mentioned pairs, subject first, without a stated or implied relation."""
        present = sorted({mention.entity for mention in self.mentions})
        ties = _implied_ties(self.facts)
        for subject in present:
            if self.cast[subject].type not in SUBJECT_TYPES:
                continue
            for object_ in present:
                pair = (subject, object_)
                if subject != object_ and pair not in self.facts and pair not in ties:
                    yield pair

    def mentions_of(self, entity: int) -> list[Mention]:
        """Return the mentions of one entity in the order of the text."""
        return [mention for mention in self.mentions if mention.entity == entity]


def _implied_ties(facts: dict[tuple[int, int], str]) -> set[tuple[int, int]]:
    """Return pairs related through a third entity, for which no_relation would be wrong.

    These are kin of kin, people of one organisation, and whatever is said of another name.
    """
    ties: set[tuple[int, int]] = set()
    for (first, middle), label in facts.items():
        for (start, last), other in facts.items():
            if start != middle or last == first:
                continue
            are_kin = label in KIN_TIES and other in KIN_TIES
            if are_kin or (label, other) == STAFF_TIES or label in SAME_TIES or other in SAME_TIES:
                ties.update(((first, last), (last, first)))
    return ties


@dataclass
class Draft:
    """A sentence being generated."""

    rng: Random
    split: str
    cast: list[Name] = field(default_factory=list)
    facts: dict[tuple[int, int], str] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    mentions: list[Mention] = field(default_factory=list)
    decorated: set[int] = field(default_factory=set)
    pending: dict[int, tuple[Event, dict[str, int]]] = field(default_factory=dict)
    length: int = 0
    clause: int = 0

    def write(self, text: str) -> None:
        """Append literal text."""
        self.parts.append(text)
        self.length += len(text)

    def mention(self, entity: int) -> None:
        """Append the text of an entity and record its position."""
        word = self.cast[entity].word
        self.mentions.append(Mention(entity, self.length, self.length + len(word), self.clause))
        self.write(word)

    def add(self, name: Name) -> int:
        """Add an entity to the cast and return its index."""
        self.cast.append(name)
        return len(self.cast) - 1

    def bind(self, phrase: Phrase, bound: dict[str, int]) -> None:
        """Give every unbound slot of the phrase a new entity; changes `bound`."""
        for letter in phrase.letters:
            if letter not in bound:
                bound[letter] = self.add(self._fresh(letter, bound))

    def _fresh(self, letter: str, bound: dict[str, int]) -> Name:
        taken = {name.word for name in self.cast}
        for _ in range(20):
            name = build_name(self.rng, letter)
            if letter == "X" and "C" in bound:
                short = build_short_name(self.rng, self.cast[bound["C"]].word)
                name = Name(short, name.type, name.kind)
            too_early = letter == "E" and "D" in bound and name.word < self.cast[bound["D"]].word
            if name.word not in taken and not too_early:
                return name
        return name

    def state(self, event: Event, bound: dict[str, int]) -> None:
        """Add the facts of an event whose slots are bound."""
        for subject, object_, label in event.relations:
            if subject not in bound or object_ not in bound:
                continue
            if self.cast[bound[subject]].type in SUBJECT_TYPES:
                self.facts[bound[subject], bound[object_]] = label

    def choose(self, phrases: Sequence[Phrase]) -> Phrase:
        """Return a phrase, early ones most often; the last of a list only in test."""
        if len(phrases) > 2:
            if self.split == "test" and self.rng.random() < UNSEEN_PHRASE_FRAC:
                return phrases[-1]
            phrases = phrases[:-1]
        return self.rng.choices(phrases, _weights(len(phrases)))[0]

    def write_phrase(self, phrase: Phrase, bound: dict[str, int], *, bare: bool = False) -> None:
        """Append a phrase with its entities; unless `bare`, entities may get a noun phrase."""
        for part in phrase.parts:
            if not isinstance(part, Slot):
                self.write(part)
                continue
            entity = bound[part.letter]
            if bare:
                self.mention(entity)
            else:
                self.write_entity(entity)
            if part.particle:
                particle = choose_particle("".join(self.parts[-TAIL_PARTS:]), part.particle)
                self.write(part.quote + particle)

    def write_entity(self, entity: int) -> None:
        """Append an entity, sometimes inside a noun phrase that states another fact about it."""
        if entity in self.pending:
            event, bound = self.pending.pop(entity)
            self.write_noun(event, entity, bound)
            return
        family = FAMILIES.get(self.cast[entity].kind, "other")
        options = _noun_events(self.cast[entity].kind)
        if entity in self.decorated or not options or self.rng.random() > NOUN_FRAC:
            self.mention(entity)
            if family == "person" and self.rng.random() < HANJA_FRAC:
                self.write(f"({build_hanja(self.rng)})")
            return
        event = self.rng.choice(options)
        self.write_noun(event, entity)

    def write_noun(self, event: Event, entity: int, given: dict[str, int] | None = None) -> None:
        """Append a noun phrase of an event that stands for the entity, and state its facts.

        Args:
            event: has a noun phrase with a head of the entity's kind.
            entity: what the phrase stands for.
            given: slots that are already bound, including the head.
        """
        bound = dict(given or {})
        heads = {letter for letter, index in bound.items() if index == entity} or set(SLOTS)
        kind = self.cast[entity].kind
        self.decorated.add(entity)
        phrase = self.choose(
            [p for p in event.noun_phrases if p.head in heads and SLOTS[p.head][0] == kind]
        )
        bound[phrase.head] = entity
        self.bind(phrase, bound)
        self.write_phrase(phrase, bound, bare=True)
        self.state(event, bound)


@cache
def _weights(count: int) -> tuple[float, ...]:
    return tuple((rank + 1) ** -1.3 for rank in range(count))


@cache
def _noun_events(kind: str) -> tuple[Event, ...]:
    """Return the events with a noun phrase that stands for an entity of this kind."""
    return tuple(
        event for event in EVENTS if any(SLOTS[p.head][0] == kind for p in event.noun_phrases)
    )
