"""Test rows with the labels that another variant gave them: which of them to train on.

Joined to a fold's training rows. The labels come from the other variant's model of the same fold,
which never saw the fold's held-out rows; a model of another fold has, and would tell of them.

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
    """Choose the test rows that a model is surest of, and their likeliest labels.

    >>> probs = np.array([[0.5, 0.5], [0.04, 0.96], [0.99, 0.01]])
    >>> rows, label_ids = choose_pseudo_rows(probs, PseudoSettings(variant="typed-punct"), 4)
    >>> rows.tolist(), label_ids.tolist()
    ([2, 1], [0, 1])

    Args:
        test_probs: (M, C) probabilities by the model of the same fold; rows sum to 1.
        settings: the least confidence, and the most rows as a share of ``n_train``.
        n_train: n, the rows that the model is trained on without these.

    Returns:
        (k,) places of test rows, the surest first and ties in their order, and (k,) label ids.
        There are none when the model is nowhere sure enough.

    Source: Lee 2013, "Pseudo-Label: the simple and efficient semi-supervised learning method for
        deep neural networks", section on pseudo-labels (the likeliest class is the label). We take
        the surest rows once, where the paper labels all of them anew at each update and raises
        their weight by a schedule.
    """
    confidence = test_probs.max(axis=1, initial=0.0)
    ranked = np.argsort(-confidence, kind="stable")
    sure = ranked[confidence[ranked] >= settings.min_confidence]
    chosen = sure[: int(settings.most_share * n_train)]
    return chosen.astype(np.int64), test_probs[chosen].argmax(axis=1).astype(np.int64)
