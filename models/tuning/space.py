"""The hyperparameter search space of ``tune``.

A dimension is a range of numbers or a list of choices, named by a dotted key as for ``--set``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from competition.errors import UsageError, VariantError
from models.network.encoder_source import MINI, PRETRAINED, find_kind
from models.variant import LINEAR, MLP, OUTSIDE_FINGERPRINT, SCRATCH, Variant, parse_override

if TYPE_CHECKING:
    import optuna

PROBES = 16  # random draws of the other hyperparameters, one of which must fit each value
UNSEARCHABLE = {
    "encoder": "tune one encoder at a time, with --encoder",
    "route": "specialists predict different rows, so their scores cannot be compared",
    "learner": "tune one learner at a time",
}
ADAPTERS = "adapters"
DEFAULT_SPACES = {
    PRETRAINED: (
        "train.lr=8e-6..8e-5:log",
        "train.epochs=2..5",
        "train.batch_rows=16|32|64",
        "train.layer_decay=0.8..1.0",
        "train.warmup_frac=0.0..0.2",
        "train.label_smoothing=0.0..0.2",
    ),
    MINI: (
        "train.lr=3e-4..3e-3:log",
        "train.epochs=1..4",
        "train.batch_rows=8|16|32",
        "train.head_dropout=0.0..0.4",
        "train.label_smoothing=0.0..0.2",
    ),
    SCRATCH: (
        "train.lr=3e-4..3e-3:log",
        "train.epochs=3..10",
        "train.batch_rows=16|32|64",
        "train.head_dropout=0.0..0.4",
        "train.label_smoothing=0.0..0.2",
    ),
    ADAPTERS: (
        "train.lr=5e-5..5e-4:log",
        "train.epochs=1..4",
        "train.batch_rows=8|16|32",
        "train.warmup_frac=0.0..0.2",
        "adapt.rank=8|16|32|64",
        "adapt.dropout=0.0..0.1",
    ),
    LINEAR: (
        "linear.regularisation=0.03..30.0:log",
        "linear.char_ngrams=[1, 3]|[1, 4]|[1, 5]|[2, 5]",
    ),
    MLP: (
        "mlp.lr=0.02..0.3:log",
        "mlp.feature_dropout=0.2..0.7",
        "mlp.hidden=64|128|256",
        "mlp.epochs=1..4",
    ),
}
"""The default search spaces, by kind of encoder, learner, or adapters."""

Found = tuple[tuple[str, Any], ...]
"""Dotted keys and their values, as from ``--set``."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, inclusive; integers if ``whole``, log scale if ``log``."""

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial: optuna.Trial) -> float:
        """Suggest a value for a trial."""
        if self.whole:
            value: int = trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
            return value
        return float(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def distribution(self) -> Any:
        """Return the distribution of Optuna for these values."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def place(self, value: Any) -> float | None:
        """Return the parameter of a setting's value; None if it is outside the range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            return None
        return int(value) if self.whole else float(value)

    def edges(self) -> tuple[float, ...]:
        """Return the bounds, to check that each can be valid."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a parameter uniformly."""
        drawn = float(rng.uniform(self.low, self.high))
        return round(drawn) if self.whole else drawn

    def read(self, parameter: Any) -> Any:
        """Return the setting's value for a parameter."""
        return parameter

    def __str__(self) -> str:
        """Return the dimension in the syntax of ``--search``."""
        low, high = self.edges()
        return f"{self.key}={low!r}..{high!r}{':log' if self.log else ''}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Choices, in the syntax of ``--set``; the parameters are the texts themselves."""

    key: str
    texts: tuple[str, ...]

    def suggest(self, trial: optuna.Trial) -> str:
        """Suggest one of the texts for a trial."""
        text: str = trial.suggest_categorical(self.key, self.texts)
        return text

    def distribution(self) -> Any:
        """Return the distribution of Optuna for these values."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)

    def place(self, value: Any) -> str | None:
        """Return the text of a setting's value; None if it is not a choice."""
        plain = list(value) if isinstance(value, tuple) else value
        return next((text for text in self.texts if self.read(text) == plain), None)

    def edges(self) -> tuple[str, ...]:
        """Return the texts, to check that each can be valid."""
        return self.texts

    def draw(self, rng: np.random.Generator) -> str:
        """Draw a text uniformly."""
        return self.texts[int(rng.integers(len(self.texts)))]

    def read(self, parameter: Any) -> Any:
        """Return the setting's value for a text."""
        return parse_override(f"{self.key}={parameter}")[1]

    def __str__(self) -> str:
        """Return the dimension in the syntax of ``--search``."""
        return f"{self.key}={'|'.join(self.texts)}"


Dimension = Range | Choice


def parse_dimension(text: str) -> Dimension:
    """Parse one ``--search`` argument.

    >>> parse_dimension("train.lr=1e-5..1e-4:log")
    Range(key='train.lr', low=1e-05, high=0.0001, log=True, whole=False)
    >>> parse_dimension("train.epochs=2..5")
    Range(key='train.epochs', low=2.0, high=5.0, log=False, whole=True)
    >>> parse_dimension("head=cls|entity-start")
    Choice(key='head', texts=('cls', 'entity-start'))

    Raises:
        UsageError: neither a range nor choices, or a key that cannot be searched.
    """
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not key or not values:
        raise _unreadable(text)
    root = key.split(".", maxsplit=1)[0]
    if root in OUTSIDE_FINGERPRINT:
        raise UsageError(f"--search {key}: it has no effect on results; remove it")
    if key in UNSEARCHABLE:
        raise UsageError(f"--search {key}: {UNSEARCHABLE[key]}")
    if "|" in values:
        texts = tuple(part.strip() for part in values.split("|"))
        if "" in texts or len(set(texts)) < len(texts):
            raise UsageError(f"--search {text!r}: an empty or repeated choice")
        return Choice(key, texts)
    return _parse_range(text, key, values)


def _parse_range(text: str, key: str, values: str) -> Range:
    numbers, _, scale = values.partition(":")
    ends = [end.strip() for end in numbers.split("..")]
    if len(ends) != 2 or scale not in {"", "log"}:
        raise _unreadable(text)
    try:
        low, high = map(float, ends)
    except ValueError:
        raise _unreadable(text) from None
    whole = all(end.lstrip("+-").isdecimal() for end in ends)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"--search {text!r}: the first number must be below the second")
    if scale and low <= 0:
        raise UsageError(f"--search {text!r}: a log range must start above 0")
    return Range(key, low, high, bool(scale), whole)


def _unreadable(text: str) -> UsageError:
    return UsageError(
        f"--search {text!r} is neither a range, such as train.lr=1e-5..1e-4:log or"
        " train.epochs=2..5, nor a choice, such as head=cls|entity-start"
    )


def choose_space(
    texts: Sequence[str],
    variant: Variant,
    resolve: Callable[[Found], Variant],
    *,
    fixed: Collection[str] = (),
) -> tuple[Dimension, ...]:
    """Parse the ``--search`` arguments; without any, return the default space of the variant.

    The default space includes the variant itself. It leaves out what is fixed, and what is not
    valid together with the other settings of the variant.

    Args:
        resolve: as for ``check_space``.
        fixed: keys given with ``--set``.

    Raises:
        UsageError: a text that cannot be parsed, a repeated or fixed key, or nothing to search.
    """
    if not texts:
        widened = (_widen(each, variant) for each in map(parse_dimension, _default_texts(variant)))
        free = [each for each in widened if each.key not in fixed and _is_valid(each, resolve)]
        if not free:
            raise UsageError("nothing of the default search space is free; name some: --search")
        return tuple(free)
    space = tuple(map(parse_dimension, texts))
    keys = [dimension.key for dimension in space]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise UsageError(f"--search names {twice[0]} twice; name each hyperparameter once")
    both = sorted(set(keys) & set(fixed))
    if both:
        raise UsageError(f"--set and --search both name {both[0]}; use one of them")
    return space


def _default_texts(variant: Variant) -> Sequence[str]:
    if not variant.is_network:
        return DEFAULT_SPACES[variant.learner]
    return DEFAULT_SPACES[ADAPTERS if variant.adapt is not None else find_kind(variant.encoder)]


def _widen(dimension: Dimension, variant: Variant) -> Dimension:
    """Return a dimension that includes the variant's own value, if it has one."""
    value = get_setting(variant, dimension.key)
    if value is None or dimension.place(value) is not None:
        return dimension
    if isinstance(dimension, Range):
        low, high = min(dimension.low, value), max(dimension.high, value)
        return replace(dimension, low=low, high=high)
    plain = list(value) if isinstance(value, tuple) else value
    return replace(dimension, texts=(json.dumps(plain), *dimension.texts))


def _is_valid(dimension: Dimension, resolve: Callable[[Found], Variant]) -> bool:
    """Return whether the variant can have each bound or choice of a dimension."""
    try:
        for edge in dimension.edges():
            resolve(((dimension.key, dimension.read(edge)),))
    except VariantError:
        return False
    return True


def check_space(space: Sequence[Dimension], resolve: Callable[[Found], Variant]) -> None:
    """Check that each bound and each choice of a space can be valid, before training.

    Each is tried with a few random draws of the other hyperparameters; combinations that are
    incompatible are left to the search, which prunes them.

    Args:
        resolve: resolves the variant with some hyperparameters, or raises VariantError.

    Raises:
        VariantError: the error of the first value that is never valid.
    """
    rng = np.random.default_rng(0)
    for dimension in space:
        for edge in dimension.edges():
            errors = []
            for _ in range(PROBES):
                drawn = {each.key: each.draw(rng) for each in space} | {dimension.key: edge}
                try:
                    resolve(read_found(space, drawn))
                except VariantError as error:
                    errors.append(error)
                else:
                    break
            if len(errors) == PROBES:
                raise VariantError(f"--search {dimension}: with {edge}: {errors[0]}")


def read_found(space: Sequence[Dimension], parameters: Mapping[str, Any]) -> Found:
    """Return the settings for the parameters of a trial, in the order of the space."""
    return tuple((each.key, each.read(parameters[each.key])) for each in space)


def place_variant(space: Sequence[Dimension], variant: Variant) -> dict[str, Any] | None:
    """Return the parameters of the variant itself; None if it is outside the space.

    >>> lr = parse_dimension("train.lr=1e-5..1e-4:log")
    >>> variant = Variant(name="v", why="w", encoder="scratch")
    >>> place_variant([lr], variant)
    {'train.lr': 3e-05}
    """
    placed: dict[str, Any] = {}
    for dimension in space:
        parameter = dimension.place(get_setting(variant, dimension.key))
        if parameter is None:
            return None
        placed[dimension.key] = parameter
    return placed


def get_setting(variant: Variant, key: str) -> Any:
    """Return the value of a variant under a dotted key; None if its section is absent."""
    value: Any = variant
    for part in key.split("."):
        value = getattr(value, part, None)
    return value


def describe_found(space: Sequence[Dimension], parameters: Mapping[str, Any]) -> str:
    """Return the hyperparameters of a trial on one line.

    >>> describe_found([parse_dimension("train.lr=1e-5..1e-4:log")], {"train.lr": 0.0000312345})
    'train.lr=3.12e-05'
    """
    return " ".join(
        f"{each.key}={_shorten(each, parameters[each.key])}"
        for each in space
        if each.key in parameters
    )


def _shorten(dimension: Dimension, parameter: Any) -> str:
    if isinstance(dimension, Choice) or isinstance(parameter, int):
        return str(parameter)
    return f"{parameter:.3g}"
