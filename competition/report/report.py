"""``report``: one HTML page on the state of a competition and the next steps.

The room of the command. It reads the store, the submissions and the ledger, takes every judgement
from the rooms that make it, and fills a ``Page``.

Legend: N rows, C labels, M members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from competition.board.blends import BlendFile, index_blends, read_blends
from competition.board.board import SentSubmission, build_sent_tables
from competition.compare.contenders import read_contender
from competition.console import Column, Table
from competition.errors import HarnessError
from competition.files import write_atomically
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.members import Member, read_members
from competition.predictions.store import Store, open_store
from competition.predictions.variant_scores import (
    VariantScore,
    describe_ranking,
    rank_variants,
    score_variants,
)
from competition.predictions.variants_table import build_variants_table
from competition.profile import Competition
from competition.report.curves import (
    correlate,
    draw_bars,
    draw_heatmap,
    draw_lines,
    measure_calibration,
    measure_calibration_error,
    measure_confusion,
    measure_disagreement,
    trace_precision_recall,
    trace_roc,
)
from competition.report.error_analysis import Errors, describe_errors, mark_entities, rank_labels
from competition.report.error_tables import (
    build_confusions_table,
    build_hardest_table,
    build_labels_table,
    build_suspects_table,
)
from competition.report.next_steps import (
    Standing,
    describe_standing,
    find_best_blend,
    get_primary,
    propose_commands,
)
from competition.report.page import Page
from competition.report.training import add_jobs, add_learning_curves, add_studies
from competition.scoring.criteria import build_criteria
from competition.scoring.metrics.metric import MetricKind
from competition.submission.ledger import open_ledger
from competition.submission.record import when_written
from competition.threads import map_in_threads

ROWS_SHOWN = 200
LABELS_SHOWN = 40


@dataclass(frozen=True, eq=False)
class Material:
    """The data of the report; ``errors`` are of the best blend, else of the best member.

    ``store`` and ``blends`` are all that is there, whole or not; ``faults``: why the errors of what
    is better are not shown.
    """

    standing: Standing
    members: Sequence[Member]
    errors: Errors | None
    store: Store
    blends: Sequence[BlendFile]
    faults: Sequence[str] = ()


def write_report(
    competition: Competition, *, now: datetime, in_context: Callable[[str], str] = str
) -> Path:
    """Write the page and return its path, ``reports/<competition>/report.html``.

    Args:
        in_context: adds to a proposed command what says which competition is meant.

    Raises:
        HarnessError: the data or the folds cannot be read.
    """
    from plotly.offline import get_plotlyjs

    prepared = read_prepared(competition)
    material = _gather(prepared)
    page = Page(f"{competition.profile.title}, {now:%Y-%m-%d %H:%M} UTC", in_context)
    _add_now(page, material)
    for fault in material.faults:
        page.add_fault(fault)
    page.add_section("Board")
    ranked = rank_variants(material.standing.variants)
    variants = build_variants_table(prepared, ranked)
    notes = describe_ranking(ranked, len(prepared.corpus.train))
    variants = replace(variants, notes=(*notes, *variants.notes))
    sent = build_sent_tables(competition, now=now, files=material.blends)
    for table in (variants, *sent):
        page.add_table(table)
    if material.errors is not None:
        _add_errors(page, material.errors)
    if material.members:
        _add_curves(page, prepared, material.members)
        _add_test(page, prepared, material.members)
    if len(material.members) > 1:
        _add_disagreement(page, prepared, material.members)
    keys = [key for name in material.store.variants() for key in material.store.keys(name)]
    add_jobs(page, material.store, keys, build_criteria(competition.profile).kinds)
    add_learning_curves(page, competition, keys)
    add_studies(page, competition)
    _add_blend(page, material.standing.blend)
    _add_scores(page, material.standing.sent)
    path = competition.reports_dir / "report.html"
    write_atomically(path, page.build(get_plotlyjs()))
    return path


def _gather(prepared: Prepared) -> Material:
    competition = prepared.competition
    store = open_store(competition)
    members, _ = read_members(store, (), prepared) if store.variants() else ([], [])
    blends = read_blends(competition, prepared)
    sound = [each for each in blends if each.is_current]
    sound.sort(key=lambda each: when_written(each.path), reverse=True)
    known = index_blends(blends)
    entries = open_ledger(competition).read()
    kind = build_criteria(competition.profile).primary.kind
    sent = [SentSubmission(entry, known.get(entry.sha256), kind) for entry in entries]
    scores = score_variants(prepared, store.variants(), members)
    best = find_best_blend(sound, kind)
    errors, faults = _find_errors(prepared, best, scores, members)
    n_suspects = 0 if errors is None else len(errors.suspects)
    n_rows = len(prepared.corpus.train)
    standing = Standing(competition, n_rows, scores, sound, sent, n_suspects)
    return Material(standing, members, errors, store, blends, faults)


def _find_errors(
    prepared: Prepared,
    blend: BlendFile | None,
    scores: Sequence[VariantScore],
    members: Sequence[Member],
) -> tuple[Errors | None, list[str]]:
    """Describe the best blend's errors, else those of the best variant that answers all rows.

    Returns:
        None if nothing has a score; and why others, which are better, are not described.
    """
    scored = sorted((each for each in scores if each.assessment), key=get_primary, reverse=True)
    scored.sort(key=lambda each: -each.n_rows)
    faults: list[str] = []
    names = [*([] if blend is None else [blend.name]), *(each.name for each in scored)]
    judges = {each.name: each.oof for each in members}
    for name in names:
        try:
            return describe_errors(prepared, read_contender(prepared, name), judges), faults
        except HarnessError as error:  # a blend of another tool, or its members changed since
            faults.append(f"The errors of {name} are not shown: {error}")
    return None, faults


def _add_now(page: Page, material: Material) -> None:
    page.add_section("Now")
    page.add_paragraph(" ".join(describe_standing(material.standing)))
    page.add_commands(propose_commands(material.standing))


def _add_errors(page: Page, errors: Errors) -> None:
    page.add_section("Errors")
    scores = rank_labels(errors)[:LABELS_SHOWN]
    names = [each.label for each in scores]
    bars = {
        "precision": (names, [each.precision or 0.0 for each in scores]),
        "recall": (names, [each.recall or 0.0 for each in scores]),
    }
    page.add_figure(draw_bars(bars, ""), build_labels_table(errors))
    label_ids = [errors.labels.index(name) for name in names]
    shares = measure_confusion(errors.gold, errors.pred, label_ids)
    page.add_figure(draw_heatmap(names, shares), build_confusions_table(errors, ROWS_SHOWN))
    page.add_table(build_hardest_table(errors, ROWS_SHOWN))
    suspects = build_suspects_table(errors, ROWS_SHOWN, None)
    page.add_table(suspects)
    page.add_paragraph(f"As a file of corrections: python run.py errors {errors.name}")


def _answered(prepared: Prepared, member: Member) -> tuple[np.ndarray, np.ndarray]:
    """Return gold labels and probabilities of the rows that a member answers for."""
    covered = member.covered
    return prepared.corpus.train.gold[covered].astype(np.int64), member.oof[covered]


def _add_curves(page: Page, prepared: Prepared, members: Sequence[Member]) -> None:
    page.add_section("Curves")
    negative_ids = prepared.competition.profile.negative_ids
    lines, points = {}, []
    reliability, bins = {}, []
    for member in members:
        gold, probs = _answered(prepared, member)
        recall, precision, threshold = trace_precision_recall(gold, probs, negative_ids)
        lines[member.name] = (np.round(recall, 4).tolist(), np.round(precision, 4).tolist())
        for place in range(0, len(recall), 10):
            points.append(
                {
                    "member": member.name,
                    "threshold": float(threshold[place]),
                    "precision": float(precision[place]),
                    "recall": float(recall[place]),
                }
            )
        found = measure_calibration(gold, probs)
        gap = measure_calibration_error(found)
        reliability[f"{member.name} (gap {100 * gap:.1f})"] = (
            [round(sure, 4) for sure, _, _ in found],
            [round(right, 4) for _, right, _ in found],
        )
        bins += [
            {"member": member.name, "confidence": sure, "accuracy": right, "rows": count}
            for sure, right, count in found
        ]
    columns = [
        Column("member", "member"),
        Column("threshold", "threshold", "number"),
        Column("precision", "precision", "score"),
        Column("recall", "recall", "score"),
    ]
    note = "Micro precision and recall as the threshold of the best positive label falls."
    table = Table("precision_recall", "Precision and recall", columns, points, [note])
    page.add_figure(draw_lines(lines, ("recall", "precision")), table)
    _add_roc(page, prepared, members)
    columns = [
        Column("member", "member"),
        Column("confidence", "mean confidence", "share"),
        Column("accuracy", "right", "share"),
        Column("rows", "rows", "count"),
    ]
    note = "Below the diagonal a member is too sure. Gap: expected calibration error, ×100."
    table = Table("reliability", "Reliability", columns, bins, [note])
    titles = ("confidence", "share that is right")
    page.add_figure(draw_lines(reliability, titles, diagonal="perfect", markers=True), table)


def _add_roc(page: Page, prepared: Prepared, members: Sequence[Member]) -> None:
    lines, rows = {}, []
    traced = map_in_threads(lambda member: trace_roc(*_answered(prepared, member)), members)
    for member, (false_rate, true_rate, area) in zip(members, traced, strict=True):
        lines[member.name] = (np.round(false_rate, 5).tolist(), np.round(true_rate, 5).tolist())
        rows.append({"member": member.name, "area": area})
    columns = [Column("member", "member"), Column("area", "area under the curve", "score")]
    note = "One label against the rest, all labels together (micro average)."
    table = Table("roc", "ROC curve", columns, rows, [note])
    figure = draw_lines(lines, ("false positive rate", "true positive rate"), diagonal="chance")
    page.add_figure(figure, table)


def _add_test(page: Page, prepared: Prepared, members: Sequence[Member]) -> None:
    """Show how often each label is gold, predicted out-of-fold and predicted on the test rows."""
    whole = [each for each in members if each.covers_all]
    if not whole or not len(prepared.corpus.test):
        return
    page.add_section("Train against test")
    labels, gold = prepared.competition.profile.labels, prepared.corpus.train.gold
    count = len(labels)
    oof = np.mean([_share(each.oof.argmax(axis=1), count) for each in whole], axis=0)
    on_test = np.mean([_share(each.test.argmax(axis=2).ravel(), count) for each in whole], axis=0)
    published = _share(gold, count)
    order = np.argsort(-np.abs(on_test - oof), kind="stable")[:LABELS_SHOWN]
    names = [labels[place] for place in order]
    groups = {
        "train": (names, np.round(published[order], 5).tolist()),
        "out-of-fold": (names, np.round(oof[order], 5).tolist()),
        "test": (names, np.round(on_test[order], 5).tolist()),
    }
    columns = [
        Column("label", "label"),
        Column("train", "published, train", "share"),
        Column("oof", "predicted, out-of-fold", "share"),
        Column("test", "predicted, test", "share"),
    ]
    rows = [
        {
            "label": labels[place],
            "train": float(published[place]),
            "oof": float(oof[place]),
            "test": float(on_test[place]),
        }
        for place in order
    ]
    note = "Shares of rows, averaged over the members; the most different come first."
    page.add_figure(draw_bars(groups, ""), Table("shares", "Labels", columns, rows, [note]))


def _share(label_ids: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(label_ids, minlength=count) / len(label_ids)


def _add_disagreement(page: Page, prepared: Prepared, members: Sequence[Member]) -> None:
    whole = [each for each in members if each.covers_all]
    if len(whole) < 2:
        return
    page.add_section("Members against each other")
    names = [each.name for each in whole]
    gold, labels = prepared.corpus.train.gold, prepared.competition.profile.labels
    predicted = [each.oof.argmax(axis=1) for each in whole]
    agreement, correlation = correlate(predicted, gold)
    for key, title, values in (
        ("agreement", "Rows answered alike", agreement),
        ("correlation", "Correlation of errors", correlation),
    ):
        columns = [Column("member", "member")]
        columns += [Column(f"m{place}", name, "number") for place, name in enumerate(names)]
        rows = [
            {"member": name, **{f"m{j}": float(values[i, j]) for j in range(len(names))}}
            for i, name in enumerate(names)
        ]
        note = "A member whose errors correlate least with the others' adds most to a blend."
        page.add_figure(draw_heatmap(names, values), Table(key, title, columns, rows, [note]))
    divergence = measure_disagreement([each.oof for each in whole])
    places = np.argsort(-divergence, kind="stable")[:ROWS_SHOWN]
    columns = [
        Column("id", "id"),
        Column("published", "published"),
        Column("answers", "answers"),
        Column("divergence", "divergence", "number"),
        Column("sentence", "sentence"),
    ]
    rows = [
        {
            "id": row.id,
            "published": labels[gold[place]],
            "answers": "; ".join(
                f"{name}: {labels[answer[place]]}"
                for name, answer in zip(names, predicted, strict=True)
            ),
            "divergence": float(divergence[place]),
            "sentence": mark_entities(row),
        }
        for row, place in zip(prepared.corpus.train.take(places), places, strict=True)
    ]
    note = "By the Jensen–Shannon divergence of the members' probabilities."
    page.add_table(
        Table("disagreement", "Rows on which members disagree most", columns, rows, [note])
    )


def _add_blend(page: Page, blend: BlendFile | None) -> None:
    """Show the best blend's weights."""
    record = None if blend is None else blend.record
    if blend is None or record is None:
        return
    members, faults = record.list_weights()
    for fault in faults:
        page.add_fault(f"{blend.path.with_suffix('.json')}: {fault}")
    if not members:
        return
    page.add_section(f"Blend {blend.name}")
    names, weights = [each.name for each in members], [each.weight for each in members]
    spread = [_find_spread(each.weight_by_fold) for each in members]
    columns = [
        Column("name", "member"),
        Column("weight", "weight", "number"),
        Column("low", "lowest in a fold", "number"),
        Column("high", "highest in a fold", "number"),
    ]
    rows = [
        {"name": name, "weight": weight, "low": low, "high": high}
        for name, weight, (low, high) in zip(names, weights, spread, strict=True)
    ]
    note = "The lines reach from the lowest to the highest weight fitted without one of the folds."
    table = Table("weights", "Weights", columns, rows, [note])
    below, above = [], []
    for weight, (low, high) in zip(weights, spread, strict=True):
        below.append(max(0.0, weight - (weight if low is None else low)))
        above.append(max(0.0, (weight if high is None else high) - weight))
    page.add_figure(draw_bars({"weight": (names, weights)}, "weight", (below, above)), table)


def _find_spread(weights: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the lowest and the highest weight in the folds; None in older files."""
    return (min(weights), max(weights)) if weights else (None, None)


def _add_scores(page: Page, sent: Sequence[SentSubmission]) -> None:
    """Show nested and public scores in the order of submission."""
    scored = [each for each in sent if each.public is not None]
    if not scored:
        return
    kind = scored[0].kind
    page.add_section("Scores over time")
    times = [each.entry.time.isoformat(timespec="minutes") for each in scored]
    lines = {
        f"nested {kind.head}": (times, [_plot(each.nested, kind) for each in scored]),
        f"public {kind.head}": (times, [_plot(each.public, kind) for each in scored]),
    }
    columns = [
        Column("time", "time"),
        Column("name", "submission"),
        kind.column("nested", f"nested {kind.head}"),
        kind.column("public", f"public {kind.head}"),
    ]
    rows = [
        {"time": t, "name": e.entry.name}
        | {"nested": _show(e.nested, kind), "public": _show(e.public, kind)}
        for t, e in zip(times, scored, strict=True)
    ]
    table = Table("scores", f"Nested and public {kind.title}", columns, rows)
    if len(scored) == 1:
        page.add_table(table)  # one point is no curve
        return
    page.add_figure(draw_lines(lines, ("", kind.title), markers=True), table)


def _show(score: float | None, kind: MetricKind) -> float | None:
    return None if score is None else kind.show(score)


def _plot(score: float | None, kind: MetricKind) -> float | None:
    """Return a score as it is written: ×100, a loss as it is."""
    return None if score is None else float(kind.write(score))
