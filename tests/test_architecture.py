"""The three floors: imports go down only."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from competition import errors

ROOT = Path(__file__).parent.parent
LEARNING = {"torch", "transformers", "accelerate", "tokenizers", "safetensors", "huggingface_hub"}
FORBIDDEN = {"competition": {"models", "run", *LEARNING}, "models": {"run"}}
MOST_LINES = 450


def rooms(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_imports_go_down_only(floor: str) -> None:
    assert rooms(floor)
    upward = {str(p): imported(p) & FORBIDDEN[floor] for p in rooms(floor)}
    assert {path: names for path, names in upward.items() if names} == {}


def test_rooms_stay_small() -> None:
    sizes = {str(p): len(p.read_text().splitlines()) for f in FORBIDDEN for p in rooms(f)}
    assert {path: size for path, size in sizes.items() if size > MOST_LINES} == {}


def test_every_room_says_where_it_stands() -> None:
    silent = [
        p
        for f in FORBIDDEN
        for p in rooms(f)
        if p.read_text() and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert silent == []


def test_the_error_tree_is_drawn_whole() -> None:
    tree = (errors.__doc__ or "").split()
    classes = {
        name
        for name, item in vars(errors).items()
        if inspect.isclass(item) and issubclass(item, errors.HarnessError)
    }
    assert classes - {"OffencesError"} <= set(tree)
