"""Scores entered by hand: what is accepted, where it is recorded, and how it is used."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from competition.board.board import build_board_tables
from competition.errors import UsageError
from competition.profile import Competition
from competition.submission.ledger import build_score, open_ledger
from competition.upload.entered import enter_scores, parse_score
from competition.upload.report import build_submit_tables
from competition.upload.send import SubmitOptions, submit
from tests.competition.klue_scores import KINDS
from tests.competition.upload.test_send import write

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def send(competition: Competition, name: str = "b1", seed: int = 0) -> Path:
    path = write(competition, name, seed)
    options = SubmitOptions(target="folder")
    report = submit(competition, path, options, clock=lambda: NOON)
    (table,) = build_submit_tables(report)
    assert f"python run.py board --score {name}=F1/AUPRC" in table.notes[-1]
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("b1", "is not of the form NAME=61.02/50.10"),
        ("=61/50", "is not of the form"),
        ("b1=61/50:60/50:1/2", "is not of the form"),
        ("b1=61,02/50,10", "decimal point"),
        ("b1=61/50/40", "decimal point"),
        ("b1=nan/50", "decimal point"),
        ("b1=-3/50", "-3 is below the lowest micro-F1"),
        ("b1=101/50", "101 is above 100"),
        ("b1=0.6102/0.5", "write it ×100, such as 61.02"),
    ],
)
def test_what_is_no_score_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_score(text, KINDS)


def test_an_entered_score_is_in_ledger_board_and_final_picks(
    tiny_competition: Competition,
) -> None:
    send(tiny_competition)
    before = {t.name: t for t in build_board_tables(tiny_competition, now=NOON)}
    assert any("board --score b1=F1/AUPRC" in note for note in before["submissions"].notes)
    (said,) = enter_scores(tiny_competition, ["b1=61.02/50.10"], NOON + timedelta(hours=1))
    assert said.endswith("public 61.02/50.10")
    line = json.loads(open_ledger(tiny_competition).path.read_text("utf-8").splitlines()[-1])
    assert line["source"] == "entered"
    assert line["public"] == {"micro_f1": 0.6102, "auprc": 0.501}
    tables = {t.name: t for t in build_board_tables(tiny_competition, now=NOON)}
    (row,) = tables["submissions"].rows
    assert (row["public_f1"], row["public_auprc"], row["source"]) == (0.6102, 0.501, "entered")
    assert any("Entered by hand with --score: b1" in note for note in tables["submissions"].notes)
    assert not any("--score" in note for note in tables["submissions"].notes[1:])
    assert "public 61.02" in tables["final"].rows[0]["reason"]


def test_a_second_entry_corrects_the_first_and_keeps_the_rest(
    tiny_competition: Competition,
) -> None:
    send(tiny_competition)
    enter_scores(tiny_competition, ["b1=61.02/50.10:60/49"], NOON)
    (said,) = enter_scores(tiny_competition, ["b1=62.02"], NOON)
    assert said.endswith("public 62.02, 61.02/50.10 before")
    (entry,) = open_ledger(tiny_competition).read()
    assert entry.public == {"micro_f1": 0.6202, "auprc": 0.501}
    assert entry.private == {"micro_f1": 0.6, "auprc": 0.49}


def test_a_score_of_what_was_not_sent_is_refused_and_nothing_written(
    tiny_competition: Competition,
) -> None:
    with pytest.raises(UsageError, match=r"submit FILE --to folder"):
        enter_scores(tiny_competition, ["b1=61/50"], NOON)
    assert not tiny_competition.submissions_dir.exists()
    send(tiny_competition)
    ledger = open_ledger(tiny_competition).path.read_bytes()
    path = write(tiny_competition, "b22", 1)
    with pytest.raises(UsageError, match=f"by hand, record it: python run.py submit {path}"):
        enter_scores(tiny_competition, ["b1=61/50", "b22=61/50"], NOON)
    with pytest.raises(UsageError, match="twice"):
        enter_scores(tiny_competition, ["b1=61/50", "b1=62/50"], NOON)
    with pytest.raises(UsageError, match="cannot be sent: leave out --limit"):
        enter_scores(replace(tiny_competition, limit=9), ["b1=61/50"], NOON)
    assert open_ledger(tiny_competition).path.read_bytes() == ledger, "all of them or none"


def test_several_files_of_a_name_are_known_by_their_hash(tiny_competition: Competition) -> None:
    send(tiny_competition).unlink()
    send(tiny_competition, seed=1)
    first, second = open_ledger(tiny_competition).read()
    with pytest.raises(UsageError, match=f"b1@{first.sha256[:8]}"):
        enter_scores(tiny_competition, ["b1=61/50"], NOON)
    enter_scores(tiny_competition, [f"b1@{second.sha256[:8]}=61/50"], NOON)
    scored = [entry.public is not None for entry in open_ledger(tiny_competition).read()]
    assert scored == [False, True]


def test_a_score_of_a_platform_is_kept_where_it_can_be_asked(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(tiny_competition)
    ledger = open_ledger(tiny_competition)
    with ledger.locked():
        ledger.append(build_score(1, NOON, public={"micro_f1": 0.7}, private=None))
    with monkeypatch.context() as patch:
        patch.setattr("competition.upload.entered.can_poll", lambda *_: True)
        for _ in range(2):
            said = r"itself reported 70.*submit FILE --to folder --wait"
            with pytest.raises(UsageError, match=said):
                enter_scores(tiny_competition, ["b1=61/50"], NOON)
            enter_scores(tiny_competition, ["b1=70.00/50"], NOON)
            assert ledger.read()[0].public == {"micro_f1": 0.7, "auprc": 0.5}
    (said,) = enter_scores(tiny_competition, ["b1=61/50"], NOON)  # only its page shows a new one
    assert said.endswith("public 61.00/50.00, 70.00/50.00 before")


def test_a_score_shows_that_an_unanswered_file_arrived(tiny_competition: Competition) -> None:
    ledger = open_ledger(tiny_competition)
    fields = {"target": "aistages", "destination": "x", "name": "b", "sha256": "ab", "bytes": 3}
    with ledger.locked():
        ledger.append_intent(NOON, fields)
    enter_scores(tiny_competition, ["b=61/50"], NOON)
    assert ledger.read()[0].outcome == "sent"
    with ledger.locked():
        ledger.append_receipt(1, NOON, "refused", ref=None, message="id 7 is missing")
    with pytest.raises(UsageError, match="refused: id 7 is missing"):
        enter_scores(tiny_competition, ["b=61/50"], NOON)


def test_a_file_scored_here_has_nothing_to_enter(tiny_competition: Competition) -> None:
    path = write(tiny_competition, "b1")
    submit(tiny_competition, path, SubmitOptions(target="local"), clock=lambda: NOON)
    with pytest.raises(UsageError, match="scored with the local solution file"):
        enter_scores(tiny_competition, ["b1=61/50"], NOON)


def test_a_score_that_is_not_known_is_a_dash(tiny_competition: Competition) -> None:
    send(tiny_competition)
    ledger = open_ledger(tiny_competition)
    score = build_score(1, NOON, public={"auprc": 0.6}, private=None, is_entered=True)
    ledger.append(score)
    (said,) = enter_scores(tiny_competition, ["b1=61/50"], NOON)
    assert said.endswith("public 61.00/50.00, –/60.00 before")
