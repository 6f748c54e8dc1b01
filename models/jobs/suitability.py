"""Whether a variant suits a competition: asked before anything is loaded.

A variant that shows entity types where there are none, or a source where no column holds it, is
refused here, by its file alone if need be, so that nobody waits for libraries and data first.
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
from models.variant import LINEAR, Variant, read_file_settings

DEFAULT_FORMAT: str = Variant.model_fields["format"].default
_Settings = TypeVar("_Settings", bound=BaseModel)


@dataclass(frozen=True)
class _Needs:
    """What of a variant asks something of a competition."""

    name: str
    format: str
    formatting: FormatSettings
    restricts: bool
    augment: AugmentSettings | None
    clean: CleanSettings


def check_suits(variant: Variant, profile: Profile) -> None:
    """Refuse a variant that shows or uses what the competition does not have.

    Raises:
        FormatError, VariantError: says what is absent and what to use instead.
    """
    if variant.learner == LINEAR:
        return
    restricts = variant.restrict is not None
    needs = (variant.name, variant.format, variant.formatting, restricts, variant.augment)
    _check(_Needs(*needs, variant.clean), profile)


def check_files(
    names: Sequence[str], profile: Profile, overrides: Sequence[tuple[str, Any]] = ()
) -> None:
    """Refuse variants by their files and ``--set``; what is wrong in them otherwise is not said.

    Raises:
        FormatError, VariantError: as ``check_suits``.
    """
    for name in names or profile.defaults.variants:
        try:
            settings = read_file_settings(name, overrides)
        except VariantError:
            continue  # said by whoever resolves it
        form = settings.get("format", DEFAULT_FORMAT)
        if settings.get("learner") == LINEAR or form not in FORMATS:
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
            f"variant {needs.name}: restrict goes by entity types and this competition has none"
        )
    if needs.clean.corrections and not types:
        raise VariantError(
            f"variant {needs.name}: clean.corrections names entity types and this competition has "
            "none"
        )
    if needs.augment is not None:
        scheme = Scheme(profile.labels, profile.negative_id, tuple(types), profile.exchange_rules)
        check_augment(needs.augment, scheme)
