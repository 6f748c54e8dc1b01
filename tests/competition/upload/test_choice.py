"""upload.choice: the newest by what blend recorded, and a remark if file times disagree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from competition.profile import Competition
from competition.upload.choice import find_newest, read_checked
from tests.competition.upload.test_send import write


def touch(path: Path, second: int) -> Path:
    os.utime(path, (second, second))
    return path


@pytest.fixture
def first(tiny_competition: Competition) -> Path:
    return touch(write(tiny_competition, "first", time="2026-11-22T12:00:00+00:00"), 1000)


def test_a_clock_set_back_is_remarked(tiny_competition: Competition, first: Path) -> None:
    later = touch(write(tiny_competition, "later", 1, time="2026-11-22T11:00:00+00:00"), 1001)
    assert find_newest(tiny_competition) == first
    _, (remark,) = read_checked(first, tiny_competition)
    assert (
        "first.csv is the newest by the time that blend recorded, but later.csv was modified"
        in remark
    )
    assert read_checked(later, tiny_competition)[1] == ()
    touch(later, 1000)  # at the same time: nothing tells them apart
    assert read_checked(first, tiny_competition)[1] == ()


def test_nothing_is_remarked_where_the_times_agree(
    tiny_competition: Competition, first: Path, tmp_path: Path
) -> None:
    later = touch(write(tiny_competition, "later", 1, time="2026-11-22T13:00:00+00:00"), 1001)
    elsewhere = touch(first.rename(tmp_path / "first.csv"), 1)
    assert find_newest(tiny_competition) == later
    for path in (later, elsewhere):
        assert read_checked(path, tiny_competition)[1] == ()
