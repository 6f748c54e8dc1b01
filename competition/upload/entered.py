"""Scores read on a leaderboard's web page and entered by hand: ``board --score NAME=61.02/50.10``.

The scores are those of the competition's metrics, the primary one first, as pages show them. For
platforms without an API for scores, and for files uploaded by hand from a folder. The ledger
records that a score was entered by hand; ``board`` and the final picks use it like any other.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from competition.errors import UsageError
from competition.profile import Competition
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from competition.spelling import suggest
from competition.submission.ledger import (
    Entry,
    Record,
    build_receipt,
    build_score,
    open_ledger,
)
from competition.upload.scores import merge_scores, write_example
from competition.upload.send import TARGETS
from competition.upload.target import ScoreMap, TargetOptions, can_poll

NUMBER = re.compile(r"-?\d{1,3}(\.\d+)?", re.ASCII)
BY_HAND = ("folder", "local")  # destinations that are no platform


@dataclass(frozen=True)
class EnteredScore:
    """A score entered by hand; values as the ledger has them."""

    name: str
    public: ScoreMap
    private: ScoreMap | None


def parse_score(text: str, kinds: Sequence[MetricKind]) -> EnteredScore:
    """Parse ``NAME=F1/AUPRC``, scores ×100; ``:F1/AUPRC`` appends the private scores.

    >>> from competition.scoring.metrics.catalogue import METRICS
    >>> kinds = METRICS["micro-f1"], METRICS["auprc"]
    >>> parse_score("b1=61.02/50.10", kinds).public
    {'micro_f1': 0.6102, 'auprc': 0.501}
    >>> parse_score("b1=61:60.5/48", kinds).private
    {'micro_f1': 0.605, 'auprc': 0.48}

    Raises:
        UsageError: the text has another form, or a score is not between 0 and 100.
    """
    name, equals, written = text.rpartition("=")
    sides = written.split(":")
    if not equals or not name or len(sides) > 2:
        titles, example = "/".join(kind.title for kind in kinds), write_example(kinds)
        raise UsageError(
            f"--score {text!r} is not of the form NAME={example} (public {titles}); append"
            f" :{_write_private_example(kinds)} for the private scores"
        )
    public, *private = (_parse_side(side, text, kinds) for side in sides)
    return EnteredScore(name, public, private[0] if private else None)


def _write_private_example(kinds: Sequence[MetricKind]) -> str:
    shown = ["0.6050" if kinds[0].is_loss else "60.50"]
    if len(kinds) > 1:
        shown.append("0.4980" if kinds[1].is_loss else "49.80")
    return "/".join(shown)


def _parse_side(written: str, text: str, kinds: Sequence[MetricKind]) -> ScoreMap:
    parts = written.split("/")
    if len(parts) > len(kinds) or not all(map(NUMBER.fullmatch, parts)):
        titles = [kind.title for kind in kinds]
        forms = " or ".join(dict.fromkeys((titles[0], "/".join(titles))))
        raise UsageError(
            f"--score {text!r}: {written!r} is not {forms}, written with a"
            f" decimal point, such as NAME={write_example(kinds)}"
        )
    return {
        kind.key: _parse_number(part, text, kind) for part, kind in zip(parts, kinds, strict=False)
    }


def _parse_number(part: str, text: str, kind: MetricKind) -> float:
    value = float(part)
    if kind.is_loss:
        if value < 0:
            raise UsageError(f"--score {text!r}: {part} is below 0, the best {kind.title}")
        return value
    if value > 100:
        raise UsageError(f"--score {text!r}: {part} is above 100, the maximum")
    if value < 100 * kind.bounds[0]:
        raise UsageError(f"--score {text!r}: {part} is below the lowest {kind.title}")
    if 0 < value <= 1:
        raise UsageError(
            f"--score {text!r}: {part} looks like a fraction; write it ×100, such as"
            f" {100 * value:.2f}"
        )
    return round(value / 100, 10)


def enter_scores(competition: Competition, texts: Sequence[str], now: datetime) -> list[str]:
    """Append scores to the ledger, all of them or none; return a message for each.

    Raises:
        UsageError: a score is not valid, no file of that name was sent, or its platform reported
            another score.
        UploadError: the ledger is damaged, or another process holds it.
    """
    kinds = build_criteria(competition.profile).kinds
    entered = [parse_score(text, kinds) for text in texts]
    if len({each.name for each in entered}) < len(entered):
        raise UsageError("--score names the same submission twice; enter each once")
    ledger = open_ledger(competition)
    if not ledger.read():
        raise UsageError(_advise_sending(competition, entered[0].name))
    with ledger.locked():
        ledger.repair()
        entries = ledger.read()
        records: list[Record] = []
        said = []
        for each in entered:
            entry = _find_entry(competition, each.name, entries)
            _check_kept(competition, entry, each)
            records += _build_records(entry, each, now)
            said.append(_describe(entry, each, kinds))
        ledger.append(*records)
    return said


def _find_entry(competition: Competition, name: str, entries: Sequence[Entry]) -> Entry:
    """Return the attempt that a score belongs to; platforms come before folders."""
    named = [entry for entry in entries if entry.name == name]
    if not named:
        stem, _, digest = name.rpartition("@")
        named = [e for e in entries if digest and e.name == stem and e.sha256.startswith(digest)]
    if not named:
        raise UsageError(_advise_sending(competition, name, {entry.name for entry in entries}))
    arrived = [entry for entry in named if entry.outcome in ("sent", "unknown")]
    if not arrived:
        last = named[-1]
        raise UsageError(f"--score {name}: that file is {last.outcome}: {last.message}")
    files = sorted({entry.sha256[:8] for entry in arrived})
    if len(files) > 1:
        choices = " or ".join(f"{arrived[0].name}@{each}" for each in files)
        raise UsageError(
            f"--score {name}: several files were sent under that name; write {choices}"
        )
    meant = [e for e in arrived if e.target not in BY_HAND] or arrived
    entry = max(meant, key=lambda each: each.id)
    if entry.target == "local":
        raise UsageError(
            f"--score {name}: it was scored with the local solution file; nothing to enter"
        )
    return entry


def _check_kept(competition: Competition, entry: Entry, score: EnteredScore) -> None:
    """Refuse other scores than those of a platform that can be asked for them.

    Raises:
        UsageError: one differs.
    """
    if not entry.is_entered and _can_ask(competition, entry):
        kinds = build_criteria(competition.profile).kinds
        for side, known in ((score.public, entry.public), (score.private, entry.private)):
            for kind in kinds:
                value, entered = (known or {}).get(kind.key), (side or {}).get(kind.key)
                if value is not None and entered is not None and abs(entered - value) > 5e-5:
                    raise UsageError(
                        f"--score {score.name}: {entry.target} itself reported"
                        f" {_write({kind.key: value}, [kind])} for {kind.key}, which is kept; if"
                        " it has scored again since, ask it: python run.py submit FILE --to"
                        f" {entry.target} --wait"
                    )


def _can_ask(competition: Competition, entry: Entry) -> bool:
    """Return whether ``submit --wait`` can request the scores of an attempt."""
    build = TARGETS.get(entry.target)
    return build is not None and can_poll(build(TargetOptions()), competition)


def _build_records(entry: Entry, score: EnteredScore, now: datetime) -> list[Record]:
    """Return the ledger records; a score shows that an attempt of unknown outcome arrived."""
    records: list[Record] = []
    if entry.outcome == "unknown":
        message = "its score is on the platform's page"
        records.append(build_receipt(entry.id, now, "sent", ref=entry.ref, message=message))
    public = merge_scores(entry.public, score.public)
    private = merge_scores(entry.private, score.private)
    return [*records, build_score(entry.id, now, public=public, private=private, is_entered=True)]


def _describe(entry: Entry, score: EnteredScore, kinds: Sequence[MetricKind]) -> str:
    where = f"{entry.target} ({entry.destination})"
    known = entry.public or {}
    changed = any(known.get(key) not in (None, value) for key, value in score.public.items())
    before = f", {_write(known, kinds)} before" if changed else ""
    after = "" if score.private is None else f", private {_write(score.private, kinds)}"
    return f"entered for {entry.name}, {where}: public {_write(score.public, kinds)}{after}{before}"


def _write(scores: ScoreMap, kinds: Sequence[MetricKind]) -> str:
    """Write the scores of one side as they are entered, a dash where one is not known."""
    last = max((place for place, kind in enumerate(kinds) if kind.key in scores), default=-1)
    found = [(kind, scores.get(kind.key)) for kind in kinds[: last + 1]]
    return "/".join(
        kind.write(None if value is None else kind.show(value)) for kind, value in found
    )


def _advise_sending(competition: Competition, name: str, known: set[str] | None = None) -> str:
    """Return a message: no such file was sent, and how to record a file uploaded by hand."""
    path = competition.submissions_dir / f"{name}.csv"
    said = f"--score {name}: the ledger has no submission of that name{suggest(name, known or ())}"
    if competition.limit is not None:
        return f"{said}; a sample's submissions cannot be sent: leave out --limit"
    if path.is_file():
        return (
            f"{said}; if you uploaded it by hand, record it: python run.py submit"
            f" {shlex.quote(str(path))} --to folder"
        )
    sent = f"; it has {', '.join(sorted(known))}" if known else ""
    return f"{said}{sent}; to record a file: python run.py submit FILE --to folder"
