"""Predict a hidden test file from a bundle: no network, no training rows, no store.

``bundle`` writes the folder; its notebook calls ``predict_bundle``. Models are loaded one at a
time, fold by fold, so that a time limit leaves out whole folds.
Legend: R new rows, K folds, C labels, M members.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from competition.arrays import Probs, Say
from competition.blend.fit import Blend, apply_blend
from competition.data.corpus import read_rows
from competition.data.rows import Rows
from competition.errors import CorpusError, UsageError
from competition.files import first_problem, sha256_of
from competition.folds.length_routes import route_lengths
from competition.predictions.log_mean import average_in_log_space
from competition.predictions.members import Member
from competition.profile import Profile
from competition.progress import format_seconds
from competition.submission.record import BlendRecord
from competition.submission.write import write_answers
from models.data.route import count_tokens
from models.jobs.saved import SavedNetwork, predict_saved
from models.jobs.spec import WEIGHTS_FILE, read_kept
from models.network.encoder_source import EncoderSource
from models.network.tokenizer import load_tokenizer
from models.training.hardware import threads_per_job
from models.training.linear_file import read_linear
from models.training.mlp_file import read_mlp

MANIFEST, LINEAR_FILE, MLP_FILE = "bundle.json", "linear.safetensors", "mlp.safetensors"
SPARE = 1.2  # a fold may take longer than the slowest before it by this factor


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


STEP = r"[A-Za-z0-9._@+=-]*[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*"  # not of dots alone
InBundle = Annotated[str, Field(pattern=rf"^{STEP}(/{STEP})*$")]


class BundledJob(_Part):
    """One trained model; ``folder`` and ``encoder`` are relative to the bundle."""

    part: str
    route: str | None
    fold: Annotated[int, Field(ge=0)]
    seed: int
    folder: InBundle
    encoder: InBundle | None
    encoder_has_weights: bool
    threads: Annotated[int, Field(ge=1)] | None


class BundledRoutes(_Part):
    """Longest short and medium row, in tokens of the tokenizer in ``encoder``."""

    borders: tuple[int, int]
    encoder: InBundle
    new_tokens: tuple[str, ...]


class Bundle(_Part):
    """The content of ``bundle.json``.

    Attributes:
        name: of the blend.
        blend: its record; the CSV's hash is that of the blend's own submission.
        jobs: by member, in the order of the record's members with a weight.
        test_sha256: of the test file that the blend's own submission answers.
    """

    kind: Literal["bundle"] = "bundle"
    version: Literal[1] = 1
    name: str
    profile: Profile
    blend: BlendRecord
    folds: Annotated[int, Field(ge=1, le=1000)]
    jobs: Mapping[str, tuple[BundledJob, ...]]
    routes: BundledRoutes | None
    test_sha256: str

    @model_validator(mode="after")
    def _is_whole(self) -> Bundle:
        self.blend.check_factors(self.profile.n_labels)
        used = {each.name for each in self.blend.members if each.weight > 0}
        if used != set(self.jobs):
            raise ValueError("its models are not those of the blend's members")
        for name, jobs in self.jobs.items():
            for part in {job.part for job in jobs}:
                if {job.fold for job in jobs if job.part == part} != set(range(self.folds)):
                    raise ValueError(f"models of {name} are missing")
        if self.routes is None and any(job.route for jobs in self.jobs.values() for job in jobs):
            raise ValueError("it has specialists, and not by which lengths rows go to them")
        return self


def read_bundle(folder: Path) -> Bundle:
    """Read what a bundle holds.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        return Bundle.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no {MANIFEST}; is this the bundle's folder?") from None
    except ValueError as error:
        raise UsageError(f"{path} is damaged ({first_problem(error)}); copy it again") from None


def predict_bundle(
    folder: Path,
    file: Path,
    out: Path,
    *,
    limit_s: float | None = None,
    threads: int | None = None,
    say: Say = print,
) -> None:
    """Predict the rows of a file and write them like a submission.

    Args:
        folder: the bundle.
        file: with the columns of the competition's test file.
        out: the CSV to write.
        limit_s: seconds from now; folds that would end later are left out, but never the first.
        threads: of each model; None: as in training.
        say: called with progress messages.

    Raises:
        CorpusError: rows of the file are invalid.
        UsageError: the bundle or the file is not there.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    bundle = read_bundle(folder)
    if not file.is_file():
        raise UsageError(f"{file} does not exist; name a file with the columns of the test file")
    reading = read_rows(file, bundle.profile, is_train=False)
    if reading.offences:
        raise CorpusError(f"{file}: rows cannot be predicted", reading.offences)
    rows = reading.rows
    say(f"{bundle.name}: {len(rows):,} rows, {bundle.folds} folds of {', '.join(bundle.jobs)}")
    predicted = _predict_folds(_Reader(folder, bundle, threads, say), rows, deadline)
    members = [
        Member(name, _nothing(bundle), test, (), None, "", covers_all=True, why="")
        for name, test in predicted.items()
    ]
    record = bundle.blend
    used = [each for each in record.members if each.weight > 0]
    blend = Blend(
        tuple(each.name for each in used),
        tuple(each.weight for each in used),
        record.rule,
        bundle.profile.negative_ids,
        record.temperature,
    )
    probs, pred = apply_blend(blend, members)
    write_answers(out, bundle.profile, rows.ids.tolist(), probs, pred)
    say(f"written: {out}, {len(rows):,} rows")
    if sha256_of(file) == bundle.test_sha256:
        is_same = hashlib.sha256(out.read_bytes()).hexdigest() == record.csv_sha256
        say(
            f"this is the test file of {bundle.name}: the answers are its own, byte for byte"
            if is_same
            else f"this is the test file of {bundle.name}: the answers differ from its own, in the"
            " last digits if only the hardware or the libraries do, or as folds were left out"
        )


def _nothing(bundle: Bundle) -> Probs:
    return np.empty((0, bundle.profile.n_labels), np.float32)


@dataclass(frozen=True)
class _Reader:
    """Predicts with the models of a bundle."""

    folder: Path
    bundle: Bundle
    threads: int | None
    say: Say

    def predict(self, job: BundledJob, rows: Rows) -> Probs:
        """Predict rows (R) with one model: (R, C)."""
        began = time.monotonic()
        path = self.folder / job.folder
        if job.encoder is None:
            is_mlp = (path / MLP_FILE).is_file()
            model = read_mlp(path / MLP_FILE) if is_mlp else read_linear(path / LINEAR_FILE)
            probs = model.predict(rows)
        else:
            threads = self.threads or job.threads or threads_per_job(None, 1)
            probs = predict_saved(self._open(job, path / WEIGHTS_FILE), rows, threads)
        took = format_seconds(time.monotonic() - began)
        self.say(f"fold {job.fold}: {job.part} seed {job.seed}: {len(rows):,} rows, {took}")
        return probs

    def _open(self, job: BundledJob, weights: Path) -> SavedNetwork:
        kept = read_kept(weights.parent)
        if kept is None or not weights.is_file():
            raise UsageError(f"{weights} is missing or damaged; copy it again")
        assert job.encoder is not None
        profile = self.bundle.profile
        return SavedNetwork(
            variant=kept.variant,
            weights=weights,
            source=self._find_encoder(job.encoder, has_weights=job.encoder_has_weights),
            new_tokens=kept.new_tokens,
            labels=profile.labels,
            entity_types=kept.entity_types or tuple(profile.entity_types),
            language=profile.language,
        )

    def _find_encoder(self, name: str, *, has_weights: bool) -> EncoderSource:
        return EncoderSource(name, self.folder / name, name, has_weights)

    def find_routes(self, rows: Rows) -> npt.NDArray[np.object_] | None:
        """Return the route of each row, (R,); None where there are no specialists."""
        routes = self.bundle.routes
        if routes is None:
            return None
        source = self._find_encoder(routes.encoder, has_weights=False)
        tokenizer = load_tokenizer(source, routes.new_tokens)
        return route_lengths(count_tokens(rows, tokenizer), routes.borders)


def _predict_folds(reader: _Reader, rows: Rows, deadline: float | None) -> dict[str, Probs]:
    """Predict with every member, fold by fold, until the time limit.

    Returns:
        By member, (k, R, C) of the first k of K folds.
    """
    bundle, slowest = reader.bundle, 0.0
    shape = (len(rows), bundle.profile.n_labels)
    found: dict[str, list[Probs]] = {name: [] for name in bundle.jobs}
    route_of = reader.find_routes(rows)
    for fold in range(bundle.folds):
        began = time.monotonic()
        if deadline is not None and fold and began + SPARE * slowest > deadline:
            reader.say(
                f"warning: no time for folds {fold} to {bundle.folds - 1}; the answers are those"
                f" of the first {fold}"
            )
            break
        for name, jobs in bundle.jobs.items():
            test = np.full(shape, np.nan, np.float32)
            for route, seeds in _gather(jobs, fold):
                chosen = np.ones(len(rows), bool)
                if route is not None:
                    chosen = np.asarray(route_of == route.partition(":")[2])
                if chosen.any():
                    some = rows.take(np.flatnonzero(chosen))
                    test[chosen] = average_in_log_space([reader.predict(j, some) for j in seeds])
            found[name].append(test)
        slowest = max(slowest, time.monotonic() - began)
    return {name: np.stack(tests) for name, tests in found.items()}


def _gather(
    jobs: tuple[BundledJob, ...], fold: int
) -> Iterator[tuple[str | None, list[BundledJob]]]:
    """Yield the models of a fold by part: its route, and one model for each seed."""
    parts = dict.fromkeys(job.part for job in jobs)
    for part in parts:
        seeds = [job for job in jobs if job.part == part and job.fold == fold]
        yield seeds[0].route, seeds
