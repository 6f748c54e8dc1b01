"""``variants``: which variants there are, and the idea that each tests."""

from __future__ import annotations

from competition.console import Column, Table
from competition.errors import HarnessError
from competition.profile import Profile
from models.jobs.suitability import check_files
from models.variant import list_variants, read_file_settings


def build_variant_list(profile: Profile) -> Table:
    """Show every shipped variant: what it learns with, its idea, whether it suits a competition."""
    columns = [
        Column("variant", "variant"),
        Column("default", "by default"),
        Column("why", "the idea it tests"),
    ]
    rows = [_build_row(name, profile) for name in list_variants()]
    refused = [f"{row['variant']} does not suit: {row['fault']}" for row in rows if row["fault"]]
    notes = [
        "By default: what fold trains where no variant is named.",
        *refused,
        "Next: python run.py show VARIANT; a variant of your own is a TOML file:"
        " docs/adding-a-variant.md",
    ]
    return Table("variants", f"Variants for {profile.name}", columns, rows, notes)


def _build_row(name: str, profile: Profile) -> dict[str, str]:
    settings = read_file_settings(name)
    is_default = name in profile.defaults.variants
    fault = ""
    try:
        check_files([name], profile)
    except HarnessError as error:
        fault = str(error)
    why = str(settings.get("why", ""))
    return {"variant": name, "default": "yes" if is_default else "", "why": why, "fault": fault}
