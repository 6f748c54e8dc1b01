"""What installs the project: make and the Dockerfile say and do the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def plan_demo(tmp_path: Path, *settings: str) -> str:
    """Return the commands that ``make demo`` would run with an environment yet to be made."""
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    command = ["make", "--dry-run", "demo", f"VENV={tmp_path / 'venv'}", *settings]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_says_what_it_installs_and_takes_the_build_for_cpus(tmp_path: Path) -> None:
    with_uv = plan_demo(tmp_path, "UV=uv", "GPUS=0")
    assert "Installing the libraries of requirements.txt" in with_uv
    assert "GB to download" in with_uv
    assert "uv pip install" in with_uv
    assert "--torch-backend cpu" in with_uv
    assert "--torch-backend auto" in plan_demo(tmp_path, "UV=uv", "GPUS=2")
    with_pip = plan_demo(tmp_path, "UV=", "GPUS=0")
    assert "no GPU here" in with_pip
    assert "--extra-index-url" not in with_pip
    chosen = plan_demo(tmp_path, "UV=", "GPUS=0", "TORCH_INDEX=https://torch.example")
    assert "--extra-index-url https://torch.example" in chosen
    assert "no GPU here" not in chosen


def test_the_image_runs_the_demo_of_make(tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (home,) = re.findall(r"^ENV (?:.* )?COMPETITION_HOME=(\S+)", text, re.MULTILINE)
    (command,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    own = [" ".join(part.split()).replace(f"{home}/", "") for part in command.split("&&")]
    made = re.findall(r"\S+python (run\.py .*)", plan_demo(tmp_path, "WORKERS=1"))
    assert own == [f"python {line}".replace(" --workers 1", "") for line in made]
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()]
    assert all((ROOT / path).exists() for path in copied)
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"PWD"} == set(re.findall(r"ARG (\w+)", text))


def test_the_image_leaves_out_what_is_ones_own() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv*", "checkpoints", "data", "oof/*/", "submissions/*/"} <= set(ignored)
