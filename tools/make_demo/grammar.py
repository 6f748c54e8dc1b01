"""The grammar of the demo's sentences: clauses about a cast of entities, and their relations.

A sentence is made from one or several clauses that share entities. Each clause or noun phrase adds
facts; a pair of entities without a fact holds no relation. `make_demo` picks the pair that a row
asks about, so the label depends on which entities are marked and in which direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TypeVar

from tools.make_demo.draft import EVENTS, SUBJECT_TYPES, Draft, Sentence
from tools.make_demo.names import FAMILIES, SLOTS, Name
from tools.make_demo.phrase import Event, Phrase, Slot, parse_phrases
from tools.make_demo.phrases_neutral import (
    CLOSINGS,
    NESTED,
    NEUTRAL_EVENTS,
    OPENERS,
    PRONOUNS,
    REPETITIONS,
)

_T = TypeVar("_T")

NO_RELATION = "no_relation"
LINKS = (("고 ", 9), ("으며 ", 7), ("는데 ", 4), ("지만 ", 3), ("다. ", 8))
POLITE_LINK = "습니다. "

ENDINGS = {
    "wikipedia": (("다.", 1),),
    "wikitree": (("다.", 6), ("다고 {E} 밝혔다.", 1), ("다고 {Y:이} 전했다.", 1)),
    "policy_briefing": (("습니다.", 3), ("다고 {E} 밝혔습니다.", 1)),
}

EXTRA_CLAUSES = ((0, 320), (1, 430), (2, 180), (3, 40), (6, 18), (10, 8), (16, 4))
OPENER_FRAC = 0.30
CLOSING_FRAC = 0.10
# How often an entity is named again, and how often inside a longer word; both more often in test.
REPEAT_FRAC = {"train": 0.045, "test": 0.09}
NESTED_FRAC = {"train": 0.055, "test": 0.08}
LEADING_REPEAT_FRAC = 0.4
SHARED_ENTITY_FRAC = 0.55
SAME_TOPIC_FRAC = 0.75
SAME_PAIRING_FRAC = 0.5
NEUTRAL_FRAC = 0.35
NOUN_CORE_FRAC = 0.3
SILENT_TOPIC_FRAC = 0.65
PRONOUN_FRAC = 0.25
NESTED_PARTS = frozenset(phrase.parts for group in NESTED.values() for phrase in group)


@dataclass(frozen=True, slots=True)
class Seed:
    """The start of a sentence: the event of the first clause and the names of its slots."""

    event: Event
    names: dict[str, Name]


@cache
def events_stating(label: str) -> tuple[Event, ...]:
    """Return the events that state the label."""
    return tuple(event for event in EVENTS if label in event.labels)


@cache
def _events_pairing(pairing: frozenset[str]) -> tuple[Event, ...]:
    """Return the events with clauses that relate these two types, in either direction."""
    return tuple(event for event in EVENTS if event.clauses and _pairing(event) == pairing)


@cache
def _events_with_clause(kind: str) -> tuple[Event, ...]:
    """Return all events with a clause that names an entity of this kind, neutral ones 3 times."""
    return tuple(
        event
        for event in EVENTS + NEUTRAL_EVENTS * 3
        if any(SLOTS[letter][0] == kind for p in event.clause_phrases for letter in p.letters)
    )


def _pairing(event: Event) -> frozenset[str]:
    subject, object_, _ = event.relations[0]
    return frozenset((SLOTS[subject][1], SLOTS[object_][1]))


@dataclass(frozen=True, slots=True)
class Clause:
    """A planned clause: its phrase and the entities of its slots."""

    phrase: Phrase
    bound: dict[str, int]

    @property
    def topic(self) -> int | None:
        """The entity at the start of the clause, as its topic."""
        return self.bound[self.phrase.topic] if self.phrase.topic else None


def compose(rng: Random, seed: Seed, source: str, split: str) -> tuple[Sentence, Seed]:
    """Write a sentence around an event.

    Args:
        rng: the source of randomness.
        seed: the event, and the names of those of its slots that are given.
        source: one of the three sources; sets the style.
        split: `train` or `test`; some phrases are reserved for test rows.

    Returns:
        The sentence, and the seed with the names that its event got.
    """
    draft = Draft(rng, split)
    core, bound = _plan_core(draft, seed)
    together, apart = [core], list[Clause]()
    for _ in range(_draw(rng, EXTRA_CLAUSES)):
        clause = _plan_extra(draft, seed.event, core)
        (together if clause.topic == core.topic is not None else apart).append(clause)
    rng.shuffle(together)
    place = rng.randrange(len(apart) + 1)
    clauses = apart[:place] + together + apart[place:]
    _plan_repetition(draft, core, clauses)
    _write_clauses(draft, clauses, source)
    text = "".join(draft.parts)
    names = {letter: draft.cast[entity] for letter, entity in bound.items()}
    sentence = Sentence(text, source, tuple(draft.cast), tuple(draft.mentions), draft.facts)
    return sentence, Seed(seed.event, names)


def _draw(rng: Random, options: Sequence[tuple[_T, int]]) -> _T:
    return rng.choices([value for value, _ in options], [weight for _, weight in options])[0]


def _plan_core(draft: Draft, seed: Seed) -> tuple[Clause, dict[str, int]]:
    """Plan the first clause: one of the event, or another that will contain its noun phrase.

    Returns:
        The clause, and the entities of the event's slots.
    """
    event, rng = seed.event, draft.rng
    bound = {letter: draft.add(name) for letter, name in seed.names.items()}
    if event.clauses and not (event.nouns and rng.random() < NOUN_CORE_FRAC):
        fitting = [p for p in event.clause_phrases if set(seed.names) <= set(p.letters)]
        phrase = draft.choose(fitting or event.clause_phrases)
        draft.bind(phrase, bound)
        draft.state(event, bound)
        return Clause(phrase, bound), bound
    phrase = draft.choose(event.noun_phrases)
    draft.bind(phrase, bound)
    entity = bound[phrase.head]
    draft.pending[entity] = (event, bound)
    carrier = rng.choice(_events_with_clause(draft.cast[entity].kind))
    return _plan_about(draft, carrier, entity), bound


def _plan_about(draft: Draft, event: Event, entity: int, *, as_topic: bool = False) -> Clause:
    """Plan a clause of the event with this entity in one slot and new ones in the others."""
    kind = draft.cast[entity].kind
    fitting = [p for p in event.clause_phrases if any(SLOTS[x][0] == kind for x in p.letters)]
    topical = [p for p in fitting if p.topic and SLOTS[p.topic][0] == kind] if as_topic else []
    phrase = draft.choose(topical or fitting)
    letters = [phrase.topic] if topical else [x for x in phrase.letters if SLOTS[x][0] == kind]
    bound = {draft.rng.choice(letters): entity}
    draft.bind(phrase, bound)
    draft.state(event, bound)
    return Clause(phrase, bound)


def _plan_extra(draft: Draft, core_event: Event, core: Clause) -> Clause:
    """Plan another clause, about a person or organisation of the core clause or about others."""
    rng = draft.rng
    actors = [entity for entity in core.bound.values() if draft.cast[entity].type in SUBJECT_TYPES]
    if actors and rng.random() < SHARED_ENTITY_FRAC:
        as_topic = core.topic is not None and rng.random() < SAME_TOPIC_FRAC
        entity = core.topic if as_topic and core.topic is not None else rng.choice(actors)
        options = _events_with_clause(draft.cast[entity].kind)
        event = rng.choice(options) if options else core_event
        if event is not core_event:
            return _plan_about(draft, event, entity, as_topic=as_topic)
    if rng.random() < NEUTRAL_FRAC or not core_event.relations:
        event = rng.choice(NEUTRAL_EVENTS)
    elif rng.random() < SAME_PAIRING_FRAC:
        event = rng.choice(_events_pairing(_pairing(core_event)) or NEUTRAL_EVENTS)
    else:
        event = rng.choice([event for event in EVENTS if event.clauses])
    bound: dict[str, int] = {}
    phrase = draft.choose(event.clause_phrases)
    draft.bind(phrase, bound)
    draft.state(event, bound)
    return Clause(phrase, bound)


def _plan_repetition(draft: Draft, core: Clause, clauses: list[Clause]) -> None:
    """Add a clause that names an entity of the core again, whole or inside a longer word."""
    rng = draft.rng
    draw = rng.random()
    repeat_frac, nested_frac = REPEAT_FRAC[draft.split], NESTED_FRAC[draft.split]
    if draw > repeat_frac + nested_frac:
        return
    entity = rng.choice(list(core.bound.values()))
    family = FAMILIES.get(draft.cast[entity].kind, "other")
    table = REPETITIONS if draw < repeat_frac else NESTED
    clause = Clause(rng.choice(table[family]), {"O": entity})
    clauses.insert(0 if rng.random() < LEADING_REPEAT_FRAC else len(clauses), clause)


def _write_clauses(draft: Draft, clauses: Sequence[Clause], source: str) -> None:
    """Write opener, clauses with their links, ending and closing."""
    rng = draft.rng
    if rng.random() < OPENER_FRAC:
        _write_aside(draft, rng.choice(OPENERS[source]))
        draft.write(" ")
    before: int | None = None
    for number, clause in enumerate(clauses):
        draft.clause = number
        _write_clause(draft, clause, before)
        before = clause.topic
        if number < len(clauses) - 1:
            link = _draw(rng, LINKS)
            is_polite = source == "policy_briefing" and link.startswith("다")
            draft.write(POLITE_LINK if is_polite else link)
    _write_aside(draft, parse_phrases(_draw(rng, ENDINGS[source]))[0])
    if rng.random() < CLOSING_FRAC:
        draft.write(rng.choice(CLOSINGS[source]))


def _write_aside(draft: Draft, phrase: Phrase) -> None:
    """Write a phrase about no other entity of the sentence."""
    bound: dict[str, int] = {}
    draft.bind(phrase, bound)
    draft.write_phrase(phrase, bound, bare=True)


def _write_clause(draft: Draft, clause: Clause, before: int | None) -> None:
    """Write one clause; a repeated topic may be omitted or replaced by a pronoun."""
    if clause.phrase.parts in NESTED_PARTS:
        for part in clause.phrase.parts:
            draft.write(draft.cast[clause.bound["O"]].word if isinstance(part, Slot) else part)
        return
    topic = clause.topic
    if topic is None or topic != before or topic in draft.pending:
        draft.write_phrase(clause.phrase, clause.bound)
        return
    draw = draft.rng.random()
    family = FAMILIES.get(draft.cast[topic].kind, "other")
    rest = clause.phrase.without_topic
    if draw < SILENT_TOPIC_FRAC:
        draft.write_phrase(rest, clause.bound)
    elif draw < SILENT_TOPIC_FRAC + PRONOUN_FRAC and family in PRONOUNS:
        draft.write(PRONOUNS[family])
        draft.write_phrase(rest, clause.bound)
    else:
        draft.write_phrase(clause.phrase, clause.bound)
