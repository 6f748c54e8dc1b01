"""Make the demo competition: ``python -m tools.make_demo.make_demo --out DIR --seed 7``.

Stands before the way of a row: writes train.csv, test_data.csv and solution.csv in the exact format
of the real competition, from the grammar beside it. Same seed and sizes, same bytes.
Legend: N training rows, M test rows.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from competition.errors import UsageError
from competition.files import write_atomically
from tools.make_demo.draft import Mention, Sentence
from tools.make_demo.grammar import NO_RELATION, Seed, compose, events_stating
from tools.make_demo.names import Name
from tools.make_demo.phrases_neutral import NEUTRAL_EVENTS

TRAIN_ROWS, TEST_ROWS, SEED = 2400, 600, 7
UNKNOWN_LABEL = "100"
# label -> its weight in train and in test, in the label order of the competition
SHARES = {
    "no_relation": (716, 360),
    "org:top_members/employees": (190, 20),
    "org:members": (62, 13),
    "org:product": (58, 18),
    "per:title": (110, 28),
    "org:alternate_names": (82, 14),
    "per:employee_of": (166, 18),
    "org:place_of_headquarters": (84, 16),
    "per:product": (42, 9),
    "org:number_of_employees/members": (26, 6),
    "per:children": (56, 6),
    "per:place_of_residence": (38, 8),
    "per:alternate_names": (80, 10),
    "per:other_family": (36, 5),
    "per:colleagues": (58, 8),
    "per:origin": (84, 9),
    "per:siblings": (34, 4),
    "per:spouse": (68, 7),
    "org:founded": (54, 8),
    "org:political/religious_affiliation": (28, 4),
    "org:member_of": (96, 8),
    "per:parents": (60, 6),
    "org:dissolved": (24, 4),
    "per:schools_attended": (26, 3),
    "per:date_of_death": (44, 4),
    "per:date_of_birth": (78, 6),
    "per:place_of_birth": (32, 4),
    "per:place_of_death": (18, 3),
    "org:founded_by": (34, 4),
    "per:religion": (26, 3),
}
SOURCES = {
    "train": (("wikipedia", 66), ("wikitree", 32), ("policy_briefing", 2)),
    "test": (("wikipedia", 46), ("wikitree", 51), ("policy_briefing", 3)),
}
# What a wrong type is taken for, of a subject and of an object.
WRONG_SUBJECT = {"PER": "ORG", "ORG": "PER"}
WRONG_OBJECT = {
    "LOC": "ORG",
    "ORG": "LOC",
    "POH": "ORG",
    "DAT": "NOH",
    "NOH": "DAT",
    "PER": "POH",
}

REVERSE_FRAC = 0.39
TRIES = 6
SHARED_SENTENCE_FRAC = 0.075
SAME_CAST_FRAC = 0.25
CAST_USES = 3
KNOWN_CAST_FRAC = 0.09
NOISE_FRAC = 0.03
DUPLICATE_FRAC = 0.006
CONFLICT_EVERY = 3
WRONG_TYPE_FRAC = 0.02
NEAREST_FRAC = 0.85
NEUTRAL_CORE_FRAC = 0.35
# The cast opens with the entities of the first event: pairs of the first CORE_SIZE are preferred.
CORE_SIZE, CORE_WEIGHT = 3, 3
CASTS_KEPT = 40
MIN_ROWS = 60
POSITIVE_SHARES = tuple((label, w[0]) for label, w in SHARES.items() if label != "no_relation")


@dataclass(frozen=True, slots=True)
class Mark:
    """A marked entity: the entity and its half-open characters in the sentence."""

    name: Name
    start: int
    end: int

    def to_cell(self) -> str:
        """Return the cell of the CSV: the text of a Python dict, the end inclusive."""
        cell = {
            "word": self.name.word,
            "start_idx": self.start,
            "end_idx": self.end - 1,
            "type": self.name.type,
        }
        return repr(cell)


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One row before it has its id; `stated` is what its sentence says, `label` may be wrong."""

    sentence: str
    subject: Mark
    object: Mark
    label: str
    source: str
    stated: str


@dataclass
class Casts:
    """Casts of earlier sentences by label, so that a pair can stand in several sentences."""

    by_label: dict[str, list[Seed]] = field(default_factory=dict)

    def put(self, label: str, seed: Seed) -> None:
        """Keep a cast for `CAST_USES` further sentences; the oldest is forgotten."""
        kept = self.by_label.setdefault(label, [])
        kept.extend([seed] * CAST_USES)
        del kept[: -CAST_USES * CASTS_KEPT]

    def take(self, rng: Random, label: str) -> Seed | None:
        """Return a cast that stated the label, or, for the negative one, a pair to tell apart."""
        if label == NO_RELATION:
            label = rng.choice([x for x in SHARES if x != NO_RELATION])
            seed = self._pop(rng, label)
            return _neutral_seed(rng, seed) if seed else None
        return self._pop(rng, label)

    def _pop(self, rng: Random, label: str) -> Seed | None:
        kept = self.by_label.get(label)
        return kept.pop(rng.randrange(len(kept))) if kept else None


def _neutral_seed(rng: Random, seed: Seed) -> Seed | None:
    """Return a seed that brings two of the names together without relating them."""
    options = [
        (event, letters)
        for event in NEUTRAL_EVENTS
        for phrase in event.clause_phrases
        if len(letters := [x for x in seed.names if x in phrase.letters]) > 1
    ]
    if not options:
        return None
    event, letters = rng.choice(options)
    return Seed(event, {letter: seed.names[letter] for letter in letters})


@dataclass
class Drawer:
    """Draws rows of one split until every label has its count; `known` are the casts of train."""

    rng: Random
    split: str
    remaining: dict[str, int]
    known: Casts | None = None
    rows: list[DemoRow] = field(default_factory=list)
    casts: Casts = field(default_factory=Casts)

    def draw_all(self) -> list[DemoRow]:
        """Fill `rows` and return them."""
        total = sum(self.remaining.values())
        while len(self.rows) < total:
            label = _weighted(self.rng, tuple(self.remaining.items()))
            sentence = self._emit(label)
            if sentence is not None and self.rng.random() < SHARED_SENTENCE_FRAC:
                self._emit_again(sentence)
        return self.rows

    def _emit(self, label: str) -> Sentence | None:
        """Add a row of this label from a new sentence and return it; None if none came out."""
        want_reverse = self.rng.random() < REVERSE_FRAC
        found = None
        for _ in range(TRIES):
            seed = self._choose_seed(label)
            source = _weighted(self.rng, SOURCES[self.split])
            sentence, made = compose(self.rng, seed, source, self.split)
            pair = self._choose_pair(sentence, label)
            if pair is None:
                continue
            found = sentence, pair, seed, made
            if (pair[0].start > pair[1].start) == want_reverse:
                break
        if found is None:
            return None
        sentence, pair, seed, made = found
        if label != NO_RELATION and not seed.names:
            self.casts.put(label, made)
        self._add(sentence, pair, label)
        return sentence

    def _emit_again(self, sentence: Sentence) -> None:
        """Add one more row of the same sentence with another pair, if a label has room."""
        last = self.rows[-1]
        labels = sorted(set(sentence.facts.values()) | {NO_RELATION})
        self.rng.shuffle(labels)
        for label in labels:
            pair = self._choose_pair(sentence, label) if self.remaining[label] else None
            if pair is None:
                continue
            words = {sentence.cast[mention.entity].word for mention in pair}
            if words != {last.subject.name.word, last.object.name.word}:
                self._add(sentence, pair, label)
                return

    def _choose_seed(self, label: str) -> Seed:
        rng, seed = self.rng, None
        if self.known and rng.random() < KNOWN_CAST_FRAC:
            seed = self.known.take(rng, label)
        if seed is None and rng.random() < SAME_CAST_FRAC:
            seed = self.casts.take(rng, label)
        if seed is not None:
            return seed
        if label == NO_RELATION:
            if rng.random() < NEUTRAL_CORE_FRAC:
                return Seed(rng.choice(NEUTRAL_EVENTS), {})
            label = _weighted(rng, POSITIVE_SHARES)
        return Seed(rng.choice(events_stating(label)), {})

    def _choose_pair(self, sentence: Sentence, label: str) -> tuple[Mention, Mention] | None:
        """Return mentions of a subject and an object with this label, a few of them wrong."""
        is_noise = self.rng.random() < NOISE_FRAC
        positive = sorted(sentence.facts)
        stated = [pair for pair in positive if sentence.facts[pair] == label]
        if label == NO_RELATION:
            pairs = positive if is_noise else list(sentence.negative_pairs())
        elif is_noise:
            types = {_types(sentence, pair) for pair in stated}
            pairs = [pair for pair in sentence.negative_pairs() if _types(sentence, pair) in types]
        else:
            pairs = stated
        pairs = [pair for pair in pairs if all(map(sentence.mentions_of, pair))]
        if not pairs:
            return None
        weights = [CORE_WEIGHT if max(pair) < CORE_SIZE else 1 for pair in pairs]
        subject, object_ = self.rng.choices(pairs, weights)[0]
        options = [
            (abs(one.clause - other.clause), one, other)
            for one in sentence.mentions_of(subject)
            for other in sentence.mentions_of(object_)
        ]
        if self.rng.random() < NEAREST_FRAC:
            nearest = min(distance for distance, _, _ in options)
            options = [option for option in options if option[0] == nearest]
        _, one, other = self.rng.choice(options)
        return one, other

    def _add(self, sentence: Sentence, pair: tuple[Mention, Mention], label: str) -> None:
        subject, object_ = (
            self._build_mark(sentence, mention, wrong)
            for mention, wrong in zip(pair, (WRONG_SUBJECT, WRONG_OBJECT), strict=True)
        )
        stated = sentence.facts.get((pair[0].entity, pair[1].entity), NO_RELATION)
        self.rows.append(DemoRow(sentence.text, subject, object_, label, sentence.source, stated))
        self.remaining[label] -= 1

    def _build_mark(self, sentence: Sentence, mention: Mention, wrong: dict[str, str]) -> Mark:
        name = sentence.cast[mention.entity]
        if self.rng.random() < WRONG_TYPE_FRAC:
            name = replace(name, type=wrong[name.type])
        return Mark(name, mention.start, mention.end)


def _types(sentence: Sentence, pair: tuple[int, int]) -> tuple[str, str]:
    return sentence.cast[pair[0]].type, sentence.cast[pair[1]].type


def _weighted(rng: Random, options: Sequence[tuple[str, int]]) -> str:
    return rng.choices([value for value, _ in options], [weight for _, weight in options])[0]


def build_quotas(total: int, column: int) -> dict[str, int]:
    """Return how many rows each label gets: in proportion to `SHARES`, the rest to the first label.

    Args:
        total: rows in all, at least one for each label.
        column: 0 for the shares of train, 1 for those of test.
    """
    whole = sum(weights[column] for weights in SHARES.values())
    quotas = {label: max(1, total * w[column] // whole) for label, w in SHARES.items()}
    quotas[NO_RELATION] += total - sum(quotas.values())
    return quotas


def build_rows(
    split: str, total: int, seed: int, known: Casts | None = None
) -> tuple[list[DemoRow], Casts]:
    """Make the rows of a split in their final order.

    Args:
        split: `train` or `test`.
        total: how many rows, duplicates included; at least `MIN_ROWS`.
        seed: the seed of everything drawn.
        known: casts that a few rows may share with train.

    Returns:
        The rows, and casts that a test split may share.
    """
    rng = Random(f"{seed} {split}")
    duplicates = max(1, round(total * DUPLICATE_FRAC))
    drawer = Drawer(rng, split, build_quotas(total - duplicates, split == "test"), known)
    rows = drawer.draw_all()
    positive = [row for row in rows if row.label != NO_RELATION]
    for number, row in enumerate(rng.sample(positive, duplicates)):
        is_conflict = number % CONFLICT_EVERY == 0
        rows.append(replace(row, label=NO_RELATION) if is_conflict else row)
    rng.shuffle(rows)
    return rows, drawer.casts


def build_csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return the text of a CSV file with Unix line ends."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return stream.getvalue()


def write_demo(out: Path, *, seed: int, train_rows: int, test_rows: int) -> None:
    """Write train.csv, test_data.csv and solution.csv into a folder.

    Args:
        out: the folder, made if absent.
        seed: same seed and sizes, same bytes.
        train_rows: N, at least `MIN_ROWS`.
        test_rows: M, at least `MIN_ROWS`.

    Raises:
        UsageError: fewer rows than the labels need were asked for.
    """
    if min(train_rows, test_rows) < MIN_ROWS:
        raise UsageError(f"--train and --test need at least {MIN_ROWS} rows each")
    header = ("id", "sentence", "subject_entity", "object_entity", "label", "source")
    train, casts = build_rows("train", train_rows, seed)
    test, _ = build_rows("test", test_rows, seed, casts)
    write_atomically(out / "train.csv", build_csv(header, _lines(train)))
    unlabelled = (replace(row, label=UNKNOWN_LABEL) for row in test)
    write_atomically(out / "test_data.csv", build_csv(header, _lines(unlabelled)))
    solution = ((number, row.label) for number, row in enumerate(test))
    write_atomically(out / "solution.csv", build_csv(("id", "label"), solution))


def _lines(rows: Iterable[DemoRow]) -> Iterable[Sequence[object]]:
    for number, row in enumerate(rows):
        cells = row.subject.to_cell(), row.object.to_cell()
        yield number, row.sentence, *cells, row.label, row.source


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(prog="make_demo", description="Make the demo competition.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the three CSV files")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--train", type=int, default=TRAIN_ROWS, help="training rows")
    parser.add_argument("--test", type=int, default=TEST_ROWS, help="test rows")
    options = parser.parse_args()
    try:
        write_demo(options.out, seed=options.seed, train_rows=options.train, test_rows=options.test)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
