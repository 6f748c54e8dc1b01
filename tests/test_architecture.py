"""The three floors: imports go down only."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
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


def rooms_by_name() -> dict[str, Path]:
    paths = [ROOT / "run.py", *(path for floor in FORBIDDEN for path in rooms(floor))]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


def needed_rooms(source: str, known: Collection[str]) -> set[str]:
    """Name the rooms that a source imports anywhere: in functions and for types alone too."""
    needed: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            needed |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            needed |= names & set(known) or {str(node.module)}
    return needed & set(known)


def find_circle(needs: Mapping[str, Collection[str]]) -> list[str]:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_no_room_needs_itself() -> None:
    paths = rooms_by_name()
    needs = {name: needed_rooms(path.read_text("utf-8"), paths) for name, path in paths.items()}
    assert needs["run"] > {"models.jobs.fold", "competition.board.board"}
    assert needs["models.variant"] > {"models.parts.losses", "models.settings"}
    assert find_circle(needs) == []


def test_a_circle_is_found_wherever_the_import_stands() -> None:
    sources = {
        "a": "import os\nfrom floor import b",
        "floor.b": "def late():\n    from floor.c import thing",
        "floor.c": "if TYPE_CHECKING:\n    import a",
        "d": "from floor import b, c",
    }
    names = {"a", "floor.b", "floor.c", "d"}
    needs = {name: needed_rooms(source, names) for name, source in sources.items()}
    assert needs["d"] == {"floor.b", "floor.c"}
    assert set(find_circle(needs)) == {"a", "floor.b", "floor.c"}
    assert find_circle({**needs, "floor.c": set()}) == []


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
