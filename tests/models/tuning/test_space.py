from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import UsageError, VariantError
from models.network.encoder_source import MINI, PRETRAINED, recommended_settings
from models.tuning.space import (
    DEFAULT_SPACES,
    Choice,
    Dimension,
    Range,
    check_space,
    choose_space,
    describe_found,
    parse_dimension,
    place_variant,
    read_found,
)
from models.variant import LINEAR, SCRATCH, Variant, list_variants, resolve_variant


def resolve(found: Any = (), **options: Any) -> Variant:
    encoder = options.pop("encoder", "klue/roberta-large")
    name = options.pop("name", "typed-punct")
    return resolve_variant(name, encoder=encoder, overrides=found, **options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.lr", "neither a range"),
        ("train.lr=3e-5", "neither a range"),
        ("=1..2", "neither a range"),
        ("train.lr=1..2..3", "neither a range"),
        ("train.lr=a..b", "neither a range"),
        ("train.lr=1e-5..1e-4:cubic", "neither a range"),
        ("train.lr=1e-4..1e-5", "below the second"),
        ("train.lr=1..inf", "below the second"),
        ("train.weight_decay=0.0..0.1:log", "must start above 0"),
        ("head=cls||entity-start", "empty or repeated choice"),
        ("head=cls|cls", "empty or repeated choice"),
        ("run.precision=bf16|float32", "has no effect on results"),
        ("seeds=[1]|[2]", "has no effect on results"),
        ("encoder=a|b", "--encoder"),
        ("route=length:short|length:long", "cannot be compared"),
    ],
)
def test_invalid_dimensions_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_dimension(text)


@pytest.mark.parametrize("texts", DEFAULT_SPACES.values(), ids=list(DEFAULT_SPACES))
def test_a_space_is_written_as_it_is_read(texts: tuple[str, ...]) -> None:
    space = [parse_dimension(text) for text in texts]
    assert [parse_dimension(str(each)) for each in space] == space


def test_the_default_space_contains_the_variant_itself() -> None:
    """The variant itself must be one of the trials, so that the result is never worse."""
    kinds = {
        PRETRAINED: resolve(),
        MINI: resolve(encoder="ko-mini", defaults=recommended_settings("ko-mini")),
        SCRATCH: resolve(encoder=SCRATCH, defaults=recommended_settings(SCRATCH)),
        LINEAR: resolve(name="tfidf-linear"),
    }
    for kind, variant in kinds.items():
        space = choose_space((), variant, lambda found: resolve())
        assert [str(each) for each in space] == [
            str(parse_dimension(text)) for text in DEFAULT_SPACES[kind]
        ]
        placed = place_variant(space, variant)
        assert placed is not None, kind
        again = resolve_variant(
            variant.name,
            encoder=variant.encoder,
            defaults=recommended_settings(variant.encoder),
            overrides=read_found(space, placed),
        )
        assert again.recipe() == variant.recipe()


@pytest.mark.parametrize("encoder", ["klue/roberta-large", "ko-mini", SCRATCH])
def test_every_shipped_variant_is_inside_its_default_space(encoder: str) -> None:
    for name in list_variants():

        def resolved(found: Any = (), name: str = name) -> Variant:
            defaults = recommended_settings(encoder)
            return resolve(found, name=name, encoder=encoder, defaults=defaults)

        variant = resolved()
        space = choose_space((), variant, resolved)
        assert place_variant(space, variant) is not None, name
        check_space(space, resolved)


def test_the_default_space_leaves_out_what_is_fixed_or_invalid() -> None:
    def keys(name: str, *fixed: str, **options: Any) -> set[str]:
        def resolved(found: Any = ()) -> Variant:
            return resolve(found, name=name, **options)

        return {each.key for each in choose_space((), resolved(), resolved, fixed=fixed)}

    assert "train.label_smoothing" in keys("typed-punct")
    assert keys("typed-punct") - keys("focal") == {"train.label_smoothing"}
    assert keys("ngram-mlp") - keys("ngram-mlp", "mlp.epochs") == {"mlp.epochs"}
    assert "train.head_dropout" not in keys("multi-dropout", encoder="ko-mini")
    assert "adapt.rank" in keys("qwen3-lora")
    with pytest.raises(UsageError, match="name some: --search"):
        keys("tfidf-linear", "linear.regularisation", "linear.char_ngrams")


def test_a_key_is_searched_once() -> None:
    with pytest.raises(UsageError, match=r"train\.lr twice"):
        choose_space(("train.lr=1e-5..1e-4", "train.lr=1e-6..1e-5"), resolve(), resolve)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("train.rate=1e-5..1e-4",), "no such setting"),
        (("train.lr=-1.0..1e-4",), r"with -1\.0: .*train\.lr"),
        (("head=cls|entity-strat",), "with entity-strat: .*choose one of"),
        (("head=cls|bilstm", "train.label_smoothing=0.5..1.5"), r"with 1\.5"),
    ],
)
def test_a_value_that_never_fits_is_refused_before_training(
    texts: tuple[str, ...], said: str
) -> None:
    with pytest.raises(VariantError, match=said):
        check_space([parse_dimension(text) for text in texts], resolve)


def test_incompatible_combinations_are_left_to_the_search() -> None:
    space = [parse_dimension("scratch.hidden=36|64"), parse_dimension("scratch.heads=2|3")]
    check_space(space, lambda found: resolve(found, encoder=SCRATCH))
    with pytest.raises(VariantError):  # 64 is no multiple of 2 × 3, which another draw avoids
        resolve([("scratch.hidden", 64), ("scratch.heads", 3)], encoder=SCRATCH)


@pytest.mark.parametrize(
    ("dimension", "value", "parameter"),
    [
        (Range("k", 1.0, 2.0), 1.5, 1.5),
        (Range("k", 1.0, 2.0), 2.1, None),
        (Range("k", 1, 5, whole=True), 3.0, 3),
        (Range("k", 1, 5, whole=True), 2.5, None),
        (Range("k", 0, 1, whole=True), True, None),
        (Range("k", 1.0, 2.0), None, None),
        (Choice("k", ("cls", "bilstm")), "bilstm", "bilstm"),
        (Choice("k", ("16", "32")), 32, "32"),
        (Choice("k", ("[1, 4]", "[2, 5]")), (2, 5), "[2, 5]"),
        (Choice("k", ("true", "false")), False, "false"),
        (Choice("k", ("16", "32")), 64, None),
    ],
)
def test_a_setting_is_placed_in_its_dimension(
    dimension: Dimension, value: object, parameter: object
) -> None:
    placed = dimension.place(value)
    assert placed == parameter
    assert type(placed) is type(parameter)
    if placed is not None:
        read = dimension.read(placed)
        assert read == (list(value) if isinstance(value, tuple) else value)


@given(st.data())
def test_a_trial_suggests_settings_within_the_space(data: st.DataObject) -> None:
    texts = [text for texts in DEFAULT_SPACES.values() for text in texts]
    dimension = parse_dimension(data.draw(st.sampled_from(texts)))
    seed = data.draw(st.integers(0, 2**31))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask({dimension.key: dimension.distribution()})
    suggested = dimension.suggest(trial)
    assert suggested == trial.params[dimension.key]
    assert dimension.place(dimension.read(suggested)) == suggested
    drawn = dimension.draw(np.random.default_rng(seed))
    assert dimension.place(dimension.read(drawn)) == drawn


def test_a_line_shows_only_what_was_suggested() -> None:
    space = [parse_dimension("train.lr=1e-5..1e-4"), parse_dimension("train.epochs=2..5")]
    assert describe_found(space, {"train.epochs": 3}) == "train.epochs=3"
