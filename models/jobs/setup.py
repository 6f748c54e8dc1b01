"""Set up a variant: rows, route, encoder, tokenizer, tokens and recipe, shared by all its jobs.

Slow steps, and those that need internet access, happen here once, in the parent process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from competition.arrays import Say
from competition.data.corpus import Corpus
from competition.folds.kfold import Prepared
from competition.predictions.store import Header, ResultKey, Store, open_store
from competition.profile import Competition, Profile
from models.data import batches
from models.data.batches import read_or_tokenize
from models.data.pool import Pool, build_pool, write_texts
from models.data.route import Route, read_route
from models.jobs.bases import Bases
from models.jobs.recipe import recipe_parts
from models.jobs.suitability import check_suits
from models.network.encoder_source import EncoderSource, resolve_encoder
from models.network.label_words import tokenize_words
from models.network.network import check_backbone, check_first_token
from models.network.tokenizer import (
    check_reading,
    find_padding_ids,
    list_markers,
    load_tokenizer,
)
from models.parts import formats, particles
from models.parts.formats import FORMATS, choose_format
from models.parts.heads import HEADS, LabelWordsHead
from models.pretraining.exposure import explain_left_out, read_exposure
from models.variant import Variant, fingerprint


@dataclass(frozen=True)
class VariantSetup:
    """A variant with all that its jobs share; ``bases``: the variants it builds on, by role."""

    variant: Variant
    prepared: Prepared
    pool: Pool
    route: Route | None
    source: EncoderSource | None
    tokenizer: Any
    new_tokens: tuple[str, ...]
    parts: Mapping[str, Any]
    bases: Mapping[str, str]

    @property
    def cache_dir(self) -> Path:
        """Folder of caches, safe to delete."""
        return self.prepared.competition.checkpoints_dir / "cache"

    @cached_property
    def store(self) -> Store:
        """The store of results, of this variant and of those that it builds on."""
        competition = self.prepared.competition
        return open_store(competition)

    def list_bases(self, key: ResultKey) -> Iterator[dict[str, Header]]:
        """Yield the results that a job may build on, by role, best first (``Bases.find``)."""
        return Bases(self.prepared, self.variant.name, self.bases).find(key)


def set_up_variant(
    variant: Variant,
    prepared: Prepared,
    *,
    bases: Mapping[str, str],
    say: Say,
    threads: int | None = None,
    deadline: float | None = None,
) -> VariantSetup:
    """Set up all that the jobs of a resolved variant share.

    Args:
        threads: for task-adaptive pretraining (TAPT); None for all cores.
        deadline: of TAPT, on the clock of ``time.monotonic``.

    Raises:
        StoppedError: TAPT was stopped.
        VariantError, FormatError, EncoderError: the variant cannot be trained here.
    """
    check_suits(variant, prepared.competition.profile)
    pool = build_pool(prepared, variant, say)
    if not variant.is_network:
        route = read_route(variant.route, prepared, None) if variant.route else None
        parts = recipe_parts(variant, None, prepared, pool=pool, route=route)
        return VariantSetup(variant, prepared, pool, route, None, None, (), parts, bases)
    profile = prepared.competition.profile
    source = resolve_base_encoder(variant, prepared.competition, prepared.corpus)
    if variant.pretrain == "tapt":
        from models.pretraining.pretrain import make_adapted_encoder

        source = make_adapted_encoder(
            source,
            prepared.competition,
            run=variant.run,
            say=say,
            deadline=deadline,
            threads=threads,
        )
    notice = explain_left_out(source.name, read_exposure(source.path), prepared.folds.hash)
    if notice is not None:
        say(notice)
    new_tokens = FORMATS[variant.format].new_tokens(profile.entity_types, variant.formatting)
    tokenizer = load_checked(variant, source, profile, prepared.corpus, say)
    route = read_route(variant.route, prepared, tokenizer) if variant.route else None
    parts = recipe_parts(
        variant,
        source,
        prepared,
        pool=pool,
        route=route,
        draws_padding=bool(find_padding_ids(source, tokenizer, new_tokens)),
    )
    return VariantSetup(variant, prepared, pool, route, source, tokenizer, new_tokens, parts, bases)


def resolve_base_encoder(
    variant: Variant, competition: Competition, corpus: Corpus
) -> EncoderSource:
    """Find, download or create the encoder of a variant, before any TAPT.

    Raises:
        EncoderError: as raised by ``resolve_encoder``.
    """
    sources = [*corpus.train.text("source"), *corpus.test.text("source")]
    form = choose_format(variant.format, competition.profile.language)
    own_words = form.own_words(variant.formatting, sources)
    return resolve_encoder(
        variant,
        sentences=corpus.train.text("sentence"),
        cache_dir=competition.checkpoints_dir / "cache",
        reserved=(*competition.profile.entity_types, *own_words),
    )


def load_checked(
    variant: Variant, source: EncoderSource, profile: Profile, corpus: Corpus, say: Say
) -> Any:
    """Load a variant's tokenizer with its format's tokens, after a look at what it can read.

    Raises:
        EncoderError, VariantError: tokenizer, weights, settings and sentences do not go together.
    """
    check_backbone(variant, source)
    form, types = choose_format(variant.format, profile.language), profile.entity_types
    tokenizer = load_tokenizer(source, form.new_tokens(types, variant.formatting))
    check_first_token(variant, source, tokenizer)
    if HEADS[variant.head] is LabelWordsHead and source.has_weights:
        tokenize_words(tokenizer, profile.language.words_of_all(profile.labels))
    markers = list_markers(form, variant.formatting, types)
    for notice in check_reading(source, tokenizer, corpus.train.text("sentence").tolist(), markers):
        say(notice)
    return tokenizer


def tokenize_pool(setup: VariantSetup, say: Say) -> dict[str, Path]:
    """Tokenise the splits of the pool, each once per (data, format, tokenizer, length)."""
    variant, source = setup.variant, setup.source
    assert source is not None
    folders = {}
    profile = setup.prepared.competition.profile
    for name, rows in setup.pool.parts.items():
        made_from: Mapping[str, Any] = {
            "data": setup.prepared.corpus.hash,
            "rows": name,
            "format": variant.format,
            "formatting": variant.formatting.model_dump(mode="json"),
            "encoder": source.identity,
            "new_tokens": list(setup.new_tokens),
            "language": profile.language.model_dump(mode="json"),
            "max_tokens": variant.max_tokens,
            "versions": [room.RESULT_VERSION for room in (batches, formats, particles)],
            "layout": batches.LAYOUT,
            **setup.pool.made_of,
        }
        folders[name] = setup.cache_dir / f"rows-{name}-{fingerprint(made_from)[:16]}"
        made = read_or_tokenize(
            folders[name],
            rows,
            choose_format(variant.format, profile.language),
            setup.tokenizer,
            variant.max_tokens,
            formatting=variant.formatting,
        )
        if made.cut:
            say(
                f"{made.cut} of {len(made)} {name} rows have more than {variant.max_tokens} "
                f"tokens in format {variant.format} and were truncated around their entities"
            )
    return folders


def write_pool_texts(setup: VariantSetup) -> dict[str, Path]:
    """Write the texts of the pool to the cache, if the variant's jobs read them."""
    if not _needs_texts(setup.variant):
        return {}
    pool = setup.pool
    made_from = fingerprint({"data": setup.prepared.corpus.hash, **pool.made_of})
    return write_texts(setup.cache_dir / f"texts-{made_from[:16]}", pool)


def _needs_texts(variant: Variant) -> bool:
    """Return whether the jobs of a variant read text, not only tokens."""
    return (
        not variant.is_network
        or variant.augment is not None
        or variant.restrict is not None
        or (variant.curriculum is not None and variant.curriculum.by == "difficulty")
    )
