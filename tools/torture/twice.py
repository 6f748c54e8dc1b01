"""Make the demo twice, in two clones of the repository: the bytes must be the same.

``python -m tools.torture.twice``; what tells when and where it was made is left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.torture.homes import ROOT, Home

COMMANDS = (
    ("fold", "tfidf-linear", "--threads", "1"),
    (
        *("fold", "concat-cls", "--encoder", "scratch", "--threads", "1", "--as", "small"),
        *("--set", "scratch.layers=1", "--set", "scratch.hidden=32", "--set", "train.epochs=1"),
    ),
    ("blend", "--trials", "20", "--name", "demo"),
    ("submit", "--to", "local"),
)


def make_demo(folder: Path, limit: int | None = None) -> dict[str, bytes]:
    """Clone the repository, run the main job on the demo there, and return what it left."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    environment = {name: os.environ[name] for name in os.environ if name != "COMPETITION_HOME"}
    sample = () if limit is None else ("--limit", str(limit))
    for command in COMMANDS:
        if sample and command[0] == "submit":
            continue  # a sample's file cannot be sent
        words = [sys.executable, "run.py", *command, "--competition", "demo", *sample]
        subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return Home(folder).read()


def main() -> None:
    """Compare the demo of two clones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="train rows of the demo; default: all")
    limit = parser.parse_args().limit
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        first, second = (make_demo(Path(folder) / name, limit) for name in ("one", "two"))
    differing = sorted(name for name in first if first[name] != second.get(name))
    for name in differing:
        print(f"{name} differs")
    print(f"{len(first)} files, {len(differing)} differ")
    sys.exit(1 if differing or first.keys() != second.keys() else 0)


if __name__ == "__main__":
    main()
