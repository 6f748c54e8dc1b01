"""Three floors of packages: imports go down only, and through open rooms only."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Collection, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from competition import errors

ROOT = Path(__file__).parent.parent
LEARNING = {"torch", "transformers", "accelerate", "tokenizers", "safetensors", "huggingface_hub"}
FORBIDDEN = {"competition": {"models", "run", *LEARNING}, "models": {"run"}}
MOST_LINES = 450
# from the ground up: whatever stands earlier never imports what stands later
ORDER = (
    "competition",  # the rooms that lie at its root
    "competition.data",
    "competition.scoring.metrics",
    "competition.scoring",
    "competition.folds",
    "competition.audit",
    "competition.predictions",
    "competition.importing",
    "competition.submission",
    "competition.blend",
    "competition.compare",
    "competition.upload",
    "competition.board",
    "competition.report",
    "models",
    "models.settings",
    "models.parts",
    "models.variant",
    "models.data",
    "models.network",
    "models.training",
    "models.pretraining",
    "models.jobs",
    "models.tuning",
    "run",
)


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


@cache
def import_lines(source: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Return the module of each import in a source, and what it may mean: names in it, or it."""
    found: list[tuple[str, frozenset[str]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, frozenset()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = frozenset(f"{node.module}.{alias.name}" for alias in node.names)
            found.append((str(node.module), names))
    return tuple(found)


def needed_rooms(source: str, known: Collection[str]) -> set[str]:
    """Name the rooms that a source imports anywhere: in functions and for types alone too."""
    rooms_known = set(known)
    needed = [names & rooms_known or {module} for module, names in import_lines(source)]
    return set().union(*needed) & rooms_known


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


def test_a_circle_is_found_wherever_the_import_is() -> None:
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


def layer_of(room: str) -> str:
    """Return the layer of a room: its package, or itself if it is listed alone in the order."""
    return max((each for each in ORDER if f"{room}.".startswith(f"{each}.")), key=len)


@cache
def read_face(source: str) -> tuple[set[str], set[str]]:
    """Read a package's rooms and its open rooms from its docstring."""
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    found = re.search(r"Rooms in reading order: ([^.]*)\. Open: ([^.]*)\.", text)
    assert found, f"a face names its rooms and the open ones: {text!r}"
    rooms_named, open_ = (set(part.split(", ")) for part in found.groups())
    assert open_ <= rooms_named
    return rooms_named, open_


def find_trespasses(sources: Mapping[str, str]) -> list[str]:
    """List imports that run up the order, or enter a room that its package does not open.

    Args:
        sources: of every room and of the packages' faces, by dotted name.
    """
    faults = []
    for name, source in sources.items():
        for needed in sorted(needed_rooms(source, sources)):
            own, other = layer_of(name), layer_of(needed)
            if ORDER.index(other) > ORDER.index(own):
                faults.append(f"{name} imports upwards: {needed}")
            elif other not in (own, needed, "competition", "models") and (
                needed.rpartition(".")[2] not in read_face(sources[other])[1]
            ):
                faults.append(f"{name} enters a closed room: {needed}")
    return faults


def read_sources() -> dict[str, str]:
    return {name: path.read_text("utf-8") for name, path in rooms_by_name().items()}


def test_packages_are_entered_from_above_and_through_open_rooms() -> None:
    assert find_trespasses(read_sources()) == []


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("run", "from competition.blend import selection", "enters a closed room"),
        ("models.jobs.fold", "from competition.upload.wire import Wire", "enters a closed room"),
        ("competition.data.rows", "from competition.folds.kfold import Folds", "imports upwards"),
        ("models.parts.heads", "import models.training.loop", "imports upwards"),
        ("models.settings", "from models.variant import Variant", "imports upwards"),
    ],
)
def test_a_trespass_is_found(name: str, line: str, fault: str) -> None:
    sources = read_sources()
    found = find_trespasses({**sources, name: f"{sources[name]}\n{line}\n"})
    assert len(found) == 1
    assert found[0].startswith(f"{name} {fault}")


def test_a_face_names_every_room_of_its_package() -> None:
    sources = read_sources()
    for package in ORDER:
        if package.count(".") == 0 or not (ROOT / package.replace(".", "/")).is_dir():
            continue
        inside = {name for name in sources if name.startswith(f"{package}.")}
        packages = inside & set(ORDER)  # a package without a place stands in this one's face
        there = {
            name.rpartition(".")[2]
            for name in inside - packages
            if not any(name.startswith(f"{each}.") for each in packages)
        }
        assert read_face(sources[package])[0] == there, package
        assert len(sources[package].splitlines()) <= 12, package
        assert not needed_rooms(sources[package], sources), f"{package}: a face imports nothing"


def test_every_package_has_a_place_in_the_order() -> None:
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for floor in FORBIDDEN
        for path in (*(ROOT / floor).glob("__init__.py"), *(ROOT / floor).glob("*/__init__.py"))
    }  # a folder within a package is part of it
    assert packages == {name for name in ORDER if name in packages}


def test_every_package_is_in_the_map_in_its_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"^\| `((?:competition|models)/\w+)/` ", text, re.MULTILINE)
    packages = [name.replace(".", "/") for name in ORDER if name.count(".") == 1]
    assert named == [name for name in packages if (ROOT / name).is_dir()]


def test_rooms_stay_small() -> None:
    sizes = {str(p): len(p.read_text().splitlines()) for f in FORBIDDEN for p in rooms(f)}
    assert {path: size for path, size in sizes.items() if size > MOST_LINES} == {}


def test_every_room_has_a_docstring() -> None:
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
