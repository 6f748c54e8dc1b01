"""Profiles and the resolver: every wrong key is named, and only one rule leads to the demo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from competition.errors import ProfileError, UsageError
from competition.profile import (
    Competition,
    Profile,
    list_profiles,
    read_profile,
    resolve_competition,
)
from competition.upload.send import TARGETS
from competition.upload_rules import TargetName
from tests.conftest import FOREIGN_PROFILE, TINY_PROFILE, write_tiny

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "competition" / "profiles"

LEADERBOARD_LABELS = (
    "no_relation, org:top_members/employees, org:members, org:product, per:title, "
    "org:alternate_names, per:employee_of, org:place_of_headquarters, per:product, "
    "org:number_of_employees/members, per:children, per:place_of_residence, per:alternate_names, "
    "per:other_family, per:colleagues, per:origin, per:siblings, per:spouse, org:founded, "
    "org:political/religious_affiliation, org:member_of, per:parents, org:dissolved, "
    "per:schools_attended, per:date_of_death, per:date_of_birth, per:place_of_birth, "
    "per:place_of_death, org:founded_by, per:religion"
)


def write_profile(folder: Path, text: str) -> Path:
    path = folder / "some.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", list_profiles())
def test_bundled_profiles_can_be_read_and_have_the_name_of_their_file(name: str) -> None:
    assert read_profile(PROFILES / f"{name}.toml").name == name


@pytest.mark.parametrize("name", ["klue-re", "demo"])
def test_labels_are_in_the_order_of_the_leaderboard(name: str) -> None:
    profile = read_profile(PROFILES / f"{name}.toml")
    assert ", ".join(profile.labels) == LEADERBOARD_LABELS
    assert profile.n_labels == 30
    assert profile.negative_ids == (0,)
    assert profile.label_ids["per:religion"] == 29


def test_klue_re_says_what_the_leaderboard_says() -> None:
    profile = read_profile(PROFILES / "klue-re.toml")
    assert profile.unknown_label == "100"
    assert profile.entity.end_inclusive
    assert (profile.submission.per_day, profile.submission.timezone) == (10, "Asia/Seoul")
    assert profile.folds.group_by == ("sentence", "entity_pair")
    assert profile.upload.default == "folder"


def test_demo_is_scored_by_the_local_leaderboard(tmp_path: Path) -> None:
    demo = resolve_competition("demo", None, None, home=tmp_path)
    assert demo.profile.upload.default == "local"
    assert demo.solution_path == ROOT / "competition" / "demo" / "data" / "solution.csv"


def test_negative_label_need_not_be_first_nor_exist(
    tiny_competition: Competition, foreign_competition: Competition
) -> None:
    assert tiny_competition.profile.negative_ids == (1,)
    assert foreign_competition.profile.negative_ids == ()


WRONG = [
    ('title = "a tiny competition"', "", "title: is missing"),
    ('name = "tiny"', 'name = "../tiny"', "name: "),
    ('name = "tiny"', 'name = "Tiny"', "name: "),
    ("count = 3", 'count = "3"', "folds.count: "),
    ("count = 3", "count = 1", "folds.count: "),
    ("count = 3", "counts = 3", "folds.counts: no such key"),
    ("seed = 7", 'group_by = [""]', "folds.group_by.0: "),
    ("seed = 7", 'group_by = ["sentence", "sentence"]', "folds.group_by: named twice: 'sentence'"),
    ('"per:sibling"]', '"per:employer"]', "labels: named twice: 'per:employer'"),
    ('"per:employer", "per:sibling"]', '"", "x"]', "labels.2: "),
    ('negative_label = "no_relation"', 'negative_label = "none"', "negative_label 'none'"),
    ('unknown_label = "100"', 'unknown_label = "per:sibling"', "unknown_label 'per:sibling'"),
    ('entity_types = ["PER", "ORG", "LOC"]', "", "entity_types and entity.type"),
    ('type = "type"', "", "entity_types and entity.type"),
    ('end = "end_idx"', 'end = "start_idx"', "entity: named twice: 'start_idx'"),
    ('source = "source"', 'source = "id"', "columns: named twice: 'id'"),
    ('timezone = "Asia/Seoul"', 'timezone = "Seoul/Asia"', "submission.timezone: no time zone"),
    ("per_day = 3", "per_day = 0", "submission.per_day: "),
    ("shifted_negative_share = 0.6", "shifted_negative_share = 60", "metrics.shifted_negative"),
    ('negative_label = "no_relation"', "", "metrics.shifted_negative_share needs"),
    ('default = "local"', 'default = "a/b"', "upload.default: "),
    ("[metrics]", "[routes.length]\nshort_max_tokens = 3\n[metrics]", "routes.length: set both"),
    (
        "[metrics]",
        "[routes.length]\nshort_max_tokens = 3\nmedium_max_tokens = 3\n[metrics]",
        "routes.length: short_max_tokens 3 must be below",
    ),
    ("[metrics]", "[metrics", "not a TOML file that can be read"),
    ('name = "tiny"', 'name = "Tiny One"', "name: write lower-case letters, digits, . _ -"),
    ("per_day = 3", 'label_column = "id"', "submission: named twice: 'id'"),
    ("per_day = 3", 'probs_column = "id"', "submission: named twice: 'id'"),
    ('default = "local"', 'default = "kagle"', "upload.default: it should be 'folder', 'local'"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_a_wrong_key_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert TINY_PROFILE.count(old) == 1
    path = write_profile(tmp_path, TINY_PROFILE.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_profile_knows_the_targets_that_there_are() -> None:
    assert get_args(TargetName) == tuple(TARGETS)


def test_all_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    text = FOREIGN_PROFILE.replace("count = 2", "count = 0").replace('name = "foreign"', "")
    with pytest.raises(ProfileError, match=r"(?s)name: is missing.*folds\.count"):
        read_profile(write_profile(tmp_path, text))


def test_a_file_in_another_encoding_is_no_profile(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_bytes(TINY_PROFILE.replace("a tiny", "déjà vu").encode("latin-1"))
    with pytest.raises(ProfileError, match="not a TOML file"):
        read_profile(path)


@pytest.mark.parametrize(
    "written",
    ['[defaults.overrides]\n"train.epochs" = 4', "[defaults.overrides.train]\nepochs = 4"],
)
def test_overrides_are_flat_however_they_are_written(tmp_path: Path, written: str) -> None:
    text = TINY_PROFILE.replace("[upload]", f"{written}\n[upload]")
    assert read_profile(write_profile(tmp_path, text)).defaults.overrides == {"train.epochs": 4}


def test_a_profile_cannot_be_changed(tiny_competition: Competition) -> None:
    profile: Profile = tiny_competition.profile
    with pytest.raises(ValueError, match="frozen"):
        profile.name = "other"  # type: ignore[misc]


def test_artefacts_of_a_limited_run_are_separate(tmp_path: Path) -> None:
    profile = str(write_tiny(tmp_path))
    whole = resolve_competition(profile, None, None, home=tmp_path)
    limited = resolve_competition(profile, None, 40, home=tmp_path)
    assert (whole.name, limited.name) == ("tiny", "tiny@40")
    assert limited.oof_dir == tmp_path / "oof" / "tiny@40"
    assert limited.submissions_dir == tmp_path / "submissions" / "tiny@40"
    assert limited.checkpoints_dir == tmp_path / "checkpoints" / "tiny@40"
    assert "limited to about 40" in limited.headline


def test_the_demo_is_used_only_if_nothing_is_named(tmp_path: Path) -> None:
    fallback = resolve_competition(None, None, None, home=tmp_path)
    assert fallback.is_demo_fallback
    assert fallback.name == "demo"
    assert "bundled demo, as the data of klue-re is not there" in fallback.headline
    assert f"looked for in {tmp_path / 'data' / 'klue-re'}" in fallback.headline
    named = resolve_competition("klue-re", None, None, home=tmp_path)
    assert (named.name, named.is_demo_fallback) == ("klue-re", False)
    with_data = resolve_competition(None, tmp_path, None, home=tmp_path)
    assert (with_data.name, with_data.is_demo_fallback) == ("klue-re", False)


@pytest.mark.parametrize("file", ["train.csv", "test_data.csv"])
def test_one_real_file_is_enough_not_to_be_the_demo(tmp_path: Path, file: str) -> None:
    (tmp_path / "data" / "klue-re").mkdir(parents=True)
    (tmp_path / "data" / "klue-re" / file).touch()
    assert resolve_competition(None, None, None, home=tmp_path).name == "klue-re"


def test_home_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPETITION_HOME", str(tmp_path))
    assert resolve_competition("klue-re", None, None).oof_dir == tmp_path / "oof" / "klue-re"
    monkeypatch.delenv("COMPETITION_HOME")
    assert resolve_competition("klue-re", None, None).home == ROOT


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'klue-re'"):
        resolve_competition("klue_re", None, None, home=tmp_path)
    with pytest.raises(UsageError, match="known are demo, klue-re"):
        resolve_competition("", None, None, home=tmp_path)
    with pytest.raises(UsageError, match="--limit 0"):
        resolve_competition(None, None, 0, home=tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        resolve_competition(None, tmp_path / "absent", None, home=tmp_path)
    with pytest.raises(ProfileError, match="no such competition file"):
        resolve_competition(str(tmp_path / "absent.toml"), None, None, home=tmp_path)


def test_a_home_that_is_not_utf8_is_refused_in_one_line() -> None:
    home = Path(os.fsdecode(b"/tmp/caf\xe9"))
    with pytest.raises(UsageError, match=r"/tmp/caf\\xe9 is not UTF-8: .*COMPETITION_HOME"):
        resolve_competition("demo", None, None, home=home)


def test_a_profile_adds_its_own_words_for_labels(tmp_path: Path) -> None:
    text = write_tiny(tmp_path).read_text("utf-8")
    path = tmp_path / "own.toml"
    path.write_text(f'{text}\n[language.label_words]\n"no_relation" = "없음"\n', "utf-8")
    profile = read_profile(path)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile  # as in a bundle
    language = profile.language
    assert language.words_of("no_relation") == "없음"
    assert language.words_of("per:spouse") == "배우자"
    path.write_text(f'{text}\n[language.label_words]\n"per:friend" = "친구"\n', "utf-8")
    with pytest.raises(ProfileError, match="label_words names 'per:friend', which is not one of"):
        read_profile(path)
