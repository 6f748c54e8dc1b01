"""The board's last table: which of the sent submissions to select at the end, and why.

It collects the candidates; ``final_picks`` selects among them.

Legend: S submissions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.board.blends import Blends
from competition.board.final_picks import DISAGREEMENT_VARIANCE, Candidate, Forecast, pick_final
from competition.console import Column, Table
from competition.data.csv_records import RecordReader
from competition.errors import HarnessError, Offence
from competition.profile import Competition
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from competition.submission.form import read_form
from competition.submission.ledger import Entry


def build_final_table(
    competition: Competition, entries: Sequence[Entry], blends: Blends
) -> Table | None:
    """Build the table of recommended submissions; None if nothing was sent."""
    kind = build_criteria(competition.profile).primary.kind
    sent = select_one_place(entries, kind)
    if not sent:
        return None
    uses = Counter(entry.name for entry in sent)
    known = [blends[entry.sha256] for entry in sent if entry.sha256 in blends]
    by_expected = all(
        blend.get_expected(kind) is not None
        for blend in known
        if blend.get_nested(kind) is not None
    )
    candidates = []
    for entry in sent:
        name = _unique_name(entry) if uses[entry.name] > 1 else entry.name
        candidate = _build_candidate(competition, name, entry, blends)
        blend = blends.get(entry.sha256)
        if by_expected and blend is not None:
            candidate = replace(candidate, own_score=blend.get_expected(kind), own_name="expected")
        candidates.append(candidate)
    count = competition.profile.submission.final_picks
    picks, forecast = pick_final(candidates, count, kind, measure_half_variance(blends, kind))
    columns = [
        Column("pick", "pick", "count"),
        Column("name", "submission"),
        kind.column(f"expected_{kind.short}", f"expected private {kind.head}"),
        Column("reason", "reason"),
    ]
    rows = [
        {"pick": place + 1, "name": each.name}
        | {f"expected_{kind.short}": kind.show(each.expected_score), "reason": each.reason}
        for place, each in enumerate(picks)
    ]
    title = f"To select at the end ({sent[0].target}, {count} may count)"
    if forecast is None:
        note = "No submission has a nested estimate or a public score."
        return Table("final", title, columns, [], [note])
    return Table("final", title, columns, rows, _explain(candidates, picks[0].name, forecast, kind))


def select_one_place(entries: Sequence[Entry], kind: MetricKind) -> list[Entry]:
    """Return the distinct files sent to the destination with the most public scores."""
    places: dict[tuple[str, str], dict[str, Entry]] = {}
    for entry in entries:
        if entry.outcome == "sent":
            # the same file sent again: prefer an entry with a score
            known = places.setdefault((entry.target, entry.destination), {})
            known[entry.sha256] = (
                known.get(entry.sha256, entry) if get_public(entry, kind) is None else entry
            )
    ranked = [list(place.values()) for place in places.values()]
    ranked.sort(key=lambda place: (sum(get_public(e, kind) is not None for e in place), len(place)))
    return ranked[-1] if ranked else []


def get_public(entry: Entry, kind: MetricKind) -> float | None:
    """Return the public score by a metric, higher being better, None if it is not known."""
    found = (entry.public or {}).get(kind.key)
    return None if found is None else kind.show(found)


def _unique_name(entry: Entry) -> str:
    """Return a unique name for one of several files sent under the same name."""
    ref = "" if entry.ref is None else f"{entry.ref}, "
    return f"{entry.name} ({ref}re:{entry.sha256[:8]})"


def _build_candidate(
    competition: Competition, name: str, entry: Entry, blends: Blends
) -> Candidate:
    blend = blends.get(entry.sha256)
    kind = build_criteria(competition.profile).primary.kind
    if blend is None:
        return Candidate(name, None, get_public(entry, kind), None)
    labels = _read_labels(blend.path, competition)
    return Candidate(name, blend.get_nested(kind), get_public(entry, kind), labels)


def _read_labels(path: Path, competition: Competition) -> NDArray[np.object_] | None:
    """Read a submission's labels in the order of the file; None where it has none."""
    try:
        form = read_form(competition)
    except HarnessError:
        return None
    if form.label_column is None:
        return None
    offences: list[Offence] = []
    wanted = {"label": form.label_column}
    reader = RecordReader(path, wanted, offences.append, form.separator, form.header)
    labels = [label for _, (label,) in reader.read()]
    return None if offences else np.array(labels, dtype=object)


def measure_half_variance(blends: Blends, kind: MetricKind) -> float:
    """Return the noise variance that blends measured, per share of differing labels."""
    found = []
    for blend in blends.values():
        for noise in blend.noise:
            disagreement = 1.0 - noise.agreement
            sd = noise.sds.get(kind.short, 0.0)
            if disagreement > 0 and sd > 0:
                found.append(sd**2 / disagreement)
    return float(np.median(found)) if found else DISAGREEMENT_VARIANCE


def _explain(
    candidates: Sequence[Candidate], first: str, forecast: Forecast, kind: MetricKind
) -> list[str]:
    notes = [
        "Expected: inverse-variance mean of the blend's own estimate and its public score. Select"
        " them on the leaderboard yourself; the board never contacts it."
    ]
    scored = [each for each in candidates if each.public_score is not None]
    if len(scored) < 2 or len(forecast.expected) != len(candidates):
        return notes
    best = max(scored, key=lambda each: _get_score(each.public_score))
    place = {each.name: i for i, each in enumerate(candidates)}
    chosen = next(each for each in candidates if each.name == first)
    is_compared = forecast.compared[place[first], place[best.name]]
    if best.name != first and chosen.public_score is not None and is_compared:
        lead = _get_score(best.public_score) - chosen.public_score
        margin = forecast.margin(place[first], place[best.name])
        relation = "below" if lead < margin else "above"
        notes.append(
            f"{best.name} leads on the public half by {kind.write(lead).lstrip('-')}, which is"
            f" {relation} the noise margin of {kind.write(margin).lstrip('-')} (95%)."
        )
    return notes


def _get_score(score: float | None) -> float:
    return -np.inf if score is None else score
