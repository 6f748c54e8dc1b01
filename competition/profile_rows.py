"""The sections of a profile that say how rows are read: files, columns, entities.

Part of ``profile``, which puts all sections together; ``competition.data`` reads by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_Item = TypeVar("_Item")
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


def check_unique(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
    """Return the items; each must occur once.

    Raises:
        ValueError: one occurs twice.
    """
    twice = [item for i, item in enumerate(items) if item in items[:i]]
    if twice:
        raise ValueError(f"named twice: {', '.join(map(repr, dict.fromkeys(twice)))}")
    return items


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(check_unique)]


class Section(BaseModel):
    """A TOML table: every key is known, nothing is coerced, nothing changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Files(Section):
    """The files of rows; ``directory`` is relative to home (to this package if ``bundled``).

    ``more_train`` names further files of labelled rows, read after ``train``. ``separator``,
    ``header`` and ``quotes`` describe a CSV where it does not describe itself; ``set_aside`` names
    train rows that are not read. ``sample_submission`` is the leaderboard's own sample file: the
    authority on a submission's columns, order and ids.
    """

    directory: Text
    train: Text
    more_train: Texts = ()
    test: Text
    solution: Text | None = None
    solution_header: Texts | None = None
    sample_submission: Text | None = None
    separator: Literal[",", "\t", ";", "|"] | None = None
    quotes: bool | None = None
    header: Texts | None = None
    test_header: Texts | None = None
    set_aside: Texts = ()
    bundled: bool = False


class Columns(Section):
    """Names of the columns of a file; ``source`` is optional, the test file needs no label.

    Without ``id`` rows are numbered from 0. ``subject`` and ``object`` are the columns of
    ``entity.given_as = "cell"``. In JSON and Parquet a name may be a path, such as ``h.pos.0``.
    """

    id: Text | None = None
    sentence: Text
    subject: Text | None = None
    object: Text | None = None
    label: Text
    label_as: Literal["name", "number"] = "name"
    source: Text | None = None

    @model_validator(mode="after")
    def _differ(self) -> Columns:
        names = (self.id, self.sentence, self.subject, self.object, self.label, self.source)
        check_unique(tuple(name for name in names if name is not None))
        return self


class Benchmark(Section):
    """The public benchmark's own files, JSON or Parquet, which are read as they are.

    ``id`` is the column of their ids, and ``labels`` the order of the numbers that may stand for
    labels there. ``train`` and ``test`` are file names, tried where the competition's are missing.
    """

    id: Text
    labels: Texts
    train: Texts = ()
    test: Texts = ()


def substitute_files(
    files: Files, benchmark: Benchmark | None, folder: Path
) -> tuple[Files, tuple[str, ...]]:
    """Name the files that are there, where those of a profile are not, and say so.

    Tried are the same names with other endings, ``test`` for ``test_data``, and the benchmark's.
    """
    found, said = {}, []
    for which in ("train", "test"):
        named: str = getattr(files, which)
        stem = Path(named).stem
        also = () if benchmark is None else getattr(benchmark, which)
        stems = (stem, which) if which in stem.lower() else (stem,)
        names = [f"{each}{ending}" for each in stems for ending in ENDINGS] + list(also)
        there = [name for name in names if (folder / name).is_file()]
        if there and not (folder / named).exists():
            found[which] = there[0]
            said.append(f"{there[0]} is read, as there is no {named}")
    return files.model_copy(update=found), tuple(said)


class EntityPlace(Section):
    """How one of the two entities is given: columns for its parts, or tags around it."""

    word: Text | None = None
    start: Text | None = None
    end: Text | None = None
    type: Text | None = None
    open: Text | None = None
    close: Text | None = None

    @property
    def is_searched(self) -> bool:
        """Return whether only the word is given, which is searched for in the sentence."""
        return self.word is not None and self.start is None


class EntityRules(Section):
    """How an entity is given: a dict in a cell, separate columns, or tags in the sentence.

    ``word``, ``start``, ``end`` and ``type`` are the keys of a cell's dict; ``subject`` and
    ``object`` say where each entity is in the other two forms. Without ``type`` the entities
    are untyped; without ``word`` it is the text at the offsets. ``whole_words``: words without
    offsets are searched for as whole words first, then as the beginning of one.
    """

    given_as: Literal["cell", "columns", "markup"] = "cell"
    counted_in: Literal["characters", "tokens"] = "characters"
    end_inclusive: bool = False
    whole_words: bool = False
    word: Text | None = None
    start: Text | None = None
    end: Text | None = None
    type: Text | None = None
    subject: EntityPlace | None = None
    object: EntityPlace | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that the dict in a cell must have, in their usual order."""
        return tuple(key for key in (self.word, self.start, self.end, self.type) if key is not None)

    @property
    def places(self) -> tuple[EntityPlace, EntityPlace]:
        """Return the places of subject and object, for forms other than cells."""
        return self.subject or EntityPlace(), self.object or EntityPlace()

    @property
    def is_typed(self) -> bool:
        """Return whether entities have types."""
        return self.type is not None or self.places[0].type is not None

    @model_validator(mode="after")
    def _whole(self) -> EntityRules:
        check_unique(self.keys)
        if self.whole_words and not any(place.is_searched for place in self.places):
            raise ValueError("whole_words is for columns of words without their starts")
        if self.given_as == "cell":
            if self.subject or self.object:
                raise ValueError('subject and object need given_as = "columns" or "markup"')
            if self.start is None or self.end is None:
                raise ValueError('given_as = "cell" needs start and end, keys of the dict')
            return self
        if self.keys:
            raise ValueError(
                f"{self.keys[0]!r} is a key of a cell; with given_as = {self.given_as!r} name "
                "columns or tags in [entity.subject] and [entity.object]"
            )
        if self.subject is None or self.object is None:
            raise ValueError(f"given_as = {self.given_as!r} needs entity.subject and entity.object")
        check = _check_place if self.given_as == "columns" else _check_tags
        for role, place in zip(("subject", "object"), self.places, strict=True):
            check(role, place, self.counted_in == "tokens")
        if (self.subject.type is None) != (self.object.type is None):
            raise ValueError("give both entities a type, or neither (untyped entities)")
        tags = [{place.open, place.close} for place in (self.subject, self.object)]
        check_unique(tuple(tag for pair in tags for tag in pair if tag is not None))
        return self


def _check_place(role: str, place: EntityPlace, in_tokens: bool) -> None:
    if place.open is not None or place.close is not None:
        raise ValueError(f'{role}.open and {role}.close need given_as = "markup"')
    if place.start is None and (place.word is None or place.end is not None or in_tokens):
        raise ValueError(f"{role} needs the column of its start (or of its word alone)")
    if place.start is not None and place.end is None and (place.word is None or in_tokens):
        raise ValueError(f"{role} needs the column of its end, or of its word")


def _check_tags(role: str, place: EntityPlace, in_tokens: bool) -> None:
    if place.open is None or place.close is None:
        raise ValueError(f"{role} needs open and close, the tags around it in the sentence")
    if place.word is not None or place.start is not None or place.end is not None:
        raise ValueError(f"{role} is marked by its tags; leave out word, start and end")
    if in_tokens:
        raise ValueError('counted_in = "tokens" needs offsets; tags have none')
