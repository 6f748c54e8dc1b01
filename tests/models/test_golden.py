"""Golden results: a change to the predictions of a job must raise a ``RESULT_VERSION``.

Fingerprints hold the rooms' versions, not their code, so a changed result under an old version
would be mixed with what teams have stored. ``golden.json`` keeps the inputs and the probabilities
of small jobs beside the versions they were made with. Refresh it with

    GOLDEN_REFRESH=1 python -m pytest tests/models/test_golden.py

which keeps the old figures, and fails, where they changed and neither a version nor a library did.
Take the entry of a case out of the file first when it is the case itself that you change.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competition.files import dump_json, write_atomically
from competition.folds.kfold import Prepared
from competition.predictions.store import ResultKey, Store
from models.jobs.job import run_job
from models.jobs.plan import plan_jobs
from models.jobs.recipe import rooms_of
from models.jobs.request import FoldRequest
from models.jobs.spec import JobSpec
from models.network import scratch
from models.training.control import Watch
from models.training.hardware import fix_randomness_of_kernels
from models.variant import LINEAR
from tests.models.conftest import TINY_SCRATCH, inputs_of

GOLDEN = Path(__file__).with_name("golden.json")
FIRST_POSITIONS = 7
REFRESH = "GOLDEN_REFRESH"
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scikit-learn")
TOLERANCE = 2e-3
"""Tolerance of probabilities: other processors round differently, with little effect here."""
FOLD = 1
STEADY = (*TINY_SCRATCH, ("scratch.dropout", 0.0), ("train.head_dropout", 0.0), ("train.lr", 5e-3))
"""Without dropout, whose random draws depend on the processor."""
CASES: dict[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    "plain": ("typed-punct", STEADY),
    "linear": ("tfidf-linear", ()),
    "difficulty": ("curriculum-difficulty", STEADY),
    "restricted": ("type-restricted-train", (*STEADY, ("restrict.min_count", 10))),
    "pseudo": (
        "typed-punct",
        (*STEADY, ("pseudo.variant", "teacher"), ("pseudo.most_share", 0.05)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_predictions_change_only_with_a_version(
    name: str, prepared: Prepared, quiet_watch: Watch
) -> None:
    torch.set_num_threads(1)
    fix_randomness_of_kernels()
    if name == "pseudo":
        store_teacher(prepared, quiet_watch)
    spec = plan_case(prepared, *CASES[name], save_as=name)
    run_job(spec, quiet_watch)
    found = describe(spec, Store(spec.store_dir, spec.labels))
    kept = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}
    changed = find_changes(kept[name], found) if name in kept else ["there are no figures yet"]
    if os.environ.get(REFRESH) and (name not in kept or is_explained(kept[name], found)):
        write_atomically(GOLDEN, dump_json({**kept, name: found}))
        return
    assert not changed, explain(name, changed, kept.get(name, {}), found)


def plan_case(
    prepared: Prepared, variant: str, overrides: tuple[tuple[str, Any], ...], save_as: str
) -> JobSpec:
    encoder = "scratch" if overrides else None
    wanted = FoldRequest((variant,), (FOLD,), (), encoder, overrides, save_as)
    return plan_jobs(prepared, wanted, lambda text: None, threads=1).jobs[0]


def store_teacher(prepared: Prepared, watch: Watch) -> None:
    """Store fixed predictions for the test rows, with high confidence for some of them."""
    spec = plan_case(prepared, "tfidf-linear", (), "teacher")
    run_job(spec, watch)
    store = Store(spec.store_dir, spec.labels)
    own = store.read(ResultKey("teacher", 42, FOLD))
    rows = np.arange(len(own.test_ids))
    sure = 0.5 + 0.49 * (rows * 7 % len(rows)) / len(rows)
    probs = np.repeat(((1 - sure) / 3)[:, None], 4, axis=1)
    probs[rows, rows % 4] = sure
    store.write(replace(own, test_probs=probs.astype(np.float32)), {})


def describe(spec: JobSpec, store: Store) -> dict[str, Any]:
    """Return what is compared: the hash of exact inputs, and figures with a tolerance."""
    result = store.read(spec.key)
    digest = hashlib.sha256()
    rows = spec.rows
    arrays: list[Any] = [rows.train_rows, rows.train_label_ids, rows.heldout_rows, rows.test_rows]
    rooms = {room.VERSION_NAME: room.RESULT_VERSION for room in rooms_of(spec.variant)}
    difficulty = np.zeros((0, 1))
    if spec.variant.learner != LINEAR:
        inputs = inputs_of(spec)
        rooms[scratch.VERSION_NAME] = scratch.RESULT_VERSION
        for part in (inputs.pool, inputs.test):
            # the closing markers' columns came after the figures were kept
            first = np.ascontiguousarray(part.positions[:, :FIRST_POSITIONS])
            arrays += [part.tokens, part.offsets, first]
        if inputs.pairs is not None:
            arrays += [inputs.pairs.pool, inputs.pairs.test, inputs.pairs.table]
        if inputs.difficulty is not None:
            difficulty = inputs.difficulty[:, None]
    for array in arrays:
        digest.update(np.ascontiguousarray(array, "<i8").tobytes())
    return {
        "inputs": digest.hexdigest(),
        "difficulty": write_figures(difficulty),
        "oof": write_figures(result.oof_probs),
        "test": write_figures(result.test_probs),
        "versions": dict(sorted(rooms.items())),
        "libraries": {library: version(library) for library in LIBRARIES},
    }


def write_figures(rows: Any) -> list[str]:
    """Format each row of figures as a line of text."""
    return [" ".join(f"{figure:.3f}" for figure in row) for row in rows.tolist()]


def find_changes(kept: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Describe what changed in a job, apart from library versions."""
    changes = [key for key in ("inputs", "versions") if kept[key] != found[key]]
    for key in ("difficulty", "oof", "test"):
        then, now = (np.array([row.split() for row in part[key]], float) for part in (kept, found))
        if then.shape != now.shape:
            changes.append(f"{key}: {len(now)} rows, were {len(then)}")
        elif now.size and np.abs(now - then).max() > TOLERANCE:
            changes.append(f"{key}: off by up to {np.abs(now - then).max():.4f}")
    return changes


def is_explained(kept: dict[str, Any], found: dict[str, Any]) -> bool:
    """Return whether different figures are expected, with another version or library."""
    return any(kept[key] != found[key] for key in ("versions", "libraries"))


def explain(name: str, changed: list[str], kept: dict[str, Any], found: dict[str, Any]) -> str:
    rooms = ", ".join(f"{room} {number}" for room, number in found["versions"].items())
    then = kept.get("libraries", {})
    now = found["libraries"]
    newer = [f"{each} {now[each]}, was {then[each]}" for each in then if then[each] != now[each]]
    return (
        f"the job {name!r} no longer answers what it did ({'; '.join(changed)}). If the edit is "
        "meant to change results, raise RESULT_VERSION in the room that you edited, so that stored "
        f"results are not mixed with new ones (this job's rooms: {rooms}), and then refresh the "
        f"figures: {REFRESH}=1 python -m pytest tests/models/{Path(__file__).name}. If it "
        f"is not, undo it. Libraries since then: {'; '.join(newer) or 'the same'}"
    )
