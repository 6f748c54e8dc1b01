#!/usr/bin/env python3
"""Command-line interface: each command parses its options, calls one function and prints tables.

Heavy libraries are imported inside the commands that need them, so that help is instant.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, cast

from competition.console import make_streams_safe, print_json, say
from competition.errors import HarnessError, OffencesError, UsageError, explain_os_error
from competition.progress import ProgressBoard

ROOT = Path(__file__).resolve().parent


def explain_absent(library: str | None) -> str:
    """Return the message for a missing library: what to run or install instead."""
    has_own = (ROOT / ".venv" / "bin" / "python").is_file()
    remedy = (
        f"run it with the project's own: {ROOT / '.venv' / 'bin' / 'python'} run.py"
        if has_own
        else f"run `make install` in {ROOT}, then .venv/bin/python run.py; or install into this"
        f" Python: {sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
    )
    return f"error: {sys.executable} has no library {library!r}, which this needs; {remedy}"


try:
    import typer
    from typer.core import TyperGroup
except ModuleNotFoundError as absent:
    print(explain_absent(absent.name), file=sys.stderr)
    raise SystemExit(HarnessError.exit_code) from None

if TYPE_CHECKING:
    from competition.console import Table
    from competition.profile import Competition
    from models.jobs.engines.launch import Launch


class WholeSummaries(TyperGroup):
    """A command group whose help shows the full summary of each command, wrapped."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the summary of each command."""
        names = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, " ".join((command.help or "").partition("\n\n")[0].split()))
            for name, command in names
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    cls=WholeSummaries,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INCOMPLETE_EXIT = 3
SUGGESTED_COMMAND = re.compile(r"python run\.py (?!init\b)[a-z]+\b")
FIXABLE_PATHS = {  # what Python says of an invalid path, and what to do
    "embedded null": "a path contains a NUL character; look for \\u0000 in profile and variant",
    "determine home directory": "a path begins with ~ but this user has no home; write it in full",
}
WITHOUT_LAUNCHER = {  # what to do instead where a launcher would help
    "tune": "; --workers 2 trains two folds at a time, on two GPUs, and --engine ray several trials"
    " at a time, on one machine or many",
    "pretrain": "; it uses one GPU, and CUDA_VISIBLE_DEVICES=1 chooses which, so that several"
    " encoders can be pretrained at the same time",
}
_context: list[str] = []  # the competition options of this command line
_launches: list[Launch] = []  # the launch that this process is the main one of, if any

CompetitionOption = Annotated[
    str | None,
    typer.Option("--competition", help="Name of a profile, or path of its TOML file."),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of its CSV files.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Sample about N train rows, for a quick trial.")
]


def _complete_variant(begun: str) -> list[str]:
    from models.variant import list_variants

    return [name for name in list_variants() if name.startswith(begun)]


VariantArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a variant, or path of its TOML file.", autocompletion=_complete_variant
    ),
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="Where jobs run: local, or ray for a Ray cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Of the Ray cluster; default: this one's."),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-job",
        min=0.0,
        help="GPUs of a job on Ray, e.g. 0.5; default 1 if it has any.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads per job; default cores/workers."),
]
StopAfterOption = Annotated[
    str | None, typer.Option("--stop-after", help="Stop cleanly after 8h, 90m or 300s.")
]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="As in fold.")]
SearchSeedOption = Annotated[int, typer.Option("--seed", help="Seed of the search.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")]
FullOption = Annotated[
    bool, typer.Option("--full", help="Print details too; --json always has them.")
]


def _say_version(is_asked: bool) -> None:
    """Print the version, and the commit where there is a checkout."""
    if is_asked:
        from competition.provenance import read_commit, read_version

        commit = read_commit()
        say(f"run.py {read_version()}{f' (commit {commit})' if commit else ''}")
        raise typer.Exit


@app.callback()
def describe(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """A competition harness for sentence-level relation extraction.

    The usual evening: data, fold, blend, check, submit, board.
    """
    name = context.invoked_subcommand or "it"
    if _launches and name != "fold":
        instead = WITHOUT_LAUNCHER.get(name, "")
        raise UsageError(
            f"{name} runs in one process, and a launcher started {_launches[0].size}; start it "
            f"without the launcher: python run.py {name} …{instead}"
        )


@app.command()
def init(
    files: Annotated[
        list[Path], typer.Argument(metavar="DIR|FILES", help="The folder, or train and test file.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The profile; unset: <folder's name>.toml here.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing profile.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Guess a competition's profile from its files and write it with comments."""
    from competition.audit.guessed_profile import run_init

    _print(run_init(files, out, overwrite=overwrite), as_json)


@app.command()
def data(
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    mend: Annotated[
        Path | None,
        typer.Option("--mend", metavar="DIR", help="Write copies with repaired offsets there."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="hf:OWNER/NAME",
            help="Fetch the rows from the Hugging Face hub first.",
        ),
    ] = None,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """Audit the data: errors, duplicates, conflicts, unusual types, train-test shift."""
    if source is not None:
        from competition.profile import DEFAULT_PROFILE
        from models.data.hub_rows import fetch_rows

        competition = competition or DEFAULT_PROFILE  # never the demo in its place
        fetch_rows(
            _resolve(competition, data, limit), source, lambda text: say(text, file=sys.stderr)
        )
    resolved = _resolve(competition, data, limit)
    if mend is not None:
        from competition.audit.mend import run_mend

        _print(run_mend(resolved, mend, is_whole=as_json), as_json)
        return
    from competition.audit.audit import FOLLOWING, build_audit_tables, run_audit
    from competition.audit.shift import build_shift_tables, read_or_fit_shift

    audit = run_audit(resolved)
    beyond: list[Table] = []
    if audit.corpus is not None:
        with ProgressBoard() as board:
            shift = read_or_fit_shift(
                resolved, audit.corpus, lambda frac, text: board.update("shift", frac, text)
            )
        beyond = build_shift_tables(shift, audit.corpus)
    following = FOLLOWING
    if audit.ok and audit.corpus is not None:
        from models.jobs.proposal import propose_runs

        following = tuple(propose_runs(resolved, audit.corpus))
    tables = build_audit_tables(audit, beyond, is_whole=as_json, following=following)
    _print(tables, as_json, in_full=full)
    if not audit.ok:
        raise typer.Exit(HarnessError.exit_code)


@app.command()
def show(
    variant: VariantArgument,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Number of rows.")] = 3,
    split: Annotated[str, typer.Option("--split", help="train or test.")] = "train",
    ids: Annotated[
        str | None, typer.Option("--ids", help="Ids of the rows to show, comma-separated.")
    ] = None,
    encoder: EncoderOption = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As in fold.")
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the model input of a variant: text, tokens, and positions of entities and markers."""
    resolved = _resolve(competition, data, limit)
    _check_files(resolved, (variant,), overrides)
    from models.jobs.show import ShowRequest, print_shown, show_rows

    request = ShowRequest(variant, split, rows, _split(ids), encoder, _overrides(overrides))
    print_shown(show_rows(resolved, request), as_json=as_json)


@app.command("variants")
def show_variants(
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the variants that fold can train, each with the idea that it tests."""
    resolved = _resolve(competition, data, limit)
    from models.jobs.variants import build_variant_list

    _print([build_variant_list(resolved.profile)], as_json)


@app.command()
def fold(
    variants: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VARIANT",
            help="Names or .toml files; default: the profile's.",
            autocompletion=_complete_variant,
        ),
    ] = None,
    folds: Annotated[str | None, typer.Option("--folds", help="Only these, e.g. 0,1.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Random seeds, e.g. 42,43.")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Hub name, folder, 'ko-mini' or 'scratch'.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Parallel jobs; default 1, on Ray no limit."),
    ] = None,
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    gpus_per_job: GpusOption = None,
    stop_after: StopAfterOption = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.lr=3e-5."),
    ] = None,
    save_as: Annotated[
        str | None, typer.Option("--as", help="Name of the variant created by --set/--encoder.")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace results with other settings; retrain if no checkpoint was kept.",
        ),
    ] = False,
    no_checkpoints: Annotated[
        bool,
        typer.Option("--no-checkpoints", help="Do not keep trained checkpoints."),
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", help="Also log to tensorboard, wandb, mlflow or trackio."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Train, even if it is estimated to take days.")
    ] = False,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train each variant on K folds and store out-of-fold and test predictions."""
    resolved = _resolve(competition, data, limit)
    _check_files(resolved, variants or (), overrides)
    from models.jobs.engines.engine import EngineChoice
    from models.jobs.fold import run_fold
    from models.jobs.request import FoldRequest

    request = FoldRequest(
        variants=tuple(variants or ()),
        folds=_integers("--folds", folds),
        seeds=_integers("--seeds", seeds),
        encoder=encoder,
        overrides=_overrides(overrides),
        save_as=save_as,
        overwrite=overwrite,
        keep_checkpoints=not no_checkpoints,
        engine=EngineChoice(engine, address, workers, threads, gpus_per_job),
        stop_after_s=_duration(stop_after),
        track=tuple(track or ()),
        yes=yes,
        command=shlex.join(sys.argv[1:]),
    )
    with ProgressBoard() as board:
        summary = run_fold(resolved, request, board, next(iter(_launches), None))
    _finish(summary.tables, as_json, is_complete=summary.complete)


@app.command()
def pretrain(
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Continue from this hub model or local folder.")
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Start from random weights and a new tokenizer.")
    ] = False,
    size: Annotated[
        str | None, typer.Option("--size", help="Model size with --scratch: mini, small or base.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="FILE[=W[:D]]",
            help="Text or JSON Lines; W: sampling weight, D: weight in the decay. Repeatable.",
        ),
    ] = None,
    task_weight: Annotated[
        str,
        typer.Option(
            "--task-weight", metavar="W[:D]", help="The same for the competition's sentences."
        ),
    ] = "1",
    test_sentences: Annotated[
        bool, typer.Option("--test-sentences", help="Also train on the test sentences.")
    ] = False,
    leave_out_fold: Annotated[
        int | None, typer.Option("--leave-out-fold", min=0, help="Exclude this fold's sentences.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Output folder; default checkpoints/<competition>/encoders/<name>."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", help="Total training tokens, e.g. 30M; default: 10 epochs."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed.")] = 42,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; default: all cores.")
    ] = None,
    stop_after: StopAfterOption = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. lr=1e-3."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence to state in the model card.")
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pretrain an encoder by masked language modelling: adapt one (TAPT), or from scratch."""
    if scratch != (size is not None):
        raise typer.BadParameter("--scratch and --size require each other", param_hint="--scratch")
    resolved = _resolve(competition, data, limit)
    from models.pretraining.pretrain import run_pretrain
    from models.pretraining.request import (
        PretrainRequest,
        parse_corpus,
        parse_count,
        parse_weights,
    )

    request = PretrainRequest(
        encoder=encoder,
        size=size,
        corpora=tuple(parse_corpus(text) for text in corpus or ()),
        task_weights=parse_weights(task_weight, "--task-weight"),
        test_sentences=test_sentences,
        leave_out_fold=leave_out_fold,
        out=out,
        tokens=None if tokens is None else parse_count(tokens),
        seed=seed,
        threads=threads,
        stop_after_s=_duration(stop_after),
        overrides=_overrides(overrides),
        licence=licence,
        context=tuple(_context),
    )
    with ProgressBoard() as board:
        summary = run_pretrain(resolved, request, board)
    _finish(summary.tables, as_json, is_complete=summary.complete)


@app.command("import")
def import_(
    path: Annotated[
        Path, typer.Argument(help="A table (CSV, Parquet, JSON), a .npy file, or a result folder.")
    ],
    test: Annotated[
        Path | None, typer.Option("--test", help="The test predictions, if in a file of their own.")
    ] = None,
    save_as: Annotated[
        str | None,
        typer.Option("--as", help="Variant name; default: its own, or the file's."),
    ] = None,
    folds_hash: Annotated[
        str | None,
        typer.Option("--folds-hash", help="Hash of the folds used, if there is no fold column."),
    ] = None,
    label_order: Annotated[
        str | None,
        typer.Option(
            "--label-order",
            metavar="FILE|alphabetical",
            help="Order of columns that do not name their labels; default: the profile's.",
        ),
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import predictions from another tool or machine, checked row by row."""
    from competition.importing.importing import ImportOptions, build_import_tables, run_import
    from competition.provenance import describe_run

    options = ImportOptions(save_as, folds_hash, describe_run(_now()), test, label_order)
    report = run_import(_resolve(competition, data, limit), path, options)
    _print(build_import_tables(report), as_json)
    if report.offences:
        raise typer.Exit(HarnessError.exit_code)


@app.command()
def blend(
    variants: Annotated[
        list[str] | None,
        typer.Argument(metavar="VARIANT", help="Variants to blend; default: all complete ones."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=0, help="Number of Optuna trials.")] = 200,
    seed: SearchSeedOption = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the submission; default: blend-<hash>.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="What to optimise: a metric of the profile (the first by default), or both.",
        ),
    ] = None,
    reweight: Annotated[
        Literal["odds", "share"] | None,
        typer.Option("--reweight", help="Fit to rows reweighted like the test. Experimental."),
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build an ensemble (soft voting): tune weights and threshold out-of-fold, write the CSV."""
    resolved = _resolve(competition, data, limit)
    from competition.blend.blend import run_blend
    from competition.blend.tables import build_blend_tables
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
            objective=objective,
            reweight=reweight,
            on_step=lambda frac, text: board.update("shift", frac, text),
        )
    _print(build_blend_tables(report), as_json, in_full=full)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A variant, route:length, or a blend.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What to compare A to.")],
    folds: Annotated[str | None, typer.Option("--folds", help="Only these, e.g. 1,2.")] = None,
    threshold: Annotated[
        bool, typer.Option("--threshold", help="Use decision thresholds tuned on the other folds.")
    ] = False,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test whether A is better than B, by a paired bootstrap over groups of out-of-fold rows."""
    from competition.compare.compare import CompareOptions, run_compare
    from competition.compare.tables import build_compare_tables
    from competition.folds.kfold import read_prepared

    options = CompareOptions(_integers("--folds", folds), threshold)
    prepared = read_prepared(_resolve(competition, data, limit))
    with ProgressBoard() as board:
        found = run_compare(
            prepared,
            (first, second),
            options,
            lambda done, total: board.update("blend", done / total, f"trial {done} of {total}"),
        )
    _print(build_compare_tables(found), as_json)


@app.command()
def tune(
    variant: VariantArgument,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=LOW..HIGH[:log]",
            help="A range, or a choice KEY=A|B; repeatable. Default: depends on the variant.",
        ),
    ] = None,
    folds: Annotated[str, typer.Option("--folds", help="Folds to tune on, e.g. 0,1.")] = "0",
    trials: Annotated[int, typer.Option("--trials", min=1, help="Total number of trials.")] = 20,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="A metric of the profile (the first by default), or both (their mean).",
        ),
    ] = None,
    encoder: EncoderOption = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of every trial."),
    ] = None,
    seed: SearchSeedOption = 0,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="Journal file, or postgresql://… for several machines."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", help="Name of the study; default: from its search space."),
    ] = None,
    dead_after: Annotated[
        str,
        typer.Option("--dead-after", help="Silent machines count as dead, e.g. 2m (PostgreSQL)."),
    ] = "2m",
    write: Annotated[
        Path | None, typer.Option("--write", help="File for the best variant.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Parallel jobs of a trial; on Ray, parallel trials."),
    ] = None,
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    gpus_per_job: GpusOption = None,
    stop_after: StopAfterOption = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune a variant's hyperparameters with Optuna; the same command resumes the study."""
    resolved = _resolve(competition, data, limit)
    _check_files(resolved, (variant,), overrides)
    from models.jobs.engines.engine import EngineChoice
    from models.tuning.plan import TuneRequest
    from models.tuning.tune import run_tune

    request = TuneRequest(
        variant=variant,
        search=tuple(search or ()),
        folds=_integers("--folds", folds),
        trials=trials,
        objective=objective,
        encoder=encoder,
        overrides=_overrides(overrides),
        seed=seed,
        storage=storage,
        study=study,
        dead_after_s=_duration(dead_after, "--dead-after") or 0.0,
        write=write,
        engine=EngineChoice(engine, address, workers, threads, gpus_per_job),
        stop_after_s=_duration(stop_after),
    )
    with ProgressBoard() as board:
        summary = run_tune(resolved, request, board)
    _finish(summary.tables, as_json, is_complete=summary.complete)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="CSV to check.")],
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a submission against the leaderboard's rules and list every offence."""
    from competition.submission.check import build_check_tables, check_submission

    report = check_submission(file, _resolve(competition, data, limit))
    _print(build_check_tables(report), as_json)
    if report.offences:
        raise typer.Exit(HarnessError.exit_code)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="CSV to score.")],
    solution: Annotated[Path, typer.Option("--solution", help="File of gold labels.")],
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a CSV against a solution file as the leaderboard does."""
    from competition.submission.form import read_lines
    from competition.submission.score import build_score_tables, score_submission

    resolved = _resolve(competition, data, limit)
    scores = score_submission(file, solution, resolved.profile, read_lines(resolved))
    _print(build_score_tables(scores), as_json)


@app.command()
def submit(
    file: Annotated[
        Path | None,
        typer.Argument(help="The CSV; default: the newest, or with --wait the newest unscored."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="kaggle, aistages, evalai, http, folder or local."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Destination of 'folder'; default: submissions/…/outbox."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and preview only.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the score, also of a file sent before.")
    ] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Send the same file again.")] = False,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Allow sending key and file unencrypted.")
    ] = False,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a submission, upload it, and record its receipt and score."""
    from competition.files import check_folder
    from competition.upload.report import build_submit_tables
    from competition.upload.send import SubmitOptions
    from competition.upload.send import submit as send
    from competition.upload.waiting import WAIT_LIMIT_S

    if folder is not None:
        check_folder(folder.expanduser(), "--folder")
    options = SubmitOptions(
        to, folder, dry_run=dry_run, resend=resend, wait=wait, plain_http=plain_http
    )
    resolved = _resolve(competition, data, limit)
    with ProgressBoard() as board:
        report = send(
            resolved,
            file,
            options,
            clock=_now,
            on_wait=lambda waited_s, status: board.update("score", waited_s / WAIT_LIMIT_S, status),
        )
    _print(build_submit_tables(report), as_json)
    if report.outcome in ("refused", "unknown"):
        raise typer.Exit(HarnessError.exit_code)
    if wait and report.is_pending:
        raise typer.Exit(INCOMPLETE_EXIT)


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="File with the columns of the test file.")],
    blend_name: Annotated[
        str | None, typer.Option("--blend", help="Name of a blend; default: the newest.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output file; default: beside the input file.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; default: as in training.")
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict new rows with the saved checkpoints and a blend."""
    resolved = _resolve(competition, data, limit)
    from models.jobs.predict import PredictRequest, run_predict

    with ProgressBoard() as board:
        table = run_predict(resolved, PredictRequest(file, blend_name, out, threads), board.say)
    _print([table], as_json)


@app.command()
def bundle(
    blend_name: Annotated[str, typer.Argument(metavar="BLEND", help="Name of a blend.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder; default: submissions/<competition>/bundles/BLEND."),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option("--owner", help="Your name on Kaggle; default: KAGGLE_USERNAME."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle.")] = False,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pack a blend for competitions that run code offline: weights, code, and a notebook."""
    resolved = _resolve(competition, data, limit)
    from models.jobs.bundle import BundleRequest, run_bundle

    with ProgressBoard() as board:
        table = run_bundle(resolved, BundleRequest(blend_name, out, owner, overwrite), board.say)
    _print([table], as_json)


@app.command()
def board(
    scores: Annotated[
        list[str] | None,
        typer.Option(
            "--score",
            metavar="NAME=F1/AUPRC",
            help="Enter public scores that you read on a page (of the profile's metrics);"
            " :F1/AUPRC adds the private ones.",
        ),
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show variants, blends and submissions with their scores."""
    resolved = _resolve(competition, data, limit)
    from competition.board.board import build_board_tables
    from competition.upload.entered import enter_scores

    for line in enter_scores(resolved, scores, _now()) if scores else ():
        say(line, file=sys.stderr)
    _print(build_board_tables(resolved, now=_now()), as_json)


@app.command()
def errors(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A variant, route:length, or a blend's name.")
    ],
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Confusions, rows and suspects to show.")
    ] = 20,
    cross_fit: Annotated[
        int | None,
        typer.Option(
            "--cross-fit",
            metavar="K",
            min=2,
            max=100,
            help="Train the linear model on K folds too: it helps to find wrong labels.",
        ),
    ] = None,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a variant or blend is wrong; write suspected wrong labels as a CSV."""
    resolved = _resolve(competition, data, limit)
    from competition.folds.kfold import read_prepared
    from competition.report.error_tables import run_errors

    prepared = read_prepared(resolved)
    probs = None
    if cross_fit is not None:
        from models.training.cross_fit import cross_fit_linear

        probs = cross_fit_linear(prepared, cross_fit, lambda line: say(line, file=sys.stderr))
    _print(run_errors(prepared, name, rows, probs), as_json)


@app.command()
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
) -> None:
    """Write one HTML page: current scores, next commands, errors, curves, members, scores."""
    import webbrowser

    resolved = _resolve(competition, data, limit)
    from competition.report.report import write_report

    path = write_report(resolved, now=_now(), in_context=_in_context)
    say(f"Written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it and not webbrowser.open(path.as_uri()):
        say("No browser could be opened; open the file yourself.", file=sys.stderr)


@app.command()
def doctor(
    competition: CompetitionOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check libraries, device, data, encoders, uploads, disk and memory; say what to fix."""
    resolved = _resolve(competition, data, limit)
    from models.jobs.doctor import run_doctor

    table, is_sound = run_doctor(resolved)
    _print([table], as_json)
    if not is_sound:
        raise typer.Exit(HarnessError.exit_code)


def _resolve(competition: str | None, data: Path | None, limit: int | None) -> Competition:
    """Determine the competition, and print it to stderr before anything else.

    A wrong metric is refused here, like a wrong key, before anything is read.
    """
    from competition.profile import resolve_competition
    from competition.scoring.criteria import build_criteria

    given = {"--competition": competition, "--data": data, "--limit": limit}
    _context[:] = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
    resolved = resolve_competition(competition, data, limit)
    say(resolved.headline, file=sys.stderr)
    build_criteria(resolved.profile)
    return resolved


def _check_files(
    resolved: Competition, variants: Sequence[str], overrides: list[str] | None
) -> None:
    """Check that the variants suit the competition before any heavy library is loaded."""
    from models.jobs.suitability import check_files

    check_files(variants, resolved.profile, _overrides(overrides))


def _in_context(text: str) -> str:
    """Add the competition options of this run to the commands that a text suggests."""
    return SUGGESTED_COMMAND.sub(
        lambda found: " ".join([found[0], *map(shlex.quote, _context)]), text
    )


def _print(tables: Iterable[Table], as_json: bool, *, in_full: bool = False) -> None:
    from competition.console import print_tables

    in_context = [
        replace(
            table,
            rows=[
                {
                    key: _in_context(cell) if isinstance(cell, str) else cell
                    for key, cell in row.items()
                }
                for row in table.rows
            ],
            notes=tuple(map(_in_context, table.notes)),
        )
        for table in tables
    ]
    print_tables(in_context, as_json=as_json, in_full=in_full)


def _finish(tables: Iterable[Table], as_json: bool, *, is_complete: bool) -> None:
    _print(tables, as_json)
    if not is_complete:
        raise typer.Exit(INCOMPLETE_EXIT)


def _now() -> datetime:
    return datetime.now(UTC)


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def _integers(option: str, text: str | None) -> tuple[int, ...]:
    parts = _split(text)
    if not all(part.isdecimal() and len(part) < 1000 for part in parts):
        raise typer.BadParameter(f"{text!r} is not a list like 0,1", param_hint=option)
    return tuple(int(part) for part in parts)


def _overrides(texts: list[str] | None) -> tuple[tuple[str, Any], ...]:
    from models.variant import parse_override

    return tuple(parse_override(text) for text in texts or ())


def _duration(text: str | None, option: str = "--stop-after") -> float | None:
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.replace(".", "", 1).isdecimal():
        raise typer.BadParameter(f"{text!r} is not like 8h, 90m or 300s", param_hint=option)
    return float(number) * units[unit]


def main() -> None:
    """Run a command, in the main process of a launch if there are several."""
    make_streams_safe()
    if "LOCAL_RANK" not in os.environ:  # no launcher
        _run_command()
        return
    from models.jobs.engines.launch import enter_launch, is_launched

    if not is_launched():
        _run_command()
        return
    try:
        launch = enter_launch()
    except HarnessError as error:
        _fail(str(error), error)
    if launch is not None:
        _launches.append(launch)
        try:
            _run_command()
        finally:
            launch.close()


def _run_command() -> None:
    """Run a command; errors that the user can fix are printed without a traceback.

    With ``--json`` an error is also printed as a JSON object on stdout.
    """
    as_json = "--json" in sys.argv[1:]
    # the base of what typer raises for a wrong command line, in every version
    usage_error = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
    try:
        code = app(prog_name="run.py", standalone_mode=not as_json)
    except HarnessError as error:
        _fail(_in_context(str(error)), error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("competition", "models"):
            raise
        _fail(explain_absent(error.name).removeprefix("error: "), error)
    except OSError as error:
        _fail(explain_os_error(error), error)
    except (ValueError, RuntimeError) as error:
        _fail(next((FIXABLE_PATHS[key] for key in FIXABLE_PATHS if key in str(error)), None), error)
    except usage_error as error:
        error.show()
        _print_error(error.format_message(), error)
        raise SystemExit(HarnessError.exit_code) from None
    raise SystemExit(code or 0)


def _fail(message: str | None, error: Exception) -> NoReturn:
    """Print an error that the user can fix and exit; without a message, re-raise it as a bug."""
    if message is None:
        raise error
    say(f"error: {message}", file=sys.stderr)
    if "--json" in sys.argv[1:]:
        with suppress(OSError):  # the error may be that nothing can be written there
            _print_error(message, error)
    raise SystemExit(getattr(error, "exit_code", HarnessError.exit_code)) from None


def _print_error(message: str, error: Exception) -> None:
    """Print an error as a JSON object with its offences."""
    offences = error.offences if isinstance(error, OffencesError) else ()
    found = {"kind": type(error).__name__, "message": message}
    print_json({"error": {**found, "offences": [asdict(each) for each in offences]}})


if __name__ == "__main__":
    main()
