"""Four small leaderboards on this machine, each with faults that a test writes down beforehand.

``server.submissions`` is what a platform would count. A fault belongs to a step (a kind of request)
and is used up by one request; a wrong key is answered with the header that came, as a server in a
debug mode would. Servers listen on 127.0.0.1 at a free port.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-3f9a/Zq+secret=="
USER = "some-team"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    ``status`` None resets the connection; ``late`` does so after the request has been carried out;
    ``silent_s`` is how long nothing comes before an answer that is as it should be.
    """

    status: int | None = None
    body: Any = ""
    headers: tuple[tuple[str, str], ...] = ()
    late: bool = False
    silent_s: float = 0.0


BUSY = Fault(429, {"detail": "slow down"}, (("Retry-After", "3"),))
LIMITED = Fault(429, {"detail": "slow down"}, (("Retry-After", "3600"),))
BROKEN = Fault(500, "<h1>oops</h1>")
BROKEN_LATE = Fault(500, "<h1>oops</h1>", late=True)
RESET = Fault()
RESET_LATE = Fault(late=True)


@dataclass(frozen=True)
class Request:
    """One request as it came; ``form`` is a form's text fields and the bytes of its file."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, Any]:
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        found: dict[str, Any] = {}
        for part in message_from_bytes(head + self.body).get_payload():
            name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
            data = part.get_payload(decode=True)  # type: ignore[union-attr]
            is_file = part.get_filename() is not None  # type: ignore[union-attr]
            found[str(name)] = data if is_file else bytes(data).decode()  # type: ignore[arg-type]
        return found


Reply = tuple[int, Any]


@dataclass
class Server:
    """What all four share; ``steps`` names the step of each method and path."""

    key: str = KEY
    left: int = 5
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, Request]] = field(default_factory=list)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def step(self, request: Request) -> str:
        raise NotImplementedError

    def is_welcome(self, step: str, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.key}"

    def carry_out(self, step: str, request: Request) -> Reply:
        raise NotImplementedError

    def steps(self) -> list[str]:
        return [step for step, _ in self.requests]

    def take(self, data: bytes, **facts: Any) -> int:
        number = len(self.submissions) + 1
        status = {"status": "submitted", "public": None, "private": None, "reason": None}
        self.submissions.append({"id": number, "data": data, **status, **facts})
        return number

    def decide(self, status: str, **facts: Any) -> None:
        self.submissions[-1] |= {"status": status, **facts}


class AIStagesServer(Server):
    def step(self, request: Request) -> str:
        return "upload" if request.path == "/bucket" else "ask"

    def is_welcome(self, step: str, request: Request) -> bool:
        if step == "upload":  # the storage must not see the key
            return "authorization" not in request.headers
        return request.headers.get("authorization") == self.key

    def carry_out(self, step: str, request: Request) -> Reply:
        if step == "ask":
            assert request.path == "/api/v1/competition/35/presigned_url/"
            assert json.loads(request.query["hyperparameters"]) == {"training": {}, "inference": {}}
            fields = {"x-amz-signature": "5" * 64, "policy": "cG9s" * 20, "x-amz-date": "20261122"}
            submission = {"user": 12, "local_id": len(self.submissions) + 1}
            return 200, {"url": f"{self.url}/bucket", "fields": fields, "submission": submission}
        form = request.form
        assert form["x-amz-signature"] == "5" * 64
        local = f"{len(self.submissions) + 1:04d}"
        assert form["key"] == (
            f"app/Competitions/000035/Users/00000012/Submissions/{local}/output.csv"
        )
        self.take(form["file"])
        return 204, ""


class EvalAIServer(Server):
    base = "/api/jobs/challenge/3/challenge_phase/4/submission/"

    def step(self, request: Request) -> str:
        if request.path == self.base:
            return "upload" if request.method == "POST" else "list"
        if request.path == "/api/jobs/3/remaining_submissions/":
            return "quota"
        return "status" if request.path.startswith("/api/jobs/submission/") else "file"

    def is_welcome(self, step: str, request: Request) -> bool:
        if step == "file":  # which may lie with another host
            return "authorization" not in request.headers
        return super().is_welcome(step, request)

    def carry_out(self, step: str, request: Request) -> Reply:
        if step == "quota":
            limits = (
                {"remaining_submissions_today_count": self.left}
                if self.left
                else {"message": "You have exhausted today's submission limit!"}
            )
            return 200, {"phases": [{"id": 9, "limits": {}}, {"id": 4, "limits": limits}]}
        if step == "upload":
            form = request.form
            assert form["status"] == "submitting"
            number = self.take(form["input_file"], method_name=form["method_name"])
            return 201, {"id": number, "status": "submitted"}
        if step == "list":
            rows = [{k: s[k] for k in ("id", "method_name")} for s in self.submissions[::-1]]
            page, size = int(request.query["page"]), 2
            more = "next" if page * size < len(rows) else None
            return 200, {"next": more, "results": rows[(page - 1) * size : page * size]}
        if step == "status":
            one = self.submissions[int(request.path.rpartition("/")[2]) - 1]
            files = {"submission_result_file": f"{self.url}/media/result.json"}
            if one["reason"]:
                files["stderr_file"] = f"{self.url}/media/stderr.txt"
            return 200, {"id": one["id"], "status": one["status"], **files}
        one = self.submissions[-1]
        return 200, one["reason"] or [{"test": {"f1": one["public"], "area": one["private"]}}]


class HttpServer(Server):
    def step(self, request: Request) -> str:
        return "upload" if request.method == "POST" else "status"

    def carry_out(self, step: str, request: Request) -> Reply:
        if step == "upload":
            form = request.form
            number = self.take(form["csv"], note=form["note"])
            return 201, {"submission": {"id": number}, "state": "queued"}
        one = self.submissions[int(request.path.rpartition("/")[2]) - 1]
        scores = {"public": [{"f1": one["public"]}], "private": one["private"]}
        return 200, {"state": one["status"], "message": one["reason"], "scores": scores}


KAGGLE_SERVICE = "/v1/competitions.CompetitionApiService/"
KAGGLE_STEPS = {
    "GetSubmissionLimits": "quota",
    "StartSubmissionUpload": "start",
    "CreateSubmission": "create",
    "GetSubmission": "status",
    "ListSubmissions": "list",
}


class KaggleServer(Server):
    def step(self, request: Request) -> str:
        if request.method == "PUT":
            return "put"
        assert request.path.startswith(KAGGLE_SERVICE), request.path
        return KAGGLE_STEPS[request.path.removeprefix(KAGGLE_SERVICE)]

    def is_welcome(self, step: str, request: Request) -> bool:
        if step == "put":
            return "authorization" not in request.headers
        from base64 import b64encode

        login = b64encode(f"{USER}:{self.key}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {login}"

    def carry_out(self, step: str, request: Request) -> Reply:
        if step == "put":
            token = request.path.rpartition("/")[2]
            assert len(self.blobs[token]) == len(request.body), "not the length that was told"
            self.blobs[token] = request.body
            return 200, ""
        asked = json.loads(request.body)
        if step != "status":
            assert asked["competitionName"] == "korean-relations"
        if step == "quota":
            return 200, {"numToday": 1, "numTotal": 1, "numAllowedNow": self.left}
        if step == "start":
            token = f"t{len(self.requests)}"
            self.blobs[token] = b"?" * asked["contentLength"]
            signed = f"{self.url}/storage/{token}?signature={'9' * 32}"
            return 200, {"token": token, "createUrl": signed}
        if step == "create":
            data = self.blobs[asked["blobFileTokens"]]
            number = self.take(data, description=asked["submissionDescription"])
            return 200, {"message": "Successfully submitted", "ref": number}
        if step == "status":
            return 200, self.show(self.submissions[asked["ref"] - 1])
        rows, start = self.submissions[::-1], int(asked.get("pageToken") or 0)
        more = {"nextPageToken": str(start + 2)} if start + 2 < len(rows) else {}
        return 200, {"submissions": [self.show(one) for one in rows[start : start + 2]], **more}

    def show(self, one: dict[str, Any]) -> dict[str, Any]:
        states = {"finished": "COMPLETE", "failed": "ERROR"}
        shown = {
            "ref": one["id"],
            "date": "2026-11-22T12:00:00Z",
            "description": one["description"],
            "status": states.get(one["status"], "PENDING"),
            "publicScore": str(one["public"] or ""),
            "privateScore": str(one["private"] or ""),
        }
        return shown | ({"errorDescription": one["reason"]} if one["reason"] else {})


class _Handler(BaseHTTPRequestHandler):
    board: Server

    def do_GET(self) -> None:
        board, request = self.board, self._read()
        step = board.step(request)
        board.requests.append((step, request))
        fault = board.faults[step].pop(0) if board.faults.get(step) else None
        if not board.is_welcome(step, request):
            came = request.headers.get("authorization", "nothing")
            self._reply(401, {"code": 401, "detail": f"bad {came}", "message": f"bad {came}"})
        elif fault is None:
            self._reply(*board.carry_out(step, request))
        elif fault.silent_s:
            reply = board.carry_out(step, request)
            time.sleep(fault.silent_s)
            self._reply(*reply)
        else:
            if fault.late:
                board.carry_out(step, request)
            if fault.status is None:
                self._reset()
            else:
                self._reply(fault.status, fault.body, fault.headers)

    do_POST = do_PUT = do_GET  # noqa: N815 - named by http.server

    def _read(self) -> Request:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        return Request(str(self.command), parts.path, query, headers, body)

    def _reply(self, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        is_text = isinstance(body, str)
        data = (body if is_text else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if is_text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the test cut; any other error must show."""
        import sys

        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextmanager
def serve(board: Server) -> Iterator[Server]:
    """Let a leaderboard listen; its ``url`` says where."""
    handler = type("Handler", (_Handler,), {"board": board})
    listener = _Listener(("127.0.0.1", 0), handler)
    board.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield board
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(10)
