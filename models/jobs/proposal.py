"""The commands that ``data`` recommends for this machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from competition.data.corpus import Corpus
from competition.folds.kfold import Folds, Prepared
from competition.profile import Competition
from competition.profile_language import FIRST_LANGUAGE
from models.jobs.estimate import BUNDLED, Estimate, estimate_run, write_duration
from models.jobs.request import FoldRequest, resolve_all
from models.training.hardware import describe_device

EVENING_S = 12 * 3600.0
FIRST = "tfidf-linear"

EstimateRequest = Callable[[FoldRequest], Estimate]


def propose_runs(competition: Competition, corpus: Corpus) -> list[str]:
    """Return the commands to go on with, each with the time that it takes on this machine.

    Args:
        competition: whose default list of variants is estimated; without one, the linear model.
        corpus: its rows; folds are not built for it.
    """
    profile = competition.profile
    groups = np.arange(len(corpus.train), dtype=np.int32)
    folds = Folds(np.zeros(len(corpus.train), np.int8), profile.folds.count, "")
    prepared = Prepared(competition, corpus, groups, folds)
    if not profile.defaults.variants:
        first = FoldRequest((FIRST,))
        took = write_duration(estimate_run(prepared, first, resolve_all(profile, first)).seconds)
        return [f"Next: python run.py fold {FIRST}   # about {took}; the profile lists no variants"]
    networks = [
        variant.name
        for variant in resolve_all(profile, FoldRequest())
        if variant.is_network and variant.route is None
    ]
    return choose_runs(
        lambda request: estimate_run(prepared, request, resolve_all(profile, request)),
        networks[0] if networks else None,
        is_korean=profile.language.name == FIRST_LANGUAGE,
    )


def choose_runs(estimate: EstimateRequest, network: str | None, *, is_korean: bool) -> list[str]:
    """Choose the commands by their estimates.

    Args:
        estimate: of a request.
        network: the first of the default variants that is a network for all rows.
        is_korean: the bundled encoder can read the sentences.
    """
    whole = estimate(FoldRequest())
    if whole.seconds <= EVENING_S:
        took = write_duration(whole.seconds)
        return [f"Next: python run.py fold   # about {took} on {describe_device()}"]
    took = write_duration(estimate(FoldRequest((FIRST,))).seconds)
    lines = [f"Next: python run.py fold {FIRST}   # about {took}, without a network"]
    if is_korean and network is not None:
        small = estimate(FoldRequest((network,), encoder=BUNDLED))
        if small.seconds <= 2 * EVENING_S:
            took = write_duration(small.seconds)
            lines.append(
                f"Next: python run.py fold {network} --encoder {BUNDLED}   # then, about {took}"
            )
    lines.append(
        f"Warning: the default list would take about {write_duration(whole.seconds)} on"
        f" {describe_device()}; it is meant for a GPU."
    )
    return lines
