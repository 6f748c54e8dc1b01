"""The hyperparameters of a variant, by section: units, defaults and validation.

``variant`` combines them. An optional section is ``None`` there. A setting added later stays out of
the fingerprint while it has its default (``SINCE_FIRST_RESULTS`` in ``variant``), so that stored
results remain valid.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Frozen(BaseModel):
    """An immutable section that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def find_section(annotation: Any) -> type[Frozen] | None:
    """Return the section that a field of this type holds; None if it holds a plain value."""
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, Frozen)), None)


class TrainSettings(Frozen):
    """Hyperparameters of training; every field changes results. There is no early stopping."""

    lr: float = Field(3e-5, gt=0, description="peak learning rate of the head and the top layer")
    epochs: float = Field(3.0, gt=0, le=1000)
    batch_rows: int = Field(32, ge=1, description="rows per optimiser step")
    warmup_frac: float = Field(0.1, ge=0, le=1, description="share of steps with warm-up")
    final_lr_frac: float = Field(0.0, ge=0, le=1, description="final learning rate, share of lr")
    weight_decay: float = Field(0.01, ge=0)
    adam_beta2: float = Field(0.98, gt=0, lt=1)
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning-rate factor per layer down")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit"] = Field(
        "adamw", description="all but adamw need bitsandbytes; paged ones a CUDA GPU"
    )
    head_dropout: float = Field(0.1, ge=0, lt=1)
    encoder_dropout: float | None = Field(None, ge=0, lt=1, description="unset: as pretrained")
    bucket_steps: int = Field(16, ge=1, description="steps whose rows are grouped by length")


class ScratchSettings(Frozen):
    """Architecture of ``encoder = "scratch"``; no effect with any other encoder."""

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
    """Hardware settings, which do not change results: provenance, outside the fingerprint.

    ``precision`` is that of mixed precision; ``micro_tokens`` limits the size of a micro-batch, and
    gradient accumulation over micro-batches makes up a step.
    """

    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    micro_tokens: int = Field(
        8192, ge=16, description="maximum tokens per micro-batch, padding included"
    )
    gradient_checkpointing: bool = False
    attention: Literal["auto", "eager", "sdpa", "varlen"] = Field(
        "auto", description="varlen: rows without padding, by FlashAttention on a GPU"
    )
    compile: bool = Field(
        False, description="the encoder by torch.compile: minutes at first, then faster on a GPU"
    )
    state_every_s: float = Field(60.0, gt=0, description="seconds between checkpoints")
    bin_weights: bool = Field(False, description="also load pickled hub weights (.bin)")
    shard: bool = Field(
        False, description="split weights among the processes of torchrun (FSDP2), if one is short"
    )


class FormatSettings(Frozen):
    """Options of all input formats."""

    marker_order: Literal["role", "text"] = Field(
        "role", description="role: @ marks the subject; text: @ marks the first entity"
    )
    mask_entities: bool = Field(False, description="replace an entity, e.g. by [SUBJ-ORG]")
    show_source: bool = Field(False, description="put the row's source in front")
    instruction: str = Field(
        "",
        max_length=4000,
        description="text in front; {labels} and {label_words} are replaced by the names or words",
    )


class NgramSettings(Frozen):
    """The features of learners without an encoder: TF-IDF of character n-grams."""

    char_ngrams: tuple[int, int] = Field((1, 4), description="minimum and maximum n, characters")
    most_features: int = Field(2**18, ge=1000, description="hashed features per block")


class LinearSettings(NgramSettings):
    """The linear model, for ``learner = "linear"`` and to measure difficulty."""

    regularisation: float = Field(0.2, gt=0, description="C of the linear SVM")
    inner_folds: int = Field(2, ge=2, le=10, description="folds of the calibration, by group")


class MlpSettings(NgramSettings):
    """The multilayer perceptron on n-grams, for ``learner = "mlp"``."""

    hidden: int = Field(128, ge=8, description="units of the hidden layer")
    epochs: int = Field(2, ge=1, le=100)
    batch_rows: int = Field(64, ge=1, description="rows per optimiser step")
    lr: float = Field(0.1, gt=0, description="initial learning rate of the features' weights")
    head_lr: float = Field(1e-3, gt=0, description="initial learning rate of the output layer")
    dropout: float = Field(0.3, ge=0, lt=1, description="of hidden units")
    feature_dropout: float = Field(0.5, ge=0, lt=1, description="of the features of each row")


class LossSettings(Frozen):
    """Options of the losses and of class weights."""

    focal_gamma: float = Field(2.0, ge=0, description="of loss = focal")
    class_weight: Literal["none", "inverse-sqrt", "effective"] = "none"
    effective_beta: float = Field(0.999, gt=0, lt=1, description="of class_weight = effective")


class SamplingSettings(Frozen):
    """Weighted sampling with replacement: rare labels are drawn more often."""

    label_power: float = Field(
        0.5, gt=0, le=1, description="a label of n rows is drawn as if it had n^(1 - power)"
    )


class CurriculumSettings(Frozen):
    """Curriculum learning: at competence c, rows are drawn from the easiest share c."""

    by: Literal["length", "difficulty"]
    start_competence: float = Field(0.1, gt=0, le=1, description="competence at step 0")
    pace_frac: float = Field(0.5, gt=0, le=1, description="share of steps until competence is 1")


class AugmentSettings(Frozen):
    """Data augmentation, drawn again in each epoch, of training rows only."""

    ways: tuple[Literal["entity-mask", "aeda", "swap", "delete"], ...] = Field(min_length=1)
    share: float = Field(0.3, gt=0, le=1, description="share of rows to change per epoch")
    labels: tuple[str, ...] = Field((), description="only rows with these labels; empty: all")
    seed: int = Field(0, ge=0, description="combined with the seed of the job")


class RegulariseSettings(Frozen):
    """Regularisation of training: R-Drop, adversarial training, multi-sample dropout, EMA.

    Each is off by default.
    """

    r_drop: float = Field(0.0, ge=0, description="weight of the divergence of two dropout passes")
    adversarial: Literal["none", "fgm", "awp"] = "none"
    adversarial_size: float = Field(
        0.5, gt=0, description="norm of the perturbation, relative to that of what it perturbs"
    )
    adversarial_from: float = Field(0.0, ge=0, lt=1, description="share of steps before it starts")
    dropout_samples: int = Field(1, ge=1, le=32, description="dropout masks averaged in the head")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="0 uses the weights of the last step")


class RestrictSettings(Frozen):
    """Rule out labels that do not occur with a pair of entity types in the training rows."""

    when: Literal["predict", "train"] = "predict"
    min_count: int = Field(2, ge=1, description="minimum training rows to allow a label")


class CleanSettings(Frozen):
    """Cleaning of training rows, and corrections of entity types; held-out rows are all scored."""

    duplicates: Literal["keep", "drop"] = "keep"
    conflicts: Literal["keep", "drop-negative", "drop-all"] = "keep"
    corrections: str = Field(
        "", description="CSV of corrected types and labels: split,id,role,type"
    )


class PseudoSettings(Frozen):
    """Pseudo-labelling: test rows with labels predicted by another variant, of the same fold."""

    variant: str = Field(min_length=1)
    min_confidence: float = Field(0.9, gt=0, le=1)
    most_share: float = Field(0.5, gt=0, description="maximum, as a share of the training rows")


class DistilSettings(Frozen):
    """Distillation: unlabelled rows with the soft labels of other variants, of the same fold."""

    members: tuple[str, ...] = Field(min_length=1, description="variants that teach")
    shares: tuple[float, ...] = Field((), description="weights of the members; none: equal")
    rows: Literal["test", "test+heldout"] = Field(
        "test+heldout", description="with the held-out rows, OOF and test are treated alike"
    )
    weight: float = Field(1.0, gt=0, description="of such a row, relative to a labelled one")
    temperature: float = Field(1.0, gt=0, description="above 1: softer labels")

    @model_validator(mode="after")
    def _check_shares(self) -> DistilSettings:
        if len(set(self.members)) < len(self.members):
            raise ValueError("distil.members names a variant twice")
        if self.shares and len(self.shares) != len(self.members):
            raise ValueError(
                f"distil.shares has {len(self.shares)} numbers for {len(self.members)} members"
            )
        if any(not share > 0 for share in self.shares):
            raise ValueError("distil.shares are positive")
        return self


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
    """Provenance of a variant that ``tune`` wrote; no effect on training."""

    folds: tuple[int, ...]
    trials: int
    study: str
    folds_hash: str = Field("", description="of those folds; unset in files of earlier versions")
