"""Events of the demo's sentences (stated relations and phrases), and Korean particles (josa).

Used by `grammar`; the events are in `phrases_person`, `phrases_organisation` and `phrases_neutral`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

SLOT = re.compile(r"\{(\*?)([A-Z])(?::([’》〉」』]?)([가-힣]+))?\}")
HANGUL_FIRST, HANGUL_LAST, FINALS, RIEUL = 0xAC00, 0xD7A3, 28, 8
# How digits and Latin letters end when read aloud in Korean: 3 is 삼, L is 엘.
READINGS = dict(zip("0123456789", "영일이삼사오육칠팔구", strict=True)) | {
    "L": "엘",
    "M": "엠",
    "N": "엔",
    "R": "알",
}
PARTICLES = {
    "은": "는",
    "이": "가",
    "을": "를",
    "과": "와",
    "으로": "로",
    "이라": "라",
    "이었": "였",
    "이자": "자",
    "도": "도",
}


@dataclass(frozen=True)
class Slot:
    """A slot for an entity in a phrase.

    Its letter, the closing quote before the particle (""), the particle (""), and whether the
    entity is what a noun phrase stands for.
    """

    letter: str
    quote: str
    particle: str
    is_head: bool


Part = str | Slot


@dataclass(frozen=True)
class Phrase:
    """A parsed phrase: literal text and slots in order."""

    parts: tuple[Part, ...]

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """The letters of the slots, each once, in the order of the text."""
        return tuple(dict.fromkeys(p.letter for p in self.parts if isinstance(p, Slot)))

    @cached_property
    def head(self) -> str:
        """The letter of the head of a noun phrase ("" in a clause)."""
        return next((p.letter for p in self.parts if isinstance(p, Slot) and p.is_head), "")

    @cached_property
    def topic(self) -> str:
        """The letter of a clause that opens with its topic (`{P:은} …`), else ""."""
        first = self.parts[0]
        is_topic = isinstance(first, Slot) and first.particle == "은"
        return first.letter if isinstance(first, Slot) and is_topic else ""

    @cached_property
    def without_topic(self) -> Phrase:
        """The clause without the topic that it opens with."""
        first = self.parts[1]
        rest = first.removeprefix(" ") if isinstance(first, str) else first
        return Phrase((rest, *self.parts[2:]))


@dataclass(frozen=True)
class Event:
    """Phrases, and the facts that they state.

    `facts` are `subject object label` triples joined by `;`; `clauses` and `nouns` have one phrase
    per line.
    """

    facts: str
    clauses: str
    nouns: str = ""

    @cached_property
    def relations(self) -> tuple[tuple[str, str, str], ...]:
        """The facts as (subject letter, object letter, label)."""
        triples = [fact.split() for fact in self.facts.split(";") if fact.strip()]
        return tuple((subject, object_, label) for subject, object_, label in triples)

    @cached_property
    def labels(self) -> frozenset[str]:
        """The labels of the facts."""
        return frozenset(label for _, _, label in self.relations)

    @cached_property
    def clause_phrases(self) -> tuple[Phrase, ...]:
        """The parsed clauses."""
        return parse_phrases(self.clauses)

    @cached_property
    def noun_phrases(self) -> tuple[Phrase, ...]:
        """The parsed noun phrases."""
        return parse_phrases(self.nouns)


@cache
def parse_phrases(text: str) -> tuple[Phrase, ...]:
    """Parse one phrase per line, ignoring blank lines."""
    return tuple(_parse(line.strip()) for line in text.splitlines() if line.strip())


def _parse(line: str) -> Phrase:
    parts: list[Part] = []
    end = 0
    for match in SLOT.finditer(line):
        if match.start() > end:
            parts.append(line[end : match.start()])
        parts.append(Slot(match[2], match[3] or "", match[4] or "", match[1] == "*"))
        end = match.end()
    if end < len(line):
        parts.append(line[end:])
    return Phrase(tuple(parts))


def choose_particle(text: str, particle: str) -> str:
    """Return the particle in the form that fits the end of the text.

    A bracket at the end is skipped with what it holds; digits and Latin letters are taken as they
    are read aloud; anything else counts as open.

    Args:
        text: what the particle is attached to.
        particle: a key of `PARTICLES`, the form after a final consonant.

    >>> [word + choose_particle(word, "은") for word in ("가람전자", "한솔", "솔 365", "새들(SDL)")]
    ['가람전자는', '한솔은', '솔 365는', '새들(SDL)은']
    >>> [word + choose_particle(word, "으로") for word in ("서울", "부산", "제주")]
    ['서울로', '부산으로', '제주로']
    """
    final = _final_consonant(text)
    is_open = final == 0 or (particle == "으로" and final == RIEUL)
    return PARTICLES[particle] if is_open else particle


def _final_consonant(text: str) -> int:
    """Return the index of the final consonant of the last syllable; 0 if there is none."""
    if text.endswith(")") and "(" in text:
        text = text[: text.rindex("(")].rstrip()
    last = text[-1:]
    last = READINGS.get(last.upper(), last)
    if not last or not HANGUL_FIRST <= ord(last) <= HANGUL_LAST:
        return 0
    return (ord(last) - HANGUL_FIRST) % FINALS
