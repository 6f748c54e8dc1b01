"""The shift is found where it was planted, not where it was not, and no group is on both sides."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from competition.audit import shift as shift_room
from competition.audit.shift import (
    CLIP,
    Shift,
    ShiftFeature,
    build_features,
    build_shift_tables,
    explain_absence,
    find_obstacle,
    fit_shift,
    read_or_fit_shift,
)
from competition.data.corpus import Corpus, read_corpus
from competition.data.rows import Rows
from competition.profile import Competition

GROUP_BY = ("sentence", "entity_pair")


def make_rows(rng: np.random.Generator, n_rows: int, *, news_share: float) -> Rows:
    """Make rows whose sources are drawn; the rest of a row says nothing about its split."""
    words = ["가나", "다라", "마바", "사아", "자차"]
    records = []
    for place in range(n_rows):
        number = rng.integers(1000, 10_000)
        subject, object_ = f"{rng.choice(words)}{number}", f"{rng.choice(words)}{number}님"
        sentence = f"{subject}은(는) {object_}을(를) {rng.choice(words)}에서 보았다."
        start = sentence.index(object_)
        records.append(
            {
                "id": str(place),
                "sentence": sentence,
                "subject_word": subject,
                "subject_start": 0,
                "subject_end": len(subject),
                "subject_type": "PER",
                "object_word": object_,
                "object_start": start,
                "object_end": start + len(object_),
                "object_type": "ORG",
                "source": "news" if rng.random() < news_share else "wiki",
            }
        )
    return Rows(pd.DataFrame(records), np.zeros(n_rows, dtype=np.int16))


def make_corpus(seed: int, *, shares: tuple[float, float], n_rows: int = 600) -> Corpus:
    rng = np.random.default_rng(seed)
    train = make_rows(rng, n_rows, news_share=shares[0])
    test = make_rows(rng, n_rows // 3, news_share=shares[1])
    return Corpus(train, replace(test, label_ids=None), (), f"hash of {seed} {shares}")


def fit(corpus: Corpus) -> Shift:
    found = fit_shift(corpus, GROUP_BY, lambda _frac, _text: None)
    assert found is not None
    return found


def test_a_planted_shift_is_measured_and_the_odds_are_the_true_ones() -> None:
    corpus = make_corpus(0, shares=(0.3, 0.7))
    found = fit(corpus)
    is_news = (corpus.train.frame["source"] == "news").to_numpy()
    expected = 0.5 + 0.5 * (0.7 - 0.3)  # the ROC curve of one yes-or-no feature
    assert found.low < expected < found.high
    assert found.odds[is_news].mean() == pytest.approx(0.7 / 0.3, rel=0.25)
    assert found.odds[~is_news].mean() == pytest.approx(0.3 / 0.7, rel=0.25)
    by_name = {(each.what, each.value): each for each in found.features}
    assert by_name["source", "news"].is_share
    assert by_name["source", "news"].train == pytest.approx(is_news.mean())


def test_without_a_shift_half_is_in_the_interval_and_all_rows_count() -> None:
    found = fit(make_corpus(1, shares=(0.5, 0.5)))
    assert found.low < 0.5 < found.high
    assert found.effective_rows() > 0.8 * len(found.odds)


def test_shared_sentences_give_nothing_away() -> None:
    """Rows that differ only in which sentence they repeat: within a group the split is certain."""
    corpus = make_corpus(2, shares=(0.5, 0.5), n_rows=300)
    frames = []
    for rows in (corpus.train, corpus.test):
        repeated = rows.frame.loc[np.repeat(np.arange(0, len(rows), 10), 10)[: len(rows)]]
        frames.append(repeated.reset_index(drop=True))
    again = replace(
        corpus, train=replace(corpus.train, frame=frames[0]), test=Rows(frames[1], None)
    )
    found = fit(again)
    assert found.low < 0.5 < found.high


def test_the_area_and_its_replicates_are_exact() -> None:
    rng = np.random.default_rng(0)
    scores, is_test = np.round(rng.normal(size=200), 1), rng.random(200) < 0.4
    groups = np.arange(200, dtype=np.int32) // 2
    area, low, high = shift_room._measure_auc(scores, is_test, groups)
    assert area == pytest.approx(roc_auc_score(is_test, scores))
    assert low < area < high


def test_weights_are_clipped_and_have_a_smaller_effective_size() -> None:
    odds = np.array([0.5, 1.0, 50.0])
    shift = Shift(odds, 0.8, 0.7, 0.9, ())
    np.testing.assert_allclose(shift.weights() * (11.5 / 3), [0.5, 1.0, CLIP])
    assert shift.effective_rows() == pytest.approx(11.5**2 / (0.25 + 1 + 100))


def test_features_say_what_they_are_and_numbers_are_scaled() -> None:
    corpus = make_corpus(3, shares=(0.5, 0.5))
    features, names = build_features(corpus.train)
    assert features.shape == (600, len(names))
    assert features.dtype == np.float32
    kinds = {what for what, _ in names}
    assert kinds == {"characters", "source", "subject type", "object type", "number"}
    numbers = [place for place, (what, _) in enumerate(names) if what == "number"]
    columns = features[:, numbers].toarray()
    np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-5)
    untyped = corpus.train.frame.assign(source=None, subject_type=None, object_type=None)
    without = build_features(Rows(untyped.astype({"source": "str"}), None))[1]
    assert {what for what, _ in without} >= {"characters", "number"}


def test_it_is_kept_by_the_hash_of_the_data(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = read_corpus(tiny_competition)
    steps: list[float] = []
    first = read_or_fit_shift(tiny_competition, corpus, lambda frac, _: steps.append(frac))
    assert first is not None
    assert steps == sorted(steps)
    assert steps[0] == 0
    (kept,) = (tiny_competition.checkpoints_dir / "cache").glob("shift*")

    def fail(*_: object) -> Shift:
        raise AssertionError("it was kept")

    with monkeypatch.context() as patch:
        patch.setattr(shift_room, "fit_shift", fail)
        again = read_or_fit_shift(tiny_competition, corpus)
        assert again is not None
        assert (again.odds == first.odds).all()
        assert (again.auc, again.features) == (first.auc, first.features)
    kept.write_bytes(kept.read_bytes()[:100])
    mended = read_or_fit_shift(tiny_competition, corpus)
    assert mended is not None
    assert (mended.odds == first.odds).all()
    other = replace(corpus, hash="0" * 64)
    assert read_or_fit_shift(tiny_competition, other) is not None
    assert len(list(kept.parent.glob("shift*"))) == 2


def test_it_is_measured_again_when_other_rows_are_held_out_together(
    tiny_competition: Competition,
) -> None:
    corpus = read_corpus(tiny_competition)
    rules = tiny_competition.profile.folds.model_copy(update={"group_by": ("sentence",)})
    profile = tiny_competition.profile.model_copy(update={"folds": rules})
    found = read_or_fit_shift(tiny_competition, corpus)
    assert found is not None
    other = read_or_fit_shift(replace(tiny_competition, profile=profile), corpus)
    expected = fit_shift(corpus, ("sentence",), lambda _frac, _text: None)
    assert other is not None
    assert expected is not None
    assert (other.odds == expected.odds).all()
    assert (other.odds != found.odds).any()


@pytest.mark.parametrize("side", ["test", "both"])
def test_a_side_that_hangs_together_is_an_obstacle_not_a_failure(
    tiny_competition: Competition, side: str
) -> None:
    corpus = make_corpus(5, shares=(0.5, 0.5), n_rows=60)
    test = corpus.test.frame.assign(sentence=corpus.test.frame["sentence"].iloc[0])
    train = corpus.train.frame
    if side == "both":
        train = train.assign(sentence=test["sentence"].iloc[0])
    corpus = replace(corpus, train=replace(corpus.train, frame=train), test=Rows(test, None))
    assert find_obstacle(corpus) is None
    assert read_or_fit_shift(tiny_competition, corpus) is None
    (table,) = build_shift_tables(None, corpus)
    assert table.notes == [explain_absence(None, corpus)]
    assert "only train or only test rows" in table.notes[0]


def test_too_few_and_too_many_rows_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus(4, shares=(0.5, 0.5), n_rows=24)
    said = find_obstacle(corpus)
    assert said is not None
    assert "8 rows" in said
    (table,) = build_shift_tables(None, corpus)
    assert table.notes == [said]
    monkeypatch.setattr(shift_room, "MAX_ROWS", 100)
    assert "more than 100" in str(find_obstacle(make_corpus(4, shares=(0.5, 0.5))))


def test_the_table_shows_the_area_and_the_effective_sample_size() -> None:
    corpus = make_corpus(0, shares=(0.3, 0.7))
    found = fit(corpus)
    (table,) = build_shift_tables(found, corpus)
    assert f"{found.auc:.3f}" in table.notes[0]
    assert f"effective sample size of {found.effective_rows():,.0f}" in table.notes[1]
    sources = {row["value"]: row for row in table.rows if row["what"] == "source"}
    assert sources["news"]["test"].endswith("%")


def test_no_feature_is_listed_without_a_shift() -> None:
    found = Shift(
        np.ones(600), 0.52, 0.49, 0.55, (ShiftFeature("characters", "'가'", 0.2, 0.1, True),)
    )
    (table,) = build_shift_tables(found, make_corpus(0, shares=(0.5, 0.5)))
    assert not table.rows
    assert "it detects no shift" in table.notes[0]
    (table,) = build_shift_tables(replace(found, low=0.51), make_corpus(0, shares=(0.5, 0.5)))
    assert len(table.rows) == 1


def test_the_command_shows_it_with_the_audit(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from run import app

    monkeypatch.setenv("COMPETITION_HOME", str(tiny_competition.home))
    own = ["--competition", str(tiny_competition.home / "tiny.toml")]
    done = CliRunner().invoke(app, ["data", *own, "--json"])
    assert done.exit_code == 0, done.output
    assert "AUC" in json.loads(done.stdout)["told_apart"]["notes"][0]
    assert not tiny_competition.oof_dir.exists()
