"""Plain HTTP with the one distinction that counts: a request may create a submission, or may not.

``ask`` is for requests that change nothing, and repeats them with growing pauses; ``create`` sends
a file, and repeats only what never left this machine. Redirects are not followed, so a key goes to
the host it is meant for; proxies are not asked for servers on this machine.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from competition.errors import QuotaError, UploadError
from competition.upload import exchange
from competition.upload.masking import HIDDEN, Mask
from competition.upload.target import LostAnswerError, RejectedError, TargetOptions

if TYPE_CHECKING:
    import tenacity

TRIES = 5
LONGEST_PAUSE_S = 60.0
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
    """One request, as it is sent and as --dry-run shows it.

    ``secret_headers`` are sent but never shown; ``file`` is field, file name and bytes of a form.
    ``quotable``: where an answer may hold what lets anyone upload, the keys of a JSON answer that a
    message may quote; None: all of the answer.
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
        """Return about how many bytes are sent."""
        return len(self.body or b"") + (len(self.file[2]) if self.file else 0)

    def describe(self) -> str:
        """Show the request on one line, its secrets masked."""
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
    """What a server answered; ``text`` is raw and must pass a ``Mask`` before anyone sees it."""

    status: int
    text: str
    retry_after_s: float | None = None

    @property
    def is_good(self) -> bool:
        """Say whether the request did what it was for."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the decoded body; ValueError when it is no JSON."""
        try:
            return json.loads(self.text)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class TransientError(Exception):
    """A request that changed nothing did not come through; the same one may yet."""

    def __init__(self, error: UploadError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


class _NotSentError(Exception):
    """No connection could be made: nothing left this machine."""


class _LostError(Exception):
    """The connection broke with the request under way or before a whole answer was there."""


class Wire:
    """An HTTP client for one conversation; ``key_name`` is what a refused key is called."""

    def __init__(self, options: TargetOptions, key_name: str) -> None:
        import httpx

        # Its log lines hold whole addresses, and some addresses hold a signature.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def ask(self, call: Call, *, allowed: tuple[int, ...] = ()) -> Answer:
        """Send a request that changes nothing, again and again while the server is only busy.

        Raises:
            UploadError: no answer came, or one whose status is neither good nor ``allowed``.
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
        """Send a request that may create a submission: once, after at most a few vain connections.

        Args:
            again_when_busy: repeat it also after a 429 or 503 that names a pause; only for a
                request that sends no file.

        Raises:
            UploadError: it surely created none. A QuotaError when the server says so.
            RejectedError: the server read the file and rejected it.
            LostAnswerError: nobody knows.
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
            judge_refusal(answer.status, self._explain(call, answer))
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
        except Exception as error:  # a broken connection, or whatever an odd answer runs into
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
    """Say what a bad status means; ``said`` is the server's own message, masked.

    Args:
        key_name: what the key is called that was sent, None when none was.
    """
    message = f"{host} answered {answer.status}" + (f": {said}" if said else "")
    if answer.status in (401, 403, 429, *REJECTING) and QUOTA_WORDS.search(said):
        return QuotaError(message)
    if answer.status in (401, 403) and key_name is not None:
        message += f"; is {key_name} right, and may it do this?"
    elif 300 <= answer.status < 400:
        message += "; it points elsewhere, which is not followed: write the final address"
    elif answer.status == 429:
        pause = answer.retry_after_s
        message += f"; try again in {math.ceil(pause)} s" if pause else "; try again later"
    return UploadError(message)


def judge_refusal(status: int, error: UploadError) -> None:
    """Raise what a bad status means for a request that may have created a submission.

    A server says 4xx when it did not do as asked. A redirect, a timeout of its own (408) and any
    5xx, which a gateway also gives when the server behind it goes on working, say nothing.

    Raises:
        UploadError, RejectedError, LostAnswerError: as ``Wire.create``.
    """
    if status == 408 or not 400 <= status < 500:
        raise LostAnswerError(str(error)) from None
    if status in REJECTING and not isinstance(error, QuotaError):
        raise RejectedError(str(error)) from None
    raise error from None


def repeat(attempt: Callable[[], _Answer], sleep: Callable[[float], None]) -> _Answer:
    """Call until no TransientError comes, at most ``TRIES`` times with growing pauses.

    Raises:
        UploadError: the last TransientError's, or one that asks for a pause nobody would sit out.
    """
    import tenacity

    def again(error: BaseException) -> bool:
        too_long = isinstance(error, TransientError) and (error.wait_s or 0) > LONGEST_PAUSE_S
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
        if pause is not None and pause > LONGEST_PAUSE_S:
            raise type(error)(f"{error}; it asks to wait {math.ceil(pause)} s") from None
        raise error from None


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now.

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
    except (ValueError, OverflowError, TypeError, IndexError):  # dates that no calendar has
        return None


def is_loopback(url: str) -> bool:
    """Say whether an address is on this machine.

    >>> is_loopback("http://127.0.0.1:8000/api"), is_loopback("http://localhost.example.org")
    (True, False)
    """
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def is_plain_http(url: str) -> bool:
    """Say whether what is sent there travels in the clear over a network.

    >>> is_plain_http("http://board.example.org"), is_plain_http("http://127.0.0.1:8000")
    (True, False)
    """
    return url.startswith("http://") and not is_loopback(url)


def check_hand_over(url: Any, base: str) -> str:
    """Return an address that a server at ``base`` named for the next step, if it is usable.

    Raises:
        UploadError: it is no address, or it would send the file in the clear and nobody insisted on
            that for ``base``, or to this machine from another one. The address may hold a signature
            and is not shown.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
    except ValueError:
        parts = urlsplit("")
    is_shown = bool(parts.hostname) and str(parts.hostname).isprintable()
    if parts.scheme not in ("http", "https") or not is_shown:
        raise UploadError(f"{urlsplit(base).hostname} named no address for the upload")
    in_clear = parts.scheme == "http" and not is_loopback(url) and not is_plain_http(base)
    if in_clear or (is_loopback(url) and not is_loopback(base)):
        raise UploadError(
            f"{urlsplit(base).hostname} named an address at {parts.scheme}://{parts.hostname} for"
            " the upload, which is not safe; nothing was sent there"
        )
    return str(url)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.wait_s if isinstance(error, TransientError) else None
    return asked if asked is not None else float(2 ** (state.attempt_number - 1))


@functools.cache
def _read_certificates() -> ssl.SSLContext:
    """Return the certificates to trust; reading them takes a while, so once a process."""
    import httpx

    return httpx.create_ssl_context()


def _host(call: Call) -> str:
    return urlsplit(call.url).netloc


def _choose_quotable(answer: Answer, keys: tuple[str, ...] | None) -> str:
    """Return what a message may quote of an answer with a bad status."""
    if keys is None:
        return answer.text
    try:
        body = answer.json()
    except ValueError:
        return ""
    said = [body.get(key) for key in keys] if isinstance(body, dict) else []
    return "; ".join(each for each in said if isinstance(each, str))
