"""predict: it refuses to overwrite data, and reports what was not recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from competition.blend.blend import run_blend
from competition.errors import PredictionsError, UsageError
from competition.files import dump_json, write_atomically
from competition.folds.kfold import Prepared
from competition.importing.importing import ImportOptions, run_import
from competition.predictions.store import ResultKey, Store
from competition.profile import Competition
from models.jobs import predict as room
from models.jobs.job import run_job
from models.jobs.plan import plan_jobs
from models.jobs.predict import PredictRequest, run_predict
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.training.control import Watch
from models.variant import Variant


@pytest.fixture
def blended(prepared: Prepared, quiet_watch: Watch) -> Competition:
    """A linear model alone, trained and blended on the tiny competition, without provenance."""
    wanted = FoldRequest(variants=("tfidf-linear",))
    for spec in plan_jobs(prepared, wanted, print, threads=1).jobs:
        assert run_job(spec, quiet_watch).finished
    competition = prepared.competition
    run_blend(competition, (), trials=0, seed=0, name="all", run={"time": "2026-01-01"})
    for path in competition.oof_dir.glob("*/*.run.json"):
        path.unlink()
    return competition


def test_output_that_cannot_be_written_or_replaces_data_is_refused(
    blended: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.csv"
    shutil.copy(blended.test_path, file)
    (tmp_path / "link.csv").hardlink_to(file)
    solution = blended.solution_path
    assert solution is not None
    kept = {path: path.read_bytes() for path in (file, blended.train_path, solution)}
    with monkeypatch.context() as patch:
        patch.setattr(room, "read_prepared", lambda _: pytest.fail("the work began"))
        for out, said in (
            (file, "is the input file"),
            (tmp_path / "link.csv", "is the input file"),
            (tmp_path / "data" / ".." / "rows.csv", "is the input file"),
            (blended.train_path, r"the competition's train\.csv"),
            (blended.test_path, r"the competition's test\.csv"),
            (solution, r"the competition's solution\.csv"),
            (tmp_path, "is a folder; give a file"),
            (file / "out.csv", "is not a folder"),
        ):
            with pytest.raises(UsageError, match=said):
                run_predict(blended, PredictRequest(file, "all", out), print)
        with pytest.raises(OSError, match="too long"):
            run_predict(blended, PredictRequest(file, "all", tmp_path / ("x" * 300)), print)
        with pytest.raises(UsageError, match=r"none\.csv does not exist"):
            run_predict(blended, PredictRequest(tmp_path / "none.csv", "all"), print)
    said_of: list[str] = []
    run_predict(blended, PredictRequest(file, "all"), said_of.append)
    assert not [text for text in said_of if "threads" in text]  # a linear model needs none
    answers = (tmp_path / "rows-all.csv").read_bytes()
    assert answers == (blended.submissions_dir / "all.csv").read_bytes()
    assert {path: path.read_bytes() for path in kept} == kept


def refuse_rows(competition: Competition, blend: str) -> str:
    """Return the error of predict on the competition's own test rows."""
    with pytest.raises(PredictionsError) as caught:
        run_predict(competition, PredictRequest(competition.test_path, blend), print)
    return str(caught.value)


def test_an_imported_table_cannot_predict_new_rows(blended: Competition, tmp_path: Path) -> None:
    files = sorted(blended.oof_dir.glob("tfidf-linear/*.parquet"))
    table = tmp_path / "kim.csv"
    pd.concat([pd.read_parquet(file) for file in files]).to_csv(table, index=False)
    assert run_import(blended, table, ImportOptions()).offences == ()
    run_blend(blended, ("kim",), trials=0, seed=0, name="kims", run={"time": "2026-01-02"})
    # neither missing provenance nor weights of another model under its name change that
    shutil.copytree(blended.checkpoints_dir / "tfidf-linear", blended.checkpoints_dir / "kim")
    for path in blended.oof_dir.glob("kim/*.run.json"):
        path.unlink()
    assert refuse_rows(blended, "kims") == (
        "kim was imported without weights, so it cannot predict new rows;"
        " name a blend without it with --blend NAME"
    )
    run_predict(blended, PredictRequest(blended.test_path, "all", tmp_path / "out.csv"), print)


def test_an_imported_result_predicts_once_its_weights_are_copied(
    blended: Competition, tmp_path: Path
) -> None:
    """Before, the advice is to train it again if it was trained here, but not if imported."""
    weights = blended.checkpoints_dir / "tfidf-linear"
    away = weights.rename(tmp_path / "away")
    trained = refuse_rows(blended, "all")
    folder = weights / "s42-f0"
    assert trained == (
        f"{folder} has no readable weights of tfidf-linear;"
        " run: python run.py fold tfidf-linear --overwrite, without --no-checkpoints"
    )
    store = Store(blended.oof_dir, blended.profile.labels)
    theirs = (blended.oof_dir / "tfidf-linear").rename(tmp_path / "tfidf-linear")
    run_import(blended, theirs, ImportOptions())
    assert store.read_run(ResultKey("tfidf-linear", 42, 0))["imported_from"]
    assert refuse_rows(blended, "all") == (
        "tfidf-linear was imported without weights, so it cannot predict new rows;"
        f" name a blend without it with --blend NAME, or copy {folder} from where it was trained"
    )
    away.rename(weights)
    run_predict(blended, PredictRequest(blended.test_path, "all", tmp_path / "out.csv"), print)
    answers = (tmp_path / "out.csv").read_bytes()
    assert answers == (blended.submissions_dir / "all.csv").read_bytes()


def test_the_encoder_is_looked_for_where_training_found_it(
    blended: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders: list[str] = []

    def build(prepared: Prepared, variant: Variant, *arguments: Any, **options: Any) -> JobSpec:
        encoders.append(variant.encoder)
        raise PredictionsError("enough")

    monkeypatch.setattr(room, "build_job", build)
    assert refuse_rows(blended, "all") == "enough"
    store = Store(blended.oof_dir, blended.profile.labels)
    run = store.run_path(ResultKey("tfidf-linear", 42, 0))
    for folder in (tmp_path, tmp_path / "gone"):
        run.write_text(dump_json({"encoder_folder": str(folder)}), "utf-8")
        assert refuse_rows(blended, "all") == "enough"
    assert encoders == [encoders[0], str(tmp_path), encoders[0]]


def test_threads_are_as_requested_or_as_recorded_or_all(
    prepared: Prepared, make_specs: Callable[..., list[JobSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    competition = prepared.competition
    store = Store(competition.oof_dir, competition.profile.labels)
    specs = make_specs()
    linear = [replace(spec, network=None, key=replace(spec.key, variant="l")) for spec in specs]
    write_atomically(store.run_path(specs[0].key), dump_json({"threads": 3}))
    said: list[str] = []
    chosen = room.choose_threads(store, [*specs, *linear], None, said.append)
    assert [chosen[spec.key] for spec in specs] == [3, 6, 6]
    (notice,) = said
    assert f"{store.run_path(specs[1].key)} does not record" in notice
    assert "(2 such files); using all 6 cores" in notice
    assert "--threads N" in notice
    said.clear()
    chosen = room.choose_threads(store, [*specs, *linear], 2, said.append)
    assert set(chosen.values()) == {2}
    room.choose_threads(store, linear, None, said.append)
    assert said == []


def test_a_blend_made_with_other_negative_labels_is_refused(
    blended: Competition, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    shutil.copy(blended.test_path, file)
    profile = blended.profile.model_copy(update={"negative_label": None})
    with pytest.raises(PredictionsError, match=r"all\.json was made with other negative labels"):
        run_predict(replace(blended, profile=profile), PredictRequest(file), print)
