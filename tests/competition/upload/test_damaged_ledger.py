"""submit: a damaged line of the ledger blocks what it may have recorded, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from competition.errors import DuplicateError
from competition.profile import Competition
from competition.submission.ledger import open_ledger
from competition.upload.send import SubmitOptions, submit
from tests.competition.submission.test_check import write

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_only_what_a_damaged_line_may_have_recorded_is_refused(
    tiny_competition: Competition,
) -> None:
    first = write(tiny_competition, "first", seed=1)
    submit(tiny_competition, first, SubmitOptions(), clock=lambda: NOON)
    ledger = open_ledger(tiny_competition)
    whole = ledger.path.read_text("utf-8")
    ledger.path.write_text(whole.replace('"kind": "intent"', '"kind": "entint"', 1), "utf-8")
    report = submit(
        tiny_competition, write(tiny_competition, "second", seed=2), SubmitOptions(),
        clock=lambda: NOON,
    )  # fmt: skip
    assert any("left aside (line 1: its kind is none of" in note for note in report.notes)
    assert report.quota_left == 1  # of three: the damaged one counts
    with pytest.raises(DuplicateError, match=r"may have been sent: .* line 1: its kind"):
        submit(tiny_competition, first, SubmitOptions(), clock=lambda: NOON)
