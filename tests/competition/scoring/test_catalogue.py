"""Every metric equals scikit-learn's, in replicates and on weighted rows too; SemEval's by hand."""

from __future__ import annotations

from fractions import Fraction
from zlib import crc32

import numpy as np
import pytest
from sklearn import metrics as sk

from competition.errors import ProfileError
from competition.profile import read_bundled
from competition.profile_scoring import MetricRules
from competition.scoring.bootstrap import build_resamples, compare_pair, replicate
from competition.scoring.criteria import assemble_criteria, build_criteria
from competition.scoring.decisions import ARGMAX, Rule, decide, fit_rule
from competition.scoring.metrics.catalogue import METRICS, build_metric
from competition.scoring.metrics.metric import Task

N_LABELS, N_ROWS = 5, 300
NEGATIVE = (0, 3)  # several labels may be negative


def test_an_unknown_score_is_no_zero() -> None:
    criteria = assemble_criteria("log-loss", "auprc", Task(3))
    assert criteria.write({"log_loss": -0.0, "auprc": float("nan")}) == "log-loss 0.0000, AUPRC –"
    assert criteria.write({"log_loss": None}) == "log-loss –, AUPRC –"


def by_sklearn(name, gold, probs, pred, weights):
    """Compute a metric with scikit-learn, with two negative labels where F1 is meant."""
    counted = [i for i in range(N_LABELS) if i not in NEGATIVE]
    options = {"sample_weight": weights}
    if name.endswith("-f1"):
        average = name.removesuffix("-f1")
        return sk.f1_score(gold, pred, labels=counted, average=average, zero_division=0, **options)
    if name == "accuracy":
        return sk.accuracy_score(gold, pred, **options)
    if name == "kappa":
        return sk.cohen_kappa_score(gold, pred, **options)
    if name == "mcc":
        return sk.matthews_corrcoef(gold, pred, **options)
    if name == "log-loss":
        return -sk.log_loss(gold, probs, labels=list(range(N_LABELS)), **options)
    areas = []
    for label_id in range(N_LABELS):
        is_gold = gold == label_id
        if name == "average-precision":
            areas.append(sk.average_precision_score(is_gold, probs[:, label_id], **options))
        else:
            curve = sk.precision_recall_curve(is_gold, probs[:, label_id], **options)
            areas.append(sk.auc(curve[1], curve[0]))
    return np.mean(areas)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    gold = rng.choice(N_LABELS, N_ROWS, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    probs = rng.dirichlet(np.ones(N_LABELS), N_ROWS).round(2) + 0.004
    probs[np.arange(N_ROWS), gold] += 0.3
    probs /= probs.sum(axis=1, keepdims=True)
    return gold, probs, probs.argmax(axis=1), rng.random(N_ROWS)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_equals_scikit_learns(rows, name):
    gold, probs, pred, weights = rows
    metric = build_metric(name, Task(N_LABELS, NEGATIVE))
    for own in (None, weights):
        expected = by_sklearn(name, gold, probs, pred, own)
        assert metric.score(gold, (probs, pred), own) == pytest.approx(expected, abs=1e-12)
    expected = by_sklearn(name, gold, probs, pred, weights)
    assert metric.weigher(gold, (probs, pred))(weights) == pytest.approx(expected, abs=1e-12)
    low, high = metric.kind.bounds
    assert low <= expected <= high


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_replicate_is_the_score_of_the_rows_drawn(rows, name, weighted):
    gold, probs, pred, weights = rows
    metric = build_metric(name, Task(N_LABELS, NEGATIVE))
    resamples = build_resamples(np.arange(N_ROWS) // 3, replicates=4, seed=1)
    own = weights if weighted else None
    found = replicate(metric, gold, (probs, pred), resamples, own)
    for i, drawn in enumerate(np.concatenate(list(resamples.chunks()))[:, resamples.group_of]):
        again = np.repeat(np.arange(N_ROWS), drawn.astype(int))
        w = None if own is None else own[again]
        expected = metric.score(gold[again], (probs[again], pred[again]), w)
        assert found[i] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_a_better_system_has_a_positive_difference(rows, name):
    gold, probs, _, _ = rows
    metric = build_metric(name, Task(N_LABELS, NEGATIVE))
    better = 0.5 * probs + 0.5 * np.eye(N_LABELS)[gold]
    systems = [(each, each.argmax(axis=1)) for each in (better, probs)]
    resamples = build_resamples(np.arange(N_ROWS), replicates=50, seed=0)
    assert compare_pair(metric, gold, (systems[0], systems[1]), resamples).low > 0
    assert (metric.kind.write(-0.5) == "0.5000") == (name == "log-loss")


# Answers of SemEval-2010 Task 8 with every kind of error, as (gold, answer)
SEMEVAL = [
    ("Cause-Effect(e1,e2)", "Cause-Effect(e1,e2)"),  # right
    ("Cause-Effect(e1,e2)", "Cause-Effect(e1,e2)"),
    ("Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)"),  # the relation is right, the direction wrong
    ("Cause-Effect(e2,e1)", "Component-Whole(e2,e1)"),  # another relation
    ("Component-Whole(e1,e2)", "Component-Whole(e1,e2)"),
    ("Component-Whole(e2,e1)", "Other"),  # missed
    ("Component-Whole(e2,e1)", "Component-Whole(e1,e2)"),
    ("Message-Topic(e1,e2)", "Other"),  # a relation of which nothing is found
    ("Member-Collection(e1,e2)", "Member-Collection(e1,e2)"),
    ("Other", "Other"),
    ("Other", "Cause-Effect(e2,e1)"),  # found where there is none
    ("Other", "Product-Producer(e1,e2)"),  # a relation that the key does not have
]


def test_semeval_2010_task_8_by_hand():
    """Precision and recall of a relation join both directions, a hit needs the right one.

    Cause-Effect: 2 of 4 answered and of 4 in the key; Component-Whole: 1 of 3 and of 3;
    Member-Collection 1 of 1 and of 1; Message-Topic 0 of 1. The mean is over the four relations of
    the key: Product-Producer has no row there, and Other is not counted.
    """
    profile = read_bundled("semeval-2010-8")
    gold, pred = (np.array([profile.label_ids[pair[side]] for pair in SEMEVAL]) for side in (0, 1))
    found = build_criteria(profile).primary.score(gold, (np.zeros((len(gold), 19)), pred))
    by_relation = [Fraction(1, 2), Fraction(1, 3), Fraction(1), Fraction(0)]
    assert found == pytest.approx(float(sum(by_relation) / 4))
    both = np.concatenate([gold, gold]), np.concatenate([gold, pred])
    halved = build_criteria(profile).primary.score(both[0], (np.zeros((24, 19)), both[1]))
    again = [Fraction(2 * 6, 8 + 8), Fraction(2 * 4, 6 + 6), Fraction(1), Fraction(2, 3)]
    assert halved == pytest.approx(float(sum(again) / 4))


# Figures that the task's official scorer (version 1.2) printed for the answers of
# ``answer_semeval`` by kind, number and rows; in "skipped", some of those that are Other were left
# out of the file
OFFICIAL = {
    ("random", 1, 300): "2.79",
    ("mixed", 2, 300): "49.84",
    ("mixed", 3, 40): "28.96",
    ("turned", 4, 300): "0.00",
    ("skipped", 5, 300): "33.82",
    ("no Other in the key", 6, 120): "46.27",
    ("few relations in the key", 7, 60): "53.08",
    ("all Other", 8, 40): "0.00",
    ("right", 9, 40): "100.00",
}


def answer_semeval(kind, number, n_rows):
    """Make up a key and answers, (N,) label ids each; a skipped row counts as Other."""
    other = 18

    def draw(what, below):
        return [crc32(f"{number} {what} {row}".encode()) % below for row in range(n_rows)]

    gold, wild, luck = (
        np.array(draw(*each)) for each in (("gold", 19), ("wild", 19), ("luck", 10))
    )
    if kind == "no Other in the key":
        gold %= 18
    if kind == "few relations in the key":
        gold = np.where(gold % 3, other, gold % 6)
    turned = np.where(gold == other, other, gold ^ 1)
    pred = {"random": wild, "turned": turned, "right": gold, "all Other": np.full(n_rows, other)}
    mixed = np.where(luck < 5, gold, np.where(luck < 7, turned, wild))
    if kind == "skipped":
        mixed = np.where(luck % 3, mixed, other)
    return gold, pred.get(kind, mixed)


@pytest.mark.parametrize(("answers", "official"), OFFICIAL.items())
def test_semeval_2010_task_8_as_its_official_scorer(answers, official):
    gold, pred = answer_semeval(*answers)
    primary = build_criteria(read_bundled("semeval-2010-8")).primary
    assert primary.kind.write(primary.score(gold, (np.zeros((len(gold), 19)), pred))) == official


def test_labels_and_the_classes_averaged_are_chosen(rows):
    gold, probs, pred, _ = rows
    chosen = build_metric("macro-f1", Task(N_LABELS, (), counted=(1, 4)))
    expected = sk.f1_score(gold, pred, labels=[1, 4], average="macro")
    assert chosen.score(gold, (probs, pred)) == pytest.approx(expected)
    few = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    scores = {
        averaged: build_metric("macro-f1", Task(4, averaged=averaged)).score(few[0], (None, few[1]))
        for averaged in ("gold", "seen", "all")
    }
    each = 1 + 2 / 3  # the F1 of label 0 and of label 1; label 2 is answered once, 3 never
    assert scores == pytest.approx({"gold": each / 2, "seen": each / 3, "all": each / 4})


def test_the_power_of_the_shares_finds_rare_labels_and_is_0_where_it_gains_nothing():
    rng = np.random.default_rng(1)
    shares = np.array([0.7, 0.2, 0.07, 0.03])
    gold = rng.choice(4, 4000, p=shares)
    logits = rng.normal(0, 1, (4000, 4)) + np.log(shares)
    logits[np.arange(4000), gold] += 1.5
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    metric = build_metric("macro-f1", Task(4))
    rule, score = fit_rule("prior", metric, (probs, gold), ())
    assert rule.power is not None
    assert rule.power > 0
    assert score == metric.score(gold, (probs, decide(probs, (), rule)))
    assert score > metric.score(gold, (probs, decide(probs))) + 0.02
    sure = 0.9 * np.eye(4)[gold] + 0.025
    assert fit_rule("prior", metric, (sure, gold), ())[0].power == 0
    accuracy = build_metric("accuracy", Task(4))
    assert fit_rule("argmax", accuracy, (probs, gold), ())[0] == ARGMAX


def test_below_the_threshold_the_best_of_several_negative_labels_is_given():
    probs = np.array([[0.2, 0.35, 0.1, 0.35], [0.1, 0.5, 0.3, 0.1], [0.4, 0.3, 0.2, 0.1]])
    assert decide(probs, (0, 3), Rule(0.4)).tolist() == [3, 1, 0]
    micro = build_metric("micro-f1", Task(4, (0, 3)))
    gold = np.array([0, 1, 0])
    rule, score = fit_rule("threshold", micro, (probs, gold), (0, 3))
    assert score == 1.0
    assert 0.35 < (rule.threshold or 0) < 0.5


def with_metrics(**rules):
    return read_bundled("klue-re").model_copy(update={"metrics": MetricRules(**rules)})


def test_the_profile_chooses_and_what_it_cannot_mean_is_refused():
    plain = build_criteria(with_metrics())
    assert [kind.name for kind in plain.kinds] == ["micro-f1", "auprc"]
    assert (plain.rule, plain.objectives) == ("threshold", ("micro-f1", "auprc", "both"))
    alone = build_criteria(with_metrics(primary="accuracy"))
    assert (alone.secondary, alone.rule, alone.objectives) == (None, "argmax", ("accuracy",))
    assert build_criteria(with_metrics(primary="macro-f1")).rule == "prior"
    both = build_criteria(with_metrics(primary="log-loss", secondary="micro-f1"))
    assert (both.rule, both.ranked, both.decided) == ("threshold", both.primary, both.secondary)
    for rules, said in (
        ({"primary": "f1"}, "metrics.primary: there is no metric 'f1'; choose micro-f1, macro-f1"),
        ({"primary": "mcc", "secondary": "mcc"}, "is the primary metric already"),
        ({"primary": "mcc", "labels": ("per:title",)}, "metrics.labels: only macro-f1"),
    ):
        with pytest.raises(ProfileError, match=said):
            build_criteria(with_metrics(**rules))
