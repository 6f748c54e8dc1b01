"""Sections of the report about training: jobs, learning curves, hyperparameter searches.

They are read from the store and the checkpoint folder, where jobs and ``tune`` leave them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from competition.arrays import Say
from competition.console import Column, Table
from competition.errors import PredictionsError
from competition.predictions.learning_curves import CurvePoint, read_curve
from competition.predictions.store import ResultKey, Store
from competition.profile import STUDY_JOURNAL, Competition
from competition.report.curves import draw_bars, draw_lines
from competition.report.page import Page
from competition.scoring.metrics.catalogue import METRICS
from competition.scoring.metrics.metric import MetricKind

MAX_POINTS = 80  # of one curve on the page
MAX_CURVES = 40
MIN_TRIALS_FOR_IMPORTANCE = 10
STUDY_SEED = 0
MAX_NUMBER = 1e15  # beyond it, or NaN, a number in a file is damaged


@dataclass(frozen=True, eq=False)
class StudyHistory:
    """A study: its scored trials in order, and the importance of each hyperparameter.

    ``objective`` is the name of a metric; "" if it is the mean of two, or unknown. ``importances``
    sum to 1; empty with too few trials.
    """

    name: str
    objective: str
    trials: Sequence[FrozenTrial]
    n_trials: int
    importances: Mapping[str, float]


def add_jobs(
    page: Page, store: Store, keys: Sequence[ResultKey], kinds: Sequence[MetricKind]
) -> None:
    """List every result with its scores and cost, and the settings in which variants differ."""
    rows: list[dict[str, Any]] = []
    settings: dict[str, Mapping[str, str]] = {}
    for key in keys:
        run, described = _read_run(page, store, key), _read_settings(page, store, key)
        rows.append(
            {
                "variant": key.variant,
                "seed": key.seed,
                "fold": key.fold,
                **{kind.key: _read_number(run, kind.key) for kind in kinds},
                "train_rows": _read_number(run, "train_rows"),
                "seconds": _read_number(run, "seconds"),
                "rows_per_s": _read_number(run, "rows_per_s"),
                "predicted_per_s": _read_number(run, "predicted_per_s"),
                "device": _read_device(run),
            }
        )
        if described is not None:
            settings.setdefault(key.variant, described)
    if not rows:
        return
    page.add_section("Jobs")
    columns = [
        Column("variant", "variant"),
        Column("seed", "seed", "count"),
        Column("fold", "fold", "count"),
        *(kind.column(kind.key, kind.head) for kind in kinds),
        Column("train_rows", "train rows", "count"),
        Column("seconds", "seconds", "number"),
        Column("rows_per_s", "trained rows/s", "number"),
        Column("predicted_per_s", "predicted rows/s", "number"),
        Column("device", "device"),
    ]
    note = "Scores of the fold's held-out rows, by the most probable label; seconds of training."
    page.add_table(Table("jobs", "Jobs", columns, rows, [note]))
    _add_settings(page, settings)


def _add_settings(page: Page, settings: Mapping[str, Mapping[str, str]]) -> None:
    """Show the settings in which variants differ, one line each; nothing with one variant."""
    keys = sorted({key for each in settings.values() for key in each} - {"name", "why"})
    differing = [key for key in keys if len({each.get(key) for each in settings.values()}) > 1]
    if not differing:
        return
    columns = [Column("setting", "setting")]
    columns += [Column(f"v{place}", name) for place, name in enumerate(settings)]
    rows = [
        {
            "setting": key,
            **{f"v{place}": each.get(key, "–") for place, each in enumerate(settings.values())},
        }
        for key in differing
    ]
    note = "Only what differs. A dash: the variant does not use it, or it has its default."
    page.add_table(Table("settings", "Settings", columns, rows, [note]), folded=True)


def _read_run(page: Page, store: Store, key: ResultKey) -> Mapping[str, Any]:
    """Return the provenance of a result; empty if there is none or it is damaged."""
    try:
        return store.read_run(key)
    except (OSError, PredictionsError) as error:
        page.add_fault(str(error))
        return {}


def _read_settings(page: Page, store: Store, key: ResultKey) -> Mapping[str, str] | None:
    """Return the settings in the header of a result; None if it is damaged or gone."""
    try:
        header = store.read_header(key)
    except (OSError, PredictionsError) as error:
        page.add_fault(str(error))
        return None
    return None if header is None else dict(_flatten(header.variant))


def _read_number(run: Mapping[str, Any], name: str) -> float | None:
    """Return a number of the provenance; None where it is absent or is none."""
    value = run.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < MAX_NUMBER else None


def _read_device(run: Mapping[str, Any]) -> str | None:
    machine = run.get("machine")
    return str(machine["device"]) if isinstance(machine, dict) and "device" in machine else None


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def add_learning_curves(page: Page, competition: Competition, keys: Sequence[ResultKey]) -> None:
    """Draw the loss of every job that left a curve, by optimiser step."""
    curves: dict[str, list[CurvePoint]] = {}
    for key in keys:
        folder = competition.checkpoints_dir / key.variant / f"s{key.seed}-f{key.fold}"
        damaged: list[str] = []
        points = read_curve(folder, damaged.append)
        if damaged:
            more = f", and {len(damaged) - 1} lines more" if len(damaged) > 1 else ""
            page.add_fault(f"{damaged[0]}{more}")
        if len(points) > 1:
            curves[f"{key.variant} s{key.seed} f{key.fold}"] = thin(points)
    if not curves:
        return
    page.add_section("Learning curves")
    shown = dict(list(curves.items())[:MAX_CURVES])
    lines = {
        name: ([each.step for each in points], [round(each.loss, 4) for each in points])
        for name, points in shown.items()
    }
    columns = [
        Column("job", "job"),
        Column("steps", "steps", "count"),
        Column("first", "first loss", "number"),
        Column("last", "last loss", "number"),
        Column("rows_per_s", "rows/s", "count"),
    ]
    rows = [
        {
            "job": name,
            "steps": points[-1].steps,
            "first": points[0].loss,
            "last": points[-1].loss,
            "rows_per_s": round(points[-1].rows_per_s),
        }
        for name, points in curves.items()
    ]
    note = "Training loss, a mean over the steps since the point before. It is no score."
    if len(shown) < len(curves):
        note += f" The first {len(shown)} of {len(curves)} jobs are drawn."
    table = Table("curves", "Training loss", columns, rows, [note])
    page.add_figure(draw_lines(lines, ("optimiser step", "loss")), table)


def thin(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Return at most ``MAX_POINTS`` points of a curve, evenly spaced, with the first and the last.

    >>> points = [CurvePoint("", step, 999, 1.0, 1.0) for step in range(500)]
    >>> chosen = [each.step for each in thin(points)]
    >>> len(chosen), chosen[0], chosen[-1]
    (80, 0, 499)
    """
    if len(points) <= MAX_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def add_studies(page: Page, competition: Competition) -> None:
    """Draw the history of each study that ``tune`` left in a journal, and its importances."""
    for study in read_studies(competition.tune_dir, page.add_fault):
        page.add_section(f"Search {study.name}")
        kind = METRICS.get(study.objective)
        is_loss = kind is not None and kind.is_loss
        shown = "objective" if kind is None else kind.title
        shown = shown if is_loss else f"{shown} ×100"
        scores = [float(trial.value or 0.0) for trial in study.trials]
        values = [0.0 - score if is_loss else 100 * score for score in scores]
        numbers = [trial.number for trial in study.trials]
        choose = min if is_loss else max
        best = [choose(values[: place + 1]) for place in range(len(values))]
        lines = {"trial": (numbers, values), "best so far": (numbers, best)}
        columns = [
            Column("trial", "trial", "count"),
            Column("value", shown, "number"),
            Column("best", "best so far", "number"),
            Column("settings", "hyperparameters"),
        ]
        rows = [
            {
                "trial": trial.number,
                "value": value,
                "best": so_far,
                "settings": ", ".join(f"{key}={_write(x)}" for key, x in trial.params.items()),
            }
            for trial, value, so_far in zip(study.trials, values, best, strict=True)
        ]
        note = f"{len(study.trials)} of {study.n_trials} trials have a score."
        table = Table("history", "Optimisation history", columns, rows, [note])
        page.add_figure(draw_lines(lines, ("trial", shown), markers=True), table)
        if study.importances:
            _add_importances(page, study)


def _add_importances(page: Page, study: StudyHistory) -> None:
    ranked = sorted(study.importances.items(), key=lambda each: -each[1])
    names, values = [name for name, _ in ranked], [value for _, value in ranked]
    columns = [Column("name", "hyperparameter"), Column("importance", "importance", "share")]
    rows = [{"name": name, "importance": value} for name, value in ranked]
    note = "Share of the variance of the objective that each explains (fANOVA)."
    table = Table("importance", "Hyperparameter importance", columns, rows, [note])
    page.add_figure(draw_bars({"importance": (names, values)}, ""), table)


def read_studies(folder: Path, say: Say) -> Iterator[StudyHistory]:
    """Read every study with a scored trial from the journals under a folder, by name.

    Args:
        folder: with a folder for each study.
        say: called with a line about each journal that cannot be read, which is left out.
    """
    for path in sorted(folder.glob(f"*/{STUDY_JOURNAL}")):
        try:
            found = list(_read_journal(path))
        except Exception as error:  # the library checks nothing, and raises whatever comes
            reason = f"{type(error).__name__} {error}".strip().splitlines()[0][:200]
            say(f"{path} is damaged and left out ({reason}); run tune again under another name")
            continue
        yield from found


def _read_journal(path: Path) -> Iterator[StudyHistory]:
    storage = JournalStorage(JournalFileBackend(str(path)))
    studies = storage.get_all_studies()
    if not studies and path.stat().st_size:
        raise ValueError("it holds no study")
    for found in studies:
        study = optuna.load_study(study_name=found.study_name, storage=storage)
        trials = study.get_trials(deepcopy=False)
        scored = [each for each in trials if _has_score(each)]
        if scored:
            importances = _measure_importances(study, scored)
            objective = _find_objective(study)
            yield StudyHistory(found.study_name, objective, scored, len(trials), importances)


def _has_score(trial: FrozenTrial) -> bool:
    is_complete = trial.state == TrialState.COMPLETE
    return is_complete and trial.value is not None and -MAX_NUMBER < trial.value <= 1


def _find_objective(study: optuna.Study) -> str:
    """Return the name of the metric that ``tune`` noted in a study; "" if it is none."""
    made_from = study.user_attrs.get("made_from")
    named = made_from.get("objective") if isinstance(made_from, dict) else None
    return named if isinstance(named, str) and named in METRICS else ""


def _measure_importances(study: optuna.Study, scored: Sequence[FrozenTrial]) -> Mapping[str, float]:
    if len(scored) < MIN_TRIALS_FOR_IMPORTANCE or len({trial.value for trial in scored}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=STUDY_SEED)
    found: Mapping[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found if all(map(math.isfinite, found.values())) else {}


def _write(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
