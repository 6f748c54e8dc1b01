"""Test whether one variant or blend is better than another: the entry point of ``run.py compare``.

Both contenders are scored on the rows that both predict, under the same decision rule, with a
paired bootstrap over groups. Subsets of the rows and single labels show where a difference comes
from.

Legend: N rows compared, C labels, G groups, K folds, R replicates, S slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.arrays import Bools, Floats, Ints, Objects
from competition.compare.contenders import Contender, read_contenders
from competition.compare.seed_spread import (
    SeedEffect,
    combine_spreads,
    measure_seed_spreads,
    widen,
)
from competition.errors import UsageError
from competition.folds.kfold import Prepared
from competition.folds.length_routes import build_borders, read_or_make_length_routes, route_lengths
from competition.predictions.expected_scores import forecast_test
from competition.predictions.store import open_store
from competition.scoring.assessment import build_assessor
from competition.scoring.assessment import compare as pair_scores
from competition.scoring.bootstrap import (
    BOOTSTRAP_SEED,
    LEVEL,
    SUM_REPLICATES,
    Paired,
    Resamples,
    build_resamples,
    compare_pair,
    count_replicates,
    pair,
    replicate_areas,
)
from competition.scoring.criteria import Criteria, build_criteria
from competition.scoring.decisions import Rule, decide, fit_rule
from competition.scoring.metrics.metric import Metric, MetricKind, Predicted
from competition.scoring.metrics.micro_f1 import MICRO_F1, MicroF1

MIN_GROUPS = 30  # groups with a gold row, for a slice to get an interval


@dataclass(frozen=True)
class CompareOptions:
    """How to compare.

    Attributes:
        folds: only these; empty takes all that both have.
        threshold: use decision rules tuned on the other folds instead of the most probable label.
    """

    folds: tuple[int, ...] = ()
    threshold: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of both contenders on a slice; ``paired`` is None if it has too few groups.

    ``n_rows`` counts the rows of the slice, or the gold rows of a label. Scores are oriented so
    that higher is better; ``kind`` says how people read them.
    """

    what: str
    n_rows: int
    first: float
    second: float
    paired: Paired | None
    kind: MetricKind = MICRO_F1


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison; ``tables`` prints it.

    ``by_length`` and ``by_source`` hold each metric of each part; ``by_label`` the F1 of each
    label, ``areas_by_label`` the area under its curve, if a metric is made of these;
    ``only_right`` counts rows that only one predicts correctly, ``differing`` rows with different
    predictions. ``rules`` maps a variant to its decision rule in each fold; empty without
    ``--threshold``. ``seed_effect`` is in the intervals of ``overall``, None if it is unknown.
    """

    criteria: Criteria
    contenders: tuple[Contender, Contender]
    overall: tuple[Line, ...]
    by_length: tuple[Line, ...]
    by_source: tuple[Line, ...]
    by_label: tuple[Line, ...]
    areas_by_label: tuple[Line, ...]
    n_rows: int
    n_all: int
    folds: tuple[int, ...]
    differing: int
    only_right: tuple[int, int]
    by_threshold: bool
    rules: dict[str, tuple[Rule, ...]]
    length_unit: str
    seed_effect: SeedEffect | None


def run_compare(
    prepared: Prepared,
    names: tuple[str, str],
    options: CompareOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare two contenders of the store on the rows that both predict.

    Args:
        names: as for ``contenders.read_contenders``.

    Raises:
        PredictionsError: they have nothing in common, or do not belong to these rows.
        UsageError: invalid names, folds or decision rule.
    """
    _check_options(prepared, options)
    contenders = read_contenders(prepared, names, options.folds, on_progress)
    answered = [~np.isnan(each.probs[:, 0]) for each in contenders]
    common = answered[0] & answered[1]
    if options.folds:
        common &= np.isin(prepared.folds.fold_of, options.folds)
    if not common.any():
        raise UsageError(f"{names[0]} and {names[1]} have no rows in common")
    rows = _take_rows(prepared, common)
    decided = [_decide(each, rows, options) for each in contenders]
    preds = (decided[0][0], decided[1][0])
    first, second = contenders[0].probs[common], contenders[1].probs[common]
    right = [pred == rows.gold for pred in preds]
    overall, seed_effect = _compare_overall(prepared, rows, preds, contenders)
    lengths, unit = _length_thirds(prepared)
    sources = prepared.corpus.train.text("source")
    return Comparison(
        criteria=rows.criteria,
        contenders=contenders,
        overall=overall,
        by_length=_compare_parts(rows, preds, (first, second), lengths[common]),
        by_source=_compare_parts(rows, preds, (first, second), sources[common]),
        by_label=_compare_labels(rows, preds, prepared.competition.profile.labels),
        areas_by_label=_compare_areas(rows, (first, second), prepared.competition.profile.labels),
        n_rows=int(common.sum()),
        n_all=len(common),
        folds=tuple(np.unique(rows.fold_of).tolist()),
        differing=int((preds[0] != preds[1]).sum()),
        only_right=(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())),
        by_threshold=options.threshold,
        rules={
            each.name: found for each, (_, found) in zip(contenders, decided, strict=True) if found
        },
        length_unit=unit,
        seed_effect=seed_effect,
    )


def judge(paired: Paired | None) -> str:
    """Return the verdict: one is better only if the interval excludes 0.

    >>> judge(Paired(0.02, 0.01, 0.03, 0.0)), judge(Paired(-0.02, -0.03, -0.01, 1.0))
    ('A is better', 'B is better')
    >>> judge(Paired(0.02, -0.01, 0.05, 0.2)), judge(None)
    ('no significant difference', 'too few rows')
    """
    if paired is None:
        return "too few rows"
    if paired.low > 0:
        return "A is better"
    return "B is better" if paired.high < 0 else "no significant difference"


@dataclass(frozen=True, eq=False)
class _CommonRows:
    """The compared rows; ``common`` marks them among all train rows."""

    common: Bools
    gold: npt.NDArray[np.int64]
    criteria: Criteria
    fold_of: Ints
    groups: Ints

    def resample(self, replicates: int) -> Resamples:
        return build_resamples(self.groups, replicates=replicates, seed=BOOTSTRAP_SEED)


def _take_rows(prepared: Prepared, common: Bools) -> _CommonRows:
    gold = prepared.corpus.train.gold[common].astype(np.int64)
    criteria = build_criteria(prepared.competition.profile)
    fold_of, groups = prepared.folds.fold_of[common], prepared.groups[common]
    return _CommonRows(common, gold, criteria, fold_of, groups)


def _check_options(prepared: Prepared, options: CompareOptions) -> None:
    beyond = [fold for fold in options.folds if not 0 <= fold < prepared.folds.count]
    if beyond:
        raise UsageError(f"--folds {beyond[0]}: the folds are 0 to {prepared.folds.count - 1}")
    criteria = build_criteria(prepared.competition.profile)
    if options.threshold and criteria.rule == "argmax":
        why = "" if criteria.negative_ids else ": this competition has no negative label"
        raise UsageError(
            f"--threshold: the most probable label is the decision for"
            f" {criteria.primary.kind.title}{why}"
        )


def _decide(
    contender: Contender, rows: _CommonRows, options: CompareOptions
) -> tuple[npt.NDArray[np.int64], tuple[Rule, ...]]:
    """Turn a contender's probabilities into labels; also return the decision rule of each fold.

    Each fold's rule is tuned on the other folds, as in the nested labels of a blend.
    """
    probs = contender.probs[rows.common]
    if not options.threshold:
        return decide(probs), ()
    folds = np.unique(rows.fold_of)
    if len(folds) < 2:
        raise UsageError(
            "--threshold tunes each fold's threshold on the other folds, but there is only one fold"
            " in common; train another, or omit --threshold"
        )
    if contender.blend_pred is not None:
        return contender.blend_pred[rows.common], ()
    pred = np.empty(len(rows.gold), dtype=np.int64)
    criteria, rules = rows.criteria, []
    assert criteria.decided is not None
    for fold in folds:
        held_out = rows.fold_of == fold
        known = probs[~held_out], rows.gold[~held_out]
        rule, _ = fit_rule(criteria.rule, criteria.decided, known, criteria.negative_ids)
        pred[held_out] = decide(probs[held_out], criteria.negative_ids, rule)
        rules.append(rule)
    return pred, tuple(rules)


def _compare_overall(
    prepared: Prepared,
    rows: _CommonRows,
    preds: tuple[Ints, Ints],
    contenders: tuple[Contender, Contender],
) -> tuple[tuple[Line, ...], SeedEffect | None]:
    """Compare by each metric, plain and on rows weighted to be mixed as the test's are.

    Returns:
        The lines, their intervals with the spread between seeds where it is known, and that of the
        plain ones.
    """
    gold, criteria = rows.gold, rows.criteria
    lines, effects = [], []
    probs = [each.probs[rows.common] for each in contenders]
    weightings: list[tuple[str, npt.NDArray[np.float64] | None]] = [("", None)]
    store = open_store(prepared.competition)
    forecast = forecast_test(prepared, store)
    if forecast is not None and forecast.weights[rows.common].any():
        weightings.append((", expected on the test", forecast.weights))
    part = np.ones(len(rows.common), dtype=bool)
    for each in contenders:
        part &= True if each.part is None else each.part
    spreads = measure_seed_spreads(
        prepared,
        store,
        [weights for _, weights in weightings],
        part,
        {each.learner for each in contenders},
    )
    for (suffix, row_weights), of_variants in zip(weightings, spreads, strict=True):
        own = None if row_weights is None else row_weights[rows.common]
        assessor = build_assessor(gold, criteria, rows.groups, seed=BOOTSTRAP_SEED, weights=own)
        effects.append(combine_spreads(contenders, of_variants))
        first, second = (assessor.assess(each) for each in zip(probs, preds, strict=True))
        paired = pair_scores(first, second)
        differences = widen(paired.differences, effects[-1])
        for a, b, difference in zip(first.measured, second.measured, differences, strict=True):
            scores = (a.score.value, b.score.value)
            lines.append(Line(f"{a.kind.title}{suffix}", len(gold), *scores, difference, a.kind))
    return tuple(lines), effects[0]


def _length_thirds(prepared: Prepared) -> tuple[Objects, str]:
    """Return short, medium or long for every train row, and the unit of lengths.

    It uses the frozen routes of the length specialists if there are any, else thirds by characters.
    """
    if (prepared.competition.oof_dir / "routes" / "length.csv").is_file():
        routes = read_or_make_length_routes(prepared, None, "")
        return routes.train, f"as routed to the length specialists ({routes.unit})"
    sentences = prepared.corpus.train.text("sentence")
    lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
    return route_lengths(lengths, build_borders(lengths)), "thirds by characters"


def _compare_parts(
    rows: _CommonRows, preds: tuple[Ints, Ints], probs: tuple[Floats, Floats], part_of: Objects
) -> tuple[Line, ...]:
    """Compare each metric in each part; rows without a part are excluded."""
    named = [part for part in part_of.tolist() if part is not None]
    parts = list(dict.fromkeys(sorted(named, key=_part_order)))
    systems = ((probs[0], preds[0]), (probs[1], preds[1]))
    lines = []
    for place, metric in enumerate(rows.criteria.metrics):
        for part in parts:
            mask = np.asarray(part_of == part, dtype=bool)
            what = part if place == 0 else f"{part}, {metric.kind.title}"
            first, second, paired = _compare_part(rows, metric, systems, mask)
            lines.append(Line(what, int(mask.sum()), first, second, paired, metric.kind))
    return tuple(lines)


def _compare_part(
    rows: _CommonRows, metric: Metric, systems: tuple[Predicted, Predicted], mask: Bools
) -> tuple[float, float, Paired | None]:
    """Compare a metric in one part, on draws of its own groups."""
    gold, groups = rows.gold[mask], rows.groups[mask]
    first, second = ((probs[mask], pred[mask]) for probs, pred in systems)
    paired = None
    if len(np.unique(groups)) >= MIN_GROUPS:
        replicates = count_replicates(metric)
        resamples = build_resamples(groups, replicates=replicates, seed=BOOTSTRAP_SEED)
        paired = compare_pair(metric, gold, (first, second), resamples)
    return metric.score(gold, first), metric.score(gold, second), paired


def _compare_areas(
    rows: _CommonRows, probs: tuple[Floats, Floats], labels: Sequence[str]
) -> tuple[Line, ...]:
    """Compare the area under each label's curve; labels without a gold row are excluded.

    Nothing, if no metric is a mean of such areas.
    """
    metric = rows.criteria.curved
    if metric is None or metric.curve is None:
        return ()
    counts = np.bincount(rows.gold, minlength=len(labels))
    present = np.flatnonzero(counts).tolist()
    areas = [metric.measure_areas(rows.gold, each) for each in probs]
    resamples = rows.resample(count_replicates(metric))
    drawn = [replicate_areas(metric.curve, rows.gold, each, resamples) for each in probs]
    lines = []
    for place, label_id in enumerate(present):
        a, b = (float(each[label_id]) for each in areas)
        n_groups = len(np.unique(rows.groups[rows.gold == label_id]))
        paired = None
        if n_groups >= MIN_GROUPS:
            differences = drawn[0][place] - drawn[1][place]
            paired = pair(a - b, differences[~np.isnan(differences)])
        lines.append(Line(labels[label_id], int(counts[label_id]), a, b, paired))
    return tuple(lines)


def _part_order(part: str) -> tuple[int, str]:
    """Return a sort key: short, medium, long by length, all others by name."""
    known = ("short", "medium", "long")
    return (known.index(part) if part in known else len(known), part)


def _compare_labels(
    rows: _CommonRows, preds: tuple[Ints, Ints], labels: Sequence[str]
) -> tuple[Line, ...]:
    """Compare the F1 of each label, including the negative one; absent labels are excluded."""
    counts = np.bincount(rows.gold, minlength=len(labels))
    present = np.flatnonzero(counts)

    def count(pred: Ints) -> Bools:
        label_ids = present[:, None]
        is_gold, is_pred = rows.gold == label_ids, pred == label_ids
        return np.stack([is_gold & is_pred, is_pred, is_gold], axis=2)

    hits = (count(preds[0]), count(preds[1]))
    names = [labels[label_id] for label_id in present.tolist()]
    return _compare_slices(rows, names, counts[present].tolist(), hits)


def _compare_slices(
    rows: _CommonRows, names: Sequence[str], n_rows: Sequence[int], hits: tuple[Bools, Bools]
) -> tuple[Line, ...]:
    """Compare F1 in S slices on the same draws; ``hits`` holds (S, N, 3) of both."""
    if not names:
        return ()
    resamples = rows.resample(SUM_REPLICATES)
    values = [MicroF1().combine(each.sum(axis=1).astype(np.float64)) for each in hits]
    first, second = (replicate_slices(each, resamples) for each in hits)
    bounds = np.quantile(first - second, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    worse = (first - second <= 0).mean(axis=1)
    lines = []
    for s, name in enumerate(names):
        a, b = float(values[0][s]), float(values[1][s])
        n_groups = len(np.unique(rows.groups[hits[0][s, :, 2]]))
        paired = None
        if n_groups >= MIN_GROUPS:
            low, high = map(float, bounds[:, s])
            paired = Paired(a - b, low, high, float(worse[s]))
        lines.append(Line(name, n_rows[s], a, b, paired))
    return tuple(lines)


def replicate_slices(hits: Bools, resamples: Resamples) -> npt.NDArray[np.float64]:
    """Compute micro-F1 of several slices of the rows in each bootstrap replicate.

    Counts per slice are sparse over groups, so all slices take one sparse product per chunk.

    Args:
        hits: (S, N, 3) as from ``MicroF1.count``, False outside a slice.

    Returns:
        (S, R) float64 micro-F1, 0/0 being 0.
    """
    from scipy.sparse import csr_matrix

    slice_, row, kind = np.nonzero(hits)
    shape = (3 * len(hits), resamples.n_groups)
    ones = np.ones(len(slice_))
    counts = csr_matrix((ones, (3 * slice_ + kind, resamples.group_of[row])), shape)
    scores = []
    for drawn in resamples.chunks():
        sums = np.asarray(counts @ np.ascontiguousarray(drawn.T))
        scores.append(MicroF1().combine(sums.reshape(len(hits), 3, -1).transpose(0, 2, 1)))
    return np.concatenate(scores, axis=1)
