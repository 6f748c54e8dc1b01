"""A text that holds a value → the value: JSON or a Python literal, never evaluated."""

from __future__ import annotations

import ast
import json
import re
import warnings
from contextlib import suppress
from typing import Any

_LITERAL_START = re.compile(r"\s*\{\s*'")  # of what is no JSON, as most cells are


def parse_value(text: str) -> Any:
    r"""Read JSON, or else a Python literal, without evaluating anything.

    What is both is read as JSON. The two differ in two escapes only: JSON's ``\/`` is a slash, and
    its pair of surrogates is one character, as offsets count it. Python's own writer makes neither.

    >>> parse_value(r'{"word": "\ud83d\ude00", "type": null}')["word"] == "😀"
    True
    >>> parse_value("{'word': None}")
    {'word': None}

    Raises:
        ValueError: it is neither.
    """
    if not _LITERAL_START.match(text):
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in the text are the file's own business
            return ast.literal_eval(text)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from None
