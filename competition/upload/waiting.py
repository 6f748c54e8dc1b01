"""Wait for a platform's score or its rejection: asks with growing pauses, for half an hour.

Nothing is held meanwhile: another ``submit`` can go on, and Ctrl-C loses nothing, since the file's
receipt is in the ledger before the waiting begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from competition.errors import UploadError
from competition.profile import Competition
from competition.upload.target import Scoring, Verdict

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
        verdict = target.poll(ref, competition)
        if verdict.state != "pending":
            return verdict
        on_wait(waited_s, verdict.message or "pending")
        sleep(pause)
        waited_s += pause
    return target.poll(ref, competition)


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
