"""What one job is told and what it answers, and what it leaves in its folder.

Before the rooms that do a job (``models.jobs.job``, ``network_job``, ``linear_job``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from competition.arrays import Int64s, Probs
from competition.predictions.members import ResultKey
from competition.profile_language import Language, Relations
from models.data.augmentation import Scheme
from models.data.pool import FoldRows
from models.network.encoder_source import EncoderSource
from models.training.checkpoints import read_weight_facts
from models.variant import Variant

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
        command: the words after ``python run.py`` that asked for it; provenance, without effect.
        relations: which labels hold once subject and object are exchanged.
        language: in which formats write.
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
    heldout_label_ids: Int64s = field(repr=False)
    texts: Mapping[str, Path]
    network: NetworkSpec | None
    keep_checkpoint: bool
    threads: int
    command: str = ""
    relations: Relations | None = None
    language: Language | None = None

    @property
    def scheme(self) -> Scheme:
        """Return what the label ids stand for."""
        return Scheme(
            self.labels, self.negative_id, self.entity_types, self.relations, self.language
        )


@dataclass(frozen=True)
class Learned:
    """What a learner gives back: probabilities (n, C) and (m, C), facts for the provenance.

    ``warnings`` are what a person must hear, ``notes`` what tells them about the model.
    """

    oof_probs: Probs
    test_probs: Probs
    seconds: float
    rows_per_s: float
    steps: int
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    notes: tuple[str, ...] = ()


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
