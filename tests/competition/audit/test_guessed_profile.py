"""init: what it writes reads the rows as they were made, from every form and file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from competition.audit.guessed_profile import find_files, run_init
from competition.audit.peek import peek
from competition.console import Table
from competition.data.corpus import read_corpus, read_train
from competition.data.rows import Rows
from competition.errors import UsageError
from competition.profile import Competition, read_profile, resolve_competition
from tests.competition.data.test_row_forms import (
    WRITERS,
    Form,
    Record,
    flat,
    in_cells,
    marked,
    nested,
    tokens_of,
    without_label,
)
from tests.conftest import N_TEST, N_TRAIN, Made, make_rows

FORMS = {"cells": in_cells, "columns": flat, "markup": marked, "nested": nested}


def write_folder(home: Path, kind: str, form: Form) -> Path:
    folder = home / "My Data"
    folder.mkdir()
    suffix = {"parquet": "parquet", "json lines": "jsonl"}.get(kind, "csv")
    suffix = "json" if kind.endswith("json") else suffix
    WRITERS[kind](folder / f"train.{suffix}", [form(row) for row in make_rows(N_TRAIN)])
    test = [without_label(form(row)) for row in make_rows(N_TEST, first=1000)]
    WRITERS[kind](folder / f"test.{suffix}", test)
    return folder


def guess(home: Path, *paths: Path) -> tuple[Competition, dict[str, Table]]:
    out = home / "guessed.toml"
    tables = run_init(paths, out)
    return resolve_competition(str(out), None, None, home=home), {t.name: t for t in tables}


def same(rows: Rows, wanted: Rows) -> None:
    assert [*rows] == [*wanted]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_guessed_reads_the_rows_as_they_were_made(
    tiny_competition: Competition, tmp_path: Path, kind: str, form: str
) -> None:
    usual = read_corpus(tiny_competition)
    competition, tables = guess(tmp_path, write_folder(tmp_path, kind, FORMS[form]))
    profile = competition.profile
    corpus = read_corpus(competition)
    same(corpus.test, usual.test)
    same(corpus.train, usual.train)
    assert {*profile.labels} == {*tiny_competition.profile.labels}
    assert (profile.labels[0], profile.negative_label) == ("no_relation", "no_relation")
    assert {*profile.entity_types} == {"PER", "ORG", "LOC"}
    assert profile.language.name == "korean"
    assert [row["first"] for row in tables["fit"].rows] == ["–", "–"]


def test_tokens_are_recognised_by_their_list(tmp_path: Path) -> None:
    def form(row: Made) -> Record:
        record = tokens_of(row)
        return {name: value for name, value in record.items() if not name.endswith("_word")}

    competition, _ = guess(tmp_path, write_folder(tmp_path, "json lines", form))
    assert competition.profile.entity.counted_in == "tokens"
    for row, made in zip(read_corpus(competition).train, make_rows(N_TRAIN), strict=True):
        assert (row.subject.word, row.object.word) == (made.subject[0], made.object[0])


@pytest.mark.parametrize("inclusive", [False, True])
def test_offsets_without_words_may_count_the_words_of_a_text(
    tmp_path: Path, inclusive: bool
) -> None:
    lines = []
    for i in range(30):
        before = ["Then"] * (i % 4)
        words = [*before, "Ann", "Lee", "met", "Bob", "."]
        spans = (len(before), len(before) + 2), (len(before) + 3, len(before) + 4)
        cells = [str(at - (inclusive and k % 2)) for k, at in enumerate(sum(spans, ()))]
        lines.append(",".join([" ".join(words), *cells, ("met", "none")[i % 2]]))
    header = "text,subj_start,subj_end,obj_start,obj_end,label"
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    competition, _ = guess(tmp_path, tmp_path)
    for row in read_corpus(competition).train:
        assert (row.subject.word, row.object.word) == ("Ann Lee", "Bob")


@pytest.mark.parametrize("space", [" ", ""])
def test_words_without_offsets_are_whole_ones_where_spaces_separate_words(
    tmp_path: Path, space: str
) -> None:
    rows = [
        f"{space.join(['Also', f'Al{i}', 'met', f'Bo{i}', '.'])},Al{i},Bo{i},{('met', 'no')[i % 2]}"
        for i in range(30)
    ]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,e1,e2,label", *rows]) + "\n")
    competition, _ = guess(tmp_path, tmp_path)
    assert competition.profile.entity.whole_words == bool(space)
    assert read_corpus(competition).train.row(3).subject.start == len("Also" + space)


@pytest.mark.parametrize("place", [3, 250])
def test_a_row_that_lacks_an_offset_or_its_label_is_left_to_data(
    tmp_path: Path, place: int
) -> None:
    rows = [(f"Ann{i} met Bob.", 0, 3 + len(str(i)), ("met", "none")[i % 2]) for i in range(300)]
    cells = [[text, start, end, end + 5, end + 8, label] for text, start, end, label in rows]
    cells[place][1] = cells[place + 1][5] = ""
    header = "text,subj_start,subj_end,obj_start,obj_end,label"
    lines = [",".join(map(str, row)) for row in cells]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    competition, _ = guess(tmp_path, tmp_path)
    assert competition.profile.labels == ("none", "met")
    found = {offence.id: offence.column for offence in read_train(competition).offences}
    assert found == {str(place): "subj_start", str(place + 1): "label"}


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    text = "id,text,label\n1,<e1>Käse</e1> für <e2>a</e2>,x\n"
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(UsageError, match=r"line 2: byte 0xe4 .* is not UTF-8"):
        run_init([tmp_path], tmp_path / "p.toml")


def test_a_short_sentence_in_the_first_column_is_no_id(tmp_path: Path) -> None:
    for name, label in (("train", {"relation": "met"}), ("test", {})):
        rows = [
            {
                "text": f"甲{i}访问了乙{i}。",
                "h": {"name": f"甲{i}", "pos": [0, 1 + len(str(i))]},
                "t": {"name": f"乙{i}", "pos": [4 + len(str(i)), 5 + 2 * len(str(i))]},
                **({"relation": "NA"} if label and i % 2 else label),
            }
            for i in range(20)
        ]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    competition, _ = guess(tmp_path, tmp_path)
    assert (competition.profile.columns.id, competition.profile.columns.sentence) == (None, "text")
    assert read_corpus(competition).train.row(12).object.word == "乙12"


def write_marked(home: Path, labels: list[str], train: str = "{}", test: str = "{}") -> None:
    """Write 40 rows to train on and 8 to test, the sentences in the given quotes."""
    texts = [f"<e1>a{i}</e1> by <e2>b{i}</e2>" for i in range(40)]
    lines = [
        f"{i:03d}\t{train.format(text)}\t{labels[i % len(labels)]}\n"
        for i, text in enumerate(texts)
    ]
    (home / "train.tsv").write_text("id\ttext\tlabel\n" + "".join(lines))
    lines = [f"{i:03d}\t{test.format(text)}\n" for i, text in enumerate(texts[:8])]
    (home / "test.tsv").write_text("id\ttext\n" + "".join(lines))


def test_labels_that_look_alike_and_several_negative_ones_are_said(tmp_path: Path) -> None:
    write_marked(tmp_path, ["none", "met", "unrelated", "Met "])
    _, tables = guess(tmp_path, tmp_path)
    rows = {row["what"]: row for row in tables["guesses"].rows}
    assert rows["labels"]["sure"] == rows["negative_label"]["sure"] == "a guess"
    assert "'Met ' and 'met' may be the same" in rows["labels"]["why"]
    assert "(unrelated)" in rows["negative_label"]["why"]


def test_quotes_of_one_file_that_enclose_no_fields_do_so_in_none(tmp_path: Path) -> None:
    write_marked(tmp_path, ["met", "none"], '"{} said "no"."', '"{}"')
    competition, _ = guess(tmp_path, tmp_path)
    corpus = read_corpus(competition)
    assert corpus.train.row(0).sentence == '"a0 by b0 said "no"."'
    assert corpus.test.row(0).sentence == '"a0 by b0"'


def test_a_sample_submission_with_ids_as_numbers(tmp_path: Path) -> None:
    write_marked(tmp_path, ["met", "none"])
    (tmp_path / "sample_submission.csv").write_text(
        "key,label\n" + "".join(f"{i},none\n" for i in range(8))
    )
    rules = guess(tmp_path, tmp_path)[0].profile.submission
    assert (rules.id_column, rules.label_column) == ("key", "label")


@pytest.mark.parametrize("value", ["0", "0.5"])
def test_a_sample_submission_with_a_column_for_each_numbered_label(
    tmp_path: Path, value: str
) -> None:
    write_marked(tmp_path, ["0", "1"])
    text = (tmp_path / "test.tsv").read_text().replace("\n00", "\n")  # ids 0 and 1, too
    (tmp_path / "test.tsv").write_text(text)
    (tmp_path / "sample_submission.csv").write_text(
        "id,0,1\n" + "".join(f"{i},{value},{value}\n" for i in range(8))
    )
    rules = guess(tmp_path, tmp_path)[0].profile.submission
    assert (rules.id_column, rules.label_column, rules.header) == ("id", None, True)
    assert rules.name_probs_columns(("0", "1")) == ("0", "1")


def test_a_file_without_header_types_or_ids_in_english(tmp_path: Path) -> None:
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    rows = [
        (f"The <e1>fire{i}</e1> was caused by a <e2>spark</e2>.", "Cause-Effect(e2,e1)")
        if i % 2
        else (f"A <e1>wheel</e1> of the <e2>car{i}</e2>.", "Other")
        for i in range(40)
    ]
    train.write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    test.write_text("".join(f"{text}\n" for text, _ in rows[:8]))
    competition, tables = guess(tmp_path, tmp_path)
    profile = competition.profile
    assert profile.entity.given_as == "markup"
    assert (profile.negative_label, profile.entity_types) == ("Other", ())
    assert profile.language.name == "english"
    assert profile.columns.id is None
    corpus = read_corpus(competition)
    assert (len(corpus.train), len(corpus.test)) == (40, 8)
    assert corpus.train.row(1).sentence == "The fire1 was caused by a spark."
    told = {row["what"]: row["sure"] for row in tables["guesses"].rows}
    assert told["entity.given_as"] == "sure"
    assert told["subject"] == "likely"


def test_first_lines_with_numbers_among_names_and_instead_of_names(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    lines = ["a,Ann met Bob,met,1", "b,Bob knows Ann,knows,2"]
    for header, names in (("id,text,label,0", None), ("0,1,2,3", None), (lines[0], "c0,c1,c2,c3")):
        path.write_text("\n".join([header, *lines]) + "\n")
        peeked = peek(path)
        assert list(peeked.columns) == (names or header).split(",")
        assert peeked.has_header == (names is None)
    for text, names in (("0,1\n5,Ann met Bob\n", "0,1"), ("0,1\n5,2\n", "c0,c1")):
        path.write_text(text)
        assert ",".join(peek(path).columns) == names


def test_the_sample_submission_names_its_columns(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "csv", flat)
    ids = [row.id for row in make_rows(N_TEST, first=1000)]
    lines = [f'{id_},no_relation,"[0.1, 0.1]"' for id_ in ids]
    (folder / "sample_submission.csv").write_text("\n".join(["ID,answer,p", *lines]) + "\n")
    (folder / "notes.txt").write_text("nothing\n")
    competition, tables = guess(tmp_path, folder)
    rules = competition.profile.submission
    assert (rules.id_column, rules.label_column, rules.probs_column) == ("ID", "answer", "p")
    assert "Left out: notes.txt." in tables["guesses"].notes


@pytest.mark.parametrize("header", ["id,relation", "id,answer", "id,p,q"])
def test_a_sample_submission_without_answers_gives_a_profile_that_can_be_read(
    tmp_path: Path, header: str
) -> None:
    folder = write_folder(tmp_path, "csv", flat)
    empty = "," * header.count(",")
    lines = [f"{row.id}{empty}" for row in make_rows(N_TEST, first=1000)]
    (folder / "sample_submission.csv").write_text("\n".join([header, *lines]) + "\n")
    competition, tables = guess(tmp_path, folder)
    answer = competition.profile.submission.label_column
    assert answer == {"id,p,q": "pred_label"}.get(header, header.partition(",")[2])
    sure = {row["what"]: row["sure"] for row in tables["guesses"].rows}
    assert sure.get("submission.label_column", sure.get("submission")) == "a guess"


def test_a_value_of_every_test_row_means_no_label(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "json lines", flat)
    test = [{**flat(row), "label": 100} for row in make_rows(N_TEST, first=1000)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, test)))
    competition, _ = guess(tmp_path, folder)
    assert competition.profile.unknown_label == "100"


def test_an_index_without_a_name_is_no_column_and_dev_replaces_test(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, "csv", flat)
    for name, new in (("train.csv", "train.csv"), ("test.csv", "dev.csv")):
        header, *lines = (folder / name).read_text("utf-8").splitlines()
        numbered = [f",{header},0", *(f"{i},{line},x{i}" for i, line in enumerate(lines))]
        (folder / name).unlink()
        (folder / new).write_text("\n".join(numbered) + "\n", encoding="utf-8")
    competition, _ = guess(tmp_path, folder)
    assert competition.profile.files.test == "dev.csv"
    same(read_corpus(competition).train, read_corpus(tiny_competition).train)


def test_train_rows_in_several_files(tiny_competition: Competition, tmp_path: Path) -> None:
    usual = read_corpus(tiny_competition)
    folder = write_folder(tmp_path, "csv", flat)
    header, *lines = (folder / "train.csv").read_text("utf-8").splitlines()
    (folder / "train.csv").unlink()
    for name, some in (("train_1.csv", lines[:7]), ("train_2.csv", lines[7:])):
        (folder / name).write_text("\n".join([header, *some]) + "\n", "utf-8")
    (folder / "train_small.csv").write_text("\n".join([header, *lines[3:9]]) + "\n", "utf-8")
    competition, tables = guess(tmp_path, folder)
    assert competition.profile.files.more_train == ("train_2.csv",)
    assert "Left out: train_small.csv." in tables["guesses"].notes
    assert [row["rows"] for row in tables["fit"].rows[:2]] == [7, N_TRAIN - 7]
    corpus = read_corpus(competition)
    same(corpus.train, usual.train)
    labels, usual_labels = competition.profile.labels, tiny_competition.profile.labels
    found = [labels[label] for label in corpus.train.gold]
    assert found == [usual_labels[label] for label in usual.train.gold]
    second = (folder / "train_2.csv").read_text("utf-8").splitlines()
    (folder / "train_2.csv").write_text("\n".join([*second, lines[2]]) + "\n", "utf-8")
    (offence,) = read_train(competition).offences
    assert (offence.file, offence.id) == ("train_2.csv", lines[2].split(",")[0])
    assert offence.found == "the id also occurs in train_1.csv"


def test_without_ids_rows_are_numbered_across_train_files(tmp_path: Path) -> None:
    path = tmp_path / "numbered.toml"
    folder = write_folder(tmp_path, "csv", marked)
    header, *lines = (folder / "train.csv").read_text("utf-8").splitlines()
    header, *lines = (line.partition(",")[2] for line in (header, *lines))
    for name, some in (("train.csv", lines[:5]), ("train_2.csv", lines[5:9])):
        (folder / name).write_text("\n".join([header, *some]) + "\n", "utf-8")
    run_init([folder], path)
    text = path.read_text("utf-8")
    path.write_text(text.replace("[files]", '[files]\nset_aside = ["2", "6"]'), "utf-8")
    reading = read_train(resolve_competition(str(path), None, None, home=tmp_path))
    assert reading.offences == ()
    assert reading.rows.ids.tolist() == ["0", "1", "3", "4", "5", "7", "8"]


@pytest.mark.parametrize("inclusive", [False, True])
def test_without_words_ends_are_guessed_by_what_stands_there(
    tmp_path: Path, inclusive: bool
) -> None:
    rows = [
        (f"어제 {'가나다'[i % 3]}람회 대표가 부산시(옛 이름)에 간 {i}째 날", i) for i in range(40)
    ]
    made = [
        {"id": i, "text": text, "s_start": 3, "s_end": 6 - inclusive, "o_start": 11,
         "o_end": 14 - inclusive, "label": "ab"[i % 2]}
        for text, i in rows
    ]  # fmt: skip
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, made)), "utf-8")
    competition, _ = guess(tmp_path, folder)
    assert competition.profile.entity.end_inclusive is inclusive


def test_a_profile_that_is_there_stays(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "csv", flat)
    guess(tmp_path, folder)
    with pytest.raises(UsageError, match="is there already"):
        run_init([folder], tmp_path / "guessed.toml")
    run_init([folder], tmp_path / "guessed.toml", overwrite=True)


def test_a_long_folder_name_is_cut_and_the_next_command_can_be_pasted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "csv", flat).rename(tmp_path / ("long-name-" * 8))
    out = tmp_path / "my profile.toml"
    tables = run_init([folder], out)
    assert len(read_profile(out).name) <= 64
    (note,) = next(table.notes for table in tables if table.name == "fit")
    assert note.endswith(f" --competition '{out}'")


def test_predictions_beside_the_test_file_are_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("train.csv", "test.jsonl-blend-1.csv", "test.jsonl.gz"):
        (tmp_path / name).write_text("")
    found = find_files([tmp_path])
    assert (found.test.name, [path.name for path in found.left_out]) == (
        "test.jsonl.gz",
        ["test.jsonl-blend-1.csv"],
    )


def test_files_may_be_named_in_order_and_missing_ones_are_said(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "csv", flat)
    (folder / "train.csv").rename(folder / "a.csv")
    (folder / "test.csv").rename(folder / "b.csv")
    found = find_files([folder / "a.csv", folder / "b.csv"])
    assert (found.train.name, found.test.name) == ("a.csv", "b.csv")
    (folder / "c.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UsageError, match=r"no train file among a\.csv, b\.csv, c\.csv"):
        find_files([folder])
    with pytest.raises(UsageError, match="no such file or folder"):
        find_files([folder / "nowhere"])
    (folder / "train.csv").write_text("id,text\n1,a\n2,b\n")
    (folder / "test.csv").write_text("id,text\n1,a\n")
    with pytest.raises(UsageError, match="cannot be guessed from its columns"):
        guess(tmp_path, folder / "train.csv", folder / "test.csv")


def test_the_demo_is_guessed_as_it_is(tmp_path: Path) -> None:
    demo = resolve_competition("demo", None, None, home=tmp_path)
    competition, _ = guess(tmp_path, demo.data_dir)
    guessed, wanted = competition.profile, demo.profile
    for key in ("columns", "entity", "negative_label", "unknown_label"):
        assert getattr(guessed, key) == getattr(wanted, key)
    assert {*guessed.entity_types} == {*wanted.entity_types}
    assert guessed.labels == wanted.labels  # a known competition's are in its order
    assert guessed.files.solution == "solution.csv"
