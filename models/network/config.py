"""A backbone's configuration: read without running its code, and what kind of network it describes.

Before ``models.network.tokenizer`` and ``models.network.backbone``, which both go by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from competition.errors import EncoderError
from models.network.encoder_source import EncoderSource

Kind = Literal["encoder", "encoder-decoder", "decoder"]
POSITIONS_AFTER_PAD = frozenset(
    {
        "camembert",
        "data2vec-text",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Kinds whose positions are counted from the padding token's id plus one."""
READ_BOTH_WAYS = frozenset({"xlnet"})
"""Kinds that can write text word by word and, as they are loaded here, read both ways."""


def read_config(source: EncoderSource) -> Any:
    """Read a backbone's ``config.json``; code that lies beside it is never run.

    Raises:
        EncoderError: it needs code of its own, or is not what this transformers version reads.
    """
    path = source.path / "config.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise EncoderError(f"{source.name}: {path} cannot be read: {error}") from None
    _check_code(source, told)
    try:
        return _build_config(source.path, told)
    except Exception as error:  # each version of the library raises other kinds
        raise EncoderError(f"{source.name}: {path} cannot be used: {first_line(error)}") from error


def name_kind(config: Any) -> Kind:
    """Return which way a backbone reads: both ways, or word by word as language models do.

    BERT and its kin can also be built as decoders; they count as encoders unless their
    configuration asks for it.
    """
    from transformers.models.auto import modeling_auto as known

    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    if getattr(config, "is_decoder", False):
        return "decoder"
    writes = config.model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    fills = config.model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    reads_back = fills or config.model_type in READ_BOTH_WAYS
    return "decoder" if writes and not reads_back else "encoder"


def count_positions(config: Any) -> int | None:
    """Return how many tokens a backbone has positions for; None if there is no such limit."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in POSITIONS_AFTER_PAD:
        positions -= config.pad_token_id + 1
    return positions


def check_length(source: EncoderSource, config: Any, wanted: int, setting: str) -> None:
    """Refuse more tokens than the backbone has positions for.

    Raises:
        EncoderError: names the setting and its highest value.
    """
    positions = count_positions(config)
    if positions is not None and wanted > positions:
        raise EncoderError(
            f"{source.name} has positions for {positions} tokens, and {wanted} are asked for; add "
            f"--set {setting}={positions}"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's progress bars, warnings and reports off the console."""
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


def _check_code(source: EncoderSource, told: dict[str, Any]) -> None:
    """Refuse a kind of network that only code in its folder can build."""
    from transformers import CONFIG_MAPPING

    kind = told.get("model_type")
    if kind in CONFIG_MAPPING:
        return
    if told.get("auto_map"):
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


def _build_config(path: Path, told: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception:
        config = _build_in_two_steps(told)
        if config is None:
            raise
        config.name_or_path = str(path)
        return config


def _build_in_two_steps(told: dict[str, Any]) -> Any | None:
    """Build a configuration that has rotary parameters for kinds of layer that it does not have.

    So write transformers from 5.17 on where every layer of a ModernBERT attends to the whole text;
    5.9 reads it only if each kind is named. The layers are named after that.
    """
    from transformers import CONFIG_MAPPING

    rotary, layers = told.get("rope_parameters"), told.get("layer_types")
    if not isinstance(rotary, dict) or not layers or set(rotary) <= set(layers):
        return None
    if not all(isinstance(each, dict) for each in rotary.values()):
        return None
    named = [*rotary, *layers][: max(len(layers), len(rotary))]
    config = CONFIG_MAPPING[told["model_type"]].from_dict(
        {**told, "layer_types": named, "num_hidden_layers": len(named)}
    )
    config.layer_types, config.num_hidden_layers = list(layers), len(layers)
    return config
