"""Run a job of the linear model: read its texts, fit, predict.

Called by ``models.jobs.job`` in a separate process, like ``network_job``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from competition.files import dump_json, write_atomically
from models.data.pool import read_texts
from models.jobs.spec import FACTS_FILE, JobSpec, Learned, describe_model
from models.training.control import Watch
from models.training.linear import LinearModel, LinearTask, fit_linear

UNCALIBRATED = (
    "not calibrated: there are too few groups of training rows, or too few labels in all of them; "
    "probabilities are unreliable, which may lower the scores that read them and the blend's"
)


def learn_linear(spec: JobSpec, watch: Watch) -> Learned | int:
    """Fit the linear model on the training rows of a fold, and predict.

    Returns:
        The predictions, or 0 if it was stopped before it began (a fit takes seconds).
    """
    if watch.should_stop():
        return 0
    started = time.monotonic()
    rows = spec.rows
    held, test = read_texts(spec.texts, rows.heldout_rows), read_texts({"test": spec.texts["test"]})
    model = refit_linear(spec, watch.log)
    oof_probs, test_probs = model.predict(held), model.predict(test.take(rows.test_rows))
    if spec.keep_checkpoint:
        kept = describe_model(spec)
        write_atomically(spec.job_dir / FACTS_FILE, dump_json(kept))
    seconds = time.monotonic() - started
    rate = len(rows.train_rows) / seconds
    warnings = () if model.is_calibrated else (UNCALIBRATED,)
    facts = {"calibrated": model.is_calibrated}
    return Learned(oof_probs, test_probs, seconds, rate, steps=1, facts=facts, warnings=warnings)


def refit_linear(spec: JobSpec, say: Callable[[str], None] | None = None) -> LinearModel:
    """Fit the model of a job. It is deterministic, so it is fitted again rather than stored."""
    rows = spec.rows
    task = LinearTask(
        spec.variant.linear,
        len(spec.labels),
        spec.key.seed,
        rows.train_groups,
        has_rare_labels=spec.has_rare_labels,
    )
    return fit_linear(read_texts(spec.texts, rows.train_rows), rows.train_label_ids, task, say)
