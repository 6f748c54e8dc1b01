"""The sections of a variant: every setting with its unit, its default and its check.

Read by ``variant``, which resolves a variant from them. A section that a variant may do without is
``None`` there; a setting that came after the first results leaves the fingerprint while it has its
default (``SINCE_FIRST_RESULTS`` in ``variant``), so that what teams have stored stays valid.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Frozen(BaseModel):
    """A section that cannot be changed and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainSettings(Frozen):
    """How a fold is fitted; every field changes results."""

    lr: float = Field(3e-5, gt=0, description="peak learning rate of the head and the top layer")
    epochs: float = Field(3.0, gt=0, le=1000)
    batch_rows: int = Field(32, ge=1, description="rows of one optimiser step")
    warmup_frac: float = Field(0.1, ge=0, le=1, description="share of the steps spent warming up")
    final_lr_frac: float = Field(0.0, ge=0, le=1, description="rate at the end, as share of lr")
    weight_decay: float = Field(0.01, ge=0)
    adam_beta2: float = Field(0.98, gt=0, lt=1)
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a layer over the one above it")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    head_dropout: float = Field(0.1, ge=0, lt=1)
    encoder_dropout: float | None = Field(None, ge=0, lt=1, description="unset: as published")
    bucket_steps: int = Field(
        16, ge=1, description="steps whose rows are sorted by length together"
    )


class ScratchSettings(Frozen):
    """The encoder made for ``encoder = "scratch"``; without effect for any other encoder."""

    layers: int = Field(4, ge=1, le=48)
    hidden: int = Field(128, ge=32)
    heads: int = Field(2, ge=1)
    feed_forward: int = Field(256, ge=32)
    vocabulary: int = Field(8000, ge=200)
    dropout: float = Field(0.1, ge=0, lt=1, description="of the token embeddings")

    @field_validator("heads")
    @classmethod
    def _even_heads(cls, heads: int, info: Any) -> int:
        hidden = info.data.get("hidden", 0)
        if hidden % (2 * heads):
            raise ValueError(f"hidden={hidden} is not a multiple of 2 × heads={2 * heads}")
        return heads


class RunSettings(Frozen):
    """How the work is laid on the hardware; provenance, outside the fingerprint."""

    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    micro_tokens: int = Field(
        8192, ge=16, description="most tokens, padding included, held at once"
    )
    gradient_checkpointing: bool = False
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    state_every_s: float = Field(60.0, gt=0, description="seconds between training states")
    bin_weights: bool = Field(False, description="also load pickled hub weights (.bin)")


class FormatSettings(Frozen):
    """Options of every input format."""

    marker_order: Literal["role", "text"] = Field(
        "role", description="role: the subject is always @; text: whoever comes first is @"
    )
    mask_entities: bool = Field(False, description="[SUBJ-ORG] in place of the word")
    show_source: bool = Field(False, description="the row's source as a segment in front")
    instruction: str = Field(
        "", max_length=4000, description="text in front; {labels} stands for the labels' names"
    )


class LinearSettings(Frozen):
    """The classical learner, ``learner = "linear"``, and what measures difficulty."""

    regularisation: float = Field(0.2, gt=0, description="C of the linear classifiers")
    char_ngrams: tuple[int, int] = Field((1, 4), description="shortest and longest, characters")
    most_features: int = Field(2**18, ge=1000, description="of each block, hashed together beyond")
    inner_folds: int = Field(2, ge=2, le=10, description="of the calibration, groups whole")


class LossSettings(Frozen):
    """What the losses and their class weights take."""

    focal_gamma: float = Field(2.0, ge=0, description="of loss = focal")
    class_weight: Literal["none", "inverse-sqrt", "effective"] = "none"
    effective_beta: float = Field(0.999, gt=0, lt=1, description="of class_weight = effective")


class SamplingSettings(Frozen):
    """Weighted sampling: rows drawn with replacement, rare labels more often."""

    label_power: float = Field(
        0.5, gt=0, le=1, description="a label of n rows is drawn as if it had n^(1 - power)"
    )


class CurriculumSettings(Frozen):
    """Easy rows first: at competence c, rows are drawn from the easiest share c."""

    by: Literal["length", "difficulty"]
    start_competence: float = Field(0.1, gt=0, le=1, description="share of rows shown at step 0")
    pace_frac: float = Field(0.5, gt=0, le=1, description="share of the steps until all are shown")


class AugmentSettings(Frozen):
    """Rows changed afresh each epoch, training rows only."""

    ways: tuple[Literal["entity-mask", "aeda", "swap", "delete"], ...] = Field(min_length=1)
    share: float = Field(0.3, gt=0, le=1, description="of the rows of the labels, each epoch")
    labels: tuple[str, ...] = Field((), description="only rows of these; none named: of all")
    seed: int = Field(0, ge=0, description="of its own, beside the job's seed")


class RegulariseSettings(Frozen):
    """Regularisers of the training step, each off at its default."""

    r_drop: float = Field(0.0, ge=0, description="weight of the divergence of two dropout passes")
    adversarial: Literal["none", "fgm", "awp"] = "none"
    adversarial_size: float = Field(
        0.5, gt=0, description="share: FGM of a word vector's norm, AWP of a weight's"
    )
    adversarial_from: float = Field(0.0, ge=0, lt=1, description="share of the steps before it")
    dropout_samples: int = Field(1, ge=1, le=32, description="dropout masks averaged in the head")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="0: the last step's weights are kept")


class RestrictSettings(Frozen):
    """Labels that an entity type pair never has in the training rows are ruled out."""

    when: Literal["predict", "train"] = "predict"
    min_count: int = Field(2, ge=1, description="rows from which a pair is known to have a label")


class CleanSettings(Frozen):
    """What is done to training rows before they are used; held-out rows keep their labels."""

    duplicates: Literal["keep", "drop"] = "keep"
    conflicts: Literal["keep", "drop-negative", "drop-all"] = "keep"
    corrections: str = Field(
        "", description="CSV of corrected types and labels: split,id,role,type"
    )


class PseudoSettings(Frozen):
    """Test rows with the labels that another variant's model of the same fold gives them."""

    variant: str = Field(min_length=1)
    min_confidence: float = Field(0.9, gt=0, le=1)
    most_share: float = Field(0.5, gt=0, description="at most this share of the training rows")


class AdaptSettings(Frozen):
    """Low-rank adapters beside a backbone that stays as it is."""

    method: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, le=1024, description="columns of the narrow matrices")
    alpha: int = Field(32, gt=0, description="what they add is multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of what adapters read")
    targets: tuple[str, ...] = Field(
        (), description="names of linear layers, such as q_proj; none: all inside the blocks"
    )
    quantise: Literal["none", "nf4"] = Field("none", description="the base in 4 bits, on a GPU")


class TuneSettings(Frozen):
    """What ``tune`` found; kept with the variant that it wrote, without effect on training."""

    folds: tuple[int, ...]
    trials: int
    study: str
    folds_hash: str = Field("", description="of those folds; unset: written before it was kept")
