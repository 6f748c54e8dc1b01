"""Run one job: fit one fold of a variant with one seed, predict, and store the result.

Runs in a separate process (``models.jobs.engines.worker``). Its input is a ``JobSpec``; it writes
one file to the store and, unless disabled, the trained weights. Held-out labels are used once, for
scoring, after the last prediction.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from competition.predictions.rerun import COMMAND
from competition.predictions.store import Result, Store
from competition.provenance import read_commit
from competition.scoring.decisions import decide
from models.jobs.network_job import learn_network
from models.jobs.ngram_job import learn_ngrams
from models.jobs.spec import STATE_FILE, JobOutcome, JobSpec, Learned
from models.training.control import Watch
from models.training.hardware import describe_machine
from models.variant import LINEAR, MLP, NETWORK, Variant

Learner = Callable[[JobSpec, Watch], Learned | int]
"""Fits and predicts; returns the step instead if it was stopped."""
LEARNERS: dict[str, Learner] = {
    NETWORK: learn_network,
    LINEAR: learn_ngrams,
    MLP: learn_ngrams,
}
COLLAPSE_ADVICE = {
    NETWORK: "try another seed, a lower train.lr or a longer train.warmup_frac",
    LINEAR: "add training rows of the other labels",
    MLP: "try another seed or a lower mlp.lr",
}


def run_job(spec: JobSpec, watch: Watch, learn: Learner | None = None) -> JobOutcome:
    """Fit one fold, predict its held-out rows and the test rows, and store the result.

    Args:
        learn: None for the one of the variant.

    Raises:
        TrainingError, EncoderError: as raised by the modules it calls.
    """
    started = datetime.datetime.now(datetime.UTC)
    learned = (learn or LEARNERS[spec.variant.learner])(spec, watch)
    if isinstance(learned, int):
        return JobOutcome(spec.key, finished=False, step=learned)
    outcome = _score(spec, learned)
    run = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": read_commit(),
        **({COMMAND: spec.command} if spec.command else {}),
        "machine": describe_machine(),
        "threads": spec.threads,
        "seconds": round(learned.seconds, 3),
        "rows_per_s": round(learned.rows_per_s, 2),
        "predicted_per_s": round(learned.predicted_per_s, 2),
        "train_rows": len(spec.rows.train_rows),
        **spec.rows.added,
        **spec.rows.made_of,
        **learned.facts,
        **spec.criteria.show(outcome.scores or {}),
        "warnings": list(outcome.warnings),
    }
    Store(spec.store_dir, spec.labels).write(_build_result(spec, learned), run)
    (spec.job_dir / STATE_FILE).unlink(missing_ok=True)
    return outcome


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
    """Describe a variant for its results; one written by ``tune`` names the folds it used."""
    described = {"name": variant.name, "why": variant.why, **variant.recipe()}
    if variant.tune is None:
        return described
    # without defaults: files of earlier versions have no hash, and must give the same bytes
    return described | {"tune": variant.tune.model_dump(mode="json", exclude_defaults=True)}


def _read_ids(spec: JobSpec, part: str) -> npt.NDArray[np.object_]:
    """Return the ids of a split of the pool, from its tokens or its text."""
    if spec.network is not None:
        stored = np.load(spec.network.tokens[part] / "ids.npy", mmap_mode="r", allow_pickle=False)
        return np.asarray(stored, dtype=object)
    from models.data.pool import read_texts

    return read_texts({part: spec.texts[part]}).ids


def _score(spec: JobSpec, learned: Learned) -> JobOutcome:
    """Score the held-out predictions; the only use of held-out labels."""
    gold = spec.heldout_label_ids
    pred = decide(learned.oof_probs)
    warnings = list(learned.warnings)
    if len(np.unique(pred)) == 1 and len(np.unique(gold)) > 1:
        advice = COLLAPSE_ADVICE[spec.variant.learner]
        warnings.append(
            f"training collapsed: all held-out rows are predicted as {spec.labels[pred[0]]!r}; "
            f"{advice}"
        )
    return JobOutcome(
        key=spec.key,
        finished=True,
        scores=spec.criteria.score(gold, (learned.oof_probs, pred)),
        rows_per_s=learned.rows_per_s,
        seconds=learned.seconds,
        step=learned.steps or 0,
        warnings=tuple(warnings),
        notes=learned.notes,
    )
