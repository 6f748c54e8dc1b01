"""In which order jobs start: the longest first, so that none is left to run alone at the end.

With jobs of unequal length and many of them at a time, the last one to start decides when all are
done. Starting the longest first ends at most a third later than the best order could (Graham 1969).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from models.data.batches import open_tokenized
from models.jobs.encoder_size import EMBEDDING, measure_encoder, read_shapes
from models.jobs.spec import JobSpec, NetworkSpec
from models.variant import LINEAR, MLP

NGRAM_OPERATIONS = {LINEAR: 1e8, MLP: 2e8}  # for each training row: docs/experiments.md
BACKWARD = 2  # times the operations of a forward pass


def order_longest_first(specs: Iterable[JobSpec]) -> list[JobSpec]:
    """Return jobs by decreasing work; jobs of equal work stay in their order."""
    return sorted(specs, key=estimate_work, reverse=True)


def estimate_work(spec: JobSpec) -> float:
    """Return about how many operations a job takes: right relative to others, not in itself."""
    rows, network = spec.rows, spec.network
    if network is None:
        return NGRAM_OPERATIONS[spec.variant.learner] * len(rows.train_rows)
    regularise = spec.variant.regularise
    passes = 2 if regularise.r_drop > 0 or regularise.adversarial != "none" else 1
    trained = passes * len(rows.train_rows) * spec.variant.train.epochs
    predicted = len(rows.heldout_rows) + len(rows.test_rows)
    weights = _count_multiplied(spec, network)
    return (
        2 * weights * _mean_tokens(network.tokens["test"]) * ((1 + BACKWARD) * trained + predicted)
    )


def _count_multiplied(spec: JobSpec, network: NetworkSpec) -> float:
    """Return how many weights every token is multiplied with."""
    if not network.source.has_weights:
        return measure_encoder(spec.variant).multiplied
    return _count_in_files(network.source.path) or measure_encoder(spec.variant).multiplied


@cache
def _count_in_files(folder: Path) -> float:
    shapes = read_shapes(folder)
    return sum(math.prod(s) for name, s in shapes.items() if not EMBEDDING.search(name))


@cache
def _mean_tokens(folder: Path) -> float:
    """Return how many tokens a row has on average."""
    offsets = open_tokenized(folder).offsets
    return max(1.0, float(offsets[-1]) / max(1, len(offsets) - 1))
