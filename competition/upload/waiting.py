"""Poll a platform for a score or a rejection, for at most half an hour, and record it.

No lock is held while waiting: another ``submit`` can run, and Ctrl-C loses nothing, since the
receipt is in the ledger before the wait begins. Scores that come later, such as the private score,
are requested once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from competition.errors import UploadError
from competition.profile import Competition
from competition.submission.ledger import Entry
from competition.upload.attempts import Attempts
from competition.upload.report import SubmitReport
from competition.upload.scores import list_missing, merge_scores
from competition.upload.target import Scoring, Verdict, ask

WAIT_LIMIT_S = 1800.0
FIRST_PAUSE_S = 5.0
PAUSE_GROWTH = 1.5
MAX_PAUSE_S = 60.0

OnWait = Callable[[float, str], None]


def list_pauses(limit_s: float) -> Iterator[float]:
    """Yield the pauses between requests in seconds; they sum to ``limit_s``.

    >>> [round(pause, 1) for pause in list_pauses(40.0)]
    [5.0, 7.5, 11.2, 16.2]
    """
    pause, left = FIRST_PAUSE_S, limit_s
    while left > 0:
        yield min(pause, left)
        left -= pause
        pause = min(pause * PAUSE_GROWTH, MAX_PAUSE_S)


def wait_for_verdict(
    target: Scoring,
    competition: Competition,
    ref: str,
    *,
    sleep: Callable[[float], None],
    on_wait: OnWait,
) -> Verdict:
    """Poll until the platform has decided; after the time limit the verdict is ``pending``.

    Args:
        on_wait: called before each pause with the seconds waited so far and the status.

    Raises:
        UploadError: a request failed.
    """
    waited_s = 0.0
    for pause in list_pauses(WAIT_LIMIT_S):
        verdict = ask(lambda: target.poll(ref, competition))
        if verdict.state != "pending":
            return verdict
        on_wait(waited_s, verdict.message or "pending")
        sleep(pause)
        waited_s += pause
    return ask(lambda: target.poll(ref, competition))


def try_to_wait(
    target: Scoring,
    competition: Competition,
    ref: str,
    *,
    sleep: Callable[[float], None],
    on_wait: OnWait,
) -> tuple[Verdict, str]:
    """Call ``wait_for_verdict``; return an error as text, since the file has been sent."""
    try:
        verdict = wait_for_verdict(target, competition, ref, sleep=sleep, on_wait=on_wait)
    except UploadError as error:
        return Verdict("pending"), f"the score could not be requested: {error}"
    if verdict.state == "pending":
        return verdict, f"no score within {WAIT_LIMIT_S / 60:g} minutes"
    return verdict, ""


def follow(
    attempts: Attempts,
    report: SubmitReport,
    entry: Entry,
    *,
    sleep: Callable[[float], None],
    on_wait: OnWait,
) -> SubmitReport:
    """Request the score of an attempt, record it and return the report with it.

    Args:
        attempts: at the destination of the attempt, whose target reports scores.
        report: of the attempt; if it ``is_pending``, the platform is polled.
        entry: the attempt, which has a ref.
    """
    target, mask = attempts.target, attempts.mask
    assert isinstance(target, Scoring)
    assert entry.ref is not None

    def report_wait(waited_s: float, status: str) -> None:
        on_wait(waited_s, mask.quote(status))

    if report.is_pending:
        verdict, trouble = try_to_wait(
            target, attempts.competition, entry.ref, sleep=sleep, on_wait=report_wait
        )
    else:
        verdict, trouble = _ask_once(attempts, entry)
    said = tuple(mask.hide(text) for text in (verdict.message, trouble) if text)
    report = replace(
        report,
        outcome="refused" if verdict.state == "rejected" else report.outcome,
        public=merge_scores(entry.public, verdict.public),
        private=merge_scores(entry.private, verdict.private),
        is_pending=report.is_pending and verdict.state == "pending",
    )
    if report.outcome == "sent" and not (report.is_pending or trouble):
        fields = target.score_fields(attempts.competition)
        missing = list_missing(report.public, report.private, fields)
        said += (f"not reported yet: {', '.join(missing)}",) if missing else ()
    try:
        kept = _record(attempts, [(entry, verdict)])
    except (UploadError, OSError) as error:
        kept = (
            f"this could not be recorded in the ledger ({error}); to record it:"
            f" {report.wait_command}",
        )
    return replace(report, notes=(*report.notes, *said, *kept))


def follow_others(attempts: Attempts, report: SubmitReport, entry: Entry | None) -> SubmitReport:
    """Request the missing scores of other attempts once, and note which have changed.

    Args:
        entry: the attempt whose score was already requested.
    """
    answers: list[tuple[Entry, Verdict]] = []
    notes: tuple[str, ...] = ()
    try:
        for each in attempts.read():
            if attempts.is_awaited(each) and (entry is None or each.id != entry.id):
                verdict, trouble = _ask_once(attempts, each)
                answers.append((each, verdict))
                if trouble:
                    notes = (attempts.mask.hide(trouble),)
                    break
        notes += _record(attempts, answers)
    except (UploadError, OSError) as error:
        notes += (f"the scores of other attempts could not be recorded in the ledger ({error})",)
        return replace(report, notes=(*report.notes, *notes))
    news = [each.name for each, _ in answers if attempts.read_one(each.id) != each]
    if answers:
        listed = f"; new for {', '.join(news)}" if news else "; nothing new"
        notes += (f"also requested the scores of {len(answers)} earlier attempts{listed}",)
    return replace(report, notes=(*report.notes, *notes))


def _ask_once(attempts: Attempts, entry: Entry) -> tuple[Verdict, str]:
    target = attempts.target
    assert isinstance(target, Scoring)
    ref = entry.ref
    assert ref is not None
    try:
        return ask(lambda: target.poll(ref, attempts.competition)), ""
    except UploadError as error:
        return Verdict("pending"), f"the score could not be requested: {error}"


def _record(attempts: Attempts, answers: Sequence[tuple[Entry, Verdict]]) -> tuple[str, ...]:
    """Record decisions under the ledger's lock; repair first what another process left broken."""
    decided = [(entry, verdict) for entry, verdict in answers if verdict.state != "pending"]
    if not decided:
        return ()
    with attempts.ledger.locked():
        notes = attempts.repair()
        for entry, verdict in decided:
            attempts.record_verdict(entry.id, verdict)
    return notes
