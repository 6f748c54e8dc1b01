"""waiting: a verdict is recorded whenever it comes, and no file goes twice for it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from competition.errors import DuplicateError, UploadError, UsageError
from competition.files import sha256_of
from competition.profile import Competition
from competition.submission.ledger import open_ledger
from competition.upload import send
from competition.upload.report import SubmitReport, build_submit_tables
from competition.upload.send import SubmitOptions, submit
from competition.upload.target import TargetOptions, Verdict
from competition.upload.waiting import MAX_PAUSE_S, WAIT_LIMIT_S, list_pauses
from tests.competition.upload.test_send import (
    FAKE,
    FOLDER,
    LOCAL,
    NOON,
    AskableTarget,
    clock,
    fake,  # noqa: F401 - a fixture
    outcomes,
    write,
)

WAIT = replace(FAKE, wait=True)
SCORED = Verdict("scored", "", {"micro_f1": 0.7}, {"micro_f1": 0.6})
PUBLIC = Verdict("scored", "", {"micro_f1": 0.7})


class Watch:
    """Sleeps at once and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.told: list[tuple[float, str]] = []

    def submit(
        self, competition: Competition, path: Path | None, options: SubmitOptions = WAIT
    ) -> SubmitReport:
        return submit(
            competition,
            path,
            options,
            clock=lambda: NOON + timedelta(seconds=sum(self.slept)),
            sleep=self.slept.append,
            on_wait=lambda waited_s, status: self.told.append((waited_s, status)),
        )


def test_the_pauses_grow_and_end() -> None:
    pauses = list(list_pauses(WAIT_LIMIT_S))
    assert sum(pauses) == pytest.approx(WAIT_LIMIT_S)
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == MAX_PAUSE_S


def test_the_score_is_waited_for_and_recorded(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    fake.verdicts = [Verdict("pending", "running"), Verdict("pending"), SCORED]
    watch, path = Watch(), write(tiny_competition)
    report = watch.submit(tiny_competition, path)
    assert (report.outcome, report.is_pending) == ("sent", False)
    assert (report.public, report.private) == ({"micro_f1": 0.7}, {"micro_f1": 0.6})
    assert watch.slept == [5.0, 7.5]
    assert watch.told == [(0.0, "running"), (5.0, "pending")]
    (entry,) = open_ledger(tiny_competition).read()
    assert (entry.outcome, entry.public, entry.private) == ("sent", report.public, report.private)
    row = build_submit_tables(report)[0].rows[0]
    assert (row["public_f1"], row["public_auprc"]) == (0.7, None)


def test_a_rejection_is_recorded_with_its_reason(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    fake.verdicts = [Verdict("rejected", "id 7 is missing")]
    watch, path = Watch(), write(tiny_competition)
    report = watch.submit(tiny_competition, path)
    assert (report.outcome, report.is_pending) == ("refused", False)
    assert "id 7 is missing" in report.notes
    (entry,) = open_ledger(tiny_competition).read()
    assert (entry.outcome, entry.ref, entry.message) == ("refused", "1", "id 7 is missing")
    with pytest.raises(DuplicateError, match="sent and rejected"):
        watch.submit(tiny_competition, path)
    assert len(fake.arrived) == 1


def test_a_score_that_comes_later_is_fetched_without_sending(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    watch, path = Watch(), write(tiny_competition)
    report = watch.submit(tiny_competition, path)
    assert (report.outcome, report.is_pending) == ("sent", True)
    assert "no score within 30 minutes" in report.notes
    assert sum(watch.slept) == pytest.approx(WAIT_LIMIT_S)
    assert any("--wait" in note for note in build_submit_tables(report)[0].notes)
    with pytest.raises(DuplicateError, match="add --resend; for their score, add --wait"):
        watch.submit(tiny_competition, path, FAKE)
    fake.verdicts = [SCORED]
    later = watch.submit(tiny_competition, path)
    assert (later.public, later.is_pending) == ({"micro_f1": 0.7}, False)
    again = watch.submit(tiny_competition, path)
    assert (again.public, again.is_pending) == ({"micro_f1": 0.7}, False)
    assert len(fake.arrived) == 1
    assert outcomes(tiny_competition) == ["sent"]
    with pytest.raises(DuplicateError) as caught:
        watch.submit(tiny_competition, path, FAKE)
    assert "--wait" not in str(caught.value)


def test_resend_sends_even_while_waiting(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    watch, path = Watch(), write(tiny_competition)
    fake.verdicts = [SCORED, SCORED]
    watch.submit(tiny_competition, path)
    watch.submit(tiny_competition, path, replace(WAIT, resend=True))
    assert len(fake.arrived) == 2
    assert outcomes(tiny_competition) == ["sent", "sent"]


def test_trouble_while_asking_loses_nothing(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Verdict:
        raise UploadError("no route")

    monkeypatch.setattr(AskableTarget, "poll", fail)
    report = Watch().submit(tiny_competition, write(tiny_competition))
    assert (report.outcome, report.is_pending) == ("sent", True)
    assert "the score could not be requested: no route" in report.notes
    assert outcomes(tiny_competition) == ["sent"]
    assert len(fake.arrived) == 1


def test_done_without_a_score_is_said(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    fake.verdicts = [Verdict("scored")]
    report = Watch().submit(tiny_competition, write(tiny_competition))
    assert (report.outcome, report.public, report.is_pending) == ("sent", None, False)
    (entry,) = open_ledger(tiny_competition).read()
    assert (entry.outcome, entry.message) == ("sent", "done, without a score")


def test_the_lock_is_free_while_waiting(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    first, second = write(tiny_competition, "a", 1), write(tiny_competition, "b", 2)
    done: list[SubmitReport] = []

    def send_another(_: float) -> None:
        if not done:
            done.append(submit(tiny_competition, second, FOLDER, clock=clock))

    fake.verdicts = [Verdict("pending"), SCORED]
    submit(tiny_competition, first, WAIT, clock=clock, sleep=send_another)
    assert [report.outcome for report in done] == ["sent"]
    (one, two) = open_ledger(tiny_competition).read()
    assert (one.public, two.public) == ({"micro_f1": 0.7}, None)


@pytest.mark.parametrize("options", [FOLDER, LOCAL, SubmitOptions(target="aistages")])
def test_nothing_to_wait_for_is_said_before_sending(
    tiny_competition: Competition, options: SubmitOptions
) -> None:
    path = write(tiny_competition)
    for target in (replace(options, wait=True), SubmitOptions(target="http", wait=True)):
        with pytest.raises(UsageError, match="--wait cannot be used with"):
            submit(tiny_competition, path, target, clock=clock)
    assert not open_ledger(tiny_competition).path.exists()


def test_the_command_that_is_proposed_names_the_file(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    path = write(tiny_competition, "spec")
    notes = build_submit_tables(Watch().submit(tiny_competition, path, FAKE))[0].notes
    (hint,) = [note for note in notes if "request it with" in note]
    words = shlex.split(hint.partition("with: ")[2])
    assert words == ["python", "run.py", "submit", str(path), "--to", "fake", "--wait"]


def test_waiting_without_a_file_asks_for_what_was_sent_and_sends_nothing(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    watch = Watch()
    watch.submit(tiny_competition, write(tiny_competition, "old", 1), FAKE)
    sent = write(tiny_competition, "sent", 2)
    watch.submit(tiny_competition, sent, FAKE)
    newer = write(tiny_competition, "newer", 3, time="2026-11-22T13:00:00+00:00")
    dry = watch.submit(tiny_competition, None, replace(WAIT, dry_run=True))
    assert (dry.name, dry.outcome) == ("sent", None)
    assert dry.plan == ("GET verdict; until it is scored or rejected",)
    fake.verdicts = [Verdict("pending"), PUBLIC, SCORED]
    report = watch.submit(tiny_competition, None)
    assert (report.name, report.public) == ("sent", {"micro_f1": 0.7})
    assert any(f"to send {newer}, name it" in note for note in report.notes)
    assert any("1 earlier attempts; new for old" in note for note in report.notes)
    old, entry = open_ledger(tiny_competition).read()
    assert (old.private, entry.public, entry.private) == (SCORED.private, PUBLIC.public, None)
    assert fake.arrived == [sha256_of(sent.with_name("old.csv")), sha256_of(sent)]
    sent.unlink()
    fake.verdicts = [PUBLIC]
    assert watch.submit(tiny_competition, None).name == "newer"  # nothing is open: sent as ever
    assert len(fake.arrived) == 3


def test_scores_that_come_at_the_end_or_change_are_requested_once_each_time(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    watch, path = Watch(), write(tiny_competition)
    fake.verdicts = [PUBLIC, PUBLIC, Verdict("pending"), SCORED]
    first = watch.submit(tiny_competition, path)
    assert (first.private, first.is_pending) == (None, False)
    assert "not reported yet: private_f1" in first.notes
    for _ in range(2):  # still nothing
        again = watch.submit(tiny_competition, path)
        assert (again.public, again.private, again.is_pending) == (PUBLIC.public, None, False)
    assert len(open_ledger(tiny_competition).path.read_text("utf-8").splitlines()) == 3
    last = watch.submit(tiny_competition, None)  # the newest file, which was sent already
    assert (last.public, last.private) == (SCORED.public, SCORED.private)
    (entry,) = open_ledger(tiny_competition).read()
    assert (entry.public, entry.private) == (SCORED.public, SCORED.private)
    assert (watch.slept, len(fake.arrived)) == ([], 1)
    new = Verdict("scored", "", {"micro_f1": 0.5}, {"micro_f1": 0.4})  # the platform rescored
    fake.verdicts = [new]
    report = watch.submit(tiny_competition, path)
    (entry,) = open_ledger(tiny_competition).read()
    assert (report.public, entry.public, entry.private) == (new.public, new.public, new.private)
    assert (watch.slept, len(fake.arrived)) == ([], 1)


def test_what_is_done_without_a_score_does_not_keep_the_next_file_back(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    fake.verdicts = [Verdict("scored"), SCORED]
    watch = Watch()
    watch.submit(tiny_competition, write(tiny_competition))
    write(tiny_competition, "newer", 1, time="2026-11-22T13:00:00+00:00")
    assert watch.submit(tiny_competition, None).name == "newer"
    assert len(fake.arrived) == 2


def test_a_line_that_another_process_tore_takes_no_score_with_it(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
) -> None:
    ledger = open_ledger(tiny_competition)

    def tear(_: float) -> None:
        with ledger.path.open("ab") as stream:
            stream.write(b'{"kind": "int')

    fake.verdicts = [Verdict("pending"), SCORED]
    path = write(tiny_competition)
    report = submit(tiny_competition, path, WAIT, clock=clock, sleep=tear)
    assert any("incomplete last line was moved" in note for note in report.notes)
    (entry,) = ledger.read()
    assert entry.public == SCORED.public
    assert ledger.read_torn() is None


def test_a_verdict_is_reported_if_the_ledger_stays_locked(
    tiny_competition: Competition,
    fake: AskableTarget,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, path = Watch(), write(tiny_competition)
    watch.submit(tiny_competition, path, FAKE)
    fake.verdicts = [SCORED]
    locks = []

    def poll(*_: object) -> Verdict:
        monkeypatch.setattr("competition.submission.ledger.LOCK_TIMEOUT_S", 0.05)
        locks.append(open_ledger(tiny_competition).locked())
        locks[-1].__enter__()
        return SCORED

    with monkeypatch.context() as patch:
        patch.setattr(AskableTarget, "poll", poll)
        report = watch.submit(tiny_competition, path)
    locks[0].__exit__(None, None, None)
    assert (report.outcome, report.public, report.is_pending) == ("sent", SCORED.public, False)
    assert any(
        "this could not be recorded in the ledger" in note and report.wait_command in note
        for note in report.notes
    )
    watch.submit(tiny_competition, path)
    assert open_ledger(tiny_competition).read()[0].public == SCORED.public


def test_what_is_shown_while_waiting_has_passed_the_mask(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(options: TargetOptions) -> AskableTarget:
        options.mask.add("hunter2/hunter2")
        return target

    target = AskableTarget(verdicts=[Verdict("pending", "at \x1b[2J hunter2%2fhunter2"), SCORED])
    monkeypatch.setitem(send.TARGETS, "fake", make)
    watch = Watch()
    watch.submit(tiny_competition, write(tiny_competition))
    assert watch.told == [(0.0, "at [2J ***")]
