"""mend: wrong offsets are replaced by those of the word, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from competition.audit.mend import run_mend
from competition.data.corpus import read_corpus
from competition.errors import CorpusError, UsageError
from competition.file_kind import pack_as_named, read_text, recognise
from competition.profile import Competition, resolve_competition
from tests.competition.data.test_row_forms import (
    COLUMNS_ENTITY,
    MARKUP_ENTITY,
    NESTED_ENTITY,
    WRITERS,
    Form,
    Record,
    flat,
    in_cells,
    make,
    marked,
    nested,
    profile_with,
)
from tests.conftest import TINY_PROFILE, Made


def see(competition: Competition, folder: Path) -> Competition:
    path = competition.home / "mended.toml"
    found = next(p for p in competition.home.glob("*.toml") if p != path)
    return resolve_competition(str(found), folder, None, home=competition.home)


def test_wrong_offsets_of_cells_are_replaced(tiny_competition: Competition) -> None:
    wanted = read_corpus(tiny_competition)
    path = tiny_competition.train_path
    lines = path.read_text("utf-8").splitlines(keepends=True)
    row = wanted.train.row(0)
    for number in (1, 3):
        lines[number] = lines[number].replace("'start_idx': ", "'start_idx': 1", 1)
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(CorpusError):
        read_corpus(tiny_competition)
    folder = tiny_competition.home / "copies"
    files, changes = run_mend(tiny_competition, folder)
    assert [row["mended"] for row in files.rows] == [2, 0]
    assert [row["left"] for row in files.rows] == [0, 0]
    first = changes.rows[0]
    assert (first["id"], first["role"], first["word"]) == ("0", "subject", row.subject.word)
    assert (first["after"], first["how"]) == ("0–4", "only occurrence")
    assert read_corpus(see(tiny_competition, folder)).hash == wanted.hash
    assert (folder / "test.csv").read_bytes() == tiny_competition.test_path.read_bytes()


def test_every_train_file_is_copied_to_its_own_place(tiny_competition: Competition) -> None:
    wanted = read_corpus(tiny_competition)
    path = tiny_competition.train_path
    header, *lines = path.read_text("utf-8").splitlines(keepends=True)
    lines[6] = lines[6].replace("'start_idx': ", "'start_idx': 1", 1)
    path.write_text("".join([header, *lines[:5]]), encoding="utf-8")
    (path.parent / "more").mkdir()
    (path.parent / "more" / path.name).write_text("".join([header, *lines[5:]]), encoding="utf-8")
    profile = tiny_competition.home / "tiny.toml"
    text = profile.read_text("utf-8")
    (path.parent / "sample.csv").write_bytes(b"id,label\r\n")
    more = f'[files]\nsample_submission = "sample.csv"\nmore_train = ["more/{path.name}"]'
    profile.write_text(text.replace("[files]", more), "utf-8")
    several = resolve_competition(str(profile), None, None, home=tiny_competition.home)
    folder = tiny_competition.home / "copies"
    files, _ = run_mend(several, folder)
    assert [row["mended"] for row in files.rows] == [0, 1, 0]
    assert (folder / "sample.csv").read_bytes() == b"id,label\r\n"
    assert read_corpus(see(several, folder)).hash == wanted.hash


def test_of_several_places_the_nearest_is_taken(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    text = path.read_text("utf-8")
    old = text.splitlines()[1]
    cells = str({"word": "가", "start_idx": 3, "end_idx": 3, "type": "PER"})
    other = str({"word": "나", "start_idx": 2, "end_idx": 2, "type": "LOC"})
    path.write_text(text.replace(old, f'0,가 나 가가 가,"{cells}","{other}",no_relation,x'))
    folder = tiny_competition.home / "copies"
    _, changes = run_mend(tiny_competition, folder)
    (change,) = changes.rows
    assert (change["before"], change["after"]) == ("3–4", "4–5")
    assert change["how"] == "nearest of 4"


@pytest.mark.parametrize("kind", ["json lines", "json", "parquet", "tsv"])
@pytest.mark.parametrize(
    ("entity", "form"), [(COLUMNS_ENTITY, flat), (NESTED_ENTITY, nested)], ids=["flat", "nested"]
)
def test_every_kind_of_file_keeps_its_format(
    tiny_competition: Competition, tmp_path: Path, kind: str, entity: str, form: Form
) -> None:
    wanted = read_corpus(tiny_competition)
    calls = iter(range(1_000))

    def broken(row: object) -> dict[str, object]:
        record = form(row)  # type: ignore[arg-type]
        if next(calls) < 4:
            if form is flat:
                record["s_start"] += 1
                record["s_end"] += 1
            else:
                record["h"]["pos"] = [place + 1 for place in record["h"]["pos"]]
        return record

    home = tmp_path / "home"
    home.mkdir()
    other = make(home, profile_with(entity), WRITERS[kind], broken)
    folder = home / "copies"
    files, _ = run_mend(other, folder)
    assert [row["mended"] for row in files.rows] == [4, 0]
    assert read_corpus(see(other, folder)).hash == wanted.hash


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_a_copy_is_compressed_as_its_name_says(
    tiny_competition: Competition, tmp_path: Path, ending: str
) -> None:
    path = tiny_competition.train_path
    wanted = path.read_bytes()
    packed = path.with_name(path.name + ending)
    packed.write_bytes(pack_as_named(packed, wanted))
    path.unlink()
    files = tiny_competition.profile.files.model_copy(update={"train": packed.name})
    profile = tiny_competition.profile.model_copy(update={"files": files})
    competition = replace(tiny_competition, profile=profile)
    run_mend(competition, tmp_path / "copies")
    copy = tmp_path / "copies" / packed.name
    assert recognise(copy).compression is not None
    assert read_text(copy).encode() == wanted


def test_quotes_are_characters_where_fields_are_not_quoted(tmp_path: Path) -> None:
    def quoting(row: Made) -> Record:
        record = flat(row)
        word = '"' + record["s_word"][1:]
        record["sentence"] = record["sentence"].replace(record["s_word"], word, 1)
        return {**record, "s_word": word, "s_start": record["s_start"] + 1}

    def write(path: Path, records: list[Record]) -> None:
        lines = ["\t".join(map(str, record.values())) for record in records]
        path.write_text("\n".join(["\t".join(records[0]), *lines]) + "\n", "utf-8")

    home = tmp_path / "home"
    home.mkdir()
    files_of = 'separator = "\\t"\nquotes = false'
    other = make(home, profile_with(COLUMNS_ENTITY, files_of), write, quoting)
    files, _ = run_mend(other, home / "copies")
    mended = read_corpus(see(other, home / "copies"))
    assert sum(row["mended"] for row in files.rows) > 0
    assert mended.train.row(0).subject.word.startswith('"')


def test_a_cell_inside_another_value_is_repaired(tmp_path: Path) -> None:
    def inside(row: Made) -> Record:
        record = in_cells(row)
        cells = {name[0]: record.pop(f"{name}_entity") for name in ("subject", "object")}
        cells["s"]["start_idx"] += 1
        return {**record, "e": cells}

    home = tmp_path / "home"
    home.mkdir()
    text = TINY_PROFILE.replace('"subject_entity"', '"e.s"').replace('"object_entity"', '"e.o"')
    other = make(home, text, WRITERS["json lines"], inside)
    files, _ = run_mend(other, home / "copies")
    assert [row["left"] for row in files.rows] == [0, 0]
    assert len(read_corpus(see(other, home / "copies")).train) == files.rows[0]["mended"]


def test_what_cannot_be_repaired_stays_and_is_counted(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    lines = path.read_text("utf-8").splitlines(keepends=True)
    lines[1] = lines[1].replace("'word': '", "'word': '없는", 1)
    path.write_text("".join(lines), encoding="utf-8")
    files, changes = run_mend(tiny_competition, tiny_competition.home / "copies")
    assert [row["left"] for row in files.rows] == [1, 0]
    assert changes.rows == []


def test_the_data_itself_is_never_written_over(tiny_competition: Competition) -> None:
    with pytest.raises(UsageError, match="that is the data itself"):
        run_mend(tiny_competition, tiny_competition.data_dir)
    elsewhere = tiny_competition.home / "elsewhere"
    elsewhere.mkdir()
    test = tiny_competition.test_path.rename(elsewhere / "test.csv")
    files = tiny_competition.profile.files.model_copy(update={"test": str(test)})
    profile = tiny_competition.profile.model_copy(update={"files": files})
    split = replace(tiny_competition, profile=profile)
    before = test.read_bytes()
    with pytest.raises(UsageError, match=r"test\.csv is there already; give a new folder"):
        run_mend(split, elsewhere)
    assert test.read_bytes() == before
    assert [path.name for path in elsewhere.iterdir()] == ["test.csv"]
    test.rename(tiny_competition.test_path)
    text = tiny_competition.train_path.read_text("utf-8")
    tiny_competition.train_path.write_text(text + "x\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="not a valid table"):
        run_mend(tiny_competition, tiny_competition.home / "copies")


def test_tags_have_no_offsets_to_repair(tmp_path: Path) -> None:
    other = make(tmp_path, profile_with(MARKUP_ENTITY), WRITERS["csv"], marked)
    with pytest.raises(UsageError, match="offsets in characters"):
        run_mend(other, tmp_path / "copies")
