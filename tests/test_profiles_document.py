"""docs/profiles.md: each example is read as printed there, and trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from competition.data.corpus import read_corpus, read_rows
from competition.profile import read_profile, resolve_competition
from competition.submission.form import read_lines
from tests.conftest import RunCommand

TEXT = (Path(__file__).parent.parent / "docs" / "profiles.md").read_text("utf-8")
EXAMPLES = {
    match[3].partition('name = "')[2].partition('"')[0]: (match[1], match[2], match[3])
    for match in re.finditer(r"```(csv|tsv|jsonl)\n(.*?)```\n+```toml\n(.*?)```", TEXT, re.DOTALL)
}
SPANS = {
    "korean-typed": ("비틀즈", "조지 해리슨"),
    "english-markup": ("fire", "spark"),
    "english-tokens": ("Ann Lee", "Bob"),
}


def write_example(home: Path, name: str, copies: int) -> str:
    """Write an example's profile, and its two rows so many times, each a little otherwise."""
    suffix, rows, profile = EXAMPLES[name]
    path = home / f"{name}.toml"
    path.write_text(profile, encoding="utf-8")
    folder = home / name
    folder.mkdir()
    lines = rows.rstrip("\n").split("\n")
    header = [] if suffix == "jsonl" else [lines.pop(0)]
    many = [make_other(line, i, suffix) for i in range(copies) for line in lines]
    for file in ("train", "test"):
        (folder / f"{file}.{suffix}").write_text("\n".join([*header, *many]) + "\n", "utf-8")
    return str(path)


def make_other(line: str, number: int, suffix: str) -> str:
    if not number:
        return line
    if suffix == "jsonl":
        record = json.loads(line)
        record["token"][-1] += str(number)
        return json.dumps({**record, "id": f"{record['id']}{number}"})
    if suffix == "csv":
        id_, rest = line.split(",", 1)
        other = chr(ord("가") + number)  # another name, as long
        for name in ("비틀즈", "한빛사"):
            rest = rest.replace(name, f"{name[:2]}{other}")
        return f"{id_}{number},{rest}"
    return line.replace(".\t", f" {number}.\t").replace("</e1>", f"{number}</e1>")


def test_there_are_three_examples_and_their_rows_read_as_shown(tmp_path: Path) -> None:
    assert EXAMPLES.keys() == SPANS.keys()
    for name, words in SPANS.items():
        suffix = EXAMPLES[name][0]
        profile = read_profile(Path(write_example(tmp_path, name, 1)))
        reading = read_rows(tmp_path / name / f"train.{suffix}", profile, is_train=True)
        assert reading.offences == ()
        row = reading.rows.row(0)
        assert (row.subject.word, row.object.word) == words
        for entity in (row.subject, row.object):
            assert row.sentence[entity.start : entity.end] == entity.word


@pytest.mark.parametrize("name", SPANS)
def test_an_example_is_trained_on_and_predicted(
    tmp_path: Path, name: str, run_command: RunCommand
) -> None:
    path = write_example(tmp_path, name, 12)
    competition = resolve_competition(path, None, None, home=tmp_path)
    assert len(read_corpus(competition).train) == 24
    lines = read_lines(competition)
    assert lines is not None
    assert len(lines[1].written) == 24
    assert "can be trained on" in run_command("data", "--competition", path)
    run_command("fold", "tfidf-linear", "--competition", path)
    folder = tmp_path / "oof" / name / "tfidf-linear"
    assert len(list(folder.glob("*.parquet"))) == 2


def test_init_guesses_what_the_examples_say(tmp_path: Path, run_command: RunCommand) -> None:
    for name in SPANS:
        wanted = read_profile(Path(write_example(tmp_path, name, 12)))
        out = tmp_path / f"{name}-guessed.toml"
        run_command("init", str(tmp_path / name), "--out", str(out))
        guessed = read_profile(out)
        assert guessed.entity == wanted.entity
        assert guessed.columns == wanted.columns
        assert {*guessed.labels} == {*wanted.labels}
        assert guessed.language == wanted.language
