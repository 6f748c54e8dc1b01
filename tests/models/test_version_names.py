"""The names of modules in fingerprints never change, since stored results contain them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parent.parent.parent / "models"
NAMES = {
    "models.adapters",
    "models.augmentation",
    "models.averaging",
    "models.batches",
    "models.cleaning",
    "models.corpora",
    "models.corrections",
    "models.curriculum",
    "models.distillation",
    "models.dropout",
    "models.encoder",
    "models.extra",
    "models.formats",
    "models.fresh",
    "models.heads",
    "models.label_words",
    "models.linear",
    "models.losses",
    "models.masking",
    "models.mlp",
    "models.optimizer",
    "models.particles",
    "models.pretraining",
    "models.pseudo",
    "models.restriction",
    "models.roles",
    "models.sampling",
    "models.scratch",
    "models.steps",
    "models.training",
}


def read_constants(path: Path) -> dict[str, Any]:
    """Return the literals that a module assigns to names."""
    return {
        target.id: node.value.value
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def test_every_versioned_room_keeps_its_name() -> None:
    rooms = [read_constants(path) for path in sorted(MODELS.rglob("*.py"))]
    versioned = [room for room in rooms if "RESULT_VERSION" in room]
    names = [room.get("VERSION_NAME") for room in versioned]
    # a new room adds its name here; a name that stands here is never changed or removed
    assert sorted(map(str, names)) == sorted(NAMES)
