"""The steps of "Adding a target" in docs/upload.md, applied to a copy of the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from competition.profile import Competition
from competition.submission.ledger import open_ledger
from tests.competition.upload.test_send import write
from tests.competition.upload_servers import KEY, Reply, Request, Server, serve

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "upload.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n# ([^\n]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [tuple(found) for found in BLOCK.findall(DOCUMENT)]
ADDRESS = "https://cloud.example.org/dav/relations"

Submit = Callable[..., "subprocess.CompletedProcess[str]"]


class DavServer(Server):
    def step(self, request: Request) -> str:
        return request.method

    def carry_out(self, step: str, request: Request) -> Reply:
        self.take(request.body, path=request.path)
        return 201, ""


def add_lines(text: str, diff: str) -> str:
    """Apply a diff where its context lines are, which must be one place."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        assert {line[0] for line in lines} <= {" ", "+"}
        before = "".join(line[1:] for line in lines if line[0] == " ")
        assert text.count(before) == 1, before
        text = text.replace(before, "".join(line[1:] for line in lines))
    return text


def follow(tree: Path, profile: Path, url: str) -> None:
    """Do to a copy of the code what the document says."""
    for kind, where, text in BLOCKS:
        if kind == "python":
            (tree / where).write_text(text, encoding="utf-8")
        elif kind == "diff":
            (tree / where).write_text(add_lines((tree / where).read_text("utf-8"), text), "utf-8")
        else:
            assert text.count(ADDRESS) == 1
            with profile.open("a", encoding="utf-8") as stream:
                stream.write(text.replace(ADDRESS, url))


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(DavServer()) as board:
        yield board


@pytest.fixture
def submit(tiny_competition: Competition, tmp_path: Path, server: Server) -> Submit:
    """Run the command of the copy in a new process; return its outputs together."""
    tree, profile = tmp_path / "tree", tmp_path / "tiny.toml"
    shutil.copytree(
        ROOT / "competition", tree / "competition", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "run.py", tree)
    follow(tree, profile, f"{server.url}/relations/")
    env = {**os.environ, "COMPETITION_HOME": str(tmp_path), "DAV_TOKEN": KEY}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tree / "run.py"), "submit", "--competition", str(profile)]
        return subprocess.run(
            [*command, *more], check=False, env=env, cwd=tree, capture_output=True, text=True
        )

    return run


def test_the_document_says_what_goes_where() -> None:
    assert [(kind, where) for kind, where, _ in BLOCKS] == [
        ("python", "competition/upload/dav.py"),
        ("diff", "competition/upload/send.py"),
        ("diff", "competition/upload_rules.py"),
        ("diff", "competition/profiles/klue-re.toml"),
        ("toml", "the profile"),
    ]


def test_the_documented_target_takes_a_file_once(
    tiny_competition: Competition, server: Server, submit: Submit
) -> None:
    path = write(tiny_competition)
    planned = submit(str(path), "--to", "dav", "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    assert f"PUT {server.url}/relations/blend-" in planned.stdout
    assert server.requests == []
    sent = submit(str(path), "--to", "dav", "--json")
    assert sent.returncode == 0, sent.stderr
    (row,) = json.loads(sent.stdout)["submit"]["rows"]
    assert (row["outcome"], row["target"]) == ("sent", "dav")
    (arrived,) = server.submissions
    assert arrived["data"] == path.read_bytes()
    (entry,) = open_ledger(tiny_competition).read()
    assert (entry.target, entry.outcome) == ("dav", "sent")
    assert arrived["path"] == f"/relations/blend-{entry.ref}.csv"
    again = submit(str(path), "--to", "dav")
    assert again.returncode == 2
    assert len(server.submissions) == 1
    for told in (planned, sent, again):
        assert KEY not in told.stdout + told.stderr


def test_the_documented_target_is_among_the_choices(submit: Submit) -> None:
    told = submit("--to", "nowhere")
    assert told.returncode == 2
    assert re.search(r"choose from .*\bdav\b", told.stderr)
