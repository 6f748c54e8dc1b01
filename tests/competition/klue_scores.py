"""KLUE-RE's metrics by name, for tests: micro-F1 without one negative label, and AUPRC."""

from __future__ import annotations

from typing import Any

import numpy as np

from competition.scoring import bootstrap, decisions
from competition.scoring.bootstrap import Paired, Resamples
from competition.scoring.criteria import Criteria
from competition.scoring.decisions import Rule
from competition.scoring.label_shift import Cells, spread
from competition.scoring.metrics.auprc import Auprc
from competition.scoring.metrics.catalogue import METRICS, build_metric
from competition.scoring.metrics.metric import Task, mean_area, sum_counts
from competition.scoring.metrics.micro_f1 import MicroF1

KINDS = (METRICS["micro-f1"], METRICS["auprc"])
MOST_LABELS = 30


def negatives(negative_id: int | None) -> tuple[int, ...]:
    return () if negative_id is None else (negative_id,)


def criteria_of(negative_id: int | None, n_labels: int = MOST_LABELS) -> Criteria:
    task = Task(n_labels, negatives(negative_id))
    return Criteria(build_metric("micro-f1", task), build_metric("auprc", task), task)


def decide(probs: Any, negative_id: int | None, threshold: float | None) -> Any:
    return decisions.decide(probs, negatives(negative_id), Rule(threshold))


def best_threshold(probs: Any, gold: Any, negative_id: int | None) -> tuple[float | None, float]:
    criteria = criteria_of(negative_id, probs.shape[1])
    rule, score = decisions.fit_rule(
        criteria.rule, criteria.primary, (probs, gold), criteria.negative_ids
    )
    return rule.threshold, score


def count_hits(gold: Any, pred: Any, negative_id: int | None) -> Any:
    return MicroF1(negatives(negative_id)).count(gold, (np.zeros((len(gold), 0)), pred))


def micro_f1(gold: Any, pred: Any, negative_id: int | None, weights: Any = None) -> float:
    counts = count_hits(gold, pred, negative_id)
    return float(MicroF1().combine(sum_counts(counts, weights)))


def auprc_by_class(gold: Any, probs: Any, weights: Any = None) -> Any:
    return Auprc().measure_areas(gold, probs, weights)


def auprc(gold: Any, probs: Any, weights: Any = None) -> float:
    return mean_area(auprc_by_class(gold, probs, weights))


def mix_by_cells(cells: Cells, n_rows: int) -> Any:
    """Weights that match only the frequencies of strata to the test set."""
    return spread(cells, [np.ones(len(cell.rows)) for cell in cells], np.ones(n_rows))


def f1_replicates(hits: Any, resamples: Resamples, weights: Any = None) -> Any:
    return bootstrap.replicate_sums(MicroF1(), hits, resamples, weights)


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
