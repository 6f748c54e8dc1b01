"""A model variant: one immutable, validated set of hyperparameters, and its fingerprint.

A variant is resolved from, in order of increasing precedence: the defaults below, the recommended
settings of its encoder, the profile of the competition, the variant's TOML file, and the command
line. The resolved variant is hashed together with its data.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from competition.errors import VariantError
from competition.file_kind import WrongFileError, read_toml_text
from competition.files import check_name, is_name, parse_toml
from competition.spelling import suggest
from models.settings import (
    AdaptSettings,
    AugmentSettings,
    CleanSettings,
    CurriculumSettings,
    DistilSettings,
    FormatSettings,
    Frozen,
    LinearSettings,
    LossSettings,
    MlpSettings,
    PseudoSettings,
    RegulariseSettings,
    RestrictSettings,
    RunSettings,
    SamplingSettings,
    ScratchSettings,
    TrainSettings,
    TuneSettings,
    find_section,
)

VARIANTS_DIR = Path(__file__).parent / "variants"
SCRATCH = "scratch"
MAX_NAME_CHARS = 60  # longer derived names, and invalid ones, are replaced by a hash
NETWORK, LINEAR, MLP = "network", "linear", "mlp"
MAX_AWP_SIZE = 0.1
OUTSIDE_FINGERPRINT = frozenset({"name", "why", "seeds", "run", "tune"})
SINCE_FIRST_RESULTS = frozenset(
    {
        "learner",
        "formatting",
        "entity_embedding",
        "loss_options",
        "sampling",
        "curriculum",
        "augment",
        "regularise",
        "restrict",
        "clean",
        "extra_train",
        "extra_overlap",
        "train.encoder_dropout",
        "train.optimizer",
        "pseudo",
        "start_from",
        "start_rate",
        "pretrain",
        "linear",
        "bidirectional",
        "formatting.instruction",
        "adapt",
        "distil",
    }
)
"""Settings that enter the recipe only if they differ from their default; dotted in a section.

Every new setting belongs here, so that stored results remain valid.
"""
ROWS_READS = ("learner", "route", "clean", "extra_train", "extra_overlap", "pseudo")
NGRAM_READS = {LINEAR: (*ROWS_READS, "linear"), MLP: (*ROWS_READS, "mlp", "distil")}

Settings = dict[str, Any]


class Variant(Frozen):
    """One resolved model variant."""

    name: str
    why: str = Field(min_length=1)
    learner: Literal["network", "linear", "mlp"] = "network"
    encoder: str = Field(min_length=1)
    pretrain: Literal["none", "tapt"] = "none"
    start_from: str | None = Field(None, description="variant for a warm start, same fold")
    start_rate: float = Field(1.0, gt=0, le=1, description="learning-rate factor with start_from")
    format: str = "typed-punct"
    formatting: FormatSettings = FormatSettings()
    entity_embedding: bool = False
    bidirectional: bool = Field(False, description="a decoder sees all tokens from each")
    adapt: AdaptSettings | None = None
    head: str = "entity-start"
    loss: str = "cross-entropy"
    loss_options: LossSettings = LossSettings()
    max_tokens: int = Field(256, ge=16)
    route: str | None = Field(None, pattern=r"^length:(short|medium|long)$")
    seeds: tuple[int, ...] = Field((42,), min_length=1)
    clean: CleanSettings = CleanSettings()
    extra_train: str | None = Field(None, description="CSV of additional training rows")
    extra_overlap: Literal["refuse", "leave-out"] = Field(
        "refuse", description="for extra rows in the same group as a held-out row"
    )
    pseudo: PseudoSettings | None = None
    distil: DistilSettings | None = None
    augment: AugmentSettings | None = None
    sampling: SamplingSettings | None = None
    curriculum: CurriculumSettings | None = None
    train: TrainSettings = TrainSettings()
    regularise: RegulariseSettings = RegulariseSettings()
    restrict: RestrictSettings | None = None
    linear: LinearSettings = LinearSettings()
    mlp: MlpSettings = MlpSettings()
    scratch: ScratchSettings = ScratchSettings()
    run: RunSettings = RunSettings()
    tune: TuneSettings | None = None

    @field_validator("format", "head", "loss")
    @classmethod
    def _known_part(cls, value: str, info: ValidationInfo) -> str:
        from models.parts.formats import FORMATS
        from models.parts.heads import HEADS
        from models.parts.losses import LOSSES

        choices: dict[str, Mapping[str, object]] = {"format": FORMATS, "head": HEADS}
        return _one_of(value, {**choices, "loss": LOSSES}[str(info.field_name)])

    @property
    def is_network(self) -> bool:
        """Whether an encoder with a head is trained, rather than a model of n-grams."""
        return self.learner == NETWORK

    def recipe(self) -> Settings:
        """Return the settings that determine results: no name, reason, seeds or hardware."""
        settings = self.model_dump(mode="json", include=self.reads())
        if not self.is_network:
            return settings
        for path in SINCE_FIRST_RESULTS:
            section, _, key = path.rpartition(".")
            held: Frozen = getattr(self, section) if section else self
            tree = settings.get(section) if section else settings
            if tree and key in tree and getattr(held, key) == type(held).model_fields[key].default:
                del tree[key]
        return settings

    def reads(self) -> set[str]:
        """Return the settings that can affect results, given the others."""
        if not self.is_network:
            return set(NGRAM_READS[self.learner])
        idle = {key for key, (is_idle, _) in self._idle_sections().items() if is_idle}
        return set(Variant.model_fields) - OUTSIDE_FINGERPRINT - idle

    def _idle_sections(self) -> dict[str, tuple[bool, str]]:
        """Map conditional settings to whether they are unused here, and what they require."""
        by_difficulty = self.curriculum is not None and self.curriculum.by == "difficulty"
        return {
            "scratch": (self.encoder != SCRATCH, f"encoder = {SCRATCH!r}"),
            "linear": (not by_difficulty, "curriculum.by = 'difficulty'"),
            "mlp": (True, "learner = 'mlp'"),
            "extra_overlap": (self.extra_train is None, "extra_train"),
            "start_rate": (self.start_from is None, "start_from"),
        }

    def explain_idle(self, key: str) -> str | None:
        """Return why a setting (a dotted key) has no effect; None if it has one."""
        root = key.split(".", maxsplit=1)[0]
        if root in self.reads() | OUTSIDE_FINGERPRINT:
            return None
        if not self.is_network:
            read = f"{self.learner!r}, which uses {', '.join(NGRAM_READS[self.learner])}"
            return f"{key} has no effect with learner = {read}"
        return f"{key} has no effect without {self._idle_sections()[root][1]}"

    def _idle_settings(self) -> Iterator[tuple[str, str]]:
        """Yield settings that are set but have no effect, and what they require."""
        from models.parts.losses import LOSSES

        loss, steps = self.loss_options, self.regularise
        for name, other in LOSSES.items():
            for option in set(other.reads) - set(LOSSES[self.loss].reads):
                if getattr(loss, option) != getattr(LossSettings(), option):
                    yield f"loss_options.{option}", f'loss = "{name}"'
        if loss.effective_beta != LossSettings().effective_beta and (
            loss.class_weight != "effective"
        ):
            yield "loss_options.effective_beta", 'loss_options.class_weight = "effective"'
        if steps.dropout_samples > 1 and self.train.head_dropout == 0:
            yield "regularise.dropout_samples", "train.head_dropout"
        if steps.adversarial == "none":
            for name in ("adversarial_size", "adversarial_from"):
                if getattr(steps, name) != getattr(RegulariseSettings(), name):
                    yield f"regularise.{name}", "regularise.adversarial"

    @model_validator(mode="after")
    def _check_compatible(self) -> Variant:
        from models.parts.combinations import check_combination
        from models.parts.heads import check_head_fits
        from models.parts.losses import LOSSES

        check_head_fits(self.head, self.format)
        for setting, without in self._idle_settings():
            raise ValueError(f"{setting} has no effect without {without}")
        if self.regularise.adversarial == "awp" and self.regularise.adversarial_size > MAX_AWP_SIZE:
            raise ValueError(
                "regularise.adversarial_size is relative to the norm of each weight for awp, and "
                f"at most {MAX_AWP_SIZE}; try 0.005"
            )
        if self.train.label_smoothing > 0 and not LOSSES[self.loss].smooths:
            raise ValueError(
                f"loss {self.loss!r} does not support label smoothing; set "
                "train.label_smoothing = 0"
            )
        check_combination(self)
        return self


def _one_of(value: str, choices: Mapping[str, object]) -> str:
    if value not in choices:
        known = sorted(choices)
        raise ValueError(
            f"{value!r} is unknown{suggest(value, known)}; choose one of {', '.join(known)}"
        )
    return value


def list_variants() -> list[str]:
    """Return the names of all shipped variants, sorted."""
    return sorted(path.stem for path in VARIANTS_DIR.glob("*.toml"))


def explain_unknown(name: str) -> str:
    """Return the error message for an unknown variant, with suggestions and the choices."""
    known = list_variants()
    return f"no variant {name!r}{suggest(name, known)}; choose one of {', '.join(known)}"


def parse_override(text: str) -> tuple[str, Any]:
    """Parse one ``--set`` argument; the value is TOML, or else a string.

    >>> parse_override("train.lr=3e-5"), parse_override("head=cls"), parse_override("seeds=[1, 2]")
    (('train.lr', 3e-05), ('head', 'cls'), ('seeds', [1, 2]))
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise VariantError(f"--set {text!r} holds bytes that are no UTF-8")
    key, equals, raw = text.partition("=")
    if not equals or not key.strip() or not raw.strip():
        raise VariantError(f"--set {text!r} is not of the form key=value, such as train.lr=3e-5")
    try:
        parsed = parse_toml(f"value = {raw}")
    except ValueError:
        parsed = {}
    return key.strip(), parsed["value"] if parsed.keys() == {"value"} else raw.strip()


def resolve_variant(
    name: str,
    *,
    encoder: str,
    encoder_override: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
    save_as: str | None = None,
) -> Variant:
    """Resolve a variant from its file and all overrides.

    Args:
        name: the name of a shipped variant, or the path of a user's ``.toml``.
        encoder: the default encoder of the profile, unless the file or the user sets another.
        encoder_override: ``--encoder``, if given.
        defaults: recommended settings of the encoder and overrides of the profile, dotted keys.
        overrides: ``--set`` pairs in order, dotted keys.
        save_as: ``--as``, if given; must be a plain name.

    Raises:
        VariantError: an unknown variant, key or value; names the file, the key and the choices.
    """
    stem, own = _read_own(name)
    tree: Settings = {"encoder": encoder}
    learner = dict(overrides).get("learner", own.get("learner", NETWORK))
    for key, value in (defaults or {}).items():
        if learner == NETWORK or not key.startswith("adapt."):  # a model of n-grams has no backbone
            _set_dotted(tree, key, value, where="defaults")
    _merge(tree, own)
    if encoder_override is not None:
        tree["encoder"] = encoder_override
    for key, value in overrides:
        _set_dotted(tree, key, value, where="--set")
    changed = [(key, value) for key, value in overrides if not _is_outside(key)]
    renamed = (
        encoder_override is not None
        and encoder_override != own.get("encoder", encoder)
        and tree.get("learner", NETWORK) == NETWORK
    )
    tree["name"] = save_as or _derived_name(stem, encoder_override if renamed else None, changed)
    check_name(tree["name"])
    try:
        variant = Variant.model_validate(tree)
    except ValidationError as error:
        raise VariantError(_explain(stem, error)) from None
    for key in (*own, *(key for key, _ in overrides)):
        idle = variant.explain_idle(key)
        if idle is not None:
            raise VariantError(f"variant {stem}: {idle}")
    return variant


def own_encoder(name: str) -> str | None:
    """Return the encoder set in a variant's own file, if any."""
    return _read_own(name)[1].get("encoder")


def read_file_settings(name: str, overrides: Sequence[tuple[str, Any]] = ()) -> Settings:
    """Return what a variant's own file and overrides set, not resolved and not checked.

    Raises:
        VariantError: there is no such file, or it is no TOML.
    """
    tree: Settings = {}
    _merge(tree, _read_own(name)[1])
    for key, value in overrides:
        _set_dotted(tree, key, value, where="--set")
    return tree


def own_shape(name: str) -> list[str]:
    """Return the dotted keys of the scratch encoder that a variant's own file sets."""
    return [f"{SCRATCH}.{key}" for key in _read_own(name)[1].get(SCRATCH, {})]


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a mapping as canonical JSON, 64 hex digits."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read_own(name: str) -> tuple[str, Settings]:
    path = Path(name) if name.endswith(".toml") else VARIANTS_DIR / f"{name}.toml"
    own = _read_toml(path, name)
    base = own.pop("base", None)
    for key, value in (("base", base or ""), ("encoder", own.get("encoder", ""))):
        if not isinstance(value, str):
            shown = reprlib.repr(value)
            raise VariantError(f"{path.name}: {key} is {shown}; write one name as text")
    if not isinstance(own.get(SCRATCH, {}), Mapping):
        raise VariantError(f"{path.name}: {SCRATCH} is a table of settings: write [{SCRATCH}]")
    if base is not None:
        if not is_name(base):
            raise VariantError(f"{path.name}: base {reprlib.repr(base)} is no variant's name")
        beside = path.parent / f"{base}.toml"
        shared = _read_toml(beside if beside.is_file() else VARIANTS_DIR / beside.name, str(base))
        if "base" in shared:
            raise VariantError(
                f"{path.name}: base {base!r} has a base itself; only one level is allowed"
            )
        shared.pop("why", None)
        _merge(shared, own)
        own = shared
    return path.stem, own


def _read_toml(path: Path, name: str) -> Settings:
    if not path.is_file():
        if name.endswith(".toml"):
            raise VariantError(f"no variant file {name}")
        raise VariantError(explain_unknown(name))
    try:
        return parse_toml(read_toml_text(path))
    except WrongFileError as wrong:
        raise VariantError(f"{path.name} is no variant file: {wrong}") from None
    except ValueError as error:
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
            raise VariantError(f"{where}: {key!r}: {group!r} is a single value, not a section")
    tree[leaf] = value


def _is_outside(key: str) -> bool:
    return key.split(".", maxsplit=1)[0] in OUTSIDE_FINGERPRINT


def _derived_name(stem: str, encoder: str | None, changed: Sequence[tuple[str, Any]]) -> str:
    extras = [Path(encoder).name] if encoder else []
    extras += [f"{key.split('.')[-1]}={_plain(value)}" for key, value in changed]
    name = f"{stem}@{'+'.join(extras)}" if extras else stem
    if not is_name(stem) or (len(name) <= MAX_NAME_CHARS and is_name(name)):
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
            message = f"no such setting{_near(problem['loc'])}"
        lines.append(f"variant {stem!r}, key {key!r}: {message}")
    return "\n".join(lines)


def _near(loc: tuple[int | str, ...]) -> str:
    """Suggest settings for a mistyped key, and list those of its section."""
    model: Any = Variant
    for part in loc[:-1]:
        model = find_section(model.model_fields[part].annotation)
    return f"{_suggest_key(str(loc[-1]))}; choose one of {', '.join(sorted(model.model_fields))}"


def _suggest_key(leaf: str) -> str:
    """Suggest the setting of that name in a section, or one with a similar name."""
    keys = {key.rpartition(".")[2]: key for key in reversed(list_keys())}  # the first one wins
    return f"; did you mean {keys[leaf]}?" if leaf in keys else suggest(leaf, keys)


def list_keys() -> list[str]:
    """Name every setting of a variant, dotted within a section."""
    keys = []
    for name, field in Variant.model_fields.items():
        section = find_section(field.annotation)
        keys += [name] if section is None else [f"{name}.{key}" for key in section.model_fields]
    return keys
