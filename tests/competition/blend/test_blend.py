"""A blend from store to submission: the files it leaves, what they say, and what a person sees."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from competition.audit import shift
from competition.blend import blend as blend_room
from competition.blend import fit as blend_module
from competition.blend import public_noise
from competition.blend.blend import run_blend
from competition.blend.report import BlendOptions
from competition.blend.risk_tables import ExpectedShares, expect_shares, warn_of_differences
from competition.blend.search import BEST_SINGLE, BLEND, SYSTEMS
from competition.blend.spec import name_blend
from competition.blend.tables import build_blend_tables, describe_verdict
from competition.board.board import build_board_tables
from competition.console import print_tables
from competition.errors import BlendError, PredictionsError, UsageError
from competition.folds.kfold import read_prepared
from competition.predictions.store import Result, ResultKey, Store
from competition.scoring import bootstrap
from competition.scoring.assessment import Side
from competition.scoring.criteria import describe_scoring
from competition.scoring.decisions import unflatten
from competition.submission.answers import read_answers
from competition.submission.check import check_submission
from tests.competition.klue_scores import micro_f1
from tests.competition.planted import softmax
from tests.competition.predictions.test_members import fill
from tests.competition.submission.test_record import WHOLE

RUN = {"time": "2026-11-01T00:00:00+09:00"}
SIGHT = {"first": (3, 1, 0, 0), "second": (0, 1, 3, 3), "useless": (0, 0, 0, 0)}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(public_noise, "REPLICATES", 5)
    monkeypatch.setattr(bootstrap, "SUM_REPLICATES", 50)
    monkeypatch.setattr(bootstrap, "CURVE_REPLICATES", 20)


def write_variant(prepared, name, n_folds=None, save_as=None, settings=None):
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
            key=ResultKey(save_as or name, 1, fold),
            fingerprint=f"{name} {fold}",
            recipe=f"recipe of {name}",
            variant={"why": f"why {name}", **(settings or {})},
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
    checked = check_submission(report.path, prepared.competition)
    assert (checked.is_ok, checked.remarks) == (True, ())
    left = {path.name for path in report.path.parent.iterdir()}
    assert left == {f"{report.path.stem}{end}" for end in (".csv", ".json", ".run.json")}
    assert json.loads(report.path.with_suffix(".run.json").read_text()) == RUN


def test_the_json_says_what_determined_the_submission(prepared, report):
    spec = json.loads(report.path.with_suffix(".json").read_text())
    assert [member["name"] for member in spec["members"]] == ["first", "second", "useless"]
    assert spec["members"][0]["recipe"] == "recipe of first"
    assert spec["members"][0]["seeds"] == [1]
    assert spec["members"][0]["parts"] == ["first"]
    assert spec["folds_hash"] == prepared.folds.hash
    assert spec["corpus_hash"] == prepared.corpus.hash
    assert (spec["trials"], spec["seed"]) == (10, 0)
    assert spec["threshold"] == report.fit.blend.rule.threshold
    assert spec["temperature"] == report.fit.blend.temperature
    assert set(spec["fitted"]) == set(spec["nested"]) == set(SYSTEMS)
    nested = spec["nested"][BLEND]
    assert nested["f1"]["value"] == report.evaluation.nested[BLEND].primary.value
    assert nested["f1"]["low"] <= nested["f1"]["value"] <= nested["f1"]["high"]
    expected = report.evaluation.expected[BLEND]
    assert nested["expected"]["f1"]["value"] == expected.primary.value
    assert nested["expected"]["auprc"] == expected.secondary
    assert set(spec["singles"]) == set(spec["singles_fitted_f1"]) == {"first", "second", "useless"}
    assert spec["noise"][0]["pair"] == [BLEND, BEST_SINGLE]
    assert (spec["objective"], spec["reweight"]) == ("micro-f1", None)
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


def test_flattened_probabilities_are_ranked_and_labels_decided_before(
    prepared, report, monkeypatch
):
    monkeypatch.setattr(blend_module, "choose_temperature", lambda rows, weights: 2.0)
    flat = blend(prepared, name="flat")
    monkeypatch.setattr(blend_module, "choose_temperature", lambda rows, weights: 1.0)
    plain = blend(prepared, name="plain")
    specs = [json.loads(each.path.with_suffix(".json").read_text()) for each in (plain, flat)]
    assert [spec["temperature"] for spec in specs] == [1.0, 2.0]
    for name in SYSTEMS:
        assert flat.evaluation.nested[name].primary == plain.evaluation.nested[name].primary
        assert flat.evaluation.expected[name].primary == plain.evaluation.expected[name].primary
        assert flat.evaluation.nested[name].secondary != plain.evaluation.nested[name].secondary
    answers = [
        read_answers(each.path, prepared.competition.profile, 20, print) for each in (plain, flat)
    ]
    assert (answers[0].pred == answers[1].pred).all()
    np.testing.assert_allclose(unflatten(answers[1].probs, 2.0), answers[0].probs, rtol=2e-6)
    assert (answers[1].probs.max(axis=1) < answers[0].probs.max(axis=1)).all()
    # confidence is what it was, so that its warning means what it meant
    assert flat.oof_side.confidence == pytest.approx(plain.oof_side.confidence, abs=1e-6)
    assert flat.test_side.confidence == pytest.approx(plain.test_side.confidence, abs=1e-6)
    assert flat.evaluation.as_pooled == plain.evaluation.fitted[BLEND].secondary.value
    assert check_submission(flat.path, prepared.competition).remarks == ()


def test_the_temperature_is_shown_in_a_line_and_folds_that_differ_are_named(prepared, report):
    def describe(temperature, folds):
        points = tuple(replace(p, temperature=t) for p, t in zip(nested.points, folds, strict=True))
        fit = replace(
            report.fit,
            blend=replace(report.fit.blend, temperature=temperature),
            nested={**report.fit.nested, BLEND: replace(nested, points=points)},
        )
        notes = build_blend_tables(replace(report, fit=fit))[0].notes
        return next(note for note in notes if note.startswith("Probabilities"))

    nested = report.fit.nested[BLEND]
    n_folds = len(nested.points)
    assert describe(1.0, [1.0] * n_folds) == (
        "Probabilities: temperature 1; no other improves AUPRC on the fitted rows."
    )
    assert re.fullmatch(
        r"Probabilities: flattened with temperature 2 \(AUPRC \d+\.\d → \d+\.\d on the fitted"
        r" rows\); labels are decided before this\.",
        describe(2.0, [2.0] * n_folds),
    )
    differing = describe(0.7, [1.4] + [2.0] * (n_folds - 1))
    assert "sharpened with temperature 0.7" in differing
    assert "on the fitted rows; folds chose 1.4 and 2)" in differing


def test_named_variants_alone_are_blended_under_the_name_given(prepared, report):
    found = blend(prepared, ["second", "first"], name="pair")
    assert found.path.name == "pair.csv"


def test_the_order_in_which_variants_are_named_means_nothing(prepared, report):
    first, second = (blend(prepared, names) for names in (["second", "first"], ["first", "second"]))
    assert first.fit.blend.members == ("first", "second")
    assert first.path == second.path
    assert first.fit.nested[BLEND].probs.tobytes() == second.fit.nested[BLEND].probs.tobytes()


def put_difference(compared, place, paired):
    differences = list(compared.differences)
    differences[place] = paired
    return replace(compared, differences=tuple(differences))


def test_a_blend_that_loses_to_a_variant_proposes_that_variant(report):
    evaluation = report.evaluation
    lost = replace(evaluation.compared[BEST_SINGLE].primary, low=-0.02, high=-0.01)
    compared = evaluation.compared | {
        BEST_SINGLE: put_difference(evaluation.compared[BEST_SINGLE], 0, lost)
    }
    (*_, written) = build_blend_tables(
        replace(report, evaluation=replace(evaluation, compared=compared))
    )
    best = report.inputs.names[int(report.fit.fit.points[BEST_SINGLE].weights.argmax())]
    assert written.notes[-1] == f"Next: python run.py blend {best}"
    (*_, written) = build_blend_tables(report)
    assert "python run.py submit" in written.notes[-1]


def test_a_mix_that_nothing_explains_names_what_makes_the_single_variants_csv(report):
    oof = replace(report.oof_side, positive_share=0.7, n_rows=30_000)
    test = replace(report.test_side, positive_share=0.05, n_rows=8_000)
    sides = [
        t
        for t in build_blend_tables(replace(report, oof_side=oof, test_side=test))
        if t.name == "sides"
    ]
    (advice,) = [note for note in sides[0].notes if note.startswith("To write the best single")]
    assert "python run.py blend " in advice


def test_an_incomplete_variant_is_left_out_with_its_reason_or_refused_when_named(prepared):
    write_variant(prepared, "first")
    write_variant(prepared, "second", n_folds=2)
    found = blend(prepared)
    assert [each.name for each in found.inputs.left_out] == ["second"]
    (table,) = [table for table in build_blend_tables(found) if table.name == "left_out"]
    assert "lacks folds 2" in table.rows[0]["reason"]
    with pytest.raises(PredictionsError, match="lacks folds 2"):
        blend(prepared, ["first", "second"])


def test_one_variant_alone_is_said_to_be_alone(prepared):
    write_variant(prepared, "first")
    found = blend(prepared)
    assert describe_verdict(found) == [
        "first is the only member; tuned: its threshold and temperature."
    ]
    assert check_submission(found.path, prepared.competition).is_ok


def test_nothing_to_blend_leaves_nothing(prepared):
    write_variant(prepared, "first", n_folds=1)
    with pytest.raises(BlendError, match=r"python run\.py fold\n  first: .*lacks folds 1, 2"):
        blend(prepared)
    assert not prepared.competition.submissions_dir.exists()


def test_a_name_that_leaves_its_folder_is_refused_before_the_work(prepared):
    with pytest.raises(UsageError, match="cannot be a name"):
        blend(prepared, name="../blend")
    write_variant(prepared, "first")
    with pytest.raises(UsageError, match="--name first: a variant has that name"):
        blend(prepared, name="first")


def test_memory_is_checked_before_anything_is_read(prepared, monkeypatch):
    write_variant(prepared, "first")

    def refuse(n_members, oof_shape, test_shape):
        assert (n_members, oof_shape, test_shape) == (1, (64, 4), (3, 20, 4))
        raise BlendError("too much")

    monkeypatch.setattr(blend_room, "check_memory", refuse)
    monkeypatch.setattr(blend_room, "read_members", None)
    with pytest.raises(BlendError, match="too much"):
        blend(prepared)


def test_a_member_without_weight_is_among_the_left_out_with_a_reason(report):
    weights = dict(zip(report.fit.blend.members, report.fit.blend.weights, strict=True))
    tables = {table.name: table for table in build_blend_tables(report)}
    reasons = {row["name"]: row["reason"] for row in tables.get("left_out", report).rows}
    assert {name for name, weight in weights.items() if weight == 0} == set(reasons)
    assert all("gain" in reason or "lower" in reason for reason in reasons.values())


def test_a_copy_is_left_out_and_warned_of(prepared):
    write_variant(prepared, "first")
    write_variant(prepared, "second")
    write_variant(prepared, "first", save_as="first-again")
    found = blend(prepared)
    tables = {table.name: table for table in build_blend_tables(found)}
    reasons = {row["name"]: row["reason"] for row in tables["left_out"].rows}
    assert reasons["first-again"] == "a copy of first"
    assert any(
        "first and first-again make the same predictions" in note for note in tables["sides"].notes
    )
    spec = json.loads(found.path.with_suffix(".json").read_text())
    copies = [each["members"] for each in spec["alarms"] if each["kind"] == "copies"]
    assert copies == [["first", "first-again"]]


def test_rows_like_the_tests_are_shown_and_fitted_to_on_request(prepared, report):
    tables = {table.name: table for table in build_blend_tables(report)}
    shown = {row["system"]: row for row in tables["expected"].rows}
    assert list(shown) == ["first", "second", "useless", *SYSTEMS]
    low, high = shown[BLEND]["expected_f1_interval"]
    assert low < shown[BLEND]["expected_f1"] < high
    weights = report.inputs.forecast.weights
    nested = report.fit.nested[BLEND]
    found = micro_f1(
        report.inputs.rows.gold,
        nested.pred,
        report.inputs.prepared.competition.profile.negative_ids[0],
        weights,
    )
    assert shown[BLEND]["expected_f1"] == pytest.approx(found)
    assert "the predictions of 3 variants" in tables["expected"].notes[0]
    assert "Adversarial validation" in tables["expected"].notes[-1]
    assert {row["name"] for row in tables["outlook"].rows} == {"first", "second", "useless"}
    found = blend(prepared, reweight="share")
    assert found.path != report.path
    assert found.fit.blend.rule.threshold > report.fit.blend.rule.threshold
    notes = {table.name: table for table in build_blend_tables(found)}["members"].notes
    assert any("experimental" in note for note in notes)
    assert blend(prepared, reweight="odds").path not in {found.path, report.path}
    with pytest.raises(UsageError, match="choose odds or share"):
        blend(prepared, reweight="prior")


def test_without_odds_they_are_not_shown_and_cannot_be_requested(prepared, monkeypatch):
    write_variant(prepared, "first")
    write_variant(prepared, "second")
    monkeypatch.setattr(shift, "MIN_SIDE_ROWS", 1000)
    tables = {table.name: table for table in build_blend_tables(blend(prepared))}
    assert "fewer than 1000" in tables["expected"].notes[-1]
    with pytest.raises(UsageError, match="one side has 20 rows"):
        blend(prepared, reweight="odds")


def test_both_scores_as_objective_show_the_front_and_what_was_kept(prepared, report):
    found = blend(prepared, objective="both")
    tables = {table.name: table for table in build_blend_tables(found)}
    (kept,) = [row for row in tables["front"].rows if row["kept"]]
    assert kept["f1"] == found.fit.fit.points[BLEND].primary
    assert "reaches that of every start" in tables["front"].notes[0]
    assert "front" not in {table.name for table in build_blend_tables(report)}
    assert found.path != report.path


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
    systems = {row["system"]: row for row in shown["systems"]["rows"]}
    assert list(systems) == ["first", "second", "useless", *SYSTEMS]
    assert {row["side"] for row in shown["sides"]["rows"]} == {"out-of-fold", "test"}
    nested, fitted = report.evaluation.nested[BLEND], report.evaluation.fitted[BLEND]
    assert systems[BLEND]["nested_f1"] == nested.primary.value
    assert systems[BLEND]["f1_optimism"] == fitted.primary.value - nested.primary.value
    assert systems[BLEND]["auprc_optimism"] == fitted.secondary.value - nested.secondary.value
    assert systems[BEST_SINGLE]["f1_gain"] == 0
    expected = report.evaluation.compared[BEST_SINGLE]
    assert systems[BLEND]["f1_gain"] == expected.primary.difference
    assert systems[BLEND]["f1_gain_interval"] == [expected.primary.low, expected.primary.high]
    assert systems[BLEND]["auprc_gain"] == expected.secondary.difference
    print_tables(tables, as_json=False)
    assert "Members and ensembles" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.03, "beats the"), (-0.01, 0.03, "does not beat"), (-0.03, -0.01, "is worse than")],
)
def test_the_verdict_follows_the_interval(report, low, high, said):
    def put(comparison):
        return put_difference(comparison, 0, replace(comparison.primary, low=low, high=high))

    compared = {key: put(each) for key, each in report.evaluation.compared.items()}
    lines = describe_verdict(
        replace(report, evaluation=replace(report.evaluation, compared=compared))
    )
    verdicts = [line for line in lines if said in line]
    assert len(verdicts) == 2
    for line in verdicts:
        assert line.startswith("On held-out folds, the blend ")
        assert f"micro-F1 (95% {100 * low:+.2f} to {100 * high:+.2f})" in line


@pytest.mark.parametrize(("high", "is_said"), [(-0.01, True), (0.01, False)])
def test_a_worse_auprc_is_said_as_a_worse_f1_is(report, high, is_said):
    def put(comparison):
        return put_difference(comparison, 1, replace(comparison.secondary, low=-0.03, high=high))

    compared = {key: put(each) for key, each in report.evaluation.compared.items()}
    evaluation = replace(report.evaluation, compared=compared)
    lines = describe_verdict(replace(report, evaluation=evaluation))
    said = [line for line in lines if "AUPRC is worse than that of the" in line]
    assert len(said) == (2 if is_said else 0)
    assert all(f"AUPRC (95% -3.00 to {100 * high:+.2f})" in line for line in said)


def test_different_sides_raise_a_warning_and_noise_does_not():
    def side(positive_share, confidence, n_rows):
        return Side(positive_share, confidence, (), n_rows)

    assert warn_of_differences(side(0.7, 0.8, 30_000), side(0.68, 0.79, 8_000)) == []
    both = warn_of_differences(side(0.7, 0.8, 30_000), side(0.45, 0.7, 8_000))
    assert [line.startswith("Warning") for line in both] == [True, True]
    assert "45.0% of test rows" in both[0]
    assert warn_of_differences(side(0.7, 0.8, 60), side(0.55, 0.7, 20)) == []
    assert "label shift" in both[0]
    assert "has seen its out-of-fold rows" in both[1]
    (more_confident,) = warn_of_differences(side(0.7, 0.7, 30_000), side(0.7, 0.8, 8_000))
    assert "has seen" not in more_confident


def test_another_mix_is_compared_to_the_share_that_the_profile_expects(report):
    oof, test = Side(0.7, 0.8, (), 30_000), Side(0.45, 0.8, (), 8_000)
    (explained,) = warn_of_differences(oof, test, ExpectedShares(0.6, 0.43))
    assert "with 60% of negative rows in the test, as the profile says, 43.0% are" in explained
    assert "choose by expected scores" in explained
    (guessed,) = warn_of_differences(oof, test, ExpectedShares(0.6, 0.43, is_estimated=True))
    assert "in the test, as estimated, 43.0% are" in guessed
    (odd,) = warn_of_differences(oof, test, ExpectedShares(0.6, 0.65))
    assert "does not explain it" in odd
    gold, pred = report.inputs.rows.gold, report.fit.fitted[BLEND].pred
    negative = report.inputs.prepared.competition.profile.negative_ids[0]
    is_negative, weights = gold == negative, report.inputs.forecast.weights
    of_each = [
        float(np.average(pred[side] != negative, weights=weights[side]))
        for side in (is_negative, ~is_negative)
    ]
    expected = expect_shares(report)
    assert expected.positive_share == pytest.approx(0.6 * of_each[0] + 0.4 * of_each[1])
    assert expected.negative_share == 0.6
    assert not expected.is_estimated  # the profile of the fixture says it


def test_where_the_submission_lies_and_what_comes_next_is_said_last(report):
    last = build_blend_tables(report)[-1]
    assert last.notes[0] == f"Written: {report.path}"
    path = shlex.quote(str(report.path))
    assert last.notes[1] == f"Next: python run.py check {path}; python run.py submit {path}"
    prepared = report.inputs.prepared
    sample = replace(prepared, competition=replace(prepared.competition, limit=60))
    limited = replace(report, inputs=replace(report.inputs, prepared=sample))
    assert "submit" not in build_blend_tables(limited)[-1].notes[1]


def test_the_command_passes_every_option_on(prepared, report, monkeypatch):
    from typer.testing import CliRunner

    from run import app

    competition = prepared.competition
    monkeypatch.setenv("COMPETITION_HOME", str(competition.home))
    options = ["--objective", "both", "--reweight", "odds", "--trials", "2"]
    own = ["--competition", str(competition.home / "tiny.toml"), "--json", "--name", "asked"]
    done = CliRunner().invoke(app, ["blend", "first", "second", *options, *own])
    assert done.exit_code == 0, done.output
    assert {"members", "systems", "front", "expected", "noise"} <= set(json.loads(done.stdout))
    spec = json.loads((competition.submissions_dir / "asked.json").read_text())
    assert (spec["objective"], spec["reweight"]) == ("both", "odds")
    refused = CliRunner().invoke(app, ["blend", "--objective", "accuracy", *own])
    assert "choose micro-f1, auprc, both" in str(refused.exception)


def test_another_competition_untyped_with_two_folds_and_no_negative_label(foreign_competition):
    prepared = read_prepared(foreign_competition)
    store = Store(foreign_competition.oof_dir, foreign_competition.profile.labels)
    fill(store, prepared, "a")
    fill(store, prepared, "b", seeds=(2,))
    found = blend(prepared, objective="both", trials=3)
    assert found.fit.blend.rule.threshold is None
    assert check_submission(found.path, foreign_competition).is_ok
    tables = {table.name: table for table in build_blend_tables(found)}
    assert found.inputs.negative_share is None
    assert "expected_f1" in tables["expected"].rows[0]
    alone = build_blend_tables(blend(prepared, ["a"], trials=1))
    (systems,) = [table for table in alone if table.name == "systems"]
    assert [row["system"] for row in systems.rows] == ["a", BLEND]
    notes = " ".join(note for each in (*tables.values(), *alone) for note in each.notes)
    assert "threshold" not in notes
    assert "a is the only member; tuned: its temperature." in notes
    board = build_board_tables(foreign_competition, now=datetime(2026, 11, 22, tzinfo=UTC))
    assert "threshold" not in " ".join(note for table in board for note in table.notes)
    with pytest.raises(UsageError, match=r"no metrics\.shifted_negative_share"):
        blend(prepared, reweight="share")


def test_a_name_of_its_own_where_another_blend_has_it(prepared):
    competition = prepared.competition
    profile = competition.profile
    for options, always in (
        (BlendOptions(3, 0, "micro-f1"), "blend-06c49e1d"),
        (BlendOptions(3, 0, "micro-f1", "share"), "blend-c1ffeeba"),
    ):
        name = name_blend([], options, competition)
        assert name == always
        path = competition.submissions_dir / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = {**WHOLE, "objective": "micro-f1", "scored_by": describe_scoring(profile)}
        made["shifted_negative_share"] = profile.metrics.shifted_negative_share
        path.write_text(json.dumps(made), "utf-8")
        assert name_blend([], options, competition) == name, "the same again"
        for change in (
            {"objective": "accuracy"},
            {"scored_by": None, "negative_label": None},
            {"scored_by": {**made["scored_by"], "average_over": "all"}},
            *([{"shifted_negative_share": 0.9}] if options.reweight else []),
        ):
            path.write_text(json.dumps(made | change), "utf-8")
            other = name_blend([], options, competition)
            assert other != name
            assert re.fullmatch("blend-[0-9a-f]{8}", other)
        path.write_text("{", "utf-8")
        assert name_blend([], options, competition) == name, "a damaged one is replaced"
