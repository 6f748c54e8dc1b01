"""ledger: append-only, whole under concurrency, and honest about what a crash left."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from competition.errors import UploadError
from competition.submission.ledger import Ledger, build_score, count_on_day
from tests.conftest import choose_context

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
FIELDS = {"target": "local", "destination": "x", "name": "blend", "sha256": "ab", "bytes": 3}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "submissions" / "ledger.jsonl")


def fill(ledger: Ledger, count: int = 2) -> None:
    with ledger.locked():
        for _ in range(count):
            intent = ledger.append_intent(NOON, FIELDS)
            ledger.append_receipt(intent, NOON, "sent", ref="r", message="하나\n둘")


def test_an_empty_ledger(ledger: Ledger) -> None:
    assert ledger.read() == []
    assert ledger.read_torn() is None
    assert ledger.repair() is None


def test_an_attempt_is_read_from_its_records(ledger: Ledger) -> None:
    with ledger.locked():
        intent = ledger.append_intent(NOON, FIELDS)
        (entry,) = ledger.read()
        assert (entry.id, entry.outcome, entry.time, entry.n_bytes) == (1, "unknown", NOON, 3)
        ledger.append_receipt(intent, NOON, "sent", ref="r1", message="하나\n둘")
        ledger.append(
            build_score(intent, NOON, public={"micro_f1": 0.5, "auprc": None}, private=None)
        )
    (entry,) = ledger.read()
    assert (entry.outcome, entry.ref, entry.message) == ("sent", "r1", "하나\n둘")
    assert entry.public == {"micro_f1": 0.5, "auprc": None}
    assert entry.private is None
    assert len(ledger.path.read_bytes().splitlines()) == 3


def test_a_later_decision_of_a_platform_is_kept(ledger: Ledger) -> None:
    fill(ledger, 1)
    with ledger.locked():
        ledger.append_receipt(1, NOON, "refused", ref="r", message="id 7 is missing")
    (entry,) = ledger.read()
    assert (entry.outcome, entry.ref, entry.message) == ("refused", "r", "id 7 is missing")
    assert len(ledger.path.read_bytes().splitlines()) == 3


def test_lines_are_only_appended(ledger: Ledger) -> None:
    fill(ledger)
    before = ledger.path.read_bytes()
    fill(ledger)
    assert ledger.path.read_bytes().startswith(before)
    assert [entry.id for entry in ledger.read()] == [1, 2, 3, 4]


@pytest.mark.parametrize("keep", [1, 10, 60])
def test_a_torn_last_line_is_put_aside(ledger: Ledger, keep: int) -> None:
    fill(ledger)
    whole = ledger.path.read_bytes()
    torn = whole.splitlines(keepends=True)[0][:keep]
    ledger.path.write_bytes(whole + torn)
    assert len(ledger.read()) == 2
    assert ledger.read_torn() == torn.decode()
    with ledger.locked():
        aside = ledger.repair()
    assert aside is not None
    assert aside.read_bytes() == torn
    assert ledger.path.read_bytes() == whole
    ledger.path.write_bytes(whole + torn)
    second = ledger.repair()
    assert second != aside
    assert aside.exists()


def test_a_last_line_that_lacks_only_its_newline_is_kept(ledger: Ledger) -> None:
    fill(ledger)
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-1])
    assert len(ledger.read()) == 2
    assert ledger.read_torn() is None
    assert ledger.repair() is None
    assert ledger.path.read_bytes() == whole


def _set(key: str, value: object) -> Callable[[str], str]:
    def apply(line: str) -> str:
        return json.dumps({**json.loads(line), key: value})

    return apply


DAMAGES: dict[str, Callable[[str], str]] = {
    "cut": lambda line: line[:20],
    "zeros": lambda line: "\0" * len(line),
    "list": lambda _: "[]",
    "kind": _set("kind", "note"),
    "time": _set("time", "yesterday"),
    "time without zone": _set("time", "2026-11-22T12:00:00"),
    "outcome": _set("outcome", "perhaps"),
    "message": _set("message", 1),
    "intent": _set("intent", 7),
    "intent as a truth value": _set("intent", True),
    "kind as a list": _set("kind", []),
    "intent as text": _set("intent", "1"),
    "ref as a number": _set("ref", 7),
    "nested without end": lambda _: '{"kind":' + "[" * 100_000,
}


@pytest.mark.parametrize(
    "public",
    [
        71.5,
        "0.7",
        {"micro_f1": "0.7"},
        {"micro_f1": 71.5},
        {"micro_f1": True},
        {"micro_f1": [1]},
        [],
    ],
)
def test_a_score_that_is_none_is_named(ledger: Ledger, public: object) -> None:
    fill(ledger, 1)
    n_lines = len(ledger.path.read_text("utf-8").splitlines())
    line = {"kind": "score", "intent": 1, "time": NOON.isoformat(), "public": public}
    with ledger.path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**line, "private": None}) + "\n")
    (damaged,) = ledger.read_damaged()
    assert damaged.number == n_lines + 1
    assert "the score has no usable" in damaged.reason
    assert len(ledger.read()) == 1


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a/b", "a\x1b", "."])
def test_a_name_that_leaves_its_folder_is_no_submission(ledger: Ledger, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ledger.append_intent(NOON, {**FIELDS, "name": name})


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_line_is_named_and_the_others_are_read(ledger: Ledger, name: str) -> None:
    fill(ledger)
    lines = ledger.path.read_text("utf-8").split("\n")
    lines[1] = DAMAGES[name](lines[1])
    ledger.path.write_text("\n".join(lines), "utf-8")
    before = ledger.path.read_bytes()
    assert [(entry.id, entry.outcome) for entry in ledger.read()] == [(1, "unknown"), (2, "sent")]
    assert [each.number for each in ledger.read_damaged()] == [2]
    with ledger.locked():
        assert ledger.append_intent(NOON, FIELDS) > 2
    assert ledger.path.read_bytes().startswith(before)


@pytest.mark.parametrize(
    ("change", "is_this", "is_other", "counts"),
    [
        (lambda line: line, True, False, True),
        (lambda line: line[:20], True, True, False),
        (lambda line: line.replace("kind", "sort"), True, False, True),
        (lambda _: '{"kind": "receipt", "intent": 9, "time"', False, False, False),
        (lambda line: line.replace("2026-11-22", "2026-11-21"), True, False, False),
    ],
)
def test_what_a_damaged_line_may_have_said_is_assumed(
    ledger: Ledger, change: Callable[[str], str], is_this: bool, is_other: bool, counts: bool
) -> None:
    ledger.append_intent(NOON, {**FIELDS, "sha256": "a" * 64})
    line = ledger.path.read_text("utf-8")
    broken = change(line.strip().removesuffix("}"))
    ledger.path.write_text(f"{broken}\n", "utf-8")
    (damaged,) = ledger.read_damaged()
    assert damaged.may_name("a" * 64) is is_this
    assert damaged.may_name("f" * 64) is is_other
    assert damaged.may_count(NOON.date(), UTC, str(FIELDS["target"])) is counts
    assert not damaged.may_count(NOON.date(), UTC, "elsewhere")


def test_a_lost_attempt_does_not_give_its_receipt_to_the_next(ledger: Ledger) -> None:
    fill(ledger, 2)
    lines = ledger.path.read_text("utf-8").splitlines(keepends=True)
    ledger.path.write_text("".join(["x\n", *lines[1:]]), "utf-8")
    assert [entry.id for entry in ledger.read()] == [2]
    assert [each.number for each in ledger.read_damaged()][:2] == [1, 2]
    ledger.path.write_text("".join(["x\n", lines[1]]), "utf-8")  # only the receipt of intent 1
    assert ledger.append_intent(NOON, FIELDS) == 2
    assert [entry.outcome for entry in ledger.read()] == ["unknown"]


@pytest.mark.parametrize("blank", ["", "  ", "\r"])
def test_blank_lines_say_nothing_and_are_counted(ledger: Ledger, blank: str) -> None:
    fill(ledger, 1)
    first, second, _ = ledger.path.read_text("utf-8").split("\n")
    ledger.path.write_text("\n".join([blank, first, blank, second, "", blank]), "utf-8")
    assert [entry.outcome for entry in ledger.read()] == ["sent"]
    assert ledger.read_torn() is None
    with ledger.locked():
        assert ledger.repair() is None
        ledger.append_intent(NOON, FIELDS)
    assert [entry.id for entry in ledger.read()] == [1, 2]
    whole = ledger.path.read_text("utf-8")
    ledger.path.write_text(whole + "\n\n{}\n", "utf-8")
    (damaged,) = ledger.read_damaged()
    assert damaged.describe().startswith(f"line {whole.count(chr(10)) + 3}: its kind is none of")


def test_an_intent_twice_is_named(ledger: Ledger) -> None:
    fill(ledger, 1)
    line = ledger.path.read_text("utf-8").split("\n")[0]
    ledger.path.write_text(f"{line}\n{line}\n", "utf-8")
    assert len(ledger.read()) == 1
    assert [each.describe() for each in ledger.read_damaged()] == [
        "line 2: intent 1 is there twice"
    ]


def test_our_own_mistakes_do_not_reach_the_file(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="zone"):
        ledger.append_intent(NOON.replace(tzinfo=None), FIELDS)
    with pytest.raises(ValueError, match="sha256"):
        ledger.append_intent(NOON, {**FIELDS, "sha256": None})
    assert not ledger.path.exists()


def test_the_quota_counts_days_where_the_board_is(ledger: Ledger) -> None:
    times = (
        "2026-11-22T14:59:59",
        "2026-11-22T15:00:00",
        "2026-11-23T14:59:59",
    )  # Seoul: 22, 23, 23
    outcomes = ("sent", "failed", "refused", "unknown")
    for time in times:
        for outcome in outcomes:
            moment = datetime.fromisoformat(time).replace(tzinfo=UTC)
            intent = ledger.append_intent(moment, FIELDS)
            ledger.append_receipt(intent, moment, outcome, ref=None, message="")  # type: ignore[arg-type]
    entries = ledger.read()
    seoul_23, here = datetime(2026, 11, 22, 15, 0, tzinfo=UTC), ("local", "x")
    assert count_on_day(entries, seoul_23, "Asia/Seoul", place=here) == 4
    assert count_on_day(entries, seoul_23 - timedelta(seconds=1), "Asia/Seoul", place=here) == 2
    assert count_on_day(entries, seoul_23, "UTC", place=here) == 4
    assert count_on_day(entries, seoul_23, "Asia/Seoul", place=("local", "another")) == 0


def _append_many(path: Path, count: int, ready: object) -> None:
    ready.wait()  # type: ignore[attr-defined]
    ledger = Ledger(path)
    for _ in range(count):
        with ledger.locked():
            intent = ledger.append_intent(NOON, FIELDS)
            ledger.append_receipt(intent, NOON, "sent", ref=None, message="x" * 5_000)


def test_two_processes_at_once_lose_nothing(ledger: Ledger) -> None:
    context = choose_context()
    ready = context.Barrier(2)
    workers = [
        context.Process(target=_append_many, args=(ledger.path, 15, ready)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    entries = ledger.read()
    assert [entry.id for entry in entries] == list(range(1, 31))
    assert {entry.outcome for entry in entries} == {"sent"}


def test_a_lock_that_is_held_gives_a_clear_error(ledger: Ledger) -> None:
    other = Ledger(ledger.path)
    refused = pytest.raises(UploadError, match="another submit")
    with ledger.locked(), refused, other.locked(timeout_s=0.01):
        pytest.fail("both hold the lock")


def test_a_link_to_a_shared_ledger_stays_one(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger)
    whole = ledger.path.read_bytes()
    link = Ledger(tmp_path / "mine" / "ledger.jsonl")
    link.path.parent.mkdir()
    link.path.symlink_to(ledger.path)
    for torn, mended in ((whole + b'{"kind', whole), (whole[:-1], whole)):
        ledger.path.write_bytes(torn)
        with link.locked():
            link.repair()
        assert link.path.is_symlink()
        assert ledger.path.read_bytes() == mended
    refused = pytest.raises(UploadError, match="another submit")
    with ledger.locked(), refused, link.locked(timeout_s=0.01):
        pass


def test_a_line_that_does_not_fit_leaves_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(path: Path, *lines: str) -> None:
        (line,) = lines
        with path.open("ab") as stream:
            stream.write(line.encode()[:20])
        raise OSError("disk full")

    fill(ledger)
    before = ledger.path.read_bytes()
    monkeypatch.setattr("competition.submission.ledger.append_lines_synced", append)
    with pytest.raises(OSError, match="disk full"):
        ledger.append_intent(NOON, FIELDS)
    assert ledger.path.read_bytes() == before
