"""Checks of options that the command line and notebooks share."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from competition.errors import UsageError

MAX_SEED = 2**32 - 1  # the largest seed that every library accepts


def check_seeds(option: str, seeds: Iterable[int]) -> None:
    """Check that every library accepts the seeds of an option.

    >>> check_seeds("--seeds", [0, 42, MAX_SEED])

    Raises:
        UsageError: names the first that is none.
    """
    for seed in seeds:
        if not isinstance(seed, Integral) or not 0 <= seed <= MAX_SEED:
            raise UsageError(f"{option} {seed}: a seed is an integer from 0 to {MAX_SEED}")


def check_at_least(option: str, value: float | None, minimum: float) -> None:
    """Check the number of an option, if it is given.

    Raises:
        UsageError: it is too small.
    """
    if value is not None and not value >= minimum:
        raise UsageError(f"{option} {value}: give a number from {minimum}")
