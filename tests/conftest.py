"""Small competitions on disk, and the real one where the machine has it.

``tiny_competition``: the columns of klue-re, 64 train rows in 4 labels (the negative one is not the
first), 20 test rows and their solution, 3 folds. ``foreign_competition``: the same rows under other
column names and keys, untyped, without source, ends exclusive, no negative label named.
"""

from __future__ import annotations

import csv
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from competition.lease import Leases
from competition.profile import Competition, resolve_competition
from models.jobs.engines.processes import process_context
from run import main as run_main
from tools.torture.warm import Starter, warm

# Set before numpy, torch and huggingface_hub are imported, which read them; processes inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, one on each core
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("COLUMNS", None)  # the width of a terminal, which tests are not written for

# No deadline: a busy machine is no failure. The same examples each time, whatever the worker;
# HYPOTHESIS_PROFILE=explore looks at others and keeps those that failed in .hypothesis/.
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, database=None, max_examples=50
)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


_frozen_at: set[int] = set()


def pytest_runtest_setup() -> None:
    """Leave imported modules out of garbage collection, which every training job asks for."""
    if len(sys.modules) not in _frozen_at:
        gc.collect()
        gc.freeze()
        _frozen_at.add(len(sys.modules))


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Let ``fsync`` return at once: no test cuts the power, and thousands of files are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


LABELS = ("per:birthplace", "no_relation", "per:employer", "per:sibling")
N_TRAIN, N_TEST = 64, 20

TINY_PROFILE = """
name = "tiny"
title = "a tiny competition"
labels = ["per:birthplace", "no_relation", "per:employer", "per:sibling"]
negative_label = "no_relation"
entity_types = ["PER", "ORG", "LOC"]
unknown_label = "100"

[files]
directory = "data"
train = "train.csv"
test = "test.csv"
solution = "solution.csv"

[columns]
id = "id"
sentence = "sentence"
subject = "subject_entity"
object = "object_entity"
label = "label"
source = "source"

[entity]
word = "word"
start = "start_idx"
end = "end_idx"
type = "type"
end_inclusive = true

[folds]
count = 3
seed = 7

[metrics]
shifted_negative_share = 0.6

[submission]
per_day = 3
timezone = "Asia/Seoul"

[defaults]
encoder = "scratch"
variants = ["concat-cls"]

[upload]
default = "local"
"""

FOREIGN_PROFILE = """
name = "foreign"
title = "other names, untyped"
labels = ["per:birthplace", "no_relation", "per:employer", "per:sibling"]

[files]
directory = "elsewhere"
train = "rows.csv"
test = "unseen.csv"

[columns]
id = "row"
sentence = "text"
subject = "head"
object = "tail"
label = "relation"

[entity]
word = "name"
start = "from"
end = "to"

[folds]
count = 2

[submission]
id_column = "row"
label_column = "relation"
probs_column = "p"
"""

_PERSONS = tuple(
    f"{family}{given}" for family in "김이박최정" for given in ("하나", "두리", "세진")
)
_PLACES = ("서울", "부산", "대구", "광주", "제주")
_FIRMS = ("한빛사", "다온", "새길", "누리", "가람")
_TEMPLATES = {
    "per:birthplace": ("{s}은(는) {o}에서 태어났다.", "LOC"),
    "no_relation": ("{o} 소식을 {s} 기자가 전했고, {s}의 글은 널리 읽혔다.", "ORG"),
    "per:employer": ("지난해 {o}에 들어간 {s} 대리는 올해 승진했다.", "ORG"),
    "per:sibling": ("{s}와(과) {o}는 남매이다.", "PER"),
}


@dataclass(frozen=True)
class Made:
    """A row before it is written; spans are half-open."""

    id: str
    sentence: str
    subject: tuple[str, int, int, str]
    object: tuple[str, int, int, str]
    label: str
    source: str


def make_rows(count: int, *, first: int = 0) -> list[Made]:
    """Make rows, every eighth one sharing the pair of the row before, in the other direction."""
    made = []
    for i in range(first, first + count):
        label = LABELS[i % 4]
        template, object_type = _TEMPLATES[label]
        subject = f"{_PERSONS[i % 15]}{i // 15}"
        objects = {"LOC": _PLACES, "ORG": _FIRMS, "PER": _PERSONS}[object_type]
        object_ = f"{objects[(i * 3 + 1) % len(objects)]}{i % 7}호{i}"
        if i % 8 == 7:
            before = made[-1]
            subject, object_ = before.object[0], before.subject[0]
        sentence = template.format(s=subject, o=object_)
        s, o = sentence.index(subject), sentence.index(object_)
        made.append(
            Made(
                str(i),
                sentence,
                (subject, s, s + len(subject), "PER"),
                (object_, o, o + len(object_), object_type),
                label,
                ("news", "wiki")[i % 3 == 0],
            )
        )
    # one sentence twice, with other entities; one exact duplicate whose label conflicts
    twin = made[2]
    made[10] = replace(twin, id=made[10].id, subject=twin.object, object=twin.subject)
    made[13] = replace(twin, id=made[13].id, label="no_relation")
    return made


def write_csv(path: Path, header: tuple[str, ...], records: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(records)


def _typed(entity: tuple[str, int, int, str]) -> str:
    word, start, end, type_ = entity
    return str({"word": word, "start_idx": start, "end_idx": end - 1, "type": type_})


def _untyped(entity: tuple[str, int, int, str]) -> str:
    word, start, end, _ = entity
    return str({"name": word, "from": start, "to": end})


def write_tiny(home: Path) -> Path:
    """Write the tiny competition under a home; return the path of its profile."""
    profile = home / "tiny.toml"
    profile.write_text(TINY_PROFILE, encoding="utf-8")
    header = ("id", "sentence", "subject_entity", "object_entity", "label", "source")
    train, test = make_rows(N_TRAIN), make_rows(N_TEST, first=1000)

    def records(rows: list[Made], label: str | None) -> list[tuple[object, ...]]:
        return [
            (r.id, r.sentence, _typed(r.subject), _typed(r.object), label or r.label, r.source)
            for r in rows
        ]

    write_csv(home / "data" / "train.csv", header, records(train, None))
    write_csv(home / "data" / "test.csv", header, records(test, "100"))
    write_csv(home / "data" / "solution.csv", ("id", "label"), [(r.id, r.label) for r in test])
    return profile


def write_foreign(home: Path) -> Path:
    """Write the foreign competition under a home; return the path of its profile."""
    profile = home / "foreign.toml"
    profile.write_text(FOREIGN_PROFILE, encoding="utf-8")
    train, test = make_rows(N_TRAIN), make_rows(N_TEST, first=1000)
    write_csv(
        home / "elsewhere" / "rows.csv",
        ("relation", "row", "tail", "head", "text", "unused"),
        [(r.label, r.id, _untyped(r.object), _untyped(r.subject), r.sentence, "x") for r in train],
    )
    write_csv(
        home / "elsewhere" / "unseen.csv",
        ("row", "text", "head", "tail"),
        [(r.id, r.sentence, _untyped(r.subject), _untyped(r.object)) for r in test],
    )
    return profile


def leave_lease(path: Path, **facts: object) -> Path:
    """Leave the lease of a process that is gone, or is on another machine."""
    with Leases() as leases:
        made = leases.acquire(path)
        assert made is not None
        text = made.file.read_text()
    file = path.with_name(f"{path.name}.1.lease")
    file.write_text(json.dumps({**json.loads(text), **facts}))
    return file


@pytest.fixture
def tiny_competition(tmp_path: Path) -> Competition:
    return resolve_competition(str(write_tiny(tmp_path)), None, None, home=tmp_path)


@pytest.fixture
def foreign_competition(tmp_path: Path) -> Competition:
    return resolve_competition(str(write_foreign(tmp_path)), None, None, home=tmp_path)


@pytest.fixture
def edit_train(tiny_competition: Competition) -> Callable[[str, str], int]:
    """Replace the only occurrence of a text in train.csv; return its line."""

    def edit(old: str, new: str) -> int:
        text = tiny_competition.train_path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
        line = text[: text.index(old)].count("\n") + 1
        tiny_competition.train_path.write_text(text.replace(old, new), encoding="utf-8", newline="")
        return line

    return edit


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reads the real data as slow."""
    for item in items:
        if "klue_re_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def klue_re_dir() -> Path:
    """The folder of the real data; tests that take it are skipped where there is none."""
    named = os.environ.get("KLUE_RE_DIR")
    if not named:
        pytest.skip("KLUE_RE_DIR does not name the folder of the real KLUE-RE files")
    return Path(named)


def choose_context() -> Any:
    """Return how a test starts a process that imports little.

    The whole suite needs the fork server of jobs anyway, and a fork takes no time; a test run alone
    is done sooner by a new interpreter than by loading torch.
    """
    return process_context() if "torch" in sys.modules else get_context("spawn")


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """Starts commands that a test kills: forks of a process that has loaded the libraries."""
    with warm() as made:
        yield made


RunCommand = Callable[..., str]


@pytest.fixture
def run_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunCommand:
    """Run a command of ``run.py`` in this process; return its output. Its home is ``tmp_path``.

    A process of its own would spend seconds on imports. Jobs that the command starts are processes
    nonetheless, forked from one server that all tests of this process share.
    """

    def run(
        *arguments: str, exits: int = 0, only_stdout: bool = False, home: Path = tmp_path
    ) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(home)
            patch.setenv("COMPETITION_HOME", str(home))
            patch.setenv("COLUMNS", "120")
            patch.setattr(sys, "argv", ["run.py", *arguments])
            with pytest.raises(SystemExit) as end:
                run_main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert (end.value.code or 0) == exits, f"{arguments}: {out}\n{err}"
        return out if only_stdout else out + err

    return run
