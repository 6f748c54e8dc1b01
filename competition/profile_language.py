"""The sections of a profile on language and labels: prompts and rules for swapped entities.

Part of ``profile``. ``language`` says how formats write prompts and types, ``relations`` which
label holds once subject and object are exchanged. Ready languages lie in ``languages/``.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from competition.profile_rows import Section, Text, Texts

_PACKAGE = Path(__file__).resolve().parent
LANGUAGES = _PACKAGE / "languages"
FIRST_LANGUAGE = "korean"
PARTICLES = ("은/는", "이/가", "와/과", "을/를")
MASK = "mask"
FIELDS = ("subject", "object", "subject_type", "object_type")
BETWEEN_WORDS = re.compile(r"[\W_]+")


def parse_template(template: str) -> list[tuple[str, str, str]]:
    """Split a template into (text before a field, its name, its particle); the last may have none.

    >>> parse_template("{subject:와/과} {object}의 관계")
    [('', 'subject', '와/과'), (' ', 'object', ''), ('의 관계', '', '')]

    Raises:
        ValueError: a brace that belongs to no field.
    """
    parts = string.Formatter().parse(template)
    return [(text, name or "", particle or "") for text, name, particle, _ in parts]


def _check_template(template: str, *fields: str) -> str:
    for _, name, particle in parse_template(template):
        if name and name not in fields:
            raise ValueError(f"there is no {{{name}}}; write {', '.join(map(repr, fields))}")
        if particle and (particle not in PARTICLES or name not in ("subject", "object")):
            known = ", ".join(PARTICLES)
            raise ValueError(f"{{{name}:{particle}}}: the particles of a word are {known}")
    return template


def _check_prompt(template: str) -> str:
    return _check_template(template, *FIELDS)


def _check_mask_prompt(template: str) -> str:
    _check_template(template, *FIELDS, MASK)
    if [name for _, name, _ in parse_template(template)].count(MASK) != 1:
        raise ValueError("write {mask} once, where the answer belongs")
    return template


Prompt = Annotated[Text, AfterValidator(_check_prompt)]
MaskPrompt = Annotated[Text, AfterValidator(_check_mask_prompt)]


class Language(Section):
    """How formats write prompts, types and labels; unset fields are those of the language ``name``.

    ``label_words`` are added to those of the language.
    """

    name: Text = FIRST_LANGUAGE
    query: Prompt
    declarative: Prompt
    mask_prompt: MaskPrompt
    untyped: Text
    type_words: dict[str, Text] = Field(default_factory=dict)
    label_words: dict[str, Text] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _begin_with_a_ready_one(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        name = values.get("name", FIRST_LANGUAGE)
        ready = _read_ready(name)
        if ready is None:
            if "query" in values:
                return values
            known = ", ".join(list_languages())
            raise ValueError(f"no language {name!r}; choose {known}, or write every key of it")
        own_words = values.get("label_words", {})
        if isinstance(own_words, Mapping):  # else it is refused below
            own_words = {**ready.get("label_words", {}), **own_words}
        return {**ready, **values, "label_words": own_words}

    def word_of(self, kind: str | None) -> str:
        """Return the word of an entity type, by default the type itself."""
        return self.untyped if kind is None else self.type_words.get(kind, kind)

    def words_of(self, label: str) -> str:
        """Return the words of a label, by default those of its name.

        >>> read_language("english").words_of("per:employee_of")
        'per employee of'
        """
        return self.label_words.get(label) or BETWEEN_WORDS.sub(" ", label).strip() or label

    def words_of_all(self, labels: Sequence[str]) -> dict[str, str]:
        """Return the words of each label, in the order given."""
        return {label: self.words_of(label) for label in labels}


class Relations(Section):
    """Maps each label to its label after swapping subject and object; others cannot be swapped."""

    symmetric: Texts = ()
    inverse: dict[str, Text] = Field(default_factory=dict)

    @property
    def exchanged(self) -> dict[str, str]:
        """Return the mapping of labels for swapped subject and object."""
        return {**self.inverse, **{label: label for label in self.symmetric}}


def check_label_words(values: Any) -> None:
    """Check the words of labels in a raw profile.

    A profile that was read and written again, as in a bundle, has all words of its language too,
    whichever labels these are for.

    Raises:
        ValueError: they name something that is not one of its labels.
    """
    language = values.get("language") if isinstance(values, Mapping) else None
    if not isinstance(language, Mapping):
        return
    words, labels = language.get("label_words"), values.get("labels")
    if isinstance(words, Mapping) and isinstance(labels, list | tuple):
        ready = _read_ready(language.get("name", FIRST_LANGUAGE)) or {}
        known = {*map(str, labels), *ready.get("label_words", {})}
        unknown = sorted(set(map(str, words)) - known)
        if unknown:
            raise ValueError(
                f"language.label_words names {unknown[0]!r}, which is not one of labels"
            )


def _read_ready(name: Any) -> dict[str, Any] | None:
    """Return the keys of a ready language; None if there is none of that name."""
    if name not in list_languages():
        return None
    return tomllib.loads((LANGUAGES / f"{name}.toml").read_text(encoding="utf-8"))


def list_languages() -> list[str]:
    """Return the names of the ready languages, sorted."""
    return sorted(path.stem for path in LANGUAGES.glob("*.toml"))


@cache
def read_language(name: str = FIRST_LANGUAGE) -> Language:
    """Return a ready language."""
    return Language.model_validate({"name": name})


@cache
def read_first_relations() -> Relations:
    """Return klue-re's rules, which hold for labels of those names in a profile without rules."""
    text = (_PACKAGE / "profiles" / "klue-re.toml").read_text(encoding="utf-8")
    return Relations.model_validate(tomllib.loads(text)["relations"])
