"""compare: planted differences are found, ties are not, and rows, seeds and folds are shared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import auc as area_under
from sklearn.metrics import f1_score, precision_recall_curve

from competition.blend import fit
from competition.blend.blend import run_blend
from competition.blend.search import BLEND
from competition.blend.tables import build_blend_tables
from competition.compare import compare
from competition.compare.compare import (
    CompareOptions,
    Comparison,
    Line,
    replicate_slices,
    run_compare,
)
from competition.compare.contenders import read_contenders
from competition.compare.tables import build_compare_tables, close_comparison
from competition.console import Table, print_tables
from competition.errors import PredictionsError, UsageError
from competition.folds.kfold import Prepared, read_prepared
from competition.folds.length_routes import Routes, read_or_make_length_routes
from competition.predictions.expected_scores import forecast_test
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import read_member
from competition.predictions.store import Result, ResultKey, Store
from competition.predictions.variant_scores import (
    score_variants,
)
from competition.predictions.variants_table import build_variants_table
from competition.profile import Competition
from competition.scoring.bootstrap import (
    BOOTSTRAP_SEED,
    CURVE_REPLICATES,
    Paired,
    build_resamples,
)
from tests.competition.klue_scores import (
    auprc,
    best_threshold,
    count_hits,
    decide,
    f1_replicates,
    paired_auprc,
    paired_f1,
)
from tests.competition.planted import softmax

ROOT = Path(__file__).parents[3]
PLAIN = CompareOptions()
NEGATIVE = 1  # of the tiny competition


@pytest.fixture
def few_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "MIN_GROUPS", 5)


def write(
    prepared: Prepared,
    name: str,
    sight: float | Sequence[float] = 1.0,
    *,
    seeds: Sequence[int] = (1,),
    folds: Sequence[int] = (0, 1, 2),
    routes: tuple[Routes, str] | None = None,
    **changes: Any,
) -> None:
    """Leave a variant whose logit at each row's gold label is raised by ``sight`` of it."""
    competition, corpus = prepared.competition, prepared.corpus
    labels = competition.profile.labels
    raised = np.broadcast_to(np.asarray(sight, dtype=float), len(labels))
    for seed in seeds:
        rng = np.random.default_rng([seed, *name.encode()])
        noise = rng.normal(0, 1, (len(corpus.train), len(labels)))
        noise[np.arange(len(noise)), corpus.train.gold] += raised[corpus.train.gold]
        for fold in folds:
            rows = prepared.folds.fold_of == fold
            if routes is not None:
                rows = rows & (routes[0].train == routes[1])
            result = Result(
                key=ResultKey(name, seed, fold),
                fingerprint=f"{name} {seed} {fold}",
                recipe=f"recipe of {name}",
                variant={"why": f"why {name}"},
                labels=labels,
                data_hash=corpus.hash,
                folds_hash=prepared.folds.hash,
                route=None if routes is None else f"length:{routes[1]}",
                routes_hash=None if routes is None else routes[0].hash,
                oof_ids=corpus.train.ids[rows],
                oof_probs=softmax(noise[rows]),
                test_ids=corpus.test.ids,
                test_probs=softmax(rng.normal(0, 1, (len(corpus.test), len(labels)))),
            )
            store = Store(competition.oof_dir, labels)
            store.write(replace(result, **changes), {})


def tables_of(found: Comparison) -> dict[str, Table]:
    return {table.name: table for table in build_compare_tables(found)}


def verdicts(found: Comparison) -> dict[str, str]:
    return {row["what"]: row["verdict"] for row in tables_of(found)["overall"].rows}


def test_a_planted_difference_is_found_and_a_tie_is_not(prepared: Prepared) -> None:
    write(prepared, "sees", 4)
    write(prepared, "blind", 0)
    better = run_compare(prepared, ("sees", "blind"), PLAIN)
    on_test = [f"{measure}, expected on the test" for measure in ("micro-F1", "AUPRC")]
    assert list(verdicts(better)) == ["micro-F1", "AUPRC", *on_test]
    assert set(verdicts(better).values()) == {"A is better"}
    worse = run_compare(prepared, ("blind", "sees"), PLAIN)
    assert set(verdicts(worse).values()) == {"B is better"}
    for name in ("alike", "like"):
        write(prepared, name, 2)
    tie = run_compare(prepared, ("alike", "like"), PLAIN)
    assert set(verdicts(tie).values()) == {"no significant difference"}
    better = [build_compare_tables(found)[0].rows[0]["better"] for found in (better, worse, tie)]
    assert better == ["A", "B", None]


def test_figures_are_those_of_the_paired_bootstrap(prepared: Prepared, store: Store) -> None:
    write(prepared, "a", 2)
    write(prepared, "b", 1)
    found = run_compare(prepared, ("a", "b"), PLAIN)
    gold = prepared.corpus.train.gold
    probs = [read_member(store, name, prepared).oof for name in ("a", "b")]
    preds = [each.argmax(axis=1) for each in probs]
    many = build_resamples(prepared.groups, replicates=1000, seed=BOOTSTRAP_SEED)
    few = build_resamples(prepared.groups, replicates=200, seed=BOOTSTRAP_SEED)
    forecast = forecast_test(prepared, store)
    assert forecast is not None
    shift = forecast.weights
    expected = [
        paired_f1(gold, (preds[0], preds[1]), NEGATIVE, many),
        paired_auprc(gold, (probs[0], probs[1]), few),
        paired_f1(gold, (preds[0], preds[1]), NEGATIVE, many, shift),
        paired_auprc(gold, (probs[0], probs[1]), few, shift),
    ]
    assert [line.paired for line in found.overall] == expected
    assert found.overall[0].first == f1_score(gold, preds[0], labels=[0, 2, 3], average="micro")
    right = [pred == gold for pred in preds]
    assert found.differing == (preds[0] != preds[1]).sum()
    assert found.only_right == ((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())
    assert (found.n_rows, found.n_all, found.folds) == (64, 64, (0, 1, 2))


@pytest.mark.usefixtures("few_is_enough")
def test_each_label_has_its_own_f1_and_interval(prepared: Prepared, store: Store) -> None:
    write(prepared, "a", (5, 1, 0, 1))
    write(prepared, "b", (0, 1, 5, 1))
    found = run_compare(prepared, ("a", "b"), PLAIN)
    gold, labels = prepared.corpus.train.gold, prepared.competition.profile.labels
    preds = [read_member(store, n, prepared).oof.argmax(axis=1) for n in ("a", "b")]
    assert [line.what for line in found.by_label] == list(labels)
    for label_id, line in enumerate(found.by_label):
        each = [f1_score(gold == label_id, pred == label_id) for pred in preds]
        assert (line.first, line.second) == pytest.approx(tuple(each))
        assert line.n_rows == (gold == label_id).sum()
        assert line.paired is not None
        assert line.paired.low <= line.paired.difference <= line.paired.high
    for label_id, line in enumerate(found.areas_by_label):
        precision_recall = [
            precision_recall_curve(gold == label_id, p.probs[:, label_id]) for p in found.contenders
        ]
        areas = [area_under(recall, precision) for precision, recall, _ in precision_recall]
        assert (line.what, line.n_rows) == (labels[label_id], (gold == label_id).sum())
        assert (line.first, line.second) == pytest.approx(tuple(areas))
        assert line.paired is not None
        assert line.paired.low <= line.paired.difference <= line.paired.high
    table = tables_of(found)["label"]
    said = {row["what"]: row["verdict"] for row in table.rows}
    assert (said[labels[0]], said[labels[2]]) == ("A is better", "B is better")
    assert "one interval in twenty" in table.notes[-1]


def test_slices_are_bootstrapped_as_each_would_be_alone() -> None:
    rng = np.random.default_rng(3)
    gold, pred = rng.integers(0, 4, (2, 200))
    resamples = build_resamples(rng.integers(0, 60, 200), replicates=50, seed=1)
    masks = [gold >= 0, gold == 2, rng.random(200) < 0.3, np.zeros(200, dtype=bool)]
    hits = np.stack([count_hits(gold, pred, 1) & mask[:, None] for mask in masks])
    each = np.stack([f1_replicates(one, resamples) for one in hits])
    assert np.array_equal(replicate_slices(hits, resamples), each)
    assert (each[-1] == 0).all()


@pytest.mark.usefixtures("few_is_enough")
def test_lengths_and_sources_part_the_rows(prepared: Prepared) -> None:
    write(prepared, "a", 3)
    write(prepared, "b", 0)
    found = run_compare(prepared, ("a", "b"), PLAIN)
    parts = ["short", "medium", "long"]
    assert [line.what for line in found.by_length] == parts + [f"{each}, AUPRC" for each in parts]
    assert [line.what for line in found.by_source[:2]] == ["news", "wiki"]
    for lines in (found.by_length, found.by_source):
        assert sum(line.n_rows for line in lines) == 2 * len(prepared.corpus.train)
    sources = prepared.corpus.train.text("source")
    assert found.by_source[0].n_rows == (sources == "news").sum()
    gold, probs = prepared.corpus.train.gold, [each.probs for each in found.contenders]
    for line, part in zip(found.by_source[2:], ("news", "wiki"), strict=True):
        some = sources == part
        assert (line.first, line.second) == tuple(auprc(gold[some], p[some]) for p in probs)
        resamples = build_resamples(
            prepared.groups[some], replicates=CURVE_REPLICATES, seed=BOOTSTRAP_SEED
        )
        assert line.paired == paired_auprc(gold[some], (probs[0][some], probs[1][some]), resamples)
    assert "by characters" in tables_of(found)["length"].notes[0]
    read_or_make_length_routes(prepared, lambda rows: np.arange(len(rows)), "made-up units")
    again = run_compare(prepared, ("a", "b"), PLAIN)
    assert "made-up units" in tables_of(again)["length"].notes[0]
    assert [line.n_rows for line in again.by_length[:3]] == [22, 21, 21]


def test_too_few_groups_get_no_interval(prepared: Prepared) -> None:
    write(prepared, "a", 3)
    write(prepared, "b", 0)
    table = tables_of(run_compare(prepared, ("a", "b"), PLAIN))["label"]
    assert {row["verdict"] for row in table.rows} == {"too few rows"}
    assert {row["interval"] for row in table.rows} == {None}
    assert any("fewer than 30 groups" in note for note in table.notes)


def test_only_jobs_that_both_have_are_compared(prepared: Prepared, store: Store) -> None:
    write(prepared, "a", seeds=(1, 2, 3))
    write(prepared, "b", seeds=(2, 4), folds=(0, 2))
    first, second = read_contenders(prepared, ("a", "b"))
    assert first.seeds == second.seeds == (2,)
    expected = read_member(store, "a", prepared, seeds=(2,)).oof
    expected[prepared.folds.fold_of == 1] = np.nan
    assert np.array_equal(first.probs, expected, equal_nan=True)
    found = run_compare(prepared, ("a", "b"), PLAIN)
    assert (found.folds, found.n_rows) == ((0, 2), (prepared.folds.fold_of != 1).sum())
    only = run_compare(prepared, ("a", "b"), CompareOptions(folds=(2,)))
    assert only.folds == (2,)
    write(prepared, "c", seeds=(9,))
    with pytest.raises(PredictionsError, match=r"among folds 0,1,2: a has seed 1 folds 0,1,2, "):
        run_compare(prepared, ("a", "c"), PLAIN)


def test_an_imported_table_is_matched_by_fold_alone(prepared: Prepared, store: Store) -> None:
    table = {"why": "imported from kim.csv", "imported": {"test": "average"}}
    write(prepared, "a", seeds=(42, 43), folds=(0, 1))
    write(prepared, "kim", seeds=(0,), variant=table)
    first, second = read_contenders(prepared, ("a", "kim"))
    is_in = prepared.folds.fold_of != 2
    alone = [store.read(ResultKey("a", seed, 1)).oof_probs for seed in (42, 43)]
    in_fold = prepared.folds.fold_of == 1
    assert np.array_equal(first.probs[in_fold], average_in_log_space(alone))
    assert np.array_equal(second.probs[is_in], read_member(store, "kim", prepared).oof[is_in])
    assert np.isnan(first.probs[~is_in]).all()
    assert np.isnan(second.probs[~is_in]).all()
    assert (first.seeds, second.seeds) == ((42, 43), ())
    assert run_compare(prepared, ("kim", "a"), PLAIN).folds == (0, 1)
    write(prepared, "lee", seeds=(0,), folds=(2,), variant=table)
    assert run_compare(prepared, ("kim", "lee"), PLAIN).folds == (2,)
    said = r"among folds 0,1,2: lee has folds 2 \(imported\); a has seed 42 folds 0,1, seed 43"
    with pytest.raises(PredictionsError, match=said):
        run_compare(prepared, ("lee", "a"), PLAIN)


def test_settings_that_differ_are_listed(prepared: Prepared) -> None:
    train = {"lr": 1e-3, "epochs": 2.0}
    one = {"name": "one", "why": "first", "encoder": "ko-mini", "fp16": True, "train": train}
    other = {**one, "name": "other", "why": "second", "train": {**train, "lr": 5e-5}}
    write(prepared, "one", variant=one)
    write(prepared, "other", variant={**other, "fp16": False, "scratch": {"layers": 6}})
    write(prepared, "twin", variant={**one, "name": "twin"})
    write(prepared, "many", variant=one | {f"key{i:02}": i for i in range(12)})
    write(prepared, "linear", variant={"learner": "linear"})
    write(prepared, "table", variant={"imported": {"why": "theirs"}})

    def said(*names: str) -> str:
        notes = tables_of(run_compare(prepared, (names[0], names[1]), PLAIN))["overall"].notes
        return " ".join(note for note in notes if note.startswith("Different settings"))

    apart = "fp16 true / false, scratch.layers – / 6, train.lr 0.001 / 5e-05"
    assert said("one", "other") == f"Different settings, A / B: {apart}."
    assert said("one", "many").endswith("key09 – / 9, and 2 more.")
    assert said("one", "twin") == said("one", "linear") == said("one", "table") == ""


def test_results_of_other_data_name_both_remedies(prepared: Prepared) -> None:
    write(prepared, "a")
    write(prepared, "b", data_hash="0" * 64)
    with pytest.raises(PredictionsError, match="; or restore the old test file"):
        run_compare(prepared, ("a", "b"), PLAIN)


def test_seeds_are_averaged_in_log_space(prepared: Prepared, store: Store) -> None:
    for name in ("a", "b"):
        write(prepared, name, seeds=(1, 2))
    first, _ = read_contenders(prepared, ("a", "b"))
    alone = [read_member(store, "a", prepared, seeds=(seed,)).oof for seed in (1, 2)]
    assert np.array_equal(first.probs, average_in_log_space(alone))
    found = run_compare(prepared, ("a", "b"), PLAIN)
    assert "Averaged over the common seeds: 1, 2." in tables_of(found)["overall"].notes


def test_specialists_are_compared_alone_and_together(prepared: Prepared) -> None:
    write(prepared, "whole", 1)
    lengths = np.arange(len(prepared.corpus.train))
    routes = read_or_make_length_routes(prepared, lambda rows: lengths[: len(rows)], "rows")
    for part in ("short", "medium", "long"):
        write(prepared, part, 3, routes=(routes, part))
    alone = run_compare(prepared, ("short", "whole"), PLAIN)
    assert alone.n_rows == (routes.train == "short").sum()
    together = run_compare(prepared, ("route:length", "whole"), PLAIN)
    assert together.n_rows == len(prepared.corpus.train)
    named = run_compare(prepared, ("short,medium,long", "whole"), PLAIN)
    assert named.overall == together.overall
    write(prepared, "short-too", 3, routes=(routes, "short"))
    again = run_compare(prepared, ("route:length", "whole"), PLAIN)
    assert again.overall == together.overall
    with pytest.raises(UsageError, match=r"predict .* rows twice"):
        run_compare(prepared, ("short,short-too,medium,long", "whole"), PLAIN)


def test_specialists_of_other_routes_are_refused_as_blend_refuses_them(prepared: Prepared) -> None:
    write(prepared, "whole", 1)
    n_rows = len(prepared.corpus.train)
    routes = read_or_make_length_routes(prepared, lambda rows: np.arange(len(rows)), "rows")
    for part in ("short", "medium", "long"):
        write(prepared, part, 3, routes=(routes, part), **on_test(prepared, routes, part))
    folder = prepared.competition.oof_dir / "routes"
    for name in ("length.csv", "length.json"):
        (folder / name).unlink()
    read_or_make_length_routes(prepared, lambda rows: n_rows - np.arange(len(rows)), "other rows")
    names = ["short", "medium", "long"]
    for refuse in (
        lambda: run_compare(prepared, ("route:length", "whole"), PLAIN),
        lambda: run_compare(prepared, ("whole", "short"), PLAIN),
        lambda: run_blend(
            prepared.competition, ["whole", *names], trials=1, seed=0, name="b", run={}
        ),
    ):
        with pytest.raises(PredictionsError, match="other length routes"):
            refuse()


def test_a_blend_of_specialists_is_made_of_those_it_names(prepared: Prepared) -> None:
    write(prepared, "whole", 1)
    lengths = np.arange(len(prepared.corpus.train))
    routes = read_or_make_length_routes(prepared, lambda rows: lengths[: len(rows)], "rows")
    for part in ("short", "medium", "long"):
        for end in ("", "-warm"):
            write(prepared, part + end, 3, routes=(routes, part), **on_test(prepared, routes, part))
    blends = {
        "named": ["whole", "short-warm", "medium", "long"],
        "all": [],
    }
    for name, variants in blends.items():
        made = run_blend(prepared.competition, variants, trials=2, seed=3, name=name, run={})
        spec = json.loads(made.path.with_suffix(".json").read_text())
        parts = {member["name"]: member["parts"] for member in spec["members"]}
        assert parts["whole"] == ["whole"]
        assert set(parts) == (
            {"whole", "route:length"}
            if variants
            else {"whole", "route:length", "route:length-warm"}
        )
        assert parts["route:length"] == sorted(variants[1:] or ["long", "medium", "short"])
        found = run_compare(prepared, (name, "whole"), CompareOptions(threshold=True))
        assert found.overall[0].first == spec["nested"][BLEND]["f1"]["value"]
    warm = run_compare(prepared, ("route:length-warm", "whole"), PLAIN)
    named = run_compare(prepared, ("short-warm,medium-warm,long-warm", "whole"), PLAIN)
    assert warm.overall == named.overall


def on_test(prepared: Prepared, routes: Routes, part: str) -> dict[str, Any]:
    """Return the test rows of one part, as its specialist answers for them."""
    ids = prepared.corpus.test.ids[routes.test == part]
    n_labels = prepared.competition.profile.n_labels
    return {"test_ids": ids, "test_probs": softmax(np.zeros((len(ids), n_labels)))}


def test_a_blend_is_ranked_flattened(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "choose_temperature", lambda rows, weights: 2.0)
    for name in ("a", "b"):
        write(prepared, name, 2)
    made = run_blend(prepared.competition, ["a", "b"], trials=2, seed=3, name="both", run={})
    nested = made.fit.nested[BLEND]
    flat = run_compare(prepared, ("both", "a"), CompareOptions(threshold=True))
    assert np.array_equal(flat.contenders[0].probs, nested.probs)
    assert "temperatures" not in " ".join(tables_of(flat)["overall"].notes)
    chosen = iter([1.0, 2.0] * 20)
    monkeypatch.setattr(fit, "choose_temperature", lambda rows, weights: next(chosen))
    parted = run_compare(prepared, ("both", "a"), CompareOptions(threshold=True))
    notes = " ".join(tables_of(parted)["overall"].notes)
    assert ("A's folds chose temperatures 1 and 2" in notes) == (
        len(set(parted.contenders[0].temperatures)) > 1
    )


def test_thresholds_are_tuned_on_the_other_folds(prepared: Prepared, store: Store) -> None:
    write(prepared, "a", 2)
    write(prepared, "b", 1)
    found = run_compare(prepared, ("a", "b"), CompareOptions(threshold=True))
    gold, probs = prepared.corpus.train.gold, read_member(store, "a", prepared).oof
    pred = np.empty(len(gold), dtype=np.int64)
    for fold in range(3):
        held = prepared.folds.fold_of == fold
        threshold, _ = best_threshold(probs[~held], gold[~held], NEGATIVE)
        assert found.rules["a"][fold].threshold == threshold
        pred[held] = decide(probs[held], NEGATIVE, threshold)
    expected = f1_score(gold, pred, labels=[0, 2, 3], average="micro")
    assert found.overall[0].first == pytest.approx(expected)
    assert "on the other folds (A 0." in " ".join(tables_of(found)["overall"].notes)
    with pytest.raises(UsageError, match="one fold in common"):
        run_compare(prepared, ("a", "b"), CompareOptions(folds=(0,), threshold=True))


@pytest.mark.parametrize(
    "how",
    [{}, {"objective": "both"}, {"reweight": "share"}, {"reweight": "odds"}],
)
def test_a_blend_is_compared_by_its_nested_answers(prepared: Prepared, how: dict[str, Any]) -> None:
    write(prepared, "a", (3, 1, 0, 0))
    write(prepared, "b", (0, 1, 3, 3))
    made = run_blend(prepared.competition, ["a", "b"], trials=6, seed=3, name="both", run={}, **how)
    heard: list[tuple[int, int]] = []
    options = CompareOptions(threshold=True)
    found = run_compare(prepared, ("both", "a"), options, lambda *at: heard.append(at))
    total = 6 * 3
    assert 0 < heard[-1][0] <= heard[-1][1] == total  # one member alone needs no search
    nested = made.fit.nested[BLEND]
    assert np.array_equal(found.contenders[0].probs, nested.probs)
    assert np.array_equal(found.contenders[0].blend_pred, nested.pred)
    spec = json.loads(made.path.with_suffix(".json").read_text())["nested"][BLEND]
    assert found.overall[0].first == spec["f1"]["value"]
    assert found.overall[1].first == spec["auprc"]["value"]
    assert "nested" in " ".join(tables_of(found)["overall"].notes)


def test_a_reweighted_blend_is_recomputed_with_the_share_it_was_made_for(
    prepared: Prepared,
) -> None:
    for name in ("a", "b"):
        write(prepared, name, (3, 1, 0, 0) if name == "a" else (0, 1, 3, 3))
    how: dict[str, Any] = {"trials": 0, "seed": 3, "name": "both", "run": {}, "reweight": "share"}
    made = run_blend(prepared.competition, ["a", "b"], **how)
    rules = prepared.competition.profile.metrics.model_copy(update={"shifted_negative_share": 0.01})
    profile = prepared.competition.profile.model_copy(update={"metrics": rules})
    today = replace(prepared, competition=replace(prepared.competition, profile=profile))
    first, _ = read_contenders(today, ("both", "a"))
    assert np.array_equal(first.blend_pred, made.fit.nested[BLEND].pred)


def test_a_blend_whose_weights_were_shrunk_is_refused(prepared: Prepared) -> None:
    for name in ("a", "b"):
        write(prepared, name, 2)
    made = run_blend(prepared.competition, ["a", "b"], trials=2, seed=3, name="both", run={})
    path = made.path.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "shrink": True}), "utf-8")
    with pytest.raises(PredictionsError, match="made with --shrink"):
        run_compare(prepared, ("both", "a"), CompareOptions())


def test_a_blend_that_is_no_longer_what_it_was_is_refused(prepared: Prepared) -> None:
    for name in ("a", "b"):
        write(prepared, name, 2)
    made = run_blend(prepared.competition, ["a", "b"], trials=2, seed=3, name="both", run={})
    spec = made.path.with_suffix(".json")
    other = json.loads(spec.read_text("utf-8")) | {"scored_by": None, "negative_label": None}
    spec.write_text(json.dumps(other), "utf-8")
    with pytest.raises(PredictionsError, match="made with other metrics or negative labels"):
        run_compare(prepared, ("both", "a"), PLAIN)
    spec.write_text(json.dumps(other | {"negative_label": "no_relation"}), "utf-8")
    with pytest.raises(UsageError, match="variants: a, b; blends: both"):
        run_compare(prepared, ("bath", "a"), PLAIN)
    for end in (".csv", ".json"):
        shutil.copy(made.path.with_suffix(end), made.path.with_name(f"a{end}"))
    with pytest.raises(UsageError, match="a is the name of a variant and of a blend"):
        run_compare(prepared, ("both", "a"), PLAIN)
    made.path.with_name("a.json").unlink()
    write(prepared, "b", 2, recipe="another")
    with pytest.raises(PredictionsError, match="was made with another b than the one in the store"):
        run_compare(prepared, ("both", "a"), PLAIN)
    made.path.with_suffix(".json").write_text(json.dumps({"kind": "blend"}))
    with pytest.raises(PredictionsError, match=r"does not describe a blend \(threshold"):
        run_compare(prepared, ("both", "a"), PLAIN)
    made.path.with_suffix(".json").write_text(json.dumps({"kind": "another tool"}))
    with pytest.raises(PredictionsError, match="does not describe a blend"):
        run_compare(prepared, ("both", "a"), PLAIN)


def test_what_was_tuned_on_these_folds_is_said(prepared: Prepared) -> None:
    tune = {"folds": [0], "trials": 20, "study": "s"}
    write(prepared, "tuned", variant={"why": "tuned", "tune": tune})
    write(prepared, "plain")
    notes = tables_of(run_compare(prepared, ("plain", "tuned"), PLAIN))["overall"].notes
    assert "B was tuned on folds 0: optimistic there" in notes[-1]
    assert "--folds 1,2" in notes[-1]
    write(prepared, "elsewhere", variant={"why": "tuned", "tune": tune | {"folds_hash": "others"}})
    notes = tables_of(run_compare(prepared, ("plain", "elsewhere"), PLAIN))["overall"].notes
    assert "B was tuned on rows of other folds; no fold here is free of it." in notes
    scores = score_variants(prepared, ["tuned", "elsewhere"])
    told = " ".join(build_variants_table(prepared, scores).notes)
    assert "tuned was tuned on folds 0, whose scores are too good." in told
    assert "elsewhere was tuned on rows of other folds" in told
    clean = run_compare(prepared, ("plain", "tuned"), CompareOptions(folds=(1, 2)))
    assert not any("flatters" in note for note in tables_of(clean)["overall"].notes)
    blended = run_blend(
        prepared.competition, ["plain", "tuned"], trials=2, seed=3, name="both", run={}
    )
    said = " ".join(note for table in build_blend_tables(blended) for note in table.notes)
    assert "tuned was tuned on folds 0: every score that includes it" in said
    assert "plain was tuned" not in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_hash": "x"}, "other data"),
        ({"folds_hash": "x"}, "other folds"),
        ({"recipe": "x"}, "another recipe"),
    ],
)
def test_results_that_do_not_belong_are_refused(
    prepared: Prepared, change: dict[str, Any], said: str
) -> None:
    for name in ("a", "b"):
        write(prepared, name)
    write(prepared, "b", folds=(1,), **change)
    with pytest.raises(PredictionsError, match=said):
        run_compare(prepared, ("a", "b"), PLAIN)


def test_a_file_with_rows_missing_is_refused(prepared: Prepared) -> None:
    for name in ("a", "b"):
        write(prepared, name)
    n_labels = prepared.competition.profile.n_labels
    ids, probs = prepared.corpus.train.ids[:1], softmax(np.zeros((1, n_labels)))
    write(prepared, "b", folds=(1,), oof_ids=ids, oof_probs=probs)
    with pytest.raises(
        PredictionsError,
        match=r"s1-f1.parquet, oof rows: id .* does not belong in this file",
    ):
        run_compare(prepared, ("a", "b"), PLAIN)


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("a", "a"), PLAIN, "given twice"),
        (("a", "nobody"), PLAIN, "'nobody' has no out-of-fold rows .* variants: a, b"),
        (("a", "route:length"), PLAIN, "route:length"),
        (("a", "../b"), PLAIN, "cannot be a name"),
        (("a", "b"), CompareOptions(folds=(3,)), "the folds are 0 to 2"),
    ],
)
def test_what_cannot_be_compared_is_said(
    prepared: Prepared, names: tuple[str, str], options: CompareOptions, said: str
) -> None:
    for name in ("a", "b"):
        write(prepared, name)
    with pytest.raises(UsageError, match=said):
        run_compare(prepared, names, options)


def test_untyped_rows_without_source_or_negative_label(foreign_competition: Competition) -> None:
    prepared = read_prepared(foreign_competition)
    for name, sight in (("a", 4), ("b", 0)):
        write(prepared, name, sight, folds=(0, 1))
    found = run_compare(prepared, ("a", "b"), PLAIN)
    assert verdicts(found) == {
        "micro-F1": "A is better",
        "AUPRC": "A is better",
        "micro-F1, expected on the test": "A is better",
        "AUPRC, expected on the test": "A is better",
    }
    assert set(tables_of(found)) == {"overall", "length", "label", "area"}
    with pytest.raises(UsageError, match="no negative label"):
        run_compare(prepared, ("a", "b"), CompareOptions(threshold=True))


def test_the_command_prints_tables_and_json_without_torch(prepared: Prepared) -> None:
    home = prepared.competition.home
    write(prepared, "a", 3)
    write(prepared, "b", 0)
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit(str({'torch', 'transformers'} & set(sys.modules) or '') or 0)\n"
    )
    arguments = [str(ROOT / "run.py"), "compare", "a", "b", "--json", "--folds", "0,2"]
    arguments += ["--competition", str(home / "tiny.toml")]
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = {arguments!r}\n{code}"],
        cwd=ROOT,
        env={**os.environ, "COMPETITION_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    printed = json.loads(answer.stdout)
    assert set(printed) == {"overall", "length", "source", "label", "area"}
    row = printed["overall"]["rows"][0]
    assert row["verdict"] == "A is better"
    assert row["interval"][0] > 0
    assert "folds 0, 2" in printed["overall"]["notes"][0]


def test_what_a_person_sees(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    write(prepared, "a", 3)
    write(prepared, "b", 0)
    print_tables(build_compare_tables(run_compare(prepared, ("a", "b"), PLAIN)), as_json=False)
    printed = capsys.readouterr().out
    assert "A = a, B = b" in printed
    assert any(line.split()[-1:] == ["A"] for line in printed.splitlines())
    assert printed.count("no significant difference") == 1


def test_intervals_include_the_spread_between_seeds(prepared: Prepared, store: Store) -> None:
    write(prepared, "a", 2)
    write(prepared, "b", 1)
    alone = run_compare(prepared, ("a", "b"), PLAIN)
    assert alone.seed_effect is None
    assert "how far another seed would move the scores is unknown" in notes_of(alone)
    write(prepared, "many", 2, seeds=(1, 2, 3))
    found = run_compare(prepared, ("a", "b"), PLAIN)
    effect = found.seed_effect
    assert effect is not None
    assert (effect.variants, effect.freedom) == (("many",), 6)  # three folds, two for each

    spread = 0.0
    gold, fold_of = prepared.corpus.train.gold, prepared.folds.fold_of
    seeds = [read_member(store, "many", prepared, seeds=(seed,)).oof for seed in (1, 2, 3)]
    for fold in range(3):
        rows = fold_of == fold
        scores = [auprc(gold[rows], probs[rows]) for probs in seeds]
        spread += float(np.var(scores, ddof=1)) / 3
    assert effect.deviations[1] == pytest.approx(np.sqrt(2 * spread / 3))  # both sides, 3 folds
    for before, after in zip(alone.overall[:2], found.overall[:2], strict=True):
        assert before.paired is not None
        assert after.paired is not None
        assert after.paired.low < before.paired.low
        assert after.paired.high > before.paired.high
        assert after.first == before.first
    assert "from many" in notes_of(found)
    twice = run_compare(prepared, ("many", "b"), PLAIN).seed_effect
    assert twice is not None  # of one seed, as only that is common
    assert twice.deviations == pytest.approx(effect.deviations)
    write(prepared, "uneven", 2, seeds=(1, 2), folds=(0,))
    write(prepared, "uneven", 2, seeds=(1,), folds=(1, 2))
    assert "How far" not in notes_of(found)
    mixed = run_compare(prepared, ("many", "uneven"), PLAIN).seed_effect
    assert mixed is not None  # two seeds of one fold, one of the others: (1/2 + 1 + 1) / 9
    assert mixed.deviations[1] < effect.deviations[1]


def test_the_contender_whose_seeds_are_unknown_is_named(prepared: Prepared) -> None:
    write(prepared, "network", 2, seeds=(1, 2, 3))
    write(prepared, "single", 2, variant={"why": "", "learner": "linear"})
    found = run_compare(prepared, ("network", "single"), PLAIN)
    assert found.seed_effect is not None
    assert found.seed_effect.unknown == ("single",)
    assert "include the seed of network, which" in notes_of(found)
    assert "How far another seed would move single is unknown and left out" in notes_of(found)


def test_seeds_of_specialists_count_for_rows_of_their_route_alone(prepared: Prepared) -> None:
    lengths = np.arange(len(prepared.corpus.train))
    routes = read_or_make_length_routes(prepared, lambda rows: lengths[: len(rows)], "rows")
    for name in ("a", "b"):
        write(prepared, name, 2)
    for seed in (1, 2, 3):
        write(prepared, "short", seed, seeds=(seed,), routes=(routes, "short"))
    assert run_compare(prepared, ("a", "b"), PLAIN).seed_effect is None
    write(prepared, "many", 2, seeds=(1, 2, 3))
    whole = run_compare(prepared, ("a", "b"), PLAIN).seed_effect
    assert whole is not None
    assert whole.variants == ("many",)
    own = run_compare(prepared, ("short", "a"), PLAIN).seed_effect
    assert own is not None
    assert own.variants == ("many", "short")  # "many" too is scored on the short rows
    write(prepared, "medium", 2, routes=(routes, "medium"))
    found = run_compare(prepared, ("medium", "a"), PLAIN).seed_effect
    assert found is not None
    assert found.variants == ("many",)
    assert found.deviations[1] != pytest.approx(whole.deviations[1])


def test_seeds_of_other_rows_and_of_tables_say_nothing(prepared: Prepared, store: Store) -> None:
    for name in ("a", "b"):
        write(prepared, name, 2)
    write(prepared, "old", 2, seeds=(1, 2, 3), data_hash="of other rows")
    write(
        prepared, "table", 2, seeds=(1, 2, 3), variant={"why": "", "imported": {"test": "average"}}
    )
    write(prepared, "few", 2, seeds=(1, 2), folds=(0,))
    write(prepared, "damaged", 2, seeds=(1, 2, 3))
    store.path(ResultKey("damaged", 2, 1)).write_bytes(b"PAR1")
    write(prepared, "linear", 2, seeds=(1, 2, 3), variant={"why": "", "learner": "linear"})
    write(prepared, "routed", 2, seeds=(1, 2, 3), route="length:short", routes_hash="gone")
    assert run_compare(prepared, ("a", "b"), PLAIN).seed_effect is None


def notes_of(found: Comparison) -> str:
    return " ".join(build_compare_tables(found)[0].notes)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((-0.01, 0.02), (-0.01, 0.02), "no significant difference between x and y: F"),
        ((-0.01, 0.02), (0.01, 0.02), "no significant difference between x and y by F, but x is"),
        ((-0.01, 0.02), (-0.02, -0.01), "between x and y by F, but y is better by P; A minus B: F"),
        ((0.01, 0.02), (-0.02, -0.01), "x is better than y; A minus B: F"),
    ],
)
def test_the_verdict_names_the_measure_that_differs(
    first: tuple[float, float], second: tuple[float, float], verdict: str
) -> None:
    lines = [
        Line(what, 9, 0.5, 0.5, Paired(0.0, *ends, 0.5))
        for what, ends in (("F", first), ("P", second))
    ]
    contenders = (SimpleNamespace(name="x"), SimpleNamespace(name="y"))
    found = SimpleNamespace(contenders=contenders, overall=lines)
    assert verdict in close_comparison(found)  # type: ignore[arg-type]
