"""How variants stand: out-of-fold scores of what the store holds, and what is still missing.

Stands between the store and those who show it: ``fold`` when it is done, and the board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from competition.console import Column, Table
from competition.errors import HarnessError, PredictionsError
from competition.folds.kfold import Prepared
from competition.predictions.members import (
    TUNED_ELSEWHERE,
    Member,
    Store,
    find_missing_folds,
    group_specialists,
    is_tuned_elsewhere,
    read_member,
    read_members,
)
from competition.scoring.bootstrap import (
    AUPRC_REPLICATES,
    BOOTSTRAP_SEED,
    F1_REPLICATES,
    Resamples,
    auprc_interval,
    build_resamples,
    f1_interval,
)
from competition.scoring.metrics import auprc, decide, micro_f1, weights_for_negative_share


def build_standings(prepared: Prepared, names: Sequence[str]) -> Table:
    """Score the named variants on the rows they answer for, each with what it still lacks."""
    profile = prepared.competition.profile
    share = profile.metrics.shifted_negative_share
    shifted = [] if share is None else [Column("shifted_f1", f"F1 at {share:.0%}", "score")]
    columns = [
        Column("variant", "variant"),
        Column("done", "folds"),
        Column("micro_f1", "OOF F1", "score"),
        Column("micro_f1_interval", "95%", "interval"),
        *shifted,
        Column("auprc", "AUPRC", "score"),
        Column("auprc_interval", "95%", "interval"),
        Column("rows_per_s", "rows/s", "count"),
    ]
    scorer = _Scorer(Store(prepared.competition.oof_dir, profile.labels), prepared)
    rows = [scorer.score_variant(name) for name in names]
    rows += scorer.score_routes({row["variant"]: row["route"] for row in rows if row["route"]})
    tunes = "; blend tunes a threshold too" if profile.negative_label is not None else ""
    notes = [f"Scored on out-of-fold rows by the most probable label{tunes}."]
    if share is not None:
        negative = profile.negative_label
        notes.append(f"F1 at {share:.0%}: reweighted to that share of {negative}, as in the test.")
    parts = [row["variant"] for row in rows if row["rows"] < len(prepared.corpus.train)]
    if parts:
        notes.append(f"On the rows of their route only: {', '.join(parts)}.")
    many = [row for row in rows if "," in row["seeds"]]
    notes += [f"{row['variant']}: seeds {row['seeds']}" for row in many]
    notes += [f"{row['variant']} lacks {row['lacks']}" for row in rows if row["lacks"]]
    notes += [f"{row['variant']}: {row['why']}" for row in rows if row["why"]]
    for row in rows:
        if row.get("tuned_on"):
            folds = ", ".join(map(str, row["tuned_on"]))
            told = f"was tuned on folds {folds}: they flatter it."
            told = TUNED_ELSEWHERE if row["is_tuned_elsewhere"] else told
            notes.append(f"{row['variant']} {told}")
    return Table("variants", "Variants", columns, rows, notes)


@dataclass(frozen=True)
class _Scorer:
    """Scores members on the rows they answer for."""

    store: Store
    prepared: Prepared

    def score_variant(self, name: str) -> dict[str, Any]:
        n_folds = self.prepared.folds.count
        missing, own = find_missing_folds(self.store, name, n_folds), self._read_own(name)
        row: dict[str, Any] = {
            "variant": name,
            "why": own.get("why", ""),
            "tuned_on": (own.get("tune") or {}).get("folds", []),
            "is_tuned_elsewhere": is_tuned_elsewhere(own, self.prepared.folds.hash),
            "seeds": ", ".join(map(str, missing)),
            "done": f"{len(self.store.keys(name))}/{n_folds * max(1, len(missing))}",
            "rows_per_s": self._read_speed(name),
            "lacks": _describe_missing(missing) if missing else "every fold",
            "route": None,
            "rows": len(self.prepared.corpus.train),
        }
        if all(missing.values()):
            return row
        try:
            member = read_member(self.store, name, self.prepared)
        except HarnessError as error:
            return {**row, "lacks": f"what a member needs: {error}"}
        return {**row, "route": member.route, **self._score(member)}

    def score_routes(self, route_of: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return a row for each set of specialists that answer for every row together.

        Args:
            route_of: the route and part of each specialist, such as ``length:short``.
        """
        rows = []
        for name, parts in group_specialists(route_of).items():
            try:
                (member,), _ = read_members(self.store, parts, self.prepared)
            except HarnessError:
                continue  # a part is lacking, which its own row says
            seeds = ", ".join(map(str, member.seeds))
            row = {"variant": name, "why": member.why, "seeds": seeds, "lacks": ""}
            rows.append(row | self._score(member))
        return rows

    def _score(self, member: Member) -> dict[str, Any]:
        profile = self.prepared.competition.profile
        covered = ~np.isnan(member.oof[:, 0])
        gold, probs = self.prepared.corpus.train.gold[covered], member.oof[covered]
        pred = decide(probs, profile.negative_id, None)
        share = profile.metrics.shifted_negative_share
        shifted = None  # also where a specialist's rows are all, or never, negative
        n_negative = np.count_nonzero(gold == profile.negative_id)
        if share is not None and profile.negative_id is not None and 0 < n_negative < len(gold):
            weights = weights_for_negative_share(gold, profile.negative_id, share)
            shifted = micro_f1(gold, pred, profile.negative_id, weights)
        resamples = self._resample(covered, F1_REPLICATES)
        fewer = self._resample(covered, AUPRC_REPLICATES)
        return {
            "rows": int(covered.sum()),
            "micro_f1": micro_f1(gold, pred, profile.negative_id),
            "micro_f1_interval": f1_interval(gold, pred, profile.negative_id, resamples),
            "shifted_f1": shifted,
            "auprc": auprc(gold, probs),
            "auprc_interval": auprc_interval(gold, probs, fewer),
        }

    def _resample(self, covered: np.ndarray[Any, np.dtype[np.bool_]], replicates: int) -> Resamples:
        groups = self.prepared.groups[covered]
        return build_resamples(groups, replicates=replicates, seed=BOOTSTRAP_SEED)

    def _read_own(self, name: str) -> Mapping[str, Any]:
        """Return what a variant's results say of it, empty where they are damaged."""
        try:
            header = next(map(self.store.read_header, self.store.keys(name)), None)
        except PredictionsError:
            return {}  # the row's ``lacks`` names the damaged file
        return header.variant if header else {}

    def _read_speed(self, name: str) -> int | None:
        """Return the mean rate over the jobs that say one; a team-mate's may not."""
        rates = []
        for key in self.store.keys(name):
            try:
                rate = self.store.read_run(key).get("rows_per_s")
            except PredictionsError:
                continue
            if isinstance(rate, int | float):
                rates.append(rate)
        return round(sum(rates) / len(rates)) if rates else None


def _describe_missing(missing: Mapping[int, list[int]]) -> str:
    """Write what seeds lack: ``seed 43: folds 3, 4``."""
    parts = [
        f"seed {seed}: folds {', '.join(map(str, folds))}"
        for seed, folds in missing.items()
        if folds
    ]
    return "; ".join(parts)
