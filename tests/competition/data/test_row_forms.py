"""Rows in every form: the same rows come out, whatever file and form they were given in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from competition.data.corpus import Reading, read_corpus, read_rows, read_train
from competition.data.rows import Rows
from competition.errors import CorpusError, ProfileError
from competition.profile import Competition, read_profile, resolve_competition
from competition.submission.form import read_test_ids
from competition.submission.score import read_solution
from tests.conftest import N_TEST, N_TRAIN, TINY_PROFILE, Made, make_rows

COLUMNS_ENTITY = """
[entity]
given_as = "columns"
end_inclusive = true
subject = { word = "s_word", start = "s_start", end = "s_end", type = "s_type" }
object = { word = "o_word", start = "o_start", end = "o_end", type = "o_type" }
"""
MARKUP_ENTITY = """
[entity]
given_as = "markup"
subject = { open = "<e1>", close = "</e1>", type = "s_type" }
object = { open = "<e2>", close = "</e2>", type = "o_type" }
"""
TOKENS_ENTITY = """
[entity]
given_as = "columns"
counted_in = "tokens"
end_inclusive = true
subject = { start = "s_start", end = "s_end", type = "s_type" }
object = { start = "o_start", end = "o_end", type = "o_type" }
"""
NESTED_ENTITY = """
[entity]
given_as = "columns"
subject = { word = "h.name", start = "h.pos.0", end = "h.pos.1", type = "h.kind" }
object = { word = "t.name", start = "t.pos.0", end = "t.pos.1", type = "t.kind" }
"""
Record = dict[str, Any]
Writer = Callable[[Path, list[Record]], None]
Form = Callable[[Made], Record]


def flat(row: Made) -> Record:
    """Write a row's entities into columns, ends inclusive."""
    record: Record = {"id": row.id, "sentence": row.sentence, "label": row.label}
    for short, (word, start, end, kind) in (("s", row.subject), ("o", row.object)):
        record |= {f"{short}_word": word, f"{short}_start": start}
        record |= {f"{short}_end": end - 1, f"{short}_type": kind}
    return {**record, "source": row.source}


def marked(row: Made) -> Record:
    """Write tags around a row's entities."""
    record, sentence = flat(row), row.sentence
    spans = [("<e1>", "</e1>", row.subject), ("<e2>", "</e2>", row.object)]
    for opening, closing, (word, start, end, _) in sorted(spans, key=lambda s: -s[2][1]):
        sentence = f"{sentence[:start]}{opening}{word}{closing}{sentence[end:]}"
    return {**record, "sentence": sentence}


def nested(row: Made) -> Record:
    """Write a row's entities as objects of objects."""
    record: Record = {"id": int(row.id), "sentence": row.sentence, "label": row.label}
    for short, (word, start, end, kind) in (("h", row.subject), ("t", row.object)):
        record[short] = {"name": word, "pos": [start, end], "kind": kind}
    return {**record, "source": row.source}


def in_cells(row: Made) -> Record:
    """Write a row's entities as the objects that klue-re writes as text."""
    record: Record = {"id": row.id, "sentence": row.sentence, "label": row.label}
    for column, (word, start, end, kind) in (
        ("subject_entity", row.subject),
        ("object_entity", row.object),
    ):
        cell = {"word": word, "start_idx": start, "end_idx": end - 1, "type": kind}
        record[column] = cell
    return {**record, "source": row.source}


def write_separated(path: Path, records: list[Record], mark: str, *, header: bool = True) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(records[0]), delimiter=mark, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(records)


def write_lines(path: Path, records: list[Record]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITERS: dict[str, Writer] = {
    "csv": lambda path, records: write_separated(path, records, ","),
    "tsv": lambda path, records: write_separated(path, records, "\t"),
    "semicolons": lambda path, records: write_separated(path, records, ";"),
    "json": lambda path, records: path.write_text(json.dumps(records)) and None,
    "data in json": lambda path, records: (
        path.write_text(json.dumps({"v": 1, "data": records})) and None
    ),
    "columns in json": lambda path, records: (
        path.write_text(
            json.dumps({name: {i: r[name] for i, r in enumerate(records)} for name in records[0]})
        )
        and None
    ),
    "json lines": write_lines,
    "parquet": lambda path, records: pd.DataFrame(records).to_parquet(path),
}


def profile_with(entity: str, files: str = "") -> str:
    start, end = TINY_PROFILE.index("[entity]"), TINY_PROFILE.index("[folds]")
    text = TINY_PROFILE[:start] + entity + TINY_PROFILE[end:]
    text = text.replace('solution = "solution.csv"', f'solution = "solution.csv"\n{files}')
    if 'given_as = "c' in entity or 'given_as = "m' in entity:
        for column in ("subject", "object"):
            text = text.replace(f'{column} = "{column}_entity"\n', "")
    return text


def make(home: Path, text: str, write: Writer, form: Form) -> Competition:
    profile = home / "other.toml"
    profile.write_text(text, encoding="utf-8")
    folder = home / "data"
    folder.mkdir(exist_ok=True)
    write(folder / "train.csv", [form(row) for row in make_rows(N_TRAIN)])
    write(folder / "test.csv", [form(row) for row in make_rows(N_TEST, first=1000)])
    return resolve_competition(str(profile), None, None, home=home)


def without_label(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "label"}


def same(rows: Rows, wanted: Rows) -> None:
    assert [*rows] == [*wanted]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("entity", "form"),
    [(COLUMNS_ENTITY, flat), (MARKUP_ENTITY, marked), (NESTED_ENTITY, nested)],
    ids=["columns", "markup", "nested"],
)
def test_the_same_rows_come_out_of_every_file(
    tiny_competition: Competition,
    tmp_path: Path,
    kind: str,
    entity: str,
    form: Callable[[Made], Record],
) -> None:
    usual = read_corpus(tiny_competition)
    other = make(tmp_path, profile_with(entity), WRITERS[kind], form)
    corpus = read_corpus(other)
    assert corpus.hash == usual.hash
    same(corpus.test, usual.test)
    is_said = {notice.file for notice in corpus.notices}
    assert is_said == (set() if kind in ("csv", "parquet") else {"train.csv", "test.csv"})


@pytest.mark.parametrize("kind", ["json lines", "json", "parquet", "csv", "tsv"])
def test_a_cell_may_be_the_object_itself(
    tiny_competition: Competition, tmp_path: Path, kind: str
) -> None:
    usual = read_corpus(tiny_competition)
    start, end = TINY_PROFILE.index("[entity]"), TINY_PROFILE.index("[folds]")
    other = make(tmp_path, profile_with(TINY_PROFILE[start:end]), WRITERS[kind], in_cells)
    assert read_corpus(other).hash == usual.hash


@pytest.mark.parametrize("mark", [",", "\t", "|"])
def test_a_file_without_a_header_is_read_by_the_profile_s(
    tiny_competition: Competition, tmp_path: Path, mark: str
) -> None:
    usual = read_corpus(tiny_competition)
    names = list(flat(make_rows(14)[0]))
    test_names = [name for name in names if name != "label"]
    files = f"header = {json.dumps(names)}\ntest_header = {json.dumps(test_names)}"
    other = make(
        tmp_path,
        profile_with(COLUMNS_ENTITY, files),
        lambda path, records: write_separated(
            path,
            records if "train" in path.name else [without_label(each) for each in records],
            mark,
            header=False,
        ),
        flat,
    )
    assert read_corpus(other).hash == usual.hash


def tokens_of(row: Made) -> Record:
    """Write a row in tokens: those before, in and after each entity."""
    cuts = sorted({0, *row.subject[1:3], *row.object[1:3], len(row.sentence)})
    pieces = [row.sentence[a:b] for a, b in pairwise(cuts)]
    tokens, places = [], {}
    for at, piece in zip(cuts, pieces, strict=False):
        words = piece.split()
        if words:
            places[at] = len(tokens)
            tokens += words
    record: Record = {**flat(row), "sentence": tokens}
    for short, (word, start, _, _) in (("s", row.subject), ("o", row.object)):
        record |= {f"{short}_start": places[start]}
        record |= {f"{short}_end": places[start] + len(word.split()) - 1}
    return record


@pytest.mark.parametrize("is_list", [True, False])
def test_offsets_may_count_tokens(
    tiny_competition: Competition, tmp_path: Path, is_list: bool
) -> None:
    usual = read_corpus(tiny_competition)

    def form(row: Made) -> Record:
        record = tokens_of(row)
        return record if is_list else {**record, "sentence": " ".join(record["sentence"])}

    other = make(tmp_path, profile_with(TOKENS_ENTITY), write_lines, form)
    for row, wanted in zip(read_corpus(other).train, usual.train, strict=True):
        assert row.sentence.split() == tokens_of_sentence(row.sentence)
        for role in ("subject", "object"):
            found, word = getattr(row, role), getattr(wanted, role).word
            assert row.sentence[found.start : found.end] == found.word == word


def tokens_of_sentence(sentence: str) -> list[str]:
    return sentence.split(" ")


def read_one(tmp_path: Path, entity: str, record: Record) -> Reading:
    path = tmp_path / "one.toml"
    path.write_text(profile_with(entity), encoding="utf-8")
    write_lines(tmp_path / "one.jsonl", [{"id": 1, "label": "no_relation", "source": "", **record}])
    return read_rows(tmp_path / "one.jsonl", read_profile(path), is_train=True)


BARE = {"s_type": "PER", "o_type": "PER"}


@pytest.mark.parametrize(
    ("sentence", "subject", "object_"),
    [
        ("<e1>서울<e2>대학교</e2></e1> 앞", (0, 5), (2, 5)),
        ("<e2> 나 </e2>와 <e1>너</e1>", (5, 6), (1, 2)),
    ],
)
def test_tags_may_nest_and_hold_spaces(
    tmp_path: Path, sentence: str, subject: tuple[int, int], object_: tuple[int, int]
) -> None:
    reading = read_one(tmp_path, MARKUP_ENTITY, {**BARE, "sentence": sentence})
    (row,) = reading.rows
    assert (row.subject.start, row.subject.end) == subject
    assert (row.object.start, row.object.end) == object_


SIGNS_ENTITY = """
[entity]
given_as = "markup"
subject = { open = "$", close = "$", type = "s_type" }
object = { open = "#", close = "#", type = "o_type" }
"""


def test_a_sign_may_both_open_and_close(tmp_path: Path) -> None:
    reading = read_one(tmp_path, SIGNS_ENTITY, {**BARE, "sentence": "the # flu # after $rain$."})
    (row,) = reading.rows
    assert (row.subject.word, row.object.word) == ("rain", "flu")
    assert row.sentence[row.object.start : row.object.end] == "flu"
    wrong = read_one(tmp_path, SIGNS_ENTITY, {**BARE, "sentence": "#a# costs $5 in $b$"}).offences
    assert [each.found for each in wrong] == ["$ occurs 3 times"]


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("<e1>가</e1>와 나", "<e2> occurs 0 times and </e2> 0 times"),
        ("<e1>가</e1>와 <e1>나</e1> <e2>다</e2>", "<e1> occurs 2 times and </e1> 2 times"),
        ("<e1> </e1>와 <e2>다</e2>", "no word between <e1> and </e1>"),
        ("</e1>가<e1>와 <e2>다</e2>", "no word between <e1> and </e1>"),
    ],
)
def test_wrong_tags_are_offences(tmp_path: Path, sentence: str, message: str) -> None:
    (offence,) = read_one(tmp_path, MARKUP_ENTITY, {**BARE, "sentence": sentence}).offences
    assert (message in offence.found, offence.column, offence.id) == (True, "sentence", "1")


WORDS_ENTITY = """
[entity]
given_as = "columns"
subject = { word = "s_word", type = "s_type" }
object = { word = "o_word", type = "o_type" }
"""


def test_words_without_offsets_are_found(tmp_path: Path) -> None:
    sentence = "서울대학교는 서울에 있다"
    record = {**BARE, "sentence": sentence, "s_word": "서울", "o_word": "서울대학교"}
    (row,) = read_one(tmp_path, WORDS_ENTITY, record).rows
    assert (row.subject.start, row.object.start) == (7, 0)  # not inside the longer name
    (offence,) = read_one(tmp_path, WORDS_ENTITY, {**record, "s_word": "부산"}).offences
    assert "'부산' does not occur in the sentence" in offence.found


def test_words_without_offsets_are_found_whole_if_the_profile_says_so(tmp_path: Path) -> None:
    record = {**BARE, "sentence": "Also Alan met Al; Al left.", "s_word": "Al", "o_word": "Alan"}
    for more, start in (("", 0), ("whole_words = true", 14)):
        entity = WORDS_ENTITY.replace('"columns"', f'"columns"\n{more}')
        (row,) = read_one(tmp_path, entity, record).rows
        assert (row.subject.start, row.object.start) == (start, 5)
        same = {**record, "o_word": "Al"}
        (row,) = read_one(tmp_path, entity, same).rows
        assert row.object.start == (18 if more else 5)
    with pytest.raises(ProfileError, match="whole_words is for columns of words"):
        read_one(tmp_path, MARKUP_ENTITY.replace("]\n", "]\nwhole_words = true\n", 1), record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s_start": "3a"}, "s_start is '3a', not a whole number"),
        ({"s_start": None}, "s_start is '', not a whole number"),
        ({"s_end": 9}, "s_start 0, s_end 9 is not a span of 3 tokens"),
        ({"o_start": 3, "o_end": 1}, "is not a span of 3 tokens"),
    ],
)
def test_wrong_token_offsets_are_offences(tmp_path: Path, change: Record, message: str) -> None:
    record = {**BARE, "sentence": ["가", "나", "다"]}
    record |= {"s_start": 0, "s_end": 0, "o_start": 1, "o_end": 2}
    assert not read_one(tmp_path, TOKENS_ENTITY, record).offences
    (offence,) = read_one(tmp_path, TOKENS_ENTITY, {**record, **change}).offences
    assert message in offence.found


@pytest.mark.parametrize("text", ["가\\u0000나", "가\\ud83d나"])
def test_what_json_can_hold_and_no_file_of_ours_is_an_offence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(profile_with(MARKUP_ENTITY), encoding="utf-8")
    line = '{"id": 1, "label": "no_relation", "source": "", "s_type": "PER", "o_type": "PER", '
    line += f'"sentence": "<e1>가</e1><e2>나</e2>{text}"}}\n'
    (tmp_path / "x.jsonl").write_text(line)
    (offence,) = read_rows(tmp_path / "x.jsonl", read_profile(path), is_train=True).offences
    assert offence.column == "sentence"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 1}, 2]', "row 2 is 2, not an object"),
        (b'[{"id": 1}', "damaged JSON"),
        (b'{"id": 1}\n{"id": 2', "line 2 is not JSON"),
        (b'{"id": 1}\n{"id": 2}\n[3]\n', "line 3 is [3]"),
        (b'{"id": 1, "label": "x"}', "JSON without rows"),
        (b"PAR1 and nothing more", "a Parquet file that cannot be read"),
    ],
)
def test_damaged_objects_are_named(
    tiny_competition: Competition, content: bytes, message: str
) -> None:
    path = tiny_competition.train_path
    path.write_bytes(content)
    reading = read_rows(path, tiny_competition.profile, is_train=True)
    assert any(message in offence.found for offence in reading.offences)


def test_a_parquet_text_that_is_not_utf8_is_named(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    pq.write_table(pa.Table.from_pydict({"id": ["abcdef"]}), path, compression="none")
    path.write_bytes(path.read_bytes().replace(b"abcdef", b"ab\xffdef"))
    reading = read_rows(path, tiny_competition.profile, is_train=True)
    assert any("a text in it is not UTF-8" in offence.found for offence in reading.offences)


def test_rows_without_ids_are_numbered_and_numbers_mean_labels(tmp_path: Path) -> None:
    text = profile_with(MARKUP_ENTITY).replace('id = "id"\n', "", 1)
    text = text.replace('label = "label"', 'label = "label"\nlabel_as = "number"')

    def form(row: Made) -> Record:
        record = marked(row)
        del record["id"]
        labels = ("per:birthplace", "no_relation", "per:employer", "per:sibling")
        return {**record, "label": labels.index(row.label)}

    def as_floats(path: Path, records: list[Record]) -> None:
        WRITERS["csv"](path, [{**each, "label": f"{each['label']}.0"} for each in records])

    floats = read_corpus(make(tmp_path, text, as_floats, form))
    corpus = read_corpus(make(tmp_path, text, WRITERS["parquet"], form))
    assert floats.hash == corpus.hash
    assert corpus.train.ids.tolist() == [str(i) for i in range(N_TRAIN)]
    assert corpus.train.gold[:4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json lines", "parquet"])
@pytest.mark.parametrize("is_number", [False, True])
def test_a_solution_may_be_any_file_and_hold_numbers(
    tmp_path: Path, kind: str, is_number: bool
) -> None:
    text = profile_with(MARKUP_ENTITY)
    if is_number:
        text = text.replace('label = "label"', 'label = "label"\nlabel_as = "number"')
    competition = make(tmp_path, text, WRITERS[kind], marked)
    labels = competition.profile.labels
    rows = make_rows(N_TEST, first=1000)
    records: list[Record] = [
        {"id": int(row.id), "label": labels.index(row.label) if is_number else row.label}
        for row in rows
    ]
    WRITERS[kind](tmp_path / "solution", records)
    gold = read_solution(tmp_path / "solution", competition.profile)
    assert gold == {row.id: labels.index(row.label) for row in rows}
    assert read_test_ids(competition) == [row.id for row in rows]
    WRITERS[kind](tmp_path / "solution", [{**each, "label": "?"} for each in records])
    with pytest.raises(CorpusError, match="is not a label"):
        read_solution(tmp_path / "solution", competition.profile)


def test_labels_that_are_numbers_are_one_offence(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    text = path.read_text("utf-8")
    for i, label in enumerate(tiny_competition.profile.labels):
        text = text.replace(f",{label},", f",{i},")
    path.write_text(text, encoding="utf-8")
    (offence,) = read_rows(path, tiny_competition.profile, is_train=True).offences
    assert f"in {N_TRAIN} of {N_TRAIN} rows" in offence.found
    assert 'columns.label_as = "number"' in offence.remedy
    assert "0 = per:birthplace" in offence.remedy


def test_offsets_counted_otherwise_are_one_offence_for_each_entity(
    tiny_competition: Competition, tmp_path: Path
) -> None:
    home = tiny_competition.home / "tiny.toml"
    home.write_text(
        home.read_text("utf-8").replace("end_inclusive = true", "end_inclusive = false")
    )
    other = resolve_competition(str(home), None, None, home=tiny_competition.home)
    offences = read_rows(other.train_path, other.profile, is_train=True).offences
    assert [offence.column for offence in offences] == ["subject_entity", "object_entity"]
    assert all("entity.end_inclusive = true" in offence.remedy for offence in offences)


def test_flat_columns_where_cells_are_looked_for_are_said(
    tiny_competition: Competition,
) -> None:
    records = [flat(row) for row in make_rows(N_TRAIN)]
    write_separated(tiny_competition.train_path, records, ",")
    reading = read_rows(tiny_competition.train_path, tiny_competition.profile, is_train=True)
    (offence,) = reading.offences
    assert 'entity.given_as = "columns"' in offence.remedy


def test_rows_that_the_profile_sets_aside_are_not_read(tiny_competition: Competition) -> None:
    path = tiny_competition.home / "tiny.toml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("[files]", '[files]\nset_aside = ["3", "5"]'), encoding="utf-8")
    other = resolve_competition(str(path), None, None, home=tiny_competition.home)
    corpus = read_corpus(other)
    assert len(corpus.train) == N_TRAIN - 2
    assert not {"3", "5"} & set(corpus.train.ids)
    assert "2 rows are set aside" in corpus.notices[0].found
    path.write_text(text.replace("[files]", '[files]\nset_aside = ["x"]'), encoding="utf-8")
    unknown = resolve_competition(str(path), None, None, home=tiny_competition.home)
    (offence,) = read_train(unknown).offences
    assert "files.set_aside lists this id" in offence.found


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        ('[entity]\ngiven_as = "columns"\n', "needs entity.subject and entity.object"),
        ('[entity]\ngiven_as = "columns"\nstart = "s"\n', "'s' is a key of a cell"),
        (COLUMNS_ENTITY.replace(', type = "s_type"', ""), "a type, or neither"),
        (COLUMNS_ENTITY.replace('start = "s_start", ', ""), "the column of its start"),
        (MARKUP_ENTITY.replace('close = "</e1>", ', ""), "needs open and close"),
        (MARKUP_ENTITY.replace('"<e2>"', '"<e1>"'), "named twice: '<e1>'"),
        ('[entity]\nword = "w"\n', "needs start and end"),
    ],
)
def test_a_form_that_is_not_whole_is_refused(tmp_path: Path, entity: str, message: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(profile_with(entity), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert message in str(caught.value)
