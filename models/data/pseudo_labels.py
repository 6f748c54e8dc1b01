"""Pseudo-labelling: train on test rows with the labels that another variant predicts.

The labels come from that variant's model of the same fold. A model of another fold was trained on
the held-out rows and would leak their labels.

Legend: M test rows, C labels, n training rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from competition.arrays import Int64s
from models.settings import PseudoSettings

RESULT_VERSION = 1
VERSION_NAME = "models.pseudo"


def choose_pseudo_rows(
    test_probs: npt.NDArray[np.floating], settings: PseudoSettings, n_train: int
) -> tuple[Int64s, Int64s]:
    """Choose the test rows predicted with the highest confidence, and their predicted labels.

    >>> probs = np.array([[0.5, 0.5], [0.04, 0.96], [0.99, 0.01]])
    >>> rows, label_ids = choose_pseudo_rows(probs, PseudoSettings(variant="typed-punct"), 4)
    >>> rows.tolist(), label_ids.tolist()
    ([2, 1], [0, 1])

    Args:
        test_probs: (M, C) probabilities predicted by the model of the same fold; rows sum to 1.
        settings: minimum confidence, and the maximum number of rows as a share of ``n_train``.
        n_train: n, the number of training rows without pseudo-labels.

    Returns:
        (k,) indices of test rows, most confident first and ties in row order, and (k,) label ids.
        Empty if no prediction reaches the minimum confidence.

    Source: Lee 2013, "Pseudo-Label: the simple and efficient semi-supervised learning method for
        deep neural networks", section on pseudo-labels (the most probable class is the label).
        Here the most confident rows are labelled once; the paper relabels all rows at each update
        and raises their weight by a schedule.
    """
    confidence = test_probs.max(axis=1, initial=0.0)
    ranked = np.argsort(-confidence, kind="stable")
    confident = ranked[confidence[ranked] >= settings.min_confidence]
    chosen = confident[: int(settings.most_share * n_train)]
    return chosen.astype(np.int64), test_probs[chosen].argmax(axis=1).astype(np.int64)
