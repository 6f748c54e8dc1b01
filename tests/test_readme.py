"""Check that the documents are correct: commands, options, make targets, links, profile keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

import run
from competition.profile import Profile

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(run.app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(document: Path) -> None:
    mentioned = re.findall(r"run\.py ([a-z]+)([^\n|]*)", document.read_text("utf-8"))
    for name, rest in mentioned:
        assert name in COMMANDS, f"{document.name} names the command {name!r}"
        known = {option for p in COMMANDS[name].params for option in p.opts}
        unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) - known - {"--help"}
        assert not unknown, f"{document.name}: {name} has no {unknown}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    promised = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text("utf-8")))
    assert promised
    assert promised <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_exist(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_commented_example_has_every_key_of_a_profile() -> None:
    example = (ROOT / "competition" / "profiles" / "klue-re.toml").read_text("utf-8")
    for name, field in Profile.model_fields.items():
        assert re.search(rf"^(# )?{name} = |^\[{name}[\].]", example, re.MULTILINE), name
        for key in getattr(field.annotation, "model_fields", {}):
            found = re.search(rf"^(# )?{key} = |^\[{name}\.{key}\]", example, re.MULTILINE)
            assert found or (name, key) == ("files", "bundled"), f"{name}.{key}"
