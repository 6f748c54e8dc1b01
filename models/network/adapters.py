"""Low-rank adapters (LoRA): a frozen base, and trained low-rank matrices added to its layers.

Only adapters and head are trained and stored in checkpoints; the base is identified by the hash of
its content.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from competition.errors import EncoderError, VariantError
from models.network.backbone import LAYER
from models.settings import AdaptSettings

RESULT_VERSION = 1
VERSION_NAME = "models.adapters"

EVERY_LAYER = "every linear layer of the backbone's blocks"


def add_adapters(backbone: Any, settings: AdaptSettings) -> None:
    """Freeze a backbone and add adapters to its linear layers, in place.

    Adapters have no effect at first: one of the two low-rank matrices is random (torch's global
    generator), the other is zero. They are float32, also on a 16-bit base.

    Args:
        settings: rank, scale, dropout and which layers; none named: ``EVERY_LAYER``.

    Raises:
        VariantError: a named layer does not exist; names those there are.

    Source: Hu et al. 2021, arXiv 2106.09685 (LoRA), section 4.1; adapters on all linear layers
    after Dettmers et al. 2023, arXiv 2305.14314, section 4.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = _find_linear_layers(backbone)
    known = sorted({name.rpartition(".")[2] for name in layers})
    unknown = [name for name in settings.targets if name not in known]
    if unknown:
        raise VariantError(
            f"adapt.targets: {unknown[0]!r} is not a linear layer of this backbone; choose from "
            f"{', '.join(known)}"
        )
    if not layers:
        raise EncoderError("adapt: this backbone has no linear layers in numbered blocks")
    wanted = set(settings.targets or known)
    backbone.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=[name for name in layers if name.rpartition(".")[2] in wanted],
        ),
        backbone,
    )
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _find_linear_layers(backbone: nn.Module) -> list[str]:
    """Return the names of linear layers inside the blocks of a backbone, including 4-bit ones."""
    return [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and LAYER.search(f".{name}.")
    ]
