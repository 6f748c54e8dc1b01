"""One job: fit a fold of a variant with a seed, predict, and leave one result.

Runs in a process of its own (``models.workers``); what it is told is a ``JobSpec``, what it leaves
is one file of the store and, if wanted, the trained weights. Held-out labels are looked at once,
for the scores, after the last prediction. A learner, network or linear,
does the fitting.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.metrics import auprc, decide, micro_f1
from competition.predictions import Result, ResultKey, Store
from competition.provenance import read_commit
from models.hardware import describe_machine
from models.pool import FoldRows
from models.sources import EncoderSource
from models.states import read_weight_facts
from models.variant import LINEAR, NETWORK, Variant
from models.watch import Watch

Ints = npt.NDArray[np.int64]
Probs = npt.NDArray[np.float32]

STATE_FILE, WEIGHTS_FILE, LOG_FILE = "state.safetensors", "model.safetensors", "job.log"
FACTS_FILE = "model.json"  # of a model that is fitted again when it is needed


@dataclass(frozen=True)
class NetworkSpec:
    """What a network needs beside its rows.

    Attributes:
        source: the settled encoder.
        new_tokens: what its format registers in the tokenizer.
        tokens: folders of the pool's tokenised parts, in the order of their places; always test's.
        start: trained weights to begin with, and the fingerprint that they must carry.
    """

    source: EncoderSource
    new_tokens: tuple[str, ...]
    tokens: Mapping[str, Path]
    start: tuple[Path, str] | None = None


@dataclass(frozen=True)
class JobSpec:
    """Everything one job needs, small enough to be sent to another process.

    Attributes:
        replaces: fingerprint of the result that stood there when the job was planned.
        bases: by role, the variants in the store that it builds on.
        rows: what is trained on and answered for, as places in the variant's pool.
        texts: files of the pool's parts without labels; none where a job needs no text.
    """

    key: ResultKey
    fingerprint: str
    recipe: str
    replaces: str | None
    bases: Mapping[str, str]
    variant: Variant
    labels: tuple[str, ...]
    negative_id: int | None
    entity_types: tuple[str, ...]
    data_hash: str
    folds_hash: str
    routes_hash: str | None
    store_dir: Path
    job_dir: Path
    cache_dir: Path
    rows: FoldRows
    heldout_label_ids: Ints = field(repr=False)
    texts: Mapping[str, Path]
    network: NetworkSpec | None
    keep_checkpoint: bool
    threads: int


@dataclass(frozen=True)
class Learned:
    """What a learner gives back: probabilities (n, C) and (m, C), facts for the provenance.

    ``warnings`` are what a person must hear.
    """

    oof_probs: Probs
    test_probs: Probs
    seconds: float
    rows_per_s: float
    steps: int
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobOutcome:
    """What a job answers: whether it finished, its scores, and what a person must hear."""

    key: ResultKey
    finished: bool
    micro_f1: float | None = None
    auprc: float | None = None
    rows_per_s: float | None = None
    seconds: float = 0.0
    step: int = 0
    warnings: tuple[str, ...] = ()


Learner = Callable[[JobSpec, Watch], Learned | int]
"""Fits and predicts; gives the step back at which it was stopped."""


def run_job(spec: JobSpec, watch: Watch) -> JobOutcome:
    """Fit one fold, predict its held-out and the test rows, and leave the result.

    Raises:
        TrainingError, EncoderError: as the rooms below say.
    """
    from models.linear_job import learn_linear
    from models.network_job import learn_network

    learners: dict[str, Learner] = {NETWORK: learn_network, LINEAR: learn_linear}
    started = datetime.datetime.now(datetime.UTC)
    learned = learners[spec.variant.learner](spec, watch)
    if isinstance(learned, int):
        return JobOutcome(spec.key, finished=False, step=learned)
    outcome = _score(spec, learned)
    run = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": read_commit(),
        "machine": describe_machine(),
        "threads": spec.threads,
        "seconds": round(learned.seconds, 3),
        "rows_per_s": round(learned.rows_per_s, 2),
        "train_rows": len(spec.rows.train_rows),
        **spec.rows.added,
        **learned.facts,
        "micro_f1": outcome.micro_f1,
        "auprc": outcome.auprc,
        "warnings": list(outcome.warnings),
    }
    Store(spec.store_dir, spec.labels).write(_build_result(spec, learned), run)
    (spec.job_dir / STATE_FILE).unlink(missing_ok=True)
    return outcome


def describe_model(spec: JobSpec) -> dict[str, Any]:
    """Return what is kept beside a model, so that it can be built and asked again."""
    return {
        "fingerprint": spec.fingerprint,
        "variant": spec.variant.model_dump(mode="json"),
        "bases": dict(spec.bases),
    }


def read_kept(folder: Path) -> dict[str, Any] | None:
    """Return what a job's folder says about the model that it keeps; None if it keeps none."""
    if (folder / WEIGHTS_FILE).is_file():
        return read_weight_facts(folder / WEIGHTS_FILE)
    path = folder / FACTS_FILE
    if not path.is_file():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _build_result(spec: JobSpec, learned: Learned) -> Result:
    ids = {part: _read_ids(spec, part) for part in ("train", "test")}
    return Result(
        key=spec.key,
        fingerprint=spec.fingerprint,
        recipe=spec.recipe,
        variant=_describe(spec.variant),
        labels=spec.labels,
        data_hash=spec.data_hash,
        folds_hash=spec.folds_hash,
        route=spec.variant.route,
        routes_hash=spec.routes_hash,
        oof_ids=ids["train"][spec.rows.heldout_rows],
        oof_probs=learned.oof_probs,
        test_ids=ids["test"][spec.rows.test_rows],
        test_probs=learned.test_probs,
    )


def _describe(variant: Variant) -> dict[str, Any]:
    """Write down a variant for its results; one that ``tune`` wrote says on which folds."""
    told = {"name": variant.name, "why": variant.why, **variant.recipe()}
    return told if variant.tune is None else told | {"tune": variant.tune.model_dump(mode="json")}


def _read_ids(spec: JobSpec, part: str) -> npt.NDArray[np.object_]:
    """Return the ids of a part of the pool, from whichever of its files the job has."""
    if spec.network is not None:
        stored = np.load(spec.network.tokens[part] / "ids.npy", mmap_mode="r", allow_pickle=False)
        return np.asarray(stored, dtype=object)
    from models.pool import read_texts

    return read_texts({part: spec.texts[part]}).ids


def _score(spec: JobSpec, learned: Learned) -> JobOutcome:
    """Look at the held-out labels, for the scores and nothing else."""
    gold = spec.heldout_label_ids
    pred = decide(learned.oof_probs, spec.negative_id, None)
    warnings = list(learned.warnings)
    if len(np.unique(pred)) == 1 and len(np.unique(gold)) > 1:
        warnings.append(
            f"collapsed: every held-out row is predicted {spec.labels[pred[0]]!r}; "
            "try another seed, a lower train.lr or a longer train.warmup_frac"
        )
    return JobOutcome(
        key=spec.key,
        finished=True,
        micro_f1=micro_f1(gold, pred, spec.negative_id),
        auprc=auprc(gold, learned.oof_probs),
        rows_per_s=learned.rows_per_s,
        seconds=learned.seconds,
        step=learned.steps,
        warnings=tuple(warnings),
    )
