"""upload: checked first, never twice, never unrecorded, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.console import print_tables
from competition.errors import (
    DuplicateError,
    QuotaError,
    SubmissionError,
    UploadError,
    UsageError,
)
from competition.files import append_lines_synced, sha256_of
from competition.profile import Competition, resolve_competition
from competition.submission.form import read_test_ids
from competition.submission.ledger import open_ledger
from competition.submission.score import score_submission
from competition.submission.write import write_submission
from competition.upload import choice, send
from competition.upload.attempts import Attempts
from competition.upload.local import split_public
from competition.upload.report import build_submit_tables
from competition.upload.send import SubmitOptions, submit
from competition.upload.target import (
    Findable,
    Receipt,
    ScorePaths,
    Scoring,
    Submission,
    TargetOptions,
    UnconfirmedUpload,
    Verdict,
)
from tests.competition.klue_scores import KINDS
from tests.conftest import choose_context

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LOCAL, FOLDER = SubmitOptions(target="local"), SubmitOptions(target="folder")


def clock() -> datetime:
    return NOON


def write(competition: Competition, name: str = "blend", seed: int = 0, time: str = "") -> Path:
    ids = read_test_ids(competition)
    n_labels = competition.profile.n_labels
    probs = np.random.default_rng(seed).dirichlet(np.ones(n_labels), size=len(ids))
    run = {"time": time or "2026-11-22T12:00:00+00:00"}
    return write_submission(competition, name, ids, probs, probs.argmax(axis=1), {}, run)


@dataclass
class FakeTarget:
    """A platform under the test's control without any API; ``arrived`` is what it received."""

    has_quota: bool = True
    name: str = "fake"
    arrived: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    outcome: str = "sent"

    def destination(self, competition: Competition) -> str:
        return f"fake/{competition.name}"

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        return [f"POST {submission.short_hash}"]

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        self.before()
        self.arrived.append(submission.sha256)
        self.after()
        return Receipt("1", "thanks", outcome=self.outcome)  # type: ignore[arg-type]


@dataclass
class AskableTarget(FakeTarget):
    """The same, and it says what arrived, and ``verdicts`` one after the other."""

    max_delay_s: float = 0.0
    verdicts: list[Verdict] = field(default_factory=list)
    asked: list[UnconfirmedUpload] = field(default_factory=list)

    def find(self, upload: UnconfirmedUpload, competition: Competition) -> Receipt | None:
        self.asked.append(upload)
        return Receipt("found", "it was there") if upload.sha256 in self.arrived else None

    def score_fields(self, competition: Competition) -> ScorePaths:
        return ScorePaths(KINDS, {"public_f1": "public", "private_f1": "private"})

    def poll_url(self, competition: Competition) -> str:
        return "https://fake/status"

    def plan_poll(self, competition: Competition) -> str:
        return "GET verdict"

    def poll(self, ref: str, competition: Competition) -> Verdict:
        return self.verdicts.pop(0) if self.verdicts else Verdict("pending")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> FakeTarget:
    target = FakeTarget()
    monkeypatch.setitem(send.TARGETS, "fake", lambda _: target)
    return target


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> AskableTarget:
    target = AskableTarget()
    monkeypatch.setitem(send.TARGETS, "fake", lambda _: target)
    return target


FAKE = SubmitOptions(target="fake")


def crash() -> None:
    raise KeyboardInterrupt


def outcomes(competition: Competition) -> list[str]:
    return [entry.outcome for entry in open_ledger(competition).read()]


def test_a_part_without_rows_has_no_score(tiny_competition: Competition) -> None:
    rules = tiny_competition.profile.upload
    local = rules.local.model_copy(update={"public_frac": 1e-9})
    rules = rules.model_copy(update={"local": local})
    profile = tiny_competition.profile.model_copy(update={"upload": rules})
    competition = replace(tiny_competition, profile=profile)
    report = submit(competition, write(competition), SubmitOptions(), clock=clock)
    assert report.public is None
    assert (report.private or {})["micro_f1"] is not None
    (entry,) = open_ledger(competition).read()
    assert (entry.public, entry.private) == (None, report.private)


def test_the_local_board_scores_both_parts(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    report = submit(tiny_competition, path, SubmitOptions(), clock=clock)
    assert (report.target, report.outcome, report.quota_left) == ("local", "sent", 2)
    assert report.public is not None
    assert report.private is not None
    assert "public and" in report.message
    solution = tiny_competition.solution_path
    assert solution is not None
    whole = score_submission(path, solution, tiny_competition.profile)
    parts = [report.public["micro_f1"] or 0.0, report.private["micro_f1"] or 0.0]
    assert min(parts) <= whole.values["micro_f1"] <= max(parts)
    (entry,) = open_ledger(tiny_competition).read()
    assert (entry.public, entry.private) == (report.public, report.private)
    assert (entry.name, entry.time, entry.ref) == ("blend", NOON, report.sha256[:8])
    kinds = [
        json.loads(line)["kind"]
        for line in open_ledger(tiny_competition).path.read_text("utf-8").splitlines()
    ]
    assert kinds == ["intent", "receipt", "score"]
    (table,) = build_submit_tables(report)
    assert table.rows[0]["public_f1"] == parts[0]
    assert table.notes[-1] == "Next: python run.py board"
    for other in ({"outcome": "refused"}, {"outcome": None}, {"public": None, "private": None}):
        (table,) = build_submit_tables(replace(report, **other))  # type: ignore[arg-type]
        assert not any("board" in note for note in table.notes), other
    (table,) = build_submit_tables(replace(report, is_pending=True))
    assert table.notes[-1].startswith("The score is pending")


def test_the_split_depends_on_ids_and_seed_alone() -> None:
    ids = [str(i) for i in range(10_000)]
    public = split_public(ids, frac=0.5, seed=42)
    assert abs(public.mean() - 0.5) < 0.03
    assert np.array_equal(split_public(ids[::-1], frac=0.5, seed=42)[::-1], public)
    assert np.array_equal(split_public(ids[:10], frac=0.5, seed=42), public[:10])
    assert not np.array_equal(split_public(ids, frac=0.5, seed=43), public)
    assert not (split_public(ids, frac=0.3, seed=42) & ~public).any()


def test_the_folder_gets_a_copy_and_a_receipt(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    report = submit(tiny_competition, path, FOLDER, clock=clock)
    outbox = tiny_competition.submissions_dir / "outbox"
    stem = f"blend-{sha256_of(path)[:8]}"
    assert sorted(p.name for p in outbox.iterdir()) == [f"{stem}.csv", f"{stem}.receipt.json"]
    assert (outbox / f"{stem}.csv").read_bytes() == path.read_bytes()
    receipt = json.loads((outbox / f"{stem}.receipt.json").read_text("utf-8"))
    assert receipt["sha256"] == report.sha256 == sha256_of(path)
    assert report.quota_left is None


def test_another_folder_is_another_destination(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    path = write(tiny_competition)
    submit(tiny_competition, path, FOLDER, clock=clock)
    submit(tiny_competition, path, replace(FOLDER, folder=tmp_path / "mail"), clock=clock)
    assert len(list((tmp_path / "mail").iterdir())) == 2
    with pytest.raises(UsageError, match="--folder"):
        submit(tiny_competition, path, replace(LOCAL, folder=tmp_path), clock=clock)


def test_no_file_means_the_newest(tiny_competition: Competition) -> None:
    with pytest.raises(UsageError, match=r"run\.py blend"):
        submit(tiny_competition, None, LOCAL, clock=clock)
    write(tiny_competition, "newest", seed=1, time="2026-11-22T21:00:01+09:00")
    write(tiny_competition, "older", seed=2, time="2026-11-22T12:00:00+00:00")
    assert submit(tiny_competition, None, LOCAL, clock=clock).name == "newest"
    (tiny_competition.submissions_dir / "newest.run.json").write_text("{", "utf-8")
    later = NOON.timestamp() + 1e9
    os.utime(tiny_competition.submissions_dir / "newest.csv", (later, later))
    with pytest.raises(DuplicateError):
        submit(tiny_competition, None, LOCAL, clock=clock)


def test_a_bad_file_goes_nowhere(tiny_competition: Competition, fake: AskableTarget) -> None:
    path = write(tiny_competition)
    path.write_text(path.read_text("utf-8").replace("\n1002,", "\n1001,"), "utf-8")
    with pytest.raises(SubmissionError, match="also occurs on line"):
        submit(tiny_competition, path, FAKE, clock=clock)
    assert fake.arrived == []
    assert outcomes(tiny_competition) == []


def test_names_and_targets_that_are_none(tiny_competition: Competition, tmp_path: Path) -> None:
    path = write(tiny_competition)
    with pytest.raises(UsageError, match=f"choose from {', '.join(send.TARGETS)}"):
        submit(tiny_competition, path, SubmitOptions(target="moon"), clock=clock)
    with pytest.raises(UsageError, match="no file"):
        submit(tiny_competition, tmp_path / "none.csv", LOCAL, clock=clock)
    odd = tmp_path / "제출 1.csv"
    odd.write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="cannot be a name"):
        submit(tiny_competition, odd, LOCAL, clock=clock)


def test_a_limited_competition_goes_nowhere(tiny_competition: Competition) -> None:
    profile = str(tiny_competition.home / "tiny.toml")
    limited = resolve_competition(profile, None, 40, home=tiny_competition.home)
    path = write(limited)
    for options in (LOCAL, FOLDER, replace(LOCAL, dry_run=True)):
        with pytest.raises(UploadError, match="--limit"):
            submit(limited, path, options, clock=clock)
    with pytest.raises(SubmissionError):
        submit(tiny_competition, path, LOCAL, clock=clock)


def test_the_demo_goes_to_local_and_folder_only(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    demo = replace(tiny_competition, is_demo_fallback=True)
    path = write(demo)
    with pytest.raises(UploadError, match="bundled demo"):
        submit(demo, path, FAKE, clock=clock)
    submit(demo, path, LOCAL, clock=clock)
    submit(demo, path, FOLDER, clock=clock)


def test_the_demo_named_is_the_demo_too(tmp_path: Path, fake: AskableTarget) -> None:
    demo = resolve_competition("demo", None, None, home=tmp_path)
    path = write(demo)
    for target in ("fake", "kaggle", "aistages", "evalai", "http"):
        with pytest.raises(UploadError, match="bundled demo"):
            submit(demo, path, SubmitOptions(target=target), clock=clock)
    assert fake.arrived == []


def test_no_solution_no_local_board(tiny_competition: Competition) -> None:
    path, solution = write(tiny_competition), tiny_competition.solution_path
    assert solution is not None
    solution.unlink()
    with pytest.raises(UploadError, match="there is no solution file"):
        submit(tiny_competition, path, LOCAL, clock=clock)
    files = tiny_competition.profile.files.model_copy(update={"solution": None})
    profile = tiny_competition.profile.model_copy(update={"files": files})
    with pytest.raises(UploadError, match="no solution file"):
        submit(replace(tiny_competition, profile=profile), path, LOCAL, clock=clock)
    assert not open_ledger(tiny_competition).path.exists()


def test_the_same_bytes_go_once(tiny_competition: Competition, fake: AskableTarget) -> None:
    path = write(tiny_competition)
    submit(tiny_competition, path, FAKE, clock=clock)
    other_name = path.with_name("other.csv")
    other_name.write_bytes(path.read_bytes())
    for file in (path, other_name):
        with pytest.raises(DuplicateError, match="--resend"):
            submit(tiny_competition, file, FAKE, clock=clock)
    assert len(fake.arrived) == 1
    submit(tiny_competition, path, LOCAL, clock=clock)  # elsewhere is another matter
    submit(tiny_competition, path, replace(FAKE, resend=True), clock=clock)
    assert len(fake.arrived) == 2


def test_a_dry_run_sends_and_writes_nothing(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    path = write(tiny_competition)
    before = sorted(tiny_competition.home.rglob("*"))
    report = submit(tiny_competition, path, replace(FAKE, dry_run=True), clock=clock)
    assert report.outcome is None
    assert report.plan == (f"POST {report.sha256[:8]}",)
    for target in ("local", "folder"):
        options = SubmitOptions(target=target, dry_run=True)
        assert submit(tiny_competition, path, options, clock=clock).plan
    assert sorted(tiny_competition.home.rglob("*")) == before
    assert fake.arrived == []
    assert "would POST" in build_submit_tables(report)[0].notes[0]
    path.write_text("id", "utf-8")
    with pytest.raises(SubmissionError):
        submit(tiny_competition, path, replace(FAKE, dry_run=True), clock=clock)


def test_the_quota_is_kept(tiny_competition: Competition, fake: AskableTarget) -> None:
    left = []
    for seed in range(3):
        path = write(tiny_competition, f"s{seed}", seed)
        left.append(submit(tiny_competition, path, FAKE, clock=clock).quota_left)
    assert left == [2, 1, 0]
    path = write(tiny_competition, "fourth", 4)
    with pytest.raises(QuotaError, match=r"all 3 submissions to fake for today \(Asia/Seoul\)"):
        submit(tiny_competition, path, FAKE, clock=clock)
    assert len(fake.arrived) == 3
    assert len(outcomes(tiny_competition)) == 3
    submit(tiny_competition, path, FOLDER, clock=clock)
    report = submit(tiny_competition, path, FAKE, clock=lambda: NOON + timedelta(hours=3))
    assert report.quota_left == 2  # a new day in Seoul


def test_a_crash_before_the_receipt_is_looked_up(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    path = write(tiny_competition)
    fake.after = crash
    with pytest.raises(KeyboardInterrupt):
        submit(tiny_competition, path, FAKE, clock=clock)
    assert outcomes(tiny_competition) == ["unknown"]
    fake.after = lambda: None
    report = submit(tiny_competition, path, FAKE, clock=clock)
    assert (report.outcome, report.ref) == ("sent", "found")
    assert len(fake.arrived) == 1
    assert outcomes(tiny_competition) == ["sent"]
    with pytest.raises(DuplicateError):
        submit(tiny_competition, path, FAKE, clock=clock)


def test_a_crash_before_the_upload_is_looked_up(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    path = write(tiny_competition)
    fake.before = crash
    with pytest.raises(KeyboardInterrupt):
        submit(tiny_competition, path, FAKE, clock=clock)
    fake.before = lambda: None
    submit(tiny_competition, path, FAKE, clock=clock)
    assert len(fake.arrived) == 1
    assert outcomes(tiny_competition) == ["failed", "sent"]


def test_what_left_just_now_may_still_turn_up(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    path = write(tiny_competition)
    fake.before, fake.max_delay_s = crash, 60.0
    with pytest.raises(KeyboardInterrupt):
        submit(tiny_competition, path, FAKE, clock=clock)
    fake.before = lambda: None
    with pytest.raises(UploadError, match="try again in 60 s"):
        submit(tiny_competition, path, FAKE, clock=clock)
    assert outcomes(tiny_competition) == ["unknown"]
    submit(tiny_competition, path, FAKE, clock=lambda: NOON + timedelta(seconds=60))
    assert outcomes(tiny_competition) == ["failed", "sent"]
    assert len(fake.arrived) == 1


def leave_open(competition: Competition, name: str, sha256: str, time: datetime = NOON) -> None:
    fields = {"target": "fake", "destination": f"fake/{competition.name}", "name": name}
    ledger = open_ledger(competition)
    with ledger.locked():
        ledger.append_intent(time, {**fields, "sha256": sha256, "bytes": 1})


@pytest.mark.parametrize(
    "error", [TypeError("'<=' not supported"), ConnectionResetError(), ZeroDivisionError()]
)
@pytest.mark.parametrize("has_arrived", [True, False])
def test_whatever_goes_wrong_after_sending_is_a_lost_answer(
    tiny_competition: Competition, fake: AskableTarget, error: Exception, has_arrived: bool
) -> None:
    def fail() -> None:
        raise error

    setattr(fake, "after" if has_arrived else "before", fail)
    report = submit(tiny_competition, write(tiny_competition), FAKE, clock=clock)
    assert report.outcome == ("sent" if has_arrived else "unknown")
    assert has_arrived or type(error).__name__ in report.message
    assert outcomes(tiny_competition) == [report.outcome]
    lines = open_ledger(tiny_competition).path.read_text("utf-8").splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds == ["intent", "receipt"]


def test_an_unusable_answer_to_a_query_is_reported(
    tiny_competition: Competition, fake: AskableTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tiny_competition)
    monkeypatch.setattr(AskableTarget, "find", lambda *_: {}["ref"])
    fake.after = crash
    with pytest.raises(KeyboardInterrupt):
        submit(tiny_competition, path, FAKE, clock=clock)
    with pytest.raises(UploadError, match=r"not be checked: the answer is not valid \(KeyError"):
        submit(tiny_competition, path, FAKE, clock=clock)
    assert outcomes(tiny_competition) == ["unknown"]


@pytest.mark.parametrize("arrives", ["never", "late"])
def test_a_clock_that_was_set_back_locks_nothing_out(
    tiny_competition: Competition, fake: AskableTarget, arrives: str
) -> None:
    fake.before, fake.max_delay_s = crash, 60.0
    path, slept = write(tiny_competition), list[float]()
    with pytest.raises(KeyboardInterrupt):
        submit(tiny_competition, path, FAKE, clock=clock)
    fake.before = lambda: None
    yesterday = NOON - timedelta(days=1)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if arrives == "late":
            fake.arrived.append(sha256_of(path))

    report = submit(tiny_competition, path, FAKE, clock=lambda: yesterday, sleep=sleep)
    assert slept == [60.0]
    assert report.outcome == "sent"
    assert len(fake.arrived) == 1
    assert outcomes(tiny_competition) == (["sent"] if arrives == "late" else ["failed", "sent"])


def test_every_open_attempt_is_settled_before_another_file_goes(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    fake.max_delay_s, later = 60.0, NOON + timedelta(minutes=2)
    for name, time in (("lost", NOON), ("stuck", NOON), ("young", later)):
        leave_open(tiny_competition, name, name, time)
    fake.arrived.append("lost")
    path = write(tiny_competition)
    report = submit(tiny_competition, path, FAKE, clock=lambda: later)
    assert outcomes(tiny_competition) == ["sent", "failed", "unknown", "sent"]
    assert len(report.notes) == 2
    assert "upload of lost at" in report.notes[0]
    assert "had arrived" in report.notes[0]
    assert "upload of stuck at" in report.notes[1]
    assert "did not arrive" in report.notes[1]
    assert [upload.path for upload in fake.asked] == [None] * 3  # only hashes are at hand
    assert [upload.known_refs for upload in fake.asked] == [frozenset(), {"found"}, {"found"}]
    assert len(fake.arrived) == 2


def test_a_platform_that_cannot_say_what_arrived_gets_nothing_new(
    tiny_competition: Competition, fake: AskableTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Receipt:
        raise UploadError("no route")

    leave_open(tiny_competition, "lost", "lost")
    monkeypatch.setattr(AskableTarget, "find", fail)
    with pytest.raises(UploadError, match=r"lost at .* could not be checked: no route"):
        submit(tiny_competition, write(tiny_competition), FAKE, clock=clock)
    assert outcomes(tiny_competition) == ["unknown"]
    assert fake.arrived == []


def test_a_crash_without_an_api_needs_resend(
    tiny_competition: Competition, silent: FakeTarget
) -> None:
    path, fake = write(tiny_competition), silent
    fake.after = crash
    with pytest.raises(KeyboardInterrupt):
        submit(tiny_competition, path, FAKE, clock=clock)
    fake.after = lambda: None
    with pytest.raises(DuplicateError, match="may have been sent"):
        submit(tiny_competition, path, FAKE, clock=clock)
    assert len(fake.arrived) == 1
    report = submit(tiny_competition, path, replace(FAKE, resend=True), clock=clock)
    assert report.quota_left == 1  # the lost one may have counted
    assert outcomes(tiny_competition) == ["unknown", "sent"]


def test_a_torn_receipt_is_an_unknown_outcome(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    path = write(tiny_competition)
    submit(tiny_competition, path, FAKE, clock=clock)
    ledger = open_ledger(tiny_competition)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-9])
    assert outcomes(tiny_competition) == ["unknown"]
    report = submit(tiny_competition, path, FAKE, clock=clock)
    assert len(fake.arrived) == 1
    assert outcomes(tiny_competition) == ["sent"]
    assert any("incomplete last line was moved" in note for note in report.notes)
    assert len(list(tiny_competition.submissions_dir.glob("ledger.torn-*.txt"))) == 1


@pytest.mark.parametrize("target", ["folder", "local"])
def test_a_crash_of_folder_and_local_finds_out(tiny_competition: Competition, target: str) -> None:
    path = write(tiny_competition)
    options = SubmitOptions(target=target)
    submit(tiny_competition, path, options, clock=clock)
    ledger = open_ledger(tiny_competition)
    intent_only = ledger.path.read_bytes().splitlines(keepends=True)[0]
    ledger.path.write_bytes(intent_only)
    report = submit(tiny_competition, path, options, clock=clock)
    assert any("had arrived" in note for note in report.notes)
    assert outcomes(tiny_competition) == ["sent"]
    assert (ledger.read()[0].public is not None) == (target == "local")


def _crash_hard(home: Path) -> None:
    competition = resolve_competition(str(home / "tiny.toml"), None, None, home=home)

    class Dies(send.FolderTarget):
        def send(self, submission: Submission, competition: Competition) -> Receipt:
            super().send(submission, competition)
            os._exit(9)

    send.TARGETS["folder"] = Dies
    submit(competition, None, FOLDER, clock=clock)


def test_a_killed_process_leaves_its_intent_and_no_lock(tiny_competition: Competition) -> None:
    write(tiny_competition)
    worker = choose_context().Process(target=_crash_hard, args=(tiny_competition.home,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 9
    assert outcomes(tiny_competition) == ["unknown"]
    report = submit(tiny_competition, None, FOLDER, clock=clock)
    assert any("had arrived" in note for note in report.notes)
    assert outcomes(tiny_competition) == ["sent"]


@pytest.mark.parametrize("error", [UploadError("no route"), QuotaError("full")])
def test_a_failure_is_recorded_and_may_be_tried_again(
    tiny_competition: Competition, fake: AskableTarget, error: UploadError
) -> None:
    def fail() -> None:
        raise error

    path = write(tiny_competition)
    fake.before = fail
    with pytest.raises(type(error)):
        submit(tiny_competition, path, FAKE, clock=clock)
    fake.before = lambda: None
    report = submit(tiny_competition, path, FAKE, clock=clock)
    assert report.quota_left == 2
    assert outcomes(tiny_competition) == [
        "refused" if isinstance(error, QuotaError) else "failed",
        "sent",
    ]


SECRET = "hunter2hunter2"


class Talker(AskableTarget):
    """Says the key wherever it can say something."""

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        super().send(submission, competition)
        return Receipt(f"ref-{SECRET}", f"thanks for {SECRET}")

    def find(self, upload: UnconfirmedUpload, competition: Competition) -> Receipt | None:
        found = super().find(upload, competition)
        return found and Receipt(f"ref-{SECRET}", f"found {SECRET}")


def test_whatever_a_target_says_passes_the_mask(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(options: TargetOptions) -> Talker:
        options.mask.add(SECRET)
        return target

    def fail() -> None:
        raise UploadError(f"refused {SECRET}")

    target = Talker(verdicts=[Verdict("rejected", f"odd {SECRET}")])
    monkeypatch.setitem(send.TARGETS, "fake", make)
    options = replace(FAKE, wait=True)
    report = submit(tiny_competition, write(tiny_competition), options, clock=clock)
    assert (report.ref, report.message) == ("ref-***", "thanks for ***")
    assert "odd ***" in report.notes
    target.after = crash
    path = write(tiny_competition, "other", 1)
    with pytest.raises(KeyboardInterrupt):
        submit(tiny_competition, path, FAKE, clock=clock)
    report = submit(tiny_competition, path, FAKE, clock=clock)
    assert any("found ***" in note for note in report.notes)
    target.before = fail
    with pytest.raises(UploadError) as caught:
        submit(tiny_competition, write(tiny_competition, "third", 2), FAKE, clock=clock)
    assert str(caught.value) == "refused ***"
    assert SECRET not in repr(report)
    assert SECRET not in open_ledger(tiny_competition).path.read_text("utf-8")


@pytest.mark.parametrize("outcome", ["refused", "unknown"])
def test_what_a_platform_says_is_recorded(
    tiny_competition: Competition, fake: AskableTarget, outcome: str
) -> None:
    fake.outcome = outcome
    report = submit(tiny_competition, write(tiny_competition), FAKE, clock=clock)
    assert report.outcome == outcome
    assert outcomes(tiny_competition) == [outcome]


def test_a_file_that_changes_meanwhile_is_not_sent(
    tiny_competition: Competition, fake: AskableTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tiny_competition)
    check = choice.check_submission

    def check_then_change(file: Path, competition: Competition, **how: Any) -> object:
        report = check(file, competition, **how)
        file.write_text("changed", "utf-8")
        return report

    monkeypatch.setattr(choice, "check_submission", check_then_change)
    with pytest.raises(UploadError, match="changed while it was checked"):
        submit(tiny_competition, path, FAKE, clock=clock)
    assert fake.arrived == []


def _submit_at_once(home: Path, name: str, ready: object, answers: object) -> None:
    competition = resolve_competition(str(home / "tiny.toml"), None, None, home=home)
    ready.wait()  # type: ignore[attr-defined]
    try:
        submit(competition, competition.submissions_dir / f"{name}.csv", LOCAL, clock=clock)
    except QuotaError:
        answers.put("quota")  # type: ignore[attr-defined]
    else:
        answers.put("sent")  # type: ignore[attr-defined]


def test_two_processes_do_not_share_the_last_submission(tiny_competition: Competition) -> None:
    for seed in range(4):
        write(tiny_competition, f"s{seed}", seed)
    for seed in range(2):
        path = tiny_competition.submissions_dir / f"s{seed}.csv"
        submit(tiny_competition, path, LOCAL, clock=clock)
    context = choose_context()
    ready, answers = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_submit_at_once, args=(tiny_competition.home, name, ready, answers))
        for name in ("s2", "s3")
    ]
    for worker in workers:
        worker.start()
    got = sorted(answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert got == ["quota", "sent"]
    assert outcomes(tiny_competition) == ["sent"] * 3


@pytest.mark.parametrize("name", send.TARGETS)
def test_targets_take_options(name: str) -> None:
    assert send.TARGETS[name](TargetOptions()).name == name


@pytest.mark.parametrize("name", ["folder", "local", "kaggle", "aistages", "evalai", "http"])
def test_targets_report_what_their_platform_offers(name: str) -> None:
    target = send.TARGETS[name](TargetOptions())
    assert target.has_quota == (name != "folder")
    assert isinstance(target, Findable) == (name in ("folder", "local", "kaggle", "evalai"))
    assert isinstance(target, Scoring) == (name in ("kaggle", "evalai", "http"))


def test_tables_print(tiny_competition: Competition, capsys: pytest.CaptureFixture[str]) -> None:
    report = submit(tiny_competition, write(tiny_competition), LOCAL, clock=clock)
    print_tables(build_submit_tables(report), as_json=True)
    assert json.loads(capsys.readouterr().out)["submit"]["rows"][0]["outcome"] == "sent"


def fill_disk(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Let the disk be full when a record of a kind is written: half of its line gets there."""

    def append(path: Path, *lines: str) -> None:
        for line in lines:
            if json.loads(line)["kind"] == kind:
                with path.open("ab") as stream:
                    stream.write(line.encode()[:40])
                raise OSError(errno.ENOSPC, "No space left on device")
            append_lines_synced(path, line)

    monkeypatch.setattr("competition.submission.ledger.append_lines_synced", append)


def test_a_disk_that_fills_after_sending_hides_nothing(
    tiny_competition: Competition, fake: AskableTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tiny_competition)
    with monkeypatch.context() as patch:
        fill_disk(patch, "receipt")
        with pytest.raises(UploadError) as caught:
            submit(tiny_competition, path, FAKE, clock=clock)
    for said in ("blend WAS sent to fake (thanks)", "No space left", "do not use --resend"):
        assert said in str(caught.value)
    assert outcomes(tiny_competition) == ["unknown"]
    assert open_ledger(tiny_competition).read_torn() is None
    report = submit(tiny_competition, path, FAKE, clock=clock)
    assert (report.outcome, len(fake.arrived)) == ("sent", 1)
    assert outcomes(tiny_competition) == ["sent"]


def test_without_an_api_a_full_disk_prints_the_missing_line(
    tiny_competition: Competition, silent: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tiny_competition)
    with monkeypatch.context() as patch:
        fill_disk(patch, "receipt")
        with pytest.raises(UploadError, match="WAS sent") as caught:
            submit(tiny_competition, path, FAKE, clock=clock)
    with pytest.raises(DuplicateError, match="may have been sent"):
        submit(tiny_competition, path, FAKE, clock=clock)
    with open_ledger(tiny_competition).path.open("a", encoding="utf-8") as stream:
        stream.write(str(caught.value).rpartition("\n")[2] + "\n")
    (entry,) = open_ledger(tiny_competition).read()
    assert (entry.outcome, entry.ref, entry.message) == ("sent", "1", "thanks")


def test_a_failure_on_a_full_disk_is_still_reported(
    tiny_competition: Competition, fake: AskableTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise QuotaError("the day is used up")

    fake.before = fail
    fill_disk(monkeypatch, "receipt")
    with pytest.raises(QuotaError, match="the day is used up; nothing arrived, but the ledger"):
        submit(tiny_competition, write(tiny_competition), FAKE, clock=clock)


def test_a_score_is_recorded_with_its_receipt_or_neither(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tiny_competition)
    with monkeypatch.context() as patch:
        fill_disk(patch, "score")
        with pytest.raises(UploadError, match="WAS sent to local"):
            submit(tiny_competition, path, LOCAL, clock=clock)
    assert outcomes(tiny_competition) == ["unknown"]
    assert submit(tiny_competition, path, LOCAL, clock=clock).public is not None


def test_the_local_board_scores_the_bytes_that_were_checked(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = write(tiny_competition, "one", 1), write(tiny_competition, "two", 2)
    expected = submit(tiny_competition, path, LOCAL, clock=clock)
    changed = other.read_bytes()
    record = Attempts.record_intent

    def record_then_change(attempts: Attempts, submission: Submission) -> int:
        path.write_bytes(changed)
        return record(attempts, submission)

    monkeypatch.setattr(Attempts, "record_intent", record_then_change)
    report = submit(tiny_competition, path, replace(LOCAL, resend=True), clock=clock)
    assert (report.public, report.private) == (expected.public, expected.private)
    assert submit(tiny_competition, other, LOCAL, clock=clock).public != expected.public


def test_what_an_editor_leaves_is_not_the_newest(tiny_competition: Competition) -> None:
    path = write(tiny_competition)
    folder = tiny_competition.submissions_dir
    folder.joinpath(".#next.csv").symlink_to("someone@host.4711")
    folder.joinpath("gone.csv").symlink_to("nowhere.csv")
    folder.joinpath(".hidden.csv").write_bytes(path.read_bytes())
    folder.joinpath("folder.csv").mkdir()
    assert submit(tiny_competition, None, LOCAL, clock=clock).name == "blend"


def test_times_are_shown_by_the_leaderboards_clock(
    tiny_competition: Competition, fake: AskableTarget
) -> None:
    path, when = write(tiny_competition), "2026-11-23 03:55 (Asia/Seoul)"
    late = NOON + timedelta(hours=6, minutes=55)
    submit(tiny_competition, path, FAKE, clock=lambda: late)
    with pytest.raises(DuplicateError) as caught:
        submit(tiny_competition, path, FAKE, clock=lambda: late)
    assert f"at {when}, as blend" in str(caught.value)
    dry = submit(tiny_competition, path, replace(FAKE, dry_run=True), clock=lambda: late)
    assert f"the same bytes: sent at {when}" in dry.notes
    fake.verdicts = [Verdict("pending")] * 99
    waited = submit(
        tiny_competition, path, replace(FAKE, wait=True), clock=lambda: late, sleep=lambda _: None
    )
    assert f"already sent at {when}; nothing was sent" in waited.notes
    leave_open(tiny_competition, "lost", "lost", late)
    settled = submit(tiny_competition, write(tiny_competition, "b", 1), FAKE, clock=lambda: late)
    assert f"the upload of lost at {when} did not arrive" in settled.notes
