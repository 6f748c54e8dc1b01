"""The output of ``tune``: a variant file with the best hyperparameters, and tables.

The file holds every setting that determines results, so it does not depend on its location or on
later changes to its base.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from competition.console import Column, Table
from competition.errors import TrainingError, UsageError
from competition.files import check_name, check_writable, write_atomically
from competition.scoring.metrics.metric import MetricKind
from models.network.encoder_source import locate_folder
from models.settings import TuneSettings
from models.tuning.plan import Search
from models.tuning.space import Dimension, describe_found, get_setting, place_variant, read_found
from models.tuning.study import PLACE, SharedStudy, find_given_up
from models.variant import Variant

MIN_TRIALS_FOR_IMPORTANCE = 10
REASON, FOLDS_DONE = "reason", "folds_done"


def build_toml(variant: Variant) -> str:
    """Return a variant with all its settings, ``why`` and ``tune`` as TOML for ``fold``."""
    tree = {"why": variant.why, **variant.model_dump(mode="json", include=variant.reads())}
    for key in ("seeds", "run"):
        tree |= variant.model_dump(mode="json", include={key}, exclude_defaults=True)
    tree |= variant.model_dump(mode="json", include={"tune"}, exclude_none=True)
    plain = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    lines = _write_values(plain)
    for key, section in tree.items():
        if isinstance(section, Mapping) and section:
            lines += ["", f"[{key}]", *_write_values(section)]
    return "\n".join(lines) + "\n"


def _write_values(values: Mapping[str, Any]) -> list[str]:
    """Return ``key = value`` lines; TOML has no null, so None is left out."""
    # strings, numbers, booleans and lists are written alike in JSON and TOML
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]


@dataclass(frozen=True)
class EndedTrial:
    """A trial that ended; ``is_given_up`` if it failed and is not retried."""

    trial: FrozenTrial
    is_given_up: bool

    @property
    def place(self) -> int:
        """The position among the requested trials, kept when a trial is retried."""
        return int(self.trial.user_attrs[PLACE])

    @property
    def reason(self) -> str:
        """Why it has no score; "" if it has one."""
        return str(self.trial.user_attrs.get(REASON, ""))


def list_ended(trials: Sequence[FrozenTrial]) -> list[EndedTrial]:
    """List the trials that ended, in order, retried ones once."""
    given_up = {trial.number for trial in find_given_up(trials)}
    ended = [
        EndedTrial(trial, trial.number in given_up)
        for trial in trials
        if trial.state in {TrialState.COMPLETE, TrialState.PRUNED} or trial.number in given_up
    ]
    return sorted(ended, key=lambda each: each.place)


def build_trials_table(
    ended: Sequence[EndedTrial],
    space: Sequence[Dimension],
    best: FrozenTrial | None,
    kinds: Sequence[MetricKind],
) -> Table:
    """Build the table of trials, in order, with a column for each metric."""
    columns = [
        Column("trial", "trial", "count"),
        Column("state", "state"),
        *(kind.column(kind.key, kind.title) for kind in kinds),
        Column("settings", "hyperparameters"),
    ]
    rows = [_describe(each, space, best, kinds) for each in ended]
    notes = [f"Trial {each.place}: {each.reason}" for each in ended if each.reason]
    return Table("trials", "Trials", columns, rows, notes)


def _describe(
    ended: EndedTrial,
    space: Sequence[Dimension],
    best: FrozenTrial | None,
    kinds: Sequence[MetricKind],
) -> dict[str, Any]:
    trial = ended.trial
    state = "done" if trial.state == TrialState.COMPLETE else "pruned"
    if ended.is_given_up:
        state = "given up"
    return {
        "trial": ended.place,
        "state": "best" if best is not None and trial.number == best.number else state,
        **{kind.key: _show(trial.user_attrs.get(kind.key), kind) for kind in kinds},
        "folds": trial.user_attrs.get(FOLDS_DONE),
        "value": trial.value,
        "settings": describe_found(space, trial.params),
        "parameters": dict(trial.params),
        "reason": ended.reason,
    }


def _show(score: float | None, kind: MetricKind) -> float | None:
    return None if score is None else kind.show(score)


def build_found_table(
    space: Sequence[Dimension],
    base: Variant,
    best: FrozenTrial,
    importances: Mapping[str, float],
) -> Table:
    """Build the table that compares the best hyperparameters with those of the variant."""
    columns = [
        Column("setting", "hyperparameter"),
        Column("searched", "search space"),
        Column("was", "before"),
        Column("found", "best"),
    ]
    if importances:
        columns.append(Column("importance", "importance", "share"))
    found = dict(read_found(space, best.params))
    rows = [
        {
            "setting": each.key,
            "searched": str(each).partition("=")[2],
            "was": _write_setting(get_setting(base, each.key)),
            "found": _write_setting(found[each.key]),
            "importance": importances.get(each.key),
        }
        for each in space
    ]
    return Table("found", "Best hyperparameters", columns, rows)


def _write_setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "–" if value is None else str(list(value) if isinstance(value, tuple) else value)


@dataclass(frozen=True)
class TuneSummary:
    """Output of ``tune`` for the command line; ``path`` is the file it wrote."""

    tables: tuple[Table, ...]
    complete: bool
    path: Path | None


def summarise(search: Search, shared: SharedStudy, complete: bool) -> TuneSummary:
    """Build the tables; if all trials are done, write the best one as a variant file.

    Raises:
        TrainingError: all trials ended without a score.
    """
    trials = shared.study.get_trials(deepcopy=False)
    scored = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = max(scored, key=lambda trial: (trial.value, -trial.number), default=None)
    ended = list_ended(trials)
    table = build_trials_table(ended, search.space, best, search.criteria.kinds)
    if not complete:
        note = f"{len(ended)} of {shared.trials} trials are done; run the same command again."
        return TuneSummary((replace(table, notes=(*table.notes, note)),), False, None)
    if best is None:
        raise TrainingError(
            f"none of {len(ended)} trials finished; the first one: "
            + next((each.reason for each in ended if each.reason), "its reason is unknown")
        )
    path = write_best(search, best, len(ended))
    found = build_found_table(search.space, search.base, best, _importances(shared, scored))
    return TuneSummary((table, replace(found, notes=_advise(search, best, path))), True, path)


def check_write(path: Path | None) -> None:
    """Check that ``fold`` can read a file of this name, and that it can be written.

    Raises:
        UsageError: it cannot.
    """
    if path is None:
        return
    check_writable(path, "--write")
    if path.suffix != ".toml":
        raise UsageError(f"--write {path}: fold reads files whose names end in .toml")
    try:
        check_name(path.stem)  # of the variant
    except UsageError as error:
        raise UsageError(f"--write {path}: {error}") from None


def check_owned(path: Path, study: str) -> None:
    """Check that a file is free, or was written by a study.

    Raises:
        UsageError: it is another file.
    """
    if path.exists() and f'study = "{study}"'.encode() not in path.read_bytes():
        raise UsageError(f"{path} exists and is not from this study; choose another --write")


def find_path(search: Search) -> Path:
    """Return the file to write: as requested, or in the folder of the study."""
    return search.request.write or search.folder / f"{_name_best(search)}.toml"


def _name_best(search: Search) -> str:
    return f"{search.base.name}-tuned"


def write_best(search: Search, best: FrozenTrial, n_trials: int) -> Path:
    """Write the best trial as a variant file, marked as tuned on its folds; return its path.

    The hash of the folds is recorded too: fold 0 of a sample is not fold 0 of all rows.

    Raises:
        UsageError: the file exists and was not written by this study.
    """
    path = find_path(search)
    folds = ", ".join(map(str, search.request.folds))
    variant = search.resolve(read_found(search.space, best.params), _name_best(search))
    variant = variant.model_copy(
        update={
            "encoder": locate_folder(variant.encoder) or variant.encoder,
            "why": f"{search.base.why}; tuned on folds {folds}: best of {n_trials} trials by"
            f" {search.request.objective}",
            "tune": TuneSettings(
                folds=search.request.folds,
                trials=n_trials,
                study=search.plan.name,
                folds_hash=search.prepared.folds.hash,
            ),
        }
    )
    check_owned(path, search.plan.name)
    write_atomically(path, build_toml(variant))
    return path


def _importances(shared: SharedStudy, scored: Sequence[FrozenTrial]) -> Mapping[str, float]:
    """Return hyperparameter importances (they sum to 1), or none if there are too few trials."""
    if len(scored) < MIN_TRIALS_FOR_IMPORTANCE or len({trial.value for trial in scored}) < 2:
        return {}
    found: Mapping[str, float] = optuna.importance.get_param_importances(shared.study)
    return found


def _advise(search: Search, best: FrozenTrial, path: Path) -> list[str]:
    """Return notes: the file, the next command, and that the score on tuned folds is optimistic."""
    count, tuned = search.prepared.folds.count, search.request.folds
    rest = [str(fold) for fold in range(count) if fold not in tuned]
    notes = [f"Written: {path}", f"Next: python run.py fold {shlex.quote(str(path))}"]
    first = place_variant(search.space, search.base)
    if first is None:
        notes.append("The variant itself is outside the search space and was not a trial.")
    elif best.params == first:
        notes.append("No trial was better than the variant itself.")
    caution = "The score of the best trial is optimistic on the folds that selected it"
    if rest:
        caution += (
            f"; for an unbiased comparison: python run.py compare {path.stem} {search.base.name}"
            f" --folds {','.join(rest)}"
        )
    return [*notes, f"{caution}."]
