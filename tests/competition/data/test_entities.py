"""entities: a cell may be a Python dict or JSON, and means the same as either."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.data.entities import (
    Cell,
    WrongCellError,
    build_cell_reader,
    check_cell,
)
from competition.data.rows import Entity
from competition.data.values import parse_value
from competition.profile import Competition

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def dump(word: str, start: int, last: int, **more: Any) -> dict[str, Any]:
    return {"word": word, "start_idx": start, "end_idx": last, "type": "PER", **more}


@pytest.mark.parametrize("is_ascii", [True, False])
def test_json_is_read_with_its_escapes_and_its_null(
    tiny_competition: Competition, is_ascii: bool
) -> None:
    read = build_cell_reader(tiny_competition.profile)
    cell = dump('"이/순신"', 3, 8, note=None, sure=True, more={"likely": 0.5})
    text = json.dumps(cell, ensure_ascii=is_ascii)
    assert ("\\u" in text) == is_ascii
    assert read(text) == Cell('"이/순신"', 3, 9, "PER")
    assert read(f"\n {text.replace('/', chr(92) + '/')}\n") == Cell('"이/순신"', 3, 9, "PER")
    assert read(repr(cell)) == Cell('"이/순신"', 3, 9, "PER")


def test_a_pair_of_surrogates_is_one_character_of_the_sentence(
    tiny_competition: Competition,
) -> None:
    profile, sentence = tiny_competition.profile, "😀 이름이 😀하나😀인 사람"
    text = json.dumps(dump("😀하나😀", 6, 9))
    assert text.count("\\ud83d\\ude00") == 2
    cell = build_cell_reader(profile)(text)
    assert check_cell(cell, sentence, profile) == Entity("😀하나😀", 6, 10, "PER")
    half = build_cell_reader(profile)(json.dumps(dump("\ud83d", 0, 0)))
    with pytest.raises(WrongCellError, match="is '😀', not"):
        check_cell(half, sentence, profile)


@given(VALUES)
def test_a_python_literal_and_json_are_read_equally(value: Any) -> None:
    assert parse_value(repr(value)) == value
    assert parse_value(json.dumps(value)) == value
    assert parse_value(json.dumps(value, ensure_ascii=False)) == value


@given(st.text("{}[]\":,\\ '0123456789.-e+abnu/\n", max_size=30))
def test_what_is_both_means_the_same(text: str) -> None:
    try:
        both = json.loads(text), ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return
    assert (parse_value(text) == both[1]) or "\\/" in text


@pytest.mark.parametrize(
    "text", ["", "{'a': null}", '{"a": None, "b": null}', "[" * 90_000, "{" * 90_000, "9" * 5_000]
)
def test_what_is_neither_is_refused(tiny_competition: Competition, text: str) -> None:
    with pytest.raises(WrongCellError, match="neither JSON nor a Python literal"):
        build_cell_reader(tiny_competition.profile)(text)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("null", "a NoneType, not a dict"),
        ('{"word": "x", "start_idx": true, "end_idx": 1, "type": "PER"}', "start_idx is True"),
        ('{"word": null, "start_idx": 0, "end_idx": 1, "type": "PER"}', "word is None, not a text"),
        ('{"word": "x", "start_idx": 0.0, "end_idx": 1, "type": "PER"}', "start_idx is 0.0"),
    ],
)
def test_json_of_other_kinds_is_named(
    tiny_competition: Competition, cell: str, message: str
) -> None:
    with pytest.raises(WrongCellError, match=message):
        build_cell_reader(tiny_competition.profile)(cell)
