"""The commands as Python functions, for notebooks: each returns its tables as DataFrames.

Every function here does what the command of its name in ``run.py`` does, with the same options, and
leaves the same files. Put the clone's folder on the path, wherever the notebook is:

    import sys
    sys.path.insert(0, "/path/to/the/clone")
    import harness

    harness.fold("tfidf-linear", competition="demo", limit=400)["variants"]

Scores are floats in [0, 1]. Errors are those of ``competition.errors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd

from competition.console import Table, format_value, say
from competition.errors import UsageError
from competition.profile import Competition, resolve_competition
from competition.scoring.criteria import build_criteria

One = TypeVar("One", str, int)
INCOMPLETE = "stopped before the end; call it again to go on"


class Tables(dict[str, pd.DataFrame]):
    """A command's tables by name, those of ``--json``; a notebook shows them with their notes.

    Attributes:
        complete: False where ``stop_after_s`` ended the work; the next call goes on from there.
    """

    def __init__(self, tables: Iterable[Table], *, complete: bool = True) -> None:
        self.sources = tuple(tables)
        self.complete = complete
        super().__init__({table.name: _to_frame(table) for table in self.sources})

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes below the tables."""
        return tuple(note for table in self.sources for note in table.notes)

    def _repr_html_(self) -> str:
        parts = [_write_html(table) for table in self.sources]
        return "\n".join(parts if self.complete else [*parts, f"<p>{INCOMPLETE}</p>"])


def fold(
    *variants: str,
    folds: int | Sequence[int] = (),
    seeds: int | Sequence[int] = (),
    encoder: str | None = None,
    settings: Mapping[str, Any] | None = None,
    save_as: str | None = None,
    overwrite: bool = False,
    keep_checkpoints: bool = True,
    workers: int | None = None,
    threads: int | None = None,
    engine: str = "local",
    address: str | None = None,
    gpus_per_job: float | None = None,
    stop_after_s: float | None = None,
    track: str | Sequence[str] = (),
    yes: bool = False,
    competition: str | Path | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
) -> Tables:
    """Train K folds of each variant and keep their out-of-fold and test predictions.

    Args:
        variants: names or paths of .toml files; none: those of the profile.
        folds: only these, or this one; none: all.
        seeds: these, or this one; none: those of each variant.
        encoder: a hub name, a folder, ``ko-mini`` or ``scratch``; None: the profile's.
        settings: what ``--set`` takes, such as ``{"train.lr": 3e-5}``.
        save_as: name of the variant that ``settings`` or ``encoder`` make.
        overwrite: replace results of another recipe.
        keep_checkpoints: keep the trained weights.
        workers: jobs at a time; None: one, on Ray no limit.
        threads: of each job; None: cores divided by workers.
        engine: ``local``, or ``ray`` for a Ray cluster.
        address: of the cluster, ``HOST:PORT``; None: the one of this machine.
        gpus_per_job: on Ray; None: 1 if there are any.
        stop_after_s: stop cleanly after so many seconds; the next call goes on.
        track: log to these too: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``.
        yes: train, even if it is estimated to take days.
        competition: a profile's name, or the path of its TOML file.
        data: the folder of its files.
        limit: sample about so many train rows, for trying out.

    Returns:
        ``variants``: a row for each, with ``micro_f1``, ``auprc`` and their intervals.
    """
    from competition.progress import ProgressBoard
    from models.jobs.engines.engine import EngineChoice
    from models.jobs.fold import run_fold
    from models.jobs.request import FoldRequest

    request = FoldRequest(
        variants=_check_names("fold", variants),
        folds=_list(folds),
        seeds=_list(seeds),
        encoder=encoder,
        overrides=tuple((settings or {}).items()),
        save_as=save_as,
        overwrite=overwrite,
        keep_checkpoints=keep_checkpoints,
        engine=EngineChoice(engine, address, workers, threads, gpus_per_job),
        stop_after_s=stop_after_s,
        track=_list(track),
        yes=yes,
    )
    with ProgressBoard() as progress:
        summary = run_fold(_resolve(competition, data, limit), request, progress)
    return Tables(summary.tables, complete=summary.complete)


def blend(
    *variants: str,
    trials: int = 200,
    seed: int = 0,
    name: str | None = None,
    objective: str | None = None,
    reweight: Literal["odds", "share"] | None = None,
    competition: str | Path | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
) -> Tables:
    """Tune blend weights and a decision threshold on the out-of-fold rows; write the CSV.

    Args:
        variants: none: every complete one.
        trials: of each search.
        seed: of the searches and the intervals.
        name: of the submission; None: ``blend-`` and a hash of what it is made of.
        objective: what to search for: a metric of the profile, or ``both``; None: the primary one.
        reweight: fit to rows weighted to be like the test.
        competition, data, limit: as in ``fold``.

    Returns:
        ``members`` (weights), ``systems`` (scores of the blend and of what it is compared to) and
        more; the CSV is ``submissions/<competition>/<name>.csv``.
    """
    from competition.blend.blend import run_blend
    from competition.blend.tables import build_blend_tables
    from competition.progress import ProgressBoard
    from competition.provenance import describe_run

    with ProgressBoard() as progress:
        report = run_blend(
            _resolve(competition, data, limit),
            _check_names("blend", variants),
            trials=trials,
            seed=seed,
            name=name,
            run=describe_run(datetime.now(UTC)),
            on_progress=lambda done, total: progress.update(
                "blend", done / total, f"trial {done} of {total}"
            ),
            objective=objective,
            reweight=reweight,
            on_step=lambda frac, text: progress.update("shift", frac, text),
        )
    return Tables(build_blend_tables(report))


def board(
    *,
    scores: str | Sequence[str] = (),
    competition: str | Path | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
) -> Tables:
    """Show variants, blends and submissions with their scores.

    Args:
        scores: read on a leaderboard's page, to be entered: ``NAME=61.02/50.10``.
        competition, data, limit: as in ``fold``.

    Returns:
        ``variants``, ``blends``, ``submissions`` and, where there is a choice, the final picks.
    """
    from competition.board.board import build_board_tables
    from competition.upload.entered import enter_scores

    resolved, now = _resolve(competition, data, limit), datetime.now(UTC)
    for line in enter_scores(resolved, _list(scores), now) if scores else ():
        say(line)
    return Tables(build_board_tables(resolved, now=now))


def errors(
    name: str,
    *,
    rows: int = 20,
    cross_fit: int | None = None,
    competition: str | Path | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
) -> Tables:
    """Show where a variant or a blend is wrong; write suspected wrong labels as a CSV.

    Args:
        name: a variant, specialists joined by commas, ``route:length``, or a blend.
        rows: at most so many confusions, hardest rows and suspects.
        cross_fit: folds on which the linear model is trained too, to find more wrong labels.
        competition, data, limit: as in ``fold``.

    Returns:
        ``labels`` (precision, recall, F1, AUPRC), ``confusions``, ``hardest`` and ``suspects``.
    """
    from competition.folds.kfold import read_prepared
    from competition.report.error_tables import run_errors

    prepared = read_prepared(_resolve(competition, data, limit))
    probs = None
    if cross_fit is not None:
        from models.training.cross_fit import cross_fit_linear

        probs = cross_fit_linear(prepared, cross_fit, print)
    return Tables(run_errors(prepared, name, rows, probs))


def _list(given: One | Sequence[One]) -> tuple[One, ...]:
    """Return one or several texts or numbers as several."""
    return (given,) if isinstance(given, str | int) else tuple(given)


def _check_names(command: str, variants: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the variants of a command, if each is an argument of its own.

    Raises:
        UsageError: one is a list or another thing that is no name.
    """
    for each in variants:
        if not isinstance(each, str):
            raise UsageError(
                f"{command}({each!r}): give each variant as a text of its own, such as"
                f' {command}("a", "b"), or a list with a star: {command}(*names)'
            )
    return variants


def _resolve(
    competition: str | Path | None, data: str | Path | None, limit: int | None
) -> Competition:
    """Decide which competition is meant, and say so; refuse a wrong metric."""
    meant = None if competition is None else str(competition)
    resolved = resolve_competition(meant, None if data is None else Path(data), limit)
    say(resolved.headline)
    build_criteria(resolved.profile)
    return resolved


def _to_frame(table: Table) -> pd.DataFrame:
    keys = list(dict.fromkeys([c.key for c in table.columns] + [k for r in table.rows for k in r]))
    return pd.DataFrame([dict(row) for row in table.rows], columns=keys)


def _write_html(table: Table) -> str:
    """Write a table as the terminal shows it, every text escaped."""
    head = "".join(f"<th>{escape(column.header)}</th>" for column in table.columns)
    rows = (
        "".join(f"<td>{escape(format_value(row.get(c.key), c.kind))}</td>" for c in table.columns)
        for row in table.rows
    )
    body = "".join(f"<tr>{cells}</tr>" for cells in rows)
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return f"<h4>{escape(table.title)}</h4>{grid if table.columns and table.rows else ''}{notes}"
