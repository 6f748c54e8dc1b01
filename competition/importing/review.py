"""Review imported predictions: their scores, and warnings about them.

Used by ``importing``: they are scored on their out-of-fold rows, checked for probabilities that
lose score, and compared with the members in the store.

Legend: N train rows, M test rows, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from competition.errors import HarnessError
from competition.folds.kfold import Prepared
from competition.importing.alignment import find_misaligned
from competition.predictions.members import Member, read_member
from competition.predictions.store import Result, Store
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide
from competition.scoring.degenerate import find_waste

MAX_OTHERS = 8
"""The largest number of members that an import is compared with."""


def score_results(
    results: Iterable[Result], prepared: Prepared
) -> dict[tuple[str, int], dict[str, float]]:
    """Return scores as people read them, by the key of each metric, over the folds of each seed.

    Labels are the most probable ones.
    """
    criteria, train = build_criteria(prepared.competition.profile), prepared.corpus.train
    row_of = {row_id: row for row, row_id in enumerate(train.ids)}
    by_seed: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        by_seed.setdefault((result.key.variant, result.key.seed), []).append(result)
    scores = {}
    for key, parts in by_seed.items():
        probs = np.concatenate([part.oof_probs for part in parts])
        ids = np.concatenate([part.oof_ids for part in parts])
        gold = train.gold[np.array([row_of[row_id] for row_id in ids], dtype=np.intp)]
        scores[key] = criteria.show(criteria.score(gold, (probs, decide(probs))))
    return scores


def compare_with_members(names: Sequence[str], store: Store, prepared: Prepared) -> list[str]:
    """Return warnings about imported members, alone and compared with those in the store."""
    own = [member for name in names if (member := _find_member(store, name, prepared)) is not None]
    notes = []
    for member in own:
        for probs, rows in ((member.oof, "out-of-fold rows"), (member.test[0], "test rows")):
            read = probs[~np.isnan(probs[:, 0])]
            if (waste := find_waste(read)) is not None:
                notes.append(f"Warning: {member.name}, {rows}: {waste.found}; {waste.remedy}.")
                break
    others: list[Member] = []
    for name in store.variants():
        if name not in names and len(others) < MAX_OTHERS:
            other = _find_member(store, name, prepared)
            others += [other] if other is not None else []
    found = find_misaligned([*own, *others], prepared, names)
    return notes + [f"Warning: {each.text}." for each in found]


def _find_member(store: Store, name: str, prepared: Prepared) -> Member | None:
    """Return a variant's member; None if it is incomplete or does not belong here."""
    try:
        return read_member(store, name, prepared)
    except HarnessError:
        return None
