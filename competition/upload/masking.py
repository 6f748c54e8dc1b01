"""Keeps keys and tokens out of everything a person, a log or the ledger sees.

A target adds a secret the moment it reads one; ``send`` passes through ``hide`` whatever a platform
said before it is shown or recorded, since servers like to echo what they were sent.
"""

from __future__ import annotations

import base64
import html.entities
import json
import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from competition.errors import UploadError

HIDDEN = "***"
MOST_CHARS = 300
MOST_QUOTED_CHARS = 100_000
SHORTEST_SIGNATURE_CHARS = 20
# What one character of a secret may come back as is bounded, so that no answer makes it slow.
BACKSLASHES = r"\\{1,4}"


class Mask:
    """The secrets known so far, in every spelling in which they may come back."""

    def __init__(self) -> None:
        self._spellings: dict[str, re.Pattern[str]] = {}

    def add(self, secret: str) -> str:
        """Hide a secret from now on, also in base64 and however it is escaped; return it."""
        plain = secret.strip()
        if plain:
            encoded = base64.b64encode(plain.encode()).decode()
            safe = encoded.replace("+", "-").replace("/", "_")
            for each in {plain, encoded, encoded.rstrip("="), safe, safe.rstrip("=")}:
                self._spellings[each] = compile_spellings(each)
        return secret

    def add_signed(self, url: str, fields: Mapping[str, str] | None = None) -> None:
        """Hide what lets anyone upload: a signed address, or the long values of a signed form."""
        values = [url, *(value for _, value in parse_qsl(urlsplit(url).query))]
        for value in [*values, *(fields or {}).values()]:
            if len(value) >= SHORTEST_SIGNATURE_CHARS:
                self.add(value)

    def hide(self, text: str) -> str:
        """Return a text without secrets.

        >>> mask = Mask()
        >>> key = mask.add("pass word/1")
        >>> mask.hide("refused: pass+word%2F1 (cGFzcyB3b3JkLzE=)")
        'refused: *** (***)'
        """
        for spelling in sorted(self._spellings, key=len, reverse=True):
            text = self._spellings[spelling].sub(HIDDEN, text)
        return text

    def quote(self, text: str) -> str:
        """Return what a server said as one short printable line without secrets or tags.

        >>> Mask().quote("<h1>Not\\x1b[31m found</h1>")
        'Not [31m found'
        """
        hidden = self.hide(text[: 2 * MOST_QUOTED_CHARS])[:MOST_QUOTED_CHARS]
        bare = re.sub(r"<[^<>]*>", " ", hidden)
        words = "".join(c if c.isprintable() else " " for c in bare).split()
        line = " ".join(words)
        return line if len(line) <= MOST_CHARS else f"{line[:MOST_CHARS]}…"


def compile_spellings(secret: str) -> re.Pattern[str]:
    """Compile what a secret may come back as: escaped for JSON, an address, HTML or a program.

    Letters and digits come back as they are; any other character may be escaped in its own way.

    >>> pattern = compile_spellings("a/b")
    >>> [bool(pattern.fullmatch(said)) for said in ("a/b", "a\\\\/b", "a%2fb", "a&#x2F;b", "a-b")]
    [True, True, True, True, False]
    """
    return re.compile("".join(_spell(c) for c in secret))


def _spell(char: str) -> str:
    """Write the pattern of one character; escapes may be nested, as ``%252F`` is."""
    if char.isascii() and char.isalnum():
        return char
    utf16 = char.encode("utf-16-be").hex()
    units = [utf16[place : place + 4] for place in range(0, len(utf16), 4)]
    octets = [f"{octet:02x}" for octet in char.encode()]
    names = [re.escape(name) for name, meant in html.entities.html5.items() if meant == char]
    entities = [f"#0{{0,6}}{ord(char)};?", f"#x0{{0,6}}{ord(char):x};?", *names]
    ways = [
        rf"(?:{BACKSLASHES})?{re.escape(char)}",
        re.escape(json.dumps(char)[1:-1]),
        "".join(rf"{BACKSLASHES}u(?i:{unit})" for unit in units),
        "".join(rf"{BACKSLASHES}x(?i:{octet})" for octet in octets),
        "".join(rf"%(?:25){{0,3}}(?i:{octet})" for octet in octets),
        rf"&(?:amp;){{0,3}}(?i:{'|'.join(entities)})",
        *([r"\+"] if char == " " else []),
    ]
    return f"(?:{'|'.join(ways)})"


def read_secret(variable: str, mask: Mask) -> str:
    """Return a key from the environment; it is hidden from then on.

    Raises:
        UploadError: it is not set, or cannot be sent in a header; the message does not show it.
    """
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise UploadError(f"the environment variable {variable} is not set: put the key there")
    mask.add(secret)
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UploadError(f"{variable} holds characters that no key has; copy it once more")
    return secret
