"""exchange: however slowly or largely a server answers, it ends."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from competition.upload import exchange
from competition.upload.exchange import PackedError, read_body, within_limit
from competition.upload.kaggle_client import build_adapter
from competition.upload.target import LostAnswerError, TargetOptions
from competition.upload.wire import Call, Wire

OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def stream(chunks: Iterable[bytes], pause_s: float = 0.0) -> Iterator[str]:
    """Answer every connection with these bytes, one chunk after the other, and hang up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            for chunk in chunks:
                try:
                    connection.sendall(chunk)
                except OSError:
                    return
                time.sleep(pause_s)

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def ask_by_wire(url: str) -> str:
    with Wire(TargetOptions(sleep=lambda _: None), "THE_KEY") as wire:
        return wire.create(Call("POST", url)).text


def ask_as_kaggle(url: str) -> str:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", build_adapter())
        try:
            return within_limit(lambda: session.post(url)).text
        except (OSError, ValueError) as error:  # of requests, or that it took too long
            raise LostAnswerError(str(error)) from None


by_either = pytest.mark.parametrize("ask", [ask_by_wire, ask_as_kaggle])


@by_either
@pytest.mark.parametrize("head", [b"", b"Content-Encoding: gzip\r\n"])
def test_an_answer_without_end_is_cut(
    monkeypatch: pytest.MonkeyPatch, ask: Any, head: bytes
) -> None:
    monkeypatch.setattr(exchange, "MAX_ANSWER_BYTES", 1000)
    body = gzip.compress(b"x" * 9_000_000) if head else b"x" * 50_000
    with stream([OK + head + b"Connection: close\r\n\r\n" + body]) as url:
        assert ask(url) == "x" * 1000


@by_either
@pytest.mark.parametrize(
    "chunks",
    [
        [OK, *[b"A: b\r\n"] * 20],
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 20,
        [OK + b"\r\n", *[b"x"] * 20],
    ],
    ids=["head", "continue", "body"],
)
def test_an_answer_that_drips_is_given_up(
    monkeypatch: pytest.MonkeyPatch, ask: Any, chunks: list[bytes]
) -> None:
    monkeypatch.setattr(exchange, "ANSWER_TIMEOUT_S", 0.3)
    with (
        stream(chunks, 0.05) as url,
        pytest.raises(LostAnswerError, match=r"complete after 0\.3"),
    ):
        ask(url)
    time.sleep(0.8)  # the thread that was given up ends


@by_either
def test_a_packed_answer_is_read_or_named(ask: Any) -> None:
    def say(packing: bytes, body: bytes) -> list[bytes]:
        head = b"Content-Encoding: " + packing + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        return [OK + head + body]

    for packing, body in ((b"gzip", gzip.compress(b"hi")), (b"deflate", zlib.compress(b"hi"))):
        with stream(say(packing, body)) as url:
            assert ask(url) == "hi"
    for packing, body in ((b"gzip", b"{}"), (b"gzip", gzip.compress(b"hi")[:-4]), (b"br", b"x")):
        with stream(say(packing, body)) as url, pytest.raises(LostAnswerError):
            ask(url)


def test_a_stream_that_unpacks_to_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_ANSWER_BYTES", 1000)
    packer = zlib.compressobj()
    empty = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    assert read_body(itertools.chain([empty], itertools.repeat(empty[-5:])), "deflate") == b""
    with pytest.raises(PackedError, match="'br', which was not requested"):
        read_body([], "br")


def test_a_large_file_has_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ANSWER_TIMEOUT_S", 0.0)
    assert within_limit(lambda: time.sleep(0.1) or 5, 10 * exchange.SLOWEST_BYTES_PER_S) == 5
    with pytest.raises(ZeroDivisionError):
        within_limit(lambda: 1 / 0, 10 * exchange.SLOWEST_BYTES_PER_S)
