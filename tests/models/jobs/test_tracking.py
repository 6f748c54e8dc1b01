"""Trackers get one run per job and one summary; the learning curve is always written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.errors import UsageError
from competition.folds.kfold import Prepared
from competition.predictions.learning_curves import CURVE_FILE, CurvePoint, append_point, read_curve
from competition.progress import ProgressBoard
from models.jobs import tracking
from models.jobs.fold import run_fold
from models.jobs.request import FoldRequest
from models.jobs.tracking import Trackers, check_trackers, track_summary
from tests.models.conftest import ONE_THREAD, TINY_SCRATCH


class Remembering:
    """A tracker that keeps what it is given, or fails at one call."""

    def __init__(self, fails_at: str = "", **options: Any) -> None:
        self.calls: list[tuple[str, Any]] = [("options", options)]
        self.fails_at = fails_at

    def _note(self, name: str, *values: Any) -> None:
        self.calls.append((name, *values))
        if name == self.fails_at:
            raise RuntimeError("the server is gone\nwith details")

    def start(self) -> None:
        self._note("start")

    def store_init_configuration(self, values: Any) -> None:
        self._note("config", values)

    def log(self, values: Any, step: int | None) -> None:
        self._note("log", values, step)

    def finish(self) -> None:
        self._note("finish")


def point(step: int, loss: float = 1.0) -> CurvePoint:
    return CurvePoint("2026-01-01T00:00:00+00:00", step, 9, loss, 10.0)


def test_a_curve_is_read_as_the_last_run_made_it(tmp_path: Path) -> None:
    for step, loss in ((2, 3.0), (4, 2.0), (6, 1.5)):
        append_point(tmp_path, point(step, loss))
    append_point(tmp_path, point(4, 2.1))  # killed after step 6, resumed from a checkpoint at 3
    with (tmp_path / CURVE_FILE).open("ab") as stream:
        stream.write(b'{"step": 5, "los\n[1]\n')
        for wrong in ({"loss": float("nan")}, {"step": 10**400}, {"steps": "9"}):
            stream.write(json.dumps({**asdict(point(7)), **wrong}).encode() + b"\n")
        stream.write(b"[" * 9000 + b"\n")
    append_point(tmp_path, point(6, 1.4))
    said: list[str] = []
    assert [(each.step, each.loss) for each in read_curve(tmp_path, said.append)] == [
        (2, 3.0),
        (4, 2.1),
        (6, 1.4),
    ]
    assert [line.rpartition(", ")[2] for line in said] == [
        "line 5 is damaged and left out",
        *(f"line {number} is damaged and left out" for number in range(6, 11)),
    ]
    assert read_curve(tmp_path / "nowhere") == []


def test_unknown_and_missing_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean wandb"):
        check_trackers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--track mlflow needs a package: python -m pip install"):
        check_trackers(["mlflow"])


@pytest.mark.parametrize("fails_at", ["start", "config", "log", "finish"])
def test_a_tracker_that_fails_is_named_and_left(
    fails_at: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Remembering] = []

    def start(name: str, options: Any) -> Remembering:
        made.append(Remembering(fails_at if name == "wandb" else "", **options))
        made[-1].start()
        return made[-1]

    monkeypatch.setattr(tracking, "_start", start)
    said: list[str] = []
    trackers = Trackers(said.append)
    about = {"folder": tmp_path, "project": "p", "run": "r", "run_id": "i"}
    trackers.start(["wandb", "mlflow"], **about)  # type: ignore[arg-type]
    trackers.configure({"train": {"lr": 0.1}})
    trackers.log({"loss": 1.0}, 3)
    trackers.finish()
    assert said == ["training continues without wandb: the server is gone"]
    sound = made[1].calls
    assert sound == [
        ("options", {"experiment_name": "p", "run_name": "r"}),
        ("start",),
        ("config", {"train.lr": 0.1}),
        ("log", {"loss": 1.0}, 3),
        ("finish",),
    ]


def test_the_summary_takes_any_name_and_the_next_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Remembering] = []

    def start(_name: str, options: Any) -> Remembering:
        made.append(Remembering(**options))
        return made[-1]

    monkeypatch.setattr(tracking, "_start", start)
    scores = {"a@train.lr=0.1.oof_micro_f1": 0.5, "변형.oof_micro_f1": 0.4}
    track_summary(["mlflow"], scores, folder=tmp_path, project="p", say=print)
    logged = {"a-train.lr-0.1.oof_micro_f1": 0.5, "변형.oof_micro_f1": 0.4}
    assert made[0].calls[1:] == [("log", logged, None), ("finish",)]


def test_what_a_tracker_says_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    said: list[str] = []
    Trackers(said.append)._leave(
        "wandb", RuntimeError("https://me:pass@host/api refused 0123456789abcdef\nmore")
    )
    assert said == ["training continues without wandb: https://***@host/api refused ***"]


def read_events(folder: Path) -> dict[str, list[float]]:
    """Read the scalars of TensorBoard's event files."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[float]] = {}
    for path in sorted(folder.rglob("events.out.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append(value.simple_value)
    return found


def test_fold_logs_each_job_and_the_summary_to_tensorboard(prepared: Prepared) -> None:
    pytest.importorskip("tensorboardX")
    competition = prepared.competition
    request = FoldRequest(
        variants=("typed-punct",),
        folds=(0,),
        encoder="scratch",
        overrides=(*TINY_SCRATCH, ("train.epochs", 1)),
        save_as="tracked",
        engine=ONE_THREAD,
        track=("tensorboard",),
    )
    with ProgressBoard() as board:
        run_fold(competition, request, board)
    folder = competition.checkpoints_dir / "tracked" / "s42-f0"
    curve = read_curve(folder)
    assert curve[-1].step == curve[-1].steps
    assert all(np.isfinite(each.loss) for each in curve)
    events = read_events(competition.checkpoints_dir / "tensorboard" / "tracked-s42-f0")
    assert events["loss"][-1] == pytest.approx(curve[-1].loss, rel=1e-5)
    run = competition.oof_dir / "tracked" / "s42-f0.run.json"
    scores = json.loads(run.read_text("utf-8"))
    assert events["oof_micro_f1"] == pytest.approx([scores["micro_f1"]])
    assert (competition.checkpoints_dir / "tensorboard" / "summary").is_dir()


def test_the_summary_has_every_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = Remembering()
    monkeypatch.setattr(tracking, "_start", lambda name, options: kept)
    values = {"typed-punct.oof_f1.value": 0.7}
    track_summary(["trackio"], values, folder=tmp_path, project="p", say=print)
    assert kept.calls[1:] == [("log", values, None), ("finish",)]
