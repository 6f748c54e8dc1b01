"""Test whether one variant or blend is better than another: the entry point of ``run.py compare``.

Both contenders are scored on the rows that both predict, under the same decision rule, with a
paired bootstrap over groups. Subsets of the rows and single labels show where a difference comes
from.

Legend: N rows compared, C labels, G groups, K folds, R replicates, S slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from competition.arrays import Bools, Floats, Ints, Objects
from competition.compare.contenders import Contender, read_contenders
from competition.errors import UsageError
from competition.folds.kfold import Prepared
from competition.folds.length_routes import build_borders, read_or_make_length_routes, route_lengths
from competition.predictions.expected_scores import forecast_test
from competition.predictions.store import Store
from competition.scoring.assessment import build_assessor
from competition.scoring.assessment import compare as pair_scores
from competition.scoring.bootstrap import (
    AUPRC_REPLICATES,
    BOOTSTRAP_SEED,
    F1_REPLICATES,
    LEVEL,
    Paired,
    Resamples,
    area_replicates,
    build_resamples,
    pair,
    paired_auprc,
)
from competition.scoring.metrics import (
    auprc,
    auprc_by_class,
    best_threshold,
    count_hits,
    decide,
    f1_from_sums,
)

MIN_GROUPS = 30  # groups with a gold row, for a slice to get an interval


@dataclass(frozen=True)
class CompareOptions:
    """How to compare.

    Attributes:
        folds: only these; empty takes all that both have.
        threshold: use thresholds tuned on the other folds instead of the most probable label.
    """

    folds: tuple[int, ...] = ()
    threshold: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of both contenders on a slice; ``paired`` is None if it has too few groups.

    ``n_rows`` counts the rows of the slice, or the gold rows of a label.
    """

    what: str
    n_rows: int
    first: float
    second: float
    paired: Paired | None


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison; ``tables`` prints it.

    ``by_length`` and ``by_source`` hold micro-F1, then AUPRC, of each part; ``by_label`` the F1 of
    each label, ``areas_by_label`` the area under its curve; ``only_right`` counts rows that only
    one predicts correctly, ``differing`` rows with different predictions. ``thresholds`` maps a
    variant to its threshold in each fold; empty without ``--threshold``.
    """

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
    thresholds: dict[str, tuple[float, ...]]
    length_unit: str


def run_compare(
    prepared: Prepared,
    names: tuple[str, str],
    options: CompareOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare two contenders of the store on the rows that both predict.

    Args:
        prepared: with the rows.
        names: as for ``contenders.read_contenders``.
        options: rows and decision rule.
        on_progress: called with finished and total trials if a blend is recomputed.

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
    lengths, unit = _length_thirds(prepared)
    sources = prepared.corpus.train.text("source")
    return Comparison(
        contenders=contenders,
        overall=tuple(_compare_overall(prepared, rows, preds, (first, second))),
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
        thresholds={
            each.name: found for each, (_, found) in zip(contenders, decided, strict=True) if found
        },
        length_unit=unit,
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
    negative_id: int | None
    fold_of: Ints
    groups: Ints

    def resample(self, replicates: int) -> Resamples:
        return build_resamples(self.groups, replicates=replicates, seed=BOOTSTRAP_SEED)


def _take_rows(prepared: Prepared, common: Bools) -> _CommonRows:
    gold = prepared.corpus.train.gold[common].astype(np.int64)
    negative_id = prepared.competition.profile.negative_id
    fold_of, groups = prepared.folds.fold_of[common], prepared.groups[common]
    return _CommonRows(common, gold, negative_id, fold_of, groups)


def _check_options(prepared: Prepared, options: CompareOptions) -> None:
    beyond = [fold for fold in options.folds if not 0 <= fold < prepared.folds.count]
    if beyond:
        raise UsageError(f"--folds {beyond[0]}: the folds are 0 to {prepared.folds.count - 1}")
    if options.threshold and prepared.competition.profile.negative_id is None:
        raise UsageError("--threshold: this competition has no negative label")


def _decide(
    contender: Contender, rows: _CommonRows, options: CompareOptions
) -> tuple[npt.NDArray[np.int64], tuple[float, ...]]:
    """Turn a contender's probabilities into labels; also return the threshold of each fold.

    Each fold's threshold is tuned on the other folds, as in the nested labels of a blend.
    """
    probs = contender.probs[rows.common]
    if not options.threshold:
        return decide(probs, rows.negative_id, None), ()
    folds = np.unique(rows.fold_of)
    if len(folds) < 2:
        raise UsageError(
            "--threshold tunes each fold's threshold on the other folds, but there is only one fold"
            " in common; train another, or omit --threshold"
        )
    if contender.nested_pred is not None:
        return contender.nested_pred[rows.common], ()
    pred = np.empty(len(rows.gold), dtype=np.int64)
    thresholds = []
    for fold in folds:
        held_out = rows.fold_of == fold
        found, _ = best_threshold(probs[~held_out], rows.gold[~held_out], rows.negative_id)
        assert found is not None
        pred[held_out] = decide(probs[held_out], rows.negative_id, found)
        thresholds.append(found)
    return pred, tuple(thresholds)


def _compare_overall(
    prepared: Prepared, rows: _CommonRows, preds: tuple[Ints, Ints], probs: tuple[Floats, Floats]
) -> Iterator[Line]:
    """Yield micro-F1 and AUPRC, plain and on rows weighted to be mixed as the test's are."""
    gold, negative_id = rows.gold, rows.negative_id
    weightings: list[tuple[str, npt.NDArray[np.float64] | None]] = [("", None)]
    store = Store(prepared.competition.oof_dir, prepared.competition.profile.labels)
    forecast = forecast_test(prepared, store)
    if forecast is not None and forecast.weights[rows.common].any():
        weightings.append((", expected on the test", forecast.weights[rows.common]))
    for suffix, row_weights in weightings:
        assessor = build_assessor(
            gold, negative_id, rows.groups, seed=BOOTSTRAP_SEED, weights=row_weights
        )
        first, second = (assessor.assess(each) for each in zip(probs, preds, strict=True))
        paired = pair_scores(first, second)
        scores = (first.f1.value, second.f1.value)
        yield Line(f"micro-F1{suffix}", len(gold), *scores, paired.f1)
        scores = (first.auprc.value, second.auprc.value)
        yield Line(f"AUPRC{suffix}", len(gold), *scores, paired.auprc)


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
    """Compare micro-F1, then AUPRC, in each part; rows without a part are excluded."""
    named = [part for part in part_of.tolist() if part is not None]
    parts = list(dict.fromkeys(sorted(named, key=_part_order)))
    masks = [part_of == part for part in parts]
    hits = [
        np.stack([count_hits(rows.gold, pred, rows.negative_id) & mask[:, None] for mask in masks])
        if masks
        else np.empty((0, len(rows.gold), 3), dtype=bool)
        for pred in preds
    ]
    n_rows = [int(mask.sum()) for mask in masks]
    lines = _compare_slices(rows, parts, n_rows, (hits[0], hits[1]))
    ranked = (_rank_part(rows, part, probs, mask) for part, mask in zip(parts, masks, strict=True))
    return lines + tuple(ranked)


def _rank_part(rows: _CommonRows, part: str, probs: tuple[Floats, Floats], mask: Bools) -> Line:
    """Compare AUPRC in one part, averaged over the labels with a gold row in it."""
    gold, groups, some = rows.gold[mask], rows.groups[mask], (probs[0][mask], probs[1][mask])
    paired = None
    if len(np.unique(groups)) >= MIN_GROUPS:
        resamples = build_resamples(groups, replicates=AUPRC_REPLICATES, seed=BOOTSTRAP_SEED)
        paired = paired_auprc(gold, some, resamples)
    return Line(f"{part}, AUPRC", len(gold), auprc(gold, some[0]), auprc(gold, some[1]), paired)


def _compare_areas(
    rows: _CommonRows, probs: tuple[Floats, Floats], labels: Sequence[str]
) -> tuple[Line, ...]:
    """Compare the area under each label's curve; labels without a gold row are excluded."""
    counts = np.bincount(rows.gold, minlength=len(labels))
    present = np.flatnonzero(counts).tolist()
    areas = [auprc_by_class(rows.gold, each) for each in probs]
    resamples = rows.resample(AUPRC_REPLICATES)
    drawn = [area_replicates(rows.gold, each, resamples) for each in probs]
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
    resamples = rows.resample(F1_REPLICATES)
    values = [f1_from_sums(each.sum(axis=1).astype(np.float64)) for each in hits]
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
        hits: (S, N, 3) as from ``metrics.count_hits``, False outside a slice.
        resamples: over the same N rows.

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
        scores.append(f1_from_sums(sums.reshape(len(hits), 3, -1).transpose(0, 2, 1)))
    return np.concatenate(scores, axis=1)
