"""Tables: what separates fields is seen in each file, whatever another file of the set uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.data.tables import Layout, TableReader

TAB = Layout(separator="\t")


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("id,label\n1,a\n", TAB),  # a CSV of solutions beside a TSV to train on
        ("id\tlabel\n1\ta\n", TAB),
        ("id,n\tlabel\n1\ta\n", TAB),  # the separator that was named splits off a wanted column
        ("1\ta\n", Layout("\t", ("id", "label"))),
    ],
)
def test_a_separator_that_fits_no_column_is_not_used(
    tmp_path: Path, text: str, layout: Layout
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, "utf-8")
    wanted = {"label": "label"}
    offences: list[object] = []
    rows = list(TableReader(path, wanted, offences.append, layout).read())
    assert [fields for _, fields in rows] == [["a"]]
    assert offences == []


@pytest.mark.parametrize("layout", [Layout(), TAB, Layout(separator=",")])
def test_rows_that_are_only_numbered_have_the_separator_of_most_columns(
    tmp_path: Path, layout: Layout
) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("sentence\tlabel\nOne, two\ta\nthree\tb\n", "utf-8")
    offences: list[object] = []
    rows = list(TableReader(path, {"id": None}, offences.append, layout).read())
    assert [fields for _, fields in rows] == [["0"], ["1"]]
    assert offences == []


def test_quoted_fields_may_contain_line_ends_and_a_separator_that_is_no_comma(
    tmp_path: Path,
) -> None:
    def read(text: str) -> list[list[object]]:
        path = tmp_path / "rows.csv"
        path.write_text(text, "utf-8")
        offences: list[object] = []
        wanted = {"text": "text", "label": "label"}
        rows = [fields for _, fields in TableReader(path, wanted, offences.append).read()]
        assert offences == []
        return rows

    assert read('text;label\nOne.;"a; ""b"""\nTwo.;c\n') == [["One.", 'a; "b"'], ["Two.", "c"]]
    assert read('text\tlabel\n"One.\n""1"""\ta\n\nTwo.\tc\n') == [['One.\n"1"', "a"], ["Two.", "c"]]
    cut = "".join(f'"{i}\n."\ta\n' for i in range(999))
    assert len(read(f"text\tlabel\n{cut}")) == 999
    spoken = '"One, he said.\ta'  # quotes of speech, which do not enclose a field
    assert read(f'text\tlabel\n{spoken}\nTwo."\tb\n') == [['"One, he said.', "a"], ['Two."', "b"]]
