"""Make rows by hand, without a CSV."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from competition.data.rows import Entity, Row, Rows, collect_rows


def mark(id_: str, text: str, *, types: tuple[str | None, str | None] = ("PER", "ORG")) -> Row:
    """Read ``<subject>`` and ``{object}`` in a text.

    >>> mark("1", "<가>와 {나}").object
    Entity(word='나', start=3, end=4, type='ORG')
    """
    bare = "".join(c for c in text if c not in "<>{}")
    spans = []
    for opening, closing in ("<>", "{}"):
        before = text[: text.index(opening)]
        start = len(before) - sum(c in "<>{}" for c in before)
        spans.append((start, start + text.index(closing) - text.index(opening) - 1))
    subject, obj = (
        Entity(bare[a:b], a, b, type_) for (a, b), type_ in zip(spans, types, strict=True)
    )
    return Row(id_, bare, subject, obj, "wiki")


def in_columns(rows: Sequence[Row], label_ids: Sequence[int] | None = None) -> Rows:
    labels = None if label_ids is None else np.array(label_ids, np.int16)
    return Rows(collect_rows(rows).frame, labels)
