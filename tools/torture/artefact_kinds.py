"""Kinds of files that commands leave or fetch: caches, curves, studies, models, bundles, data sets.

A cache that is damaged is made again, so its readers raise nothing; the others name the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from competition.audit import shift
from competition.audit.guessed_profile import run_init
from competition.data.corpus import read_rows
from competition.errors import CorpusError
from competition.folds.kfold import Prepared
from competition.importing.label_order import read_label_order
from competition.lease import Leases, clear_stale, is_stale, list_leases, name_owner
from competition.predictions import expected_scores
from competition.predictions.learning_curves import CURVE_FILE, CurvePoint, append_point, read_curve
from competition.predictions.rerun import advise_training
from competition.predictions.store import ResultKey, Store
from competition.profile import STUDY_JOURNAL, Competition
from competition.report.page import Page
from competition.report.training import add_learning_curves, add_studies
from competition.scoring.expected import Evidence
from competition.submission.form import read_answer_rows, read_form
from competition.submission.record import BlendRecord
from competition.submission.score import read_solution
from models.data.corrections import read_corrections
from models.data.hub_rows import fetch_rows
from models.jobs.offline import MANIFEST, Bundle, BundledJob, read_bundle
from models.jobs.spec import FACTS_FILE, read_kept
from models.settings import LinearSettings
from models.training.linear import LinearTask, fit_linear
from models.training.linear_file import read_linear, write_linear
from models.variant import resolve_variant
from tools.torture.kind import Kind

SOME = 40  # rows


def build_artefact_kinds(prepared: Prepared, store: Store, record: BlendRecord) -> dict[str, Kind]:
    """Make a valid file of each kind below the competition's home."""
    folder = prepared.competition.home / "artefacts"
    folder.mkdir()
    return {
        **_kinds_of_tables(prepared.competition, prepared, folder),
        **_kinds_of_hubs(prepared.competition, folder),
        **_kinds_of_caches(prepared, folder),
        **_kinds_of_models(prepared, record, folder),
        **_kinds_of_reports(prepared, store),
        "lease": _kind_of_lease(folder),
    }


def _kinds_of_tables(competition: Competition, prepared: Prepared, folder: Path) -> dict[str, Kind]:
    """Return data in other forms, and what is given beside the data."""
    profile, rows = competition.profile, prepared.corpus.train
    lines = competition.train_path.read_bytes().split(b"\n")[: SOME + 1]
    packed = gzip.compress(b"\n".join(lines) + b"\n", mtime=0)
    records = pq.read_table(io.BytesIO(_write_parquet(competition, SOME))).to_pylist()
    objects = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records).encode()

    def read_data(data: bytes, name: str) -> None:
        path = folder / name
        path.write_bytes(data)
        reading = read_rows(path, profile, is_train=True)
        for row in reading.rows:
            for entity in (row.subject, row.object):
                if row.sentence[entity.start : entity.end] != entity.word:
                    raise AssertionError(f"{row.id}: an entity stands elsewhere")
        if reading.offences:
            raise CorpusError("refused", reading.offences)

    def guess(data: bytes) -> None:
        for name, content in (("train.csv", data), ("test.csv", b"\n".join(lines) + b"\n")):
            (folder / name).write_bytes(content)
        paths = [folder / "train.csv", folder / "test.csv"]
        run_init(paths, folder / "guessed.toml", overwrite=True)

    test_ids = prepared.corpus.test.ids.tolist()
    sample = "\n".join(["id,pred_label,probs", *(f"{row_id},no_relation,0" for row_id in test_ids)])
    with_sample = replace(
        competition,
        limit=None,
        profile=profile.model_copy(
            update={"files": profile.files.model_copy(update={"sample_submission": "sample.csv"})}
        ),
        data_dir=folder,
    )
    (folder / profile.files.test).write_bytes(_write_test(prepared, competition))

    def read_sample(data: bytes) -> None:
        (folder / "sample.csv").write_bytes(data)
        read_form(with_sample)
        answers = read_answer_rows(with_sample)
        if sorted(answers.test_ids) != sorted(test_ids):
            raise AssertionError("rows were lost")

    first = rows.ids[:6].tolist()
    types = profile.entity_types
    corrections = ["split,id,role,type", *(f"train,{i},subject,{types[0]}" for i in first)]

    def read_correction_file(data: bytes) -> None:
        (folder / "corrections.csv").write_bytes(data)
        read_corrections(
            folder / "corrections.csv",
            rows,
            prepared.corpus.test,
            entity_types=types,
            labels=profile.labels,
        )

    def read_solution_file(data: bytes) -> None:
        (folder / "solution.csv").write_bytes(data)
        read_solution(folder / "solution.csv", profile)

    def read_order(data: bytes) -> None:
        (folder / "labels.json").write_bytes(data)
        read_label_order(str(folder / "labels.json"), profile.labels)

    assert competition.solution_path is not None
    solution = b"\n".join(competition.solution_path.read_bytes().split(b"\n")[:30]) + b"\n"
    order = json.dumps({label: number for number, label in enumerate(profile.labels)}).encode()
    return {
        "train.csv.gz": Kind(packed, lambda data: read_data(data, "rows.csv.gz")),
        "train.parquet": Kind(
            _write_parquet(competition, SOME), lambda data: read_data(data, "rows.parquet")
        ),
        "train.jsonl": Kind(objects, lambda data: read_data(data, "rows.jsonl")),
        "init": Kind(b"\n".join(lines) + b"\n", guess),
        "sample file": Kind((sample + "\n").encode(), read_sample),
        "corrections": Kind(("\n".join(corrections) + "\n").encode(), read_correction_file),
        "solution": Kind(solution, read_solution_file),
        "label order": Kind(order, read_order, is_json_lines=True),
    }


def _write_parquet(competition: Competition, n_rows: int) -> bytes:
    """Return the first train rows as Parquet."""
    with competition.train_path.open(encoding="utf-8", newline="") as stream:
        records = [record for record, _ in zip(csv.DictReader(stream), range(n_rows), strict=False)]
    stream_out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), stream_out)
    return stream_out.getvalue()


def _write_test(prepared: Prepared, competition: Competition) -> bytes:
    """Return the lines of the test file that are in the sample of rows."""
    wanted = set(prepared.corpus.test.ids.tolist())
    head, *lines = competition.test_path.read_text("utf-8").splitlines()
    return ("\n".join([head, *(x for x in lines if x.split(",")[0] in wanted)]) + "\n").encode()


@dataclass(frozen=True)
class _Hub:
    """A hub with one data set, in files of this machine."""

    folder: Path

    def list_files(self, name: str) -> Sequence[str]:
        del name
        return ["re/train-0.parquet", "re/test-0.parquet"]

    def fetch(self, name: str, path: str) -> Path:
        del name
        return self.folder / Path(path).name


def _kinds_of_hubs(competition: Competition, folder: Path) -> dict[str, Kind]:
    hub = folder / "hub"
    hub.mkdir()
    good = _write_parquet(competition, SOME)
    label, labels = competition.profile.columns.label, competition.profile.labels
    table = pq.read_table(io.BytesIO(good))
    place = table.column_names.index(label)
    numbers = [labels.index(name) for name in table.column(place).to_pylist()]
    numbered = table.set_column(place, label, pa.array(numbers))
    names = json.dumps({"info": {"features": {label: {"names": list(labels)}}}}).encode()
    fresh = replace(competition, data_dir=folder / "fetched")

    def fetch(train: bytes) -> None:
        (hub / "train-0.parquet").write_bytes(train)
        (hub / "test-0.parquet").write_bytes(good)
        for path in fresh.data_dir.glob("*"):
            path.unlink()
        fetch_rows(fresh, "hf:x/y/re", lambda _: None, _Hub(hub))

    def fetch_named(data: bytes) -> None:
        stream = io.BytesIO()
        pq.write_table(numbered.replace_schema_metadata({b"huggingface": data}), stream)
        fetch(stream.getvalue())

    return {
        "hub's Parquet": Kind(good, fetch),
        "hub's names": Kind(names, fetch_named, is_json_lines=True),
    }


def _kinds_of_caches(prepared: Prepared, folder: Path) -> dict[str, Kind]:
    corpus = prepared.corpus
    n_rows = len(corpus.train)
    made_of = {"corpus_hash": corpus.hash, "group_by": ["sentence"]}
    feature = {"what": "length", "value": "x", "train": 0.5, "test": 0.4, "is_share": True}
    about = {**made_of, "auc": 0.6, "low": 0.5, "high": 0.7, "telling": [feature]}
    path = folder / "cache.npz"

    def write_shift(text: str) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, odds=np.ones(n_rows), about=np.array(text))
        return stream.getvalue()

    def read_shift(data: bytes) -> None:
        path.write_bytes(data)
        found = shift._read(path, corpus, made_of)
        if found is not None:
            found.weights()
            shift.build_shift_tables(found, corpus)

    def read_about(data: bytes) -> None:
        read_shift(write_shift(data.decode("utf-8", "replace").replace("\0", "")))

    expected_scores._write(
        path, Evidence(np.ones((2, n_rows), np.float32), np.array([0.4, 0.6]), 0.1, 0.5)
    )
    evidence = path.read_bytes()

    def read_evidence(data: bytes) -> None:
        path.write_bytes(data)
        found = expected_scores._read(path, n_rows)
        if found is not None and not np.isfinite(found.weights).all():
            raise AssertionError("weights that are none were read")

    return {
        "shift cache": Kind(write_shift(json.dumps(about)), read_shift),
        "shift's facts": Kind(json.dumps(about).encode(), read_about, is_json_lines=True),
        "evidence cache": Kind(evidence, read_evidence),
    }


def _kinds_of_models(prepared: Prepared, record: BlendRecord, folder: Path) -> dict[str, Kind]:
    train = prepared.corpus.train.take(np.arange(SOME))
    gold = train.gold.astype(np.int64)
    settings = LinearSettings(most_features=1000)
    n_labels = prepared.competition.profile.n_labels
    path = folder / "linear.safetensors"
    write_linear(path, fit_linear(train, gold, LinearTask(settings, n_labels, 1)), {"name": "x"})

    def read_model(data: bytes) -> None:
        path.write_bytes(data)
        read_linear(path)

    variant = resolve_variant("tfidf-linear", encoder="ko-mini")
    facts = {"fingerprint": "0" * 64, "variant": variant.model_dump(mode="json"), "bases": {}}

    def read_facts(data: bytes) -> None:
        (folder / FACTS_FILE).write_bytes(data)
        read_kept(folder)

    jobs = tuple(
        BundledJob(
            part="a",
            route=None,
            fold=fold,
            seed=42,
            folder=f"models/a/s42-f{fold}",
            encoder="encoders/ko-mini-0000",
            encoder_has_weights=False,
            threads=1,
        )
        for fold in range(prepared.folds.count)
    )
    bundle = Bundle(
        name="b",
        profile=prepared.competition.profile,
        blend=record,
        folds=prepared.folds.count,
        jobs={"a": jobs},
        routes=None,
        test_sha256="0" * 64,
    )

    def read_manifest(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        for job in read_bundle(folder).jobs["a"]:
            for place in (job.folder, job.encoder or ""):
                if not (folder / place).resolve().is_relative_to(folder.resolve()):
                    raise AssertionError("a path leaves the bundle")

    return {
        "linear model": Kind(path.read_bytes(), read_model),
        "model.json": Kind(json.dumps(facts).encode(), read_facts, is_json_lines=True),
        "bundle": Kind(bundle.model_dump_json().encode(), read_manifest, is_json_lines=True),
    }


def _kinds_of_reports(prepared: Prepared, store: Store) -> dict[str, Kind]:
    competition = prepared.competition
    key = ResultKey("planted", 42, 0)
    job = competition.checkpoints_dir / "planted" / "s42-f0"
    job.mkdir(parents=True)
    for step in (10, 20, 30):
        append_point(job, CurvePoint("2026-11-22T12:00:00+00:00", step, 30, 1.5 - step / 50, 9.5))
    curve = (job / CURVE_FILE).read_bytes()

    def draw_curve(data: bytes) -> None:
        (job / CURVE_FILE).write_bytes(data)
        read_curve(job)
        add_learning_curves(Page("x"), competition, [key])

    journal = competition.tune_dir / "x" / STUDY_JOURNAL
    journal.parent.mkdir(parents=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name="x", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("lr", 0.1, 0.9), n_trials=3)
    study_bytes = journal.read_bytes()

    def draw_study(data: bytes) -> None:
        journal.write_bytes(data)
        add_studies(Page("x"), competition)

    run = store.run_path(key)
    good = run.read_bytes()

    def propose(data: bytes) -> None:
        run.write_bytes(data)
        try:
            advise_training(run.parent, "--overwrite")
        finally:
            run.write_bytes(good)

    return {
        "metrics.jsonl": Kind(curve, draw_curve, is_json_lines=True),
        "study": Kind(study_bytes, draw_study, is_json_lines=True),
        "stored command": Kind(good, propose, is_json_lines=True),
    }


def _kind_of_lease(folder: Path) -> Kind:
    path = folder / "leased" / "job"
    with Leases() as leases:
        lease = leases.acquire(path)
        assert lease is not None
        good = lease.file.read_bytes()
    file = path.with_name("job.1.lease")

    def read(data: bytes) -> None:
        file.write_bytes(data)
        name_owner(path)
        is_stale(file)
        clear_stale(path)
        for left in list_leases(path):
            left.unlink()

    return Kind(good, read, is_json_lines=True)
