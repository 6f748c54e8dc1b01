"""The report draws the curves that jobs left, and the studies that tune left."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from competition.folds.kfold import read_prepared
from competition.predictions.learning_curves import CurvePoint, append_point
from competition.predictions.store import ResultKey, Store
from competition.profile import STUDY_JOURNAL, Competition
from competition.report.page import Page
from competition.report.training import (
    add_jobs,
    add_learning_curves,
    add_studies,
    read_studies,
)
from competition.scoring.metrics.catalogue import METRICS
from tests.competition.blend.test_blend import write_variant


def write_study(folder: Path, n_trials: int, objective: str = "micro-f1") -> None:
    lowest = -0.5 if METRICS[objective].is_loss else 0.5
    folder.mkdir(parents=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / STUDY_JOURNAL)))
    study = optuna.create_study(study_name="typed-punct-1", storage=storage, direction="maximize")
    study.set_user_attr("made_from", {"objective": objective})
    rate = optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True)
    for place in range(n_trials):
        params = {"train.lr": 1e-5 * 1.3**place}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions={"train.lr": rate}, value=lowest + place % 7 / 100
            )
        )
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))


def figures_of(text: str) -> list[dict[str, object]]:
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    return [json.loads(unescape(each)) for each in found]


def test_curves_of_jobs_are_drawn_in_the_order_of_the_store(tiny_competition: Competition) -> None:
    keys = [ResultKey("typed-punct", 42, fold) for fold in range(3)]
    for fold, losses in ((0, (2.0, 1.5, 1.25)), (1, (2.5, 1.0))):
        folder = tiny_competition.checkpoints_dir / "typed-punct" / f"s42-f{fold}"
        folder.mkdir(parents=True)
        for step, loss in enumerate(losses, start=1):
            append_point(folder, CurvePoint("now", step, 3, loss, 50.0))
    page = Page("title")
    add_learning_curves(page, tiny_competition, keys)
    text = page.build("")
    assert "Learning curves" in text
    lines = figures_of(text)[0]["data"]
    assert isinstance(lines, list)
    assert [(each["name"], each["y"]) for each in lines] == [
        ("typed-punct s42 f0", [2.0, 1.5, 1.25]),
        ("typed-punct s42 f1", [2.5, 1.0]),
    ]


def test_nothing_is_said_where_nothing_was_trained_or_tuned(tiny_competition: Competition) -> None:
    page = Page("title")
    before = page.build("")
    add_learning_curves(page, tiny_competition, [ResultKey("typed-punct", 42, 0)])
    add_studies(page, tiny_competition)
    assert page.build("") == before


def test_a_study_has_its_history_and_importances(tiny_competition: Competition) -> None:
    write_study(tiny_competition.tune_dir / "typed-punct-1", 12)
    broken = tiny_competition.tune_dir / "broken"
    broken.mkdir()
    (broken / STUDY_JOURNAL).write_text("<html>", encoding="utf-8")
    said: list[str] = []
    studies = list(read_studies(tiny_competition.tune_dir, said.append))
    assert len(said) == 1
    assert str(broken / STUDY_JOURNAL) in said[0]
    assert [(study.name, len(study.trials), study.n_trials) for study in studies] == [
        ("typed-punct-1", 12, 13)
    ]
    assert studies[0].importances == pytest.approx({"train.lr": 1.0})
    page = Page("title")
    add_studies(page, tiny_competition)
    text = page.build("")
    assert "Search typed-punct-1" in text
    assert "12 of 13 trials have a score." in text
    history, importance = figures_of(text)
    trials, best = history["data"]  # type: ignore[misc]
    assert max(trials["y"]) == best["y"][-1] == pytest.approx(56)  # type: ignore[index]
    assert best["y"] == sorted(best["y"])  # type: ignore[index]
    assert importance["data"][0]["y"] == ["train.lr"]  # type: ignore[index]


def test_a_search_for_a_loss_is_drawn_as_the_loss(tiny_competition: Competition) -> None:
    write_study(tiny_competition.tune_dir / "typed-punct-1", 8, "log-loss")
    page = Page("title")
    add_studies(page, tiny_competition)
    text = page.build("")
    assert "8 of 9 trials have a score." in text
    assert "log-loss" in text
    trials, best = figures_of(text)[0]["data"]  # type: ignore[misc]
    assert trials["y"][:2] == pytest.approx([0.5, 0.49])  # type: ignore[index]
    assert min(trials["y"]) == best["y"][-1] == pytest.approx(0.44)  # type: ignore[index]


def test_jobs_and_differing_settings_are_listed_whatever_their_provenance_says(
    tiny_competition: Competition,
) -> None:
    prepared = read_prepared(tiny_competition)
    for name, rate in (("first", 1e-5), ("second", 1e-3)):
        write_variant(prepared, name, settings={"head": "cls", "train": {"lr": rate}})
    store = Store(tiny_competition.oof_dir, tiny_competition.profile.labels)
    keys = [key for name in store.variants() for key in store.keys(name)]
    run = {
        "log_loss": 0.4321,
        "auprc": "high",
        "seconds": 61.5,
        "predicted_per_s": 187.4,
        "machine": {"device": "cpu"},
    }
    store.run_path(keys[0]).write_text(json.dumps(run), encoding="utf-8")
    store.run_path(keys[1]).write_text("[", encoding="utf-8")
    page = Page("title")
    add_jobs(page, store, keys, (METRICS["log-loss"], METRICS["auprc"]))
    text = page.build("")
    assert "0.4321" in text
    assert "micro" not in text
    assert "61.5" in text
    assert "187.4" in text
    assert "train.lr" in text
    assert "head" not in re.findall("<td>(head)</td>", text)
