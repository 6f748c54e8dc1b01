"""Initialisation of new parameters: the vectors of new tokens, and the mask head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.parts.heads import MaskHead

RESULT_VERSION = 1
VERSION_NAME = "models.fresh"
PADDING_VERSION = 1
PADDING_VERSION_NAME = "models.fresh.padding"
"""Of ``draw_padding``, which only few backbones need."""

MASK_LAYERS = (
    ("head.dense", "head.norm"),  # ModernBERT
    ("lm_head.dense", "lm_head.layer_norm"),  # RoBERTa, XLM-R, CamemBERT
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),  # BERT
    ("generator_predictions.dense", "generator_predictions.LayerNorm"),  # ELECTRA's generator
)
"""The hidden layer of the masked-language head, by kind of encoder."""


def draw_new_tokens(table: Tensor, known: int) -> None:
    """Initialise the vectors of new tokens (rows from ``known`` on) like those of known tokens.

    They are drawn with the mean and standard deviation of the embeddings. transformers gives all of
    them the mean, and with the learning rates of fine-tuning they remain similar for long.
    """
    with torch.no_grad():
        std, mean = torch.std_mean(table[:known], dim=0)
        table[known:] = mean + std * torch.randn(len(table) - known, table.shape[1])


def draw_padding(table: Tensor, ids: Sequence[int]) -> None:
    """Initialise the vectors of new tokens that took rows which no token had, as those added.

    The tables of many backbones are padded to a round number of rows. These are as pretraining left
    them: often zero or all alike, so that the markers of subject and object would be the same.

    Args:
        table: embeddings, changed in place.
        ids: of the new tokens among its padding; those below the first are of known tokens.
    """
    with torch.no_grad():
        std, mean = torch.std_mean(table[: min(ids)], dim=0)
        table[list(ids)] = mean + std * torch.randn(len(ids), table.shape[1])


def init_mask_head(head: MaskHead, masked: nn.Module, absent: list[str]) -> bool:
    """Initialise a mask head from the masked-language head of the checkpoint, if it has one.

    Args:
        head: changed in place.
        masked: the encoder as a masked-language model.
        absent: names of weights missing in the checkpoint.

    Returns:
        Whether the checkpoint has a layer of the same size.
    """
    mix, own_norm, modules = head.mix, head.norm, dict(masked.named_modules())
    assert isinstance(mix, nn.Linear)
    assert isinstance(own_norm, nn.LayerNorm)
    for dense_name, norm_name in MASK_LAYERS:
        dense, norm = modules.get(dense_name), modules.get(norm_name)
        if not isinstance(dense, nn.Linear) or not isinstance(norm, nn.LayerNorm):
            continue
        if dense.weight.shape != mix.weight.shape or f"{dense_name}.weight" in absent:
            continue
        with torch.no_grad():
            for mine, theirs in ((mix, dense), (own_norm, norm)):
                mine.weight.copy_(theirs.weight)
                mine.bias.copy_(torch.zeros_like(mine.bias) if theirs.bias is None else theirs.bias)
        return True
    return False
