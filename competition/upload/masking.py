"""Mask keys and tokens in everything that is printed or recorded in the ledger.

A target adds each secret as soon as it reads it. All text from a platform passes ``hide`` before it
is shown or recorded, since servers often echo what they were sent.
"""

from __future__ import annotations

import base64
import functools
import html.entities
import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from competition.errors import UploadError

HIDDEN = "***"
MAX_CHARS = 300
MAX_QUOTED_CHARS = 100_000
MIN_SIGNATURE_CHARS = 20


class Mask:
    """The secrets known so far, with patterns of their escaped forms."""

    def __init__(self) -> None:
        self._spellings: dict[str, re.Pattern[str]] = {}

    def add(self, secret: str) -> str:
        """Hide a secret from now on, as plain text, escaped or in base64; return it."""
        plain = secret.strip()
        if plain:
            encoded = base64.b64encode(plain.encode()).decode()
            safe = encoded.replace("+", "-").replace("/", "_")
            for each in {plain, encoded, encoded.rstrip("="), safe, safe.rstrip("=")}:
                self._spellings[each] = compile_spellings(each)
        return secret

    def add_signed(self, url: str, fields: Mapping[str, str] | None = None) -> None:
        """Hide upload credentials: a signed URL, or the long values of a signed form."""
        values = [url, *(value for _, value in parse_qsl(urlsplit(url).query))]
        for value in [*values, *(fields or {}).values()]:
            if len(value) >= MIN_SIGNATURE_CHARS:
                self.add(value)

    def hide(self, text: str) -> str:
        """Replace the secrets in a text.

        >>> mask = Mask()
        >>> key = mask.add("pass word/1")
        >>> mask.hide("refused: pass+word%2F1 (cGFzcyB3b3JkLzE=)")
        'refused: *** (***)'
        """
        for spelling in sorted(self._spellings, key=len, reverse=True):
            text = self._spellings[spelling].sub(HIDDEN, text)
        return text

    def quote(self, text: str) -> str:
        """Return a server's message as one short printable line without secrets or tags.

        >>> Mask().quote("<h1>Not\\x1b[31m found</h1>")
        'Not [31m found'
        """
        hidden = self.hide(text[: 2 * MAX_QUOTED_CHARS])[:MAX_QUOTED_CHARS]
        bare = re.sub(r"<[^<>]*>", " ", hidden)
        words = "".join(c if c.isprintable() else " " for c in bare).split()
        line = " ".join(words)
        return line if len(line) <= MAX_CHARS else f"{line[:MAX_CHARS]}…"


def compile_spellings(secret: str) -> re.Pattern[str]:
    """Compile a pattern of a secret as it is, or escaped for JSON, a URL, HTML or source code.

    Letters and digits are never escaped; each other character may be escaped in its own way.

    >>> pattern = compile_spellings("a/b")
    >>> [bool(pattern.fullmatch(text)) for text in ("a/b", "a\\\\/b", "a%2fb", "a&#x2F;b", "a-b")]
    [True, True, True, True, False]
    """
    return re.compile("".join(map(_escapes, secret)))


@functools.cache
def _escapes(char: str) -> str:
    """Return the pattern of one character; escapes may be nested a few times, as in ``%252F``."""
    if char.isalnum() or not char.isascii():
        return re.escape(char)
    code = f"(?i:{ord(char):02x})"
    entities = [re.escape(name) for name, meant in html.entities.html5.items() if meant == char]
    html_code = "|".join([f"#0{{0,6}}{ord(char)};?", f"#x0{{0,6}}{code};?", *entities])
    patterns = [
        rf"\\{{0,4}}{re.escape(char)}",  # \/ in JSON
        rf"\\{{1,4}}(?:u00|x){code}",  # \u002f in JSON, \x2f in source code
        rf"%(?:25){{0,3}}{code}",  # %2F in a URL
        rf"&(?:amp;){{0,3}}(?i:{html_code})",  # &#x2F; or &sol; in HTML
        *([r"\+"] if char == " " else []),  # in a query
    ]
    return f"(?:{'|'.join(patterns)})"


def read_secret(variable: str, mask: Mask) -> str:
    """Read a key from the environment and add it to a mask.

    Raises:
        UploadError: it is not set, or cannot be sent in a header; the message does not show it.
    """
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise UploadError(f"the environment variable {variable} is not set: set it to your key")
    mask.add(secret)
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UploadError(
            f"{variable} contains characters that are not valid in a key; copy the key again"
        )
    return secret
