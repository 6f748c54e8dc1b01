"""Keeps keys and tokens out of everything a person, a log or the ledger sees.

A target adds a secret the moment it reads one; ``send`` passes through ``hide`` whatever a platform
said before it is shown or recorded, since servers like to echo what they were sent.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from competition.errors import UploadError

HIDDEN = "***"
MOST_CHARS = 300
SHORTEST_SIGNATURE_CHARS = 20


class Mask:
    """The secrets known so far, in every spelling in which they may come back."""

    def __init__(self) -> None:
        self._spellings: set[str] = set()

    def add(self, secret: str) -> str:
        """Hide a secret from now on, also quoted for a URL or JSON and in base64; return it."""
        plain = secret.strip()
        if plain:
            encoded = base64.b64encode(plain.encode()).decode()
            self._spellings |= {plain, quote(plain, safe=""), quote_plus(plain)}
            self._spellings |= {json.dumps(plain)[1:-1], encoded, encoded.rstrip("=")}
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
            text = text.replace(spelling, HIDDEN)
        return text

    def quote(self, text: str) -> str:
        """Return what a server said as one short printable line without secrets or tags.

        >>> Mask().quote("<h1>Not\\x1b[31m found</h1>")
        'Not [31m found'
        """
        bare = re.sub(r"<[^<>]*>", " ", self.hide(text[:100_000]))
        words = "".join(c if c.isprintable() else " " for c in bare).split()
        line = " ".join(words)
        return line if len(line) <= MOST_CHARS else f"{line[:MOST_CHARS]}…"


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
