"""Read the blends of a competition and build their table.

The board's other tables take a submission's nested estimate from ``BlendFile``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.blend.search import BEST_SINGLE, BLEND
from competition.console import Column, Table
from competition.files import sha256_of
from competition.predictions.store import Store
from competition.profile import Competition
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

    @property
    def nested_f1(self) -> float | None:
        """Return the nested micro-F1, or None if absent."""
        return _value(self.nested.f1)

    @property
    def expected_f1(self) -> float | None:
        """Return the micro-F1 expected on the test, None where the JSON does not say it."""
        return None if self.nested.expected is None else self.nested.expected.f1.value


Blends = Mapping[str, BlendFile]
"""The submissions whose JSON applies to them, by the CSV's SHA-256."""


def read_blends(folder: Path) -> list[BlendFile]:
    """Read all submissions of a folder, sorted by name."""
    return [_read_blend(path) for path in sorted(folder.glob("*.csv"))] if folder.is_dir() else []


def index_blends(blends: Sequence[BlendFile]) -> Blends:
    """Map the hash of each unchanged CSV to its submission."""
    return {blend.sha256: blend for blend in blends if blend.fault is None}


def _read_blend(path: Path) -> BlendFile:
    digest, spec_path = sha256_of(path), path.with_suffix(".json")
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


def build_blends_table(competition: Competition, blends: Sequence[BlendFile]) -> Table:
    """Build the table of blends with fitted, nested and expected scores."""
    columns = [
        Column("name", "blend"),
        Column("members", "members", "count"),
        Column("fitted_f1", "fitted F1", "score"),
        Column("nested_f1", "nested F1", "score"),
        Column("nested_f1_interval", "95%", "interval"),
        Column("nested_single_f1", "best single", "score"),
        Column("fitted_auprc", "fitted AUPRC", "score"),
        Column("nested_auprc", "nested AUPRC", "score"),
        Column("expected_f1", "expected F1", "score", begins_part=True),
        Column("expected_f1_interval", "95%", "interval"),
        Column("expected_auprc", "expected AUPRC", "score"),
    ]
    notes = [] if blends else [_advise_blending(competition)]
    if any(blend.nested_single.f1 is not None for blend in blends):
        has_threshold = competition.profile.negative_label is not None
        tuned = " with its tuned threshold" if has_threshold else ""
        notes.append(f"Best single: nested F1 of the best variant{tuned}.")
    notes += [f"{blend.name}: {blend.fault}" for blend in blends if blend.fault is not None]
    notes += [
        f"{blend.name}, warning: {warning.text}"
        for blend in blends
        if blend.record is not None
        for warning in blend.record.alarms
    ]
    return Table("blends", "Blends", columns, [_build_row(blend) for blend in blends], notes)


def _build_row(blend: BlendFile) -> dict[str, Any]:
    row: dict[str, Any] = {"name": blend.name, "state": blend.fault or ""}
    record, expected = blend.record, blend.nested.expected
    if record is None:
        return row
    return row | {
        "members": _count_members(record),
        "fitted_f1": _value(blend.fitted.f1),
        "nested_f1": blend.nested_f1,
        "nested_f1_interval": None if blend.nested.f1 is None else blend.nested.f1.interval,
        "expected_f1": blend.expected_f1,
        "expected_f1_interval": None if expected is None else expected.f1.interval,
        "expected_auprc": None if expected is None else expected.auprc,
        "nested_single_f1": _value(blend.nested_single.f1),
        "fitted_auprc": _value(blend.fitted.auprc),
        "nested_auprc": _value(blend.nested.auprc),
        "noise": [each.model_dump() for each in record.noise],
        "alarms": [warning.text for warning in record.alarms],
    }


def _count_members(record: SubmissionRecord) -> int | None:
    """Return how many members a blend has; one that is left out has the weight 0."""
    if record.members is None:
        return None
    weights = [each.get("weight") for each in record.members if isinstance(each, Mapping)]
    return len(record.members) - weights.count(0)


def _value(score: ScoreEstimate | None) -> float | None:
    return None if score is None else score.value


def _advise_blending(competition: Competition) -> str:
    """Suggest the next step if there is no blend."""
    if Store(competition.oof_dir, competition.profile.labels).variants():
        return "There is no blend yet; run: python run.py blend"
    return "There is no blend yet; train a variant first."
