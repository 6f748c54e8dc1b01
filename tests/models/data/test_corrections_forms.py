"""corrections and folds of a person's own, as spreadsheets and data frames leave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from competition.errors import CorpusError, FoldsError
from competition.folds.kfold import read_fold_file
from tests.models.data.test_corrections import read

IDS = np.array([str(i) for i in range(12)], dtype=object)
FOLDS = [i % 3 for i in range(12)]


def write_folds(form: str) -> bytes:
    rows = list(zip(IDS, FOLDS, strict=True))
    if form == "json":
        return json.dumps([{"id": int(i), "fold": fold} for i, fold in rows]).encode()
    mark = {"tab": "\t", "semicolon": ";"}.get(form, ",")
    ending = {"float ids": ".0", "float folds": ""}.get(form, "")
    fold_end = ".0" if form == "float folds" else ""
    lines = [f"{i}{ending}{mark}{fold}{fold_end}" for i, fold in rows]
    text = "\n".join([f"id{mark}fold", *lines, ""])
    return text.encode({"utf-16": "utf-16", "mark": "utf-8-sig"}.get(form, "utf-8"))


@pytest.mark.parametrize(
    "form", ["tab", "semicolon", "json", "float ids", "float folds", "utf-16", "mark"]
)
def test_folds_are_read_whatever_the_file_is(tmp_path: Path, form: str) -> None:
    (tmp_path / "folds.csv").write_bytes(write_folds(form))
    assert read_fold_file(tmp_path / "folds.csv", IDS).tolist() == FOLDS


def test_other_ids_in_every_line_are_one_offence(tmp_path: Path) -> None:
    text = "id,fold\n" + "".join(f"x{i},{i % 3}\n" for i in range(12))
    (tmp_path / "folds.csv").write_text(text, "utf-8")
    with pytest.raises(FoldsError) as caught:
        read_fold_file(tmp_path / "folds.csv", IDS)
    assert str(caught.value).count("no train row has this id") == 1
    assert "12 of 12 rows" in str(caught.value)


def test_corrections_of_a_data_frame_are_ours(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    plain = read(path, "train,2,object,LOC", "test,1,subject,ORG")
    assert read(path, "train,2.0,object,LOC", "test,1.0,subject,ORG") == plain
    tabs = [line.replace(",", "\t") for line in ("train,2,object,LOC", "test,1,subject,ORG")]
    assert read(path, *tabs, header="split\tid\trole\ttype") == plain
    with pytest.raises(CorpusError) as caught:
        read(path, *(f"train,x{i},object,LOC" for i in range(12)))
    assert len(caught.value.offences) == 1
