"""Check which variants can have adapters: those that train no weights of the backbone.

Checked when a variant is resolved; ``models.network.adapters`` then adds the adapters.
"""

from __future__ import annotations

from typing import Any

from models.parts.formats import FORMATS


def check_adapted(variant: Any) -> None:
    """Refuse a variant with adapters that would have to train frozen weights.

    Raises:
        ValueError: it does, or has no backbone to adapt.
    """
    if variant.adapt is None:
        return
    if variant.encoder == "scratch" or variant.learner == "linear":
        raise ValueError(
            "adapt keeps a backbone as it is, and this variant has none that has learnt"
        )
    if FORMATS[variant.format].new_tokens(("PER",), variant.formatting):
        raise ValueError(
            "adapt trains no token vectors, and the format (or formatting.mask_entities) "
            "registers tokens; choose a format such as typed-punct or instruct"
        )
    if variant.regularise.adversarial != "none" or variant.regularise.ema_decay > 0:
        raise ValueError(
            "adapt: regularise.adversarial moves and regularise.ema_decay copies the backbone"
        )
