"""A blend from store to submission: the files it leaves, what they say, and what a person sees."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from competition import blend_report
from competition.assessment import Side
from competition.blend_report import run_blend
from competition.blend_tables import build_blend_tables, find_partings, judge_blend
from competition.console import print_tables
from competition.errors import BlendError, PredictionsError, UsageError
from competition.folds import read_prepared
from competition.predictions import Result, ResultKey, Store
from competition.search import BEST_SINGLE, BLEND, SYSTEMS
from competition.submission import check_submission
from tests.competition.planted import softmax

RUN = {"time": "2026-11-01T00:00:00+09:00"}
SIGHT = {"first": (3, 1, 0, 0), "second": (0, 1, 3, 3), "useless": (0, 0, 0, 0)}


@pytest.fixture
def prepared(tiny_competition):
    return read_prepared(tiny_competition)


def write_variant(prepared, name, n_folds=None):
    """Leave a variant's files; its logits rise at the gold label by what it sees of it."""
    competition, corpus = prepared.competition, prepared.corpus
    labels = competition.profile.labels
    store = Store(competition.oof_dir, labels)
    rng = np.random.default_rng(sorted(SIGHT).index(name))
    for fold in range(prepared.folds.count if n_folds is None else n_folds):
        rows = prepared.folds.fold_of == fold
        gold = corpus.train.gold[rows].astype(int)
        logits = rng.normal(0, 1, (len(gold), len(labels)))
        logits[np.arange(len(gold)), gold] += np.array(SIGHT[name])[gold]
        result = Result(
            key=ResultKey(name, 1, fold),
            fingerprint=f"{name} {fold}",
            recipe=f"recipe of {name}",
            variant={"why": f"why {name}"},
            labels=labels,
            data_hash=prepared.corpus.hash,
            folds_hash=prepared.folds.hash,
            route=None,
            routes_hash=None,
            oof_ids=corpus.train.ids[rows],
            oof_probs=softmax(logits),
            test_ids=corpus.test.ids,
            test_probs=softmax(rng.normal(0, 1, (len(corpus.test), len(labels)))),
        )
        store.write(result, {})


def blend(prepared, variants=(), name=None, **how):
    options = {"trials": 10, "seed": 0, "run": RUN} | how
    return run_blend(prepared.competition, variants, name=name, **options)


@pytest.fixture
def report(prepared):
    for name in ("first", "second", "useless"):
        write_variant(prepared, name)
    return blend(prepared)


def test_a_submission_is_left_that_keeps_the_rules(prepared, report):
    assert report.path == prepared.competition.submissions_dir / f"{report.path.stem}.csv"
    assert re.fullmatch("blend-[0-9a-f]{8}", report.path.stem)
    assert check_submission(report.path, prepared.competition).is_ok
    left = {path.name for path in report.path.parent.iterdir()}
    assert left == {f"{report.path.stem}{end}" for end in (".csv", ".json", ".run.json")}
    assert json.loads(report.path.with_suffix(".run.json").read_text()) == RUN


def test_the_json_says_what_determined_the_submission(prepared, report):
    spec = json.loads(report.path.with_suffix(".json").read_text())
    assert [member["name"] for member in spec["members"]] == ["first", "second", "useless"]
    assert spec["members"][0]["recipe"] == "recipe of first"
    assert spec["members"][0]["seeds"] == [1]
    assert spec["folds_hash"] == prepared.folds.hash
    assert spec["corpus_hash"] == prepared.corpus.hash
    assert (spec["trials"], spec["seed"]) == (10, 0)
    assert spec["threshold"] == report.fit.blend.threshold
    assert set(spec["fitted"]) == set(spec["nested"]) == set(SYSTEMS)
    nested = spec["nested"][BLEND]
    assert nested["f1"]["value"] == report.nested[BLEND].f1.value
    assert nested["shifted_f1"]["low"] <= nested["shifted_f1"]["high"]
    assert set(spec["nested_blend_minus"][BEST_SINGLE]["f1"]) == {
        "difference",
        "low",
        "high",
        "p_worse",
    }


def test_the_same_inputs_and_seed_give_the_same_bytes(prepared, report):
    before = {s: report.path.with_suffix(s).read_bytes() for s in (".csv", ".json")}
    again = blend(prepared, run={"time": "later"})
    for suffix, content in before.items():
        assert again.path.with_suffix(suffix).read_bytes() == content


def test_named_variants_alone_are_blended_under_the_name_given(prepared, report):
    found = blend(prepared, ["second", "first"], name="pair")
    assert found.fit.blend.members == ("second", "first")
    assert found.path.name == "pair.csv"


def test_an_incomplete_variant_is_left_out_with_its_reason_or_refused_when_named(prepared):
    write_variant(prepared, "first")
    write_variant(prepared, "second", n_folds=2)
    found = blend(prepared)
    assert [each.name for each in found.left_out] == ["second"]
    (table,) = [table for table in build_blend_tables(found) if table.name == "left_out"]
    assert "lacks folds 2" in table.rows[0]["reason"]
    with pytest.raises(PredictionsError, match="lacks folds 2"):
        blend(prepared, ["first", "second"])


def test_one_variant_alone_is_said_to_be_alone(prepared):
    write_variant(prepared, "first")
    found = blend(prepared)
    assert judge_blend(found) == ["Only first is there to blend: just its threshold was tuned."]
    assert check_submission(found.path, prepared.competition).is_ok


def test_nothing_to_blend_leaves_nothing(prepared):
    write_variant(prepared, "first", n_folds=1)
    with pytest.raises(BlendError, match=r"python run\.py fold\n  first: .*lacks folds 1, 2"):
        blend(prepared)
    assert not prepared.competition.submissions_dir.exists()


def test_a_name_that_leaves_its_folder_is_refused_before_the_work(prepared):
    with pytest.raises(UsageError, match="cannot be a name"):
        blend(prepared, name="../blend")


def test_memory_is_asked_for_before_anything_is_read(prepared, monkeypatch):
    write_variant(prepared, "first")

    def refuse(n_members, oof_shape, test_shape):
        assert (n_members, oof_shape, test_shape) == (1, (64, 4), (3, 20, 4))
        raise BlendError("too much")

    monkeypatch.setattr(blend_report, "check_memory", refuse)
    monkeypatch.setattr(blend_report, "read_members", None)
    with pytest.raises(BlendError, match="too much"):
        blend(prepared)


def test_progress_counts_to_the_end(prepared, report):
    calls = []
    blend(prepared, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (1, 40)
    assert calls[-1] == (40, 40)


def test_tables_are_json_and_text(report, capsys):
    tables = build_blend_tables(report)
    print_tables(tables, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in shown["members"]["rows"]] == ["first", "second", "useless"]
    assert len(shown["systems"]["rows"]) == 2 * len(SYSTEMS)
    assert {row["side"] for row in shown["sides"]["rows"]} == {"out-of-fold", "test"}
    nested = [row for row in shown["systems"]["rows"] if row["estimate"] == "nested"]
    assert nested[-1]["f1"] == report.nested[BLEND].f1.value
    print_tables(tables, as_json=False)
    assert "Ways of weighing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.03, "beats the"), (-0.01, 0.03, "does not beat"), (-0.03, -0.01, "is worse than")],
)
def test_the_verdict_follows_the_interval(report, low, high, said):
    def put(comparison):
        return replace(comparison, f1=replace(comparison.f1, low=low, high=high))

    compared = {key: put(each) for key, each in report.compared.items()}
    lines = judge_blend(replace(report, compared=compared))
    assert sum(said in line for line in lines) == 2


def test_sides_that_part_are_warned_of_and_noise_is_not():
    def side(positive_share, confidence, n_rows):
        return Side(positive_share, confidence, (), n_rows)

    assert find_partings(side(0.7, 0.8, 30_000), side(0.68, 0.79, 8_000)) == []
    both = find_partings(side(0.7, 0.8, 30_000), side(0.45, 0.7, 8_000))
    assert [line.startswith("Warning") for line in both] == [True, True]
    assert "45.0% of test rows" in both[0]
    assert find_partings(side(0.7, 0.8, 60), side(0.55, 0.7, 20)) == []
