from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.data.rows import Entity, Row, Rows, join_rows
from competition.errors import CorpusError, UsageError
from competition.profile import Competition
from models.data.extra_rows import check_extra, find_overlap, read_extra_rows
from tests.models.made_rows import in_columns, mark

BOTH = ("sentence", "entity_pair")
HELDOUT = in_columns([mark("h0", "<가>와 {나}의 글"), mark("h1", "<다>의 {라} 이야기")], [0, 1])
EXTRA = in_columns(
    [
        mark("free", "<마>가 {바}에 왔다"),
        mark("sentence", "<가>와 나의 {글}"),
        mark("pair", "어제 {다}에서 <라>를 보았다"),  # the pair, turned round
        mark("through", "<가>의 {글}을 읽었다"),  # the pair of "sentence"
        mark("far", "글은 <가>의 {글}"),  # the pair of "through"
        mark("near", "<가>와 {나라}의 글"),  # only words in common
    ],
    [0, 1, 2, 0, 1, 2],
)


def check(overlap: str, group_by: tuple[str, ...] = BOTH, heldout: Rows = HELDOUT) -> list[int]:
    return check_extra(EXTRA, heldout, group_by, overlap=overlap, file="more.csv", fold=2).tolist()


def test_rows_linked_to_held_out_rows_are_left_out_even_indirectly() -> None:
    assert check("leave-out") == [0, 5]
    assert check("leave-out", ("sentence",)) == [0, 2, 3, 4, 5]
    assert check("leave-out", ("entity_pair",)) == [0, 1, 3, 4, 5]
    assert check("leave-out", ()) == [0, 1, 2, 3, 4, 5]


def test_refusing_names_every_row_and_what_to_do() -> None:
    with pytest.raises(CorpusError, match=r'4 of 6 extra rows.*fold 2(.|\n)*"leave-out"') as caught:
        check("refuse")
    assert [o.id for o in caught.value.offences] == ["sentence", "pair", "through", "far"]
    said = [o.found for o in caught.value.offences]
    assert said == [f"shares a group with row {h}" for h in ("h0", "h1", "h0", "h0")]


def test_unrelated_rows_pass_with_either_setting() -> None:
    heldout = in_columns([mark("h", "<사>와 {아}")], [0])
    assert check("refuse", heldout=heldout) == check("leave-out", heldout=heldout)
    assert len(check("refuse", heldout=heldout)) == 6
    assert len(check("refuse", heldout=heldout.take(np.empty(0, np.int64)))) == 6


def test_held_out_labels_are_not_used() -> None:
    assert check("leave-out", heldout=Rows(HELDOUT.frame, None)) == check("leave-out")


def small_row(i: int, sentence: int, subject: int, obj: int) -> Row:
    words = f"s{sentence} w{subject} w{obj}"
    return Row(
        str(i), words[:2], Entity(f"w{subject}", 0, 1, None), Entity(f"w{obj}", 1, 2, None), None
    )


@settings(max_examples=50)
@given(
    keys=st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=14),
    n_extra=st.integers(0, 14),
)
def test_overlap_equals_a_graph_search_from_row_to_row(
    keys: list[tuple[int, int, int]], n_extra: int
) -> None:
    rows = [small_row(i, *key) for i, key in enumerate(keys)]
    n_extra = min(n_extra, len(rows))
    extra, heldout = in_columns(rows[:n_extra]), in_columns(rows[n_extra:])
    reached = set(range(n_extra, len(rows)))
    for _ in rows:
        for i, (sentence, *pair) in enumerate(keys):
            reached |= {
                j
                for j, (other, *words) in enumerate(keys)
                if i in reached and (other == sentence or sorted(words) == sorted(pair))
            }
    tied, partners = find_overlap(extra, heldout, BOTH)
    assert tied.tolist() == sorted(i for i in reached if i < n_extra)
    assert ((partners >= 0) & (partners < len(heldout))).all()


def test_overlap_is_found_through_any_number_of_extra_rows() -> None:
    chain = [small_row(i, (i + 1) // 2, i // 2, i // 2 + 10) for i in range(9)]
    assert all(a.sentence == b.sentence or a.subject == b.subject for a, b in pairwise(chain))
    tied, partners = find_overlap(in_columns(chain[:8]), in_columns(chain[8:]), BOTH)
    assert tied.tolist() == list(range(8))
    assert partners.tolist() == [0] * 8


def test_rows_are_joined_with_all_labels_or_without_any() -> None:
    joined = join_rows(HELDOUT, EXTRA)
    assert joined.ids.tolist() == [*HELDOUT.ids, *EXTRA.ids]
    assert joined.gold.tolist() == [0, 1, 0, 1, 2, 0, 1, 2]
    assert joined.frame.dtypes.equals(HELDOUT.frame.dtypes)
    bare = Rows(EXTRA.frame, None)
    assert join_rows(bare, bare).label_ids is None
    with pytest.raises(ValueError, match="do not join"):
        join_rows(HELDOUT, bare)


def test_extra_rows_are_read_as_train_rows_are(tiny_competition: Competition) -> None:
    text = tiny_competition.train_path.read_bytes()
    path = tiny_competition.data_dir / "more.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text)
    said: list[str] = []
    extra = read_extra_rows(path, tiny_competition.profile, say=said.append)
    assert len(extra) == 64
    assert extra.label_ids is not None
    assert [line for line in said if "byte order mark" in line] == said != []
    assert len(read_extra_rows(path, tiny_competition.profile)) == 64


def test_invalid_extra_rows_are_listed(tiny_competition: Competition) -> None:
    profile, path = tiny_competition.profile, tiny_competition.data_dir / "more.csv"
    with pytest.raises(UsageError, match=r"more\.csv does not exist"):
        read_extra_rows(path, profile)
    lines = tiny_competition.train_path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].replace("per:", "per;")]), encoding="utf-8")
    with pytest.raises(CorpusError, match="line 4, column 'label'"):
        read_extra_rows(path, profile)
