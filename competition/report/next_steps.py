"""The state of a competition in three sentences, and the recommended next commands.

``report`` shows it first. The reasons come from the scores: what a variant lacks, the nested score
of a blend, what was sent.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from competition.board.blends import BlendFile, rank_blend
from competition.board.board import SentSubmission
from competition.predictions.rerun import find_command, write_command
from competition.predictions.variant_scores import VariantScore
from competition.profile import Competition
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind

COMMANDS = 3

Proposal = tuple[str, str]
"""A command and the reason to run it."""


@dataclass(frozen=True, eq=False)
class Standing:
    """The current state of a competition.

    Attributes:
        competition: the competition.
        n_rows: the number of train rows.
        variants: those in the store, including joined specialists.
        blends: those that have not been changed, the newest first.
        sent: the ledger's entries, in order.
        n_suspects: the number of suspected label errors.
    """

    competition: Competition
    n_rows: int
    variants: Sequence[VariantScore]
    blends: Sequence[BlendFile]
    sent: Sequence[SentSubmission]
    n_suspects: int = 0

    @property
    def blend(self) -> BlendFile | None:
        """Return the best blend, ranked as the board does; without scores, the newest."""
        return find_best_blend(self.blends, self.kind)

    @property
    def kind(self) -> MetricKind:
        """Return the primary metric."""
        return build_criteria(self.competition.profile).primary.kind

    @property
    def complete(self) -> list[VariantScore]:
        """Return the variants that are scored on every row, best primary score first."""
        whole = [each for each in self.variants if each.assessment and each.n_rows == self.n_rows]
        return sorted(whole, key=get_primary, reverse=True)

    @property
    def is_sent(self) -> bool:
        """Return whether the best blend was sent to a leaderboard."""
        blend = self.blend
        return blend is not None and any(
            each.entry.outcome == "sent" and each.entry.sha256 == blend.sha256 for each in self.sent
        )


def find_best_blend(blends: Sequence[BlendFile], kind: MetricKind) -> BlendFile | None:
    """Return the blend that the board ranks first, the first without scores; None without any."""
    return max(blends, key=lambda each: rank_blend(each, kind), default=None)


def get_primary(score: VariantScore) -> float:
    """Return a variant's primary score (higher is better), -inf if it has none."""
    return -math.inf if score.assessment is None else score.assessment.primary.value


def describe_standing(standing: Standing) -> list[str]:
    """Return three sentences: variants, blend, board."""
    return [_describe_variants(standing), _describe_blend(standing), _describe_board(standing)]


def _describe_variants(standing: Standing) -> str:
    complete = standing.complete
    if not complete:
        n_partial = sum(each.assessment is not None for each in standing.variants)
        if not n_partial:
            return "No variant has out-of-fold scores yet."
        return f"No variant has out-of-fold scores on all rows yet, {n_partial} on a part."
    best, found = complete[0], complete[0].assessment
    assert found is not None
    first, *others = found.measured
    ends = sorted((first.score.low, first.score.high), reverse=first.kind.is_loss)
    more = [f" and {each.kind.title} {each.kind.write(each.score.value)}" for each in others]
    n_partial = len(standing.variants) - len(complete)
    partial = f", {n_partial} on a part or not at all" if n_partial else ""
    verb = "variant has" if len(complete) == 1 else "variants have"
    return (
        f"{len(complete)} {verb} out-of-fold scores on all rows{partial}; the best,"
        f" {best.name}, has {first.kind.title} {first.kind.write(first.score.value)}"
        f" (95% {'–'.join(map(first.kind.write, ends))}){''.join(more)}."
    )


def _describe_blend(standing: Standing) -> str:
    blend = standing.blend
    if blend is None:
        return "There is no blend yet."
    kind = standing.kind
    nested, single = blend.get_nested(kind), blend.get_nested_single(kind)
    if nested is None:
        return f"The newest blend, {blend.name}, has no nested score."
    said = f"The best blend, {blend.name}, has nested {kind.title} {kind.write(nested)}"
    expected = blend.get_expected(kind)
    if expected is not None:
        said = (
            f"The best blend, {blend.name}, is expected to have {kind.title}"
            f" {kind.write(expected)} on the test; its nested {kind.title} is {kind.write(nested)}"
        )
    if single is None:
        return f"{said}."
    gain = kind.write_difference(nested - single)
    return f"{said}, {gain} against the best single variant under the same rule."


def _describe_board(standing: Standing) -> str:
    scored = [each for each in standing.sent if each.public is not None]
    if not standing.sent:
        return "Nothing has been sent."
    count = len(standing.sent)
    counted = "1 submission is" if count == 1 else f"{count} submissions are"
    if not scored:
        return f"{counted} in the ledger, none with a public score."
    best = max(scored, key=lambda each: -math.inf if each.public is None else each.public)
    assert best.public is not None
    kind = standing.kind
    return (
        f"{counted} in the ledger; the best public {kind.title} is"
        f" {kind.write(best.public)}, of {best.entry.name}."
    )


def propose_commands(standing: Standing) -> list[Proposal]:
    """Return up to ``COMMANDS`` recommended commands, most useful first.

    First finish what was started, then blend, then submit; new variants take longest and come last.
    """
    proposals = [
        *_propose_finishing(standing),
        *_propose_blend(standing),
        *_propose_sending(standing),
        *_propose_training(standing),
        *_propose_analysis(standing),
    ]
    return proposals[:COMMANDS]


def _list_incomplete(standing: Standing) -> list[VariantScore]:
    return [e for e in standing.variants if e.lacks and not e.fault and e.progress]


def _propose_finishing(standing: Standing) -> list[Proposal]:
    return [
        (_write_training(standing.competition, each.name), f"It lacks {each.lacks}.")
        for each in _list_incomplete(standing)[:1]
    ]


def _propose_training(standing: Standing) -> list[Proposal]:
    known = {each.name for each in standing.variants}
    absent = [name for name in standing.competition.profile.defaults.variants if name not in known]
    if not absent or _list_incomplete(standing):
        return []
    why = "The profile lists it and it has no results; a blend gains from members that differ."
    return [(f"python run.py fold {shlex.quote(absent[0])}", why)]


def _write_training(competition: Competition, name: str) -> str:
    """Return the command that trains the rest of a variant: the one that started it, if known."""
    command = find_command(competition.oof_dir / name)
    if command is None:
        return f"python run.py fold {shlex.quote(name)}"
    return write_command(command, "--folds", "--stop-after")


def _propose_blend(standing: Standing) -> list[Proposal]:
    names = {each.name for each in standing.complete if each.progress}
    if not names:
        return []
    best = standing.blend
    if best is None:
        return [
            ("python run.py blend", f"{len(names)} variants can be blended, and none has been.")
        ]
    if any(names <= _list_parts(blend) for blend in standing.blends):
        return []
    fresh = ", ".join(sorted(names - _list_parts(best)))
    return [("python run.py blend", f"{best.name} was made without {fresh}.")]


def _propose_sending(standing: Standing) -> list[Proposal]:
    blend = standing.blend
    if blend is None or standing.competition.limit is not None or standing.is_sent:
        return []
    path = shlex.quote(str(blend.path))
    return [(f"python run.py submit {path}", f"{blend.name} has not been sent.")]


def _list_parts(blend: BlendFile) -> set[str]:
    """Return the variants of a blend, including those with weight 0."""
    weights = [] if blend.record is None else blend.record.list_weights()[0]
    return {part for each in weights for part in each.parts}


def _propose_analysis(standing: Standing) -> list[Proposal]:
    complete = standing.complete
    if not complete:
        return []
    best = complete[0]
    found = []
    if len(complete) > 1 and _overlap(best, complete[1]):
        second = complete[1]
        kind = standing.kind
        gap = kind.write(abs(get_primary(best) - get_primary(second))).lstrip("-")
        why = f"They differ by {gap} {kind.title}: on which labels, lengths and sources?"
        names = f"{shlex.quote(best.name)} {shlex.quote(second.name)}"
        found.append((f"python run.py compare {names}", why))
    if standing.n_suspects:
        why = f"{standing.n_suspects:,} published labels are disputed with confidence."
        found.append((f"python run.py errors {shlex.quote(best.name)}", why))
    return found


def _overlap(best: VariantScore, second: VariantScore) -> bool:
    """Return whether the intervals of two primary scores overlap."""
    assert best.assessment is not None
    assert second.assessment is not None
    return best.assessment.primary.low <= second.assessment.primary.high
