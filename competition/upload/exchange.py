"""One exchange with a server, bounded as a whole: in time, and in the bytes of its answer.

A library's own time limits count the silence between two bytes. A server that sends a byte a
minute, ``100 Continue`` without end, or a small body that unpacks to gigabytes stays below them;
here the exchange as a whole has one limit. Used for every request, also those of Kaggle's client.
"""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import TypeVar

ANSWER_TIMEOUT_S = 300.0
SLOWEST_BYTES_PER_S = 32 * 1024  # of an upload; a slower line is no line
MOST_ANSWER_BYTES = 4 * 2**20
CHUNK_BYTES = 64 * 1024
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

_Result = TypeVar("_Result")


class PackedError(ValueError):
    """A body that cannot be unpacked."""


def within_limit(exchange: Callable[[], _Result], n_bytes: int = 0) -> _Result:
    """Return what an exchange returns, or raise what it raises; give it up when it takes too long.

    It runs in a thread, since a read that is blocked cannot be ended from outside. A thread that is
    given up ends with its own limits, at the latest with the process.

    Args:
        exchange: sends one request and reads its answer.
        n_bytes: how many bytes it sends; a large file may take longer.

    Raises:
        TimeoutError: it was not done in time.
    """
    limit_s = ANSWER_TIMEOUT_S + n_bytes / SLOWEST_BYTES_PER_S
    done: queue.SimpleQueue[tuple[_Result | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((exchange(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = done.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"the answer was not whole after {limit_s:g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def read_body(chunks: Iterable[bytes], encoding: str | None) -> bytes:
    """Return a body unpacked, or its first ``MOST_ANSWER_BYTES`` when a server does not stop.

    Args:
        chunks: the body as it came.
        encoding: its Content-Encoding.

    Raises:
        PackedError: it is packed otherwise than it says, or in a way that was not asked for.

    >>> read_body([b"a", b"b"], None), read_body([zlib.compress(b"ab")], "deflate")
    (b'ab', b'ab')
    """
    packing = (encoding or "identity").strip().lower()
    if packing == "identity":
        return _collect(chunks)
    if packing not in WINDOWS:
        raise PackedError(f"the answer is packed as {packing[:40]!r}, which was not asked for")
    try:
        return _unpack(chunks, zlib.decompressobj(WINDOWS[packing]))
    except zlib.error as error:
        raise PackedError(f"the answer is no {packing}: {error}") from None


def _collect(chunks: Iterable[bytes]) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MOST_ANSWER_BYTES:
            break
    return bytes(body[:MOST_ANSWER_BYTES])


def _unpack(chunks: Iterable[bytes], unpacker: zlib._Decompress) -> bytes:
    body, n_read = bytearray(), 0
    for chunk in chunks:
        n_read += len(chunk)
        body += unpacker.decompress(chunk, MOST_ANSWER_BYTES - len(body) + 1)
        if max(len(body), n_read) > MOST_ANSWER_BYTES:
            return bytes(body[:MOST_ANSWER_BYTES])
    if not unpacker.eof:
        raise PackedError("the packed answer ends in its middle")
    return bytes(body)
