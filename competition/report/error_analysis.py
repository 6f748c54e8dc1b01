"""``errors``: where a variant or a blend is wrong on its out-of-fold rows.

Reads the store through ``compare``'s contenders and finds precision, recall and F1 of each label,
the commonest confusions, the hardest rows and suspected wrong labels; the last are also written as
a CSV that ``clean.corrections`` takes.

Legend: N rows that are answered for, C labels.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.compare.contenders import Contender, read_contender
from competition.data.rows import Entity, Row
from competition.files import is_name, write_atomically
from competition.folds.kfold import Prepared
from competition.predictions.members import read_members
from competition.predictions.store import open_store
from competition.report.suspects import Suspects, find_suspects, pool_members
from competition.scoring.criteria import build_criteria
from competition.scoring.labels import LabelScore, score_labels

CROSS_FITTED = "the linear model on more folds"
CORRECTION_COLUMNS = ("split", "id", "role", "type")
REVIEW_COLUMNS = ("published", "probability_published", "probability_suggested", "sentence")
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute such a cell


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of one label that are predicted as another; ``share`` of the label's rows."""

    gold: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True, eq=False)
class Errors:
    """Where a variant or a blend is wrong.

    Attributes:
        name: of the variant or blend.
        is_blend: its weights and threshold were tuned on these very rows.
        prepared: the competition's rows and folds.
        rows: (N,) places of the train rows that it answers for.
        gold: (N,) label ids as published.
        pred: (N,) predicted label ids.
        probs: (N, C) float32.
        suspects: places among the N rows.
        judges: whose probabilities are pooled to find the suspects.
    """

    name: str
    is_blend: bool
    prepared: Prepared
    rows: NDArray[np.int64]
    gold: NDArray[np.int64]
    pred: NDArray[np.int64]
    probs: NDArray[np.float32]
    suspects: Suspects
    judges: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label order."""
        return self.prepared.competition.profile.labels

    @property
    def own(self) -> NDArray[np.float32]:
        """Return the (N,) probability of each row's published label."""
        return np.asarray(self.probs[np.arange(len(self.gold)), self.gold])


def find_errors(
    prepared: Prepared, name: str, cross_fitted: NDArray[np.float32] | None = None
) -> Errors:
    """Compare the out-of-fold answers of a variant or a blend with the published labels.

    Args:
        prepared: whose rows and folds.
        name: a variant, specialists joined by commas, ``route:length``, or a blend.
        cross_fitted: (all train rows, C) of one more model; it helps to find wrong labels.

    Raises:
        UsageError: nothing has that name.
        PredictionsError: its results are of other data, folds or recipes.
    """
    contender = read_contender(prepared, name)
    store = open_store(prepared.competition)
    members, _ = read_members(store, (), prepared)
    judges = {each.name: each.oof for each in members}
    if cross_fitted is not None:
        judges[CROSS_FITTED] = cross_fitted
    return describe_errors(prepared, contender, judges)


def describe_errors(
    prepared: Prepared, contender: Contender, judges: Mapping[str, NDArray[np.float32]]
) -> Errors:
    """Compare a contender's answers with the published labels.

    Args:
        prepared: whose rows and folds.
        contender: whose answers.
        judges: by name, (all train rows, C) out-of-fold probabilities from which wrong labels are
            suspected; those that lack a row of the contender's are not used. A variant judges too,
            and a blend does where nothing else can, since its members are among the judges.
    """
    rows = np.flatnonzero(~np.isnan(contender.probs[:, 0]))
    probs = contender.probs[rows]
    gold = prepared.corpus.train.gold[rows].astype(np.int64)
    answers = contender.blend_pred
    pred = probs.argmax(axis=1) if answers is None else answers[rows]
    used = {name: each[rows] for name, each in judges.items()}
    used = {name: each for name, each in used.items() if not np.isnan(each[:, 0]).any()}
    if not contender.is_blend or not used:
        used.setdefault(contender.name, probs)
    suspects = find_suspects(gold, pool_members(gold, list(used.values())))
    return Errors(
        name=contender.name,
        is_blend=contender.is_blend,
        prepared=prepared,
        rows=rows,
        gold=gold,
        pred=pred,
        probs=probs,
        suspects=suspects,
        judges=tuple(used),
    )


def rank_labels(errors: Errors) -> list[LabelScore]:
    """Score every label, those with most wrong answers first."""
    criteria = build_criteria(errors.prepared.competition.profile)
    scores = score_labels(errors.labels, criteria, errors.gold, (errors.probs, errors.pred))
    return sorted(scores, key=lambda each: 2 * each.hits - each.gold - each.predicted)


def count_confusions(errors: Errors) -> list[Confusion]:
    """Count each pair of a published and another predicted label, the commonest first."""
    n_labels = len(errors.labels)
    wrong = errors.gold != errors.pred
    pairs = np.bincount(errors.gold[wrong] * n_labels + errors.pred[wrong], minlength=n_labels**2)
    totals = np.bincount(errors.gold, minlength=n_labels)
    order = np.argsort(-pairs, kind="stable")
    found = []
    for pair in order[: np.count_nonzero(pairs)]:
        gold, predicted = divmod(int(pair), n_labels)
        names = errors.labels[gold], errors.labels[predicted]
        found.append(Confusion(*names, int(pairs[pair]), float(pairs[pair] / totals[gold])))
    return found


def rank_hardest(errors: Errors) -> NDArray[np.int64]:
    """Return places among the N rows, the least probable published label first."""
    return np.argsort(errors.own, kind="stable")


def mark_entities(row: Row) -> str:
    """Write a sentence with its entities in brackets: S the subject, O the object.

    >>> entities = Entity("가", 0, 1, "PER"), Entity("다", 3, 4, None)
    >>> mark_entities(Row("1", "가나 다", *entities, None))
    '[S:PER 가]나 [O 다]'
    """
    text = row.sentence
    spans = sorted((("S", row.subject), ("O", row.object)), key=lambda each: -each[1].start)
    for role, entity in spans:
        text = f"{text[: entity.start]}[{_name_role(role, entity)}]{text[entity.end :]}"
    return text


def _name_role(role: str, entity: Entity) -> str:
    kind = "" if entity.type is None else f":{entity.type}"
    return f"{role}{kind} {entity.word}"


def suspects_path(errors: Errors) -> Path:
    """Return where the suspected wrong labels are written."""
    name = errors.name if is_name(errors.name) else re.sub(r"[^\w.@+=-]", "-", errors.name)
    return errors.prepared.competition.reports_dir / f"{name}-labels.csv"


def write_suspects(errors: Errors) -> Path:
    """Write the suspected wrong labels, the most suspect first, for a person to go over.

    The first four columns are those of ``clean.corrections``; it ignores the others, which are for
    the person who decides which lines stay.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*CORRECTION_COLUMNS, *REVIEW_COLUMNS))
    for row in list_suspects(errors, len(errors.suspects)):
        sentence = row["sentence"]
        guard = "'" if sentence.startswith(FORMULA_SIGNS) else ""
        correction = ("train", row["id"], "label", row["suggested"])
        figures = (f"{row['p_published']:.4f}", f"{row['p_suggested']:.4f}")
        writer.writerow((*correction, row["published"], *figures, f"{guard}{sentence}"))
    path = suspects_path(errors)
    write_atomically(path, stream.getvalue())
    return path


def list_suspects(errors: Errors, count: int) -> list[dict[str, Any]]:
    """Return the most suspect rows, one dict each."""
    found = errors.suspects
    return [
        {
            "id": row.id,
            "published": errors.labels[errors.gold[place]],
            "suggested": errors.labels[label_id],
            "p_published": float(own),
            "p_suggested": float(other),
            "sentence": mark_entities(row),
        }
        for row, place, label_id, own, other in zip(
            errors.prepared.corpus.train.take(errors.rows[found.rows[:count]]),
            found.rows,
            found.label_ids,
            found.own,
            found.other,
            strict=False,
        )
    ]


def list_hardest(errors: Errors, count: int) -> list[dict[str, Any]]:
    """Return the rows whose published label is least probable, as dicts."""
    places = rank_hardest(errors)[:count]
    return [
        {
            "id": row.id,
            "published": errors.labels[errors.gold[place]],
            "predicted": errors.labels[errors.pred[place]],
            "p_published": float(errors.own[place]),
            "p_predicted": float(errors.probs[place, errors.pred[place]]),
            "sentence": mark_entities(row),
        }
        for row, place in zip(
            errors.prepared.corpus.train.take(errors.rows[places]), places, strict=True
        )
    ]
