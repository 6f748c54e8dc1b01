"""Check each record of a file and build its row; report everything that is invalid.

Called by ``corpus`` for every record. Offences that concern the whole file, such as repeated ids,
are reported at its end.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from competition.console import is_hidden
from competition.data.csv_records import Oddity, show, show_id
from competition.data.entities import (
    WrongCellError,
    check_cell,
    compose,
    compose_entity,
    is_decomposed,
)
from competition.data.row_forms import ROLES, RowForm, Text, open_tokens
from competition.data.rows import Row
from competition.errors import Offence
from competition.profile import Profile

Report = Callable[[Offence], None]
Offend = Callable[[str, str, str], None]


class RowChecker:
    """Checks each record against the profile, and keeps ids for checks of the whole file."""

    def __init__(
        self,
        profile: Profile,
        form: RowForm,
        file: str,
        fields: tuple[str, ...],
        report: Report,
        set_aside: Collection[str] = (),
    ) -> None:
        self._profile = profile
        self._form = form
        self._file = file
        self._fields = fields
        self._report = report
        self._set_aside = frozenset(set_aside)
        self._columns = {
            "id": profile.columns.id,
            "sentence": profile.columns.sentence,
            "label": profile.columns.label,
            "source": profile.columns.source,
            **form.columns,
        }
        self._numbered = profile.columns.label_as == "number"
        self._label_ids = {
            str(i) if self._numbered else label: i for label, i in profile.label_ids.items()
        }
        self._ids: list[str] = []
        self._lines = array("q")
        self._decomposed = Oddity()
        self._passed_over: Counter[str] = Counter()

    def number_labels(self, labels: Sequence[str]) -> None:
        """Read numbers as labels too, in this order."""
        known = self._profile.label_ids
        self._label_ids |= {str(i): known[label] for i, label in enumerate(labels)}

    def check(self, line: int, fields: Sequence[Any]) -> tuple[Row | None, int]:
        """Return the row and its label id (-1 in a test file); the row is None if it is invalid."""
        named = dict(zip(self._fields, fields, strict=True))
        id_ = _text_of(named["id"])
        if id_ in self._set_aside:
            self._passed_over[id_] += 1
            return None, -1
        self._ids.append(id_)
        self._lines.append(line)
        is_clean = True

        def offend(role: str, found: str, remedy: str) -> None:
            nonlocal is_clean
            is_clean = False
            column = self._columns[role]
            self._report(Offence(self._file, line, column, show_id(id_), found, remedy))

        if not id_.strip():
            offend("id", "an empty id", "give every row an id of its own")
        elif not id_.isalnum() and all(is_hidden(char) or char.isspace() for char in id_):
            offend("id", "an id of invisible characters", "give every row a visible id")
        label_id = self._check_label(named, offend)
        form, sentence, text = self._form, named["sentence"], None
        if form.open is not None or not isinstance(sentence, str):
            text = (form.open or open_tokens)(named)  # a list of words is joined
            sentence = text.sentence
        if not sentence.strip():
            offend("sentence", "an empty sentence", "fill it in, or remove the row")
            return None, label_id
        entities = []
        for role in ROLES:
            try:
                if form.read_cell is not None:
                    cell = form.read_cell(named[role])
                else:
                    cell = form.read(role, named, text or Text(sentence))
                entities.append(check_cell(cell, sentence, self._profile, form.names[role]))
            except WrongCellError as wrong:
                offend(role, wrong.found, wrong.remedy)
        if len(entities) < len(ROLES):
            return None, label_id
        source = _text_of(named["source"]) if "source" in named else None
        row = Row(id_, sentence, entities[0], entities[1], source)
        if is_decomposed(sentence):
            row = self._compose(row, line, offend)
        return (row if is_clean else None), label_id

    def _check_label(self, named: dict[str, Any], offend: Offend) -> int:
        label = named.get("label")
        if label is None:
            return -1
        if isinstance(label, str) and label in self._label_ids:
            return self._label_ids[label]
        if self._numbered and str(label).removesuffix(".0") in self._label_ids:
            return self._label_ids[str(label).removesuffix(".0")]  # written by pandas
        if label == self._profile.unknown_label:
            offend(
                "label",
                f"{show(label)} means that the label is unknown",
                "give the train row a label",
            )
        else:
            offend("label", f"unknown label {show(label)}", self._advise_label(label))
        return -1

    def _advise_label(self, label: Any) -> str:
        labels = self._profile.labels
        if self._numbered:
            return f"write the index of the label in labels, 0 to {len(labels) - 1}"
        place = str(label).removesuffix(".0")
        is_place = place.isascii() and place.isdecimal() and len(place) <= 5
        if not is_place or int(place) >= len(labels):
            near = [each for each in labels if _plain(each) == _plain(str(label))]
            meant = f" ({show(near[0])} is one)" if len(near) == 1 else ""
            return f"use one of the profile's labels{meant}"
        return (
            f"these are numbers instead of names: write the names (0 = {labels[0]}, "
            f'1 = {labels[1]}, …), or set columns.label_as = "number" in the profile if the '
            "numbers are indices of its labels"
        )

    def _compose(self, row: Row, line: int, offend: Offend) -> Row:
        """Return the row with composed Hangul and adjusted spans."""
        spans = []
        for role, entity in (("subject", row.subject), ("object", row.object)):
            try:
                spans.append(compose_entity(entity, row.sentence))
            except WrongCellError as wrong:
                offend(role, wrong.found, wrong.remedy)
        if len(spans) < len(ROLES):
            return row
        self._decomposed.meet(line)
        return Row(row.id, compose(row.sentence), spans[0], spans[1], row.source)

    @property
    def count(self) -> int:
        """Return the number of records that were checked."""
        return len(self._ids)

    @property
    def aside(self) -> Counter[str]:
        """Return the ids of records that were skipped, with how often each occurred."""
        return self._passed_over

    def find_repeated_ids(self) -> list[Offence]:
        """Return an offence for every row whose id occurred before."""
        ids = pd.Series(self._ids, dtype="str")
        again = np.flatnonzero(ids.duplicated().to_numpy())
        if not len(again):
            return []
        first: dict[str, int] = {}
        repeated = {self._ids[i] for i in again}
        for id_, line in zip(self._ids, self._lines, strict=True):
            if id_ in repeated:
                first.setdefault(id_, line)
        column = self._profile.columns.id
        return [
            Offence(
                self._file,
                self._lines[i],
                column,
                show_id(self._ids[i]),
                f"the id also occurs on line {first[self._ids[i]]}",
                "give every row an id of its own",
            )
            for i in again
            if self._ids[i].strip()
        ]

    def notices(self) -> list[Offence]:
        """Return the irregularities that were accepted in rows."""
        found = []
        if self._passed_over:
            many = f"{self._passed_over.total():,} rows are set aside by the profile"
            done = "skipped (files.set_aside)"
            found.append(Offence(self._file, None, self._columns["id"], None, many, done))
        met = self._decomposed
        if met.count:
            many = f"decomposed Hangul (NFD) in {met.count:,} rows, first in this one"
            done = "composed (NFC), offsets adjusted"
            column = self._profile.columns.sentence
            found.append(Offence(self._file, met.line, column, None, many, done))
        return found


def _text_of(value: Any) -> str:
    """Return a field as text; in JSON it may have another type."""
    return value if isinstance(value, str) else show(value)


def _plain(label: str) -> str:
    """Write a label without case, spaces and marks, as slips leave it."""
    return "".join(char for char in label.lower() if char.isalnum())
