"""suitability: what does not suit a competition is refused by its file alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from competition.errors import FormatError, HarnessError, VariantError
from competition.profile import Competition
from models.jobs.suitability import check_files
from models.variant import list_variants

OF_TYPES = {"augment-mask", "entity-mask", "type-restricted", "type-restricted-train"}
OF_SOURCES = {"source"}
OF_KLUE_LABELS = {"augment-hard", "augment-swap"}
ROOT = Path(__file__).parents[3]


def test_without_types_only_variants_about_types_are_refused(
    foreign_competition: Competition,
) -> None:
    refused = set()
    for name in list_variants():
        try:
            check_files((name,), foreign_competition.profile)
        except HarnessError:
            refused.add(name)
    assert refused == OF_TYPES | OF_SOURCES | OF_KLUE_LABELS


def test_an_override_is_looked_at_too(foreign_competition: Competition) -> None:
    profile = foreign_competition.profile
    with pytest.raises(FormatError, match="mask_entities"):
        check_files(("typed-punct",), profile, [("formatting.mask_entities", True)])
    with pytest.raises(VariantError, match="restrict"):
        check_files(("typed-punct",), profile, [("restrict.when", "predict")])
    # whoever reads the file refuses corrections of types; those of labels are as good as elsewhere
    check_files(("typed-punct",), profile, [("clean.corrections", "a.csv")])
    check_files(("no-such-variant", "entity-marker"), profile)  # said by whoever resolves it
    check_files(("entity-mask",), profile, [("learner", "linear")])


def test_a_competition_with_types_takes_all_that_its_labels_allow(
    tiny_competition: Competition,
) -> None:
    for name in set(list_variants()) - OF_KLUE_LABELS:
        check_files((name,), tiny_competition.profile)
    check_files((), tiny_competition.profile)


def test_nothing_heavy_is_loaded_for_it() -> None:
    code = "import sys, models.jobs.suitability; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
