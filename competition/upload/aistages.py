"""Target ``aistages``: AI Stages, where KLUE-RE ran; requests an upload URL, then posts the file.

With an API key one can upload and nothing else: the API reports neither what arrived nor scores.
After a lost answer, look at the platform's submissions page; scores are shown only there.
"""

from __future__ import annotations

from typing import Any

from competition.errors import UploadError
from competition.profile import Competition
from competition.upload.masking import read_secret
from competition.upload.scores import dig
from competition.upload.target import (
    LostAnswerError,
    Receipt,
    RejectedError,
    Submission,
    TargetOptions,
    not_configured,
)
from competition.upload.wire import Answer, Call, Wire, check_upload_url

KEY_VARIABLE = "AISTAGES_KEY"
FILE_NAME = "output.csv"
OBJECT_KEY = "app/Competitions/{id:06d}/Users/{user}/Submissions/{local}/output.csv"


class AIStagesTarget:
    """Upload to the competition named in ``upload.aistages``, with the key in AISTAGES_KEY."""

    name = "aistages"
    has_quota = True

    def __init__(self, options: TargetOptions) -> None:
        """Store the options."""
        self._options = options

    def destination(self, competition: Competition) -> str:
        """Return the competition's address."""
        host, number = _read_place(competition)
        return f"{host}/competition/{number}"

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Describe the two requests; the first one's answer gives the URL of the second."""
        ask = _build_ask(submission, competition, key="")
        number = _read_place(competition)[1]
        key = OBJECT_KEY.format(id=number, user="<user>", local="<local_id>")
        post = Call(
            "POST",
            "<url of the answer>",
            fields={"<each of the answer's fields>": "", "key": key},
            file=("file", FILE_NAME, submission.data),
        )
        return [ask.describe(), post.describe()]

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Request an upload URL and post the file to it.

        The first request creates an entry on the platform, so it is not repeated after a lost
        answer. Without a file nothing is scored, so an error there means that nothing was sent.
        """
        host, number = _read_place(competition)
        key = read_secret(KEY_VARIABLE, self._options.mask)
        with Wire(self._options, KEY_VARIABLE) as wire:
            try:
                ask = _build_ask(submission, competition, key=key)
                answer = wire.create(ask, again_when_busy=True)
            except LostAnswerError as error:
                raise UploadError(
                    f"{error}; the file was not sent, an empty entry may show on its page"
                ) from None
            except RejectedError as error:
                raise UploadError(f"{error}; the file was not sent") from None
            url, fields, local = _read_ask(answer, host, number)
            signed = {name: fields[name] for name in fields if name != "key"}
            self._options.mask.add_signed(url, signed)
            file = ("file", FILE_NAME, submission.data)
            wire.create(Call("POST", url, fields=fields, file=file))
        return Receipt(ref=str(local), message=f"uploaded as submission {local}")


def _read_place(competition: Competition) -> tuple[str, int]:
    rules = competition.profile.upload.aistages
    if rules.host is None or rules.id is None:
        raise not_configured(competition, "aistages", "host and id")
    return rules.host.rstrip("/"), rules.id


def _build_ask(submission: Submission, competition: Competition, *, key: str) -> Call:
    host, number = _read_place(competition)
    return Call(
        "GET",
        f"{host}/api/v1/competition/{number}/presigned_url/",
        params={
            "description": submission.description,
            "hyperparameters": '{"training":{},"inference":{}}',
        },
        secret_headers={"Authorization": key},
        quotable=("detail", "message", "error"),
    )


def _read_ask(answer: Answer, host: str, number: int) -> tuple[str, dict[str, str], int]:
    """Return the upload URL, the form's fields and the submission's number."""
    try:
        body: Any = answer.json()
    except ValueError:
        body = None
    user, local = dig(body, "submission.user"), dig(body, "submission.local_id")
    fields = dig(body, "fields")
    if not (isinstance(fields, dict) and _is_number(user) and _is_number(local)):
        raise UploadError(f"{host} gave no address for the file; is it the API of AI Stages?")
    url = check_upload_url(dig(body, "url"), host)
    form = {str(name): str(value) for name, value in fields.items()}
    key = OBJECT_KEY.format(id=number, user=f"{user:08d}", local=f"{local:04d}")
    return url, form | {"key": key}, local


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
