"""Limit the total time of an HTTP exchange and the size of its answer.

The timeouts of HTTP libraries apply between two bytes. A server that sends one byte a minute,
endless ``100 Continue``, or a small body that decompresses to gigabytes stays below them; here the
whole exchange has one limit. Used for every request, including those of Kaggle's client.
"""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import TypeVar

ANSWER_TIMEOUT_S = 300.0
SLOWEST_BYTES_PER_S = 32 * 1024  # of an upload; below this speed it is given up
MAX_ANSWER_BYTES = 4 * 2**20
CHUNK_BYTES = 64 * 1024
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

_Result = TypeVar("_Result")


class PackedError(ValueError):
    """A body that cannot be decompressed."""


def within_limit(exchange: Callable[[], _Result], n_bytes: int = 0) -> _Result:
    """Run an exchange and return its result; raise TimeoutError if it takes too long.

    It runs in a thread, since a blocked read cannot be interrupted. After a timeout the thread ends
    by its own limits, or with the process.

    Args:
        n_bytes: the size of what it sends; large files get more time.

    Raises:
        TimeoutError: it did not finish in time.
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
        raise TimeoutError(f"the answer was not complete after {limit_s:g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def read_body(chunks: Iterable[bytes], encoding: str | None) -> bytes:
    """Return the decompressed body, cut at ``MAX_ANSWER_BYTES``.

    Args:
        chunks: the raw body.
        encoding: its Content-Encoding.

    Raises:
        PackedError: the body does not match its encoding, or the encoding was not requested.

    >>> read_body([b"a", b"b"], None), read_body([zlib.compress(b"ab")], "deflate")
    (b'ab', b'ab')
    """
    packing = (encoding or "identity").strip().lower()
    if packing == "identity":
        return _collect(chunks)
    if packing not in WINDOWS:
        raise PackedError(f"the answer has the encoding {packing[:40]!r}, which was not requested")
    try:
        return _unpack(chunks, zlib.decompressobj(WINDOWS[packing]))
    except zlib.error as error:
        raise PackedError(f"the answer is not valid {packing}: {error}") from None


def _collect(chunks: Iterable[bytes]) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body[:MAX_ANSWER_BYTES])


def _unpack(chunks: Iterable[bytes], unpacker: zlib._Decompress) -> bytes:
    body, n_read = bytearray(), 0
    for chunk in chunks:
        n_read += len(chunk)
        body += unpacker.decompress(chunk, MAX_ANSWER_BYTES - len(body) + 1)
        if max(len(body), n_read) > MAX_ANSWER_BYTES:
            return bytes(body[:MAX_ANSWER_BYTES])
    if not unpacker.eof:
        raise PackedError("the compressed answer is cut off")
    return bytes(body)
