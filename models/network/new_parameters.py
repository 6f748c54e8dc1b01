"""How parts begin that an encoder's checkpoint does not bring, or brings for another purpose.

Beside ``models.network.network``, which builds the network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.parts.heads import MaskHead

RESULT_VERSION = 1
VERSION_NAME = "models.fresh"

MASK_LAYERS = (
    ("head.dense", "head.norm"),  # ModernBERT
    ("lm_head.dense", "lm_head.layer_norm"),  # RoBERTa, XLM-R, CamemBERT
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),  # BERT
    ("generator_predictions.dense", "generator_predictions.LayerNorm"),  # ELECTRA's generator
)
"""The layer between a masked token's state and the vocabulary, by kind of encoder."""


def draw_new_tokens(table: Tensor, known: int) -> None:
    """Draw the vectors of a format's new tokens, the rows from ``known`` on, as words are spread.

    The library's own way gives all of them the mean of the table, and at the rates of fine-tuning
    they take long to part.
    """
    with torch.no_grad():
        std, mean = torch.std_mean(table[:known], dim=0)
        table[known:] = mean + std * torch.randn(len(table) - known, table.shape[1])


def take_mask_layer(head: MaskHead, masked: nn.Module, absent: list[str]) -> bool:
    """Let a mask head begin with the layer that guessed words, if the checkpoint had one.

    Args:
        head: changed in place.
        masked: the encoder as a masked-language model.
        absent: names of weights that the checkpoint did not have.

    Returns:
        Whether there was one of the head's size.
    """
    modules = dict(masked.named_modules())
    for dense_name, norm_name in MASK_LAYERS:
        dense, norm = modules.get(dense_name), modules.get(norm_name)
        if not isinstance(dense, nn.Linear) or not isinstance(norm, nn.LayerNorm):
            continue
        if dense.weight.shape != head.mix.weight.shape or f"{dense_name}.weight" in absent:
            continue
        with torch.no_grad():
            for mine, theirs in ((head.mix, dense), (head.norm, norm)):
                mine.weight.copy_(theirs.weight)
                mine.bias.copy_(torch.zeros_like(mine.bias) if theirs.bias is None else theirs.bias)
        return True
    return False
