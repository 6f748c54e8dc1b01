#!/usr/bin/env python3
"""The commands. Each parses its arguments, calls one function of the floors below and prints.

Heavy libraries are imported inside the commands that need them, so that help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from competition.errors import HarnessError, explain_os_error

if TYPE_CHECKING:
    from competition.console import Table
    from competition.profile import Competition

app = typer.Typer(
    help="A competition harness for sentence-level relation extraction.\n\n"
    "The usual evening: data, fold, blend, check, submit, board.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INCOMPLETE_EXIT = 3

CompetitionOption = Annotated[
    str | None,
    typer.Option("--competition", help="A profile's name, or the path of its TOML file."),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="The folder of its CSV files.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Sample about N train rows; for trying out.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")]
VariantsArgument = Annotated[list[str] | None, typer.Argument(metavar="[VARIANT]...")]


@app.command()
def data(
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit the data: what cannot be used, duplicates, conflicts, suspicious types, shift."""
    from competition.audit import build_audit_tables, run_audit

    audit = run_audit(_resolve(competition, data, limit))
    _print(build_audit_tables(audit), as_json)
    if not audit.ok:
        raise typer.Exit(HarnessError.exit_code)


@app.command()
def show(
    variant: Annotated[str, typer.Argument(help="A variant's name, or the path of its TOML file.")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows.")] = 3,
    split: Annotated[str, typer.Option("--split", help="train or test.")] = "train",
    ids: Annotated[
        str | None, typer.Option("--ids", help="These row ids, comma-separated.")
    ] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="As in fold.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a variant is fed: text, tokens, and where the entities and markers stand."""
    from models.show import ShowRequest, print_shown, show_rows

    request = ShowRequest(variant, split, rows, _split(ids), encoder, _overrides(overrides))
    print_shown(show_rows(_resolve(competition, data, limit), request), as_json=as_json)


@app.command()
def fold(
    variants: VariantsArgument = None,
    folds: Annotated[str | None, typer.Option("--folds", help="Only these, such as 0,1.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Such as 42,43.")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="A hub name, a local folder, or 'scratch'.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Jobs at a time.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads per job; unset: cores/workers.")
    ] = None,
    stop_after: Annotated[
        str | None, typer.Option("--stop-after", help="Stop cleanly after 8h, 90m or 300s.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as train.lr=3e-5."),
    ] = None,
    save_as: Annotated[
        str | None, typer.Option("--as", help="Name of the variant that --set/--encoder make.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of another recipe.")
    ] = False,
    no_checkpoints: Annotated[
        bool, typer.Option("--no-checkpoints", help="Do not keep the trained weights.")
    ] = False,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train K folds of each variant and keep their out-of-fold and test predictions."""
    resolved = _resolve(competition, data, limit)
    from competition.progress import ProgressBoard
    from models.fold import run_fold
    from models.jobs import FoldRequest

    request = FoldRequest(
        variants=tuple(variants or ()),
        folds=_whole_numbers("--folds", folds),
        seeds=_whole_numbers("--seeds", seeds),
        encoder=encoder,
        overrides=_overrides(overrides),
        save_as=save_as,
        overwrite=overwrite,
        keep_checkpoints=not no_checkpoints,
        workers=workers,
        threads=threads,
        stop_after_s=_duration(stop_after),
    )
    with ProgressBoard() as board:
        summary = run_fold(resolved, request, board)
    _print(summary.tables, as_json)
    if not summary.complete:
        raise typer.Exit(INCOMPLETE_EXIT)


@app.command()
def blend(
    variants: VariantsArgument = None,
    trials: Annotated[int, typer.Option("--trials", min=0, help="Optuna trials.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the search.")] = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the submission; unset: of the blend.")
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune blend weights and the decision threshold on out-of-fold rows; write the CSV."""
    resolved = _resolve(competition, data, limit)
    from competition.blend_report import run_blend
    from competition.blend_tables import build_blend_tables
    from competition.progress import ProgressBoard
    from competition.provenance import describe_run

    with ProgressBoard() as board:
        report = run_blend(
            resolved,
            variants or (),
            trials=trials,
            seed=seed,
            name=name,
            run=describe_run(_now()),
            on_progress=lambda done, total: board.update(
                "blend", done / total, f"trial {done} of {total}"
            ),
        )
    _print(build_blend_tables(report), as_json)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The CSV to check.")],
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a submission against the leaderboard's rules and list every offence."""
    from competition.submission import build_check_tables, check_submission

    report = check_submission(file, _resolve(competition, data, limit))
    _print(build_check_tables(report), as_json)
    if report.offences:
        raise typer.Exit(HarnessError.exit_code)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="The CSV to score.")],
    solution: Annotated[Path, typer.Option("--solution", help="The CSV of true labels.")],
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a CSV against a solution file as the leaderboard does."""
    from competition.score import build_score_tables, score_submission

    scores = score_submission(file, solution, _resolve(competition, data, limit).profile)
    _print(build_score_tables(scores), as_json)


@app.command()
def submit(
    file: Annotated[Path | None, typer.Argument(help="The CSV; unset: the newest.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="folder or local.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where 'folder' puts it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, show, send nothing.")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Send the same bytes again.")] = False,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a submission, send it, and record what came back."""
    from competition.upload.send import SubmitOptions, build_submit_tables
    from competition.upload.send import submit as send

    options = SubmitOptions(target=to, folder=folder, dry_run=dry_run, resend=resend)
    resolved = _resolve(competition, data, limit)
    report = send(resolved, file, options, clock=_now)
    _print(build_submit_tables(report), as_json)


@app.command()
def board(
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show variants, blends and submissions with their scores."""
    from competition.board import build_board_tables

    resolved = _resolve(competition, data, limit)
    _print(build_board_tables(resolved, now=_now()), as_json)


def _resolve(competition: str | None, data: Path | None, limit: int | None) -> Competition:
    """Decide which competition is meant and say so, on the error stream, before anything else."""
    from competition.profile import resolve_competition

    resolved = resolve_competition(competition, data, limit)
    print(resolved.headline, file=sys.stderr, flush=True)
    return resolved


def _print(tables: Iterable[Table], as_json: bool) -> None:
    from competition.console import print_tables

    print_tables(list(tables), as_json=as_json)


def _now() -> datetime:
    return datetime.now(UTC)


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def _whole_numbers(option: str, text: str | None) -> tuple[int, ...]:
    parts = _split(text)
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"{text!r} is not a list such as 0,1", param_hint=option)
    return tuple(int(part) for part in parts)


def _overrides(texts: list[str] | None) -> tuple[tuple[str, Any], ...]:
    from models.variant import parse_override

    return tuple(parse_override(text) for text in texts or ())


def _duration(text: str | None) -> float | None:
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.replace(".", "", 1).isdecimal():
        raise typer.BadParameter(f"{text!r} is not like 8h, 90m or 300s", param_hint="--stop-after")
    return float(number) * units[unit]


def main() -> None:
    """Run a command; what a person can mend is printed without a traceback."""
    try:
        app()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        known = explain_os_error(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        raise SystemExit(HarnessError.exit_code) from None


if __name__ == "__main__":
    main()
