"""Sentences of the demo competition: clauses about a cast of entities, and what holds between them.

A sentence is made from one or several clauses that share entities. Each clause or noun phrase adds
facts; a pair of entities without a fact holds no relation. `make_demo` picks the pair that a row
asks about, so the label depends on which entities are marked and in which direction.
Legend: an entity is named by its index in the cast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

from competition.demo.names import (
    FAMILIES,
    SLOTS,
    Name,
    build_hanja,
    build_name,
    build_short_name,
)
from competition.demo.phrase import Event, Phrase, Slot, choose_particle, parse_phrases
from competition.demo.phrases_neutral import (
    CLOSINGS,
    NESTED,
    NEUTRAL_EVENTS,
    OPENERS,
    PRONOUNS,
    REPETITIONS,
)
from competition.demo.phrases_organisation import ORGANISATION_EVENTS
from competition.demo.phrases_person import PERSON_EVENTS

SUBJECT_TYPES = ("PER", "ORG")
NO_RELATION = "no_relation"
EVENTS = PERSON_EVENTS + ORGANISATION_EVENTS
CLOSE_TIES = frozenset({"per:spouse", "per:children", "per:parents", "per:siblings"})
FAMILY_TIES = CLOSE_TIES | {"per:other_family", "per:colleagues", "per:employee_of"}
SAME_TIES = frozenset({"per:alternate_names", "org:alternate_names"})
LINKS = (("고 ", 9), ("으며 ", 7), ("는데 ", 4), ("지만 ", 3), ("다. ", 8))

ENDINGS = {
    "wikipedia": (("다.", 1),),
    "wikitree": (("다.", 6), ("다고 {E} 밝혔다.", 1), ("다고 {Y:이} 전했다.", 1)),
    "policy_briefing": (("습니다.", 3), ("다고 {E} 밝혔습니다.", 1)),
}
TAIL_PARTS = 8  # a noun phrase's bracket spans fewer pieces of text than this

EXTRA_CLAUSES = ((0, 320), (1, 430), (2, 180), (3, 40), (6, 18), (10, 8), (16, 4))
OPENER_FRAC = 0.30
CLOSING_FRAC = 0.10
NOUN_FRAC = 0.28
HANJA_FRAC = 0.02
REPEAT_FRAC = 0.04
NESTED_FRAC = 0.05
LEADING_REPEAT_FRAC = 0.4
SHARED_ENTITY_FRAC = 0.55
SAME_TOPIC_FRAC = 0.75
SAME_PAIRING_FRAC = 0.5
NEUTRAL_FRAC = 0.35
NOUN_CORE_FRAC = 0.3
UNSEEN_PHRASE_FRAC = 0.15
SILENT_TOPIC_FRAC = 0.65
PRONOUN_FRAC = 0.25
NESTED_PARTS = frozenset(phrase.parts for group in NESTED.values() for phrase in group)


@dataclass(frozen=True, slots=True)
class Mention:
    """One place of an entity: its index in the cast, half-open characters, the clause it is in."""

    entity: int
    start: int
    end: int
    clause: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A finished sentence; `facts` maps (subject, object) to what it says of them."""

    text: str
    source: str
    cast: tuple[Name, ...]
    mentions: tuple[Mention, ...]
    facts: dict[tuple[int, int], str]

    def negative_pairs(self) -> Iterator[tuple[int, int]]:
        """Yield the mentioned pairs, subject first, of which nothing is said nor implied."""
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
    """Return pairs that the facts relate by way of a third entity: no relation would be untrue.

    These are kin of kin, people of one organisation, and whatever is said of another name.
    """
    ties: set[tuple[int, int]] = set()
    for (first, middle), label in facts.items():
        for (start, last), other in facts.items():
            if start != middle or last == first:
                continue
            inside = label in FAMILY_TIES and (other in FAMILY_TIES or other.startswith("org:top"))
            if inside or label in SAME_TIES or other in SAME_TIES:
                ties.update(((first, last), (last, first)))
    return ties


@dataclass(frozen=True, slots=True)
class Seed:
    """A cast to begin from: the event of the first clause and the names of its slots."""

    event: Event
    names: dict[str, Name]


@dataclass
class Draft:
    """A sentence being written."""

    rng: Random
    unseen: bool
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
        """Append the text of an entity and note where it stands."""
        word = self.cast[entity].word
        self.mentions.append(Mention(entity, self.length, self.length + len(word), self.clause))
        self.write(word)

    def add(self, name: Name) -> int:
        """Take an entity into the cast and return its index."""
        self.cast.append(name)
        return len(self.cast) - 1

    def bind(self, phrase: Phrase, bound: dict[str, int]) -> None:
        """Give every slot of the phrase that has none yet a fresh entity; changes `bound`."""
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
            if name.word not in taken:
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
        """Return a phrase, early ones most often; the last of a list only if `unseen`."""
        if len(phrases) > 2:
            if self.unseen and self.rng.random() < UNSEEN_PHRASE_FRAC:
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
        """Append an entity, now and then inside a noun phrase that says something more of it."""
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
            given: slots that are bound beforehand, the head among them.
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
    return tuple((rank + 1) ** -0.8 for rank in range(count))


@cache
def _noun_events(kind: str) -> tuple[Event, ...]:
    """Return the events with a noun phrase that stands for an entity of this kind."""
    return tuple(
        event for event in EVENTS if any(SLOTS[p.head][0] == kind for p in event.noun_phrases)
    )


@cache
def events_stating(label: str) -> tuple[Event, ...]:
    """Return the events from which the label follows."""
    return tuple(event for event in EVENTS if label in event.labels)


@cache
def _events_pairing(pairing: frozenset[str]) -> tuple[Event, ...]:
    """Return the events with clauses that relate these two types, in either direction."""
    return tuple(event for event in EVENTS if event.clauses and _pairing(event) == pairing)


@cache
def _events_with_clause(kind: str) -> tuple[Event, ...]:
    """Return all events, neutral ones thrice, with a clause that names an entity of this kind."""
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
    """A clause that is planned: its phrase and the entities of its slots."""

    phrase: Phrase
    bound: dict[str, int]

    @property
    def topic(self) -> int | None:
        """The entity that the clause opens with as its topic."""
        return self.bound[self.phrase.topic] if self.phrase.topic else None


def compose(rng: Random, seed: Seed, source: str, *, unseen: bool) -> tuple[Sentence, Seed]:
    """Write a sentence around an event.

    Args:
        rng: the source of randomness.
        seed: the event, and the names of those of its slots that are given.
        source: which of the three sources the sentence pretends to come from; sets its style.
        unseen: whether phrases kept for test rows may be used.

    Returns:
        The sentence, and the seed with the names that the first clause got.
    """
    draft = Draft(rng, unseen)
    core = _plan_core(draft, seed)
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
    names = {letter: draft.cast[entity] for letter, entity in core.bound.items()}
    sentence = Sentence(text, source, tuple(draft.cast), tuple(draft.mentions), draft.facts)
    return sentence, Seed(seed.event, names)


def _draw(rng: Random, options: Sequence[tuple[int, int]]) -> int:
    return rng.choices([value for value, _ in options], [weight for _, weight in options])[0]


def _plan_core(draft: Draft, seed: Seed) -> Clause:
    """Plan the first clause: one of the event, or another that will hold its noun phrase."""
    event, rng = seed.event, draft.rng
    bound = {letter: draft.add(name) for letter, name in seed.names.items()}
    as_noun = event.nouns and rng.random() < NOUN_CORE_FRAC
    if event.clauses and not as_noun:
        fitting = [p for p in event.clause_phrases if set(seed.names) <= set(p.letters)]
        phrase = draft.choose(fitting or event.clause_phrases)
        draft.bind(phrase, bound)
        draft.state(event, bound)
        return Clause(phrase, bound)
    head = draft.choose(event.noun_phrases).head
    if head not in bound:
        bound[head] = draft.add(build_name(rng, head))
    entity = bound[head]
    draft.pending[entity] = (event, dict(bound))
    clause = _plan_about(draft, rng.choice(_events_with_clause(draft.cast[entity].kind)), entity)
    return Clause(clause.phrase, clause.bound)


def _plan_about(draft: Draft, event: Event, entity: int, *, as_topic: bool = False) -> Clause:
    """Plan a clause of the event with this entity in one slot and fresh ones in the others."""
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
    """Plan a further clause, about a person or organisation of the core clause or about others."""
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
    if draw > REPEAT_FRAC + NESTED_FRAC:
        return
    entity = rng.choice(list(core.bound.values()))
    family = FAMILIES.get(draft.cast[entity].kind, "other")
    table = REPETITIONS if draw < REPEAT_FRAC else NESTED
    clause = Clause(rng.choice(table[family]), {"O": entity})
    clauses.insert(0 if rng.random() < LEADING_REPEAT_FRAC else len(clauses), clause)


def _write_clauses(draft: Draft, clauses: Sequence[Clause], source: str) -> None:
    """Write opener, clauses with their links, ending and closing."""
    rng = draft.rng
    if rng.random() < OPENER_FRAC:
        opener = rng.choice(OPENERS[source])
        _write_aside(draft, opener)
        draft.write(" ")
    before: int | None = None
    for draft.clause, clause in enumerate(clauses):
        _write_clause(draft, clause, before)
        before = clause.topic
        if draft.clause < len(clauses) - 1:
            draft.write(rng.choices([x for x, _ in LINKS], [weight for _, weight in LINKS])[0])
    endings = ENDINGS[source]
    ending = rng.choices([x for x, _ in endings], [weight for _, weight in endings])[0]
    _write_aside(draft, parse_phrases(ending)[0])
    if rng.random() < CLOSING_FRAC:
        draft.write(rng.choice(CLOSINGS[source]))


def _write_aside(draft: Draft, phrase: Phrase) -> None:
    """Write a phrase about nobody else in the sentence."""
    bound: dict[str, int] = {}
    draft.bind(phrase, bound)
    draft.write_phrase(phrase, bound, bare=True)


def _write_clause(draft: Draft, clause: Clause, before: int | None) -> None:
    """Write one clause; a topic that was the topic before may be left out or be a pronoun."""
    if clause.phrase.parts in NESTED_PARTS:
        for part in clause.phrase.parts:
            draft.write(draft.cast[clause.bound["O"]].word if isinstance(part, Slot) else part)
        return
    topic = clause.topic
    if topic is None or topic != before or topic in draft.pending:
        draft.write_phrase(clause.phrase, clause.bound)
        return
    draw = draft.rng.random()
    rest = clause.phrase.without_topic
    if draw < SILENT_TOPIC_FRAC:
        draft.write_phrase(rest, clause.bound)
    elif draw < SILENT_TOPIC_FRAC + PRONOUN_FRAC:
        draft.write(PRONOUNS[FAMILIES[draft.cast[topic].kind]])
        draft.write_phrase(rest, clause.bound)
    else:
        draft.write_phrase(clause.phrase, clause.bound)
