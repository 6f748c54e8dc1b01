"""``predict``: new rows through the saved weights of a blend's members, then through the blend.

Beside ``fold`` on the way of a row: the same formats, tokens, networks and number formats, the
weights as saved, and the blend as written, so that the competition's own test rows get the answers
that ``blend`` gave them.
Legend: R new rows, K folds, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from competition.arrays import Probs, Say
from competition.blend.fit import Blend, apply_blend
from competition.console import Column, Table
from competition.data.corpus import read_rows
from competition.data.rows import Rows
from competition.errors import CorpusError, PredictionsError, UsageError
from competition.files import check_writable
from competition.folds.kfold import Prepared, read_prepared
from competition.folds.length_routes import read_or_make_length_routes, route_lengths
from competition.predictions.members import (
    Header,
    Member,
    ResultKey,
    Store,
    average_in_log_space,
    read_members,
)
from competition.predictions.rerun import advise_training
from competition.profile import Competition
from competition.submission.record import BlendMember, BlendRecord, list_blends, read_record
from competition.submission.write import write_answers
from models.data.batches import tokenize_rows
from models.data.route import count_tokens, name_unit
from models.jobs.linear_job import refit_linear
from models.jobs.plan import build_job, job_dir
from models.jobs.spec import WEIGHTS_FILE, JobSpec, read_kept
from models.network.network import build_model
from models.network.tokenizer import load_tokenizer
from models.parts.formats import choose_format
from models.parts.restriction import number_pairs
from models.training.checkpoints import read_weights
from models.training.hardware import (
    build_accelerator,
    choose_precision,
    fix_randomness_of_kernels,
    list_gpu_notices,
    report_gpu_errors,
    threads_per_job,
)
from models.training.loop import Predictor
from models.variant import LINEAR, Variant


@dataclass(frozen=True)
class PredictRequest:
    """What a person asks of ``predict``; no blend named is the newest, no ``out`` beside it."""

    file: Path
    blend: str | None = None
    out: Path | None = None
    threads: int | None = None


@report_gpu_errors()
def run_predict(competition: Competition, request: PredictRequest, say: Say) -> Table:
    """Answer for the rows of a file as a blend does, and write them as a submission is written.

    Args:
        competition: whose profile describes the file, and whose blend is asked.
        request: the file, the blend and where the answers go.
        say: hears what is going on.

    Raises:
        CorpusError: rows of the file cannot be used.
        UsageError: there is no such file or blend, or the answers cannot be written there.
        PredictionsError: its members were trained anew since, or their weights are not kept.
    """
    if not request.file.is_file():
        raise UsageError(f"{request.file} is no file; name a CSV with the test file's columns")
    reading = read_rows(request.file, competition.profile, is_train=False)
    if reading.offences:
        raise CorpusError(f"{request.file}: rows cannot be predicted", reading.offences)
    name, record = _read_blend(competition, request.blend)
    out = request.out or request.file.with_name(f"{request.file.stem}-{name}.csv")
    _check_out(out, request.file, competition)
    prepared = read_prepared(competition)
    rows = reading.rows
    used = [each for each in record.members if each.weight > 0]
    # all of them before the first one predicts: what is missing is said at once
    found = [_find_member(prepared, each, say) for each in used]
    if any(spec.network for each in found for specs in each.jobs.values() for spec in specs):
        for notice in list_gpu_notices():
            say(notice)
    members = [_predict_member(prepared, each, rows, request.threads, say) for each in found]
    negative_id = competition.profile.negative_id
    blend = Blend(
        tuple(each.name for each in used),
        tuple(each.weight for each in used),
        record.threshold,
        negative_id,
        record.temperature,
    )
    probs, pred = apply_blend(blend, members)
    write_answers(out, competition.profile, rows.ids.tolist(), probs, pred)
    columns = (
        Column("file", "file"),
        Column("rows", "rows", "count"),
        Column("positive", "positive", "share"),
    )
    positive = float(np.mean(pred != negative_id)) if len(pred) else 0.0
    row = {"file": str(out), "rows": len(rows), "positive": positive}
    return Table("predicted", f"Predicted with {name}", columns, (row,))


def _check_out(out: Path, file: Path, competition: Competition) -> None:
    """Refuse a place for the answers where nothing can be written, or where data stands.

    Raises:
        UsageError: saying which.
    """
    check_writable(out, "--out")
    kept = (file, competition.train_path, competition.test_path, competition.solution_path)
    for path in kept:
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            what = "the file to answer" if path == file else f"the competition's {path.name}"
            raise UsageError(f"--out {out}: that is {what}; name another file for the answers")


def _read_blend(competition: Competition, name: str | None) -> tuple[str, BlendRecord]:
    """Return a blend's name and what made it; the newest when none is named."""
    folder = competition.submissions_dir
    known = list_blends(folder)
    if not known:
        raise UsageError(f"no blend in {folder} yet; run: python run.py fold, then blend")
    name = name or known[-1]
    if name not in known:
        raise UsageError(f"no blend {name!r} in {folder}; choose one of {', '.join(known)}")
    path = folder / f"{name}.json"
    try:
        record = read_record(path)
    except (OSError, ValueError) as error:
        record, reason = None, str(error)
    else:
        reason = "it is gone"
    if record is None:
        raise PredictionsError(
            f"{path} does not say how the blend was made ({reason}); blend again: "
            f"python run.py blend --name {name}"
        )
    return name, record


@dataclass(frozen=True)
class _Found:
    """A member of a blend, and the jobs whose weights answer for it, by fold and part."""

    member: Member
    jobs: Mapping[tuple[int, str], Sequence[JobSpec]]


def _find_member(prepared: Prepared, wanted: BlendMember, say: Say) -> _Found:
    """Find a member as it was when the blend was made, with weights for every fold."""
    competition = prepared.competition
    store = Store(competition.oof_dir, competition.profile.labels)
    members, _ = read_members(store, wanted.parts, prepared)
    if len(members) != 1 or members[0].recipe != wanted.recipe:
        raise PredictionsError(
            f"{wanted.name} was trained anew since the blend was made; run: python run.py blend"
        )
    jobs = {
        (fold, part): [
            _find_job(prepared, store, ResultKey(part, seed, fold), say) for seed in wanted.seeds
        ]
        for fold in range(prepared.folds.count)
        for part in wanted.parts
    }
    return _Found(replace(members[0], name=wanted.name, seeds=wanted.seeds), jobs)


def _predict_member(
    prepared: Prepared, found: _Found, rows: Rows, threads: int | None, say: Say
) -> Member:
    """Predict new rows with one member of a blend: a variant, or specialists together."""
    competition = prepared.competition
    store = Store(competition.oof_dir, competition.profile.labels)
    n_labels = len(competition.profile.labels)
    test = np.full((prepared.folds.count, len(rows), n_labels), np.nan, np.float32)
    route_of: npt.NDArray[np.object_] | None = None
    all_specs = [spec for specs in found.jobs.values() for spec in specs]
    threads_of = _choose_threads(store, all_specs, threads, say)
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
    """Return the job that made a result, held against the result's own fingerprint."""
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
        raise PredictionsError(
            f"{folder} keeps no weights of {key.variant} that can be read; {again}"
        )
    variant = Variant.model_validate(kept["variant"])
    spec = build_job(prepared, variant, key, say, bases=kept.get("bases", {}))
    if {kept["fingerprint"], spec.fingerprint} != {header.fingerprint}:
        raise PredictionsError(
            f"{folder} does not belong to {store.path(key)}: the data, the encoder or the code "
            f"changed since; {again}"
        )
    return spec


def _check_trained_here(store: Store, header: Header, folder: Path) -> None:
    """Refuse a result without weights that was imported: to import it again brings none.

    Raises:
        PredictionsError: saying what to do instead of training.
    """
    is_table = bool(header.variant.get("imported"))
    if not is_table and "imported_from" not in store.read_run(header.key):
        return
    advice = "name a blend without it with --blend NAME"
    if not is_table:  # the machine that trained it may have kept them
        advice += f", or copy {folder} from where it was trained"
    raise PredictionsError(
        f"{header.key.variant} was imported and has no weights here, so it cannot answer for new"
        f" rows; {advice}"
    )


def _choose_threads(
    store: Store, specs: Sequence[JobSpec], threads: int | None, say: Say
) -> dict[ResultKey, int]:
    """Return each job's threads: those asked for, else those it was trained with, else all cores.

    A linear model is indifferent to them.
    """
    chosen, unknown = {}, []
    for spec in specs:
        known = threads or store.read_run(spec.key).get("threads")
        if known is None and spec.network is not None:
            unknown.append(str(store.run_path(spec.key)))
        chosen[spec.key] = int(known or threads_per_job(None, 1))
    if unknown:
        say(
            f"notice: {unknown[0]} does not say with how many threads it was trained"
            f"{f' ({len(unknown)} such files)' if len(unknown) > 1 else ''}; all"
            f" {threads_per_job(None, 1)} cores are taken, and the last digits of its answers may"
            " differ from blend's; --threads N takes others"
        )
    return chosen


def _route_rows(prepared: Prepared, spec: JobSpec, rows: Rows) -> npt.NDArray[np.object_]:
    """Return each new row's part of the length route, by the borders that the route was made with.

    Raises:
        PredictionsError: the route is a person's own file, which says nothing of new rows, or was
            measured with another tokenizer than the specialists have.
    """
    routes = read_or_make_length_routes(prepared, None, "")
    if routes.borders is None or spec.network is None:
        raise PredictionsError(
            "the length route is a file of your own, so new rows have no route; blend without the "
            "specialists: python run.py blend VARIANT…"
        )
    tokenizer = load_tokenizer(spec.network.source, spec.network.new_tokens)
    if routes.unit != name_unit(tokenizer):
        raise PredictionsError(
            f"the length route was measured with another tokenizer than {spec.key.variant} has, "
            "so new rows have no route; blend without the specialists: python run.py blend VARIANT…"
        )
    lengths = count_tokens(rows, tokenizer)
    return route_lengths(lengths, routes.borders)


def predict_job(spec: JobSpec, rows: Rows, threads: int) -> Probs:
    """Predict rows with what a finished job kept; the job's own test rows get their old answers.

    A linear model is not kept: it is fitted again, which takes seconds and gives the same model.

    Args:
        spec: the finished job.
        rows: R rows.
        threads: as the job had them, for the same bytes.

    Returns:
        (R, C) float32 probabilities; rows sum to 1.
    """
    if spec.variant.learner == LINEAR:
        return refit_linear(spec).predict(rows)
    network, variant = spec.network, spec.variant
    assert network is not None
    torch.set_num_threads(threads)
    fix_randomness_of_kernels()
    # what was trained in fp16 on a GPU answers on a CPU too
    precision = choose_precision(variant.run.precision, is_firm=False)
    accelerator = build_accelerator(precision)
    tokenizer = load_tokenizer(network.source, network.new_tokens)
    model = build_model(
        variant,
        network.source,
        labels=len(spec.labels),
        vocabulary=len(tokenizer),
        device_type=accelerator.device.type,
        precision=precision,
    )
    facts = read_weights(spec.job_dir / WEIGHTS_FILE, model)
    model.to(accelerator.device)
    tokens = tokenize_rows(
        rows,
        choose_format(variant.format, spec.language),
        tokenizer,
        variant.max_tokens,
        formatting=variant.formatting,
    )
    allowed = None
    if facts.get("allowed") is not None:
        allowed = np.asarray(facts["allowed"], bool)[number_pairs(rows, spec.entity_types)]
    predictor = Predictor(model, accelerator, tokenizer.pad_token_id, variant.run.micro_tokens)
    return predictor.predict(tokens, np.arange(len(rows)), allowed)
