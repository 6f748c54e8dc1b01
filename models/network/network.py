"""Build the network: a backbone with a head, in one module.

Between batches and predictions. ``models.network.backbone`` loads the weights, adapters and new
parameters are added, and the head reads the states. Legend: B batch, T tokens, C labels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from competition.errors import EncoderError, VariantError
from models.data.packing import Packing
from models.network.adapters import add_adapters
from models.network.backbone import (
    LAYER,
    Precision,
    load_backbone,
    open_mask,
)
from models.network.config import (
    POSITIONS_AFTER_PAD,
    check_length,
    counts_from_mask,
    name_kind,
    read_config,
)
from models.network.dropout import list_rates, set_dropout
from models.network.encoder_source import EncoderSource
from models.network.entity_embedding import RoleEmbedding
from models.network.new_parameters import draw_new_tokens
from models.network.varlen import VARLEN
from models.parts.heads import (
    HEADS,
    READS_EARLY,
    READS_FIRST,
    READS_LAST,
    LabelWordsHead,
    Positions,
    list_masked_formats,
)
from models.variant import Variant

RESULT_VERSION = 1
VERSION_NAME = "models.encoder"
EMBEDDINGS = ("embed", ".shared.", ".wte.", ".wpe.")
"""Parts of the names of parameters below the first layer."""


class RelationModel(nn.Module):
    """An encoder with a head: maps token ids to logits; ``roles`` is an optional entity embedding.

    Every encoder adds positions to what it is handed and normalises after that, so that roles
    enter before the first layer norm. An encoder is whatever turns tokens into states, a decoder
    too; one ``is_open`` sees all tokens from each.
    """

    def __init__(
        self,
        encoder: Any,
        head: nn.Module,
        labels: int,
        roles: RoleEmbedding | None = None,
        *,
        is_open: bool = False,
    ) -> None:
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.head = head
        self.roles = roles
        self.is_open = is_open
        self.packs = _name_attention(encoder) == VARLEN
        self.reads_plain_mask = _reads_plain_mask(encoder)
        self.is_adapted = not all(each.requires_grad for each in encoder.parameters())

    def frozen_names(self) -> set[str]:
        """Return the names of frozen weights: those of the encoder, if it has adapters."""
        trained = {name for name, each in self.named_parameters() if each.requires_grad}
        inside = {name for name in self.state_dict() if name.startswith("encoder.")}
        return inside - trained if self.is_adapted else set()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Positions,
        packing: Packing | None = None,
    ) -> Tensor:
        """Return logits (B, C) for token ids and mask, both (B, T).

        Args:
            input_ids: padded.
            attention_mask: 0 for padding.
            positions: of each row's parts.
            packing: where the tokens stand; needed if the network ``packs``, else None.
        """
        embedded = None
        if self.roles is not None:
            embedded = self.roles(self.encoder.get_input_embeddings()(input_ids), positions)
        if self.packs:
            assert packing is not None
            states = self._encode_packed(input_ids, embedded, packing)
        else:
            states = self._encode_padded(input_ids, embedded, attention_mask)
        logits: Tensor = self.head(states, positions)
        return logits

    def _encode_padded(
        self, input_ids: Tensor, embedded: Tensor | None, attention_mask: Tensor
    ) -> Tensor:
        """Return the states (B, T, D) of padded rows."""
        if self.is_open:
            attention_mask = open_mask(attention_mask, self.encoder.dtype)
        elif self.reads_plain_mask:
            attention_mask = attention_mask[:, None, None, :].bool()
        tokens = _name_tokens(input_ids, embedded)
        states: Tensor = self.encoder(**tokens, attention_mask=attention_mask).last_hidden_state
        return states

    def _encode_packed(
        self, input_ids: Tensor, embedded: Tensor | None, packing: Packing
    ) -> Tensor:
        """Return the states (B, T, D) of rows that the encoder reads without padding.

        Padding has zeros.
        """
        flat = input_ids.flatten().index_select(0, packing.places)[None]
        if embedded is not None:
            embedded = embedded.flatten(0, 1).index_select(0, packing.places)[None]
        output = self.encoder(
            **_name_tokens(flat, embedded),
            position_ids=(packing.steps + first_position(self.encoder.config))[None],
            packing=packing,
            is_open=self.is_open,
        )
        states = output.last_hidden_state[0]
        padded = states.new_zeros(input_ids.numel(), states.shape[-1])
        filled: Tensor = padded.index_copy(0, packing.places, states)
        return filled.view(*input_ids.shape, -1)


def _name_tokens(input_ids: Tensor, embedded: Tensor | None) -> dict[str, Tensor]:
    return {"input_ids": input_ids} if embedded is None else {"inputs_embeds": embedded}


def first_position(config: Any) -> int:
    """Return the position of a row's first token in a backbone that counts them."""
    return int(config.pad_token_id) + 1 if config.model_type in POSITIONS_AFTER_PAD else 0


def _name_attention(encoder: Any) -> str | None:
    return getattr(getattr(encoder, "config", None), "_attn_implementation", None)


def _reads_plain_mask(encoder: Any) -> bool:
    """Return whether an encoder's fused attention takes a mask (B, 1, 1, T) as it is.

    Given one of (B, T), transformers looks whether there is any padding, and waits for the device.
    """
    config = getattr(encoder, "config", None)
    return (
        _name_attention(encoder) == "sdpa"
        and bool(getattr(encoder, "_supports_attention_backend", False))
        and name_kind(config) == "encoder"
        and "sliding_attention" not in (getattr(config, "layer_types", None) or ())
        and not any(getattr(module, "is_causal", False) for module in encoder.modules())
    )


def check_backbone(variant: Variant, source: EncoderSource) -> Any:
    """Check a backbone against the settings of a variant, before its weights are loaded.

    Returns:
        Its configuration.

    Raises:
        EncoderError: it cannot be read, or has positions for fewer tokens.
        VariantError: the head reads what a causal backbone has not seen there, the backbone reads
            both ways already, or it has no dropout to set.
    """
    config = read_config(source)
    check_length(source, config, variant.max_tokens, "max_tokens")
    if variant.train.encoder_dropout is not None and not list_rates(config):
        raise VariantError(
            f"variant {variant.name}: train.encoder_dropout has no effect on {source.name}: a "
            f"{config.model_type} has no dropout rate that is known here; leave it out"
        )
    is_causal = name_kind(config) == "decoder"
    if variant.bidirectional and not is_causal:
        raise VariantError(
            f"variant {variant.name}: bidirectional does nothing for {source.name}, which reads "
            "both ways already; leave it out"
        )
    if variant.bidirectional and counts_from_mask(config):
        raise VariantError(
            f"variant {variant.name}: {source.name} cannot read both ways: a {config.model_type} "
            "counts positions from the mask that bidirectional replaces; leave it out"
        )
    if is_causal and not variant.bidirectional and variant.head in READS_EARLY:
        # whether rows have a first token to read is checked with the tokenizer
        other = "" if variant.head in READS_FIRST else ", or --set bidirectional=true"
        raise VariantError(
            f"variant {variant.name}: {source.name} reads from left to right, and head "
            f"{variant.head!r} reads tokens before the words in question; choose "
            f"head = 'entity-close-last'{other}"
        )
    if not is_causal and variant.head in READS_LAST:
        masked = list_masked_formats()
        if variant.format not in masked:
            raise VariantError(
                f"variant {variant.name}: head {variant.head!r} reads the [MASK] of a prompt, or "
                f"the last token of a decoder, and {source.name} is none; choose format = "
                f"{' or '.join(map(repr, masked))}"
            )
    return config


def check_first_token(variant: Variant, source: EncoderSource, tokenizer: Any) -> None:
    """Refuse a head that reads [CLS] if rows start with a word instead.

    Raises:
        VariantError: names heads that read none.
    """
    if variant.head not in READS_FIRST or tokenizer.cls_token_id is not None:
        return
    if tokenizer.sep_token_id is None and tokenizer.bos_token_id is not None:
        return
    raise VariantError(
        f"variant {variant.name}: head {variant.head!r} reads a token in front of the row, and "
        f"{source.name} has none; choose head = 'entity-start' or 'entity-close-last'"
    )


def build_model(
    variant: Variant,
    source: EncoderSource,
    *,
    labels: int,
    vocabulary: int,
    device_type: str,
    precision: Precision = "float32",
) -> RelationModel:
    """Build the network with trained weights in float32; random ones use torch's global generator.

    Heads are random; ``models.network.label_words.init_head`` initialises some of them.

    Args:
        labels: number of labels C.
        vocabulary: tokens of the tokenizer, a format's new tokens included.
        device_type: ``cpu`` or ``cuda``, which decides the attention kernel.
        precision: the number format of a base that adapters leave as it is.

    Raises:
        EncoderError: the weights cannot be loaded.
        VariantError: the variant's settings do not suit them.
    """
    config = check_backbone(variant, source)
    set_dropout(config, variant.train.encoder_dropout)
    encoder = load_backbone(variant, source, config, device_type=device_type, precision=precision)
    known = encoder.get_input_embeddings().num_embeddings
    if vocabulary > known:
        encoder.resize_token_embeddings(vocabulary, mean_resizing=False)
        draw_new_tokens(encoder.get_input_embeddings().weight, known)
    if variant.adapt is not None:
        add_adapters(encoder, variant.adapt)
    if variant.run.gradient_checkpointing:
        enable_gradient_checkpointing(encoder)
    head = HEADS[variant.head](
        encoder.config.hidden_size,
        labels,
        variant.train.head_dropout,
        variant.regularise.dropout_samples,
    )
    if isinstance(head, LabelWordsHead) and name_kind(config) == "decoder":
        head.skip_layer()
        # adapters learn to say the words, which stay what they mean
        head.out.weight.requires_grad_(variant.adapt is None)
    # initialised last, so that encoder and head get the same random weights without it
    roles = RoleEmbedding(encoder.get_input_embeddings()) if variant.entity_embedding else None
    return RelationModel(encoder, head, labels, roles, is_open=variant.bidirectional)


def enable_gradient_checkpointing(model: Any) -> None:
    """Recompute activations in the backward pass; transformers renamed the method in 5.x.

    Raises:
        EncoderError: this kind of network cannot, such as ALBERT.
    """
    if not getattr(model, "supports_gradient_checkpointing", True):
        raise EncoderError(
            f"layers of a {model.config.model_type} cannot be computed twice (gradient "
            "checkpointing): leave out run.gradient_checkpointing; if memory is short, lower "
            "max_tokens (a recipe of its own) or take a smaller encoder"
        )
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)


def parameter_depth(name: str, layers: int) -> int:
    """Return the depth of a parameter: 0 for embeddings, 1 to ``layers`` for layers, then the head.

    >>> parameter_depth("encoder.embeddings.tok_embeddings.weight", 6)
    0
    >>> parameter_depth("encoder.encoder.layer.5.output.dense.weight", 6)
    6
    >>> parameter_depth("head.out.weight", 6), parameter_depth("encoder.final_norm.weight", 6)
    (7, 7)
    >>> parameter_depth("head.layers.0.forwards.weight_hh_l0", 6)
    7
    >>> parameter_depth("encoder.encoder.block.2.layer.0.SelfAttention.q.weight", 6)
    3
    >>> parameter_depth("encoder.shared.weight", 6), parameter_depth("encoder.embed_tokens.x", 6)
    (0, 0)
    """
    if not name.startswith("encoder."):
        return layers + 1
    inside = LAYER.search(name)
    if inside:
        return 1 + int(inside.group(1))
    return 0 if any(part in name for part in EMBEDDINGS) else layers + 1
