"""Inputs and outputs of a job (`JobSpec`, `JobOutcome`), and the files in its checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from competition.arrays import Int64s, Probs
from competition.predictions.store import ResultKey
from competition.profile_language import Language, Relations
from competition.scoring.criteria import Criteria
from models.data.augmentation import Scheme
from models.data.pool import FoldRows
from models.network.encoder_source import EncoderSource
from models.training.checkpoints import read_weight_facts
from models.variant import Variant

STATE_FILE, WEIGHTS_FILE, LOG_FILE = "state.safetensors", "model.safetensors", "job.log"
LEASED = "job"
"""What is leased in the folder of a job while it runs."""
FACTS_FILE = "model.json"  # of a model of n-grams, which is fitted again when needed


@dataclass(frozen=True)
class NetworkSpec:
    """What a network needs besides its rows.

    Attributes:
        source: the resolved encoder.
        new_tokens: tokens that the format adds to the tokenizer.
        tokens: folder of the tokenised rows of each split of the pool; always includes test.
        start: file of trained weights for a warm start, and their fingerprint.
    """

    source: EncoderSource
    new_tokens: tuple[str, ...]
    tokens: Mapping[str, Path]
    start: tuple[Path, str] | None = None


@dataclass(frozen=True)
class JobSpec:
    """Everything one job needs, small enough to send to another process.

    Attributes:
        replaces: fingerprint of the stored result when the job was planned, if there was one.
        bases: by role, the stored variants that this one builds on.
        rows: rows to train on and to predict, as indices into the pool.
        texts: file of each split of the pool, without labels; empty if the job needs no text.
        command: the arguments of ``python run.py`` that requested it; only for provenance.
        track: names of experiment trackers.
        criteria: what held-out rows are scored by.
        has_rare_labels: see ``linear.find_rare_labels``; part of the fingerprint.
        relations: which labels have an inverse, for swapped roles.
        language: in which formats write.
        threads: see ``count_threads``.
        sharers: jobs at a time on its GPU, this one included; set by the engine.
    """

    key: ResultKey
    fingerprint: str
    recipe: str
    replaces: str | None
    bases: Mapping[str, str]
    variant: Variant
    labels: tuple[str, ...]
    negative_ids: tuple[int, ...]
    criteria: Criteria
    has_rare_labels: bool
    entity_types: tuple[str, ...]
    data_hash: str
    folds_hash: str
    routes_hash: str | None
    store_dir: Path
    job_dir: Path
    cache_dir: Path
    rows: FoldRows
    heldout_label_ids: Int64s = field(repr=False)
    texts: Mapping[str, Path]
    network: NetworkSpec | None
    keep_checkpoint: bool
    threads: int
    command: str = ""
    track: tuple[str, ...] = ()
    relations: Relations | None = None
    language: Language | None = None
    sharers: int = 1

    @property
    def scheme(self) -> Scheme:
        """The labels and entity types of the competition."""
        return Scheme(
            self.labels, self.negative_ids, self.entity_types, self.relations, self.language
        )


@dataclass(frozen=True)
class Learned:
    """Output of a learner: probabilities (n, C) and (m, C), and facts for the provenance.

    ``rows_per_s`` is the speed of training, ``predicted_per_s`` that of predicting. ``steps`` is
    None for a learner without any. ``warnings`` and ``notes`` are printed for the user.
    """

    oof_probs: Probs
    test_probs: Probs
    seconds: float
    rows_per_s: float
    predicted_per_s: float
    steps: int | None
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobOutcome:
    """Outcome of a job: whether it finished, its scores, and messages for the user.

    ``scores`` are by the key of each metric, higher being better; None if another process has them.
    ``step`` is the last one of the fit, 0 for a learner without steps.
    """

    key: ResultKey
    finished: bool
    scores: Mapping[str, float] | None = None
    rows_per_s: float | None = None
    seconds: float = 0.0
    step: int = 0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def count_threads(variant: Variant, threads: int) -> int:
    """Return the threads of a job: those of a network, or one for a model of n-grams."""
    return threads if variant.is_network else 1


def describe_model(spec: JobSpec) -> dict[str, Any]:
    """Return what is stored with a model so that it can be loaded again."""
    return {
        "fingerprint": spec.fingerprint,
        "variant": spec.variant.model_dump(mode="json"),
        "bases": dict(spec.bases),
    }


class KeptModel(BaseModel):
    """What is stored with a model (``describe_model``), as far as it is read again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fingerprint: str
    variant: Variant
    bases: dict[str, str] = {}
    new_tokens: tuple[str, ...] = ()
    entity_types: tuple[str, ...] = ()


def read_kept(folder: Path) -> KeptModel | None:
    """Return what is stored with the model in a job's folder; None if it is absent or damaged."""
    path = folder / WEIGHTS_FILE
    try:
        if path.is_file():
            return KeptModel.model_validate(read_weight_facts(path))
        path = folder / FACTS_FILE
        return KeptModel.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValueError:
        return None
