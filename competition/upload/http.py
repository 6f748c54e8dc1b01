"""Target ``http``: any server that accepts a file in a form, as described in ``upload.http``.

Such a server cannot report what arrived, so after a lost answer sending again needs --resend. With
a ``status_url`` it can report scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from competition.errors import UploadError
from competition.profile import Competition
from competition.upload.masking import read_secret
from competition.upload.scores import dig, find_scores, resolve_paths
from competition.upload.target import (
    LostAnswerError,
    Receipt,
    RejectedError,
    ScorePaths,
    Submission,
    TargetOptions,
    Verdict,
    not_configured,
)
from competition.upload.wire import Call, Wire
from competition.upload_rules import HttpBoard

MAX_REF_CHARS = 200


class HttpTarget:
    """Send the file in one request, and read id, status and scores from the JSON answer."""

    name = "http"
    has_quota = True

    def __init__(self, options: TargetOptions) -> None:
        """Store the options."""
        self._options = options

    def destination(self, competition: Competition) -> str:
        """Return the server's address."""
        return _read_url(competition)

    def plan(self, submission: Submission, competition: Competition) -> list[str]:
        """Describe the request."""
        rules = competition.profile.upload.http
        return [_build_upload(submission, competition, _build_head(rules, "")).describe()]

    def send(self, submission: Submission, competition: Competition) -> Receipt:
        """Send the file and read the answer."""
        rules, url = competition.profile.upload.http, _read_url(competition)
        call = _build_upload(submission, competition, self._read_head(rules))
        with Wire(self._options, rules.key_variable or "the key") as wire:
            answer = wire.create(call)
        try:
            body = answer.json()
        except ValueError:
            raise LostAnswerError(f"{url} answered {answer.status} without JSON") from None
        said = self._options.mask.quote(str(dig(body, rules.answer.error) or ""))
        ref = _read_ref(body, rules)
        if said or _has_status(body, rules, rules.answer.rejected):
            raise RejectedError(said or f"{url} rejected the file", ref)
        if ref is None and rules.answer.id is not None:
            raise LostAnswerError(f"{url}: its answer has no {rules.answer.id} (answer.id)")
        message = f"uploaded as {ref}" if ref else "uploaded"
        if rules.status_url is not None and _is_unfinished(body, rules):
            return Receipt(ref=ref, message=message)
        found = find_scores(body, self.score_fields(competition), self._options.mask)
        remarks = f"{message}; {found.remark}" if found.remark else message
        return Receipt(ref=ref, message=remarks, public=found.public, private=found.private)

    def score_fields(self, competition: Competition) -> ScorePaths:
        """Return the paths of the scores in an answer."""
        return resolve_paths(competition.profile, competition.profile.upload.http.scores)

    def poll_url(self, competition: Competition) -> str | None:
        """Return ``status_url``; None if the profile has none."""
        return competition.profile.upload.http.status_url

    def plan_poll(self, competition: Competition) -> str:
        """Describe the status request."""
        rules = competition.profile.upload.http
        return _build_status(rules, "<id of the answer>", _build_head(rules, "")).describe()

    def poll(self, ref: str, competition: Competition) -> Verdict:
        """Request the status."""
        rules = competition.profile.upload.http
        call = _build_status(rules, quote(ref, safe=""), self._read_head(rules))
        with Wire(self._options, rules.key_variable or "the key") as wire:
            answer = wire.ask(call, allowed=(404,))
        try:
            body = answer.json() if answer.is_good else None
        except ValueError:
            raise UploadError(f"{call.url} did not answer with JSON") from None
        answered = _read_ref(body, rules)
        if answered not in (None, ref):
            said = self._options.mask.quote(f"{call.url} answered about {answered}, not {ref}")
            raise UploadError(f"{said}: correct upload.http.status_url or answer.id")
        said = self._options.mask.quote(str(dig(body, rules.answer.error) or ""))
        status = str(dig(body, rules.answer.status) or "")
        if said or _has_status(body, rules, rules.answer.rejected):
            return Verdict("rejected", said or status)
        if not _has_status(body, rules, rules.answer.done):
            return Verdict("pending", self._options.mask.quote(status))
        found = find_scores(body, self.score_fields(competition), self._options.mask)
        return Verdict("scored", found.remark, found.public, found.private)

    def _read_head(self, rules: HttpBoard) -> dict[str, str]:
        if rules.key_variable is None:
            return {}
        return _build_head(rules, read_secret(rules.key_variable, self._options.mask))


def _read_url(competition: Competition) -> str:
    url = competition.profile.upload.http.url
    if url is None:
        raise not_configured(competition, "http", "url")
    return url


def _build_head(rules: HttpBoard, key: str) -> dict[str, str]:
    if rules.key_variable is None:
        return {}
    return {rules.key_header: f"{rules.key_prefix}{key}"}


def _build_upload(submission: Submission, competition: Competition, head: dict[str, str]) -> Call:
    rules = competition.profile.upload.http

    def fill(text: str) -> str:
        return text.replace("{name}", submission.name).replace("{hash}", submission.short_hash)

    return Call(
        rules.method,
        _read_url(competition),
        secret_headers=head,
        fields={name: fill(value) for name, value in rules.fields.items()},
        file=(rules.file_field, submission.file_name, submission.data),
    )


def _build_status(rules: HttpBoard, ref: str, head: dict[str, str]) -> Call:
    if rules.status_url is None:
        raise UploadError("upload.http.status_url is not set: the status cannot be requested")
    return Call("GET", rules.status_url.replace("{id}", ref), secret_headers=head)


def _is_unfinished(body: Any, rules: HttpBoard) -> bool:
    """Return whether an answer says that the file is not scored yet; its scores are then none."""
    is_given = dig(body, rules.answer.status) not in (None, "")
    return is_given and not _has_status(body, rules, rules.answer.done)


def _has_status(body: Any, rules: HttpBoard, meant: Sequence[str]) -> bool:
    """Return whether an answer's status is one of those meant; ``true`` as JSON writes it, too."""
    status = dig(body, rules.answer.status)
    if status is None:
        return False
    return str(status) in meant or (isinstance(status, bool) and str(status).lower() in meant)


def _read_ref(body: Any, rules: HttpBoard) -> str | None:
    ref = dig(body, rules.answer.id)
    text = str(ref) if isinstance(ref, int | str) and not isinstance(ref, bool) else ""
    return text if text.isprintable() and 0 < len(text) <= MAX_REF_CHARS else None
