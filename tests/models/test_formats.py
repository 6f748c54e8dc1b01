from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.errors import FormatError
from competition.rows import Entity, Row
from models.formats import EXAMPLE_ROW, FORMATS, concat, typed_marker_tokens, typed_punct

HAND_MADE = [
    EXAMPLE_ROW,
    Row(
        "repeated",
        "서울 사람은 서울에 산다",
        Entity("서울", 7, 9, "LOC"),
        Entity("사람", 3, 5, "PER"),
        None,
    ),
    Row("adjacent", "김하나대리", Entity("김하나", 0, 3, "PER"), Entity("대리", 3, 5, "POH"), None),
    Row("whole", "가나", Entity("나", 1, 2, "PER"), Entity("가", 0, 1, "ORG"), None),
    Row(
        "markers", "@ # * ^ 가 @나# ", Entity("가", 8, 9, "ORG"), Entity("나", 11, 12, "PER"), None
    ),
    Row(
        "emoji",
        "😀한국👨‍👩‍👧는 NASA(美)와",
        Entity("한국", 1, 3, "LOC"),
        Entity("NASA", 10, 14, "ORG"),
        None,
    ),
]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    parts = draw(
        st.lists(st.text("가나다 @#*^A1(", min_size=1, max_size=6), min_size=5, max_size=5)
    )
    sentence = "".join(parts)
    starts = [len("".join(parts[:i])) for i in range(5)]
    spans = [(starts[1], starts[2]), (starts[3], starts[4])]
    if draw(st.booleans()):
        spans.reverse()
    (s, e), (t, u) = spans
    return Row(
        "x", sentence, Entity(sentence[s:e], s, e, "PER"), Entity(sentence[t:u], t, u, "ORG"), None
    )


def check(name: str, row: Row) -> None:
    shown = FORMATS[name].build(row)
    body = shown.segments[shown.body]
    assert body[slice(*shown.subject)] == row.subject.word
    assert body[slice(*shown.object)] == row.object.word
    first, second = sorted([shown.subject_mark, shown.object_mark])
    assert first[1] <= second[0]
    inside = {shown.subject_mark: shown.subject, shown.object_mark: shown.object}
    assert all(mark[0] <= span[0] and span[1] <= mark[1] for mark, span in inside.items())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("row", HAND_MADE, ids=lambda row: row.id)
def test_spans_point_at_the_entities_by_offset(name: str, row: Row) -> None:
    check(name, row)


@pytest.mark.parametrize("name", FORMATS)
@given(row=rows())
def test_spans_point_at_the_entities_of_any_row(name: str, row: Row) -> None:
    check(name, row)


@given(row=rows())
def test_removing_the_markers_restores_the_sentence(row: Row) -> None:
    shown = typed_punct(row)
    body = shown.segments[0]
    closing = {"PER": " @ ", "ORG": " # "}
    (a, b), (c, d) = sorted(
        [(shown.subject_mark, shown.subject), (shown.object_mark, shown.object)]
    )
    first = closing["PER" if a == shown.subject_mark else "ORG"]
    second = closing["PER" if c == shown.subject_mark else "ORG"]
    restored = (
        body[: a[0]]
        + body[slice(*b)]
        + body[b[1] + len(first) : c[0]]
        + body[slice(*d)]
        + body[d[1] + len(second) :]
    )
    assert restored == row.sentence


def test_marks_begin_with_the_role_sign() -> None:
    shown = typed_punct(EXAMPLE_ROW)
    body = shown.segments[0]
    assert body[slice(*shown.subject_mark)] == "@ * ORG * 비틀즈 @"
    assert body[slice(*shown.object_mark)] == "# ^ PER ^ 조지 해리슨 #"


def test_concat_leaves_the_sentence_alone() -> None:
    assert concat(EXAMPLE_ROW).segments[2] == EXAMPLE_ROW.sentence


def test_a_typed_format_of_an_untyped_row_is_refused() -> None:
    row = Row("7", "가 나", Entity("가", 0, 1, None), Entity("나", 2, 3, None), None)
    with pytest.raises(FormatError, match="row 7"):
        typed_punct(row)


def test_each_type_and_role_has_its_marker_tokens() -> None:
    tokens = typed_marker_tokens(["PER", "ORG"])
    assert len(set(tokens)) == 8
    shown = FORMATS["typed-marker"].build(EXAMPLE_ROW).segments[0]
    assert all(token in shown for token in tokens if "SUBJ:ORG" in token or "OBJ:PER" in token)
