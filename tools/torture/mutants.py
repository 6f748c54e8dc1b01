"""Change valid files slightly, thousands of times: each must be read, or rejected by name.

``python -m tools.torture.mutants --count 1000`` tries so many mutants of each kind of file. What is
raised must be an error that a user can correct. Where a mutant is taken, nothing may have been lost
or let in: a corpus has every row, a submission is what a plain parser of literals reads.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import io
import json
import math
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from competition.data.corpus import read_rows
from competition.errors import CorpusError, HarnessError, UsageError
from competition.folds.kfold import Prepared, read_fold_file, read_prepared
from competition.folds.length_routes import read_or_make_length_routes
from competition.importing.rows import ForeignFiles, read_foreign_rows
from competition.predictions.store import Result, ResultKey, Store
from competition.profile import Competition, read_profile, resolve_competition
from competition.submission.check import check_submission
from competition.submission.ledger import Ledger
from competition.submission.record import read_record, read_rule, read_submission
from models.variant import own_encoder, own_shape, parse_override, resolve_variant
from tools.torture.artefact_kinds import build_artefact_kinds
from tools.torture.homes import Home
from tools.torture.kind import Kind

PIECES = (
    *(b"", b"\0", b"\n", b"\r", b'"', b",", b"'", b"[", b"]", b"{", b"}", b"=", b":", b"\\", b"#"),
    *(b"\xff", b"\xef\xbb\xbf", b"\x1b[2J", b"\xe2\x80\xae", b"\xe3\x80\x80", b"\xe2\x80\xa8"),
    *(b"\x1c", b"\xef\xbc\x91", b"\xd9\xa1", b"NaN", b"1e999", b"-1", b"0" * 400, b"9" * 5000),
    *(b"../", b"[" * 3000, b"null", b"true", b'{"a":1}', b"\xed\xa0\x80", b"\\u0000", b"'''"),
)
VALUES: tuple[object, ...] = (
    *(None, True, -1, 0, 10**30, 1.5, 71.5, math.nan, math.inf, "", "x", "../../x", "1", [], {}),
    *([[]], {"kind": []}, ["a", 1], "\x1b[31m", "\u202e", "a\0b", "x" * 5000, -0.0, [None]),
)


@dataclass
class Tally:
    """What came of the mutants of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def mutate(data: bytes, rng: random.Random, *, is_json_lines: bool) -> bytes:
    """Change a file in one to four places: bytes, or values of a JSON object in it."""
    if is_json_lines and rng.random() < 0.5:
        return _mutate_json(data, rng)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[at : at + rng.randint(1, 8)] = b""
            case 1:
                changed[at:at] = changed[at : at + rng.randint(1, 200)]
            case 2:
                changed = changed[:at]
            case 3 if changed:
                changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
            case _:
                changed[at : at + rng.randint(0, 3)] = rng.choice(PIECES)
    return bytes(changed)


def _mutate_json(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines() if b"\n{" in data else [data]
    place = rng.randrange(len(lines))
    found = json.loads(lines[place])
    inside = found
    while rng.random() < 0.6:
        deeper = [value for value in inside.values() if isinstance(value, dict | list)]
        deeper += [each for value in deeper if isinstance(value, list) for each in value]
        objects = [value for value in deeper if isinstance(value, dict) and value]
        if not objects:
            break
        inside = rng.choice(objects)
    key = rng.choice(list(inside))
    if rng.random() < 0.1:
        del inside[key]
    else:
        inside[key] = rng.choice(VALUES)
    lines[place] = json.dumps(found).encode()
    return b"\n".join(lines) + b"\n"


def try_kind(kind: Kind, count: int, rng: random.Random) -> Tally:
    """Read so many mutants of a file."""
    tally = Tally()
    for _ in range(count):
        data = mutate(kind.data, rng, is_json_lines=kind.is_json_lines)
        try:
            kind.read(data)
            tally.outcomes["taken"] += 1
        except HarnessError:
            tally.outcomes["refused"] += 1
        except Exception:
            tally.outcomes["fault"] += 1
            tally.faults.append(f"{data[:300]!r}\n{traceback.format_exc(limit=-3)}")
    return tally


def build_kinds(folder: Path) -> dict[str, Kind]:
    """Make a home with one valid file of each kind, and its readers."""
    home = Home(folder).make()
    competition = resolve_competition(str(home.profile), None, 240, home=folder)
    prepared = read_prepared(competition)
    read_or_make_length_routes(prepared, _count_chars, "characters")
    store = Store(competition.oof_dir, competition.profile.labels)
    _plant(store, prepared)
    kinds = {
        **_kinds_of_data(competition, prepared),
        **_kinds_of_settings(home, folder),
        **_kinds_of_results(prepared, store),
        **_kinds_of_submissions(competition, folder),
    }
    (folder / "good.json").write_bytes(kinds["blend record"].data)
    record = read_record(folder / "good.json", prepared.competition.profile.n_labels)
    assert record is not None
    return {**kinds, **build_artefact_kinds(prepared, store, record)}


def _count_chars(rows: object) -> np.ndarray:
    return np.array([len(row.sentence) for row in rows])  # type: ignore[attr-defined]


def _plant(store: Store, prepared: Prepared) -> None:
    corpus, n_labels = prepared.corpus, len(store.labels)
    rng = np.random.default_rng(0)
    for fold in range(prepared.folds.count):
        held = corpus.train.ids[prepared.folds.fold_of == fold]
        probs = rng.dirichlet(np.ones(n_labels), len(held) + len(corpus.test)).astype(np.float32)
        result = Result(
            key=ResultKey("planted", 42, fold),
            fingerprint="0" * 64,
            recipe="1" * 64,
            variant={"name": "planted", "why": "planted", "tune": {"folds": [0], "trials": 1}},
            labels=store.labels,
            data_hash=corpus.hash,
            folds_hash=prepared.folds.hash,
            route=None,
            routes_hash=None,
            oof_ids=np.asarray(held, dtype=object),
            oof_probs=probs[: len(held)],
            test_ids=np.asarray(corpus.test.ids, dtype=object),
            test_probs=probs[len(held) :],
        )
        store.write(result, {"command": "fold planted", "threads": 1, "rows_per_s": 5})


def _kinds_of_data(competition: Competition, prepared: Prepared) -> dict[str, Kind]:
    profile = competition.profile
    lines = competition.train_path.read_bytes().split(b"\n")
    rows = b"\n".join(lines[:31]) + b"\n"
    path = competition.home / "rows.csv"

    def read_corpus_file(data: bytes) -> None:
        path.write_bytes(data)
        reading = read_rows(path, profile, is_train=True)
        for row in reading.rows:
            for entity in (row.subject, row.object):
                if row.sentence[entity.start : entity.end] != entity.word:
                    raise AssertionError(f"{row.id}: an entity stands elsewhere")
        n_records = sum(1 for line in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if line)
        if not reading.offences and len(reading.rows) != n_records - 1:
            raise AssertionError(f"{n_records - 1} rows, {len(reading.rows)} read")
        if reading.offences:
            raise CorpusError("refused", reading.offences)

    def read_lenient(data: bytes) -> None:
        try:
            read_corpus_file(data)
        except (UnicodeDecodeError, csv.Error):
            return  # the plain reader used to compare cannot read it: ours said what it is

    oof = competition.oof_dir
    tables = {}
    for name in ("folds.csv", "folds.json", "routes/length.csv", "routes/length.json"):
        good = (oof / name).read_bytes()

        def read_table(data: bytes, name: str = name, good: bytes = good) -> None:
            (oof / name).write_bytes(data)
            try:
                if name.startswith("routes"):
                    read_or_make_length_routes(prepared, None, "characters")
                elif name == "folds.csv":
                    read_fold_file(oof / name, prepared.corpus.train.ids)
                else:
                    again = read_prepared(competition)
                    if (again.folds.fold_of != prepared.folds.fold_of).any():
                        raise AssertionError("other folds were read")
            finally:
                (oof / name).write_bytes(good)

        tables[name] = Kind(good, read_table, is_json_lines=name.endswith(".json"))
    return {"train.csv": Kind(rows, read_lenient), **tables}


def _kinds_of_settings(home: Home, folder: Path) -> dict[str, Kind]:
    variant = (
        b'base = "typed-punct"\nwhy = "tried"\nencoder = "scratch"\nseeds = [1, 2]\n'
        b"[train]\nlr = 3e-5\nepochs = 2.0\n[scratch]\nlayers = 2\n"
    )
    sets = b"train.lr=3e-5\nseeds=[1, 2]\nhead=cls\nscratch.layers=2\nmax_tokens=64"

    def read_profile_file(data: bytes) -> None:
        path = folder / "mutant.toml"
        path.write_bytes(data)
        read_profile(path)

    def read_variant_file(data: bytes) -> None:
        path = folder / "variant.toml"
        path.write_bytes(data)
        own_encoder(str(path))
        own_shape(str(path))
        resolve_variant(str(path), encoder="scratch")

    def read_sets(data: bytes) -> None:
        texts = data.decode("utf-8", errors="surrogateescape").split("\n")
        overrides = [parse_override(text) for text in texts]
        resolve_variant("typed-punct", encoder="scratch", overrides=overrides)

    return {
        "profile": Kind(home.profile.read_bytes(), read_profile_file),
        "variant": Kind(variant, read_variant_file),
        "--set": Kind(sets, read_sets),
    }


def _kinds_of_results(prepared: Prepared, store: Store) -> dict[str, Kind]:
    key = ResultKey("planted", 42, 0)
    path, run_path = store.path(key), store.run_path(key)
    good, good_run = path.read_bytes(), run_path.read_bytes()
    whole = store.read(key)
    header = pq.read_metadata(path).metadata[b"predictions"]

    def read_result(data: bytes) -> None:
        path.write_bytes(data)
        try:
            store.read_header(key)
            result = store.read(key)
            if not np.array_equal(result.oof_probs, whole.oof_probs):
                raise AssertionError("other probabilities were read")
        finally:
            path.write_bytes(good)

    def read_header(data: bytes) -> None:
        table = pq.read_table(io.BytesIO(good))
        digest = hashlib.sha256(data).hexdigest().encode()
        with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({b"predictions": data, b"predictions.sha256": digest})
        try:
            for each in store.keys("planted"):
                found = store.read_header(each)
                if found is not None and store.directory not in store.path(found.key).parents:
                    raise AssertionError("a header leads out of the store")
        finally:
            path.write_bytes(good)

    def read_run(data: bytes) -> None:
        run_path.write_bytes(data)
        try:
            store.read_run(key)
        finally:
            run_path.write_bytes(good_run)

    return {
        "result": Kind(good, read_result),
        "header": Kind(header, read_header, is_json_lines=True),
        "run.json": Kind(good_run, read_run, is_json_lines=True),
        "import": _kind_of_import(_write_table(store, prepared), "theirs.csv", prepared),
        "import.npz": _kind_of_import(_write_arrays(store, prepared), "theirs.npz", prepared),
    }


def _kind_of_import(good: bytes, name: str, prepared: Prepared) -> Kind:
    path = prepared.competition.home / name

    def read(data: bytes) -> None:
        path.write_bytes(data)
        reading = read_foreign_rows(ForeignFiles(path), prepared, needs_folds=name.endswith("csv"))
        if reading.offences:
            raise CorpusError("refused", reading.offences)

    return Kind(good, read)


def _write_table(store: Store, prepared: Prepared) -> bytes:
    """Return the planted member's predictions as a table of all folds."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("id", "split", "fold", *prepared.competition.profile.labels))
    for fold in range(prepared.folds.count):
        result = store.read(ResultKey("planted", 42, fold))
        for row_id, probs in zip(result.oof_ids, result.oof_probs.tolist(), strict=True):
            writer.writerow((row_id, "oof", fold, *probs))
        for row_id, probs in zip(result.test_ids, result.test_probs.tolist(), strict=True):
            writer.writerow((row_id, "test", fold, *probs))
    return stream.getvalue().encode()


def _write_arrays(store: Store, prepared: Prepared) -> bytes:
    """Return an archive of the planted member's predictions in file order."""
    n_labels, folds = prepared.competition.profile.n_labels, prepared.folds
    oof = np.zeros((len(prepared.corpus.train), n_labels), dtype=np.float32)
    test = []
    for fold in range(folds.count):
        result = store.read(ResultKey("planted", 42, fold))
        oof[folds.fold_of == fold] = result.oof_probs
        test.append(result.test_probs)
    stream = io.BytesIO()
    np.savez(stream, oof=oof, test=np.stack(test))
    return stream.getvalue()


def _kinds_of_submissions(competition: Competition, folder: Path) -> dict[str, Kind]:
    profile = competition.profile
    ids = [f"test_{place}" for place in range(12)]
    probs = np.random.default_rng(1).dirichlet(np.ones(profile.n_labels), len(ids))
    path = folder / "mutant.csv"
    pred = probs.argmax(axis=1)
    rows = [
        f'{row_id},{profile.labels[label]},"{[round(value, 9) for value in row]}"'
        for row_id, label, row in zip(ids, pred, probs.tolist(), strict=True)
    ]
    submission = ("\n".join(("id,pred_label,probs", *rows)) + "\n").encode()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        report = check_submission(path, competition, ids)
        if report.is_ok:
            _read_as_a_platform(data, ids, profile.labels)
        else:
            report.raise_offences()

    record = json.dumps(
        {
            **{"kind": "blend", "trials": 1, "seed": 0, "objective": "micro-f1", "reweight": None},
            **{"threshold": 0.5, "temperature": 1.0, "csv_sha256": "0" * 64},
            "members": [
                {"name": "a", "parts": ["a"], "weight": 1.0, "recipe": "0" * 64, "seeds": [42]}
            ],
            "fitted": {"blend": {"f1": {"value": 0.5, "low": 0.4, "high": 0.6}}},
            "nested": {"blend": {"f1": {"value": 0.5, "low": 0.4, "high": 0.6}}},
        }
    ).encode()
    record_path = folder / "record.json"

    def read_records(data: bytes) -> None:
        record_path.write_bytes(data)
        n_labels = competition.profile.n_labels
        for read in (
            lambda: read_record(record_path, n_labels),
            lambda: read_rule(record_path, n_labels),
            lambda: read_submission(record_path).list_weights(),
        ):
            try:
                read()
            except ValueError as error:  # what these readers raise; their callers name the file
                if isinstance(error, UnicodeEncodeError):
                    raise
                raise UsageError(str(error)) from None

    time = {"time": "2026-11-22T12:00:00+00:00"}
    lines: tuple[dict[str, object], ...] = (
        {
            **{"kind": "intent", "id": 1, "target": "http", "destination": "https://x.org"},
            **{"name": "blend", "sha256": "30f3", "bytes": 5},
        },
        {"kind": "receipt", "intent": 1, "outcome": "sent", "ref": "1", "message": ""},
        {"kind": "score", "intent": 1, "public": {"micro_f1": 0.7}, "private": None},
    )
    ledger = "".join(json.dumps({**line, **time}) + "\n" for line in lines).encode()
    ledger_path = folder / "ledger.jsonl"

    def read_ledger(data: bytes) -> None:
        ledger_path.write_bytes(data)
        for entry in Ledger(ledger_path).read():
            for side in (entry.public or {}, entry.private or {}):
                if not all(value is None or 0 <= value <= 1 for value in side.values()):
                    raise AssertionError("a score that is none was read")

    return {
        "submission": Kind(submission, check),
        "blend record": Kind(record, read_records, is_json_lines=True),
        "ledger": Kind(ledger, read_ledger, is_json_lines=True),
    }


def _read_as_a_platform(data: bytes, ids: Sequence[str], labels: Sequence[str]) -> None:
    """Read a submission as a script that joins by id would, with the standard library."""
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    if sorted(row["id"] for row in rows) != sorted(ids):
        raise AssertionError("rows were lost")
    for row in rows:
        numbers = ast.literal_eval(row["probs"].strip(" \t\r\n"))
        if row["pred_label"] not in labels or len(numbers) != len(labels):
            raise AssertionError(f"{row['id']} is wrong")
        if not all(0 <= number <= 1 + 1e-6 for number in numbers):
            raise AssertionError(f"{row['id']} holds no probabilities")


def main() -> None:
    """Try mutants of every kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="mutants of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", help="only these; default: all")
    asked = parser.parse_args()
    n_faults = n_tried = 0
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        kinds = build_kinds(Path(folder) / "home")
        for name, kind in kinds.items():
            if asked.kinds and name not in asked.kinds:
                continue
            tally = try_kind(kind, asked.count, random.Random(f"{name} {asked.seed}"))
            told = ", ".join(f"{count} {what}" for what, count in sorted(tally.outcomes.items()))
            print(f"{name}: {told}", flush=True)
            for fault in tally.faults[:3]:
                print(fault, flush=True)
            n_faults, n_tried = n_faults + len(tally.faults), n_tried + asked.count
    print(f"{n_tried} mutants, {n_faults} faults")
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
