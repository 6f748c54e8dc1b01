"""Variant × seed × fold: which jobs are still missing, with everything settled that they share.

``plan_jobs`` resolves the variants, settles their encoders, tokenises the rows once and compares
fingerprints with what the store holds. ``models.workers`` then runs what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from competition.corpus import Corpus
from competition.errors import PredictionsError, UsageError, VariantError
from competition.folds import Prepared
from competition.predictions import ResultKey, Store
from competition.profile import Competition, Profile
from competition.results import Header
from models import batches, formats
from models.augmentation import Scheme, check_augment
from models.batches import read_or_tokenize
from models.encoder import load_tokenizer
from models.formats import FORMATS, check_format
from models.job import WEIGHTS_FILE, JobSpec, NetworkSpec
from models.pool import Pool, build_pool, choose_fold_rows, write_texts
from models.recipes import recipe_parts
from models.routing import Route, read_route
from models.sources import EncoderSource, recommended_settings, settle_encoder
from models.variant import LINEAR, Variant, fingerprint, own_encoder, resolve_variant

Say = Callable[[str], None]


@dataclass(frozen=True)
class FoldRequest:
    """What a person asks of ``fold``."""

    variants: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    encoder: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    save_as: str | None = None
    overwrite: bool = False
    keep_checkpoints: bool = True
    workers: int = 1
    threads: int | None = None
    stop_after_s: float | None = None


@dataclass(frozen=True)
class Plan:
    """What ``fold`` found to do: jobs still missing, results already there."""

    variants: tuple[Variant, ...]
    jobs: tuple[JobSpec, ...]
    done: tuple[ResultKey, ...]


def resolve_all(profile: Profile, request: FoldRequest) -> tuple[Variant, ...]:
    """Resolve the variants of a request, in its order.

    Raises:
        UsageError, VariantError: a name, a setting, or two variants of one name.
    """
    names = request.variants or tuple(profile.defaults.variants)
    if request.save_as and len(names) > 1:
        raise UsageError("--as names one variant; name one variant to train, or leave --as out")
    overrides = list(request.overrides)
    if request.seeds:
        overrides.append(("seeds", list(request.seeds)))
    variants = tuple(
        resolve_requested(
            profile,
            name,
            encoder_override=request.encoder,
            overrides=overrides,
            save_as=request.save_as,
        )
        for name in names
    )
    if len({variant.name for variant in variants}) < len(variants):
        raise UsageError("two of the variants named have one name; name each once")
    return variants


def plan_jobs(
    prepared: Prepared,
    request: FoldRequest,
    say: Say,
    *,
    threads: int,
    variants: Sequence[Variant] | None = None,
    deadline: float | None = None,
) -> Plan:
    """Find the jobs of the requested variants, or of some of them, whose result is missing.

    Encoders that are to be adapted first are adapted here, until the deadline.

    Raises:
        StoppedError: adapting an encoder was stopped.
        PredictionsError: a result of the same name was made from something else.
        UsageError, VariantError, EncoderError: the request cannot be met.
    """
    if variants is None:
        variants = resolve_all(prepared.competition.profile, request)
    folds = request.folds or tuple(range(prepared.folds.count))
    beyond = [fold for fold in folds if not 0 <= fold < prepared.folds.count]
    if beyond:
        raise UsageError(f"--folds {beyond[0]}: the folds are 0 to {prepared.folds.count - 1}")
    jobs: list[JobSpec] = []
    done: list[ResultKey] = []
    for variant in variants:
        settled = _settle(variant, prepared, request, say, threads, deadline)
        wanted = _fingerprints(settled, folds)
        missing = {
            key: print_
            for key, print_ in wanted.items()
            if not _is_done(settled.store, key, print_, request.overwrite)
        }
        jobs += _build_specs(settled, missing, request, say, threads)
        done += [key for key in wanted if key not in missing]
    return Plan(tuple(variants), tuple(jobs), tuple(done))


def build_job(prepared: Prepared, variant: Variant, key: ResultKey, say: Say) -> JobSpec:
    """Describe one job of a resolved variant, done before or not.

    Raises:
        UsageError, VariantError, EncoderError: the variant cannot be trained here.
    """
    request = FoldRequest(encoder=variant.encoder)
    settled = _settle(variant, prepared, request, say, 1)
    wanted = _fingerprints(settled, [key.fold])
    return _build_specs(settled, {key: wanted[key]}, request, say, 1)[0]


def resolve_requested(
    profile: Profile,
    name: str,
    *,
    encoder_override: str | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
    save_as: str | None = None,
) -> Variant:
    """Resolve a variant in a competition, as every command that takes a variant does.

    The profile's overrides suit its default encoder and are left out with any other.
    """
    defaults = profile.defaults
    chosen = encoder_override or own_encoder(name) or defaults.encoder
    own = defaults.overrides if chosen == defaults.encoder else {}
    return resolve_variant(
        name,
        encoder=defaults.encoder,
        encoder_override=encoder_override,
        defaults={**recommended_settings(chosen), **own},
        overrides=overrides,
        save_as=save_as,
    )


def builds_on(variant: Variant) -> list[str]:
    """Name the variants whose results a variant needs before it can begin."""
    return [
        name for name in (variant.start_from, variant.pseudo and variant.pseudo.variant) if name
    ]


def name_in_request(profile: Profile, request: FoldRequest, name: str) -> str:
    """Return the name under which a variant that another builds on has its results.

    ``typed-punct`` is ``typed-punct@scratch`` when the request trains with that encoder.
    """
    try:
        return resolve_requested(profile, name, encoder_override=request.encoder).name
    except VariantError:
        return name  # no shipped variant: a name made by --as


def job_dir(checkpoints_dir: Path, key: ResultKey) -> Path:
    """Return the folder of a job's training state, final weights and log."""
    return checkpoints_dir / key.variant / f"s{key.seed}-f{key.fold}"


@dataclass(frozen=True)
class _Settled:
    """A variant with all that its jobs share."""

    variant: Variant
    prepared: Prepared
    pool: Pool
    route: Route | None
    source: EncoderSource | None
    tokenizer: Any
    new_tokens: tuple[str, ...]
    parts: Mapping[str, Any]
    needs: Mapping[str, str]  # what it builds on, by the name in the store

    @property
    def cache_dir(self) -> Path:
        return self.prepared.competition.checkpoints_dir / "cache"

    @cached_property
    def store(self) -> Store:
        competition = self.prepared.competition
        return Store(competition.oof_dir, competition.profile.labels)

    def source_of(self, role: str, key: ResultKey) -> Header | None:
        """Return the result that a job builds on, of its own seed if there is one."""
        name = self.needs.get(role)
        if name is None:
            return None
        seeds = [k.seed for k in self.store.keys(name) if k.fold == key.fold]
        if not seeds:
            raise UsageError(
                f"{self.variant.name} builds on {name}, whose fold {key.fold} has no result yet; "
                f"run it first, or name both: python run.py fold {name} …"
            )
        seed = key.seed if key.seed in seeds else min(seeds)
        header = self.store.read_header(ResultKey(name, seed, key.fold))
        assert header is not None
        if header.folds_hash != self.prepared.folds.hash:
            raise PredictionsError(f"{name} has results of other folds; train it again")
        return header


def _settle(
    variant: Variant,
    prepared: Prepared,
    request: FoldRequest,
    say: Say,
    threads: int,
    deadline: float | None = None,
) -> _Settled:
    profile = prepared.competition.profile
    pool = build_pool(prepared, variant, say)
    roles = {"start": variant.start_from, "pseudo": variant.pseudo and variant.pseudo.variant}
    needs = {role: name_in_request(profile, request, name) for role, name in roles.items() if name}
    if variant.learner == LINEAR:
        route = read_route(variant.route, prepared, None) if variant.route else None
        parts = recipe_parts(variant, None, prepared, pool=pool, route=route)
        return _Settled(variant, prepared, pool, route, None, None, (), parts, needs)
    form = FORMATS[variant.format]
    check_suits(variant, profile)
    source = _settle_encoder(variant, prepared, say, threads, deadline)
    new_tokens = form.new_tokens(profile.entity_types, variant.formatting)
    tokenizer = load_tokenizer(source, new_tokens)
    route = read_route(variant.route, prepared, tokenizer) if variant.route else None
    parts = recipe_parts(variant, source, prepared, pool=pool, route=route)
    return _Settled(variant, prepared, pool, route, source, tokenizer, new_tokens, parts, needs)


def settle_base_encoder(
    variant: Variant, competition: Competition, corpus: Corpus
) -> EncoderSource:
    """Find, download or make the encoder that a variant begins with.

    Raises:
        EncoderError: as ``settle_encoder`` says.
    """
    sources = [*corpus.train.text("source"), *corpus.test.text("source")]
    own_words = FORMATS[variant.format].own_words(variant.formatting, sources)
    return settle_encoder(
        variant,
        sentences=corpus.train.text("sentence"),
        cache_dir=competition.checkpoints_dir / "cache",
        reserved=(*competition.profile.entity_types, *own_words),
    )


def _settle_encoder(
    variant: Variant, prepared: Prepared, say: Say, threads: int, deadline: float | None
) -> EncoderSource:
    """Return a variant's encoder, adapted to the task's text if it wants that."""
    source = settle_base_encoder(variant, prepared.competition, prepared.corpus)
    if variant.pretrain == "none":
        return source
    from models.pretrain import make_adapted_encoder

    return make_adapted_encoder(
        source, prepared.competition, say=say, deadline=deadline, threads=threads
    )


def check_suits(variant: Variant, profile: Profile) -> None:
    """Refuse a variant that shows or uses what the competition does not have.

    Raises:
        FormatError, VariantError: says what is absent and what to use instead.
    """
    check_format(
        variant.format,
        variant.formatting,
        entity_types=profile.entity_types,
        has_source=profile.columns.source is not None,
    )
    if variant.restrict is not None and not profile.entity_types:
        raise VariantError(
            f"variant {variant.name}: restrict goes by entity types and this competition has none"
        )
    if variant.augment is not None:
        scheme = Scheme(profile.labels, profile.negative_id, tuple(profile.entity_types))
        check_augment(variant.augment, scheme)


def _fingerprints(settled: _Settled, folds: Sequence[int]) -> dict[ResultKey, str]:
    """Return the fingerprint of every job; that of a result it builds on is part of it."""
    prints = {}
    for seed in settled.variant.seeds:
        for fold in folds:
            key = ResultKey(settled.variant.name, seed, fold)
            built_on = {role: settled.source_of(role, key) for role in settled.needs}
            ids = {role: header.fingerprint for role, header in built_on.items() if header}
            extra = {"builds_on": ids} if ids else {}
            prints[key] = fingerprint({**settled.parts, "seed": seed, "fold": fold, **extra})
    return prints


def _build_specs(
    settled: _Settled,
    missing: Mapping[ResultKey, str],
    request: FoldRequest,
    say: Say,
    threads: int,
) -> list[JobSpec]:
    if not missing:
        return []
    variant, prepared, pool = settled.variant, settled.prepared, settled.pool
    competition = prepared.competition
    profile = competition.profile
    folders = {} if settled.source is None else _tokenize(settled, say)
    texts: dict[str, Path] = {}
    if _needs_texts(variant):
        made_from = fingerprint({"data": prepared.corpus.hash, **pool.made_of})
        texts = write_texts(settled.cache_dir / f"texts-{made_from[:16]}", pool)
    recipe = fingerprint(settled.parts)
    specs = []
    for key, print_ in missing.items():
        pseudo = settled.source_of("pseudo", key)
        rows = choose_fold_rows(
            prepared,
            pool,
            variant,
            route=settled.route,
            fold=key.fold,
            pseudo=None if pseudo is None else pseudo.key,
        )
        specs.append(
            JobSpec(
                key=key,
                fingerprint=print_,
                recipe=recipe,
                variant=variant,
                labels=profile.labels,
                negative_id=profile.negative_id,
                entity_types=tuple(profile.entity_types),
                data_hash=prepared.corpus.hash,
                folds_hash=prepared.folds.hash,
                routes_hash=settled.route.hash if settled.route else None,
                store_dir=competition.oof_dir,
                job_dir=job_dir(competition.checkpoints_dir, key),
                cache_dir=settled.cache_dir,
                rows=rows,
                heldout_label_ids=prepared.corpus.train.gold[rows.heldout_rows].astype(np.int64),
                texts=texts,
                network=_build_network(settled, key, folders),
                keep_checkpoint=request.keep_checkpoints,
                threads=threads,
            )
        )
    return specs


def _build_network(
    settled: _Settled, key: ResultKey, folders: Mapping[str, Path]
) -> NetworkSpec | None:
    if settled.source is None:
        return None
    begun = settled.source_of("start", key)
    start = None
    if begun is not None:
        folder = job_dir(settled.prepared.competition.checkpoints_dir, begun.key)
        start = (folder / WEIGHTS_FILE, begun.fingerprint)
    return NetworkSpec(settled.source, settled.new_tokens, folders, start)


def _needs_texts(variant: Variant) -> bool:
    """Tell whether a job reads its rows' text itself, beyond the tokens on disk."""
    return (
        variant.learner == LINEAR
        or variant.augment is not None
        or variant.restrict is not None
        or (variant.curriculum is not None and variant.curriculum.by == "difficulty")
    )


def _is_done(store: Store, key: ResultKey, wanted: str, overwrite: bool) -> bool:
    header = store.read_header(key)
    if header is None:
        return False
    if header.fingerprint == wanted:
        return True
    if overwrite:
        return False
    raise PredictionsError(
        f"{store.path(key)} holds a result of another recipe (the variant, data, folds or encoder "
        f"changed since). Keep it and train under a new name with --as NAME, or replace it with "
        "--overwrite"
    )


def _tokenize(settled: _Settled, say: Say) -> dict[str, Path]:
    """Tokenise the pool's parts, each once per (data, format, tokenizer, length)."""
    variant, source = settled.variant, settled.source
    assert source is not None
    folders = {}
    for name, rows in settled.pool.parts.items():
        made_from: Mapping[str, Any] = {
            "data": settled.prepared.corpus.hash,
            "rows": name,
            "format": variant.format,
            "formatting": variant.formatting.model_dump(mode="json"),
            "encoder": source.identity,
            "tokens": len(settled.tokenizer),
            "max_tokens": variant.max_tokens,
            "versions": [batches.RESULT_VERSION, batches.LAYOUT, formats.RESULT_VERSION],
            **settled.pool.made_of,
        }
        folders[name] = settled.cache_dir / f"rows-{name}-{fingerprint(made_from)[:16]}"
        made = read_or_tokenize(
            folders[name],
            rows,
            FORMATS[variant.format],
            settled.tokenizer,
            variant.max_tokens,
            formatting=variant.formatting,
        )
        if made.cut:
            say(
                f"{variant.name}: {made.cut} of {len(made)} {name} rows are longer than "
                f"{variant.max_tokens} tokens and were cut to a window around their entities"
            )
    return folders
