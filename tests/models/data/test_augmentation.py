from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.data.rows import Entity, Row
from competition.errors import FormatError, VariantError
from competition.profile import resolve_competition
from models.data.augmentation import (
    MARKS,
    Augmented,
    Scheme,
    augment,
    check_augment,
    find_free_words,
    find_gaps,
    insert_marks,
    mask_entities,
    swap_roles,
)
from models.parts.formats import EXAMPLE_ROW
from models.settings import AugmentSettings
from models.variant import list_variants, resolve_variant
from tests.models.made_rows import mark

KLUE = resolve_competition("klue-re", None, None).profile
SCHEME = Scheme(KLUE.labels, KLUE.negative_ids, KLUE.entity_types)
NAMES = {name: i for i, name in enumerate(KLUE.labels)}
WAYS = ("entity-mask", "aeda", "swap", "delete")
NONE, TITLE, SPOUSE = NAMES["no_relation"], NAMES["per:title"], NAMES["per:spouse"]

HAND_MADE = [
    EXAMPLE_ROW,
    mark("repeated", "서울 사람은 <서울> 에 산다 {사람} 서울"),
    mark("adjacent", "{김하나}<대리>가 왔다"),
    mark("whole", "{가}<나>"),
    mark("object first", "  {다온}에 들어간\t<김 하나> 대리 . "),
    mark("emoji", "😀<한국>👨‍👩‍👧는 {NASA}(美)와 일한다 👍🏽"),
    mark(
        "decomposed", "<\u1107\u1175\u1110\u1173>\u11af의 e\u0301 노래 {\u1112\u1162\u1105\u1175}"
    ),
    mark("own spaces", "가 < 나 >다 { 라 }"),
    mark("type word", "<PER>과 {ORG}", types=("PER", "ORG")),
]
PIECE = st.text("가나 \n.!\u1102\u1161\u11abe\u0301👩\u200d👧A", max_size=6)


@st.composite
def any_row(draw: st.DrawFn) -> Row:
    pieces = draw(st.lists(PIECE, min_size=5, max_size=5))
    for place in (1, 3):
        pieces[place] = draw(st.sampled_from(["", " "])) + "나" + pieces[place]
    sentence = "".join(pieces)
    at = [len("".join(pieces[:i])) for i in range(6)]
    spans = [(at[1], at[2]), (at[3], at[4])]
    if draw(st.booleans()):
        spans.reverse()
    types = draw(st.tuples(*[st.sampled_from(KLUE.entity_types)] * 2))
    subject, obj = (
        Entity(sentence[a:b], a, b, type_) for (a, b), type_ in zip(spans, types, strict=True)
    )
    return Row(draw(st.text(max_size=5)), sentence, subject, obj, None)


def change(rows: list[Row], label_ids: Any = None, **options: Any) -> Augmented:
    wanted = {"ways": WAYS, "share": 1.0, **options}
    key = wanted.pop("key", (42, 0, 0))
    ids = np.zeros(len(rows), np.int64) if label_ids is None else np.asarray(label_ids)
    return augment(rows, ids, AugmentSettings(**wanted), scheme=SCHEME, key=key)


def change_one(row: Row, way: str, epoch: int = 0, label_id: int = NONE) -> Row | None:
    made = change([row], [label_id], ways=(way,), key=(1, 2, epoch))
    return made.rows[0] if made.rows else None


def outside(row: Row) -> tuple[str, str, str]:
    first, second = sorted((row.subject, row.object), key=lambda entity: entity.start)
    text = row.sentence
    return text[: first.start], text[first.end : second.start], text[second.end :]


def check_spans(row: Row, before: Row) -> None:
    for entity in (row.subject, row.object):
        assert row.sentence[entity.start : entity.end] == entity.word
    assert row.subject.end <= row.object.start or row.object.end <= row.subject.start
    assert (row.id, row.source) == (before.id, before.source)
    assert (row.subject.start < row.object.start) == (before.subject.start < before.object.start)


def check_same_entities(row: Row, before: Row) -> None:
    for role in ("subject", "object"):
        now, then = getattr(row, role), getattr(before, role)
        assert (now.word, now.type) == (then.word, then.type)


def check_mask(before: Row, epoch: int) -> None:
    row = change_one(before, "entity-mask", epoch)
    if row is None:
        assert (
            before.subject.word == before.subject.type or before.object.word == before.object.type
        )
        return
    check_spans(row, before)
    assert outside(row) == outside(before)
    pairs = [(row.subject, before.subject), (row.object, before.object)]
    assert all(now.type == then.type for now, then in pairs)
    assert all(now.word in (then.word, then.type) for now, then in pairs)
    assert any(now.word == then.type for now, then in pairs)


def check_aeda(before: Row, epoch: int) -> None:
    row = change_one(before, "aeda", epoch)
    if row is None:
        assert find_gaps(before) == []
        return
    check_spans(row, before)
    check_same_entities(row, before)
    added = (len(row.sentence) - len(before.sentence)) / 2
    assert 1 <= added <= max(1, len(before.sentence.split()) // 3)
    left = Counter(row.sentence.split()) - Counter(before.sentence.split())
    assert left.total() == added
    assert left.keys() <= set(MARKS)


def check_delete(before: Row, epoch: int) -> None:
    row = change_one(before, "delete", epoch)
    if row is None:
        assert find_free_words(before) == []
        return
    check_spans(row, before)
    check_same_entities(row, before)
    words, then = row.sentence.split(), before.sentence.split()
    assert any(words == then[:i] + then[i + 1 :] for i in range(len(then)))


CHECKS = (check_mask, check_aeda, check_delete)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("row", HAND_MADE, ids=lambda row: row.id)
def test_a_changed_row_still_points_at_its_entities(check: Any, row: Row) -> None:
    for epoch in range(12):
        check(row, epoch)


@pytest.mark.parametrize("check", CHECKS)
@settings(max_examples=60)
@given(row=any_row(), epoch=st.integers(0, 99))
def test_any_changed_row_still_points_at_its_entities(check: Any, row: Row, epoch: int) -> None:
    check(row, epoch)


def test_no_mark_is_inserted_inside_an_entity() -> None:
    row = mark("x", "그 <조지 해리슨 경>이 쓴 {긴 노래}")
    assert [row.sentence[at] for at in find_gaps(row)] == ["그", "조", "쓴", "긴"]
    assert insert_marks(row, {2: "?", 14: "."}).sentence == "그 ? 조지 해리슨 경이 쓴 . 긴 노래"


def test_a_word_that_overlaps_an_entity_is_not_deleted() -> None:
    row = mark("x", "(<가>) 나{다}라 마 바")
    words = [row.sentence[slice(*word)] for word in find_free_words(row)]
    assert words == ["마", "바"]
    assert change_one(mark("y", "<가>는 {나}이다"), "delete") is None
    own_spaces = mark("z", "가 < 나 >다 { 라 }")
    assert find_free_words(own_spaces) == [(0, 1), (5, 6)]


def test_masking_can_mask_either_entity_or_both() -> None:
    seen = {change_one(EXAMPLE_ROW, "entity-mask", epoch) for epoch in range(30)}
    shown = {(row.subject.word, row.object.word) for row in seen if row}
    assert shown == {("ORG", "조지 해리슨"), ("비틀즈", "PER"), ("ORG", "PER")}
    assert change_one(mark("x", "<PER>과 {ORG}"), "entity-mask") is None  # nothing to hide


def test_masking_an_entity_without_a_type_raises() -> None:
    with pytest.raises(FormatError, match="row 7: the object cannot be masked"):
        mask_entities(mark("7", "<가> {나}", types=("PER", None)), ("subject", "object"))


EXCHANGED = {
    "no_relation": "no_relation",
    "org:alternate_names": "org:alternate_names",
    "per:alternate_names": "per:alternate_names",
    "per:other_family": "per:other_family",
    "per:colleagues": "per:colleagues",
    "per:siblings": "per:siblings",
    "per:spouse": "per:spouse",
    "org:members": "org:member_of",
    "org:member_of": "org:members",
    "per:children": "per:parents",
    "per:parents": "per:children",
    "org:top_members/employees": "per:employee_of",
}


@pytest.mark.parametrize("label", KLUE.labels)
def test_swapped_roles_get_the_inverse_label(label: str) -> None:
    kind = {"per": "PER", "org": "ORG"}.get(EXCHANGED.get(label, label)[:3], "PER")
    row = mark("x", "<가>와 {나}", types=("PER", kind))
    made = change([row], [NAMES[label]], ways=("swap",))
    if label not in EXCHANGED:
        assert made.rows == ()
        return
    assert made.rows == (swap_roles(row),)
    assert made.label_ids.tolist() == [NAMES[EXCHANGED[label]]]
    assert swap_roles(made.rows[0]) == row


def test_roles_are_swapped_only_if_the_object_can_be_a_subject() -> None:
    typed = [mark(kind, "<가>와 {나}", types=("PER", kind)) for kind in KLUE.entity_types]

    def kinds(label: str) -> list[str]:
        made = change(typed, [NAMES[label]] * len(typed), ways=("swap",))
        return [row.id for row in made.rows]

    assert kinds("no_relation") == ["PER", "ORG"]  # all that labels have for a subject
    assert kinds("per:spouse") == ["PER"]
    assert kinds("org:members") == ["ORG"]
    assert kinds("org:top_members/employees") == ["PER"]


def test_roles_are_swapped_by_label_name_not_by_label_order() -> None:
    scheme = Scheme(("per:sibling", "org:alternate_names", "org:members", "nothing"), (3,), ())
    assert scheme.inverse == {1: 1, 3: 3}
    assert replace(scheme, negative_ids=()).inverse == {1: 1}
    assert replace(scheme, negative_ids=(0, 3)).inverse == {0: 0, 1: 1, 3: 3}
    row = mark("x", "<가>와 {나}", types=(None, None))
    swap = AugmentSettings(ways=("swap",), share=1.0)
    made = augment([row] * 4, np.arange(4), swap, scheme=scheme, key=(0, 0, 0))
    assert made.places.tolist() == [1, 3]


MANY = [mark(str(i), f"그때 {{다온{i}}}에서 <김하나{i}>는 옛 노래를 불렀다") for i in range(400)]
MANY_LABELS = np.array([NONE, TITLE, SPOUSE, NAMES["org:members"]] * 100)


def fates(made: Augmented) -> dict[str, tuple[Row, int]]:
    pairs = zip(made.rows, made.label_ids.tolist(), strict=True)
    return {row.id: (row, label_id) for row, label_id in pairs}


def test_the_draw_of_a_row_does_not_depend_on_other_rows() -> None:
    whole = fates(change(MANY, MANY_LABELS, share=0.5))
    order = np.random.default_rng(0).permutation(400)[:150]
    part = fates(change([MANY[i] for i in order], MANY_LABELS[order], share=0.5))
    kept = {str(i) for i in order}
    assert part == {id_: fate for id_, fate in whole.items() if id_ in kept}
    assert 40 < len(part) < 110


def test_seed_fold_epoch_and_own_seed_each_change_the_draw() -> None:
    draws = [
        change(MANY, MANY_LABELS, share=0.5, key=key, seed=seed).rows
        for key, seed in [
            ((1, 2, 3), 0),
            ((9, 2, 3), 0),
            ((1, 9, 3), 0),
            ((1, 2, 9), 0),
            ((1, 2, 3), 9),
        ]
    ]
    assert len(set(draws)) == 5
    assert change(MANY, MANY_LABELS, share=0.5, key=(1, 2, 3)).rows == draws[0]


def test_the_share_applies_to_rows_of_the_chosen_labels() -> None:
    made = change(MANY, MANY_LABELS, share=0.25, labels=("per:title",), ways=("aeda", "delete"))
    assert set(MANY_LABELS[made.places]) == {TITLE}
    assert 12 < len(made.rows) < 40
    assert made.places.tolist() == sorted(made.places.tolist())
    assert [row.id for row in made.rows] == [str(i) for i in made.places]
    assert len(change(MANY, MANY_LABELS, ways=("aeda",)).rows) == 400


def test_each_row_is_changed_in_one_applicable_way() -> None:
    ways = Counter(len(row.sentence.split()) for row in change(MANY, ways=("aeda", "delete")).rows)
    plain = len(MANY[0].sentence.split())
    assert ways.keys() <= {plain - 1, plain + 1, plain + 2}
    assert 150 < ways[plain - 1] < 250
    bare = [mark(str(i), "<가>는 {나}다") for i in range(20)]  # no word to delete
    assert len(change(bare, ways=("aeda", "delete")).rows) == 20
    titles = change(MANY, np.full(400, TITLE), ways=("swap", "delete"))  # titles do not swap
    assert len(titles.rows) == 400
    assert set(titles.label_ids) == {TITLE}


def test_no_row_gives_no_change() -> None:
    made = change([])
    assert (made.rows, made.places.dtype, made.label_ids.shape) == ((), np.int64, (0,))


def test_the_input_rows_are_not_modified() -> None:
    before = [replace(row) for row in MANY[:50]]
    change(MANY[:50])
    assert before == MANY[:50]


def test_a_known_seed_gives_known_rows() -> None:
    """If the output changes, raise RESULT_VERSION, or stored results would be mixed."""
    rows = [EXAMPLE_ROW, *(replace(EXAMPLE_ROW, id=str(i)) for i in range(1, 6))]
    made = change(rows, [NONE] * 6)
    assert [(row.sentence, row.subject.word, row.subject.start) for row in made.rows] == [
        (EXAMPLE_ROW.sentence, "조지 해리슨", 13),
        (EXAMPLE_ROW.sentence.replace("1969년", "1969년 !"), "비틀즈", 24),
        (EXAMPLE_ROW.sentence.replace("〈Something〉는", "? 〈Something〉는 ;"), "비틀즈", 28),
        (EXAMPLE_ROW.sentence.replace("1969년", ": 1969년"), "비틀즈", 24),
        ("〈Something〉는 PER이 쓰고 ORG가 1969년 앨범에 담은 노래다.", "ORG", 21),
        (EXAMPLE_ROW.sentence.removesuffix(" 노래다."), "비틀즈", 24),
    ]


@pytest.mark.parametrize(
    ("options", "scheme", "said"),
    [
        ({"ways": ("aeda",), "labels": ("per:tite",)}, SCHEME, "'per:tite'.*choose from no_rel"),
        ({"ways": ("entity-mask",)}, Scheme(("a", "b"), (0,), ()), "no entity types; use aeda"),
        ({"ways": ("swap",), "labels": ("per:title",)}, SCHEME, "swapped roles of per:title"),
        ({"ways": ("aeda", "swap")}, Scheme(("a", "b"), (), ()), "swapped roles of a, b"),
    ],
)
def test_settings_that_do_not_fit_the_competition_are_refused(
    options: dict[str, Any], scheme: Scheme, said: str
) -> None:
    with pytest.raises(VariantError, match=re.compile(said)):
        check_augment(AugmentSettings(**options), scheme)


@pytest.mark.parametrize("name", [name for name in list_variants() if name.startswith("augment-")])
def test_the_shipped_ways_suit_klue_re(name: str) -> None:
    wanted = resolve_variant(name, encoder="scratch").augment
    assert wanted is not None
    check_augment(wanted, SCHEME)
