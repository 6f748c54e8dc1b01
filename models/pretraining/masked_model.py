"""The network that pretraining trains, and the optimisers of its weights.

Between a settled encoder and the ``pretraining`` loop: any encoder whose layers for predicting
hidden tokens are known, with these layers run on the masked tokens only.
Legend: B sequences, T tokens of each, n masked tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from competition.errors import EncoderError
from models.network.backbone import load_weights
from models.network.config import check_length, read_config
from models.network.encoder_source import EncoderSource
from models.network.network import enable_gradient_checkpointing
from models.pretraining.request import PretrainSettings

HEAD_NAMES: dict[str, tuple[str, ...]] = {
    "bert": ("cls",),
    "roberta": ("lm_head",),
    "xlm-roberta": ("lm_head",),
    "camembert": ("lm_head",),
    "electra": ("generator_predictions", "generator_lm_head"),
    "modernbert": ("head", "decoder"),
}
"""Per kind of encoder, the layers from its last states to logits, in order."""


class MaskedModel(nn.Module):
    """A masked-language model whose vocabulary-wide layer looks at masked tokens only."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole
        self._head_names = _name_heads(whole.config)

    def forward(self, input_ids: Tensor, places: Tensor) -> Tensor:
        """Return logits (n, V) for ids (B, T) at ``places`` (n,) of the flattened batch."""
        encoder = getattr(self.whole, self.whole.base_model_prefix)
        states = encoder(input_ids=input_ids).last_hidden_state
        hidden = states.flatten(0, 1).index_select(0, places)
        for name in self._head_names:
            hidden = getattr(self.whole, name)(hidden)
        logits: Tensor = hidden
        return logits


def _name_heads(config: Any) -> tuple[str, ...]:
    """Return the layers that predict hidden tokens, by the kind of encoder.

    Raises:
        EncoderError: the kind is not known.
    """
    if config.model_type not in HEAD_NAMES:
        raise EncoderError(
            "the layers that predict hidden tokens of an encoder of kind "
            f"{config.model_type!r} are not known; known kinds are {', '.join(sorted(HEAD_NAMES))}"
        )
    return HEAD_NAMES[config.model_type]


def build_masked_model(
    source: EncoderSource,
    settings: PretrainSettings,
    *,
    vocabulary: int,
    attention: str,
    say: Callable[[str], None],
) -> MaskedModel:
    """Load or make the network, float32; random parts draw from torch's global generator.

    Args:
        source: a settled encoder, with weights or without.
        settings: hardware settings count here.
        vocabulary: tokens of the tokenizer.
        attention: the attention kernel.
        say: hears which layers the source has no weights for.

    Raises:
        EncoderError: the weights cannot be loaded or do not suit tokenizer or settings, or the kind
            of encoder is not known.
    """
    from transformers import AutoModelForMaskedLM

    options: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
    missing: Sequence[str] = ()
    config = read_config(source)
    check_length(source, config, settings.sequence_tokens, "sequence_tokens")
    _name_heads(config)
    if source.has_weights:
        whole, missing = load_weights(
            AutoModelForMaskedLM,
            source,
            bin_weights=settings.run.bin_weights,
            config=config,
            **options,
        )
    else:
        whole = AutoModelForMaskedLM.from_config(config, trust_remote_code=False, **options)
    embeddings = whole.get_input_embeddings().num_embeddings
    if vocabulary > embeddings:
        raise EncoderError(
            f"{source.name}: its tokenizer has {vocabulary} tokens, its weights {embeddings}"
        )
    if missing:
        say(f"notice: {source.name} has no weights for {', '.join(missing)}: they begin random")
    if settings.run.gradient_checkpointing:
        enable_gradient_checkpointing(whole)
    return MaskedModel(whole)


def build_optimizers(model: nn.Module, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """Build AdamW, or Muon for the matrices inside the layers and AdamW for the rest.

    Norms and biases are not decayed. Each group's ``peak`` is its highest rate.

    Source: Muon is Scalable for LLM Training (Liu et al. 2025, arXiv 2502.16982), section 2.2:
    updates are scaled to the size of AdamW's, so that rates of the same order suit both.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if settings.optimizer == "muon" and _is_inner_matrix(name, p)]
    taken = {id(parameter) for parameter in inner}
    rest = [parameter for _, parameter in named if id(parameter) not in taken]
    decayed, plain = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    adamw = torch.optim.AdamW(
        [
            {"params": group, "weight_decay": decay, "peak": settings.lr}
            for group, decay in ((decayed, settings.weight_decay), (plain, 0.0))
            if group
        ],
        lr=settings.lr,
        betas=(0.9, settings.adam_beta2),
        fused=named[0][1].device.type in {"cpu", "cuda"},
    )
    if not inner:
        return [adamw]
    muon = torch.optim.Muon(
        [{"params": inner, "peak": settings.muon_lr}],
        lr=settings.muon_lr,
        weight_decay=settings.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw]


def _is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and (".layer." in name or ".layers." in name)


def set_rates(optimizers: Sequence[Any], share: float) -> None:
    """Set each group's rate to a share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
