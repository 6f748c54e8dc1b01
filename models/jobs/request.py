"""The options of ``fold``, and the variants they resolve to.

Resolves names, ``--encoder`` and ``--set`` to variants; ``models.jobs.setup`` then sets up each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.errors import UsageError, VariantError
from competition.files import is_name
from competition.options import check_seeds
from competition.predictions.rerun import find_command, write_command
from competition.predictions.store import ResultKey, Store
from competition.profile import Profile
from models.jobs.engines.engine import HERE, EngineChoice
from models.network.encoder_source import recommended_settings
from models.variant import (
    SCRATCH,
    Variant,
    explain_unknown,
    list_variants,
    own_encoder,
    own_shape,
    resolve_variant,
)

LABELS_SLOT, LABEL_WORDS_SLOT = "{labels}", "{label_words}"
"""Placeholders in ``formatting.instruction`` for the names of the labels, and for their words."""
START, PSEUDO, TEACHER = "start", "pseudo", "teacher"
"""How a variant builds on another: its weights (a warm start), its labels (pseudo-labelling), or
its probabilities (distillation; the role of teacher number i is ``teacher-i``)."""


@dataclass(frozen=True)
class FoldRequest:
    """Options of ``fold``; ``command`` holds the arguments of ``python run.py``."""

    variants: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    encoder: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    save_as: str | None = None
    overwrite: bool = False
    keep_checkpoints: bool = True
    engine: EngineChoice = HERE
    stop_after_s: float | None = None
    track: tuple[str, ...] = ()
    yes: bool = False  # train, however long it is estimated to take
    command: str = ""

    def __post_init__(self) -> None:
        """Check the seeds.

        Raises:
            UsageError: one is out of range.
        """
        check_seeds("--seeds", self.seeds)


def check_variant(store: Store, name: str) -> None:
    """Check that a name is a shipped variant or a file.

    Raises:
        VariantError: it is neither; if the store has results of that name, the message gives the
            command that made them.
    """
    if name.endswith(".toml") or name in list_variants():
        return
    command = find_command(store.directory / name) if is_name(name) else None
    made = f"; {name} was made by: {write_command(command)}" if command else ""
    raise VariantError(explain_unknown(name) + made)


def resolve_all(profile: Profile, request: FoldRequest) -> tuple[Variant, ...]:
    """Resolve the variants of a request, in its order.

    Raises:
        UsageError, VariantError: an invalid name or setting, or two variants with the same name.
    """
    names = request.variants or tuple(profile.defaults.variants)
    if not names:
        raise UsageError(
            "the profile has no defaults.variants; name some: python run.py fold VARIANT"
        )
    if request.save_as and len(names) > 1:
        raise UsageError("--as takes one variant: name a single variant, or remove --as")
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
        raise UsageError("two of the variants have the same name; name each variant once")
    return variants


def list_missing(
    store: Store, request: FoldRequest, variant: Variant, n_folds: int
) -> list[ResultKey]:
    """List the requested results of a variant that are not stored; with ``--overwrite``, all.

    Unlike ``models.jobs.plan``, it does not compare recipes, so it needs no encoder.
    """
    stored = set() if request.overwrite else set(store.keys(variant.name))
    folds = request.folds or range(n_folds)
    wanted = {ResultKey(variant.name, seed, fold) for seed in variant.seeds for fold in folds}
    return sorted(wanted - stored)


def resolve_requested(
    profile: Profile,
    name: str,
    *,
    encoder_override: str | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
    save_as: str | None = None,
) -> Variant:
    """Resolve a variant in a competition, for every command that takes a variant.

    The profile's overrides are for its default encoder and are ignored with any other.

    Raises:
        UsageError: the encoder is set with ``--set`` instead of ``--encoder``, or a seed is out of
            range.
        VariantError: an unknown variant, key or value.
    """
    if any(key == "encoder" for key, _ in overrides):
        raise UsageError(
            "--set encoder=…: use --encoder, which also applies its recommended settings"
        )
    defaults = profile.defaults
    chosen = encoder_override or own_encoder(name) or defaults.encoder
    own = defaults.overrides if chosen == defaults.encoder else {}
    variant = resolve_variant(
        name,
        encoder=defaults.encoder,
        encoder_override=encoder_override,
        defaults={**recommended_settings(chosen), **own},
        overrides=overrides,
        save_as=save_as,
    )
    check_seeds(f"variant {variant.name}: seeds", variant.seeds)
    return _name_labels(variant, profile)


def _name_labels(variant: Variant, profile: Profile) -> Variant:
    """Write the competition's labels where an instruction leaves room for them."""
    settings = variant.formatting
    words = map(profile.language.words_of, profile.labels)
    named = settings.instruction.replace(LABELS_SLOT, ", ".join(profile.labels))
    named = named.replace(LABEL_WORDS_SLOT, ", ".join(words))
    if named == settings.instruction:
        return variant
    formatting = settings.model_copy(update={"instruction": named})
    return variant.model_copy(update={"formatting": formatting})


def name_bases(profile: Profile, request: FoldRequest, variant: Variant) -> dict[str, str]:
    """Return the names under which what a variant builds on has its results, by role."""
    bases = _bases(variant)
    return {role: _name_base(profile, request, variant, name) for role, name in bases.items()}


def resolve_bases(profile: Profile, request: FoldRequest, variant: Variant) -> tuple[Variant, ...]:
    """Resolve the variants that a variant builds on, with its encoder and the request's seeds.

    Names given with ``--as`` are not variants and are left out.
    """
    found = []
    for name in _bases(variant).values():
        with suppress(VariantError):
            found.append(_resolve_base(profile, request, variant, name))
    return tuple(found)


def _resolve_base(profile: Profile, request: FoldRequest, variant: Variant, name: str) -> Variant:
    """Resolve a base, with the encoder of the variant building on it unless its file sets one."""
    overrides: list[tuple[str, Any]] = [("seeds", list(request.seeds))] if request.seeds else []
    encoder = request.encoder or own_encoder(name) or variant.encoder
    base = resolve_requested(profile, name, encoder_override=encoder, overrides=overrides)
    if not base.is_network or base.encoder != SCRATCH:
        return base
    shape = [pair for pair in request.overrides if pair[0].startswith(f"{SCRATCH}.")]
    known = {*(key for key, _ in shape), *own_shape(name)}
    for field, value in variant.scratch:  # changed by the variant's own file
        key = f"{SCRATCH}.{field}"
        if key not in known and value != getattr(base.scratch, field):
            shape.append((key, value))
    return resolve_requested(profile, name, encoder_override=encoder, overrides=overrides + shape)


def _bases(variant: Variant) -> dict[str, str]:
    roles = {START: variant.start_from, PSEUDO: variant.pseudo and variant.pseudo.variant}
    if variant.distil is not None:
        teachers = enumerate(variant.distil.members)
        roles |= {f"{TEACHER}-{place}": name for place, name in teachers}
    return {role: name for role, name in roles.items() if name}


def _name_base(profile: Profile, request: FoldRequest, variant: Variant, name: str) -> str:
    """Return the name under which the results of a base are stored.

    ``typed-punct`` is ``typed-punct@scratch`` if the variant that builds on it uses that encoder;
    a user's file is found by its stem if the request names it too.
    """
    named = next((each for each in request.variants if Path(each).stem == name), name)
    try:
        return _resolve_base(profile, request, variant, named).name
    except VariantError:
        return name  # not a shipped variant: a name given with --as
