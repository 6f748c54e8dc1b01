"""Judge estimates of the test score, and ways to rank variants, on pseudo-tests and simulations.

``pseudo_tests.py`` makes the splits. ``estimates`` holds every estimator of micro-F1 and AUPRC
against what the pseudo-test's labels give; ``rank`` holds every way to rank the learners against
their true order (Kendall's tau); ``simulate`` draws shifts from out-of-fold rows, where all that
changes is known, and counts how often the interval holds the true score. Tables go to
``docs/experiments.md``.

    python benchmarks/pseudo_judge.py estimates checkpoints/pseudo-tests
    python benchmarks/pseudo_judge.py rank checkpoints/pseudo-tests
    python benchmarks/pseudo_judge.py simulate checkpoints/pseudo-tests
    python benchmarks/pseudo_judge.py members klue-re      # every estimate for a store
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar, nnls
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.pseudo_tests import LEARNERS, RECIPES, SEEDS, name_split
from competition.audit.shift import fit_shift
from competition.data.rows import Rows
from competition.folds.kfold import Prepared, read_prepared
from competition.folds.strata import build_strata
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import read_member
from competition.predictions.store import Store
from competition.profile import resolve_competition
from competition.scoring.criteria import build_criteria
from competition.scoring.decisions import decide
from competition.scoring.expected import (
    Evidence,
    Ground,
    System,
    TestMix,
    View,
    read_evidence,
    weigh,
)
from competition.scoring.label_shift import build_cells, weights_for_negative_share
from tests.competition.klue_scores import auprc, criteria_of, micro_f1, mix_by_cells

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SIMULATED = 280
RIDGE = 0.03
ALONE, ALL = "expected, by the learner alone", "expected, by all learners"


@dataclass(frozen=True, eq=False)
class Case:
    """One learner on one pseudo-test; ``truth`` is micro-F1 and AUPRC of its averaged answer.

    ``negative_share`` is the true share of the negative label in the test.
    """

    split: str
    learner: str
    ground: Ground
    system: System
    test_gold: Ints
    truth: tuple[float, float]
    odds: Floats
    negative_share: float


def read_cases(folder: Path, prepared: Prepared, split: str) -> list[Case]:
    with np.load(folder / f"{split}.npz") as kept:
        part = dict(kept)
    rows = prepared.corpus.train
    train, test = rows.take(part["train_rows"]), rows.take(part["test_rows"])
    strata = build_strata(train, test, part["fold_of"])
    (negative,) = prepared.competition.profile.negative_ids
    gold, test_gold = part["gold"].astype(np.int64), part["test_gold"].astype(np.int64)
    n_labels = part["oof"].shape[2]
    ground = Ground(
        gold, criteria_of(negative, n_labels), part["groups"], strata.train, strata.test
    )
    odds = _read_or_fit_odds(folder, prepared, split, train, test)
    cases = []
    for learner, oof, answers in zip(LEARNERS, part["oof"], part["test"], strict=True):
        system = System(oof, oof.argmax(1), answers, answers.argmax(2))
        mean = average_in_log_space(list(answers))
        pred = decide(mean)
        truth = (micro_f1(test_gold, pred, negative), auprc(test_gold, mean))
        share = float((test_gold == negative).mean())
        cases.append(Case(split, learner, ground, system, test_gold, truth, odds, share))
    return cases


def _read_or_fit_odds(
    folder: Path, prepared: Prepared, split: str, train: Rows, test: Rows
) -> Floats:
    """Return (N,) odds of the classifier that tells the parts of a split from each other."""
    path = folder / f"{split}.odds.npy"
    if path.exists():
        return np.asarray(np.load(path))
    corpus = replace(prepared.corpus, train=train, test=Rows(test.frame, None))
    group_by = prepared.competition.profile.folds.group_by
    shift = fit_shift(corpus, group_by, lambda _frac, _text: None)
    odds = np.ones(len(train)) if shift is None else shift.odds
    np.save(path, odds)
    return odds


# --- estimators: weights of the held-out rows, or micro-F1 itself ---------------------------------


def weigh_rows(case: Case) -> dict[str, Floats]:
    """Return (N,) weights by estimator."""
    ground, system = case.ground, case.system
    levels = len(ground.strata)
    mixed = {
        depth: mix_by_cells(
            build_cells(ground.strata[:depth], ground.test_strata[:depth]), len(ground.gold)
        )
        for depth in (2, levels)
    }
    weights = {
        "plain": np.ones(len(ground.gold)),
        "known share of the negative label": weights_for_negative_share(
            ground.gold, ground.criteria.negative_ids, case.negative_share
        ),
        "type pairs": mixed[2],
        "type pairs, known entities": mixed[levels],
        "odds of a classifier": np.clip(case.odds, 0.05, 10),
        "BBSE": _bbse(case, 1),
        "BBSE by type pair": _bbse(case, 2),
        "EM on calibrated probabilities": _em_probs(case, 1),
        "EM on calibrated probabilities by type pair": _em_probs(case, 2),
    }
    for name, view in {
        "label shift": View("label", 1, 1.0),
        "label shift, 3 steps": View("label", 3, 1.0),
        "covariate shift (M-CBPE)": View("covariate", 5, 1.0),
        "both": View("both", 5, 1.0),
    }.items():
        weights[name] = weigh(ground, system, view)
    base = weights["label shift"]
    cells = ground.strata[1] * ground.n_labels + ground.gold
    tilted = base * weights["odds of a classifier"]
    scale = np.bincount(cells, base) / np.maximum(np.bincount(cells, tilted), 1e-12)
    weights["label shift, odds within"] = tilted * scale[cells]
    return weights


def _bbse(case: Case, depth: int) -> Floats:
    """Ridge-regularised black-box shift estimation; a type pair with few rows takes them all."""
    ground, system = case.ground, case.system
    weights = np.zeros(len(ground.gold))
    level = depth - 1
    for stratum in np.unique(ground.test_strata[level]):
        told = ground.test_strata[level] == stratum
        rows = ground.strata[level] == stratum
        if rows.sum() < 100:
            rows = np.ones(len(rows), dtype=bool)
        labels = np.unique(ground.gold[rows])
        place = np.searchsorted(labels, ground.gold[rows])
        joint = np.zeros((ground.n_labels, len(labels)))
        np.add.at(joint, (system.pred[rows], place), 1 / rows.sum())
        counts = np.bincount(system.test_pred[:, told].ravel(), minlength=ground.n_labels)
        left = np.vstack([joint, RIDGE * np.eye(len(labels))])
        right = np.concatenate([counts / counts.sum(), RIDGE * np.ones(len(labels))])
        ratio = nnls(left, right)[0][place]
        weights[rows] += told.sum() * ratio / max(ratio.sum(), 1e-12)
    return weights / weights.mean()


def _em_probs(case: Case, depth: int) -> Floats:
    """Saerens' EM on the probabilities themselves, after one temperature for all rows."""
    ground, system = case.ground, case.system
    logs = np.log(np.maximum(system.probs.astype(np.float64), 1e-6))

    def loss(scale: float) -> float:
        scaled = scale * logs
        scaled -= np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        return float(-scaled[np.arange(len(logs)), ground.gold].mean())

    scale = minimize_scalar(loss, bounds=(0.1, 5), method="bounded").x
    mean = average_in_log_space(list(system.test_probs)).astype(np.float64)
    probs = np.maximum(mean, 1e-6) ** scale
    probs /= probs.sum(1, keepdims=True)
    weights = np.zeros(len(ground.gold))
    level = depth - 1
    for stratum in np.unique(ground.test_strata[level]):
        told = ground.test_strata[level] == stratum
        rows = ground.strata[level] == stratum
        if rows.sum() < 100:
            rows = np.ones(len(rows), dtype=bool)
        prior = np.bincount(ground.gold[rows], minlength=ground.n_labels) / rows.sum()
        ratio = np.ones(ground.n_labels)
        for _ in range(100):
            posterior = probs[told] * ratio
            posterior /= posterior.sum(1, keepdims=True)
            share = posterior.mean(0)
            ratio = np.divide(share, prior, out=np.zeros_like(share), where=prior > 0)
        each = ratio[ground.gold[rows]]
        weights[rows] += told.sum() * each / max(each.sum(), 1e-12)
    return weights / weights.mean()


def estimate_directly(cases: Sequence[Case], place: int) -> dict[str, float]:
    """Return micro-F1 by estimators that weigh no rows."""
    case = cases[place]
    return {
        "ATC": _atc(case),
        "disagreement of learners (GDE)": _disagreement(cases, place),
    }


def _atc(case: Case) -> float:
    """Average thresholded confidence (Garg et al. 2022, arXiv 2201.04234), by kind of answer."""
    ground, system = case.ground, case.system
    sure = system.probs.max(1)
    test_sure = system.test_probs.max(2)
    positive, test_positive = (
        each != ground.criteria.negative_ids[0] for each in (system.pred, system.test_pred)
    )
    is_gold = ground.gold != ground.criteria.negative_ids[0]

    def above(rows: Any, test_rows: Any, share: float) -> float:
        if not rows.any() or not test_rows.any():
            return share
        return float((test_sure[test_rows] > np.quantile(sure[rows], 1 - share)).mean())

    right = above(positive, test_positive, (system.pred == ground.gold)[positive].mean())
    wanted = above(positive, test_positive, is_gold[positive].mean())
    clean = above(~positive, ~test_positive, 1 - is_gold[~positive].mean())
    share = float(test_positive.mean())
    return 2 * share * right / (share + share * wanted + (1 - share) * (1 - clean))


def _disagreement(cases: Sequence[Case], place: int) -> float:
    """Scale micro-F1 as the agreement with the other learners changes (arXiv 2106.13799)."""
    own, negative = cases[place], cases[place].ground.criteria.negative_ids[0]
    before, after = [], []
    for other in cases:
        if other is own:
            continue
        before.append(micro_f1(other.system.pred, own.system.pred, negative))
        pairs = zip(other.system.test_pred, own.system.test_pred, strict=True)
        after += [micro_f1(first, second, negative) for first, second in pairs]
    plain = micro_f1(own.ground.gold, own.system.pred, negative)
    return float(plain * np.mean(after) / np.mean(before))


def judge_estimates(folder: Path) -> pd.DataFrame:
    prepared = read_prepared(resolve_competition("klue-re", None, None))
    found: list[dict[str, Any]] = []
    for recipe, split in _list_splits(folder):
        cases = read_cases(folder, prepared, split)
        evidence = [read_evidence(each.ground, each.system) for each in cases]
        for place, case in enumerate(cases):
            about = {
                "recipe": recipe,
                "split": split,
                "learner": case.learner,
                "true F1": case.truth[0],
                "true AUPRC": case.truth[1],
                "true share": float(
                    (case.test_gold == case.ground.criteria.negative_ids[0]).mean()
                ),
                "alone": _score_models(case),
            }
            gold, system = case.ground.gold, case.system
            for name, weights in weigh_rows(case).items():
                f1 = micro_f1(gold, system.pred, case.ground.criteria.negative_ids[0], weights)
                share = float(
                    weights[gold == case.ground.criteria.negative_ids[0]].sum() / weights.sum()
                )
                area = auprc(gold, system.probs, weights)
                found.append({**about, "estimate": name, "F1": f1, "AUPRC": area, "share": share})
            for name, f1 in estimate_directly(cases, place).items():
                found.append({**about, "estimate": name, "F1": f1})
            for name, mix in (
                (ALONE, TestMix(case.ground, [evidence[place]])),
                (ALL, TestMix(case.ground, evidence)),
            ):
                expected = mix.expect(system.probs, system.pred)
                found.append(
                    {
                        **about,
                        "estimate": name,
                        "F1": expected.primary.value,
                        "AUPRC": expected.secondary,
                        "share": mix.negative_share,
                        "low": expected.primary.low,
                        "high": expected.primary.high,
                    }
                )
        print(split, file=sys.stderr, flush=True)
    table = pd.DataFrame(found)
    table.to_pickle(folder / "estimates.pkl")
    return table


def _score_models(case: Case) -> float:
    negative = case.ground.criteria.negative_ids[0]
    return float(
        np.mean([micro_f1(case.test_gold, pred, negative) for pred in case.system.test_pred])
    )


def _list_splits(folder: Path) -> Iterator[tuple[str, str]]:
    for recipe in RECIPES:
        for seed in SEEDS:
            split = name_split(recipe, seed)
            if (folder / f"{split}.npz").exists():
                yield recipe, split


def print_estimates(table: pd.DataFrame) -> None:
    table = table.assign(
        error=100 * (table["F1"] - table["true F1"]),
        area=100 * (table["AUPRC"] - table["true AUPRC"]),
        held=table["low"].le(table["true F1"]) & table["high"].ge(table["true F1"]),
        reach=50 * (table["high"] - table["low"]),
    )
    n_cases = len(table[table["estimate"] == "plain"])
    print(f"{n_cases} cases of {table['split'].nunique()} pseudo-tests\n")
    print("| estimate | bias | mean error | 95% of errors below | AUPRC: bias | mean error |")
    print("|---|---|---|---|---|---|")
    for name, rows in table.groupby("estimate", sort=False):
        size, area = rows["error"].abs(), rows["area"]
        cells = [rows["error"].mean(), size.mean(), size.quantile(0.95)]
        cells += [area.mean(), area.abs().mean()]
        print(f"| {name} | " + " | ".join("" if np.isnan(c) else f"{c:.1f}" for c in cells) + " |")
    print("\n| pseudo-test | true F1 | plain | expected | reach of the interval | holds it |")
    print("|---|---|---|---|---|---|")
    for recipe, rows in table.groupby("recipe", sort=False):
        own = rows[rows["estimate"] == ALL]
        plain = rows[rows["estimate"] == "plain"]
        print(
            f"| {recipe} | {100 * own['true F1'].mean():.1f} | {plain['error'].mean():+.1f} |"
            f" {own['error'].mean():+.1f} | {own['reach'].mean():.1f} | {own['held'].mean():.0%} |"
        )
    for name in (ALONE, ALL):
        own = table[table["estimate"] == name]
        print(f"\n{name}: coverage {own['held'].mean():.1%}, mean reach {own['reach'].mean():.1f}")


# --- simulated shifts -----------------------------------------------------------------------------

SHIFTS = ("labels", "types", "labels by type", "novelty", "confidence", "all", "none")


def simulate(folder: Path) -> pd.DataFrame:
    """Draw shifts from out-of-fold rows: half of the groups is held out, half is the test."""
    prepared = read_prepared(resolve_competition("klue-re", None, None))
    splits = [split for recipe, split in _list_splits(folder) if recipe == "alike"]
    cases = [case for split in splits for case in read_cases(folder, prepared, split)]
    found = []
    for number in range(SIMULATED):
        rng = np.random.default_rng([7, number])  # other draws than those of the splits
        case = cases[number % len(cases)]
        shift = SHIFTS[(number // len(cases) + number) % len(SHIFTS)]
        held, test, odds = _draw_shift(case, shift, rng)
        ground, system = case.ground, case.system
        probs, pred = system.probs, system.pred
        drawn = test[rng.choice(len(test), 2000, p=odds / odds.sum())]
        part = replace(
            ground,
            gold=ground.gold[held],
            groups=ground.groups[held],
            strata=ground.strata[:, held],
            test_strata=ground.strata[:, drawn],
        )
        answers = System(probs[held], pred[held], probs[drawn][None], pred[drawn][None])
        mix = TestMix(part, [read_evidence(part, answers)])
        expected = mix.expect(probs[held], pred[held])
        truth = micro_f1(ground.gold[drawn], pred[drawn], ground.criteria.negative_ids[0])
        found.append(
            {
                "shift": shift,
                "learner": case.learner,
                "true F1": truth,
                "plain": micro_f1(part.gold, pred[held], ground.criteria.negative_ids[0]),
                "F1": expected.primary.value,
                "low": expected.primary.low,
                "high": expected.primary.high,
                "true AUPRC": auprc(ground.gold[drawn], probs[drawn]),
                "AUPRC": expected.secondary,
            }
        )
    table = pd.DataFrame(found)
    table.to_pickle(folder / "simulated.pkl")
    return table


def _draw_shift(case: Case, shift: str, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """Return held-out rows, test rows and the odds with which the latter are drawn."""
    ground = case.ground
    in_test = (rng.random(int(ground.groups.max()) + 1) < 0.5)[ground.groups]
    held, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)
    odds = np.ones(len(ground.gold))
    if shift in ("labels", "all"):
        share = rng.uniform(0.1, 0.75)
        negative = ground.gold == ground.criteria.negative_ids[0]
        odds *= np.where(negative, share / negative.mean(), (1 - share) / (1 - negative.mean()))
        odds *= np.exp(rng.normal(0, 0.5, ground.n_labels))[ground.gold]
    if shift in ("types", "all"):
        odds *= np.exp(rng.normal(0, 1, int(ground.strata[1].max()) + 1))[ground.strata[1]]
    if shift == "labels by type":
        cells = ground.strata[1] * ground.n_labels + ground.gold
        odds *= np.exp(rng.normal(0, 1, int(cells.max()) + 1))[cells]
    if shift in ("novelty", "all"):
        odds *= np.exp(rng.normal(0, 0.7, int(ground.strata[-1].max()) + 1))[ground.strata[-1]]
    if shift == "confidence":
        sure = case.system.probs.max(1)
        odds *= np.exp(rng.uniform(-1, 1) * (sure - sure.mean()) / max(sure.std(), 1e-9))
    return held.astype(np.int64), test.astype(np.int64), odds[test]


def print_simulated(table: pd.DataFrame) -> None:
    held = table["low"].le(table["true F1"]) & table["high"].ge(table["true F1"])
    table = table.assign(
        held=held,
        error=100 * (table["F1"] - table["true F1"]),
        plain_error=100 * (table["plain"] - table["true F1"]),
        reach=50 * (table["high"] - table["low"]),
    )
    print(f"{len(table)} simulated shifts\n")
    print("| shift | plain, mean error | expected: bias | mean error | reach | holds it |")
    print("|---|---|---|---|---|---|")
    for name, rows in [*table.groupby("shift", sort=False), ("all together", table)]:
        print(
            f"| {name} | {rows['plain_error'].abs().mean():.1f} | {rows['error'].mean():+.1f} |"
            f" {rows['error'].abs().mean():.1f} | {rows['reach'].mean():.1f} |"
            f" {rows['held'].mean():.0%} |"
        )


# --- ranking --------------------------------------------------------------------------------------


def judge_ranking(folder: Path) -> pd.DataFrame:
    """Rank the learners of each pseudo-test by many criteria; tau against their true order."""
    prepared = read_prepared(resolve_competition("klue-re", None, None))
    found: list[dict[str, Any]] = []
    for recipe, split in _list_splits(folder):
        cases = read_cases(folder, prepared, split)
        evidence = [read_evidence(case.ground, case.system) for case in cases]
        scores = pd.DataFrame(
            [_score_all(case, place, evidence) for place, case in enumerate(cases)]
        )
        for kind in ("", ", own weights", ", common weights"):
            scores[f"mean of F1 and AUPRC{kind}"] = (
                scores[f"F1{kind}"] + scores[f"AUPRC{kind}"]
            ) / 2
        for column, truth in enumerate(("true F1", "true AUPRC")):
            of_truth = [case.truth[column] for case in cases]
            for name in scores:
                tau = kendalltau(scores[name], of_truth).statistic
                found.append({"recipe": recipe, "truth": truth, "criterion": name, "tau": tau})
        print(split, file=sys.stderr, flush=True)
    table = pd.DataFrame(found)
    table.to_pickle(folder / "ranking.pkl")
    return table


def _score_all(case: Case, place: int, evidence: Sequence[Evidence]) -> dict[str, float]:
    """Return plain scores, under the learner's own weights, and under the mean of all learners'."""
    ground, system = case.ground, case.system
    (negative,) = ground.criteria.negative_ids
    chosen = system.probs[np.arange(len(ground.gold)), ground.gold]
    losses = np.log(np.maximum(chosen, 1e-4))
    scores = {}
    for kind, weights in (
        ("", np.ones(len(losses))),
        (", own weights", TestMix(ground, [evidence[place]]).weights),
        (", common weights", TestMix(ground, evidence).weights),
    ):
        scores |= {
            f"F1{kind}": micro_f1(ground.gold, system.pred, negative, weights),
            f"AUPRC{kind}": auprc(ground.gold, system.probs, weights),
            f"log-loss{kind}": float(np.average(losses, weights=weights)),
        }
    return scores


def print_ranking(table: pd.DataFrame) -> None:
    wide = table.pivot_table(index="criterion", columns="truth", values="tau", sort=False)
    print("| ranked by | tau with the true F1 | tau with the true AUPRC |")
    print("|---|---|---|")
    for name, row in wide.iterrows():
        print(f"| {name} | {row['true F1']:.2f} | {row['true AUPRC']:.2f} |")


# --- the variants of a store, on the real test ----------------------------------------------------


def read_store(name: str) -> list[Case]:
    """Return the complete variants of a competition, whose test labels nobody knows."""
    prepared = read_prepared(resolve_competition(name, None, None))
    corpus, profile = prepared.corpus, prepared.competition.profile
    strata = build_strata(corpus.train, corpus.test, prepared.folds.fold_of)
    gold = corpus.train.gold.astype(np.int64)
    (negative,), groups = profile.negative_ids, prepared.groups
    ground = Ground(gold, build_criteria(profile), groups, strata.train, strata.test)
    shift = fit_shift(corpus, profile.folds.group_by, lambda _frac, _text: None)
    odds = np.ones(len(gold)) if shift is None else shift.odds
    share = profile.metrics.shifted_negative_share or float((gold == negative).mean())
    store = Store(prepared.competition.oof_dir, profile.labels)
    cases = []
    for variant in store.variants():
        member = read_member(store, variant, prepared)
        if member.covers_all:
            answers = (member.oof, member.oof.argmax(1), member.test, member.test.argmax(2))
            system = System(*answers)
            unknown = np.empty(0, dtype=np.int64)
            about = (variant, ground, system, unknown, (np.nan, np.nan), odds, share)
            cases.append(Case(name, *about))
    return cases


def print_members(name: str) -> None:
    """Print every estimate of micro-F1 for the variants of a store, and the share of negatives."""
    cases = read_store(name)
    ground = cases[0].ground
    evidence = [read_evidence(ground, case.system) for case in cases]
    columns: dict[str, dict[str, str]] = {}
    for place, case in enumerate(cases):
        column = columns.setdefault(case.learner, {})
        for estimate, weights in weigh_rows(case).items():
            f1 = micro_f1(ground.gold, case.system.pred, ground.criteria.negative_ids[0], weights)
            negative = float(
                weights[ground.gold == ground.criteria.negative_ids[0]].sum() / weights.sum()
            )
            column[estimate] = f"{100 * f1:.1f} ({negative:.0%})"
        for estimate, f1 in estimate_directly(cases, place).items():
            column[estimate] = f"{100 * f1:.1f}"
        for estimate, known in ((ALONE, [evidence[place]]), (ALL, evidence)):
            mix = TestMix(ground, known)
            found = mix.expect(case.system.probs, case.system.pred).primary
            interval = f"{100 * found.low:.1f}–{100 * found.high:.1f}"
            column[estimate] = f"{100 * found.value:.1f}, {interval} ({mix.negative_share:.0%})"
    print(f"| estimate | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for estimate in next(iter(columns.values())):
        print(f"| {estimate} | {' | '.join(column[estimate] for column in columns.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("command", choices=("estimates", "rank", "simulate", "members"))
    parser.add_argument("folder", type=Path, help="of the splits; for members, a competition")
    asked = parser.parse_args()
    if asked.command == "estimates":
        print_estimates(judge_estimates(asked.folder))
    elif asked.command == "members":
        print_members(str(asked.folder))
    elif asked.command == "rank":
        print_ranking(judge_ranking(asked.folder))
    else:
        print_simulated(simulate(asked.folder))


if __name__ == "__main__":
    main()
