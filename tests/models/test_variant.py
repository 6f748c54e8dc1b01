from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from competition.errors import HarnessError, UsageError, VariantError
from competition.files import check_name
from models.parts.formats import FORMATS
from models.parts.heads import HEADS
from models.parts.losses import LOSSES
from models.variant import (
    SINCE_FIRST_RESULTS,
    fingerprint,
    list_variants,
    own_encoder,
    own_shape,
    parse_override,
    resolve_variant,
)


def resolve(name: str = "typed-punct", **options: Any) -> Any:
    return resolve_variant(name, encoder="klue/roberta-large", **options)


@pytest.mark.parametrize("name", list_variants())
def test_every_shipped_variant_resolves_and_has_a_reason(name: str) -> None:
    variant = resolve(name)
    assert variant.name == name
    assert len(variant.why) > 20


def test_settings_have_the_documented_precedence() -> None:
    variant = resolve(
        defaults={"train.lr": 1.0, "train.epochs": 9, "format": "concat"},
        overrides=[("train.lr", 3.0), ("train.lr", 4.0)],
    )
    assert (variant.train.lr, variant.train.epochs) == (4.0, 9)
    assert variant.format == "typed-punct"  # the variant's own file


def test_an_override_makes_a_new_variant() -> None:
    assert resolve(encoder_override="scratch").name == "typed-punct@scratch"
    assert resolve(encoder_override="klue/roberta-large").name == "typed-punct"
    assert resolve(overrides=[("train.lr", 1e-5)]).name == "typed-punct@lr=1e-05"
    assert resolve(overrides=[("seeds", [1]), ("run.precision", "bf16")]).name == "typed-punct"
    assert resolve(encoder_override="a/b", overrides=[("head", "cls")], save_as="x").name == "x"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.lr", -1, "train.lr"),
        ("train.rate", 1, "choose one of adam_beta2, batch_rows"),
        ("head", "cl", f"choose one of {', '.join(sorted(HEADS))}"),
        ("format", "x", f"choose one of {', '.join(sorted(FORMATS))}"),
        ("loss", "x", f"choose one of {', '.join(sorted(LOSSES))}"),
        ("train", 3, "train"),
        ("head.deep", 3, "is a single value"),
        ("scratch.heads", 3, "multiple of 2 × heads"),
        ("route", "length:tall", "route"),
    ],
)
def test_a_wrong_setting_names_key_and_choices(key: str, value: object, said: str) -> None:
    with pytest.raises(VariantError, match=said):
        resolve(overrides=[(key, value)])


def test_an_unknown_variant_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match=f"choose one of {', '.join(list_variants())}"):
        resolve("nope")
    broken = tmp_path / "broken.toml"
    broken.write_text("why = ")
    with pytest.raises(VariantError, match=r"broken\.toml is not valid TOML"):
        resolve(str(broken))


def test_a_user_file_may_have_a_user_file_as_base(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text('why = "p"\nformat = "concat"\nhead = "cls"\n')
    (tmp_path / "child.toml").write_text('base = "parent"\nwhy = "c"\n[train]\nlr = 0.5\n')
    child = resolve(str(tmp_path / "child.toml"))
    assert (child.name, child.why, child.format, child.train.lr) == ("child", "c", "concat", 0.5)
    (tmp_path / "grand.toml").write_text('base = "child"\nwhy = "g"\n')
    with pytest.raises(VariantError, match="only one level"):
        resolve(str(tmp_path / "grand.toml"))


@pytest.mark.parametrize("encoder", ["there/enc f0", "인코더", "a/b"])
def test_a_derived_name_is_always_valid(encoder: str) -> None:
    overrides = [("extra_train", "data/추가.csv")] if encoder == "a/b" else []
    name = resolve(encoder_override=encoder, overrides=overrides).name
    assert check_name(name).startswith("typed-punct@")
    assert resolve(encoder_override=encoder, overrides=overrides).name == name
    assert resolve(encoder_override=f"{encoder}2", overrides=overrides).name != name


def test_a_name_cannot_leave_its_folder() -> None:
    with pytest.raises(UsageError):
        resolve(save_as="../x")


def test_overrides_need_an_equals_sign() -> None:
    with pytest.raises(VariantError, match="key=value"):
        parse_override("train.lr")


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("tfidf-linear", "train.lr", 1e-3, "has no effect with learner = 'linear'"),
        ("tfidf-linear", "start_from", "typed-punct", "has no effect with learner = 'linear'"),
        ("tfidf-linear", "mlp.lr", 0.2, "has no effect with learner = 'linear'"),
        ("ngram-mlp", "linear.regularisation", 0.3, "has no effect with learner = 'mlp'"),
        ("typed-punct", "mlp.lr", 0.2, "has no effect without learner = 'mlp'"),
        ("typed-punct", "loss", "focal", "does not support label smoothing"),
        ("typed-punct", "loss_options.focal_gamma", 1.0, 'without loss = "focal"'),
        ("typed-punct", "scratch.layers", 2, "without encoder = 'scratch'"),
        ("typed-punct", "linear.most_features", 1024, "without curriculum.by = 'difficulty'"),
        ("typed-punct", "extra_overlap", "leave-out", "without extra_train"),
    ],
)
def test_a_setting_without_effect_is_refused(name: str, key: str, value: Any, said: str) -> None:
    with pytest.raises(VariantError, match=f"{key} .*{said}"):
        resolve_variant(name, encoder="klue/roberta-large", overrides=[(key, value)])


def test_a_user_file_may_have_a_shipped_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "typed-punct"\nwhy = "mine"\nhead = "bilstm"\n')
    own = resolve_variant(str(path), encoder="klue/roberta-large")
    assert (own.format, own.head) == ("typed-punct", "bilstm")
    with pytest.raises(VariantError, match=r"no variant file \./nope\.toml"):
        resolve_variant("./nope.toml", encoder="klue/roberta-large")


def test_the_fingerprint_depends_only_on_what_changes_results() -> None:
    base = fingerprint(resolve().recipe())
    assert base == fingerprint(
        resolve(save_as="other", overrides=[("run.micro_tokens", 99)]).recipe()
    )
    assert base == fingerprint(resolve(overrides=[("seeds", [7])]).recipe())
    assert base != fingerprint(resolve(overrides=[("train.lr", 1e-6)]).recipe())
    assert base != fingerprint(resolve(overrides=[("max_tokens", 100)]).recipe())


def test_a_later_setting_enters_the_recipe_only_if_used() -> None:
    plain = resolve(overrides=[("loss_options.class_weight", "effective")]).recipe()
    for path in SINCE_FIRST_RESULTS:
        section, _, key = path.rpartition(".")
        settings = getattr(resolve(), section) if section else resolve()
        assert key in type(settings).model_fields
        assert key not in (plain.get(section, {}) if section else plain) or key == "loss_options"
    changed = resolve(overrides=[("train.encoder_dropout", 0.2)]).recipe()
    assert changed["train"] == plain["train"] | {"encoder_dropout": 0.2}


@pytest.mark.parametrize(
    "override",
    [
        "x=" + "[" * 5000,
        "train.lr=" + "9" * 10_000,
        "train.lr={}",
        "train.lr=inf",
        "head=c\udcecs",
        "head=[1]",
        "seeds=[1e400]",
        'train.lr=3e-5\nwhy="x"',
        ".".join(["a"] * 5000) + "=1",
    ],
)
def test_an_absurd_setting_is_reported(override: str) -> None:
    with pytest.raises(HarnessError):
        resolve_variant("typed-punct", encoder="scratch", overrides=[parse_override(override)])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('encoder = ["ko-mini"]', r"encoder is \['ko-mini'\]; write one name"),
        ("encoder = 5", "encoder is 5"),
        ('base = "../typed-punct"', "is no variant's name"),
        (f'base = "{"x" * 5000}"', "is no variant's name"),
        ("scratch = 5", r"write \[scratch\]"),
        ("x = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_a_variant_file_with_a_wrong_type_is_reported(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    base = "" if line.startswith("base") else 'base = "typed-punct"\n'
    path.write_text(f'why = "x"\n{base}{line}\n', "utf-8")
    for read in (own_encoder, own_shape, lambda name: resolve_variant(name, encoder="scratch")):
        with pytest.raises(VariantError, match=said):
            read(str(path))
