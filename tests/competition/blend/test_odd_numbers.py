"""blend, check, submit and board on odd numbers: rare labels, constant members, many labels."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.blend.blend import run_blend
from competition.blend.tables import build_blend_tables
from competition.board.board import build_board_tables
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.store import ResultKey, Store
from competition.profile import Competition, resolve_competition
from competition.submission.check import check_submission
from tests.competition.predictions.test_members import make_result
from tests.conftest import TINY_PROFILE, write_csv

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def make_competition(home: Path, gold: list[int], n_labels: int) -> Competition:
    """Write a competition with these gold labels and a different pair of entities in each row."""
    labels = ["no_relation", *(f"rel:{i}" for i in range(1, n_labels))]
    header = ("id", "sentence", "subject_entity", "object_entity", "label", "source")

    def record(i: int, label: str) -> tuple[object, ...]:
        words = (f"가{i}", f"나{i}")
        sentence = f"{words[0]}은 {words[1]}와 아는 사이이다."
        spans = [(sentence.index(word), word) for word in words]
        cells = [
            str({"word": w, "start_idx": s, "end_idx": s + len(w) - 1, "type": "PER"})
            for s, w in spans
        ]
        return (i, sentence, *cells, label, "news")

    rows = [record(i, labels[label]) for i, label in enumerate(gold)]
    write_csv(home / "data" / "train.csv", header, rows)
    test = [record(10_000 + i, "100") for i in range(12)]
    write_csv(home / "data" / "test.csv", header, test)
    old = 'labels = ["per:birthplace", "no_relation", "per:employer", "per:sibling"]'
    text = TINY_PROFILE.replace(old, f"labels = {json.dumps(labels)}")
    (home / "odd.toml").write_text(text, "utf-8")
    return resolve_competition(str(home / "odd.toml"), None, None, home=home)


def plant(prepared: Prepared, name: str, make: Any) -> None:
    """Store a member; ``make`` gives the probabilities of gold labels, -1 where unknown."""
    store = Store(prepared.competition.oof_dir, prepared.competition.profile.labels)
    for fold in range(prepared.folds.count):
        result = make_result(prepared, ResultKey(name, 1, fold), recipe=name)
        gold = prepared.corpus.train.gold[prepared.folds.fold_of == fold]
        result.oof_probs[:] = make(np.asarray(gold))
        result.test_probs[:] = make(np.full(len(result.test_ids), -1))
        store.write(result, {})


CASES = {
    "a label with one row, and a fold without it": [0, 1, 0, 2, *([0, 1] * 20)],
    "no positive row": [0] * 40,
    "no negative row": [1, 2] * 20,
    "500 labels": list(range(500)) * 3,
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=pytest.mark.slow) if "500" in name else name for name in CASES],
)
def test_odd_numbers_give_finite_scores_and_a_sound_file(case: str, tmp_path: Path) -> None:
    gold = CASES[case]
    competition = make_competition(tmp_path, gold, max(3, max(gold) + 1))
    prepared = read_prepared(competition)
    n_labels = competition.profile.n_labels

    def see(labels: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(len(labels))
        logits = rng.normal(0, 1, (len(labels), n_labels))
        known = labels >= 0
        logits[np.flatnonzero(known), labels[known]] += 3
        raised = np.exp(logits)
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    plant(prepared, "sees", see)
    plant(prepared, "constant", lambda labels: np.full((len(labels), n_labels), 1 / n_labels))
    plant(prepared, "sure-of-one", lambda labels: np.eye(n_labels)[np.zeros(len(labels), int)])
    profile = competition.profile
    if not any(gold) or all(gold):  # no share of negatives can be reached
        profile = profile.model_copy(
            update={"metrics": profile.metrics.model_copy(update={"shifted_negative_share": None})}
        )
    competition = Competition(profile, competition.home, competition.data_dir)
    report = run_blend(competition, (), trials=1, seed=0, name="b", run={"time": "now"})
    assert check_submission(report.path, competition).is_ok
    build_blend_tables(report)
    spec = json.loads(report.path.with_suffix(".json").read_text("utf-8"))
    assert math.isfinite(spec["temperature"])
    assert all(math.isfinite(weight) for weight in np.ravel(report.nested_weights))
    (variants, *_) = build_board_tables(competition, now=NOON)
    assert {row["variant"] for row in variants.rows} == {"sees", "constant", "sure-of-one"}
