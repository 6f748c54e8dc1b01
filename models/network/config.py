"""Read the configuration of a backbone, without running its code, and determine its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from competition.errors import EncoderError
from competition.files import parse_json
from models.network.encoder_source import EncoderSource

Kind = Literal["encoder", "encoder-decoder", "decoder"]
POSITIONS_AFTER_PAD = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "lilt",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Kinds whose positions start at the id of the padding token plus one."""
READ_BOTH_WAYS = frozenset({"xlnet"})
"""Kinds that can generate text and, as loaded here, use bidirectional attention."""
TEXT_PART = re.compile(r"_text(?:_model)?$")
"""What the name of the text part of a kind that also sees images ends with."""
POSITIONS_FROM_MASK = frozenset({"biogpt", "bloom", "opt"})
"""Kinds of decoders that count positions from the mask of (B, T), which ``open_mask`` replaces."""


def read_config(source: EncoderSource) -> Any:
    """Read the ``config.json`` of a backbone; code in its folder is never run.

    Raises:
        EncoderError: it needs custom code, or this transformers version cannot read it.
    """
    path = source.path / "config.json"
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise EncoderError(f"{source.name}: {path} cannot be read: {error}") from None
    _check_code(source, content)
    try:
        return _build_config(source.path, content)
    except Exception as error:  # each version of the library raises other kinds
        raise EncoderError(f"{source.name}: {path} cannot be used: {first_line(error)}") from error


def name_kind(config: Any) -> Kind:
    """Return whether a backbone's attention is bidirectional or causal.

    BERT and similar can also be built as decoders; they count as encoders unless their
    configuration asks for it. What writes about images is a decoder too, and so is its part that
    reads text.
    """
    from transformers.models.auto import modeling_auto as known

    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    if getattr(config, "is_decoder", False):
        return "decoder"
    writers = {
        *known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    }
    writes = not writers.isdisjoint({config.model_type, TEXT_PART.sub("", config.model_type)})
    fills = config.model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    reads_back = fills or config.model_type in READ_BOTH_WAYS
    return "decoder" if writes and not reads_back else "encoder"


def count_positions(config: Any) -> int | None:
    """Return the maximum number of tokens of a backbone; None if there is no limit."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:  # XLNet says -1
        return None
    if config.model_type in POSITIONS_AFTER_PAD:
        positions -= config.pad_token_id + 1
    return positions


def counts_from_mask(config: Any) -> bool:
    """Return whether a decoder needs the mask of padding (B, T) to count positions."""
    return config.model_type in POSITIONS_FROM_MASK or bool(getattr(config, "alibi", False))


def check_length(source: EncoderSource, config: Any, wanted: int, setting: str) -> None:
    """Check that the backbone supports a number of tokens.

    Raises:
        EncoderError: names the setting and its maximum.
    """
    positions = count_positions(config)
    if positions is not None and wanted > positions:
        raise EncoderError(
            f"{source.name} supports at most {positions} tokens, not {wanted}; add "
            f"--set {setting}={positions}"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, or the class of the error if it is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars, warnings and reports of transformers."""
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


def _check_code(source: EncoderSource, content: dict[str, Any]) -> None:
    """Refuse a kind of network that needs code from its folder."""
    from transformers import CONFIG_MAPPING

    kind = content.get("model_type")
    if kind in CONFIG_MAPPING:
        return
    if content.get("auto_map"):
        raise EncoderError(
            f"{source.name}: a network of kind {kind!r} is built by code of its own "
            "(auto_map in config.json), which is never run here; choose an encoder of a kind that "
            "transformers has"
        )
    import transformers

    raise EncoderError(
        f"{source.name}: transformers {transformers.__version__} knows no network of kind {kind!r} "
        "(model_type in config.json); choose another encoder, or a newer transformers"
    )


def _build_config(path: Path, content: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception:
        config = _build_in_two_steps(content)
        if config is None:
            raise
        config.name_or_path = str(path)
        return config


def _build_in_two_steps(content: dict[str, Any]) -> Any | None:
    """Build a configuration with rotary parameters for layer types that it does not use.

    So write transformers from 5.17 on where every layer of a ModernBERT attends to the whole text;
    5.9 reads it only if each kind is named. The layers are named after that.
    """
    from transformers import CONFIG_MAPPING

    rotary, layers = content.get("rope_parameters"), content.get("layer_types")
    if not isinstance(rotary, dict) or not layers or set(rotary) <= set(layers):
        return None
    if not all(isinstance(each, dict) for each in rotary.values()):
        return None
    named = [*rotary, *layers][: max(len(layers), len(rotary))]
    config = CONFIG_MAPPING[content["model_type"]].from_dict(
        {**content, "layer_types": named, "num_hidden_layers": len(named)}
    )
    config.layer_types, config.num_hidden_layers = list(layers), len(layers)
    return config
