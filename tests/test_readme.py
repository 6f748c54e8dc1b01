"""Check that the documents are correct: commands, options, make targets, links, profile keys."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

import run
from competition.profile import Profile

ROOT = Path(__file__).parent.parent
KOREAN = ROOT / "README.ko.md"
DOCUMENTS = [ROOT / "README.md", KOREAN, *sorted((ROOT / "docs").glob("*.md"))]
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


def test_the_korean_readme_keeps_step_with_the_english_one() -> None:
    english, korean = (ROOT / "README.md").read_text("utf-8"), KOREAN.read_text("utf-8")
    rows = [re.findall(r"^\| `(run\.py [^`]*)`", text, re.MULTILINE) for text in (english, korean)]
    assert rows[0] == rows[1]
    plain = english.replace("\\|", "|")
    spans = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", korean, flags=re.DOTALL)))
    unknown = {span for span in spans if not all(part in plain for part in span.split("|"))}
    assert not unknown, f"README.md has no {sorted(unknown)}"
    numbers = set(re.findall(r"\d+(?:\.\d+)*", re.sub(r"```.*?```", "", korean, flags=re.DOTALL)))
    assert numbers <= set(re.findall(r"\d+(?:\.\d+)*", english))
    targets = set(re.findall(r"^make [a-z-]+", english, re.MULTILINE))
    assert set(re.findall(r"^make [a-z-]+", korean, re.MULTILINE)) == targets


def _read_blocks(document: Path) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    return "".join(blocks).splitlines()


def test_the_korean_readmes_commands_parse() -> None:
    """Every command in its blocks is accepted as printed, up to where the work begins."""
    blocks = "\n".join(_read_blocks(KOREAN))
    lines = re.findall(r"^python run\.py ([^#\n]*)", blocks, re.MULTILINE)
    assert len(lines) >= 10
    english = {line.partition("#")[0].strip() for line in _read_blocks(ROOT / "README.md")}
    assert {f"python run.py {line}".strip() for line in lines} <= english
    for line in lines:
        name, *words = shlex.split(line)
        COMMANDS[name].make_context(name, words, resilient_parsing=False)


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
