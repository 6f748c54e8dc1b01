"""The options of ``pretrain``: texts and their weights, encoder or size, hyperparameters, length.

Hyperparameters come from the defaults below, then from those of the kind of run, then ``--set``.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from competition.errors import UsageError
from competition.options import check_at_least, check_seeds
from models.network.encoder_source import MINI, PRETRAINED, find_kind
from models.settings import RunSettings, ScratchSettings
from models.variant import SCRATCH

UNUSED = {"attention": "varlen", "compile": True, "shard": True}
"""Run settings without effect on pretraining: no sequence has padding, and one process trains."""


def list_unused(run: RunSettings) -> list[str]:
    """Return the names of run settings that have a value without effect on pretraining."""
    return [f"run.{name}" for name, value in UNUSED.items() if getattr(run, name) == value]


def leave_out_unused(run: RunSettings) -> RunSettings:
    """Return run settings with the defaults of those without effect on pretraining."""
    kept = run.model_dump(exclude={name.removeprefix("run.") for name in list_unused(run)})
    return RunSettings(**kept)


class PretrainSettings(BaseModel):
    """Hyperparameters of pretraining; every field except ``run`` changes results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(2e-3, gt=0, description="peak learning rate of AdamW")
    muon_lr: float = Field(2e-3, gt=0, description="peak learning rate of Muon, on AdamW's scale")
    weight_decay: float = Field(0.01, ge=0)
    adam_beta2: float = Field(0.98, gt=0, lt=1)
    batch_sequences: int = Field(16, ge=1, description="sequences per optimiser step")
    sequence_tokens: int = Field(128, ge=8)
    warmup_steps: int = Field(200, ge=0)
    decay_frac: float = Field(0.2, ge=0, le=1, description="share of steps in the decay phase")
    decay_shape: Literal["linear", "sqrt"] = "linear"
    masking: Literal["whole-word", "span", "token"] = "whole-word"
    replacement: Literal["mixed", "mask"] = "mixed"
    mask_rate: float = Field(0.25, gt=0, lt=1)
    final_mask_rate: float = Field(0.15, gt=0, lt=1, description="reached at the end of the decay")
    clip_norm: float = Field(1.0, gt=0)
    heldout_every_steps: int = Field(500, ge=1, description="steps between held-out evaluations")
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _nothing_idle(self) -> PretrainSettings:
        fields = type(self).model_fields
        if self.optimizer != "muon" and self.muon_lr != fields["muon_lr"].default:
            raise ValueError("muon_lr has no effect without optimizer=muon")
        if self.decay_frac == 0 and self.decay_shape != fields["decay_shape"].default:
            raise ValueError("decay_shape has no effect without decay_frac")
        return self


DEFAULT_EPOCHS = 10
"""Number of epochs over all text if no number of tokens is given."""
DECAY_SETTINGS = ("decay_frac", "decay_shape", "final_mask_rate")
"""Settings without effect before the learning-rate decay."""


@dataclass(frozen=True)
class Size:
    """The architecture of an encoder trained from scratch, and its recommended settings."""

    scratch: ScratchSettings
    settings: Mapping[str, Any]


SIZES: dict[str, Size] = {
    "mini": Size(
        ScratchSettings(
            layers=6, hidden=256, heads=4, feed_forward=512, vocabulary=16_000, dropout=0.0
        ),
        {"lr": 2e-3, "batch_sequences": 16},
    ),
    "small": Size(
        ScratchSettings(
            layers=12, hidden=384, heads=6, feed_forward=1024, vocabulary=32_000, dropout=0.0
        ),
        {"lr": 1.5e-3, "batch_sequences": 64},
    ),
    "base": Size(
        ScratchSettings(
            layers=22, hidden=768, heads=12, feed_forward=1152, vocabulary=32_000, dropout=0.0
        ),
        {"lr": 8e-4, "batch_sequences": 256, "warmup_steps": 1000},
    ),
}
ADAPTING: dict[str, dict[str, Any]] = {
    PRETRAINED: {"lr": 5e-5, "batch_sequences": 32, "mask_rate": 0.15},
    MINI: {"lr": 5e-4, "batch_sequences": 32, "mask_rate": 0.15},
    SCRATCH: {"lr": 1e-3},
}
"""Recommended settings for continued pretraining, by kind of encoder."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning-rate schedule: total steps, the step where decay starts, warm-up steps."""

    steps: int
    decay_start: int
    warmup: int
    is_sqrt: bool

    def rate(self, step: int) -> float:
        """Return the learning rate at a step (counted from 0), as a fraction of its peak.

        >>> schedule = Schedule(steps=10, decay_start=6, warmup=2, is_sqrt=False)
        >>> [schedule.rate(step) for step in (0, 1, 5, 6, 8, 9)]
        [0.5, 1.0, 1.0, 1.0, 0.5, 0.25]

        Source: warmup-stable-decay, MiniCPM (Hu et al. 2024, arXiv 2404.06395), section 4; the
        form 1 - sqrt of Hägele et al. 2024 (arXiv 2405.18392), section 3.
        """
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = self.decayed(step)
        return warm * (1.0 - (math.sqrt(done) if self.is_sqrt else done))

    def decayed(self, step: int) -> float:
        """Return the share of the decay completed before a step, 0 to 1."""
        return max(0.0, (step - self.decay_start) / max(1, self.steps - self.decay_start))


def build_schedule(settings: PretrainSettings, tokens: int) -> Schedule:
    """Return the schedule for ``tokens`` tokens, rounded to whole steps, at least one."""
    steps = max(1, round(tokens / (settings.batch_sequences * settings.sequence_tokens)))
    start = steps - round(settings.decay_frac * steps)
    return Schedule(steps, start, settings.warmup_steps, settings.decay_shape == "sqrt")


@dataclass(frozen=True)
class TextWeights:
    """How often a text is used per epoch, before the decay and in it."""

    stable: float
    decay: float

    def __str__(self) -> str:
        """Return the weights in the syntax of ``parse_weights``."""
        stable, decay = f"{self.stable:g}", f"{self.decay:g}"
        return stable if stable == decay else f"{stable}:{decay}"


@dataclass(frozen=True)
class PretrainRequest:
    """Options of ``pretrain``: an encoder to continue from, or the size of a new one."""

    encoder: str | None = None
    size: str | None = None
    corpora: tuple[tuple[Path, TextWeights], ...] = ()
    task_weights: TextWeights = TextWeights(1.0, 1.0)
    test_sentences: bool = False
    leave_out_fold: int | None = None
    out: Path | None = None
    tokens: int | None = None
    seed: int = 42
    threads: int | None = None
    stop_after_s: float | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    licence: str | None = None
    context: tuple[str, ...] = ()  # the arguments that name the competition

    def __post_init__(self) -> None:
        """Check the seed and the number of threads.

        Raises:
            UsageError: one is out of range.
        """
        check_seeds("--seed", [self.seed])
        check_at_least("--threads", self.threads, 1)

    @property
    def default_name(self) -> str:
        """The default name of the output folder."""
        kind = f"scratch-{self.size}" if self.size else f"{Path(self.encoder or '').name}-adapted"
        without = "" if self.leave_out_fold is None else f"-without-f{self.leave_out_fold}"
        tests = "-test" if self.test_sentences else ""
        return f"{kind}{without}{tests}-s{self.seed}"

    @property
    def kind(self) -> str:
        """The kind of encoder, which decides the recommended settings."""
        return self.size or find_kind(self.encoder or "")


def parse_weights(text: str, option: str) -> TextWeights:
    """Parse ``2``, or ``2:5`` for the weights before and in the decay.

    >>> parse_weights("2:5", "--task-weight"), parse_weights("0.4", "--task-weight")
    (TextWeights(stable=2.0, decay=5.0), TextWeights(stable=0.4, decay=0.4))

    Raises:
        UsageError: the text has another form.
    """
    found = re.fullmatch(r"(\d+\.?\d*)(?::(\d+\.?\d*))?", text, re.ASCII)
    if not found:
        raise UsageError(f"{option} {text!r}: use a weight such as 2, or 2:5 (5 in the decay)")
    return TextWeights(float(found[1]), float(found[2] or found[1]))


def parse_corpus(text: str) -> tuple[Path, TextWeights]:
    """Parse ``FILE``, ``FILE=2`` or ``FILE=2:5``.

    >>> [(path.name, str(weights)) for path, weights in map(parse_corpus, ("a=b.txt", "a.xz=3:1"))]
    [('a=b.txt', '1'), ('a.xz', '3:1')]
    """
    name, equals, weights = text.rpartition("=")
    if equals and re.fullmatch(r"[\d.:]+", weights, re.ASCII):
        return Path(name).expanduser(), parse_weights(weights, f"--corpus {name}=")
    return Path(text).expanduser(), TextWeights(1.0, 1.0)


def parse_count(text: str) -> int:
    """Parse a number of tokens.

    >>> parse_count("30M"), parse_count("1.5k"), parse_count("200000")
    (30000000, 1500, 200000)

    Raises:
        UsageError: it is not a positive number.
    """
    found = re.fullmatch(r"(\d+\.?\d*)([kMG]?)", text, re.ASCII)
    count = round(float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]]) if found else 0
    if count < 1:
        raise UsageError(f"--tokens {text!r} is not a number such as 30M, 500k or 200000")
    return count


def resolve_settings(request: PretrainRequest) -> PretrainSettings:
    """Return the settings: the defaults, those of the kind of run, then ``--set``.

    Raises:
        UsageError: neither or both of encoder and size; an unknown size, setting or value; a run
            setting without effect.
    """
    if (request.encoder is None) == (request.size is None):
        raise UsageError(
            "name an encoder to continue from (--encoder), or train one from scratch"
            " (--scratch --size mini)"
        )
    if request.size is not None and request.size not in SIZES:
        raise UsageError(f"--size {request.size!r}: choose one of {', '.join(SIZES)}")
    if request.size is not None:
        tree = dict(SIZES[request.size].settings)
    else:
        tree = dict(ADAPTING[request.kind])
    for key, value in request.overrides:
        group, dot, leaf = key.partition(".")
        if not dot:
            tree[key] = value
        elif isinstance(tree.setdefault(group, {}), dict):
            tree[group][leaf] = value
        else:
            raise UsageError(f"--set {key}: {group!r} is a single value, not a section")
    try:
        settings = PretrainSettings.model_validate(tree)
    except ValidationError as error:
        raise UsageError("\n".join(map(_explain, error.errors()))) from None
    unused = list_unused(settings.run)
    if unused:
        raise UsageError(f"--set {unused[0]} has no effect on pretraining; leave it out")
    return settings


def _explain(problem: Any) -> str:
    if problem["type"] == "value_error":
        return f"--set {problem['ctx']['error']}"
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"--set {key}: {problem['msg']}"
    model: Any = RunSettings if "." in key else PretrainSettings
    return f"--set {key}: no such setting; choose one of {', '.join(sorted(model.model_fields))}"


def describe_command(request: PretrainRequest, out: Path) -> str:
    """Return the command that reproduces an encoder, one option per line."""
    parts: list[list[Any]] = [
        ["--scratch", "--size", request.size] if request.size else ["--encoder", request.encoder]
    ]
    parts += [["--corpus", f"{path}={weights}"] for path, weights in request.corpora]
    parts.append(["--task-weight", request.task_weights])
    if request.test_sentences:
        parts.append(["--test-sentences"])
    if request.leave_out_fold is not None:
        parts.append(["--leave-out-fold", request.leave_out_fold])
    if request.tokens is not None:
        parts.append(["--tokens", request.tokens])
    parts += [["--set", f"{key}={value}"] for key, value in request.overrides]
    parts += [["--seed", request.seed], ["--out", out]]
    if request.threads is not None:
        parts.append(["--threads", request.threads])
    if request.licence is not None:
        parts.append(["--licence", request.licence])
    parts += [list(pair) for pair in zip(request.context[::2], request.context[1::2], strict=True)]
    lines = [shlex.join(map(str, words)) for words in parts]
    return " \\\n  ".join(["python run.py pretrain", *lines])
