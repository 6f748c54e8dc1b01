"""Members of an ensemble: the out-of-fold and test predictions of each variant.

``Store`` keeps one file per job (``competition.predictions.store``). ``read_members`` joins the
files of each variant to one member and rejects files that do not belong together.

Legend: N train rows, M test rows, C labels, K folds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from competition.arrays import Bools, Probs
from competition.errors import FoldsError, HarnessError, PredictionsError, UsageError
from competition.folds.kfold import Prepared
from competition.predictions.belonging import (
    AnsweredRows,
    check_belongs,
    get_recipe,
    place_rows,
)
from competition.predictions.log_mean import LogSpaceMean
from competition.predictions.rerun import advise_training
from competition.predictions.store import Header, Result, ResultKey, Store
from competition.threads import map_in_threads

AVERAGE = "one average"
TUNED_ELSEWHERE = "was tuned on rows of other folds; no fold here is free of it."
ROUTE_PREFIX = "route:"  # before the name of a member that is several specialists


@dataclass(frozen=True, eq=False)
class Member:
    """A member of an ensemble: the predictions of one variant, or of the specialists of a route.

    oof (N, C) float32 in the order of the train rows, test (K, M, C) float32 in the order of the
    test rows. Rows that a specialist does not predict are NaN, and ``covers_all`` is False.
    ``test_is_average``: the K test predictions are the same imported average. ``parts``: the
    variant itself, or the specialists that were joined. ``tuned_on``: the folds on which its
    hyperparameters were chosen, whose scores are too good; if these belonged to another split
    (``is_tuned_elsewhere``), no fold is free of them.
    """

    name: str
    oof: Probs
    test: Probs
    seeds: tuple[int, ...]
    route: str | None
    recipe: str
    covers_all: bool
    why: str
    test_is_average: bool = False
    parts: tuple[str, ...] = ()
    tuned_on: tuple[int, ...] = ()
    is_tuned_elsewhere: bool = False

    @property
    def covered(self) -> Bools:
        """Return (N,) which train rows it predicts."""
        return ~np.isnan(self.oof[:, 0])

    @property
    def n_bytes(self) -> int:
        """Return the memory that its predictions take."""
        return self.oof.nbytes + self.test.nbytes

    @property
    def test_covered(self) -> Bools:
        """Return (M,) which test rows it predicts."""
        return ~np.isnan(self.test[0, :, 0])


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A variant that cannot be a member, and the reason."""

    name: str
    reason: str


def find_missing_folds(store: Store, variant: str, n_folds: int) -> dict[int, list[int]]:
    """Map each seed of a variant to its missing folds ([] if complete)."""
    done: dict[int, set[int]] = {}
    for key in store.keys(variant):
        done.setdefault(key.seed, set()).add(key.fold)
    return {seed: sorted(set(range(n_folds)) - folds) for seed, folds in sorted(done.items())}


def read_member(
    store: Store, variant: str, prepared: Prepared, *, seeds: Sequence[int] | None = None
) -> Member:
    """Join the files of one variant; average the seeds that have all folds in log space.

    Args:
        seeds: use only these; None uses every seed with all folds.

    Raises:
        PredictionsError: no seed has all folds, or the files do not belong together or do not
            contain exactly the expected rows.
    """
    headers = read_headers(store, store.keys(variant))
    if not headers:
        raise PredictionsError(
            f"{variant} has no results; {advise_training(store.directory / variant)}"
        )
    header, answered = headers[0][1], check_belongs(headers, prepared)
    missing = find_missing_folds(store, variant, prepared.folds.count)
    complete = [seed for seed, folds in missing.items() if not folds]
    if not complete:
        lacking = "; ".join(f"seed {seed} lacks folds {_list(f)}" for seed, f in missing.items())
        raise PredictionsError(
            f"{variant}: {lacking}; {advise_training(store.directory / variant)}"
        )
    used = complete if seeds is None else [seed for seed in complete if seed in seeds]
    on_train, on_test = LogSpaceMean(), LogSpaceMean()
    for seed in used:
        oof, test = _read_seed(store, header, seed, prepared, answered)
        on_train.add(oof)
        on_test.add(test)
    return Member(
        name=variant,
        oof=on_train.compute(),
        test=on_test.compute(),
        seeds=tuple(used),
        route=header.route,
        recipe=header.recipe,
        covers_all=bool(answered.train.all() and answered.test.all()),
        why=str(header.variant.get("why", "")),
        test_is_average=is_average(header),
        parts=(variant,),
        tuned_on=tuple((header.variant.get("tune") or {}).get("folds", ())),
        is_tuned_elsewhere=is_tuned_elsewhere(header.variant, prepared.folds.hash),
    )


def is_tuned_elsewhere(variant: Mapping[str, Any], folds_hash: str) -> bool:
    """Return whether a variant was tuned on another split than the one with this hash.

    A variant file of an older ``tune`` without a hash counts as tuned on this split.
    """
    tuned_hash = (variant.get("tune") or {}).get("folds_hash")
    return bool(tuned_hash) and tuned_hash != folds_hash


def is_average(header: Header) -> bool:
    """Return whether a result's test predictions are an imported average of all folds."""
    imported = header.variant.get("imported")
    return isinstance(imported, dict) and imported.get("test") == AVERAGE


def read_members(
    store: Store, variants: Sequence[str], prepared: Prepared
) -> tuple[list[Member], list[LeftOut]]:
    """Read the members of a blend: the given variants, or every complete one if none is given.

    Specialists of one route are joined to one member (``route:length``) if their parts exactly
    partition the rows. If no variant is given, several sets of specialists are separated by their
    names (``group_specialists``), and each set is a member.

    Returns:
        The members sorted by name, joined routes last, and the variants that were left out.

    Raises:
        PredictionsError: a given variant cannot be a member.
    """
    repeated = [name for name, count in Counter(variants).items() if count > 1]
    if repeated:
        raise UsageError(f"{repeated[0]} was given twice; give each variant once")
    members: list[Member] = []
    left_out: list[LeftOut] = []
    specialists: dict[str, Member] = {}

    def read(name: str) -> Member | HarnessError:
        try:
            return read_member(store, name, prepared)
        except (PredictionsError, FoldsError) as error:
            return error

    names = sorted(variants or store.variants())
    for name, member in zip(names, map_in_threads(read, names), strict=True):
        if isinstance(member, HarnessError):
            if variants:
                raise member
            left_out.append(LeftOut(name, str(member)))
            continue
        if member.route is None:
            members.append(member)
        else:
            specialists[name] = member
    route_of = {name: str(member.route) for name, member in specialists.items()}
    groups = group_specialists(route_of, by_name=not variants)
    for joined_name, names in groups.items():
        parts = [specialists.pop(name) for name in names]
        try:
            members.append(_join_route(store, joined_name, parts, prepared))
        except PredictionsError as error:
            if variants:
                raise
            left_out.extend(LeftOut(part.name, str(error)) for part in parts)
    return members, left_out


def group_specialists(route_of: Mapping[str, str], *, by_name: bool = True) -> dict[str, list[str]]:
    """Group the specialists that form one member; a group may be incomplete.

    If a route has one specialist for each part, they form a group whatever their names. If a part
    has several, specialists whose names differ only in the part form a group.

    Args:
        route_of: the route and part of each specialist, such as ``length:short``.
        by_name: group by name; if False, all specialists of a route form one group.

    Returns:
        The specialists of each group, by the name of the joined member.

    >>> parts = ("short", "medium", "long")
    >>> route_of = {part + end: f"length:{part}" for end in ("", "-cold") for part in parts}
    >>> group_specialists(route_of)["route:length-cold"]
    ['short-cold', 'medium-cold', 'long-cold']
    >>> list(group_specialists({"a": "length:short", "b": "length:medium"}))
    ['route:length']
    """
    routes: dict[str, dict[str, str]] = {}
    for variant, route in route_of.items():
        whole, _, part = route.partition(":")
        routes.setdefault(whole, {})[variant] = part
    groups: dict[str, list[str]] = {}
    for whole, part_of in routes.items():
        named: dict[str, list[str]] = {}
        for variant, part in part_of.items():
            named.setdefault(variant.replace(part, whole, 1), []).append(variant)
        is_repeated = len(set(part_of.values())) < len(part_of)
        if not by_name or (len(named) > 1 and not is_repeated):
            named = {whole: list(part_of)}
        groups |= {f"{ROUTE_PREFIX}{name}": variants for name, variants in named.items()}
    return groups


def find_specialists(store: Store, name: str) -> tuple[str, ...]:
    """Return the variants of a store that form a joined member, such as ``route:length``.

    If no set of specialists has this name, return all specialists of the route.
    """
    route_of = {}
    for variant in store.variants():
        try:
            header = store.read_header(store.keys(variant)[0])
        except PredictionsError:
            continue  # reported when the variant is read by name
        if header is not None and header.route is not None:
            route_of[variant] = header.route
    groups = group_specialists(route_of)
    if name not in groups:
        groups = group_specialists(route_of, by_name=False)
    return tuple(groups.get(name, ()))


def read_headers(store: Store, keys: Sequence[ResultKey]) -> list[tuple[Path, Header]]:
    """Return the file of each key with its header.

    Raises:
        PredictionsError: a file disappeared, or is no result.
    """
    found = []
    for key in keys:
        path, header = store.path(key), store.read_header(key)
        if header is None:
            raise PredictionsError(f"{path} disappeared while it was read; run this command again")
        found.append((path, header))
    return found


def read_unchanged(store: Store, key: ResultKey, header: Header) -> Result:
    """Read a result and check that it still matches the header of its variant.

    Raises:
        PredictionsError: the file was replaced by a different result in the meantime.
    """
    result = store.read(key)
    if _made_of(result) != _made_of(header):
        raise PredictionsError(
            f"{store.path(key)} was replaced by a result of another recipe, data or folds while"
            " the variant was read; run this command again when the training is done"
        )
    return result


def _made_of(header: Header) -> tuple[str | None, ...]:
    return (*get_recipe(header), header.data_hash, header.folds_hash)


def _read_seed(
    store: Store, header: Header, seed: int, prepared: Prepared, answered: AnsweredRows
) -> tuple[Probs, Probs]:
    """Return one seed's oof (N, C) and test (K, M, C) probabilities in the order of the corpus."""
    train, test = prepared.corpus.train, prepared.corpus.test
    n_folds, n_labels = prepared.folds.count, len(store.labels)
    oof = np.full((len(train), n_labels), np.nan, dtype=np.float32)
    on_test = np.full((n_folds, len(test), n_labels), np.nan, dtype=np.float32)
    train_row = {row_id: row for row, row_id in enumerate(train.ids)}
    test_row = {row_id: row for row, row_id in enumerate(test.ids)}
    for fold in range(n_folds):
        key = ResultKey(header.key.variant, seed, fold)
        result = read_unchanged(store, key, header)
        in_fold = answered.train & (prepared.folds.fold_of == fold)
        where = f"{store.path(key)}, oof rows"
        oof[place_rows(result.oof_ids, train_row, in_fold, where)] = result.oof_probs
        where = f"{store.path(key)}, test rows"
        on_test[fold, place_rows(result.test_ids, test_row, answered.test, where)] = (
            result.test_probs
        )
    return oof, on_test


def _join_route(store: Store, name: str, parts: list[Member], prepared: Prepared) -> Member:
    """Join specialists whose parts exactly partition the rows, using their common seeds.

    The arrays of the first part are filled with the rows of the others: it is not to be used again.
    """
    route = str(parts[0].route).partition(":")[0]
    names = _list(part.name for part in parts)
    seeds = sorted(set.intersection(*(set(part.seeds) for part in parts)))
    if not seeds:
        raise PredictionsError(
            f"route {route}: {names} have no seed in common; run: python run.py fold"
            f" {' '.join(part.name for part in parts)} --seeds {parts[0].seeds[0]}"
        )
    answers = [(part.covered, part.test_covered) for part in parts]
    for which in (0, 1):
        times = np.sum([answer[which] for answer in answers], axis=0)
        if (times > 1).any():
            raise PredictionsError(
                f"route {route}: {names} predict {(times > 1).sum()} rows twice; choose one"
                " specialist for each part"
            )
        if (times < 1).any():
            raise PredictionsError(
                f"route {route}: {names} leave {(times < 1).sum()} rows without a prediction; a"
                " specialist can only be blended together with the others of its route"
            )
    parts = [
        p if p.seeds == tuple(seeds) else read_member(store, p.name, prepared, seeds=seeds)
        for p in parts
    ]
    joined = parts[0]
    for part, (on_train, on_test) in zip(parts[1:], answers[1:], strict=True):
        joined.oof[on_train] = part.oof[on_train]
        joined.test[:, on_test] = part.test[:, on_test]
    recipe = hashlib.sha256("\n".join(sorted(part.recipe for part in parts)).encode()).hexdigest()
    return replace(
        joined,
        name=name,
        route=route,
        recipe=recipe,
        covers_all=True,
        tuned_on=tuple(sorted({fold for part in parts for fold in part.tuned_on})),
        is_tuned_elsewhere=any(part.is_tuned_elsewhere for part in parts),
        why=" + ".join(part.name for part in parts),
        parts=tuple(part.name for part in parts),
    )


def _list(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)
