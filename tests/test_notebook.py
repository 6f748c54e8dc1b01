"""The notebook for Kaggle and Colab runs from its first cell to its last, on the demo."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "notebooks" / "evening.ipynb"
TINY = {
    "scratch.layers": 1,
    "scratch.hidden": 32,
    "scratch.heads": 1,
    "scratch.feed_forward": 32,
    "scratch.vocabulary": 400,
    "train.epochs": 1,
    "run.precision": "float32",
}


def read_notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs_and_in_two_languages() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for text in texts:
        assert re.search("[가-힣]", text), text
        assert re.search("[A-Za-z]{4}", text), text


@pytest.mark.slow
def test_it_goes_from_the_data_to_a_checked_blend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.delenv("COMPETITION_HOME", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook = read_notebook()
    (settings,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    chosen = {"CLONE": str(ROOT), "COMPETITION": "demo", "SMALL": "scratch", "SETTINGS": TINY}
    lines = [f"\n{name} = {value!r}" for name, value in {**chosen, "LIMIT": 200}.items()]
    settings.source += "".join(lines)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1200, resources=place).execute()
    made = tmp_path / "home" / "submissions" / "demo@200"
    members = json.loads((made / "evening.json").read_text(encoding="utf-8"))["members"]
    assert {member["name"] for member in members} == {"small", "tfidf-linear"}
    shown = json.dumps(notebook.cells, ensure_ascii=False)
    assert "GPU가 없어 건너뜁니다" in shown
    assert "표본으로 만든 답은 제출할 수 없습니다" in shown
