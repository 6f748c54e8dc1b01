"""The masked-language model: an encoder with its language-model head, and the optimisers.

The head runs on masked tokens only, which saves most of its cost.
Legend: B sequences, T tokens of each, n masked tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from competition.errors import EncoderError, PretrainingError
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
"""Per kind of encoder, the layers of the masked-language head, in order."""


class MaskedModel(nn.Module):
    """A masked-language model whose output layer runs on masked tokens only."""

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
    """Return the layers of the masked-language head, by the kind of encoder."""
    if config.model_type not in HEAD_NAMES:
        raise EncoderError(
            f"pretraining does not support encoders of kind {config.model_type!r}, whose "
            "masked-language head is unknown; supported kinds: "
            f"{', '.join(sorted(HEAD_NAMES))}"
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
    """Load or create the network in float32; random weights use torch's global generator.

    Args:
        say: called with the layers for which the source has no weights.

    Raises:
        EncoderError: the weights cannot be loaded or do not fit the tokenizer or the settings, or
            the kind of encoder is not supported.
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
        say(
            f"notice: {source.name} has no weights for {', '.join(missing)}: "
            "they are initialised randomly"
        )
    if settings.run.gradient_checkpointing:
        enable_gradient_checkpointing(whole)
    return MaskedModel(whole)


def check_optimizer(settings: PretrainSettings) -> None:
    """Check that torch has the optimiser, before any text is read.

    Raises:
        PretrainingError: it has no Muon.
    """
    if settings.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise PretrainingError(
            f"optimizer=muon needs torch 2.9 or newer, not {torch.__version__}; leave it out for "
            "AdamW"
        )


def build_optimizers(model: nn.Module, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """Build AdamW, or Muon for the matrices of the layers and AdamW for the rest.

    Weight decay leaves out norms and biases. A group's ``peak`` is its peak learning rate.

    Source: Muon is Scalable for LLM Training (Liu et al. 2025, arXiv 2502.16982), section 2.2:
    updates are scaled to the size of AdamW's, so that similar learning rates fit both.
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
    """Set the learning rate of each group to a fraction of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
