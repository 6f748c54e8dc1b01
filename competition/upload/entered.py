"""Scores that a person read on a leaderboard's page and enters: ``board --score NAME=61.02/50.10``.

Where a platform cannot be asked, or a file was uploaded by hand out of a folder, the page is all
there is. What is entered stands in the ledger as a score that says so; ``board`` and the final
picks count it like any other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from competition.errors import UsageError
from competition.profile import Competition
from competition.spelling import suggest
from competition.submission.ledger import (
    Entry,
    Record,
    build_receipt,
    build_score,
    open_ledger,
)
from competition.upload.scores import METRICS, merge_scores
from competition.upload.target import ScoreMap

EXAMPLE = "NAME=61.02/50.10"
NUMBER = re.compile(r"\d{1,3}(\.\d+)?", re.ASCII)
BY_HAND = ("folder", "local")  # places that are no platform's


@dataclass(frozen=True)
class EnteredScore:
    """What a person read; scores in [0, 1]."""

    name: str
    public: ScoreMap
    private: ScoreMap | None


def parse_score(text: str) -> EnteredScore:
    """Read ``NAME=F1/AUPRC``, ×100 as pages show them; ``:F1/AUPRC`` adds the private scores.

    >>> parse_score("b1=61.02/50.10").public
    {'micro_f1': 0.6102, 'auprc': 0.501}
    >>> parse_score("b1=61:60.5/48").private
    {'micro_f1': 0.605, 'auprc': 0.48}

    Raises:
        UsageError: it is not of that form, or no score from 0 to 100.
    """
    name, equals, written = text.rpartition("=")
    sides = written.split(":")
    if not equals or not name or len(sides) > 2:
        raise UsageError(
            f"--score {text!r} is not like {EXAMPLE}: micro-F1/AUPRC on the public board;"
            " :60.50/49.80 after it adds the private scores"
        )
    public, *private = (_parse_side(side, text) for side in sides)
    return EnteredScore(name, public, private[0] if private else None)


def _parse_side(written: str, text: str) -> ScoreMap:
    parts = written.split("/")
    if len(parts) > len(METRICS) or not all(map(NUMBER.fullmatch, parts)):
        raise UsageError(
            f"--score {text!r}: {written!r} is not micro-F1 or micro-F1/AUPRC in digits with a"
            f" point, such as {EXAMPLE}"
        )
    values = [float(part) for part in parts]
    for part, value in zip(parts, values, strict=True):
        if value > 100:
            raise UsageError(f"--score {text!r}: {part} is above 100, the best score there is")
        if 0 < value <= 1:
            raise UsageError(
                f"--score {text!r}: {part} looks like a share of 1; write it ×100, such as"
                f" {100 * value:.2f}"
            )
    return {key: round(value / 100, 10) for key, value in zip(METRICS, values, strict=False)}


def enter_scores(competition: Competition, texts: Sequence[str], now: datetime) -> list[str]:
    """Append scores to the ledger, all of them or none; return a line on each for a person.

    Args:
        competition: whose ledger.
        texts: as ``parse_score`` reads them.
        now: when they are entered.

    Raises:
        UsageError: one is no score, or no file of that name was sent, or its platform gave another.
        UploadError: the ledger is damaged, or another process holds it.
    """
    entered = [parse_score(text) for text in texts]
    if len({each.name for each in entered}) < len(entered):
        raise UsageError("--score names one submission twice; enter each once")
    ledger = open_ledger(competition)
    if not ledger.read():
        raise UsageError(_advise_sending(competition, entered[0].name))
    with ledger.locked():
        ledger.mend()
        entries = ledger.read()
        records: list[Record] = []
        said = []
        for each in entered:
            entry = _find_entry(competition, each.name, entries)
            records += _build_records(entry, each, now)
            said.append(_describe(entry, each))
        ledger.append(*records)
    return said


def _find_entry(competition: Competition, name: str, entries: Sequence[Entry]) -> Entry:
    """Return the attempt whose score is meant: of one file, on a platform before a folder."""
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
        raise UsageError(f"--score {name}: several files were sent under that name; say {choices}")
    meant = [e for e in arrived if e.target not in BY_HAND] or arrived
    entry = max(meant, key=lambda each: each.id)
    if entry.target == "local":
        raise UsageError(f"--score {name}: it was scored here, by the solution file; nothing to do")
    return entry


def _build_records(entry: Entry, score: EnteredScore, now: datetime) -> list[Record]:
    """Return what the ledger gets: an attempt that nobody could ask about has arrived, it shows.

    Raises:
        UsageError: the platform itself gave other scores.
    """
    if not entry.is_entered:
        for side, known in ((score.public, entry.public), (score.private, entry.private)):
            for key, value in (known or {}).items():
                told = (side or {}).get(key)
                if value is not None and told is not None and abs(told - value) > 5e-5:
                    raise UsageError(
                        f"--score {score.name}: {entry.target} itself gave {100 * value:.2f} for"
                        f" {key}, which stands"
                    )
    records: list[Record] = []
    if entry.outcome == "unknown":
        message = "its score stands on the platform's page"
        records.append(build_receipt(entry.id, now, "sent", ref=entry.ref, message=message))
    public = merge_scores(entry.public, score.public)
    private = merge_scores(entry.private, score.private)
    return [*records, build_score(entry.id, now, public=public, private=private, is_entered=True)]


def _describe(entry: Entry, score: EnteredScore) -> str:
    where = f"{entry.target} ({entry.destination})"
    known = entry.public or {}
    changed = any(known.get(key) not in (None, value) for key, value in score.public.items())
    before = f", {_write(known)} before" if changed else ""
    after = "" if score.private is None else f", private {_write(score.private)}"
    return f"entered for {entry.name}, {where}: public {_write(score.public)}{after}{before}"


def _write(scores: ScoreMap) -> str:
    return "/".join(f"{100 * value:.2f}" for value in scores.values() if value is not None)


def _advise_sending(competition: Competition, name: str, known: set[str] | None = None) -> str:
    """Say that no such file was sent, and how one uploaded by hand comes into the ledger."""
    path = competition.submissions_dir / f"{name}.csv"
    said = f"--score {name}: the ledger has no submission of that name{suggest(name, known or ())}"
    if path.is_file():
        return f"{said}; record what you uploaded: python run.py submit {path} --to folder"
    sent = f"; sent were {', '.join(sorted(known))}" if known else ""
    return f"{said}{sent}; a file is recorded by python run.py submit FILE --to folder"
