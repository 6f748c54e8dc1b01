"""The recipe of a result: all that determines it and enters its fingerprint.

Modules that all networks use always enter with their ``RESULT_VERSION``. A module that only some
variants use enters the recipes of those variants only, so a change to it leaves the results of all
others valid.

A module enters under its ``VERSION_NAME``, a literal that never changes, even if the file moves:
stored results refer to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from competition.folds.kfold import Prepared
from competition.profile import Profile
from competition.profile_language import Language, list_languages, read_language
from models.data import (
    augmentation,
    batches,
    cleaning,
    corrections,
    curriculum,
    distillation,
    extra_rows,
    pseudo_labels,
    sampling,
)
from models.data.pool import Pool
from models.data.route import Route
from models.network import (
    adapters,
    dropout,
    entity_embedding,
    label_words,
    network,
    new_parameters,
)
from models.network.config import read_config
from models.network.encoder_source import EncoderSource
from models.parts import formats, heads, losses, particles, restriction
from models.parts.formats import FORMATS
from models.training import ema, linear, loop, mlp, optimizer, step
from models.variant import LINEAR, MLP, NETWORK, Variant, fingerprint

FIRST_WORDINGS = frozenset(
    {
        "261e440a3131f4fe3220c8ae2f3dd3046d7638586c9ee23fe9fb3abbf94252bc",
        "9480da888e85c2b03751886861be10e6df8c8cd04d3e68b7773781f582dccaea",
        "71b118fecb480200efd8cf87fcff08131b1e05fc687c6ef74872a6db44264767",
        "0ef9b9e7d677d237997a6f6c56b31b1a58ddf3a63c856df54ab800f833e86750",
    }
)
FIRST_EXCHANGE = "700bfb81b0af43bfd1de16d670cb01217aeb7826b93dd816dcd823e0d6203cce"
"""Fingerprints of the wordings and rules of versions in which the profile could not set them."""
LEARNER_ROOMS = {
    NETWORK: (batches, network, formats, heads, losses, loop),
    LINEAR: (linear,),
    MLP: (mlp,),
}


def recipe_parts(
    variant: Variant,
    source: EncoderSource | None,
    prepared: Prepared,
    *,
    pool: Pool,
    route: Route | None,
    draws_padding: bool = False,
) -> dict[str, Any]:
    """Return all that determines the results of a variant except seed and fold, for JSON.

    Files that the user supplies enter by content, not by name.

    Args:
        draws_padding: new tokens take rows of the backbone's table that no token had.
    """
    settings = variant.recipe()
    settings.pop("encoder", None)
    if "corrections" in pool.made_of:
        settings["clean"]["corrections"] = pool.made_of["corrections"]
    if "extra_train" in pool.made_of:
        settings["extra_train"] = pool.made_of["extra_train"]
    profile = prepared.competition.profile
    return {
        "variant": settings,
        **describe_wording(variant, profile),
        **describe_label_words(variant, profile),
        **describe_exchange(variant, profile),
        **describe_negatives(variant, profile),
        "encoder": None if source is None else source.identity,
        "data": prepared.corpus.hash,
        "folds": prepared.folds.hash,
        "routes": route.hash if route else None,
        "versions": {
            **{room.VERSION_NAME: room.RESULT_VERSION for room in rooms_of(variant)},
            **_head_version(variant),
            **describe_dropout(variant, source),
            **describe_padding(draws_padding),
        },
    }


def describe_wording(variant: Variant, profile: Profile) -> dict[str, Any]:
    """Return what a variant's format takes from the profile's language.

    What the first results were made with is no part of a fingerprint, so that they stay valid.
    """
    language = profile.language
    wordings: dict[str, dict[str, Any]] = {
        "query": {"query": language.query, **_describe_types(language, language.query)},
        "declarative": {"declarative": language.declarative, "types": language.type_words},
        "instruct": {"types": language.type_words},
        "mask-prompt": {
            "mask_prompt": language.mask_prompt,
            **_describe_types(language, language.mask_prompt),
        },
        "typed-punct-ko": {"types": language.type_words},
    }
    used = wordings.get(variant.format, {})
    if used and not profile.entity_types:
        used = {**used, "untyped": language.untyped}
    is_first = not variant.is_network or not used or fingerprint(used) in FIRST_WORDINGS
    return {} if is_first else {"language": used}


def _describe_types(language: Language, template: str) -> dict[str, Any]:
    """Return the words for types that a template uses, unless they are those of a ready language.

    These stay out of the recipe, so that earlier results remain valid.
    """
    used = "{subject_type" in template or "{object_type" in template
    ready = [read_language(name).type_words for name in list_languages()]
    return {"types": language.type_words} if used and language.type_words not in ready else {}


def describe_label_words(variant: Variant, profile: Profile) -> dict[str, Any]:
    """Return the words of the labels for a head that begins with them."""
    if not variant.is_network or heads.HEADS[variant.head] is not heads.LabelWordsHead:
        return {}
    return {"label_words": profile.language.words_of_all(profile.labels)}


def describe_exchange(variant: Variant, profile: Profile) -> dict[str, Any]:
    """Return the inverse labels that a variant uses to swap roles, unless they are the first ones.

    The first ones stay out of the recipe, so that earlier results remain valid.
    """
    if variant.augment is None or "swap" not in variant.augment.ways:
        return {}
    rules = profile.exchange_rules.exchanged
    return {} if fingerprint(rules) == FIRST_EXCHANGE else {"relations": rules}


def describe_negatives(variant: Variant, profile: Profile) -> dict[str, Any]:
    """Return the negative labels if there are several and the variant treats them differently.

    A single one stays out of the recipe, so that earlier results remain valid.
    """
    reads = (
        variant.restrict is not None
        or variant.clean.conflicts == "drop-negative"
        or (variant.augment is not None and "swap" in variant.augment.ways)
    )
    several = len(profile.negative_labels) > 1
    return {"negatives": sorted(profile.negative_labels)} if several and reads else {}


def describe_dropout(variant: Variant, source: EncoderSource | None) -> dict[str, int]:
    """Return the version of ``dropout`` for backbones whose rates earlier versions did not know."""
    if source is None or variant.train.encoder_dropout is None:
        return {}
    is_later = dropout.needs_version(read_config(source))
    return {dropout.VERSION_NAME: dropout.RESULT_VERSION} if is_later else {}


def describe_padding(draws_padding: bool) -> dict[str, int]:
    """Return the version of what initialises new tokens among the padding of a table."""
    if not draws_padding:
        return {}
    return {new_parameters.PADDING_VERSION_NAME: new_parameters.PADDING_VERSION}


def _head_version(variant: Variant) -> dict[str, int]:
    """Return the version of a head that has its own; ``heads`` enters with every network."""
    if not variant.is_network or variant.head not in heads.HEAD_VERSIONS:
        return {}
    return {f"{heads.VERSION_NAME}.{variant.head}": heads.HEAD_VERSIONS[variant.head]}


def rooms_of(variant: Variant) -> Iterator[ModuleType]:
    """Yield the modules whose code determines the results of a variant."""
    yield from LEARNER_ROOMS[variant.learner]
    by_difficulty = variant.curriculum is not None and variant.curriculum.by == "difficulty"
    used: dict[ModuleType, bool] = {
        adapters: variant.adapt is not None,
        augmentation: variant.augment is not None,
        ema: variant.regularise.ema_decay > 0,
        cleaning: variant.clean.duplicates != "keep" or variant.clean.conflicts != "keep",
        corrections: bool(variant.clean.corrections),
        curriculum: variant.curriculum is not None,
        distillation: variant.distil is not None,
        extra_rows: variant.extra_train is not None,
        pseudo_labels: variant.pseudo is not None,
        restriction: variant.restrict is not None,
        entity_embedding: variant.entity_embedding,
        sampling: variant.sampling is not None,
        optimizer: variant.is_network and variant.train.optimizer != optimizer.PLAIN,
        step: variant.regularise.r_drop > 0 or variant.regularise.adversarial != "none",
    }
    if variant.is_network:
        used[linear] = by_difficulty
        used[particles] = FORMATS[variant.format].prompt is not None
        new_tokens = FORMATS[variant.format].new_tokens(("PER",), variant.formatting)
        used[label_words] = heads.HEADS[variant.head] is heads.LabelWordsHead
        used[new_parameters] = bool(new_tokens) or variant.head in heads.READS_PROMPT
    yield from (room for room, is_used in used.items() if is_used)
