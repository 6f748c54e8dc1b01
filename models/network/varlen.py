"""Attention over rows that follow one another without padding (variable-length attention).

transformers calls ``attend`` in place of its own attention functions once it is registered
(``run.attention = "varlen"``). On a GPU the kernel is FlashAttention: that of torch, or of the
package flash-attn where attention has dropout. A CPU computes row by row, with the same results.
Legend: A heads, S tokens of all rows, D size of a head.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from competition.errors import VariantError
from models.data.packing import Packing

VARLEN = "varlen"
ATTENTION_RATES = ("attention_probs_dropout_prob", "attention_dropout")
ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers (``layer_types`` of a configuration) whose attention is computed here."""
EVERYWHERE = (-1, -1)
"""The window of a layer without one: how many tokens to the left and to the right are seen."""


def register_varlen() -> None:
    """Make the attention function known to transformers, under the name ``VARLEN``."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, attend)


def can_pack(config: Any, network: Any, *, device_type: str, precision: str) -> bool:
    """Return whether a backbone can be computed without padding, as ``check_varlen`` checks."""
    return _find_problem(config, network, device_type, precision) is None


def check_varlen(config: Any, network: Any, *, device_type: str, precision: str) -> None:
    """Check that a backbone can be computed without padding on this device.

    Args:
        config: of the backbone, with the dropout rates of the variant.
        network: its class.
        device_type: ``cpu``, ``cuda`` or another.
        precision: of the matrix products.

    Raises:
        VariantError: says what is missing.
    """
    problem = _find_problem(config, network, device_type, precision)
    if problem is not None:
        raise VariantError(
            f"run.attention = 'varlen' {problem}; leave run.attention at auto, which changes no "
            "results"
        )


def _find_problem(config: Any, network: Any, device_type: str, precision: str) -> str | None:
    problem = _find_unfit(config, network)
    if problem is not None or device_type == "cpu":
        return problem
    if device_type != "cuda" or precision == "float32":
        return f"needs a CUDA GPU in bf16 or fp16, not {device_type} in {precision}"
    if any(getattr(config, name, 0.0) for name in ATTENTION_RATES) and not _has_dropout_kernel():
        return (
            "needs the package flash-attn here, as attention has dropout, which torch's own kernel "
            "lacks; without it, --set train.encoder_dropout=0 (a recipe of its own)"
        )
    if not _has_torch_kernel():
        return f"needs torch 2.12 or newer, not {torch.__version__}"
    return None


def _find_unfit(config: Any, network: Any) -> str | None:
    """Return why a backbone cannot be computed without padding anywhere, else None."""
    needed = ("_supports_attention_backend", "_supports_flash_attn", "_supports_sdpa")
    if has_soft_cap(config) or not all(getattr(network, each, False) for each in needed):
        return f"cannot be used with a {config.model_type}, whose attention is of its own kind"
    if _crosses_rows(config, network):
        return (
            f"cannot be used with a {config.model_type}, where not only attention reads other "
            "tokens: rows that follow one another would mix"
        )
    return None


def _crosses_rows(config: Any, network: Any) -> bool:
    """Return whether a token sees its neighbours by other means than attention.

    So do recurrent layers and convolutions, layers of other attention, and MobileBERT's input of
    three words.
    """
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    return (
        bool(getattr(network, "_is_stateful", False))
        or not kinds <= ATTENTION_LAYERS
        or bool(getattr(config, "trigram_input", False))
    )


def has_soft_cap(config: Any) -> bool:
    """Return whether attention limits its scores, as in Gemma 2: fused kernels cannot."""
    return getattr(config, "attn_logit_softcapping", None) is not None


def _has_torch_kernel() -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters)


def _has_dropout_kernel() -> bool:
    return find_spec("flash_attn") is not None


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend within each row; called by transformers' attention layers.

    Args:
        module: the layer, which says whether it is causal.
        query: (1, A, S, D).
        key: (1, A, S, D), or with fewer heads.
        value: as ``key``.
        attention_mask: unused: the packing says which tokens belong together.
        options: of the layer: ``scaling`` of the products, ``dropout`` of the weights,
            ``sliding_window`` (tokens less far away are seen); of ``RelationModel``: ``packing``,
            and ``is_open`` if all tokens of a row see each other, in every layer.

    Returns:
        (1, S, A, D), and None for the weights.
    """
    del attention_mask
    is_open = options.get("is_open", False)
    is_causal = bool(getattr(module, "is_causal", False)) and not is_open
    reach = None if is_open else options.get("sliding_window")
    left, right = EVERYWHERE if reach is None else (reach - 1, reach - 1)
    how = _How(
        packing=options["packing"],
        window=(left, 0 if is_causal else right),
        rate=options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    attend_rows = _attend_on_gpu if query.device.type == "cuda" else _attend_one_by_one
    return attend_rows(query, key, value, how), None


@dataclass(frozen=True, slots=True)
class _How:
    """The rows, how many tokens to the left and right are seen, dropout rate and scale."""

    packing: Packing
    window: tuple[int, int]
    rate: float
    scale: float | None


def _attend_one_by_one(query: Tensor, key: Tensor, value: Tensor, how: _How) -> Tensor:
    rows = [
        F.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            attn_mask=_see(stop - start, how.window),
            dropout_p=how.rate,
            scale=how.scale,
        )
        for start, stop in pairwise(how.packing.starts.tolist())
    ]
    return torch.cat(rows, dim=2).transpose(1, 2)


def _see(tokens: int, window: tuple[int, int]) -> Tensor | None:
    """Return which tokens of a row each one sees, (T, T) bool; None if all see all."""
    if window == EVERYWHERE:
        return None
    at = torch.arange(tokens)
    ahead = at[None, :] - at[:, None]
    left, right = (tokens if side < 0 else side for side in window)
    return (ahead >= -left) & (ahead <= right)


def _attend_on_gpu(query: Tensor, key: Tensor, value: Tensor, how: _How) -> Tensor:
    """Attend with a FlashAttention kernel, in the format of autocast."""
    wanted = query.dtype
    if wanted == torch.float32:
        wanted = torch.get_autocast_dtype("cuda")
    flat = [each[0].transpose(0, 1).to(wanted) for each in (query, key, value)]
    starts, longest = how.packing.starts, how.packing.longest
    if how.rate > 0:
        attend_rows = import_module("flash_attn").flash_attn_varlen_func
        options = {
            "dropout_p": how.rate,
            "softmax_scale": how.scale,
            "causal": how.window[1] == 0,
            "window_size": how.window,
        }
    else:
        attend_rows = import_module("torch.nn.attention.varlen").varlen_attn
        options = {"scale": how.scale, "window_size": how.window}
    out: Tensor = attend_rows(*flat, starts, starts, longest, longest, **options)
    return out[None].to(query.dtype)
