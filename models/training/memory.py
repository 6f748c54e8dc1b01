"""GPU memory of a fit: estimates, size of micro-batches, and reaction to out-of-memory errors.

Used before the first step and whenever a step does not fit. Nothing here changes results: by
gradient accumulation, a step is the same sum over rows for any micro-batches.
Legend: T tokens of a row, H hidden size, F feed-forward size, A attention heads, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from competition.errors import DeviceError
from models.training.optimizer import MOMENT_BYTES, PLAIN
from models.training.sharding import count_gathered
from models.training.step import MemoryFullError, StepPart

SAFE_FRAC = 0.9
"""Share of the free memory that an estimate may use; the rest is a reserve."""
ADAM_BYTES = MOMENT_BYTES[PLAIN]
GRADIENT_BYTES = 4
MIN_TOKENS = 16
GIB = 2**30
BYTES = {"float32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Memory of a fit in bytes: a fixed part, and a part per token.

    Attributes:
        weights: the network, and its running average if there is one.
        gradients: of what is trained.
        optimizer: AdamW's two moments of what is trained.
        copies: of the weights in 16 bits, which mixed precision holds during a step.
        per_token: activations that the backward pass needs.
        per_token_checkpointed: the same, if each layer is computed a second time.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    per_token: int
    per_token_checkpointed: int

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.weights + self.gradients + self.optimizer + self.copies

    def describe(self, tokens: int) -> str:
        """Describe the parts, in GiB."""
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "copies": self.copies,
            f"activations of {tokens} tokens": self.per_token * tokens,
        }
        return ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items()) + " GiB"


def divide_need(need: MemoryNeed, model: nn.Module, ranks: int) -> MemoryNeed:
    """Return what each of several ranks needs for a sharded network.

    That is its part, and what is gathered for the moment, with its gradients (``copies``).
    """
    return replace(
        need,
        weights=need.weights // ranks,
        gradients=need.gradients // ranks,
        optimizer=need.optimizer // ranks,
        copies=2 * GRADIENT_BYTES * count_gathered(model),
    )


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Settings of a fit that save memory: tokens per micro-batch, and activation checkpointing."""

    micro_tokens: int
    checkpointing: bool


def estimate_need(
    model: nn.Module,
    config: Any,
    *,
    precision: str,
    longest: int,
    averages: bool = False,
    moments: float = ADAM_BYTES,
) -> MemoryNeed:
    """Estimate the memory of a fit.

    Args:
        model: as it will be trained, adapters in place.
        config: of its backbone.
        precision: of the matrix products.
        longest: T of the longest row.
        averages: a running average of all weights is kept.
        moments: bytes of a trained weight's moments (``models.training.optimizer``).

    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1: the tensors that a layer keeps
    for its backward pass. Theirs has F = 4H; here layers with gates and with plain attention are
    counted too.
    """
    parameters = list(model.parameters())
    sizes = [(each.numel() * each.element_size(), each) for each in parameters]
    weights = sum(size for size, _ in sizes)
    trained = sum(each.numel() for each in parameters if each.requires_grad)
    cast = [each for each in parameters if each.dtype == torch.float32 and each.ndim > 1]
    element = BYTES[precision]
    copies = 0 if element == 4 else sum(each.numel() for each in cast) * element
    hidden, layers = config.hidden_size, config.num_hidden_layers
    feed = getattr(config, "intermediate_size", None) or getattr(config, "d_ff", 4 * hidden)
    # kernels other than the plain one keep no scores; recurrent networks have none
    heads = getattr(config, "num_attention_heads", 0)
    scores = 3 * heads * longest if config._attn_implementation == "eager" else 0
    in_layer = (8 * hidden + 4 * feed + scores) * element + 2 * hidden * 4  # norms are in float32
    return MemoryNeed(
        weights=weights * (2 if averages else 1),
        gradients=trained * GRADIENT_BYTES,
        optimizer=int(trained * moments),
        copies=copies,
        per_token=layers * in_layer,
        per_token_checkpointed=layers * hidden * element + in_layer,
    )


def plan_memory(
    need: MemoryNeed, *, free: int | None, micro_tokens: int, longest: int, checkpointing: bool
) -> MemoryPlan:
    """Choose the size of micro-batches so that a fit does not exceed the memory.

    What a person asked for is the most; layers are computed twice only where the longest row would
    not fit otherwise.

    Args:
        need: the estimate.
        free: bytes that are free for all of it; None if unknown: nothing is changed.
        micro_tokens: the most that a person wants.
        longest: tokens of the longest row, which is never cut.
        checkpointing: a person wants layers computed twice.

    Raises:
        DeviceError: not even the weights with one row fit.
    """
    if free is None:
        return MemoryPlan(micro_tokens, checkpointing)
    rest = int(free * SAFE_FRAC) - need.fixed
    for twice in (True,) if checkpointing else (False, True):
        fit = rest // (need.per_token_checkpointed if twice else need.per_token)
        if fit >= longest:
            return MemoryPlan(max(MIN_TOKENS, min(micro_tokens, fit)), twice)
    raise DeviceError(
        f"the fit needs more than the {free / GIB:.1f} GiB that are free: about "
        f"{need.describe(longest)}; choose a smaller encoder, or train adapters beside it: --set "
        "adapt.rank=16, and --set adapt.quantise=nf4 for a base in 4 bits; or split its weights "
        "among several GPUs: torchrun --nproc-per-node 2 run.py fold … --set run.shard=true"
    )


def measure_free(device: torch.device, sharers: int = 1) -> int | None:
    """Return the memory of a GPU that one of several jobs on it may take, in bytes.

    None on other devices, which share memory with all programs.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return min(free, total // sharers)


@dataclass
class TokenBudget:
    """The maximum tokens per micro-batch, padding included; halved on an out-of-memory error."""

    tokens: int

    def halve(self, parts: Sequence[StepPart], error: MemoryFullError) -> str:
        """Halve the size of micro-batches, and return a message.

        Raises:
            RuntimeError: the original error, if every micro-batch is already a single row.
        """
        if all(len(part.label_ids) == 1 for part in parts):
            raise error.cause
        largest = max(part.batch.input_ids.numel() for part in parts)
        self.tokens = max(MIN_TOKENS, min(self.tokens, largest) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return f"out of memory: continuing with micro-batches of at most {self.tokens} tokens"
