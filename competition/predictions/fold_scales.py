"""A warning where the folds of a variant give probabilities on different scales.

Beside ``variant_scores``, which shows it. Rows of all folds are ranked together for AUPRC, so that
folds of which some are calibrated and others are not lose against each fold alone.

Legend: N rows, C labels.
"""

from __future__ import annotations

import numpy as np

from competition.arrays import Floats, Ints
from competition.scoring.criteria import Criteria

MIN_SCALE_GAP = 0.005  # of the score, below that of every fold, for a warning


def warn_of_scales(criteria: Criteria, gold: Ints, probs: Floats, fold_of: Ints) -> str:
    """Return a warning if rows of all folds together are ranked worse than those of every fold.

    Then the folds' probabilities are on different scales, for example because only some are
    calibrated. Only labels that every fold has are compared.

    Args:
        criteria: the metrics; one of them is a mean of labels' curves, or there is no warning.
    """
    metric = criteria.curved
    folds = np.unique(fold_of)
    if metric is None or len(folds) < 2:
        return ""
    areas = np.stack([metric.measure_areas(gold[fold_of == f], probs[fold_of == f]) for f in folds])
    common = ~np.isnan(areas).any(axis=0)
    if not common.any():
        return ""
    pooled = float(metric.measure_areas(gold, probs)[common].mean())
    lowest, highest = (float(end(areas[:, common].mean(axis=1))) for end in (np.min, np.max))
    if pooled >= lowest - MIN_SCALE_GAP:
        return ""
    title, write = metric.kind.title, metric.kind.write
    return (
        f"{title} of all folds together is {write(pooled)}, below that of every fold"
        f" ({write(lowest)}–{write(highest)}): their probabilities are on different scales"
    )
