"""Variant × seed × fold: which jobs are still missing, with everything settled that they share.

``plan_jobs`` resolves the variants, settles their encoders, tokenises the rows once and compares
fingerprints with what the store holds. ``models.workers`` then runs what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.errors import PredictionsError, UsageError
from competition.folds import Prepared
from competition.predictions import ResultKey, Store
from competition.profile import Profile
from models import batches, encoder, formats, heads, losses, training
from models.batches import Ints, read_or_tokenize
from models.encoder import EncoderSource, load_tokenizer, settle_encoder
from models.formats import FORMATS
from models.job import JobSpec
from models.routing import Route, read_route
from models.variant import Variant, fingerprint, own_encoder, resolve_variant

VERSIONED_ROOMS = (batches, encoder, formats, heads, losses, training)


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


def plan_jobs(
    prepared: Prepared, request: FoldRequest, say: Callable[[str], None], *, threads: int
) -> Plan:
    """Resolve the variants and find the jobs whose result is still missing.

    Raises:
        PredictionsError: a result of the same name was made from something else.
        UsageError, VariantError, EncoderError: the request cannot be met.
    """
    profile = prepared.competition.profile
    names = request.variants or tuple(profile.defaults.variants)
    if request.save_as and len(names) > 1:
        raise UsageError("--as names one variant; name one variant to train, or leave --as out")
    folds = request.folds or tuple(range(prepared.folds.count))
    beyond = [fold for fold in folds if not 0 <= fold < prepared.folds.count]
    if beyond:
        raise UsageError(f"--folds {beyond[0]}: the folds are 0 to {prepared.folds.count - 1}")
    overrides = list(request.overrides)
    if request.seeds:
        overrides.append(("seeds", list(request.seeds)))
    variants, jobs, done = [], [], []
    for name in names:
        variant = resolve_requested(
            profile,
            name,
            encoder_override=request.encoder,
            overrides=overrides,
            save_as=request.save_as,
        )
        variants.append(variant)
        missing, present = _plan_variant(variant, folds, prepared, request, say, threads)
        jobs += missing
        done += present
    if len({variant.name for variant in variants}) < len(variants):
        raise UsageError("two of the variants named have one name; name each once")
    return Plan(tuple(variants), tuple(jobs), tuple(done))


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
        defaults={**encoder.recommended_settings(chosen), **own},
        overrides=overrides,
        save_as=save_as,
    )


def build_fold_rows(
    prepared: Prepared, route: Route | None, fold: int
) -> tuple[Ints, Ints, Ints, Ints]:
    """Return train rows, their label ids, held-out rows and test rows of a fold, as row numbers.

    A specialist trains on, and answers for, its route's rows only. No held-out label is returned.
    """
    in_route = route.train if route else np.ones(len(prepared.corpus.train), bool)
    test_in_route = route.test if route else np.ones(len(prepared.corpus.test), bool)
    heldout = prepared.folds.fold_of == fold
    train_rows = np.flatnonzero(in_route & ~heldout)
    label_ids = prepared.corpus.train.gold[train_rows].astype(np.int64)
    return train_rows, label_ids, np.flatnonzero(in_route & heldout), np.flatnonzero(test_in_route)


def _plan_variant(
    variant: Variant,
    folds: Sequence[int],
    prepared: Prepared,
    request: FoldRequest,
    say: Callable[[str], None],
    threads: int,
) -> tuple[list[JobSpec], list[ResultKey]]:
    competition, corpus = prepared.competition, prepared.corpus
    profile = competition.profile
    cache_dir = competition.checkpoints_dir / "cache"
    source = settle_encoder(
        variant,
        sentences=corpus.train.text("sentence"),
        cache_dir=cache_dir,
        reserved=profile.entity_types,
    )
    form = FORMATS[variant.format]
    if form.needs_types and not profile.entity_types:
        raise UsageError(
            f"variant {variant.name}: the format {variant.format!r} shows entity types and this "
            "competition has none; use entity-marker or concat"
        )
    new_tokens = form.new_tokens(profile.entity_types)
    tokenizer = load_tokenizer(source, new_tokens)
    route = read_route(variant.route, prepared, tokenizer) if variant.route else None
    parts = recipe_parts(variant, source, prepared, route)
    recipe = fingerprint(parts)
    store = Store(competition.oof_dir, profile.labels)
    keys = [ResultKey(variant.name, seed, fold) for seed in variant.seeds for fold in folds]
    prints = {k: fingerprint({**parts, "seed": k.seed, "fold": k.fold}) for k in keys}
    missing = [k for k in keys if not _is_done(store, k, prints[k], request.overwrite)]
    if not missing:
        return [], keys
    tokens = {
        split: _tokenize(split, variant, source, tokenizer, prepared, say)
        for split in ("train", "test")
    }
    gold = corpus.train.gold
    specs = []
    for key in missing:
        train_rows, label_ids, heldout, test_rows = build_fold_rows(prepared, route, key.fold)
        specs.append(
            JobSpec(
                key=key,
                fingerprint=prints[key],
                recipe=recipe,
                variant=variant,
                source=source,
                labels=profile.labels,
                negative_id=profile.negative_id,
                data_hash=prepared.corpus.hash,
                folds_hash=prepared.folds.hash,
                routes_hash=route.hash if route else None,
                store_dir=competition.oof_dir,
                job_dir=job_dir(competition.checkpoints_dir, key),
                train_tokens=tokens["train"],
                test_tokens=tokens["test"],
                train_rows=train_rows,
                train_label_ids=label_ids,
                heldout_rows=heldout,
                heldout_label_ids=gold[heldout].astype(np.int64),
                test_rows=test_rows,
                new_tokens=new_tokens,
                keep_checkpoint=request.keep_checkpoints,
                threads=threads,
            )
        )
    return specs, [key for key in keys if key not in set(missing)]


def job_dir(checkpoints_dir: Path, key: ResultKey) -> Path:
    """Return the folder of a job's training state, final weights and log."""
    return checkpoints_dir / key.variant / f"s{key.seed}-f{key.fold}"


def recipe_parts(
    variant: Variant, source: EncoderSource, prepared: Prepared, route: Route | None
) -> dict[str, Any]:
    """Return all that determines a variant's results, seed and fold aside, as JSON-able parts."""
    settings = variant.recipe()
    del settings["encoder"]
    return {
        "variant": settings,
        "encoder": source.identity,
        "data": prepared.corpus.hash,
        "folds": prepared.folds.hash,
        "routes": route.hash if route else None,
        "versions": {room.__name__: room.RESULT_VERSION for room in VERSIONED_ROOMS},
    }


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


def _tokenize(
    split: str,
    variant: Variant,
    source: EncoderSource,
    tokenizer: Any,
    prepared: Prepared,
    say: Callable[[str], None],
) -> Path:
    """Tokenise one split once per (data, format, tokenizer, length); return its folder."""
    rows = prepared.corpus.train if split == "train" else prepared.corpus.test
    made_from: Mapping[str, Any] = {
        "data": prepared.corpus.hash,
        "rows": split,
        "format": variant.format,
        "encoder": source.identity,
        "tokens": len(tokenizer),
        "max_tokens": variant.max_tokens,
        "versions": [batches.RESULT_VERSION, formats.RESULT_VERSION],
    }
    name = f"rows-{split}-{fingerprint(made_from)[:16]}"
    folder = prepared.competition.checkpoints_dir / "cache" / name
    made = read_or_tokenize(folder, rows, FORMATS[variant.format], tokenizer, variant.max_tokens)
    if made.cut:
        say(
            f"{variant.name}: {made.cut} of {len(made)} {split} rows are longer than "
            f"{variant.max_tokens} tokens and were cut to a window around their entities"
        )
    return folder
