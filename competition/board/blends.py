"""Read the blends of a competition and build their table.

The board's other tables take a submission's nested estimate from ``BlendFile``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from competition.blend.search import BEST_SINGLE, BLEND
from competition.console import Column, Table
from competition.files import sha256_of
from competition.folds.kfold import Prepared
from competition.predictions.store import open_store
from competition.profile import Competition
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from competition.submission.record import (
    ScoreEstimate,
    SubmissionRecord,
    SystemEstimate,
    read_submission,
)

NO_ESTIMATE = SystemEstimate()


@dataclass(frozen=True)
class BlendFile:
    """A submission's CSV and the content of its JSON.

    Attributes:
        path: of the CSV.
        sha256: of the CSV.
        record: content of the JSON; None if it is absent or invalid.
        fault: why the JSON does not apply to this CSV, or None.
    """

    path: Path
    sha256: str
    record: SubmissionRecord | None
    fault: str | None = None

    @property
    def name(self) -> str:
        """Return the submission's name."""
        return self.path.stem

    @property
    def fitted(self) -> SystemEstimate:
        """Return the blend's scores on the rows it was tuned on."""
        return NO_ESTIMATE if self.record is None else self.record.fitted.get(BLEND, NO_ESTIMATE)

    @property
    def nested(self) -> SystemEstimate:
        """Return the blend's scores on held-out folds."""
        return NO_ESTIMATE if self.record is None else self.record.nested.get(BLEND, NO_ESTIMATE)

    @property
    def nested_single(self) -> SystemEstimate:
        """Return the nested scores of the best single variant."""
        if self.record is None:
            return NO_ESTIMATE
        return self.record.nested.get(BEST_SINGLE, NO_ESTIMATE)

    def get_nested(self, kind: MetricKind) -> float | None:
        """Return the nested score by a metric, higher being better, or None if absent."""
        return _value(self.nested.scores.get(kind.short), kind)

    def get_nested_single(self, kind: MetricKind) -> float | None:
        """Return the nested score of the best single variant, likewise."""
        return _value(self.nested_single.scores.get(kind.short), kind)

    def get_expected(self, kind: MetricKind) -> float | None:
        """Return the score expected on the test, None where the JSON does not say it."""
        return _value(self.nested.expect(kind.short), kind)


Blends = Mapping[str, BlendFile]
"""The submissions whose JSON applies to them, by the CSV's SHA-256."""


def read_blends(folder: Path) -> list[BlendFile]:
    """Read all submissions of a folder, sorted by name."""
    return [_read_blend(path) for path in sorted(folder.glob("*.csv"))] if folder.is_dir() else []


def index_blends(blends: Sequence[BlendFile]) -> Blends:
    """Map the hash of each unchanged CSV to its submission."""
    return {blend.sha256: blend for blend in blends if blend.fault is None}


def _read_blend(path: Path) -> BlendFile:
    spec_path = path.with_suffix(".json")
    try:
        digest = sha256_of(path)
    except OSError as error:
        return BlendFile(path, "", None, f"it cannot be read ({error.strerror})")
    if not spec_path.exists():
        return BlendFile(path, digest, None, f"there is no {spec_path.name}")
    try:
        record = read_submission(spec_path)
    except (OSError, ValueError) as error:
        return BlendFile(
            path,
            digest,
            None,
            f"{spec_path.name} is damaged or not written by blend ({error}); run blend again with"
            " that name",
        )
    changed = None if record.csv_sha256 == digest else "the CSV was changed after blend wrote it"
    return BlendFile(path, digest, record, changed)


def is_current(blend: BlendFile, prepared: Prepared) -> bool:
    """Return whether a blend was tuned on these data and folds; scores of others do not compare."""
    record = blend.record
    return (
        record is not None
        and record.corpus_hash in (None, prepared.corpus.hash)
        and record.folds_hash in (None, prepared.folds.hash)
    )


def build_blends_table(
    competition: Competition, blends: Sequence[BlendFile], prepared: Prepared | None = None
) -> Table:
    """Build the table of blends with fitted, nested and expected scores.

    Args:
        prepared: today's data and folds; None if they cannot be read.
    """
    first, *others = kinds = build_criteria(competition.profile).kinds
    columns = [
        Column("name", "blend"),
        Column("members", "members", "count"),
        first.column(f"fitted_{first.short}", f"fitted {first.head}"),
        first.column(f"nested_{first.short}", f"nested {first.head}"),
        first.column(f"nested_{first.short}_interval", "95%", "interval"),
        first.column(f"nested_single_{first.short}", "best single"),
    ]
    for kind in others:
        columns += [
            kind.column(f"fitted_{kind.short}", f"fitted {kind.head}"),
            kind.column(f"nested_{kind.short}", f"nested {kind.head}"),
        ]
    own = f"expected_{first.short}"
    columns += [
        first.column(own, f"expected {first.head}", begins_part=True),
        first.column(f"{own}_interval", "95%", "interval"),
        *(kind.column(f"expected_{kind.short}", f"expected {kind.head}") for kind in others),
    ]
    notes = [] if blends else [_advise_blending(competition)]
    if any(blend.get_nested_single(first) is not None for blend in blends):
        has_threshold = build_criteria(competition.profile).rule == "threshold"
        tuned = " with its tuned threshold" if has_threshold else ""
        notes.append(f"Best single: nested {first.head} of the best variant{tuned}.")
    notes += [f"{blend.name}: {blend.fault}" for blend in blends if blend.fault is not None]
    if prepared is not None:
        notes += [
            f"{blend.name} was made with other data or folds, so its scores do not compare; run"
            " blend again."
            for blend in blends
            if blend.fault is None and not is_current(blend, prepared)
        ]
    notes += [
        f"{blend.name}, warning: {warning.text}"
        for blend in blends
        if blend.record is not None
        for warning in blend.record.alarms
    ]
    ranked = sorted(blends, key=lambda blend: _rank(blend, first), reverse=True)
    return Table("blends", "Blends", columns, [_build_row(blend, kinds) for blend in ranked], notes)


def _rank(blend: BlendFile, kind: MetricKind) -> tuple[float, float]:
    """Return what blends are sorted by, best first: the expected, then the nested score."""
    expected, nested = blend.get_expected(kind), blend.get_nested(kind)
    return (-inf if expected is None else expected, -inf if nested is None else nested)


def _build_row(blend: BlendFile, kinds: Sequence[MetricKind]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": blend.name, "state": blend.fault or ""}
    record = blend.record
    if record is None:
        return row
    first = kinds[0]
    row |= {"members": _count_members(record)}
    for kind in kinds:
        row |= {
            f"fitted_{kind.short}": _show(blend.fitted.scores.get(kind.short)),
            f"nested_{kind.short}": _show(blend.nested.scores.get(kind.short)),
            f"expected_{kind.short}": _show(blend.nested.expect(kind.short)),
        }
    nested, expected = blend.nested.scores.get(first.short), blend.nested.expect(first.short)
    return row | {
        f"nested_{first.short}_interval": None if nested is None else nested.interval,
        f"expected_{first.short}_interval": None if expected is None else expected.interval,
        f"nested_single_{first.short}": _show(blend.nested_single.scores.get(first.short)),
        "noise": [
            {"agreement": noise.agreement, f"{first.short}_sd": noise.sds.get(first.short)}
            for noise in record.noise
        ],
        "alarms": [warning.text for warning in record.alarms],
    }


def _count_members(record: SubmissionRecord) -> int | None:
    """Return how many members a blend has; one that is left out has the weight 0."""
    if record.members is None:
        return None
    weights = [each.get("weight") for each in record.members if isinstance(each, Mapping)]
    return len(record.members) - weights.count(0)


def _value(score: ScoreEstimate | None, kind: MetricKind) -> float | None:
    """Return a score, higher being better."""
    return None if score is None else kind.show(score.value)


def _show(score: ScoreEstimate | None) -> float | None:
    """Return a score as the file has it, which is as people read it."""
    return None if score is None else score.value


def _advise_blending(competition: Competition) -> str:
    """Suggest the next step if there is no blend."""
    if open_store(competition).variants():
        return "There is no blend yet; run: python run.py blend"
    return "There is no blend yet; train a variant first."
