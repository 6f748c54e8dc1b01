"""Load the weights of a backbone: BERT-like encoders, encoders of encoder–decoders, decoders.

``models.network.network`` adds a head. Everything is loaded from disk, so jobs need no internet
access; code in the folder is never run.
Legend: B batch, T tokens.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal

import torch
from torch import Tensor

from competition.errors import EncoderError
from models.network.config import Kind, first_line, name_kind, quiet, read_config
from models.network.encoder_source import EncoderSource
from models.network.varlen import (
    VARLEN,
    can_pack,
    check_varlen,
    has_soft_cap,
    register_varlen,
)
from models.variant import Variant

Precision = Literal["float32", "bf16", "fp16"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
POOLED = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"})
"""Kinds that can be built without a pooling layer, which no head uses."""
UNUSED = re.compile(r"(?:^|\.)pooler\.")
"""The names of the weights of a pooling layer, where one is built."""
LAYER = re.compile(r"\.(?:layer|layers|h|block)\.(\d+)\.")
"""The layer number in the name of a parameter."""


def load_backbone(
    variant: Variant,
    source: EncoderSource,
    config: Any,
    *,
    device_type: str,
    precision: Precision,
) -> Any:
    """Load the weights of a backbone, or initialise them randomly if it has none.

    Of an encoder–decoder the encoder alone is kept. What is trained whole is float32; a base that
    stays as it is (``adapt``) has the job's own precision, which takes half the memory.

    Raises:
        EncoderError: the weights cannot be loaded, or some are absent.
        VariantError: it cannot be computed without padding, as ``run.attention`` asks.
    """
    kind = name_kind(config)
    library, network = _find_class(config, kind)
    attention = choose_attention(variant, device_type, network, config)
    if attention == VARLEN:
        check_varlen(config, network, device_type=device_type, precision=precision)
        register_varlen()
    options: dict[str, Any] = {
        "attn_implementation": attention,
        "dtype": torch.float32 if variant.adapt is None else DTYPES[precision],
        **_quantise(variant, source, device_type, precision),
    }
    if config.model_type in POOLED:
        options["add_pooling_layer"] = False
    if source.has_weights:
        whole, absent = load_weights(
            library, source, bin_weights=variant.run.bin_weights, config=config, **options
        )
        needed = [name for name in absent if not UNUSED.search(name)]
        if needed:
            raise EncoderError(f"{source.name} has no weights for {', '.join(needed)}")
    else:
        whole = library.from_config(config, trust_remote_code=False, **options)
    reader = _take_reader(whole, kind)
    if kind == "decoder":
        reader.config.use_cache = False  # what only writing text needs
    return reader


def load_weights(
    kind: Any, source: EncoderSource, *, bin_weights: bool, **options: Any
) -> tuple[Any, list[str]]:
    """Load the weights of a network, without output to the console.

    Weights of layers that the network does not have are left alone, such as those for guessing
    words where states are wanted.

    Args:
        kind: the library's class for it, such as ``AutoModel``.
        source: a settled encoder with weights.
        bin_weights: also read pickled ones.
        options: of the library's ``from_pretrained``.

    Returns:
        The network, and the names of its weights that the source lacks: these are random.

    Raises:
        EncoderError: the weights cannot be loaded.
    """
    try:
        with quiet():
            network, report = kind.from_pretrained(
                source.path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=None if bin_weights else True,
                output_loading_info=True,
                **options,
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the library and what reads its files raise many kinds
        raise EncoderError(
            f"{source.name}: the weights cannot be loaded: {first_line(error)}"
        ) from error
    return network, sorted(report["missing_keys"])


def load_masked(source: EncoderSource, *, bin_weights: bool) -> tuple[Any, list[str]] | None:
    """Load an encoder with its masked-language head, and the names of absent weights.

    None if there is no such head for its kind.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM

    config = read_config(source)
    if name_kind(config) != "encoder" or type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return None
    options = {"config": config, "dtype": torch.float32}
    return load_weights(AutoModelForMaskedLM, source, bin_weights=bin_weights, **options)


def choose_attention(
    variant: Variant, device_type: str, network: Any = None, config: Any = None
) -> str:
    """Return the attention implementation: ``eager`` on a CPU, ``sdpa`` elsewhere.

    On a CPU the fused kernel's backward pass took a fifth of a whole training step at the lengths
    of single sentences; with plain products the step was 1.2 times as fast (docs/experiments.md).
    Networks that the fused kernel cannot compute, such as DeBERTa and Gemma 2, have the plain one;
    earlier versions of transformers let Gemma 2 have the fused one, which leaves out its soft cap.
    """
    if variant.run.attention != "auto":
        return variant.run.attention
    can_fuse = network is None or getattr(network, "_supports_sdpa", False)
    can_fuse = can_fuse and not has_soft_cap(config)
    return "sdpa" if device_type != "cpu" and can_fuse else "eager"


def relax_attention(
    variant: Variant, source: EncoderSource, *, device_type: str, precision: Precision
) -> Variant:
    """Return a variant that can predict here: with padding, if it cannot be without.

    A network may have been trained where there are other kernels; results are the same.
    """
    if variant.run.attention != VARLEN:
        return variant
    config = read_config(source)
    _, network = _find_class(config, name_kind(config))
    if can_pack(config, network, device_type=device_type, precision=precision):
        return variant
    padded = variant.run.model_copy(update={"attention": "auto"})
    return variant.model_copy(update={"run": padded})


def open_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an additive mask for bidirectional attention, (B, 1, T, T).

    Handed to a decoder it replaces the mask that hides what comes later; padding stays hidden.

    Source: BehnamGhader et al. 2024, arXiv 2404.05961 (LLM2Vec), section 2.1, its first step alone;
    theirs then trains the decoder to guess hidden words, here fine-tuning has to do.
    """
    hidden = (attention_mask == 0)[:, None, None, :]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=attention_mask.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min).expand(
        -1, -1, attention_mask.shape[1], -1
    )


def _find_class(config: Any, kind: Kind) -> tuple[Any, Any]:
    """Return the transformers class that loads a backbone, and the class of its network."""
    import transformers

    text_encoders = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    if kind == "encoder-decoder" and type(config) in text_encoders:
        return transformers.AutoModelForTextEncoding, text_encoders[type(config)]
    found = transformers.MODEL_MAPPING.get(type(config), None)
    return transformers.AutoModel, found[0] if isinstance(found, tuple) else found


def _take_reader(whole: Any, kind: Kind) -> Any:
    """Return the text encoder, of an encoder–decoder or of a multimodal model."""
    takes = inspect.signature(whole.forward).parameters
    if kind == "encoder-decoder" and "decoder_input_ids" in takes:
        return whole.get_encoder()
    return getattr(whole, "language_model", whole)


def _quantise(
    variant: Variant, source: EncoderSource, device_type: str, precision: Precision
) -> dict[str, Any]:
    """Return the options to load a base quantised to 4 bits.

    Source: Dettmers et al. 2023, arXiv 2305.14314 (QLoRA), section 3: NormalFloat 4 with its scales
    quantised too.
    """
    if variant.adapt is None or variant.adapt.quantise == "none":
        return {}
    from importlib.util import find_spec

    without = (
        "fold with --set adapt.quantise=none keeps the base in 16 bits (a recipe of its own); what "
        "was trained beside 4 bits predicts there only"
    )
    if find_spec("bitsandbytes") is None:
        raise EncoderError(
            f"{source.name}: adapt.quantise = 'nf4' needs bitsandbytes, which is not installed: "
            f"pip install -r requirements-gpu.txt; {without}"
        )
    if device_type != "cuda":
        raise EncoderError(
            f"{source.name}: adapt.quantise = 'nf4' needs a CUDA GPU and torch sees none; {without}"
        )
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[precision],
        ),
        "device_map": {"": torch.cuda.current_device()},
    }
