"""Initialise a head from what its backbone learnt: the mask head, and words for the labels.

Legend: C labels, D hidden, V tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from competition.errors import EncoderError, VariantError
from models.network.backbone import load_masked
from models.network.config import name_kind
from models.network.encoder_source import SAFE_WEIGHTS, EncoderSource
from models.network.network import RelationModel
from models.network.new_parameters import init_mask_head
from models.parts.heads import LabelWordsHead, MaskHead
from models.variant import Variant

RESULT_VERSION = 1
VERSION_NAME = "models.label_words"
OUTPUT_WEIGHTS = ("lm_head.weight", "embed_out.weight", "language_model.lm_head.weight")
"""Names of a decoder's output layer in its files, where it is not that of its embeddings."""
CHANGE = "set others under [language.label_words] in the profile"


def tokenize_words(tokenizer: Any, words_of: Mapping[str, str]) -> list[list[int]]:
    """Return the tokens of each label's words, without unknown ones.

    Args:
        words_of: the words of the C labels, in their order.

    Raises:
        VariantError: the tokenizer knows no word of a label, or two labels have the same words.
    """
    found: dict[tuple[int, ...], str] = {}
    for label, words in words_of.items():
        ids = tokenizer(f" {words}", add_special_tokens=False)["input_ids"]
        tokens = tuple(each for each in ids if each != tokenizer.unk_token_id)
        if not tokens:
            raise VariantError(
                f"head 'label-words': the tokenizer knows none of the words {words!r} of label "
                f"{label!r}; {CHANGE}"
            )
        if tokens in found:
            raise VariantError(
                f"head 'label-words': labels {found[tokens]!r} and {label!r} have the same words, "
                f"{words!r}; {CHANGE}"
            )
        found[tokens] = label
    return [list(tokens) for tokens in found]


def init_head(
    model: RelationModel,
    variant: Variant,
    source: EncoderSource,
    tokenizer: Any,
    words_of: Mapping[str, str],
) -> None:
    """Initialise a head that reads a [MASK] or scores words, from what its backbone learnt.

    Other heads, and those of a backbone without weights, stay random.

    Args:
        words_of: the words of the C labels, in their order.

    Raises:
        VariantError: the tokenizer cannot tell the words of labels apart, or the backbone's files
            have no output layer of the network's size.
        EncoderError: a file cannot be read.
    """
    head = model.head
    if not source.has_weights or not isinstance(head, MaskHead):
        return
    if isinstance(head, LabelWordsHead):
        _init_label_words(model, variant, source, tokenize_words(tokenizer, words_of))
        return
    masked = load_masked(source, bin_weights=variant.run.bin_weights)
    if masked is not None:
        init_mask_head(head, *masked)


def _init_label_words(
    model: RelationModel, variant: Variant, source: EncoderSource, tokens: Sequence[Sequence[int]]
) -> None:
    head, encoder = model.head, model.encoder
    assert isinstance(head, LabelWordsHead)
    if name_kind(encoder.config) != "decoder":
        _init_from_masked(head, variant, source, tokens)
    elif getattr(encoder.config, "tie_word_embeddings", False):
        _init(head.out, encoder.get_input_embeddings().weight, None, tokens)
    else:
        wanted = sorted({each for one in tokens for each in one})
        place = {each: at for at, each in enumerate(wanted)}
        rows = _read_rows(source, wanted)
        _init(head.out, rows, None, [[place[each] for each in one] for one in tokens])


def _init_from_masked(
    head: LabelWordsHead,
    variant: Variant,
    source: EncoderSource,
    tokens: Sequence[Sequence[int]],
) -> None:
    """Begin with both layers of a masked-language head."""
    loaded = load_masked(source, bin_weights=variant.run.bin_weights)
    if loaded is None or not init_mask_head(head, *loaded):
        raise _refuse(source.name)
    layer = loaded[0].get_output_embeddings()
    if layer is None or layer.weight.shape[1] != head.out.in_features:
        raise _refuse(source.name)
    _init(head.out, layer.weight, getattr(layer, "bias", None), tokens)


def _init(
    out: nn.Linear, table: Tensor, bias: Tensor | None, tokens: Sequence[Sequence[int]]
) -> None:
    """Set each label's weights to the mean of the vectors (V, D) of its tokens."""
    with torch.no_grad():
        for at, one in enumerate(tokens):
            chosen = torch.tensor(list(one), device=table.device)
            out.weight[at] = table[chosen].float().mean(dim=0)
            out.bias[at] = 0.0 if bias is None else bias[chosen].float().mean()


def _read_rows(source: EncoderSource, wanted: Sequence[int]) -> Tensor:
    """Return some rows of the output layer in a decoder's files, (len(wanted), D)."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(source.path.glob(SAFE_WEIGHTS)):
        try:
            with safe_open(path, "pt") as stored:
                for name in set(OUTPUT_WEIGHTS) & set(stored.keys()):
                    layer = stored.get_slice(name)
                    return torch.cat([layer[at : at + 1] for at in wanted])
        except (OSError, SafetensorError) as error:
            raise EncoderError(f"{path} cannot be read: {error}") from error
    raise _refuse(source.name)


def _refuse(name: str) -> VariantError:
    return VariantError(
        f"head 'label-words' scores words with the output layer that {name} was pretrained with, "
        "and its files have none of the network's size; choose head = 'mask'"
    )
