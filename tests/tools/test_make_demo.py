"""The bundled demo competition: reproducible, valid, with the shifts that its README describes."""

from __future__ import annotations

import ast
import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.data.corpus import read_corpus
from competition.data.groups import build_groups
from competition.errors import UsageError
from competition.profile import resolve_competition
from tools.make_demo import make_demo
from tools.make_demo.draft import EVENTS
from tools.make_demo.names import SLOTS
from tools.make_demo.phrase import choose_particle
from tools.make_demo.phrases_neutral import NEUTRAL_EVENTS

DATA = Path(__file__).parents[2] / "competition" / "demo" / "data"
FILES = ("train.csv", "test_data.csv", "solution.csv")
Rows = list[dict[str, Any]]


def read_split(folder: Path, name: str) -> Rows:
    with (folder / name).open(encoding="utf-8", newline="") as stream:
        rows: Rows = list(csv.DictReader(stream))
    for row in rows:
        row["subject"] = ast.literal_eval(row["subject_entity"])
        row["object"] = ast.literal_eval(row["object_entity"])
    return rows


@pytest.fixture(scope="module")
def train() -> Rows:
    return read_split(DATA, "train.csv")


@pytest.fixture(scope="module")
def test_rows() -> Rows:
    return read_split(DATA, "test_data.csv")


@pytest.fixture(scope="module")
def solution() -> list[str]:
    with (DATA / "solution.csv").open(encoding="utf-8", newline="") as stream:
        return [row["label"] for row in csv.DictReader(stream)]


def pair_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted((row["subject"]["word"], row["object"]["word"])))


def is_repeated(row: dict[str, Any]) -> bool:
    return any(row["sentence"].count(row[role]["word"]) > 1 for role in ("subject", "object"))


def share(rows: Rows, test: Any) -> float:
    return float(np.mean([test(row) for row in rows]))


def test_committed_files_equal_a_fresh_run(tmp_path: Path) -> None:
    make_demo.write_demo(
        tmp_path,
        seed=make_demo.SEED,
        train_rows=make_demo.TRAIN_ROWS,
        test_rows=make_demo.TEST_ROWS,
    )
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


def test_another_seed_gives_other_rows(tmp_path: Path) -> None:
    make_demo.write_demo(tmp_path / "a", seed=1, train_rows=100, test_rows=60)
    make_demo.write_demo(tmp_path / "b", seed=2, train_rows=100, test_rows=60)
    assert (tmp_path / "a/train.csv").read_bytes() != (tmp_path / "b/train.csv").read_bytes()
    assert len(read_split(tmp_path / "a", "train.csv")) == 100
    assert len(read_split(tmp_path / "a", "test_data.csv")) == 60


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least"):
        make_demo.write_demo(tmp_path, seed=1, train_rows=10, test_rows=60)
    assert not list(tmp_path.iterdir())


def test_spans_and_types(train: Rows, test_rows: Rows) -> None:
    for row in train + test_rows:
        subject, object_ = row["subject"], row["object"]
        for entity in (subject, object_):
            found = row["sentence"][entity["start_idx"] : entity["end_idx"] + 1]
            assert found == entity["word"]
        before = subject["end_idx"] < object_["start_idx"]
        assert before or object_["end_idx"] < subject["start_idx"]
        assert subject["type"] in ("PER", "ORG")
        assert object_["type"] in ("PER", "ORG", "LOC", "DAT", "POH", "NOH")


def test_labels(train: Rows, test_rows: Rows, solution: list[str]) -> None:
    labels = list(make_demo.SHARES)
    assert labels == list(resolve_competition("demo", None, None).profile.labels)
    counts = Counter(row["label"] for row in train)
    assert set(counts) == set(labels) == set(solution)
    assert min(counts.values()) >= 12
    assert 0.28 < counts["no_relation"] / len(train) < 0.32
    assert 0.58 < Counter(solution)["no_relation"] / len(solution) < 0.64
    assert {row["label"] for row in test_rows} == {"100"}
    assert [row["id"] for row in train] == [str(number) for number in range(len(train))]


def test_shares(train: Rows, test_rows: Rows) -> None:
    for rows in (train, test_rows):
        assert share(rows, lambda r: r["subject"]["start_idx"] > r["object"]["start_idx"]) > 0.34
        assert 0.15 < share(rows, is_repeated) < 0.25
        sentences = Counter(row["sentence"] for row in rows)
        assert 0.10 < share(rows, lambda r, s=sentences: s[r["sentence"]] > 1) < 0.17
    lengths = [len(row["sentence"]) for row in train]
    assert sum(length > 200 for length in lengths) > 10
    assert max(lengths) > 400
    sources = [Counter(row["source"] for row in rows) for rows in (train, test_rows)]
    assert sources[0]["wikipedia"] > 1.5 * sources[0]["wikitree"]
    assert sources[1]["wikipedia"] < sources[1]["wikitree"]


def test_pairs_of_test_are_mostly_unseen(train: Rows, test_rows: Rows) -> None:
    known = {pair_of(row) for row in train}
    assert 0.95 < share(test_rows, lambda row: pair_of(row) not in known) < 0.995
    assert not {row["sentence"] for row in train} & {row["sentence"] for row in test_rows}


def test_duplicates_with_conflicting_labels(train: Rows) -> None:
    labels: dict[tuple[str, str, str], list[str]] = {}
    for row in train:
        key = (row["sentence"], row["subject_entity"], row["object_entity"])
        labels.setdefault(key, []).append(row["label"])
    twice = [found for found in labels.values() if len(found) > 1]
    conflicts = [found for found in twice if len(set(found)) > 1]
    assert len(twice) >= 8
    assert len(conflicts) >= 3
    assert all("no_relation" in found for found in conflicts)


def test_same_sentence_has_several_labels(train: Rows) -> None:
    labels: dict[str, set[str]] = {}
    for row in train:
        labels.setdefault(row["sentence"], set()).add(row["label"])
    assert sum(len(found) > 1 for found in labels.values()) > 0.03 * len(train)


def test_the_files_are_valid_and_have_small_groups(tmp_path: Path) -> None:
    competition = resolve_competition("demo", None, None, home=tmp_path)
    corpus = read_corpus(competition)
    assert corpus.notices == ()
    assert (len(corpus.train), len(corpus.test)) == (make_demo.TRAIN_ROWS, make_demo.TEST_ROWS)
    groups = build_groups(corpus.train, ("sentence", "entity_pair"))
    assert np.bincount(groups).max() < 0.05 * len(corpus.train)


def test_scripts_and_punctuation(train: Rows) -> None:
    text = "".join(row["sentence"] for row in train)
    for sign in "(《‘“😊Aa1金":
        assert sign in text


def test_phrases_fit_their_events() -> None:
    for event in EVENTS + NEUTRAL_EVENTS:
        related = {letter for relation in event.relations for letter in relation[:2]}
        for phrase in event.clause_phrases + event.noun_phrases:
            assert set(phrase.letters) <= set(SLOTS)
        for phrase in event.clause_phrases:
            assert related <= set(phrase.letters)
            tail = str(phrase.parts[-1])
            assert phrase.parts[-1] == tail or phrase.parts[-1].particle == "이었"
        for phrase in event.noun_phrases:
            assert phrase.head
            assert related <= set(phrase.letters)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("서울", "은"),
        ("제주", "는"),
        ("IBM", "은"),
        ("SDK", "는"),
        ("제3", "은"),
        ("가람(주)", "은"),
        ("새들(ABC)", "은"),
        ("나무 5", "는"),
        ("별★", "는"),
    ],
)
def test_choose_particle(word: str, expected: str) -> None:
    assert choose_particle(word, "은") == expected
