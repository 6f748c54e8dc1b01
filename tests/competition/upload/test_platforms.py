"""kaggle, aistages, evalai, http: whatever goes wrong, a file counts once and the ledger knows.

Kaggle is spoken to through its real client. Every test ends with the same three questions: how many
submissions the server counted, what the ledger says, and whether the key shows anywhere.
"""

from __future__ import annotations

import importlib
import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

import run
from competition.console import print_tables
from competition.errors import DuplicateError, HarnessError, QuotaError, UploadError
from competition.profile import Competition, read_profile, resolve_competition
from competition.submission.ledger import open_ledger
from competition.upload import send
from competition.upload.attempts import Attempts
from competition.upload.kaggle import KaggleTarget
from competition.upload.kaggle_client import build_api, log_in
from competition.upload.report import SubmitReport, build_submit_tables
from competition.upload.send import SubmitOptions, submit
from competition.upload.target import TargetOptions
from tests.competition.upload.test_send import NOON, write
from tests.competition.upload_servers import (
    BROKEN,
    BROKEN_LATE,
    BUSY,
    KEY,
    LIMITED,
    RESET,
    RESET_LATE,
    USER,
    AIStagesServer,
    EvalAIServer,
    Fault,
    HttpServer,
    KaggleServer,
    Server,
    serve,
)
from tests.conftest import TINY_PROFILE, choose_context

SERVERS: dict[str, type[Server]] = {
    "kaggle": KaggleServer,
    "aistages": AIStagesServer,
    "evalai": EvalAIServer,
    "http": HttpServer,
}
CREATES = {"kaggle": "create", "aistages": "upload", "evalai": "upload", "http": "upload"}
ASKABLE = ("kaggle", "evalai")
REPEATED = [("kaggle", "quota"), ("kaggle", "start"), ("kaggle", "put"), ("evalai", "quota")]
WHOLE = {
    "kaggle": ["quota", "start", "put", "create"],
    "aistages": ["ask", "upload"],
    "evalai": ["quota", "upload"],
    "http": ["upload"],
}

PLATFORMS = """
[upload.kaggle]
competition = "korean-relations"
[upload.kaggle.scores]
scale = 100.0
[upload.aistages]
host = "{url}/"
id = 35
[upload.evalai]
host = "{url}"
challenge = 3
phase = 4
[upload.evalai.scores]
public_f1 = "0.test.f1"
public_auprc = "0.test.area"
scale = 100.0
[upload.http]
url = "{url}/api/submissions?track=re"
file_field = "csv"
fields = {{ note = "{{name}} [re:{{hash}}]" }}
key_variable = "BOARD_KEY"
status_url = "{url}/api/submissions/{{id}}"
[upload.http.answer]
id = "submission.id"
status = "state"
error = "message"
[upload.http.scores]
public_f1 = "scores.public.0.f1"
private_f1 = "scores.private"
scale = 100.0
"""


def write_platforms(home: Path, url: str) -> Competition:
    text = TINY_PROFILE + PLATFORMS.format(url=url)
    (home / "tiny.toml").write_text(text, "utf-8")
    return resolve_competition(str(home / "tiny.toml"), None, None, home=home)


def kaggle_at(tell_url: Callable[[], str], options: TargetOptions) -> KaggleTarget:
    """Make the target with Kaggle's real client, pointed at this machine."""

    def build() -> Any:
        module = importlib.import_module("kaggle.api.kaggle_api_extended")

        class LoopbackApi(module.KaggleApi):  # type: ignore[misc, name-defined]
            def build_kaggle_client(self) -> Any:
                client = super().build_kaggle_client()
                client.http_client()._endpoint = tell_url()
                return client

        api = LoopbackApi()
        log_in(api)
        return api

    return KaggleTarget(options, build=build)


@dataclass
class Evening:
    """A competition, a platform and a person who submits there."""

    competition: Competition
    server: Server
    name: str
    path: Path
    errors: list[str] = field(default_factory=list)
    slept_s: float = 0.0
    told: list[str] = field(default_factory=list)

    def submit(self, path: Path | None = None, **more: Any) -> SubmitReport:
        options = SubmitOptions(target=self.name, **more)
        try:
            report = submit(
                self.competition,
                path or self.path,
                options,
                clock=lambda: NOON + timedelta(seconds=self.slept_s),
                sleep=self.sleep,
                on_wait=lambda _, status: self.told.append(status),
            )
        except BaseException as error:
            self.errors.append("".join(traceback.format_exception(error)))
            raise
        print_tables(build_submit_tables(report), as_json=True)
        return report

    def fail(self, kind: type[HarnessError] = UploadError, **more: Any) -> str:
        with pytest.raises(kind) as caught:
            self.submit(**more)
        return str(caught.value)

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def see(self, *outcomes: str, count: int) -> None:
        """Assert what the ledger says and what the server counted."""
        assert [entry.outcome for entry in open_ledger(self.competition).read()] == list(outcomes)
        assert len(self.server.submissions) == count
        assert all(s["data"] == self.path.read_bytes() for s in self.server.submissions[:1])


def spell(secret: str) -> list[bytes]:
    from base64 import b64encode

    plain = [secret, quote(secret, safe=""), b64encode(secret.encode()).decode().rstrip("=")]
    return [text.encode() for text in [*plain, b64encode(f"{USER}:{secret}".encode()).decode()]]


@pytest.fixture
def name() -> str:
    """Name a platform; tests name theirs."""
    raise LookupError("a test of a platform is parametrized by its name")


@pytest.fixture
def evening(
    name: str,
    tiny_competition: Competition,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Evening]:
    """A platform by the test's ``name``; at the end the key must show nowhere."""
    home = tiny_competition.home
    caplog.set_level("DEBUG")
    set_up_keys(monkeypatch, home)
    with serve(SERVERS[name]()) as server:
        monkeypatch.setitem(
            send.TARGETS, "kaggle", lambda made: kaggle_at(lambda: server.url, made)
        )
        competition = write_platforms(home, server.url)
        it = Evening(competition, server, name, write(competition))
        yield it
    logged = "".join(record.getMessage() for record in caplog.get_records("call"))
    printed = "".join(capfd.readouterr()) + logged + "".join(it.errors)
    written = [p.read_bytes() for p in (home / "submissions").rglob("*") if p.is_file()]
    for shown in [printed.encode(), *written]:
        for secret in [*spell(KEY), *spell("wrong" + KEY), b"9" * 32, b"5" * 64]:
            assert secret not in shown


def set_up_keys(monkeypatch: pytest.MonkeyPatch, home: Path, key: str = KEY) -> None:
    values = {"AISTAGES_KEY": key, "EVALAI_TOKEN": key, "BOARD_KEY": key, "KAGGLE_KEY": key}
    values |= {"KAGGLE_USERNAME": USER, "HOME": str(home), "KAGGLE_CONFIG_DIR": str(home)}
    values |= {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    for variable, value in (values | {"NO_PROXY": "127.0.0.1"}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)


every_platform = pytest.mark.parametrize("name", SERVERS)


@every_platform
def test_a_file_arrives_once(evening: Evening) -> None:
    report = evening.submit()
    assert (report.outcome, report.ref) == ("sent", "1")
    evening.see("sent", count=1)
    assert evening.server.steps() == WHOLE[evening.name]
    assert report.quota_left == (4 if evening.name in ASKABLE else 2)
    evening.fail(DuplicateError)
    evening.see("sent", count=1)
    evening.submit(resend=True)
    evening.see("sent", "sent", count=2)
    described = evening.server.submissions[0]
    mark = f"blend [re:{report.sha256[:8]}]"
    assert evening.name == "aistages" or mark in described.values()


@every_platform
def test_a_dry_run_tells_every_request_and_needs_no_key(
    evening: Evening, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("AISTAGES_KEY", "EVALAI_TOKEN", "BOARD_KEY", "KAGGLE_KEY", "KAGGLE_USERNAME")
    values = {variable: os.environ[variable] for variable in keys}
    for variable in keys:
        monkeypatch.delenv(variable)
    before = sorted(evening.competition.home.rglob("*"))
    plan = evening.submit(dry_run=True).plan
    assert evening.server.requests == []
    assert sorted(evening.competition.home.rglob("*")) == before
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)
    evening.submit()
    made = [request for _, request in evening.server.requests]
    assert [line.split()[0] for line in plan] == [request.method for request in made]
    for line, request in zip(plan, made, strict=True):
        shown = line.split(";")[0].split()[1]
        assert shown.startswith("<") or request.path in shown
        assert ("Authorization: ***" in line) == ("authorization" in request.headers)
        for field_name, value in request.query.items() if request.path in shown else ():
            assert f"{field_name}={quote(value, safe='').replace('%20', '+')}" in line
    if evening.name != "aistages":
        waits = evening.submit(dry_run=True, wait=True).plan
        assert waits[:-1] == plan
        assert "until it is scored" in waits[-1]
        evening.server.decide("finished")
        evening.submit(wait=True)
        step, asked = evening.server.requests[len(plan)]
        assert step == "status"
        assert asked.path.removesuffix("/1") in waits[-1]
        assert "Authorization: ***" in waits[-1]
    size = f"{evening.path.stat().st_size:,} bytes"
    assert any(size in line for line in plan)


@every_platform
def test_a_wrong_key_is_said_and_not_shown(
    evening: Evening, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_keys(monkeypatch, evening.competition.home, "wrong" + KEY)
    said = evening.fail()
    assert "answered 401: " in said
    assert "***" in said
    evening.see(*([] if evening.name in ASKABLE else ["failed"]), count=0)
    set_up_keys(monkeypatch, evening.competition.home)
    evening.submit()
    assert len(evening.server.submissions) == 1


@pytest.mark.parametrize(
    ("name", "key"),
    [  # Kaggle's client reads its own keys
        ("kaggle", ""),
        *((name, key) for name in list(SERVERS)[1:] for key in ("", "한글", "two words")),
    ],
)
def test_no_key_is_said_before_anything_is_sent(
    evening: Evening, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if evening.name == "kaggle":
        for variable in ("KAGGLE_KEY", "KAGGLE_USERNAME"):
            monkeypatch.delenv(variable)
        assert "set KAGGLE_API_TOKEN" in evening.fail()
    else:
        set_up_keys(monkeypatch, evening.competition.home, key)
        said = evening.fail()
        assert "_KEY" in said or "_TOKEN" in said
        assert key == "" or key not in said
    assert evening.server.requests == []
    evening.see(*([] if evening.name in ASKABLE else ["failed"]), count=0)


@every_platform
def test_the_quota_is_kept(evening: Evening) -> None:
    if evening.name in ASKABLE:
        evening.server.left = 0
        assert "reports that no submission is left" in evening.fail(QuotaError)
        evening.see(count=0)
        return
    for seed in range(3):
        evening.submit(write(evening.competition, f"s{seed}", seed))
    path = write(evening.competition, "fourth", 4)
    assert "all 3 submissions" in evening.fail(QuotaError, path=path)
    assert len(evening.server.submissions) == 3


@every_platform
def test_a_quota_that_is_used_up_meanwhile_is_reported_as_such(evening: Evening) -> None:
    said = "The maximum number of submissions for today has been reached"
    body = {"code": 403, "message": said, "error": said}
    evening.server.faults[CREATES[evening.name]] = [Fault(403, body)]
    assert said in evening.fail(QuotaError)
    evening.see("refused", count=0)
    evening.submit()
    evening.see("refused", "sent", count=1)


@every_platform
def test_a_file_that_is_rejected_at_once(evening: Evening) -> None:
    body = {"code": 400, "message": f"row 7 is odd {KEY}", "error": f"row 7 is odd {KEY}"}
    evening.server.faults[CREATES[evening.name]] = [Fault(400, body)]
    report = evening.submit()
    assert report.outcome == "refused"
    assert report.quota_left == (5 if evening.name in ASKABLE else 3)
    assert "row 7 is odd ***" in report.message
    evening.see("refused", count=0)


@every_platform
def test_a_busy_server_is_not_sent_a_file_twice(evening: Evening) -> None:
    evening.server.faults[CREATES[evening.name]] = [BUSY]
    assert "try again in 3 s" in evening.fail()
    evening.see("failed", count=0)
    evening.submit()
    evening.see("failed", "sent", count=1)


@pytest.mark.parametrize(("name", "step"), [*REPEATED, ("aistages", "ask")])
def test_a_request_without_effect_is_repeated_if_the_server_is_busy(
    evening: Evening, step: str
) -> None:
    evening.server.faults[step] = [BUSY, BUSY]
    assert evening.submit().outcome == "sent"
    assert evening.slept_s == 6.0
    evening.see("sent", count=1)


@pytest.mark.parametrize(("name", "step"), [*REPEATED, ("aistages", "ask")])
def test_nobody_sits_out_an_hour(evening: Evening, step: str) -> None:
    evening.server.faults[step] = [LIMITED]
    assert "asks to wait 3600 s" in evening.fail()
    assert evening.slept_s == 0.0
    evening.see(*([] if step == "quota" else ["failed"]), count=0)


@pytest.mark.parametrize(("name", "step"), REPEATED)
@pytest.mark.parametrize("fault", [BROKEN, RESET, BROKEN_LATE, RESET_LATE])
def test_a_step_without_effect_is_repeated(evening: Evening, step: str, fault: Fault) -> None:
    evening.server.faults[step] = [fault, fault]
    assert evening.submit().outcome == "sent"
    evening.see("sent", count=1)
    assert evening.server.steps().count(step) == 3


@pytest.mark.parametrize(("name", "step"), REPEATED)
@pytest.mark.parametrize("fault", [BROKEN, RESET])
def test_a_step_that_never_works_has_failed(evening: Evening, step: str, fault: Fault) -> None:
    evening.server.faults[step] = [fault] * 5
    evening.fail()
    evening.see(*([] if step == "quota" else ["failed"]), count=0)
    assert evening.slept_s == 1 + 2 + 4 + 8
    evening.submit()
    assert len(evening.server.submissions) == 1


@pytest.mark.parametrize("name", ["aistages"])
@pytest.mark.parametrize("fault", [BROKEN, RESET, BROKEN_LATE, RESET_LATE, Fault(302)])
def test_an_address_that_does_not_come_is_requested_once(evening: Evening, fault: Fault) -> None:
    evening.server.faults["ask"] = [fault]
    assert "the file was not sent" in evening.fail()
    assert evening.server.steps() == ["ask"]
    evening.see("failed", count=0)
    evening.submit()
    evening.see("failed", "sent", count=1)


@pytest.mark.parametrize("name", ["kaggle"])
@pytest.mark.parametrize("status", [403, 503])
def test_kaggle_storage_that_refuses_is_no_submission(evening: Evening, status: int) -> None:
    tries = 5 if status == 503 else 1
    evening.server.faults["put"] = [Fault(status, "<Error>no</Error>")] * tries
    assert f"answered {status}: no" in evening.fail()
    assert evening.server.steps().count("put") == tries
    assert "create" not in evening.server.steps()
    evening.see("failed", count=0)
    evening.submit()
    evening.see("failed", "sent", count=1)


@pytest.mark.parametrize("name", ["kaggle"])
def test_kaggle_without_a_submission_id_is_queried(evening: Evening) -> None:
    evening.server.faults["create"] = [Fault(200, {"message": "hm", "ref": 0})]
    report = evening.submit()
    assert report.outcome == "unknown"
    assert "Kaggle returned no submission id: hm" in report.message
    evening.see("unknown", count=0)
    lately = evening.fail()
    assert "may still appear" in lately
    evening.slept_s += 60
    evening.submit()
    evening.see("failed", "sent", count=1)


@pytest.mark.parametrize("name", ["kaggle"])
def test_kaggle_errors_that_come_with_status_200(evening: Evening) -> None:
    said = "You have used all 5 of your submissions"
    evening.server.faults["create"] = [Fault(200, {"code": 400, "message": said})]
    assert said in evening.fail(QuotaError)
    evening.see("refused", count=0)


@pytest.mark.parametrize("name", ["kaggle"])
def test_kaggle_that_is_gone_before_the_last_step_has_got_nothing(evening: Evening) -> None:
    carry_out, url = evening.server.carry_out, evening.server.url

    def vanish(step: str, request: Any) -> Any:
        if step == "put":
            evening.server.url = "http://127.0.0.1:9"
        return carry_out(step, request)

    evening.server.carry_out = vanish  # type: ignore[method-assign]
    evening.fail()
    assert evening.slept_s == 1 + 2 + 4 + 8
    evening.see("failed", count=0)
    evening.server.url, evening.server.carry_out = url, carry_out  # type: ignore[method-assign]
    evening.submit()
    evening.see("failed", "sent", count=1)


@pytest.mark.parametrize("name", ["kaggle"])
def test_kaggle_without_a_team_tells_no_quota(evening: Evening) -> None:
    evening.server.faults["quota"] = [
        Fault(200, {"numToday": 0, "numTotal": 0, "numAllowedNow": 0})
    ]
    report = evening.submit()
    assert any("counted from the ledger" in note for note in report.notes)
    assert report.quota_left == 2
    evening.see("sent", count=1)


@pytest.mark.parametrize("name", ["evalai"])
def test_evalai_without_the_question_for_the_quota(evening: Evening) -> None:
    evening.server.faults["quota"] = [Fault(404, {"detail": "Not found."})]
    assert evening.submit().quota_left == 2
    evening.see("sent", count=1)


@pytest.mark.parametrize("name", ASKABLE)
@pytest.mark.parametrize("fault", [BROKEN_LATE, RESET_LATE, Fault(200, "hello", late=True)])
def test_a_lost_answer_is_looked_up_at_once(evening: Evening, fault: Fault) -> None:
    evening.server.faults[CREATES[evening.name]] = [fault]
    report = evening.submit()
    assert (report.outcome, report.ref) == ("sent", "1")
    assert evening.server.steps() == [*WHOLE[evening.name], "list"]
    evening.see("sent", count=1)
    evening.fail(DuplicateError)
    evening.see("sent", count=1)


@pytest.mark.parametrize("name", ASKABLE)
@pytest.mark.parametrize("fault", [BROKEN, RESET, Fault(200, "hello")])
def test_what_did_not_arrive_is_sent_again_after_asking(evening: Evening, fault: Fault) -> None:
    evening.server.faults[CREATES[evening.name]] = [fault]
    assert evening.submit().outcome == "unknown"
    evening.see("unknown", count=0)
    evening.slept_s += 60
    report = evening.submit()
    assert any("did not arrive" in note for note in report.notes)
    evening.see("failed", "sent", count=1)


@pytest.mark.parametrize("name", ASKABLE)
def test_an_answer_lost_twice_over_is_looked_up_next_time(evening: Evening) -> None:
    evening.server.faults |= {CREATES[evening.name]: [RESET_LATE], "list": [RESET] * 5}
    report = evening.submit()
    assert report.outcome == "unknown"
    assert "run submit again to check whether it arrived" in report.message
    evening.see("unknown", count=1)
    evening.server.faults["list"] = [RESET] * 5
    assert "could not be checked" in evening.fail()
    evening.see("unknown", count=1)
    for _ in range(3):  # a team-mate's, which push it to the list's second page
        evening.server.take(b"", description="other", method_name="other")
    report = evening.submit()
    assert any("nothing was sent" in note for note in report.notes)
    assert (report.outcome, report.ref) == ("sent", "1")
    evening.see("sent", count=4)


@pytest.mark.parametrize("name", ASKABLE)
def test_a_lost_resend_is_not_taken_for_the_first_one(evening: Evening) -> None:
    for seed in range(3):  # on further pages of the list
        evening.submit(write(evening.competition, f"s{seed}", seed + 10))
    evening.submit()
    evening.server.faults[CREATES[evening.name]] = [RESET, RESET_LATE]
    assert evening.submit(resend=True).outcome == "unknown"
    evening.slept_s += 60
    report = evening.submit(resend=True)
    assert (report.outcome, report.ref) == ("sent", "5")
    outcomes = [entry.outcome for entry in open_ledger(evening.competition).read()]
    assert outcomes == ["sent"] * 4 + ["failed", "sent"]
    assert len(evening.server.submissions) == 5


@pytest.mark.parametrize("name", ["aistages", "http"])
@pytest.mark.parametrize(
    "fault", [BROKEN, RESET, BROKEN_LATE, RESET_LATE, Fault(303, late=True), Fault(408)]
)
def test_without_an_api_resend_decides(evening: Evening, fault: Fault) -> None:
    evening.server.faults[CREATES[evening.name]] = [fault]
    report = evening.submit()
    assert report.outcome == "unknown"
    assert "sending again needs --resend" in report.message
    evening.see("unknown", count=int(fault.late))
    assert "may have been sent" in evening.fail(DuplicateError)
    evening.see("unknown", count=int(fault.late))
    evening.submit(resend=True)
    evening.see("unknown", "sent", count=1 + fault.late)


@every_platform
def test_a_silent_server_is_not_waited_for_for_ever(
    evening: Evening, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wire", "kaggle_client"):
        monkeypatch.setattr(f"competition.upload.{module}.SILENCE_TIMEOUT_S", 0.3)
    silence, is_askable = Fault(silent_s=1.0), evening.name in ASKABLE
    evening.server.faults = {CREATES[evening.name]: [silence], "quota": [silence]}
    report = evening.submit()
    assert report.outcome == ("sent" if is_askable else "unknown")
    again = ["quota", *WHOLE[evening.name], "list"]
    assert evening.server.steps() == (again if is_askable else WHOLE[evening.name])
    evening.see(report.outcome, count=1)


@pytest.mark.parametrize(
    ("name", "step", "secret"),
    [
        ("kaggle", "put", "9" * 32),
        ("aistages", "upload", "5" * 64),
        ("aistages", "upload", "cG9s" * 20),
    ],
)
def test_what_lets_anyone_upload_is_hidden_too(evening: Evening, step: str, secret: str) -> None:
    evening.server.faults[step] = [Fault(403, f"no such signature: {secret}")]
    assert "no such signature: ***" in evening.fail()
    evening.see("failed", count=0)


@pytest.mark.parametrize("name", ["http"])
@pytest.mark.parametrize("body", ["<html>log in</html>", {"ok": True}, ["[" * 9], "[" * 99_999])
def test_an_answer_that_is_not_the_one_described_is_no_receipt(evening: Evening, body: Any) -> None:
    evening.server.faults["upload"] = [Fault(200, body, late=True)]
    assert evening.submit().outcome == "unknown"
    evening.see("unknown", count=1)
    evening.fail(DuplicateError)


@pytest.mark.parametrize("name", ["http"])
def test_an_answer_that_names_the_error_is_a_rejection(evening: Evening) -> None:
    body = {"submission": {"id": 1}, "state": "failed", "message": "id 7 is missing"}
    evening.server.faults["upload"] = [Fault(200, body, late=True)]
    report = evening.submit()
    assert (report.outcome, report.message) == ("refused", "id 7 is missing")
    assert "sent and rejected" in evening.fail(DuplicateError)
    evening.see("refused", count=1)


@every_platform
def test_a_server_that_is_not_there_has_got_nothing(evening: Evening) -> None:
    evening.competition = write_platforms(evening.competition.home, "http://127.0.0.1:9")
    evening.server.url = "http://127.0.0.1:9"
    assert "127.0.0.1:9" in evening.fail() or evening.name == "kaggle"
    assert evening.slept_s == 1 + 2 + 4 + 8
    evening.see(*([] if evening.name in ASKABLE else ["failed"]), count=0)


@pytest.mark.parametrize(("name", "step"), [("aistages", "upload"), ("kaggle", "put")])
@pytest.mark.parametrize("url", ["ftp://x/y", None, "http://[", "//x"])
def test_an_address_that_cannot_be_used_is_refused(evening: Evening, step: str, url: Any) -> None:
    where = {"url": url, "fields": {}, "submission": {"user": 1, "local_id": 1}}
    before = {"upload": "ask", "put": "start"}[step]
    evening.server.faults[before] = [Fault(200, {**where, "token": "t", "createUrl": url})]
    assert "gave no address" in evening.fail()
    assert step not in evening.server.steps()
    evening.see("failed", count=0)


@pytest.mark.parametrize("name", ["kaggle", "evalai", "http"])
def test_the_score_is_fetched(evening: Evening) -> None:
    evening.submit()
    evening.server.decide("finished", public=71.5, private=64.25)
    report = evening.submit(wait=True)
    public, private = dict(report.public or {}), dict(report.private or {})
    if evening.name == "evalai":
        assert (public, private) == ({"micro_f1": 0.715, "auprc": 0.6425}, {})
    else:
        assert (public, private) == ({"micro_f1": 0.715}, {"micro_f1": 0.6425})
    (entry,) = open_ledger(evening.competition).read()
    assert (entry.public, entry.private) == (report.public, report.private)
    evening.see("sent", count=1)


@pytest.mark.parametrize("name", ["kaggle", "evalai", "http"])
def test_a_rejection_is_fetched_with_its_reason(evening: Evening) -> None:
    evening.server.faults["status"] = [Fault(404, {"code": 404, "message": "not yet"}), BUSY, RESET]
    submitted = evening.server.take

    def take_and_reject(data: bytes, **facts: Any) -> int:
        number = submitted(data, **facts)
        evening.server.decide("failed", reason=f"id 7 is missing {KEY}")
        return number

    evening.server.take = take_and_reject  # type: ignore[method-assign]
    report = evening.submit(wait=True)
    assert report.outcome == "refused"
    assert any("id 7 is missing ***" in note for note in report.notes)
    evening.see("refused", count=1)
    evening.fail(DuplicateError)


@pytest.mark.parametrize("name", ["http"])
def test_a_score_that_comes_with_a_queued_file_is_none(evening: Evening) -> None:
    scores = {"public": [{"f1": 0.0}], "private": 0.0}
    body = {"submission": {"id": 1}, "state": "queued", "scores": scores}
    evening.server.faults["upload"] = [Fault(201, body, late=True)]
    report = evening.submit()
    assert (report.public, report.private, report.is_pending) == (None, None, True)
    body["state"] = "finished"
    evening.server.faults["upload"] = [Fault(201, body, late=True)]
    assert evening.submit(resend=True).public == {"micro_f1": 0.0}


@pytest.mark.parametrize("name", ["http"])
@pytest.mark.parametrize("done", [True, 0])
def test_a_status_need_not_be_a_text(evening: Evening, done: Any) -> None:
    text = (evening.competition.home / "tiny.toml").read_text("utf-8")
    text = text.replace('status = "state"', f'status = "state"\ndone = ["{json.dumps(done)}"]')
    (evening.competition.home / "tiny.toml").write_text(text, "utf-8")
    evening.competition = resolve_competition(
        str(evening.competition.home / "tiny.toml"), None, None, home=evening.competition.home
    )
    evening.submit()
    scores = {"public": [{"f1": 33.0}]}
    evening.server.faults["status"] = [Fault(200, {"state": done, "scores": scores})]
    assert evening.submit(wait=True).public == {"micro_f1": 0.33}


@pytest.mark.parametrize("name", ["evalai", "http"])
def test_the_score_of_another_submission_is_not_taken(evening: Evening) -> None:
    evening.submit()
    scores = {"public": [{"f1": 33.0}], "private": 33.0}
    body = {"id": 4, "status": "finished", "submission": {"id": 4}, "state": "finished"}
    evening.server.faults["status"] = [Fault(200, {**body, "scores": scores})]
    report = evening.submit(wait=True)
    assert (report.public, report.is_pending) == (None, True)
    assert any("4, not 1" in note for note in report.notes)
    (entry,) = open_ledger(evening.competition).read()
    assert not entry.is_decided


@pytest.mark.parametrize("name", ["kaggle", "evalai", "http"])
def test_a_score_that_is_none_is_remarked(evening: Evening) -> None:
    evening.submit()
    evening.server.decide("finished", public=7150.0)
    report = evening.submit(wait=True)
    assert report.public is None
    assert any("correct scores in the profile" in note for note in report.notes)
    evening.see("sent", count=1)
    evening.server.decide("finished", public=71.5)
    assert evening.submit(wait=True).public == {"micro_f1": 0.715}


@pytest.mark.parametrize("name", ["http"])
def test_the_command_tells_how_it_ended(evening: Evening, monkeypatch: pytest.MonkeyPatch) -> None:
    home = evening.competition.home
    monkeypatch.setenv("COMPETITION_HOME", str(home))
    monkeypatch.setattr("competition.upload.waiting.WAIT_LIMIT_S", 0.0)
    command = ["submit", "--to", "http", "--competition", str(home / "tiny.toml")]

    def call(*options: str) -> int:
        return CliRunner().invoke(run.app, [*command, *options]).exit_code

    assert call("--dry-run") == 0
    evening.see(count=0)
    assert call("--wait") == run.INCOMPLETE_EXIT
    evening.see("sent", count=1)
    write(evening.competition, "newer", 1, time="2026-11-23T00:00:00+00:00")
    assert call("--wait") == run.INCOMPLETE_EXIT  # of the one that was sent
    evening.see("sent", count=1)
    hint = CliRunner().invoke(run.app, [*command, "--wait", "--json"]).stdout
    proposed = f"submit --competition {home / 'tiny.toml'} {evening.path} --to http --wait"
    assert proposed in hint
    (home / "submissions" / "tiny" / "newer.csv").unlink()
    evening.server.decide("finished", public=50)
    assert call("--wait", "--json") == 0
    evening.see("sent", count=1)
    evening.server.faults["upload"] = [RESET]
    assert call("--resend") == HarnessError.exit_code
    evening.see("sent", "unknown", count=1)
    evening.server.faults["upload"] = [Fault(422, "no")]
    assert call("--resend") == HarnessError.exit_code
    evening.see("sent", "unknown", "refused", count=1)


def _be_killed(environment: dict[str, str], home: str, url: str, name: str, when: str) -> None:
    os.environ.update(environment)
    competition = resolve_competition(f"{home}/tiny.toml", None, None, home=Path(home))
    send.TARGETS["kaggle"] = lambda made: kaggle_at(lambda: url, made)
    if when == "after":
        Attempts.record = lambda *_: os._exit(9)  # type: ignore[method-assign]
    else:
        target = send.TARGETS[name](TargetOptions())
        type(target).send = lambda *_: os._exit(9)  # type: ignore[method-assign]
    submit(competition, None, SubmitOptions(target=name), clock=lambda: NOON)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "when"), [("kaggle", "before"), *((name, "after") for name in SERVERS)]
)
def test_a_process_killed_around_the_upload(evening: Evening, when: str) -> None:
    worker = choose_context().Process(
        target=_be_killed,
        args=(
            dict(os.environ),
            str(evening.competition.home),
            evening.server.url,
            evening.name,
            when,
        ),
    )
    worker.start()
    worker.join(60)
    assert worker.exitcode == 9
    count = int(when == "after")
    evening.see("unknown", count=count)
    evening.slept_s += 60
    if evening.name not in ASKABLE:
        evening.fail(DuplicateError)
        evening.see("unknown", count=count)
    elif when == "after":
        report = evening.submit()
        assert any("nothing was sent" in note for note in report.notes)
        evening.see("sent", count=1)
    else:
        evening.submit()
        evening.see("failed", "sent", count=1)


@every_platform
def test_a_profile_without_a_target_is_reported(evening: Evening) -> None:
    text = (evening.competition.home / "tiny.toml").read_text("utf-8")
    bare = evening.competition.home / "bare.toml"
    bare.write_text(text[: text.index("[upload.kaggle]")], "utf-8")
    evening.competition = resolve_competition(str(bare), None, None, home=evening.competition.home)
    assert f"[upload.{evening.name}]" in evening.fail()
    assert evening.server.requests == []


@pytest.mark.parametrize("name", ["kaggle"])
def test_kaggle_without_its_client_says_how_to_get_it(
    evening: Evening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name="six")

    monkeypatch.setitem(send.TARGETS, "kaggle", KaggleTarget)
    monkeypatch.setattr("competition.upload.kaggle_client.importlib.import_module", refuse)
    said = evening.fail()
    assert "six is missing" in said
    assert "pip install -r requirements-kaggle.txt" in said
    evening.see(count=0)


@pytest.mark.parametrize("name", ["kaggle"])
def test_kaggles_own_login_makes_no_noise(
    evening: Evening, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert build_api().config_values["username"] == USER
    for variable in ("KAGGLE_KEY", "KAGGLE_USERNAME"):
        monkeypatch.delenv(variable)
    with pytest.raises(UploadError, match="finds no credentials"):
        build_api()
    assert capfd.readouterr() == ("", "")


def test_bundled_profiles_name_every_key_of_uploading() -> None:
    path = Path(__file__).parents[3] / "competition" / "profiles" / "klue-re.toml"
    text = path.read_text("utf-8")
    rules = read_profile(path).upload
    for name in type(rules).model_fields:
        part = getattr(rules, name)
        if name == "default":
            continue
        for key in type(part).model_fields:
            section = text.partition(f"\n[upload.{name}]")[2]
            assert (
                f"\n{key} = " in section
                or f"\n# {key} = " in section
                or (f"\n[upload.{name}.{key}]" in text)
            ), f"upload.{name}.{key}"


@pytest.mark.parametrize("name", ["aistages", "evalai", "http"])
def test_an_escaped_key_in_an_error_is_hidden(evening: Evening) -> None:
    escaped = KEY.replace("/", "\\/").replace("=", "\\u003d")
    said = f'{{"code": 400, "message": "odd {escaped}", "error": "odd {KEY}"}}'
    evening.server.faults[CREATES[evening.name]] = [Fault(400, said)]
    report = evening.submit()
    assert report.message.count("***") == 2
    assert "Zq+secret" not in repr(report)
    assert "Zq+secret" not in open_ledger(evening.competition).path.read_text("utf-8")


@pytest.mark.parametrize("name", ["evalai", "http"])
def test_a_status_is_shown_plain_and_masked(evening: Evening) -> None:
    evening.submit()
    evening.server.decide(f"at \x1b[2J {KEY}", public=50.0)

    def finish(seconds: float) -> None:
        evening.server.decide("finished")

    evening.sleep = finish  # type: ignore[method-assign]
    assert evening.submit(wait=True).public is not None
    assert evening.told == ["at [2J ***"]


@pytest.mark.parametrize("name", ["kaggle", "http"])
def test_the_private_score_of_every_file_arrives_at_the_end(evening: Evening) -> None:
    paths = [write(evening.competition, f"s{seed}", seed + 1) for seed in range(2)]
    for path in (evening.path, *paths):
        evening.submit(path)
        evening.server.decide("finished", public=50.0)
        assert evening.submit(path, wait=True).private is None
    for one in evening.server.submissions:
        one["private"] = 40.0
    evening.submit(wait=True)
    scored = [entry.private for entry in open_ledger(evening.competition).read()]
    assert scored == [{"micro_f1": 0.4}, None, None]
    options = SubmitOptions(target=evening.name, wait=True)
    submit(evening.competition, None, options, clock=lambda: NOON, sleep=evening.sleep)
    scored = [entry.private for entry in open_ledger(evening.competition).read()]
    assert scored == [{"micro_f1": 0.4}] * 3
    evening.see("sent", "sent", "sent", count=3)


@pytest.mark.parametrize("name", ["http"])
def test_each_address_in_the_clear_is_warned_of(evening: Evening) -> None:
    profile, path = evening.competition.home / "tiny.toml", evening.path
    text = profile.read_text("utf-8")
    clear, url = "http://board.example.org", evening.server.url
    for key in ("url", "status_url"):
        profile.write_text(text.replace(f'\n{key} = "{url}', f'\n{key} = "{clear}'), "utf-8")
        competition = resolve_competition(str(profile), None, None, home=profile.parent)
        options = SubmitOptions(target="http", dry_run=True)
        report = submit(competition, path, options, clock=lambda: NOON)
        (note,) = [each for each in report.notes if "unencrypted" in each]
        assert note.startswith(f"{clear}/api/submissions")
        assert ("{id}" in note) == (key == "status_url")
        with pytest.raises(UploadError, match=r"unencrypted; use https, or allow"):
            submit(competition, path, SubmitOptions(target="http"), clock=lambda: NOON)
        assert evening.server.requests == []
    options = SubmitOptions(target="http", plain_http=True)
    assert submit(competition, path, options, clock=lambda: NOON).outcome == "sent"
    evening.see("sent", count=1)


@pytest.mark.parametrize("name", ["kaggle"])
@pytest.mark.parametrize("ref", ["1", "one", None, {"a": 1}, [], True])
def test_kaggle_that_names_a_submission_oddly(evening: Evening, ref: Any) -> None:
    evening.server.faults["create"] = [Fault(200, {"message": "ok", "ref": ref}, late=True)]
    report = evening.submit()
    assert (report.outcome, report.ref) == ("sent", "1")
    assert ("list" in evening.server.steps()) == (ref != "1")
    evening.see("sent", count=1)


ODD = {
    "quota": {"numToday": "?", "numTotal": None, "numAllowedNow": {"x": []}},
    "start": {"token": 5, "createUrl": {"a": 1}},
    "list": {"submissions": [{"ref": {}, "description": 7}], "nextPageToken": 3},
    "status": {"ref": "x", "status": 7, "publicScore": [], "errorDescription": {}},
}


@pytest.mark.parametrize("name", ["kaggle"])
@pytest.mark.parametrize("step", ODD)
def test_kaggle_that_answers_in_another_shape(evening: Evening, step: str) -> None:
    if step in ("quota", "start"):
        evening.server.faults[step] = [Fault(200, ODD[step])] * 5
        evening.fail()
        assert "create" not in evening.server.steps()
        return
    if step == "list":
        evening.server.faults |= {"create": [RESET_LATE], "list": [Fault(200, ODD["list"])]}
        assert evening.submit().outcome == "unknown"
        assert evening.submit().outcome == "sent"
        return
    evening.server.faults["status"] = [Fault(200, ODD["status"])] * 5
    report = evening.submit(wait=True)
    assert report.outcome == "sent"
    assert report.is_pending
    assert any("could not be requested" in note for note in report.notes)


@pytest.mark.parametrize("name", ["kaggle"])
def test_kaggle_is_not_followed_elsewhere(evening: Evening) -> None:
    away = (("Location", "http://127.0.0.1:9/x"),)
    evening.server.faults["create"] = [Fault(307, "", away)]
    report = evening.submit()
    assert report.outcome == "unknown"
    assert evening.server.steps().count("create") == 1


@pytest.mark.parametrize("name", ["kaggle"])
def test_a_key_file_that_others_can_read_is_warned_of(
    evening: Evening, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("KAGGLE_KEY", "KAGGLE_USERNAME"):
        monkeypatch.delenv(variable)
    path = evening.competition.home / "kaggle.json"
    path.write_text(json.dumps({"username": USER, "key": KEY}), "utf-8")
    client = importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi
    monkeypatch.setattr(client, "config", str(path))  # it read KAGGLE_CONFIG_DIR when imported
    path.chmod(0o644)
    report = evening.submit()
    (note,) = [each for each in report.notes if "readable by other users" in each]
    assert f"chmod 600 {path}" in note


@pytest.mark.parametrize("name", ["aistages"])
def test_a_signed_form_that_comes_with_a_bad_status_is_not_quoted(evening: Evening) -> None:
    form = {"url": "u", "fields": {"policy": "cG9s" * 20, "x-amz-signature": "5" * 64}}
    for body in ({**form, "detail": "slow down"}, str(form), [form]):
        evening.server.faults["ask"] = [Fault(500, body)]
        said = evening.fail()
        assert "cG9s" not in said
        assert ("slow down" in said) == isinstance(body, dict)


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("pause", ["Sun, 22 Nov 99999999999999999999 11:00:00 GMT", "\u0667", "-1"])
def test_an_odd_pause_harms_nothing(evening: Evening, pause: str) -> None:
    fault = Fault(503, {"code": 503, "message": "busy"}, (("Retry-After", pause),))
    evening.server.faults[CREATES[evening.name]] = [fault]
    assert evening.submit().outcome == "unknown"
    evening.see("unknown", count=0)
