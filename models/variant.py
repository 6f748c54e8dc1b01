"""A model variant: one frozen, validated description of what is trained, and its fingerprint.

Stands before everything that learns: ``fold`` resolves a variant from, in rising precedence, the
defaults written here, what its encoder recommends, the competition's profile, the variant's own
TOML file and the command line. The resolved variant is hashed together with its data.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from competition.errors import VariantError
from competition.files import check_name

VARIANTS_DIR = Path(__file__).parent / "variants"
SCRATCH = "scratch"
MOST_NAME_CHARS = 60  # a derived name beyond it is a hash instead
OUTSIDE_FINGERPRINT = frozenset({"name", "why", "seeds", "run"})

Settings = dict[str, Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainSettings(_Frozen):
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
    bucket_steps: int = Field(
        16, ge=1, description="steps whose rows are sorted by length together"
    )


class ScratchSettings(_Frozen):
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


class RunSettings(_Frozen):
    """How the work is laid on the hardware; provenance, outside the fingerprint."""

    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    micro_tokens: int = Field(
        8192, ge=16, description="most tokens, padding included, held at once"
    )
    gradient_checkpointing: bool = False
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    state_every_s: float = Field(60.0, gt=0, description="seconds between training states")
    bin_weights: bool = Field(False, description="also load pickled hub weights (.bin)")


class Variant(_Frozen):
    """One resolved model variant."""

    name: str
    why: str = Field(min_length=1)
    encoder: str = Field(min_length=1)
    format: str
    head: str
    loss: str = "cross-entropy"
    max_tokens: int = Field(256, ge=16)
    route: str | None = Field(None, pattern=r"^length:(short|medium|long)$")
    seeds: tuple[int, ...] = Field((42,), min_length=1)
    train: TrainSettings = TrainSettings()
    scratch: ScratchSettings = ScratchSettings()
    run: RunSettings = RunSettings()

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        from models.formats import FORMATS

        return _one_of(value, FORMATS)

    @field_validator("head")
    @classmethod
    def _known_head(cls, value: str) -> str:
        from models.heads import HEADS

        return _one_of(value, HEADS)

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        from models.losses import LOSSES

        return _one_of(value, LOSSES)

    def recipe(self) -> Settings:
        """Return what of the variant determines results: no name, reason, seeds or hardware."""
        settings = self.model_dump(mode="json", exclude=set(OUTSIDE_FINGERPRINT))
        if self.encoder != SCRATCH:
            del settings["scratch"]
        return settings


def _one_of(value: str, choices: Mapping[str, object]) -> str:
    if value not in choices:
        raise ValueError(f"{value!r} is unknown; choose one of {', '.join(sorted(choices))}")
    return value


def list_variants() -> list[str]:
    """Name every shipped variant, sorted."""
    return sorted(path.stem for path in VARIANTS_DIR.glob("*.toml"))


def parse_override(text: str) -> tuple[str, Any]:
    """Read one ``--set`` argument; the value is read as TOML, else taken as a string.

    >>> parse_override("train.lr=3e-5"), parse_override("head=cls"), parse_override("seeds=[1, 2]")
    (('train.lr', 3e-05), ('head', 'cls'), ('seeds', [1, 2]))
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip() or not raw.strip():
        raise VariantError(f"--set {text!r} is not of the form key=value, such as train.lr=3e-5")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return key.strip(), value


def resolve_variant(
    name: str,
    *,
    encoder: str,
    encoder_override: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
    save_as: str | None = None,
) -> Variant:
    """Resolve a variant from its file and everything that may override it.

    Args:
        name: a shipped variant's name, or the path of a person's own ``.toml``.
        encoder: the profile's default encoder, used where neither file nor person names one.
        encoder_override: ``--encoder``, if given.
        defaults: what the encoder's kind recommends and the profile overrides, dotted keys.
        overrides: ``--set`` pairs in order, dotted keys.
        save_as: ``--as``, if given; required to be a plain name.

    Raises:
        VariantError: unknown variant, key or value, naming the file, key and choices.
    """
    stem, own = _read_own(name)
    tree: Settings = {"encoder": encoder}
    for key, value in (defaults or {}).items():
        _set_dotted(tree, key, value, where="defaults")
    _merge(tree, own)
    if encoder_override is not None:
        tree["encoder"] = encoder_override
    for key, value in overrides:
        _set_dotted(tree, key, value, where="--set")
    changed = [(key, value) for key, value in overrides if not _is_outside(key)]
    renamed = encoder_override is not None and encoder_override != own.get("encoder", encoder)
    tree["name"] = save_as or _derived_name(stem, encoder_override if renamed else None, changed)
    check_name(tree["name"])
    try:
        return Variant.model_validate(tree)
    except ValidationError as error:
        raise VariantError(_explain(stem, error)) from None


def own_encoder(name: str) -> str | None:
    """Return the encoder that a variant's own file names, if any."""
    return _read_own(name)[1].get("encoder")


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON-able mapping in canonical form, 64 hex digits."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read_own(name: str) -> tuple[str, Settings]:
    path = Path(name) if name.endswith(".toml") else VARIANTS_DIR / f"{name}.toml"
    own = _read_toml(path, name)
    base = own.pop("base", None)
    if base is not None:
        shared = _read_toml(path.parent / f"{base}.toml", str(base))
        if "base" in shared:
            raise VariantError(f"{path.name}: base {base!r} has a base itself; one level is enough")
        shared.pop("why", None)
        _merge(shared, own)
        own = shared
    return path.stem, own


def _read_toml(path: Path, name: str) -> Settings:
    if not path.is_file():
        raise VariantError(f"no variant {name!r}; choose one of {', '.join(list_variants())}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VariantError(f"{path.name} is not valid TOML: {error}") from None


def _merge(into: Settings, update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _set_dotted(tree: Settings, key: str, value: Any, *, where: str) -> None:
    *groups, leaf = key.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
        if not isinstance(tree, dict):
            raise VariantError(f"{where}: {key!r} reaches into {group!r}, which holds one value")
    tree[leaf] = value


def _is_outside(key: str) -> bool:
    return key.split(".", maxsplit=1)[0] in OUTSIDE_FINGERPRINT


def _derived_name(stem: str, encoder: str | None, changed: Sequence[tuple[str, Any]]) -> str:
    extras = [Path(encoder).name] if encoder else []
    extras += [f"{key.split('.')[-1]}={_plain(value)}" for key, value in changed]
    name = f"{stem}@{'+'.join(extras)}" if extras else stem
    if len(name) <= MOST_NAME_CHARS:
        return name
    return f"{stem}@{fingerprint({'encoder': encoder, 'changed': list(changed)})[:12]}"


def _plain(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(c if c.isalnum() or c in ".-_" else "_" for c in text)


def _explain(stem: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"there is no such setting{_near(problem['loc'])}"
        lines.append(f"variant {stem!r}, key {key!r}: {message}")
    return "\n".join(lines)


def _near(loc: tuple[int | str, ...]) -> str:
    model: Any = Variant
    for part in loc[:-1]:
        model = model.model_fields[part].annotation
    return f"; choose one of {', '.join(sorted(model.model_fields))}"
