"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, trackio, through accelerate.

Off by default. With ``fold --track NAME``, each job is one run with the resolved settings, its loss
while it trains and its out-of-fold scores at the end; one more run, ``summary``, has the scores of
every variant. A tracker that fails is named and left, and training goes on. The learning curve in
``metrics.jsonl`` is always written.
"""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from competition.arrays import Say
from competition.errors import UsageError
from competition.predictions.learning_curves import CurvePoint, append_point
from competition.spelling import suggest
from models.jobs.spec import JobOutcome, JobSpec
from models.training.control import Progress
from models.training.hardware import without_launch

TRACKERS: dict[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}
"""By name, the packages of which it needs one."""
SUMMARY = "summary"
OUTSIDE_NAMES = r"[^\w./: -]"  # MLflow takes no metric whose name has these
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
MIN_SECRET_CHARS = 6
LOGIN = re.compile(r"://[^/\s]*@")
POINT_EVERY_S = 5.0


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers are known and installed, before anything is trained.

    Raises:
        UsageError: names the package to install.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(
                f"--track {name}: unknown{suggest(name, list(TRACKERS))}; choose from "
                f"{', '.join(TRACKERS)}"
            )
        if not any(importlib.util.find_spec(package) for package in TRACKERS[name]):
            raise UsageError(
                f"--track {name} needs a package: python -m pip install {TRACKERS[name][0]}"
            )


class Trackers:
    """The open runs of one job or summary, one per tracker."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._open: dict[str, Any] = {}

    def start(
        self, names: Sequence[str], *, folder: Path, project: str, run: str, run_id: str
    ) -> None:
        """Start a run on each tracker.

        Args:
            names: keys of ``TRACKERS``.
            folder: of trackers that write files.
            project: groups the runs of a competition.
            run: name of the run.
            run_id: identifies it where a tracker can resume a run.
        """
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"run_name": run, "logging_dir": str(folder / "tensorboard")},
            "wandb": {"run_name": project, "name": run, "id": run_id, "resume": "allow"},
            "mlflow": {"experiment_name": project, "run_name": run},
            "trackio": {"run_name": project, "name": run, "resume": "allow"},
        }
        for name in names:
            try:
                self._open[name] = _start(name, options[name])
            except Exception as error:  # whatever a tracker raises
                self._leave(name, error)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Store the resolved settings of a run."""
        self._each("store_init_configuration", dict(flatten(settings)))

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """Log values at a step, or at the tracker's next."""
        self._each("log", dict(values), step=step)

    def finish(self) -> None:
        """End the runs."""
        self._each("finish")
        self._open.clear()

    def _each(self, method: str, *args: Any, **options: Any) -> None:
        for name, tracker in list(self._open.items()):
            try:
                getattr(tracker, method)(*args, **options)
            except Exception as error:  # whatever a tracker raises
                self._leave(name, error)

    def _leave(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        reason = hide_secrets((str(error) or type(error).__name__).splitlines()[0])
        self._say(f"training continues without {name}: {reason}")


def hide_secrets(text: str) -> str:
    """Hide logins in addresses, and the values of environment variables that are named as secrets.

    >>> hide_secrets("no answer from https://me:pass@mlflow.example.org/api")
    'no answer from https://***@mlflow.example.org/api'
    """
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= MIN_SECRET_CHARS:
            text = text.replace(value, "***")
    return LOGIN.sub("://***@", text)


def _start(name: str, options: Mapping[str, Any]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    with without_launch():  # only the main process of a launch tracks
        PartialState()  # trackers ask it whether this is the main process
    tracker = LOGGER_TYPE_TO_CLASS[name](**options)
    tracker.start()
    return tracker


class Recorder:
    """Record the progress of a job: its learning curve on disk, and its runs on trackers."""

    def __init__(self, spec: JobSpec, say: Say) -> None:
        self._spec, self._say = spec, say
        self._last = -POINT_EVERY_S
        self._trackers = Trackers(say)
        if spec.track:
            key = spec.key
            self._trackers.start(
                spec.track,
                folder=spec.job_dir.parent.parent,
                project=spec.store_dir.name,
                run=f"{key.variant}-s{key.seed}-f{key.fold}",
                run_id=spec.fingerprint[:16],
            )
            shown = {*spec.variant.reads(), "name", "run"}
            settings = spec.variant.model_dump(mode="json", include=shown)
            self._trackers.configure({**settings, "seed": key.seed, "fold": key.fold})

    def report(self, progress: Progress, now_s: float) -> None:
        """Record progress, a point every ``POINT_EVERY_S`` and the last; ``now_s`` in seconds."""
        is_last = progress.step == progress.steps
        if now_s - self._last < POINT_EVERY_S and not is_last:
            return
        self._last = now_s
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        at = (now, progress.step, progress.steps)
        point = CurvePoint(*at, round(progress.loss, 6), round(progress.rows_per_s, 2))
        try:
            append_point(self._spec.job_dir, point)
        except OSError as error:
            self._say(f"training continues without its learning curve: {error}")
        self._trackers.log({"loss": point.loss, "rows_per_s": point.rows_per_s}, point.step)

    def finish(self, outcome: JobOutcome | None) -> None:
        """End the runs, with the out-of-fold scores of a finished job."""
        if outcome is not None and outcome.scores is not None:
            shown = self._spec.criteria.show(outcome.scores)
            scores = {f"oof_{key}": score for key, score in shown.items()}
            self._trackers.log(scores, outcome.step)
        self._trackers.finish()


def track_summary(
    names: Sequence[str],
    scores: Mapping[str, float],
    *,
    folder: Path,
    project: str,
    say: Say,
) -> None:
    """Log the scores of every variant as one run.

    Args:
        scores: by dotted name, such as ``typed-punct.oof_micro_f1``.
        folder, project: as in ``Trackers.start``.
    """
    trackers = Trackers(say)
    trackers.start(names, folder=folder, project=project, run=SUMMARY, run_id=SUMMARY)
    plain = {re.sub(OUTSIDE_NAMES, "-", name): score for name, score in scores.items()}
    trackers.log(plain, None)  # a resumed run is past step 0, and W&B drops earlier steps
    trackers.finish()


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as dotted keys with plain values.

    >>> dict(flatten({"train": {"lr": 0.001}, "seeds": [42], "route": None}))
    {'train.lr': 0.001, 'seeds': '[42]', 'route': 'none'}
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        elif value is None:
            yield f"{prefix}{key}", "none"
        else:
            is_plain = isinstance(value, bool | int | float | str)
            yield f"{prefix}{key}", value if is_plain else str(value)
