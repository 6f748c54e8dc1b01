"""errors: figures equal scikit-learn's, planted wrong labels are found, the CSV is taken."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from competition.blend.blend import run_blend
from competition.console import print_tables
from competition.data.rows import Entity, Row
from competition.errors import UsageError
from competition.folds.kfold import Prepared
from competition.predictions.store import Store
from competition.report.error_analysis import (
    CROSS_FITTED,
    count_confusions,
    find_errors,
    list_hardest,
    mark_entities,
    rank_labels,
    suspects_path,
    write_suspects,
)
from competition.report.error_tables import build_errors_tables, run_errors
from competition.report.suspects import find_suspects, pool_members
from models.data.corrections import read_corrections
from tests.competition.blend.test_blend import RUN, few_draws, write_variant
from tests.competition.planted import softmax
from tests.competition.predictions.test_members import fill

__all__ = ["few_draws"]  # a fixture: few bootstrap draws


def test_labels_and_confusions_equal_scikit_learn(store: Store, prepared: Prepared) -> None:
    fill(store, prepared, "v")
    errors = find_errors(prepared, "v")
    n_labels = len(errors.labels)
    expected = precision_recall_fscore_support(
        errors.gold, errors.pred, labels=range(n_labels), zero_division=0
    )
    scores = {each.label: each for each in rank_labels(errors)}
    for i, label in enumerate(errors.labels):
        each = scores[label]
        found = (each.precision or 0, each.recall or 0, each.f1 or 0, each.gold)
        assert found == pytest.approx([part[i] for part in expected])
    matrix = confusion_matrix(errors.gold, errors.pred, labels=range(n_labels))
    found_pairs = {(c.gold, c.predicted): c.count for c in count_confusions(errors)}
    for i, gold in enumerate(errors.labels):
        for j, predicted in enumerate(errors.labels):
            count = 0 if i == j else matrix[i, j]
            assert found_pairs.get((gold, predicted), 0) == count
    counts = [c.count for c in count_confusions(errors)]
    assert counts == sorted(counts, reverse=True)


def test_one_fold_is_enough(prepared: Prepared) -> None:
    write_variant(prepared, "first", n_folds=1)
    errors = find_errors(prepared, "first")
    assert set(errors.rows) == set(np.flatnonzero(prepared.folds.fold_of == 0))
    notes = " ".join(build_errors_tables(errors, 3, Path(suspects_path(errors)))[0].notes)
    assert f"On the {len(errors.rows)} of 64 rows" in notes


def test_a_blend_errs_by_its_own_threshold(prepared: Prepared) -> None:
    for name in ("first", "second"):
        write_variant(prepared, name)
    report = run_blend(prepared.competition, (), trials=5, seed=0, name="both", run=RUN)
    errors = find_errors(prepared, "both")
    assert errors.is_blend
    assert errors.pred.tolist() == report.fit.fitted["blend"].pred.tolist()
    np.testing.assert_allclose(errors.probs, report.fit.fitted["blend"].probs, atol=1e-6)


def test_a_name_that_nothing_has_is_refused(store: Store, prepared: Prepared) -> None:
    fill(store, prepared, "v")
    with pytest.raises(UsageError, match="variants: v"):
        find_errors(prepared, "w")


def test_planted_wrong_labels_come_first() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 4, 800)
    logits = rng.normal(0, 1, (800, 4))
    logits[np.arange(800), true] += 4
    wrong = rng.choice(800, 40, replace=False)
    gold = true.copy()
    gold[wrong] = (true[wrong] + 1) % 4
    found = find_suspects(gold, softmax(logits))
    assert np.isin(found.rows, wrong).sum() >= 25
    assert np.isin(found.rows, wrong).mean() > 0.9
    assert (np.diff(found.own) >= 0).all()
    hit = np.isin(found.rows, wrong)
    assert (found.label_ids[hit] == true[found.rows[hit]]).mean() > 0.9
    assert not (found.label_ids == gold[found.rows]).any()


def make_members(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Make 2,000 rows, some hard: labels with 50 wrong ones, those places, and three members.

    The first member is good, the second is as good on other rows, the third knows nothing.
    """
    true = rng.integers(0, 5, 2000)
    clear = rng.gamma(1.5, 2.0, (3, 2000))
    clear[2] = 0.0
    logits = rng.normal(0, 1, (3, 2000, 5))
    logits[:, np.arange(2000), true] += clear
    wrong = rng.choice(2000, 50, replace=False)
    gold = true.copy()
    gold[wrong] = (true[wrong] + rng.integers(1, 5, 50)) % 5
    return gold, wrong, [softmax(each) for each in logits]


def test_pooled_members_find_more_than_each_alone() -> None:
    gold, wrong, members = make_members(np.random.default_rng(0))

    def count(probs: np.ndarray) -> int:
        return int(np.isin(find_suspects(gold, probs).rows[:50], wrong).sum())

    pooled = pool_members(gold, members)
    assert pooled.sum(axis=1) == pytest.approx(np.ones(2000))
    alone = [count(pool_members(gold, [each])) for each in members]
    assert alone[2] < 10
    assert count(pooled) > max(alone) + 5
    assert count(pooled) >= count(np.mean(members, axis=0)) + 5
    useless = np.abs(pool_members(gold, members[:2]) - pooled).mean()
    assert useless < 0.01, "a member that knows nothing gets next to no weight"


def test_weights_are_at_the_minimum_of_their_loss() -> None:
    gold, _, members = make_members(np.random.default_rng(1))
    logs = [np.log(each) for each in members]

    def measure(probs: np.ndarray) -> float:
        return float((1 - np.sqrt(probs[np.arange(2000), gold])).mean())

    least = measure(pool_members(gold, members))
    for weights in ((1, 1, 0), (1.2, 1.2, 0), (0.8, 0.8, 0), (1, 0.5, 0), (1, 1, 0.2)):
        assert least <= measure(softmax(np.tensordot(weights, logs, 1))) + 1e-4


def test_every_member_that_answers_all_rows_judges(prepared: Prepared) -> None:
    for name in ("first", "second"):
        write_variant(prepared, name)
    write_variant(prepared, "useless", n_folds=1)
    assert find_errors(prepared, "first").judges == ("first", "second")
    assert find_errors(prepared, "useless").judges == ("first", "second", "useless")
    run_blend(prepared.competition, ("first",), trials=3, seed=0, name="one", run=RUN)
    assert find_errors(prepared, "one").judges == ("first", "second")
    n_rows, n_labels = len(prepared.corpus.train), len(prepared.competition.profile.labels)
    more = np.full((n_rows, n_labels), 1 / n_labels, np.float32)
    errors = find_errors(prepared, "first", more)
    assert errors.judges == ("first", "second", CROSS_FITTED)
    np.testing.assert_allclose(
        errors.suspects.own, find_errors(prepared, "first").suspects.own, atol=1e-3
    )


def test_a_label_without_rows_disputes_none() -> None:
    probs = np.array([[0.1, 0.2, 0.7], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1]])
    assert len(find_suspects(np.array([0, 0, 1]), probs)) == 0


def test_entities_are_marked_whichever_comes_first() -> None:
    row = Row("7", "나는 가", Entity("가", 3, 4, "ORG"), Entity("나", 0, 1, "PER"), None)
    assert mark_entities(row) == "[O:PER 나]는 [S:ORG 가]"


def test_the_hardest_rows_have_the_least_probable_labels(prepared: Prepared) -> None:
    write_variant(prepared, "first")
    errors = find_errors(prepared, "first")
    shown = list_hardest(errors, 5)
    assert [row["p_published"] for row in shown] == sorted(errors.own.tolist())[:5]
    row_of = {row_id: i for i, row_id in enumerate(prepared.corpus.train.ids)}
    for row in shown:
        gold = prepared.corpus.train.gold[row_of[row["id"]]]
        assert errors.labels[gold] == row["published"]


def test_the_csv_is_taken_as_corrections(prepared: Prepared) -> None:
    write_variant(prepared, "first")
    errors = find_errors(prepared, "first")
    assert len(errors.suspects)
    path = write_suspects(errors)
    corpus, profile = prepared.corpus, prepared.competition.profile
    corrections = read_corrections(
        path, corpus.train, corpus.test, entity_types=profile.entity_types, labels=profile.labels
    )
    row_of = {row_id: i for i, row_id in enumerate(corpus.train.ids)}
    expected = [
        (corpus.train.ids[errors.rows[place]], errors.labels[label_id])
        for place, label_id in zip(errors.suspects.rows, errors.suspects.label_ids, strict=True)
    ]
    assert [(c.id, c.type) for c in corrections.train] == expected
    assert all(errors.labels[corpus.train.gold[row_of[c.id]]] != c.type for c in corrections.train)


def test_a_spreadsheet_computes_no_sentence(prepared: Prepared) -> None:
    frame = prepared.corpus.train.frame.copy()
    frame["sentence"] = "=1+1 " + frame["sentence"].astype(str)
    for role in ("subject", "object"):
        frame[f"{role}_start"] += 5
        frame[f"{role}_end"] += 5
    write_variant(prepared, "first")
    errors = find_errors(prepared, "first")
    rows = replace(prepared.corpus.train, frame=frame)
    changed = replace(prepared, corpus=replace(prepared.corpus, train=rows))
    path = write_suspects(replace(errors, prepared=changed))
    with path.open(encoding="utf-8", newline="") as stream:
        cells = [row["sentence"] for row in csv.DictReader(stream)]
    assert cells
    assert all(cell.startswith("'=1+1 ") for cell in cells)


def test_the_command_prints_what_it_found(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    write_variant(prepared, "first")
    tables = run_errors(prepared, "first", 2)
    assert [table.name for table in tables] == ["labels", "confusions", "hardest", "suspects"]
    assert [len(table.rows) for table in tables[1:]] == [2, 2, 2]
    print_tables(tables, as_json=False)
    printed = capsys.readouterr().out
    assert "--set clean.corrections=reports/tiny/first-labels.csv" in printed
    assert (prepared.competition.home / "reports" / "tiny" / "first-labels.csv").is_file()
