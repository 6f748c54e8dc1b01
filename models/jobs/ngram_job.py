"""Run a job of a model of n-grams, linear or MLP: read its texts, fit, predict.

Called by ``models.jobs.job`` in a separate process, like ``network_job``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from competition.files import dump_json, write_atomically
from models.data.pool import read_texts
from models.jobs.spec import FACTS_FILE, JobSpec, Learned, describe_model
from models.training.control import Progress, Watch
from models.training.linear import LinearModel, LinearTask, fit_linear
from models.training.mlp import MlpModel, MlpTask, fit_mlp
from models.variant import LINEAR, MLP

NgramModel = LinearModel | MlpModel

UNCALIBRATED = (
    "not calibrated: there are too few groups of training rows, or too few labels in all of them; "
    "probabilities are unreliable, which may lower the scores that read them and the blend's"
)


def learn_ngrams(spec: JobSpec, watch: Watch) -> Learned | int:
    """Fit the model on the training rows of a fold, and predict.

    Returns:
        The predictions, or 0 if it was stopped: a fit takes about a minute for 26,000 rows, and
        begins again.
    """
    if watch.should_stop():
        return 0
    started = time.monotonic()
    rows = spec.rows
    held, test = read_texts(spec.texts, rows.heldout_rows), read_texts({"test": spec.texts["test"]})
    steps = None

    def report(progress: Progress) -> None:
        nonlocal steps
        steps = progress.step
        watch.report(progress)

    model = FITS[spec.variant.learner](spec, replace(watch, report=report))
    if model is None:
        return 0
    fitted = time.monotonic()
    oof_probs, test_probs = model.predict(held), model.predict(test.take(rows.test_rows))
    predicted_per_s = (len(oof_probs) + len(test_probs)) / (time.monotonic() - fitted)
    if spec.keep_checkpoint:
        write_atomically(spec.job_dir / FACTS_FILE, dump_json(describe_model(spec)))
    seconds = fitted - started
    epochs = spec.variant.mlp.epochs if spec.variant.learner == MLP else 1
    rate = len(rows.train_rows) * epochs / seconds
    learned = Learned(oof_probs, test_probs, seconds, rate, predicted_per_s, steps, facts={})
    if isinstance(model, LinearModel):
        warnings = () if model.is_calibrated else (UNCALIBRATED,)
        return replace(learned, facts={"calibrated": model.is_calibrated}, warnings=warnings)
    return learned


def refit(spec: JobSpec) -> NgramModel:
    """Fit the model of a job. It is deterministic, so it is fitted again rather than stored."""
    watch = Watch(report=lambda _: None, should_stop=lambda: False, log=lambda _: None)
    model = FITS[spec.variant.learner](spec, watch)
    assert model is not None
    return model


def _fit_linear(spec: JobSpec, watch: Watch) -> LinearModel:
    rows = spec.rows
    task = LinearTask(
        spec.variant.linear,
        len(spec.labels),
        spec.key.seed,
        rows.train_groups,
        has_rare_labels=spec.has_rare_labels,
    )
    train = read_texts(spec.texts, rows.train_rows)
    return fit_linear(train, rows.train_label_ids, task, watch.log)


def _fit_mlp(spec: JobSpec, watch: Watch) -> MlpModel | None:
    rows, variant = spec.rows, spec.variant
    task = MlpTask(
        variant.mlp,
        len(spec.labels),
        spec.key.seed,
        soft_labels=rows.soft_labels,
        soft_weight=variant.distil.weight if variant.distil is not None else 1.0,
        report=watch.report,
        should_stop=watch.should_stop,
    )
    return fit_mlp(read_texts(spec.texts, rows.train_rows), rows.train_label_ids, task, watch.log)


FITS: dict[str, Callable[[JobSpec, Watch], NgramModel | None]] = {
    LINEAR: _fit_linear,
    MLP: _fit_mlp,
}
"""Fit a model, or return None if it was stopped."""
