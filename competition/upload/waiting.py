"""Wait for a platform's score or its rejection, and record it; asks for half an hour at most.

Nothing is held meanwhile: another ``submit`` can go on, and Ctrl-C loses nothing, since the file's
receipt is in the ledger before the waiting begins. What a platform has scored and may tell more of
later, as the private score, is asked for once.
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
LONGEST_PAUSE_S = 60.0

OnWait = Callable[[float, str], None]


def list_pauses(limit_s: float) -> Iterator[float]:
    """Yield the pauses between questions in seconds; together they are ``limit_s``.

    >>> [round(pause, 1) for pause in list_pauses(40.0)]
    [5.0, 7.5, 11.2, 16.2]
    """
    pause, left = FIRST_PAUSE_S, limit_s
    while left > 0:
        yield min(pause, left)
        left -= pause
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_S)


def wait_for_verdict(
    target: Scoring,
    competition: Competition,
    ref: str,
    *,
    sleep: Callable[[float], None],
    on_wait: OnWait,
) -> Verdict:
    """Ask until the platform has decided or the time is over; then the verdict is ``pending``.

    Args:
        on_wait: told before each pause how long has been waited, in seconds, and the status.

    Raises:
        UploadError: it cannot be asked.
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
    """As ``wait_for_verdict``; what keeps it from asking is returned, since the file is sent."""
    try:
        verdict = wait_for_verdict(target, competition, ref, sleep=sleep, on_wait=on_wait)
    except UploadError as error:
        return Verdict("pending"), f"the score could not be asked for: {error}"
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
    """Ask what an attempt scored, record it and return the report with it.

    Args:
        attempts: at the place it was sent to, which can be asked.
        report: of the attempt; while it ``is_pending`` the platform is asked again and again.
        entry: the attempt, which has a ref.
        sleep: pauses for some seconds.
        on_wait: as in ``wait_for_verdict``; what it is told has passed the mask.
    """
    target, mask = attempts.target, attempts.mask
    assert isinstance(target, Scoring)
    assert entry.ref is not None

    def tell(waited_s: float, status: str) -> None:
        on_wait(waited_s, mask.quote(status))

    if report.is_pending:
        verdict, trouble = try_to_wait(
            target, attempts.competition, entry.ref, sleep=sleep, on_wait=tell
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
        said += (f"not told yet: {', '.join(missing)}",) if missing else ()
    try:
        kept = _record(attempts, [(entry, verdict)])
    except (UploadError, OSError) as error:
        kept = (f"the ledger has not got this ({error}); record it with: {report.wait_command}",)
    return replace(report, notes=(*report.notes, *said, *kept))


def follow_others(attempts: Attempts, report: SubmitReport, entry: Entry | None) -> SubmitReport:
    """Ask once for every score that other attempts lack, and say which of them have news.

    Args:
        entry: the attempt that was asked for already.
    """
    told: list[tuple[Entry, Verdict]] = []
    notes: tuple[str, ...] = ()
    try:
        for each in attempts.read():
            if attempts.is_awaited(each) and (entry is None or each.id != entry.id):
                verdict, trouble = _ask_once(attempts, each)
                told.append((each, verdict))
                if trouble:
                    notes = (attempts.mask.hide(trouble),)
                    break
        notes += _record(attempts, told)
    except (UploadError, OSError) as error:
        notes += (f"the ledger has not got what others scored ({error})",)
        return replace(report, notes=(*report.notes, *notes))
    news = [each.name for each, _ in told if attempts.read_one(each.id) != each]
    if told:
        listed = f", with news of {', '.join(news)}" if news else ", without news"
        notes += (f"asked for the scores of {len(told)} earlier attempts too{listed}",)
    return replace(report, notes=(*report.notes, *notes))


def _ask_once(attempts: Attempts, entry: Entry) -> tuple[Verdict, str]:
    target = attempts.target
    assert isinstance(target, Scoring)
    ref = entry.ref
    assert ref is not None
    try:
        return ask(lambda: target.poll(ref, attempts.competition)), ""
    except UploadError as error:
        return Verdict("pending"), f"the score could not be asked for: {error}"


def _record(attempts: Attempts, told: Sequence[tuple[Entry, Verdict]]) -> tuple[str, ...]:
    """Record what platforms decided, under the lock; another process may have torn the last line.

    Raises:
        UploadError, OSError: the ledger is locked, damaged, or cannot be written.
    """
    decided = [(entry, verdict) for entry, verdict in told if verdict.state != "pending"]
    if not decided:
        return ()
    with attempts.ledger.locked():
        notes = attempts.mend()
        for entry, verdict in decided:
            attempts.record_verdict(entry.id, verdict)
    return notes
