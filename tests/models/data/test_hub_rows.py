"""Rows fetched from a hub: a fake one, as tests have no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from competition.data.corpus import read_corpus
from competition.errors import UsageError
from competition.profile import Competition, resolve_competition
from models.data.hub_rows import fetch_rows
from tests.competition.data.test_benchmark import BENCHMARK, OWN_ORDER
from tests.conftest import LABELS, N_TEST, N_TRAIN, TINY_PROFILE, make_rows


@dataclass
class FakeHub:
    folder: Path

    def list_files(self, name: str) -> Sequence[str]:
        if name != "made/up":
            raise ConnectionError("no route to host\nmore")
        return ["README.md", "tiny/train-00000-of-00001.parquet", "tiny/validation-0.parquet"]

    def fetch(self, name: str, path: str) -> Path:
        return self.folder / path


@pytest.fixture
def competition(tmp_path: Path) -> Competition:
    profile = tmp_path / "tiny.toml"
    text = TINY_PROFILE.replace('name = "tiny"', 'name = "a-tiny"') + BENCHMARK
    profile.write_text(text, encoding="utf-8")
    return resolve_competition(str(profile), None, None, home=tmp_path)


@pytest.fixture
def hub(tmp_path: Path) -> FakeHub:
    features = {"label": {"names": list(OWN_ORDER), "_type": "ClassLabel"}}
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    (tmp_path / "hub" / "tiny").mkdir(parents=True)
    for path, rows in (
        ("train-00000-of-00001.parquet", make_rows(N_TRAIN)),
        ("validation-0.parquet", make_rows(N_TEST, first=1000)),
    ):
        records = [
            {
                "guid": row.id,
                "sentence": row.sentence,
                **{
                    f"{role}_entity": {
                        "word": word,
                        "start_idx": start,
                        "end_idx": end - 1,
                        "type": type_,
                    }
                    for role, (word, start, end, type_) in (
                        ("subject", row.subject),
                        ("object", row.object),
                    )
                },
                "label": OWN_ORDER.index(row.label),
            }
            for row in rows
        ]
        table = pa.Table.from_pylist(records).replace_schema_metadata(told)
        pq.write_table(table, tmp_path / "hub" / "tiny" / path)
    return FakeHub(tmp_path / "hub")


def test_rows_are_fetched_and_the_answers_are_not(competition: Competition, hub: FakeHub) -> None:
    said: list[str] = []
    fetch_rows(competition, "hf:made/up", said.append, hub)
    assert "64 rows" in "".join(said)
    profile = str(competition.home / "tiny.toml")
    found = resolve_competition(profile, None, None, home=competition.home)
    corpus = read_corpus(found)
    assert corpus.train.gold.tolist() == [LABELS.index(r.label) for r in make_rows(N_TRAIN)]
    assert len(corpus.test) == N_TEST
    assert "label" not in pq.read_schema(found.test_path).names
    with pytest.raises(UsageError, match="is there already"):
        fetch_rows(found, "hf:made/up", said.append, hub)


def test_what_goes_wrong_is_said(competition: Competition, hub: FakeHub) -> None:
    for address, said in (
        ("made/up", "write hf:OWNER/NAME"),
        ("hf:other/one", r"cannot be reached .*ConnectionError: no route to host\); download"),
        ("hf:made/up/nothing", "no Parquet file of train rows in its folder nothing"),
    ):
        with pytest.raises(UsageError, match=said):
            fetch_rows(competition, address, lambda text: None, hub)
    assert not replace(competition).data_dir.exists()


@pytest.mark.parametrize(
    ("told", "numbers", "said"),
    [
        (b"[" * 9000, [0, -1], None),
        (b'{"info": ["x"]}', [0, 5], None),
        (b'{"info": {"features": {"label": {"names": ["x", 1]}}}}', [0, 5], None),
        (b'{"info": {"features": {"label": {"names": ["x", "y"]}}}}', [0, -1], "the label -1"),
        (b'{"info": {"features": {"label": {"names": ["x", "y"]}}}}', [0, 2], "labels 0 to 1"),
    ],
)
def test_names_of_labels_are_checked_before_they_are_used(
    told: bytes, numbers: list[int], said: str | None, competition: Competition, hub: FakeHub
) -> None:
    path = hub.folder / "tiny" / "train-00000-of-00001.parquet"
    table = pa.Table.from_pydict({"label": numbers})
    pq.write_table(table.replace_schema_metadata({b"huggingface": told}), path)
    if said is None:
        fetch_rows(competition, "hf:made/up/tiny", lambda text: None, hub)
        fetched = competition.train_path.with_suffix(".parquet")
        assert pq.read_table(fetched).to_pydict() == {"label": numbers}
    else:
        with pytest.raises(UsageError, match=said):
            fetch_rows(competition, "hf:made/up/tiny", lambda text: None, hub)


def test_files_that_are_no_parquet_are_refused(competition: Competition, hub: FakeHub) -> None:
    (hub.folder / "tiny" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match="its files cannot be read"):
        fetch_rows(competition, "hf:made/up/tiny", lambda text: None, hub)
