"""Target ``kaggle``: a Kaggle competition, through Kaggle's own client (requirements-kaggle.txt).

The client is imported only to send or to ask, since importing it logs in, and its calls are made
one by one: its own upload in one go hides which step failed. A submission's description ends with
the hash of its file, by which the platform is asked what arrived.
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
    Begun,
    Limits,
    Made,
    Page,
    Scored,
    Service,
    build_api,
    hide_login,
    hush,
    read_answer,
)
from competition.upload.scores import find_scores
from competition.upload.target import (
    LostAnswerError,
    Receipt,
    Sought,
    Submission,
    TargetOptions,
    Verdict,
)
from competition.upload.wire import Call, Wire, check_hand_over
from competition.upload_rules import ScoreFields

SERVICE = f"https://{HOST}/v1/competitions.CompetitionApiService"
TYPES = "kagglesdk.competitions.types.competition_api_service"
PAGE_ROWS = 100
MOST_PAGES = 50
STATES = {"PENDING": "pending", "COMPLETE": "scored", "ERROR": "rejected"}


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
            limits = read_answer(Limits, service.ask("get_submission_limits", request))
        is_empty = limits.num_allowed_now == limits.num_total == limits.num_today == 0
        return None if is_empty else limits.num_allowed_now

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Ask for an address, put the bytes there, and make a submission of them."""
        with self._open() as service:
            start = _build_request("ApiStartSubmissionUploadRequest", competition)
            start.file_name = submission.file_name
            start.content_length = len(submission.data)
            start.last_modified_epoch_seconds = int(submission.path.stat().st_mtime)
            begun = read_answer(Begun, service.ask("start_submission_upload", start))
            with Wire(self._options, LOGIN) as wire:
                url = check_hand_over(begun.create_url, service.base)
                self._options.mask.add_signed(url)
                wire.ask(Call("PUT", url, body=submission.data))
        with self._open() as service:  # afresh: a connection that idled may be half dead
            create = _build_request("ApiCreateSubmissionRequest", competition)
            create.blob_file_tokens = begun.token
            create.submission_description = submission.description
            answer = service.create("create_submission", create)
        try:
            made = read_answer(Made, answer)
        except UploadError as error:
            raise LostAnswerError(self._options.mask.quote(str(error))) from None
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
                answer = read_answer(Page, service.ask("list_submissions", request))
                for each in answer.submissions or ():
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
        if not (ref.isascii() and ref.isdecimal()):
            raise UploadError(f"the ledger calls the submission {show(ref)}, which is no number")
        with self._open() as service:
            request = _build_request("ApiGetSubmissionRequest", None)
            request.ref = int(ref)
            answer = service.ask("get_submission", request, allow_missing=True)
        if answer is None:
            return Verdict("pending")
        found = read_answer(Scored, answer)
        status = str(getattr(found.status, "name", found.status))
        state = STATES.get(status)
        if state == "rejected":
            return Verdict("rejected", self._options.mask.quote(found.error_description or "error"))
        if state != "scored":
            return Verdict("pending", self._options.mask.quote(status.lower()))
        told = {"publicScore": found.public_score, "privateScore": found.private_score}
        scores = find_scores(told, self.score_fields(competition), self._options.mask)
        return Verdict("scored", scores.remark, scores.public, scores.private)

    @contextmanager
    def _open(self) -> Iterator[Service]:
        if self._api is None:
            with hush() as printed:
                self._api = self._build()
            hide_login(self._api, self._options.mask)
            for line in printed.getvalue().splitlines():
                if line.startswith("Warning: "):  # that others can read the key's file
                    self._options.remark(self._options.mask.quote(line))
        with hush():
            client = self._api.build_kaggle_client()
        with client:
            yield Service(client, self._options)


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
