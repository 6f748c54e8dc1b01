"""Target ``kaggle``: a Kaggle competition, through Kaggle's own client (requirements-kaggle.txt).

Importing the client logs in, so it is imported only when a request is made. Its API calls are made
one by one, because its own upload function hides which step failed. A submission's description ends
with the hash of its file, which identifies it on the platform.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from competition.data.csv_records import show
from competition.errors import UploadError
from competition.profile import Competition
from competition.upload.kaggle_client import (
    HOST,
    LOGIN,
    CreatedSubmission,
    QuotaLimits,
    Service,
    SubmissionPage,
    SubmissionStatus,
    UploadStart,
    build_api,
    hide_login,
    read_answer,
    suppress_output,
)
from competition.upload.scores import find_scores, resolve_paths
from competition.upload.target import (
    LostAnswerError,
    Receipt,
    ScorePaths,
    Submission,
    TargetOptions,
    UnconfirmedUpload,
    Verdict,
    not_configured,
)
from competition.upload.wire import Call, Wire, check_upload_url

SERVICE = f"https://{HOST}/v1/competitions.CompetitionApiService"
TYPES = "kagglesdk.competitions.types.competition_api_service"
PAGE_ROWS = 100
MAX_PAGES = 50
STATES = {"PENDING": "pending", "COMPLETE": "scored", "ERROR": "rejected"}


class KaggleTarget:
    """Upload to the competition named in ``upload.kaggle``, with the client's own login."""

    name = "kaggle"
    has_quota = True
    max_delay_s = 60.0

    def __init__(self, options: TargetOptions, *, build: Callable[[], Any] = build_api) -> None:
        """Store the options and the function that creates a logged-in client."""
        self._options = options
        self._build = build
        self._api: Any = None

    def destination(self, competition: Competition) -> str:
        """Return the competition's address, without its scheme."""
        return f"kaggle.com/competitions/{_read_name(competition)}"

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Describe the four requests."""
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
        """Return the number of submissions that Kaggle still accepts today.

        The quota is per team: all zeros may mean that there is no team yet; then return None.
        """
        with self._open() as service:
            request = _build_request("ApiGetSubmissionLimitsRequest", competition)
            limits = read_answer(QuotaLimits, service.ask("get_submission_limits", request))
        is_empty = limits.num_allowed_now == limits.num_total == limits.num_today == 0
        return None if is_empty else limits.num_allowed_now

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Request an upload URL, upload the bytes, and create a submission from them."""
        with self._open() as service:
            start = _build_request("ApiStartSubmissionUploadRequest", competition)
            start.file_name = submission.file_name
            start.content_length = len(submission.data)
            start.last_modified_epoch_seconds = int(submission.path.stat().st_mtime)
            begun = read_answer(UploadStart, service.ask("start_submission_upload", start))
            with Wire(self._options, LOGIN) as wire:
                url = check_upload_url(begun.create_url, service.base)
                self._options.mask.add_signed(url)
                wire.ask(Call("PUT", url, body=submission.data))
        with self._open() as service:  # a new one: an idle connection may be broken
            create = _build_request("ApiCreateSubmissionRequest", competition)
            create.blob_file_tokens = begun.token
            create.submission_description = submission.description
            answer = service.create("create_submission", create)
        try:
            made = read_answer(CreatedSubmission, answer)
        except UploadError as error:
            raise LostAnswerError(self._options.mask.quote(str(error))) from None
        said = self._options.mask.quote(made.message or "")
        if made.ref <= 0:
            raise LostAnswerError(f"Kaggle returned no submission id: {said or 'no message'}")
        return Receipt(ref=str(made.ref), message=said or f"uploaded as submission {made.ref}")

    def find(self, upload: UnconfirmedUpload, competition: Competition) -> Receipt | None:
        """Search the competition's submissions for the file's tag."""
        token = ""
        with self._open() as service:
            for _ in range(MAX_PAGES):
                request = _build_request("ApiListSubmissionsRequest", competition)
                request.page_size, request.page_token = PAGE_ROWS, token
                answer = read_answer(SubmissionPage, service.ask("list_submissions", request))
                for each in answer.submissions or ():
                    is_marked = upload.tag in (each.description or "")
                    if is_marked and str(each.ref) not in upload.known_refs:
                        return Receipt(str(each.ref), f"found as submission {each.ref}")
                token = answer.next_page_token or ""
                if not token:
                    return None
        raise UploadError(f"Kaggle has more than {MAX_PAGES} pages of submissions")

    def score_fields(self, competition: Competition) -> ScorePaths:
        """Return the metric of Kaggle's score; the private score is reported after the end."""
        fields = competition.profile.upload.kaggle.scores
        return resolve_paths(competition.profile, fields, ("publicScore", "privateScore"))

    def poll_url(self, competition: Competition) -> str:
        """Return the address of the API."""
        del competition
        return SERVICE

    def plan_poll(self, competition: Competition) -> str:
        """Describe the request for one submission."""
        del competition
        return (
            f'POST {SERVICE}/GetSubmission; header Authorization: ***; {{"ref": <of the answer>}}'
        )

    def poll(self, ref: str, competition: Competition) -> Verdict:
        """Request one submission; right after the upload Kaggle may not list it yet."""
        if not (ref.isascii() and ref.isdecimal()):
            raise UploadError(
                f"the ledger has {show(ref)} as the submission's id, which is not a number"
            )
        with self._open() as service:
            request = _build_request("ApiGetSubmissionRequest", None)
            request.ref = int(ref)
            answer = service.ask("get_submission", request, allow_missing=True)
        if answer is None:
            return Verdict("pending")
        found = read_answer(SubmissionStatus, answer)
        status = str(getattr(found.status, "name", found.status))
        state = STATES.get(status)
        if state == "rejected":
            return Verdict("rejected", self._options.mask.quote(found.error_description or "error"))
        if state != "scored":
            return Verdict("pending", self._options.mask.quote(status.lower()))
        answer_scores = {"publicScore": found.public_score, "privateScore": found.private_score}
        scores = find_scores(answer_scores, self.score_fields(competition), self._options.mask)
        return Verdict("scored", scores.remark, scores.public, scores.private)

    @contextmanager
    def _open(self) -> Iterator[Service]:
        if self._api is None:
            with suppress_output() as printed:
                self._api = self._build()
            hide_login(self._api, self._options.mask)
            for line in printed.getvalue().splitlines():
                if line.startswith("Warning: "):  # that others can read the key's file
                    self._options.remark(self._options.mask.quote(line))
        with suppress_output():
            client = self._api.build_kaggle_client()
        with client:
            yield Service(client, self._options)


def _read_name(competition: Competition) -> str:
    name = competition.profile.upload.kaggle.competition
    if name is None:
        raise not_configured(competition, "kaggle", "competition")
    return name


def _build_request(kind: str, competition: Competition | None) -> Any:
    """Build one of the client's request objects; the client must be installed."""
    request = getattr(importlib.import_module(TYPES), kind)()
    if competition is not None:
        request.competition_name = _read_name(competition)
    return request
