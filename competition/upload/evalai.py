"""Target ``evalai``: a phase of a challenge on EvalAI, through its REST API.

The API reports the remaining quota, which submissions arrived (each one's method name ends with the
hash of its file) and their scores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from competition.errors import UploadError
from competition.profile import Competition
from competition.upload.masking import read_secret
from competition.upload.scores import dig, find_scores, resolve_paths
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
from competition.upload.wire import Answer, Call, Wire, check_upload_url

TOKEN_VARIABLE = "EVALAI_TOKEN"  # noqa: S105 - the variable's name
MAX_PAGES = 50
ENDED_BADLY = frozenset({"failed", "cancelled", "invalid"})


class EvalAITarget:
    """Upload to the phase named in ``upload.evalai``, with the token in EVALAI_TOKEN."""

    name = "evalai"
    has_quota = True
    max_delay_s = 60.0

    def __init__(self, options: TargetOptions) -> None:
        """Store the options."""
        self._options = options

    def destination(self, competition: Competition) -> str:
        """Return the phase's address."""
        host, challenge, phase = _read_place(competition)
        return f"{host}/challenge/{challenge}/phase/{phase}"

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Describe the quota request and the upload."""
        calls = (_build_quota(competition), _build_upload(submission, competition))
        return [_with_token(call, "").describe() for call in calls]

    def ask_quota(self, competition: Competition) -> int | None:
        """Return the number of submissions left now in this phase."""
        with self._open() as wire:
            answer = wire.ask(self._sign(_build_quota(competition)), allowed=(404,))
        phases = dig(_read_json(answer), "phases")
        number = competition.profile.upload.evalai.phase
        for each in phases if isinstance(phases, list) else []:
            if dig(each, "id") == number:
                return _read_left(dig(each, "limits"))
        return None

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Post the file."""
        host = _read_place(competition)[0]
        with self._open() as wire:
            answer = wire.create(self._sign(_build_upload(submission, competition)))
        ref = _read_id(_read_json(answer))
        if ref is None:
            raise LostAnswerError(f"{host} answered {answer.status} without a submission's id")
        return Receipt(ref=ref, message=f"uploaded as submission {ref}")

    def find(self, upload: UnconfirmedUpload, competition: Competition) -> Receipt | None:
        """Search the phase's submissions for the file's tag."""
        with self._open() as wire:
            for page in range(1, MAX_PAGES + 1):
                call = Call("GET", _list_url(competition), params={"page": str(page)})
                body = _read_json(wire.ask(self._sign(call)))
                results = dig(body, "results")
                if not isinstance(results, list):
                    raise UploadError(f"{call.url} gave no list of submissions")
                for each in results:
                    ref = _read_id(each)
                    marked = upload.tag in str(dig(each, "method_name"))
                    if marked and ref is not None and ref not in upload.known_refs:
                        return Receipt(ref=ref, message=f"found as submission {ref}")
                if not dig(body, "next"):
                    return None
        raise UploadError(f"there are more than {MAX_PAGES} pages of submissions")

    def score_fields(self, competition: Competition) -> ScorePaths:
        """Return the paths of the scores in the result file."""
        return resolve_paths(competition.profile, competition.profile.upload.evalai.scores)

    def poll_url(self, competition: Competition) -> str:
        """Return the host's address."""
        return _read_place(competition)[0]

    def plan_poll(self, competition: Competition) -> str:
        """Describe the status request."""
        return _with_token(_build_status(competition, "<id of the answer>"), "").describe()

    def poll(self, ref: str, competition: Competition) -> Verdict:
        """Request the status and, once it is final, the result or the error output."""
        host = _read_place(competition)[0]
        with self._open() as wire:
            answer = wire.ask(self._sign(_build_status(competition, ref)), allowed=(404,))
            body = _read_json(answer)
            if _read_id(body) not in (None, ref):
                raise UploadError(f"{host} answered about submission {_read_id(body)}, not {ref}")
            status = str(dig(body, "status"))
            if answer.status == 404 or status not in {"finished", *ENDED_BADLY}:
                said = "" if answer.status == 404 else self._options.mask.quote(status)
                return Verdict("pending", said)
            if status in ENDED_BADLY:
                reason = _fetch(wire, dig(body, "stderr_file"), host)
                said = self._options.mask.quote(reason.text if reason else "")
                return Verdict("rejected", f"{status}: {said}" if said else status)
            result = _fetch(wire, dig(body, "submission_result_file"), host)
        found = find_scores(_read_json(result), self.score_fields(competition), self._options.mask)
        return Verdict("scored", found.remark, found.public, found.private)

    def _open(self) -> Wire:
        return Wire(self._options, TOKEN_VARIABLE)

    def _sign(self, call: Call) -> Call:
        return _with_token(call, read_secret(TOKEN_VARIABLE, self._options.mask))


def _read_place(competition: Competition) -> tuple[str, int, int]:
    rules = competition.profile.upload.evalai
    if rules.challenge is None or rules.phase is None:
        raise not_configured(competition, "evalai", "challenge and phase")
    return rules.host.rstrip("/"), rules.challenge, rules.phase


def _list_url(competition: Competition) -> str:
    host, challenge, phase = _read_place(competition)
    return f"{host}/api/jobs/challenge/{challenge}/challenge_phase/{phase}/submission/"


def _build_quota(competition: Competition) -> Call:
    host, challenge, _ = _read_place(competition)
    return Call("GET", f"{host}/api/jobs/{challenge}/remaining_submissions/")


def _build_upload(submission: Submission, competition: Competition) -> Call:
    return Call(
        "POST",
        _list_url(competition),
        fields={
            "status": "submitting",
            "method_name": submission.description,
            "submission_metadata": "[]",
        },
        file=("input_file", submission.file_name, submission.data),
    )


def _build_status(competition: Competition, ref: str) -> Call:
    return Call("GET", f"{_read_place(competition)[0]}/api/jobs/submission/{ref}")


def _with_token(call: Call, token: str) -> Call:
    return replace(call, secret_headers={"Authorization": f"Bearer {token}"})


def _read_left(limits: Any) -> int | None:
    """Return the remaining count; a phase with no quota left has a message instead of counts.

    >>> _read_left({"remaining_submissions_today_count": 3})
    3
    >>> _read_left({"message": "You have exhausted today's submission limit!"})
    0
    """
    left = dig(limits, "remaining_submissions_today_count")
    if isinstance(left, int) and not isinstance(left, bool):
        return max(0, left)
    return 0 if dig(limits, "message") else None


def _read_id(body: Any) -> str | None:
    number = dig(body, "id")
    is_number = isinstance(number, int) and not isinstance(number, bool) and number > 0
    return str(number) if is_number else None


def _read_json(answer: Answer | None) -> Any:
    try:
        return answer.json() if answer is not None else None
    except ValueError:
        return None


def _fetch(wire: Wire, url: Any, host: str) -> Answer | None:
    """Fetch a file whose URL an answer gives, without the token; None if there is no URL."""
    return wire.ask(Call("GET", check_upload_url(url, host))) if url else None
