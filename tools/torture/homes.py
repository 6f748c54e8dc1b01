"""A home to be tortured: the demo's rows under a profile of its own, and commands run in it.

Everything below a home is compared byte for byte, but for what tells when and where it was made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.torture.warm import Command, Starter

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "competition" / "demo" / "data"
PROFILE = ROOT / "competition" / "profiles" / "demo.toml"
OUTSIDE = (".run.json", ".log", "metrics.jsonl", "RUN.md")
"""Ends of names of files that tell when, where and how fast, or hold nothing."""
TIMES = ("time", "finished", "started")
NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Home:
    """A folder with a profile ``torture``; ``url`` is where ``submit --to http`` goes.

    ``n_rows`` is how many of the demo's train rows it has, with a quarter as many test rows; None:
    all. What is tortured is the writing of files, which takes few rows. ``starter`` starts commands
    quickly; None: each as a user would. Output goes to a file in ``logs``; None: beside the home.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    n_rows: int | None = None
    starter: Starter | None = None
    logs: Path | None = None

    @property
    def profile(self) -> Path:
        """Return its profile."""
        return self.path / "torture.toml"

    def make(self, url: str = NOWHERE) -> Home:
        """Write the profile."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = PROFILE.read_text("utf-8").replace('name = "demo"', 'name = "torture"', 1)
        text = text.replace("bundled = true", "bundled = false", 1)
        text = text.replace('directory = "demo/data"', f'directory = "{self._make_data()}"', 1)
        text += (
            f'\n[upload.http]\nurl = "{url}/submissions"\nkey_variable = "TORTURE_KEY"\n'
            f'status_url = "{url}/submissions/{{id}}"\n'
            '[upload.http.scores]\npublic_f1 = "f1"\n'
        )
        self.profile.write_text(text, "utf-8")
        return self

    def _make_data(self) -> Path:
        """Return the folder of the demo's files, or of the first rows of each."""
        if self.n_rows is None:
            return DEMO
        folder = self.path / "data"
        folder.mkdir(exist_ok=True)
        for name in ("train.csv", "test_data.csv", "solution.csv"):
            count = self.n_rows if name == "train.csv" else self.n_rows // 4
            lines = (DEMO / name).read_text("utf-8").splitlines(keepends=True)
            (folder / name).write_text("".join(lines[: count + 1]), "utf-8")
        return folder

    def copy(self, path: Path) -> Home:
        """Return a copy of it; an old one there is removed."""
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.path, path)
        return replace(self, path=path)

    def run_once(self, commands: Sequence[Sequence[str]]) -> Home:
        """Return a home beside it in which commands were run; it is made once and kept.

        Raises:
            SystemExit: a command failed.
        """
        if not commands:
            return self
        path = self.path.with_name("-".join([self.path.name, *(each[0] for each in commands)]))
        if not path.exists():
            home = self.run_once(commands[:-1]).copy(path.with_name(f"{path.name}.part"))
            code, said = home.run(commands[-1])
            if code:
                raise SystemExit(f"{' '.join(commands[-1])}: {said}")
            home.path.rename(path)
        return replace(self, path=path)

    @property
    def size(self) -> int:
        """Return the number of bytes of its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    @property
    def log(self) -> Path:
        """Return where output goes."""
        return (self.logs or self.path.parent) / f"{self.path.name}.log"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes] | Command:
        """Start a command in a session of its own; its output goes to the log."""
        words = [*command, "--competition", str(self.profile)]
        environment = {**os.environ, **self.environment, "COMPETITION_HOME": str(self.path)}
        if self.starter is not None:
            return self.starter.start(words, environment, self.log)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "run.py"), *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                cwd=ROOT,
            )

    def said(self) -> str:
        """Return the output of the last command."""
        return self.log.read_text("utf-8", errors="replace")

    def run(self, command: Sequence[str], timeout_s: float = 1800.0) -> tuple[int, str]:
        """Run a command to its end; return its exit code and output."""
        self.log.unlink(missing_ok=True)
        code = self.start(command).wait(timeout_s)
        return code, self.said()

    def look(self) -> dict[str, int]:
        """Return when each file and folder below changed last, to see when one does."""
        found = {}
        for folder, _, names in os.walk(self.path):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                with suppress(OSError):
                    found[str(path)] = path.stat().st_mtime_ns
        return found

    def read(self) -> dict[str, bytes]:
        """Return every file that must be the same whatever happened on the way.

        The home's own path, which cards of encoders quote in their command, is left out.
        """
        folders = [self.path / name for name in ("oof", "submissions", "checkpoints")]
        paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
        return {
            str(path.relative_to(self.path)): _read(path).replace(str(self.path).encode(), b"HOME")
            for path in paths
            if path.is_file() and not path.name.endswith(OUTSIDE)
        }


def _read(path: Path) -> bytes:
    """Read a file; of a ledger, without its times."""
    data = path.read_bytes()
    if path.name != "ledger.jsonl":
        return data
    lines = [json.loads(line) for line in data.splitlines()]
    kept = [{key: line[key] for key in line if key not in TIMES} for line in lines]
    return json.dumps(kept, sort_keys=True).encode()


def kill_all(process: subprocess.Popen[bytes] | Command) -> None:
    """Kill a command with everything that it started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    while left := list_members(process.pid):  # those with a group of their own
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def list_members(session: int) -> list[int]:
    """Return the processes of a command that are still running: those of its session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found
