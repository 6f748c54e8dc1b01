"""Read the blends of a competition and build their table.

The board's other tables take a submission's nested estimate from ``BlendFile``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from competition.blend.search import BEST_SINGLE, BLEND
from competition.console import Column, Table
from competition.files import sha256_of
from competition.folds.kfold import Prepared
from competition.predictions.store import open_store
from competition.profile import Competition, Profile
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from competition.submission.record import (
    HalfNoiseRecord,
    ScoreEstimate,
    SubmissionRecord,
    SystemEstimate,
    list_submissions,
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
        made_with: the other data, folds or metrics that it was tuned on, whose scores compare to
            nothing today and are therefore not given; None if it was tuned on today's.
    """

    path: Path
    sha256: str
    record: SubmissionRecord | None
    fault: str | None = None
    made_with: str | None = None

    @property
    def name(self) -> str:
        """Return the submission's name."""
        return self.path.stem

    @property
    def is_current(self) -> bool:
        """Return whether its scores are of this CSV and of today's data, folds and metrics."""
        return self.fault is None and self.made_with is None

    @property
    def estimates(self) -> SubmissionRecord | None:
        """Return the JSON with its scores, None if they do not compare to others."""
        return None if self.made_with is not None else self.record

    @property
    def fitted(self) -> SystemEstimate:
        """Return the blend's scores on the rows it was tuned on."""
        found = self.estimates
        return NO_ESTIMATE if found is None else found.fitted.get(BLEND, NO_ESTIMATE)

    @property
    def nested(self) -> SystemEstimate:
        """Return the blend's scores on held-out folds."""
        found = self.estimates
        return NO_ESTIMATE if found is None else found.nested.get(BLEND, NO_ESTIMATE)

    @property
    def nested_single(self) -> SystemEstimate:
        """Return the nested scores of the best single variant."""
        found = self.estimates
        return NO_ESTIMATE if found is None else found.nested.get(BEST_SINGLE, NO_ESTIMATE)

    @property
    def noise(self) -> Sequence[HalfNoiseRecord]:
        """Return the simulated noise of the public leaderboard."""
        return () if self.estimates is None else self.estimates.noise

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


def read_blends(competition: Competition, prepared: Prepared | None) -> list[BlendFile]:
    """Read all submissions of a competition, sorted by name.

    Args:
        prepared: today's data and folds; None if they cannot be read, so nothing is held to them.
    """
    return [
        replace(blend, made_with=_find_difference(blend.record, competition.profile, prepared))
        for blend in map(_read_blend, list_submissions(competition.submissions_dir))
    ]


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


def _find_difference(
    record: SubmissionRecord | None, profile: Profile, prepared: Prepared | None
) -> str | None:
    """Return what a blend was tuned on that is not today's, or None."""
    if record is None:
        return None
    if prepared is not None and (
        record.corpus_hash not in (None, prepared.corpus.hash)
        or record.folds_hash not in (None, prepared.folds.hash)
    ):
        return "other data or folds"
    return "other metrics or negative labels" if record.differs_from(profile) else None


def build_blends_table(competition: Competition, blends: Sequence[BlendFile]) -> Table:
    """Build the table of blends with fitted, nested and expected scores."""
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
    notes += [
        f"{blend.name} was made with {blend.made_with}, so its scores do not compare and are left"
        " out; run blend again."
        for blend in blends
        if blend.fault is None and blend.made_with is not None
    ]
    notes += [
        f"{blend.name}, warning: {warning.text}"
        for blend in blends
        if blend.record is not None
        for warning in blend.record.alarms
    ]
    ranked = sorted(blends, key=lambda blend: rank_blend(blend, first), reverse=True)
    return Table("blends", "Blends", columns, [_build_row(blend, kinds) for blend in ranked], notes)


def rank_blend(blend: BlendFile, kind: MetricKind) -> tuple[float, float]:
    """Return what blends are ranked by, higher being better: the expected, then the nested score.

    Older blends, whose JSON does not say the expected score, come after all others.
    """
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
            for noise in blend.noise
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
