"""A trained network on disk, with everything that predicting rows needs.

``predict`` builds it from a finished job, ``offline`` from the folder that ``bundle`` wrote.
Legend: R rows, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from competition.arrays import Probs
from competition.data.row_forms import ROLES
from competition.data.rows import Rows
from competition.profile_language import Language
from models.data.batches import tokenize_rows
from models.network.backbone import relax_attention
from models.network.encoder_source import EncoderSource
from models.network.network import build_model
from models.network.tokenizer import load_tokenizer
from models.parts.formats import choose_format
from models.parts.restriction import Table, number_pairs
from models.training.checkpoints import read_weights
from models.training.hardware import (
    build_accelerator,
    choose_precision,
    fix_randomness_of_kernels,
)
from models.training.predictor import Predictor
from models.variant import Variant


@dataclass(frozen=True)
class SavedNetwork:
    """A trained network.

    Attributes:
        weights: file of its final weights.
        source: its encoder; weights are needed there only for those that were not trained.
        new_tokens: tokens that the format adds to the tokenizer.
        entity_types: of the competition, as at training.
        language: in which formats write.
    """

    variant: Variant
    weights: Path
    source: EncoderSource
    new_tokens: tuple[str, ...]
    labels: tuple[str, ...]
    entity_types: tuple[str, ...]
    language: Language | None


def predict_saved(network: SavedNetwork, rows: Rows, threads: int) -> Probs:
    """Predict rows with a trained network.

    Args:
        threads: as in training, for identical bytes on the same CPU.

    Returns:
        (R, C) float32 probabilities; rows sum to 1.

    Raises:
        TrainingError, EncoderError: the weights or the tokenizer are damaged.
    """
    variant = network.variant
    torch.set_num_threads(threads)
    fix_randomness_of_kernels()
    # a model trained in fp16 on a GPU can predict on a CPU
    precision = choose_precision(variant.run.precision, is_firm=False)
    accelerator = build_accelerator(precision)
    device_type = accelerator.device.type
    tokenizer = load_tokenizer(network.source, network.new_tokens)
    model = build_model(
        relax_attention(variant, network.source, device_type=device_type, precision=precision),
        network.source,
        labels=len(network.labels),
        vocabulary=len(tokenizer),
        device_type=device_type,
        precision=precision,
    )
    facts = read_weights(network.weights, model)
    model.to(accelerator.device)
    tokens = tokenize_rows(
        rows,
        choose_format(variant.format, network.language),
        tokenizer,
        variant.max_tokens,
        formatting=variant.formatting,
    )
    allowed = None
    if facts.get("allowed") is not None:
        allowed = _list_allowed(np.asarray(facts["allowed"], bool), rows, network.entity_types)
    predictor = Predictor(model, accelerator, tokenizer.pad_token_id, variant.run.micro_tokens)
    return predictor.predict(tokens, np.arange(len(rows)), allowed)


def _list_allowed(table: Table, rows: Rows, entity_types: Sequence[str]) -> Table:
    """Return the labels allowed for each row, (R, C); all for types that came after training."""
    allowed = np.ones((len(rows), table.shape[1]), bool)
    subject, obj = (np.isin(rows.text(f"{role}_type"), entity_types) for role in ROLES)
    known = np.flatnonzero(subject & obj)
    allowed[known] = table[number_pairs(rows.take(known), entity_types)]
    return allowed
