"""recipe: what a profile says of language and labels enters a fingerprint where it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from competition.profile import Competition, Profile, read_bundled
from competition.profile_language import Relations, read_language
from models.jobs.recipe import (
    describe_dropout,
    describe_exchange,
    describe_label_words,
    describe_negatives,
    describe_wording,
)
from models.network.encoder_source import EncoderSource
from models.variant import Variant, list_variants, resolve_variant

INSTRUCTED = ("qwen3-lora", "qwen3-label-words", "gemma-lora", "exaone-lora")
PROMPTED = ("query", "declarative", "mask-prompt", "label-words", "typed-punct-ko", *INSTRUCTED)


def variant_of(name: str) -> Variant:
    return resolve_variant(name, encoder="scratch")


def speaking(profile: Profile, language: str) -> Profile:
    return profile.model_copy(update={"language": read_language(language)})


@pytest.mark.parametrize("name", ["klue-re", "demo"])
def test_results_of_before_keep_their_fingerprints(name: str) -> None:
    profile = read_bundled(name)
    for each in list_variants():
        variant = variant_of(each)
        assert describe_wording(variant, profile) == {}
        assert describe_exchange(variant, profile) == {}


def test_another_wording_is_another_recipe_for_who_uses_it(
    tiny_competition: Competition,
) -> None:
    english = speaking(tiny_competition.profile, "english")
    for name in list_variants():
        is_other = describe_wording(variant_of(name), english) != {}
        assert is_other == (name in PROMPTED)
    changed = read_language().model_copy(update={"query": "{subject}, {object}?"})
    profile = tiny_competition.profile.model_copy(update={"language": changed})
    assert describe_wording(variant_of("query"), profile) == {
        "language": {"query": "{subject}, {object}?"}
    }
    assert describe_wording(variant_of("declarative"), profile) == {}
    typed = changed.model_copy(update={"query": "{subject} ({subject_type}), {object}?"})
    for words, is_ready in ((typed.type_words, True), ({"PER": "인간"}, False)):
        language = typed.model_copy(update={"type_words": words})
        used = describe_wording(
            variant_of("query"), profile.model_copy(update={"language": language})
        )
        assert ("types" in used["language"]) != is_ready


def test_without_types_their_word_is_part_of_the_recipe(foreign_competition: Competition) -> None:
    found = describe_wording(variant_of("declarative"), foreign_competition.profile)
    assert found["language"]["untyped"] == read_language().untyped


def test_words_of_labels_are_part_of_the_recipe_of_who_scores_them(
    tiny_competition: Competition,
) -> None:
    profile = tiny_competition.profile
    for name in list_variants():
        found = describe_label_words(variant_of(name), profile)
        assert bool(found) == (name in ("label-words", "qwen3-label-words"))
    words = {each: f"word {at}" for at, each in enumerate(profile.labels)}
    language = profile.language.model_copy(update={"label_words": words})
    changed = profile.model_copy(update={"language": language})
    assert describe_label_words(variant_of("label-words"), changed) == {"label_words": words}


def test_other_rules_of_exchange_are_another_recipe(tiny_competition: Competition) -> None:
    rules = Relations(symmetric=("per:sibling",))
    profile = tiny_competition.profile.model_copy(update={"relations": rules})
    swapped = describe_exchange(variant_of("augment-swap"), profile)
    assert swapped == {"relations": {"per:sibling": "per:sibling"}}
    assert describe_exchange(variant_of("typed-punct"), profile) == {}
    assert describe_exchange(variant_of("augment-swap"), tiny_competition.profile) == {}


def test_several_negative_labels_enter_the_recipes_that_read_them(tiny_competition):
    one = tiny_competition.profile
    several = one.model_copy(update={"negative_label": (*one.negative_labels, one.labels[0])})
    named = {"negatives": sorted(several.negative_labels)}
    for name in ("type-restricted", "augment-swap", "dedup"):
        assert describe_negatives(variant_of(name), one) == {}
        assert describe_negatives(variant_of(name), several) == named
    assert describe_negatives(variant_of("typed-punct"), several) == {}


@pytest.mark.parametrize(
    ("kind", "is_new"), [("bert", False), ("modernbert", False), ("t5", True), ("bart", True)]
)
def test_dropout_has_a_version_where_earlier_results_lacked_it(
    kind: str, is_new: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    source = EncoderSource("tiny", tmp_path, "identity", has_weights=False)
    plain = variant_of("typed-punct")
    assert describe_dropout(plain, source) == {}
    rate = plain.train.model_copy(update={"encoder_dropout": 0.0})
    changed = plain.model_copy(update={"train": rate})
    assert describe_dropout(changed, source) == ({"models.dropout": 1} if is_new else {})
    assert describe_dropout(changed, None) == {}
