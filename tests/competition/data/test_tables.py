"""Tables: what separates fields is seen in each file, whatever another file of the set uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.data.corpus import Reading, compare_quoting
from competition.data.rows import collect_rows
from competition.data.tables import Layout, TableReader
from competition.errors import Offence

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


def test_json_by_column_with_a_shorter_column_is_an_offence(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"text": ["One.", "Two."], "label": ["a", "b", "c"]}')
    offences: list[Offence] = []
    wanted = {"text": "text", "label": "label"}
    assert list(TableReader(path, wanted, offences.append).read()) == []
    assert "2 to 3 values" in offences[0].found


def test_json_with_rows_under_their_labels_is_an_offence(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"met": [{"text": "One."}, {"text": "Two."}], "knows": [{"text": "Three."}]}')
    offences: list[Offence] = []
    assert list(TableReader(path, {"text": "text"}, offences.append).read()) == []
    assert offences[0].found == "JSON with rows in lists of their own under 'met, knows'"


def test_quotes_that_are_read_in_two_ways_are_noticed(tmp_path: Path) -> None:
    spoken, quoted = (tmp_path / f"{name}.tsv" for name in ("spoken", "quoted"))
    spoken.write_text('text\tlabel\n"One" and "two"\ta\n')
    quoted.write_text('text\tlabel\n"One and two"\ta\n')
    readers = [TableReader(path, {"text": "text"}, print) for path in (spoken, quoted)]
    assert [[fields for _, fields in reader.read()] for reader in readers] == [
        [['"One" and "two"']],
        [["One and two"]],
    ]
    assert [reader.quoting for reader in readers] == [False, True]
    readings = [
        Reading(collect_rows([]), (), (), quoting=quoting)
        for quoting in (((), ("spoken.tsv",)), (("quoted.tsv",), ()))
    ]
    (notice,) = compare_quoting(*readings)
    assert (notice.file, "in spoken.tsv" in notice.found) == ("quoted.tsv", True)
    assert compare_quoting(readings[0], readings[0]) == ()
