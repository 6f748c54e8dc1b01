"""The learner of the linear model: read a job's texts, fit, predict.

Called by ``models.job`` in the job's own process, beside ``network_job``.
"""

from __future__ import annotations

import time

from competition.files import dump_json, write_atomically
from models.job import FACTS_FILE, JobSpec, Learned
from models.linear import LinearTask, fit_and_predict_linear
from models.pool import read_texts
from models.watch import Watch


def learn_linear(spec: JobSpec, watch: Watch) -> Learned | int:
    """Fit the linear model on a fold's training rows and predict.

    Returns:
        What was learned, or 0 if it was asked to stop before it began: a fit takes seconds.
    """
    if watch.should_stop():
        return 0
    started = time.monotonic()
    rows = spec.rows
    held, test = read_texts(spec.texts, rows.heldout_rows), read_texts({"test": spec.texts["test"]})
    oof_probs, test_probs = fit_and_predict_linear(
        read_texts(spec.texts, rows.train_rows),
        rows.train_label_ids,
        [held, test.take(rows.test_rows)],
        linear_task(spec),
        watch.log,
    )
    if spec.keep_checkpoint:
        kept = {"fingerprint": spec.fingerprint, "variant": spec.variant.model_dump(mode="json")}
        write_atomically(spec.job_dir / FACTS_FILE, dump_json(kept))
    seconds = time.monotonic() - started
    rate = len(rows.train_rows) / seconds
    return Learned(oof_probs, test_probs, seconds, rate, steps=1, facts={})


def linear_task(spec: JobSpec) -> LinearTask:
    """Return what a job's linear model is fitted for."""
    groups = spec.rows.train_groups
    return LinearTask(spec.variant.linear, len(spec.labels), spec.key.seed, groups)
