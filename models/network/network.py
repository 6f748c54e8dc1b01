"""The network: a settled encoder's tokenizer and weights, a head on top, both in one module.

Stands between batches and heads. What is loaded here lies on the disk
(``models.network.encoder_source``), so that jobs need no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from competition.errors import EncoderError
from models.network.encoder_source import EncoderSource
from models.network.entity_embedding import RoleEmbedding
from models.network.new_parameters import draw_new_tokens, take_mask_layer
from models.parts.heads import HEADS, MaskHead, Positions
from models.variant import Variant

RESULT_VERSION = 1
VERSION_NAME = "models.encoder"
ENCODER_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "embedding_dropout",
    "mlp_dropout",
    "attention_dropout",
)
"""What encoders of all kinds call their rates of dropout."""


class RelationModel(nn.Module):
    """An encoder and a head: token ids in, logits out; ``roles`` is its entity embedding, if any.

    Every encoder adds positions to what it is handed and normalises after that, so that roles
    enter before the first layer norm.
    """

    def __init__(
        self, encoder: Any, head: nn.Module, labels: int, roles: RoleEmbedding | None = None
    ) -> None:
        super().__init__()
        self.labels = labels
        self.encoder = encoder
        self.head = head
        self.roles = roles

    def forward(self, input_ids: Tensor, attention_mask: Tensor, positions: Positions) -> Tensor:
        """Return logits (B, C) for token ids and mask, both (B, T)."""
        if self.roles is None:
            output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        else:
            embedded = self.roles(self.encoder.get_input_embeddings()(input_ids), positions)
            output = self.encoder(inputs_embeds=embedded, attention_mask=attention_mask)
        logits: Tensor = self.head(output.last_hidden_state, positions)
        return logits


def load_tokenizer(source: EncoderSource, new_tokens: Sequence[str] = ()) -> Any:
    """Load the source's fast tokenizer and register a format's new tokens in it.

    Raises:
        EncoderError: no tokenizer that reports character offsets, or tokens it lacks.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        remedy = "" if source.has_weights else "; delete that folder, it is made again"
        raise EncoderError(
            f"{source.name}: the tokenizer in {source.path} cannot be loaded: {error}{remedy}"
        ) from error
    if not tokenizer.is_fast:
        raise EncoderError(f"{source.name}: its tokenizer has no fast form (tokenizer.json needed)")
    missing = [
        n for n in ("cls_token_id", "sep_token_id", "pad_token_id") if getattr(tokenizer, n) is None
    ]
    if missing:
        raise EncoderError(f"{source.name}: its tokenizer has no {', '.join(missing)}")
    if new_tokens:
        tokenizer.add_special_tokens({"extra_special_tokens": list(new_tokens)})
    return tokenizer


def build_model(
    variant: Variant, source: EncoderSource, *, labels: int, vocabulary: int, device_type: str
) -> RelationModel:
    """Build the network in float32; random parts draw from torch's global generator.

    Args:
        labels: number of labels C.
        vocabulary: tokens of the tokenizer, a format's new tokens included.
        device_type: ``cpu`` or ``cuda``, which decides the attention kernel.

    Raises:
        EncoderError: the weights cannot be loaded.
    """
    from transformers import AutoConfig, AutoModel

    attention = choose_attention(variant, device_type)
    options: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
    try:
        config = AutoConfig.from_pretrained(source.path, local_files_only=True)
        check_length(source, config, variant.max_tokens, "max_tokens")
        _set_dropout(config, variant.train.encoder_dropout)
        if source.has_weights:
            encoder, absent = load_weights(
                AutoModel,
                source,
                bin_weights=variant.run.bin_weights,
                config=config,
                **_without_pooler(config),
                **options,
            )
            if absent:
                raise EncoderError(f"{source.name} has no weights for {', '.join(absent)}")
        else:
            encoder = AutoModel.from_config(config, **options)
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{source.name}: the weights cannot be loaded: {error}") from error
    known = encoder.get_input_embeddings().num_embeddings
    if vocabulary > known:
        encoder.resize_token_embeddings(vocabulary, mean_resizing=False)
        draw_new_tokens(encoder.get_input_embeddings().weight, known)
    if variant.run.gradient_checkpointing:
        enable_gradient_checkpointing(encoder)
    head = HEADS[variant.head](
        config.hidden_size, labels, variant.train.head_dropout, variant.regularise.dropout_samples
    )
    if isinstance(head, MaskHead) and source.has_weights:
        _begin_as_guessing_words(head, source, config, variant, options)
    # drawn last: encoder and head begin as they do without it
    roles = RoleEmbedding(encoder.get_input_embeddings()) if variant.entity_embedding else None
    return RelationModel(encoder, head, labels, roles)


def _begin_as_guessing_words(
    head: MaskHead, source: EncoderSource, config: Any, variant: Variant, options: dict[str, Any]
) -> None:
    """Give the mask head the layer with which the encoder guessed words; random if it has none."""
    from transformers import AutoModelForMaskedLM

    with suppress(ValueError):  # a kind of encoder that guesses no words
        masked, absent = load_weights(
            AutoModelForMaskedLM,
            source,
            bin_weights=variant.run.bin_weights,
            config=config,
            **options,
        )
        take_mask_layer(head, masked, absent)


def load_weights(
    kind: Any, source: EncoderSource, *, bin_weights: bool, **options: Any
) -> tuple[Any, list[str]]:
    """Load a network's weights, without a word to the console.

    Weights of layers that the network does not have are left alone, such as those for guessing
    words where states are wanted.

    Args:
        kind: the library's class for it, such as ``AutoModel``.
        source: a settled encoder with weights.
        bin_weights: also read pickled ones.
        options: of the library's ``from_pretrained``.

    Returns:
        The network, and the names of its weights that the source lacks: these are random.
    """
    with _quiet():
        network, report = kind.from_pretrained(
            source.path,
            local_files_only=True,
            use_safetensors=None if bin_weights else True,
            output_loading_info=True,
            **options,
        )
    return network, sorted(report["missing_keys"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bar and its report of unused weights off the console."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


def choose_attention(variant: Variant, device_type: str) -> str:
    """Return the attention kernel: plain matrix products on a CPU, the fused kernel elsewhere.

    On a CPU the fused kernel's backward pass took a fifth of a whole training step at the lengths
    of single sentences; with plain products the step was 1.2 times as fast (docs/experiments.md).
    """
    if variant.run.attention != "auto":
        return variant.run.attention
    return "eager" if device_type == "cpu" else "sdpa"


def parameter_depth(name: str, layers: int) -> int:
    """Return how deep a parameter lies: 0 embeddings, 1 to ``layers`` the layers, then the head.

    >>> parameter_depth("encoder.embeddings.tok_embeddings.weight", 6)
    0
    >>> parameter_depth("encoder.encoder.layer.5.output.dense.weight", 6)
    6
    >>> parameter_depth("head.out.weight", 6), parameter_depth("encoder.final_norm.weight", 6)
    (7, 7)
    >>> parameter_depth("head.layers.0.forwards.weight_hh_l0", 6)
    7
    """
    if not name.startswith("encoder."):
        return layers + 1
    inside = re.search(r"\.(?:layer|layers|h)\.(\d+)\.", name)
    if inside:
        return 1 + int(inside.group(1))
    return 0 if "embeddings" in name else layers + 1


def _set_dropout(config: Any, rate: float | None) -> None:
    """Drop out everywhere in the encoder at one rate; None leaves it as it was published."""
    for name in ENCODER_DROPOUTS if rate is not None else ():
        if hasattr(config, name):
            setattr(config, name, rate)


def enable_gradient_checkpointing(model: Any) -> None:
    """Recompute activations in the backward pass; transformers renamed the method in 5.x."""
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)


def check_length(source: EncoderSource, config: Any, tokens: int, setting: str) -> None:
    """Refuse more tokens than the encoder has positions for; RoBERTa's kind counts from its pad.

    Raises:
        EncoderError: too many tokens; ``setting`` is the one to lower.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return
    if config.model_type in _POSITIONS_AFTER_PAD:
        positions -= config.pad_token_id + 1
    if tokens > positions:
        raise EncoderError(
            f"{source.name} has positions for {positions} tokens, and {tokens} are asked for; add"
            f" --set {setting}={positions}"
        )


def _without_pooler(config: Any) -> dict[str, bool]:
    """Leave out the pooling layer that BERT-like encoders carry and that no head reads."""
    return {"add_pooling_layer": False} if config.model_type in _POOLED else {}


_POOLED = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})
_POSITIONS_AFTER_PAD = frozenset({"roberta", "xlm-roberta", "camembert"})
