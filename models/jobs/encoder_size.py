"""The size of an encoder, before it is downloaded: its weights, and the bytes that they take.

Counted in the files of a copy that is here, else guessed by the name.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from models.network.encoder_source import find_copy
from models.settings import ScratchSettings
from models.training.hardware import choose_precision, find_device
from models.training.memory import BYTES
from models.variant import SCRATCH, Variant

STATE_BYTES = 12  # of a weight, in a training state: float32 with both moments of AdamW
TRAINING_BYTES = 16  # of a weight in memory while it trains: the same and its gradient
KEPT_BYTES = 2  # of a weight that is kept
BY_NAME = (("large", 337e6, 1024), ("small", 68e6, 768), ("base", 111e6, 768))  # like BERT
SUPPOSED = BY_NAME[-1]
NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])", re.IGNORECASE)
"""The number of weights in the name of a decoder, such as 8B, 1.2B and 270m."""
DECODER_ROOT = 22  # of the weights, over the hidden size: Qwen3, Gemma and Llama of 1 to 9 billion
EMBEDDING = re.compile(r"embed|decoder|lm_head|^cls\.", re.IGNORECASE)  # not multiplied, or unused


EncoderKey = tuple[str, ScratchSettings | None]
"""The name of an encoder, and the shape of one with random weights."""


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """The size of an encoder.

    Attributes:
        weights: in all.
        multiplied: of them, those that every token is multiplied with.
        hidden: size of a token's state.
        is_guess: by its name, as no copy of it is here.
    """

    weights: float
    multiplied: float
    hidden: int
    is_guess: bool = False


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """The bytes of one job's weights: in a training state, in memory, and of those kept."""

    state: float
    memory: float
    kept: float


def measure_encoder(variant: Variant) -> EncoderSize:
    """Return the size of a variant's encoder: of its copy here, else guessed by its name."""
    if variant.encoder == SCRATCH:
        shape = variant.scratch
        multiplied = float(shape.layers) * (
            4 * shape.hidden**2 + 3 * shape.hidden * shape.feed_forward
        )
        weights = multiplied + shape.vocabulary * shape.hidden
        return EncoderSize(weights, multiplied, shape.hidden)
    copy = find_copy(variant.encoder)
    shapes = {} if copy is None else read_shapes(copy)
    if not shapes:
        return guess_size(variant.encoder)
    counts = {key: math.prod(shape) for key, shape in shapes.items()}
    inner = sum(size for key, size in counts.items() if not EMBEDDING.search(key))
    widths = [shape[1] for key, shape in shapes.items() if len(shape) == 2 and "embed" in key]
    return EncoderSize(sum(counts.values()), inner, max(widths, default=768))


def guess_size(name: str) -> EncoderSize:
    """Return the size of an encoder by its name: the number in it, or a word such as large.

    >>> guess_size("Qwen/Qwen3-8B-Base")
    EncoderSize(weights=8000000000.0, multiplied=7200000000.0, hidden=4096, is_guess=True)
    >>> guess_size("google/gemma-3-270m").weights, guess_size("klue/roberta-large").weights
    (270000000.0, 337000000.0)
    """
    number = NUMBER.search(name)
    if number is not None:
        weights = float(number[1]) * {"b": 1e9, "m": 1e6}[number[2].lower()]
        hidden = 64 * max(1, round(weights**0.5 / DECODER_ROOT / 64))
        return EncoderSize(weights, 0.9 * weights, hidden, is_guess=True)
    _, weights, hidden = next((each for each in BY_NAME if each[0] in name.lower()), SUPPOSED)
    return EncoderSize(weights, 0.8 * weights, hidden, is_guess=True)


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a folder's safetensors, from their headers alone.

    What is damaged is left out: who loads it says so.
    """
    shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(SafetensorError, OSError), safe_open(path, "np") as stored:
            names = stored.keys()
            shapes.update({name: tuple(stored.get_slice(name).get_shape()) for name in names})
    return shapes


def count_bytes(variant: Variant, size: EncoderSize) -> WeightBytes:
    """Return what the weights of a job take: with adapters, the base only memory."""
    # on a GPU the weights are trained there, and pass through memory once
    on_gpu = find_device() == "cuda"
    trained, base = size.weights, 0.0
    in_memory = 4 if on_gpu else TRAINING_BYTES
    if variant.adapt is not None:
        base = size.weights * BYTES[choose_precision(variant.run.precision, is_firm=False)]
        # beside a square matrix, two that are as long and ``rank`` wide
        trained = min(1.0, 2 * variant.adapt.rank / size.hidden) * size.multiplied
    return WeightBytes(STATE_BYTES * trained, base + in_memory * trained, KEPT_BYTES * trained)
