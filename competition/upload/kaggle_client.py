"""A wrapper around Kaggle's own client: no output, time limits, and this project's exceptions.

Used by the target ``kaggle``. The client prints errors instead of raising them, sets no time limit,
follows redirects, and does not validate what the server sends.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from competition.data.csv_records import show
from competition.errors import UploadError
from competition.upload import exchange
from competition.upload.masking import Mask
from competition.upload.target import LostAnswerError, TargetOptions
from competition.upload.wire import (
    BUSY,
    CONNECT_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    Answer,
    TransientError,
    explain_status,
    raise_refusal,
    read_retry_after,
    repeat,
)

HOST = "api.kaggle.com"
LOGIN = "the Kaggle login"


class ClientObject(BaseModel):
    """A validated copy of one of the client's objects, whose own fields are not validated."""

    model_config = ConfigDict(strict=True, from_attributes=True, frozen=True)


def _read_number(value: object) -> object:
    """Convert a number that was sent as text."""
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal()
    return int(value[:19]) if isinstance(value, str) and is_digits else value


Number = Annotated[int, BeforeValidator(_read_number)]


class QuotaLimits(ClientObject):
    """The remaining quota."""

    num_allowed_now: int
    num_total: int
    num_today: int


class UploadStart(ClientObject):
    """The answer with the upload URL."""

    create_url: Any  # signed, so never quoted
    token: str


class CreatedSubmission(ClientObject):
    """The submission that was created."""

    ref: Number
    message: str | None


class ListedSubmission(ClientObject):
    """One submission in a list."""

    ref: Number
    description: str | None


class SubmissionPage(ClientObject):
    """One page of the list of submissions."""

    submissions: list[ListedSubmission] | None
    next_page_token: str | None


class SubmissionStatus(ClientObject):
    """The status and scores of a submission."""

    status: Any
    public_score: Any
    private_score: Any
    error_description: str | None


_Model = TypeVar("_Model", bound=ClientObject)


def build_api() -> Any:
    """Import Kaggle's client and log in, which may contact the server.

    Raises:
        UploadError: the client is not installed, or finds no credentials.
    """
    with suppress_output():
        try:
            api = importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi()
        except ImportError as error:
            raise UploadError(
                f"Kaggle's client cannot be imported ({error.name} is missing); run:"
                " python -m pip install -r requirements-kaggle.txt"
            ) from None
        except (Exception, SystemExit) as error:  # it logs in when it is imported
            raise UploadError(f"Kaggle's client cannot start ({type(error).__name__})") from None
        log_in(api)
    return api


def log_in(api: Any) -> None:
    """Log in; without credentials the client would exit the program."""
    with suppress_output():
        try:
            api.authenticate()
        except SystemExit:
            raise UploadError(
                "Kaggle's client finds no credentials: set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and"
                " KAGGLE_KEY, or run: kaggle auth login"
            ) from None
        except Exception as error:  # the client, its SDK and requests raise many kinds
            raise UploadError(f"the login at Kaggle failed ({type(error).__name__})") from None


def hide_login(api: Any, mask: Mask) -> None:
    """Add the client's credentials to a mask."""
    values = api.config_values
    user = str(values.get(api.CONFIG_NAME_USER) or "")
    for name in (api.CONFIG_NAME_KEY, api.CONFIG_NAME_TOKEN):
        secret = str(values.get(name) or "")
        if secret:
            mask.add(secret)
            mask.add(f"{user}:{secret}")  # Basic authorization sends this in base64
    mask.add(str(values.get("api_token") or ""))  # KAGGLE_API_TOKEN, even if it was not used


class _Caught(io.StringIO):
    """What the client printed."""


@contextmanager
def suppress_output() -> Iterator[_Caught]:
    """Capture what the client prints."""
    outer, caught = sys.stdout, _Caught()
    with contextlib.redirect_stdout(caught), contextlib.redirect_stderr(caught):
        yield caught
    if isinstance(outer, _Caught):
        outer.write(caught.getvalue())


def read_answer(model: type[_Model], answer: Any) -> _Model:
    """Validate one of the client's objects.

    Raises:
        UploadError: a field has another type than expected; the message must pass a ``Mask``.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UploadError(f"{HOST} sent {key} as {show(first['input'])}: {first['msg']}") from None


class Service:
    """Kaggle's API calls with time limits, retries where that is safe, and our exceptions."""

    def __init__(self, client: Any, options: TargetOptions) -> None:
        http = client.http_client()
        adapter = build_adapter()
        for scheme in ("https://", "http://"):
            http._session.mount(scheme, adapter)
        http._session.send = functools.partial(http._session.send, allow_redirects=False)
        self.base: str = http._endpoint
        self._calls = client.competitions.competition_api_client
        self._options = options

    def ask(self, method: str, request: Any, *, allow_missing: bool = False) -> Any:
        """Make a call that creates no submission; with ``allow_missing``, a 404 returns None."""

        def attempt() -> Any:
            outcome = self._call(method, request)
            if not isinstance(outcome, _Failure):
                return outcome
            if allow_missing and outcome.status == 404:
                return None
            if outcome.status is None or outcome.status in BUSY:
                raise TransientError(outcome.error, outcome.wait_s)
            raise outcome.error

        return repeat(attempt, self._options.sleep)

    def create(self, method: str, request: Any) -> Any:
        """Make a call that creates a submission, as ``Wire.create`` does."""

        def attempt() -> Any:
            outcome = self._call(method, request)
            if not isinstance(outcome, _Failure):
                return outcome
            if outcome.never_sent:
                raise TransientError(outcome.error)
            if outcome.status is None:
                raise LostAnswerError(str(outcome.error))
            return raise_refusal(outcome.status, outcome.error)

        return repeat(attempt, self._options.sleep)

    def _call(self, method: str, request: Any) -> Any:
        requests = importlib.import_module("requests.exceptions")
        try:
            with suppress_output():
                call = getattr(self._calls, method)
                return exchange.within_limit(lambda: call(request))
        except requests.HTTPError as error:
            return self._read_refusal(error)
        except Exception as error:  # the client raises many kinds on a broken answer
            said = self._options.mask.quote(str(error)) or type(error).__name__
            return _Failure(UploadError(f"{HOST}: {said}"), None, never_sent=_never_sent(error))

    def _read_refusal(self, error: Any) -> _Failure:
        response = error.response
        status = int(response.status_code)
        pause = read_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        try:
            code = response.json().get("code")
        except (ValueError, AttributeError):
            code = None
        if isinstance(code, int) and code >= 400:  # its errors may come with status 200
            status = code
        answer = Answer(status, response.text, pause)
        said = self._options.mask.quote(str(error))
        failed = explain_status(HOST, answer, said=said, key_name=LOGIN)
        return _Failure(failed, status, wait_s=answer.retry_after_s)


class _Failure:
    """A failed call; ``status`` is None if no answer could be read."""

    def __init__(
        self,
        error: UploadError,
        status: int | None,
        *,
        wait_s: float | None = None,
        never_sent: bool = False,
    ) -> None:
        self.error, self.status = error, status
        self.wait_s, self.never_sent = wait_s, never_sent


def _never_sent(error: Exception) -> bool:
    """Return whether no connection could be made, by the cause that requests wraps."""
    pool = importlib.import_module("urllib3.exceptions")
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, pool.NewConnectionError | pool.ConnectTimeoutError | pool.ProxyError)


def build_adapter() -> Any:
    """Build a transport adapter with time limits and a limited answer size.

    The client itself sets no limit and would wait forever for a silent server. It would also follow
    a redirect with the key; here a redirect is an error.
    """
    adapters = importlib.import_module("requests.adapters")
    errors = importlib.import_module("requests.exceptions")

    class BoundedAdapter(adapters.HTTPAdapter):  # type: ignore[misc, name-defined]
        """Reads the whole answer with a size limit."""

        def send(self, request: Any, **settings: Any) -> Any:
            """Send one request, and read and decompress the answer's body."""
            request.headers["Accept-Encoding"] = "identity"
            limits = {"stream": True, "timeout": (CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S)}
            response = super().send(request, **settings | limits)
            with response.raw as raw:
                chunks = raw.stream(exchange.CHUNK_BYTES, decode_content=False)
                packing = response.headers.get("Content-Encoding")
                response._content = exchange.read_body(chunks, packing)
            if 300 <= response.status_code < 400:
                raise errors.HTTPError("the server redirects", response=response)
            return response

    return BoundedAdapter()
