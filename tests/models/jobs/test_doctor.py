"""doctor: each fault is named with what to do, and no key is ever shown."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from competition.profile import Competition, resolve_competition
from models.jobs import doctor
from models.jobs.doctor import (
    check_data,
    check_device,
    check_encoders,
    check_libraries,
    check_room,
    check_store,
    check_uploads,
    run_doctor,
)
from models.jobs.request import FoldRequest, resolve_all
from models.network.encoder_source import find_copy
from models.variant import Variant
from tests.conftest import RunCommand


def variants_with(competition: Competition, encoder: str) -> tuple[Variant, ...]:
    return resolve_all(competition.profile, FoldRequest(encoder=encoder))


@pytest.fixture
def demo(tmp_path: Path) -> Competition:
    return resolve_competition("demo", None, None, home=tmp_path)


def test_the_demo_needs_nothing(demo: Competition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_libraries", lambda: iter(()))  # a machine may differ
    monkeypatch.setattr(doctor, "find_free_memory", lambda: 64 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 << 30))
    table, is_sound = run_doctor(demo)
    assert is_sound, table.notes
    found = {row["what"]: row["found"] for row in table.rows}
    assert found["encoder ko-mini"].startswith("here: ")
    assert {"device", "precision", "train file", "upload to local", "disk", "memory"} <= set(found)


def test_other_and_missing_libraries(tmp_path: Path) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text("# no pin\nnumpy==0.0.1 # old\nno-such-library==1.0\n")
    python, numpy, missing = check_libraries(pins)
    assert (python.state, numpy.state, missing.state) == ("ok", "note", "fix")
    assert "pinned is 0.0.1" in numpy.remedy
    assert missing.remedy == "python -m pip install no-such-library==1.0"


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "list_gpu_notices", lambda: ("notice: torch sees no GPU",))
    found = {each.what: each for each in check_device()}
    assert (found["GPU"].state, found["GPU"].remedy) == ("fix", "torch sees no GPU")


def test_missing_data(tiny_competition: Competition, tmp_path: Path) -> None:
    lost = replace(tiny_competition, data_dir=tmp_path / "none")
    assert [each.state for each in check_data(tiny_competition)] == ["ok", "ok"]
    train, _ = check_data(lost)
    assert train.state == "fix"
    assert "--data DIR" in train.remedy


def test_an_encoder_of_a_hub_is_looked_for_there(tiny_competition: Competition) -> None:
    variants = variants_with(tiny_competition, "nobody/has-this-model")
    assert find_copy("nobody/has-this-model") is None
    (reachable,) = check_encoders(variants, lambda _: True)
    (unreachable,) = check_encoders(variants, lambda _: False)
    assert (reachable.state, unreachable.state) == ("ok", "fix")
    assert "--encoder FOLDER" in unreachable.remedy
    (made,) = check_encoders(variants_with(tiny_competition, "scratch"), pytest.fail)
    assert made.state == "ok"


def test_keys_are_looked_for_and_not_shown(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tiny_competition.profile.upload
    board = rules.http.model_copy(update={"url": "https://b.example/api", "key_variable": "MY_KEY"})
    upload = rules.model_copy(update={"default": "http", "http": board})
    profile = tiny_competition.profile.model_copy(update={"upload": upload})
    competition = replace(tiny_competition, profile=profile)
    monkeypatch.delenv("MY_KEY", raising=False)
    found = {each.what: each for each in check_uploads(competition)}
    assert (found["upload to http"].state, found["upload to http"].remedy) == ("fix", "set MY_KEY")
    monkeypatch.setenv("MY_KEY", "s3cret-value")
    found = {each.what: each for each in check_uploads(competition)}
    assert found["upload to http"].state == "ok"
    assert "s3cret-value" not in str(found)
    assert "upload to kaggle" not in found, "a target that no profile names is not expected"


def test_a_store_that_cannot_be_written(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_store(tiny_competition).state == "ok"
    tiny_competition.oof_dir.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tiny_competition.oof_dir)
    found = check_store(tiny_competition)
    assert (found.state, found.found) == ("fix", f"{tiny_competition.oof_dir} is not writable")
    assert "COMPETITION_HOME" in found.remedy


def test_too_little_room(demo: Competition, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = variants_with(demo, "ko-mini")
    monkeypatch.setattr(doctor, "find_free_memory", lambda: 64 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    disk, memory = check_room(demo, variants)
    assert (disk.state, memory.state) == ("fix", "ok")
    assert "--no-checkpoints" in disk.remedy
    monkeypatch.setattr(doctor, "find_free_memory", lambda: 1 << 20)
    assert [each.state for each in check_room(demo, variants)] == ["fix", "fix"]


def test_the_size_of_an_encoder_that_is_not_here_is_guessed(
    demo: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_free_memory", lambda: 64 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    disk, memory = check_room(demo, variants_with(demo, "nobody/some-roberta-large"))
    assert "guessed by its name" in disk.found
    assert "about 0 B" not in disk.found
    small_disk, small_memory = check_room(demo, variants_with(demo, "ko-mini"))
    assert "guessed" not in small_disk.found
    assert memory.found != small_memory.found


def test_the_command_ends_with_what_to_fix(
    run_command: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    printed = run_command("doctor", "--competition", "demo", exits=2)
    assert "Fix: disk: make room" in printed
    told = json.loads(
        run_command("doctor", "--competition", "demo", "--json", exits=2, only_stdout=True)
    )
    assert {row["what"]: row["state"] for row in told["doctor"]["rows"]}["disk"] == "fix"
