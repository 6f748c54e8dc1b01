from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition.data.rows import Entity, Row
from competition.errors import FormatError
from competition.profile import resolve_competition
from competition.profile_language import list_languages, read_first_relations, read_language
from models.network.scratch import UNKNOWN, train_wordpiece
from models.parts.formats import (
    EXAMPLE_ROW,
    FORMATS,
    MASK_SLOT,
    MAX_SOURCES,
    PLAIN,
    check_format,
    concat,
    mask_words,
    typed_marker_tokens,
    typed_punct,
)
from models.parts.markers import Formatted
from models.settings import FormatSettings

KOREAN = read_language()

PUNCTUATED = ("typed-punct", "typed-punct-ko", "query", "declarative", "mask-prompt")
SIGNS = {  # subject's and object's opening, then their closing; another format has its own
    "concat": (("", ""), ("", "")),
    "entity-marker": (("[SUBJ]", "[OBJ]"), ("[/SUBJ]", "[/OBJ]")),
    "typed-marker": (("[SUBJ:{}]", "[OBJ:{}]"), ("[/SUBJ:{}]", "[/OBJ:{}]")),
    **dict.fromkeys(PUNCTUATED, (("@ * {} * ", "# ^ {} ^ "), (" @ ", " # "))),
}
PROMPTED = ("query", "declarative", "mask-prompt")
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
    Row("whole", "가나", Entity("나", 1, 2, "PER"), Entity("가", 0, 1, "ORG"), " "),
    Row(
        "markers", "@ # * ^ 가 @나# ", Entity("가", 8, 9, "ORG"), Entity("나", 11, 12, "PER"), None
    ),
    Row(
        "slot",
        "[MASK]의 [SUBJ-ORG]",
        Entity("[MASK]", 0, 6, "ORG"),
        Entity("[SUBJ-ORG]", 8, 18, "PER"),
        "news",
    ),
    Row(
        "emoji",
        "😀한국👨‍👩‍👧는 NASA(美)와",
        Entity("한국", 1, 3, "LOC"),
        Entity("NASA", 10, 14, "ORG"),
        None,
    ),
]
PIECES = [
    "서울",
    "서울대",
    "울",
    "NASA",
    "😀",
    "👨‍👩‍👧",
    "(美)",
    " ",
    "@ ",
    "# ^ PER ^ ",
    MASK_SLOT,
]
PIECES += ["[SUBJ]", "[OBJ-PER]", unicodedata.normalize("NFD", "한국")]
OPTIONS = st.builds(
    FormatSettings,
    marker_order=st.sampled_from(["role", "text"]),
    mask_entities=st.booleans(),
    show_source=st.booleans(),
)
EVERY_OPTION = [
    FormatSettings(marker_order=order, mask_entities=masked, show_source=shown)
    for order in ("role", "text")
    for masked in (False, True)
    for shown in (False, True)
]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Draw a sentence around two entities: repeated and adjacent words, in either order."""
    between = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
    word = st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join).filter(str.strip)
    parts = [draw(between), draw(word), draw(between), draw(word), draw(between)]
    starts = [len("".join(parts[:i])) for i in range(5)]
    spans = [(starts[1], starts[2]), (starts[3], starts[4])]
    if draw(st.booleans()):
        spans.reverse()
    (s, e), (t, u) = spans
    sentence = "".join(parts)
    return Row(
        "x",
        sentence,
        Entity(sentence[s:e], s, e, draw(st.sampled_from(["PER", "ORG", "EVENT"]))),
        Entity(sentence[t:u], t, u, draw(st.sampled_from(["LOC", "NOH", "PER"]))),
        draw(st.sampled_from([None, "", "wikitree", "a [SEP] b"])),
    )


def place_entities(row: Row) -> list[tuple[str, Entity]]:
    """Return both roles with their entities, in the order of the sentence."""
    return sorted(
        (("subject", row.subject), ("object", row.object)), key=lambda item: item[1].start
    )


def shown_word(role: str, entity: Entity, options: FormatSettings) -> str:
    short = {"subject": "SUBJ", "object": "OBJ"}[role]
    return f"[{short}-{entity.type}]" if options.mask_entities else entity.word


def check(name: str, row: Row, options: FormatSettings) -> None:
    """Hold a row against what every format keeps, and against the signs of a known one.

    Spans hold the words, marks hold the spans, and beside the marks stands the sentence: unchanged
    before a mark, after white space of the format's own behind it.
    """
    shown = FORMATS[name].build(row, options)
    body = shown.segments[shown.body]
    at, sentence_at = 0, 0
    for role, entity in place_entities(row):
        span, mark = getattr(shown, role), getattr(shown, f"{role}_mark")
        assert body[slice(*span)] == shown_word(role, entity, options)
        assert at <= mark[0] <= span[0] < span[1] <= mark[1]
        check_between(body[at : mark[0]], row.sentence[sentence_at : entity.start], first=at == 0)
        at, sentence_at = mark[1], entity.end
    check_between(body[at:], row.sentence[sentence_at:], first=False)
    check_text_order(name, row, options, shown)
    check_prompt(name, row, options, shown)
    if name in SIGNS:
        check_signs(name, row, options, shown)
        check_segments(name, row, options, shown)


def check_between(shown: str, sentence: str, *, first: bool) -> None:
    assert shown.endswith(sentence)
    added = shown.removesuffix(sentence)
    assert added == "" or (added.isspace() and not first)


def check_text_order(name: str, row: Row, options: FormatSettings, shown: Formatted) -> None:
    """Text order gives the same text as role order with swapped roles."""
    if options.marker_order == "role" or options.mask_entities:
        return
    turned = replace(row, subject=row.object, object=row.subject)
    as_written = row if row.subject.start < row.object.start else turned
    by_role = FORMATS[name].build(as_written, FormatSettings(show_source=options.show_source))
    assert shown.segments[shown.body] == by_role.segments[by_role.body]


def check_prompt(name: str, row: Row, options: FormatSettings, shown: Formatted) -> None:
    """Check that a prompt is in front of the body, or last with its slot at the right span."""
    form = FORMATS[name]
    if form.prompt is None:
        assert shown.prompt_mask is None
        return
    prompt = form.prompt(mask_words(row) if options.mask_entities else row, KOREAN)
    if prompt.slot is None:
        assert shown.prompt_mask is None
        beside = (
            shown.segments[shown.body + 1 :] if prompt.is_behind else shown.segments[: shown.body]
        )
        assert prompt.text in beside
    else:
        assert shown.prompt_mask == (len(shown.segments) - 1, prompt.slot)
        assert shown.segments[-1] == prompt.text
        assert prompt.text[slice(*prompt.slot)] == MASK_SLOT


def check_signs(name: str, row: Row, options: FormatSettings, shown: Formatted) -> None:
    """Check the text around the entities against the markers of a format, by character."""
    body, (openings, closings) = shown.segments[shown.body], SIGNS[name]
    in_text = place_entities(row)
    first = in_text[0][1] if options.marker_order == "text" else row.subject
    pieces, at = [], 0
    for role, entity in in_text:
        kind = str(entity.type)
        kind = KOREAN.word_of(kind) if name.endswith("-ko") else kind
        place = 0 if entity is first else 1
        opening, closing = openings[place].format(kind), closings[place].format(kind)
        word = shown_word(role, entity, options)
        mark: tuple[int, int] = getattr(shown, f"{role}_mark")
        end = mark[0] + len(opening + word + closing)
        assert body[slice(*mark)] == (opening + word + closing).rstrip() or not closing
        assert mark[0] + len(opening) == getattr(shown, role)[0]
        assert body[mark[0] : end] == opening + word + closing
        pieces += [body[at : mark[0]], entity.word]
        at = end
    assert "".join([*pieces, body[at:]]) == row.sentence


def check_segments(name: str, row: Row, options: FormatSettings, shown: Formatted) -> None:
    """Check the other segments of a known format against the options."""
    segments = list(shown.segments)
    del segments[shown.body]
    if options.show_source and row.source and row.source.strip():
        assert segments.pop(0) == row.source
    words = [shown_word(role, entity, options) for role, entity in place_entities(row)]
    by_role = [shown_word(role, getattr(row, role), options) for role in ("subject", "object")]
    if name == "concat":
        assert segments == (words if options.marker_order == "text" else by_role)
    elif name in PROMPTED:
        (prompt,) = segments
        assert all(word in prompt for word in words)
        subject_at, object_at = prompt.find(by_role[0]), prompt.rfind(by_role[1])
        assert (subject_at <= object_at) or name == "declarative"
        assert name != "mask-prompt" or prompt.endswith(f" {MASK_SLOT} 이다.")
    else:
        assert segments == []


@pytest.mark.parametrize("options", EVERY_OPTION, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_hand_made_rows_keep_their_entities_and_sentence(
    name: str, options: FormatSettings
) -> None:
    for row in HAND_MADE:
        check(name, row, options)


@settings(max_examples=300)
@given(name=st.sampled_from(sorted(FORMATS)), row=rows(), options=OPTIONS)
def test_any_row_keeps_its_entities_and_sentence(
    name: str, row: Row, options: FormatSettings
) -> None:
    check(name, row, options)


def test_marked_spans_start_with_the_opening_marker() -> None:
    shown = typed_punct(EXAMPLE_ROW)
    body = shown.segments[0]
    assert body[slice(*shown.subject_mark)] == "@ * ORG * 비틀즈 @"
    assert body[slice(*shown.object_mark)] == "# ^ PER ^ 조지 해리슨 #"


def test_in_text_order_the_first_entity_has_the_subject_markers_and_spans_keep_roles() -> None:
    in_order = FormatSettings(marker_order="text")
    shown = FORMATS["typed-punct"].build(EXAMPLE_ROW, in_order)
    body = shown.segments[0]
    assert body[slice(*shown.subject_mark)] == "# ^ ORG ^ 비틀즈 #"
    assert body[slice(*shown.object_mark)] == "@ * PER * 조지 해리슨 @"
    turned = replace(EXAMPLE_ROW, subject=EXAMPLE_ROW.object, object=EXAMPLE_ROW.subject)
    assert FORMATS["typed-punct"].build(turned, in_order) == typed_punct(turned)
    asked = FORMATS["declarative"].build(EXAMPLE_ROW, in_order).segments[0]
    assert asked == "이 문장에서 조지 해리슨은 비틀즈의 사람이다."


def test_masked_entities_are_masked_in_the_prompt_too() -> None:
    masked = FormatSettings(mask_entities=True)
    assert FORMATS["mask-prompt"].build(EXAMPLE_ROW, masked).segments == (
        "〈Something〉는 # ^ PER ^ [OBJ-PER] # 이 쓰고 @ * ORG * [SUBJ-ORG] @ 가 1969년 앨범에 "
        "담은 노래다.",
        "[SUBJ-ORG]의 [OBJ-PER]은 [MASK] 이다.",
    )


def test_the_source_is_the_first_segment_and_shifts_the_body() -> None:
    with_source = FormatSettings(show_source=True)
    for name in FORMATS:
        plain, shown = (FORMATS[name].build(EXAMPLE_ROW, o) for o in (PLAIN, with_source))
        assert shown.segments == ("wikipedia", *plain.segments)
        assert shown.body == plain.body + 1
        if plain.prompt_mask is not None:
            assert shown.prompt_mask == (plain.prompt_mask[0] + 1, plain.prompt_mask[1])
        for absent in (None, "", " "):
            assert FORMATS[name].build(replace(EXAMPLE_ROW, source=absent), with_source) == plain


@pytest.mark.parametrize(
    ("word", "question", "statement"),
    [
        ("비틀즈", "비틀즈와 나의 관계", "이 문장에서 나는 비틀즈의 EVENT이다."),
        ("IBM", "IBM과 나의 관계", "이 문장에서 나는 IBM의 EVENT이다."),
        ("金九", "金九와(과) 나의 관계", "이 문장에서 나는 金九의 EVENT이다."),
    ],
)
def test_a_prompt_has_the_correct_particles(word: str, question: str, statement: str) -> None:
    sentence = f"{word} 나"
    at = len(word) + 1
    row = Row(
        "x", sentence, Entity(word, 0, at - 1, "ORG"), Entity("나", at, at + 1, "EVENT"), None
    )
    assert FORMATS["query"].build(row).segments[0] == question
    assert FORMATS["declarative"].build(row).segments[0] == statement


def test_klue_types_have_korean_words_and_others_are_unchanged() -> None:
    profile = resolve_competition("klue-re", None, None, home=Path()).profile
    assert set(profile.language.type_words) == set(profile.entity_types)
    row = replace(EXAMPLE_ROW, subject=replace(EXAMPLE_ROW.subject, type="TITLE"))
    assert "@ * TITLE * 비틀즈 @" in FORMATS["typed-punct-ko"].build(row).segments[0]


def test_klue_re_speaks_the_korean_that_is_shipped() -> None:
    profile = resolve_competition("klue-re", None, None, home=Path()).profile
    assert profile.language == KOREAN
    assert resolve_competition("demo", None, None, home=Path()).profile.language == KOREAN
    assert profile.relations == read_first_relations()


@pytest.mark.parametrize("language", list_languages())
def test_no_language_leaves_another_ones_words(language: str) -> None:
    english = Row(
        "x", "Ann met Bob.", Entity("Ann", 0, 3, "PER"), Entity("Bob", 8, 11, "PER"), None
    )
    for name in PROMPTED:
        form = FORMATS[name].speaking(read_language(language))
        text = "".join(form.build(english).segments)
        assert ("관계" in text or "이다" in text) == (language == "korean")
    assert (
        read_language("english").word_of("PER")
        in FORMATS["typed-punct-ko"].speaking(read_language("english")).build(english).segments[0]
    )


OVERLAPPING = {
    "inside": ("서울대학교에", (0, 2), (0, 5)),
    "crossing": ("가나다라", (0, 3), (1, 4)),
    "at the end": ("주한 미국", (0, 5), (3, 5)),
    "the same": ("나는 나", (3, 4), (3, 4)),
}
ANY_SIGN = re.compile(r"\[/?[A-Z]+(:[A-Z]+)?\]|[@#] [*^] [^*^]+ [*^] | [@#] (?![*^])")


@pytest.mark.parametrize("case", OVERLAPPING)
@pytest.mark.parametrize("options", EVERY_OPTION, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_overlapping_entities_are_both_marked(
    name: str, options: FormatSettings, case: str
) -> None:
    sentence, subject, obj = OVERLAPPING[case]
    words = (Entity(sentence[slice(*span)], *span, "ORG") for span in (subject, obj))
    row = Row("x", sentence, *words, None)
    shown = FORMATS[name].build(row, options)
    body = shown.segments[shown.body]
    for role in ("subject", "object"):
        span, mark = getattr(shown, role), getattr(shown, f"{role}_mark")
        assert mark[0] <= span[0] < span[1] <= mark[1] <= len(body)
        inside = body[slice(*span)]
        if options.mask_entities:
            assert inside == shown_word(role, getattr(row, role), options)
        else:
            assert ANY_SIGN.sub("", inside) == getattr(row, role).word
    if not options.mask_entities:
        assert ANY_SIGN.sub("", body) == sentence


def test_without_types_every_format_omits_them() -> None:
    row = replace(
        EXAMPLE_ROW,
        subject=replace(EXAMPLE_ROW.subject, type=None),
        object=replace(EXAMPLE_ROW.object, type=None),
    )
    bodies = {name: form.build(row) for name, form in FORMATS.items()}
    for name in PUNCTUATED:
        body = bodies[name].segments[bodies[name].body]
        assert body[13:] == "# 조지 해리슨 # 이 쓰고 @ 비틀즈 @ 가 1969년 앨범에 담은 노래다."
        assert body[slice(*bodies[name].subject)] == "비틀즈"
    assert bodies["typed-marker"] == bodies["entity-marker"]
    assert FORMATS["typed-marker"].new_tokens(()) == FORMATS["entity-marker"].new_tokens(())
    assert bodies["declarative"].segments[0] == "이 문장에서 조지 해리슨은 비틀즈의 관련 대상이다."


def test_the_most_frequent_sources_are_own_words() -> None:
    shown = FormatSettings(show_source=True)
    names = [f"site {i:02}" for i in range(MAX_SOURCES + 9)]
    sources = [*names, names[-1], None, "", " "]
    assert FORMATS["query"].own_words(PLAIN, sources) == ()
    assert FORMATS["query"].own_words(shown, sources) == (names[-1], *names[: MAX_SOURCES - 1])
    words = FORMATS["typed-punct-ko"].own_words(shown, ["a"])
    assert words == (*KOREAN.type_words.values(), "a")


def test_concat_does_not_change_the_sentence() -> None:
    assert concat(EXAMPLE_ROW).segments[2] == EXAMPLE_ROW.sentence


@pytest.mark.parametrize("name", FORMATS)
def test_masking_entities_needs_types(name: str) -> None:
    row = Row("7", "가 나", Entity("가", 0, 1, None), Entity("나", 2, 3, None), None)
    with pytest.raises(FormatError, match="row 7"):
        FORMATS[name].build(row, FormatSettings(mask_entities=True))
    FORMATS[name].build(row)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("concat", FormatSettings(mask_entities=True), "mask_entities needs entity types"),
        ("concat", FormatSettings(show_source=True), "show_source needs a source column"),
    ],
)
def test_formats_that_need_types_or_source_are_refused_without_them(
    name: str, options: FormatSettings, said: str
) -> None:
    with pytest.raises(FormatError, match=said):
        check_format(name, options, entity_types=(), has_source=False)
    check_format(name, options, entity_types=("PER",), has_source=True)
    check_format("entity-marker", PLAIN, entity_types=(), has_source=False)


def test_each_type_and_role_has_its_tokens() -> None:
    tokens = typed_marker_tokens(["PER", "ORG"])
    assert len(set(tokens)) == 8
    shown = FORMATS["typed-marker"].build(EXAMPLE_ROW).segments[0]
    assert all(token in shown for token in tokens if "SUBJ:ORG" in token or "OBJ:PER" in token)


@pytest.mark.parametrize("options", EVERY_OPTION, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_every_new_token_in_a_format_is_registered(name: str, options: FormatSettings) -> None:
    tokens = FORMATS[name].new_tokens(["PER", "ORG"], options)
    assert len(set(tokens)) == len(tokens)
    shown = " ".join(FORMATS[name].build(EXAMPLE_ROW, options).segments)
    for token in tokens:
        shown = shown.replace(token, "")
    assert "SUBJ" not in shown
    assert "OBJ" not in shown


@pytest.mark.parametrize("name", FORMATS)
def test_a_tokenizer_from_scratch_knows_the_markers(name: str) -> None:
    """Markers that occur in no sentence must be in a format's ``words``, or be new tokens."""
    form, types = FORMATS[name], list(KOREAN.type_words)
    reserved = (*types, *form.own_words(PLAIN, []))
    tokenizer = train_wordpiece([EXAMPLE_ROW.sentence], 1000, reserved)
    tokenizer.add_special_tokens(list(form.new_tokens(types)))
    shown = form.build(EXAMPLE_ROW)
    body = shown.segments[shown.body]
    for mark in (shown.subject_mark, shown.object_mark):
        assert UNKNOWN not in tokenizer.encode(body[slice(*mark)]).tokens
    assert UNKNOWN in tokenizer.encode("龘").tokens
