"""Expected test scores: evidence of the store's members, kept on disk, shared by all tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from competition.board.board import build_board_tables
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions import expected_scores
from competition.predictions.expected_scores import build_test_reader, forecast_test
from competition.predictions.fold_scales import warn_of_scales
from competition.predictions.members import read_member
from competition.predictions.store import Store
from competition.predictions.variant_scores import (
    VariantScore,
    describe_ranking,
    rank_variants,
    score_variants,
)
from competition.profile import Competition
from tests.competition.klue_scores import criteria_of, micro_f1
from tests.competition.predictions.test_members import fill


@pytest.fixture
def prepared(tiny_competition: Competition) -> Prepared:
    return read_prepared(tiny_competition)


@pytest.fixture
def store(prepared: Prepared) -> Store:
    store = Store(prepared.competition.oof_dir, prepared.competition.profile.labels)
    for seed, name in enumerate(("a", "b")):
        fill(store, prepared, name, seeds=(seed + 1,))
    return store


def cache_files(prepared: Prepared) -> list[str]:
    folder = prepared.competition.checkpoints_dir / "cache"
    return sorted(path.name for path in folder.glob("evidence*"))


def test_every_complete_variant_is_evidence_and_all_are_scored_under_it(
    prepared: Prepared, store: Store
) -> None:
    fill(store, prepared, "half")
    next(store.path(key) for key in store.keys("half")).unlink()
    forecast = forecast_test(prepared, store)
    assert forecast is not None
    assert forecast.n_members == 2
    weights = forecast.weights
    assert weights.shape == (len(prepared.corpus.train),)
    assert weights.mean() == pytest.approx(1.0)
    member = read_member(store, "a", prepared)
    pred = member.oof.argmax(axis=1)
    negative_id = prepared.competition.profile.negative_ids[0]
    expected = forecast.expect(member.oof, pred)
    gold = prepared.corpus.train.gold
    assert expected.primary.value == pytest.approx(micro_f1(gold, pred, negative_id, weights))
    scores = {each.name: each for each in score_variants(prepared, store.variants())}
    assert scores["half"].on_test is None
    on_test = scores["a"].on_test
    assert on_test is not None
    assert on_test.expected.primary == expected.primary
    assert on_test.assessment.primary.value == pytest.approx(expected.primary.value)


def test_evidence_is_kept_and_a_damaged_file_is_measured_again(
    prepared: Prepared, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = forecast_test(prepared, store)
    kept = cache_files(prepared)
    assert len(kept) == 2
    with monkeypatch.context() as patched:
        patched.setattr(expected_scores, "read_evidence", None)  # nothing is measured twice
        second = forecast_test(prepared, store)
    assert first is not None
    assert second is not None
    assert (first.weights == second.weights).all()
    damaged = prepared.competition.checkpoints_dir / "cache" / kept[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    third = forecast_test(prepared, store)
    assert third is not None
    assert (third.weights == first.weights).all()


def test_evidence_is_measured_again_for_other_negative_labels(
    prepared: Prepared, store: Store
) -> None:
    competition = prepared.competition
    first = forecast_test(prepared, store)
    assert first is not None
    assert first.mix.negative_share is not None
    changed = competition.profile.model_copy(update={"negative_label": None})
    without = replace(prepared, competition=replace(competition, profile=changed))
    second = forecast_test(without, store)
    assert second is not None
    assert second.mix.negative_share is None
    assert len(cache_files(prepared)) == 4


def test_a_disk_that_keeps_nothing_does_no_harm(prepared: Prepared, store: Store) -> None:
    prepared.competition.checkpoints_dir.parent.mkdir(parents=True, exist_ok=True)
    prepared.competition.checkpoints_dir.write_text("a file where the folder would be")
    assert forecast_test(prepared, store) is not None


def test_too_few_test_rows_show_nothing(
    prepared: Prepared, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected_scores, "MIN_ROWS", 10_000)
    assert forecast_test(prepared, store) is None
    scores = score_variants(prepared, ["a"])
    assert scores[0].on_test is None
    tables = build_board_tables(prepared.competition, now=datetime(2026, 11, 22, tzinfo=UTC))
    row = tables[0].rows[0]
    assert "expected_f1" not in row
    assert 0 < row["micro_f1"] < 1


def test_of_many_rows_whole_groups_are_looked_at(
    prepared: Prepared, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected_scores, "MAX_ROWS", len(prepared.corpus.train) // 2)
    forecast = build_test_reader(prepared).forecast([read_member(store, "a", prepared)])
    assert forecast is not None
    assert 0 < len(forecast.rows) < len(prepared.corpus.train)
    looked = np.isin(np.arange(len(prepared.corpus.train)), forecast.rows)
    for group in np.unique(prepared.groups):
        assert len(np.unique(looked[prepared.groups == group])) == 1
    assert forecast.weights.mean() == pytest.approx(1.0)


def test_the_board_is_sorted_by_expected_scores_and_says_what_is_noise(
    prepared: Prepared, store: Store
) -> None:
    ranked = rank_variants(score_variants(prepared, store.variants()))
    found = [each.on_test.rank_score for each in ranked if each.on_test is not None]
    assert len(found) == 2
    assert found == sorted(found, reverse=True)
    table = build_board_tables(prepared.competition, now=datetime(2026, 11, 22, tzinfo=UTC))[0]
    assert [row["variant"] for row in table.rows] == [each.name for each in ranked]
    assert table.notes[0].startswith("Sorted by the mean of expected F1 and AUPRC; ")


def test_differences_that_resampling_turns_are_called_noise(
    prepared: Prepared, store: Store
) -> None:
    n_rows = len(prepared.corpus.train)
    (score,) = score_variants(prepared, ["a"])
    on_test = score.on_test
    assert on_test is not None
    f1, area = on_test.assessment.measured
    lower = area.replicates - 0.2
    worse = replace(
        on_test,
        expected=replace(on_test.expected, secondary=on_test.expected.secondary - 0.2),
        assessment=replace(on_test.assessment, measured=(f1, replace(area, replicates=lower))),
    )
    twin, far = replace(score, name="twin"), replace(score, name="far", on_test=worse)
    (note,) = describe_ranking(rank_variants([far, score, twin]), n_rows)
    assert "a is not significantly better than twin (95%" in note
    (note,) = describe_ranking(rank_variants([far, score]), n_rows)
    assert "a is significantly better than the others" in note
    assert describe_ranking([score], n_rows) == []


def test_variants_without_an_expected_score_come_last() -> None:
    bare = [VariantScore("x", 5), VariantScore("y", 5)]
    assert [each.name for each in rank_variants(bare)] == ["x", "y"]


def test_folds_on_different_scales_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 4, 1200)
    fold_of = np.arange(1200) % 3
    logits = rng.normal(0, 1, (1200, 4))
    logits[np.arange(1200), gold] += 1.0

    def share(factor: np.ndarray) -> np.ndarray:
        raised = np.exp(logits * factor[:, None])
        return raised / raised.sum(axis=1, keepdims=True)

    criteria = criteria_of(None, 4)
    assert warn_of_scales(criteria, gold, share(np.ones(1200)), fold_of) == ""
    mixed = share(np.array([0.05, 1.0, 20.0])[fold_of])
    assert "below that of every fold" in warn_of_scales(criteria, gold, mixed, fold_of)
    assert warn_of_scales(criteria, gold, mixed, np.zeros(1200, int)) == ""
