"""The ``predict`` command: predict new rows with the saved models of a blend (an ensemble).

Uses the same formats, tokens, networks and precision as ``fold``, the weights as saved and the
blend as written, so the test rows of the competition get the same predictions as from ``blend``.
Legend: R new rows, K folds, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.arrays import Probs, Say
from competition.blend.fit import Blend, apply_blend
from competition.console import Column, Table
from competition.data.corpus import read_rows
from competition.data.rows import Rows
from competition.errors import CorpusError, PredictionsError, UsageError
from competition.files import check_writable
from competition.folds.kfold import Prepared, read_prepared
from competition.folds.length_routes import read_or_make_length_routes, route_lengths
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import Member, read_members
from competition.predictions.rerun import advise_training
from competition.predictions.store import Header, ResultKey, Store, open_store
from competition.profile import Competition
from competition.scoring.metrics.micro_f1 import is_any_of
from competition.submission.record import BlendMember, BlendRecord, list_blends, read_record
from competition.submission.write import write_answers
from models.data.route import count_tokens, name_unit
from models.jobs.ngram_job import refit
from models.jobs.plan import build_job, job_dir
from models.jobs.saved import SavedNetwork, predict_saved
from models.jobs.spec import WEIGHTS_FILE, JobSpec, KeptModel, read_kept
from models.network.tokenizer import load_tokenizer
from models.training.hardware import list_gpu_notices, report_gpu_errors, threads_per_job
from models.variant import Variant


@dataclass(frozen=True)
class PredictRequest:
    """Options of ``predict``; ``blend`` defaults to the newest, ``out`` to a file next to it."""

    file: Path
    blend: str | None = None
    out: Path | None = None
    threads: int | None = None


@report_gpu_errors()
def run_predict(competition: Competition, request: PredictRequest, say: Say) -> Table:
    """Predict the rows of a file with a blend, and write them like a submission.

    Raises:
        CorpusError: rows of the file are invalid.
        UsageError: the file or the blend does not exist, or the output cannot be written.
        PredictionsError: members were retrained since, or their weights are missing.
    """
    if not request.file.is_file():
        raise UsageError(
            f"{request.file} does not exist; name a CSV with the columns of the test file"
        )
    reading = read_rows(request.file, competition.profile, is_train=False)
    if reading.offences:
        raise CorpusError(f"{request.file}: rows cannot be predicted", reading.offences)
    name, record = read_blend(competition, request.blend)
    out = request.out or request.file.with_name(f"{request.file.stem}-{name}.csv")
    _check_out(out, request.file, competition)
    prepared = read_prepared(competition)
    rows = reading.rows
    used = [each for each in record.members if each.weight > 0]
    # find all members before the first one predicts, to report missing weights early
    found = [find_member(prepared, each, say) for each in used]
    if any(spec.network for each in found for specs in each.jobs.values() for spec in specs):
        for notice in list_gpu_notices():
            say(notice)
    members = [_predict_member(prepared, each, rows, request.threads, say) for each in found]
    negative_ids = competition.profile.negative_ids
    blend = Blend(
        tuple(each.name for each in used),
        tuple(each.weight for each in used),
        record.rule,
        negative_ids,
        record.temperature,
    )
    probs, pred = apply_blend(blend, members)
    write_answers(out, competition.profile, rows.ids.tolist(), probs, pred)
    columns = (
        Column("file", "file"),
        Column("rows", "rows", "count"),
        Column("positive", "positive", "share"),
    )
    positive = float(np.mean(~is_any_of(pred, negative_ids))) if len(pred) else 0.0
    row = {"file": str(out), "rows": len(rows), "positive": positive}
    return Table("predicted", f"Predicted with {name}", columns, (row,))


def _check_out(out: Path, file: Path, competition: Competition) -> None:
    """Check that the output file can be written and replaces no data."""
    check_writable(out, "--out")
    kept = (file, *competition.train_paths, competition.test_path, competition.solution_path)
    for path in kept:
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            what = "the input file" if path == file else f"the competition's {path.name}"
            raise UsageError(f"--out {out} is {what}; name another file for the predictions")


def read_blend(competition: Competition, name: str | None) -> tuple[str, BlendRecord]:
    """Return the name and the record of a blend, of the newest if ``name`` is None."""
    folder = competition.submissions_dir
    known = list_blends(folder)
    if not known:
        raise UsageError(f"no blend in {folder} yet; run: python run.py fold, then blend")
    name = name or known[-1]
    if name not in known:
        raise UsageError(f"no blend {name!r} in {folder}; choose one of {', '.join(known)}")
    path = folder / f"{name}.json"
    try:
        record = read_record(path, competition.profile.n_labels)
    except (OSError, ValueError) as error:
        record, reason = None, str(error)
    else:
        reason = "the file is missing"
    if record is None:
        raise PredictionsError(
            f"{path} cannot be read as the record of a blend ({reason}); blend again: "
            f"python run.py blend --name {name}"
        )
    if record.has_other_negatives(competition.profile):
        raise PredictionsError(
            f"{path} was made with other negative labels than the profile's today, so the blend "
            f"would decide other answers; blend again: python run.py blend --name {name}"
        )
    return name, record


@dataclass(frozen=True)
class FoundMember:
    """A member of a blend, and the jobs whose weights it uses, by fold and variant."""

    member: Member
    jobs: Mapping[tuple[int, str], Sequence[JobSpec]]


def find_member(prepared: Prepared, wanted: BlendMember, say: Say) -> FoundMember:
    """Find a member of a blend, unchanged since the blend was made, with weights for each fold."""
    competition = prepared.competition
    store = open_store(competition)
    members, _ = read_members(store, wanted.parts, prepared)
    if len(members) != 1 or members[0].recipe != wanted.recipe:
        raise PredictionsError(
            f"{wanted.name} was retrained since the blend was made; run: python run.py blend"
        )
    jobs = {
        (fold, part): [
            _find_job(prepared, store, ResultKey(part, seed, fold), say) for seed in wanted.seeds
        ]
        for fold in range(prepared.folds.count)
        for part in wanted.parts
    }
    return FoundMember(replace(members[0], name=wanted.name, seeds=wanted.seeds), jobs)


def _predict_member(
    prepared: Prepared, found: FoundMember, rows: Rows, threads: int | None, say: Say
) -> Member:
    """Predict new rows with one member of a blend: one variant, or a set of specialists."""
    competition = prepared.competition
    store = open_store(competition)
    n_labels = len(competition.profile.labels)
    test = np.full((prepared.folds.count, len(rows), n_labels), np.nan, np.float32)
    route_of: npt.NDArray[np.object_] | None = None
    all_specs = [spec for specs in found.jobs.values() for spec in specs]
    threads_of = choose_threads(store, all_specs, threads, say)
    for (fold, part), specs in found.jobs.items():
        route = specs[0].variant.route
        chosen = np.ones(len(rows), bool)
        if route is not None:
            if route_of is None:
                route_of = _route_rows(prepared, specs[0], rows)
            chosen = route_of == route.partition(":")[2]
        if not chosen.any():
            continue
        some = rows.take(np.flatnonzero(chosen))
        say(f"{part} fold {fold}: {len(some):,} rows")
        probs = [predict_job(spec, some, threads_of[spec.key]) for spec in specs]
        test[fold, chosen] = average_in_log_space(probs)
    return replace(found.member, oof=np.empty((0, n_labels), np.float32), test=test, recipe="")


def _find_job(prepared: Prepared, store: Store, key: ResultKey, say: Say) -> JobSpec:
    """Return the job that made a result, after checking the fingerprint of the result."""
    folder = job_dir(prepared.competition.checkpoints_dir, key)
    header = store.read_header(key)
    again = (
        f"{advise_training(store.directory / key.variant, '--overwrite')}, without --no-checkpoints"
    )
    if header is None:
        raise PredictionsError(f"{store.path(key)} is missing; {again}")
    kept = None if header.variant.get("imported") else read_kept(folder)
    if kept is None:
        _check_trained_here(store, header, folder)
        raise PredictionsError(f"{folder} has no readable weights of {key.variant}; {again}")
    variant = _find_encoder(kept.variant, store.read_run(key).get("encoder_folder"))
    spec = build_job(prepared, variant, key, say, bases=kept.bases)
    if {kept.fingerprint, spec.fingerprint} != {header.fingerprint}:
        raise PredictionsError(
            f"{folder} does not match {store.path(key)}: the data, the encoder or the code "
            f"have changed since; {again}"
        )
    return _as_trained(spec, kept)


def _find_encoder(variant: Variant, folder: object) -> Variant:
    """Return a variant with the folder of its encoder as recorded, which may have been relative."""
    is_here = isinstance(folder, str) and Path(folder).is_dir()
    return variant.model_copy(update={"encoder": folder}) if is_here else variant


def _as_trained(spec: JobSpec, kept: KeptModel) -> JobSpec:
    """Return a job with entity types and new tokens in the order of its weights."""
    if spec.network is None:
        return spec
    tokens = kept.new_tokens or spec.network.new_tokens
    network = replace(spec.network, new_tokens=tokens)
    return replace(spec, network=network, entity_types=kept.entity_types or spec.entity_types)


def _check_trained_here(store: Store, header: Header, folder: Path) -> None:
    """Check that a result without weights was trained here, not imported."""
    is_table = bool(header.variant.get("imported"))
    if not is_table and "imported_from" not in store.read_run(header.key):
        return
    advice = "name a blend without it with --blend NAME"
    if not is_table:  # the machine that trained it may have kept them
        advice += f", or copy {folder} from where it was trained"
    raise PredictionsError(
        f"{header.key.variant} was imported without weights, so it cannot predict new rows; "
        f"{advice}"
    )


def choose_threads(
    store: Store, specs: Sequence[JobSpec], threads: int | None, say: Say
) -> dict[ResultKey, int]:
    """Return the threads per job: as requested, else as in training, else all cores.

    They do not matter for a model of n-grams.
    """
    chosen, unknown = {}, []
    for spec in specs:
        known = threads or store.read_run(spec.key).get("threads")
        if known is None and spec.network is not None:
            unknown.append(str(store.run_path(spec.key)))
        chosen[spec.key] = int(known or threads_per_job(None, 1))
    if unknown:
        say(
            f"notice: {unknown[0]} does not record the number of threads used in training"
            f"{f' ({len(unknown)} such files)' if len(unknown) > 1 else ''}; using all"
            f" {threads_per_job(None, 1)} cores, so the last digits of its predictions may"
            " differ from blend's; choose another number with --threads N"
        )
    return chosen


def _route_rows(prepared: Prepared, spec: JobSpec, rows: Rows) -> npt.NDArray[np.object_]:
    """Return the length route of each new row, by the stored length limits."""
    borders, tokenizer = read_borders(prepared, spec)
    return route_lengths(count_tokens(rows, tokenizer), borders)


def read_borders(prepared: Prepared, spec: JobSpec) -> tuple[tuple[int, int], Any]:
    """Return the stored length limits, and the tokenizer of a specialist, which measures rows.

    Raises:
        PredictionsError: the routes come from a user's file, which has no limits, or were measured
            with another tokenizer than that of the specialists.
    """
    routes = read_or_make_length_routes(prepared, None, "")
    if routes.borders is None or spec.network is None:
        raise PredictionsError(
            "the length routes come from your own file, so new rows have no route; blend without "
            "the specialists: python run.py blend VARIANT…"
        )
    tokenizer = load_tokenizer(spec.network.source, spec.network.new_tokens)
    if routes.unit != name_unit(tokenizer):
        raise PredictionsError(
            f"the length routes were measured with another tokenizer than that of "
            f"{spec.key.variant}, so new rows have no route; blend without the specialists: "
            "python run.py blend VARIANT…"
        )
    return routes.borders, tokenizer


def predict_job(spec: JobSpec, rows: Rows, threads: int) -> Probs:
    """Predict rows with the model of a finished job; its own test rows get the same predictions.

    A model of n-grams is not stored but fitted again, which takes seconds to a minute and gives
    the same model.

    Args:
        threads: as in training, for identical bytes.

    Returns:
        (R, C) float32 probabilities; rows sum to 1.
    """
    network = spec.network
    if network is None:
        return refit(spec).predict(rows)
    saved = SavedNetwork(
        variant=spec.variant,
        weights=spec.job_dir / WEIGHTS_FILE,
        source=network.source,
        new_tokens=network.new_tokens,
        labels=spec.labels,
        entity_types=spec.entity_types,
        language=spec.language,
    )
    return predict_saved(saved, rows, threads)
