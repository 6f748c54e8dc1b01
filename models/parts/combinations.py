"""Check which settings of a variant exclude each other, or need another setting.

Checked when a variant is resolved, before anything is loaded.
"""

from __future__ import annotations

from typing import Any

from models.parts.formats import FORMATS


def check_combination(variant: Any) -> None:
    """Refuse settings that exclude each other.

    Raises:
        ValueError: names the settings, and what to do.
    """
    if variant.sampling and variant.curriculum:
        raise ValueError("sampling and curriculum exclude each other; use one of them")
    if variant.extra_train and variant.route:
        raise ValueError("extra_train does not support specialists; remove route")
    check_adapted(variant)
    check_distilled(variant)
    if variant.start_from == variant.name:
        raise ValueError("start_from names the variant itself")
    if variant.pseudo and variant.pseudo.variant == variant.name:
        raise ValueError("pseudo.variant names the variant itself")


def check_adapted(variant: Any) -> None:
    """Refuse a variant with adapters that would have to train frozen weights.

    Raises:
        ValueError: it does, or has no backbone to adapt.
    """
    if variant.adapt is None:
        return
    if variant.encoder == "scratch" or not variant.is_network:
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


def check_distilled(variant: Any) -> None:
    """Refuse a variant whose other settings have no meaning for rows with soft labels.

    Raises:
        ValueError: names the settings.
    """
    if variant.distil is None:
        return
    if variant.name in variant.distil.members:
        raise ValueError("distil.members names the variant itself")
    if variant.augment is not None:
        raise ValueError("distil and augment exclude each other; use one of them")
    if variant.restrict is not None and variant.restrict.when == "train":
        raise ValueError('distil needs restrict.when = "predict"')
