from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.parts.particles import _OF_HGTK, attach, find_last_sound

OPEN, CLOSED = "는", "은"


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("한국", CLOSED),
        ("서울시", OPEN),
        ("김하늘", CLOSED),  # ㄹ closes for every particle of ours
        ("맨체스터 유나이티드 FC", OPEN),
        ("KT", OPEN),
        ("CJ ENM", CLOSED),
        ("NFL", CLOSED),
        ("Twitter", OPEN),
        ("TWITTER", CLOSED),  # capitals are spelt: 알
        ("iPhone", CLOSED),
        ("Jennie", OPEN),
        ("Robot", CLOSED),
        ("Microsoft", OPEN),
        ("Big Bang", CLOSED),
        ("r", CLOSED),
        ("café", OPEN),
        ("Ubér", OPEN),  # one word, not a lone R
        ("Rick", CLOSED),
        ("코로나19", OPEN),
        ("1,990", CLOSED),
        ("제7", CLOSED),
        ("0", CLOSED),
        ("T.O.P.", OPEN),
        ("야후!", OPEN),
        ("'챔피언'", CLOSED),
        ("「토지」", OPEN),
        ("국제 축구 연맹(FIFA)", CLOSED),  # what stands in the bracket is not read
        ("발해 (渤海)", OPEN),
        ("왕(王)(1세)", CLOSED),
        ("f(x)", OPEN),
        ("[OBJ-PER]", CLOSED),  # nothing outside the bracket
        ("현대글로비스㈜", OPEN),
        ("ＡＢ", OPEN),  # full width
        ("50%", OPEN),
    ],
)
def test_the_last_sound_decides(word: str, form: str) -> None:
    assert attach(word, "은/는") == word + form


@pytest.mark.parametrize("word", ["金九", "みゆき", "Дума", "서울 金九", "😀", "…", "()", "ㅋㅋ"])
def test_both_forms_if_the_sound_is_unknown(word: str) -> None:
    assert find_last_sound(word) is None
    assert attach(word, "을/를") == f"{word}을(를)"


def test_every_particle_has_two_forms() -> None:
    shown = {particle: attach("눈", particle) + attach("코", particle) for particle in _OF_HGTK}
    assert shown == {
        "은/는": "눈은코는",
        "이/가": "눈이코가",
        "와/과": "눈과코와",
        "을/를": "눈을코를",
    }


@given(st.text("가각힣Lle9(%)[ '.金😀", min_size=1, max_size=12), st.sampled_from(sorted(_OF_HGTK)))
def test_the_word_itself_is_never_changed(word: str, particle: str) -> None:
    first, second = particle.split("/")
    rest = {attach(word, particle)[len(word) :], attach(word, particle).removeprefix(word)}
    assert len(rest) == 1
    assert rest <= {first, second, f"{first}({second})"}


@given(st.text("가각힣걀", min_size=1, max_size=6))
def test_decomposed_hangul_is_read_as_it_sounds(word: str) -> None:
    apart = unicodedata.normalize("NFD", word)
    closed = unicodedata.normalize("NFD", word[-1])[-1] >= "\u11a8"
    assert attach(apart, "은/는") == apart + (CLOSED if closed else OPEN)
