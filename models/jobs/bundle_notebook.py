"""The notebook of a bundle, and what Kaggle wants to know of dataset and notebook."""

from __future__ import annotations

import json
import re
from typing import Any

NOTEBOOK = "predict.ipynb"
MAX_SLUG, MIN_SLUG = 50, 6  # characters of a dataset's title on Kaggle
INTRODUCTION = """\
# {name}: submission without network
Attach this bundle as a dataset and the competition's data, switch the internet off and the GPU on,
and run all cells; the last one writes `submission.csv`. Change the settings below only if needed.

이 노트북은 인터넷 없이 테스트 파일을 예측하고 `submission.csv`를 씁니다. 번들(데이터셋)과 대회
데이터를 붙이고 모든 셀을 실행하세요."""
SETTINGS = """\
from pathlib import Path

TEST_FILE = None  # None: the first {test!r} that is found
OUT = Path("submission.csv")
LIMIT_H = 8.5  # hours; folds that would not fit are left out, the others still answer
THREADS = None  # CPU threads; None: as in training, for identical bytes"""
FIND = """\
PLACES = [Path.cwd().parent, Path.cwd(), Path("/kaggle/input"), Path("/content")]


def find(name, places):
    for depth in range(5):
        for place in places:
            for path in sorted(place.glob("*/" * depth + name)):
                return path
    raise SystemExit(f"{{name}} is not below {{', '.join(map(str, places))}}; attach it")


BUNDLE = find("bundle.json", PLACES).parent
TEST_FILE = Path(TEST_FILE) if TEST_FILE else find({test!r}, PLACES[2:] + PLACES[:2])
print(BUNDLE, TEST_FILE)"""
INSTALL = """\
import subprocess
import sys

# only what is missing here, and only from the bundle's own wheels
subprocess.run(
    [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
        *("--find-links", str(BUNDLE / "wheels"), "--requirement", str(BUNDLE / "wheels.txt")),
    ],
    check=True,
)"""
PREDICT = """\
sys.path.insert(0, str(BUNDLE / "code"))
from models.jobs.offline import predict_bundle

predict_bundle(BUNDLE, TEST_FILE, OUT, limit_s=3600 * LIMIT_H, threads=THREADS)"""


def build_notebook(name: str, test: str) -> str:
    """Return the notebook's JSON."""
    cells = [
        _write_cell("markdown", INTRODUCTION.format(name=name)),
        *(
            _write_cell("code", text)
            for text in (SETTINGS.format(test=test), FIND.format(test=test), INSTALL, PREDICT)
        ),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": [{**cell, "id": f"cell-{at}"} for at, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _write_cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": text}
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


def build_kernel(owner: str, slug: str, competition: str | None) -> dict[str, Any]:
    """Return the metadata of the notebook, for ``kaggle kernels push``."""
    return {
        "id": f"{owner}/{name_dataset(f'predict-{slug}')}",
        "title": name_dataset(f"predict-{slug}"),
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "dataset_sources": [f"{owner}/{slug}"],
        "competition_sources": [] if competition is None else [competition],
        "kernel_sources": [],
    }


def name_dataset(text: str) -> str:
    """Return a name that Kaggle accepts for a dataset or a notebook.

    >>> name_dataset("klue-re@2000-My_Blend"), name_dataset("a")
    ('klue-re-2000-my-blend', 'bundle-a')
    """
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_SLUG].strip("-")
    return slug if len(slug) >= MIN_SLUG else f"bundle-{slug}"
