"""Check that a variant fits a competition, before libraries and data are loaded.

A variant that needs entity types or a source column which the competition does not have is refused,
based on its file alone if possible, so that the user does not wait first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from competition.errors import VariantError
from competition.profile import Profile
from models.data.augmentation import Scheme, check_augment
from models.parts.formats import FORMATS, check_format
from models.settings import AugmentSettings, CleanSettings, FormatSettings
from models.variant import NETWORK, Variant, read_file_settings

DEFAULT_FORMAT: str = Variant.model_fields["format"].default
MIN_DIFFICULTY_FOLDS = 3
_Settings = TypeVar("_Settings", bound=BaseModel)


@dataclass(frozen=True)
class _Needs:
    """The settings of a variant that need something from the competition."""

    name: str
    format: str
    formatting: FormatSettings
    restricts: bool
    augment: AugmentSettings | None
    clean: CleanSettings


def check_suits(variant: Variant, profile: Profile) -> None:
    """Check that the competition has all that a variant uses (entity types, source column).

    Raises:
        FormatError, VariantError: names what is missing and what to use instead.
    """
    if not variant.is_network:
        return
    restricts = variant.restrict is not None
    needs = (variant.name, variant.format, variant.formatting, restricts, variant.augment)
    _check(_Needs(*needs, variant.clean), profile)


def check_files(
    names: Sequence[str], profile: Profile, overrides: Sequence[tuple[str, Any]] = ()
) -> None:
    """Check variants by their files and ``--set``, ignoring all other errors in them.

    Raises:
        FormatError, VariantError: as ``check_suits``.
    """
    for name in names or profile.defaults.variants:
        try:
            settings = read_file_settings(name, overrides)
        except VariantError:
            continue  # reported when the variant is resolved
        form = settings.get("format", DEFAULT_FORMAT)
        if settings.get("learner", NETWORK) != NETWORK or form not in FORMATS:
            continue
        needs = _Needs(
            name,
            form,
            _read(FormatSettings, settings.get("formatting")) or FormatSettings(),
            "restrict" in settings,
            _read(AugmentSettings, settings.get("augment")),
            _read(CleanSettings, settings.get("clean")) or CleanSettings(),
        )
        _check(needs, profile)


def check_difficulty(variant: Variant, n_folds: int) -> None:
    """Check that the difficulty of training rows can be measured, each by models of other folds.

    Raises:
        VariantError: a job trains on one fold only.
    """
    by_difficulty = variant.curriculum is not None and variant.curriculum.by == "difficulty"
    if by_difficulty and n_folds < MIN_DIFFICULTY_FOLDS:
        raise VariantError(
            f"variant {variant.name}: curriculum.by = 'difficulty' needs at least"
            f" {MIN_DIFFICULTY_FOLDS} folds, not {n_folds}: rows of one training fold are measured"
            " by models of the others; use --set curriculum.by=length, or more folds"
        )


def _read(section: type[_Settings], values: Any) -> _Settings | None:
    if isinstance(values, Mapping):
        with suppress(ValidationError):
            return section.model_validate(values)
    return None


def _check(needs: _Needs, profile: Profile) -> None:
    types = profile.entity_types
    has_source = profile.columns.source is not None
    check_format(needs.format, needs.formatting, entity_types=types, has_source=has_source)
    if needs.restricts and not types:
        raise VariantError(
            f"variant {needs.name}: restrict needs entity types, but this competition has none"
        )
    if needs.augment is not None:
        scheme = Scheme(profile.labels, profile.negative_ids, tuple(types), profile.exchange_rules)
        check_augment(needs.augment, scheme)
