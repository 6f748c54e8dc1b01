"""Run a job of the MLP: read its texts, fit, predict.

Called by ``models.jobs.job`` in a separate process, like ``network_job``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from competition.files import dump_json, write_atomically
from models.data.pool import read_texts
from models.jobs.spec import FACTS_FILE, JobSpec, Learned, describe_model
from models.training.control import Watch
from models.training.mlp import MlpModel, MlpTask, fit_mlp


def learn_mlp(spec: JobSpec, watch: Watch) -> Learned | int:
    """Fit the MLP on the training rows of a fold, and predict.

    Returns:
        The predictions, or 0 if it was stopped: a fit takes a minute, and begins again.
    """
    started = time.monotonic()
    rows = spec.rows
    held, test = read_texts(spec.texts, rows.heldout_rows), read_texts({"test": spec.texts["test"]})
    model = _fit(spec, watch.should_stop, watch.log)
    if model is None:
        return 0
    oof_probs, test_probs = model.predict(held), model.predict(test.take(rows.test_rows))
    if spec.keep_checkpoint:
        write_atomically(spec.job_dir / FACTS_FILE, dump_json(describe_model(spec)))
    seconds = time.monotonic() - started
    rate = len(rows.train_rows) * spec.variant.mlp.epochs / seconds
    return Learned(oof_probs, test_probs, seconds, rate, steps=1, facts={})


def refit_mlp(spec: JobSpec, say: Callable[[str], None] | None = None) -> MlpModel:
    """Fit the model of a job. It is deterministic, so it is fitted again rather than stored."""
    model = _fit(spec, lambda: False, say)
    assert model is not None
    return model


def _fit(
    spec: JobSpec, should_stop: Callable[[], bool], say: Callable[[str], None] | None
) -> MlpModel | None:
    rows, variant = spec.rows, spec.variant
    task = MlpTask(
        variant.mlp,
        len(spec.labels),
        spec.key.seed,
        soft_labels=rows.soft_labels,
        soft_weight=variant.distil.weight if variant.distil is not None else 1.0,
        should_stop=should_stop,
    )
    return fit_mlp(read_texts(spec.texts, rows.train_rows), rows.train_label_ids, task, say)
