"""Korean particles (josa): choose the form that follows a word, by its pronunciation.

Used by formats with a question or a statement. ``hgtk`` handles Hangul syllables; this module finds
the last sound of a word in other scripts. (The rule of ``hgtk`` for Latin letters treats C, K and T
as closed: wrong in 44% of the cases in KLUE-RE.)
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from hgtk import josa

RESULT_VERSION = 1
VERSION_NAME = "models.particles"

Particle = Literal["은/는", "이/가", "와/과", "을/를"]

_OF_HGTK = {
    "은/는": josa.EUN_NEUN,
    "이/가": josa.I_GA,
    "와/과": josa.GWA_WA,
    "을/를": josa.EUL_REUL,
}
_DIGITS = "영일이삼사오육칠팔구"
_LETTERS = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "이비씨디이프지치이이이엘엠엔오피큐알스티유이유스이트",
        strict=True,
    )
)
_SIGNS = {"%": "트"}  # read 퍼센트
_BRACKETED_TAIL = re.compile(r"(?:\s*(?:\([^()]*\)|\[[^\[\]]*\]))+\W*$")
_HEARD_CLOSED = re.compile(r"(?:[lmn]e?|ng|ck|[aeiou][bckpt])$")


def attach(word: str, particle: Particle) -> str:
    """Return a word with the form of a particle that matches its last sound.

    The last syllable, digit or Latin letter decides; brackets at the end of a word and quotation
    marks are not pronounced. Capital letters are read by their Korean names, lower-case letters as
    an English word. A word that ends in another script gets both forms.

    >>> attach("비틀즈", "와/과"), attach("조지 해리슨", "은/는")
    ('비틀즈와', '조지 해리슨은')
    >>> attach("NASA", "은/는"), attach("IBM", "은/는"), attach("Google", "을/를")
    ('NASA는', 'IBM은', 'Google을')
    >>> attach("1999", "이/가"), attach("10", "이/가"), attach("35%", "을/를")
    ('1999가', '10이', '35%를')
    >>> attach("장항(長降)", "와/과"), attach("《야매요리》", "을/를"), attach("(주)", "은/는")
    ('장항(長降)과', '《야매요리》를', '(주)는')
    >>> attach("金九", "은/는"), attach("…", "와/과")
    ('金九은(는)', '…와(과)')
    """
    heard = find_last_sound(word)
    if heard is None:
        first, second = particle.split("/")
        return f"{word}{first}({second})"
    attached: str = josa.attach(heard, _OF_HGTK[particle])
    return word + attached[len(heard) :]


def find_last_sound(word: str) -> str | None:
    """Return a Hangul syllable with the same ending as the word; None if it cannot be determined.

    >>> find_last_sound("조지 해리슨"), find_last_sound("제7회"), find_last_sound("No. 7")
    ('슨', '회', '칠')
    >>> find_last_sound("FC"), find_last_sound("Facebook"), find_last_sound("Beyoncé")
    ('씨', '음', '으')
    """
    text = unicodedata.normalize("NFKC", word)
    outside = _BRACKETED_TAIL.sub("", text)
    text = outside if _is_read(outside) else text
    if not _is_read(text):
        return None
    last = next(char for char in reversed(text) if _is_read(char))
    if "가" <= last <= "힣":
        return last
    if last in "0123456789":  # 십, 백, 천, 만 and 억 end on a consonant as 영 does
        return _DIGITS[int(last)]
    return _SIGNS.get(last) or _find_latin_sound(text)


def _is_read(text: str) -> bool:
    """Return whether a text has any character that is pronounced."""
    return any(char.isalnum() or char in _SIGNS for char in text)


def _find_latin_sound(text: str) -> str | None:
    """Return a Hangul syllable for the sound of the Latin letters at the end, ignoring accents.

    The English rule: l, m, n and ng close the syllable, and so do b, c, k, p and t after a vowel.
    """
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    found = re.search(r"([A-Za-z]+)[\W_]*$", bare)
    if found is None:
        return None
    letters = found[1]
    if len(letters) == 1 or letters[-1].isupper():
        return _LETTERS[letters[-1].upper()]
    return "음" if _HEARD_CLOSED.search(letters.lower()) else "으"
