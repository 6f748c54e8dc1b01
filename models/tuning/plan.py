"""Plan a hyperparameter search: variant, search space, folds and study.

All checks of a request happen here, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from competition.errors import UsageError, VariantError
from competition.files import check_name
from competition.folds.kfold import Prepared
from competition.options import check_at_least, check_seeds
from competition.predictions.store import ResultKey, open_store
from competition.profile import STUDY_JOURNAL
from competition.scoring.criteria import BOTH, Criteria, build_criteria
from models.data.pool import build_pool
from models.jobs.bases import Bases
from models.jobs.engines.engine import HERE, EngineChoice
from models.jobs.request import FoldRequest, check_variant, name_bases, resolve_requested
from models.network.encoder_source import identify_folder
from models.tuning.space import Dimension, Found, check_space, choose_space, place_variant
from models.tuning.storage import parse_storage
from models.tuning.study import SeededByPlace, StudyPlan
from models.variant import SCRATCH, Variant, fingerprint

BY_NAME = ("clean.corrections", "extra_train", "start_from", "pseudo.variant", "distil.members")
"""Settings that name files (the first two) or stored results, which may change under their name."""


@dataclass(frozen=True)
class TrialScores:
    """Scores of the most probable labels and of probabilities, on the held-out rows so far.

    ``scores`` are by the key of each metric, higher being better.
    """

    criteria: Criteria
    scores: Mapping[str, float]

    def value(self, objective: str) -> float:
        """Return what is maximised: one metric's score, or the mean of both."""
        wanted = [
            self.scores[kind.key] for kind in self.criteria.kinds if objective in (kind.name, BOTH)
        ]
        return sum(wanted) / len(wanted)


@dataclass(frozen=True)
class TuneRequest:
    """Options of ``tune``; without an objective it is the primary metric."""

    variant: str
    search: tuple[str, ...] = ()
    folds: tuple[int, ...] = (0,)
    trials: int = 20
    objective: str | None = None
    encoder: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    storage: str | None = None
    study: str | None = None
    dead_after_s: float = 120.0
    write: Path | None = None
    engine: EngineChoice = HERE
    stop_after_s: float | None = None

    def __post_init__(self) -> None:
        """Check the seed and the number of trials.

        Raises:
            UsageError: one is out of range.
        """
        check_seeds("--seed", [self.seed])
        check_at_least("--trials", self.trials, 1)


@dataclass(frozen=True)
class Search:
    """A checked request: all that is known before the first trial."""

    prepared: Prepared
    request: TuneRequest
    base: Variant
    space: tuple[Dimension, ...]
    plan: StudyPlan
    folder: Path

    @property
    def criteria(self) -> Criteria:
        """Return the metrics."""
        return build_criteria(self.prepared.competition.profile)

    def resolve(self, found: Found, name: str) -> Variant:
        """Resolve the variant with some hyperparameters."""
        return _resolve(self.prepared, self.request, found, name)


def _resolve(
    prepared: Prepared, request: TuneRequest, found: Found = (), name: str | None = None
) -> Variant:
    return resolve_requested(
        prepared.competition.profile,
        request.variant,
        encoder_override=request.encoder,
        overrides=(*request.overrides, *found),
        save_as=name,
    )


def plan_search(prepared: Prepared, request: TuneRequest) -> Search:
    """Resolve and check a request, and name its study.

    Raises:
        UsageError, VariantError: the request is invalid.
    """
    competition = prepared.competition
    criteria = build_criteria(competition.profile)
    objective = request.objective or criteria.primary.kind.name
    if objective not in criteria.objectives:
        raise UsageError(f"--objective {objective!r}: use {', '.join(criteria.objectives)}")
    folds = tuple(sorted(set(request.folds)))
    beyond = [fold for fold in folds if not 0 <= fold < prepared.folds.count]
    if beyond or not folds:
        raise UsageError(f"--folds: the folds are 0 to {prepared.folds.count - 1}")
    check_variant(open_store(competition), request.variant)
    base = _resolve(prepared, request)

    def resolve(found: Found) -> Variant:
        return _resolve(prepared, request, found, "probe")

    fixed = {key for key, _ in request.overrides}
    space = choose_space(request.search, base, resolve, fixed=fixed)
    made_from = {
        "variant": base.recipe(),
        "seeds": list(base.seeds),
        "search": [str(each) for each in space],
        "folds": list(folds),
        "objective": objective,
        "seed": request.seed,
        "data": prepared.corpus.hash,
        "folds_hash": prepared.folds.hash,
    }
    if base.clean.corrections or base.extra_train:  # files enter by content, not by name
        made_from["files"] = build_pool(prepared, base).made_of
    name = check_name(request.study or f"{base.name}-{fingerprint(made_from)[:8]}")
    folder = competition.tune_dir / name
    sampler = SeededByPlace(
        request.seed,
        place_variant(space, base),
        {each.key: each.distribution() for each in space},
    )
    plan = StudyPlan(
        name=name,
        storage=parse_storage(request.storage, folder / STUDY_JOURNAL),
        made_from=made_from,
        content=_describe_content(prepared, request, base, _list_choices(space, resolve), folds),
        sampler=sampler,
        trials=request.trials,
        dead_after_s=request.dead_after_s,
    )
    check_space(space, resolve)
    checked = replace(request, folds=folds, objective=objective)
    return Search(prepared, checked, base, space, plan, folder)


def _list_choices(
    space: Sequence[Dimension], resolve: Callable[[Found], Variant]
) -> dict[str, Variant]:
    """Return the variant with each choice that names results or files, by its text."""
    found = {}
    for each in space:
        for text in each.edges() if each.key in BY_NAME else ():
            with suppress(VariantError):  # left to ``check_space``
                found[f"{each.key}={text}"] = resolve(((each.key, each.read(text)),))
    return found


def _describe_content(
    prepared: Prepared,
    request: TuneRequest,
    base: Variant,
    choices: Mapping[str, Variant],
    folds: Sequence[int],
) -> dict[str, Any]:
    """Return the identity of the encoder, of the results that trials build on, and of files.

    Raises:
        UsageError, PredictionsError: a result to build on is missing, or of other data.
    """
    fold_request = FoldRequest(
        variants=(request.variant,), encoder=request.encoder, overrides=request.overrides
    )
    content: dict[str, Any] = {}
    if base.is_network and base.encoder != SCRATCH:
        content["encoder"] = identify_folder(base.encoder)
    results = {}
    for variant in (base, *choices.values()):
        names = name_bases(prepared.competition.profile, fold_request, variant)
        bases = Bases(prepared, base.name, names)
        for seed, fold in product(base.seeds, folds):
            for header in next(bases.find(ResultKey(base.name, seed, fold))).values():
                key = header.key
                results[f"{key.variant}/s{key.seed}-f{key.fold}"] = header.fingerprint
    content["results"] = results
    content["files"] = {
        text: build_pool(prepared, variant).made_of
        for text, variant in choices.items()
        if text.startswith(BY_NAME[:2])
    }
    return {key: value for key, value in content.items() if value}
