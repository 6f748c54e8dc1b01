"""The ledger of uploads: an append-only log of attempts, receipts and scores, in JSON Lines.

An ``intent`` is on disk before anything is sent, then a ``receipt``, then the ``score``; so after a
crash the ledger shows what may have arrived. An incomplete last line, left by a crash, is moved to
its own file. Any other damaged line is
named and left aside; blank lines are ignored.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from competition.errors import UploadError
from competition.files import append_lines_synced, is_name, write_atomically
from competition.lease import hold, name_owner
from competition.profile import Competition
from competition.scoring.metrics.catalogue import METRICS
from competition.submission.ledger_damage import MAX_ID, DamagedLine

Outcome = Literal["sent", "refused", "failed", "unknown"]
Kind = Literal["intent", "receipt", "score"]

Scores = Mapping[str, float | None]
Record = Mapping[str, Any]

LEDGER_NAME = "ledger.jsonl"
LOCK_TIMEOUT_S = 60.0


def _check_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("it has no zone")
    return text


def _check_file_name(name: str) -> str:
    if not is_name(name):
        raise ValueError("it cannot be a submission's name")
    return name


Id = Annotated[int, Field(ge=1)]
Time = Annotated[str, AfterValidator(_check_time)]
Score = Annotated[float, Field(allow_inf_nan=False)]
KINDS = {kind.key: kind for kind in METRICS.values()}


def _check_scores(scores: dict[str, float | None]) -> dict[str, float | None]:
    """Check that each score is one that its metric can have; of others, that it is in [0, 1]."""
    for key, score in scores.items():
        is_known = KINDS[key].accepts if key in KINDS else lambda value: 0 <= value <= 1
        if score is not None and not is_known(score):
            raise ValueError(f"{key} cannot be {score:g}")
    return scores


SideScores = Annotated[dict[str, Score | None], AfterValidator(_check_scores)]


class _Line(BaseModel):
    """A line of the ledger, which a colleague's program or an editor may have written."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Intent(_Line):
    kind: Literal["intent"]
    id: Id
    time: Time
    target: str
    destination: str
    name: Annotated[str, AfterValidator(_check_file_name)]
    sha256: str
    bytes: int


class _Receipt(_Line):
    kind: Literal["receipt"]
    intent: Id
    time: Time
    outcome: Outcome
    ref: str | None
    message: str


class _Score(_Line):
    kind: Literal["score"]
    intent: Id
    time: Time
    public: SideScores | None
    private: SideScores | None
    source: Literal["platform", "entered"] = "platform"


LINE: TypeAdapter[_Intent | _Receipt | _Score] = TypeAdapter(
    Annotated[_Intent | _Receipt | _Score, Field(discriminator="kind")]
)


@dataclass(frozen=True)
class Entry:
    """One attempt to upload a file; ``outcome`` is unknown until there is a receipt.

    ``public`` and ``private`` map the key of each metric to its score, as leaderboards show it
    (most in [0, 1]). ``is_decided``:
    the platform has finished with it, with or without a score. ``is_entered``: the user entered
    all of its scores by hand.
    """

    id: int
    time: datetime
    target: str
    destination: str
    name: str
    sha256: str
    n_bytes: int
    outcome: Outcome = "unknown"
    ref: str | None = None
    message: str = ""
    public: Scores | None = None
    private: Scores | None = None
    is_decided: bool = False
    is_entered: bool = False


@dataclass(frozen=True)
class Ledger:
    """The ledger of one competition, ``submissions/<competition>/ledger.jsonl``.

    The file may be a symbolic link to a shared one; the lock is beside the target of the link.
    """

    path: Path

    @contextmanager
    def locked(self, timeout_s: float | None = None) -> Iterator[None]:
        """Hold the lock that keeps other processes from uploading and recording.

        Raises:
            UploadError: another process held the lock for ``timeout_s``, or ``LOCK_TIMEOUT_S``.
        """
        timeout_s = LOCK_TIMEOUT_S if timeout_s is None else timeout_s
        path = self.path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        with ExitStack() as stack:
            held = hold(path, should_give_up=lambda: time.monotonic() > deadline)
            try:
                stack.enter_context(held)
            except TimeoutError as error:
                owner = name_owner(path) or "another process"
                raise UploadError(
                    f"another submit, {owner}, has held {path} for {timeout_s:g} s; wait for it to"
                    " end"
                ) from error
            yield

    def read(self) -> list[Entry]:
        """Return all attempts in order, with their latest known outcome.

        Damaged lines are left aside; ``read_damaged`` names them.
        """
        return self._read_all()[0]

    def read_damaged(self) -> list[DamagedLine]:
        """Return the ignored lines, except an incomplete last one."""
        return self._read_all()[1]

    def _read_all(self) -> tuple[list[Entry], list[DamagedLine]]:
        entries: dict[int, dict[str, Any]] = {}
        records, damaged, _ = self._read_records()
        for number, record in records:
            kind = record["kind"]
            if kind == "intent":
                if record["id"] in entries:
                    damaged.append(_leave_aside(number, record, "is there twice"))
                else:
                    entries[record["id"]] = _intent_fields(record)
                continue
            if record["intent"] not in entries:
                damaged.append(_leave_aside(number, record, "which does not exist"))
                continue
            if kind == "score":
                known = entries[record["intent"]]
                is_first = known.get("public") is None and known.get("private") is None
                is_entered = record["source"] == "entered" and known.get("is_entered", is_first)
                known |= {"is_decided": True, "is_entered": is_entered}
            keys = ("outcome", "ref", "message") if kind == "receipt" else ("public", "private")
            entries[record["intent"]] |= {key: record[key] for key in keys}
        damaged.sort(key=lambda each: each.number)
        return [Entry(**fields) for fields in entries.values()], damaged

    def read_torn(self) -> str | None:
        """Return an incomplete last line left by a crash, or None."""
        return self._read_records()[2]

    def repair(self) -> Path | None:
        """Move an incomplete last line to its own file and return that file's path.

        Call under ``locked``: otherwise another process may be writing that line.
        """
        records, _, torn = self._read_records()
        path = self.path.resolve()  # keeps a symbolic link
        data = path.read_bytes() if path.is_file() else b""
        if torn is None:
            if records and not data.endswith(b"\n"):
                write_atomically(path, data + b"\n")
            return None
        keep = data.rfind(b"\n") + 1
        numbers = range(1, 10_000)
        candidates = (self.path.with_name(f"{self.path.stem}.torn-{n}.txt") for n in numbers)
        torn_path = next(path for path in candidates if not path.exists())
        write_atomically(torn_path, data[keep:])
        write_atomically(path, data[:keep])
        return torn_path

    def append_intent(self, time: datetime, fields: Mapping[str, Any]) -> int:
        """Record an upload that is about to start and return its id; call under ``locked``.

        Args:
            fields: target, destination, name, sha256 and bytes.
        """
        entries, damaged = self._read_all()
        ids = [entry.id for entry in entries]
        ids += [found for each in damaged for found in each.ids if found < MAX_ID]
        intent = max(ids, default=0) + 1
        self.append({"kind": "intent", "id": intent, "time": _write_time(time), **fields})
        return intent

    def append_receipt(
        self, intent: int, time: datetime, outcome: Outcome, *, ref: str | None, message: str
    ) -> None:
        """Record the outcome of an intent; call under ``locked``."""
        self.append(build_receipt(intent, time, outcome, ref=ref, message=message))

    def append(self, *records: Record) -> None:
        """Append records in one write, all or none, even if the disk is full or we are killed.

        Call under ``locked``.

        Raises:
            OSError: they could not be written; the file is unchanged.
        """
        lines = [dump_record(record) for record in records]
        size = self.path.stat().st_size if self.path.is_file() else 0
        try:
            append_lines_synced(self.path, *lines)
        except OSError:
            with suppress(OSError):  # truncating needs no space
                os.truncate(self.path, size)
            raise

    def _read_records(
        self,
    ) -> tuple[list[tuple[int, dict[str, Any]]], list[DamagedLine], str | None]:
        """Return (line number, record) pairs, damaged lines, and an incomplete last line."""
        if not self.path.is_file():
            return [], [], None
        *lines, last = self.path.read_bytes().split(b"\n")
        records, damaged = [], []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                records.append((number, _decode(line)))
            except ValueError as error:
                text = line.decode("utf-8", errors="replace")
                damaged.append(DamagedLine(number, str(error), text))
        if not last.strip():
            return records, damaged, None
        try:
            return [*records, (len(lines) + 1, _decode(last))], damaged, None
        except ValueError:
            return records, damaged, last.decode("utf-8", errors="replace")


def _leave_aside(number: int, record: Record, reason: str) -> DamagedLine:
    """Build the damage of a record that does not fit those before it."""
    kind, intent = record["kind"], record.get("id", record.get("intent"))
    said = (
        f"intent {intent} {reason}"
        if kind == "intent"
        else f"a {kind} for intent {intent}, {reason}"
    )
    return DamagedLine(number, said, json.dumps(record, ensure_ascii=False))


def open_ledger(competition: Competition) -> Ledger:
    """Return the competition's ledger."""
    return Ledger(competition.submissions_dir / LEDGER_NAME)


def build_receipt(
    intent: int, time: datetime, outcome: Outcome, *, ref: str | None, message: str
) -> Record:
    """Build the record of an intent's outcome."""
    fields = {"outcome": outcome, "ref": ref, "message": message}
    return {"kind": "receipt", "intent": intent, "time": _write_time(time), **fields}


def build_score(
    intent: int,
    time: datetime,
    *,
    public: Scores | None,
    private: Scores | None,
    is_entered: bool = False,
) -> Record:
    """Build the record of a leaderboard's scores; both None if it gives none.

    ``is_entered``: the user entered them by hand.
    """
    fields: dict[str, Any] = {"public": public, "private": private}
    if is_entered:
        fields["source"] = "entered"
    return {"kind": "score", "intent": intent, "time": _write_time(time), **fields}


def dump_record(record: Record) -> str:
    """Format a record as its line, without the newline, after validating it."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    _decode(line)
    return line


def format_time(time: datetime, timezone: str) -> str:
    """Format a time in the leaderboard's time zone.

    >>> from datetime import UTC
    >>> format_time(datetime(2026, 11, 22, 18, 55, tzinfo=UTC), "Asia/Seoul")
    '2026-11-23 03:55 (Asia/Seoul)'
    """
    return f"{time.astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M} ({timezone})"


def count_on_day(
    entries: Sequence[Entry], now: datetime, timezone: str, *, place: tuple[str, str]
) -> int:
    """Count today's uploads that may count against a quota: sent or perhaps sent.

    Days are those of ``timezone``; ``place`` is a target and its destination.
    """
    zone = ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    at_place = [e for e in entries if (e.target, e.destination) == place]
    used = [e for e in at_place if e.outcome in ("sent", "unknown")]
    return sum(entry.time.astimezone(zone).date() == today for entry in used)


def _intent_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: record[key] for key in ("id", "target", "destination", "name", "sha256")}
    return {**fields, "time": datetime.fromisoformat(record["time"]), "n_bytes": record["bytes"]}


def _write_time(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("a time without a zone cannot go into the ledger")
    return time.isoformat(timespec="seconds")


def _decode(line: bytes | str) -> dict[str, Any]:
    """Parse one line; raise ValueError with the reason if it is invalid."""
    try:
        return LINE.validate_json(line).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if not first["loc"]:
            known = ", ".join(get_args(Kind))
            is_kind = first["type"].startswith("union_tag")
            said = f"its kind is none of {known}" if is_kind else f"it is no record: {first['msg']}"
            raise ValueError(said) from None
        *_, key = first["loc"]
        raise ValueError(f"the {first['loc'][0]} has no usable {key!r}: {first['msg']}") from None
