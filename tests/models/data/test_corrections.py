from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from competition.errors import CorpusError, UsageError
from models.data.corrections import Correction, Corrections, apply_corrections, read_corrections
from tests.models.made_rows import in_columns, mark

TYPES = ("PER", "ORG", "LOC")
TRAIN = in_columns([mark(str(i), f"<가{i}>와 {{나{i}}}") for i in range(4)], [0, 1, 2, 0])
TEST = in_columns([mark(str(i), f"<다{i}>와 {{라{i}}}") for i in range(3)])
HEADER = "split,id,role,type"


def read(path: Path, *lines: str, header: str = HEADER, **options: Any) -> Corrections:
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return read_corrections(path, TRAIN, TEST, **{"entity_types": TYPES, **options})


def test_each_split_gets_its_own_corrections(tmp_path: Path) -> None:
    lines = ("train,2,object,LOC", "test,2,subject,ORG", "train,0,object,PER", "train,2,subject,X")
    corrections = read(tmp_path / "c.csv", *lines[:3])
    assert corrections.train == (Correction("2", "object", "LOC"), Correction("0", "object", "PER"))
    train = apply_corrections(TRAIN, corrections.train)
    test = apply_corrections(TEST, corrections.test)
    assert train.text("object_type").tolist() == ["PER", "ORG", "LOC", "ORG"]
    assert train.text("subject_type").tolist() == ["PER"] * 4
    assert test.text("subject_type").tolist() == ["PER", "PER", "ORG"]
    assert test.text("object_type").tolist() == ["ORG"] * 3


def test_only_types_change(tmp_path: Path) -> None:
    corrected = apply_corrections(TRAIN, read(tmp_path / "c.csv", "train,1,subject,LOC").train)
    others = [name for name in TRAIN.frame if name != "subject_type"]
    pd.testing.assert_frame_equal(corrected.frame[others], TRAIN.frame[others])
    assert corrected.frame.dtypes.equals(TRAIN.frame.dtypes)
    assert corrected.gold.tolist() == TRAIN.gold.tolist()
    assert TRAIN.text("subject_type").tolist() == ["PER"] * 4
    assert corrected.row(1).subject.type == "LOC"


def test_an_untyped_entity_stays_untyped_beside_a_corrected_one() -> None:
    rows = in_columns([mark("0", "<가> {나}", types=(None, None)), mark("1", "<가> {나}")])
    corrected = apply_corrections(rows, [Correction("1", "subject", "LOC")])
    assert corrected.text("subject_type").tolist() == [None, "LOC"]
    assert corrected.text("object_type").tolist() == [None, "ORG"]


def test_labels_of_train_rows_are_corrected(tmp_path: Path) -> None:
    known = ("a", "b", "c")
    corrections = read(tmp_path / "c.csv", "train,2,label,a", labels=known, entity_types=())
    corrected = apply_corrections(TRAIN, corrections.train, known)
    assert corrected.gold.tolist() == [0, 1, 0, 0]
    assert TRAIN.gold.tolist() == [0, 1, 2, 0]
    pd.testing.assert_frame_equal(corrected.frame, TRAIN.frame)
    with pytest.raises(CorpusError) as caught:
        read(tmp_path / "c.csv", "train,2,label,PER", "test,1,label,a", labels=known)
    assert [(o.line, o.column) for o in caught.value.offences] == [(2, "type"), (3, "split")]


def test_every_offence_is_listed_with_its_line(tmp_path: Path) -> None:
    lines = (
        "valid,0,subject,PER",
        "train,9,subject,PER",
        "train,0,e1,PER",
        "train,1,subject,per",
        "train,2,object,LOC",
        "train,2,object,PER",
        "test,3,subject,PER",
        "train,3",
    )
    with pytest.raises(CorpusError) as caught:
        read(tmp_path / "c.csv", *lines)
    offences = [(o.line, o.column, o.id) for o in caught.value.offences]
    assert offences == [
        (2, "split", "0"),
        (3, "id", "9"),
        (4, "role", "0"),
        (5, "type", "1"),
        (7, "role", "2"),
        (8, "id", "3"),
        (9, None, None),
    ]
    assert "use one of PER, ORG, LOC" in str(caught.value)
    assert "line 6 corrects this object too" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,role,type\n0,subject,PER\n", "start with the line split,id,role,type"),
        (f"{HEADER}\n", "start with the line split,id,role,type"),
        ("", "the file is empty; start with the line"),
    ],
)
def test_an_empty_file_of_corrections_names_the_header(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(CorpusError, match=said):
        read_corrections(path, TRAIN, TEST, entity_types=TYPES)


def test_corrections_of_rows_outside_a_sample_are_skipped(tmp_path: Path) -> None:
    lines = ("train,9,subject,PER", "test,0,object,LOC", "test,77,object,LOC")
    corrections = read(tmp_path / "c.csv", *lines, may_have_more=True)
    assert (len(corrections.train), len(corrections.test), corrections.skipped) == (0, 1, 2)
    with pytest.raises(CorpusError, match="unknown type"):
        read(tmp_path / "c.csv", "train,9,subject,XYZ", may_have_more=True)
    with pytest.raises(CorpusError, match="line 2"):
        read(tmp_path / "c.csv", *(["train,9,subject,PER"] * 2), may_have_more=True)


def test_impossible_corrections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv does not exist"):
        read_corrections(tmp_path / "none.csv", TRAIN, TEST, entity_types=TYPES)
    with pytest.raises(UsageError, match="has none"):
        read(tmp_path / "c.csv", "train,0,subject,PER", entity_types=())
    with pytest.raises(ValueError, match="'9'"):
        apply_corrections(TRAIN, [Correction("0", "object", "LOC"), Correction("9", "object", "P")])


def test_the_hash_depends_on_the_corrections_only(tmp_path: Path) -> None:
    lines = ["train,2,object,LOC", "test,2,object,LOC", "train,0,subject,ORG"]
    base = read(tmp_path / "c.csv", *lines).hash
    assert base == read(tmp_path / "other.csv", *lines[::-1]).hash
    assert base != read(tmp_path / "c.csv", *lines[:2]).hash
    moved = ["test,2,object,LOC", "train,2,object,PER", "train,0,subject,ORG"]
    assert base != read(tmp_path / "c.csv", *moved).hash
