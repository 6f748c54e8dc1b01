"""The benchmark's own files are read as they are, and never in the wrong order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from competition.data.corpus import read_corpus, read_rows
from competition.errors import ProfileError
from competition.profile import read_profile, resolve_competition
from competition.submission.form import read_test_ids
from tests.conftest import LABELS, N_TEST, N_TRAIN, TINY_PROFILE, Made, make_rows, write_tiny

OWN_ORDER = ("no_relation", "per:sibling", "per:birthplace", "per:employer")
BENCHMARK = f"""
[benchmark]
id = "guid"
labels = {list(OWN_ORDER)}
train = ["tiny-v1.1_train.json"]
test = ["tiny-v1.1_dev.json"]
"""


def write_own(folder: Path, rows: list[Made], name: str) -> None:
    """Write rows as the benchmark does: guid, dicts, numbered labels, no source."""

    def cell(entity: tuple[str, int, int, str]) -> dict[str, object]:
        return dict(zip(("word", "start_idx", "end_idx", "type"), entity, strict=True)) | {
            "end_idx": entity[2] - 1
        }

    records = [
        {
            "guid": f"tiny-v1_{row.id}",
            "sentence": row.sentence,
            "subject_entity": cell(row.subject),
            "object_entity": cell(row.object),
            "label": OWN_ORDER.index(row.label),
        }
        for row in rows
    ]
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")


def test_ids_labels_and_names_of_its_files(tmp_path: Path) -> None:
    profile = tmp_path / "tiny.toml"
    profile.write_text(TINY_PROFILE + BENCHMARK, encoding="utf-8")
    rows = make_rows(N_TRAIN)
    write_own(tmp_path / "data", rows, "tiny-v1.1_train.json")
    write_own(tmp_path / "data", make_rows(N_TEST, first=1000), "tiny-v1.1_dev.json")
    competition = resolve_competition(str(profile), None, None, home=tmp_path)
    assert "tiny-v1.1_train.json is read, as there is no train.csv" in competition.headline
    corpus = read_corpus(competition)
    assert corpus.train.gold.tolist() == [LABELS.index(row.label) for row in rows]
    assert corpus.train.ids[0] == "tiny-v1_0"
    assert read_test_ids(competition) == corpus.test.ids.tolist()
    assert any("benchmark's own file" in notice.found for notice in corpus.notices)
    # the competition's own numbers stay refused: they may be of either order
    text = (tmp_path / "data" / "tiny-v1.1_train.json").read_text("utf-8").replace("guid", "id")
    (tmp_path / "data" / "own.json").write_text(text, "utf-8")
    reading = read_rows(tmp_path / "data" / "own.json", competition.profile, is_train=True)
    assert any("numbers where names should be" in each.remedy for each in reading.offences) or any(
        each.column == "source" for each in reading.offences
    )


def test_its_labels_are_those_of_the_competition(tmp_path: Path) -> None:
    profile = tmp_path / "tiny.toml"
    profile.write_text(TINY_PROFILE + BENCHMARK.replace("per:sibling", "per:other"), "utf-8")
    with pytest.raises(ProfileError, match=r"benchmark\.labels are not the labels"):
        read_profile(profile)


@pytest.mark.parametrize("name", ["test.csv", "test_data.json", "test.parquet"])
def test_the_test_file_is_found_under_names_that_are_meant(tmp_path: Path, name: str) -> None:
    profile = write_tiny(tmp_path)
    text = profile.read_text("utf-8").replace('test = "test.csv"', 'test = "test_data.csv"')
    profile.write_text(text, encoding="utf-8")
    (tmp_path / "data" / "test.csv").rename(tmp_path / "data" / name)
    competition = resolve_competition(str(profile), None, None, home=tmp_path)
    assert competition.test_path.name == name
    assert f"{name} is read, as there is no test_data.csv" in competition.headline
    (tmp_path / "data" / "test_data.csv").write_text("")
    competition = resolve_competition(str(profile), None, None, home=tmp_path)
    assert competition.test_path.name == "test_data.csv"
    assert competition.substitutes == ()
