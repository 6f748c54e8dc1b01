"""In which order variants are trained: each after those that it builds on."""

from __future__ import annotations

from collections.abc import Sequence

from competition.arrays import Say
from competition.errors import UsageError
from competition.folds.kfold import Prepared
from competition.predictions.store import open_store
from competition.profile import Profile
from models.jobs.request import FoldRequest, name_bases, resolve_bases
from models.variant import Variant


def include_bases(
    prepared: Prepared,
    request: FoldRequest,
    variants: Sequence[Variant],
    say: Say,
) -> tuple[Variant, ...]:
    """Add the variants that others build on, if results of theirs are missing."""
    competition = prepared.competition
    store = open_store(competition)
    folds = set(request.folds or range(prepared.folds.count))
    found = {variant.name: variant for variant in variants}
    waiting = list(variants)
    while waiting:
        variant = waiting.pop(0)
        for base in resolve_bases(competition.profile, request, variant):
            if base.name in found or folds <= {key.fold for key in store.keys(base.name)}:
                continue
            say(f"{variant.name} builds on {base.name}, which is trained first")
            found[base.name] = base
            waiting.append(base)
    return tuple(found.values())


def order_in_waves(
    profile: Profile, request: FoldRequest, variants: Sequence[Variant]
) -> list[list[Variant]]:
    """Order variants so that each comes after those it builds on (a topological sort, in waves).

    Variants that no other builds on are in the last wave.

    Raises:
        UsageError: some variants build on each other.
    """
    waiting = {variant.name: variant for variant in variants}
    needs = {
        variant.name: set(name_bases(profile, request, variant).values()) for variant in variants
    }
    waves: list[list[Variant]] = []
    while waiting:
        needed = set().union(*(needs[name] for name in waiting))
        last = [variant for name, variant in waiting.items() if name not in needed]
        if not last:
            raise UsageError(f"these variants build on each other: {', '.join(waiting)}")
        waves.insert(0, last)
        waiting = {name: v for name, v in waiting.items() if name in needed}
    return waves


def without_broken(
    profile: Profile,
    request: FoldRequest,
    wave: Sequence[Variant],
    broken: set[str],
    say: Say,
) -> list[Variant]:
    """Leave out variants that build on a failed one, and add them to ``broken``."""
    kept = []
    for variant in wave:
        lost = broken & set(name_bases(profile, request, variant).values())
        if lost:
            say(f"{variant.name}: skipped, because it builds on {min(lost)}, which failed")
            broken.add(variant.name)
        else:
            kept.append(variant)
    return kept
