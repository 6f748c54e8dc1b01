"""A bundle predicts a hidden test file, with neither network nor what training left."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

from competition.blend.blend import run_blend
from competition.errors import CorpusError, PredictionsError, UsageError
from competition.files import dump_json, sha256_of
from competition.folds.kfold import Prepared
from competition.lease import hold
from competition.profile import Competition
from competition.report.report import write_report
from models.jobs.bundle import BundleRequest, hash_test, list_libraries, run_bundle
from models.jobs.job import run_job
from models.jobs.offline import MANIFEST, predict_bundle, read_bundle
from models.jobs.plan import plan_jobs
from models.jobs.predict import PredictRequest, run_predict
from models.jobs.request import FoldRequest
from models.settings import AdaptSettings
from models.training.control import Watch
from models.variant import Variant
from tests.models.conftest import read_home, request_for

NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise OSError("no network here")

socket.getaddrinfo = socket.socket.connect = refuse
"""


@pytest.fixture
def blended(blended_home: Path, tmp_path: Path) -> Prepared:
    home = shutil.copytree(blended_home, tmp_path / "home")
    return read_home(home, home / "tiny.toml")


def test_it_gives_the_bytes_of_the_blend_without_what_training_left(
    blended: Prepared, tmp_path: Path
) -> None:
    competition, bundle = blended.competition, tmp_path / "bundle"
    own = (competition.submissions_dir / "networks.csv").read_bytes()
    test = shutil.copy(competition.test_path, tmp_path / "hidden.csv")
    table = run_bundle(competition, BundleRequest("networks", bundle, "kim"), lambda text: None)
    assert {row["what"] for row in table.rows} == {"code", "models", "encoders", "notebook"}
    assert f"kaggle datasets create --path {bundle} --dir-mode zip" in "\n".join(table.notes)
    shutil.rmtree(competition.home)
    said: list[str] = []
    out = tmp_path / "submission.csv"
    predict_bundle(bundle, Path(test), out, say=said.append)
    assert out.read_bytes() == own
    assert "byte for byte" in said[-1]
    weights = list(bundle.rglob("encoders/*/*.safetensors"))
    assert not weights  # they are in models/ already

    # a hidden file has other rows, and the platform a limit
    with Path(test).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    with Path(test).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([rows[0], *rows[:3:-1]])
    predict_bundle(bundle, Path(test), out, limit_s=0, say=said.append)
    answers = out.read_text(encoding="utf-8").splitlines()
    assert [line.partition(",")[0] for line in answers[1:]] == [row[0] for row in rows[:3:-1]]
    assert "no time for folds 1 to 2; the answers are those of the first 1" in "".join(said)
    Path(test).write_text("id,sentence\n1,x\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="cannot be predicted"):
        predict_bundle(bundle, Path(test), out, say=said.append)


def test_every_member_without_weights_is_named_with_its_command(blended: Prepared) -> None:
    competition = blended.competition
    for name in ("net", "held"):
        (competition.checkpoints_dir / name / "s42-f1" / "model.safetensors").unlink()
    record = json.loads((competition.submissions_dir / "networks.json").read_text("utf-8"))
    for member in record["members"]:
        member["weight"] = 0.5
    (competition.submissions_dir / "networks.json").write_text(dump_json(record), "utf-8")
    with pytest.raises(PredictionsError) as caught:
        run_bundle(competition, BundleRequest("networks"), lambda text: None)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all("python run.py fold" in line and "--overwrite" in line for line in lines)
    assert not (competition.submissions_dir / "bundles").exists()


def test_other_files_and_bundles_are_not_replaced(blended: Prepared, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        run_bundle(blended.competition, BundleRequest("all", mine), lambda text: None)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    (mine / "thesis.txt").rename(mine / "wheels.txt")
    with pytest.raises(UsageError, match="replace it with --overwrite"):
        run_bundle(blended.competition, BundleRequest("all", mine), lambda text: None)
    with pytest.raises(UsageError, match=r"holds no bundle\.json"):
        read_bundle(mine)
    (mine / MANIFEST).write_text("{}")
    with pytest.raises(UsageError, match="is damaged"):
        read_bundle(mine)


def test_a_bundle_is_replaced_only_once_all_its_members_are_found(
    blended: Prepared, tmp_path: Path
) -> None:
    competition, out = blended.competition, tmp_path / "my bundle"
    request = BundleRequest("networks", out, overwrite=True)
    notes = "\n".join(run_bundle(competition, request, lambda text: None).notes)
    assert f"--path '{out}' --dir-mode" in notes
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for weights in competition.checkpoints_dir.glob("*/*/model.safetensors"):
        weights.rename(weights.with_name("away"))
    with pytest.raises(PredictionsError):
        run_bundle(competition, request, lambda text: None)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole


def test_a_killed_bundle_is_done_again(blended: Prepared, tmp_path: Path) -> None:
    def kill(text: str) -> None:
        raise KeyboardInterrupt

    competition, out = blended.competition, tmp_path / "b"
    record = json.loads((competition.submissions_dir / "all.json").read_text("utf-8"))
    for member in record["members"]:
        member["weight"] = 0.5
    (competition.submissions_dir / "all.json").write_text(dump_json(record), "utf-8")
    with pytest.raises(KeyboardInterrupt):
        run_bundle(competition, BundleRequest("all", out), kill)
    with pytest.raises(UsageError, match="unfinished bundle; replace it with --overwrite"):
        run_bundle(competition, BundleRequest("all", out), lambda text: None)
    again = BundleRequest("all", out, overwrite=True)
    with hold(out / "bundle"), pytest.raises(UsageError, match="is writing a bundle into"):
        run_bundle(competition, again, lambda text: None)
    run_bundle(competition, again, lambda text: None)
    assert read_bundle(out).name == "all"
    assert len(read_bundle(out).test_sha256) == 64
    assert not list(out.glob("*.lease"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("folder", "../../elsewhere", "folder"),
        ("folder", "/etc", "folder"),
        ("encoder", "encoders/../../x", "encoder"),
        ("fold", 7, "are missing"),
        ("part", "x", "are missing"),
        ("threads", 0, "threads"),
    ],
)
def test_a_bundle_of_others_stays_inside_and_is_whole(
    key: str, value: object, said: str, blended: Prepared, tmp_path: Path
) -> None:
    run_bundle(blended.competition, BundleRequest("networks", tmp_path / "b"), lambda text: None)
    path = tmp_path / "b" / MANIFEST
    content = json.loads(path.read_text("utf-8"))
    factors = {**content["blend"], "label_factors": [1.0]}
    path.write_text(json.dumps({**content, "blend": factors}), "utf-8")
    with pytest.raises(UsageError, match=r"is damaged .*1 numbers for"):
        read_bundle(path.parent)
    job = next(iter(content["jobs"].values()))[0]
    job[key] = value
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UsageError, match=f"is damaged .*{said}"):
        read_bundle(path.parent)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is damaged"):
        read_bundle(path.parent)


def test_no_key_is_in_a_bundle_or_a_report(
    blended: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAGGLE_KEY", "HF_TOKEN", "WANDB_API_KEY", "SUBMIT_KEY"):
        monkeypatch.setenv(name, f"the-planted-{name}")
    run_bundle(blended.competition, BundleRequest("networks", tmp_path / "b"), lambda text: None)
    write_report(blended.competition, now=datetime.now(UTC))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert [path for path in written if b"the-planted-" in path.read_bytes()] == []


def test_the_answers_of_a_sample_are_not_those_of_the_file(tiny_competition: Competition) -> None:
    assert hash_test(tiny_competition) == sha256_of(tiny_competition.test_path)
    assert hash_test(replace(tiny_competition, limit=20)) == ""


def test_predicting_needs_no_more_than_is_listed() -> None:
    listed = list_libraries()
    assert any(line.startswith("hgtk") for line in listed)
    assert not any(line.startswith(("optuna", "plotly", "peft", "bitsandbytes")) for line in listed)


@pytest.mark.parametrize("quantise", ["none", "nf4"])
def test_adapters_need_their_libraries(quantise: str) -> None:
    adapt = AdaptSettings.model_validate({"rank": 2, "quantise": quantise})
    variant = Variant(name="lora", why="for a test", encoder="x", head="cls", adapt=adapt)
    listed = "\n".join(list_libraries([variant]))
    assert "peft" in listed
    assert ("bitsandbytes" in listed) == (quantise == "nf4")


@pytest.mark.slow
def test_the_notebook_answers_without_network(
    prepared: Prepared, quiet_watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Kaggle: the dataset is somewhere below, and the rest of the project is absent."""
    from nbclient import NotebookClient

    specialists = [
        request_for("typed-punct", save_as=part, overrides=(("route", f"length:{part}"),))
        for part in ("short", "medium", "long")
    ]
    ngrams = FoldRequest(variants=("tfidf-linear", "ngram-mlp"))
    for wanted in (ngrams, *specialists):
        for spec in plan_jobs(prepared, wanted, print, threads=1).jobs:
            assert run_job(spec, quiet_watch).finished
    competition = prepared.competition
    run_blend(competition, (), trials=0, seed=0, name="all", run={"time": "2026-01-01"})
    record = json.loads((competition.submissions_dir / "all.json").read_text("utf-8"))
    assert [m["name"] for m in record["members"]] == ["ngram-mlp", "tfidf-linear", "route:length"]
    for member in record["members"]:
        member["weight"] = 0.5
    (competition.submissions_dir / "all.json").write_text(dump_json(record), "utf-8")
    run_bundle(competition, BundleRequest("all"), lambda text: None)
    run_predict(competition, PredictRequest(competition.test_path, "all", tmp_path / "own"), print)
    away = tmp_path / "kaggle" / "input"
    shutil.copytree(competition.submissions_dir / "bundles" / "all", away / "my-bundle")
    (away / "working").mkdir()
    shutil.copy(competition.test_path, away / "working")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(NO_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(blocked))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    shutil.rmtree(competition.checkpoints_dir)
    (path,) = (away / "my-bundle").rglob("*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(away / "working")}}
    ).execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
    assert "fold 2: long seed 42" in printed
    answers = (away / "working" / "submission.csv").read_bytes()
    assert answers == (tmp_path / "own").read_bytes()
