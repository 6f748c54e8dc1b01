"""The corpus: a valid file is read completely, and every error is reported with its place."""

from __future__ import annotations

import ast
import csv
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from competition.data.corpus import read_corpus, read_rows
from competition.data.entities import compose, compose_span
from competition.data.rows import Entity
from competition.errors import CorpusError, Offence, UsageError
from competition.profile import Competition, resolve_competition
from tests.conftest import N_TEST, N_TRAIN, make_rows, write_foreign, write_tiny

FIRST = 0
Change = Callable[[dict[str, str]], None]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def change_row(path: Path, place: int, change: Change) -> None:
    rows = read_table(path)
    change(rows[place])
    write_table(path, rows)


def entity(word: str, start: int, end: int, type_: str = "PER") -> str:
    return str({"word": word, "start_idx": start, "end_idx": end, "type": type_})


def catch(competition: Competition) -> tuple[Offence, ...]:
    with pytest.raises(CorpusError) as caught:
        read_corpus(competition)
    return caught.value.offences


# --- what is read


def test_every_row_is_read_as_it_was_made(tiny_competition: Competition) -> None:
    corpus = read_corpus(tiny_competition)
    made = make_rows(N_TRAIN)
    assert (len(corpus.train), len(corpus.test), corpus.notices) == (N_TRAIN, N_TEST, ())
    for row, label_id, wanted in zip(corpus.train, corpus.train.gold, made, strict=True):
        assert row.id == wanted.id
        assert row.sentence == wanted.sentence
        assert row.subject == Entity(*wanted.subject)
        assert row.object == Entity(*wanted.object)
        assert row.source == wanted.source
        assert tiny_competition.profile.labels[label_id] == wanted.label
        for marked in (row.subject, row.object):
            assert row.sentence[marked.start : marked.end] == marked.word


def test_labels_of_test_rows_are_never_kept(tiny_competition: Competition) -> None:
    before = read_corpus(tiny_competition)

    def answer(row: dict[str, str]) -> None:
        row["label"] = "anything at all"

    change_row(tiny_competition.test_path, 3, answer)
    after = read_corpus(tiny_competition)
    assert after.test.label_ids is None
    assert after.hash == before.hash
    assert not after.test.frame.isin(["anything at all", "100"]).any().any()
    with pytest.raises(TypeError, match="no labels"):
        _ = after.test.gold


def test_other_names_untyped_entities_and_no_source(
    tiny_competition: Competition, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("foreign")
    foreign = resolve_competition(str(write_foreign(home)), None, None, home=home)
    corpus, usual = read_corpus(foreign), read_corpus(tiny_competition)
    for row, other in zip(corpus.train, usual.train, strict=True):
        assert (row.id, row.sentence) == (other.id, other.sentence)
        assert (row.source, row.subject.type, row.object.type) == (None, None, None)
        assert (row.subject.word, row.subject.start) == (other.subject.word, other.subject.start)
        assert row.object.end == other.object.end
    assert len(corpus.test) == N_TEST  # its file has no label column at all


def test_rows_can_be_taken_in_any_order(tiny_competition: Competition) -> None:
    train = read_corpus(tiny_competition).train
    taken = train.take(np.array([5, 0, 5]))
    assert taken.ids.tolist() == ["5", "0", "5"]
    assert taken.row(1) == train.row(0)
    assert taken.gold.tolist() == train.gold[[5, 0, 5]].tolist()


def test_hash_knows_every_field_that_reaches_a_model(tiny_competition: Competition) -> None:
    def relabel(row: dict[str, str]) -> None:
        row["label"] = "per:sibling"

    def resource(row: dict[str, str]) -> None:
        row["source"] = "elsewhere"

    def retype(row: dict[str, str]) -> None:
        row["object_entity"] = row["object_entity"].replace("LOC", "ORG")

    def rename(row: dict[str, str]) -> None:
        row["id"] = "x"

    path = tiny_competition.train_path
    original = path.read_bytes()
    hashes = {read_corpus(tiny_competition).hash}
    assert hashes == {read_corpus(tiny_competition).hash}
    for change in (relabel, resource, retype, rename):
        change_row(path, FIRST, change)
        hashes.add(read_corpus(tiny_competition).hash)
        path.write_bytes(original)
    assert len(hashes) == 5


def test_an_entity_that_the_pattern_does_not_match_is_read_as_a_literal(
    tiny_competition: Competition,
) -> None:
    def quote(row: dict[str, str]) -> None:
        row["sentence"] = 'D\'Arc는 "파리"에 갔다.'
        row["subject_entity"] = entity("D'Arc", 0, 4)
        row["object_entity"] = '{"type": "LOC", "end_idx": 9, "start_idx": 8, "word": "파리"}'

    change_row(tiny_competition.train_path, FIRST, quote)
    row = read_corpus(tiny_competition).train.row(FIRST)
    assert row.subject == Entity("D'Arc", 0, 5, "PER")
    assert row.object == Entity("파리", 8, 10, "LOC")


def test_emoji_other_scripts_and_adjacent_entities(tiny_competition: Competition) -> None:
    def write(row: dict[str, str]) -> None:
        row["sentence"] = "👩‍🚀Ольга京都 e\u0301te\u0301"
        row["subject_entity"] = entity("Ольга", 3, 7)
        row["object_entity"] = entity("京都", 8, 9, "LOC")

    change_row(tiny_competition.train_path, FIRST, write)
    row = read_corpus(tiny_competition).train.row(FIRST)
    assert row.sentence == "👩‍🚀Ольга京都 e\u0301te\u0301"  # only Hangul is ever composed
    assert (row.subject.end, row.object.start) == (8, 8)


def test_a_field_may_be_longer_than_csv_allows_by_default(tiny_competition: Competition) -> None:
    before = csv.field_size_limit()
    longer = "가" * (before + 1)
    change_row(
        tiny_competition.train_path,
        FIRST,
        lambda row: row.update(sentence=row["sentence"] + longer),
    )
    assert len(read_corpus(tiny_competition).train.row(FIRST).sentence) > before
    assert csv.field_size_limit() == before


def test_lines_are_counted_through_sentences_that_span_several(
    tiny_competition: Competition,
) -> None:
    path = tiny_competition.train_path
    change_row(path, FIRST, lambda row: row.update(sentence=row["sentence"] + "\n\n끝"))
    assert read_corpus(tiny_competition).train.row(FIRST).sentence.endswith("\n\n끝")
    change_row(path, 1, lambda row: row.update(label="no such"))
    assert [offence.line for offence in catch(tiny_competition)] == [5]


# --- what is odd and accepted


def test_byte_order_mark_and_windows_line_ends_change_nothing(
    tiny_competition: Competition,
) -> None:
    before = read_corpus(tiny_competition)
    path = tiny_competition.train_path
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    after = read_corpus(tiny_competition)
    assert after.hash == before.hash
    told = [notice.found for notice in after.notices]
    assert told == [
        "begins with a byte order mark",
        "66 lines end in CR LF (Windows)",
        "1 empty lines, the first is this one",
    ]


def test_decomposed_hangul_is_composed_with_its_spans(tiny_competition: Competition) -> None:
    before = read_corpus(tiny_competition)

    def decompose(row: dict[str, str]) -> None:
        sentence = row["sentence"]
        for column in ("subject_entity", "object_entity"):
            cell: dict[str, Any] = ast.literal_eval(row[column])
            start, end = cell["start_idx"], cell["end_idx"] + 1
            word = unicodedata.normalize("NFD", sentence[start:end])
            start = len(unicodedata.normalize("NFD", sentence[:start]))
            row[column] = entity(word, start, start + len(word) - 1, cell["type"])
        row["sentence"] = unicodedata.normalize("NFD", sentence)

    for place in (0, 7):
        change_row(tiny_competition.train_path, place, decompose)
    after = read_corpus(tiny_competition)
    assert after.hash == before.hash
    (notice,) = after.notices
    assert notice.line == 2
    assert "(NFD) in 2 rows" in notice.found


@given(st.text(alphabet="가각힣각 a漢é\u0301", max_size=12), st.data())
def test_a_remapped_span_marks_the_composed_word(sentence: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sentence)))
    end = data.draw(st.integers(start, len(sentence)))
    span = compose_span(sentence, start, end)
    if span is not None:
        assert compose(sentence)[slice(*span)] == compose(sentence[start:end])
    else:
        assert compose(sentence[:start]) + compose(sentence[start:]) != compose(
            sentence
        ) or compose(sentence[:end]) + compose(sentence[end:]) != compose(sentence)


# --- what is an offence: one field of one row broken

SENTENCE = make_rows(N_TRAIN)[0].sentence
SUBJECT = make_rows(N_TRAIN)[0].subject
S_WORD, S_START, S_LAST = SUBJECT[0], SUBJECT[1], SUBJECT[2] - 1

BROKEN_FIELDS = [
    ("id", "", "an empty id"),
    ("id", "\u200b\u3164", "an id of invisible characters"),
    ("id", "1", "the id also occurs on line"),
    ("sentence", "", "an empty sentence"),
    ("sentence", " \t", "an empty sentence"),
    ("label", "per:unheard", "unknown label 'per:unheard'"),
    ("label", "", "unknown label ''"),
    ("label", " no_relation", "unknown label ' no_relation'"),
    ("label", "100", "'100' means that the label is unknown"),
    ("subject_entity", "", "neither JSON nor a Python literal: ''"),
    ("subject_entity", "__import__('os').getcwd()", "neither JSON nor a Python literal"),
    ("subject_entity", "(" * 5_000, "neither JSON nor a Python literal"),
    ("subject_entity", "'" + "x" * 200_000 + "'", "an entity of 200,002 characters"),
    ("subject_entity", "['a']", "a list, not a dict"),
    ("subject_entity", "{'word': 'a'}", "no key 'start_idx', 'end_idx', 'type'"),
    ("subject_entity", entity(S_WORD, S_START, S_LAST)[:-1], "neither JSON nor a Python literal"),
    ("subject_entity", entity(S_WORD, S_START, "3"), "end_idx is '3', not a whole number"),  # type: ignore[arg-type]
    ("subject_entity", entity(S_WORD, True, S_LAST), "start_idx is True, not a whole number"),
    ("subject_entity", entity(S_WORD, 0.0, S_LAST), "start_idx is 0.0, not a whole"),  # type: ignore[arg-type]
    ("subject_entity", entity(7, S_START, S_LAST), "word is 7, not a text"),  # type: ignore[arg-type]
    ("subject_entity", entity(S_WORD, S_START, S_LAST, None), "type is None, not a text"),  # type: ignore[arg-type]
    ("subject_entity", entity(S_WORD, S_START, S_LAST, "per"), "unknown entity type 'per'"),
    ("subject_entity", entity("", 0, 0), "the entity's word is empty: ''"),
    ("subject_entity", entity(" ", 0, 0), "the entity's word is empty: ' '"),
    ("subject_entity", entity(S_WORD, -1, S_LAST), "start_idx -1, end_idx"),
    ("subject_entity", entity(SENTENCE[-3:], -3, len(SENTENCE) - 1), "is not a span of"),
    ("subject_entity", entity(S_WORD, 3, 2), "start_idx 3, end_idx 2 is not a span"),
    ("subject_entity", entity(S_WORD, 0, 999), "end_idx 999 is not a span of"),
    ("subject_entity", entity(S_WORD, S_START + 1, S_LAST + 1), "the text at start_idx"),
    ("subject_entity", entity(S_WORD + "\u202e", S_START, S_LAST), "\\u202e"),
]


@pytest.mark.parametrize(("column", "value", "told"), BROKEN_FIELDS)
def test_a_broken_field_is_named(
    tiny_competition: Competition, column: str, value: str, told: str
) -> None:
    change_row(tiny_competition.train_path, FIRST, lambda row: row.update({column: value}))
    (offence,) = catch(tiny_competition)
    assert told in offence.found
    assert offence.file == "train.csv"
    assert offence.column == column
    assert offence.line == (3 if value == "1" else 2)
    assert offence.remedy
    assert "\n" not in str(offence)
    assert len(str(offence)) < 400


@pytest.mark.parametrize("column", ["sentence", "subject_entity", "object_entity", "id"])
def test_test_rows_are_checked_too(tiny_competition: Competition, column: str) -> None:
    change_row(tiny_competition.test_path, 4, lambda row: row.update({column: ""}))
    (offence,) = catch(tiny_competition)
    assert (offence.file, offence.line, offence.column) == ("test.csv", 6, column)


def test_entities_may_overlap(tiny_competition: Competition) -> None:
    def overlap(row: dict[str, str]) -> None:
        row["object_entity"] = entity(SENTENCE[S_START + 1 : S_LAST + 3], S_START + 1, S_LAST + 2)

    change_row(tiny_competition.train_path, FIRST, overlap)
    row = read_corpus(tiny_competition).train.row(FIRST)
    assert row.object.start < row.subject.end < row.object.end


def test_offences_are_in_the_order_of_the_file(tiny_competition: Competition) -> None:
    change_row(tiny_competition.train_path, 1, lambda row: row.update(id="0"))
    change_row(tiny_competition.train_path, 30, lambda row: row.update(label="no such"))
    change_row(tiny_competition.test_path, 0, lambda row: row.update(sentence=""))
    places = [(offence.file, offence.line) for offence in catch(tiny_competition)]
    assert places == [("train.csv", 3), ("train.csv", 32), ("test.csv", 2)]


def test_a_row_with_two_faults_shows_both(tiny_competition: Competition) -> None:
    broken = {"subject_entity": "?", "object_entity": "??", "label": "???"}
    change_row(tiny_competition.train_path, 2, lambda row: row.update(broken))
    columns = [offence.column for offence in catch(tiny_competition)]
    assert sorted(filter(None, columns)) == ["label", "object_entity", "subject_entity"]


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        (entity(S_WORD, S_START, S_LAST + 1), "entity.end_inclusive = false"),
        (entity(S_WORD, S_START + 4, S_LAST + 4), f"the word occurs at {S_START}"),
    ],
)
def test_a_wrong_offset_comes_with_what_would_fit(
    tiny_competition: Competition, cell: str, hint: str
) -> None:
    change_row(tiny_competition.train_path, FIRST, lambda row: row.update(subject_entity=cell))
    assert hint in catch(tiny_competition)[0].remedy


def test_inconsistent_decomposed_hangul_is_an_offence(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    original = path.read_bytes()

    def decompose_text_only(row: dict[str, str]) -> None:
        row["sentence"] = unicodedata.normalize("NFD", row["sentence"])

    def cut(row: dict[str, str]) -> None:
        row["sentence"] = unicodedata.normalize("NFD", "한글은 서울에서")
        row["subject_entity"] = entity(row["sentence"][:2], 0, 1)  # 하 of 한
        word = unicodedata.normalize("NFD", "서울")
        start = row["sentence"].index(word)
        row["object_entity"] = entity(word, start, start + len(word) - 1, "LOC")

    change_row(path, FIRST, decompose_text_only)
    assert any("composed syllables" in offence.remedy for offence in catch(tiny_competition))
    path.write_bytes(original)
    change_row(path, FIRST, cut)
    (offence,) = catch(tiny_competition)
    assert "splits a syllable" in offence.found
    assert offence.column == "subject_entity"


# --- what is an offence: the file itself


def damage(competition: Competition, old: bytes, new: bytes, *, line: int) -> None:
    """Replace bytes in one line of train.csv, counted from 1."""
    lines = competition.train_path.read_bytes().split(b"\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    competition.train_path.write_bytes(b"\n".join(lines))


def test_bytes_that_are_not_utf8_are_shown(tiny_competition: Competition) -> None:
    damage(tiny_competition, b"PER", b"P\xffR", line=5)
    (offence,) = catch(tiny_competition)
    assert offence.line == 5
    assert "byte 0xff at byte" in offence.found


def test_a_bad_line_inside_a_record_costs_that_record_only(
    tiny_competition: Competition,
) -> None:
    path = tiny_competition.train_path
    change_row(path, FIRST, lambda row: row.update(sentence=row["sentence"] + "\n끝"))
    lines = path.read_bytes().split(b"\n")
    lines[1] += b"\xff"
    path.write_bytes(b"\n".join(lines))
    (offence,) = catch(tiny_competition)
    assert offence.line == 2


def test_a_line_of_cp949_is_recognised(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].decode("utf-8").encode("cp949")
    path.write_bytes(b"\n".join(lines))
    (offence,) = catch(tiny_competition)
    assert (offence.line, "as CP949 the line reads" in offence.remedy) == (2, True)


def test_a_nul_byte_is_an_offence(tiny_competition: Competition) -> None:
    damage(tiny_competition, b"PER", b"P\0R", line=9)
    (offence,) = catch(tiny_competition)
    assert offence.line == 9
    assert "a NUL byte at byte" in offence.found


@pytest.mark.parametrize(("tail", "count"), [(b",more", 7), (b"", 5)])
def test_a_ragged_row_is_an_offence(tiny_competition: Competition, tail: bytes, count: int) -> None:
    lines = tiny_competition.train_path.read_bytes().split(b"\n")
    lines[3] = lines[3] + tail if tail else lines[3].rpartition(b",")[0]
    tiny_competition.train_path.write_bytes(b"\n".join(lines))
    (offence,) = catch(tiny_competition)
    assert offence.line == 4
    assert offence.found.startswith(f"{count} fields where the header has 6")


def test_an_unclosed_quote_is_named_where_it_opens(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    path.write_bytes(path.read_bytes() + b'99,"never closed\nnor here\n')
    (offence,) = catch(tiny_competition)
    assert offence.line == N_TRAIN + 2
    assert "not closed by the end of the file" in offence.found


def test_a_stray_quote_costs_one_record_only(tiny_competition: Competition) -> None:
    damage(tiny_competition, b'"{', b'"{"', line=6)
    (offence,) = catch(tiny_competition)
    assert offence.line == 6
    assert "not a CSV record" in offence.found


@pytest.mark.parametrize("is_whole", [True, False])
def test_line_ends_of_an_old_mac_are_said_in_plain_words(
    tiny_competition: Competition, is_whole: bool
) -> None:
    path = tiny_competition.train_path
    data = path.read_bytes()
    header_end = data.index(b"\n")
    begin = 0 if is_whole else header_end + 1
    path.write_bytes(data[:begin] + data[begin:].replace(b"\n", b"\r"))
    offence = catch(tiny_competition)[0]
    assert offence.line == (1 if is_whole else 2)
    assert offence.found == ("a carriage return (CR) without a line feed, as in files of old Macs")
    assert "Unix line ends" in offence.remedy


def test_a_field_without_end_does_not_fill_the_memory(
    tiny_competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("competition.data.csv_records.FIELD_MAX_CHARS", 2_000)
    path = tiny_competition.train_path
    path.write_bytes(path.read_bytes() + b'99,"' + b"x" * 1_500 + b"\n" + b"y" * 1_500 + b"\n")
    (offence,) = catch(tiny_competition)
    assert offence.line == N_TRAIN + 2
    assert "a field of more than 2,000 characters" in offence.found


def test_missing_and_doubled_columns(tiny_competition: Competition) -> None:
    path = tiny_competition.train_path
    original = path.read_bytes()
    path.write_bytes(original.replace(b"subject_entity,object_entity", b"subject_entty,id", 1))
    offences = catch(tiny_competition)
    assert [offence.column for offence in offences] == ["id", "subject_entity", "object_entity"]
    assert "has it twice" in offences[0].found
    assert "is it 'subject_entty'?" in offences[1].found


def test_a_test_file_needs_no_label_column_but_the_others(tiny_competition: Competition) -> None:
    rows = read_table(tiny_competition.test_path)
    for row in rows:
        del row["label"]
    write_table(tiny_competition.test_path, rows)
    assert len(read_corpus(tiny_competition).test) == N_TEST
    for row in rows:
        del row["source"]
    write_table(tiny_competition.test_path, rows)
    (offence,) = catch(tiny_competition)
    assert (offence.file, offence.line, offence.column) == ("test.csv", 1, "source")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "no such column"),
        (b"id,sentence,subject_entity,object_entity,label,source\n", "a header but no rows"),
        ("id,sentence\n".encode("utf-16"), "no such column; the header has 'id, sentence'"),
        ("가,b\n1,2\n".encode("cp949"), "no such column; the header has '가, b'"),
        (b"\xffid,b\n1,2\n", "byte 0xff at byte 1"),
        (b"\n\n", "no such column"),
        (b"id;sentence;subject_entity\n1;2;3\n", "the header has 'id, sentence, subject_entity'"),
    ],
)
def test_files_without_rows(tiny_competition: Competition, content: bytes, told: str) -> None:
    tiny_competition.train_path.write_bytes(content)
    assert told in catch(tiny_competition)[0].found


def test_a_missing_file_and_a_folder_in_its_place(tiny_competition: Competition) -> None:
    tiny_competition.train_path.unlink()
    tiny_competition.test_path.unlink()
    tiny_competition.test_path.mkdir()
    first, second = catch(tiny_competition)
    assert (first.file, "cannot be opened" in first.found) == ("train.csv", True)
    assert (second.file, "cannot be opened" in second.found) == ("test.csv", True)


def test_all_offences_are_kept_and_the_message_stays_short(tiny_competition: Competition) -> None:
    rows = read_table(tiny_competition.train_path)
    for i, row in enumerate(rows[:25]):
        row["label"] = f"\x1b[31mred\x1b[0m{i}"
    write_table(tiny_competition.train_path, rows)
    with pytest.raises(CorpusError) as caught:
        read_corpus(tiny_competition)
    assert len(caught.value.offences) == 25
    message = str(caught.value)
    assert message.startswith(f"{tiny_competition.data_dir}: 25 offences, to be corrected")
    assert "… and 5 more" in message
    assert "\x1b" not in message


def test_what_offends_is_not_in_the_rows_and_all_else_is(tiny_competition: Competition) -> None:
    change_row(tiny_competition.train_path, 5, lambda row: row.update(label="no such"))
    reading = read_rows(tiny_competition.train_path, tiny_competition.profile, is_train=True)
    assert len(reading.rows) == N_TRAIN - 1
    assert "5" not in reading.rows.ids
    assert len(reading.rows.gold) == N_TRAIN - 1


@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
def test_whatever_the_bytes_are_nothing_but_our_own_error_is_raised(
    tiny_competition: Competition, data: st.DataObject
) -> None:
    path = tiny_competition.home / "damaged.csv"
    content = bytearray(tiny_competition.train_path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b'"', b"\n", b"\r", b"\0", b",", b"\\", b"\xff", b"{", b"'"])
        )
    path.write_bytes(content)
    reading = read_rows(path, tiny_competition.profile, is_train=True)
    for row in reading.rows:
        for marked in (row.subject, row.object):
            assert row.sentence[marked.start : marked.end] == marked.word
    if not reading.offences:  # nothing was dropped in silence
        assert len(reading.rows) == N_TRAIN


# --- a limit


def limited(tmp_path: Path, limit: int) -> Competition:
    return resolve_competition(str(write_tiny(tmp_path)), None, limit, home=tmp_path)


def test_a_limit_samples_both_files_in_file_order(tmp_path: Path) -> None:
    corpus = read_corpus(limited(tmp_path, 24))
    assert (len(corpus.train), len(corpus.test)) == (24, 6)
    train, test = corpus.train.ids.astype(int), corpus.test.ids.astype(int)
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    assert np.bincount(corpus.train.gold).tolist() == [6, 6, 6, 6]
    assert corpus.hash == read_corpus(limited(tmp_path, 24)).hash
    assert corpus.hash != read_corpus(limited(tmp_path, 28)).hash


def test_a_limit_above_the_data_is_all_rows(tmp_path: Path) -> None:
    corpus = read_corpus(limited(tmp_path, 10_000))
    assert (len(corpus.train), len(corpus.test)) == (N_TRAIN, N_TEST)


def test_a_limit_below_the_folds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--limit 2 is too small for 3 folds"):
        read_corpus(limited(tmp_path, 2))


# --- the real data


def test_the_real_files(klue_re_dir: Path, tmp_path: Path) -> None:
    corpus = read_corpus(resolve_competition("klue-re", klue_re_dir, None, home=tmp_path))
    assert (len(corpus.train), len(corpus.test), corpus.notices) == (32_470, 7_765, ())
    assert corpus.train.frame["sentence"].nunique() == 28_803
    assert np.isclose((corpus.train.gold == 0).mean(), 0.294, atol=0.0005)
    row = corpus.train.row(0)
    assert (row.subject.word, row.object.word, row.object.type) == ("비틀즈", "조지 해리슨", "PER")
