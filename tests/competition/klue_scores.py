"""KLUE-RE's metrics by name, for tests: micro-F1 without one negative label, and AUPRC."""

from __future__ import annotations

from typing import Any

import numpy as np

from competition.scoring import bootstrap, decisions
from competition.scoring.bootstrap import Paired, Resamples
from competition.scoring.criteria import Criteria, default_criteria
from competition.scoring.decisions import Rule
from competition.scoring.metrics import micro_f1 as micro
from competition.scoring.metrics.catalogue import METRICS

KINDS = (METRICS["micro-f1"], METRICS["auprc"])
MOST_LABELS = 30


def negatives(negative_id: int | None) -> tuple[int, ...]:
    return () if negative_id is None else (negative_id,)


def criteria_of(negative_id: int | None, n_labels: int = MOST_LABELS) -> Criteria:
    return default_criteria(n_labels, negatives(negative_id))


def decide(probs: Any, negative_id: int | None, threshold: float | None) -> Any:
    return decisions.decide(probs, negatives(negative_id), Rule(threshold))


def best_threshold(probs: Any, gold: Any, negative_id: int | None) -> tuple[float | None, float]:
    return decisions.best_threshold(probs, gold, negatives(negative_id))


def count_hits(gold: Any, pred: Any, negative_id: int | None) -> Any:
    return micro.count_hits(gold, pred, negatives(negative_id))


def micro_f1(gold: Any, pred: Any, negative_id: int | None, weights: Any = None) -> float:
    return micro.micro_f1(gold, pred, negatives(negative_id), weights)


def f1_replicates(hits: Any, resamples: Resamples, weights: Any = None) -> Any:
    return bootstrap.replicate_sums(micro.MicroF1(()), hits, resamples, weights)


def auprc_replicates(gold: Any, probs: Any, resamples: Resamples, weights: Any = None) -> Any:
    metric = criteria_of(None).secondary
    assert metric is not None
    return bootstrap.replicate(metric, gold, (probs, gold), resamples, weights)


def paired_f1(
    gold: Any, preds: Any, negative_id: int | None, resamples: Resamples, weights: Any = None
) -> Paired:
    nothing = np.zeros((len(gold), 0))
    systems = (nothing, preds[0]), (nothing, preds[1])
    return bootstrap.compare_pair(
        criteria_of(negative_id).primary, gold, systems, resamples, weights
    )


def paired_auprc(gold: Any, probs: Any, resamples: Resamples, weights: Any = None) -> Paired:
    metric = criteria_of(None).secondary
    assert metric is not None
    systems = (probs[0], gold), (probs[1], gold)
    return bootstrap.compare_pair(metric, gold, systems, resamples, weights)
