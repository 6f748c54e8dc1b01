"""Ablation study: compare all variants on a fixed sample of the real rows.

``sample`` writes a folder with 8,000 training rows in whole groups, labels in proportion, and all
test rows; ``docs/experiments/klue-re-8000.toml`` describes it as a competition of its own, in
three folds. After ``run.py fold`` has trained what is to be compared, ``table`` prints the rows of
``docs/experiments.md``, ``labels`` writes each variant's predicted label of every test row, and
``expected`` its out-of-fold scores and those expected on the test.

    python benchmarks/ablation.py sample data/klue-re-8000
    python run.py fold … --competition docs/experiments/klue-re-8000.toml
    python benchmarks/ablation.py table
    python benchmarks/ablation.py labels docs/experiments/ablation-labels.csv.xz
    python benchmarks/ablation.py expected docs/experiments/ablation-expected.csv [--folds 0]

``expected`` reads the variants that have all folds, or those that have the given ones.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from competition.data.groups import build_groups, sample_rows
from competition.folds.kfold import Prepared, read_prepared
from competition.predictions.expected_scores import build_test_reader, forecast_test
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import Member, group_specialists, read_members
from competition.predictions.store import ResultKey, Store
from competition.profile import resolve_competition
from competition.scoring.assessment import build_assessor, compare
from competition.scoring.bootstrap import Paired
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide

PROFILE = Path(__file__).resolve().parent.parent / "docs" / "experiments" / "klue-re-8000.toml"
REFERENCE = "typed-punct"
ROWS, SEED, FOLDS = 8000, 42, 3


def write_sample(folder: Path) -> None:
    whole = resolve_competition("klue-re", None, None)
    prepared = read_prepared(whole)
    train = prepared.corpus.train
    groups = build_groups(train, whole.profile.folds.group_by)
    chosen = set(train.ids[sample_rows(train.gold, groups, ROWS, seed=SEED, fold_count=FOLDS)])
    folder.mkdir(parents=True, exist_ok=True)
    with whole.train_path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader)
        kept = [row for row in reader if row[0] in chosen]
    with (folder / whole.train_path.name).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *kept])
    (folder / whole.test_path.name).write_bytes(whole.test_path.read_bytes())
    print(f"{folder}: {len(kept):,} training rows, all test rows")


def read_all(prepared: Prepared) -> list[Member]:
    competition = prepared.competition
    store = Store(competition.oof_dir, competition.profile.labels)
    members, left_out = read_members(store, (), prepared)
    for each in left_out:
        print(f"left out: {each.name}: {each.reason}", file=sys.stderr)
    return members


def reference_of(members: list[Member]) -> Member:
    return next(m for m in members if m.name.partition("@")[0] == REFERENCE)


def print_table(prepared: Prepared) -> None:
    profile = prepared.competition.profile
    gold, criteria = prepared.corpus.train.gold.astype(np.int64), build_criteria(profile)
    members = read_all(prepared)
    store = Store(prepared.competition.oof_dir, profile.labels)
    forecast = forecast_test(prepared, store)
    assert forecast is not None
    assessors = [
        build_assessor(gold, criteria, prepared.groups, seed=0, weights=weights)
        for weights in (None, forecast.weights)
    ]
    base = reference_of(members)
    predicted = {each.name: (each.oof, decide(each.oof)) for each in members}
    plain, expected = (assessor.assess_all(predicted) for assessor in assessors)
    print(
        "| variant | F1 | difference | AUPRC | difference | expected F1 | difference | "
        "expected AUPRC | difference | rows/s |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for member in sorted(members, key=lambda m: (m is not base, m.name)):
        cells = [member.name]
        for scores in (plain, expected):
            score, apart = scores[member.name], compare(scores[member.name], scores[base.name])
            for value, paired in zip(score.scores, apart.differences, strict=True):
                cells.append(f"{100 * value.value:.2f}")
                cells.append(_difference(paired) if member is not base else "")
        print("| " + " | ".join([*cells, _speed(store, member)]) + " |")


def write_expected(prepared: Prepared, path: Path, folds: tuple[int, ...]) -> None:
    """Write plain and expected scores of every variant, the best expected first.

    Args:
        folds: read these of the variants that have them; none for those that have all.
    """
    store = Store(prepared.competition.oof_dir, prepared.competition.profile.labels)
    members = read_folds(prepared, store, folds) if folds else read_all(prepared)
    profile = prepared.competition.profile
    gold, criteria = prepared.corpus.train.gold.astype(np.int64), build_criteria(profile)
    reader = build_test_reader(prepared)
    by_rows: dict[bytes, list[Member]] = {}
    for member in members:
        by_rows.setdefault(member.covered.tobytes() + member.test_covered.tobytes(), []).append(
            member
        )
    rows = []
    for alike in by_rows.values():
        forecast = reader.forecast(alike)
        assert forecast is not None
        for member in alike:
            covered = member.covered
            probs, pred = member.oof[covered], decide(member.oof[covered])
            primary, secondary = (
                metric.score(gold[covered], (probs, pred)) for metric in criteria.metrics
            )
            expected = forecast.expect(probs, pred)
            assert expected.secondary is not None
            figures = {
                "oof_f1": primary,
                "oof_auprc": secondary,
                "expected_f1": expected.primary.value,
                "expected_f1_low": expected.primary.low,
                "expected_f1_high": expected.primary.high,
                "expected_auprc": expected.secondary,
            }
            rows.append(
                {"variant": member.name, "rows": int(covered.sum())}
                | {key: round(100 * value, 2) for key, value in figures.items()}
            )
    table = pd.DataFrame(rows)
    order = (table["expected_f1"] + table["expected_auprc"]).argsort()[::-1]
    table.iloc[order].to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(rows)} variants")


def read_folds(prepared: Prepared, store: Store, folds: tuple[int, ...]) -> list[Member]:
    """Read some folds of the variants that have them; other train rows count as not predicted.

    The specialists of a route are joined to one member, if together they predict every row.
    """
    members, route_of = [], {}
    train_row = {row_id: row for row, row_id in enumerate(prepared.corpus.train.ids)}
    test_row = {row_id: row for row, row_id in enumerate(prepared.corpus.test.ids)}
    shape = len(store.labels)
    for name in store.variants():
        keys = [ResultKey(name, SEED, fold) for fold in folds]
        if not all(store.path(key).exists() for key in keys):
            print(f"left out: {name}: not every fold of {folds}", file=sys.stderr)
            continue
        oof = np.full((len(train_row), shape), np.nan, dtype=np.float32)
        test = np.full((len(folds), len(test_row), shape), np.nan, dtype=np.float32)
        for at, key in enumerate(keys):
            result = store.read(key)
            oof[[train_row[row_id] for row_id in result.oof_ids]] = result.oof_probs
            test[at, [test_row[row_id] for row_id in result.test_ids]] = result.test_probs
        if result.route is not None:
            route_of[name] = result.route
        member = Member(name, oof, test, (SEED,), result.route, result.recipe, False, "")
        members.append(member)
    named = {member.name: member for member in members}
    members = [member for member in members if member.route is None]
    in_folds = np.isin(prepared.folds.fold_of, folds)
    for name, parts in group_specialists(route_of).items():
        first, *others = (named[part] for part in parts)
        oof, test = first.oof.copy(), first.test.copy()
        for other in others:
            oof[other.covered] = other.oof[other.covered]
            test[:, other.test_covered] = other.test[:, other.test_covered]
        joined = replace(first, name=name, oof=oof, test=test)
        if joined.covered[in_folds].all() and joined.test_covered.all():
            members.append(joined)
    return members


def _difference(paired: Paired) -> str:
    low, high = 100 * paired.low, 100 * paired.high
    mark = "**" if low > 0 or high < 0 else ""
    return f"{mark}{100 * paired.difference:+.2f}{mark} ({low:+.2f} to {high:+.2f})"


def _speed(store: Store, member: Member) -> str:
    names = [member.name] if member.name in store.variants() else []
    rates = [store.read_run(key)["rows_per_s"] for name in names for key in store.keys(name)]
    return f"{np.median(rates):.0f}" if rates else ""


def write_labels(prepared: Prepared, path: Path) -> None:
    profile = prepared.competition.profile
    names = np.asarray(profile.labels, dtype=object)
    columns = {"id": prepared.corpus.test.ids}
    for member in sorted(read_all(prepared), key=lambda m: m.name):
        probs = average_in_log_space(list(member.test))
        columns[member.name] = names[decide(probs)]
    pd.DataFrame(columns).to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(columns) - 1} variants, {len(prepared.corpus.test):,} test rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sample").add_argument("folder", type=Path)
    commands.add_parser("table")
    commands.add_parser("labels").add_argument("path", type=Path)
    expected = commands.add_parser("expected")
    expected.add_argument("path", type=Path)
    expected.add_argument("--folds", type=int, nargs="*", default=())
    asked = parser.parse_args()
    if asked.command == "sample":
        write_sample(asked.folder)
        return
    prepared = read_prepared(resolve_competition(str(PROFILE), None, None))
    if asked.command == "table":
        print_table(prepared)
    elif asked.command == "labels":
        write_labels(prepared, asked.path)
    else:
        write_expected(prepared, asked.path, tuple(asked.folds))


if __name__ == "__main__":
    main()
