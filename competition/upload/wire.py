"""An HTTP client that separates safe requests from those that may create a submission.

``ask`` sends requests that change nothing, and retries them with growing pauses; ``create`` sends a
file, and retries only if no connection was made. Redirects are not followed, so that a key reaches
only its own host; no proxy is used for servers on this machine.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from competition.errors import QuotaError, UploadError
from competition.files import parse_json
from competition.upload import exchange
from competition.upload.masking import HIDDEN, Mask
from competition.upload.target import LostAnswerError, RejectedError, TargetOptions

if TYPE_CHECKING:
    import tenacity

TRIES = 5
MAX_PAUSE_S = 60.0
CONNECT_TIMEOUT_S = 20.0
SILENCE_TIMEOUT_S = 60.0
BUSY = frozenset({429, 500, 502, 503, 504})
REJECTING = frozenset({400, 406, 413, 415, 422})
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
QUOTA_WORDS = re.compile(
    r"(maximum|limit|quota|exhausted|all \d+ of)\W.{0,60}submission"
    r"|submission.{0,60}\W(limit|quota|maximum|exhausted)",
    re.IGNORECASE,
)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Call:
    """One request, to be sent or shown by --dry-run.

    ``secret_headers`` are sent but never shown; ``file`` is the field, file name and bytes of a
    form. ``quotable``: the keys of a JSON answer that messages may quote, for answers that contain
    credentials; None: all of the answer.
    """

    method: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, str, bytes] | None = None
    body: bytes | None = None
    quotable: tuple[str, ...] | None = None

    @property
    def n_bytes(self) -> int:
        """Return the approximate size of the request in bytes."""
        return len(self.body or b"") + (len(self.file[2]) if self.file else 0)

    def describe(self) -> str:
        """Describe the request on one line without secrets."""
        url = f"{self.url}?{urlencode(self.params)}" if self.params else self.url
        parts = [f"{self.method} {url}"]
        parts += [f"header {name}: {HIDDEN}" for name in self.secret_headers]
        parts += [f"field {name}={value}" for name, value in self.fields.items()]
        if self.file is not None:
            name, file_name, data = self.file
            parts.append(f"file {name}={file_name} ({len(data):,} bytes)")
        if self.body is not None:
            parts.append(f"body of {len(self.body):,} bytes")
        return "; ".join(parts)


@dataclass(frozen=True)
class Answer:
    """A server's answer; ``text`` is raw and must pass a ``Mask`` before it is shown."""

    status: int
    text: str
    retry_after_s: float | None = None

    @property
    def is_good(self) -> bool:
        """Return whether the request succeeded."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the decoded body; raise ValueError if it is not JSON."""
        try:
            return parse_json(self.text)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class TransientError(Exception):
    """A request failed without any effect; retrying it is safe."""

    def __init__(self, error: UploadError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


class _NotSentError(Exception):
    """No connection could be made: nothing was sent."""


class _LostError(Exception):
    """The connection broke during the request or before the answer was complete."""


class Wire:
    """An HTTP client for one session; ``key_name`` names the key in messages."""

    def __init__(self, options: TargetOptions, key_name: str) -> None:
        import httpx

        # Its log lines contain whole addresses, and some addresses contain a signature.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        trust = _read_certificates()
        self._client = httpx.Client(
            verify=trust,
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            mounts={f"all://{host}": httpx.HTTPTransport(verify=trust) for host in LOOPBACK},
            follow_redirects=False,
        )
        self._mask: Mask = options.mask
        self._sleep = options.sleep
        self._key_name = key_name

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, call: Call, *, allowed: tuple[int, ...] = ()) -> Answer:
        """Send a request that changes nothing; retry while the server is busy.

        Raises:
            UploadError: no answer, or a status that is neither a success nor ``allowed``.
        """

        def attempt() -> Answer:
            try:
                answer = self._send(call)
            except (_NotSentError, _LostError) as error:
                raise TransientError(UploadError(f"{_host(call)}: {error}")) from None
            if answer.is_good or answer.status in allowed:
                return answer
            failed = self._explain(call, answer)
            if answer.status in BUSY:
                raise TransientError(failed, answer.retry_after_s)
            raise failed

        return repeat(attempt, self._sleep)

    def create(self, call: Call, *, again_when_busy: bool = False) -> Answer:
        """Send a request that may create a submission once; retry only failed connections.

        Args:
            again_when_busy: also retry after a 429 or 503 with a Retry-After header; only for
                requests without a file.

        Raises:
            UploadError: no submission was created. A QuotaError if the server says so.
            RejectedError: the server read the file and rejected it.
            LostAnswerError: a submission may have been created.
        """

        def attempt() -> Answer:
            try:
                answer = self._send(call)
            except _NotSentError as error:
                raise TransientError(UploadError(f"{_host(call)}: {error}")) from None
            except _LostError as error:
                raise LostAnswerError(f"{_host(call)}: {error}") from None
            if again_when_busy and answer.status in (429, 503) and answer.retry_after_s is not None:
                raise TransientError(self._explain(call, answer), answer.retry_after_s)
            return answer

        answer = repeat(attempt, self._sleep)
        if not answer.is_good:
            raise_refusal(answer.status, self._explain(call, answer))
        return answer

    def _send(self, call: Call) -> Answer:
        import httpx

        never_sent = (
            *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
            *(httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL),
        )
        try:
            return exchange.within_limit(lambda: self._exchange(call), call.n_bytes)
        except never_sent as error:
            raise _NotSentError(self._name(error, "no connection")) from None
        except Exception as error:  # a broken connection, or an invalid answer
            raise _LostError(self._name(error, "the connection broke")) from None

    def _exchange(self, call: Call) -> Answer:
        name, file_name, data = call.file or ("", "", b"")
        with self._client.stream(
            call.method,
            call.url,
            params=dict(call.params) or None,
            headers={"Accept-Encoding": "identity", **call.secret_headers},
            data=dict(call.fields) or None,
            files={name: (file_name, data, "text/csv")} if call.file else None,
            content=call.body,
        ) as response:
            packing = response.headers.get("Content-Encoding")
            body = exchange.read_body(response.iter_raw(exchange.CHUNK_BYTES), packing)
            pause = read_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
            return Answer(response.status_code, body.decode("utf-8", errors="replace"), pause)

    def _name(self, error: Exception, what: str) -> str:
        detail = self._mask.quote(str(error))
        return f"{what} ({detail or type(error).__name__})"

    def _explain(self, call: Call, answer: Answer) -> UploadError:
        key_name = self._key_name if call.secret_headers else None
        said = self._mask.quote(_choose_quotable(answer, call.quotable))
        return explain_status(_host(call), answer, said=said, key_name=key_name)


def explain_status(host: str, answer: Answer, *, said: str, key_name: str | None) -> UploadError:
    """Build the error for a bad status; ``said`` is the server's own message, masked.

    Args:
        key_name: the name of the key that was sent, None if none was sent.
    """
    message = f"{host} answered {answer.status}" + (f": {said}" if said else "")
    if answer.status in (401, 403, 429, *REJECTING) and QUOTA_WORDS.search(said):
        return QuotaError(message)
    if answer.status in (401, 403) and key_name is not None:
        message += f"; is {key_name} correct, and does it have permission?"
    elif 300 <= answer.status < 400:
        message += "; redirects are not followed: use the final address"
    elif answer.status == 429:
        pause = answer.retry_after_s
        message += f"; try again in {math.ceil(pause)} s" if pause else "; try again later"
    return UploadError(message)


def raise_refusal(status: int, error: UploadError) -> None:
    """Raise the error for a bad status of a request that may have created a submission.

    A 4xx status means that the server did nothing. After a redirect, a timeout (408) or any 5xx,
    which a gateway may send while the server behind it continues, the outcome is unknown.

    Raises:
        UploadError, RejectedError, LostAnswerError: as ``Wire.create``.
    """
    if status == 408 or not 400 <= status < 500:
        raise LostAnswerError(str(error)) from None
    if status in REJECTING and not isinstance(error, QuotaError):
        raise RejectedError(str(error)) from None
    raise error from None


def repeat(attempt: Callable[[], _Answer], sleep: Callable[[float], None]) -> _Answer:
    """Retry on TransientError, at most ``TRIES`` times with growing pauses.

    Raises:
        UploadError: of the last TransientError, or of one that asks for a pause that is too long.
    """
    import tenacity

    def again(error: BaseException) -> bool:
        too_long = isinstance(error, TransientError) and (error.wait_s or 0) > MAX_PAUSE_S
        return isinstance(error, TransientError) and not too_long

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(again),
        stop=tenacity.stop_after_attempt(TRIES)
        | tenacity.stop_after_delay(exchange.ANSWER_TIMEOUT_S),
        wait=_pause,
        sleep=sleep,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except TransientError as transient:
        error, pause = transient.error, transient.wait_s
        if pause is not None and pause > MAX_PAUSE_S:
            raise type(error)(f"{error}; the server asks to wait {math.ceil(pause)} s") from None
        raise error from None


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Parse a Retry-After header (seconds or a date) to seconds from now.

    >>> read_retry_after("7", datetime(2026, 11, 22, tzinfo=UTC))
    7.0
    >>> read_retry_after("Sun, 22 Nov 2026 00:00:30 GMT", datetime(2026, 11, 22, tzinfo=UTC))
    30.0
    >>> read_retry_after("soon", datetime(2026, 11, 22, tzinfo=UTC)) is None
    True
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:9])
    try:
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError, TypeError, IndexError):  # impossible dates
        return None


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine.

    >>> is_loopback("http://127.0.0.1:8000/api"), is_loopback("http://localhost.example.org")
    (True, False)
    """
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def is_plain_http(url: str) -> bool:
    """Return whether data sent to an address would cross a network unencrypted.

    >>> is_plain_http("HTTP://board.example.org"), is_plain_http("http://127.0.0.1:8000")
    (True, False)
    """
    return urlsplit(url).scheme == "http" and not is_loopback(url)


def check_upload_url(url: Any, base: str) -> str:
    """Return the upload address that a server at ``base`` gave, if it is safe.

    Raises:
        UploadError: it is not an address, it is unencrypted although ``base`` is encrypted, or it
            points to this machine although ``base`` does not. The message does not show the
            address, which may contain a signature.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
    except ValueError:
        parts = urlsplit("")
    is_shown = bool(parts.hostname) and str(parts.hostname).isprintable()
    if parts.scheme not in ("http", "https") or not is_shown:
        raise UploadError(f"{urlsplit(base).hostname} gave no address for the upload")
    in_clear = parts.scheme == "http" and not is_loopback(url) and not is_plain_http(base)
    if in_clear or (is_loopback(url) and not is_loopback(base)):
        raise UploadError(
            f"{urlsplit(base).hostname} gave the upload address {parts.scheme}://{parts.hostname},"
            " which is not safe; nothing was sent there"
        )
    return str(url)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.wait_s if isinstance(error, TransientError) else None
    return asked if asked is not None else float(2 ** (state.attempt_number - 1))


@functools.cache
def _read_certificates() -> ssl.SSLContext:
    """Return the trusted certificates; cached, because reading them is slow."""
    import httpx

    return httpx.create_ssl_context()


def _host(call: Call) -> str:
    return urlsplit(call.url).netloc


def _choose_quotable(answer: Answer, keys: tuple[str, ...] | None) -> str:
    """Return the part of an error answer that messages may quote."""
    if keys is None:
        return answer.text
    try:
        body = answer.json()
    except ValueError:
        return ""
    said = [body.get(key) for key in keys] if isinstance(body, dict) else []
    return "; ".join(each for each in said if isinstance(each, str))
