"""wire, masking, scores: what an answer may do to us, and what of it anyone sees."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from competition.errors import ProfileError, QuotaError, UploadError
from competition.profile import read_profile
from competition.upload.masking import MAX_CHARS, Mask, read_secret
from competition.upload.scores import find_scores
from competition.upload.target import LostAnswerError, RejectedError, ScorePaths, TargetOptions
from competition.upload.wire import (
    Answer,
    Call,
    Wire,
    check_upload_url,
    explain_status,
    raise_refusal,
    read_retry_after,
)
from tests.competition.klue_scores import KINDS
from tests.competition.test_profile import write_profile
from tests.competition.upload_servers import HttpServer, serve
from tests.conftest import TINY_PROFILE

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECRET = 'a+b/c=d"e'


@contextmanager
def say(*chunks: bytes) -> Iterator[str]:
    """Answer one request with these bytes, whatever it was, and hang up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            for chunk in chunks:
                try:
                    connection.sendall(chunk)
                except OSError:
                    return

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        thread.join(10)
        listener.close()


def wire() -> Wire:
    return Wire(TargetOptions(sleep=lambda _: None), "THE_KEY")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"220 mail.example.org ESMTP\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_half_an_answer_is_a_lost_one(answer: bytes) -> None:
    with say(answer) as url, wire() as it, pytest.raises(LostAnswerError, match="broke"):
        it.create(Call("POST", url, fields={"a": "1"}))


def test_redirects_do_not_carry_the_key_away() -> None:
    with serve(HttpServer()) as server:
        head = f"HTTP/1.0 302 Found\r\nLocation: {server.url}/else\r\nContent-Length: 0\r\n\r\n"
        call = {"secret_headers": {"Authorization": "Bearer x"}}
        with (
            say(head.encode()) as url,
            wire() as it,
            pytest.raises(UploadError, match="not followed"),
        ):
            it.ask(Call("GET", url, **call))  # type: ignore[arg-type]
        assert server.requests == []


def test_no_proxy_is_used_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with say(b"HTTP/1.0 200 OK\r\n\r\nhi") as url, wire() as it:
        assert it.ask(Call("GET", url)).text == "hi"
    with wire() as it, pytest.raises(UploadError, match="no connection"):
        it.create(Call("POST", "http://board.example.org/x"))  # goes to the proxy, which is dead


def test_a_call_shows_all_but_its_secrets() -> None:
    call = Call(
        "POST",
        "https://x.org/a",
        params={"d": "a b"},
        secret_headers={"X-Key": SECRET},
        fields={"f": "1"},
        file=("csv", "a.csv", b"12345"),
    )
    shown = "POST https://x.org/a?d=a+b; header X-Key: ***; field f=1; file csv=a.csv (5 bytes)"
    assert call.describe() == shown


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://storage.example.org/x", "https://board.example.org"),
        ("http://127.0.0.1/x", "http://board.example.org"),
        ("http://storage.example.org/x", "http://127.0.0.1:8000"),
        ("https://localhost/x", "https://board.example.org"),
        ("file:///etc/passwd", "https://board.example.org"),
        ({"url": 1}, "https://board.example.org"),
    ],
)
def test_a_file_is_not_handed_over_to_anyone(url: object, base: str) -> None:
    with pytest.raises(UploadError, match="gave"):
        check_upload_url(url, base)
    assert check_upload_url("https://storage.example.org/x?s=1", base).endswith("?s=1")


def test_who_insists_on_plain_http_gets_it_for_the_next_step_too() -> None:
    assert check_upload_url("http://storage.example.org/x", "http://board.example.org")


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, "bad file", RejectedError),
        (413, "", RejectedError),
        (400, "All 5 of your submissions are used", QuotaError),
        (403, "Submission limit reached", QuotaError),
        (401, "who?", UploadError),
        (404, "", UploadError),
        (429, "slow down", UploadError),
        (408, "", LostAnswerError),
        (303, "", LostAnswerError),
        (500, "", LostAnswerError),
        (503, "", LostAnswerError),
        (100, "", LostAnswerError),
    ],
)
def test_what_a_status_means_for_a_file(status: int, said: str, kind: type[Exception]) -> None:
    error = explain_status("x.org", Answer(status, said), said=said, key_name="THE_KEY")
    assert ("THE_KEY" in str(error)) == (status == 401)
    with pytest.raises(kind) as caught:
        raise_refusal(status, error)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("value", "pause_s"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("-5", None),
        ("1.5", None),
        ("Sun, 22 Nov 2026 12:01:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 99 Nov 2026 11:00:00 GMT", None),
        ("9" * 99, 999_999_999.0),
        ("Sun, 22 Nov 99999999999999999999 11:00:00 GMT", None),
        ("Sun, 22 Nov 2026 11:00:00 +99999999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 251_607_038_339.0),
    ],
)
def test_a_requested_pause_is_kept(value: str | None, pause_s: float | None) -> None:
    assert read_retry_after(value, NOON) == pause_s


def test_secrets_are_hidden_in_every_spelling() -> None:
    mask = Mask()
    assert mask.add(SECRET) == SECRET
    mask.add("")
    texts = [SECRET, "a%2Bb%2Fc%3Dd%22e", 'a+b/c=d\\"e', "YStiL2M9ZCJl"]
    assert mask.hide("|".join(texts)) == "|".join(["***"] * 4)
    assert mask.hide("nothing here") == "nothing here"


def test_a_long_secret_hides_before_its_beginning_does() -> None:
    mask = Mask()
    for secret in ("team", "team:secret"):
        mask.add(secret)
    assert mask.hide("team:secret team") == "*** ***"


def test_what_a_server_says_is_shown_short_plain_and_masked() -> None:
    mask = Mask()
    mask.add("hunter2hunter2")
    said = "<h1>No</h1>\x1b[2J\r\n\t" + "x" * (MAX_CHARS - 12) + " hunter2hunter2 " + "y" * 999
    shown = mask.quote(said)
    assert shown.startswith("No [2J xxx")
    assert shown.isprintable()
    assert len(shown) == MAX_CHARS + 1
    assert "hunt" not in shown  # nor the part of it that was not cut away


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = Mask()
    monkeypatch.setenv("THE_KEY", " abc\n")
    assert read_secret("THE_KEY", mask) == "abc"
    for wrong in ("a\nb", "키키키", "a b"):
        monkeypatch.setenv("THE_KEY", wrong)
        with pytest.raises(UploadError, match="THE_KEY") as caught:
            read_secret("THE_KEY", mask)
        assert wrong not in str(caught.value)
    del os.environ["THE_KEY"]
    with pytest.raises(UploadError, match="THE_KEY is not set"):
        read_secret("THE_KEY", mask)


FIELDS = ScorePaths(KINDS, {"public_f1": "p", "public_auprc": "q.1", "private_f1": "r"}, 100.0)


@pytest.mark.parametrize("value", ["n/a", True, float("nan"), 101, -1, "1e999", [1], {"a": 1}])
def test_what_is_no_score_is_remarked(value: object) -> None:
    found = find_scores({"p": value, "r": 50}, FIELDS, Mask())
    assert found.public is None
    assert found.private == {"micro_f1": 0.5}
    assert found.remark.startswith("public_f1 is ")


@pytest.mark.parametrize("answer", [None, [], "x", {"q": {"1": None}}, {"p": "", "q": [1]}])
def test_scores_that_are_not_there_are_no_fault(answer: object) -> None:
    found = find_scores(answer, FIELDS, Mask())
    assert (found.public, found.private, found.remark) == (None, None, "")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('[upload.kaggle]\ncompetition = "A B"', "upload.kaggle.competition: "),
        ('[upload.kaggle]\nkey = "x"', "upload.kaggle.key: no such key"),
        ('[upload.aistages]\nhost = "stages.example.org"', "upload.aistages.host: write a whole"),
        ('[upload.aistages]\nid = "35"', "upload.aistages.id: "),
        ('[upload.evalai]\nhost = "https://me:pw@eval.ai"', "an address holds no login"),
        ("[upload.evalai.scores]\nscale = 0.0", "upload.evalai.scores.scale: "),
        ('[upload.evalai.scores]\npublic_f1 = "a..b"', "upload.evalai.scores.public_f1: "),
        ('[upload.http]\nmethod = "GET"', "upload.http.method: "),
        ('[upload.http]\nurl = "https://x.org/a b"', "no spaces"),
        ('[upload.http]\nstatus_url = "https://x.org/status"', "status_url holds {id}"),
        ('[upload.http]\nkey_variable = "sk-123"', "upload.http.key_variable: "),
        ('[upload.http]\nkey_header = "A: b"', "upload.http.key_header: "),
        ("[upload.http.answer]\ndone = []", "upload.http.answer.done: "),
    ],
)
def test_a_wrong_key_of_uploading_is_named(tmp_path: object, section: str, message: str) -> None:
    from pathlib import Path

    path = write_profile(Path(str(tmp_path)), f"{TINY_PROFILE}\n{section}\n")
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert message in str(caught.value)
    assert "pw@" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        r"sk-3f9a\/Zq+pw==",
        r"sk-3f9a\\/Zq+pw==",
        "sk-3f9a%2fZq%2bpw%3d%3d",
        "sk-3f9a%252FZq%252Bpw%253D%253D",
        "sk-3f9a&#x2F;Zq&#43;pw&#061;&equals;",
        "sk&#45;3f9a&sol;Zq&plus;pw&#X3d;&#x3D;",
        "sk-3f9a&amp;#x2f;Zq+pw==",
        r"sk\u002D3f9a\u002fZq\u002Bpw\u003d\u003D",
        r"sk\x2d3f9a\x2FZq\x2bpw==",
    ],
)
def test_a_key_is_hidden_however_it_is_escaped(said: str) -> None:
    mask = Mask()
    mask.add("sk-3f9a/Zq+pw==")
    assert mask.hide(f"bad key {said}!") == "bad key ***!"
    assert mask.hide("sk-3f9a-Zq+pw==") == "sk-3f9a-Zq+pw=="


def test_masking_an_odd_answer_takes_no_time() -> None:
    mask = Mask()
    mask.add("/" * 30)
    started = time.perf_counter()
    for text in ("\\" * 100_000, "&amp;" * 20_000, "%25" * 30_000):
        assert mask.hide(text) == text
    assert time.perf_counter() - started < 5


def test_a_key_in_the_place_of_a_score_is_hidden_before_it_is_cut() -> None:
    mask = Mask()
    key = mask.add("key" * 20)
    assert find_scores({"p": key}, FIELDS, mask).remark.startswith("public_f1 is '***', not a")
