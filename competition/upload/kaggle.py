"""Target ``kaggle``: a Kaggle competition, through Kaggle's own client (requirements-kaggle.txt).

The client is imported only to send or to ask, since importing it logs in, and its calls are made
one by one: its own upload in one go hides which step failed. A submission's description ends with
the hash of its file, by which the platform is asked what arrived.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from competition.errors import UploadError
from competition.profile import Competition
from competition.upload.masking import Mask
from competition.upload.scores import find_scores
from competition.upload.target import (
    LostAnswerError,
    Receipt,
    Sought,
    Submission,
    TargetOptions,
    Verdict,
)
from competition.upload.wire import (
    BUSY,
    SILENCE_TIMEOUT_S,
    Answer,
    Call,
    TransientError,
    Wire,
    check_hand_over,
    explain_status,
    judge_refusal,
    read_retry_after,
    repeat,
)
from competition.upload_rules import ScoreFields

HOST = "api.kaggle.com"
SERVICE = f"https://{HOST}/v1/competitions.CompetitionApiService"
TYPES = "kagglesdk.competitions.types.competition_api_service"
LOGIN = "the Kaggle login"
PAGE_ROWS = 100
MOST_PAGES = 50
STATES = {"PENDING": "pending", "COMPLETE": "scored", "ERROR": "rejected"}


def build_api() -> Any:
    """Import Kaggle's client and log in, which may contact the server.

    Raises:
        UploadError: the client is not installed, or finds no login.
    """
    with _silence():
        try:
            api = importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi()
        except ImportError as error:
            raise UploadError(
                f"Kaggle's client cannot be imported ({error.name} is missing); run:"
                " python -m pip install -r requirements-kaggle.txt"
            ) from None
        except (Exception, SystemExit) as error:  # whatever its login at import runs into
            raise UploadError(f"Kaggle's client cannot start ({type(error).__name__})") from None
        log_in(api)
    return api


def log_in(api: Any) -> None:
    """Let the client find its login; without one it would end the program."""
    with _silence():
        try:
            api.authenticate()
        except SystemExit:
            raise UploadError(
                "Kaggle's client finds no login: set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and"
                " KAGGLE_KEY, or run: kaggle auth login"
            ) from None
        except Exception as error:  # the client's, the SDK's and requests' are many
            raise UploadError(f"the login at Kaggle failed ({type(error).__name__})") from None


class KaggleTarget:
    """Sends to the competition that ``upload.kaggle`` names, with the client's own login."""

    name = "kaggle"
    has_quota = True
    settle_s = 60.0

    def __init__(self, options: TargetOptions, *, build: Callable[[], Any] = build_api) -> None:
        """Take the mask, the clock, and what makes a client that is logged in."""
        self._options = options
        self._build = build
        self._api: Any = None

    def destination(self, competition: Competition) -> str:
        """Return the competition's address, without its scheme."""
        return f"kaggle.com/competitions/{_read_name(competition)}"

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Show the four requests."""
        name, size = _read_name(competition), len(submission.data)
        calls = {
            "GetSubmissionLimits": f'{{"competitionName": "{name}"}}',
            "StartSubmissionUpload": f'{{"competitionName": "{name}", "fileName":'
            f' "{submission.file_name}", "contentLength": {size}}}',
            "CreateSubmission": f'{{"competitionName": "{name}", "blobFileTokens": <of the answer>,'
            f' "submissionDescription": "{submission.description}"}}',
        }
        steps = [f"POST {SERVICE}/{key}; header Authorization: ***; {calls[key]}" for key in calls]
        put = Call("PUT", "<createUrl of the answer>", body=submission.data).describe()
        return [*steps[:2], put, steps[2]]

    def ask_quota(self, competition: Competition) -> int | None:
        """Return how many submissions Kaggle still takes today.

        It counts by team: all zeros may mean that there is no team yet, which says nothing.
        """
        with self._open() as service:
            request = _build_request("ApiGetSubmissionLimitsRequest", competition)
            limits = service.ask("get_submission_limits", request)
        is_empty = limits.num_allowed_now == limits.num_total == limits.num_today == 0
        return None if is_empty else int(limits.num_allowed_now)

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Ask for an address, put the bytes there, and make a submission of them."""
        with self._open() as service:
            start = _build_request("ApiStartSubmissionUploadRequest", competition)
            start.file_name = submission.file_name
            start.content_length = len(submission.data)
            start.last_modified_epoch_seconds = int(submission.path.stat().st_mtime)
            begun = service.ask("start_submission_upload", start)
            with Wire(self._options, LOGIN) as wire:
                url = check_hand_over(begun.create_url, service.base)
                self._options.mask.add_signed(url)
                wire.ask(Call("PUT", url, body=submission.data))
        with self._open() as service:  # afresh: a connection that idled may be half dead
            create = _build_request("ApiCreateSubmissionRequest", competition)
            create.blob_file_tokens = begun.token
            create.submission_description = submission.description
            made = service.create("create_submission", create)
        said = self._options.mask.quote(made.message or "")
        if made.ref <= 0:
            raise LostAnswerError(f"Kaggle named no submission: {said or 'it said nothing'}")
        return Receipt(ref=str(made.ref), message=said or f"uploaded as submission {made.ref}")

    def find(self, sought: Sought, competition: Competition) -> Receipt | None:
        """Look through the competition's submissions for the file's mark."""
        token = ""
        with self._open() as service:
            for _ in range(MOST_PAGES):
                request = _build_request("ApiListSubmissionsRequest", competition)
                request.page_size, request.page_token = PAGE_ROWS, token
                answer = service.ask("list_submissions", request)
                for each in answer.submissions or []:
                    is_marked = sought.tag in (each.description or "")
                    if is_marked and str(each.ref) not in sought.known_refs:
                        return Receipt(str(each.ref), f"found as submission {each.ref}")
                token = answer.next_page_token or ""
                if not token:
                    return None
        raise UploadError(f"{MOST_PAGES} pages of submissions were not all that Kaggle has")

    def can_poll(self, competition: Competition) -> bool:
        """Say yes."""
        del competition
        return True

    def score_fields(self, competition: Competition) -> ScoreFields:
        """Return what Kaggle's score counts as; the private one is told at the end."""
        return competition.profile.upload.kaggle.scores

    def poll_url(self, competition: Competition) -> str:
        """Return the service's address."""
        del competition
        return SERVICE

    def plan_poll(self, competition: Competition) -> str:
        """Show the question for one submission."""
        del competition
        return (
            f'POST {SERVICE}/GetSubmission; header Authorization: ***; {{"ref": <of the answer>}}'
        )

    def poll(self, ref: str, competition: Competition) -> Verdict:
        """Ask for one submission; right after the upload Kaggle may not know it yet."""
        with self._open() as service:
            request = _build_request("ApiGetSubmissionRequest", None)
            request.ref = int(ref)
            found = service.ask("get_submission", request, allow_missing=True)
        if found is None:
            return Verdict("pending")
        state = STATES.get(found.status.name)
        if state == "rejected":
            return Verdict("rejected", self._options.mask.quote(found.error_description or "error"))
        if state != "scored":
            return Verdict("pending", self._options.mask.quote(found.status.name.lower()))
        answer = {"publicScore": found.public_score, "privateScore": found.private_score}
        scores = find_scores(answer, self.score_fields(competition), self._options.mask)
        return Verdict("scored", scores.remark, scores.public, scores.private)

    @contextmanager
    def _open(self) -> Iterator[_Service]:
        if self._api is None:
            self._api = self._build()
            _hide_login(self._api, self._options.mask)
        with _silence():
            client = self._api.build_kaggle_client()
        with client:
            yield _Service(client, self._options)


class _Service:
    """Kaggle's typed calls, with time limits, repeated where that is safe, errors told as ours."""

    def __init__(self, client: Any, options: TargetOptions) -> None:
        http = client.http_client()
        # The client sets no time limit of its own and would wait for a silent server for ever.
        http._session.send = functools.partial(http._session.send, timeout=SILENCE_TIMEOUT_S)
        self.base: str = http._endpoint
        self._calls = client.competitions.competition_api_client
        self._options = options

    def ask(self, method: str, request: Any, *, allow_missing: bool = False) -> Any:
        """Make a call that creates no submission; None when it is allowed to find nothing."""

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
        """Make a call that creates a submission; as ``Wire.create``."""

        def attempt() -> Any:
            outcome = self._call(method, request)
            if not isinstance(outcome, _Failure):
                return outcome
            if outcome.never_sent:
                raise TransientError(outcome.error)
            if outcome.status is None:
                raise LostAnswerError(str(outcome.error))
            return judge_refusal(outcome.status, outcome.error)

        return repeat(attempt, self._options.sleep)

    def _call(self, method: str, request: Any) -> Any:
        requests = importlib.import_module("requests.exceptions")
        try:
            with _silence():
                return getattr(self._calls, method)(request)
        except requests.HTTPError as error:
            return self._tell_refusal(error)
        except Exception as error:  # whatever the client makes of a broken or odd answer
            said = self._options.mask.quote(str(error)) or type(error).__name__
            return _Failure(UploadError(f"{HOST}: {said}"), None, never_sent=_never_sent(error))

    def _tell_refusal(self, error: Any) -> _Failure:
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
        told = explain_status(HOST, answer, said=said, key_name=LOGIN)
        return _Failure(told, status, wait_s=answer.retry_after_s)


class _Failure:
    """A call that did not do what it was for; ``status`` None when no answer could be read."""

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
    """Say whether no connection could be made; requests tells it by what the error wraps."""
    pool = importlib.import_module("urllib3.exceptions")
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, pool.NewConnectionError | pool.ConnectTimeoutError | pool.ProxyError)


def _read_name(competition: Competition) -> str:
    name = competition.profile.upload.kaggle.competition
    if name is None:
        raise UploadError(
            f"the profile {competition.profile.name} does not say which competition of Kaggle is"
            " meant: set competition under [upload.kaggle]"
        )
    return name


def _build_request(kind: str, competition: Competition | None) -> Any:
    """Make one of the client's requests; to be called when the client is known to be there."""
    request = getattr(importlib.import_module(TYPES), kind)()
    if competition is not None:
        request.competition_name = _read_name(competition)
    return request


def _hide_login(api: Any, mask: Mask) -> None:
    values = api.config_values
    user = str(values.get(api.CONFIG_NAME_USER) or "")
    for name in (api.CONFIG_NAME_KEY, api.CONFIG_NAME_TOKEN):
        secret = str(values.get(name) or "")
        if secret:
            mask.add(secret)
            mask.add(f"{user}:{secret}")  # as Basic authorization has it, in base64
    mask.add(str(values.get("api_token") or ""))  # KAGGLE_API_TOKEN, even where it was no use


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the client from printing, which it does where it should raise."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
