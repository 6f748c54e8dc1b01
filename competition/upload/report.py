"""The report of ``submit``: what was done or, with --dry-run, what would be done."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from competition.console import Column, Table
from competition.scoring.metrics.metric import MetricKind
from competition.submission.ledger import Outcome
from competition.upload.scores import name_form, write_example
from competition.upload.target import ScoreMap


@dataclass(frozen=True)
class SubmitReport:
    """What was done, or would be done if ``outcome`` is None; scores as the ledger has them.

    ``kinds``: the competition's metrics. ``is_pending``: the platform has the file and has not
    scored it yet. ``is_on_page``: the score can only be read on the platform's web page. ``file``:
    the path that was given or found, None if the file is gone.
    """

    name: str
    target: str
    destination: str
    sha256: str
    plan: tuple[str, ...]
    kinds: tuple[MetricKind, ...]
    outcome: Outcome | None = None
    ref: str | None = None
    message: str = ""
    public: ScoreMap | None = None
    private: ScoreMap | None = None
    quota_left: int | None = None
    is_pending: bool = False
    is_on_page: bool = False
    notes: tuple[str, ...] = ()
    file: Path | None = None

    @property
    def wait_command(self) -> str:
        """Return the command that requests the score and sends nothing."""
        file = () if self.file is None else (str(self.file),)
        words = ("submit", *file, "--to", self.target, "--wait")
        return shlex.join(("python", "run.py", *words))


def build_submit_tables(report: SubmitReport) -> list[Table]:
    """Build the table and notes that ``submit`` prints."""
    kinds = report.kinds
    public, private = report.public or {}, report.private or {}
    row = {
        "name": report.name,
        "target": report.target,
        "outcome": report.outcome or "not sent (dry run)",
        **{f"public_{kind.short}": public.get(kind.key) for kind in kinds},
        **{f"private_{kind.short}": private.get(kind.key) for kind in kinds},
        "quota_left": report.quota_left,
        "ref": report.ref,
        "sha256": report.sha256,
    }
    columns = [
        Column("name", "submission"),
        Column("target", "to"),
        Column("outcome", "outcome"),
        *(kind.column(f"public_{kind.short}", f"public {kind.head}") for kind in kinds),
        *(kind.column(f"private_{kind.short}", f"private {kind.head}") for kind in kinds),
        Column("quota_left", "left today", "count"),
    ]
    steps = [f"would {step}" for step in report.plan] if report.outcome is None else []
    notes = [*([report.message] if report.message else []), *steps, *report.notes]
    if report.is_pending:
        notes.append(f"The score is pending; request it with: {report.wait_command}")
    elif report.is_on_page:
        notes.append(
            "Next: when the leaderboard page shows the score, enter it: python run.py board --score"
            f" {shlex.quote(report.name)}={name_form(kinds)}, such as {write_example(kinds)}"
        )
    elif report.outcome == "sent" and (public or private):
        notes.append("Next: python run.py board")
    return [Table("submit", "Submission", columns, [row], notes)]
