"""Parse a text as JSON or as a Python literal, without evaluating it."""

from __future__ import annotations

import ast
import re
import warnings
from contextlib import suppress
from typing import Any

from competition.files import parse_json

_LITERAL_START = re.compile(r"\s*\{\s*'")  # a Python dict, as most cells are


def parse_value(text: str) -> Any:
    r"""Parse JSON, or else a Python literal, without evaluating it.

    A text that is both is parsed as JSON. They differ in two escapes only: ``\/`` is a slash in
    JSON, and a surrogate pair is one character. Python's ``repr`` writes neither.

    >>> parse_value(r'{"word": "\ud83d\ude00", "type": null}')["word"] == "😀"
    True
    >>> parse_value("{'word': None}")
    {'word': None}

    Raises:
        ValueError: it is neither.
    """
    if not _LITERAL_START.match(text):
        with suppress(ValueError, RecursionError):
            return parse_json(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in the text
            return ast.literal_eval(text)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from None
